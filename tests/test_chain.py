"""The chain through the real daemon: failed, late, holiday, weekend, killed, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, func, select, update

from config.settings import ROOT, environment_with
from core import db
from core.initialise import initialise
from core.schema import daemon, fund_metrics, fund_nav, job_run, nav_batch, run_attempt, run_event
from core.standin import Market, StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler.process_identity import this_process
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until
from tests.mariadb import MariaServer

DAY = date(2025, 11, 27)  # a Thursday; no holiday near
FUNDS = 40


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(FUNDS, date(2025, 8, 1), DAY + timedelta(days=7), 7, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    """Everything of DAY is published; nothing later."""
    with StandinServer(market, now=at(DAY, 23, 30)) as server:
        yield server


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """The chain and the weekly job alone."""
    return jobs_file(tmp_path, without=SWEEPS)


@pytest.fixture
def night(
    sqlite_engine: Engine, standin: StandinServer, tmp_path: Path, jobs: Path
) -> Iterator[DaemonProcess]:
    """A daemon started in the afternoon of DAY."""
    with DaemonProcess(sqlite_engine, tmp_path, standin.url, at(DAY, 18), jobs) as process:
        yield process


def stalled(night: DaemonProcess, standin: StandinServer, minute: int = 0) -> int:
    """Let tonight's collection start and wait for an answer that does not come; its process."""
    standin.add_fault("stall", path="rankhandler", times=1)
    night.set_clock(at(DAY, 19, minute))
    night.reach(DAY, {"collect": "RUNNING"})
    until(lambda: standin.requests.total(), bool, "the child's request")
    [run] = [run for run in night.runs(DAY) if run.job_id == "collect"]
    return int(run.pid)


def navs(engine: Engine) -> int:
    with db.read(engine) as connection:
        return connection.execute(select(func.count()).select_from(fund_nav)).scalar_one()


def test_a_good_night_runs_in_order_and_is_logged_once_a_step(night: DaemonProcess) -> None:
    night.set_clock(at(DAY, 19))
    night.reach(DAY, {"collect": "SUCCESS"})
    assert navs(night.engine) == 0  # staged, not believed
    night.set_clock(at(DAY, 19, 30))
    night.reach(DAY, {"validate": "SUCCESS"})
    night.set_clock(at(DAY, 20, 30))
    night.reach(DAY, {"metrics": "SUCCESS"})
    steps = ["tmp_fund_nav", "fund_nav", "fund_metrics"]
    assert night.update_log(DAY) == [(step, "SUCCESS") for step in steps]
    with db.read(night.engine) as connection:
        assert connection.execute(select(func.count()).select_from(fund_metrics)).scalar_one() > FUNDS / 2
        moves = connection.execute(select(run_event.c.to_status).order_by(run_event.c.id)).scalars().all()
    assert [moves.count(state) for state in ("RUNNING", "SUCCESS")] == [3, 3]


def test_nothing_runs_before_its_time_or_twice(night: DaemonProcess) -> None:
    night.set_clock(at(DAY, 18, 59))
    until(lambda: beats(night.engine), lambda seen: seen == at(DAY, 18, 59), "a beat at 18:59")
    assert night.runs() == []
    night.set_clock(at(DAY, 23))
    night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
    night.set_clock(at(DAY, 19))  # the clock is set back: the same fires are due again
    until(lambda: beats(night.engine), lambda seen: seen == at(DAY, 19), "a beat at 19:00")
    night.set_clock(at(DAY, 23, 1))
    until(lambda: beats(night.engine), lambda seen: seen == at(DAY, 23, 1), "a beat at 23:01")
    assert [run.job_id for run in night.runs()] == ["collect", "validate", "metrics"]


def beats(engine: Engine) -> object:
    with db.read(engine) as connection:
        return connection.execute(select(daemon.c.heartbeat_at)).scalar_one()


def test_a_failed_upstream_blocks_and_a_later_success_releases(
    night: DaemonProcess, standin: StandinServer
) -> None:
    standin.add_fault("missing_column", path="rankhandler", times=None)
    night.set_clock(at(DAY, 20, 30))
    night.reach(DAY, {"collect": "FAILED", "validate": "BLOCKED", "metrics": "BLOCKED"})
    [failed] = [run for run in night.runs(DAY) if run.job_id == "collect"]
    assert failed.reason.startswith("source_changed: ")
    assert navs(night.engine) == 0
    assert night.update_log(DAY) == [("tmp_fund_nav", "FAILURE")]
    standin.clear_faults()
    by_hand = night.main("nav", "--date", str(DAY))
    assert by_hand.returncode == 0, by_hand.stderr
    night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
    assert navs(night.engine) > FUNDS / 2


