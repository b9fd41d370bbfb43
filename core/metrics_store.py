"""Metrics of a date into their table, out of it again, and old ones away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, Table, delete, func, select

from core import db
from core.crash_points import reached
from core.metrics import COLUMNS, DEFINITION_VERSION
from core.metrics_calculator import ROW_COLUMNS, Measured, MetricsRow
from core.schema import fund_metrics, fund_rank, fund_score

SAME = 1e-9  # relative: two ways to the same figure differ by less


def save_metrics(
    connection: Connection,
    calc_date: date,
    rows: Iterable[MetricsRow],
    fund_codes: Sequence[str] | None = None,
) -> int:
    """Replace the metrics of this date (of these funds only, if named); returns the number of rows."""
    old = delete(fund_metrics).where(
        fund_metrics.c.calc_date == calc_date, fund_metrics.c.definition_version == DEFINITION_VERSION
    )
    if fund_codes is not None:
        old = old.where(fund_metrics.c.fund_code.in_(fund_codes))
    connection.execute(old)
    reached("metrics.cleared")
    return db.bulk_insert(connection, fund_metrics, ROW_COLUMNS, rows)


def calc_dates(connection: Connection, table: Table, before: date | None = None) -> Iterator[date]:
    """The dates of fund_metrics, fund_rank or fund_score, newest first: a look each into their key."""
    newest = select(func.max(table.c.calc_date))
    day = connection.scalar(newest if before is None else newest.where(table.c.calc_date < before))
    while day is not None:
        yield day
        day = connection.scalar(newest.where(table.c.calc_date < day))


def delete_metrics_before(connection: Connection, day: date) -> int:
    """Remove metrics, ranks and scores of dates before `day`, but for the last date of each month."""
    removed = 0
    for table in (fund_metrics, fund_rank, fund_score):
        last = {(each.year, each.month): each for each in reversed([*calc_dates(connection, table, day)])}
        old = delete(table).where(table.c.calc_date < day, table.c.calc_date.not_in(list(last.values())))
        removed += connection.execute(old).rowcount
    return removed


def differing(connection: Connection, measured: Measured) -> list[str]:
    """Funds whose stored metrics of that date are not these."""
    metric = fund_metrics.c
    columns = (metric.fund_code, *(metric[name] for name in COLUMNS))
    mine = (metric.calc_date == measured.calc_date, metric.definition_version == DEFINITION_VERSION)
    stored = {row[0]: row[1:] for row in connection.execute(select(*columns).where(*mine))}
    found = []
    for code, row in zip(measured.codes, measured.rows(), strict=True):
        known = stored.get(code)
        if known is not None and not all(map(_same, row[-len(COLUMNS) :], known)):
            found.append(code)
    return found


def _same(new: Any, old: Any) -> bool:
    if isinstance(new, str) or new is None or old is None:
        return bool(new == (old.isoformat() if isinstance(old, date) else old))
    return bool(abs(new - old) <= SAME * max(1.0, abs(old)))
