"""Logging in with a browser: what the cookie is worth, what forms must carry, what is kept and for how long."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from core import db
from core.schema import job_command
from scheduler.health_check import create_health_app
from scheduler.overview import observer_engine
from scheduler.web.access import Access, token_hash
from scheduler.web.sessions import COOKIE, LIFE, Sessions
from tests.api_site import ADMIN, TOKENS, VIEWER, answering, bearer, fill
from tests.example_night import JOBS, NOW

PAGE = {"Accept": "text/html"}


@pytest.fixture
def filled(sqlite_engine: Engine, tmp_path: Path) -> Engine:
    fill(sqlite_engine, tmp_path)
    return sqlite_engine


def site(engine: Engine, access: Access | None = TOKENS, now: datetime = NOW, **more: Any) -> FlaskClient:
    app = create_health_app(observer_engine(engine.url), JOBS, lambda: now, access, **more)
    return app.test_client()


def form_token(client: FlaskClient, path: str = "/login") -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', client.get(path, headers=PAGE).text)
    assert found is not None
    return found[1]


def log_in(client: FlaskClient, token: str, then: str = "/jobs") -> Any:
    sent = {"form_token": form_token(client), "token": token, "next": then}
    return client.post("/login", data=sent, headers=PAGE)


def cookie_of(client: FlaskClient) -> str:
    found = client.get_cookie(COOKIE)
    assert found is not None
    return str(found.value)


def commands(engine: Engine) -> list[tuple[str, str]]:
    with db.read(engine) as connection:
        return [(row.action, row.requested_by) for row in connection.execute(select(job_command))]


def test_a_browser_is_led_to_the_form_and_back(filled: Engine) -> None:
    client = site(filled)
    reply = client.get("/runs?status=FAILED", headers=PAGE)
    assert (reply.status_code, reply.location) == (302, "/login?next=%2Fruns%3Fstatus%3DFAILED")
    assert client.get("/runs").status_code == 401  # a script is told so
    assert 'value="/runs?status=FAILED"' in client.get(reply.location, headers=PAGE).text
    reply = log_in(client, VIEWER, "/runs?status=FAILED")
    assert (reply.status_code, reply.location) == (303, "/runs?status=FAILED")
    assert client.get("/runs", headers=PAGE).status_code == 200


def test_the_cookie_says_nothing_and_is_for_our_pages_alone(filled: Engine, tmp_path: Path) -> None:
    kept = tmp_path / "sessions.json"
    client = site(filled, sessions=kept)
    before = client.get("/login").headers["Set-Cookie"]
    reply = log_in(client, ADMIN)
    said = reply.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(said.split("; "))
    assert said.split(";")[0] != before.split(";")[0]  # a cookie known from before opens nothing
    cookie = cookie_of(client)
    assert len(cookie) == 43
    text = kept.read_text()
    assert cookie not in text
    assert ADMIN not in text
    assert kept.stat().st_mode & 0o777 == 0o600
    assert list(json.loads(text).values()) == [[token_hash(ADMIN), (NOW + LIFE).isoformat()]]


def test_a_session_outlives_the_server_but_not_its_token_or_its_time(filled: Engine, tmp_path: Path) -> None:
    kept = tmp_path / "sessions.json"
    first = site(filled, sessions=kept)
    log_in(first, ADMIN)

    def status(now: datetime = NOW, access: Access = TOKENS) -> int:
        client = site(filled, access, now, sessions=kept)
        client.set_cookie(COOKIE, cookie_of(first))
        return client.get("/jobs").status_code

    assert status() == 200
    assert status(NOW + LIFE - timedelta(seconds=1)) == 200
    assert status(NOW + LIFE) == 401
    assert status(access=Access(token_hash(VIEWER), token_hash("another"))) == 401
    kept.write_text("{ broken")
    assert status() == 401


def test_logging_out_ends_it_for_good(filled: Engine) -> None:
    client = site(filled)
    log_in(client, ADMIN)
    cookie = cookie_of(client)
    assert client.post("/logout", headers=PAGE).status_code == 403
    assert client.get("/jobs").status_code == 200
    client.post("/logout", data={"form_token": form_token(client, "/jobs")})
    assert client.get_cookie(COOKIE) is None
    client.set_cookie(COOKIE, cookie)
    assert client.get("/jobs").status_code == 401


@pytest.mark.parametrize(
    "then", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil", "/a\r\nX: y", "/ü", ""]
)
def test_nobody_is_led_elsewhere(filled: Engine, then: str) -> None:
    assert log_in(site(filled), VIEWER, then).location == "/"


def test_wrong_tokens_are_told_and_slowed_down(filled: Engine) -> None:
    client = site(filled)
    replies = [log_in(client, f"guess {n}") for n in range(11)]
    assert [reply.status_code for reply in replies] == [401] * 10 + [429]
    assert "令牌不正确" in replies[0].text
    assert "guess" not in replies[0].text
    assert log_in(client, ADMIN).status_code == 429
    assert client.get("/jobs").status_code == 429  # as with any token that is not known


def test_a_form_of_another_site_does_nothing(filled: Engine) -> None:
    client = site(filled)
    log_in(client, ADMIN)
    good = form_token(client, "/jobs")
    with answering(filled):
        for data, headers, code in (
            ({}, {}, "form_expired"),
            ({"form_token": "0" * 64}, {}, "form_expired"),
            ({"form_token": "ü"}, {}, "form_expired"),
            ({"form_token": good}, {"Origin": "https://evil.example"}, "cross_origin"),
            ({"form_token": good}, {"Origin": "null"}, "cross_origin"),
        ):
            reply = client.post("/jobs/collect/pause", data=data, headers=headers)
            assert (reply.status_code, reply.json) == (403, {"error": code})
        assert client.post("/api/v1/jobs/collect/pause").status_code == 403  # nor the API by the cookie alone
        assert commands(filled) == []
        own = {"Origin": "http://localhost"}
        reply = client.post("/jobs/collect/pause", data={"form_token": good}, headers=own)
    assert (reply.status_code, reply.location) == (303, "/jobs/collect?command=1")
    assert commands(filled) == [("pause", "web:admin@127.0.0.1")]


def test_the_form_of_one_session_is_not_anothers(filled: Engine) -> None:
    one, other = site(filled), site(filled)
    log_in(one, ADMIN)
    log_in(other, ADMIN)
    sent = {"form_token": form_token(other, "/jobs")}
    assert one.post("/jobs/collect/pause", data=sent).status_code == 403


def test_a_viewer_sees_and_does_not_act(filled: Engine) -> None:
    client = site(filled)
    log_in(client, VIEWER)
    text = client.get("/jobs/collect?lang=en", headers=PAGE).text
    assert "log in with the admin token to act" in text
    assert "/trigger" not in text
    sent = {"form_token": form_token(client, "/jobs")}
    for path in ("/jobs/collect/pause", "/jobs/collect/trigger", "/runs/2/retry"):
        reply = client.post(path, data=sent, headers=PAGE)
        assert reply.status_code == 403
        assert "This needs the admin token" in reply.text
    assert commands(filled) == []


def test_without_tokens_pages_are_open_and_say_how_to_act(filled: Engine) -> None:
    client = site(filled, None)
    for path in ("/", "/jobs", "/jobs/collect", "/runs", "/runs/2", "/login"):
        reply = client.get(f"{path}?lang=en", headers=PAGE)
        assert reply.status_code == 200
        assert "<button>" not in reply.text.replace("<button>show", "")
    assert "to act here make an admin token:" in client.get("/jobs", headers=PAGE).text
    assert "No token is set" in client.get("/login", headers=PAGE).text
    assert client.post("/jobs/collect/pause", headers=PAGE).status_code == 403


def test_errors_are_pages_for_browsers_and_codes_for_scripts(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = site(filled, None)
    for path, status, said in (
        ("/nothing", 404, "There is nothing at this address"),
        ("/runs/99", 404, "There is no such run"),
        ("/runs/x", 400, "run: a whole number"),
        ("/jobs/moon", 404, "There is no such job"),
        ("/runs?date=tomorrow", 400, "date: a date such as 2025-12-01"),
        ("/static/site.py", 404, "There is nothing at this address"),
        ("/static/../access.py", 404, "There is nothing at this address"),
    ):
        reply = client.get(path + ("&" if "?" in path else "?") + "lang=en", headers=PAGE)
        assert (reply.status_code, reply.mimetype) == (status, "text/html"), path
        assert said in reply.text
        assert client.get(path).mimetype == "application/json"

    def broken(*_args: object, **_more: object) -> Any:
        raise RuntimeError("s3cret in /home/somebody")

    monkeypatch.setattr("scheduler.listing.list_runs", broken)
    reply = client.get("/runs", headers=PAGE)
    assert reply.status_code == 500
    assert "The server failed" in reply.text
    assert "s3cret" not in reply.text


def test_what_is_shown_is_text(filled: Engine) -> None:
    from sqlalchemy import update

    from core.schema import job_run

    evil = "<script>alert(1)</script>\"'><img src=x>"
    with db.write(filled) as connection:
        connection.execute(update(job_run).values(reason=evil, requested_by=evil))
    client = site(filled, None)
    for path in ("/", "/runs", "/runs/2", "/jobs/collect", f"/runs?job={evil}", f"/nothing/{evil}?q={evil}"):
        text = client.get(path, headers=PAGE).text
        assert "<img" not in text
        assert "alert(1)</script>" not in text


def test_a_database_that_is_away_is_told(filled: Engine, tmp_path: Path) -> None:
    Path(str(filled.url.database)).rename(tmp_path / "away.db")
    reply = site(filled, None).get("/?lang=en", headers=PAGE)
    assert reply.status_code == 503
    assert "The database does not answer" in reply.text


def test_without_a_daemon_an_action_says_so(sqlite_engine: Engine) -> None:
    client = site(sqlite_engine)
    log_in(client, ADMIN)
    sent = {"form_token": form_token(client, "/jobs")}
    reply = client.post("/jobs/collect/pause", data=sent)
    assert (reply.status_code, reply.location) == (303, "/jobs/collect?problem=no_daemon")
    text = client.get(f"{reply.location}&lang=en", headers=PAGE).text
    assert "No daemon answered; what was asked for will not be done" in text


def test_files_are_cached_by_their_content(filled: Engine) -> None:
    client = site(filled, None)
    address = re.search(r'href="(/static/site\.css\?v=[0-9a-f]{16})"', client.get("/").text)
    assert address is not None
    reply = client.get(address[1], buffered=True)
    assert reply.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    again = client.get(address[1], headers={"If-None-Match": reply.headers["ETag"]}, buffered=True)
    assert (again.status_code, again.data) == (304, b"")
    other = client.get("/static/site.css?v=old", buffered=True)
    assert other.headers["Cache-Control"] == "no-cache"


def test_pages_of_the_api_key_open_with_the_cookie_for_reading(filled: Engine) -> None:
    client = site(filled)
    log_in(client, VIEWER)
    assert client.get("/api/v1/runs").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert client.get("/api/v1/runs", headers=bearer("wrong")).status_code == 401


def test_sessions_are_forgotten_beyond_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scheduler.web import sessions

    monkeypatch.setattr(sessions, "MOST", 3)
    mine = token_hash(ADMIN)
    for path in (None, tmp_path / "sessions.json"):
        kept = Sessions(path)
        cookies = [kept.begin(mine, NOW + timedelta(seconds=n)) for n in range(5)]
        assert [kept.token_hash(cookie, NOW) for cookie in cookies] == [None, None, mine, mine, mine]
