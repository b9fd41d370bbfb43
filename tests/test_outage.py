"""The database goes away: before a claim, during a run, at a commit. bench/outage.py does it for 60 s each."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from sqlalchemy import select

from core import db
from core.schema import run_attempt
from core.standin import StandinServer, simulated_market
from core.trading_calendar import library_sessions
from tests.daemon import DaemonProcess, at, until
from tests.mariadb import MariaServer
from tests.outage import night_with_outages

DAY = date(2025, 11, 27)


def test_a_night_completes_though_its_database_goes_away_three_times(
    stoppable_mariadb: MariaServer, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "daemon.log"
    complaints = []

    def until_noticed(_process: DaemonProcess) -> None:
        seen = len(complaints)
        until(lambda: log.read_text(encoding="utf-8"), lambda text: text.count(AGAIN) > seen, "the complaint")
        complaints.append(seen)

    market = simulated_market(40, date(2025, 8, 1), DAY + timedelta(days=7), 7, library_sessions())
    with StandinServer(market, now=at(DAY, 23, 30)) as standin:
        night = night_with_outages(stoppable_mariadb, standin, tmp_path, DAY, until_noticed)
    assert [status for _table, status in night.update_log(DAY)] == ["SUCCESS"] * 3
    with db.read(night.engine) as connection:
        found = connection.execute(select(run_attempt).order_by(run_attempt.c.started_at)).all()
    assert [row.status for row in found] == ["SUCCESS", "FAILED", "SUCCESS", "SUCCESS"]
    assert log.read_text(encoding="utf-8").count(AGAIN) == 3  # one line an outage
    night.engine.dispose()


AGAIN = "trying again every second"
