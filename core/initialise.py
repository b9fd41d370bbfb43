"""A database ready for work: tables of this version, trading calendar filled."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, func, insert, select

from core import db
from core.errors import SchemaOutdated
from core.schema import trade_calendar
from core.trading_calendar import (
    SHANGHAI,
    library_sessions,
    likely_session,
    load_calendar,
    provisional_sessions,
    store_calendar,
)

CALENDAR_DAYS_AHEAD = 400
CALENDAR_DAYS_LEFT = 60


def initialise(engine: Engine, now: datetime) -> None:
    """Create or upgrade the tables and fill the calendar. Harmless to repeat. Raises DatabaseUnavailable."""
    db.upgrade(engine)
    fill_calendar(engine, now)


def fill_calendar(engine: Engine, now: datetime) -> None:
    """Every session the library knows, and guesses for the year beyond."""
    confirmed = library_sessions()
    until = now.astimezone(SHANGHAI).date() + timedelta(days=CALENDAR_DAYS_AHEAD)
    with db.write(engine) as connection:
        store_calendar(connection, confirmed, provisional_sessions(confirmed, until))


def ensure_ready(engine: Engine, now: datetime, *, look_for_years: bool = False) -> None:
    """Initialise an empty database, extend a short calendar; raise SchemaOutdated for another version.

    `look_for_years`: the library may know another year than it did when the calendar was filled. That takes a
    second, so a daemon asks for it when it starts, and a command does not.
    """
    if db.is_empty(engine):
        initialise(engine, now)
    elif not db.is_current(engine):
        raise SchemaOutdated(db.outdated_message(engine))
    with db.read(engine) as connection:
        calendar = load_calendar(connection)
    known = calendar.sessions if calendar else []
    if look_for_years and calendar is not None:
        known = [day for day in known if day not in calendar.provisional]
    today = now.astimezone(SHANGHAI).date()
    if not known or known[-1] - today < timedelta(days=CALENDAR_DAYS_LEFT):
        fill_calendar(engine, now)


def guess_further(connection: Connection, now: datetime) -> None:
    """For a daemon that runs for years: weekdays beyond the calendar's end, when that is near."""
    today = now.astimezone(SHANGHAI).date()
    newest = connection.execute(select(func.max(trade_calendar.c.cal_date))).scalar()
    if newest is None or newest - today >= timedelta(days=CALENDAR_DAYS_LEFT):
        return
    until = today + timedelta(days=CALENDAR_DAYS_AHEAD)
    days = (newest + timedelta(days=n + 1) for n in range((until - newest).days))
    rows = [{"cal_date": day, "provisional": True} for day in days if likely_session(day)]
    connection.execute(insert(trade_calendar), rows)
