"""Runs that hang, resist, fall silent or lose their claim: real processes, checked through /proc."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, update

from core import db
from core.schema import fund_nav, job_run, nav_batch, run_attempt, run_event
from core.standin import Market, StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler import commands, run_store
from scheduler.supervisor import end_for_dead
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until

DAY = date(2025, 11, 27)  # a Thursday; no holiday near
# Put into every child by Python itself: it ignores SIGTERM, and so does the grandchild it starts.
STUBBORN = """
import signal, subprocess, sys
if "scheduler.runner" in sys.orig_argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal = lambda *_: None
    subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
"""


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(40, date(2025, 8, 1), DAY + timedelta(days=7), 5, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(DAY, 23, 30)) as server:
        yield server


@pytest.fixture
def night(sqlite_engine: Engine, standin: StandinServer, tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon of the chain alone, not started yet."""
    process = DaemonProcess(
        sqlite_engine, tmp_path, standin.url, at(DAY, 18), jobs_file(tmp_path, without=SWEEPS)
    )
    yield process
    process.kill()


def stall(night: DaemonProcess, standin: StandinServer) -> int:
    """Tonight's collection, waiting for an answer that does not come; its process."""
    standin.add_fault("stall", path="rankhandler", times=1)
    night.set_clock(at(DAY, 19))
    night.reach(DAY, {"collect": "RUNNING"})
    until(lambda: standin.requests.total(), bool, "the child's request")
    return int(night.runs(DAY)[0].pid)


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, group_id = path.read_text(encoding="utf-8").rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if int(group_id) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def attempts(engine: Engine) -> list[tuple[int, str, str | None]]:
    query = select(run_attempt).order_by(run_attempt.c.run_id, run_attempt.c.attempt)
    with db.read(engine) as connection:
        return [(row.attempt, row.status, row.reason) for row in connection.execute(query)]


def make_stubborn(night: DaemonProcess, folder: Path) -> None:
    (folder / "stubborn").mkdir()
    (folder / "stubborn" / "sitecustomize.py").write_text(STUBBORN, encoding="utf-8")
    night.environment["PYTHONPATH"] = str(folder / "stubborn")


def test_a_run_over_its_time_is_killed_with_all_it_has_started(
    night: DaemonProcess, standin: StandinServer, tmp_path: Path
) -> None:
    short = (("timeout_minutes = 180", "timeout_minutes = 0.1"), ("attempts = 8", "attempts = 1"))
    jobs_file(tmp_path, *short, without=SWEEPS)
    make_stubborn(night, tmp_path)
    night.start()
    child = stall(night, standin)
    assert len(group(child)) >= 3  # it, a shell, a sleep
    night.reach(DAY, {"collect": "TIMED_OUT"})
    assert group(child) == []
    assert attempts(night.engine) == [(1, "TIMED_OUT", "over its time limit")]
    assert night.runs(DAY)[0].exit_code == -signal.SIGKILL
    assert night.update_log(DAY) == [("tmp_fund_nav", "FAILURE")]


def test_a_cancelled_run_that_resists_is_killed_with_all_it_has_started(
    night: DaemonProcess, standin: StandinServer, tmp_path: Path
) -> None:
    make_stubborn(night, tmp_path)
    night.start()
    child = stall(night, standin)
    assert len(group(child)) >= 3
    asked = night.main("runs", "cancel", str(night.runs(DAY)[0].id))
    assert asked.returncode == 0, asked.stderr
    night.reach(DAY, {"collect": "CANCELLED"})
    assert group(child) == []
    [(_, status, reason)] = attempts(night.engine)
    assert (status, (reason or "")[:13]) == ("CANCELLED", "cancelled by ")


