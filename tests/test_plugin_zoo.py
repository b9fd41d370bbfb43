"""Plugins that do the worst there is, beside a recorded night: the night is as it is without them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, time, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.engine import URL

from config.settings import ROOT
from core import db
from core.initialise import initialise
from core.schema import event_parked, fund_rank, fund_score, job_run, run_event, tmp_fund_nav
from core.standin import StandinServer, recorded_market
from scheduler.job import PENDING
from scheduler.run_family import MARK
from tests.conftest import NOW, _new_database
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until
from tests.night_records import WHEN_AND_WHICH, effects, rows
from tests.recorded import part_of

EVE, DAY = date(2025, 12, 12), date(2025, 12, 15)
BROKEN = (  # what each is called, and what is said of it
    ("tests.zoo.import_error", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
    ("tests.zoo.segfault_import", "its process was killed by SIGSEGV while it was imported"),
    ("tests.zoo.exits_import", "its process ended with exit code 0 while it was imported"),
    ("tests.zoo.loop_import", "was not imported within 30 s"),
    ("tests.zoo.no_plugin", "tests.zoo.no_plugin has no PLUGIN"),
    ("tests.zoo.nowhere", "there is no module 'tests.zoo.nowhere'"),
)
WHOLE = (
    ("tests.zoo.twin_one", "twins", "both call themselves twins"),
    ("tests.zoo.twin_two", "twins", "both call themselves twins"),
    ("tests.zoo.cycle_hen", "hen", "requires itself: hen -> egg -> hen"),
    ("tests.zoo.cycle_egg", "egg", "requires itself: egg -> hen -> egg"),
    ("tests.zoo.orphan", "orphan", "requires nobody"),
    ("tests.zoo.thief", "fund", "the id fund is taken"),
)
ENDS = {  # how each fault of tests/zoo/faulty.py ends, and why
    "crash": ("INTERRUPTED", "its process was killed by SIGSEGV"),
    "loop": ("TIMED_OUT", "over its time limit"),
    "hog": ("FAILED", "out_of_memory"),
    "chatter": ("FAILED", "printed over 50 MB"),
    "forks": ("SUCCESS", ""),
    "unserialisable": ("FAILED", "bad_result: faulty.unserialisable returned data that is no JSON"),
    "not_a_number": ("FAILED", "bad_result: faulty.not_a_number returned data that is no JSON"),
    "huge": ("FAILED", "bad_result: faulty.huge returned 70,012 bytes of data"),
    "negative": ("FAILED", "bad_result: faulty.negative returned records=-1"),
    "nothing": ("FAILED", "bad_result: faulty.nothing returned NoneType"),
    "a_word": ("FAILED", "bad_result: faulty.a_word returned str"),
    "exits": ("FAILED", "its process ended with exit code 0 before it could record why"),
    "leaves": ("FAILED", "its process ended with exit code 0 before it could record why"),
    "holds": ("FAILED", "held the database for 15 s in one transaction"),
    "raises": ("FAILED", "internal_error: RuntimeError"),
}
PARKED = {  # what is said of the merge that a subscriber could not take
    "faulty.refuse": "RuntimeError: on purpose",
    "faulty.fall": "the process ended before it was done with the event",
    "faulty.spin": "the process ended before it was done with the event",
}


def zoo_jobs(folder: Path) -> Path:
    """The night's own jobs, and one of each fault that is due when the collection is."""
    path = jobs_file(folder, without=SWEEPS)
    tables = [
        f'[zoo_{name}]\ntask = "faulty.{name}"\ncron = {{ hour = 19, minute = 0 }}\n'
        f"timeout_minutes = {0.1 if name == 'loop' else 5}\n"
        'retry = { attempts = 1 }\ncatch_up = { policy = "none" }\n'
        for name in ENDS
    ]
    path.write_text("\n".join([path.read_text(encoding="utf-8"), *tables]), encoding="utf-8")
    return path


def zoo_runs(process: DaemonProcess) -> dict[str, Any]:
    with db.read(process.engine) as connection:
        query = select(job_run).where(job_run.c.task.like("faulty.%")).order_by(job_run.c.id)
        return {row.task.partition(".")[2]: row for row in connection.execute(query)}


def content(engine: Engine) -> dict[str, list[Any]]:
    """What the night left, without what the zoo's own runs say of themselves."""
    found = effects(engine)
    for name in ("data_update_log", "job_run"):
        found[name] = [row for row in found[name] if not any(str(part).startswith("faulty.") for part in row)]
    for table in (tmp_fund_nav, fund_rank, fund_score):
        found[table.name] = rows(engine, table, *WHEN_AND_WHICH)
    return found


