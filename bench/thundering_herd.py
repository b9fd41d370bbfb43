"""A thousand jobs due in the same second: none lost, none doubled, never more at once than allowed.

On the real clock: the jobs' second is a quarter of a minute after the start. Each job validates a date whose batch
is merged already, so its cost is that of a run's process; that is measured beside it. Prints JSON.

    python -m bench.thundering_herd [--jobs 1000] [--round sqlite:2 --round mariadb:4]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, insert, select

from bench.daemons import (
    Node,
    accounts,
    children_of,
    cpu_seconds,
    database,
    machine,
    say,
    spread,
    wait_for,
    work_folder,
)
from config.settings import ROOT
from core import db
from core.schema import daemon, data_update_log, job_run, nav_batch, run_attempt
from core.trading_calendar import SHANGHAI, load_calendar
from scheduler import run_store
from scheduler.job import RunStatus
from scheduler.process_identity import this_process

SECONDS_AHEAD = 15
SECONDS_A_RUN = 10.0  # slower than that is stuck
ALONE = 20  # runs measured one after the other
JOB = """
[herd_{number:04d}]
task = "validate_nav"
business_date = "last_session"
[herd_{number:04d}.cron]
year = {at.year}
month = {at.month}
day = {at.day}
hour = {at.hour}
minute = {at.minute}
second = {at.second}
"""


def now() -> datetime:
    return datetime.now(UTC)


def merged_date(engine: Engine, due: datetime) -> date:
    """The date the jobs are for, its batch merged already."""
    with db.write(engine) as connection:
        calendar = load_calendar(connection)
        assert calendar is not None
        day = calendar.last_session(due.astimezone(SHANGHAI).date())
        values = {"kind": "latest", "business_date": day, "source": "bench", "provenance": "SIMULATED"}
        values |= {"collected_at": due, "row_count": 0, "merged_count": 0, "status": "MERGED"}
        connection.execute(insert(nav_batch).values(values))
    return day


def herd(kind: str, folder: Path, jobs: int, running: int) -> dict[str, Any]:
    """All jobs due in one second, at most `running` at once."""
    with database(kind, folder, now()) as engine:
        due = (now() + timedelta(seconds=SECONDS_AHEAD)).replace(microsecond=0)
        merged_date(engine, due)
        path = folder / "herd.toml"
        local = due.astimezone(SHANGHAI)
        path.write_text("".join(JOB.format(number=n, at=local) for n in range(jobs)), encoding="utf-8")
        node = Node(engine, folder, path, max_running=running)
        node.launch()
        wait_for(lambda: _leads(engine), bool, 60)
        if now() >= due:
            raise SystemExit("the daemon was not up before the jobs were due; is the machine busy?")
        try:
            return watch(engine, node, due, jobs, running)
        finally:
            node.kill()


def _leads(engine: Engine) -> bool:
    with db.read(engine) as connection:
        return connection.execute(select(daemon.c.id)).first() is not None


def watch(engine: Engine, node: Node, due: datetime, jobs: int, running: int) -> dict[str, Any]:
    """From the jobs' second until the last run has ended."""
    before = cpu_seconds(node.pid)
    queued = seen_queued(engine, due, jobs)
    say(f"{len(queued)} runs queued after {max(queued, default=0):.2f} s")
    most, over = [0], threading.Event()
    sampler = threading.Thread(target=_sample, args=(node.pid, most, over))
    sampler.start()
    last = 0

    def ended() -> int:
        nonlocal last
        with db.read(engine) as connection:
            query = select(func.count()).where(job_run.c.finished_at.is_not(None))
            found = connection.execute(query).scalar_one()
        if found // 100 > last // 100:
            say(f"{found} runs done")
        last = found
        return found

    wait_for(ended, lambda found: found >= jobs, jobs * SECONDS_A_RUN / running + 60, 0.5)
    seconds = (now() - due).total_seconds()
    over.set()
    sampler.join()
    wrong, overlap = check(engine, jobs)
    wrong += [f"{most[0]} processes at once"] if most[0] > running else []
    wrong += [f"{overlap} runs at once by their attempts' times"] if overlap > running else []
    return {
        "seconds_until_queued": spread(queued, 3),
        "seconds_until_done": round(seconds, 1),
        "runs_per_second": round(jobs / seconds, 2),
        "most_processes_at_once": most[0],
        "most_attempts_at_once": overlap,
        "daemon_cpu_seconds": round(cpu_seconds(node.pid) - before, 1),
        **accounts(engine),
        "wrong": wrong,
    }


def seen_queued(engine: Engine, due: datetime, jobs: int) -> list[float]:
    """For each run, how long after its second it could be seen in the database."""
    found: list[float] = []
    deadline = time.monotonic() + SECONDS_AHEAD + 60
    while len(found) < jobs and time.monotonic() < deadline:
        with db.read(engine) as connection:
            count = connection.execute(select(func.count()).select_from(job_run)).scalar_one()
        found += [(now() - due).total_seconds()] * (count - len(found))
        time.sleep(0.01)
    return found


