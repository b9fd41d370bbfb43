"""Daemons that die one after the other: the next one does the work, once, and no absence is held against a run."""

from __future__ import annotations

import signal
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL

from bench.daemons import MovedClock, Node, new_schema
from bench.failover import play
from core import db
from core.initialise import initialise
from scheduler.leadership import Leadership
from scheduler.process_identity import Process, this_process
from tests.daemon import SWEEPS, at, jobs_file, until

DAY, NEXT = date(2025, 11, 27), date(2025, 11, 28)  # Thursday and Friday


@pytest.mark.timeout(600)
def test_every_date_is_done_once_while_the_leader_is_stopped_and_killed(mariadb: URL, tmp_path: Path) -> None:
    engine = db.connect(new_schema(mariadb, "failover"))
    initialise(engine, at(date(2024, 12, 1), 12))
    report = play(engine, tmp_path, 6, ("stop", "power", "kill"), (2.0, 1.0, 1.0))
    engine.dispose()
    assert report["wrong"] == []
    assert report["dates_done"] == 6
    assert report["epochs"] > sum(report["leader"].values()) >= 2


def test_an_absence_is_noted_once_and_by_the_next_leader_if_this_one_dies(engine: Engine) -> None:
    noted: list[timedelta] = []

    def note(_connection: Connection, absence: timedelta) -> None:
        noted.append(absence)

    def leads(hours: int) -> Leadership:
        here = this_process()
        found = Leadership(
            engine, Process(here.host, here.pid, f"boot:{hours}")
        )  # to the next one it is dead
        assert found.acquire(start + timedelta(hours=hours))
        return found

    start = at(DAY, 18)
    leads(0).close()
    leads(3).close()  # dies before it has noted anything
    third = leads(4)
    third.renew(start + timedelta(hours=4))
    third.note_absence(start + timedelta(hours=4), note)
    third.note_absence(start + timedelta(hours=4, minutes=4), note)  # four minutes are no absence
    third.close()
    fourth = leads(5)
    fourth.note_absence(start + timedelta(hours=5), note)
    fourth.close()
    assert noted == [timedelta(hours=4), timedelta(hours=1)]


def test_a_long_absence_ends_no_wait_though_the_next_daemon_dies_as_it_takes_over(
    sqlite_engine: Engine, tmp_path: Path
) -> None:
    jobs = jobs_file(tmp_path, ("attempts = 8", "attempts = 99"), without=SWEEPS)
    clock = MovedClock(tmp_path / "moved_clock", at(DAY, 18))
    node = Node(sqlite_engine, tmp_path, jobs, clock=clock)
    try:
        node.launch()
        clock.set(at(DAY, 19, 30))
        node.reach(DAY, {"collect": "QUEUED", "validate": "WAITING"})  # there is no source: it is tried again
        node.die()
        tried = attempts(node)
        clock.set(at(NEXT, 10))  # validation waits for 14 hours, absences aside
        node.environment["NAVKEEPER_CRASH_AT"] = "daemon.leading"
        node.launch()
        assert node.wait() == -signal.SIGKILL
        del node.environment["NAVKEEPER_CRASH_AT"]
        node.launch()
        until(lambda: attempts(node), lambda found: found > tried, "another attempt to collect")
        assert node.states(DAY)["validate"] == "WAITING"
    finally:
        clock.stop()
        node.kill()


def attempts(node: Node) -> int:
    return max(run.attempt for run in node.runs(DAY) if run.job_id == "collect")
