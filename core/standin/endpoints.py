"""Which path gives which reply: parses the query, pages, and calls the formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from core.standin import formats
from core.standin.faults import Fault, cut_rows, damage_page, page_size
from core.standin.market import View, iso_dates

BOM = "\ufeff"
TEXT = "text/plain; charset=utf-8"
SCRIPT = "application/x-javascript; charset=utf-8"
JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
STATUS_CAP = 10_000  # rows of a JJJZ page; more are cut silently
LSJZ_CAP = 20  # rows of an lsjz page; more are cut silently
LSJZ_REFUSES = 365  # page sizes from here give Data:null
EVENTS_PER_PAGE = 100
SORT_FIELDS = {  # sc -> field of an open-end row; the traded rows have no daily return (one field less)
    "rzdf": 6,
    "zzf": 7,
    "1yzf": 8,
    "3yzf": 9,
    "6yzf": 10,
    "1nzf": 11,
    "2nzf": 12,
    "3nzf": 13,
    "jnzf": 14,
    "lnzf": 15,
}
NOT_FOUND = (
    "<!DOCTYPE html><html><head><title>页面未找到</title></head><body>您访问的页面不存在</body></html>"
)
NO_PERMISSION = 'ErrCode:-999,Data:"无访问权限"'

Query = Mapping[str, str]


class Reply(NamedTuple):
    """A status, the text of a body and its content type."""

    body: str
    content_type: str = TEXT
    status: int = 200


def _number(query: Query, name: str, default: int) -> int:
    text = query.get(name, "")
    return max(1, int(text)) if text.isdigit() else default


def _page(rows: list[str], page: int, size: int, fault: Fault | None) -> list[str]:
    size = page_size(size, fault)
    return damage_page(rows[(page - 1) * size : page * size], fault)


def _jsonp(query: Query, body: str) -> Reply:
    callback = query.get("callback", "")
    return Reply(f"{callback}({body})", SCRIPT) if callback else Reply(body, JSON)


def rank(view: View, query: Query, fault: Fault | None) -> Reply:
    """rankhandler.aspx: dt=kf open-end funds (ft: kind), dt=fb exchange-traded ones."""
    traded = query.get("dt") == "fb"
    if fault is not None and fault.kind == "money_in_rank":
        rows = formats.rank_rows(view, traded, money=True)
    else:
        rows = view.rendered("fb" if traded else "kf", lambda v: formats.rank_rows(v, traded))
    types = {fund.code: fund.fund_type for fund in view.market.funds}

    def of_kind(kind: str) -> list[str]:
        return [row for row in rows if types[row[1:7]].startswith(formats.KINDS[kind])]

    counts = {"all": len(rows)} | {kind: len(of_kind(kind)) for kind in formats.KINDS}
    if query.get("ft") in formats.KINDS:
        rows = of_kind(query["ft"])
    rows = _sorted_rank(rows, query, traded)
    rows = cut_rows(rows, fault)
    page, size = _number(query, "pi", 1), _number(query, "pn", 50)
    return Reply(formats.rank_page(_page(rows, page, size, fault), len(rows), page, size, counts))


def _sorted_rank(rows: list[str], query: Query, traded: bool) -> list[str]:
    """Rows in the order of `sc` and `st`; those without the value come last, ties stay in code order."""
    at = SORT_FIELDS.get(query.get("sc", ""))
    descending = query.get("st", "desc") != "asc"
    if at is None:
        return rows
    at -= traded

    def key(row: str) -> float:
        text = row.split(",", at + 1)[at]
        return (-float(text) if descending else float(text)) if text else math.inf

    return sorted(rows, key=key)


def status(view: View, query: Query, fault: Fault | None) -> Reply:
    """Fund_JJJZ_Data.aspx?t=8: every fund with its newest value and its trading status."""
    if query.get("t") != "8":
        return Reply(NOT_FOUND, HTML, 404)
    rows = cut_rows(view.rendered("status", formats.status_rows), fault)
    number, _, asked = query.get("page", "1,200").partition(",")
    page = int(number) if number.isdigit() else 1
    size = min(int(asked) if asked.isdigit() and int(asked) else 200, STATUS_CAP)
    variable = query.get("js") or "db"
    return Reply(formats.status_page(view, _page(rows, page, size, fault), len(rows), page, size, variable))


def money_rank(view: View, query: Query, fault: Fault | None) -> Reply:
    """FundRank/GetHbRankList: money funds."""
    rows = cut_rows(view.rendered("money", formats.money_rank_rows), fault)
    page, size = _number(query, "pageIndex", 1), _number(query, "pageSize", 50)
    return _jsonp(query, formats.money_rank_page(_page(rows, page, size, fault), len(rows), page, size))


def lsjz(view: View, query: Query, fault: Fault | None) -> Reply:
    """f10/lsjz: one fund's rows between two dates, newest first, 20 a page."""
    asked = _number(query, "pageSize", LSJZ_CAP)
    if asked >= LSJZ_REFUSES:
        return _jsonp(query, formats.LSJZ_TOO_MANY)
    page, size = _number(query, "pageIndex", 1), min(asked, LSJZ_CAP)
    fund = view.known(_shown_code(query.get("fundCode", ""), fault))
    if fund is None:
        return _jsonp(query, formats.lsjz_page([], 0, page, size, "", money=False))
    rows = view.rows(fund)
    days = np.array(iso_dates(view.market.dates[rows]))
    first, last = query.get("startDate", ""), query.get("endDate", "") or "9999"
    rows = rows[(days >= first) & (days <= last)][::-1]
    total = rows.size if fault is None else len(cut_rows([""] * rows.size, fault))
    size = page_size(size, fault)
    shown = rows[:total][(page - 1) * size : page * size]
    texts = damage_page(formats.lsjz_rows(view, fund, shown), fault)
    about = view.market.funds[fund]
    return _jsonp(query, formats.lsjz_page(texts, total, page, size, about.fund_type, about.money))


