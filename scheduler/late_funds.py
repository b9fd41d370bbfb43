"""The funds without a NAV of a date, each with why: late ones, and those that are silent for longer or never had any.

Read from the extent of each fund's series; only of the funds named here anything else is looked up.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, func, or_, select

from config.translation import N_
from core.schema import (
    fund_info,
    fund_nav,
    fund_series,
    money_fund_yield,
    nav_batch,
    quarantine,
    rule_result,
)
from core.trading_calendar import TradingCalendar
from scheduler.quality import LATE_SESSIONS

Record = dict[str, Any]
REASONS = {
    "held": N_("a row of that date is in quarantine"),
    "refused": N_("the night's batch was refused by a gate"),
    "not_collected": N_("nothing was collected for that date yet"),
    "usual_lag": N_("its type usually publishes later"),
    "closed": N_("in a closed period it publishes weekly"),
    "suspended": N_("neither bought nor given back at present"),
    "not_published": N_("the source had no row of that date"),
    "silent": N_("no NAV for more than ten trading days"),
    "never": N_("listed, and no NAV of it is stored"),
}
TABLES = (fund_nav.name, money_fund_yield.name)
ENDED = ("liquidated", "new")  # of these nobody waits for a NAV


def late_funds(connection: Connection, calendar: TradingCalendar, day: date) -> list[Record]:
    """`fund_code`, `fund_name`, `fund_type`, `category`, `newest`, `sessions_behind` and `reason` of each, by code.

    `day` is a trading day; funds with a later row than of that day count as published. `newest` and
    `sessions_behind` are None for a fund without a NAV.
    """
    since = calendar.sessions[max(0, calendar.sessions.index(day) - LATE_SESSIONS)]
    rows = _behind(connection, day)
    night = _night_reason(connection, day)
    held, lags = _held(connection, day), _usual_lags(connection, day)
    found = []
    for row in rows:
        behind = None if row.newest is None else _sessions_between(calendar, row.newest, day)
        record = {
            "fund_code": row.fund_code,
            "fund_name": row.fund_name or "",
            "fund_type": row.fund_type or "",
            "category": row.category or "other",
            "newest": row.newest,
            "sessions_behind": behind,
        }
        if row.newest is None:
            reason = "never"
        elif row.newest < since:
            reason = "silent"
        else:
            reason = _reason(row, behind or 0, row.fund_code in held, night, lags)
        found.append(record | {"reason": reason})
    return found


def _behind(connection: Connection, day: date) -> Sequence[Row[Any]]:
    """Funds whose newest row is older than `day`, and those on the list that have none."""
    series, info = fund_series.c, fund_info.c
    other = fund_series.alias()
    of_either = other.c.table_name.in_(TABLES)  # by which the key is found
    current = exists().where(of_either, other.c.fund_code == series.fund_code, other.c.last_date >= day)
    ended = func.coalesce(info.status, "active").in_(ENDED)
    about = (info.fund_name, info.fund_type, info.category, info.status)
    began = (
        select(series.fund_code, func.max(series.last_date).label("newest"), *about)
        .select_from(fund_series.outerjoin(fund_info, info.fund_code == series.fund_code))
        .where(series.last_date < day, series.first_date <= day, ~ended, ~current)
        .group_by(series.fund_code, *about)
    )
    stored = exists().where(of_either, other.c.fund_code == info.fund_code)
    listed = or_(info.inception_date.is_(None), info.inception_date <= day)
    never = select(info.fund_code, *about).where(~stored, ~ended, listed)
    rows = [*connection.execute(began), *connection.execute(never.add_columns(_NOTHING))]
    return sorted(rows, key=lambda row: str(row.fund_code))


_NOTHING = func.nullif(1, 1).label("newest")


def _sessions_between(calendar: TradingCalendar, newest: date, day: date) -> int:
    return bisect_right(calendar.sessions, day) - bisect_right(calendar.sessions, newest)


def _night_reason(connection: Connection, day: date) -> str:
    """Why a fund of which nothing else is known has no row: what became of the batches of that night."""
    batch = nav_batch.c
    mine = and_(batch.business_date == day, batch.kind.in_(("latest", "sweep")))
    states = set(connection.execute(select(batch.status).where(mine).distinct()).scalars())
    if not states or states <= {"STAGED", "SUPERSEDED", "EXPIRED"}:
        return "not_collected"
    return "not_published" if "MERGED" in states else "refused"


def _held(connection: Connection, day: date) -> set[str]:
    held = quarantine.c
    mine = select(held.fund_code).where(held.nav_date == day, held.resolution.is_(None))
    return set(connection.execute(mine).scalars())


def _usual_lags(connection: Connection, day: date) -> dict[str, int]:
    """By type how many trading days behind the night's gates take for usual (core.gates)."""
    mine = and_(
        nav_batch.c.business_date == day,
        nav_batch.c.kind == "latest",
        rule_result.c.rule_id.startswith("coverage.", autoescape=True),
    )
    query = select(rule_result.c.figures).join(nav_batch, nav_batch.c.id == rule_result.c.batch_id)
    rows = connection.execute(query.where(mine).order_by(rule_result.c.batch_id)).scalars()
    figures = [json.loads(text) for text in rows if text]
    return {each["category"]: int(each["lag"]) for each in figures if each.get("lag") and "category" in each}


def _reason(row: Row[Any], behind: int, held: bool, night: str, lags: dict[str, int]) -> str:
    if held:
        return "held"
    if night != "not_published":
        return night
    if behind <= lags.get(row.category or "other", 0):
        return "usual_lag"
    return row.status if row.status in ("closed", "suspended") else "not_published"
