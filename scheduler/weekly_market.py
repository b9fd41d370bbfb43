"""The market of a week as plain records: returns and drawdowns by type, best and worst funds, rank movers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, and_, func, select

from core.distribution import distribution
from core.fund_category import CATEGORIES
from core.metrics import DEFINITION_VERSION
from core.ranking import Peers, peers_of, representatives
from core.schema import fund_info, fund_metrics, fund_rank

Record = dict[str, Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RETURN = {"week": "return_1w", "month": "return_1m"}
DRAWDOWN, MOVED = "max_drawdown_1y", "return_1y"
EXTREMES = 10  # of the whole market
EXTREMES_OF_TYPE = 3
MOVERS = 10
FRESH = timedelta(days=14)  # an older date is not the week before: a holiday takes ten days at most


class Measured(NamedTuple):
    """The funds with metrics of one date whose newest NAV is of the week, ordered by code; every array (F,)."""

    funds: list[Record]
    metric: str  # what the returns are
    returns: Floats
    drawdowns: Floats
    peers: Peers


def market(connection: Connection, week_start: date, business_date: date, span: str) -> Record:
    """Of the newest metrics within the week: `calc_date`, `types`, `best`, `worst`, `extremes` and `movers`.

    Of the share classes of a fund one counts (core.ranking). Percent; without metrics `calc_date` is None.
    """
    calc_date = _newest(connection, fund_metrics, week_start, business_date)
    metric = RETURN[span]
    found = _measured(connection, calc_date, week_start, metric) if calc_date else _of_rows([], metric)
    stands = representatives(found.returns, found.peers)
    best, worst = _extremes(found, stands, EXTREMES)
    return {
        "metric": metric,
        "calc_date": calc_date,
        "types": [_of_type(found, name) for name in _categories(found)],
        "best": best,
        "worst": worst,
        "extremes": [_extremes_of_type(found, stands, name) for name in _categories(found)],
        "movers": _movers(connection, calc_date, week_start, found) if calc_date else None,
    }


def spreads(connection: Connection, since: date, until: date) -> Record:
    """What `market` says of the types alone, of the newest metrics of these days."""
    calc_date = _newest(connection, fund_metrics, since, until)
    metric = RETURN["week"]
    found = _measured(connection, calc_date, since, metric) if calc_date else _of_rows([], metric)
    types = [_of_type(found, name) for name in _categories(found)]
    return {"span": "week", "metric": metric, "calc_date": calc_date, "types": types}


def _newest(connection: Connection, table: Any, first: date, last: date) -> date | None:
    mine = (table.c.calc_date.between(first, last), table.c.definition_version == DEFINITION_VERSION)
    newest: date | None = connection.scalar(select(func.max(table.c.calc_date)).where(*mine))
    return newest


def _measured(connection: Connection, calc_date: date, week_start: date, returned: str) -> Measured:
    """A fund without a NAV in the week has no return of it."""
    metric, info = fund_metrics.c, fund_info.c
    rows = connection.execute(
        select(
            metric.fund_code,
            func.coalesce(info.fund_name, ""),
            func.coalesce(info.category, "other"),
            metric.nav_count,
            metric[returned],
            metric[DRAWDOWN],
        )
        .outerjoin(fund_info, info.fund_code == metric.fund_code)
        .where(
            metric.calc_date == calc_date,
            metric.definition_version == DEFINITION_VERSION,
            metric.nav_date >= week_start,
        )
        .order_by(metric.fund_code)
    ).all()
    return _of_rows([tuple(row) for row in rows], returned)


def _of_rows(rows: Sequence[tuple[Any, ...]], metric: str) -> Measured:
    codes, names, kinds, counts, returns, drawdowns = zip(*rows, strict=True) if rows else ((),) * 6
    categories = [name if name in CATEGORIES else "other" for name in kinds]
    funds = [
        {"fund_code": code, "fund_name": name, "category": category}
        for code, name, category in zip(codes, names, categories, strict=True)
    ]
    return Measured(
        funds,
        metric,
        np.array(returns, dtype=np.float64),
        np.array(drawdowns, dtype=np.float64),
        peers_of(codes, names, categories, np.array(counts, dtype=np.int64)),
    )


def _categories(found: Measured) -> list[str]:
    there = {fund["category"] for fund in found.funds}
    return [name for name in CATEGORIES if name in there]


def _of_kind(found: Measured, category: str) -> Bools:
    return np.asarray(found.peers.kind == CATEGORIES.index(category))


def _of_type(found: Measured, category: str) -> Record:
    mine = _of_kind(found, category)
    spreads = {
        metric: distribution(values[mine & representatives(values, found.peers)])
        for metric, values in ((found.metric, found.returns), (DRAWDOWN, found.drawdowns))
    }
    if category == "money":
        spreads[DRAWDOWN] = None  # a few that are traded have NAVs, which never fall
    return {"category": category, **spreads}


def _extremes(found: Measured, chosen: Bools, most: int) -> tuple[list[Record], list[Record]]:
    """The best, best first, and the worst, worst first; equal ones by code. No fund is in both."""
    at = np.flatnonzero(chosen)
    order = at[np.argsort(-found.returns[at], kind="stable")]
    upper = order[: (len(order) + 1) // 2]
    lower = order[len(upper) :]
    lower = lower[np.argsort(found.returns[lower], kind="stable")]
    best, worst = (
        [found.funds[n] | {found.metric: float(found.returns[n])} for n in part[:most].tolist()]
        for part in (upper, lower)
    )
    return best, worst


def _extremes_of_type(found: Measured, stands: Bools, category: str) -> Record:
    best, worst = _extremes(found, stands & _of_kind(found, category), EXTREMES_OF_TYPE)
    return {"category": category, "best": best, "worst": worst}


def _movers(connection: Connection, calc_date: date, week_start: date, found: Measured) -> Record | None:
    """Largest changes of percentile within the type since the last ranks of the week before; None without those."""
    before = _newest(connection, fund_rank, week_start - FRESH, week_start - timedelta(days=1))
    if before is None:
        return None
    now, old = fund_rank.alias(), fund_rank.alias()
    parts = ("rank", "peers", "percentile")
    columns = [table.c[f"{part}_{MOVED}"] for table in (now, old) for part in parts]
    same = and_(
        old.c.fund_code == now.c.fund_code,
        old.c.definition_version == now.c.definition_version,
        old.c.calc_date == before,
    )
    rows = connection.execute(
        select(now.c.fund_code, *columns)
        .join(old, same)
        .where(
            now.c.calc_date == calc_date,
            now.c.definition_version == DEFINITION_VERSION,
            now.c[f"rank_{MOVED}"].is_not(None),
            old.c[f"rank_{MOVED}"].is_not(None),
        )
    )
    ranks = {row[0]: row[1:] for row in rows}
    moved = np.full(len(found.funds), np.nan)
    for at, fund in enumerate(found.funds):
        if fund["fund_code"] in ranks:
            _rank, _peers, new, _rank, _peers, past = ranks[fund["fund_code"]]
            moved[at] = new - past
    order = np.flatnonzero(representatives(moved, found.peers) & (moved != 0))
    order = order[np.argsort(-moved[order], kind="stable")]
    up, down = order[moved[order] > 0], order[moved[order] < 0][::-1]
    return {
        "metric": MOVED,
        "since": before,
        "count": int(np.isfinite(moved[representatives(moved, found.peers)]).sum()),
        "up": _moved(found, ranks, moved, up[:MOVERS].tolist()),
        "down": _moved(found, ranks, moved, down[:MOVERS].tolist()),
    }


def _moved(found: Measured, ranks: dict[str, Any], moved: Floats, at: Iterable[int]) -> list[Record]:
    names = ("rank", "peers", "percentile", "rank_before", "peers_before", "percentile_before")
    return [
        found.funds[n]
        | dict(zip(names, ranks[found.funds[n]["fund_code"]], strict=True))
        | {"change": round(float(moved[n]), 4)}
        for n in at
    ]
