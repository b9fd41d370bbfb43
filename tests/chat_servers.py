"""Servers that answer as the robots of DingTalk, WeCom and Feishu do, refusals with HTTP 200 included; a dead man's
switch; and one that never answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-of-the-robot-0123456789"
SECRET = "SECof-the-robot-0123456789abcdef"
AN_HOUR = timedelta(hours=1)
Reply = tuple[int, dict[str, Any]]


def _signature(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


class ChatServer:
    """All of them on one socket, by path. `said`: the texts that were taken, with the kind of their chat."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.said: list[tuple[str, str]] = []
        self.pinged: list[str] = []
        self.refusing: set[str] = set()  # kinds whose robots were removed
        self.too_fast: set[str] = set()
        self.down: set[str] = set()  # kinds whose gateway answers 502
        self.hanging: set[str] = set()
        self.released = threading.Event()
        self.asked: list[str] = []  # kinds, whatever was answered
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                owner.answer(self, raw)

            def do_GET(self) -> None:
                owner.answer(self, b"")

            def log_message(self, *_words: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def channel(self, kind: str) -> str:
        """As NAVKEEPER_ALERT_CHANNELS has it."""
        of = {
            "dingtalk": f"/dingtalk/robot/send?access_token={TOKEN}&secret={SECRET}",
            "wecom": f"/wecom/cgi-bin/webhook/send?key={TOKEN}",
            "feishu": f"/feishu/open-apis/bot/v2/hook/{TOKEN}?secret={SECRET}",
            "webhook": f"/webhook/{TOKEN}",
        }
        return f"{kind}+http://{self.address}{of[kind]}"

    def answer(self, handler: BaseHTTPRequestHandler, raw: bytes) -> None:
        url = urlsplit(handler.path)
        kind = url.path.split("/")[1]
        self.asked.append(kind)
        if kind in self.hanging:
            self.released.wait(60)
            return
        if kind in self.down:
            status, body = 502, {"error": "bad gateway"}
        else:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, body = getattr(self, f"_{kind}")(url.path, query, raw)
        sent = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(sent)))
        handler.end_headers()
        handler.wfile.write(sent)

    def _dingtalk(self, _path: str, query: dict[str, str], raw: bytes) -> Reply:
        if "dingtalk" in self.refusing or query.get("access_token") != TOKEN:
            return 200, {"errcode": 300005, "errmsg": "token is not exist"}
        if "dingtalk" in self.too_fast:
            return 200, {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}
        stamp = query.get("timestamp", "0")
        off = abs(self.clock().timestamp() - int(stamp) / 1000)
        if off > AN_HOUR.total_seconds() or query.get("sign") != _signature(SECRET, f"{stamp}\n{SECRET}"):
            return 200, {"errcode": 310000, "errmsg": f"sign not match, more: {SECRET}"}
        body = json.loads(raw)
        assert body["msgtype"] == "markdown"
        assert body["markdown"]["title"]
        assert len(raw) <= 20_000
        self.said.append(("dingtalk", body["markdown"]["text"]))
        return 200, {"errcode": 0, "errmsg": "ok"}

    def _wecom(self, _path: str, query: dict[str, str], raw: bytes) -> Reply:
        if "wecom" in self.refusing or query.get("key") != TOKEN:
            return 200, {"errcode": 93000, "errmsg": "invalid webhook url"}
        if "wecom" in self.too_fast:
            return 200, {"errcode": 45009, "errmsg": "api freq out of limit"}
        text = json.loads(raw)["markdown"]["content"]
        if len(text.encode()) > 4096:
            return 200, {"errcode": 40058, "errmsg": "markdown.content exceed max length 4096"}
        self.said.append(("wecom", text))
        return 200, {"errcode": 0, "errmsg": "ok"}

    def _feishu(self, path: str, _query: dict[str, str], raw: bytes) -> Reply:
        body = json.loads(raw)
        if "feishu" in self.refusing or not path.endswith(TOKEN):
            return 200, {"code": 19001, "msg": "param invalid: incoming webhook access token invalid"}
        stamp = body.get("timestamp", "0")
        off = abs(self.clock().timestamp() - int(stamp))
        if off > AN_HOUR.total_seconds() or body.get("sign") != _signature(f"{stamp}\n{SECRET}", ""):
            return 200, {"code": 19021, "msg": "sign match fail or timestamp is not within one hour"}
        self.said.append(("feishu", body["content"]["text"]))
        return 200, {"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"}

    def _webhook(self, _path: str, _query: dict[str, str], raw: bytes) -> Reply:
        body = json.loads(raw)
        self.said.append(("webhook", f"{body['title']}\n{body['text']}"))
        return 200, {}

    def _apprise(self, _path: str, _query: dict[str, str], raw: bytes) -> Reply:
        self.said.append(("apprise", json.loads(raw)["message"]))
        return 200, {}

    def _ping(self, path: str, _query: dict[str, str], _raw: bytes) -> Reply:
        self.pinged.append(path.removeprefix("/ping"))
        return 200, {}
