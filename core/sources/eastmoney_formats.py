"""Eastmoney's reply formats: bytes in, rows out. Nothing here knows about HTTP.

Every parser raises `SourceUnavailable` for a reply that is none (empty, truncated, a refusal, an HTML
page) and `SourceChanged`, naming the field, for a complete reply of another format. A single row that
cannot be read among good ones becomes a `NavRow` with `defect` and `raw`; rows that hold no value and
no event at all yet (newly listed funds) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from core.errors import SourceChanged, SourceUnavailable
from core.sources.base import FundInfo, NavRow
from core.sources.date_range import selected
from core.sources.event_text import parse_event_text
from core.sources.plain_history import plain_history
from core.sources.replies import (
    array_after,
    decode,
    json_object,
    judge_defects,
    missing,
    number_named,
    read_rows,
    total_count,
)
from core.sources.text_values import FieldError, is_date, is_fund_code, parse_date, parse_number, shown

_RANK_FIELDS = 25  # of the open-end rank; the exchange-traded one has fewer, without the day's change
_INCEPTION = 16
_INCEPTION_WITHOUT_DAY = 15
# Beijing midnight in ms, plus 8 h, in days since 1970-01-01; 719,163 is that day's proleptic ordinal.
_EPOCH_ORDINAL = 719_163
_EARLIEST = date(1990, 1, 1).toordinal()


class Page(NamedTuple):
    """One page of a listing: its readable rows, how many entries it held, and the announced total."""

    rows: list[NavRow]
    received: int
    total: int
    inceptions: Mapping[str, date] = MappingProxyType({})  # by fund code, where the listing has them


def parse_fund_list(body: bytes) -> list[FundInfo]:
    """`fundcode_search.js`: `var r = [[code, initials, name, type, pinyin], …]`, with or without BOM."""
    entries, _ = array_after(decode(body), r"var\s+r\s*=\s*", "r")
    funds = []
    defects: list[FieldError] = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) < 4 or not all(isinstance(v, str) for v in entry[:4]):
            defects.append(FieldError("r", f"{shown(entry, 60)!r} is not [code, initials, name, type]"))
        elif not is_fund_code(entry[0]):
            defects.append(FieldError("code", f"{entry[0][:20]!r} is not six digits"))
        else:
            funds.append(FundInfo(entry[0], entry[2], entry[3], entry[1]))
    judge_defects(defects, len(entries))
    if not funds:
        raise SourceUnavailable("the fund list is empty; try again later")
    return funds


def parse_rank(body: bytes, *, exchange_traded: bool) -> Page:
    """`rankhandler.aspx`: `var rankData = {datas:["code,name,…", …],allRecords:N,…}`.

    The comma rows have no names, so what can be checked is: six-digit code, date fourth, numbers, and
    the inception date at its known place. Exchange-traded rows lack the day's change, all later fields
    stand one earlier; there `daily_return` is None.
    """
    text = decode(body)
    entries, end = array_after(text, r"\"?\bdatas\"?\s*:\s*", "datas")
    total = number_named(text, "allRecords", end)

    inceptions: dict[str, date] = {}

    def read(entry: Any) -> NavRow | None:
        return _rank_row(entry, exchange_traded, inceptions)

    return Page(read_rows(entries, read, _first_of_commas), len(entries), total, inceptions)


def parse_money_rank(body: bytes) -> Page:
    """`FundRank/GetHbRankList`: JSON; DWJZ is income per 10,000 shares, LJJZ the 7-day yield."""
    reply = json_object(decode(body))
    entries = reply.get("Data")
    if not isinstance(entries, list):
        raise SourceChanged(f"field 'Data' should be a list, it is {shown(entries, 40)!r}")

    def read(entry: Any) -> NavRow | None:
        income = parse_number("DWJZ", entry["DWJZ"])
        yield_7d = parse_number("LJJZ", entry["LJJZ"])
        if income is None and yield_7d is None:
            return None
        code = _code("FCODE", entry["FCODE"])
        day = _date("FSRQ", entry["FSRQ"])
        return NavRow(code, day, income_per_10k=income, yield_7d=yield_7d)

    rows = read_rows(entries, read, lambda entry: entry["FCODE"])
    return Page(rows, len(entries), total_count(reply))


def parse_lsjz(body: bytes, fund_code: str) -> Page:
    """`f10/lsjz`: one page of one fund's rows, newest first as sent; the reply does not name the fund.

    `SYType` not null marks a money fund, whose DWJZ and LJJZ are income per 10,000 and 7-day yield.
    """
    reply = json_object(decode(body))
    data = reply.get("Data")
    if not isinstance(data, dict) or not isinstance(data.get("LSJZList"), list):
        raise SourceChanged(f"field 'Data.LSJZList' should be a list, Data is {shown(data, 40)!r}")
    if "SYType" not in data:
        # Without it money-fund yields would be stored as NAVs.
        raise SourceChanged("field 'Data.SYType' is missing")
    is_money = data["SYType"] is not None
    entries = data["LSJZList"]

    def read(entry: Any) -> NavRow | None:
        first = parse_number("DWJZ", entry["DWJZ"])
        second = parse_number("LJJZ", entry["LJJZ"])
        events = entry["FHSP"]
        if first is None and second is None and not events:
            return None
        day = _date("FSRQ", entry["FSRQ"])
        if is_money:
            return NavRow(fund_code, day, income_per_10k=first, yield_7d=second)
        change = parse_number("JZZZL", entry["JZZZL"])
        dividend, ratio = parse_event_text(events) if events else (None, None)
        return NavRow(fund_code, day, first, second, change, dividend, ratio)

    rows = read_rows(entries, read, lambda _entry: fund_code, lambda entry: str(entry["FSRQ"]))
    return Page(rows, len(entries), total_count(reply))


def parse_history_page(body: bytes, fund_code: str) -> list[NavRow]:
    """`pingzhongdata/{code}.js`: the full history, oldest first. Raises `SourceChanged` for another fund's.

    The accumulated series has holes, so it is joined on its date. Dividends and splits come from
    `unitMoney`. Money funds have two yield series instead of NAVs.
    """
    text = decode(body)
    echoed = re.search(r"var\s+fS_code\s*=\s*[\"']([^\"']*)[\"']", text)
    if echoed is None:
        missing(text, "fS_code")
    if echoed[1] != fund_code:
        raise SourceChanged(f"asked for fund {fund_code}, the page's fS_code is {echoed[1][:20]!r}")
    has_nav = "Data_netWorthTrend" in text
    if "Data_millionCopiesIncome" in text and (not has_nav or re.search(r"var\s+ishb\s*=\s*true", text)):
        return _money_history(text, fund_code)
    return _nav_history(text, fund_code)


def _money_history(text: str, fund_code: str) -> list[NavRow]:
    incomes = _points(text, "Data_millionCopiesIncome")
    yields = _series(_points(text, "Data_sevenDaysYearIncome"), "Data_sevenDaysYearIncome")

    def read(entry: Any) -> NavRow | None:
        x, value = entry[0], entry[1]
        income = parse_number("Data_millionCopiesIncome", value)
        yield_7d = _value_at(yields, x)
        if income is None and yield_7d is None:
            return None
        return NavRow(fund_code, _day(x), income_per_10k=income, yield_7d=yield_7d)

    rows = read_rows(incomes, read, lambda _entry: fund_code, lambda entry: str(_day(entry[0])))
    return selected(rows, None, None)


def _nav_history(text: str, fund_code: str) -> list[NavRow]:
    entries = _points(text, "Data_netWorthTrend")
    points = _points(text, "Data_ACWorthTrend")
    plain = plain_history(fund_code, entries, points, _day)
    if plain is not None:
        return plain
    accumulated = _series(points, "Data_ACWorthTrend")

    def read(entry: Any) -> NavRow | None:
        x = entry["x"]
        unit = parse_number("y", entry["y"])
        accum = _value_at(accumulated, x)
        events = entry["unitMoney"]
        if unit is None and accum is None and not events:
            return None
        change = parse_number("equityReturn", entry["equityReturn"])
        dividend, ratio = parse_event_text(events) if events else (None, None)
        return NavRow(fund_code, _day(x), unit, accum, change, dividend, ratio)

    rows = read_rows(entries, read, lambda _entry: fund_code, lambda entry: str(_day(entry["x"])))
    return _without_placeholders(selected(rows, None, None))


def _without_placeholders(rows: list[NavRow]) -> list[NavRow]:
    """`equityReturn` is 0 also where no return was published (weekly NAVs before a fund opens).

    A 0 without a NAV or an earlier one, or beside a NAV that moved without dividend or split, becomes None; the
    official rows (lsjz) have an empty text there.
    """
    before: float | None = None
    for index, row in enumerate(rows):
        moved = row.unit_nav != before and row.dividend is None and row.split_ratio is None
        if row.daily_return == 0 and (moved or row.unit_nav is None):
            rows[index] = row._replace(daily_return=None)
        before = row.unit_nav
    return rows


def _rank_row(entry: Any, exchange_traded: bool, inceptions: dict[str, date]) -> NavRow | None:
    """The row, None without a value; the fund's inception date is noted in `inceptions` either way."""
    if not isinstance(entry, str):
        raise FieldError("datas", f"{shown(entry, 60)!r} is no text")
    fields = entry.split(",")
    known = _INCEPTION_WITHOUT_DAY + 1 if exchange_traded else _RANK_FIELDS
    if len(fields) < known:
        raise FieldError("datas", f"row has {len(fields)} fields, at least {known} are known")
    code = _code("code", fields[0])
    day = parse_date("date", fields[3])
    unit = parse_number("unit NAV", fields[4])
    accum = parse_number("accumulated NAV", fields[5])
    has_day = True
    if exchange_traded:
        has_day = not is_date(fields[_INCEPTION_WITHOUT_DAY])
    place = _INCEPTION if has_day else _INCEPTION_WITHOUT_DAY
    inception = fields[place] if len(fields) > place else ""
    if inception and not is_date(inception):
        raise FieldError("inception date", f"{inception[:40]!r} is no date: a field was added or moved")
    born = parse_date("inception date", inception)
    if born is not None:
        inceptions[code] = born
    if unit is None and accum is None:
        return None
    if day is None:
        raise FieldError("date", "is missing beside a NAV")
    # Without an inception date an exchange-traded row does not tell which layout it has.
    change = parse_number("day %", fields[6]) if has_day and (inception or not exchange_traded) else None
    return NavRow(code, day, unit, accum, change)


