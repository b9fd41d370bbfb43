"""collect_reference: funds, events and indices, each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from core.errors import SourceChanged, SourceUnavailable
from core.schema import benchmark_index, data_update_log, fund_event, fund_info
from core.standin import Market, StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler.job import RunStatus
from tests.daemon import at
from tests.nights import Nights

DAY, AFTER = date(2025, 11, 27), date(2025, 11, 28)


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(150, date(2025, 3, 3), AFTER, 7, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(DAY, 18, 30)) as server:
        yield server


@pytest.fixture
def nights(engine: Engine, standin: StandinServer, monkeypatch: pytest.MonkeyPatch) -> Nights:
    for name in ("FUND", "API", "QUOTE"):
        monkeypatch.setenv(f"NAVKEEPER_EASTMONEY_{name}_URL", standin.url)
    monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", "1000")
    return Nights(engine, standin, at(DAY, 18, 30))


def test_everything_is_kept_and_again_changes_nothing(nights: Nights, market: Market) -> None:
    end = nights.do("reference", DAY, 18, 30)
    assert (end.status, end.reason) == (RunStatus.SUCCESS, None)
    funds = nights.rows(fund_info)
    assert {row.last_listed for row in funds} == {DAY}
    assert {row.purchase_status for row in funds} >= {"开放申购", "场内交易"}
    events, closes = nights.rows(fund_event), nights.rows(benchmark_index)
    assert {row.evidence for row in events} == {"announced"}
    assert all(row.value == row.listed_value for row in events)
    assert {row.index_code for row in closes} == {"000300", "000985"}
    assert max(row.trade_date for row in closes) == DAY
    assert end.record_count == len(funds) + len(events) + len(closes)
    nights.standin.requests.clear()
    again = nights.do("reference", DAY, 18, 31)
    assert (again.status, again.record_count) == (RunStatus.SUCCESS, 0)
    assert nights.rows(fund_event) == events
    assert nights.rows(benchmark_index) == closes
    assert nights.rows(data_update_log)[-1].table_name == "fund_event"
    assert sum(nights.standin.requests.values()) <= 8
    assert nights.do("reference", AFTER, 18, 30).status is RunStatus.SUCCESS
    assert len(nights.rows(benchmark_index)) == len(closes) + 2


def test_the_night_books_what_was_announced(nights: Nights) -> None:
    nights.do("reference", DAY, 18, 30)
    announced = {(row.fund_code, row.ex_date): row.value for row in nights.rows(fund_event)}
    assert nights.do("backfill", DAY, 23).status is RunStatus.SUCCESS
    rows = nights.rows(fund_event)
    published = {(row.fund_code, row.ex_date): row.value for row in rows if row.evidence == "published"}
    assert announced.items() <= published.items()
    assert all(row.listed_value is not None for row in rows if (row.fund_code, row.ex_date) in announced)
    end = nights.do("reference", DAY, 23)
    assert (end.status, end.reason) == (RunStatus.SUCCESS, None)


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("fundcode_search", "html_error", "funds: source_unavailable"),
        ("funddataIndex", "missing_column", "events: source_changed"),
        ("kline", "missing_column", "index 000300: source_changed"),
    ],
)
def test_one_part_fails_alone(nights: Nights, path: str, kind: str, said: str) -> None:
    options = {"at": 0} if kind == "missing_column" else {}
    nights.standin.add_fault(kind, path=path, times=None, **options)
    end = nights.do("reference", DAY, 18, 30)
    assert end.status is RunStatus.PARTIAL
    assert end.reason is not None
    assert end.reason.startswith(said)
    kept = {table.name for table in (fund_info, fund_event, benchmark_index) if nights.rows(table)}
    lost = {"funds": {"fund_info"}, "events": {"fund_event"}, "index": {"benchmark_index"}}[
        said.split()[0].strip(":")
    ]
    assert kept == {"fund_info", "fund_event", "benchmark_index"} - lost


def test_all_parts_failed_is_a_failure(nights: Nights) -> None:
    nights.standin.add_fault("missing_column", times=None, at=0)
    end = nights.do("reference", DAY, 18, 30)
    assert (end.status, end.retry) == (RunStatus.FAILED, SourceChanged.retry)
    assert nights.rows(fund_info) == []
    assert SourceUnavailable.retry


def test_an_empty_list_of_events_is_no_list(nights: Nights) -> None:
    assert nights.do("backfill", DAY, 23).status is RunStatus.SUCCESS
    before = nights.rows(fund_event)
    nights.standin.add_fault("empty_frame", path="funddataIndex", times=None)
    end = nights.do("reference", DAY, 23)
    assert end.status is RunStatus.PARTIAL
    assert "the list of events is empty" in (end.reason or "")
    assert nights.rows(fund_event) == before


def test_an_index_that_stands_still_is_told(nights: Nights) -> None:
    nights.do("reference", DAY, 18, 30)
    nights.now = at(AFTER, 18, 30)
    end = nights.execute(nights.queue("reference", AFTER))  # the server's clock stays
    assert end.status is RunStatus.PARTIAL
    assert "index 000300: no close of 2025-11-28, the newest is 2025-11-27" in (end.reason or "")


def test_closes_from_files(nights: Nights, tmp_path: Path) -> None:
    path = tmp_path / "000985.csv"
    path.write_text("date,close\n2025-11-27,5000.5\n", encoding="utf-8")
    end = nights.do("reference", DAY, 18, 30, index_files=[str(path)])
    assert end.status is RunStatus.SUCCESS
    assert [(row.index_code, row.close, row.source) for row in nights.rows(benchmark_index)] == [
        ("000985", 5000.5, "files")
    ]
