"""What being watched costs: the web process under 20 clients on a big database, and the dashboard from cold.

A database of 20 million NAVs, 100,000 runs with their attempts and events; the real process, `main.py health`; clients
that each ask again as soon as they are answered, for one address after the other. Prints JSON with p50 and p95 of each
address; 0 only if /metrics stays under 100 ms, / under 150 ms at p95 and `main.py monitor` under a second of processor
time.

    python -m bench.scrape [--rows 20000000] [--runs 100000] [--seconds 15] [--database sqlite]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, Double, Engine, create_engine, func, insert, literal, select
from sqlalchemy.engine import URL

from config.settings import ROOT
from core import db, nav_days
from core.initialise import initialise
from core.schema import (
    daemon,
    data_update_log,
    fund_info,
    fund_metrics,
    fund_nav,
    job_run,
    money_fund_yield,
    nav_batch,
    nav_day,
    run_attempt,
    run_event,
    tmp_fund_nav,
)
from core.trading_calendar import SHANGHAI, load_calendar
from tests.daemon import until
from tests.mariadb import MariaServer

NIGHT = date(2026, 1, 28)
NOW = datetime(2026, 1, 28, 22, 10, tzinfo=SHANGHAI)
FUNDS = 26_000
FUNDS_A_STATEMENT = 2_000
RUNS_A_NIGHT = 40
CLIENTS = 20
PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
ADDRESSES = {  # name -> path, Accept, the bar in milliseconds at p95
    "metrics, Prometheus": ("/metrics", PROMETHEUS, 100),
    "metrics, JSON": ("/metrics", "*/*", 100),
    "health": ("/health", "*/*", None),
    "health/live": ("/health/live", "*/*", None),
    "health/ready": ("/health/ready", "*/*", None),
    "overview page": ("/", "text/html", 150),
}
MONITOR_SECONDS = 1.0


def fill(engine: Engine, rows: int, runs: int) -> None:
    initialise(engine, NOW)
    with db.read(engine) as connection:
        calendar = load_calendar(connection)
    assert calendar is not None
    sessions = [day for day in calendar.sessions if day <= NIGHT]
    days, nights = sessions[-max(2, rows // FUNDS) :], sessions[-max(2, runs // RUNS_A_NIGHT) :]
    codes = [f"{number:06d}" for number in range(1, FUNDS + 1)]
    _fill_navs(engine, codes, days)
    _fill_night(engine, codes, days[-2:])
    _fill_runs(engine, nights)
    if engine.dialect.name != "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql(
                "ANALYZE TABLE job_run, run_event, run_attempt, tmp_fund_nav, fund_metrics"
            )
            _settle(connection)


def _settle(connection: Connection) -> None:
    """Until the server has written out what was filled in: that is no part of being watched."""
    connection.exec_driver_sql("SET GLOBAL innodb_max_dirty_pages_pct = 0")
    dirty = "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'"
    until(
        lambda: int(connection.exec_driver_sql(dirty).one()[1]), lambda pages: pages < 100, "clean pages", 120
    )
    connection.exec_driver_sql("SET GLOBAL innodb_max_dirty_pages_pct = 90")


def _fill_navs(engine: Engine, codes: list[str], days: list[date]) -> None:
    """By the database itself: every fund on every day."""
    with db.write(engine) as connection:
        words = {"fund_type": "混合型-灵活", "category": "mixed", "updated_at": NOW}
        funds = [{"fund_code": code, "fund_name": f"基金{code}", **words} for code in codes]
        connection.execute(insert(fund_info), funds)
        nav_days.add_rows(connection, fund_nav, dict.fromkeys(days, len(codes)))
        nav_days.add_rows(connection, money_fund_yield, dict.fromkeys(days[-2:], 1_000))
    each = select(fund_info.c.fund_code, nav_day.c.nav_date, literal(1.2345), literal(1))
    every = each.join_from(fund_info, nav_day, nav_day.c.table_name == "fund_nav")
    target = ["fund_code", "nav_date", "unit_nav", "batch_id"]
    for start in range(0, len(codes), FUNDS_A_STATEMENT):
        part = codes[start : start + FUNDS_A_STATEMENT]
        mine = every.where(fund_info.c.fund_code.between(part[0], part[-1]))
        with db.write(engine) as connection:
            connection.execute(
                insert(fund_nav).from_select(target, mine.order_by(fund_info.c.fund_code, nav_day.c.nav_date))
            )


def _fill_night(engine: Engine, codes: list[str], days: list[date]) -> None:
    """Batches with their staged rows, metrics of the last two days, what was written down."""
    with db.write(engine) as connection:
        for day in days:
            at = datetime.combine(day, NOW.time(), SHANGHAI) - timedelta(hours=3)
            batch = db.new_id(
                connection.execute(
                    insert(nav_batch).values(
                        kind="latest",
                        business_date=day,
                        source="eastmoney",
                        provenance="https://fund.example",
                        collected_at=at,
                        row_count=len(codes),
                        status="MERGED",
                    )
                )
            )
            staged = [(batch, number, code, 0) for number, code in enumerate(codes, 1)]
            db.bulk_insert(connection, tmp_fund_nav, ("batch_id", "row_no", "fund_code", "held"), staged)
            figures = [column.name for column in fund_metrics.c if isinstance(column.type, Double)]
            columns = ("fund_code", "calc_date", "definition_version", "nav_date", "nav_count", *figures)
            measured = [
                (code, day.isoformat(), "1", day.isoformat(), 700, *(1.5 for _ in figures)) for code in codes
            ]
            db.bulk_insert(connection, fund_metrics, columns, measured)
            for table in ("tmp_fund_nav", "fund_nav", "fund_metrics"):
                connection.execute(
                    insert(data_update_log).values(
                        table_name=table,
                        update_date=day,
                        record_count=len(codes),
                        status="SUCCESS",
                        start_time=at,
                        end_time=at,
                        duration_seconds=60,
                    )
                )


def _fill_runs(engine: Engine, nights: list[date]) -> None:
    """Each night its chain and sweeps; one of ten needs a second attempt."""
    jobs = ("collect", "validate", "metrics", "sweep", "reference", "repair")
    fields = ("job_id", "task", "business_date", "params", "status", "requested_by", "queued_at")
    runs, attempts, events = [], [], []
    for day in nights:
        begun = datetime.combine(day, NOW.time(), SHANGHAI) - timedelta(hours=4)
        for number in range(RUNS_A_NIGHT):
            at = begun + timedelta(minutes=4 * number)
            runs.append((jobs[number % 6], "collect_nav", day, "{}", "SUCCESS", "schedule", at))
    whole = [
        dict(zip(fields, run, strict=True))
        | {"started_at": run[6], "finished_at": run[6], "record_count": FUNDS, "attempt": 1}
        for run in runs
    ]
    for run_id, run in enumerate(runs, 1):
        tries = 2 if run_id % 10 == 0 else 1
        for attempt in range(1, tries + 1):
            ended = {"started_at": run[6], "finished_at": run[6]}
            status = "SUCCESS" if attempt == tries else "FAILED"
            attempts.append({"run_id": run_id, "attempt": attempt, "status": status, **ended})
        moves = ((None, "QUEUED"), ("QUEUED", "RUNNING"), ("RUNNING", "SUCCESS"))
        for old, new in moves:
            states = {"from_status": old, "to_status": new, "topic": f"run.{new.lower()}"}
            events.append({"run_id": run_id, "at": run[6], **states})
    with db.write(engine) as connection:
        connection.execute(insert(job_run), whole)
        connection.execute(insert(run_attempt), attempts)
        connection.execute(insert(run_event), events)
        connection.execute(
            insert(daemon).values(id=1, host="elsewhere", pid=1, started_at=NOW, heartbeat_at=NOW)
        )


def ask(address: str, path: str, accept: str, seconds: float) -> dict[str, Any]:
    """20 clients, each on a connection of its own that stays open."""
    took: list[float] = []
    statuses: set[int] = set()
    ready = threading.Barrier(CLIENTS)

    def client() -> None:
        mine = []
        with httpx.Client(
            base_url=address, headers={"Accept": accept}, timeout=60, trust_env=False
        ) as session:
            ready.wait(60)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                begun = time.perf_counter()
                statuses.add(session.get(path).status_code)
                mine.append(time.perf_counter() - begun)
        took.extend(mine)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parts = statistics.quantiles(took, n=100)
    figures = {name: round(1000 * parts[at - 1], 1) for name, at in (("p50", 50), ("p95", 95), ("p99", 99))}
    return {
        "statuses": sorted(statuses),
        "replies": len(took),
        **figures,
        "longest": round(1000 * max(took), 1),
    }


def served(environment: dict[str, str], seconds: float) -> dict[str, Any]:
    """Every address, asked of `main.py health`."""
    command = [sys.executable, str(ROOT / "main.py"), "health", "--port", "0"]
    log = Path(environment["NAVKEEPER_HOME"]) / "server.txt"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=environment, stderr=stderr)
    try:
        found = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), bool, "its address")
        report = {}
        for name, (path, accept, _bar) in ADDRESSES.items():
            ask(found.group(), path, accept, 1)  # what is imported and compiled once
            report[name] = ask(found.group(), path, accept, seconds)
        return report
    finally:
        process.terminate()
        process.wait(60)


def monitored(environment: dict[str, str]) -> dict[str, float]:
    """`main.py monitor`, best of five: seconds on the wall, and of processor time, which others' load changes less."""
    walls, busy = [], []
    for _ in range(5):
        before, begun = os.times(), time.perf_counter()
        subprocess.run(
            [sys.executable, str(ROOT / "main.py"), "monitor"],
            env=environment,
            check=True,
            capture_output=True,
        )
        after = os.times()
        walls.append(time.perf_counter() - begun)
        busy.append(
            after.children_user - before.children_user + after.children_system - before.children_system
        )
    return {"seconds": round(min(walls), 2), "processor_seconds": round(min(busy), 2)}


