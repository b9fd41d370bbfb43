"""The real daemon as a process, on a clock that the test moves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from sqlalchemy import Engine, Row, select

from config.settings import ROOT, environment_with
from core import db
from core.schema import daemon, data_update_log, job_run
from core.trading_calendar import SHANGHAI

LIMIT = 60.0


def at(day: date, hour: int, minute: int = 0) -> datetime:
    """An instant by Shanghai's clock."""
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=SHANGHAI)


def jobs_file(folder: Path, *changes: tuple[str, str], without: tuple[str, ...] = ()) -> Path:
    """The shipped jobs without some of them, and with texts replaced; each change must change something."""
    text = (ROOT / "config" / "jobs.toml").read_text(encoding="utf-8")
    head, *tables = text.split("\n[")
    text = "\n[".join([head, *(table for table in tables if table.partition("]")[0] not in without)])
    for old, new in changes:
        assert old in text, f"{old!r} is not in jobs.toml"
        text = text.replace(old, new)
    path = folder / "jobs.toml"
    path.write_text(text, encoding="utf-8")
    return path


SWEEPS = (  # all that runs beside the chain of a night and the weekly job
    *("sweep", "sweep_morning", "reference", "repair"),
    *("cleanup", "backup", "size_watch", "monthly"),
)
T = TypeVar("T")


def until(read: Callable[[], T], wanted: Callable[[T], bool], what: str, limit: float = LIMIT) -> T:
    """Poll what other processes do; fail loudly after a minute."""
    deadline = time.monotonic() + limit
    while not wanted(found := read()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {limit:.0f} s; last seen: {found}")
        time.sleep(0.02)
    return found


class DaemonProcess:
    """`python scheduler/run_scheduler.py` on `engine`'s database, collecting from `source_url`."""

    def __init__(
        self, engine: Engine, home: Path, source_url: str, now: datetime, jobs: Path | None = None
    ) -> None:
        self.engine = engine
        self.home = home
        self.clock_file = home / "clock"
        self.environment = environment_with(
            home=home,
            db_url=engine.url.render_as_string(hide_password=False),
            eastmoney_fund_url=source_url,
            eastmoney_api_url=source_url,
            eastmoney_quote_url=source_url,
            requests_per_second=1000,
            clock_file=self.clock_file,
            **({"jobs_file": jobs} if jobs else {}),
        )
        self.set_clock(now)
        self.process: subprocess.Popen[str] | None = None

    def set_clock(self, now: datetime) -> None:
        fresh = self.clock_file.with_suffix(".new")
        fresh.write_text(now.isoformat(), encoding="ascii")
        fresh.replace(self.clock_file)

    def start(self) -> DaemonProcess:
        """Start and wait for its first heartbeat."""
        self.kill()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "scheduler" / "run_scheduler.py")],
            cwd=self.home,
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        pid = self.process.pid

        def beating() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()[1]
            with db.read(self.engine) as connection:
                row = connection.execute(select(daemon)).one_or_none()
            return row is not None and row.pid == pid and row.stopped_at is None

        until(beating, bool, "the daemon's first heartbeat")
        return self

    def __enter__(self) -> DaemonProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process is not None and self.process.stderr is not None:
            self.process.stderr.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=LIMIT)

    def main(self, *words: str) -> subprocess.CompletedProcess[str]:
        """main.py in the daemon's environment."""
        command = [sys.executable, str(ROOT / "main.py"), *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )

    def runs(self, day: date | None = None) -> list[Row[tuple[object, ...]]]:
        query = select(job_run).order_by(job_run.c.id)
        with db.read(self.engine) as connection:
            return list(
                connection.execute(query if day is None else query.where(job_run.c.business_date == day))
            )

    def states(self, day: date) -> dict[str, str]:
        """The state of the newest run of each job for a business date."""
        return {row.job_id: row.status for row in self.runs(day)}

    def reach(self, day: date, wanted: Mapping[str, str]) -> None:
        """Wait until the jobs named are in the states named."""
        until(
            lambda: self.states(day),
            lambda found: all(found.get(job) == status for job, status in wanted.items()),
            f"{dict(wanted)} for {day}",
        )

    def update_log(self, day: date) -> list[tuple[str, str]]:
        """(table, status) of the night's log rows, oldest first."""
        query = (
            select(data_update_log).where(data_update_log.c.update_date == day).order_by(data_update_log.c.id)
        )
        with db.read(self.engine) as connection:
            return [(row.table_name, row.status) for row in connection.execute(query)]