def test_a_run_asked_to_end_unwinds_by_itself(night: DaemonProcess, standin: StandinServer) -> None:
    night.start()
    child = stall(night, standin)
    os.kill(child, signal.SIGTERM)
    night.reach(DAY, {"collect": "QUEUED"})
    [run] = night.runs(DAY)
    assert run.exit_code == 128 + signal.SIGTERM
    assert run.reason == "attempt 1 was INTERRUPTED: its process was killed by SIGTERM"
    assert "asked to end" in Path(night.home / "logs" / "runs" / f"{run.id}.1.log").read_text()


def test_grandchildren_of_a_killed_child_do_not_survive_it_nor_its_daemon(
    night: DaemonProcess, standin: StandinServer, tmp_path: Path
) -> None:
    make_stubborn(night, tmp_path)
    night.start()
    child = stall(night, standin)
    night.signal(signal.SIGKILL)
    night.wait()
    os.kill(child, signal.SIGKILL)
    assert group(child) != []
    night.start()
    until(lambda: group(child), lambda left: left == [], "the end of the grandchildren")


def test_a_run_declared_dead_that_wakes_up_writes_nothing(
    engine: Engine, standin: StandinServer, tmp_path: Path
) -> None:
    """Stopped, taken for dead, done by another attempt, and then it goes on."""
    jobs = jobs_file(tmp_path, ("base_seconds = 60, cap", "base_seconds = 0.1, cap"), without=SWEEPS)
    with DaemonProcess(engine, tmp_path, standin.url, at(DAY, 18), jobs) as night:
        child = stall(night, standin)
        night.signal(signal.SIGKILL)  # or it would see its child end
        night.wait()
        os.kill(child, signal.SIGSTOP)
        with db.write(engine) as connection:
            run = run_store.get_run(connection, night.runs(DAY)[0].id)
            assert run is not None
            end_for_dead(connection, run, run_store.GONE, at(DAY, 19))
        standin.clear_faults()
        night.set_clock(at(DAY, 20, 31))
        night.start()
        night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
        log = night.home / "logs" / "runs" / f"{run.id}.1.log"
        os.kill(child, signal.SIGCONT)
        until(
            lambda: log.read_text(encoding="utf-8"),
            lambda text: "ours" in text or "from us" in text,
            "its end",
        )
        until(lambda: group(child), lambda left: left == [], "the end of its process")
    assert [status for _, status, _ in attempts(engine)] == ["INTERRUPTED", "SUCCESS", "SUCCESS", "SUCCESS"]
    with db.read(engine) as connection:
        assert connection.execute(select(func.count()).select_from(nav_batch)).scalar_one() == 1
    assert [status for _table, status in night.update_log(DAY)] == ["SUCCESS"] * 3


def alerts(engine: Engine) -> list[tuple[str, str]]:
    with db.read(engine) as connection:
        rows = connection.execute(select(run_event).where(run_event.c.kind != "state")).all()
    return [(row.kind, row.reason) for row in rows]


def test_a_silent_run_is_flagged_once_and_left_alone(
    night: DaemonProcess, standin: StandinServer, tmp_path: Path
) -> None:
    jobs_file(
        tmp_path, ('task = "collect_nav"', 'task = "collect_nav"\nsilent_minutes = 0.05'), without=SWEEPS
    )
    night.start()
    child = stall(night, standin)
    until(lambda: alerts(night.engine), bool, "the flag")
    night.signal(signal.SIGKILL)
    night.wait()
    night.start()  # the next daemon sees it silent, too
    log = night.home / "logs" / "daemon.log"
    until(
        lambda: log.read_text(encoding="utf-8").count("leading, epoch"), lambda n: n == 2, "the second daemon"
    )
    assert alerts(night.engine) == [("silent", "collect has said nothing for 0.05 minutes")]
    assert night.states(DAY) == {"collect": "RUNNING"}
    assert night.runs(DAY)[0].pid == child


