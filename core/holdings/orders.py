"""What becomes of an order: which day's NAV it gets, when it is confirmed, what it costs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from core.trading_calendar import MARKET_CLOSE, SHANGHAI, TradingCalendar

CENT = Decimal("0.01")
CONFIRMED_AFTER = 1  # sessions; funds that buy abroad take two
CONFIRMED_AFTER_ABROAD = 2
Every = Literal["session", "week", "two_weeks", "month"]


@dataclass(frozen=True)
class Fill:
    """An order that got its NAV: `amount` is what was paid, fee included, or what came in, fee deducted."""

    shares: Decimal
    amount: Decimal
    fee: Decimal


@dataclass(frozen=True)
class Plan:
    """A regular investment: so much every so often, on the first trading day on or after the day it is due."""

    every: Every
    day: int  # of the week, Monday 1; of the month, at most 28
    start: date
    end: date | None = None


def cents(value: Decimal) -> Decimal:
    """To two decimals, half up, as registrars round amounts and shares."""
    return value.quantize(CENT, ROUND_HALF_UP)


def nav_date_of(placed_at: datetime, calendar: TradingCalendar) -> date:
    """The trading day whose NAV an order gets: its own until 15:00 in Shanghai, from then on the next.

    Raises ValueError beyond the calendar.
    """
    local = placed_at.astimezone(SHANGHAI)
    late = local.time() >= MARKET_CLOSE
    return calendar.first_session(local.date() + timedelta(days=late))


def confirm_date_of(nav_date: date, calendar: TradingCalendar, sessions: int = CONFIRMED_AFTER) -> date:
    """So many trading days after the NAV's. Raises ValueError beyond the calendar."""
    for _ in range(sessions):
        nav_date = calendar.first_session(nav_date + timedelta(days=1))
    return nav_date


def bought(amount: Decimal, unit_nav: Decimal, fee_rate: Decimal) -> Fill:
    """`amount` in yuan, fee included; `fee_rate` in percent of the net amount, as funds in China charge it (外扣法):
    net = amount / (1 + rate)."""
    net = cents(amount / (1 + fee_rate / 100))
    return Fill(cents(net / unit_nav), amount, amount - net)


def sold(shares: Decimal, unit_nav: Decimal, fee_rate: Decimal) -> Fill:
    """`fee_rate` in percent of what the shares are worth."""
    worth = cents(shares * unit_nav)
    fee = cents(worth * fee_rate / 100)
    return Fill(shares, worth - fee, fee)


def due_sessions(plan: Plan, since: date, until: date, calendar: TradingCalendar) -> list[date]:
    """The trading days in [since, until] on which the plan invests, each once.

    Two that a holiday moves to the same day are one. Raises ValueError beyond the calendar.
    """
    last = until if plan.end is None else min(until, plan.end)
    days = {
        day for nominal in _nominal(plan, last) if since <= (day := calendar.first_session(nominal)) <= until
    }
    return sorted(days)


def _nominal(plan: Plan, last: date) -> Iterator[date]:
    step = {"session": 1, "week": 7, "two_weeks": 14, "month": 1}[plan.every]
    day = plan.start
    if plan.every in ("week", "two_weeks"):
        day += timedelta(days=(plan.day - day.isoweekday()) % 7)
    while day <= last:
        if plan.every != "month" or day.day == plan.day:
            yield day
        day += timedelta(days=step)
