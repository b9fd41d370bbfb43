"""A source that keeps failing: when it is asked again, and what that costs, without sleeping."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from core.errors import SourceChanged, SourceUnavailable
from core.sources.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from core.sources.eastmoney import EastmoneySource
from tests.upstream import Upstream, page_of

MIDDLE = 0.5  # of the jitter: none
CODES = [f"{n:06d}" for n in range(1, 41)]


def failing(breaker: CircuitBreaker, times: int, now: float = 0.0) -> CircuitBreaker:
    for _ in range(times):
        breaker = breaker.after_failure(now, MIDDLE)
    return breaker


def test_five_failures_in_a_row_open_it() -> None:
    assert not failing(CircuitBreaker(), FAILURES_TO_OPEN - 1).is_open
    between = failing(CircuitBreaker(), FAILURES_TO_OPEN - 1).after_success()
    assert not failing(between, FAILURES_TO_OPEN - 1).is_open
    opened = failing(CircuitBreaker(), FAILURES_TO_OPEN, now=100.0)
    assert opened.is_open
    assert (opened.pause(100.0), opened.pause(120.0), opened.pause(130.0), opened.pause(999.0)) == (
        30,
        10,
        0,
        0,
    )
    assert not opened.after_success().is_open


def test_pauses_double_up_to_ten_minutes_and_end_after_an_hour() -> None:
    breaker, now, pauses = failing(CircuitBreaker(), FAILURES_TO_OPEN), 0.0, []
    while not breaker.is_hopeless(now):
        pauses.append(breaker.pause(now))
        now += pauses[-1]
        breaker = breaker.after_failure(now, MIDDLE)
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600, 600, 600]
    assert now == 3930  # the first probe after the hour


def test_jitter_is_a_quarter_either_way() -> None:
    almost = failing(CircuitBreaker(), FAILURES_TO_OPEN - 1)
    assert [almost.after_failure(0.0, chance).pause(0.0) for chance in (0.0, 0.5, 1.0)] == [22.5, 30, 37.5]


@contextlib.contextmanager
def running() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Time:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, [0.0]

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def source_at(upstream: Upstream, time: Time) -> EastmoneySource:
    """One attempt a request, two threads: what fails shows at once."""
    return EastmoneySource(
        upstream.url,
        upstream.url,
        attempts=1,
        concurrency=2,
        requests_per_second=1e9,
        sleep=time.sleep,
        clock=lambda: time.now,
    )


def test_a_source_that_refuses_for_a_while_is_waited_for() -> None:
    time = Time()
    with running() as upstream:
        for code in CODES:
            page = page_of(code)
            upstream.routes[f"/pingzhongdata/{code}.js"] = lambda _handler, _query, page=page: (
                (503, b"busy") if len(upstream.seen) > 10 and time.now < 200 else page
            )
        with contextlib.closing(source_at(upstream, time)) as source:
            found = list(source.histories(CODES))
    assert sorted(code for code, _rows in found) == CODES
    assert all(len(rows) == 3 for _code, rows in found)
    long = [seconds for seconds in time.pauses if seconds > 1]
    assert len(long) in (3, 4)  # about 30, 60, 120 and 240 s, a quarter more or less
    assert 200 <= time.now <= 1.25 * 450
    asked = Counter(upstream.paths())
    assert sum(asked.values()) <= len(CODES) + FAILURES_TO_OPEN + 8 + len(long)


def test_a_fund_that_cannot_be_had_is_asked_for_twice_and_left_out() -> None:
    time = Time()
    with running() as upstream:
        for code in CODES:
            upstream.routes[f"/pingzhongdata/{code}.js"] = page_of(code)
        upstream.routes[f"/pingzhongdata/{CODES[3]}.js"] = (200, b"<html>busy</html>")
        once = [(500, b""), page_of(CODES[5])]
        upstream.routes[f"/pingzhongdata/{CODES[5]}.js"] = lambda _handler, _query: once.pop(0)
        with contextlib.closing(source_at(upstream, time)) as source:
            found = dict(source.histories(CODES))
    assert sorted(found) == [code for code in CODES if code != CODES[3]]
    asked = Counter(upstream.paths())
    assert {path for path, times in asked.items() if times == 2} == {
        f"/pingzhongdata/{CODES[3]}.js",
        f"/pingzhongdata/{CODES[5]}.js",
    }
    assert max(asked.values()) == 2
    assert max(time.pauses) < 1


def test_after_an_hour_it_is_over() -> None:
    time = Time()
    with running() as upstream:
        for code in CODES:
            upstream.routes[f"/pingzhongdata/{code}.js"] = (503, b"busy")
        with (
            contextlib.closing(source_at(upstream, time)) as source,
            pytest.raises(SourceUnavailable, match="hour"),
        ):
            list(source.histories(CODES))
    assert 3600 <= time.now <= 3600 + 750
    assert len(upstream.seen) <= 40


def test_the_error_of_a_few_is_raised_where_none_could_be_had() -> None:
    with running() as upstream:
        upstream.routes["/pingzhongdata/000001.js"] = (503, b"busy")
        with (
            contextlib.closing(source_at(upstream, Time())) as source,
            pytest.raises(SourceUnavailable, match="503"),
        ):
            list(source.histories(["000001"]))


def test_a_changed_format_is_raised_at_once() -> None:
    with running() as upstream:
        for code in CODES:
            upstream.routes[f"/pingzhongdata/{code}.js"] = page_of("999999")
        with contextlib.closing(source_at(upstream, Time())) as source, pytest.raises(SourceChanged):
            list(source.histories(CODES))
    assert len(upstream.seen) <= 8
