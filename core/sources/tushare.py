"""Tushare (tushare.pro) as a second source of NAVs, with the user's own token.

It knows neither published returns nor splits nor money funds' yields: its rows leave those blank, and what it
says of money funds is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from core.errors import SourceChanged, SourceRefused, SourceUnavailable, UnknownFund, UsageError
from core.fund_category import fund_category
from core.sources.base import EventNotice, FundInfo, IndexClose, NavRow
from core.sources.date_range import selected
from core.sources.eastmoney_http import EastmoneyHttp, shown_address
from core.sources.replies import decode, json_object, read_rows, readable
from core.sources.text_values import FieldError, is_fund_code, parse_date, parse_number, shown

PAGE_ROWS = 6_000  # the documented cap; a shrunken one is met too, see _rows
ROUND = 100  # a page whose size is a multiple of this may have been cut
RECENT_SESSIONS = 10  # closed funds publish weekly, some types three sessions late
DONE = "实施"  # a dividend that is paid; earlier stages are plans
_TOO_OFTEN = ("最多访问", "频率", "频次", "超限")
_BAD_TOKEN = ("token", "TOKEN", "Token")
_INDEX_SUFFIXES = (("399", (".SZ",)), ("93", (".CSI",)), ("000", (".SH", ".CSI")))


class Table(NamedTuple):
    """Rows of a reply in the order of the fields asked for, and whether the server says there are more."""

    rows: list[list[Any]]
    has_more: bool


class TushareSource:
    """A `Source` over Tushare's web interface. The token goes into request bodies alone, never into messages.

    Raises `SourceRefused` for a wrong token or a missing permission, `SourceUnavailable` for a rate limit.
    """

    name = "tushare"

    def __init__(
        self,
        token: str,
        url: str = "http://api.waditu.com",
        *,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        total_timeout: float = 180.0,
        attempts: int = 6,
        requests_per_second: float = 3.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token = token
        self._url = url.rstrip("/")
        self._http = EastmoneyHttp(
            (url,),
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            total_timeout=total_timeout,
            attempts=attempts,
            requests_per_second=requests_per_second,
            connections=1,
            sleep=sleep,
            clock=clock,
        )

    @property
    def provenance(self) -> str:
        """The address, and the Server header of the last reply where there was one."""
        server = "".join(c for c in self._http.server if c.isprintable())[:80]
        return f"tushare {shown_address(self._url)}" + (f" ({server})" if server else "")

    def fund_list(self) -> list[FundInfo]:
        """Every fund, with its inception and, where it has ended, the word 终止 for its status."""
        return [fund for fund, _ in self._funds.values()]

    def latest(self) -> list[NavRow]:
        """The newest row of every fund within the last ten sessions, which the CSI 300 tells."""
        sessions = [row.trade_date for row in self.index_closes("000300", None, date.max)[-RECENT_SESSIONS:]]
        newest: dict[str, NavRow] = {}
        defects: list[NavRow] = []
        for day in reversed(sessions):
            for row in self._navs({"nav_date": f"{day:%Y%m%d}"}):
                if row.defect is not None:
                    defects.append(row)
                else:
                    newest.setdefault(row.fund_code, row)
        if not newest:
            raise SourceUnavailable(
                f"{shown_address(self._url)} has no NAV of the last sessions; try again later"
            )
        return list(newest.values()) + defects

    def history(self, fund_code: str, start: date | None = None, end: date | None = None) -> list[NavRow]:
        """The rows of one fund from `start` to `end`, oldest first, with its dividends; none of a money fund."""
        if start and end and start > end:
            raise UsageError(f"the range {start} to {end} is empty: the start must not be after the end")
        if fund_code not in self._funds:
            raise UnknownFund(f"{shown_address(self._url)} has no fund {fund_code[:20]!r}; check the code")
        rows: list[NavRow] = []
        paid: dict[date, float] = {}
        for ts_code in self._funds[fund_code][1]:
            params = {"ts_code": ts_code, "start_date": _plain(start), "end_date": _plain(end)}
            rows += self._navs(params)
            for notice in self._dividends({"ts_code": ts_code}):
                paid[notice.ex_date] = notice.value
            if rows:
                break
        known = [
            row._replace(dividend=paid.get(row.nav_date)) if row.nav_date in paid else row for row in rows
        ]
        return selected(known, start, end)

    def histories(
        self, fund_codes: list[str], start: date | None = None, end: date | None = None
    ) -> Iterator[tuple[str, list[NavRow]]]:
        """`history` of one fund after the other: the server counts requests a minute."""
        for code in fund_codes:
            try:
                yield code, self.history(code, start, end)
            except UnknownFund:
                yield code, []

    def events(self, since: date, until: date) -> list[EventNotice]:
        """Dividends by ex-date, one request for each weekday; splits it does not know."""
        days = (since + timedelta(days=n) for n in range((until - since).days + 1))
        found: dict[EventNotice, None] = {}
        for day in days:
            if day.weekday() < 5:
                found |= dict.fromkeys(self._dividends({"ex_date": f"{day:%Y%m%d}"}))
        return list(found)

    def index_closes(self, index_code: str, since: date | None, until: date) -> list[IndexClose]:
        """Closes of an index such as 000300, whichever of its suffixes has any."""
        suffixes = next((found for head, found in _INDEX_SUFFIXES if index_code.startswith(head)), None)
        if suffixes is None or not is_fund_code(index_code):
            raise UnknownFund(
                f"{index_code[:20]!r} is no index known here: six digits that begin with 000, 399 or 93"
            )
        dates = {"start_date": _plain(since), "end_date": _plain(None if until == date.max else until)}
        for suffix in suffixes:
            rows = self._rows(
                "index_daily", {"ts_code": index_code + suffix} | dates, ("trade_date", "close")
            )
            closes = readable(
                rows, lambda row: IndexClose(index_code, _day("trade_date", row[0]), _close(row[1]))
            )
            if closes:
                return sorted(closes, key=lambda row: row.trade_date)
        return []

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    @cached_property
    def _funds(self) -> dict[str, tuple[FundInfo, list[str]]]:
        """Description and Tushare's codes of every fund by its six digits, in the order of fund_basic."""
        fields = ("ts_code", "name", "fund_type", "invest_type", "found_date", "status")
        funds: dict[str, tuple[FundInfo, list[str]]] = {}

        def read(entry: Any) -> tuple[FundInfo, str]:
            ts_code, name, kind, detail, born, status = entry
            words = "-".join(part for part in (kind, detail) if part)
            fund_type = f"QDII-{words}" if "QDII" in (name or "") else words
            ended = "终止" if status == "D" else None
            inception = parse_date("found_date", born) if born else None
            return FundInfo(_six_digits(ts_code), name or "", fund_type, "", inception, ended, ended), ts_code

        for market in ("E", "O"):
            for fund, ts_code in readable(self._rows("fund_basic", {"market": market}, fields), read):
                funds.setdefault(fund.fund_code, (fund, []))[1].append(ts_code)
        if not funds:
            raise SourceUnavailable("the fund list is empty; try again later")
        return funds

    def _navs(self, params: dict[str, str]) -> list[NavRow]:
        """NAVs as they are asked for, of each fund and date the one announced last; money funds left out."""
        fields = ("ts_code", "nav_date", "unit_nav", "accum_nav", "ann_date")
        entries = self._rows("fund_nav", params, fields)
        entries.sort(key=lambda entry: str(entry[4] or ""), reverse=True)
        expected = _six_digits(params["ts_code"]) if "ts_code" in params else None

        def read(entry: Any) -> NavRow | None:
            code = _six_digits(entry[0])
            if expected is not None and code != expected:
                raise FieldError("ts_code", f"{code} was not asked for, {expected} was")
            fund = self._funds.get(code)
            unit, accum = parse_number("unit_nav", entry[2]), parse_number("accum_nav", entry[3])
            if (unit is None and accum is None) or (fund and fund_category(fund[0].fund_type) == "money"):
                return None
            return NavRow(code, _day("nav_date", entry[1]), unit, accum)

        rows: dict[object, NavRow] = {}
        for number, row in enumerate(read_rows(entries, read, lambda entry: _six_digits(entry[0]))):
            rows.setdefault((row.fund_code, row.nav_date) if row.defect is None else number, row)
        return list(rows.values())

    def _dividends(self, params: dict[str, str]) -> list[EventNotice]:
        fields = ("ts_code", "div_proc", "ex_date", "net_ex_date", "div_cash")

        def read(entry: Any) -> EventNotice | None:
            ts_code, stage, ex_date, net_ex_date, cash = entry
            value, day = parse_number("div_cash", cash), net_ex_date or ex_date
            if stage != DONE or not value or not day:
                return None
            return EventNotice(_six_digits(ts_code), _day("ex_date", day), "dividend", value)

        notices = readable(self._rows("fund_div", params, fields), read)
        return [notice for notice in notices if notice is not None]

    def _rows(self, api: str, params: dict[str, str], fields: tuple[str, ...]) -> list[list[Any]]:
        """All rows of a question, page by page: a full page, or one of a round number of rows, may have been cut.

        Raises `SourceUnavailable` where the server cuts replies and gives the same page again.
        """
        rows: list[list[Any]] = []
        while True:
            paged: dict[str, Any] = {name: value for name, value in params.items() if value}
            paged |= {"limit": PAGE_ROWS, "offset": len(rows)}
            page = self._ask(api, paged, fields)
            if rows and page.rows and page.rows[0] == rows[0]:
                raise SourceUnavailable(
                    f"{api} is truncated at {len(rows)} rows: the next page is the first again"
                )
            rows += page.rows
            if not page.rows or not (page.has_more or len(page.rows) % ROUND == 0):
                return rows

    def _ask(self, api: str, params: dict[str, Any], fields: tuple[str, ...]) -> Table:
        payload = {"api_name": api, "token": self._token, "params": params, "fields": ",".join(fields)}
        try:
            return self._http.post(
                f"{self._url}/dataapi/{api}", payload, lambda body: parse_table(body, fields)
            )
        except (SourceChanged, SourceRefused, SourceUnavailable) as error:
            raise type(error)(str(error).replace(self._token, "***")) from None