def _first_of_commas(entry: Any) -> str:
    return str(entry.split(",", 1)[0])


def _points(text: str, name: str) -> list[Any]:
    return array_after(text, rf"var\s+{name}\s*=\s*", name)[0]


def _series(points: list[Any], name: str) -> dict[int, float | FieldError | None]:
    """[[ms, value], …] by ms; an unreadable value is kept as its error, for the row that needs it."""
    series: dict[int, float | FieldError | None] = {}
    defects = []
    for point in points:
        if not isinstance(point, list) or len(point) < 2 or type(point[0]) is not int:
            defects.append(FieldError(name, f"{shown(point, 40)!r} is not [time, value]"))
            continue
        try:
            series[point[0]] = parse_number(name, point[1])
        except FieldError as exc:
            defects.append(exc)
            series[point[0]] = exc
    judge_defects(defects, len(points))
    return series


def _value_at(series: dict[int, float | FieldError | None], x: Any) -> float | None:
    value = series.get(x)
    if isinstance(value, FieldError):
        raise value
    return value


@lru_cache(maxsize=16_384, typed=True)  # the days of all funds are the same few thousand
def _day(x: object) -> date:
    if type(x) is not int:
        raise FieldError("x", f"{shown(x, 40)!r} is no time in ms")
    ordinal = _EPOCH_ORDINAL + (x + 28_800_000) // 86_400_000
    if not _EARLIEST <= ordinal <= date.max.toordinal():
        raise FieldError("x", f"{x} is no time in ms of a fund's life")
    return date.fromordinal(ordinal)


def _code(field: str, value: object) -> str:
    if not isinstance(value, str) or not is_fund_code(value):
        raise FieldError(field, f"{shown(value, 20)!r} is not six digits")
    return value


def _date(field: str, value: object) -> date:
    day = parse_date(field, value) if isinstance(value, str) else None
    if day is None:
        raise FieldError(field, f"{shown(value, 40)!r} is no date")
    return day
