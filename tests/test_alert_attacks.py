"""What hostile and broken chats answer: it is a failure of that channel, and the next one is tried."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from config.settings import load_settings
from scheduler.alert_delivery import Post
from scheduler.alert_text import Message
from tests.chat_servers import ChatServer

NOW = datetime(2025, 11, 27, 12, 0, tzinfo=UTC)
HELLO = Message("title", "text")
KEY = "0123456789abcdef-0123456789abcdef"
Answer = Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The address of a WeCom robot that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - as the standard library has it

        def log_message(self, *_words: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"wecom+http://127.0.0.1:{server.server_port}/send?key={KEY}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, b"[" * 60_000),
        (200, {}, b'{"a":' * 12_000),
        (200, {}, b"{}"),
        (200, {}, b"\xff\xfe{}"),
        (200, {}, b'{"errcode": ' + b"9" * 5000 + b"}"),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 50_000_000)),
        (302, {"Location": "http://127.0.0.1:1/"}, b'{"errcode": 0}'),
        (500, {}, b'{"errcode": 0}'),
        (200, {"Content-Length": "100"}, b'{"errcode": 0}'),
    ],
    ids=range(10),
)
def test_whatever_a_chat_answers_the_next_one_is_tried(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    with answering(lambda _: (status, headers, body)) as first, ChatServer(lambda: NOW) as chat:
        second = chat.channel("webhook")
        post = Post(load_settings(alert_channels=f"{first} {second}"), lambda: NOW)
        used, error = post.send(HELLO, lambda _name: 0)
        assert used == "webhook-2"
        assert error is not None
        assert error.startswith("wecom-1: ")
        assert len(error) < 400


@pytest.mark.parametrize("before", range(150, 201, 7))
def test_a_secret_that_a_chat_quotes_is_not_cut_in_the_middle(before: int) -> None:
    def quoted(asked: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        key = asked.path.rpartition("=")[2]
        return 200, {}, json.dumps({"errcode": 93000, "errmsg": "x" * before + key}).encode()

    with answering(quoted) as address:
        post = Post(load_settings(alert_channels=address), lambda: NOW)
        error = post.tried(post.channels[0], HELLO)
    assert error is not None
    assert KEY[:4] not in error


def test_nor_one_in_what_is_no_json() -> None:
    with answering(lambda asked: (200, {}, b"x" * 80 + asked.path.encode())) as address:
        post = Post(load_settings(alert_channels=address), lambda: NOW)
        error = post.tried(post.channels[0], HELLO)
    assert error is not None
    assert KEY[:4] not in error
