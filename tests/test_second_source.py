"""compare_sources: Eastmoney's night held against Tushare and against a file, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from core.schema import data_update_log, fund_info, fund_nav, nav_batch, rule_result
from core.standin import Market, StandinServer, simulated_market
from core.standin.tushare import TOKEN
from core.trading_calendar import library_sessions
from scheduler.job import RunStatus
from tests.daemon import at
from tests.nights import Nights

EVE, DAY = date(2025, 11, 26), date(2025, 11, 27)


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(150, date(2025, 8, 4), DAY, 7, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(EVE, 23)) as server:
        yield server


@pytest.fixture
def nights(engine: Engine, standin: StandinServer, monkeypatch: pytest.MonkeyPatch) -> Nights:
    for name in ("EASTMONEY_FUND", "EASTMONEY_API", "EASTMONEY_QUOTE", "TUSHARE"):
        monkeypatch.setenv(f"NAVKEEPER_{name}_URL", standin.url)
    monkeypatch.setenv("NAVKEEPER_TUSHARE_TOKEN", TOKEN)
    monkeypatch.setenv("NAVKEEPER_SECOND_SOURCE", "tushare")
    monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", "1000")
    found = Nights(engine, standin, at(EVE, 22))
    for day in (EVE, DAY):
        for job in ("collect", "validate"):
            assert found.do(job, day, 23).status in (RunStatus.SUCCESS, RunStatus.PARTIAL)
    return found


def opinion(nights: Nights) -> tuple[int, int, list[str]]:
    """Compared, differing and the examples of the newest second opinion."""
    (batch,) = nights.rows(nav_batch, nav_batch.c.kind == "second")
    assert batch.status == "COMPARED"
    (row,) = nights.rows(rule_result, rule_result.c.batch_id == batch.id)
    return row.checked, row.failed, json.loads(row.detail)


def test_two_sources_of_one_market_agree_on_every_nav(nights: Nights) -> None:
    before, funds = nights.rows(fund_nav), nights.rows(fund_info)
    end = nights.do("second", DAY, 23, 30)
    assert end.status is RunStatus.SUCCESS, end.reason
    checked, failed, _examples = opinion(nights)
    assert checked > 100
    assert failed == 0
    assert end.record_count == checked
    assert (nights.rows(fund_nav), nights.rows(fund_info)) == (before, funds)
    assert nights.rows(data_update_log)[-1].status == "SUCCESS"


def test_a_source_that_differs_is_a_finding_and_changes_nothing(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = nights.rows(fund_nav)
    first, other, *_rest = [row for row in before if row.nav_date == DAY]
    lines = ["fund_code,nav_date,unit_nav"]
    lines += [f"{first.fund_code},{DAY},{first.unit_nav}", f"{other.fund_code},{DAY},{other.unit_nav + 0.01}"]
    path = tmp_path / "second.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    end = nights.do("second", DAY, 23, 30, source=str(path))
    assert (end.status, end.record_count) == (RunStatus.PARTIAL, 2)
    checked, failed, examples = opinion(nights)
    assert (checked, failed) == (2, 1)
    assert examples[0].startswith(f"{other.fund_code} {DAY} ")
    assert nights.rows(fund_nav) == before


def test_without_a_second_source_the_run_says_what_to_set(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NAVKEEPER_SECOND_SOURCE")
    alone = Nights(nights.engine, nights.standin, nights.now)
    end = alone.do("second", DAY, 23, 30)
    assert end.status is RunStatus.FAILED
    assert "NAVKEEPER_SECOND_SOURCE" in (end.reason or "")
