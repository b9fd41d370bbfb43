"""What broke for others (AKShare, xalpha), each case end to end: stand-in, client, tasks, a SQLite file.

Each test is named after the issue; where nothing may be merged, not a byte of fund_nav changes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete

from core import db
from core.collector import FundCollector
from core.errors import SourceUnavailable
from core.schema import (
    fund_nav,
    fund_nav_revision,
    money_fund_yield,
    nav_batch,
    quarantine,
    rule_result,
    tmp_fund_nav,
    trade_calendar,
)
from core.sources.eastmoney import EastmoneySource
from core.standin import Market, StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler.job import RunStatus
from tests.daemon import at
from tests.nights import Nights
from tests.test_pipeline import dump

EVE, DAY = date(2025, 11, 26), date(2025, 11, 27)
FUNDS = 150
RANK, MONEY = "rankhandler", "GetHbRankList"
NIGHT = ("reference", "collect", "validate")  # the list of dividends says which jumps are none


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(FUNDS, date(2025, 9, 1), DAY + timedelta(days=4), 11, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(EVE, 23, 30)) as server:
        yield server


@pytest.fixture
def nights(sqlite_engine: Engine, standin: StandinServer, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """The evening of EVE is stored."""
    for name in ("FUND", "API", "QUOTE"):
        monkeypatch.setenv(f"NAVKEEPER_EASTMONEY_{name}_URL", standin.url)
    monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", "1000")
    found = Nights(sqlite_engine, standin, at(EVE, 12))
    for job in NIGHT:
        assert found.do(job, EVE, 23).status is RunStatus.SUCCESS
    return found


def believed(night: Nights) -> dict[str, Any]:
    return dump(night.engine, fund_nav, money_fund_yield, fund_nav_revision)


def staged(night: Nights) -> int:
    return len(night.rows(tmp_fund_nav))


def navs_of(night: Nights, day: date) -> dict[str, Any]:
    return {row.fund_code: row for row in night.rows(fund_nav, fund_nav.c.nav_date == day)}


def codes(market: Market, *, money: bool) -> set[str]:
    return {fund.code for fund in market.funds if fund.money is money}


def client(standin: StandinServer, pauses: list[float], **options: Any) -> EastmoneySource:
    url = standin.url
    return EastmoneySource(url, url, url, requests_per_second=1e6, sleep=pauses.append, **options)


# --- a column was added: map by name; a missing or moved one is SourceChanged, nothing staged ------------


def test_akshare_7404_a_field_more_at_the_end_changes_nothing(nights: Nights) -> None:
    for path in (RANK, MONEY, "Fund_JJJZ", "fundcode_search", "funddataIndex"):
        nights.standin.add_fault("extra_column", path=path, times=None)
    for job in NIGHT:
        end = nights.do(job, DAY, 23)
        assert (end.status, end.reason) == (RunStatus.SUCCESS, None)
    strange = navs_of(nights, DAY)
    nights.standin.clear_faults()
    assert nights.do("sweep", DAY, 23).reason == "nothing new"  # every value is what it is without the field
    assert len(strange) > 0.8 * len(navs_of(nights, EVE))


@pytest.mark.parametrize("kind", ["extra_column", "missing_column"])
def test_akshare_7225_a_field_that_moved_stops_the_night(nights: Nights, kind: str) -> None:
    before, rows = believed(nights), staged(nights)
    nights.standin.add_fault(kind, path=RANK, times=None, at=4)
    end = nights.do("collect", DAY, 23)
    assert (end.status, end.retry) == (RunStatus.FAILED, False)
    assert (end.reason or "").startswith("source_changed")
    assert (believed(nights), staged(nights)) == (before, rows)


def test_akshare_7225_a_history_page_without_a_field_is_refused(nights: Nights) -> None:
    before = believed(nights)
    nights.standin.add_fault("missing_column", path="pingzhongdata", times=None, field="unitMoney")
    end = nights.do("backfill", DAY, 23)
    assert end.status is RunStatus.FAILED
    assert "source_changed" in (end.reason or "")
    assert believed(nights) == before


# --- the reply held ten rows, or rows without NAV: thin is not success ----------------------------------


def test_akshare_858_ten_rows_are_not_the_market(nights: Nights) -> None:
    before = believed(nights)
    nights.standin.add_fault("thin", path=RANK, times=None)
    assert nights.do("collect", DAY, 23).status is RunStatus.PARTIAL
    end = nights.do("validate", DAY, 23)
    assert end.status is RunStatus.FAILED
    assert "batch_rejected" in (end.reason or "")
    assert believed(nights) == before
    nights.standin.clear_faults()
    assert nights.do("sweep", DAY, 23, 30).status is RunStatus.SUCCESS  # tonight is not lost


def test_akshare_858_rows_without_navs_are_no_answer(nights: Nights) -> None:
    before, rows = believed(nights), staged(nights)
    for path in (RANK, MONEY):
        nights.standin.add_fault("blank", path=path, times=None)
    end = nights.do("collect", DAY, 23)
    assert (end.status, end.retry) == (RunStatus.FAILED, True)
    assert (end.reason or "").startswith("source_unavailable")
    assert (believed(nights), staged(nights)) == (before, rows)


# --- page caps shrank: page on totals, require the sum to match -----------------------------------------


def test_akshare_pr_5417_a_smaller_page_cap_loses_no_row(nights: Nights) -> None:
    nights.standin.add_fault("page_cap", path=RANK, times=None, rows=40)
    for job in NIGHT:
        assert nights.do(job, DAY, 23).status is RunStatus.SUCCESS
    nights.standin.clear_faults()
    assert nights.do("sweep", DAY, 23).reason == "nothing new"
    assert len(navs_of(nights, DAY)) > 0.8 * len(navs_of(nights, EVE))


def test_akshare_pr_5417_fewer_rows_than_announced_are_not_staged(nights: Nights) -> None:
    before, rows = believed(nights), staged(nights)
    nights.standin.add_fault("truncated_page", path=RANK, times=None)
    end = nights.do("collect", DAY, 23)
    assert (end.status, end.retry) == (RunStatus.FAILED, True)
    assert "announced" in (end.reason or "") or "two pages" in (end.reason or "")
    assert (believed(nights), staged(nights)) == (before, rows)


# --- money-fund yield stored as NAV: route by fund type first -------------------------------------------


@pytest.mark.parametrize("money_rank_is_empty", [False, True])
def test_akshare_1769_no_income_becomes_a_nav(
    nights: Nights, market: Market, money_rank_is_empty: bool
) -> None:
    money = codes(market, money=True)
    nights.standin.add_fault("money_in_rank", path=RANK, times=None)
    if money_rank_is_empty:  # then only the fund's type is left to tell
        nights.standin.add_fault("empty_frame", path=MONEY, times=None)
    nights.do("collect", DAY, 23)
    nights.do("validate", DAY, 23)
    assert money
    assert not money & {row.fund_code for row in nights.rows(fund_nav)}
    yields = {row.fund_code for row in nights.rows(money_fund_yield, money_fund_yield.c.nav_date == DAY)}
    held = {row.fund_code for row in nights.rows(quarantine)}
    assert (held if money_rank_is_empty else yields) >= money
    assert navs_of(nights, DAY)


def test_akshare_1769_nor_in_a_history(nights: Nights, market: Market) -> None:
    money = sorted(codes(market, money=True))
    assert nights.do("backfill", DAY, 23, fund_codes=money).status is RunStatus.SUCCESS
    assert not set(money) & {row.fund_code for row in nights.rows(fund_nav)}
    assert {row.fund_code for row in nights.rows(money_fund_yield)} == set(money)


# --- an empty frame instead of an error: nothing published yet and broken are different outcomes ----------


def test_akshare_7363_4378_empty_is_not_the_same_as_not_published(nights: Nights) -> None:
    before, rows = believed(nights), staged(nights)
    early = nights.do("collect", DAY, 12)
    assert (early.status, early.retry) == (RunStatus.FAILED, True)
    assert (early.reason or "").startswith("not_published")
    nights.standin.add_fault("empty_frame", times=None)
    broken = nights.do("collect", DAY, 23)
    assert (broken.status, broken.retry) == (RunStatus.FAILED, True)
    assert (broken.reason or "").startswith("source_unavailable")
    assert (believed(nights), staged(nights)) == (before, rows)


# --- accumulated NAV late or missing: allow null, refill on a later sweep ---------------------------------


def test_xalpha_44_akshare_5260_a_late_accumulated_nav_is_filled(nights: Nights) -> None:
    nights.standin.add_fault("no_accum")
    for job in NIGHT:
        assert nights.do(job, DAY, 22, 45).status is RunStatus.SUCCESS
    blank = navs_of(nights, DAY)
    assert blank
    assert {row.accum_nav for row in blank.values()} == {None}
    nights.standin.clear_faults()
    assert nights.do("sweep", DAY, 23).status is RunStatus.SUCCESS
    filled = navs_of(nights, DAY)
    assert all(row.accum_nav is not None for row in filled.values())
    assert {code: row.unit_nav for code, row in filled.items() if code in blank} == {
        code: row.unit_nav for code, row in blank.items()
    }
    revised = nights.rows(fund_nav_revision, fund_nav_revision.c.nav_date == DAY)
    assert ({row.reason for row in revised}, len(revised)) == ({"filled"}, len(blank))


# --- NAVs dropped by a stale trading calendar at new year: the calendar never filters data -----------------


def test_xalpha_85_a_calendar_that_has_ended_drops_no_row(nights: Nights) -> None:
    with db.write(nights.engine) as connection:
        connection.execute(delete(trade_calendar).where(trade_calendar.c.cal_date >= EVE))
    eve = navs_of(nights, EVE)
    for job in NIGHT:
        assert nights.do(job, DAY, 23).status in (RunStatus.SUCCESS, RunStatus.PARTIAL)
    assert len(navs_of(nights, DAY)) > 0.8 * len(navs_of(nights, EVE))
    assert nights.do("backfill", DAY, 23, start=str(EVE), end=str(DAY)).status is RunStatus.SUCCESS
    assert navs_of(nights, EVE).keys() >= eve.keys()


# --- one fund's history returned for every code ---------------------------------------------------------


def test_akshare_4376_another_funds_page_is_refused(nights: Nights, market: Market) -> None:
    before = believed(nights)
    model = min(codes(market, money=False))
    nights.standin.add_fault("clone", path="pingzhongdata", times=None, fund_code=model)
    end = nights.do("backfill", DAY, 23, fund_codes=sorted(codes(market, money=False) - {model})[:20])
    assert end.status is RunStatus.FAILED
    assert "fS_code" in (end.reason or "")
    assert believed(nights) == before


def test_akshare_4376_one_history_under_every_code_is_a_finding(nights: Nights, market: Market) -> None:
    before = believed(nights)
    model = min(fund.code for fund in market.funds if fund.fund_type.startswith("混合型"))
    others = sorted(codes(market, money=False) - {model})[:20]
    nights.standin.add_fault("clone", path="pingzhongdata", times=None, fund_code=model, echo=True)
    end = nights.do("backfill", DAY, 23, fund_codes=[model, *others])
    assert end.status in (RunStatus.FAILED, RunStatus.PARTIAL)
    found = {row.rule_id: row.failed for row in nights.rows(rule_result) if row.failed}
    assert any("clone" in rule for rule in found), found
    new = set(believed(nights)["fund_nav"]) - set(before["fund_nav"])
    assert not {row[0] for row in new} & set(others)


# --- blocked after bursts -------------------------------------------------------------------------------


def test_akshare_6109_6585_7227_few_requests_growing_pauses(nights: Nights) -> None:
    standin, pauses = nights.standin, list[float]()
    standin.set_now(at(DAY, 23))
    standin.requests.clear()
    standin.add_fault("refused", path=RANK, times=3)
    with contextlib.closing(client(standin, pauses)) as source:
        FundCollector(nights.engine, source).collect_daily_nav(DAY, at(DAY, 23))
    waits = [pause for pause in pauses if pause > 0.9]  # the others are the rate limiter's
    assert len(waits) == 3
    assert waits == sorted(waits)
    assert sum(standin.requests.values()) <= 3 + 5  # three ranks, two lists, and what was refused


def test_akshare_6109_6585_7227_who_is_blocked_for_good_stages_nothing(nights: Nights) -> None:
    before, rows, pauses = believed(nights), staged(nights), list[float]()
    nights.standin.add_fault("refused", times=None)
    nights.standin.requests.clear()
    with (
        contextlib.closing(client(nights.standin, pauses)) as source,
        pytest.raises(SourceUnavailable, match="-999"),
    ):
        FundCollector(nights.engine, source).collect_daily_nav(DAY, at(DAY, 23))
    assert sum(nights.standin.requests.values()) == 4  # attempts of the first request, no burst
    assert (believed(nights), staged(nights)) == (before, rows)


# --- hangs for ever: connect, read and total time limits on every request ---------------------------------


@pytest.mark.parametrize("path", [RANK, MONEY, "fundcode_search"])
def test_no_time_out_a_server_that_never_answers(nights: Nights, path: str) -> None:
    before, rows, pauses = believed(nights), staged(nights), list[float]()
    nights.standin.set_now(at(DAY, 23))
    nights.standin.add_fault("stall", path=path, times=None)
    began = time.monotonic()
    with (
        contextlib.closing(client(nights.standin, pauses, read_timeout=0.2, attempts=2)) as source,
        pytest.raises(SourceUnavailable, match="in time"),
    ):
        FundCollector(nights.engine, source).collect_daily_nav(DAY, at(DAY, 23))
    assert time.monotonic() - began < 10
    assert (believed(nights), staged(nights)) == (before, rows)
    nights.standin.clear_faults()
    assert {row.status for row in nights.rows(nav_batch)} == {"MERGED"}
