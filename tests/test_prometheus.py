"""A real Prometheus scrapes the real application with the shipped configuration and fires the shipped rules.

Only its intervals and the rules' waits are shortened. The calendar is laid around the present, since Prometheus knows
no other time: eight days ago the market closed for a week.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml
from sqlalchemy import Connection, Engine, delete, insert, update
from sqlalchemy.engine import URL

from config.settings import ROOT
from core.db import connect, upgrade, write
from core.schema import daemon, tmp_fund_nav, trade_calendar
from core.trading_calendar import SHANGHAI, store_calendar
from scheduler.health_check import create_health_app
from scheduler.overview import observer_engine
from tests import example_night as night
from tests.api_site import served
from tests.daemon import until
from tests.mariadb import missing

SHIPPED = ROOT / "deploy" / "prometheus"


class Prometheus:
    """A server of the test's own; gone on leaving."""

    def __init__(self, folder: Path, target: str) -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            missing("prometheus", "Prometheus is not installed: the Debian package prometheus has it")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command = [
            str(binary),
            f"--config.file={_configured(folder, target)}",
            f"--storage.tsdb.path={folder}/data",
        ]
        command += [f"--web.listen-address={address}", "--log.level=warn"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.client = httpx.Client(base_url=f"http://{address}", timeout=20, trust_env=False)

    def __enter__(self) -> Prometheus:
        until(self._answers, bool, "Prometheus answers")
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)

    def _answers(self) -> bool:
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def value(self, query: str) -> float | None:
        found = self.client.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        alerts = self.client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def _configured(folder: Path, target: str) -> Path:
    """The shipped files with another target, and seconds for minutes and hours."""
    configured: dict[str, Any] = yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = configured["scrape_configs"]
    job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    assert job["static_configs"] == [{"targets": ["127.0.0.1:5000"]}]
    job["static_configs"] = [{"targets": [target]}]
    configured["global"] = {"evaluation_interval": "500ms"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configured), encoding="utf-8")
    [name] = configured["rule_files"]
    rules = (SHIPPED / name).read_text(encoding="utf-8")
    (folder / name).write_text(re.sub(r"for: \d+[mh]", "for: 2s", rules), encoding="utf-8")
    return folder / "prometheus.yml"


TODAY = datetime.now(SHANGHAI).date()  # Prometheus knows no other time than now
NEWEST, BEFORE = TODAY - timedelta(days=8), TODAY - timedelta(days=9)


def golden_week(engine: Engine, now: datetime) -> None:
    """Every day a session until eight days ago, then none until the day after tomorrow; the last night is complete."""
    sessions = [NEWEST - timedelta(days=n) for n in range(30)] + [
        TODAY + timedelta(days=n) for n in range(2, 60)
    ]
    with write(engine) as connection:
        store_calendar(connection, sorted(sessions), [])
        for day in (BEFORE, NEWEST):
            batch = night.add_batch(connection, day)
            night.add_staged(connection, batch, [0] * 105)
            night.add_navs(connection, day, night.FUNDS, batch)
            night.add_money(connection, day)
            night.add_metrics(connection, day, night.FUNDS)
            for job, start in (("collect", "19:00"), ("validate", "19:30"), ("metrics", "20:30")):
                night.add_run(connection, job, day, "SUCCESS", start)
        night.add_daemon(connection, now)


def a_session_without_navs(connection: Connection) -> None:
    connection.execute(insert(trade_calendar).values(cal_date=TODAY - timedelta(days=2), provisional=False))


def no_more_session(connection: Connection) -> None:
    connection.execute(delete(trade_calendar).where(trade_calendar.c.cal_date == TODAY - timedelta(days=2)))


def a_silent_daemon(connection: Connection) -> None:
    connection.execute(update(daemon).values(heartbeat_at=daemon_was_here(-600)))


def daemon_was_here(seconds: int) -> datetime:
    return datetime.now(SHANGHAI) + timedelta(seconds=seconds)


def a_daemon_again(connection: Connection) -> None:
    connection.execute(update(daemon).values(heartbeat_at=daemon_was_here(0)))


def bad_rows(connection: Connection) -> None:
    connection.execute(update(tmp_fund_nav).where(tmp_fund_nav.c.row_no <= 6).values(held=1))


def good_rows(connection: Connection) -> None:
    connection.execute(update(tmp_fund_nav).values(held=0))


def a_failed_step(connection: Connection) -> None:
    night.add_run(connection, "metrics", NEWEST, "FAILED", "21:00", 5, None, "no memory left")


def done_by_hand(connection: Connection) -> None:
    night.add_run(connection, "metrics", NEWEST, "SUCCESS", "21:30")


SITUATIONS: tuple[tuple[str, set[str], Callable[[Connection], None], Callable[[Connection], None]], ...] = (
    ("a late night", {"NavKeeperLate"}, a_session_without_navs, no_more_session),
    ("a daemon that is gone", {"NavKeeperDaemonGone"}, a_silent_daemon, a_daemon_again),
    ("a quarantine spike", {"NavKeeperQuarantineSpike"}, bad_rows, good_rows),
    ("a failed night", {"NavKeeperNightFailed"}, a_failed_step, done_by_hand),
)


def test_a_real_prometheus_fires_the_shipped_rules_and_is_quiet_in_golden_week(tmp_path: Path) -> None:
    engine = connect(URL.create("sqlite", database=str(tmp_path / "navkeeper.db")))
    upgrade(engine)
    golden_week(engine, datetime.now(SHANGHAI))
    app = create_health_app(observer_engine(engine.url), night.JOBS, lambda: datetime.now(SHANGHAI))
    with served(app) as client, Prometheus(tmp_path, client.base_url.netloc.decode()) as prometheus:
        scrapes = 'sum_over_time(up{job="navkeeper"}[1m])'
        until(lambda: prometheus.value(scrapes) or 0, lambda found: found >= 6, "six good scrapes")
        assert prometheus.value("navkeeper_nav_records") == 2 * night.FUNDS
        assert prometheus.firing() == set()
        for what, expected, begin, end in SITUATIONS:
            with write(engine) as connection:
                a_daemon_again(connection)
                begin(connection)
            until(prometheus.firing, lambda found, wanted=expected: found == wanted, what)
            with write(engine) as connection:
                a_daemon_again(connection)
                end(connection)
            until(prometheus.firing, lambda found: not found, f"quiet after {what}")
        engine.dispose()
        (tmp_path / "navkeeper.db").rename(tmp_path / "away.db")
        until(prometheus.firing, lambda found: "NavKeeperDown" in found, "a database that is gone")
