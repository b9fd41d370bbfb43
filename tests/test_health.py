"""The health server over real sockets: alive, late, without a daemon, without a database."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, delete, update
from sqlalchemy.engine import URL
from waitress.server import create_server

from core import nav_days
from core.db import ALEMBIC, connect, write
from core.initialise import initialise
from core.schema import daemon, fund_nav, metadata
from scheduler import health
from scheduler.health_check import create_health_app
from scheduler.overview import observer_engine
from scheduler.process_identity import this_process
from tests import example_night as night

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = [sys.executable, str(ROOT / "scheduler" / "health_check.py")]
PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
AXIOS = "application/json, text/plain, */*"


class Site:
    """The application under waitress on a free port, with a clock the test turns."""

    def __init__(self, url: URL, now: datetime = night.NOW) -> None:
        self.now = now
        app = create_health_app(observer_engine(url), night.JOBS, lambda: self.now)
        self.server: Any = create_server(app, host="127.0.0.1", port=0, ident="navkeeper")
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.server.effective_port}", timeout=20, trust_env=False
        )

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def close(self) -> None:
        self.client.close()
        # In its own thread, where it is selecting; it may close the trigger before we have pulled it.
        with contextlib.suppress(OSError):
            self.server.trigger.pull_trigger(self.server.close)
        self.thread.join(5)
        self.server.task_dispatcher.shutdown()


@pytest.fixture
def filled(sqlite_url: URL) -> Iterator[Engine]:
    engine = connect(sqlite_url)
    metadata.create_all(engine)
    night.fill(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def site(filled: Engine) -> Iterator[Site]:
    served = Site(filled.url)
    yield served
    served.close()


def test_health_of_a_good_night(site: Site) -> None:
    reply = site.get("/health")
    assert reply.status_code == 200
    assert reply.json() == {
        "status": "healthy",
        "database": "connected",
        "today_nav_count": 98,
        "timestamp": "2026-01-28T22:10:05+08:00",
        "daemon": "running",
        "expected_date": "2026-01-28",
        "newest_date": "2026-01-28",
        "reasons": [],
    }
    assert reply.headers["cache-control"] == "no-store"


def test_a_late_market_is_a_reason_not_an_outage(site: Site, filled: Engine) -> None:
    site.now = night.at("2026-01-29 22:00")
    with write(filled) as connection:
        connection.execute(update(daemon).values(heartbeat_at=site.now))
    reply = site.get("/health")
    body = reply.json()
    assert (reply.status_code, body["status"], body["today_nav_count"]) == (200, "healthy", 0)
    assert body["reasons"] == ["behind"]  # three tables are
    assert (body["expected_date"], body["newest_date"]) == ("2026-01-29", "2026-01-28")


def test_tonights_rows_count_before_they_are_due(site: Site, filled: Engine) -> None:
    site.now = night.at("2026-01-29 19:40")
    with write(filled) as connection:
        night.add_navs(connection, site.now.date(), 55)
    assert site.get("/health").json()["today_nav_count"] == 55


def test_no_heartbeat_is_an_outage(site: Site, filled: Engine) -> None:
    site.now = night.NOW + timedelta(seconds=57)  # 60 s after the heartbeat
    assert site.get("/health").status_code == 200
    site.now = night.NOW + timedelta(seconds=58)
    reply = site.get("/health")
    assert (reply.status_code, reply.json()["status"]) == (503, "unhealthy")
    assert (reply.json()["daemon"], reply.json()["reasons"]) == ("stopped", ["heartbeat_old"])
    with write(filled) as connection:
        connection.execute(delete(daemon))
    assert site.get("/health").json()["reasons"] == ["daemon_absent"]


def test_a_dead_daemon_of_this_host_is_an_outage_at_once(site: Site, filled: Engine) -> None:
    with write(filled) as connection:
        connection.execute(update(daemon).values(host=this_process().host, pid_started="another boot:1"))
    reply = site.get("/health")
    assert (reply.status_code, reply.json()["daemon"]) == (503, "stopped")
    assert reply.json()["reasons"] == ["daemon_gone"]


def test_a_failed_night_needs_somebody(site: Site, filled: Engine) -> None:
    with write(filled) as connection:
        night.add_run(connection, "metrics", night.NIGHT, "FAILED", "21:00", 5, None, "no memory left")
    reply = site.get("/health")
    assert (reply.status_code, reply.json()["status"]) == (503, "unhealthy")
    assert (reply.json()["reasons"], reply.json()["daemon"]) == (["job_failed"], "running")
    assert "no memory" not in reply.text


def test_every_code_of_a_verdict_has_its_level() -> None:
    """Those that scheduler/verdict.py gives in words, and the daemon's states."""
    tree = ast.parse((ROOT / "scheduler" / "verdict.py").read_text(encoding="utf-8"))
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Reason"
    ]
    constants = (ast.literal_eval(call.args[1]) for call in calls if isinstance(call.args[1], ast.Constant))
    daemon_states = {"daemon_absent", "daemon_stopped", "daemon_gone", "heartbeat_old"}
    jobs = {"job_failed", "job_blocked"}
    assert set(constants) | daemon_states | jobs == set(health.REASONS) | set(health.WELL)


