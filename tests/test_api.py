"""The REST API: what it answers, as JSON, CSV and Parquet; what it refuses; commands with the real daemon."""

from __future__ import annotations

import csv
import io
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from core import db
from core.schema import job_command
from core.standin import StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler import quality
from scheduler.clock import Clock
from scheduler.health_check import create_health_app
from scheduler.jobs_file import load_jobs
from scheduler.listing import as_json
from scheduler.overview import observer_engine
from tests.api_site import ADMIN, LOG, TOKENS, answering, app_of, bearer, fill, served
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until
from tests.example_night import NIGHT

DAY = date(2025, 11, 27)


@pytest.fixture
def filled(engine: Engine, tmp_path: Path) -> Engine:
    fill(engine, tmp_path)
    return engine


@pytest.fixture
def client(filled: Engine) -> FlaskClient:
    return app_of(filled).test_client()


def get(client: FlaskClient, path: str) -> Any:
    reply = client.get(f"/api/v1{path}")
    assert reply.status_code == 200, reply.text
    return reply.json


def problem(client: FlaskClient, path: str, method: str = "GET", **more: Any) -> tuple[int, str]:
    reply = client.open(f"/api/v1{path}", method=method, **more)
    assert reply.content_type == "application/problem+json", reply.text
    assert reply.json is not None
    assert reply.json["status"] == reply.status_code
    return reply.status_code, reply.json["code"]


def every_page(client: FlaskClient, path: str) -> list[Any]:
    found = get(client, path)
    items = found["items"]
    while found["next"]:
        found = client.get(found["next"]).json
        items += found["items"]
    return items


def test_runs_by_filter_and_page(client: FlaskClient) -> None:
    assert [run["run"] for run in get(client, "/runs")["items"]] == [3, 2, 1]
    assert [run["run"] for run in every_page(client, "/runs?limit=1")] == [3, 2, 1]
    assert get(client, "/runs?limit=3")["next"] is None
    assert [run["run"] for run in get(client, "/runs?status=FAILED")["items"]] == [2]
    assert [run["job"] for run in get(client, "/runs?job=collect&date=2026-01-28")["items"]] == ["collect"]
    assert get(client, "/runs?date=2026-01-27") == {"items": [], "next": None}
    page = client.get("/api/v1/runs?limit=2&job=collect&status=SUCCESS")
    assert "Link" not in page.headers


def test_a_run_with_its_attempts_events_and_log(client: FlaskClient) -> None:
    run = get(client, "/runs/2")
    assert (run["status"], run["reason"], run["attempt"]) == ("FAILED", "no answer in 10 s", 1)
    assert [(item["attempt"], item["seconds"]) for item in run["attempts"]] == [(1, 2.0)]
    assert [item["to_status"] for item in run["events"]] == ["RUNNING", "FAILED"]
    assert run["events"][0]["at"] == "2026-01-28T19:30:00+08:00"
    assert get(client, "/runs/2/log")["text"] == LOG
    for size, text in ((len(LOG), LOG), (len(LOG) - 1, LOG[11:]), (12, "third line\n"), (11, "third line\n")):
        assert get(client, f"/runs/2/log?bytes={size}")["text"] == text
    assert get(client, "/runs/2/log?bytes=10")["text"] == ""
    events = get(client, "/events?run=2&limit=1")
    assert [(item["run"], item["job"], item["to_status"]) for item in events["items"]] == [
        (2, "validate", "FAILED")
    ]
    assert [item["to_status"] for item in every_page(client, "/events?limit=1")] == ["FAILED", "RUNNING"]
    assert problem(client, "/runs/2/log?attempt=7") == (404, "no_log")
    assert problem(client, "/runs/1/log") == (404, "no_log")
    for path in ("/runs/99", "/runs/99/log"):
        assert problem(client, path) == (404, "unknown_run")


def test_the_night(client: FlaskClient, filled: Engine) -> None:
    chain = get(client, "/chain")
    assert chain["business_date"] == "2026-01-28"
    states = {step["job"]: step["run"] and step["run"]["status"] for step in chain["steps"]}
    assert (states["collect"], states["validate"], states["metrics"]) == ("SUCCESS", "FAILED", None)
    status = get(client, "/etl/status")
    assert (status["status"], status["expected_date"]) == ("FAILED", "2026-01-28")
    assert status["reasons"][0] == "job_failed"
    assert status["next_command"] == "python main.py validate --date 2026-01-28"
    assert status["steps"] == chain["steps"]
    with_evidence = get(client, "/quality?date=2026-01-28")
    assert with_evidence == json.loads(
        as_json(quality.quality(filled, NIGHT))
    )  # as the command line prints it
    assert get(client, "/quality") == with_evidence
    assert problem(client, "/quality?date=2026-01-05") == (404, "not_stored")


