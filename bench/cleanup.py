"""What a cleanup of millions of expired rows costs the night beside it: python -m bench.cleanup [--rows N].

Nights by main.py against the stand-in, three without and three with the cleanup at work in a process of its own, on
SQLite and on MariaDB where it is installed. Prints JSON; fails where a night takes over 1.3 times as long.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

from sqlalchemy import Engine, create_engine, func, insert, select, text
from sqlalchemy.engine import URL

from config.settings import ROOT, environment_with, load_settings
from core import db
from core.initialise import initialise
from core.schema import job_run, nav_batch, tmp_fund_nav
from core.standin import StandinServer, simulated_market
from core.trading_calendar import SHANGHAI, library_sessions
from scheduler import run_store
from scheduler.clock import clock_from
from scheduler.job import RunStatus
from scheduler.process_identity import this_process
from scheduler.run_context import RunContext
from scheduler.runner import execute
from tests.mariadb import MariaServer

BAR = 1.3
FUNDS = 4_000
ROWS_A_BATCH = 26_000
FIRST, LAST = date(2025, 9, 1), date(2025, 11, 28)
EVE = date(2025, 11, 19)
NIGHTS = [
    date(2025, 11, day) for day in (20, 21, 24, 25, 26, 27)
]  # half of them without, half beside the cleanup


def at(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=SHANGHAI)


def fill(engine: Engine, rows: int) -> None:
    """So many staged rows of batches that were collected half a year ago."""
    columns = ("batch_id", "row_no", "fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return")
    for number in range(1, -(-rows // ROWS_A_BATCH) + 1):
        mine = min(ROWS_A_BATCH, rows - (number - 1) * ROWS_A_BATCH)
        batch = {"kind": "latest", "source": "bench", "provenance": "bench", "status": "MERGED"}
        with db.write(engine) as connection:
            collected = {"collected_at": at(date(2025, 5, 1), 20), "row_count": mine}
            connection.execute(insert(nav_batch).values(id=number, **batch, **collected))
            staged = ((number, n, f"{n:06d}", "2025-05-01", 1.2345, 1.2345, 0.12) for n in range(mine))
            db.bulk_insert(connection, tmp_fund_nav, columns, staged)


def staged(engine: Engine) -> int:
    """Expired rows left; the nights' own batches come after them."""
    with db.read(engine) as connection:
        old = select(func.max(nav_batch.c.id)).where(nav_batch.c.source == "bench").scalar_subquery()
        query = select(func.count()).select_from(tmp_fund_nav).where(tmp_fund_nav.c.batch_id <= old)
        return connection.execute(query).scalar_one()


def clean() -> None:
    """One cleanup in this process, as the daemon's child would do it."""
    settings = load_settings()
    engine, clock = db.connect(settings.database_url()), clock_from(settings)
    with db.write(engine) as connection:
        run_id = run_store.add_run(
            connection,
            job_id="cleanup",
            task="cleanup",
            business_date=LAST,
            status=RunStatus.QUEUED,
            now=clock(),
        )
        run = connection.execute(select(job_run).where(job_run.c.id == run_id)).one()
        claim = run_store.claim_run(connection, run, this_process(), clock())
    assert claim is not None
    context = RunContext(engine, settings, run, claim, clock, table_name="expired", translate=str)
    assert execute(context, run).status is RunStatus.SUCCESS


def night(environment: dict[str, str], day: date) -> float:
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "main.py"), "all", "--date", str(day)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


@contextlib.contextmanager
def databases(folder: Path) -> Iterator[dict[str, URL]]:
    found = {"sqlite": URL.create("sqlite", database=str(folder / "navkeeper.db"))}
    with contextlib.ExitStack() as stack:
        if shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            server = stack.enter_context(MariaServer(folder / "mariadb"))
            with create_engine(server.url).begin() as connection:
                connection.execute(text("CREATE DATABASE bench CHARACTER SET utf8mb4"))
            found["mariadb"] = server.url.set(database="bench")
        yield found


def measure(url: URL, rows: int, home: Path) -> dict[str, object]:
    engine = db.connect(url)
    clock = home / "clock"
    clock.write_text(at(EVE, 23).isoformat(), encoding="ascii")
    initialise(engine, at(EVE, 23))
    fill(engine, rows)
    market = simulated_market(FUNDS, FIRST, LAST, 7, library_sessions())
    times: dict[bool, list[float]] = {False: [], True: []}
    removed = 0
    with StandinServer(market, now=at(EVE, 23)) as standin:
        places = dict.fromkeys(
            ("eastmoney_fund_url", "eastmoney_api_url", "eastmoney_quote_url"), standin.url
        )
        places |= {"db_url": url.render_as_string(hide_password=False)}
        environment = environment_with(home=home, clock_file=clock, requests_per_second=1000, **places)
        worker: subprocess.Popen[bytes] | None = None
        night(environment, EVE)  # the first of all finds nothing stored
        for number, day in enumerate(NIGHTS):
            clock.write_text(at(day, 23).isoformat(), encoding="ascii")
            standin.set_now(at(day, 23))
            beside = number >= len(NIGHTS) // 2
            if beside and worker is None:
                worker = subprocess.Popen(
                    [sys.executable, "-m", "bench.cleanup", "--clean"], cwd=ROOT, env=environment
                )
                while staged(engine) == rows:  # until it is at work
                    time.sleep(0.1)
            before = staged(engine)
            times[beside].append(night(environment, day))
            removed += before - staged(engine)
        assert worker is not None
        began = time.perf_counter()
        code = worker.wait()
        alone = time.perf_counter() - began
    ratio = statistics.median(times[True]) / statistics.median(times[False])
    return {
        "rows": rows,
        "funds": FUNDS,
        "night_seconds": round(statistics.median(times[False]), 2),
        "night_seconds_beside_cleanup": round(statistics.median(times[True]), 2),
        "nights": {str(key): [round(each, 2) for each in found] for key, found in times.items()},
        "ratio": round(ratio, 3),
        "bar": BAR,
        "removed_during_nights": removed,
        "seconds_after_nights": round(alone, 1),
        "left": staged(engine),
        "ok": ratio <= BAR and code == 0 and staged(engine) == 0 and removed > 0,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--clean", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clean:
        clean()
        return 0
    found = {}
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder)) as known:
        for name, url in known.items():
            home = Path(folder) / f"home-{name}"
            home.mkdir()
            found[name] = measure(url, options.rows, home)
    print(json.dumps(found, indent=2))
    return 0 if all(each["ok"] for each in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
