"""Eastmoney's lists beside the NAVs: trading status, dividends and splits, index closes. Bytes in, values out.

Errors as in eastmoney_formats.py. A single entry that cannot be read among good ones is left out and logged.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from core.errors import SourceChanged, UnknownFund
from core.sources.base import EventNotice, IndexClose
from core.sources.replies import (
    array_after,
    decode,
    json_object,
    missing,
    number_named,
    readable,
)
from core.sources.text_values import FieldError, is_fund_code, parse_date, parse_number, shown

EventKind = Literal["dividend", "split"]
_PAGE_INFO = re.compile(r"var\s+pageinfo\s*=\s*\[\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*\]")
_PLACES: dict[EventKind, tuple[int, int]] = {"dividend": (3, 4), "split": (2, 4)}  # of ex-date and value
_UNDISCLOSED = frozenset({"暂未披露", "暂无"})


class FundStatus(NamedTuple):
    """Whether one fund can be bought and given back, in the site's words; None where it says nothing."""

    fund_code: str
    purchase: str | None
    redemption: str | None


class StatusPage(NamedTuple):
    """One page of the status list: its entries, how many it held, and the announced total."""

    rows: list[FundStatus]
    received: int
    total: int


class EventPage(NamedTuple):
    """One page of the list of dividends or splits, and what it says of itself."""

    notices: list[EventNotice]
    received: int
    pages: int
    size: int
    number: int


def parse_statuses(body: bytes) -> StatusPage:
    """`Fund_JJJZ_Data.aspx?t=8`: `var reData={datas:[[code,name,type,NAV,date,purchase,redemption,…],…],record:"N",…}`.

    NAV and date are not read: the date has no year.
    """
    text = decode(body)
    entries, end = array_after(text, r"\"?\bdatas\"?\s*:\s*", "datas")

    def read(entry: Any) -> FundStatus:
        code, purchase, redemption = entry[0], entry[5], entry[6]
        if not is_fund_code(code):
            raise FieldError("code", f"{shown(code, 20)!r} is not six digits")
        for name, words in (("purchase status", purchase), ("redemption status", redemption)):
            if not isinstance(words, str) or any(c.isascii() and c.isdigit() for c in words):
                raise FieldError(name, f"{shown(words, 40)!r} is no status: a field was added or moved")
        return FundStatus(code, purchase.strip() or None, redemption.strip() or None)

    return StatusPage(readable(entries, read), len(entries), number_named(text, "record", end))


def parse_events(body: bytes, kind: EventKind) -> EventPage:
    """`funddataIndex_Interface.aspx`: `var pageinfo=[pages,size,page]; var jjfh_data=[[…],…];`, jjcf_data for splits.

    dt=8: code, name, record date, ex-date, yuan per share, pay date, type. dt=9: code, name, date, words, ratio.
    An event whose value is not disclosed yet is left out.
    """
    text = decode(body)
    info = _PAGE_INFO.search(text)
    if info is None:
        missing(text, "pageinfo")
    name = "jjfh_data" if kind == "dividend" else "jjcf_data"
    entries, _ = array_after(text, rf"var\s+{name}\s*=\s*", name)
    day_at, value_at = _PLACES[kind]

    def read(entry: Any) -> EventNotice | None:
        code = entry[0]
        if not is_fund_code(code):
            raise FieldError("code", f"{shown(code, 20)!r} is not six digits")
        text = entry[value_at]
        value = None if text in _UNDISCLOSED else parse_number(kind, text)
        day = parse_date("ex-date", entry[day_at])
        if value is None or day is None:
            return None
        if value <= 0:
            raise FieldError(kind, f"{value} is not above zero")
        return EventNotice(code, day, kind, value)

    notices = [notice for notice in readable(entries, read) if notice is not None]
    return EventPage(notices, len(entries), int(info[1]), int(info[2]), int(info[3]))


def parse_index_closes(body: bytes, index_code: str) -> list[IndexClose]:
    """`kline/get` with fields2=f51,f53: `{"data":{"code":"000300","klines":["2015-01-05,3641.54",…]}}`, oldest first.

    Raises `UnknownFund` where data is null: the site has no such index.
    """
    reply = json_object(decode(body))
    if "data" not in reply:
        raise SourceChanged("field 'data' is missing from the reply")
    data = reply["data"]
    if data is None:
        raise UnknownFund(f"the site has no index {index_code}; check the setting benchmarks")
    entries = data.get("klines") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise SourceChanged(f"field 'klines' should be a list, data is {shown(data, 60)!r}")
    if data.get("code") != index_code:
        raise SourceChanged(
            f"asked for index {index_code}, the reply's code is {shown(data.get('code'), 20)!r}"
        )

    def read(entry: Any) -> IndexClose:
        day_text, close_text = entry.split(",")
        day, close = parse_date("f51", day_text), parse_number("f53", close_text)
        if day is None or close is None or close <= 0:
            raise FieldError("klines", f"{shown(entry, 60)!r} is no date and close")
        return IndexClose(index_code, day, close)

    return sorted(readable(entries, read), key=lambda row: row.trade_date)