def test_funds_found_and_shown(client: FlaskClient) -> None:
    codes = [f"00000{n}" for n in range(1, 6)]
    assert [fund["fund_code"] for fund in every_page(client, "/funds?limit=2")] == codes
    assert [fund["fund_code"] for fund in get(client, "/funds?type=bond")["items"]] == codes[3:]
    assert [fund["fund_code"] for fund in get(client, "/funds?type=混合")["items"]] == codes[:3]
    assert [fund["fund_code"] for fund in get(client, "/funds?q=000003")["items"]] == ["000003"]
    assert len(get(client, "/funds?q=基金")["items"]) == 5
    assert get(client, "/funds?q=%25")["items"] == []  # no wildcard
    assert problem(client, "/funds?type=moon") == (404, "not_stored")
    fund = get(client, "/funds/000001")
    assert (fund["fund_name"], fund["category"]) == ("基金000001", "mixed")
    assert fund["series"] == [
        {"kind": "nav", "rows": 2, "first_date": "2026-01-27", "last_date": "2026-01-28"}
    ]
    assert get(client, "/funds/000009")["series"][0]["kind"] == "yield"
    assert [(item["kind"], item["value"]) for item in get(client, "/funds/000001/events")["items"]] == [
        ("dividend", 0.1),
        ("split", 0.1),
    ]
    for path in ("/funds/999999", "/funds/999999/navs", "/funds/999999/metrics", "/funds/999999/events"):
        assert problem(client, path) == (404, "unknown_fund")


def test_navs_now_and_as_they_were_known(client: FlaskClient) -> None:
    navs = every_page(client, "/funds/000001/navs?limit=1")
    assert [(row["nav_date"], row["unit_nav"]) for row in navs] == [("2026-01-27", 1.5), ("2026-01-28", 1.5)]
    [row] = get(client, "/funds/000001/navs?from=2026-01-28&adjusted=true")["items"]
    assert row["adjusted_nav"] == 1.5
    before = "/funds/000001/navs?to=2026-01-27&as_of=2026-01-28T19:30"
    assert get(client, before)["items"] == []  # the night's batch was decided at 19:31
    assert get(client, before.replace("T19:30", "T12:31:00%2B01:00"))["items"] != []
    [income] = get(client, "/funds/000009/navs")["items"]
    assert (income["income_per_10k"], income["yield_7d"]) == (0.5, 1.4)
    assert problem(client, "/funds/000009/navs?adjusted=true") == (409, "not_adjusted")


def test_metrics_ranks_and_the_ranking(client: FlaskClient) -> None:
    one = get(client, "/funds/000002/metrics")
    assert one["metrics"]["return_1y"]["value"] == 8.0
    assert problem(client, "/funds/000002/metrics?date=2026-01-27") == (404, "not_stored")
    assert problem(client, "/funds/000009/metrics") == (404, "not_ready")
    rows = every_page(client, "/metrics?limit=2")
    assert [(row["fund_code"], row["return_1w"]) for row in rows] == [
        (f"00000{n}", float(n)) for n in range(1, 6)
    ]
    assert [row["fund_code"] for row in every_page(client, "/ranks?limit=3")] == [
        row["fund_code"] for row in rows
    ]
    best = every_page(client, "/ranking?by=return_1y&limit=2&every_class=true")
    assert [(row["fund_code"], row["value"]) for row in best] == [
        (f"00000{n}", 10.0 - n) for n in range(1, 6)
    ]
    worst = get(client, "/ranking?by=return_1y&order=worst&type=bond&every_class=true")["items"]
    assert [row["fund_code"] for row in worst] == ["000005", "000004"]
    assert problem(client, "/metrics?date=2026-01-27") == (404, "not_stored")


