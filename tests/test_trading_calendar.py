"""Trading days: facts of the Shanghai exchange, business dates of instants, the stored calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine

from core import db
from core.initialise import ensure_ready, initialise
from core.trading_calendar import (
    CHAIN_DUE,
    MARKET_CLOSE,
    SHANGHAI,
    TradingCalendar,
    library_sessions,
    load_calendar,
    provisional_sessions,
    store_calendar,
)
from tests.conftest import NOW
from tests.example_batch import CLOSED_2025, weekdays


@pytest.fixture(scope="module")
def sessions() -> list[date]:
    return library_sessions()


@pytest.fixture(scope="module")
def calendar(sessions: list[date]) -> TradingCalendar:
    return TradingCalendar(sessions)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


def test_2025_is_as_the_exchange_announced_it(calendar: TradingCalendar) -> None:
    expected = weekdays(date(2025, 1, 1), date(2025, 12, 31))
    assert calendar.between(date(2025, 1, 1), date(2025, 12, 31)) == expected
    assert len(expected) == 261 - len(CLOSED_2025) == 243


@pytest.mark.parametrize(
    ("day", "open_"),
    [
        ("1998-03-27", True),  # the first funds
        ("2024-02-09", False),  # Spring Festival's eve
        ("2025-01-27", True),
        ("2025-02-04", False),
        ("2025-02-05", True),
        ("2025-09-30", True),
        ("2025-10-01", False),
        ("2025-10-08", False),
        ("2025-10-09", True),
        ("2025-10-11", False),  # a working Saturday, not a trading day
        ("2026-01-01", False),
        ("2026-01-02", False),
        ("2026-01-05", True),
    ],
)
def test_sessions_known_from_the_exchange(calendar: TradingCalendar, day: str, open_: bool) -> None:
    assert calendar.is_session(date.fromisoformat(day)) is open_


def test_the_librarys_calendar_begins_with_the_funds_and_ends_with_a_year(sessions: list[date]) -> None:
    assert sessions[0] < date(1998, 3, 1)
    assert sessions == sorted(set(sessions))
    assert sessions[-1] >= date(sessions[-1].year, 12, 29)


@pytest.mark.parametrize(
    ("now", "published", "due"),
    [
        ("2025-12-08 09:00", "2025-12-05", "2025-12-05"),  # Monday morning: Friday
        ("2025-12-08 14:59:59", "2025-12-05", "2025-12-05"),
        ("2025-12-08 15:00", "2025-12-08", "2025-12-05"),
        ("2025-12-08 21:59:59", "2025-12-08", "2025-12-05"),
        ("2025-12-08 22:00", "2025-12-08", "2025-12-08"),
        ("2025-12-09 00:00", "2025-12-08", "2025-12-08"),
        ("2025-12-06 23:00", "2025-12-05", "2025-12-05"),  # Saturday
        ("2025-12-07 23:00", "2025-12-05", "2025-12-05"),  # Sunday
        ("2025-09-30 20:00", "2025-09-30", "2025-09-29"),
        ("2025-10-01 12:00", "2025-09-30", "2025-09-30"),  # Golden Week
        ("2025-10-08 23:00", "2025-09-30", "2025-09-30"),
        ("2025-10-09 10:00", "2025-09-30", "2025-09-30"),
        ("2025-10-09 22:00", "2025-10-09", "2025-10-09"),
        ("2026-01-01 22:00", "2025-12-31", "2025-12-31"),
    ],
)
def test_business_date_of_an_instant(calendar: TradingCalendar, now: str, published: str, due: str) -> None:
    assert calendar.newest_business_date(at(now)).isoformat() == published
    assert calendar.newest_business_date(at(now), MARKET_CLOSE).isoformat() == published
    assert calendar.newest_business_date(at(now), CHAIN_DUE).isoformat() == due


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-8)), timezone(timedelta(hours=14))])
def test_the_business_date_does_not_depend_on_the_clocks_zone(
    calendar: TradingCalendar, zone: timezone
) -> None:
    before, after = at("2025-12-08 14:59:59").astimezone(zone), at("2025-12-08 15:00").astimezone(zone)
    assert calendar.newest_business_date(before) == date(2025, 12, 5)
    assert calendar.newest_business_date(after) == date(2025, 12, 8)


def test_last_and_previous_session(calendar: TradingCalendar) -> None:
    assert calendar.last_session(date(2025, 10, 9)) == date(2025, 10, 9)
    assert calendar.last_session(date(2025, 10, 8)) == date(2025, 9, 30)
    assert calendar.previous_session(date(2025, 10, 9)) == date(2025, 9, 30)
    with pytest.raises(ValueError, match="1990-01-01 is before the first trading day known"):
        calendar.last_session(date(1990, 1, 1))


def test_between_includes_both_ends(calendar: TradingCalendar) -> None:
    days = calendar.between(date(2025, 9, 30), date(2025, 10, 9))
    assert days == [date(2025, 9, 30), date(2025, 10, 9)]
    assert calendar.between(date(2025, 10, 1), date(2025, 10, 8)) == []


def test_a_calendar_without_days_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        TradingCalendar([])


def test_beyond_the_library_weekdays_are_guessed() -> None:
    guesses = provisional_sessions([date(2026, 12, 30), date(2026, 12, 31)], date(2027, 1, 12))
    assert guesses == [date(2027, 1, day) for day in (4, 5, 6, 7, 8, 11, 12)]  # 1 January is a Friday
    assert provisional_sessions([date(2026, 12, 31)], date(2026, 12, 31)) == []


def test_1_january_is_never_guessed() -> None:
    guesses = provisional_sessions([date(2026, 12, 31)], date(2033, 1, 31))
    assert not [day for day in guesses if (day.month, day.day) == (1, 1) or day.weekday() > 4]
    assert date(2030, 1, 2) in guesses


def test_a_calendar_comes_back_from_the_database(engine: Engine) -> None:
    confirmed, guessed = [date(2026, 12, 30), date(2026, 12, 31)], [date(2027, 1, 4)]
    for _ in range(2):  # storing replaces
        with db.write(engine) as connection:
            store_calendar(connection, confirmed, guessed)
    with db.read(engine) as connection:
        found = load_calendar(connection)
    assert found is not None
    assert found.sessions == [*confirmed, *guessed]
    assert found.provisional == {date(2027, 1, 4)}


def test_initialising_fills_the_calendar_400_days_ahead(sqlite_engine: Engine, sessions: list[date]) -> None:
    with db.read(sqlite_engine) as connection:
        found = load_calendar(connection)
    assert found is not None
    assert found.sessions[: len(sessions)] == sessions
    beyond = found.sessions[len(sessions) :]
    assert set(beyond) == found.provisional
    horizon = NOW.date() + timedelta(days=400)
    assert not beyond or horizon - timedelta(days=3) < beyond[-1] <= horizon
    initialise(sqlite_engine, NOW)
    with db.read(sqlite_engine) as connection:
        again = load_calendar(connection)
    assert again is not None
    assert again.sessions == found.sessions


def test_an_emptied_calendar_is_filled_again(sqlite_engine: Engine) -> None:
    with db.write(sqlite_engine) as connection:
        connection.exec_driver_sql("DELETE FROM trade_calendar")
    with db.read(sqlite_engine) as connection:
        assert load_calendar(connection) is None
    ensure_ready(sqlite_engine, NOW)
    with db.read(sqlite_engine) as connection:
        assert load_calendar(connection) is not None


def test_a_year_announced_since_is_found_at_a_start_and_by_no_command(
    sqlite_engine: Engine, sessions: list[date]
) -> None:
    """The second it takes would otherwise be spent by every command of November and December."""
    spring_festival, near = date(2026, 2, 17), datetime(2025, 12, 20, tzinfo=UTC)
    confirmed = [day for day in sessions if day.year < 2026]
    guessed = provisional_sessions(confirmed, date(2026, 12, 31))
    assert spring_festival in guessed
    with db.write(sqlite_engine) as connection:
        store_calendar(connection, confirmed, guessed)

    def known() -> set[date]:
        with db.read(sqlite_engine) as connection:
            found = load_calendar(connection)
        assert found is not None
        return set(found.sessions)

    ensure_ready(sqlite_engine, near)
    assert spring_festival in known()
    ensure_ready(sqlite_engine, near, look_for_years=True)
    assert spring_festival not in known()