def test_a_late_upstream_is_waited_for(night: DaemonProcess, standin: StandinServer) -> None:
    standin.add_fault("stall", path="rankhandler", times=1)
    night.set_clock(at(DAY, 20, 31))
    night.reach(DAY, {"collect": "RUNNING", "validate": "WAITING", "metrics": "WAITING"})
    standin.clear_faults()
    night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
    with db.read(night.engine) as connection:
        order = connection.execute(
            select(run_event.c.run_id, run_event.c.to_status)
            .where(run_event.c.to_status.in_(["RUNNING", "SUCCESS"]))
            .order_by(run_event.c.id)
        ).all()
    assert [status for _run, status in order] == ["RUNNING", "SUCCESS"] * 3
    assert [run for run, _status in order] == sorted(run for run, _status in order)


def test_waiting_ends_but_time_without_a_daemon_does_not_count(
    night: DaemonProcess, standin: StandinServer, tmp_path: Path
) -> None:
    jobs_file(tmp_path, ("wait_hours = 14", "wait_hours = 0.05"), without=SWEEPS)
    night.start()
    standin.add_fault("missing_column", path="rankhandler", times=None)
    night.set_clock(at(DAY, 20, 31))
    night.reach(DAY, {"validate": "BLOCKED", "metrics": "BLOCKED"})
    night.set_clock(at(DAY, 22))  # asleep, or down: nobody could have gone on
    until(lambda: beats(night.engine), lambda seen: seen == at(DAY, 22), "a beat at 22:00")
    assert night.states(DAY) == {"collect": "FAILED", "validate": "BLOCKED", "metrics": "BLOCKED"}
    night.set_clock(at(DAY, 22, 4))
    night.reach(DAY, {"validate": "SKIPPED", "metrics": "SKIPPED"})
    reasons = {run.job_id: run.reason for run in night.runs(DAY)}
    assert reasons["validate"] == "collect is FAILED after 0.05 h"


def test_a_holiday_is_skipped_and_recorded_as_such(
    sqlite_engine: Engine, standin: StandinServer, tmp_path: Path, jobs: Path
) -> None:
    holiday = date(2025, 10, 1)  # National Day, a Wednesday
    with DaemonProcess(sqlite_engine, tmp_path, standin.url, at(holiday, 18), jobs) as process:
        process.set_clock(at(holiday, 21))
        process.reach(holiday, {"collect": "SKIPPED", "validate": "SKIPPED", "metrics": "SKIPPED"})
        assert {run.reason for run in process.runs()} == {"2025-10-01 is not a trading day"}
        assert process.update_log(holiday) == []
    assert standin.requests.total() == 0


def test_a_weekend_has_no_nights_but_the_weekly_job(night: DaemonProcess) -> None:
    friday, sunday = date(2025, 11, 28), date(2025, 11, 30)
    night.set_clock(at(DAY, 23))
    night.reach(DAY, {"metrics": "SUCCESS"})
    night.kill()
    night.set_clock(at(friday + timedelta(days=1), 14))
    with db.write(night.engine) as connection:  # as if the database were new: Friday is not caught up
        connection.execute(delete(job_run))
        connection.execute(delete(daemon))
    night.start()
    night.set_clock(at(sunday, 2))
    night.reach(friday, {"weekly": "SUCCESS"})
    assert [run.job_id for run in night.runs()] == ["weekly"]
    report = night.home / "logs" / "weekly" / "2025-11-28.md"  # written when all is committed
    until(report.exists, bool, f"{report} is written")
    assert "11-27" in report.read_text(encoding="utf-8")