def test_the_standard_form_for_those_who_ask_for_it(site: Site, filled: Engine) -> None:
    kind = "application/health+json"
    reply = site.get("/health", Accept=kind)
    assert (reply.status_code, reply.headers["content-type"]) == (200, kind)
    body = reply.json()
    assert (body["status"], body["notes"]) == ("pass", [])
    time = "2026-01-28T22:10:05+08:00"
    known = {"componentType": "datastore", "status": "pass", "time": time}
    assert body["checks"]["fund_nav:rows"] == [known | {"observedValue": 98, "observedUnit": "funds"}]
    assert body["checks"]["daemon:heartbeat"][0]["observedValue"] == 3
    assert body["checks"]["validate:status"][0]["observedValue"] == "SUCCESS"
    site.now = night.at("2026-01-29 22:00")
    with write(filled) as connection:
        connection.execute(update(daemon).values(heartbeat_at=site.now))
    late = site.get("/health", Accept=f"{kind}, application/json").json()
    assert (late["status"], late["notes"]) == ("warn", ["behind"])
    assert late["checks"]["fund_nav:newestDate"][0] | {"time": time} == known | {
        "status": "warn",
        "output": "behind",
        "observedValue": "2026-01-28",
    }
    with write(filled) as connection:
        connection.execute(delete(daemon))
    gone = site.get("/health", Accept=kind)
    assert (gone.status_code, gone.json()["status"]) == (503, "fail")
    assert gone.json()["notes"] == ["daemon_absent", "behind"]
    assert gone.json()["checks"]["daemon:heartbeat"][0]["output"] == "daemon_absent"
    for accept in ("*/*", "application/json", f"application/json, {kind};q=0.5"):
        assert site.get("/health", Accept=accept).headers["content-type"] == "application/json"


def test_live_and_ready_say_nothing_but_codes(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "navkeeper.db"))
    served = Site(url)
    well = {"status": "healthy", "reasons": []}
    try:
        assert served.get("/health/live").json() == well  # without any database
        gone = served.get("/health/ready")
        assert (gone.status_code, gone.json()["reasons"]) == (503, ["database_unavailable"])
        (tmp_path / "navkeeper.db").touch()
        assert served.get("/health/ready").json() == {"status": "unhealthy", "reasons": ["schema_outdated"]}
        engine = connect(url)
        initialise(engine, night.NOW)
        ready = served.get("/health/ready")
        assert (ready.status_code, ready.json()) == (200, well)
        with write(engine) as connection:
            connection.execute(update(ALEMBIC).values(version_num="0001"))
        engine.dispose()
        old = served.get("/health/ready", Accept="application/health+json")
        assert (old.status_code, old.json()) == (503, {"status": "fail", "notes": ["schema_outdated"]})
    finally:
        served.close()