def parse_table(body: bytes, fields: tuple[str, ...]) -> Table:
    """`{code,msg,data:{fields,items,has_more}}`, its columns found by name and put in the order of `fields`.

    Raises `SourceRefused` for a token or permission that will not do, `SourceUnavailable` for a rate limit
    and for trouble at the server, `SourceChanged` for a missing field.
    """
    reply = json_object(decode(body))
    if reply.get("code") != 0:
        _refuse(reply.get("code"), str(reply.get("msg")))
    data = reply.get("data")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("fields", "items")):
        raise SourceChanged(f"field 'data' should have the lists fields and items, it is {shown(data, 60)!r}")
    missing = [name for name in fields if name not in data["fields"]]
    if missing:
        raise SourceChanged(
            f"field {missing[0]!r} is missing from the reply, which has {data['fields']}"[:300]
        )
    places = [data["fields"].index(name) for name in fields]
    try:
        rows = [[item[place] for place in places] for item in data["items"]]
    except (LookupError, TypeError):
        raise SourceChanged("field 'items' has rows shorter than 'fields'") from None
    return Table(rows, data.get("has_more") is True)


def _refuse(code: object, message: str) -> None:
    said = f"code {shown(code, 20)}: {message[:200]}"
    if any(words in message for words in _TOO_OFTEN):
        raise SourceUnavailable(f"Tushare's rate limit: {said}; lower NAVKEEPER_REQUESTS_PER_SECOND or wait")
    if any(words in message for words in _BAD_TOKEN):
        raise SourceRefused(f"Tushare does not take the token: {said}; check NAVKEEPER_TUSHARE_TOKEN")
    if "权限" in message or code in (2002, -2002, 40203):
        raise SourceRefused(f"the Tushare account has no permission for this: {said}")
    raise SourceUnavailable(f"Tushare answers {said}; try again later")


def _six_digits(ts_code: object) -> str:
    """000001.OF, 510300.SH → the six digits."""
    code, _, suffix = ts_code.partition(".") if isinstance(ts_code, str) else ("", "", "")
    if not is_fund_code(code) or suffix not in ("OF", "SH", "SZ"):
        raise FieldError("ts_code", f"{shown(ts_code, 20)!r} is not six digits and an exchange")
    return code


def _day(field: str, value: object) -> date:
    day = parse_date(field, value) if isinstance(value, str) else None
    if day is None:
        raise FieldError(field, f"{shown(value, 40)!r} is no date")
    return day


def _close(value: object) -> float:
    close = parse_number("close", value)
    if close is None or close <= 0:
        raise FieldError("close", f"{shown(value, 40)!r} is no close of an index")
    return close


def _plain(day: date | None) -> str:
    return f"{day:%Y%m%d}" if day is not None else ""