def test_csv_and_parquet_hold_the_same_and_keep_their_types(client: FlaskClient) -> None:
    for path in (
        *("/metrics?limit=2", "/ranks?limit=2", "/ranking?by=return_1y&limit=2&every_class=true"),
        *("/funds/000001/navs?limit=1", "/funds/000009/navs?limit=1"),
    ):
        plain = client.get(f"/api/v1{path}")
        assert plain.json is not None
        expected = plain.json["items"]
        parquet = client.get(f"/api/v1{path}", headers={"Accept": "application/vnd.apache.parquet"})
        table = pq.read_table(io.BytesIO(parquet.data))
        rows = [json.loads(as_json(row)) for row in table.to_pylist()]
        assert [{name: row[name] for name in expected[0]} for row in rows] == expected
        assert not any(str(kind) == "null" for kind in table.schema.types)
        text = client.get(f"/api/v1{path}&format=csv")
        assert text.content_type == "text/csv"
        [head, *lines] = csv.reader(io.StringIO(text.text))
        assert head == table.schema.names
        assert [line[0] for line in lines] == [row["fund_code"] for row in expected]
        following = plain.json["next"]
        assert parquet.headers.get("Link") == (f'<{following}>; rel="next"' if following else None)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/runs?limit=0", ["limit"]),
        ("/runs?limit=501", ["limit"]),
        ("/runs?limit=1_0", ["limit"]),
        ("/runs?limit=1&limit=2", ["limit"]),
        ("/runs?status=failed&colour=red", ["status", "colour"]),
        ("/runs?date=20260128", ["date"]),
        ("/runs?date=1769529600", ["date"]),
        ("/runs?before=9223372036854775808", ["before"]),
        ("/runs/x", ["run"]),
        ("/runs/2?run=3", ["run"]),
        ("/funds/00001", ["fund"]),
        ("/funds/000001/navs?adjusted=yes", ["adjusted"]),
        ("/funds/000001/navs?as_of=2026-01-28", ["as_of"]),
        ("/funds/000001/navs?as_of=0001-01-01T00:00", ["as_of"]),
        ("/funds/000001/navs?from=2026-01-28&to=2026-01-27", [""]),
        ("/ranking?by=colour", ["by"]),
        ("/metrics?format=xml", ["format"]),
    ],
)
def test_what_the_api_does_not_describe_is_refused(
    sqlite_engine: Engine, path: str, fields: list[str]
) -> None:
    reply = app_of(sqlite_engine).test_client().get(f"/api/v1{path}")
    assert reply.json is not None
    assert (reply.status_code, reply.json["code"]) == (400, "invalid_request")
    assert [error["field"] for error in reply.json["errors"]] == fields


def test_a_job_made_changed_and_deleted_here(filled: Engine) -> None:
    client, admin = app_of(filled, TOKENS).test_client(), bearer(ADMIN)
    body = {"job": "mine", "task": "size_watch", "crontab": "0 9 * * 1", "params": {}}
    made = client.post("/api/v1/jobs", json=body, headers=admin)
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
    again = client.post("/api/v1/jobs", json=body, headers=admin)
    assert (again.status_code, again.json and again.json["code"]) == (409, "job_exists")
    wrong = client.patch("/api/v1/jobs/mine", json={"crontab": "0 9 * * 8"}, headers=admin)
    assert (wrong.status_code, wrong.json and wrong.json["errors"][0]["field"]) == (422, "crontab")
    first, second = (
        client.patch("/api/v1/jobs/mine", json={"name": name}, headers={**admin, "If-Match": '"1"'})
        for name in ("one", "two")
    )
    assert (first.status_code, first.headers["ETag"]) == (200, '"2"')
    assert (second.status_code, second.json and second.json["code"]) == (412, "job_changed")
    shown = client.get("/api/v1/jobs/mine", headers=admin).json
    assert shown is not None
    assert (shown["definition"]["name"], shown["kept_in"], len(shown["versions"])) == ("one", "database", 2)
    assert shown["versions"][0]["changed_by"] == "api:admin@127.0.0.1"
    gone = client.delete("/api/v1/jobs/mine", headers={**admin, "If-Match": '"2"'})
    assert gone.json == {"job": "mine", "version": 3}
    assert problem(client, "/jobs/mine", headers=admin) == (404, "unknown_job")


def test_jobs_of_the_file_are_not_edited_here(filled: Engine) -> None:
    client = app_of(filled, TOKENS).test_client()
    for method, path in (("PATCH", "/jobs/collect"), ("PUT", "/jobs/collect"), ("DELETE", "/jobs/collect")):
        reply = client.open(f"/api/v1{path}", method=method, headers=bearer(ADMIN))
        assert reply.json is not None
        assert (reply.status_code, reply.json["code"]) == (409, "job_in_file")
        assert "comes from the jobs file" in reply.json["title"]
    assert problem(client, "/jobs/moon", "DELETE", headers=bearer(ADMIN)) == (404, "unknown_job")
    assert problem(client, "/jobs/moon/pause", "POST", headers=bearer(ADMIN)) == (404, "unknown_job")
    assert problem(client, "/runs/99/retry", "POST", headers=bearer(ADMIN)) == (404, "unknown_run")
    with db.read(filled) as connection:
        assert connection.execute(select(job_command)).all() == []