def _sample(pid: int, most: list[int], over: threading.Event) -> None:
    """How many processes of runs live at once: the daemon's children."""
    while not over.wait(0.05):
        most[0] = max(most[0], len(children_of(pid)))


def check(engine: Engine, jobs: int) -> tuple[list[str], int]:
    """What is wrong, and how many attempts overlapped at the most."""
    with db.read(engine) as connection:
        runs = connection.execute(select(job_run)).all()
        attempts = connection.execute(select(run_attempt)).all()
        logged = Counter(connection.execute(select(data_update_log.c.run_id)).scalars())
    times = Counter(run.job_id for run in runs)
    wrong = [f"{job} has {count} runs" for job, count in times.items() if count != 1]
    wrong += [f"{len(times)} of {jobs} jobs have a run"] if len(times) != jobs else []
    bad = Counter(run.status for run in runs if run.status != RunStatus.SUCCESS.value)
    wrong += [f"{count} runs are {status}" for status, count in bad.items()]
    wrong += [f"{len(attempts)} attempts"] if len(attempts) != jobs else []
    wrong += ["not one log row a run"] if logged != Counter(run.id for run in runs) else []
    reasons = {run.reason for run in runs if run.status == RunStatus.SUCCESS.value}
    wrong += [] if all("nothing new" in (reason or "") for reason in reasons) else [f"reasons: {reasons}"]
    steps = [(attempt.started_at, 1) for attempt in attempts]
    steps += [(attempt.finished_at, -1) for attempt in attempts]
    level = overlap = 0
    for _at, step in sorted(steps):
        level += step
        overlap = max(overlap, level)
    return wrong, overlap


def cost_of_a_run(folder: Path) -> dict[str, Any]:
    """One run's process alone, on SQLite: what it takes, and what of that is Python, imports and work."""
    with database("sqlite", folder, now()) as engine:
        day = merged_date(engine, now())
        environment = dict(os.environ) | {
            "NAVKEEPER_HOME": str(folder),
            "NAVKEEPER_DB_URL": engine.url.render_as_string(hide_password=False),
        }
        runs = [_alone(_claimed(engine, day), environment) for _ in range(ALONE)]
        bare = [_measured([sys.executable, "-c", "pass"], environment) for _ in range(ALONE)]
        imports = _imports(_claimed(engine, day), environment)
    return {
        "cpu_ms": round(statistics.median(cpu for cpu, _wall in runs)),
        "wall_ms": round(statistics.median(wall for _cpu, wall in runs)),
        "bare_python_cpu_ms": round(statistics.median(cpu for cpu, _wall in bare)),
        "imports": imports,
        "bytecode_is_cached": not sys.dont_write_bytecode,
    }


def _claimed(engine: Engine, day: date) -> list[str]:
    """A run claimed for its process, as the supervisor does it; its command."""
    with db.write(engine) as connection:
        run_id = run_store.add_run(
            connection,
            job_id="herd",
            task="validate_nav",
            business_date=day,
            status=RunStatus.QUEUED,
            now=now(),
        )
        assert run_id is not None
        run = run_store.get_run(connection, run_id)
        assert run is not None
        claim = run_store.claim_run(connection, run, this_process(), now())
    return ["-m", "scheduler.runner", str(run_id), str(claim)]


def _alone(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    return _measured([sys.executable, *words], environment)


def _measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall milliseconds of a process."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return (usage.ru_utime + usage.ru_stime) * 1000, (time.monotonic() - began) * 1000


def _imports(words: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Milliseconds of import time in all, and by the packages that cost most."""
    command = [sys.executable, "-X", "importtime", *words]
    text = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stderr
    own: Counter[str] = Counter()
    for micros, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", text, re.MULTILINE):
        own[name.partition(".")[0]] += int(micros)
    return {
        "ms": round(own.total() / 1000),
        "own_ms_by_package": {name: round(micros / 1000) for name, micros in own.most_common(12)},
    }


def a_round(text: str) -> tuple[str, int]:
    kind, _colon, running = text.partition(":")
    if kind not in ("sqlite", "mariadb"):
        raise ValueError(kind)
    return kind, int(running)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument(
        "--round",
        action="append",
        type=a_round,
        help="database:runs at once; by default sqlite:2 and mariadb:4",
    )
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for database and logs, to look at afterwards"
    )
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "jobs": options.jobs, "rounds": {}}
    with work_folder(options.keep) as folder:
        (folder / "alone").mkdir()
        report["one_run_alone"] = cost_of_a_run(folder / "alone")
        for kind, running in options.round or [("sqlite", 2), ("mariadb", 4)]:
            say(f"{options.jobs} jobs on {kind}, {running} at once")
            own = folder / f"{kind}{running}"
            own.mkdir()
            report["rounds"][f"{kind}, {running} at once"] = herd(kind, own, options.jobs, running)
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 1 if any(found["wrong"] for found in report["rounds"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
