"""Jobs that wait for events, and a daemon that is killed again and again: one run of each event."""

from __future__ import annotations

import signal
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from core import db
from scheduler import events
from scheduler.job_changes import Asked, create_job
from tests.daemon import DaemonProcess, at, until

DAY = date(2025, 11, 27)
FILE = '[idle]\ntask = "size_watch"\ncron = { month = 6, day = 1, hour = 3 }\n'
EVENTS, KILLS = 6, 3


@pytest.mark.timeout(280)
def test_a_daemon_killed_again_and_again_runs_each_event_once(engine: Engine, tmp_path: Path) -> None:
    """Two jobs in a chain: the second waits for what the first one's success is told by."""
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(FILE, encoding="utf-8")
    asked = Asked("test", at(DAY, 9))
    retry = {"attempts": 9, "base_seconds": 1}
    first = {"task": "size_watch", "on_event": "example.made", "max_parallel": 2, "retry": retry}
    create_job(engine, {}, "first", first, asked)
    create_job(engine, {}, "second", first | {"on_event": "run.success"}, asked)
    made = set()
    with DaemonProcess(engine, tmp_path, "http://127.0.0.1:1", at(DAY, 10), jobs) as process:

        def done(job: str) -> list[int]:
            rows = [row for row in process.runs() if row.job_id == job]
            return [row.event_id for row in rows if row.status == "SUCCESS"]

        for kill in range(KILLS):
            with db.write(engine) as connection:
                for number in range(EVENTS // KILLS):
                    made.add(events.publish(connection, "example.made", {"number": number}, at(DAY, 10)))
            until(
                lambda: [row for row in process.runs() if row.status == "RUNNING"],
                bool,
                "a run under way",
            )
            process.signal(signal.SIGKILL)
            process.wait()
            process.set_clock(at(DAY, 10, 5 * (kill + 1)))
            process.start()
        until(
            lambda: (done("first"), done("second")),
            lambda found: all(len(part) == EVENTS for part in found),
            "all",
        )
        first_runs = [row for row in process.runs() if row.job_id == "first"]
        second_runs = [row for row in process.runs() if row.job_id == "second"]
    assert Counter(row.event_id for row in first_runs) == Counter(made)
    assert {row.status for row in first_runs + second_runs} == {"SUCCESS"}
    assert len(second_runs) == len({row.event_id for row in second_runs}) == EVENTS
