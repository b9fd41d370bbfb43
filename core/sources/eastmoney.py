"""Eastmoney (天天基金) as a source of NAVs: which request answers what, in as few requests as possible."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from datetime import date
from typing import Any, overload

from core.errors import SourceError, SourceUnavailable, UnknownFund, UsageError
from core.sources.base import EventNotice, FundInfo, IndexClose, NavRow
from core.sources.date_range import selected
from core.sources.eastmoney_formats import (
    Page,
    parse_fund_list,
    parse_history_page,
    parse_lsjz,
    parse_money_rank,
    parse_rank,
)
from core.sources.eastmoney_http import EastmoneyHttp, shown_address
from core.sources.eastmoney_lists import (
    EventKind,
    EventPage,
    FundStatus,
    StatusPage,
    parse_events,
    parse_index_closes,
    parse_statuses,
)
from core.sources.many_funds import ManyFunds
from core.sources.text_values import is_fund_code

log = logging.getLogger(__name__)
LSJZ_PAGE_ROWS = 20  # the site's cap: asking for more gives 20, for 365 and more gives nothing
RANK_PAGE_ROWS = 30_000
LISTING_PAGE_ROWS = 10_000
# The longest range that surely fits one lsjz page (20 weekdays); above it the full page is as cheap.
LSJZ_MAX_DAYS = 28
EVENT_LISTS: tuple[tuple[EventKind, str], ...] = (("dividend", "8"), ("split", "9"))
SHENZHEN, SHANGHAI, CSI = "0", "1", "2"  # markets of an index, as the site numbers them
INDEX_MARKETS = (("399", SHENZHEN), ("93", CSI), ("000", SHANGHAI))  # by the beginning of its code


class EastmoneySource:
    """A `Source` over Eastmoney's public web addresses; safe to use from several threads.

    Times are in seconds; `total_timeout` bounds one attempt of one request, and every request is tried
    up to `attempts` times while the error is retryable. `sleep` and `clock` are for tests.
    """

    name = "eastmoney"

    def __init__(
        self,
        fund_url: str = "https://fund.eastmoney.com",
        api_url: str = "https://api.fund.eastmoney.com",
        quote_url: str = "https://push2his.eastmoney.com",
        *,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
        total_timeout: float = 120.0,
        attempts: int = 4,
        requests_per_second: float = 5.0,
        concurrency: int = 4,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fund_url = fund_url.rstrip("/")
        self._api_url = api_url.rstrip("/")
        self._quote_url = quote_url.rstrip("/")
        self._concurrency = concurrency
        self._sleep, self._clock = sleep, clock
        self._inceptions: dict[str, date] = {}
        self._status_problem = ""
        self._http = EastmoneyHttp(
            (fund_url, api_url, quote_url),
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            total_timeout=total_timeout,
            attempts=attempts,
            requests_per_second=requests_per_second,
            connections=concurrency,
            sleep=sleep,
            clock=clock,
        )

    @property
    def provenance(self) -> str:
        """The base addresses, the Server header of the last reply where there was one, and what was missing."""
        server = "".join(c for c in self._http.server if c.isprintable())[:80]
        parts = [f"eastmoney {shown_address(self._fund_url)} {shown_address(self._api_url)}"]
        parts += [f"({server})"] if server else []
        parts += [f"without the status list: {self._status_problem}"] if self._status_problem else []
        return " ".join(parts)

    def fund_list(self) -> list[FundInfo]:
        """Every fund of the site's list with its trading status; an unreadable entry among good ones is left out.

        Inception dates come from the ranks that `latest` has read, without it there are none. NAVs matter more
        than the status: a status list that cannot be had is logged, named in `provenance`, and left out.
        """
        funds = self._http.get(f"{self._fund_url}/js/fundcode_search.js", {}, parse_fund_list)
        statuses = self._statuses()
        known = (statuses.get(fund.fund_code, FundStatus(fund.fund_code, None, None)) for fund in funds)
        return [
            fund._replace(
                inception=self._inceptions.get(fund.fund_code),
                purchase=status.purchase,
                redemption=status.redemption,
            )
            for fund, status in zip(funds, known, strict=True)
        ]

    def latest(self) -> list[NavRow]:
        """The newest row of every ranked fund: open-end, exchange-traded and money-fund ranks.

        A fund in two ranks gets its newer row, on the same date that of the first rank; one in the money-fund
        rank only what that says, since elsewhere its income would pass for a NAV. An empty rank is
        fine, all empty is `SourceUnavailable`. Funds that no rank lists (some that are closed or not on
        sale) are not in the result: `histories` has them. The status list (Fund_JJJZ_Data.aspx?t=8) does
        name them, but dates its NAVs "12-05", without a year, which for a dormant fund may be any year.
        """
        listings = [
            _all_pages("the open-end rank", RANK_PAGE_ROWS, lambda n, size: self._rank("kf", n, size)),
            _all_pages("the exchange-traded rank", RANK_PAGE_ROWS, lambda n, size: self._rank("fb", n, size)),
        ]
        money = _all_pages("the money-fund rank", LISTING_PAGE_ROWS, self._money_rank)
        money_funds = {row.fund_code for row in money}
        listings = [[row for row in rows if row.fund_code not in money_funds] for rows in listings]
        listings.append(money)
        if not any(listings):
            raise SourceUnavailable(
                f"{shown_address(self._fund_url)} lists no fund with any value; try again later"
            )
        return _newest(listings)

    def history(self, fund_code: str, start: date | None = None, end: date | None = None) -> list[NavRow]:
        """The rows of one fund from `start` to `end` (both included), oldest first.

        A closed range of up to four weeks takes one or two small requests, any other one large one.
        Raises `UnknownFund`, and `UsageError` when `start` is after `end`.
        """
        return self._history(fund_code, start, end, None)

    def histories(
        self, fund_codes: list[str], start: date | None = None, end: date | None = None
    ) -> Iterator[tuple[str, list[NavRow]]]:
        """`history` of many funds on `concurrency` threads, in the order they arrive.

        A fund the site does not know gives (code, []); one that could not be had, tried once more at the end,
        is left out. `ManyFunds` says when that becomes `SourceUnavailable`; any other error is raised at once.
        """
        return iter(
            ManyFunds(
                fund_codes,
                lambda code, stop: self._history(code, start, end, stop),
                concurrency=self._concurrency,
                sleep=self._sleep,
                clock=self._clock,
            )
        )

    def events(self, since: date, until: date) -> list[EventNotice]:
        """The lists of dividends and splits of the years `since` to `until`, from `since` on, each event once.

        The site repeats entries and pages them without a count of rows: every page but the last must be full.
        """
        found: dict[EventNotice, None] = {}  # in the order read
        for year in range(since.year, until.year + 1):
            for kind, listing in EVENT_LISTS:
                found |= dict.fromkeys(self._events_of_year(kind, listing, str(year)))
        return [notice for notice in found if notice.ex_date >= since]

    def index_closes(self, index_code: str, since: date | None, until: date) -> list[IndexClose]:
        """Closes of an index such as 000300, in one request."""
        market = next((market for head, market in INDEX_MARKETS if index_code.startswith(head)), None)
        if market is None or not is_fund_code(index_code):
            raise UnknownFund(
                f"{index_code[:20]!r} is no index known here: six digits that begin with 000, 399 or 93"
            )
        params = {"secid": f"{market}.{index_code}", "klt": "101", "fqt": "0"}
        params |= {"fields1": "f1,f2,f3,f4,f5,f6", "fields2": "f51,f53", "lmt": "1000000"}
        params |= {"beg": f"{since:%Y%m%d}" if since else "0", "end": f"{until:%Y%m%d}"}
        rows = self._http.get(
            f"{self._quote_url}/api/qt/stock/kline/get",
            params,
            lambda body: parse_index_closes(body, index_code),
        )
        return [row for row in rows if (since is None or row.trade_date >= since) and row.trade_date <= until]

    def close(self) -> None:
        """Closes the connections; requests still running in other threads fail at once."""
        self._http.close()

    def _history(
        self, fund_code: str, start: date | None, end: date | None, stop: threading.Event | None
    ) -> list[NavRow]:
        if not is_fund_code(fund_code):
            raise UnknownFund(f"{fund_code[:20]!r} is no fund code: six digits are expected")
        if start and end and start > end:
            raise UsageError(f"the range {start} to {end} is empty: the start must not be after the end")
        if start and end and (end - start).days < LSJZ_MAX_DAYS:
            rows = self._lsjz(fund_code, start, end, stop)
            if rows:
                return rows
            # No rows: the fund had none in this range, or there is no such fund. The full page tells.
        rows = self._http.get(
            f"{self._fund_url}/pingzhongdata/{fund_code}.js",
            {},
            lambda body: parse_history_page(body, fund_code),
            stop=stop,
            not_found=f"{shown_address(self._fund_url)} has no fund {fund_code}; check the code",
        )
        return selected(rows, start, end) if start or end else rows  # the page's are in order

    def _lsjz(self, fund_code: str, start: date, end: date, stop: threading.Event | None) -> list[NavRow]:
        def page(number: int, size: int) -> Page:
            params = {
                "fundCode": fund_code,
                "pageIndex": str(number),
                "pageSize": str(size),
                "startDate": start.isoformat(),
                "endDate": end.isoformat(),
            }
            return self._http.get(
                f"{self._api_url}/f10/lsjz", params, lambda body: parse_lsjz(body, fund_code), stop=stop
            )

        return selected(_all_pages(f"the rows of {fund_code}", LSJZ_PAGE_ROWS, page), start, end)

    def _rank(self, kind: str, number: int, size: int) -> Page:
        params = {"op": "ph", "dt": kind, "ft": "ct" if kind == "fb" else "all", "rs": "", "gs": "0"}
        params |= {"sc": "1nzf", "st": "desc", "sd": "", "ed": "", "qdii": "", "tabSubtype": ",,,,,"}
        params |= {"pi": str(number), "pn": str(size), "dx": "1", "v": ""}
        page = self._http.get(
            f"{self._fund_url}/data/rankhandler.aspx",
            params,
            lambda body: parse_rank(body, exchange_traded=kind == "fb"),
        )
        self._inceptions |= page.inceptions
        return page

    def _money_rank(self, number: int, size: int) -> Page:
        params = {"intCompany": "0", "MinsgType": "", "IsSale": "1", "strSortCol": "SYL_1N"}
        params |= {"orderType": "desc", "pageIndex": str(number), "pageSize": str(size)}
        return self._http.get(f"{self._api_url}/FundRank/GetHbRankList", params, parse_money_rank)

    def _statuses(self) -> Mapping[str, FundStatus]:
        """The status list by fund code; empty, with the reason kept for `provenance`, where it cannot be had."""

        def page(number: int, size: int) -> StatusPage:
            params = {"t": "8", "page": f"{number},{size}", "js": "reData", "sort": "fcode,asc"}
            return self._http.get(f"{self._fund_url}/Data/Fund_JJJZ_Data.aspx", params, parse_statuses)

        try:
            rows = _all_pages("the status list", LISTING_PAGE_ROWS, page, lambda row: row.fund_code)
        except SourceError as error:
            self._status_problem = f"{error.code}: {error}"
            log.warning("without the status of funds: %s", self._status_problem)
            return {}
        self._status_problem = ""
        return {row.fund_code: row for row in rows}

    def _events_of_year(self, kind: EventKind, listing: str, year: str) -> list[EventNotice]:
        """All pages of one list. Raises `SourceUnavailable` for a page that is not as full as it should be."""

        def page(number: int) -> EventPage:
            params = {
                "dt": listing,
                "page": str(number),
                "rank": "FSRQ",
                "sort": "desc",
                "gs": "",
                "ftype": "",
            }
            return self._http.get(
                f"{self._fund_url}/Data/funddataIndex_Interface.aspx",
                params | {"year": year},
                lambda body: parse_events(body, kind),
            )

        first = found = page(1)
        notices = list(first.notices)
        for number in range(1, max(1, first.pages) + 1):
            if number > 1:
                found = page(number)
                notices += found.notices
            last = number >= first.pages
            full = 0 < found.received <= first.size if last else found.received == first.size
            empty = first.pages <= 1 and not found.received
            if (found.pages, found.number) != (first.pages, number) or not (full or empty):
                raise SourceUnavailable(
                    f"page {number} of {first.pages} of the {kind} list of {year} says it is page {found.number} "
                    f"of {found.pages} and holds {found.received} of {first.size} rows; try again"
                )
        return notices


def _fund_and_date(row: NavRow) -> Hashable:
    """What a row of a rank may stand on one page with only; None for a row that could not be read."""
    return (row.fund_code, row.nav_date) if row.defect is None else None


@overload
def _all_pages(what: str, size: int, fetch: Callable[[int, int], Page]) -> list[NavRow]: ...
@overload
def _all_pages(
    what: str, size: int, fetch: Callable[[int, int], StatusPage], key: Callable[[FundStatus], Hashable]
) -> list[FundStatus]: ...
def _all_pages(
    what: str, size: int, fetch: Callable[[int, int], Any], key: Any = _fund_and_date
) -> list[Any]:
    """All rows of a listing, page by page until its announced total; anything else is unavailable.

    The site caps pages silently, so from the second page on the size asked for is what came first.
    """
    page = fetch(1, size)
    rows, received, total = list(page.rows), page.received, page.total
    keys = {key(row) for row in rows} - {None}
    size = page.received
    number = 1
    while received < total and page.received:
        number += 1
        page = fetch(number, size)
        received += page.received
        fresh = {key(row) for row in page.rows} - {None}
        if keys & fresh:
            raise SourceUnavailable(f"{what} moved while its pages were read: row on two pages; try again")
        keys |= fresh
        rows += page.rows
    if received != total:
        raise SourceUnavailable(f"{what} announced {total} rows and gave {received}; try again")
    return rows


def _newest(listings: list[list[NavRow]]) -> list[NavRow]:
    """One listing laid over the next: of a fund in several the newest date, then the first listing.

    Rows repeated within one listing stay, for the rules to judge; so do rows with a defect.
    """
    kept: dict[str, list[NavRow]] = {}
    defects: list[NavRow] = []
    for listing in listings:
        own: dict[str, list[NavRow]] = {}
        for row in listing:
            if row.defect is not None or row.nav_date is None:
                defects.append(row)
            else:
                own.setdefault(row.fund_code, []).append(row)
        for code, rows in own.items():
            if code not in kept or _newest_date(rows) > _newest_date(kept[code]):
                kept[code] = rows
    return [row for rows in kept.values() for row in rows] + defects


def _newest_date(rows: list[NavRow]) -> date:
    return max(row.nav_date or date.min for row in rows)