def test_a_silent_run_whose_job_says_so_is_ended_and_tried_again(
    night: DaemonProcess, standin: StandinServer, tmp_path: Path
) -> None:
    silent = 'task = "collect_nav"\nsilent_minutes = 0.05\nkill_silent = true'
    jobs_file(tmp_path, ('task = "collect_nav"', silent), without=SWEEPS)
    night.start()
    child = stall(night, standin)
    night.reach(DAY, {"collect": "QUEUED"})
    assert attempts(night.engine) == [
        (1, "INTERRUPTED", "collect has said nothing for 0.05 minutes"),
    ]
    assert group(child) == []


def test_a_clock_jump_does_not_end_what_runs(night: DaemonProcess, standin: StandinServer) -> None:
    night.start()
    stall(night, standin)
    night.set_clock(at(DAY, 19) - timedelta(hours=2))
    until(lambda: beat(night), lambda seen: seen == at(DAY, 17), "a beat at 17:00")
    night.set_clock(at(DAY, 19) + timedelta(days=3))  # Sunday evening
    until(lambda: beat(night), lambda seen: seen == at(DAY, 19) + timedelta(days=3), "a beat on Sunday")
    assert night.states(DAY)["collect"] == "RUNNING"
    standin.clear_faults()
    night.reach(DAY, {"collect": "SUCCESS"})
    assert attempts(night.engine)[0][1] == "SUCCESS"


def beat(night: DaemonProcess) -> object:
    from core.schema import daemon

    with db.read(night.engine) as connection:
        return connection.execute(select(daemon.c.heartbeat_at)).scalar_one()


def test_a_jump_over_three_days_and_one_back_give_the_expected_runs_and_no_others(
    night: DaemonProcess, standin: StandinServer
) -> None:
    night.start()
    night.set_clock(at(DAY, 20, 31))
    night.reach(DAY, {"metrics": "SUCCESS"})
    standin.set_now(at(DAY + timedelta(days=3), 20))
    night.set_clock(at(DAY + timedelta(days=3), 20, 31))  # Sunday: Friday's night and the weekly job are due
    friday = DAY + timedelta(days=1)
    night.reach(
        friday, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS", "weekly": "SUCCESS"}
    )
    night.set_clock(at(DAY + timedelta(days=3), 18, 31))
    until(
        lambda: beat(night), lambda seen: seen == at(DAY + timedelta(days=3), 18, 31), "a beat two hours back"
    )
    night.set_clock(at(DAY + timedelta(days=3), 20, 40))
    until(lambda: beat(night), lambda seen: seen == at(DAY + timedelta(days=3), 20, 40), "a beat after it")
    found = sorted((run.business_date, run.job_id, run.status) for run in night.runs())
    chain = ("collect", "metrics", "validate")
    expected = [(day, job, "SUCCESS") for day in (DAY, friday) for job in chain]
    assert found == sorted([*expected, (friday, "weekly", "SUCCESS")])


def test_an_eager_job_starts_when_its_upstream_is_done_and_not_again_at_its_time(
    night: DaemonProcess, tmp_path: Path
) -> None:
    eager = ('task = "validate_nav"', 'task = "validate_nav"\neager = true')
    jobs_file(tmp_path, eager, without=SWEEPS)
    night.start()
    night.set_clock(at(DAY, 19))
    night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS"})  # half an hour before its time
    assert "metrics" not in night.states(DAY)  # not eager
    night.set_clock(at(DAY, 20, 31))
    night.reach(DAY, {"metrics": "SUCCESS"})
    [run] = [run for run in night.runs(DAY) if run.job_id == "validate"]
    assert run.scheduled_for == at(DAY, 19, 30)


def test_writers_in_the_way_make_the_night_wait_and_not_fail(night: DaemonProcess, tmp_path: Path) -> None:
    """Another program holds the SQLite file most of the time."""
    night.start()
    done = threading.Event()

    def hold() -> None:
        rival = sqlite3.connect(str(night.engine.url.database), isolation_level=None, timeout=60)
        while not done.is_set():
            rival.execute("BEGIN IMMEDIATE")
            done.wait(0.9)
            rival.execute("COMMIT")
            done.wait(0.1)
        rival.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        night.set_clock(at(DAY, 20, 31))
        night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})
    finally:
        done.set()
        thread.join()
    assert [status for _, status, _ in attempts(night.engine)] == ["SUCCESS"] * 3
    logs = [night.home / "logs" / "daemon.log", *(night.home / "logs" / "runs").iterdir()]
    assert [path.name for path in logs if "locked" in path.read_text(encoding="utf-8")] == []
    with db.read(night.engine) as connection:
        assert connection.execute(select(func.count()).select_from(fund_nav)).scalar_one() > 20


