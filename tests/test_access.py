"""Who may do what, for every address there is; and what keeps others out."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, select

from config.settings import ROOT, load_settings
from core import db
from core.errors import ConfigurationError
from core.schema import job_command
from scheduler.web.access import Access, Role, access_of, role_needed, token_hash
from scheduler.web.problems import CODES
from tests.api_site import ADMIN, TOKENS, VIEWER, answering, app_of, bearer, fill, served
from tests.example_night import NOW

# Every address and who may ask for it; one that is missing here fails the test.
WHO = {
    "GET /health": "anyone",
    "GET /health/live": "anyone",
    "GET /health/ready": "anyone",
    "GET /metrics": "viewer",
    "GET /": "viewer",
    "GET /quality": "viewer",
    "GET /quality/held/<row>": "viewer",
    "POST /quality/held/<row>/release": "admin",
    "POST /quality/held/<row>/reject": "admin",
    "GET /market": "viewer",
    "GET /market/late.csv": "viewer",
    "GET /funds": "viewer",
    "GET /funds/<code>": "viewer",
    "GET /reports/<kind>/<day>": "viewer",
    "GET /login": "anyone",
    "POST /login": "anyone",
    "POST /logout": "anyone",
    "GET /static/<name>": "anyone",
    "GET /jobs": "viewer",
    "GET /jobs/<job>": "viewer",
    "POST /jobs/<job>/pause": "admin",
    "POST /jobs/<job>/resume": "admin",
    "POST /jobs/<job>/trigger": "admin",
    "GET /new-job": "admin",
    "POST /new-job": "admin",
    "GET /jobs/<job>/change": "admin",
    "POST /jobs/<job>/change": "admin",
    "POST /jobs/<job>/delete": "admin",
    "GET /runs": "viewer",
    "GET /runs/<run>": "viewer",
    "POST /runs/<run>/cancel": "admin",
    "POST /runs/<run>/retry": "admin",
    "GET /alerts": "viewer",
    "GET /events": "viewer",
    "GET /alerts/<alert>": "viewer",
    "POST /alerts/<alert>/silence": "admin",
    "POST /alerts/<alert>/unsilence": "admin",
    "GET /api/v1/openapi.json": "anyone",
    "GET /api/v1/jobs": "viewer",
    "POST /api/v1/jobs": "admin",
    "GET /api/v1/jobs/<job>": "viewer",
    "PUT /api/v1/jobs/<job>": "admin",
    "PATCH /api/v1/jobs/<job>": "admin",
    "DELETE /api/v1/jobs/<job>": "admin",
    "POST /api/v1/jobs/<job>/pause": "admin",
    "POST /api/v1/jobs/<job>/resume": "admin",
    "POST /api/v1/jobs/<job>/trigger": "admin",
    "GET /api/v1/runs": "viewer",
    "GET /api/v1/runs/<run>": "viewer",
    "GET /api/v1/runs/<run>/log": "viewer",
    "POST /api/v1/runs/<run>/cancel": "admin",
    "POST /api/v1/runs/<run>/retry": "admin",
    "GET /api/v1/events": "viewer",
    "GET /api/v1/events/parked": "viewer",
    "GET /api/v1/subscribers": "viewer",
    "GET /api/v1/commands": "viewer",
    "GET /api/v1/alerts": "viewer",
    "GET /api/v1/alerts/<alert>": "viewer",
    "POST /api/v1/alerts/<alert>/silence": "admin",
    "POST /api/v1/alerts/<alert>/unsilence": "admin",
    "GET /api/v1/plugins": "viewer",
    "GET /api/v1/tasks": "viewer",
    "GET /api/v1/chain": "viewer",
    "GET /api/v1/etl/status": "viewer",
    "GET /api/v1/quality": "viewer",
    "GET /api/v1/funds": "viewer",
    "GET /api/v1/funds/<fund>": "viewer",
    "GET /api/v1/funds/<fund>/events": "viewer",
    "GET /api/v1/funds/<fund>/navs": "viewer",
    "GET /api/v1/funds/<fund>/metrics": "viewer",
    "GET /api/v1/metrics": "viewer",
    "GET /api/v1/ranks": "viewer",
    "GET /api/v1/ranking": "viewer",
}
NAMED = {
    **{"job": "collect", "run": "2", "alert": "1", "fund": "000001", "name": "site.css"},
    **{"row": "2", "code": "000001", "kind": "quality", "day": "2026-01-28"},
}
FORMS = ("POST /login", "POST /logout")  # open to anyone, but only from our own pages: tests/test_login.py
HASH = token_hash(ADMIN)


def addresses(app: Flask) -> dict[str, str]:
    """Method and path of every view, and the role it needs."""
    return {
        f"{method} {rule.rule}": role_needed(app, rule.endpoint).name.lower()
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }


@pytest.fixture
def filled(sqlite_engine: Engine, tmp_path: Path) -> Engine:
    fill(sqlite_engine, tmp_path)
    return sqlite_engine


def statuses(app: Flask, headers: dict[str, str]) -> dict[str, tuple[int, str]]:
    """By address: the reply's status, and its code where it is a problem."""
    client, found = app.test_client(), {}
    for address in addresses(app):
        method, path = address.split(" ")
        path = re.sub(r"<(\w+)>", lambda match: NAMED[match[1]], path)
        reply = client.open(path, method=method, headers=headers, buffered=True)
        body = reply.get_json(silent=True) or {}
        found[address] = (reply.status_code, body.get("code") or body.get("error") or "")
    if found["GET /health"] == (
        503,
        "",
    ):  # as long as the failed run of the night is not retried; said to anyone
        found["GET /health"] = (200, "")
    return found


