"""A fund's size, fees, managers and largest holdings, from the page that also has its whole history.

`pingzhongdata/{code}.js` holds `var name = value;` for each. What is not there is another layout: `SourceChanged`.
A money fund's page has no allocation of this kind (reported, not recorded): then there is none.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime
from typing import Any

from core.errors import SourceChanged
from core.sources.eastmoney_http import EastmoneyHttp, shown_address
from core.sources.replies import UNREADABLE, decode, missing, unreadable
from core.sources.text_values import FieldError, parse_date, parse_number, shown
from core.trading_calendar import SHANGHAI

ADDRESS = "https://fund.eastmoney.com"
SHARES = {"stock_share": "股票占净比", "bond_share": "债券占净比", "cash_share": "现金占净比"}
_MADE = re.compile(r"/\*(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\*/")
_DECODER = json.JSONDecoder()
Record = dict[str, Any]


def fetch_fundamentals(http: EastmoneyHttp, base: str, fund_code: str) -> Record:
    """The columns of market_fundamental without dates of our own. Raises `UnknownFund`, `SourceError`."""
    address = base.rstrip("/")
    return http.get(
        f"{address}/pingzhongdata/{fund_code}.js",
        {},
        lambda body: parse_fundamentals(body, fund_code),
        not_found=f"{shown_address(address)} has no fund {fund_code}; check the code",
    )


def parse_fundamentals(body: bytes, fund_code: str) -> Record:
    """Raises `SourceChanged`, naming the variable, for another layout or another fund's page."""
    text = decode(body)
    echoed = _value(text, "fS_code")
    if echoed != fund_code:
        raise SourceChanged(f"asked for fund {fund_code}, the page's fS_code is {shown(echoed, 20)!r}")
    made = _MADE.search(text)
    found: Record = {
        "fund_code": fund_code,
        "page_time": datetime.fromisoformat(made[1]).replace(tzinfo=SHANGHAI) if made else None,
    }
    for column, name in (
        ("source_rate", "fund_sourceRate"),
        ("current_rate", "fund_Rate"),
        ("minimum_purchase", "fund_minsg"),
        ("managers", "Data_currentFundManager"),
        ("stocks", "stockCodesNew"),
        ("bonds", "zqCodesNew"),
    ):
        value = _value(text, name)
        try:
            found[column] = READERS.get(column, parse_number)(name, value)
        except UNREADABLE as error:
            raise SourceChanged(f"variable {name!r} is of another shape: {shown(error, 80)}") from None
    for name, read in (("Data_fluctuationScale", _size), ("Data_assetAllocation", _allocation)):
        if (
            name == "Data_assetAllocation"
            and re.search(r"var\s+ishb\s*=\s*true", text)
            and name + " " not in text
        ):
            found |= {"allocation_date": None, **dict.fromkeys(SHARES)}
            continue
        value = _value(text, name)
        try:
            found |= read(value)
        except UNREADABLE as error:
            raise SourceChanged(f"variable {name!r} is of another shape: {shown(error, 80)}") from None
    return found


def _value(text: str, name: str) -> Any:
    """The JSON behind `var name =`."""
    match = re.search(rf"\bvar\s+{name}\s*=\s*", text)
    if match is None:
        missing(text, name)
    try:
        return _DECODER.raw_decode(text, match.end())[0]
    except json.JSONDecodeError as error:
        unreadable(text, error, name)
    except (ValueError, RecursionError) as error:
        raise SourceChanged(f"variable {name!r} is not readable: {error}") from error


def _managers(_name: str, value: Any) -> str:
    """As published: {"id", "name", "term": "8年又191天", "funds": "574.41亿(24只基金)"} of each."""
    found = [
        {"id": each["id"], "name": each["name"], "term": each["workTime"], "funds": each["fundSize"]}
        for each in value
    ]
    return json.dumps(found, ensure_ascii=False)


def _codes(name: str, value: Any) -> str:
    """Market and code as the site writes them, "1.600519"; a list, or one text with commas."""
    codes = value.split(",") if isinstance(value, str) else value
    found = [code for code in codes if code]
    for code in found:
        if not re.fullmatch(r"\d{1,3}\.\w{1,12}", code):
            raise FieldError(name, f"{shown(code, 20)!r} is no market and code")
    return json.dumps(found)


READERS: dict[str, Any] = {"managers": _managers, "stocks": _codes, "bonds": _codes}


def _size(value: Any) -> Record:
    """{"categories": ["2025-12-31"], "series": [{"y": 284.95, "mom": "-11.82%"}]}: the newest quarter."""
    days, points = value["categories"], value["series"]
    if len(days) != len(points):
        raise FieldError("Data_fluctuationScale", f"{len(days)} quarters have {len(points)} values")
    if not days:  # a fund of this quarter
        return {"size_date": None, "net_assets": None, "net_assets_change": None}
    return {
        "size_date": _day(days[-1]),
        "net_assets": parse_number("y", points[-1]["y"]),
        "net_assets_change": parse_number("mom", points[-1]["mom"].rstrip("%")),
    }


def _allocation(value: Any) -> Record:
    """{"categories": ["2025-12-31"], "series": [{"name": "股票占净比", "data": [94.44]}, …]}: the newest quarter."""
    days = value["categories"]
    series = {each["name"]: each["data"] for each in value["series"]}
    found: Record = {"allocation_date": _day(days[-1]) if days else None}
    for column, name in SHARES.items():
        if len(series[name]) != len(days):
            raise FieldError(name, f"{len(days)} quarters have {len(series[name])} values")
        found[column] = parse_number(name, series[name][-1]) if days else None
    return found


def _day(text: str) -> date:
    day = parse_date("categories", text)
    if day is None:
        raise FieldError("categories", "is empty")
    return day
