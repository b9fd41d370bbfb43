"""Jobs made at run time, as workflows through the real daemon on a clock that the test moves.

size_watch succeeds within a second and has no needs; validate_nav fails, since nothing is staged.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from core import db
from core.schema import data_update_log, job_run, run_event
from scheduler.job_changes import Asked, create_job
from tests.daemon import DaemonProcess, at, until

DAY = date(2025, 11, 27)  # a Thursday; no holiday near
FILE = '[first]\ntask = "size_watch"\ncron = { month = 6, day = 1, hour = 3 }\n'


@pytest.fixture
def house(sqlite_engine: Engine, tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon at 09:00 of DAY whose jobs file has one job, which is not due."""
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(FILE, encoding="utf-8")
    with DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:1", at(DAY, 9), jobs) as process:
        yield process


def make(house: DaemonProcess, job: str, task: str, needs: object = None, when: str = "0 10 * * *") -> None:
    table = {"task": task, "crontab": when} | ({"needs": needs} if needs else {})
    create_job(house.engine, {}, job, table, Asked("test", at(DAY, 9)))


def diamond(house: DaemonProcess, right: str = "size_watch") -> None:
    make(house, "top", "size_watch")
    make(house, "left", "size_watch", ["top"])
    make(house, "right", right, ["top"])
    make(house, "bottom", "size_watch", ["left", "right"])


def order(engine: Engine) -> list[str]:
    """The jobs in the order in which they began to run."""
    query = select(job_run.c.job_id).join(run_event, run_event.c.run_id == job_run.c.id)
    with db.read(engine) as connection:
        began = query.where(run_event.c.to_status == "RUNNING").order_by(run_event.c.id)
        return list(connection.execute(began).scalars())


DONE = dict.fromkeys(("top", "left", "right", "bottom"), "SUCCESS")


def test_a_diamond_runs_in_order_each_once(house: DaemonProcess) -> None:
    diamond(house)
    house.set_clock(at(DAY, 10))
    house.reach(DAY, DONE)
    began = order(house.engine)
    assert (began[0], began[-1], sorted(began[1:3])) == ("top", "bottom", ["left", "right"])
    assert len(house.runs()) == 4


def test_a_failed_branch_blocks_what_needs_it_and_only_that(house: DaemonProcess) -> None:
    diamond(house, right="validate_nav")
    make(house, "alarm", "size_watch", [{"job": "right", "when": "failed"}])
    make(house, "always", "size_watch", [{"job": "left", "when": "done"}, {"job": "right", "when": "done"}])
    make(house, "party", "size_watch", [{"job": "left", "when": "failed"}])
    make(
        house, "after", "size_watch", [{"job": "party", "when": "done"}]
    )  # the branch not taken is an end too
    house.set_clock(at(DAY, 10))
    house.reach(
        DAY,
        {
            **{"top": "SUCCESS", "left": "SUCCESS", "right": "FAILED", "bottom": "BLOCKED"},
            **{"alarm": "SUCCESS", "always": "SUCCESS", "party": "SKIPPED", "after": "SUCCESS"},
        },
    )
    [skipped] = [run for run in house.runs() if run.job_id == "party"]
    assert skipped.reason == "left is SUCCESS; this is only for failed"


def test_a_condition_on_what_came_of_it_takes_one_branch(house: DaemonProcess) -> None:
    """size_watch counts megabytes: at least 0, and of this database fewer than a million."""
    make(house, "top", "size_watch")
    make(house, "small", "size_watch", [{"job": "top", "where": "records < 1000000"}])
    make(house, "large", "size_watch", [{"job": "top", "where": "records >= 1000000"}])
    make(house, "level", "size_watch", [{"job": "top", "where": 'result.level == "high"'}])
    house.set_clock(at(DAY, 10))
    house.reach(DAY, {"top": "SUCCESS", "small": "SUCCESS", "large": "SKIPPED", "level": "SKIPPED"})
    reasons = {run.job_id: run.reason for run in house.runs()}
    assert reasons["large"].startswith("top: records >= 1000000: it is ")
    assert reasons["level"] == 'top: result.level == "high": there is no result.level'


