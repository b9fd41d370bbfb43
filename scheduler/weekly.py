"""A week as one plain record: what came in and what was held, the market by type, what is new, gone, revised, late.

A week are the trading days from Monday to a business date. A fund is expected on each of them from its first NAV
until ten trading days after its newest one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, and_, func, or_, select

from core import db, quarantine as held_back
from core.errors import NotReady, UsageError
from core.schema import (
    fund_info,
    fund_nav,
    fund_nav_revision,
    fund_series,
    money_fund_yield,
    nav_batch,
    nav_day,
    quarantine,
)
from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler import run_store
from scheduler.fund_changes import ended_funds, new_funds, place
from scheduler.quality import LATE_SESSIONS, outcome, steps_of
from scheduler.weekly_market import market

Record = dict[str, Any]
METRICS = ("calculate_metrics", "weekly_full_calc")  # either measures the market
LISTED = 20  # revised funds named
LATE_SHOWN = 10  # funds named in each category


class Fund(NamedTuple):
    """One series on record, with what the fund list says of it."""

    code: str
    name: str
    category: str
    inception: date | None
    first: date
    last: date


def newest_day(engine: Engine, calendar: TradingCalendar) -> date:
    """The newest trading day that any fund has a NAV of. Raises NotReady where none is stored."""
    with db.read(engine) as connection:
        newest: date | None = connection.scalar(select(func.max(nav_day.c.nav_date)))
    if newest is None:
        raise NotReady("no NAV is stored yet; collect some first: python main.py all")
    return calendar.last_session(newest)


def last_day(calendar: TradingCalendar, month: date, newest: date) -> date:
    """The last trading day of a month, or the newest day where that is in it. Raises UsageError for another month."""
    found = calendar.between(month, min(newest, _after("month", month) - timedelta(days=1)))
    if not found:
        raise UsageError(f"there is no trading day of {month:%Y-%m} up to {newest}")
    return found[-1]


def weekly(engine: Engine, calendar: TradingCalendar, business_date: date, span: str = "week") -> Record:
    """Everything on record of the week, or month, that ends with a business date; of which nothing is known is empty.

    Dates are dates, instants aware datetimes; returns, drawdowns and percentiles are in percent.
    """
    week_start = start_of(span, business_date)
    sessions = calendar.between(week_start, business_date)
    with db.snapshot(engine) as connection:
        funds = _funds(connection)
        published = {day: _published(connection, day) for day in sessions}
        expected = {day: _expected(funds, day, calendar) for day in sessions}
        held = _held(connection, week_start, business_date, calendar)
        revised = _revisions(connection, week_start, business_date, calendar, _after(span, week_start))
        return {
            "span": span,
            "business_date": business_date,
            "week_start": week_start,
            "simulated": _simulated(connection, week_start, business_date),
            "days": [
                _day(connection, day, expected[day], published[day])
                | {"held": sum(held["days"][day].values()), "released": held["days"][day]["RELEASED"]}
                | {"revisions": revised["days"][day]}
                for day in sessions
            ],
            "coverage": _coverage(sessions, expected, published),
            "held": {name: held[name] for name in ("total", "open", "released", "rejected", "by_reason")},
            **market(connection, week_start, business_date, span),
            "new": new_funds(connection, week_start, business_date),
            "liquidated": ended_funds(connection, week_start, _after(span, week_start)),
            "revisions": {name: revised[name] for name in ("total", "by_reason", "listed")},
            "late": _late(connection, sessions, expected, published),
        }


def start_of(span: str, business_date: date) -> date:
    """Monday of the week, or the first of the month."""
    back = business_date.weekday() if span == "week" else business_date.day - 1
    return business_date - timedelta(days=back)


def _after(span: str, first: date) -> date:
    """The day after the whole span: what we learn on its last days off is news of it."""
    return first + timedelta(days=7) if span == "week" else start_of("month", first + timedelta(days=31))


def _category() -> ColumnElement[str]:
    return func.coalesce(fund_info.c.category, "other")


def _funds(connection: Connection) -> list[Fund]:
    """Every fund with a series; one with NAVs and incomes by its NAVs."""
    series, info = fund_series.c, fund_info.c
    name = func.coalesce(info.fund_name, "")
    query = (
        select(series.fund_code, name, _category(), info.inception_date, series.first_date, series.last_date)
        .outerjoin(fund_info, info.fund_code == series.fund_code)
        .order_by(series.table_name.desc(), series.fund_code)  # money_fund_yield, then fund_nav
    )
    return sorted({row[0]: Fund(*row) for row in connection.execute(query)}.values())


def _published(connection: Connection, day: date) -> set[str]:
    """The funds with a row of that date, found fund by fund: the tables are ordered by fund, not by date."""
    series, found = fund_series.c, set()
    for table in (fund_nav, money_fund_yield):
        same = and_(table.c.fund_code == series.fund_code, table.c.nav_date == day)
        mine = (series.table_name == table.name, series.first_date <= day, series.last_date >= day)
        query = select(table.c.fund_code).select_from(fund_series.join(table, same)).where(*mine)
        found |= set(connection.execute(query).scalars())
    return found


def _expected(funds: Sequence[Fund], day: date, calendar: TradingCalendar) -> list[Fund]:
    since = calendar.sessions[max(0, calendar.sessions.index(day) - LATE_SESSIONS)]
    return [fund for fund in funds if fund.first <= day and fund.last >= since]


def _simulated(connection: Connection, first: date, last: date) -> bool:
    batch = nav_batch.c
    mine = (batch.business_date.between(first, last), batch.provenance.contains("SIMULATED"))
    return connection.execute(select(batch.id).where(*mine).limit(1)).first() is not None


def _day(connection: Connection, day: date, expected: Sequence[Fund], published: set[str]) -> Record:
    steps = steps_of(connection, day)
    states = {step["step"]: step["status"] for step in steps}
    return {
        "date": day,
        "outcome": outcome(steps) if steps else None,
        "collect": states.get("collect") or states.get("backfill"),
        "validate": states.get("validate") or states.get("backfill"),
        "metrics": _metrics_status(connection, day),
        "expected": len(expected),
        "published": sum(fund.code in published for fund in expected),
    }


def _metrics_status(connection: Connection, day: date) -> str | None:
    states = [row.status for row in run_store.deciding_runs(connection, METRICS, day)]
    return "SUCCESS" if "SUCCESS" in states else states[-1] if states else None


def _coverage(
    sessions: Sequence[date], expected: dict[date, list[Fund]], published: dict[date, set[str]]
) -> list[Record]:
    """By category and trading day: funds expected and those of them that published."""
    due = {day: Counter(fund.category for fund in expected[day]) for day in sessions}
    came = {
        day: Counter(fund.category for fund in expected[day] if fund.code in published[day])
        for day in sessions
    }
    there = {category for counts in due.values() for category in counts}
    return [
        {
            "category": category,
            "days": [
                {"date": day, "expected": due[day][category], "published": came[day][category]}
                for day in sessions
            ],
        }
        for category in sorted(there, key=place)
    ]


def _held(connection: Connection, first: date, last: date, calendar: TradingCalendar) -> Record:
    """Rows of the week's dates in quarantine; one without a date counts for the night that brought it."""
    kept, batch = quarantine.c, nav_batch.c
    dated = select(kept.nav_date, kept.resolution, kept.reasons, func.count()).where(
        kept.nav_date.between(first, last)
    )
    undated = (
        select(batch.business_date, kept.resolution, kept.reasons, func.count())
        .join(nav_batch, batch.id == kept.batch_id)
        .where(kept.nav_date.is_(None), batch.business_date.between(first, last))
    )
    groups = (
        dated.group_by(kept.nav_date, kept.resolution, kept.reasons),
        undated.group_by(batch.business_date, kept.resolution, kept.reasons),
    )
    days: dict[date, Counter[str]] = {day: Counter() for day in calendar.between(first, last)}
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for query in groups:
        for day, resolution, text, count in connection.execute(query):
            session = max(first, calendar.last_session(day))
            days.setdefault(session, Counter())[resolution or "HELD"] += count
            states[resolution or "HELD"] += count
            for reason in text.split(","):
                reasons[reason] += count
    return {
        "days": days,
        "total": states.total(),
        "open": states["HELD"],
        "released": states[held_back.RELEASED],
        "rejected": states[held_back.REJECTED],
        "by_reason": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }


def _revisions(
    connection: Connection, first: date, last: date, calendar: TradingCalendar, after: date
) -> Record:
    """Values of any date that the week's batches corrected, the largest changes first."""
    revision, batch = fund_nav_revision.c, nav_batch.c
    since, until = (datetime.combine(day, time(), SHANGHAI) for day in (first, after))
    history = and_(batch.business_date.is_(None), batch.decided_at >= since, batch.decided_at < until)
    mine = or_(batch.business_date.between(first, last), history)
    joined = fund_nav_revision.join(nav_batch, batch.id == revision.new_batch_id)
    counts = connection.execute(
        select(batch.business_date, batch.decided_at, revision.reason, func.count())
        .select_from(joined)
        .where(mine)
        .group_by(batch.id, batch.business_date, batch.decided_at, revision.reason)
    ).all()
    days: Counter[date] = Counter()
    reasons: Counter[str] = Counter()
    for day, decided, reason, count in counts:
        night = day or decided.astimezone(SHANGHAI).date()
        days[calendar.last_session(min(night, last))] += count
        reasons[reason] += count
    change = (revision.new_unit_nav - revision.old_unit_nav) / revision.old_unit_nav
    largest = connection.execute(
        select(fund_nav_revision, change.label("change"), fund_info.c.fund_name, _category().label("kind"))
        .select_from(joined.outerjoin(fund_info, fund_info.c.fund_code == revision.fund_code))
        .where(mine)
        .order_by(func.abs(change).desc(), revision.id)
        .limit(LISTED)
    )
    return {
        "days": days,
        "total": reasons.total(),
        "by_reason": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "listed": [_revised(row) for row in largest],
    }


