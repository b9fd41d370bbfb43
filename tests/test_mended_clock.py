"""What a clock that was ahead, a jobs file that changed, and a schedule that gave up leave behind."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from core import db
from core.initialise import guess_further
from core.schema import job_run, trade_calendar
from core.trading_calendar import load_calendar
from scheduler import run_store
from scheduler.chain import release_given_up, release_waiting
from scheduler.firing import Firing
from scheduler.job import Job, RunStatus
from scheduler.job_scheduler import BEAT_SECONDS, Beat
from scheduler.jobs_file import load_jobs
from scheduler.leadership import Leadership
from scheduler.process_identity import this_process
from scheduler.run_store import End
from tests.daemon import SWEEPS, at, jobs_file

MONDAY = date(2025, 12, 1)
THURSDAY = MONDAY + timedelta(days=3)


@pytest.fixture
def leader(engine: Engine) -> Iterator[Leadership]:
    found = Leadership(db.connect(engine.url, supervising=True), this_process())
    assert found.acquire(at(MONDAY, 10))
    yield found
    found.close()
    found.engine.dispose()


@pytest.fixture
def jobs(tmp_path: Path) -> dict[str, Job]:
    return load_jobs(jobs_file(tmp_path, without=(*SWEEPS, "weekly")))


def found(engine: Engine) -> list[tuple[str, date, str]]:
    query = select(job_run).where(job_run.c.scheduled_for.is_not(None)).order_by(job_run.c.scheduled_for)
    with db.read(engine) as connection:
        return [(row.job_id, row.business_date, row.status) for row in connection.execute(query)]


def run_of(engine: Engine, job: str, day: date) -> int:
    query = select(job_run.c.id).where(job_run.c.job_id == job, job_run.c.business_date == day)
    with db.read(engine) as connection:
        return int(connection.execute(query.order_by(job_run.c.id.desc()).limit(1)).scalar_one())


def finish(engine: Engine, run_id: int, end: End, now: datetime) -> None:
    """As its child would."""
    with db.write(engine) as connection:
        run = run_store.get_run(connection, run_id)
        assert run is not None
        claim = run_store.claim_run(connection, run, this_process(), now)
        assert claim is not None
        assert run_store.end_run(connection, run, end, now, claim=claim, table_name="t")


def test_dates_of_a_clock_that_was_ahead_come_again(
    engine: Engine, leader: Leadership, jobs: dict[str, Job]
) -> None:
    """Monday morning reads Thursday for one beat: Monday's to Wednesday's nights must still be done."""
    firing = Firing(leader, jobs)
    firing.fire_due(at(MONDAY, 10))
    firing.fire_due(at(THURSDAY, 10))
    assert {day for _job, day, _status in found(engine)} == {MONDAY + timedelta(days=n) for n in range(3)}
    firing.fire_due(at(MONDAY, 10, 1))
    assert found(engine) == []
    firing.fire_due(at(MONDAY, 19))
    assert found(engine) == [("collect", MONDAY, "QUEUED")]


def test_what_ran_while_the_clock_was_ahead_stays_done(
    engine: Engine, leader: Leadership, jobs: dict[str, Job]
) -> None:
    firing = Firing(leader, jobs)
    firing.fire_due(at(MONDAY, 10))
    firing.fire_due(at(MONDAY, 19))
    finish(engine, run_of(engine, "collect", MONDAY), End(RunStatus.SUCCESS, 5), at(MONDAY, 19))
    firing.fire_due(at(MONDAY, 17))  # two hours back
    firing.fire_due(at(MONDAY, 19, 1))
    assert found(engine) == [("collect", MONDAY, "SUCCESS")]


def test_another_time_in_the_jobs_file_does_not_repeat_the_past(
    engine: Engine, leader: Leadership, jobs: dict[str, Job], tmp_path: Path
) -> None:
    firing = Firing(leader, jobs)
    firing.fire_due(at(MONDAY, 10))
    firing.fire_due(at(THURSDAY, 23))
    before = found(engine)
    assert len(before) == 12  # four nights of three
    moved = load_jobs(
        jobs_file(
            tmp_path, ("hour = 19, minute = 0 }", "hour = 18, minute = 55 }"), without=(*SWEEPS, "weekly")
        )
    )
    Firing(leader, moved).fire_due(at(THURSDAY, 23, 1))
    assert found(engine) == before


def test_a_chain_that_was_given_up_goes_on_when_its_upstream_succeeds_after_all(
    engine: Engine, leader: Leadership, jobs: dict[str, Job]
) -> None:
    Firing(leader, jobs).fire_due(at(MONDAY, 20, 31))
    collect = run_of(engine, "collect", MONDAY)
    finish(engine, collect, End(RunStatus.FAILED, 0, "no"), at(MONDAY, 20, 31))
    late = at(MONDAY + timedelta(days=1), 12)
    release_waiting(leader, jobs, late)
    release_waiting(leader, jobs, late)
    assert [status for _job, _day, status in found(engine)] == ["FAILED", "SKIPPED", "SKIPPED"]
    release_given_up(leader, jobs, late)
    assert [status for _job, _day, status in found(engine)] == ["FAILED", "SKIPPED", "SKIPPED"]
    with db.write(engine) as connection:
        run = run_store.get_run(connection, collect)
        assert run is not None
        assert run_store.try_again(connection, run, "by hand", late)
    finish(engine, collect, End(RunStatus.SUCCESS, 5), late + timedelta(minutes=1))
    release_given_up(leader, jobs, late + timedelta(minutes=2))
    assert [status for _job, _day, status in found(engine)] == ["SUCCESS", "QUEUED", "SKIPPED"]


def test_waiting_runs_of_a_job_that_is_gone_do_not_wait_for_ever(
    engine: Engine, leader: Leadership, jobs: dict[str, Job]
) -> None:
    Firing(leader, jobs).fire_due(at(MONDAY, 20, 31))
    release_waiting(leader, {"collect": jobs["collect"]}, at(MONDAY, 20, 32))
    assert [status for _job, _day, status in found(engine)] == ["QUEUED", "SKIPPED", "SKIPPED"]


def test_a_run_asked_for_anew_has_all_its_attempts_again(engine: Engine, jobs: dict[str, Job]) -> None:
    policy = replace(jobs["collect"].retry, attempts=2)
    now = at(MONDAY, 19)
    with db.write(engine) as connection:
        run_id = run_store.add_run(
            connection,
            job_id="collect",
            task="collect_nav",
            business_date=MONDAY,
            status=RunStatus.QUEUED,
            now=now,
            retry=policy,
        )
    assert run_id is not None
    states = []
    for again in (False, False, True, False):
        with db.write(engine) as connection:
            run = run_store.get_run(connection, run_id)
            assert run is not None
            if again:
                assert run_store.try_again(connection, run, "by hand", now)
        now += timedelta(minutes=5)
        finish(engine, run_id, End(RunStatus.FAILED, 0, "no", retry=True), now)
        with db.read(engine) as connection:
            states.append(connection.execute(select(job_run.c.status)).scalar_one())
    assert states == ["QUEUED", "FAILED", "QUEUED", "FAILED"]


def test_the_calendar_is_guessed_further_before_it_ends(engine: Engine) -> None:
    with db.read(engine) as connection:
        before = load_calendar(connection)
    assert before is not None
    last = before.sessions[-1]
    near = datetime(last.year, last.month, last.day, 4, tzinfo=UTC) - timedelta(days=30)
    with db.write(engine) as connection:
        guess_further(connection, near - timedelta(days=60))
        assert load_calendar(connection).sessions == before.sessions  # type: ignore[union-attr]
        guess_further(connection, near)
        guess_further(connection, near)
        rows = connection.execute(select(trade_calendar).where(trade_calendar.c.cal_date > last)).all()
    assert all(row.provisional and row.cal_date.weekday() < 5 for row in rows)
    assert 250 < len(rows) < 270  # the weekdays of a year and five days


def test_an_unforeseen_error_in_a_beat_does_not_stop_the_next(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def once_bad() -> None:
        seen.append(len(seen))
        if len(seen) == 1:
            raise KeyError("a mistake of ours")
        beat.shutdown(wait=False)

    beat = Beat(once_bad)
    begun = time.monotonic()
    with caplog.at_level(logging.ERROR):
        beat.start()
    assert seen == [0, 1]
    assert time.monotonic() - begun >= BEAT_SECONDS  # once a second, and not as fast as it can
    assert "the beat failed" in caplog.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hour = 19, minute = 0 }", "hour = 19, minute = 0, jitter = 30 }"),
        ("hour = 19, minute = 0 }", "hour = 19, minute = 0, start_date = '2025-01-01' }"),
        ("wait_hours = 14", "wait_hours = inf"),
        ('policy = "last" }', 'policy = "last", days = 1e6 }'),
        ('policy = "last" }', 'policy = "last", cap = 2.5 }'),
        ("attempts = 8", "attempts = 2.5"),
        ("[collect]", f"[{'c' * 65}]"),
    ],
)
def test_what_would_stop_or_flood_the_daemon_is_refused(tmp_path: Path, old: str, new: str) -> None:
    from core.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=r"jobs\.toml"):
        load_jobs(jobs_file(tmp_path, (old, new)))


def test_a_date_in_the_jobs_file_is_a_parameter_like_any(tmp_path: Path) -> None:
    given = ("latest_only = true", "latest_only = true\nparams = { start = 2024-01-01 }")
    assert load_jobs(jobs_file(tmp_path, given))["collect"].params == {"start": "2024-01-01"}
