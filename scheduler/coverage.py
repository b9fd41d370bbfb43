"""How many funds of each type have published for a date, of those expected: from the extent of each fund's series.

A fund is expected from its first NAV until ten trading days after its newest one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from datetime import date
from itertools import accumulate
from typing import Any

from sqlalchemy import Column, Connection, case, func, select

from core.fund_category import CATEGORIES
from core.schema import fund_info, fund_series, nav_day
from core.trading_calendar import TradingCalendar
from scheduler.quality import LATE_SESSIONS

Record = dict[str, Any]


def coverage_by_type(connection: Connection, calendar: TradingCalendar, day: date) -> list[Record]:
    """`category`, `expected` and `published` of each type that has funds, in the order of core.fund_category.

    `day` is a trading day; funds with a later row than of that day count as published.
    """
    series, category = fund_series.c, func.coalesce(fund_info.c.category, "other")
    before = calendar.sessions.index(day) - LATE_SESSIONS
    since = calendar.sessions[max(0, before)]
    rows = connection.execute(
        select(category, func.count(), func.sum(case((series.last_date >= day, 1), else_=0)))
        .select_from(fund_series.outerjoin(fund_info, fund_info.c.fund_code == series.fund_code))
        .where(series.first_date <= day, series.last_date >= since)
        .group_by(category)
    )
    found = {name: (expected, int(published)) for name, expected, published in rows}
    names = [*CATEGORIES, *sorted(found.keys() - set(CATEGORIES))]
    return [
        {"category": name, "expected": found[name][0], "published": found[name][1]}
        for name in names
        if name in found
    ]


def coverage_by_day(
    connection: Connection, calendar: TradingCalendar, first: date, last: date
) -> list[Record]:
    """`date`, `expected` and `published` of every trading day from `first` to `last`.

    A fund with both NAVs and incomes counts twice. Of days before the tenth on the calendar too few are expected.
    """
    begun, ended = (
        _running(connection, column) for column in (fund_series.c.first_date, fund_series.c.last_date)
    )
    rows = connection.execute(
        select(nav_day.c.nav_date, func.sum(nav_day.c.row_count))
        .where(nav_day.c.nav_date.between(first, last))
        .group_by(nav_day.c.nav_date)
    )
    published = {day: int(count) for day, count in rows}
    found = []
    for day in calendar.between(first, last):
        since = calendar.sessions[max(0, calendar.sessions.index(day) - LATE_SESSIONS)]
        expected = _until(begun, day, bisect_right) - _until(ended, since, bisect_left)
        found.append({"date": day, "expected": expected, "published": published.get(day, 0)})
    return found


Running = tuple[list[date], list[int]]


def _running(connection: Connection, column: Column[date]) -> Running:
    """The dates there are in a column of fund_series, and how many series have that one or an earlier one."""
    rows = connection.execute(select(column, func.count()).group_by(column).order_by(column)).all()
    return [row[0] for row in rows], list(accumulate(row[1] for row in rows))


def _until(counts: Running, day: date, bisect: Callable[[list[date], date], int]) -> int:
    at = bisect(counts[0], day)
    return counts[1][at - 1] if at else 0
