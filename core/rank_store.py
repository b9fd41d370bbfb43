"""Ranks and scores of the whole market into their tables: of what was just measured, or of what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, delete, select

from core import db
from core.metrics import DEFINITION_VERSION, Column
from core.metrics_calculator import Measured
from core.metrics_store import save_metrics
from core.rank_columns import COMPONENT_COLUMNS, COMPONENTS, KEPT_COLUMNS, RANKED
from core.ranking import Standing, peers_of, rank_market
from core.schema import fund_info, fund_metrics, fund_rank, fund_score
from core.scoring import NO_SCORE, Scoring, load_scoring, score_market

NEEDED = (*RANKED, *(name for name in COMPONENTS if name not in RANKED))
KEY = ("fund_code", "calc_date", "definition_version")
SCORE_COLUMNS = ("score", "level", "known_count", *COMPONENT_COLUMNS)
DECIMALS = 4  # of a percentile: of ten thousand peers no two have the same
Floats = NDArray[np.float64]
Known = Mapping[str, tuple[str, str]]  # name and category by fund code


class Ranked(NamedTuple):
    """What the tables take of a market; null as None."""

    codes: Sequence[str]
    ranks: list[list[int | None]]  # the columns KEPT_COLUMNS, each (F,)
    scored: list[int]  # which of the funds have a score
    scores: list[list[Any]]  # the columns SCORE_COLUMNS, of those


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
    market = ranked(_known(connection), codes, np.array(counts, dtype=np.int64), found, scoring)
    return _save(connection, calc_date, market)


def save_market(connection: Connection, measured: Measured, scoring: Scoring | None = None) -> int:
    """Replace metrics, ranks and scores of a date by those of the whole market; returns the number of funds.

    Idempotent, in the caller's transaction; while the metrics are written the ranks are worked out. Raises
    ConfigurationError as load_scoring does.
    """
    known = _known(connection)
    with ThreadPoolExecutor(1, thread_name_prefix="ranks") as pool:
        market = pool.submit(ranked, known, measured.codes, measured.nav_counts, measured.columns, scoring)
        save_metrics(connection, measured.calc_date, measured.rows())
        return _save(connection, measured.calc_date, market.result())


def _known(connection: Connection) -> Known:
    info = fund_info.c
    columns = select(info.fund_code, info.fund_name, info.category)
    return {code: (name, category) for code, name, category in connection.execute(columns)}


def ranked(
    known: Known,
    codes: Sequence[str],
    nav_counts: NDArray[np.int64],
    columns: Mapping[str, Column],
    scoring: Scoring | None = None,
) -> Ranked:
    """Ranks and scores of the whole market.

    `codes` (F,) of every fund that was measured, `nav_counts` (F,) of its NAVs, `columns` a metric (F,) each,
    NaN for null: NEEDED, others are ignored. A fund that is not `known` is "other" and stands alone. Raises KeyError
    for a missing column, ConfigurationError as load_scoring does.
    """
    names, categories = (
        zip(*(known.get(code, ("", "other")) for code in codes), strict=True) if codes else ((), ())
    )
    peers = peers_of(codes, names, categories, nav_counts)
    standings = rank_market(columns, peers, NEEDED)
    scores = score_market(
        {name: standings[name].percentile for name in COMPONENTS}, scoring or load_scoring()
    )
    scored = [at for at, category in enumerate(categories) if category not in NO_SCORE]
    values = [
        _nullable(scores.score),
        scores.level,
        scores.known.tolist(),
        *(_nullable(np.round(standings[name].percentile, DECIMALS)) for name in COMPONENTS),
    ]
    return Ranked(
        codes, _rank_values(standings), scored, [[column[at] for at in scored] for column in values]
    )


def _save(connection: Connection, calc_date: date, market: Ranked) -> int:
    codes = [market.codes[at] for at in market.scored]
    _replace(connection, fund_rank, calc_date, KEPT_COLUMNS, market.codes, market.ranks)
    _replace(connection, fund_score, calc_date, SCORE_COLUMNS, codes, market.scores)
    return len(market.codes)


def _replace(
    connection: Connection,
    table: Table,
    calc_date: date,
    names: Sequence[str],
    codes: Sequence[str],
    values: Sequence[Sequence[Any]],
) -> None:
    mine = (table.c.calc_date == calc_date, table.c.definition_version == DEFINITION_VERSION)
    connection.execute(delete(table).where(*mine))
    day, count = calc_date.isoformat(), len(codes)
    rows = zip(codes, [day] * count, [DEFINITION_VERSION] * count, *values, strict=True)
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
