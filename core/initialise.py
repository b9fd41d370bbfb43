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


def initialise(engine: Engine, now: datetime) -> None:
    """Create or upgrade the tables and fill the calendar. Harmless to repeat. Raises DatabaseUnavailable."""
    db.upgrade(engine)
    confirmed = library_sessions()
    until = now.astimezone(SHANGHAI).date() + timedelta(days=CALENDAR_DAYS_AHEAD)
    with db.write(engine) as connection:
        store_calendar(connection, confirmed, provisional_sessions(confirmed, until))


def ensure_ready(engine: Engine, now: datetime) -> None:
    """Initialise an empty database; raise SchemaOutdated for one of another version."""
    if db.is_empty(engine):
        initialise(engine, now)
    elif not db.is_current(engine):
        raise SchemaOutdated(db.outdated_message(engine))
    with db.read(engine) as connection:
        filled = load_calendar(connection) is not None
    if not filled:
        initialise(engine, now)
