"""Back-fill of a whole simulated market through the stand-in: killed three times, gone on with, complete.

Prints JSON for SQLite and MariaDB: rows per second over all attempts, what was fetched twice, the peak of memory,
and what bounds it: processor time of every stage per row, of the server and of the stand-in. Then the newest date
is taken out again and comes back as a night: collected, validated, every metric of the market calculated. 0 only if
every row of the market is merged or quarantined, no fund was fetched more than once too often, and back-fill
and night stayed within 600 MB.

    python -m bench.market_backfill [--funds 26000] [--rows 1500] [--kills 3] [--database sqlite]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, delete, func, select
from sqlalchemy.engine import URL

from bench.write_path import cpu_seconds
from config.settings import ROOT, environment_with
from core import db, fund_series, nav_days
from core.collector import HISTORY_BATCH_FUNDS
from core.history import HistoryMerger
from core.initialise import initialise
from core.schema import backfilled_fund, fund_nav, money_fund_yield, quarantine
from core.sources.base import NavRow
from core.sources.eastmoney import EastmoneySource
from core.thresholds import load_thresholds
from core.trading_calendar import TradingCalendar, library_sessions
from scheduler.task_parts import RULES_FILE
from tests.mariadb import MariaServer

LAST_DAY = date(2026, 1, 30)
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ALL_PUBLISHED = datetime(2026, 2, 28, 12, 0, tzinfo=UTC)
BORN_LATER = 0.85  # the market's funds have so much of its sessions on average
PAGES = "/pingzhongdata/"
SAMPLE = 60  # funds whose stages are timed one by one
MEMORY_BAR_MB = 600


@contextmanager
def standin(funds: int, rows: int, home: Path) -> Iterator[tuple[str, dict[str, Any], int]]:
    """The simulated market as a process of its own: its address, what it says of itself, its pid."""
    sessions = [day for day in library_sessions() if day <= LAST_DAY]
    start = sessions[-round(rows / BORN_LATER)]
    command = [sys.executable, "-m", "core.standin", "--funds", str(funds), "--seed", "1"]
    command += [
        "--start",
        start.isoformat(),
        "--end",
        LAST_DAY.isoformat(),
        "--now",
        ALL_PUBLISHED.isoformat(),
    ]
    with (home / "standin.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        yield ready["url"], ready, process.pid
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def pages_asked(address: str) -> dict[str, int]:
    """Requests for pages of funds so far."""
    with urllib.request.urlopen(f"{address}/_standin/state") as reply:
        asked = json.load(reply)["requests"]
    return {path: times for path, times in asked.items() if path.startswith(PAGES)}


def attempt(
    environment: dict[str, str], address: str, kill_after: int | None, action: str = "backfill"
) -> dict[str, Any]:
    """One `main.py backfill`, killed when so many more pages were asked for; its cost and its report."""
    before = sum(pages_asked(address).values())
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), action, "--json"], env=environment, stdout=output
        )
        peak = 0.0
        while True:
            gone, status, usage = os.wait4(process.pid, os.WNOHANG)
            if gone:
                break
            with contextlib.suppress(OSError):  # it is going this moment
                peak = max(peak, memory_mb(process.pid))
            if kill_after is not None and sum(pages_asked(address).values()) - before >= kill_after:
                process.send_signal(signal.SIGKILL)
                kill_after = None
            time.sleep(0.3)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    found: dict[str, Any] = {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(peak),
        "ended": "killed" if process.returncode == -signal.SIGKILL else process.returncode,
    }
    reports = [json.loads(line) for line in text.splitlines() if line]
    return found | ({"report": reports[0] if len(reports) == 1 else reports} if reports else {})


def memory_mb(pid: int) -> float:
    """The most that the process has had in memory."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def settings(url: URL, address: str, home: Path) -> dict[str, str]:
    clock = home / "clock"
    clock.write_text(NOW.isoformat(), encoding="ascii")
    return environment_with(
        home=home,
        db_url=url.render_as_string(hide_password=False),
        eastmoney_fund_url=address,
        eastmoney_api_url=address,
        eastmoney_quote_url=address,
        requests_per_second=1000,
        clock_file=clock,
    )


def night(engine: Engine, environment: dict[str, str], address: str) -> dict[str, Any]:
    """The newest date once more, by way of the whole-market pages, in one process: its cost and its reports."""
    with db.write(engine) as connection:
        for table in nav_days.COUNTED:
            connection.execute(delete(table).where(table.c.nav_date == LAST_DAY))
        nav_days.recount(connection)
        fund_series.recount(connection)
    return attempt(environment, address, None, "all")