def test_every_address_is_in_the_table(filled: Engine) -> None:
    assert addresses(app_of(filled)) == WHO


def test_without_tokens_reading_is_open_and_nobody_acts(filled: Engine) -> None:
    for headers in ({}, bearer(ADMIN)):
        for address, (status, code) in statuses(app_of(filled), headers).items():
            if WHO[address] == "admin":
                assert (status, code) == (403, "no_admin_token"), address
            elif address in FORMS:
                assert (status, code) == (403, "form_expired"), address
            else:
                assert status == 200, address
    with db.read(filled) as connection:
        assert connection.execute(select(job_command)).all() == []


def test_with_tokens_each_role_does_what_the_table_says(filled: Engine) -> None:
    app = app_of(filled, TOKENS)
    expected: dict[str, dict[str, tuple[int, str]]] = {
        "": {"viewer": (401, "token_missing"), "admin": (401, "token_missing")},
        VIEWER: {"admin": (403, "forbidden")},
    }
    for token, refusals in expected.items():
        for address, found in statuses(app, bearer(token) if token else {}).items():
            expected_here = (
                (403, "form_expired") if address in FORMS else refusals.get(WHO[address], (200, ""))
            )
            assert found == expected_here, (token, address)
    with answering(filled):
        for address, (status, code) in statuses(app, bearer(ADMIN)).items():
            refused_by_what_it_is = code in ("job_in_file", "refused", "form_expired", "not_decided")
            shown_elsewhere = status == 303 and WHO[address] == "admin"
            nothing_typed = (status, address) == (422, "POST /new-job")
            assert status == 200 or shown_elsewhere or nothing_typed or refused_by_what_it_is, (address, code)


def test_a_viewer_of_a_server_without_admin_token_is_told_so(filled: Engine) -> None:
    client = app_of(filled, Access(viewer_hash=token_hash(VIEWER))).test_client()
    assert client.get("/api/v1/jobs").status_code == 401
    assert client.get("/api/v1/jobs", headers=bearer(VIEWER)).status_code == 200
    reply = client.post("/api/v1/jobs/collect/pause", headers=bearer(VIEWER))
    assert (reply.status_code, reply.json and reply.json["code"]) == (403, "no_admin_token")


def test_an_action_is_on_record_with_who_asked(filled: Engine) -> None:
    client = app_of(filled, TOKENS).test_client()
    with answering(filled):
        assert client.post("/api/v1/jobs/collect/pause", headers=bearer(ADMIN)).status_code == 200
    with db.read(filled) as connection:
        [row] = connection.execute(select(job_command)).all()
    assert (row.action, row.job_id, row.status) == ("pause", "collect", "DONE")
    assert row.requested_by == "api:admin@127.0.0.1"


