"""When jobs are due, across summer time. Expected instants by hand: New York is UTC-5, UTC-4 in summer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from scheduler.schedule import Schedule

NEW_YORK = ZoneInfo("America/New_York")
SPRING = datetime(2025, 3, 9, 3, 0, tzinfo=UTC)  # from 7:00 UTC on UTC-4: 2:00 to 3:00 does not exist
AUTUMN = datetime(2025, 11, 2, 2, 0, tzinfo=UTC)  # from 6:00 UTC on UTC-5: 1:00 to 2:00 comes twice
TEN_HOURS = timedelta(hours=10)


@pytest.mark.parametrize("slice_minutes", [1, 7, 600])  # as often as the daemon looks, and after an absence
@pytest.mark.parametrize(
    ("cron", "night", "due"),
    [
        ({"hour": 2, "minute": 30}, SPRING, ["07:30"]),  # 2:30 is left out: half an hour after the gap began
        ({"hour": 3, "minute": 0}, SPRING, ["07:00"]),
        ({"hour": 1, "minute": 30}, SPRING, ["06:30"]),
        ({"hour": 1, "minute": 30}, AUTUMN, ["05:30"]),  # the first of the two
        ({"hour": 2, "minute": 30}, AUTUMN, ["07:30"]),
        ({"hour": 0, "minute": 30}, AUTUMN, ["04:30"]),
        ({"minute": 15}, SPRING, [f"{hour:02}:15" for hour in range(3, 13)]),
        ({"minute": 15}, AUTUMN, [f"{hour:02}:15" for hour in range(2, 12)]),
        ({"hour": "*/2", "minute": 0}, AUTUMN, ["04:00", "07:00", "09:00", "11:00"]),
    ],
)
def test_each_due_time_comes_once(
    cron: dict[str, Any], night: datetime, due: list[str], slice_minutes: int
) -> None:
    schedule, found, at = Schedule.of(cron, NEW_YORK), [], night
    while at < night + TEN_HOURS:
        until = min(at + timedelta(minutes=slice_minutes), night + TEN_HOURS)
        found += schedule.fires(at, until)
        at = until
    assert [f"{fire.astimezone(UTC):%H:%M}" for fire in found] == due


def test_a_year_of_days_has_a_fire_each() -> None:
    schedule = Schedule.of({"hour": 2, "minute": 30}, NEW_YORK)
    year = schedule.fires(datetime(2024, 12, 31, 12, tzinfo=UTC), datetime(2025, 12, 31, 12, tzinfo=UTC))
    assert len({fire.date() for fire in year}) == len(year) == 365


def test_a_time_in_shanghai() -> None:
    shanghai = ZoneInfo("Asia/Shanghai")
    schedule = Schedule.of({"day_of_week": "mon-fri", "hour": 19, "minute": 0}, shanghai)
    friday = datetime(2025, 11, 28, 19, 0, tzinfo=shanghai)
    monday = datetime(2025, 12, 1, 19, 0, tzinfo=shanghai)
    assert schedule.fires(friday - timedelta(seconds=1), friday) == [friday]
    assert schedule.fires(friday, monday) == [monday]
    assert schedule.next_fire(friday) == monday
    assert schedule.next_fire(friday - timedelta(microseconds=1)) == friday


def test_a_day_that_comes_once_in_four_years() -> None:
    schedule = Schedule.of({"month": 2, "day": 29, "hour": 1}, NEW_YORK)
    assert schedule.next_fire(datetime(2025, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, 6, tzinfo=UTC)
    never = Schedule.of({"month": 2, "day": 30, "hour": 1}, NEW_YORK)
    assert never.next_fire(datetime(2025, 1, 1, tzinfo=UTC)) is None
