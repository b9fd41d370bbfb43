"""The Tushare side of the stand-in: `POST /dataapi/{api_name}`, a token, and replies cut at 6,000 rows.

LOFs and exchange-traded funds have the suffix of their exchange, all others .OF, as upstream. A money fund's
NAV rows carry its income and yield: who asks must know which funds are money funds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from core.standin.endpoints import HTML, JSON, NOT_FOUND, Reply
from core.standin.faults import Fault, cut_rows, page_size
from core.standin.market import Rows, View, iso_dates

PATH = "/dataapi/"
TOKEN = "standin"  # noqa: S105 - no secret: every client of the stand-in may know it
CAP = 6_000
BAD_TOKEN = (40101, "您的token不对，请确认。")
TOO_OFTEN = (
    40203,
    "抱歉，您每分钟最多访问该接口80次，权限的具体详情访问：https://tushare.pro/document/1?doc_id=108。",
)

Params = Mapping[str, Any]
Table = tuple[tuple[str, ...], list[list[object]]]


def answer(view: View, path: str, body: bytes, fault: Fault | None) -> Reply:
    """The reply to a request, with the faults that concern it."""
    api = APIS.get(path.removeprefix(PATH)) if path.startswith(PATH) else None
    if api is None:
        return Reply(NOT_FOUND, HTML, 404)
    try:
        asked = json.loads(body)
        token, params, wanted = asked["token"], asked["params"], asked["fields"]
    except (ValueError, KeyError, TypeError):
        return _refusal(40001, "参数错误")
    if token != TOKEN:
        return _refusal(*BAD_TOKEN)
    if fault is not None and fault.kind in ("code", "refused"):
        code, message = fault.options.get("code", TOO_OFTEN[0]), fault.options.get("msg", TOO_OFTEN[1])
        return _refusal(code, message)
    columns, rows = api(view, params)
    shown = _cut(rows, params, fault)
    if fault is not None and fault.kind == "missing_column":
        wanted = ",".join(name for name in wanted.split(",") if name != fault.options.get("field"))
    fields = [name for name in wanted.split(",") if name in columns]
    places = [columns.index(name) for name in fields]
    data = {"fields": fields, "items": [[row[place] for place in places] for row in shown], "has_more": False}
    return Reply(json.dumps({"code": 0, "msg": "", "data": data}, ensure_ascii=False), JSON)


def _refusal(code: object, message: object) -> Reply:
    return Reply(json.dumps({"code": code, "msg": message, "data": None}, ensure_ascii=False), JSON)


def _cut(rows: list[list[object]], params: Params, fault: Fault | None) -> list[list[object]]:
    first = int(params.get("offset") or 0)
    size = page_size(min(int(params.get("limit") or CAP), CAP), fault)
    return cut_rows(rows, fault)[first : first + size]


def ts_code(code: str, *, traded: bool) -> str:
    """000001 → 000001.OF, 510300 → 510300.SH, 159915 → 159915.SZ."""
    if not traded:
        return f"{code}.OF"
    return f"{code}.SZ" if code.startswith(("1", "2", "3")) else f"{code}.SH"


def _ts_codes(view: View) -> list[str]:
    return [ts_code(fund.code, traded=fund.exchange) for fund in view.market.funds]


def _plain(days: Any) -> list[str]:
    return [day.replace("-", "") for day in iso_dates(days)]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def fund_basic(view: View, params: Params) -> Table:
    """Every fund, also of one `market`: E exchange-traded, O open-end."""
    columns = ("ts_code", "name", "fund_type", "invest_type", "found_date", "status", "market", "delist_date")
    market, codes = view.market, _ts_codes(view)
    rows: list[list[object]] = []
    born = _plain(market.dates[market.offsets[:-1]])
    for i in market.by_code:
        fund = market.funds[i]
        kind, _, detail = ("货币市场型-" if fund.money else fund.fund_type).partition("-")
        side = "E" if fund.exchange else "O"
        gone = fund.code in view.altered.delisted
        if view.latest[i] >= 0 and params.get("market") in (side, None, ""):
            rows.append([codes[i], fund.name, kind, detail, born[i], "D" if gone else "L", side, None])
    return columns, rows


def fund_nav(view: View, params: Params) -> Table:
    """NAVs of one `nav_date` (of one `market`), or of one `ts_code` between two dates, newest first."""
    columns = (
        "ts_code",
        "ann_date",
        "nav_date",
        "unit_nav",
        "accum_nav",
        "accum_div",
        "adj_nav",
        "update_flag",
    )
    market = view.market
    codes = _ts_codes(view)
    if params.get("ts_code"):
        asked = str(params["ts_code"])
        fund = view.known(asked[:6])
        rows = view.rows(fund) if fund is not None and codes[fund] == asked else np.array([], dtype=np.int64)
        days = np.array(_plain(market.dates[rows]))
        first, last = params.get("start_date") or "", params.get("end_date") or "9"
        rows = rows[(days >= first) & (days <= last)][::-1] if rows.size else rows
    else:
        rows = _rows_of_day(view, str(params.get("nav_date", "")), params.get("market"))
    owners = np.searchsorted(market.offsets, rows, side="right") - 1
    table = zip(
        owners.tolist(),
        _plain(market.dates[rows]),
        view.values("unit_nav", rows),
        view.values("accum_nav", rows),
        strict=True,
    )
    found: list[list[object]] = [
        [codes[owner], day, day, _number(unit), _number(accum), None, None, "0"]
        for owner, day, unit, accum in table
    ]
    return columns, found


def _rows_of_day(view: View, day: str, side: object) -> Rows:
    """Visible rows of one date, by fund code."""
    market = view.market
    try:
        wanted = np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}", "D").astype(np.int32)
    except ValueError:
        return np.array([], dtype=np.int64)
    rows = np.flatnonzero(market.dates == wanted)
    owners = np.searchsorted(market.offsets, rows, side="right") - 1
    traded = np.array([fund.exchange for fund in market.funds])[owners]
    shown = view.visible(owners, rows)
    if side in ("E", "O"):
        shown &= traded if side == "E" else ~traded
    order = np.argsort([market.funds[owner].code for owner in owners[shown].tolist()], kind="stable")
    found: Rows = rows[shown][order]
    return found


def fund_div(view: View, params: Params) -> Table:
    """Dividends with this `ex_date`, or of this `ts_code`."""
    columns = ("ts_code", "ann_date", "div_proc", "record_date", "ex_date", "net_ex_date", "div_cash")
    market, codes = view.market, _ts_codes(view)
    rows = market.event_rows
    owners = np.searchsorted(market.offsets, rows, side="right") - 1
    shown = view.visible(owners, rows)
    found: list[list[object]] = []
    for owner, row, day in zip(owners.tolist(), rows.tolist(), _plain(market.dates[rows]), strict=True):
        cash = market.events[row].dividend
        wanted = params.get("ex_date") in (None, day) and params.get("ts_code") in (None, codes[owner])
        if shown[np.searchsorted(rows, row)] and cash is not None and wanted:
            found.append([codes[owner], day, "实施", day, day, day, cash])
    return columns, found


def index_daily(view: View, params: Params) -> Table:
    """Closes of an index (000300.SH) between two dates, newest first."""
    columns = ("ts_code", "trade_date", "close")
    asked = str(params.get("ts_code", ""))
    known = (
        view.index_closes(asked[:6])
        if asked[6:] == (".CSI" if asked.startswith("000985") else ".SH")
        else None
    )
    if known is None:
        return columns, []
    first, last = params.get("start_date") or "", params.get("end_date") or "9"
    table: Sequence[tuple[str, float]] = list(zip(_plain(known[0]), known[1].tolist(), strict=True))
    return columns, [[asked, day, close] for day, close in reversed(table) if first <= day <= last]


APIS: dict[str, Callable[[View, Params], Table]] = {
    "fund_basic": fund_basic,
    "fund_nav": fund_nav,
    "fund_div": fund_div,
    "index_daily": index_daily,
}