def test_nights_missed_while_the_daemon_was_down_are_done_when_it_comes_back(
    night: DaemonProcess, standin: StandinServer
) -> None:
    monday, thursday = date(2025, 11, 24), DAY
    night.kill()
    standin.set_now(at(monday, 23, 30))
    night.set_clock(at(monday, 18))
    night.start()
    night.set_clock(at(monday, 23, 30))
    night.reach(monday, {"metrics": "SUCCESS"})
    night.kill()
    standin.set_now(at(thursday, 23, 30))
    night.set_clock(at(thursday, 23, 30))
    night.start()
    for day in (date(2025, 11, 25), date(2025, 11, 26), thursday):
        night.reach(day, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
    tasks = {run.business_date: run.task for run in night.runs() if run.job_id == "collect"}
    assert list(tasks.values()) == ["collect_nav", "backfill_nav", "backfill_nav", "collect_nav"]
    done = [
        run.business_date
        for run in sorted(night.runs(), key=lambda run: run.started_at)
        if run.job_id == "collect"
    ]
    assert done == sorted(done)  # oldest first
    # Nothing was lost: the whole week again from history changes nothing.
    again = night.main("nav", "--from", str(monday), "--to", str(thursday), "--json")
    report = json.loads(again.stdout)
    assert report["revised"] == 0
    weekly_funds = report["inserted"]  # a fund in its closed period may have published between two nights
    assert weekly_funds <= FUNDS // 10


def test_a_golden_week_down_catches_up_only_trading_days(
    sqlite_engine: Engine, standin: StandinServer, tmp_path: Path, jobs: Path
) -> None:
    before, after = date(2025, 9, 30), date(2025, 10, 9)
    standin.set_now(at(before, 23, 30))
    with DaemonProcess(sqlite_engine, tmp_path, standin.url, at(before, 18), jobs) as process:
        process.set_clock(at(before, 23, 30))
        process.reach(before, {"metrics": "SUCCESS"})
        process.kill()
        standin.set_now(at(after, 23, 30))
        process.set_clock(at(after, 23, 30))
        process.start()
        process.reach(after, {"metrics": "SUCCESS"})
        ran = {
            run.business_date for run in process.runs() if run.status != "SKIPPED" and run.job_id != "weekly"
        }
        assert ran == {before, after}
        skipped = {run.business_date for run in process.runs() if run.status == "SKIPPED"}
        assert skipped == {date(2025, 10, day) for day in (1, 2, 3, 6, 7, 8)}


def attempts(engine: Engine) -> list[tuple[int, str]]:
    query = select(run_attempt).order_by(run_attempt.c.run_id, run_attempt.c.attempt)
    with db.read(engine) as connection:
        return [(row.attempt, row.status) for row in connection.execute(query)]


def test_a_killed_child_is_tried_again_and_the_night_completes(
    night: DaemonProcess, standin: StandinServer
) -> None:
    standin.add_fault("stall", path="rankhandler", times=1)
    night.set_clock(at(DAY, 20, 31))
    night.reach(DAY, {"collect": "RUNNING"})
    until(lambda: standin.requests.total(), bool, "the child's request")
    [run] = [run for run in night.runs(DAY) if run.job_id == "collect"]
    assert night.process is not None
    assert run.pid != night.process.pid  # the child took the claim over
    os.kill(run.pid, signal.SIGKILL)
    night.reach(DAY, {"collect": "QUEUED", "validate": "WAITING", "metrics": "WAITING"})
    [run] = [run for run in night.runs(DAY) if run.job_id == "collect"]
    assert run.reason == "attempt 1 was INTERRUPTED: its process was killed by SIGKILL"
    assert at(DAY, 20, 31) < run.not_before <= at(DAY, 20, 32)
    assert night.update_log(DAY) == []  # not over yet
    assert navs(night.engine) == 0
    night.set_clock(at(DAY, 20, 33))
    night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
    assert night.update_log(DAY)[0] == ("tmp_fund_nav", "SUCCESS")
    assert attempts(night.engine)[:2] == [(1, "INTERRUPTED"), (2, "SUCCESS")]
    [run] = [run for run in night.runs(DAY) if run.job_id == "collect"]
    assert run.peak_memory_kb > 30_000
    assert Path(run.log_file).name == f"{run.id}.2.log"


def test_attempts_end_and_then_the_chain_is_blocked(
    night: DaemonProcess, standin: StandinServer, tmp_path: Path
) -> None:
    jobs_file(tmp_path, ("total_minutes = 240", "total_minutes = 3"), without=SWEEPS)
    night.start()
    standin.set_now(at(DAY, 16))  # nothing is published all evening
    night.set_clock(at(DAY, 20, 30))
    until(lambda: attempts(night.engine), lambda found: found == [(1, "FAILED")], "the first attempt's end")
    assert night.states(DAY) == {"collect": "QUEUED", "validate": "WAITING", "metrics": "WAITING"}
    night.set_clock(at(DAY, 20, 34))  # beyond the policy's total time after one more failure
    night.reach(DAY, {"collect": "FAILED", "validate": "BLOCKED", "metrics": "BLOCKED"})
    assert attempts(night.engine) == [(1, "FAILED"), (2, "FAILED")]
    [run] = [run for run in night.runs(DAY) if run.job_id == "collect"]
    assert run.reason.startswith("not_published: ")
    assert night.update_log(DAY) == [("tmp_fund_nav", "FAILURE")]
    query = select(run_event).where(run_event.c.kind != "state")
    with db.read(night.engine) as connection:
        [alert] = connection.execute(query).all()  # one for the chain, not one for each that waits
    assert (alert.kind, alert.run_id) == ("chain_blocked", run.id)
    assert alert.reason == "collect is FAILED; what needs it for 2025-11-27 waits"


def test_a_killed_daemon_is_followed_by_one_that_sees_it(
    night: DaemonProcess, standin: StandinServer
) -> None:
    child = stalled(night, standin)
    night.signal(signal.SIGKILL)
    night.wait()
    os.kill(child, signal.SIGKILL)
    night.start()
    night.reach(DAY, {"collect": "QUEUED"})
    assert night.runs(DAY)[0].reason == "attempt 1 was INTERRUPTED: its process is gone"


def test_a_child_outlives_its_daemon_and_the_next_one_leaves_it_alone(
    night: DaemonProcess, standin: StandinServer
) -> None:
    stalled(night, standin)
    night.signal(signal.SIGKILL)
    night.wait()
    night.start()
    assert night.states(DAY) == {"collect": "RUNNING"}
    standin.clear_faults()
    night.reach(DAY, {"collect": "SUCCESS"})
    assert attempts(night.engine) == [(1, "SUCCESS")]


def test_sigterm_lets_the_running_job_finish(night: DaemonProcess, standin: StandinServer) -> None:
    stalled(night, standin)
    night.signal(signal.SIGTERM)
    log = night.home / "logs" / "daemon.log"
    until(
        lambda: log.read_text(encoding="utf-8"), lambda text: "stopping: waiting for 1" in text, "the drain"
    )
    standin.clear_faults()
    assert night.wait() == 0
    assert night.states(DAY) == {"collect": "SUCCESS"}
    with db.read(night.engine) as connection:
        assert connection.execute(select(daemon.c.stopped_at)).scalar_one() is not None


def test_a_second_signal_does_not_wait(night: DaemonProcess, standin: StandinServer) -> None:
    child = stalled(night, standin)
    night.signal(signal.SIGTERM)
    log = night.home / "logs" / "daemon.log"
    until(
        lambda: log.read_text(encoding="utf-8"), lambda text: "stopping: waiting for 1" in text, "the drain"
    )
    night.signal(signal.SIGTERM)
    assert night.wait() == 0
    assert night.states(DAY) == {"collect": "QUEUED"}  # for the next daemon
    assert attempts(night.engine) == [(1, "INTERRUPTED")]
    assert not Path(f"/proc/{child}").exists()


def test_a_killed_daemon_whose_pid_lives_again_does_not_keep_the_next_one_out(
    night: DaemonProcess,
) -> None:
    night.signal(signal.SIGKILL)
    night.wait()
    with db.write(night.engine) as connection:  # its pid now belongs to this very test, another process
        connection.execute(update(daemon).values(pid=os.getpid()))
    night.start()
    assert night.process is not None
    with db.read(night.engine) as connection:
        assert connection.execute(select(daemon.c.pid)).scalar_one() == night.process.pid


def test_a_daemon_that_was_replaced_steps_down(night: DaemonProcess) -> None:
    other = this_process()  # any that lives will do
    with db.write(night.engine) as connection:
        connection.execute(
            update(daemon).values(pid=other.pid, pid_started=other.started, epoch=daemon.c.epoch + 1)
        )
    night.set_clock(at(DAY, 19))
    assert night.wait() == 3
    assert night.runs() == []
    with db.read(night.engine) as connection:
        row = connection.execute(select(daemon)).one()
    assert (row.pid, row.epoch, row.stopped_at) == (other.pid, 2, None)  # not ours to write any more


def test_a_success_of_the_afternoon_does_not_release_the_night(
    night: DaemonProcess, standin: StandinServer
) -> None:
    standin.set_now(at(DAY, 18))
    assert night.main("nav").returncode == 0  # some funds have published
    standin.set_now(at(DAY, 23, 30))
    standin.add_fault("stall", path="rankhandler", times=1)
    night.set_clock(at(DAY, 19, 31))
    night.reach(DAY, {"collect": "RUNNING", "validate": "WAITING"})
    standin.clear_faults()
    night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS"})
    with db.read(night.engine) as connection:
        states = connection.execute(select(nav_batch.c.status).order_by(nav_batch.c.id)).scalars().all()
    assert states == ["SUPERSEDED", "MERGED"]


def test_sigterm_ends_it_even_while_the_database_is_away(
    stoppable_mariadb: MariaServer, standin: StandinServer, tmp_path: Path, jobs: Path
) -> None:
    engine = fresh_database(stoppable_mariadb)
    with DaemonProcess(engine, tmp_path, standin.url, at(DAY, 18), jobs) as process:
        stalled(process, standin)
        stoppable_mariadb.stop()
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    engine.dispose()


def test_a_daemon_that_cannot_write_its_pid_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "navkeeper.db.pid").mkdir()
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scheduler" / "run_scheduler.py")],
        env=environment_with(home=tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"cannot write {tmp_path}/navkeeper.db.pid: Is a directory; ")
    assert ended.stderr.count("\n") == 1


