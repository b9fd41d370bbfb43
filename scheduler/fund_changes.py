"""Funds that are new, and funds that ended, within some days."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, and_, exists, func, or_, select

from core.fund_category import CATEGORIES
from core.schema import fund_info, fund_nav, fund_series, money_fund_yield, nav_day
from core.trading_calendar import SHANGHAI

Record = dict[str, Any]
LISTED = 20  # named
KNOWN_BEFORE = timedelta(days=14)  # NAVs this much older than the days: a first NAV in them is news
FIRST_NAV = timedelta(days=60)  # after its inception at the latest a fund has its first NAV
LAST_NAV = timedelta(days=120)  # a fund silent for longer ended before, whenever we learned of it
TABLES = (fund_nav.name, money_fund_yield.name)  # by which the key of a series is found
NEW = ("fund_code", "fund_name", "category", "inception_date", "first_nav")
GONE = ("fund_code", "fund_name", "category", "last_nav")


def place(category: str) -> int:
    return CATEGORIES.index(category) if category in CATEGORIES else len(CATEGORIES)


def new_funds(connection: Connection, first: date, last: date) -> Record:
    """`total`, `by_category` and `listed`: the funds set up in these days, or whose first NAV is of them, by code.

    Of a database that is younger than a fortnight every NAV is a first one: there only the inception tells. A fund
    with NAVs and incomes goes by its NAVs.
    """
    info, series = fund_info.c, fund_series.c
    about = (func.coalesce(info.fund_name, ""), func.coalesce(info.category, "other"), info.inception_date)
    navs = fund_series.alias()
    has_navs = exists().where(navs.c.fund_code == series.fund_code, navs.c.table_name == fund_nav.name)
    either = or_(
        series.table_name == fund_nav.name, and_(series.table_name == money_fund_yield.name, ~has_navs)
    )
    oldest: date | None = connection.scalar(select(func.min(nav_day.c.nav_date)))
    telling = oldest is not None and oldest <= first - KNOWN_BEFORE
    rows = connection.execute(
        select(info.fund_code, *about, series.first_date)
        .select_from(fund_info.outerjoin(fund_series, and_(series.fund_code == info.fund_code, either)))
        .where(info.inception_date.between(first, last))
    ).all()
    if telling:
        young = or_(info.inception_date.is_(None), info.inception_date >= first - FIRST_NAV)
        rows += connection.execute(  # type: ignore[operator]
            select(series.fund_code, *about, series.first_date)
            .select_from(fund_series.outerjoin(fund_info, info.fund_code == series.fund_code))
            .where(series.first_date.between(first, last), young, either)
        ).all()
    found = {row[0]: dict(zip(NEW, row, strict=True)) for row in rows}
    kinds = Counter(record["category"] for record in found.values())
    listed = [found[code] for code in sorted(found)][:LISTED]
    by_category = {name: kinds[name] for name in sorted(kinds, key=place)}
    return {"total": len(found), "by_category": by_category, "listed": listed}


def ended_funds(connection: Connection, first: date, after: date) -> Record:
    """`total` and `listed`: the funds that we learned from `first` on, and before `after`, to be at their end.

    Of a fund that was silent long before, that is no news.
    """
    info, series = fund_info.c, fund_series.c
    since, until = (datetime.combine(day, time(), SHANGHAI) for day in (first, after))
    last_nav = func.max(series.last_date)
    query = (
        select(info.fund_code, info.fund_name, info.category, last_nav)
        .join(fund_series, and_(series.fund_code == info.fund_code, series.table_name.in_(TABLES)))
        .where(
            info.status == "liquidated",
            info.updated_at >= since,
            info.updated_at < until,
        )
        .group_by(info.fund_code, info.fund_name, info.category)
        .having(last_nav >= first - LAST_NAV)
        .order_by(info.fund_code)
    )
    listed = [dict(zip(GONE, row, strict=True)) for row in connection.execute(query)]
    return {"total": len(listed), "listed": listed[:LISTED]}
