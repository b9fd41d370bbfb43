"""A small upstream on a real socket whose every answer a test decides, and a client of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from core.sources.eastmoney import EastmoneySource

RANK = "/data/rankhandler.aspx"
MONEY = "/FundRank/GetHbRankList"
LSJZ = "/f10/lsjz"
FUND_LIST = "/js/fundcode_search.js"
STATUS = "/Data/Fund_JJJZ_Data.aspx"
EVENTS = "/Data/funddataIndex_Interface.aspx"
KLINE = "/api/qt/stock/kline/get"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def version_string(self) -> str:
        return "TestUpstream/1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        with self.server.lock:
            self.server.seen.append((self.path if self.path.startswith("http") else url.path, query))
            self.server.headers.append(dict(self.headers))
        answer = self.server.routes.get(url.path, (404, b"<html>404</html>"))
        if callable(answer):
            answer = answer(self, query)
        if answer is None:
            self.close_connection = True
            return
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 301:
            self.send_header("Location", FUND_LIST)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


class Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.routes: dict[str, object] = {STATUS: status_reply([], 0)}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]

    def handle_error(self, *_args: object) -> None:
        """Clients that hang up are part of these tests."""


def make_source(url: str, pauses: list[float] | None = None, **options: object) -> EastmoneySource:
    sleep = (pauses if pauses is not None else []).append
    return EastmoneySource(url, url, url, sleep=sleep, **({"requests_per_second": 1e6} | options))  # type: ignore[arg-type]


def answers(*replies: object) -> Callable[[Handler, dict[str, str]], object]:
    """One reply after the other; the last one for ever."""
    left = list(replies)
    return lambda _handler, _query: left.pop(0) if len(left) > 1 else left[0]


def rank_row(code: str, day: str = "2026-03-27", nav: str = "1.2340", accum: str = "3.5670") -> str:
    return f"{code},某基金,MJJ,{day},{nav},{accum},0.56,1,1,1,1,1,1,1,1,1,2001-12-18,1,9,1.5%,0.1%,1,0.1%,1,"


def rank_reply(rows: list[str], total: int) -> bytes:
    return f"var rankData = {{datas:{json.dumps(rows)},allRecords:{total},pageIndex:1}};".encode()


def money_reply(rows: list[tuple[str, str, str, str]]) -> bytes:
    data = [dict(zip(("FCODE", "FSRQ", "DWJZ", "LJJZ"), row, strict=True)) for row in rows]
    return json.dumps({"Data": data, "ErrCode": 0, "TotalCount": len(rows)}).encode()


def lsjz_reply(days: list[str], total: int, money: str | None = None) -> bytes:
    rows = [{"FSRQ": day, "DWJZ": "1.5", "LJJZ": "2.5", "JZZZL": "0.1", "FHSP": ""} for day in days]
    return json.dumps(
        {"Data": {"LSJZList": rows, "SYType": money}, "ErrCode": 0, "TotalCount": total}
    ).encode()


def page_of(code: str) -> bytes:
    # 1536076800000 is 2018-09-05 00:00 in Beijing; the next two are 09-06 and 09-07.
    days = (1536076800000, 1536163200000, 1536249600000)
    navs = [{"x": x, "y": 1.0 + i / 10, "equityReturn": 0, "unitMoney": ""} for i, x in enumerate(days)]
    accums = [[x, 2.0] for x in days]
    return (
        f'var fS_code = "{code}";var Data_netWorthTrend = {json.dumps(navs)};'
        f"var Data_ACWorthTrend = {json.dumps(accums)};"
    ).encode()


def status_reply(rows: list[tuple[str, str, str]], total: int) -> bytes:
    entries = [
        [
            code,
            "某基金",
            "混合型",
            "1.0",
            "03-27",
            purchase,
            redemption,
            "",
            "10.0",
            "1e11",
            "1.0",
            "1",
            "0.15%",
        ]
        for code, purchase, redemption in rows
    ]
    return f'var reData={{datas:{json.dumps(entries)},record:"{total}",pages:"1",curpage:"1"}}'.encode()


def ranks(upstream: Upstream, open_end: object = None, traded: object = None, money: object = None) -> None:
    empty = rank_reply([], 0)

    def rank(handler: Handler, query: dict[str, str]) -> object:
        answer = (traded if query["dt"] == "fb" else open_end) or empty
        return answer(handler, query) if callable(answer) else answer

    upstream.routes[RANK] = rank
    upstream.routes[MONEY] = money or money_reply([])