def test_a_second_daemon_refuses_and_names_the_first(night: DaemonProcess, tmp_path: Path) -> None:
    second = subprocess.run(
        [sys.executable, str(ROOT / "scheduler" / "run_scheduler.py")],
        env=night.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 3
    assert night.process is not None
    assert f"pid {night.process.pid}" in second.stderr
    assert second.stderr.count("\n") == 1
    elsewhere = night.environment | {"NAVKEEPER_HOME": str(tmp_path / "elsewhere")}
    other_home = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "scheduler"],
        env=elsewhere,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert other_home.returncode == 3
    assert f"pid {night.process.pid}" in other_home.stderr


def test_the_daemon_outlives_its_database(
    stoppable_mariadb: MariaServer, standin: StandinServer, tmp_path: Path, jobs: Path
) -> None:
    engine = fresh_database(stoppable_mariadb)
    with DaemonProcess(engine, tmp_path, standin.url, at(DAY, 18), jobs) as process:
        stoppable_mariadb.stop()
        log = tmp_path / "logs" / "daemon.log"
        process.set_clock(at(DAY, 18, 1))
        until(
            lambda: log.read_text(encoding="utf-8"),
            lambda text: "trying again every second" in text,
            "the complaint",
        )
        process.set_clock(at(DAY, 20, 31))  # the whole chain becomes due meanwhile
        stoppable_mariadb.start()
        process.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
        assert "all is well again" in log.read_text(encoding="utf-8")
    engine.dispose()


def test_a_run_whose_database_goes_away_fails_and_the_daemon_goes_on(
    stoppable_mariadb: MariaServer, standin: StandinServer, tmp_path: Path, jobs: Path
) -> None:
    engine = fresh_database(stoppable_mariadb)
    with DaemonProcess(engine, tmp_path, standin.url, at(DAY, 18), jobs) as process:
        child = stalled(process, standin)
        stoppable_mariadb.stop()
        standin.clear_faults()
        until(lambda: child_gone(child), bool, "the child's end")
        stoppable_mariadb.start()
        process.reach(DAY, {"collect": "QUEUED"})
        assert attempts(engine) == [(1, "FAILED")]
        process.set_clock(at(DAY, 20, 31))
        process.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
    engine.dispose()


def fresh_database(server: MariaServer) -> Engine:
    engine = db.connect(server.url.set(database="mysql"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE DATABASE navkeeper CHARACTER SET utf8mb4")
    engine.dispose()
    engine = db.connect(server.url.set(database="navkeeper"))
    initialise(engine, at(DAY, 12))
    return engine


def child_gone(pid: int) -> bool:
    """Ended, whether or not its parent has collected it yet."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return True