def test_commands_refused_and_bodies_that_are_none(filled: Engine) -> None:
    client = app_of(filled, TOKENS).test_client()
    url, admin = "/jobs/metrics/trigger", bearer(ADMIN)
    assert problem(client, url, "POST", headers=admin, data="business_date=x") == (
        415,
        "unsupported_media_type",
    )
    for body in ({"colour": 1}, {"business_date": 5}, {"params": []}, [], {"params": {"a": "x" * 9000}}):
        assert problem(client, url, "POST", headers=admin, json=body) == (400, "invalid_request")
    broken = admin | {"Content-Type": "application/json"}
    assert problem(client, url, "POST", headers=broken, data="{") == (400, "invalid_request")
    with answering(filled):
        reply = client.post(f"/api/v1{url}", headers=admin, json={"params": {"funds": 1}})
        assert reply.json is not None
        assert (reply.status_code, reply.json["code"]) == (409, "refused")
        assert "It has: fund_codes" in reply.json["detail"]
        assert problem(client, "/runs/1/cancel", "POST", headers=admin) == (409, "refused")
        done = client.post(f"/api/v1{url}", headers=admin, json={"business_date": "2026-01-27"}).json
    assert done is not None
    assert (done["status"], done["business_date"]) == ("DONE", "2026-01-27")
    listed = client.get("/api/v1/commands?limit=2", headers=admin).json
    assert listed is not None
    assert [item["status"] for item in listed["items"]] == ["DONE", "REFUSED"]
    assert listed["items"][0] == done


def test_a_database_that_is_away_or_new(tmp_path: Path, sqlite_engine: Engine) -> None:
    empty = app_of(sqlite_engine).test_client()
    assert problem(empty, "/metrics") == (404, "not_ready")
    assert problem(empty, "/quality") == (404, "not_ready")
    assert get(empty, "/etl/status")["status"] == "EMPTY"
    Path(str(sqlite_engine.url.database)).rename(tmp_path / "away.db")
    app = app_of(sqlite_engine, TOKENS)
    for method, path in (("GET", "/runs"), ("GET", "/etl/status"), ("POST", "/jobs/collect/pause")):
        found = problem(app.test_client(), path, method, headers=bearer(ADMIN))
        assert found == (503, "database_unavailable")
    assert not Path(str(sqlite_engine.url.database)).exists()


def test_without_a_daemon_nothing_is_done(sqlite_engine: Engine) -> None:
    client = app_of(sqlite_engine, TOKENS).test_client()
    assert problem(client, "/jobs/collect/pause", "POST", headers=bearer(ADMIN)) == (503, "no_daemon")


def test_commands_take_effect_in_the_daemon(engine: Engine, tmp_path: Path) -> None:
    """Over a real socket: pause, trigger, cancel, retry, resume, and the runs as they go."""
    market = simulated_market(40, date(2025, 9, 1), DAY + timedelta(days=7), 7, library_sessions())
    jobs = jobs_file(tmp_path, without=SWEEPS)
    clock: Clock = lambda: at(DAY, 18)  # noqa: E731
    with (
        StandinServer(market, now=at(DAY, 23, 30)) as standin,
        DaemonProcess(engine, tmp_path, standin.url, at(DAY, 18), jobs) as night,
        served(create_health_app(observer_engine(engine.url), load_jobs(jobs), clock, TOKENS)) as client,
    ):
        client.headers = bearer(ADMIN)  # type: ignore[assignment]

        def act(path: str, **body: Any) -> dict[str, Any]:
            reply = client.post(f"/api/v1{path}", json=body or None)
            assert reply.status_code == 200, reply.text
            found: dict[str, Any] = reply.json()
            return found

        def run(number: int) -> dict[str, Any]:
            found: dict[str, Any] = client.get(f"/api/v1/runs/{number}").json()
            return found

        act("/jobs/collect/pause")
        assert client.get("/api/v1/jobs/collect").json()["paused_by"] == "api:admin@127.0.0.1"
        standin.add_fault("stall", path="rankhandler", times=1)
        number = act("/jobs/collect/trigger", business_date=str(DAY))["run_id"]
        until(lambda: run(number)["status"], lambda status: status == "RUNNING", "the run")
        until(lambda: standin.requests.total(), bool, "the child's request")
        act(f"/runs/{number}/cancel")
        until(lambda: run(number)["status"], lambda status: status == "CANCELLED", "its end")
        assert run(number)["reason"] == "cancelled by api:admin@127.0.0.1"
        act(f"/runs/{number}/retry")
        night.reach(DAY, {"collect": "SUCCESS"})
        assert [item["status"] for item in run(number)["attempts"]] == ["CANCELLED", "SUCCESS"]
        assert "collect" in client.get(f"/api/v1/runs/{number}/log").json()["text"]
        act("/jobs/collect/resume")
        done = [item["action"] for item in client.get("/api/v1/commands").json()["items"]]
        assert done == ["resume", "retry", "cancel", "trigger", "pause"]
