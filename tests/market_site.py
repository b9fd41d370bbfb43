"""A local web site that replays what was recorded: macro tables, fund pages, index bars; and feeds of our own."""

from __future__ import annotations

import csv
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Rows = list[dict[str, Any]]
Reply = tuple[int, bytes]
CAP = 500  # rows of a page, whatever was asked for
CPI = {"NATIONAL_SAME": "全国-同比增长", "NATIONAL_SEQUENTIAL": "全国-环比增长", "NATIONAL_BASE": "全国-当月"}
MONEY = {"BASIC_CURRENCY_SAME": "货币和准货币(M2)-同比增长", "CURRENCY_SAME": "货币(M1)-同比增长"}
MONTHLY = {
    "RPT_ECONOMY_CPI": ("cpi", CPI),
    "RPT_ECONOMY_PPI": ("ppi", {"BASE_SAME": "当月同比增长"}),
    "RPT_ECONOMY_PMI": ("pmi", {"MAKE_INDEX": "制造业-指数", "NMAKE_INDEX": "非制造业-指数"}),
    "RPT_ECONOMY_CURRENCY_SUPPLY": ("m2", MONEY),
}
SHIBOR = {"001": "O/N-定价", "101": "1W-定价", "203": "3M-定价", "301": "1Y-定价"}
# The answer of the API's documentation, in its own layout, and a value that is missing.
FRED = {"1929-01-01": "1065.9", "1930-01-01": "975.5", "1931-01-01": ".", "1932-01-01": "791.7"}


def table(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def month(text: str) -> str:
    """2026年06月份 -> 2026-06-01 00:00:00."""
    found = re.fullmatch(r"(\d{4})年(\d{2})月份", text)
    assert found is not None, text
    return f"{found[1]}-{found[2]}-01 00:00:00"


def number(text: str) -> float | None:
    return float(text) if text else None


class MarketSite:
    """`until` hides what is later, `changes` puts other values in its place, `replies` break a path."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.until = date(9999, 1, 1)
        self.changes: dict[tuple[str, str, str], Any] = {}  # table, day, column
        self.replies: dict[str, Reply] = {}  # by path, or by table
        self.pages: dict[str, str] = {}  # feeds, by path
        self.key = "k" * 32
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.requests: Counter[str] = Counter()
        self.url = ""
        self._tables: dict[str, Rows] = {}

    def rows(self, name: str, query: Mapping[str, str]) -> Rows | None:
        folder = self.data / "macro"
        code = re.search(r'INDICATOR_ID="(\d+)"', query.get("filter", ""))
        key = name + (code[1] if code else "")
        if key not in self._tables:
            if name in MONTHLY:
                file, columns = MONTHLY[name]
                found = [
                    {
                        "REPORT_DATE": month(row["月份"]),
                        **{own: number(row[theirs]) for own, theirs in columns.items()},
                    }
                    for row in table(folder / f"{file}.csv")
                ]
            elif name == "RPTA_WEB_RATE":
                found = [
                    {"TRADE_DATE": f"{row['TRADE_DATE']} 00:00:00"}
                    | {column: number(row[column]) for column in ("LPR1Y", "LPR5Y", "RATE_1", "RATE_2")}
                    for row in table(folder / "lpr.csv")
                ]
            elif name == "RPT_IMP_INTRESTRATEN" and code:
                column = SHIBOR[code[1]]
                found = [
                    {"REPORT_DATE": f"{row['日期']} 00:00:00", "IR_RATE": number(row[column])}
                    for row in table(folder / "shibor.csv")
                ]
            else:
                return None
            self._tables[key] = found
        return self._tables[key]

    def datacenter(self, query: Mapping[str, str]) -> Reply:
        name, by = query["reportName"], query["sortColumns"]
        if name in self.replies:
            return self.replies[name]
        rows = self.rows(name, query)
        columns = query["columns"].split(",")
        if rows is None or not set(columns) <= set(rows[0]):
            return 200, text(
                {"version": None, "result": None, "success": False, "message": "报表配置不存在", "code": 9501}
            )
        rows = [
            {column: self.changes.get((name, row[by][:10], column), row[column]) for column in columns}
            for row in sorted(rows, key=lambda row: row[by], reverse=query["sortTypes"] == "-1")
            if row[by][:10] <= self.until.isoformat()
        ]
        size = min(int(query["pageSize"]), CAP)
        start = (int(query["pageNumber"]) - 1) * size
        result = {"pages": -(-len(rows) // size), "data": rows[start : start + size], "count": len(rows)}
        if not rows:
            return 200, text(
                {"version": None, "result": None, "success": False, "message": "返回数据为空", "code": 9201}
            )
        return 200, text({"version": "x", "result": result, "success": True, "message": "ok", "code": 0})

    def fred(self, query: Mapping[str, str]) -> Reply:
        if query.get("api_key") != self.key or query["series_id"] != "GNPCA":
            return 400, text(
                {"error_code": 400, "error_message": "Bad Request. Check series_id and api_key."}
            )
        since = query.get("observation_start", "")
        found = [{"date": day, "value": value} for day, value in FRED.items() if day >= since]
        return 200, text({"count": len(found), "offset": 0, "limit": 100000, "observations": found})

    def kline(self, query: Mapping[str, str]) -> Reply:
        code = query["secid"].partition(".")[2]
        path = self.data / "index" / f"{code}.csv"
        if not path.exists():
            return 200, text({"rc": 100, "data": None})
        fields = {"f51": "date", "f52": "open", "f53": "close", "f54": "high", "f55": "low"}
        wanted = [fields[name] for name in query["fields2"].split(",")]
        first, last = query["beg"], min(query["end"], f"{self.until:%Y%m%d}")
        lines = [
            ",".join(row[name] for name in wanted)
            for row in table(path)
            if first <= row["date"].replace("-", "") <= last and row["date"] > "2015-01-01"
        ]
        return 200, text({"rc": 0, "data": {"code": code, "klines": lines}})

    def answer(self, path: str, query: Mapping[str, str]) -> Reply:
        if path in self.replies:
            return self.replies[path]
        if path == "/api/data/v1/get":
            return self.datacenter(query)
        if path == "/fred/series/observations":
            return self.fred(query)
        if path == "/api/qt/stock/kline/get":
            return self.kline(query)
        if path.startswith("/pingzhongdata/"):
            page = self.data / path.removeprefix("/")
            return (200, page.read_bytes()) if page.exists() else (404, b"<html>404</html>")
        if path in self.pages:
            return 200, self.pages[path].encode()
        return 404, b"<html>404</html>"


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@contextmanager
def running(data: Path) -> Iterator[MarketSite]:
    site = MarketSite(data)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query, keep_blank_values=True))
            site.requests[url.path] += 1
            site.asked.append((url.path, query))
            status, body = site.answer(url.path, query)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
