"""A fund's NAVs as they are stored, or as they were known at an instant (of many funds: core/series_as_of.py).

fund_nav holds the newest version of a row, fund_nav_revision the version that each correction replaced.
A row became known when its first batch was decided; one that was held, with the batch that released it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, func, select

from core.schema import (
    fund_adjustment,
    fund_nav,
    fund_nav_revision,
    money_fund_yield,
    nav_batch,
)

CHUNK = 500
_known_at = func.coalesce(nav_batch.c.decided_at, nav_batch.c.collected_at)


class KnownNav(NamedTuple):
    """One NAV of a fund. Numbers as published, `daily_return` in percent."""

    nav_date: date
    unit_nav: float
    accum_nav: float | None
    daily_return: float | None
    known_at: datetime | None  # when this version became known; None where the batch is not on record
    revisions: int  # corrections that led to this version
    changed_at: datetime | None  # when it was corrected after the instant; None if it still stands


class KnownYield(NamedTuple):
    """One day of a money fund: yuan per 10,000 shares, and percent a year."""

    nav_date: date
    income_per_10k: float | None
    yield_7d: float | None
    known_at: datetime | None


def nav_as_of(
    connection: Connection,
    code: str,
    instant: datetime | None = None,
    start: date | None = None,
    end: date | None = None,
) -> list[KnownNav]:
    """NAVs of a fund from `start` to `end` (both included), by date, as known at `instant`; None: as stored.

    What became known at that very instant was known. A row whose batch is no longer on record counts as known
    from the first. Raises ValueError for a naive instant.
    """
    _refuse_naive(instant)
    rows = connection.execute(_of_fund(fund_nav, code, start, end)).all()
    query = _of_fund(fund_nav_revision, code, start, end)
    by_date: dict[date, list[Row[Any]]] = {}
    for row in connection.execute(query.order_by(fund_nav_revision.c.known_at, fund_nav_revision.c.id)):
        by_date.setdefault(row.nav_date, []).append(row)
    first_batch = {
        row.nav_date: by_date[row.nav_date][0].old_batch_id if row.nav_date in by_date else row.batch_id
        for row in rows
    }
    decided = _decided(connection, first_batch.values())
    found = []
    for row in rows:
        born = decided.get(first_batch[row.nav_date])
        if instant is None or born is None or born <= instant:
            found.append(_version(row, by_date.get(row.nav_date, ()), born, instant))
    return found


def _refuse_naive(instant: datetime | None) -> None:
    if instant is not None and instant.tzinfo is None:
        raise ValueError(f"naive datetime {instant!r}: instants carry a timezone")


def decided_later(instant: datetime) -> Select[tuple[int]]:
    """Ids of the batches that became known after `instant`: none that is no longer on record.

    Raises ValueError for a naive instant.
    """
    _refuse_naive(instant)
    return select(nav_batch.c.id).where(_known_at > instant)


def _version(
    row: Row[Any], revisions: Sequence[Row[Any]], born: datetime | None, instant: datetime | None
) -> KnownNav:
    """The row before the first of its revisions (oldest first) that came after the instant."""
    done = [item for item in revisions if instant is None or item.known_at <= instant]
    known_at = done[-1].known_at if done else born
    if len(done) == len(revisions):
        values = (row.unit_nav, row.accum_nav, row.daily_return)
        return KnownNav(row.nav_date, *values, known_at, len(done), None)
    later = revisions[len(done)]
    values = (later.old_unit_nav, later.old_accum_nav, later.old_daily_return)
    return KnownNav(row.nav_date, *values, known_at, len(done), later.known_at)


def yields_as_of(
    connection: Connection,
    code: str,
    instant: datetime | None = None,
    start: date | None = None,
    end: date | None = None,
) -> list[KnownYield]:
    """A money fund's incomes and yields by date, as far as they were known at `instant`.

    money_fund_yield keeps no earlier versions: a figure that was corrected counts as known since the
    correction. Raises ValueError for a naive instant.
    """
    _refuse_naive(instant)
    rows = connection.execute(_of_fund(money_fund_yield, code, start, end)).all()
    decided = _decided(connection, (row.batch_id for row in rows))
    found = [
        KnownYield(row.nav_date, row.income_per_10k, row.yield_7d, decided.get(row.batch_id)) for row in rows
    ]
    return [row for row in found if instant is None or row.known_at is None or row.known_at <= instant]


def adjustments(connection: Connection, code: str) -> list[tuple[date, float]]:
    """Ex-dates of a fund, oldest first, and what its unit NAV is multiplied with from that date on.

    Before the first of them the adjusted NAV is the unit NAV.
    """
    columns = fund_adjustment.c
    query = select(columns.ex_date, columns.cumulative).where(columns.fund_code == code)
    return [(row.ex_date, row.cumulative) for row in connection.execute(query.order_by(columns.ex_date))]


def _of_fund(table: Table, code: str, start: date | None, end: date | None) -> Any:
    mine: ColumnElement[bool] = table.c.fund_code == code
    if start is not None:
        mine = and_(mine, table.c.nav_date >= start)
    if end is not None:
        mine = and_(mine, table.c.nav_date <= end)
    return select(table).where(mine).order_by(table.c.nav_date)


def _decided(connection: Connection, batches: Iterable[int]) -> dict[int, datetime]:
    """When each of these batches was decided, or collected where that is not on record."""
    ids = sorted(set(batches))
    found: dict[int, datetime] = {}
    for at in range(0, len(ids), CHUNK):
        known = select(nav_batch.c.id, _known_at).where(nav_batch.c.id.in_(ids[at : at + CHUNK]))
        found |= dict(connection.execute(known).all())
    return found