def fund_page(view: View, code: str, fault: Fault | None) -> Reply:
    """pingzhongdata/{code}.js: one fund's whole history; an HTML 404 for an unknown code."""
    fund = view.known(_shown_code(code, fault))
    if fund is None:
        return Reply(NOT_FOUND, HTML, 404)
    rows = view.rows(fund)
    money = view.market.funds[fund].money
    first = formats.pair_rows(view, rows, "unit_nav") if money else formats.trend_rows(view, rows)
    second = cut_rows(formats.pair_rows(view, rows, "accum_nav"), fault)
    first = damage_page(cut_rows(first, fault), fault)
    text = formats.fund_page(view, fund, first, second)
    if fault is not None and fault.options.get("echo"):
        text = text.replace(f'fS_code = "{view.market.funds[fund].code}"', f'fS_code = "{code}"')
    return Reply(BOM + text, SCRIPT)


def _shown_code(asked: str, fault: Fault | None) -> str:
    """The fund whose rows are shown to who asks for a code."""
    return str(fault.options.get("fund_code")) if fault is not None and fault.kind == "clone" else asked


def fund_list(view: View, _query: Query, fault: Fault | None) -> Reply:
    """js/fundcode_search.js: every fund."""
    rows = damage_page(cut_rows(view.rendered("list", formats.fund_list_rows), fault), fault)
    return Reply(f"{BOM}var r = [{','.join(rows)}];", SCRIPT)


def events(view: View, query: Query, fault: Fault | None) -> Reply:
    """funddataIndex_Interface.aspx: dt=8 dividends, dt=9 splits, of `year` or of all years."""
    year, kind = query.get("year", ""), query.get("dt")
    if kind == "8":
        rows, prefix = formats.dividend_rows(view, year), "jjfh"
    elif kind == "9":
        rows, prefix = formats.split_rows(view, year), "jjcf"
    else:
        return Reply(NOT_FOUND, HTML, 404)
    rows = cut_rows(rows, fault)
    page = _number(query, "page", 1)
    shown = _page(rows, page, EVENTS_PER_PAGE, fault)
    return Reply(formats.event_page(shown, len(rows), page, EVENTS_PER_PAGE, prefix))


def kline(view: View, query: Query, fault: Fault | None) -> Reply:
    """push2his kline/get: daily closes of an index (secid=1.000300) from `beg` to `end`."""
    market, _, code = query.get("secid", "").partition(".")
    rows = formats.kline(view, code, query.get("beg", "0"), query.get("end", "20500101"))
    if rows is None:
        return Reply(formats.NO_KLINE, JSON)
    return Reply(formats.kline_page(view, code, market, damage_page(cut_rows(rows, fault), fault)), JSON)


ENDPOINTS: dict[str, Callable[[View, Query, Fault | None], Reply]] = {  # paths in lower case
    "/data/rankhandler.aspx": rank,
    "/data/fund_jjjz_data.aspx": status,
    "/fundrank/gethbranklist": money_rank,
    "/f10/lsjz": lsjz,
    "/data/funddataindex_interface.aspx": events,
    "/js/fundcode_search.js": fund_list,
    "/api/qt/stock/kline/get": kline,
}
NEED_REFERER = ("/data/rankhandler.aspx", "/fundrank/gethbranklist", "/f10/lsjz")
PAGES = "/pingzhongdata/"


def answer(view: View, path: str, query: Query, fault: Fault | None) -> Reply:
    """The reply to a request, damaged as a row fault says."""
    if path.startswith(PAGES) and path.endswith(".js"):
        return fund_page(view, path.removeprefix(PAGES).removesuffix(".js"), fault)
    endpoint = ENDPOINTS.get(path.lower())
    return endpoint(view, query, fault) if endpoint else Reply(NOT_FOUND, HTML, 404)


def refusal(path: str, query: Query) -> Reply:
    """What upstream answers to a request it does not like: status 200 and ErrCode -999."""
    if path.lower() == "/data/rankhandler.aspx":
        return Reply(f"var rankData ={{{NO_PERMISSION}}}")
    if path.lower() in NEED_REFERER:
        return _jsonp(
            query,
            '{"Data":"","ErrCode":-999,"ErrMsg":"","TotalCount":0,"Expansion":null,"PageSize":0,"PageIndex":0}',
        )
    return Reply(f"var {query.get('js') or 'db'} ={{{NO_PERMISSION}}}")
