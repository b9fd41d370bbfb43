"""Ranks and scores of the whole market into their tables: of what was just measured, or of what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, delete, select

from core import db
from core.metrics import DEFINITION_VERSION, Column
from core.rank_columns import COMPONENT_COLUMNS, COMPONENTS, KEPT_COLUMNS, RANKED
from core.ranking import Standing, peers_of, rank_market
from core.schema import fund_info, fund_metrics, fund_rank, fund_score
from core.scoring import NO_SCORE, Scoring, load_scoring, score_market

NEEDED = (*RANKED, *(name for name in COMPONENTS if name not in RANKED))
KEY = ("fund_code", "calc_date", "definition_version")
DECIMALS = 4  # of a percentile: of ten thousand peers no two have the same
Floats = NDArray[np.float64]


def rank_stored(connection: Connection, calc_date: date, scoring: Scoring | None = None) -> int:
    """Rank and score the whole market anew from the metrics stored for this date; returns the funds ranked.

    In the caller's transaction, after its metrics are saved: one fund that was recalculated moves the ranks of
    its peers. Of the present definitions version only. Raises ConfigurationError as load_scoring does.
    """
    metric = fund_metrics.c
    columns = (metric.fund_code, metric.nav_count, *(metric[name] for name in NEEDED))
    rows = connection.execute(
        select(*columns)
        .where(metric.calc_date == calc_date, metric.definition_version == DEFINITION_VERSION)
        .order_by(metric.fund_code)
    ).all()
    codes, counts, *values = zip(*rows, strict=True) if rows else [()] * len(columns)
    found = {name: np.array(column, dtype=np.float64) for name, column in zip(NEEDED, values, strict=True)}
    return save(connection, calc_date, codes, np.array(counts, dtype=np.int64), found, scoring)


def save(
    connection: Connection,
    calc_date: date,
    codes: Sequence[str],
    nav_counts: NDArray[np.int64],
    columns: Mapping[str, Column],
    scoring: Scoring | None = None,
) -> int:
    """Replace the ranks and scores of this date by those of the whole market; returns the number of funds.

    `codes` (F,) of every fund that was measured, `nav_counts` (F,) of its NAVs, `columns` a metric (F,) each,
    NaN for null: NEEDED, others are ignored. Type and name come from fund_info; a fund that is not there is
    "other" and stands alone. Idempotent, in the caller's transaction. Raises KeyError for a missing column,
    ConfigurationError as load_scoring does.
    """
    info = fund_info.c
    known = {
        code: (name, category)
        for code, name, category in connection.execute(select(info.fund_code, info.fund_name, info.category))
    }
    names, categories = (
        zip(*(known.get(code, ("", "other")) for code in codes), strict=True) if codes else ((), ())
    )
    peers = peers_of(codes, names, categories, nav_counts)
    standings = rank_market(columns, peers, NEEDED)
    scores = score_market(
        {name: standings[name].percentile for name in COMPONENTS}, scoring or load_scoring()
    )
    heads = [(code, calc_date.isoformat(), DEFINITION_VERSION) for code in codes]
    _replace(connection, fund_rank, calc_date, KEPT_COLUMNS, heads, _rank_values(standings))
    scored = [at for at, category in enumerate(categories) if category not in NO_SCORE]
    values = [
        _nullable(scores.score),
        scores.level,
        scores.known.tolist(),
        *(_nullable(np.round(standings[name].percentile, DECIMALS)) for name in COMPONENTS),
    ]
    names_of_score = ("score", "level", "known_count", *COMPONENT_COLUMNS)
    chosen = [[column[at] for at in scored] for column in values]
    _replace(connection, fund_score, calc_date, names_of_score, [heads[at] for at in scored], chosen)
    return len(codes)


def _replace(
    connection: Connection,
    table: Table,
    calc_date: date,
    names: Sequence[str],
    heads: Sequence[tuple[str, ...]],
    values: Sequence[Sequence[Any]],
) -> None:
    mine = (table.c.calc_date == calc_date, table.c.definition_version == DEFINITION_VERSION)
    connection.execute(delete(table).where(*mine))
    rows = ((*head, *rest) for head, rest in zip(heads, zip(*values, strict=True), strict=True))
    db.bulk_insert(connection, table, (*KEY, *names), rows)


def _rank_values(standings: Mapping[str, Standing]) -> list[list[int | None]]:
    """The columns KEPT_COLUMNS, null as None."""
    found = []
    for name in RANKED:
        of = standings[name]
        null = np.isnan(of.rank)
        found += [_whole(of.rank, null), _whole(of.peers, null)]
    return found


def _whole(values: Floats, null: NDArray[np.bool_]) -> list[int | None]:
    found = np.where(null, 0, values).astype(np.int64).astype(object)
    found[null] = None
    return list(found)


def _nullable(values: Floats) -> list[float | None]:
    found = values.astype(object)
    found[np.isnan(values)] = None
    return list(found)
