"""Eastmoney (天天基金) as a source of NAVs: which request answers what, in as few requests as possible."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import date

from core.errors import SourceUnavailable, UnknownFund, UsageError
from core.sources.base import FundInfo, NavRow
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
from core.sources.text_values import is_fund_code

LSJZ_PAGE_ROWS = 20  # the site's cap: asking for more gives 20, for 365 and more gives nothing
RANK_PAGE_ROWS = 30_000
LISTING_PAGE_ROWS = 10_000
# The longest range that surely fits one lsjz page (20 weekdays); above it the full page is as cheap.
LSJZ_MAX_DAYS = 28


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
        self._concurrency = concurrency
        self._http = EastmoneyHttp(
            (fund_url, api_url),
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
        """The base addresses, and the Server header of the last reply where there was one."""
        addresses = f"{shown_address(self._fund_url)} {shown_address(self._api_url)}"
        server = "".join(c for c in self._http.server if c.isprintable())[:80]
        return f"eastmoney {addresses} ({server})" if server else f"eastmoney {addresses}"

    def fund_list(self) -> list[FundInfo]:
        """Every fund of the site's list; an unreadable entry among good ones is left out."""
        return self._http.get(f"{self._fund_url}/js/fundcode_search.js", {}, parse_fund_list)

    def latest(self) -> list[NavRow]:
        """The newest row of every ranked fund: open-end, exchange-traded and money-fund ranks.

        A fund in two ranks gets its newer row, on the same date that of the first rank. An empty rank is
        fine, all empty is `SourceUnavailable`. Funds that no rank lists (some that are closed or not on
        sale) are not in the result: `histories` has them. The status list (Fund_JJJZ_Data.aspx?t=8) does
        name them, but dates its NAVs "12-05", without a year, which for a dormant fund may be any year.
        """
        listings = (
            _all_pages("the open-end rank", RANK_PAGE_ROWS, lambda n, size: self._rank("kf", n, size)),
            _all_pages("the exchange-traded rank", RANK_PAGE_ROWS, lambda n, size: self._rank("fb", n, size)),
            _all_pages("the money-fund rank", LISTING_PAGE_ROWS, self._money_rank),
        )
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

        A fund the site does not know gives (code, []). The first other error is raised at once; what
        has not begun is dropped and running requests are not retried. At most `2 * concurrency` funds
        are ahead of the consumer.
        """
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="eastmoney")
        waiting = iter(fund_codes)
        running: dict[Future[list[NavRow]], str] = {}

        def submit_next() -> None:
            code = next(waiting, None)
            if code is not None:
                running[pool.submit(self._history, code, start, end, stop)] = code

        try:
            for _ in range(2 * self._concurrency):
                submit_next()
            while running:
                done, _pending = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    code = running.pop(future)
                    try:
                        rows = future.result()
                    except UnknownFund:
                        rows = []
                    submit_next()
                    yield code, rows
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

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
        return selected(rows, start, end)

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
        return self._http.get(
            f"{self._fund_url}/data/rankhandler.aspx",
            params,
            lambda body: parse_rank(body, exchange_traded=kind == "fb"),
        )

    def _money_rank(self, number: int, size: int) -> Page:
        params = {"intCompany": "0", "MinsgType": "", "IsSale": "1", "strSortCol": "SYL_1N"}
        params |= {"orderType": "desc", "pageIndex": str(number), "pageSize": str(size)}
        return self._http.get(f"{self._api_url}/FundRank/GetHbRankList", params, parse_money_rank)


def _all_pages(what: str, size: int, fetch: Callable[[int, int], Page]) -> list[NavRow]:
    """All rows of a listing, page by page until its announced total; anything else is unavailable.

    The site caps pages silently, so from the second page on the size asked for is what came first.
    """
    page = fetch(1, size)
    rows, received, total = list(page.rows), page.received, page.total
    codes = {(row.fund_code, row.nav_date) for row in rows if row.defect is None}
    size = page.received
    number = 1
    while received < total and page.received:
        number += 1
        page = fetch(number, size)
        received += page.received
        fresh = {(row.fund_code, row.nav_date) for row in page.rows if row.defect is None}
        if codes & fresh:
            raise SourceUnavailable(f"{what} moved while its pages were read: row on two pages; try again")
        codes |= fresh
        rows += page.rows
    if received != total:
        raise SourceUnavailable(f"{what} announced {total} rows and gave {received}; try again")
    return rows


def _newest(listings: tuple[list[NavRow], ...]) -> list[NavRow]:
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