def test_an_incomplete_night_is_a_reason_not_an_outage(site: Site, filled: Engine) -> None:
    with write(filled) as connection:
        night.add_run(connection, "collect", night.NIGHT, "PARTIAL", "21:00", 5, 60, "60 of 105")
    assert site.get("/health").json()["reasons"] == []  # the sweeps have brought the rest
    with write(filled) as connection:
        nav_days.add_rows(connection, fund_nav, {night.NIGHT: 69 - night.FUNDS_TONIGHT})
    reply = site.get("/health")
    assert (reply.status_code, reply.json()["reasons"]) == (200, ["partial"])


def test_it_recovers_when_the_database_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "navkeeper.db"
    url = URL.create("sqlite", database=str(path))
    served = Site(url)  # started without one
    try:
        gone = served.get("/health")
        assert (gone.status_code, gone.json()["database"]) == (503, "disconnected")
        assert gone.json()["reasons"] == ["database_unavailable"]
        assert (served.get("/metrics").status_code, served.get("/metrics").json()) == (
            503,
            {"error": "database_unavailable"},
        )
        path.parent.mkdir()
        path.touch()
        bare = served.get("/health")
        assert (bare.status_code, bare.json()["database"], bare.json()["reasons"]) == (
            503,
            "connected",
            ["schema_outdated"],
        )
        engine = connect(url)
        metadata.create_all(engine)
        night.fill(engine)
        engine.dispose()
        assert served.get("/health").status_code == 200
        path.rename(tmp_path / "away.db")
        assert served.get("/health").status_code == 503
        assert not path.exists()
        (tmp_path / "away.db").rename(path)
        assert served.get("/health").status_code == 200
        for reply in (gone, bare):
            assert str(tmp_path) not in reply.text
            assert "no such" not in reply.text
    finally:
        served.close()


def test_a_mysql_that_is_away_or_silent_is_told_from_a_slow_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never says a word
        for port in (1, silent.getsockname()[1]):
            url = URL.create("mysql+pymysql", "nav", "s3cret@", "127.0.0.1", port, "market")
            served = Site(url)
            try:
                begun = time.monotonic()
                reply = served.get("/health")
                assert (reply.status_code, reply.json()["database"]) == (503, "disconnected")
                assert time.monotonic() - begun < 12
                assert not re.search(r"s3cret|127\.0\.0\.1|pymysql|market", reply.text)
            finally:
                served.close()


def test_metrics_are_json_unless_prometheus_is_asked_for(site: Site) -> None:
    for accept in ("*/*", "application/json", AXIOS, "text/html,application/xhtml+xml,*/*;q=0.8"):
        reply = site.get("/metrics", Accept=accept)
        assert reply.json() == {
            "nav_records": 298,
            "fund_count": 100,
            "timestamp": "2026-01-28T22:10:05+08:00",
        }, accept
    for accept, kind in (("text/plain", "text/plain"), (PROMETHEUS, "application/openmetrics-text")):
        assert site.get("/metrics", Accept=accept).headers["content-type"].startswith(kind)
    assert site.get("/metrics?format=prometheus").headers["content-type"].startswith("text/plain")


