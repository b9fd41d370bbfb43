"""Status, events and index closes of the upstream: formats, paging, and what is not believed."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from datetime import date

import pytest

from core.errors import SourceChanged, SourceUnavailable, UnknownFund
from core.sources.base import EventNotice, IndexClose
from core.sources.eastmoney import EastmoneySource
from core.sources.eastmoney_lists import FundStatus, parse_events, parse_index_closes, parse_statuses
from tests.upstream import (
    EVENTS,
    FUND_LIST,
    KLINE,
    STATUS,
    Handler,
    Upstream,
    make_source,
    money_reply,
    rank_reply,
    rank_row,
    ranks,
    status_reply,
)

OPEN = ("开放申购", "开放赎回")
LIST = 'var r = [["000001","HX","华夏成长","混合型","HUA"],["000002","YI","乙","债券型","YI"]];'.encode()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def source(upstream: Upstream) -> Iterator[EastmoneySource]:
    with contextlib.closing(make_source(upstream.url)) as made:
        yield made


def events_page(name: str, rows: list[list[str]], pages: int = 1, size: int = 100, number: int = 1) -> bytes:
    return f"var pageinfo=[{pages},{size},{number}]; var {name}={json.dumps(rows)};var jjfh_jjgs=[];".encode()


def dividend(code: str, day: str, amount: str) -> list[str]:
    return [code, "某基金", day, day, amount, day, "1"]


# --- formats ------------------------------------------------------------------------------------------


def test_statuses() -> None:
    page = parse_statuses(status_reply([("000001", *OPEN), ("000002", "认购期", "")], 27704))
    assert page.rows == [FundStatus("000001", *OPEN), FundStatus("000002", "认购期", None)]
    assert (page.received, page.total) == (2, 27704)


def test_a_status_list_with_a_column_more_in_front_is_changed() -> None:
    body = status_reply([("000001", *OPEN)] * 3, 3).replace(b'"1.0", "03-27"', b'"1.0", "1", "03-27"')
    with pytest.raises(SourceChanged, match="purchase status"):
        parse_statuses(body)


def test_dividends_and_splits() -> None:
    rows = [dividend("000001", "2025-12-01", "0.0500"), dividend("000002", "2025-12-02", "暂未披露")]
    page = parse_events(events_page("jjfh_data", rows), "dividend")
    assert page.notices == [EventNotice("000001", date(2025, 12, 1), "dividend", 0.05)]
    assert (page.received, page.pages, page.size, page.number) == (2, 1, 100, 1)
    split = [["510300", "某ETF", "2025-12-03", "份额折算", "0.27889020", ""]]
    page = parse_events(events_page("jjcf_data", split), "split")
    assert page.notices == [EventNotice("510300", date(2025, 12, 3), "split", 0.2788902)]


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (events_page("jjfh_data", [["000001", "某基金", "2025-12-01", "0.05"]] * 3), SourceChanged, "3 of 3"),
        (events_page("jjfh_data", [dividend("000001", "0.05", "2025-12-01")] * 3), SourceChanged, "dividend"),
        (events_page("jjfh_data", [dividend("000001", "2025-12-01", "-1")] * 3), SourceChanged, "above zero"),
        (b"var jjfh_data=[];", SourceChanged, "pageinfo"),
        (b"var pageinfo=[1,100,1]; var jjfh_data=[[", SourceUnavailable, "truncated"),
        (b"<html></html>", SourceUnavailable, "HTML"),
        (b"{ErrCode:-999}", SourceUnavailable, "-999"),
    ],
)
def test_lists_of_events_that_are_none(body: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        parse_events(body, "dividend")


def closes_page(code: str = "000300", klines: object = ("2026-01-29,3641.54", "2026-01-30,3650.5")) -> bytes:
    return json.dumps({"rc": 0, "data": {"code": code, "name": "沪深300", "klines": klines}}).encode()


def test_index_closes() -> None:
    assert parse_index_closes(closes_page(), "000300") == [
        IndexClose("000300", date(2026, 1, 29), 3641.54),
        IndexClose("000300", date(2026, 1, 30), 3650.5),
    ]


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (closes_page("000985"), SourceChanged, "000985"),
        (closes_page(klines=["2026-01-30,1,2"] * 3), SourceChanged, "3 of 3"),
        (closes_page(klines=["2026-01-30,0"]), SourceChanged, "date and close"),
        (closes_page(klines=None), SourceChanged, "klines"),
        (b'{"rc":100,"data":null}', UnknownFund, "no index 000300"),
        (b'{"rc":100}', SourceChanged, "data"),
    ],
)
def test_index_closes_that_are_none(body: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        parse_index_closes(body, "000300")


# --- requests -----------------------------------------------------------------------------------------


def test_the_fund_list_has_inceptions_and_statuses(upstream: Upstream, source: EastmoneySource) -> None:
    ranks(upstream, rank_reply([rank_row("000001")], 1))
    upstream.routes[FUND_LIST] = LIST
    upstream.routes[STATUS] = status_reply([("000001", *OPEN), ("000003", *OPEN)], 2)
    source.latest()
    known, unknown = source.fund_list()
    assert (known.inception, known.purchase, known.redemption) == (date(2001, 12, 18), *OPEN)
    assert unknown[4:] == (None, None, None)
    assert upstream.paths().count(STATUS) == 1
    assert dict(upstream.seen[-1][1]) == {"t": "8", "page": "1,10000", "js": "reData", "sort": "fcode,asc"}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (status_reply([("000001", "1.0", "2.0")] * 3, 3), "source_changed: http://.*purchase status"),
        (status_reply([("000001", *OPEN)], 2), "source_unavailable: the status list moved"),
        ((404, b""), "source_changed: .*404"),
    ],
)
def test_the_night_goes_on_without_the_status_list(
    upstream: Upstream, source: EastmoneySource, reply: object, said: str
) -> None:
    upstream.routes[FUND_LIST], upstream.routes[STATUS] = LIST, reply
    assert [fund.purchase for fund in source.fund_list()] == [None, None]
    assert "without the status list: source_" in source.provenance
    assert re.search(said, source.provenance)
    upstream.routes[STATUS] = status_reply([], 0)
    source.fund_list()
    assert "without" not in source.provenance


def test_events_of_several_years_and_pages_come_once(upstream: Upstream, source: EastmoneySource) -> None:
    first = [dividend(f"00000{n}", "2025-12-30", "0.05") for n in (1, 2)]
    second = [dividend("000002", "2025-12-30", "0.05"), dividend("000003", "2025-06-01", "0.05")]
    later = [dividend("000009", "2026-02-01", "0.1")]

    def listed(_handler: Handler, query: dict[str, str]) -> bytes:
        if query["dt"] == "9":
            return events_page("jjcf_data", [])
        if query["year"] == "2026":
            return events_page("jjfh_data", later)
        return events_page("jjfh_data", first if query["page"] == "1" else second, 2, 2, int(query["page"]))

    upstream.routes[EVENTS] = listed
    found = source.events(date(2025, 12, 1), date(2026, 1, 30))
    assert [(row.fund_code, row.ex_date) for row in found] == [
        ("000001", date(2025, 12, 30)),
        ("000002", date(2025, 12, 30)),
        ("000009", date(2026, 2, 1)),  # announced
    ]
    asked = [(query["dt"], query["year"], query["page"]) for _path, query in upstream.seen]
    assert asked == [
        ("8", "2025", "1"),
        ("8", "2025", "2"),
        ("9", "2025", "1"),
        ("8", "2026", "1"),
        ("9", "2026", "1"),
    ]


@pytest.mark.parametrize(
    ("rows", "pages", "number"),
    [(1, 2, 1), (2, 2, 2), (2, 3, 1), (0, 2, 1)],
    ids=["short", "other", "moved", "none"],
)
def test_a_page_of_events_that_is_not_as_announced(
    upstream: Upstream, rows: int, pages: int, number: int
) -> None:
    full = [dividend(f"00000{n}", "2025-12-30", "0.05") for n in (1, 2)]

    def listed(_handler: Handler, query: dict[str, str]) -> bytes:
        if query["page"] == "1":
            return events_page("jjfh_data", full[:rows], pages, 2, number)
        return events_page("jjfh_data", full[:1], 2, 2, int(query["page"]))

    upstream.routes[EVENTS] = listed
    with (
        contextlib.closing(make_source(upstream.url)) as source,
        pytest.raises(SourceUnavailable, match="page"),
    ):
        source.events(date(2025, 12, 1), date(2025, 12, 31))


def test_index_closes_are_one_request(upstream: Upstream, source: EastmoneySource) -> None:
    upstream.routes[KLINE] = closes_page()
    since, until = date(2026, 1, 30), date(2026, 1, 31)
    assert [row.close for row in source.index_closes("000300", since, until)] == [3650.5]
    [(_path, query)] = upstream.seen
    assert (query["secid"], query["fields2"], query["beg"], query["end"]) == (
        "1.000300",
        "f51,f53",
        "20260130",
        "20260131",
    )
    upstream.routes[KLINE] = closes_page("399001")
    source.index_closes("399001", None, until)
    assert (upstream.seen[-1][1]["secid"], upstream.seen[-1][1]["beg"]) == ("0.399001", "0")
    for code in ("300", "600519", "abcdef"):
        with pytest.raises(UnknownFund, match="no index known"):
            source.index_closes(code, None, until)


def test_a_money_fund_in_the_wrong_rank_is_routed_by_the_money_rank(
    upstream: Upstream, source: EastmoneySource
) -> None:
    ranks(
        upstream,
        rank_reply([rank_row("000009", "2026-03-30", "0.3", "1.1"), rank_row("000001")], 2),
        money=money_reply([("000009", "2026-03-29", "0.3", "1.1")]),
    )
    rows = {row.fund_code: row for row in source.latest()}
    assert sorted(rows) == ["000001", "000009"]
    assert (rows["000009"].unit_nav, rows["000009"].income_per_10k) == (None, 0.3)