@pytest.mark.parametrize("shown", ["", ADMIN[:-1], f"{ADMIN} ", HASH, "é", "x" * 5000])
def test_what_is_no_token(filled: Engine, shown: str) -> None:
    client = app_of(filled, TOKENS).test_client()
    known = shown.strip() == ADMIN  # HTTP drops blanks around a value
    reply = client.get("/api/v1/jobs", headers=[("Authorization", f"Bearer {shown}")])
    assert reply.status_code == (200 if known else 401)
    if not known:
        assert reply.headers["WWW-Authenticate"].startswith('Bearer realm="navkeeper"')
    assert client.get("/api/v1/jobs", auth=("admin", ADMIN)).status_code == 401


def test_wrong_tokens_are_slowed_down(filled: Engine) -> None:
    now = [NOW]
    from scheduler.health_check import create_health_app
    from scheduler.overview import observer_engine
    from tests.example_night import JOBS

    client = create_health_app(observer_engine(filled.url), JOBS, lambda: now[0], TOKENS).test_client()

    def ask(token: str, address: str = "10.0.0.1") -> int:
        environment = {"REMOTE_ADDR": address}
        return client.get("/api/v1/jobs", headers=bearer(token), environ_base=environment).status_code

    assert [ask(f"guess {n}") for n in range(12)] == [401] * 10 + [429] * 2
    assert ask(ADMIN) == 429
    assert ask(ADMIN, "10.0.0.2") == 200
    assert client.get("/health/live", environ_base={"REMOTE_ADDR": "10.0.0.1"}).status_code == 200
    now[0] -= timedelta(hours=1)  # a clock that is set back locks nobody out
    assert ask(ADMIN) == 200
    now[0] = NOW + timedelta(seconds=60)
    assert ask(ADMIN) == 200
    assert [ask(f"guess {n}") for n in range(11)] == [401] * 10 + [429]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:5000", 200),
        ("127.0.0.1:5000", 200),
        ("[::1]:5000", 200),
        ("192.0.2.7", 200),  # an address is no name that somebody else could have pointed here
        ("nav.example.com", 200),
        ("NAV.example.com:443", 200),
        ("evil.example", 400),
        ("nav.example.com.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost@evil.example", 400),
        ("", 400),
    ],
)
def test_only_our_names_are_answered(filled: Engine, host: str, status: int) -> None:
    access = Access(hosts=frozenset({"localhost", "nav.example.com"}))
    client = app_of(filled, access).test_client()
    for path in ("/health/live", "/api/v1/openapi.json", "/api/v1/jobs", "/nothing"):
        reply = client.get(path, headers={"Host": host})
        assert reply.status_code == (404 if path == "/nothing" and status == 200 else status), path


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://[x", 403),
    ],
)
def test_a_page_of_another_site_does_not_act(filled: Engine, origin: str | None, status: int) -> None:
    headers = bearer(ADMIN) | ({"Origin": origin} if origin else {})
    with answering(filled):
        reply = app_of(filled, TOKENS).test_client().post("/api/v1/jobs/collect/pause", headers=headers)
    assert reply.status_code == status


def test_every_reply_carries_the_headers_browsers_heed(filled: Engine) -> None:
    client = app_of(filled, TOKENS).test_client()
    for path in ("/health", "/metrics", "/api/v1/jobs", "/nothing", "/api/v1/openapi.json"):
        reply = client.get(path)
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'"), path
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in reply.headers
        assert "Set-Cookie" not in reply.headers


def test_an_error_of_ours_tells_nothing(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_more: object) -> Any:
        raise RuntimeError("s3cret in /home/somebody")

    app = app_of(filled)
    monkeypatch.setattr("scheduler.listing.list_runs", broken)
    reply = app.test_client().get("/api/v1/runs")
    assert (reply.status_code, reply.content_type) == (500, "application/problem+json")
    assert reply.json == {
        "type": "urn:navkeeper:problem:internal_error",
        "title": CODES["internal_error"][1],
        "status": 500,
        "code": "internal_error",
    }


