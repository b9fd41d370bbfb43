"""config/jobs.toml: what ships, what is refused and how; and what becomes of runs that need others."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler.chain import decide
from scheduler.fund_plugin import TASKS
from scheduler.job import Job, RunStatus
from scheduler.jobs_file import JOBS_FILE, load_jobs
from tests.example_batch import SESSIONS

COLLECT = '[collect]\ntask = "collect_nav"\ncron = { day_of_week = "mon-fri", hour = 19 }\n'


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


@pytest.fixture(scope="module")
def jobs() -> dict[str, Job]:
    return load_jobs(JOBS_FILE)


def test_the_shipped_jobs(jobs: dict[str, Job]) -> None:
    beside = ["reference", "repair", "sweep", "sweep_morning", "weekly"]
    house = ["backup", "cleanup", "monthly", "size_watch"]
    assert sorted(jobs) == sorted(["collect", "metrics", "validate", *beside, *house])
    assert {job.task for job in jobs.values()} <= set(TASKS)
    assert {name: job.needs for name, job in jobs.items() if job.needs} == {
        "validate": ("collect",),
        "metrics": ("validate",),
    }
    assert [name for name, job in jobs.items() if job.holidays_off] == [
        name for name in jobs if name not in ("weekly", *house)
    ]


@pytest.mark.parametrize(
    ("job", "fires"),
    [
        ("collect", [f"2025-12-0{day} 19:00" for day in (1, 2, 3, 4, 5)]),
        ("validate", [f"2025-12-0{day} 19:30" for day in (1, 2, 3, 4, 5)]),
        ("metrics", [f"2025-12-0{day} 20:30" for day in (1, 2, 3, 4, 5)]),
        ("sweep", [f"2025-12-0{day} {hour}:00" for day in (1, 2, 3, 4, 5) for hour in (21, 23)]),
        ("sweep_morning", [f"2025-12-0{day} 08:00" for day in (2, 3, 4, 5, 6)]),
        ("weekly", ["2025-12-07 02:00"]),
        ("cleanup", ["2025-12-07 04:00"]),
        ("backup", [f"2025-12-0{day} 05:30" for day in (1, 2, 3, 4, 5, 6, 7)]),
        ("size_watch", [f"2025-12-0{day} 06:30" for day in (1, 2, 3, 4, 5, 6, 7)]),
        ("monthly", ["2025-12-01 06:00"]),
        ("reference", [f"2025-12-0{day} 18:30" for day in (1, 2, 3, 4, 5)]),
        ("repair", [f"2025-12-0{day} 22:00" for day in (1, 2, 3, 4, 5)]),
    ],
)
def test_when_the_shipped_jobs_fire_in_a_week(jobs: dict[str, Job], job: str, fires: list[str]) -> None:
    found = jobs[job].fires(at("2025-12-01 00:00"), at("2025-12-07 23:59"))
    assert found == [at(fire) for fire in fires]
    # (after, until]: neither lost nor given twice at the seams
    assert jobs[job].fires(found[0], found[-1]) == found[1:]
    assert jobs[job].fires(found[-1] - timedelta(seconds=1), found[-1]) == [found[-1]]
    assert jobs[job].next_fire(found[0] - timedelta(seconds=1)) == found[0]
    assert jobs[job].next_fire(at(fires[0])) != at(fires[0])


def test_holidays_and_business_dates_of_the_shipped_jobs(jobs: dict[str, Job]) -> None:
    calendar = TradingCalendar(SESSIONS)
    holiday, friday, sunday = at("2025-10-01 19:00"), at("2025-12-05 19:00"), at("2025-12-07 02:00")
    assert jobs["collect"].skip_reason(holiday, calendar) == "2025-10-01 is not a trading day"
    assert jobs["collect"].skip_reason(friday, calendar) is None
    assert jobs["collect"].business_date_of(friday, calendar) == date(2025, 12, 5)
    assert jobs["weekly"].skip_reason(sunday, calendar) is None
    assert jobs["weekly"].business_date_of(sunday, calendar) == date(2025, 12, 5)
    assert jobs["weekly"].business_date_of(at("2025-10-05 02:00"), calendar) == date(2025, 9, 30)


@pytest.mark.parametrize(
    ("fire", "business_date", "skipped_for"),
    [
        ("2025-12-02", date(2025, 12, 1), None),  # Tuesday for Monday
        ("2025-12-06", date(2025, 12, 5), None),  # Saturday for Friday
        ("2025-10-01", date(2025, 9, 30), None),  # National Day for the last night before it
        ("2025-10-02", date(2025, 9, 30), "2025-10-01"),
        ("2025-10-09", date(2025, 9, 30), "2025-10-08"),  # the first day of trading after it
        ("2025-10-10", date(2025, 10, 9), None),
        ("2025-05-06", date(2025, 4, 30), "2025-05-05"),  # a Tuesday after a closed Monday
        ("2025-10-11", date(2025, 10, 10), None),  # an office day, yet a Saturday: for Friday all the same
    ],
)
def test_a_morning_sweep_is_for_the_evening_before_it(
    jobs: dict[str, Job], fire: str, business_date: date, skipped_for: str | None
) -> None:
    job, calendar = jobs["sweep_morning"], TradingCalendar(SESSIONS)
    assert job.fires(at(f"{fire} 07:59"), at(f"{fire} 08:00")) == [at(f"{fire} 08:00")]
    assert job.business_date_of(at(f"{fire} 08:00"), calendar) == business_date
    reason = f"{skipped_for} is not a trading day" if skipped_for else None
    assert job.skip_reason(at(f"{fire} 08:00"), calendar) == reason
    assert replace(job, holidays_off=False).skip_reason(at(f"{fire} 08:00"), calendar) is None


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "jobs.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_jobs(path)
    assert "jobs.toml" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('cron = { day_of_week = "0-4", hour = 19 }', "cron", "0-4"),
        ("cron = { day_of_week = 6, hour = 2 }", "cron", "6"),
        ('cron = { day_of_week = "mond", hour = 2 }', "cron", "mond"),
        ("cron = { hour = 25 }", "cron", "25"),
        ("cron = { hours = 19 }", "cron", "hours"),
        ('cron = "0 19 * * *"', "cron", "0 19 * * *"),
        ("cron = 19", "cron", "19"),
        ("retries = 3", "retries", "3"),
        ("timeout_minute = 3", "timeout_minute", "3"),
        ("task = 7", "task", "7"),
        ('calendar = "NYSE"', "calendar", "NYSE"),
        ('business_date = "today"', "business_date", "today"),
        ('business_date = "next_session"', "business_date", "next_session"),
        ('timeout_minutes = "60"', "timeout_minutes", "60"),
        ("timeout_minutes = 0", "timeout_minutes", "0"),
        ("timeout_minutes = true", "timeout_minutes", "True"),
        ("timeout_minutes = nan", "timeout_minutes", "nan"),
        ("wait_hours = -1", "wait_hours", "-1"),
        ('wait_hours = "long"', "wait_hours", "long"),
        ('needs = "collect"', "needs", "collect"),
        ("needs = [7]", "needs", "7"),
        ('needs = ["nothing"]', "needs", "nothing"),
        ('needs = ["other"]', "needs", "other"),  # a job that needs itself
        ("params = 3", "params", "3"),
    ],
)
def test_a_wrong_line_is_refused_naming_job_key_and_value(
    tmp_path: Path, line: str, key: str, value: str
) -> None:
    whole = {"task": 'task = "validate_nav"', "cron": "cron = { hour = 20 }"}
    whole[line.split(" = ")[0]] = line
    message = refusal(tmp_path, f"{COLLECT}\n[other]\n" + "\n".join(whole.values()))
    assert f"[other] {key}" in message
    assert value in message
    assert "is not allowed: " in message


@pytest.mark.parametrize("key", ["task", "cron"])
def test_a_missing_line_is_refused(tmp_path: Path, key: str) -> None:
    text = "\n".join(line for line in COLLECT.splitlines() if not line.startswith(key))
    assert f"[collect] {key} = None is not allowed" in refusal(tmp_path, text)


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    text = "".join(
        f'[{job}]\ntask = "collect_nav"\ncron = {{ hour = 19 }}\nneeds = ["{need}"]\n'
        for job, need in (("a", "b"), ("b", "c"), ("c", "a"))
    )
    message = refusal(tmp_path, text)
    assert "needs = ['b'] is not allowed: a cycle" in message


@pytest.mark.parametrize("text", ["[collect", "collect = 3", "[a]\n[a]\n"])
def test_what_is_no_table_of_jobs_is_refused(tmp_path: Path, text: str) -> None:
    refusal(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml"):
        load_jobs(tmp_path / "nothing.toml")


def test_jobs_come_after_those_they_need(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text(f'[z]\ntask = "validate_nav"\ncron = {{ hour = 1 }}\nneeds = ["collect"]\n{COLLECT}')
    assert list(load_jobs(path)) == ["collect", "z"]


W, Q, R, S, P = RunStatus.WAITING, RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.SUCCESS, RunStatus.PARTIAL
F, T, I, B, K = (  # noqa: E741
    RunStatus.FAILED,
    RunStatus.TIMED_OUT,
    RunStatus.INTERRUPTED,
    RunStatus.BLOCKED,
    RunStatus.SKIPPED,
)


@pytest.mark.parametrize(
    ("upstream", "hours", "decision", "reason"),
    [
        # all done: go, however late
        ((S,), 0, Q, None),
        ((P,), 0, Q, None),
        ((S, P), 13, Q, None),
        # not there or not done yet: wait
        ((None,), 0, W, "waiting for a"),
        ((W,), 1, W, "waiting for a"),
        ((Q,), 1, W, "waiting for a"),
        ((R,), 12, W, "waiting for a"),
        ((S, R), 1, W, "waiting for b"),
        ((R, None), 1, W, "waiting for a, b"),
        # waited too long
        ((None,), 12.1, K, "a did not finish within 12 h"),
        ((R,), 12.1, K, "a did not finish within 12 h"),
        ((S, W), 12.1, K, "b did not finish within 12 h"),
        # failed: blocked until it succeeds after all, given up in the end
        ((F,), 0, B, "a is FAILED"),
        ((T,), 0, B, "a is TIMED_OUT"),
        ((I,), 12, B, "a is INTERRUPTED"),
        ((S, F), 1, B, "b is FAILED"),
        ((R, F), 1, B, "b is FAILED"),
        ((F,), 12.1, K, "a is FAILED after 12 h"),
        # the failure is further up
        ((B,), 1, B, "a is BLOCKED"),
        ((B,), 12.1, K, "a did not finish within 12 h"),
        # a holiday up there is one down here, whatever else happened
        ((K,), 0, K, "a was skipped"),
        ((F, K), 0, K, "b was skipped"),
        ((), 0, Q, None),
    ],
)
def test_what_becomes_of_a_run_that_needs_others(
    jobs: dict[str, Job],
    upstream: tuple[RunStatus | None, ...],
    hours: float,
    decision: RunStatus,
    reason: str | None,
) -> None:
    states = dict(zip("abc", upstream, strict=False))
    found = decide(replace(jobs["validate"], wait_hours=12), timedelta(hours=hours), states)
    assert found == (decision, reason)


def test_the_monthly_report_is_of_the_month_before_its_fire(jobs: dict[str, Job]) -> None:
    """1 October and 1 January are holidays; 1 December 2025 is a trading day itself."""
    calendar = TradingCalendar(SESSIONS)
    fires = jobs["monthly"].fires(at("2025-09-15 00:00"), at("2025-12-31 23:59"))
    assert fires == [at("2025-10-01 06:00"), at("2025-11-01 06:00"), at("2025-12-01 06:00")]
    assert jobs["monthly"].skip_reason(fires[0], calendar) is None
    dates = [jobs["monthly"].business_date_of(fire, calendar) for fire in fires]
    assert dates == [date(2025, 9, 30), date(2025, 10, 31), date(2025, 11, 28)]