def measure(url: URL, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    engine = db.connect(url)
    begun = time.perf_counter()
    fill(engine, options.rows, options.runs)
    filled = time.perf_counter() - begun
    with db.read(engine) as connection:
        stored = nav_days.row_count(connection, fund_nav)
        runs = connection.scalar(select(func.count()).select_from(job_run))
    engine.dispose()
    (home / "now").write_text(NOW.isoformat())
    environment = {
        "PATH": os.environ["PATH"],
        "NAVKEEPER_HOME": str(home),
        "NAVKEEPER_DB_URL": url.render_as_string(hide_password=False),
        "NAVKEEPER_CLOCK_FILE": str(home / "now"),
    }
    load = os.getloadavg()[0]
    report = {"rows": stored, "runs": runs, "fill_seconds": round(filled), "load_before": round(load, 1)}
    return report | {"monitor": monitored(environment), "served": served(environment, options.seconds)}


def met(report: dict[str, Any]) -> dict[str, bool]:
    """By name; of what is not served there is nothing to say."""
    served = {name: found for name, found in report["served"].items() if found["statuses"] == [200]}
    bars = {
        name: found["p95"] < bar for name, found in served.items() if (bar := ADDRESSES[name][2]) is not None
    }
    return bars | {"monitor": report["monitor"]["processor_seconds"] < MONITOR_SECONDS}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_020_000)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=15, help="how long each address is asked")
    parser.add_argument("--database", choices=("sqlite", "mysql"), action="append")
    parser.add_argument("--folder", type=Path, help="where the databases go (default: a temporary one)")
    options = parser.parse_args()
    wanted = options.database or ["sqlite", "mysql"]
    report: dict[str, Any] = {"clients": CLIENTS, "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        home = Path(folder)
        if "sqlite" in wanted:
            report["sqlite"] = measure(URL.create("sqlite", database=f"{home}/navs.db"), home, options)
        if "mysql" in wanted:
            with MariaServer(home / "mariadb", "--innodb-buffer-pool-size=2G") as server:
                engine = create_engine(server.url)
                with engine.begin() as connection:
                    connection.exec_driver_sql("CREATE DATABASE navs CHARACTER SET utf8mb4")
                engine.dispose()
                report["mysql"] = measure(server.url.set(database="navs"), home, options)
    report["bars_met"] = {name: met(report[name]) for name in wanted}
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0 if all(all(bars.values()) for bars in report["bars_met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
