"""Trading days of the Shanghai exchange. Instants come in as arguments; nothing here reads a clock."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, delete, insert, select

from core.schema import trade_calendar

SHANGHAI = ZoneInfo("Asia/Shanghai")
MARKET_CLOSE = time(15, 0)
CHAIN_DUE = time(22, 0)  # collection 19:00, validation 19:30, metrics 20:30, and time to finish
FIRST_DAY = date(1998, 1, 1)  # the first funds are of March 1998


class TradingCalendar:
    """Sorted trading days; those of `provisional` are guesses (weekdays beyond the exchange's notice)."""

    def __init__(self, sessions: Iterable[date], provisional: Iterable[date] = ()) -> None:
        self.sessions = sorted(sessions)
        self.provisional = frozenset(provisional)
        if not self.sessions:
            raise ValueError("a trading calendar needs at least one session")

    def is_session(self, day: date) -> bool:
        at = bisect_left(self.sessions, day)
        return at < len(self.sessions) and self.sessions[at] == day

    def last_session(self, day: date) -> date:
        """The newest session on or before `day`. Raises ValueError before the first."""
        at = bisect_right(self.sessions, day)
        if at == 0:
            raise ValueError(f"{day} is before the first trading day known, {self.sessions[0]}")
        return self.sessions[at - 1]

    def first_session(self, day: date) -> date:
        """The oldest session on or after `day`. Raises ValueError beyond the last."""
        at = bisect_left(self.sessions, day)
        if at == len(self.sessions):
            raise ValueError(f"{day} is after the last trading day known, {self.sessions[-1]}")
        return self.sessions[at]

    def previous_session(self, day: date) -> date:
        return self.last_session(day - timedelta(days=1))

    def between(self, start: date, end: date) -> list[date]:
        """Sessions from `start` to `end`, both included."""
        return self.sessions[bisect_left(self.sessions, start) : bisect_right(self.sessions, end)]

    def newest_business_date(self, now: datetime, since: time = MARKET_CLOSE) -> date:
        """The newest session whose `since` o'clock (Shanghai) has come by `now`.

        With MARKET_CLOSE: the date whose NAVs can be collected now. With CHAIN_DUE: the date the
        tables should have reached; on Monday morning that is Friday.
        """
        local = now.astimezone(SHANGHAI)
        day = local.date()
        return self.last_session(day if local.time() >= since else day - timedelta(days=1))


def library_sessions() -> list[date]:
    """Every session exchange-calendars knows for XSHG since the first fund; ends with a calendar year.

    Slow to import (about a second): used to fill the table, not to read it.
    """
    from exchange_calendars.exchange_calendar_xshg import XSHGExchangeCalendar

    # By default the library stops a year from now, which may be in the middle of what it knows.
    calendar = XSHGExchangeCalendar(start=FIRST_DAY.isoformat(), end=XSHGExchangeCalendar.bound_max())
    return [day.date() for day in calendar.sessions]


def provisional_sessions(confirmed: list[date], until: date) -> list[date]:
    """Guesses beyond the last confirmed year, up to `until`: weekdays but 1 January."""
    first = date(confirmed[-1].year + 1, 1, 1)
    days = (first + timedelta(days=n) for n in range(max(0, (until - first).days + 1)))
    return [day for day in days if likely_session(day)]


def likely_session(day: date) -> bool:
    """What a year that the exchange has not announced will surely have no session on."""
    return day.weekday() < 5 and (day.month, day.day) != (1, 1)


def store_calendar(connection: Connection, confirmed: list[date], provisional: list[date]) -> None:
    """Replace the table's content."""
    connection.execute(delete(trade_calendar))
    rows = [{"cal_date": day, "provisional": False} for day in confirmed]
    rows += [{"cal_date": day, "provisional": True} for day in provisional]
    connection.execute(insert(trade_calendar), rows)


def load_calendar(connection: Connection) -> TradingCalendar | None:
    """The stored calendar, or None before `init` has filled it."""
    rows = connection.execute(select(trade_calendar.c.cal_date, trade_calendar.c.provisional)).all()
    if not rows:
        return None
    return TradingCalendar((day for day, _ in rows), (day for day, guess in rows if guess))