def measure(
    url: URL, address: str, market: dict[str, Any], home: Path, kills: int, pid: int | None
) -> dict[str, Any]:
    asked_before = pages_asked(address)
    server = cpu_seconds(pid)
    environment = settings(url, address, home)
    attempts = [attempt(environment, address, market["funds"] // (kills + 1)) for _ in range(kills)]
    attempts.append(attempt(environment, address, None))
    asked = {path: times - asked_before.get(path, 0) for path, times in pages_asked(address).items()}
    engine = db.connect(url)
    with db.read(engine) as connection:
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (fund_nav, money_fund_yield, quarantine, backfilled_fund)
        }
    stored = counts["fund_nav"] + counts["money_fund_yield"] + counts["quarantine"]
    seconds = sum(one["seconds"] for one in attempts)
    last = attempts[-1].get("report", {})
    lost = sum(asked.values()) - len(asked)
    server_seconds = cpu_seconds(pid) - server
    nightly = night(engine, environment, address)
    engine.dispose()
    return {
        "attempts": attempts,
        "night": nightly,
        "rows": stored,
        "seconds": round(seconds, 1),
        "rows_per_second": round(stored / seconds),
        "server_cpu_seconds": round(server_seconds, 1),
        "tables": counts,
        "complete": stored == market["rows"] and last.get("status") in ("SUCCESS", "PARTIAL"),
        "funds_fetched": len(asked),
        "fetched_again": lost,
        "resumed_well": max(asked.values()) <= 2 and lost <= kills * 2 * HISTORY_BATCH_FUNDS,
        "night_complete": nightly["ended"] == 0,
        "memory_within_bar": max(one["peak_mb"] for one in (*attempts, nightly)) < MEMORY_BAR_MB,
    }


def stages(
    url: URL, address: str, codes: list[str], standin_pid: int, server_pid: int | None
) -> dict[str, float]:
    """Microseconds of processor time per row, stage by stage, on a database of its own."""
    engine = db.connect(url)
    initialise(engine, NOW)
    source = EastmoneySource(address, address, requests_per_second=1e6)
    took: dict[str, float] = {}
    rows: list[NavRow] = []

    def timed(name: str, work: Callable[[], Any], pid: int | None = None, theirs: str = "") -> Any:
        mine, other = time.process_time(), cpu_seconds(pid)
        found = work()
        took[name] = time.process_time() - mine
        if pid is not None:
            took[theirs] = cpu_seconds(pid) - other
        return found

    def fetch() -> None:
        for _code, history in source.histories(codes):
            rows.extend(history)

    timed("fetch and parse", fetch, standin_pid, "stand-in")
    line = HistoryMerger(engine, load_thresholds(RULES_FILE), TradingCalendar(library_sessions()), "bench")
    checked = timed("judge", lambda: line.check(rows, NOW))

    def write() -> None:
        with db.write(engine) as connection:
            line.merge(connection, checked, "bench", NOW)

    timed("write", write, server_pid, "database server")
    source.close()
    engine.dispose()
    return {name: round(seconds / len(rows) * 1e6, 2) for name, seconds in took.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--funds", type=int, default=26_000)
    parser.add_argument("--rows", type=int, default=1500, help="of a fund, on average")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "mariadb"), action="append")
    options = parser.parse_args()
    wanted = options.database or ["sqlite", "mariadb"]
    report: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "python": platform.python_version()}}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with standin(options.funds, options.rows, home) as (address, market, pid):
            report["market"] = {"funds": market["funds"], "rows": market["rows"]}
            source = EastmoneySource(address, address, requests_per_second=1e6)
            listed = [fund.fund_code for fund in source.fund_list()]
            codes = listed[:: max(1, len(listed) // SAMPLE)]
            source.close()
            if "sqlite" in wanted:
                url = URL.create("sqlite", database=f"{folder}/navkeeper.db")
                report["sqlite"] = measure(url, address, market, home, options.kills, None)
                sample = url.set(database=f"{folder}/sample.db")
                report["sqlite"]["microseconds_a_row"] = stages(sample, address, codes, pid, None)
            if "mariadb" in wanted:
                with MariaServer(home / "mariadb", "--innodb-buffer-pool-size=2G") as server:
                    engine = create_engine(server.url)
                    with engine.begin() as connection:
                        for name in ("navkeeper", "sample"):
                            connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
                    engine.dispose()
                    assert server.process is not None
                    where, sample = (server.url.set(database=name) for name in ("navkeeper", "sample"))
                    found = measure(where, address, market, home, options.kills, server.process.pid)
                    found["microseconds_a_row"] = stages(sample, address, codes, pid, server.process.pid)
                    report["mariadb"] = found
    print(json.dumps(report, indent=2, ensure_ascii=False))
    claims = ("complete", "resumed_well", "night_complete", "memory_within_bar")
    return 0 if all(report[name][claim] for name in wanted for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