def test_what_is_too_large_is_refused_before_it_is_read(filled: Engine) -> None:
    with served(app_of(filled, TOKENS)) as client:
        url = "/api/v1/jobs/collect/trigger"
        large = client.post(url, content=b" " * 20_000, headers=bearer(ADMIN))
        assert large.status_code == 413
        chunked = client.post(url, content=(b" " * 1000 for _ in range(20)), headers=bearer(ADMIN))
        assert chunked.status_code == 413
        assert client.get("/health", headers={"X-Long": "x" * 40_000}).status_code == 431
        for reply in (large, chunked):
            assert "Traceback" not in reply.text
    reply = (
        app_of(filled, TOKENS)
        .test_client()
        .post(url, data=b" " * 20_000, headers=bearer(ADMIN) | {"Content-Type": "application/json"})
    )
    assert (reply.status_code, reply.json and reply.json["code"]) == (413, "request_entity_too_large")


def settings(tmp_path: Path, **values: object) -> Any:
    return load_settings(tmp_path / "nothing.env", **values)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "*"])
def test_another_address_needs_a_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"without a token.*main\.py token"):
        access_of(settings(tmp_path), host)
    for name in ("viewer_token_hash", "admin_token_hash"):
        assert access_of(settings(tmp_path, **{name: HASH}), host).has_tokens


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_none(tmp_path: Path, host: str) -> None:
    assert access_of(settings(tmp_path), host) == Access(hosts=frozenset({"localhost", host}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NAVKEEPER_ADMIN_TOKEN_HASH", ADMIN, r"= \(hidden\) is not allowed: the hash of a token"),
        ("NAVKEEPER_TRUSTED_HOSTS", "a.example:80", "host names without port"),
    ],
)
def test_settings_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name} .*{message}"):
        settings(tmp_path)


def test_trusted_hosts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVKEEPER_TRUSTED_HOSTS", "Nav.example.com, b.example")
    access = access_of(settings(tmp_path), "127.0.0.1")
    assert access.hosts == {"localhost", "127.0.0.1", "nav.example.com", "b.example"}


def main(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "main.py"), *words]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_server_refuses_to_start_open_to_others() -> None:
    done = main("health", "--host", "0.0.0.0", "--port", "0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert "'0.0.0.0' is not allowed without a token" in done.stderr


def test_a_new_token_opens_the_door_it_is_set_for(filled: Engine) -> None:
    done = main("token", NAVKEEPER_LANGUAGE="en")
    assert done.returncode == 0, done.stderr
    [token] = re.findall(r"nk_[\w-]{43}", done.stdout)
    [kept] = re.findall(r"NAVKEEPER_ADMIN_TOKEN_HASH=([0-9a-f]{64}) ", done.stdout)
    assert Access(admin_hash=kept).role_of(token) is Role.ADMIN
    assert main("token", NAVKEEPER_LANGUAGE="en").stdout != done.stdout
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), "health", "--host", "0.0.0.0", "--port", port],
        env={**os.environ, "NAVKEEPER_VIEWER_TOKEN_HASH": kept},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert port in process.stderr.readline()
        import httpx

        address = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{address}/api/v1/runs", trust_env=False, timeout=30).status_code == 401
        reply = httpx.get(f"{address}/api/v1/runs", headers=bearer(token), trust_env=False, timeout=30)
        assert reply.status_code == 200
        reply = httpx.get(f"{address}/health", headers={"Host": "evil.example"}, trust_env=False, timeout=30)
        assert reply.status_code == 400
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_instants_of_failures_are_forgotten_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from scheduler.web import access

    monkeypatch.setattr(access, "ADDRESSES", 3)
    failures, now = access.Failures(), datetime(2026, 1, 28, tzinfo=NOW.tzinfo)
    for number in range(5):
        for _ in range(10):
            failures.note(f"10.0.0.{number}", now)
    assert [failures.too_many(f"10.0.0.{number}", now) for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