def test_prometheus_figures(site: Site) -> None:
    text = site.get("/metrics?format=prometheus").text
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    wednesday = 1769529600  # 2026-01-27T16:00:00Z, midnight of the 28th in Shanghai
    assert found["navkeeper_nav_records",] == 298
    assert found["navkeeper_funds",] == 100
    assert found["navkeeper_newest_nav_rows",] == 98
    assert found["navkeeper_quarantined_rows",] == 3
    assert found["navkeeper_newest_nav_date_timestamp_seconds",] == wednesday
    assert found["navkeeper_newest_date_timestamp_seconds", "fund_metrics"] == wednesday
    assert found["navkeeper_daemon_heartbeat_timestamp_seconds",] == wednesday + 22 * 3600 + 10 * 60 + 2
    assert found["navkeeper_last_success_timestamp_seconds", "collect"] == wednesday + 19 * 3600 + 41.5
    assert found["navkeeper_last_success_timestamp_seconds", "metrics"] == wednesday + 20.5 * 3600 + 75
    assert found["navkeeper_expected_date_timestamp_seconds",] == wednesday
    assert found["navkeeper_calendar_end_timestamp_seconds",] == wednesday + 30 * 86400  # 2026-02-27
    assert (found["navkeeper_batch_rows",], found["navkeeper_batch_held_rows",]) == (105, 1)
    assert (found["navkeeper_daemon_running",], found["navkeeper_sessions_behind", "fund_nav"]) == (1, 0)
    assert (found["navkeeper_verdict", "OK"], found["navkeeper_verdict", "LATE"]) == (1, 0)
    assert found["navkeeper_reasons", "behind"] == 0
    assert found["navkeeper_next_run_timestamp_seconds", "collect"] == wednesday + (24 + 19) * 3600
    # From Thursday the 22nd on: the failed collection of the 23rd, and three nights.
    assert found["navkeeper_runs_finished_7d", "collect"] == 4
    assert found["navkeeper_runs_succeeded_7d", "collect"] == 3
    labels = {
        name
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for name in sample.labels
    }
    assert labels == {"table", "state", "code", "step"}  # neither `job`, which is Prometheus', nor a fund


def test_an_empty_database_has_figures_too(tmp_path: Path) -> None:
    engine = connect(URL.create("sqlite", database=str(tmp_path / "empty.db")))
    metadata.create_all(engine)
    engine.dispose()
    served = Site(engine.url)
    try:
        assert served.get("/metrics").json()["nav_records"] == 0
        assert "newest_nav_date" not in served.get("/metrics?format=prometheus").text
        assert served.get("/health").json()["reasons"][0] == "no_calendar"
    finally:
        served.close()


def test_other_paths_and_methods_answer_json_codes(site: Site) -> None:
    reply = site.get("/nothing?<script>")
    assert (reply.status_code, reply.json()) == (404, {"error": "not_found"})
    reply = site.client.post("/health")
    assert (reply.status_code, reply.json()) == (405, {"error": "method_not_allowed"})
    assert site.client.head("/health").status_code == 200


def test_many_at_once(site: Site) -> None:
    replies: list[int] = []

    def ask() -> None:
        for path in ("/health", "/metrics"):
            reply = httpx.get(f"{site.client.base_url}{path}", timeout=20, trust_env=False)
            replies.append(reply.status_code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert replies == [200] * 24


def environment(home: Path) -> dict[str, str]:
    (home / "now").write_text(night.NOW.isoformat())
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    return kept | {"NAVKEEPER_HOME": str(home), "NAVKEEPER_CLOCK_FILE": str(home / "now")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_script_says_where_it_listens_and_stops_cleanly(
    filled: Engine, tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*SCRIPT, "--port", "0"], env=environment(tmp_path), cwd="/", stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        reply = httpx.get(f"{address.group()}/health", timeout=20, trust_env=False)
        assert (reply.status_code, reply.json()["status"]) == (200, "healthy")
        process.send_signal(number)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in rest
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_port_in_use_and_wrong_options_are_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, code, says in (
            (["--port", port], 1, f"cannot listen on 127.0.0.1:{port}"),
            (["--host", "no.such.host.invalid", "--port", "0"], 1, "cannot listen on no.such.host.invalid"),
            (["--port", "99999"], 2, "no port: 0 to 65535"),
        ):
            done = subprocess.run(
                [*SCRIPT, *options], env=environment(tmp_path), capture_output=True, text=True, check=False
            )
            assert done.returncode == code
            assert says in done.stderr
            assert "Traceback" not in done.stderr
            if code == 1:
                assert len(done.stderr.splitlines()) == 1
