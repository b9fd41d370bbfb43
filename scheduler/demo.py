"""`main.py demo` (make run): one night on a simulated market, through the real client and the real daemon."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, select
from sqlalchemy.engine import URL

from config.settings import ROOT, environment_with
from core import db
from core.errors import NavKeeperError
from core.initialise import ensure_ready
from core.schema import job_run
from core.trading_calendar import CHAIN_DUE, SHANGHAI, load_calendar
from scheduler.clock import clock_from
from scheduler.exit_codes import FAILED, OK
from scheduler.job import PENDING, RunStatus

if TYPE_CHECKING:
    from config.settings import Settings

FUNDS = 1000
YEARS = 3
NIGHT_LIMIT = 60.0  # seconds for the jobs of one time to finish
# To what time the clock is put, and which jobs are then waited for.
EVENING = (
    (18, 30, ("reference",)),
    (20, 45, ("collect", "validate", "metrics")),
    (21, 1, ("sweep",)),
    (22, 1, ("repair",)),
)


class DemoFailed(NavKeeperError):
    code = "demo_failed"


def demo(settings: Settings) -> int:
    """Back-fill three years of a simulated market, then let the daemon do its last night."""
    began = time.monotonic()
    home = settings.home / "demo"
    shutil.rmtree(home, ignore_errors=True)
    (home / "logs").mkdir(parents=True)
    database = home / "navkeeper.db"
    engine = db.connect(URL.create("sqlite", database=str(database)))
    now = clock_from(settings)()
    ensure_ready(engine, now)
    with db.read(engine) as connection:
        calendar = load_calendar(connection)
    assert calendar is not None  # noqa: S101 - ensure_ready filled it
    night = calendar.newest_business_date(now, CHAIN_DUE)
    before = calendar.previous_session(night)
    clock_file = home / "clock"
    with _standin(night) as address:
        environment = environment_with(
            home=home,
            db_url=f"sqlite:///{database}",
            source="eastmoney",
            eastmoney_fund_url=address,
            eastmoney_api_url=address,
            eastmoney_quote_url=address,
            requests_per_second=1000,
            clock_file=clock_file,
        )
        _say(
            f"SIMULATED market of {FUNDS} funds at {address}; nothing here is real, nothing leaves this machine"
        )
        clock_file.write_text(_at(before, 23, 45), encoding="ascii")  # too late to be asked about that night
        _show_now(address, _at(before, 23, 45))
        start = night.replace(year=night.year - YEARS, day=min(night.day, 28))
        _say(f"back-filling {start} to {before} ...")
        _call(["main.py", "nav", "--from", str(start), "--to", str(before)], environment)
        _say(f"the night of {night}: the daemon collects, validates and calculates ...")
        _night(engine, night, clock_file, address, environment)
    _say(f"done in {time.monotonic() - began:.0f} s")
    _next_steps(home)
    return OK


def _at(day: date, hour: int, minute: int) -> str:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=SHANGHAI).isoformat()


def _say(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


@contextmanager
def _standin(night: date) -> Iterator[str]:
    """A process that serves a simulated market ending with `night`; its address."""
    start = night - timedelta(days=365 * YEARS + 30)
    command = ["-m", "core.standin", "--market", "simulated", "--funds", str(FUNDS)]
    command += ["--start", str(start), "--end", str(night), "--now", _at(night, 23, 30)]
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - asked for above
        line = process.stdout.readline()
        if not line:
            raise DemoFailed("the simulated market did not start")
        yield json.loads(line)["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _show_now(address: str, instant: str) -> None:
    import httpx

    httpx.post(f"{address}/_standin/now", json={"now": instant}, trust_env=False).raise_for_status()


def _call(words: list[str], environment: dict[str, str]) -> None:
    if subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, check=False).returncode > FAILED:
        raise DemoFailed(f"{' '.join(words)} failed")


def _night(engine: Engine, night: date, clock_file: Path, address: str, environment: dict[str, str]) -> None:
    """Start the daemon before the night and put its clock past the times of one job after the other."""
    clock_file.write_text(_at(night, *EVENING[0][:2]), encoding="ascii")
    _show_now(address, _at(night, 23, 30))
    daemon = subprocess.Popen(
        [sys.executable, "scheduler/run_scheduler.py"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        for hour, minute, jobs in EVENING:
            clock_file.write_text(_at(night, hour, minute), encoding="ascii")
            _wait(engine, daemon, jobs, clock_file)
        _call(["main.py", "monitor"], environment)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


def _wait(engine: Engine, daemon: subprocess.Popen[bytes], jobs: tuple[str, ...], clock_file: Path) -> None:
    """Until each of the jobs has a run that is over; meanwhile the clock goes at its natural pace."""
    began = last = time.monotonic()
    while (now := time.monotonic()) < began + NIGHT_LIMIT:
        moved = datetime.fromisoformat(clock_file.read_text(encoding="ascii")) + timedelta(seconds=now - last)
        clock_file.with_suffix(".new").write_text(moved.isoformat(), encoding="ascii")
        clock_file.with_suffix(".new").replace(clock_file)
        last = now
        with db.read(engine) as connection:
            rows = connection.execute(select(job_run.c.job_id, job_run.c.status).order_by(job_run.c.id)).all()
        found = {job: RunStatus(status) for job, status in rows}
        if daemon.poll() is not None:
            raise DemoFailed(f"the daemon ended with exit code {daemon.returncode}; see demo/logs/daemon.log")
        if all(found.get(job, RunStatus.WAITING) not in PENDING for job in jobs):
            return
        time.sleep(0.1)
    raise DemoFailed(f"the night did not finish within {NIGHT_LIMIT:.0f} s; see demo/logs")


def _next_steps(home: Path) -> None:
    """What to type next."""
    python = Path(sys.executable)
    shown = python.relative_to(ROOT) if python.is_relative_to(ROOT) else python
    print(
        f"""
Next:
  the demo again      NAVKEEPER_HOME={home} {shown} main.py monitor
  the demo's pages    NAVKEEPER_HOME={home} {shown} main.py health   # then open http://127.0.0.1:5000/
  the live source     {shown} main.py init && {shown} main.py all
  the daemon          nohup {shown} scheduler/run_scheduler.py &
  the dashboard       {shown} main.py monitor --watch
  the pages           {shown} main.py health
  MySQL               MYSQL_HOST=... MYSQL_USER=... MYSQL_PASSWORD=... MYSQL_DB=navkeeper {shown} main.py init
  every action        {shown} main.py --help"""
    )
