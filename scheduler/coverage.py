"""How many funds of each type have published for a date, of those expected: from the extent of each fund's series.

A fund is expected from its first NAV until ten trading days after its newest one.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import Connection, case, func, select

from core.fund_category import CATEGORIES
from core.schema import fund_info, fund_series
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
