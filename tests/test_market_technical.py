"""Indicators of stored NAVs and fetched bars; size, fees and holdings from recorded pages; the shipped jobs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert, text

from core import db
from core.errors import SourceChanged, SourceUnavailable, UnknownFund
from core.market.fundamentals import parse_fundamentals
from core.market.tables import market_fundamental, market_index_bar, market_technical
from core.retention import present
from core.schema import fund_adjustment, fund_nav
from core.trading_calendar import SHANGHAI
from scheduler.jobs_file import load_jobs
from scheduler.market_plugin import PLUGIN
from tests.conftest import NOW, ROOT
from tests.market_run import Market
from tests.market_site import MarketSite, running

talib = pytest.importorskip("talib")
DAY = date(2026, 8, 21)
CODE = "000001"


@pytest.fixture
def site(data: Path) -> Iterator[MarketSite]:
    with running(data) as found:
        yield found


@pytest.fixture
def market(engine: Engine) -> Market:
    return Market(engine)


def run(market: Market, site: MarketSite, day: date = DAY, hour: int = 20, **params: Any) -> Any:
    return market.do("technical", day, hour, quote_url=site.url, requests_per_second=1000, **params)


def recorded(data: Path) -> list[dict[str, str]]:
    with (data / "index" / "000300.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["date"] > "2015-01-01"]


def with_navs(market: Market, rows: list[dict[str, str]]) -> np.ndarray[Any, Any]:
    """A fund whose NAV follows the index, halved by a split 30 days before the end; its NAVs with that undone."""
    values = np.array([float(row["close"]) / 1000 for row in rows])
    split = len(rows) - 30
    unit = np.where(np.arange(len(rows)) < split, values, np.round(values / 2, 8))
    with db.write(market.engine) as connection:
        if connection.dialect.name == "mysql":
            connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        else:
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        navs = [
            {
                "fund_code": CODE,
                "nav_date": date.fromisoformat(row["date"]),
                "unit_nav": float(value),
                "source": "test",
                "batch_id": 1,
            }
            for row, value in zip(rows, unit, strict=True)
        ]
        known = fund_nav.c.keys()
        connection.execute(insert(fund_nav), [{k: v for k, v in nav.items() if k in known} for nav in navs])
        ex_date = date.fromisoformat(rows[split]["date"])
        factor = {"fund_code": CODE, "ex_date": ex_date, "factor": 2.0, "cumulative": 2.0}
        connection.execute(insert(fund_adjustment), [factor])
    return np.where(np.arange(len(rows)) < split, unit, unit * 2)


def test_stored_rows_are_those_of_talib(market: Market, site: MarketSite, data: Path) -> None:
    rows = recorded(data)
    adjusted = with_navs(market, rows)
    result = run(market, site, fund_codes=(CODE,))
    assert (result.status, result.reason) == ("SUCCESS", None)
    assert result.records == len(market.rows(market_technical))
    high, low, close = (np.array([float(row[name]) for row in rows]) for name in ("high", "low", "close"))
    stored = market.rows(market_technical, market_technical.c.code == "index:000300")
    days = [row["date"] for row in rows]
    wanted = {
        "value": close,
        "sma_20": talib.SMA(close, 20),
        "sma_60": talib.SMA(close, 60),
        "ema_12": talib.EMA(close, 12),
        "rsi_14": talib.RSI(close, 14),
        "macd": talib.MACD(close)[0],
        "macd_signal": talib.MACD(close)[1],
        "bollinger_upper": talib.BBANDS(close, 20)[0],
        "atr_14": talib.ATR(high, low, close, 14),
    }
    for row in (stored[0], stored[-1]):
        at = days.index(row.date.isoformat())
        for name, values in wanted.items():
            assert getattr(row, name) == pytest.approx(values[at], rel=1e-9), name
    assert stored[-1].date == DAY
    assert stored[0].date >= date(2026, 5, 23)
    assert len(stored) == sum("2026-05-23" <= day <= "2026-08-21" for day in days)
    newest = market.rows(market_technical, market_technical.c.code == CODE)[-1]
    assert newest.atr_14 is None
    assert newest.value == pytest.approx(adjusted[-1], rel=1e-12)
    assert newest.sma_60 == pytest.approx(talib.SMA(adjusted, 60)[-1], rel=1e-9)
    assert newest.rsi_14 == pytest.approx(talib.RSI(adjusted, 14)[-1], rel=1e-9)


def test_again_changes_nothing_and_asks_for_the_newest_alone(market: Market, site: MarketSite) -> None:
    run(market, site)
    rows, bars = market.rows(market_technical), market.rows(market_index_bar)
    assert len(bars) == 2828 + 2829 - 1  # of 2018-06-18, a holiday, a close alone was recorded
    run(market, site, hour=21)
    assert (market.rows(market_technical), market.rows(market_index_bar)) == (rows, bars)
    assert site.asked[-1][1]["beg"] == "20260821"


def test_an_early_bar_gives_way_to_the_last(market: Market, site: MarketSite, data: Path) -> None:
    site.until = date(2026, 8, 20)
    early = {"code": "000300", "klines": ["2026-08-21,4600,4601,4599"]}
    site.replies["/api/qt/stock/kline/get"] = 200, json.dumps({"data": early}).encode()
    run(market, site, hour=10, indexes=("000300",))
    assert market.rows(market_technical)[-1].value == 4600
    del site.replies["/api/qt/stock/kline/get"]
    site.until = DAY
    run(market, site, indexes=("000300",))
    assert market.rows(market_technical)[-1].value == 4618.9


def test_without_bars_the_funds_go_on(market: Market, site: MarketSite, data: Path) -> None:
    with_navs(market, recorded(data))
    site.replies["/api/qt/stock/kline/get"] = 200, b'{"data":{"code":"399001","klines":[]}}'
    result = run(market, site, fund_codes=(CODE, "999999"))
    assert result.status == "PARTIAL"
    assert "index:000300: source_changed" in result.reason
    assert "no prices of index:000300, index:000985, 999999" in result.reason
    assert {row.code for row in market.rows(market_technical)} == {CODE}


def test_held_funds_are_looked_at(market: Market, site: MarketSite, data: Path) -> None:
    with_navs(market, recorded(data))
    with db.write(market.engine) as connection:
        connection.execute(text("CREATE TABLE holdings_order (id INTEGER PRIMARY KEY, fund_code CHAR(6))"))
        connection.execute(text("INSERT INTO holdings_order VALUES (1, '000001'), (2, '000001')"))
    assert run(market, site, indexes=()).status == "SUCCESS"
    assert {row.code for row in market.rows(market_technical)} == {CODE}


def pages(market: Market, site: MarketSite, *codes: str, day: date = DAY) -> Any:
    return market.do("fundamentals", day, fund_codes=codes, fund_url=site.url, requests_per_second=1000)


def test_recorded_pages(market: Market, site: MarketSite) -> None:
    assert pages(market, site, "161725", "000004").status == "SUCCESS"
    bond, liquor = market.rows(market_fundamental)
    assert (liquor.fund_code, liquor.as_of) == ("161725", DAY)
    assert (liquor.size_date, liquor.net_assets, liquor.net_assets_change) == (
        date(2025, 12, 31),
        284.95,
        -11.82,
    )
    assert (liquor.source_rate, liquor.current_rate, liquor.minimum_purchase) == (1.0, 0.1, 10.0)
    assert (liquor.stock_share, liquor.bond_share, liquor.cash_share) == (94.44, 0.0, 6.02)
    assert json.loads(liquor.managers) == [
        {"id": "30379533", "name": "侯昊", "term": "8年又191天", "funds": "574.41亿(24只基金)"}
    ]
    assert json.loads(liquor.stocks)[:2] == ["1.600519", "1.600809"]
    assert json.loads(liquor.bonds) == ["1.118034"]
    assert liquor.page_time == datetime(2026, 2, 27, 17, 5, 47, tzinfo=SHANGHAI)
    assert (bond.fund_code, bond.net_assets, bond.net_assets_change) == ("000004", 0.43, -15.42)
    assert (bond.allocation_date, bond.bond_share, bond.current_rate) == (date(2020, 6, 30), 112.59, 0.0)
    assert len(json.loads(bond.bonds)) == 5
    rows = market.rows(market_fundamental)
    pages(market, site, "161725", "000004")
    assert market.rows(market_fundamental) == rows


def test_a_fund_that_is_not_there_fails_alone(market: Market, site: MarketSite) -> None:
    result = pages(market, site, "161725", "999999")
    assert (result.status, result.records) == ("PARTIAL", 1)
    assert "999999: unknown_fund" in result.reason
    with pytest.raises(UnknownFund):
        pages(market, site, "999999")


def test_no_fund_is_nothing_to_do(market: Market, site: MarketSite) -> None:
    assert pages(market, site).status == "SKIPPED"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("Data_fluctuationScale", "Data_scale", SourceChanged),
        ("Data_currentFundManager", "Data_managers", SourceChanged),
        ("fund_Rate=", "fund_rate=", SourceChanged),
        ('fund_Rate="0.10"', 'fund_Rate="free"', SourceChanged),
        ('"股票占净比"', '"权益占净比"', SourceChanged),
        ('"mom":"-11.82%"', '"change":"-11.82%"', SourceChanged),
        ('"1.600519"', '"贵州茅台"', SourceChanged),
        ('fS_code = "161725"', 'fS_code = "161726"', SourceChanged),
        ('"workTime":', '"time":', SourceChanged),
    ],
)
def test_another_layout_is_told_by_its_name(data: Path, old: str, new: str, error: Any) -> None:
    page = (data / "pingzhongdata" / "161725.js").read_text(encoding="utf-8-sig")
    assert old in page
    with pytest.raises(error):
        parse_fundamentals(page.replace(old, new).encode(), "161725")


def test_half_a_page_is_unavailable(data: Path) -> None:
    page = (data / "pingzhongdata" / "161725.js").read_bytes()
    for size in (0, 2000, len(page) // 2, page.index(b"Data_currentFundManager") + 100):
        with pytest.raises(SourceUnavailable):
            parse_fundamentals(page[:size], "161725")


def test_the_shipped_jobs_are_of_this_plugin() -> None:
    jobs = load_jobs(ROOT / "config" / "market_jobs.toml")
    tasks = {task.id: task for task in PLUGIN.tasks}
    assert {job.task for job in jobs.values()} == set(tasks)
    for job in jobs.values():
        tasks[job.task].params.model_validate_json(json.dumps(job.params))
        assert str(job.schedule.zone) == "Asia/Shanghai"
    fires = jobs["market_technical"].fires(datetime(2026, 8, 20, 16, tzinfo=SHANGHAI), NOW.replace(year=2027))
    assert [fire.hour for fire in fires[:4]] == [21, 23, 9, 10]
    day = [datetime(2026, 8, 20, tzinfo=SHANGHAI), datetime(2026, 8, 21, tzinfo=SHANGHAI)]
    assert [len(jobs[name].fires(*day)) for name in ("market_news", "market_risk", "market_macro")] == [
        6,
        4,
        1,
    ]


def test_cleanup_knows_the_tables_where_they_are(engine: Engine) -> None:
    names = {"technical", "fundamental", "news", "risk"}
    with db.read(engine) as connection:
        assert names & {kept.name for kept in present(connection)} == set()
    Market(engine)
    with db.read(engine) as connection:
        assert names <= {kept.name for kept in present(connection)}
