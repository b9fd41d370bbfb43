"""Crontab lines as crontab(5) reads them, held against croniter over lines drawn at random."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import Phase, given, settings, strategies as st

from scheduler.schedule import Every, Never, Once, Schedule

ZONE = ZoneInfo("UTC")
START = datetime(
    2024, 2, 20, 11, 7, 30, tzinfo=UTC
)  # a leap year's end of February comes within the first days


def due(line: str, start: datetime, number: int) -> list[datetime]:
    schedule, found, at = Schedule.of_line(line, ZONE), [], start
    while len(found) < number and (fire := schedule.next_fire(at)) is not None:
        found.append(fire)
        at = fire
    return found


def part(least: int, most: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    # croniter takes 0-0 among weekdays for every day
    span = st.tuples(number, number).filter(lambda p: p[0] < p[1]).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.integers(1, most)
    return st.one_of(
        number.map(str),
        span,
        st.tuples(span, step).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        *([st.sampled_from(names)] if names else []),
    )


def field(least: int, most: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    lists = st.lists(part(least, most, names), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), st.integers(1, max(2, most // 2)).map(lambda n: f"*/{n}"), lists)


DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LINES = st.tuples(
    field(0, 59), field(0, 23), field(1, 28), field(1, 12, ("jan", "feb", "dec")), field(0, 7, DAYS)
)


@settings(max_examples=100, deadline=None, phases=[Phase.generate])
@given(LINES.map(" ".join))
def test_a_line_is_due_when_another_library_says(line: str) -> None:
    other = croniter(
        line, START, implement_cron_bug=True
    )  # its name for what crontab(5) says of * in day fields
    assert due(line, START, 3) == [other.get_next(datetime) for _ in range(3)], line


@pytest.mark.parametrize(
    ("line", "days"),
    [
        # 2 February 2026 is a Monday
        ("0 9 * * 0", ["02-08", "02-15"]),
        ("0 9 * * 7", ["02-08", "02-15"]),
        ("0 9 * * 1", ["02-02", "02-09"]),
        ("0 9 * * 5-7", ["02-06", "02-07", "02-08"]),
        ("0 9 * * fri-mon", ["02-02", "02-06", "02-07", "02-08", "02-09"]),
        ("0 9 * * 6-1", ["02-02", "02-07", "02-08", "02-09"]),
        ("0 9 4 * 1", ["02-02", "02-04", "02-09"]),  # either
        ("0 9 */3 * 1", ["02-16", "03-16"]),  # */3 is 1, 4, 7, …: both
        ("0 9 4 * *", ["02-04", "03-04"]),
        ("0 9 29 2 *", ["02-29"]),  # of 2028
        ("0 9 * 2-3/1 MON", ["02-02", "02-09"]),
    ],
)
def test_days_by_hand(line: str, days: list[str]) -> None:
    found = due(line, datetime(2026, 2, 1, 12, tzinfo=UTC), len(days))
    assert [f"{fire:%m-%d}" for fire in found] == days


@pytest.mark.parametrize(
    "line",
    [
        *("", "0 9 * *", "0 9 * * * *", "60 9 * * *", "0 24 * * *", "0 9 0 * *", "0 9 32 * *", "0 9 * 13 *"),
        *("0 9 * * 8", "0 9 * * mond", "0 9 * * 1#2", "0 9 L * *", "0 9 ? * 1", "5-1 9 * * *", "*/0 9 * * *"),
        *("5/10 9 * * *", "a 9 * * *", "-1 9 * * *", "1, 9 * * *", "1,,2 9 * * *", "@daily", "０ 9 * * *"),
        *("1-2-3 9 * * *", "*-5 9 * * *", "0 9 * * mon-", "² 9 * * *"),
    ],
)
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Schedule.of_line(line, ZONE)


def test_a_line_of_every_second_hour_counts_both_where_the_clock_shows_one_twice() -> None:
    """Autumn in New York: from 6:00 UTC on UTC-5, 1:00 to 2:00 comes twice; as cron fields are read."""
    new_york = ZoneInfo("America/New_York")
    start, end = datetime(2025, 11, 2, 3, tzinfo=UTC), datetime(2025, 11, 2, 9, tzinfo=UTC)
    hourly = Schedule.of_line("30 * * * *", new_york).fires(start, end)
    assert [f"{fire.astimezone(UTC):%H:%M}" for fire in hourly] == [f"{h:02}:30" for h in range(3, 9)]
    once = Schedule.of_line("30 1 * * *", new_york).fires(start, end)
    assert [f"{fire.astimezone(UTC):%H:%M}" for fire in once] == ["05:30"]


def test_an_interval_is_counted_from_its_anchor_whenever_it_is_asked() -> None:
    anchor = datetime(2026, 2, 1, 12, 3, tzinfo=UTC)
    every = Every(timedelta(minutes=10), anchor, ZoneInfo("Asia/Shanghai"))
    minutes = [fire.minute for fire in every.fires(anchor, anchor + timedelta(hours=1))]
    assert minutes == [13, 23, 33, 43, 53, 3]  # (after, until]
    assert every.next_fire(anchor - timedelta(days=9)) == anchor  # not before it
    assert every.next_fire(anchor) == anchor + timedelta(minutes=10)
    assert every.next_fire(anchor + timedelta(minutes=9, seconds=59)) == anchor + timedelta(minutes=10)


def test_an_interval_knows_no_summer_time() -> None:
    """A day in Berlin across the change of 29 March 2026 is 23 hours; a day's interval is 24."""
    berlin = ZoneInfo("Europe/Berlin")
    anchor = datetime(2026, 3, 28, 12, tzinfo=berlin).astimezone(UTC)
    every = Every(timedelta(days=1), anchor, berlin)
    assert [f"{fire:%d %H}" for fire in every.fires(anchor, anchor + timedelta(days=2))] == ["29 13", "30 13"]


def test_once_and_never() -> None:
    at = datetime(2026, 2, 1, 12, tzinfo=UTC)
    once, second = Once(at, ZONE), timedelta(seconds=1)
    assert once.fires(at - second, at) == [at]
    assert once.fires(at, at + second) == []
    assert (once.next_fire(at - second), once.next_fire(at)) == (at, None)
    assert (Never(ZONE).fires(at, at + timedelta(days=400)), Never(ZONE).next_fire(at)) == ([], None)
