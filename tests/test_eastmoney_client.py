"""The Eastmoney client against a small HTTP server on a real socket."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import date

import pytest

from core.errors import ConfigurationError, SourceChanged, SourceUnavailable, UnknownFund, UsageError
from core.sources.base import NavRow
from core.sources.eastmoney import EastmoneySource
from core.sources.eastmoney_http import RateLimiter
from tests.upstream import (
    FUND_LIST,
    LSJZ,
    MONEY,
    RANK,
    Handler,
    Upstream,
    answers,
    lsjz_reply,
    make_source,
    money_reply,
    page_of,
    rank_reply,
    rank_row,
    ranks,
)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def source(upstream: Upstream, pauses: list[float]) -> Iterator[EastmoneySource]:
    with contextlib.closing(make_source(upstream.url, pauses)) as made:
        yield made


# --- requests -----------------------------------------------------------------------------------------


def test_fund_list_sends_what_the_site_wants_and_records_who_answered(
    upstream: Upstream, source: EastmoneySource
) -> None:
    upstream.routes[FUND_LIST] = '\ufeffvar r = [["000001","HX","华夏成长","混合型","HUA"]];'.encode()
    assert source.provenance == f"eastmoney {upstream.url} {upstream.url}"
    assert [fund.fund_name for fund in source.fund_list()] == ["华夏成长"]
    assert upstream.headers[0]["Referer"] == "https://fund.eastmoney.com/"
    assert "Mozilla/5.0" in upstream.headers[0]["User-Agent"]
    assert source.provenance == f"eastmoney {upstream.url} {upstream.url} (TestUpstream/1)"


def test_latest_lays_the_ranks_over_each_other(upstream: Upstream, source: EastmoneySource) -> None:
    ranks(
        upstream,
        rank_reply([rank_row("000001"), rank_row("161725"), rank_row("000003", "2026-03-26")], 3),
        rank_reply([rank_row("161725"), rank_row("510300"), rank_row("000003", nav="1.3")], 3),
        money_reply([("000009", "2026-03-29", "0.3", "1.1")]),
    )
    rows = {row.fund_code: row for row in source.latest()}
    assert rows == {
        "000001": NavRow("000001", date(2026, 3, 27), 1.234, 3.567, 0.56),
        "161725": NavRow("161725", date(2026, 3, 27), 1.234, 3.567, 0.56),
        "000003": NavRow("000003", date(2026, 3, 27), 1.3, 3.567, 0.56),  # the newer one
        "510300": NavRow("510300", date(2026, 3, 27), 1.234, 3.567, 0.56),
        "000009": NavRow("000009", date(2026, 3, 29), income_per_10k=0.3, yield_7d=1.1),
    }
    assert upstream.paths() == [RANK, RANK, MONEY]
    assert [query["dt"] for path, query in upstream.seen if path == RANK] == ["kf", "fb"]


def test_silently_capped_pages_are_read_to_the_total(upstream: Upstream, source: EastmoneySource) -> None:
    codes = [f"{n:06d}" for n in range(1, 6)]

    def capped(_handler: Handler, query: dict[str, str]) -> bytes:
        size = min(2, int(query["pn"]))
        first = (int(query["pi"]) - 1) * size
        return rank_reply([rank_row(code) for code in codes[first : first + size]], 5)

    ranks(upstream, capped)
    assert [row.fund_code for row in source.latest()] == codes
    asked = [(q["pi"], q["pn"]) for path, q in upstream.seen if path == RANK and q["dt"] == "kf"]
    assert asked == [("1", "30000"), ("2", "2"), ("3", "2")]


def test_fewer_rows_than_announced_are_unavailable(upstream: Upstream, source: EastmoneySource) -> None:
    ranks(upstream, answers(rank_reply([rank_row("000001")], 3), rank_reply([], 3)))
    with pytest.raises(SourceUnavailable, match="announced 3 rows and gave 1"):
        source.latest()


def test_a_listing_that_moves_while_it_is_read_is_unavailable(
    upstream: Upstream, source: EastmoneySource
) -> None:
    ranks(upstream, rank_reply([rank_row("000001")], 2))  # page 2 repeats page 1
    with pytest.raises(SourceUnavailable, match="two pages"):
        source.latest()


def test_one_empty_listing_is_fine_and_all_empty_is_not(upstream: Upstream, source: EastmoneySource) -> None:
    ranks(upstream)
    with pytest.raises(SourceUnavailable, match=upstream.url):
        source.latest()
    ranks(upstream, money=money_reply([("000009", "2026-03-29", "0.3", "1.1")]))
    assert len(source.latest()) == 1


def test_full_history_is_one_request(upstream: Upstream, source: EastmoneySource) -> None:
    upstream.routes["/pingzhongdata/000001.js"] = page_of("000001")
    rows = source.history("000001")
    assert [(row.nav_date, row.unit_nav, row.accum_nav) for row in rows] == [
        (date(2018, 9, 5), 1.0, 2.0),
        (date(2018, 9, 6), 1.1, 2.0),
        (date(2018, 9, 7), 1.2, 2.0),
    ]
    assert source.history("000001", date(2018, 9, 6)) == rows[1:]
    assert source.history("000001", date(2018, 1, 1), date(2018, 9, 6)) == rows[:2]
    assert upstream.paths() == ["/pingzhongdata/000001.js"] * 3


def test_short_range_is_read_by_date_oldest_first(upstream: Upstream, source: EastmoneySource) -> None:
    upstream.routes[LSJZ] = lsjz_reply(["2026-01-30", "2026-01-29"], 2)
    rows = source.history("000001", date(2026, 1, 29), date(2026, 1, 30))
    assert rows == [
        NavRow("000001", date(2026, 1, 29), 1.5, 2.5, 0.1),
        NavRow("000001", date(2026, 1, 30), 1.5, 2.5, 0.1),
    ]
    [(path, query)] = upstream.seen
    assert path == LSJZ
    assert query == {
        "fundCode": "000001",
        "pageIndex": "1",
        "pageSize": "20",
        "startDate": "2026-01-29",
        "endDate": "2026-01-30",
    }


def test_money_fund_with_weekend_rows_needs_two_pages(upstream: Upstream, source: EastmoneySource) -> None:
    days = [f"2026-01-{day:02d}" for day in range(25, 0, -1)]
    upstream.routes[LSJZ] = lambda _handler, query: lsjz_reply(
        days[:20] if query["pageIndex"] == "1" else days[20:], 25, "每万份收益"
    )
    rows = source.history("000009", date(2026, 1, 1), date(2026, 1, 25))
    assert [row.nav_date for row in rows] == [date(2026, 1, day) for day in range(1, 26)]
    assert rows[0] == NavRow("000009", date(2026, 1, 1), income_per_10k=1.5, yield_7d=2.5)


def test_empty_range_is_told_from_unknown_fund(upstream: Upstream, source: EastmoneySource) -> None:
    upstream.routes[LSJZ] = lsjz_reply([], 0)
    upstream.routes["/pingzhongdata/000001.js"] = page_of("000001")
    day = date(2026, 1, 30)
    assert source.history("000001", day, day) == []
    with pytest.raises(UnknownFund, match="000002"):
        source.history("000002", day, day)
    with pytest.raises(UnknownFund, match="000002"):
        source.history("000002")


def test_senseless_questions_cost_no_request(upstream: Upstream, source: EastmoneySource) -> None:
    for code in ("1", "abcdef", "../../x", "１２３４５６"):
        with pytest.raises(UnknownFund, match="six digits"):
            source.history(code)
    with pytest.raises(UsageError, match="2026-01-02 to 2026-01-01"):
        source.history("000001", date(2026, 1, 2), date(2026, 1, 1))
    assert upstream.seen == []


# --- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        (503, b"busy"),
        (403, b"no"),
        (200, b""),
        (200, b"<html>busy</html>"),
        (200, b'var r = [["000001","HX"'),
        (200, b"{ErrCode:-999}"),
        None,
    ],
)
def test_passing_failures_are_retried_with_growing_pauses(
    upstream: Upstream, source: EastmoneySource, pauses: list[float], failure: object
) -> None:
    good = b'var r = [["000001","HX","N","T","P"]];'
    upstream.routes[FUND_LIST] = answers(failure, failure, good)
    assert len(source.fund_list()) == 1
    assert upstream.paths().count(FUND_LIST) == 3
    waits = [pause for pause in pauses if pause > 0.01]  # the rest is the rate limiter's
    assert len(waits) == 2
    assert 1 <= waits[0] <= 2 <= waits[1] <= 3


def test_retries_end_and_the_error_names_the_address(upstream: Upstream, source: EastmoneySource) -> None:
    upstream.routes[FUND_LIST] = (503, b"busy")
    with pytest.raises(SourceUnavailable, match=f"{upstream.url}{FUND_LIST}.*503") as caught:
        source.fund_list()
    assert len(upstream.seen) == 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", [(404, b"gone"), b"var q = [];"])
def test_changed_formats_are_not_retried(upstream: Upstream, source: EastmoneySource, answer: object) -> None:
    upstream.routes[FUND_LIST] = answer
    with pytest.raises(SourceChanged, match=f"{upstream.url}{FUND_LIST}"):
        source.fund_list()
    assert len(upstream.seen) == 1


def test_body_cut_by_the_connection_is_unavailable(upstream: Upstream) -> None:
    def cut(handler: Handler, _query: dict[str, str]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"var r = [[")

    upstream.routes[FUND_LIST] = cut
    with (
        contextlib.closing(make_source(upstream.url, attempts=1)) as source,
        pytest.raises(SourceUnavailable, match=FUND_LIST),
    ):
        source.fund_list()


def drip(handler: Handler, in_headers: bool) -> None:
    with contextlib.suppress(OSError):
        if not in_headers:
            handler.send_response(200)
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)  # the server's pace, in its own thread


@pytest.mark.parametrize("in_headers", [True, False])
def test_dripping_bytes_cannot_hang_us(upstream: Upstream, in_headers: bool) -> None:
    upstream.routes[FUND_LIST] = lambda handler, _query: drip(handler, in_headers)
    started = time.monotonic()
    with (
        contextlib.closing(make_source(upstream.url, attempts=1, total_timeout=0.4)) as source,
        pytest.raises(SourceUnavailable, match="did not answer in time"),
    ):
        source.fund_list()
    assert 0.3 < time.monotonic() - started < 2


def test_silent_server_meets_the_read_timeout(upstream: Upstream) -> None:
    released = threading.Event()
    upstream.routes[FUND_LIST] = lambda _handler, _query: released.wait(5) and None
    with (
        contextlib.closing(make_source(upstream.url, attempts=1, read_timeout=0.2)) as source,
        pytest.raises(SourceUnavailable, match="did not answer in time"),
    ):
        source.fund_list()
    released.set()


def test_endless_reply_is_cut_off(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.sources.eastmoney_http.MAX_REPLY_BYTES", 100_000)
    upstream.routes[FUND_LIST] = b"x" * 300_000
    with (
        contextlib.closing(make_source(upstream.url)) as source,
        pytest.raises(SourceChanged, match="larger than 100,000"),
    ):
        source.fund_list()


def test_nobody_there_is_one_clear_line() -> None:
    with Upstream() as gone:
        url = gone.url
    with contextlib.closing(make_source(url.replace("//", "//user:secret@"))) as source:
        with pytest.raises(SourceUnavailable) as caught:
            source.fund_list()
        message = str(caught.value)
        assert url in message
        assert "check the network" in message
        assert "\n" not in message
        assert "secret" not in message + source.provenance


def test_redirects_are_followed(upstream: Upstream, source: EastmoneySource) -> None:
    upstream.routes["/old/js/fundcode_search.js"] = (301, b"")
    upstream.routes[FUND_LIST] = b'var r = [["000001","HX","N","T","P"]];'
    with contextlib.closing(make_source(f"{upstream.url}/old")) as old:
        assert len(old.fund_list()) == 1


@pytest.mark.parametrize(
    "base", ["fund.eastmoney.com", "ftp://fund.eastmoney.com", "http://", "http://h:port"]
)
def test_senseless_addresses_are_configuration_errors(base: str) -> None:
    with pytest.raises(ConfigurationError, match="source address"):
        EastmoneySource(base)


# --- proxies ------------------------------------------------------------------------------------------


def test_proxy_is_used_but_never_for_loopback(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Upstream() as unused:
        closed = unused.url
    good = b'var r = [["000001","HX","N","T","P"]];'
    upstream.routes[FUND_LIST] = good
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, closed)
    with contextlib.closing(make_source(upstream.url)) as source:
        assert len(source.fund_list()) == 1
    with contextlib.closing(EastmoneySource(upstream.url, "https://api.example.test", upstream.url)) as mixed:
        assert len(mixed.fund_list()) == 1
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, upstream.url)
    with contextlib.closing(make_source("http://fund.example.test", attempts=1)) as source:
        assert len(source.fund_list()) == 1
    assert f"http://fund.example.test{FUND_LIST}" in upstream.paths()


def test_unusable_proxy_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "gopher://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="proxy"):
        EastmoneySource()
    EastmoneySource("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1").close()


# --- many funds ---------------------------------------------------------------------------------------


def test_histories_gives_every_fund_once(upstream: Upstream, source: EastmoneySource) -> None:
    codes = [f"{n:06d}" for n in range(1, 31)]
    for code in codes[:-1]:
        upstream.routes[f"/pingzhongdata/{code}.js"] = page_of(code)
    found = dict(source.histories(codes))
    assert sorted(found) == codes
    assert found["000030"] == []  # unknown
    assert all(len(found[code]) == 3 and found[code][0].fund_code == code for code in codes[:-1])
    assert len(upstream.seen) == 30


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("funds")]


def test_histories_does_not_run_ahead(upstream: Upstream) -> None:
    codes = [f"{n:06d}" for n in range(1, 101)]
    for code in codes:
        upstream.routes[f"/pingzhongdata/{code}.js"] = page_of(code)
    with contextlib.closing(make_source(upstream.url, concurrency=2)) as source:
        results = source.histories(codes)
        next(results)
        next(results)
        for thread in workers():
            thread.join(0.05)  # time to run ahead, if it could
        assert 2 <= len(upstream.seen) <= 2 + 24


def test_first_fatal_error_ends_histories_at_once(upstream: Upstream) -> None:
    released = threading.Event()
    codes = [f"{n:06d}" for n in range(1, 101)]
    for code in codes:
        upstream.routes[f"/pingzhongdata/{code}.js"] = lambda _handler, _query: released.wait(20) and None
    upstream.routes["/pingzhongdata/000002.js"] = page_of("999999")
    started = time.monotonic()
    with contextlib.closing(make_source(upstream.url, attempts=4)) as source:
        with pytest.raises(SourceChanged, match="000002"):
            list(source.histories(codes))
        assert time.monotonic() - started < 2
    # The others were waiting for the server; closing woke them, and nobody retried.
    for thread in workers():
        thread.join(2)
    assert not workers()
    assert len(upstream.seen) <= 5
    released.set()


def test_rate_limit_spaces_requests_of_all_threads() -> None:
    now = [100.0]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)

    limiter = RateLimiter(5.0, lambda: now[0], sleep)
    for _ in range(4):
        limiter.wait()
    assert pauses == pytest.approx([0.2, 0.4, 0.6])
    now[0] += 10  # idle time earns no burst
    pauses.clear()
    limiter.wait()
    limiter.wait()
    assert pauses == pytest.approx([0.2])
