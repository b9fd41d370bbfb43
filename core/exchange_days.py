"""Trading days of other exchanges than Shanghai's, kept in a table.

The library that knows them costs 90 MB and a second: a process of its own asks it, once a year for each exchange.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Collection
from datetime import date, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from core import db
from core.errors import NavKeeperError
from core.schema import exchange_day, job_change
from core.trading_calendar import TradingCalendar, provisional_sessions

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
FIRST_YEAR = 2005
DAYS_LEFT = timedelta(days=60)
PATIENCE = 120  # seconds
ASK = """
import sys
from exchange_calendars import get_calendar
print(*(day.date() for day in get_calendar(sys.argv[1], start=sys.argv[2], end=sys.argv[3]).sessions), sep="\\n")
"""


def load_exchange(connection: Connection, exchange: str) -> TradingCalendar | None:
    """What is stored, and weekdays for the two years after it; None before `ensure_exchanges` has filled it."""
    days = connection.execute(select(exchange_day.c.cal_date).where(exchange_day.c.exchange == exchange))
    known = sorted(days.scalars())
    if not known:
        return None
    guesses = provisional_sessions(known, date(known[-1].year + 2, 12, 31))
    return TradingCalendar([*known, *guesses], guesses)


def ensure_exchanges(engine: Engine, exchanges: Collection[str], now: datetime) -> bool:
    """Fill in those that are not known for two months from now; whether any was. Raises NavKeeperError."""
    if not exchanges:
        return False
    c = exchange_day.c
    with db.read(engine) as connection:
        query = select(c.exchange, func.max(c.cal_date)).where(c.exchange.in_(list(exchanges)))
        newest = {row[0]: row[1] for row in connection.execute(query.group_by(c.exchange))}
    today = now.date()
    short = [code for code in sorted(exchanges) if newest.get(code, date.min) < today + DAYS_LEFT]
    filled = False
    for code in short:
        days = _ask(code, date(FIRST_YEAR, 1, 1), date(today.year + 1, 12, 31))
        if code in newest and days[-1] <= newest[code]:  # the library knows no further
            continue
        with db.write(engine) as connection:
            connection.execute(delete(exchange_day).where(c.exchange == code))
            connection.execute(insert(exchange_day), [{"exchange": code, "cal_date": day} for day in days])
            connection.execute(update(job_change).values(number=job_change.c.number + 1))
        log.info("%s: trading days to %s", code, days[-1])
        filled = True
    return filled


def _ask(code: str, first: date, last: date) -> list[date]:
    command = [sys.executable, "-c", ASK, code, first.isoformat(), last.isoformat()]
    try:
        found = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE
        )
        days = [date.fromisoformat(line) for line in found.stdout.split()]
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()[-1:] or ["no reason given"]
        raise NavKeeperError(f"the trading days of {code} are not to be had: {said[0]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NavKeeperError(f"the trading days of {code} are not to be had: {error}") from None
    if not days:
        raise NavKeeperError(f"the calendars' library knows no trading days of {code}")
    return days
