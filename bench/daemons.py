"""What the benches share: daemons as processes on one clock, databases of both kinds, a simulated market."""

from __future__ import annotations

import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, Row, create_engine, func, select
from sqlalchemy.engine import URL

from bench.backfill import plain, stored
from config.settings import ROOT
from core import db
from core.initialise import initialise
from core.schema import daemon, data_update_log, job_run, quarantine, run_attempt, run_event
from core.standin import Market
from core.standin.market import View, iso_dates
from scheduler.job import PENDING, RunStatus
from scheduler.process_identity import Process
from tests.daemon import DaemonProcess
from tests.mariadb import MariaServer

T = TypeVar("T")
NOWHERE = "http://127.0.0.1:9"  # for work that needs no source


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "python": platform.python_version()}


def spread(values: Iterable[float], digits: int = 2) -> dict[str, float]:
    """How many, p50, p99 (nearest rank) and the largest."""
    found = sorted(values)
    if not found:
        return {"count": 0}
    at = [found[math.ceil(share * len(found)) - 1] for share in (0.5, 0.99, 1.0)]
    return {"count": len(found)} | {
        name: round(value, digits) for name, value in zip(("p50", "p99", "max"), at, strict=True)
    }


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards, unless it was asked for."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def wait_for(read: Callable[[], T], wanted: Callable[[T], bool], seconds: float, step: float = 0.02) -> T:
    """What was read last: what was wanted, or what was there when the time was over."""
    deadline = time.monotonic() + seconds
    while not wanted(found := read()) and time.monotonic() < deadline:
        time.sleep(step)
    return found


class MovedClock:
    """The clock file of several processes: it goes on at its natural pace and is set forward by us."""

    def __init__(self, path: Path, now: datetime) -> None:
        self.path = path
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.set(now)
        threading.Thread(target=self._go_on, name="clock", daemon=True).start()

    def set(self, now: datetime) -> None:
        with self._lock:
            self._base, self._since = now, time.monotonic()
            self._write(now)

    @property
    def now(self) -> datetime:
        return self._base + timedelta(seconds=time.monotonic() - self._since)

    def stop(self) -> None:
        self._over.set()

    def _go_on(self) -> None:
        while not self._over.wait(0.1):
            with self._lock:
                self._write(self.now)

    def _write(self, now: datetime) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(now.isoformat(), encoding="ascii")
        fresh.replace(self.path)