def test_a_command_of_an_earlier_time_is_not_carried_out(night: DaemonProcess) -> None:
    with db.write(night.engine) as connection:
        commands.ask(connection, action="trigger", job_id="collect", requested_by="test", now=at(DAY, 17, 50))
    night.start()
    until(lambda: last_command(night), lambda status: status == "EXPIRED", "its expiry")
    assert night.runs() == []


def last_command(night: DaemonProcess) -> str:
    with db.read(night.engine) as connection:
        return str(commands.history(connection, 1)[0].status)


def test_a_run_of_another_host_is_ended_when_it_shows_no_life(mariadb_engine: Engine) -> None:
    """Its beats are watched by our clock alone."""
    from core.db import connect
    from scheduler.leadership import Leadership
    from scheduler.process_identity import Process, this_process
    from scheduler.supervisor import Supervisor

    leader = Leadership(connect(mariadb_engine.url, supervising=True), this_process())
    assert leader.acquire(at(DAY, 18))
    supervisor = Supervisor(leader, {}, Path("unused"), 2)
    with db.write(mariadb_engine) as connection:
        run_id = run_store.add_run(
            connection,
            job_id="collect",
            task="collect_nav",
            business_date=DAY,
            status=run_store.RunStatus.QUEUED,
            now=at(DAY, 19),
        )
        assert run_id is not None
        run = run_store.get_run(connection, run_id)
        assert run is not None
        claim = run_store.claim_run(connection, run, Process("elsewhere", 5, "boot:5"), at(DAY, 19), "5.log")
        assert claim is not None
    moments = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scheduler.leadership.time.monotonic", lambda: moments[0])
        for moment in (0.0, 50.0):
            moments[0] = moment
            supervisor.recover(at(DAY, 19))
        with db.write(mariadb_engine) as connection:
            assert run_store.note_beat(connection, run_id, claim, at(DAY, 19, 1))
        for moment in (70.0, 120.0):  # 50 s after the beat was seen
            moments[0] = moment
            supervisor.recover(at(DAY, 22))
            with db.read(mariadb_engine) as connection:
                assert connection.execute(select(job_run.c.status)).scalar_one() == "RUNNING"
        moments[0] = 131.0
        supervisor.recover(at(DAY, 19, 2))
    with db.read(mariadb_engine) as connection:
        row = connection.execute(select(job_run)).one()
    assert (row.status, row.reason) == ("INTERRUPTED", "no sign of life from elsewhere")
    with db.write(mariadb_engine) as connection:
        assert not run_store.note_beat(connection, run_id, claim, at(DAY, 19, 3))
        assert not run_store.holds(connection, run_id, claim)
    leader.close()
    leader.engine.dispose()


def test_a_run_whose_claim_is_taken_away_ends_by_itself(
    mariadb_engine: Engine, standin: StandinServer, tmp_path: Path
) -> None:
    """As when a leader on another host has given it up: no signal reaches it."""
    jobs = jobs_file(tmp_path, without=SWEEPS)
    with DaemonProcess(mariadb_engine, tmp_path, standin.url, at(DAY, 18), jobs) as night:
        child = stall(night, standin)
        with db.write(mariadb_engine) as connection:
            connection.execute(update(job_run).values(claim="another's"))
        until(lambda: group(child), lambda left: left == [], "its end")
    [log] = (night.home / "logs" / "runs").iterdir()
    assert "was taken from us" in log.read_text(encoding="utf-8")
