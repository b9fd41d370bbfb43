"""What a hostile client and a broken machine try on the web pages: each of these once did harm."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from config.logging_config import configure_logging
from core import db
from scheduler.health_check import create_health_app
from scheduler.overview import observer_engine
from scheduler.web.access import Access, token_hash
from scheduler.web.sessions import COOKIE, Sessions
from tests.api_site import ADMIN, TOKENS, VIEWER, app_of, bearer, fill
from tests.example_night import JOBS, NOW

PAGE = {"Accept": "text/html"}


@pytest.fixture
def filled(sqlite_engine: Engine, tmp_path: Path) -> Engine:
    fill(sqlite_engine, tmp_path)
    return sqlite_engine


@pytest.mark.parametrize("host", ["[::1", "[x]", "a]b", "[", "]", "127.0.0.1:99999999", "[v1.x]"])
def test_a_host_that_is_no_host_is_not_ours(filled: Engine, host: str) -> None:
    reply = app_of(filled).test_client().get("/health/live", headers={"Host": host})
    assert (reply.status_code, reply.json) == (400, {"error": "untrusted_host"})


def test_an_address_cannot_write_lines_into_the_log(filled: Engine, tmp_path: Path) -> None:
    log = tmp_path / "health.log"
    configure_logging("INFO", [], log, console=False)
    client = app_of(filled, TOKENS).test_client()
    forged = "2026-01-28T20:00:00 INFO root: all is well"
    client.get(f"/jobs/collect%0A{forged}%1B[2J", headers=bearer("wrong"))
    logging.shutdown()
    text = log.read_text()
    assert "a token that is not known" in text
    assert [line for line in text.splitlines() if line.startswith(forged[:10])] == []
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 5}',
        '{"a": [1, 2]}',
        '{"a": null}',
        '{"%s": ["x", 7]}',
        '{"%s": ["\\u00fc", "9999"]}',
        '{"%s": ["", "9999"]}',
        "[" * 100_000,
        "[]",
        "7",
        "\x00" * 50,
    ],
)
def test_a_damaged_file_of_sessions_means_that_everybody_logs_in_again(
    filled: Engine, tmp_path: Path, text: str
) -> None:
    kept = tmp_path / "sessions.json"
    kept.write_text(text.replace("%s", token_hash("mine")))
    access = Access(viewer_hash=token_hash(VIEWER))  # no admin's, which an empty hash must not match
    app = create_health_app(observer_engine(filled.url), JOBS, lambda: NOW, access, sessions=kept)
    client = app.test_client()
    client.set_cookie(COOKIE, "mine")
    assert client.get("/jobs", headers=PAGE).status_code == 302
    assert client.get("/login", headers=PAGE).status_code == 200
    sessions = Sessions(kept)
    assert sessions.token_hash(sessions.begin(token_hash(VIEWER), NOW), NOW) == token_hash(VIEWER)


def _begin(path: Path, count: int) -> list[str]:
    sessions = Sessions(path)
    return [sessions.begin(token_hash(ADMIN), NOW) for _ in range(count)]


def test_two_servers_of_one_home_lose_no_session(tmp_path: Path) -> None:
    kept = tmp_path / "sessions.json"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap(_begin, [(kept, 150)] * 2)
    sessions = Sessions(kept)
    assert [sessions.token_hash(cookie, NOW) for cookie in first + second] == [token_hash(ADMIN)] * 300


def test_a_long_fund_code_costs_no_more_than_a_short_one(filled: Engine) -> None:
    observer = observer_engine(filled.url)
    statements: list[str] = []
    event.listen(observer, "before_cursor_execute", lambda _c, _k, text, *_more: statements.append(text))
    client = create_health_app(observer, JOBS, lambda: NOW).test_client()
    assert client.get("/funds/" + "1" * 5000, headers=PAGE).status_code == 404
    assert len(statements) < 30


def test_a_second_slash_is_another_address(filled: Engine) -> None:
    client = app_of(filled).test_client()
    for path in ("/jobs//collect", "/api/v1//jobs", "/static//site.css"):
        assert client.get(path).status_code == 404, path  # it was a redirection that led nowhere
    assert 'href="?lang=en"' in client.get("/jobs", headers=PAGE).text


def serve(**more: str) -> tuple[subprocess.Popen[str], int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "main.py", "health", "--port", str(port)],
        env=os.environ | more,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert str(port) in process.stderr.readline()
    return process, port


def live(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as asked:
        asked.sendall(b"GET /health/live HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return asked.recv(100)


def test_connections_that_say_nothing_keep_nobody_out(filled: Engine) -> None:
    process, port = serve()
    idle = []
    try:
        for number in range(200):
            idle.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            if number % 2:
                idle[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert b"200 OK" in live(port)
    finally:
        for each in idle:
            each.close()
        process.terminate()
        process.communicate(timeout=30)


def test_a_database_that_is_locked_does_not_stop_the_server(filled: Engine) -> None:
    client = app_of(filled, TOKENS).test_client()
    with db.write(filled), ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        asked = pool.submit(client.post, "/api/v1/jobs/collect/pause", headers=bearer(ADMIN))
        reply = asked.result(100)
        took = time.monotonic() - begun
    assert (reply.status_code, json.loads(reply.text)["code"]) == (503, "database_unavailable")
    assert took < 30  # and not the minute that a run may wait
