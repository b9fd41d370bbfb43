"""The database stopped for a minute before a claim, during a run and at a commit: the night completes.

python -m bench.outage [--seconds 60]; prints JSON, exit 0 only if it did.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from sqlalchemy import select

from core import db
from core.schema import run_attempt
from core.standin import StandinServer, simulated_market
from core.trading_calendar import library_sessions
from tests.daemon import DaemonProcess, at
from tests.mariadb import MariaServer
from tests.outage import night_with_outages

DAY = date(2025, 11, 27)


def cpu_seconds(process: DaemonProcess) -> float:
    """Processor time the daemon has used."""
    assert process.process is not None
    fields = Path(f"/proc/{process.process.pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    used: list[float] = []

    def away(process: DaemonProcess) -> None:
        before = cpu_seconds(process)
        time.sleep(seconds)
        used.append(round(cpu_seconds(process) - before, 2))
        print(f"away for {seconds:g} s", file=sys.stderr)

    market = simulated_market(40, date(2025, 8, 1), DAY + timedelta(days=7), 7, library_sessions())
    with tempfile.TemporaryDirectory() as folder, MariaServer(Path(folder) / "mariadb") as server:
        home = Path(folder) / "home"
        home.mkdir()
        with StandinServer(market, now=at(DAY, 23, 30)) as standin:
            night = night_with_outages(server, standin, home, DAY, away)
        with db.read(night.engine) as connection:
            found = connection.execute(select(run_attempt).order_by(run_attempt.c.started_at)).all()
        log = (home / "logs" / "daemon.log").read_text(encoding="utf-8")
        results = night.update_log(DAY)
        night.engine.dispose()
    report = {
        "outage_seconds": seconds,
        "update_log": results,
        "attempts": [row.status for row in found],
        "complaints_logged": log.count("trying again every second"),
        "daemon_cpu_seconds_per_outage": used,
    }
    print(json.dumps(report, indent=1))
    return 0 if [status for _table, status in results] == ["SUCCESS"] * 3 else 1


if __name__ == "__main__":
    sys.exit(main())
