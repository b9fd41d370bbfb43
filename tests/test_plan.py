"""What falls due, what was missed, and what becomes of it. Times are Shanghai's."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest

from core.trading_calendar import TradingCalendar, library_sessions
from scheduler.catch_up import CatchUp, horizon, sort_out
from scheduler.job import Job, RunStatus
from scheduler.jobs_file import JOBS_FILE, load_jobs
from scheduler.plan import PAUSED, plan, plan_run, reaching
from tests.daemon import at

NOW = at(date(2025, 12, 5), 23)
FIRES = [at(date(2025, 12, day), 19) for day in (1, 2, 3, 4, 5)]


@pytest.fixture(scope="module")
def calendar() -> TradingCalendar:
    return TradingCalendar(library_sessions())


@pytest.fixture(scope="module")
def jobs() -> dict[str, Job]:
    return load_jobs(JOBS_FILE)


@pytest.mark.parametrize(
    ("catch_up", "run"),
    [
        (CatchUp("all"), [1, 2, 3, 4, 5]),
        (CatchUp("all", cap=2), [4, 5]),
        (CatchUp("last"), [5]),
        (CatchUp("none"), []),
    ],
)
def test_policies(catch_up: CatchUp, run: list[int]) -> None:
    found = sort_out(catch_up, FIRES, set(), NOW)
    assert [fire for fire, _run in found] == FIRES  # oldest first, the missed ones recorded too
    assert [fire.day for fire, does_run in found if does_run] == run


def test_what_has_a_run_is_left_alone_and_what_is_on_time_always_runs() -> None:
    now = at(date(2025, 12, 5), 19, 1)
    assert sort_out(CatchUp("none"), FIRES, set(FIRES[:4]), now) == [(FIRES[4], True)]
    assert sort_out(CatchUp("all"), FIRES, set(FIRES), now) == []


def test_fires_count_from_the_last_one_that_has_a_run() -> None:
    """So a changed time or a new job does not repeat the past."""
    month, year = NOW - timedelta(days=30), NOW - timedelta(days=3000)
    assert horizon(NOW, month, None) == month
    assert horizon(NOW, NOW - timedelta(minutes=1), NOW) == NOW - timedelta(minutes=1)
    assert horizon(NOW, None, None) == NOW - timedelta(hours=12)  # a first start in the night does that night
    assert horizon(NOW, None, month) == month
    assert horizon(NOW, None, NOW) == NOW - timedelta(hours=12)
    assert horizon(NOW, year, None) == NOW - timedelta(days=400)


def test_what_is_older_than_the_window_is_recorded_and_not_run() -> None:
    found = sort_out(CatchUp("all", days=2.5), FIRES, set(), NOW)
    assert [(fire.day, run) for fire, run in found] == [
        (1, False),
        (2, False),
        (3, True),
        (4, True),
        (5, True),
    ]


def test_a_date_that_the_latest_pages_have_left_is_filled_from_history(
    jobs: dict[str, Job], calendar: TradingCalendar
) -> None:
    tuesday = date(2025, 12, 2)
    missed = plan_run(jobs["collect"], at(tuesday, 19), calendar, NOW)
    assert (missed.task, missed.status) == ("backfill_nav", RunStatus.QUEUED)
    assert missed.params == {"start": "2025-12-02", "end": "2025-12-04", "unless_stored": True}
    tonight = plan_run(jobs["collect"], at(date(2025, 12, 5), 19), calendar, NOW)
    assert (tonight.task, tonight.params) == ("collect_nav", {})
    next_morning = plan_run(
        jobs["collect"], at(date(2025, 12, 5), 19), calendar, at(date(2025, 12, 8), 14, 59)
    )
    assert next_morning.task == "collect_nav"  # until Monday's NAVs can appear


def test_what_is_not_caught_up_is_recorded(jobs: dict[str, Job], calendar: TradingCalendar) -> None:
    missed = plan_run(jobs["weekly"], at(date(2025, 11, 30), 2), calendar, NOW, run=False)
    assert missed.status is RunStatus.MISSED
    assert missed.business_date == date(2025, 11, 28)


def test_the_plan_of_a_golden_week(jobs: dict[str, Job], calendar: TradingCalendar) -> None:
    found = plan(jobs.values(), calendar, at(date(2025, 9, 30), 18), at(date(2025, 10, 9), 23))
    nights = [(run.business_date.day, run.status.value) for run in found if run.job_id == "collect"]
    # 1-3 and 6-8 October are weekdays on which the exchange was closed.
    assert nights == [(30, "QUEUED"), *((day, "SKIPPED") for day in (1, 2, 3, 6, 7, 8)), (9, "QUEUED")]
    assert [run.business_date for run in found if run.job_id == "weekly"] == [date(2025, 9, 30)]
    sweeps = [
        (run.scheduled_for, run.business_date) for run in found if run.task == "sweep_nav" and not run.reason
    ]
    assert sweeps == [
        (at(date(2025, 9, 30), 21), date(2025, 9, 30)),
        (at(date(2025, 9, 30), 23), date(2025, 9, 30)),
        (at(date(2025, 10, 1), 8), date(2025, 9, 30)),
        (at(date(2025, 10, 9), 21), date(2025, 10, 9)),
        (at(date(2025, 10, 9), 23), date(2025, 10, 9)),
    ]


def test_a_paused_job_is_in_the_plan_as_such(jobs: dict[str, Job], calendar: TradingCalendar) -> None:
    found = plan(
        jobs.values(), calendar, at(date(2025, 9, 30), 18), at(date(2025, 10, 1), 23), {"collect", "weekly"}
    )
    chain = [run for run in found if run.job_id in ("collect", "validate") and run.business_date.day == 30]
    reasons = [(run.job_id, run.status.value, run.reason) for run in chain]
    assert reasons == [("collect", "SKIPPED", PAUSED), ("validate", "WAITING", None)]
    holiday = [run.reason for run in found if run.job_id == "collect" and run.business_date.day == 1]
    assert holiday == ["2025-10-01 is not a trading day"]  # it would not run anyway


def test_beyond_what_the_exchange_has_announced_weekdays_are_guessed(jobs: dict[str, Job]) -> None:
    known = TradingCalendar([date(2025, 12, 30), date(2025, 12, 31)])
    new_year = plan([jobs["collect"]], known, at(date(2025, 12, 31), 20), at(date(2026, 1, 6), 20))
    assert [(run.business_date.day, run.status.value) for run in new_year] == [
        (1, "SKIPPED"),
        (2, "QUEUED"),
        (5, "QUEUED"),
        (6, "QUEUED"),
    ]
    assert reaching(known, date(2025, 12, 31)) is known
    further = reaching(known, date(2026, 1, 5))
    assert further.provisional == {date(2026, 1, 2), date(2026, 1, 5)}
    assert reaching(further, date(2026, 1, 6)).sessions[-2:] == [date(2026, 1, 5), date(2026, 1, 6)]


def test_jobs_without_a_calendar_run_on_holidays_too(jobs: dict[str, Job], calendar: TradingCalendar) -> None:
    every_day = replace(jobs["collect"], holidays_off=False, business_date="last_session")
    holiday: datetime = at(date(2025, 10, 1), 19)
    planned = plan_run(every_day, holiday, calendar, at(date(2025, 10, 1), 18))
    assert (planned.status, planned.business_date) == (RunStatus.QUEUED, date(2025, 9, 30))
