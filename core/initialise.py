"""A database ready for work: tables of this version, trading calendar filled."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Engine

from core import db
from core.errors import SchemaOutdated
from core.trading_calendar import (
    SHANGHAI,
    library_sessions,
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


def ensure_ready(engine: Engine, now: datetime) -> None:
    """Initialise an empty database, extend a short calendar; raise SchemaOutdated for another version."""
    if db.is_empty(engine):
        initialise(engine, now)
    elif not db.is_current(engine):
        raise SchemaOutdated(db.outdated_message(engine))
    with db.read(engine) as connection:
        calendar = load_calendar(connection)
    today = now.astimezone(SHANGHAI).date()
    if calendar is None or calendar.sessions[-1] - today < timedelta(days=CALENDAR_DAYS_LEFT):
        fill_calendar(engine, now)