def marked_processes() -> list[int]:
    """Processes that some run's attempt has left."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"{MARK}=".encode() in environment and b"os.setsid()" in command:
            found.append(int(folder.name))
    return found


@pytest.fixture(params=["sqlite", "mariadb"])
def new_url(request: pytest.FixtureRequest) -> Callable[[Path], URL]:
    if request.param == "sqlite":
        return lambda home: URL.create("sqlite", database=str(home / "navkeeper.db"))
    server: URL = request.getfixturevalue("mariadb")
    return lambda _home: _new_database(server)


def play(url: URL, home: Path, standin: StandinServer, *, zoo: bool) -> dict[str, list[Any]]:
    engine = db.connect(url)
    initialise(engine, NOW)
    standin.set_now(at(EVE, 23))
    jobs = zoo_jobs(home) if zoo else jobs_file(home, without=SWEEPS)
    process = DaemonProcess(engine, home, standin.url, at(EVE, 23), jobs)
    if zoo:
        names = ",".join(["tests.zoo.faulty", *(name for name, _why in BROKEN), *(row[0] for row in WHOLE)])
        process.environment |= {"NAVKEEPER_PLUGINS": names, "PYTHONPATH": str(ROOT)}
        enabled = process.main("plugins", "enable", "faulty")
        assert enabled.returncode == 0, enabled.stderr
    stored = process.main("nav", "--from", "2025-10-09")
    assert stored.returncode == 0, stored.stderr
    process.set_clock(at(DAY, 12))
    with process:
        for hour, minute, job in ((19, 0, "collect"), (19, 30, "validate"), (20, 30, "metrics")):
            standin.set_now(at(DAY, 18, 59))
            process.set_clock(at(DAY, hour, minute))
            process.reach(DAY, {job: "SUCCESS"})
        if zoo:
            look_at_the_zoo(process)
    found = content(engine)
    engine.dispose()
    return found


def look_at_the_zoo(process: DaemonProcess) -> None:
    def over() -> bool:
        process.set_clock(at(DAY, 23))  # beyond every delay before another attempt
        found = zoo_runs(process)
        return found.keys() == ENDS.keys() and all(row.status not in PENDING for row in found.values())

    until(over, bool, "the end of every fault", 240)
    ends = {name: (row.status, row.reason or "") for name, row in zoo_runs(process).items()}
    for name, (status, why) in ENDS.items():
        assert ends[name][0] == status, (name, ends[name])
        assert why in ends[name][1], (name, ends[name])
    until(marked_processes, lambda found: not found, "the end of those that left their group")
    logs = [path for path in (process.home / "logs" / "runs").iterdir() if path.stat().st_size > 50_000_000]
    assert logs == []
    listed = process.main("plugins", "--json")
    records = {record["source"]: record for record in map(json.loads, listed.stdout.splitlines())}
    for name, why in BROKEN:
        assert (records[name]["state"], why in records[name]["reason"]) == ("FAILED", True), records[name]
    for name, plugin, why in WHOLE:
        assert (records[name]["state"], records[name]["plugin"]) == ("FAILED", plugin)
        assert why in records[name]["reason"]
    assert records["tests.zoo.faulty"]["state"] == "ENABLED"
    look_at_its_subscribers(process)


def look_at_its_subscribers(process: DaemonProcess) -> None:
    """Each has failed three times at the night's one merge, which is parked, and is at the events after it."""
    looks = count()

    def parked() -> dict[str, str]:
        process.set_clock(at(DAY, 23) + timedelta(seconds=next(looks)))  # each attempt is later than the last
        with db.read(process.engine) as connection:
            found = connection.execute(
                select(event_parked).join(run_event, run_event.c.id == event_parked.c.event_id)
            )
            return {row.subscriber: row.error for row in found}

    assert (
        until(parked, lambda found: found.keys() == PARKED.keys(), "the end of every attempt", 120) == PARKED
    )


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="who left its group is found through /proc"
)
@pytest.mark.timeout(900)
def test_a_recorded_night_beside_the_zoo_is_as_one_without_it(
    new_url: Callable[[Path], URL], data: Path, tmp_path: Path
) -> None:
    part = part_of(data, tmp_path / "part.parquet", funds=300, since=date(2025, 10, 9), until=DAY)
    market = recorded_market(part, time(18), data / "fund_list.csv")
    found = {}
    for zoo in (False, True):
        home = tmp_path / ("zoo" if zoo else "alone")
        home.mkdir()
        with StandinServer(market, now=at(EVE, 23)) as standin:
            found[zoo] = play(new_url(home), home, standin, zoo=zoo)
    assert len(found[False]["fund_metrics"]) > 200
    assert found[True] == found[False]
