"""Eastmoney's reply formats: bytes in, rows out. Nothing here knows about HTTP.

Every parser raises `SourceUnavailable` for a reply that is none (empty, truncated, a refusal, an HTML
page) and `SourceChanged`, naming the field, for a complete reply of another format. A single row that
cannot be read among good ones becomes a `NavRow` with `defect` and `raw`; rows that hold no value and
no event at all yet (newly listed funds) are left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple, NoReturn

from core.errors import SourceChanged, SourceUnavailable
from core.sources.base import FundInfo, NavRow
from core.sources.date_range import selected
from core.sources.event_text import parse_event_text
from core.sources.text_values import FieldError, is_fund_code, parse_date, parse_number, shown

# A share of unreadable rows above this is a changed format, not a few broken rows.
MAX_UNREADABLE = 0.01
# What reading an entry of another shape raises; FieldError is a ValueError.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)

_DECODER = json.JSONDecoder()
_REFUSED = re.compile(r"\"?ErrCode\"?\s*:\s*\"?(-?[1-9]\d*)")
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


def parse_fund_list(body: bytes) -> list[FundInfo]:
    """`fundcode_search.js`: `var r = [[code, initials, name, type, pinyin], …]`, with or without BOM."""
    entries, _ = _array_after(_decode(body), r"var\s+r\s*=\s*", "r")
    funds = []
    defects: list[FieldError] = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) < 4 or not all(isinstance(v, str) for v in entry[:4]):
            defects.append(FieldError("r", f"{shown(entry, 60)!r} is not [code, initials, name, type]"))
        elif not is_fund_code(entry[0]):
            defects.append(FieldError("code", f"{entry[0][:20]!r} is not six digits"))
        else:
            funds.append(FundInfo(entry[0], entry[2], entry[3], entry[1]))
    _judge(defects, len(entries))
    if not funds:
        raise SourceUnavailable("the fund list is empty; try again later")
    return funds


def parse_rank(body: bytes, *, exchange_traded: bool) -> Page:
    """`rankhandler.aspx`: `var rankData = {datas:["code,name,…", …],allRecords:N,…}`.

    The comma rows have no names, so what can be checked is: six-digit code, date fourth, numbers, and
    the inception date at its known place. Exchange-traded rows lack the day's change, all later fields
    stand one earlier; there `daily_return` is None.
    """
    text = _decode(body)
    entries, end = _array_after(text, r"\"?\bdatas\"?\s*:\s*", "datas")
    total = _number_named(text, "allRecords", end)

    def read(entry: Any) -> NavRow | None:
        return _rank_row(entry, exchange_traded)

    return Page(_read_rows(entries, read, _first_of_commas), len(entries), total)


def parse_money_rank(body: bytes) -> Page:
    """`FundRank/GetHbRankList`: JSON; DWJZ is income per 10,000 shares, LJJZ the 7-day yield."""
    reply = _json_object(_decode(body))
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

    rows = _read_rows(entries, read, lambda entry: entry["FCODE"])
    return Page(rows, len(entries), _total_count(reply))


def parse_lsjz(body: bytes, fund_code: str) -> Page:
    """`f10/lsjz`: one page of one fund's rows, newest first as sent; the reply does not name the fund.

    `SYType` not null marks a money fund, whose DWJZ and LJJZ are income per 10,000 and 7-day yield.
    """
    reply = _json_object(_decode(body))
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

    rows = _read_rows(entries, read, lambda _entry: fund_code, lambda entry: str(entry["FSRQ"]))
    return Page(rows, len(entries), _total_count(reply))


def parse_history_page(body: bytes, fund_code: str) -> list[NavRow]:
    """`pingzhongdata/{code}.js`: the full history, oldest first. Raises `SourceChanged` for another fund's.

    The accumulated series has holes, so it is joined on its date. Dividends and splits come from
    `unitMoney`. Money funds have two yield series instead of NAVs.
    """
    text = _decode(body)
    echoed = re.search(r"var\s+fS_code\s*=\s*[\"']([^\"']*)[\"']", text)
    if echoed is None:
        _missing(text, "fS_code")
    if echoed[1] != fund_code:
        raise SourceChanged(f"asked for fund {fund_code}, the page's fS_code is {echoed[1][:20]!r}")
    has_nav = "Data_netWorthTrend" in text
    if "Data_millionCopiesIncome" in text and (not has_nav or re.search(r"var\s+ishb\s*=\s*true", text)):
        return _money_history(text, fund_code)
    return _nav_history(text, fund_code)


def _money_history(text: str, fund_code: str) -> list[NavRow]:
    incomes = _points(text, "Data_millionCopiesIncome")
    yields = _series(text, "Data_sevenDaysYearIncome")

    def read(entry: Any) -> NavRow | None:
        x, value = entry[0], entry[1]
        income = parse_number("Data_millionCopiesIncome", value)
        yield_7d = _value_at(yields, x)
        if income is None and yield_7d is None:
            return None
        return NavRow(fund_code, _day(x), income_per_10k=income, yield_7d=yield_7d)

    rows = _read_rows(incomes, read, lambda _entry: fund_code, lambda entry: str(_day(entry[0])))
    return selected(rows, None, None)


def _nav_history(text: str, fund_code: str) -> list[NavRow]:
    entries = _points(text, "Data_netWorthTrend")
    accumulated = _series(text, "Data_ACWorthTrend")

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

    rows = _read_rows(entries, read, lambda _entry: fund_code, lambda entry: str(_day(entry["x"])))
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


def _rank_row(entry: Any, exchange_traded: bool) -> NavRow | None:
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
        has_day = not _is_date(fields[_INCEPTION_WITHOUT_DAY])
    place = _INCEPTION if has_day else _INCEPTION_WITHOUT_DAY
    inception = fields[place] if len(fields) > place else ""
    if inception and not _is_date(inception):
        raise FieldError("inception date", f"{inception[:40]!r} is no date: a field was added or moved")
    if unit is None and accum is None:
        return None
    if day is None:
        raise FieldError("date", "is missing beside a NAV")
    # Without an inception date an exchange-traded row does not tell which layout it has.
    change = parse_number("day %", fields[6]) if has_day and (inception or not exchange_traded) else None
    return NavRow(code, day, unit, accum, change)


def _first_of_commas(entry: Any) -> str:
    return str(entry.split(",", 1)[0])


def _read_rows(
    entries: list[Any],
    read: Callable[[Any], NavRow | None],
    code_of: Callable[[Any], Any],
    date_of: Callable[[Any], str] | None = None,
) -> list[NavRow]:
    """The rows of `entries`; an unreadable entry becomes a row with defect and raw, many raise."""
    rows: list[NavRow] = []
    defects: list[FieldError] = []
    for entry in entries:
        try:
            row = read(entry)
        except _UNREADABLE as exc:
            defect = _field_error(exc, entry)
            defects.append(defect)
            code = _attempt(code_of, entry)
            day_text = _attempt(date_of, entry) if date_of else None
            day = date.fromisoformat(day_text) if day_text and _is_date(day_text) else None
            code_text = code[:16] if isinstance(code, str) else ""
            rows.append(NavRow(code_text, day, defect=str(defect), raw=shown(entry, 500)))
        else:
            if row is not None:
                rows.append(row)
    _judge(defects, len(entries))
    return rows


def _field_error(exc: Exception, entry: Any) -> FieldError:
    if isinstance(exc, FieldError):
        return exc
    if isinstance(exc, KeyError):
        return FieldError(str(exc.args[0]), "is missing")
    return FieldError("row", f"{shown(entry, 60)!r} is of another shape")


def _attempt(part: Callable[[Any], Any], entry: Any) -> Any:
    try:
        return part(entry)
    except _UNREADABLE:
        return None


def _judge(defects: list[FieldError], total: int) -> None:
    """Raises `SourceChanged` when more than `MAX_UNREADABLE` of the rows (one row at least) are defects."""
    bad = len(defects)
    if bad and (bad == total or (bad > 1 and bad > MAX_UNREADABLE * total)):
        field, _ = Counter(defect.field for defect in defects).most_common(1)[0]
        example = next(defect for defect in defects if defect.field == field)
        raise SourceChanged(f"field {field!r}: {bad} of {total} rows cannot be read, such as: {example}")


def _decode(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Some pages are gb2312; a reply cut inside a character also lands here and fails as truncated.
        text = body.decode("gb18030", errors="replace")
    if not text.strip():
        raise SourceUnavailable("the reply is empty; try again later")
    if text.lstrip().startswith("<"):
        raise SourceUnavailable(
            "the reply is an HTML page, not data; the site may be blocking us or be under repair: try later"
        )
    return text


def _array_after(text: str, pattern: str, name: str) -> tuple[list[Any], int]:
    """The JSON array that follows the first match of `pattern`, and where it ends in `text`."""
    match = re.search(pattern, text)
    if match is None:
        _missing(text, name)
    try:
        value, end = _DECODER.raw_decode(text, match.end())
    except json.JSONDecodeError as exc:
        _unreadable(text, exc, name)
    except (ValueError, RecursionError) as exc:
        raise SourceChanged(f"field {name!r} is not readable: {exc}") from exc
    if not isinstance(value, list):
        raise SourceChanged(f"field {name!r} should be a list, it is {shown(value, 40)!r}")
    return value, end


def _number_named(text: str, name: str, start: int) -> int:
    """The whole number of `name:123` or `name:"123"` behind (else before) the data of a JS object."""
    pattern = re.compile(rf"\"?\b{name}\"?\s*:\s*\"?(\d+)")
    match = pattern.search(text, start) or pattern.search(text, 0, 1000)
    if match is None:
        _missing(text, name)
    if len(match[1]) > 9:
        raise SourceChanged(f"field {name!r} should be a count of rows, it is {match[1][:40]!r}")
    return int(match[1])


def _json_object(text: str) -> dict[str, Any]:
    try:
        reply = json.loads(text)
    except json.JSONDecodeError as exc:
        _unreadable(text, exc, "reply")
    except (ValueError, RecursionError) as exc:
        raise SourceChanged(f"the reply is not readable: {exc}") from exc
    if not isinstance(reply, dict):
        raise SourceChanged(f"the reply should be a JSON object, it is {shown(reply, 40)!r}")
    if reply.get("ErrCode") not in (0, "0", None):
        _refused(reply["ErrCode"], reply.get("ErrMsg"))
    return reply


def _total_count(reply: dict[str, Any]) -> int:
    total = reply.get("TotalCount")
    if not isinstance(total, int):
        raise SourceChanged(f"field 'TotalCount' should be a number, it is {shown(total, 40)!r}")
    return total


def _refused(code: object, message: object = None) -> NoReturn:
    said = f" ({message})" if message else ""
    raise SourceUnavailable(
        f"the site refused the request with ErrCode {code}{said}; wait, and lower the request rate"
    )


def _missing(text: str, name: str) -> NoReturn:
    refused = _REFUSED.search(text)
    if refused is not None:
        _refused(refused[1])
    if not text.rstrip().endswith((";", "}", "]", ")", "/")):
        raise SourceUnavailable(f"the reply is truncated before {name!r}; try again")
    raise SourceChanged(f"field {name!r} is missing from the reply")


def _unreadable(text: str, exc: json.JSONDecodeError, name: str) -> NoReturn:
    # A cut-off text fails at its very end (within "null"), or in a string that is never closed.
    if exc.pos >= len(text.rstrip()) - 5 or exc.msg.startswith("Unterminated"):
        raise SourceUnavailable(f"the reply is truncated inside {name!r}; try again") from exc
    near = text[max(0, exc.pos - 20) : exc.pos + 20]
    raise SourceChanged(f"field {name!r} is not readable: {exc.msg} near {near!r}") from exc


def _points(text: str, name: str) -> list[Any]:
    return _array_after(text, rf"var\s+{name}\s*=\s*", name)[0]


def _series(text: str, name: str) -> dict[int, float | FieldError | None]:
    """[[ms, value], …] by ms; an unreadable value is kept as its error, for the row that needs it."""
    series: dict[int, float | FieldError | None] = {}
    points = _points(text, name)
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
    _judge(defects, len(points))
    return series


def _value_at(series: dict[int, float | FieldError | None], x: Any) -> float | None:
    value = series.get(x)
    if isinstance(value, FieldError):
        raise value
    return value


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


def _is_date(text: str) -> bool:
    try:
        return parse_date("", text) is not None
    except FieldError:
        return False


def _date(field: str, value: object) -> date:
    day = parse_date(field, value) if isinstance(value, str) else None
    if day is None:
        raise FieldError(field, f"{shown(value, 40)!r} is no date")
    return day