class Node(DaemonProcess):
    """One daemon of possibly several; it may stand by, and it may be killed in every way."""

    def __init__(
        self,
        engine: Engine,
        home: Path,
        jobs: Path,
        *,
        clock: MovedClock | None = None,
        source_url: str = NOWHERE,
        **settings: object,
    ) -> None:
        """Without `clock` it lives by the real one."""
        home.mkdir(parents=True, exist_ok=True)
        super().__init__(engine, home, source_url, datetime.now(UTC), jobs)
        del self.environment["NAVKEEPER_CLOCK_FILE"]
        if clock is not None:
            self.environment["NAVKEEPER_CLOCK_FILE"] = str(clock.path)
        self.environment |= {f"NAVKEEPER_{name.upper()}": str(value) for name, value in settings.items()}

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def launch(self) -> None:
        """Start, without waiting for what becomes of it."""
        with (self.home / "daemon.err").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "scheduler" / "run_scheduler.py")],
                cwd=self.home,
                env=self.environment,
                stdout=errors,
                stderr=errors,
                text=True,
            )

    def die(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        path = self.home / "logs" / "daemon.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def kill_runs(engine: Engine, nodes: Sequence[Node]) -> int:
    """SIGKILL every run's process, also of runs that a dead daemon left; how many there were."""
    daemons = {node.pid for node in nodes}
    with db.read(engine) as connection:
        running = connection.execute(select(job_run).where(job_run.c.status == RunStatus.RUNNING.value)).all()
    known = [Process(run.host, run.pid, run.pid_started) for run in running]
    pids = {process.pid for process in known if process.pid not in daemons and process.is_alive()}
    for pid in daemons:
        pids |= set(children_of(pid))
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it was done in between
            continue
    return len(pids)


def children_of(pid: int) -> list[int]:
    """Live direct children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a live process, without its children's."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return sum(int(field) for field in text.rpartition(")")[2].split()[11:13]) / os.sysconf("SC_CLK_TCK")


@contextmanager
def database(kind: str, folder: Path, now: datetime) -> Iterator[Engine]:
    """A database ready for work: a file, or a schema on a server of its own."""
    if kind == "sqlite":
        engine = db.connect(URL.create("sqlite", database=str(folder / "navkeeper.db")))
        initialise(engine, now)
        yield engine
        engine.dispose()
        return
    with MariaServer(folder / "mariadb") as server:
        engine = db.connect(new_schema(server.url, "navkeeper"))
        initialise(engine, now)
        yield engine
        engine.dispose()


def new_schema(server: URL, name: str) -> URL:
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    engine.dispose()
    return server.set(database=name)


def leader(engine: Engine) -> Row[Any] | None:
    with db.read(engine) as connection:
        return connection.execute(select(daemon)).one_or_none()


def pending_runs(engine: Engine) -> dict[str, int]:
    """Runs that have not ended, by state."""
    states = [status.value for status in PENDING]
    query = select(job_run.c.status, func.count()).where(job_run.c.status.in_(states))
    with db.read(engine) as connection:
        return dict(connection.execute(query.group_by(job_run.c.status)).all())


def accounts(engine: Engine) -> dict[str, Any]:
    """Runs and attempts by state, for the report."""
    found: dict[str, Any] = {}
    with db.read(engine) as connection:
        for name, table in (("runs", job_run), ("attempts", run_attempt)):
            query = select(table.c.status, func.count()).group_by(table.c.status)
            found[name] = dict(connection.execute(query).all())
    return found


def uneven_steps(engine: Engine, dates: Sequence[date], jobs: Mapping[str, int]) -> list[str]:
    """What is not exactly once: each of `jobs` has so many runs a date, each with one success and one log row."""
    with db.read(engine) as connection:
        runs = connection.execute(select(job_run).where(job_run.c.requested_by == "schedule")).all()
        logged = connection.execute(
            select(job_run.c.job_id, data_update_log.c.update_date, data_update_log.c.status)
            .join(job_run, job_run.c.id == data_update_log.c.run_id)
            .where(job_run.c.requested_by == "schedule")
        ).all()
        ends = connection.execute(
            select(run_event.c.run_id, func.count())
            .where(run_event.c.to_status.in_(("SUCCESS", "PARTIAL")), run_event.c.kind == "state")
            .group_by(run_event.c.run_id)
            .having(func.count() > 1)
        ).all()
    wrong = [f"run {run_id} succeeded {often} times" for run_id, often in ends]
    for job, times in jobs.items():
        for day in dates:
            own = [run for run in runs if (run.job_id, run.business_date) == (job, day)]
            states = [run.status for run in own]
            rows = [row.status for row in logged if (row.job_id, row.update_date) == (job, day)]
            well = all(state in ("SUCCESS", "PARTIAL") for state in states)
            if len(states) != times or not well or sorted(rows) != sorted(states):
                why = [run.reason for run in own]
                wrong.append(f"{job} {day}: runs {states} {why}, data_update_log {rows}")
    others = [run for run in runs if run.job_id in jobs and run.business_date not in dates]
    # Holidays are skipped; what fell due before the first daemon is recorded as missed.
    fine = {RunStatus.SKIPPED.value}, {RunStatus.SKIPPED.value, RunStatus.MISSED.value}
    return wrong + [
        f"{run.job_id} {run.business_date}: {run.status}"
        for run in others
        if run.status not in fine[run.business_date < dates[0]]
    ]


def published(market: Market, instants: Iterable[datetime]) -> set[tuple[str, str, str, str]]:
    """Code, date, NAV and accumulated NAV that the whole-market pages showed at any of these instants."""
    rows = {row for instant in instants for row in View(market, instant).latest.tolist() if row >= 0}
    return _values(market, rows)


def history(market: Market, until: datetime, last: date) -> set[tuple[str, str, str, str]]:
    """What the funds' own pages showed at `until` of dates up to `last`."""
    view = View(market, until)
    rows = [row for fund in range(len(market.funds)) for row in view.rows(fund).tolist()]
    days = iso_dates(market.dates[rows])
    return _values(market, {row for row, day in zip(rows, days, strict=True) if day <= last.isoformat()})


def _values(market: Market, rows: set[int]) -> set[tuple[str, str, str, str]]:
    """Of NAV funds alone: money funds publish yields."""
    found = set()
    for fund, (low, high) in zip(
        market.funds, zip(market.offsets[:-1], market.offsets[1:], strict=True), strict=True
    ):
        for row in () if fund.money else rows.intersection(range(int(low), int(high))):
            unit, accum = float(market.unit_nav[row]), float(market.accum_nav[row])
            day = iso_dates(market.dates[[row]])[0]
            found.add((fund.code, day, plain(unit), "" if accum != accum else plain(accum)))
    return found


def stored_navs(engine: Engine, market: Market) -> set[tuple[str, str, str, str]]:
    """fund_nav and quarantine together, of NAV funds."""
    funds = {fund.code for fund in market.funds if not fund.money}
    return {row for row in stored(engine) if row[0] in funds}


def quarantined(engine: Engine) -> int:
    with db.read(engine) as connection:
        return connection.execute(select(func.count()).select_from(quarantine)).scalar_one()
