"""The HTTP server: keep-alive, faults on the wire, and control requests under /_standin/."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from core.standin import tushare
from core.standin.alterations import ALTERATIONS
from core.standin.endpoints import BOM, HTML, JSON, NEED_REFERER, Reply, answer, refusal
from core.standin.faults import HTML_PAGE, MARKET_KINDS, Fault, FaultList, parse_fault
from core.standin.market import UNALTERED, Market, View
from core.standin.periods import EPOCH

CONTROL = "/_standin/"
STALL_POLL_SECONDS = 0.05


class StandinServer:
    """Serves a market over HTTP from a thread; a context manager.

    `now` (aware) is the instant up to which publications are visible, by default the market's end.
    `requests` counts the requests by path, control requests aside.
    """

    def __init__(
        self, market: Market, now: datetime | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.market = market
        self.requests: Counter[str] = Counter()
        self.faults = FaultList()
        self.released = threading.Event()  # set for ever on stop; replaced when faults are cleared
        self._altered = UNALTERED
        self._lock = threading.Lock()
        self.view = View(market, now or market.end)
        self._http = _HttpServer((host, port), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="standin")

    @property
    def url(self) -> str:
        """Base address, without a slash at the end."""
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, drop every connection and give back the port."""
        self.released.set()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.drop_connections()
        self._http.server_close()

    def __enter__(self) -> StandinServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def set_now(self, now: datetime) -> None:
        """Show what was published by `now`; raises ValueError for a naive datetime."""
        with self._lock:
            self.view = View(self.market, now, self._altered)

    def add_fault(self, kind: str, **options: object) -> None:
        """Put a fault in force (see `faults.KINDS`); raises ValueError for options that make no sense."""
        fault = parse_fault({"kind": kind, **options})
        if kind not in MARKET_KINDS:
            self.faults.add(fault)
            return
        with self._lock:
            self._altered = ALTERATIONS[kind](self._altered, self.market, fault)
            self.view = View(self.market, self.view.now, self._altered)

    def clear_faults(self) -> None:
        """Take every fault out of force and let stalled requests go."""
        self.faults.clear()
        released, self.released = self.released, threading.Event()
        released.set()
        with self._lock:
            self._altered = UNALTERED
            self.view = View(self.market, self.view.now)

    def state(self) -> dict[str, object]:
        """What /_standin/state shows."""
        market = self.market
        return {
            "market": market.kind,
            "now": self.view.now.isoformat(),
            "end": market.end.isoformat(),
            "funds": len(market.funds),
            "rows": int(market.dates.size),
            "first_date": date.fromordinal(int(market.dates.min()) + EPOCH).isoformat(),
            "last_date": date.fromordinal(int(market.dates.max()) + EPOCH).isoformat(),
            "requests": dict(self.requests),
            "faults": self.faults.describe(),
            "late": dict(self._altered.late),
            "revised_rows": len(self._altered.revised),
        }


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False  # stop() waits for them, so that no connection outlives the server
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], standin: StandinServer) -> None:
        self.standin = standin
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in mid-reply is no error of ours; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def drop_connections(self) -> None:
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the requests are counted, not logged."""

    def version_string(self) -> str:
        return f"NavKeeper-standin ({self.server.standin.market.kind} market)"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith(CONTROL):
            self._control(url.path.removeprefix(CONTROL))
            return
        standin = self.server.standin
        standin.requests[url.path] += 1
        fault = standin.faults.take(url.path)
        if fault and fault.kind in ("stall", "reset"):
            self._hang_up(fault.kind, standin.released)
            return
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        allowed = url.path.lower() not in NEED_REFERER or self._from_upstream()
        if not allowed or (fault and fault.kind == "refused"):
            reply = refusal(url.path, query)
        else:
            reply = answer(standin.view, url.path, query, fault)
        self._send(*_damaged(reply, fault))

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(CONTROL):
            self._control(path.removeprefix(CONTROL))
            return
        standin = self.server.standin
        standin.requests[path] += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = standin.faults.take(path)
        if fault and fault.kind in ("stall", "reset"):
            self._hang_up(fault.kind, standin.released)
        else:
            self._send(*_damaged(tushare.answer(standin.view, path, body, fault), fault))

    def do_DELETE(self) -> None:
        self._control(urlsplit(self.path).path.removeprefix(CONTROL))

    def _from_upstream(self) -> bool:
        host = urlsplit(self.headers.get("Referer", "")).hostname or ""
        return host == "eastmoney.com" or host.endswith(".eastmoney.com")

    def _hang_up(self, kind: str, released: threading.Event) -> None:
        """Answer nothing: reset at once, or hold the line until released or the client leaves."""
        self.close_connection = True
        if kind == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            os.close(self.connection.detach())  # closing now, before any FIN, makes it an RST
            return
        self.connection.settimeout(STALL_POLL_SECONDS)
        while not released.is_set():
            try:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    return
            except TimeoutError:
                continue
            released.wait(STALL_POLL_SECONDS)

    def _control(self, name: str) -> None:
        standin = self.server.standin
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        try:
            payload = json.loads(text) if text else {}
            if (self.command, name) == ("GET", "state"):
                pass
            elif (self.command, name) == ("POST", "now"):
                standin.set_now(datetime.fromisoformat(payload["now"]))
            elif (self.command, name) == ("POST", "faults"):
                standin.add_fault(**payload)
            elif (self.command, name) == ("DELETE", "faults"):
                standin.clear_faults()
            else:
                self._send(*_json_reply({"error": f"no control request {self.command} {name}"}, 404))
                return
        except (ValueError, KeyError, TypeError) as error:
            self._send(*_json_reply({"error": f"{type(error).__name__}: {error}"}, 400))
            return
        self._send(*_json_reply(standin.state(), 200))

    def _send(self, body: bytes, content_type: str, status: int, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


def _json_reply(value: Mapping[str, object], status: int) -> tuple[bytes, str, int]:
    return json.dumps(value, ensure_ascii=False).encode(), JSON, status


def _damaged(reply: Reply, fault: Fault | None) -> tuple[bytes, str, int, bool]:
    """A reply's bytes, content type and status as a fault leaves them; True: send half of it."""
    kind = fault.kind if fault else ""
    if kind == "html_error":
        return HTML_PAGE.encode(), HTML, 200, False
    if kind == "http_500":
        return HTML_PAGE.encode(), HTML, 500, False
    if kind == "gb2312":
        text = reply.body.removeprefix(BOM)
        return text.encode("gb18030"), reply.content_type.replace("utf-8", "gb2312"), reply.status, False
    body = BOM + reply.body.removeprefix(BOM) if kind == "bom" else reply.body
    return body.encode(), reply.content_type, reply.status, kind == "truncated"