def test_a_branch_killed_and_tried_again(house: DaemonProcess) -> None:
    diamond(house)
    house.environment["NAVKEEPER_CRASH_AT"] = "right.claimed"
    house.start()
    del house.environment["NAVKEEPER_CRASH_AT"]
    house.set_clock(at(DAY, 10))
    until(lambda: order(house.engine), lambda began: "right" in began, "the first attempt")
    until(
        lambda: [run.not_before for run in house.runs(DAY) if run.job_id == "right"], any, "a second attempt"
    )
    house.set_clock(at(DAY, 10, 4))
    house.reach(DAY, DONE)
    assert order(house.engine).count("right") == 2
    assert {run.job_id: run.attempt for run in house.runs()} == {**dict.fromkeys(DONE, 1), "right": 2}


@pytest.mark.parametrize(
    "point", ["fire.inserted", "fire.committed", "release.moved", "release.committed", "claim.committed"]
)
def test_a_daemon_killed_in_the_middle_loses_nothing_and_does_nothing_twice(
    house: DaemonProcess, point: str
) -> None:
    diamond(house)
    house.environment["NAVKEEPER_CRASH_AT"] = point
    house.set_clock(at(DAY, 9, 58))  # on time for the fires: they are none that were missed
    house.start()
    house.set_clock(at(DAY, 10))
    assert house.wait() == -signal.SIGKILL
    del house.environment["NAVKEEPER_CRASH_AT"]
    house.start()
    # What was claimed by the dead daemon is tried again after a minute.
    house.set_clock(at(DAY, 10, 2))
    house.reach(DAY, DONE)
    assert sorted(run.job_id for run in house.runs()) == sorted(DONE)


def test_fresh_data_is_waited_for(house: DaemonProcess) -> None:
    words = ("jobs", "create", "eager", "--task", "size_watch", "--cron", "0 10 * * *", "--fresh", "fund_nav")
    assert house.main(*words).returncode == 0
    house.set_clock(at(DAY, 10))
    house.reach(DAY, {"eager": "WAITING"})
    row = {"table_name": "fund_nav", "update_date": DAY, "record_count": 1, "duration_seconds": 1.0}
    with db.write(house.engine) as connection:
        for status in ("FAILURE", "SUCCESS"):
            times = {"start_time": at(DAY, 10), "end_time": at(DAY, 10)}
            connection.execute(data_update_log.insert().values(**row, **times, status=status))
    house.reach(DAY, {"eager": "SUCCESS"})


def test_a_change_counts_from_the_moment_of_the_change(house: DaemonProcess) -> None:
    make(house, "often", "size_watch", when="30 8 * * *")
    assert house.main("jobs", "change", "often", "--every", "10m").returncode == 0
    house.set_clock(at(DAY, 9, 4))
    house.set_clock(at(DAY, 9, 10))
    house.reach(DAY, {"often": "SUCCESS"})
    [run] = house.runs()
    assert run.scheduled_for == at(DAY, 9, 10)  # not 8:30, nor all the tens of minutes before the change


def test_a_deleted_job_no_longer_runs_and_what_waits_is_skipped(house: DaemonProcess) -> None:
    make(house, "top", "validate_nav")
    make(house, "next", "size_watch", ["top"])
    refused = house.main("jobs", "delete", "top")
    assert refused.returncode == 2
    assert "next need top" in refused.stderr
    house.set_clock(at(DAY, 10))
    house.reach(DAY, {"top": "FAILED", "next": "BLOCKED"})
    assert house.main("jobs", "delete", "next", "--reason", "not wanted").returncode == 0
    house.reach(DAY, {"next": "SKIPPED"})
    house.set_clock(at(DAY + timedelta(days=1), 10))
    house.reach(DAY + timedelta(days=1), {"top": "FAILED"})
    assert [run.job_id for run in house.runs()] == ["top", "next", "top"]