def _revised(row: Row[Any]) -> Record:
    values = ("unit_nav", "accum_nav", "daily_return")
    return {
        "fund_code": row.fund_code,
        "fund_name": row.fund_name or "",
        "category": row.kind,
        "nav_date": row.nav_date,
        **{f"{age}_{name}": getattr(row, f"{age}_{name}") for name in values for age in ("old", "new")},
        "change": 100 * float(row.change),
        "reason": row.reason,
        "known_at": row.known_at,
    }


def _late(
    connection: Connection,
    sessions: Sequence[date],
    expected: dict[date, list[Fund]],
    published: dict[date, set[str]],
) -> list[Record]:
    """By category the funds expected on the last day of the week that have no row of it, the most silent first."""
    if not sessions:
        return []
    day = sessions[-1]
    late = [fund for fund in expected[day] if fund.code not in published[day]]
    newest = _newest_until(connection, [fund.code for fund in late], day)
    due = Counter(fund.category for fund in expected[day])
    found = []
    for category in sorted({fund.category for fund in late}, key=place):
        mine = [fund for fund in late if fund.category == category]
        mine.sort(key=lambda fund: (newest.get(fund.code, fund.first), fund.code))
        named = [
            {"fund_code": fund.code, "fund_name": fund.name, "newest": newest.get(fund.code)}
            for fund in mine[:LATE_SHOWN]
        ]
        record = {"category": category, "expected": due[category], "late": len(mine), "funds": named}
        found.append(record)
    return found


def _newest_until(connection: Connection, codes: Sequence[str], day: date) -> dict[str, date]:
    """The newest date up to `day` of each of these funds, of which a week after it there may be later ones."""
    newest: dict[str, date] = {}
    since = day - timedelta(days=40)
    for table in (fund_nav, money_fund_yield):
        for start in range(0, len(codes), 500):
            newest |= _newest_of(connection, table, codes[start : start + 500], since, day)
    return newest


def _newest_of(
    connection: Connection, table: Table, codes: Sequence[str], since: date, day: date
) -> dict[str, date]:
    mine = (table.c.fund_code.in_(codes), table.c.nav_date.between(since, day))
    query = select(table.c.fund_code, func.max(table.c.nav_date)).where(*mine).group_by(table.c.fund_code)
    return dict(connection.execute(query).all())
