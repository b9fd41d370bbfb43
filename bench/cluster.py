"""Back-fill and full recalculation without and with a Dask cluster on this machine: the same tables, and how fast.

Prints JSON: seconds, the processor time of the run and of the workers, and the ratio of the seconds. On one machine
daemon, workers, database and stand-in share its processors. 0 only if the tables are identical.

    python -m bench.cluster [--funds 2600] [--rows 756] [--workers 2] [--database sqlite]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.engine import URL

from bench.market_backfill import settings, standin
from bench.write_path import cpu_seconds
from config.settings import ROOT
from core import db
from core.initialise import initialise
from core.schema import fund_event, fund_metrics, fund_nav, fund_rank, money_fund_yield, nav_batch, quarantine
from tests.conftest import NOW
from tests.dask_cluster import DaskCluster
from tests.mariadb import MariaServer

TABLES = (nav_batch, fund_nav, money_fund_yield, quarantine, fund_event, fund_metrics, fund_rank)
ACTIONS = ("backfill", "weekly")


def digests(engine: Engine) -> dict[str, str]:
    """Of all rows of each table, in order."""
    found = {}
    with db.read(engine) as connection:
        for table in TABLES:
            digest = hashlib.sha256()
            query = select(table).order_by(*table.primary_key)
            for row in connection.execution_options(stream_results=True).execute(query):
                digest.update(repr(tuple(row)).encode())
            found[table.name] = digest.hexdigest()[:16]
    return found


def run(action: str, environment: dict[str, str], workers: list[int]) -> dict[str, Any]:
    """One `main.py ACTION`: what it took, and how much of that the workers."""
    before, began = sum(map(cpu_seconds, workers)), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), action, "--json"], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    text = process.stdout.read()
    process.stdout.close()
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, text
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "worker_cpu_seconds": round(sum(map(cpu_seconds, workers)) - before, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def measure(urls: list[URL], address: str, home: Path, count: int) -> dict[str, Any]:
    """Both actions into the first database alone, into the second with the cluster."""
    report: dict[str, Any] = {}
    found = []
    for url, spread in zip(urls, (False, True), strict=True):
        engine = db.connect(url)
        initialise(engine, NOW)
        environment = settings(url, address, home)
        with ExitStack() as stack:
            pids: list[int] = []
            if spread:
                dask = stack.enter_context(DaskCluster(home / f"dask-{engine.dialect.name}"))
                pids = [dask.worker(url).pid for _ in range(count)]
                environment["NAVKEEPER_CLUSTER"] = dask.address
            for action in ACTIONS:
                report.setdefault(action, {})["cluster" if spread else "local"] = run(
                    action, environment, pids
                )
        found.append(digests(engine))
        engine.dispose()
    for action in ACTIONS:
        both = report[action]
        both["ratio"] = round(both["local"]["seconds"] / both["cluster"]["seconds"], 2)
    return report | {"identical": found[0] == found[1], "tables": found[1]}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--funds", type=int, default=2600)
    parser.add_argument("--rows", type=int, default=756, help="of a fund, on average")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--database", choices=("sqlite", "mariadb"), action="append")
    options = parser.parse_args()
    wanted = options.database or ["sqlite", "mariadb"]
    report: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "python": platform.python_version()}}
    with tempfile.TemporaryDirectory() as folder, standin(options.funds, options.rows, Path(folder)) as found:
        home = Path(folder)
        address, market, _pid = found
        report["market"] = {"funds": market["funds"], "rows": market["rows"]}
        if "sqlite" in wanted:
            urls = [URL.create("sqlite", database=f"{folder}/{name}.db") for name in ("local", "cluster")]
            report["sqlite"] = measure(urls, address, home, options.workers)
        if "mariadb" in wanted:
            with MariaServer(home / "mariadb", "--innodb-buffer-pool-size=2G") as server:
                engine = create_engine(server.url)
                with engine.begin() as connection:
                    for name in ("local", "cluster"):
                        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
                engine.dispose()
                urls = [server.url.set(database=name) for name in ("local", "cluster")]
                report["mariadb"] = measure(urls, address, home, options.workers)
    print(json.dumps(report, indent=2))
    return 0 if all(report[name]["identical"] for name in wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
