"""Macro figures: the clients against a site that replays what was recorded, and how figures are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from core.errors import SourceChanged, SourceRefused, SourceUnavailable, UsageError
from core.market import fred
from core.market.macro import REPORTS, SERIES, fetch_report, out_by
from core.market.tables import market_macro, market_macro_revision, metadata
from core.schema import data_update_log
from core.sources.eastmoney_http import EastmoneyHttp
from tests.market_run import Market
from tests.market_site import MarketSite, running, text

DAY = date(2026, 8, 3)


@pytest.fixture
def site(data: Path) -> Iterator[MarketSite]:
    with running(data) as found:
        yield found


@pytest.fixture
def http(site: MarketSite) -> Iterator[EastmoneyHttp]:
    client = EastmoneyHttp(
        (site.url,),
        connect_timeout=5,
        read_timeout=5,
        total_timeout=10,
        attempts=2,
        requests_per_second=1000,
        connections=1,
        sleep=lambda _seconds: None,
    )
    yield client
    client.close()


@pytest.fixture
def market(engine: Engine) -> Market:
    return Market(engine)


def run(market: Market, site: MarketSite, day: date = DAY, **params: Any) -> Any:
    urls = {"datacenter_url": site.url, "fred_url": site.url, "requests_per_second": 1000}
    return market.do("macro", day, **urls, **params)


def test_the_tables_are_those_of_the_migration(market: Market) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with market.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _of_market})
        found = compare_metadata(context, metadata)
    steps = [step for group in found for step in (group if isinstance(group, list) else [group])]
    assert [step for step in steps if step[0] != "modify_comment" and "market" in str(step)] == []


def _of_market(name: str | None, kind: str, _parents: Any) -> bool:
    return kind != "table" or bool(name and name.startswith("market_"))


def test_recorded_figures_arrive_as_published(market: Market, site: MarketSite) -> None:
    result = run(market, site)
    assert (result.status, result.reason) == ("SUCCESS", None)
    found = {(row.series, row.period): row.value for row in market.rows(market_macro)}
    assert {name for name, _period in found} == set(SERIES)
    # read off the recorded files
    assert found["cpi_yoy", date(2026, 6, 1)] == 1.0
    assert found["cpi_mom", date(2026, 6, 1)] == -0.3
    assert found["cpi_yoy", date(2008, 2, 1)] == 8.7443
    assert found["ppi_yoy", date(2026, 6, 1)] == 4.1
    assert (found["pmi", date(2026, 7, 1)], found["pmi_services", date(2026, 7, 1)]) == (49.2, 49.0)
    assert (found["m2_yoy", date(2026, 6, 1)], found["m1_yoy", date(2026, 6, 1)]) == (8.0, 4.0)
    assert (found["lpr_1y", date(2026, 7, 20)], found["lpr_5y", date(2026, 7, 20)]) == (3.0, 3.5)
    assert (found["shibor_on", date(2026, 7, 31)], found["shibor_3m", date(2026, 7, 31)]) == (1.41, 1.43)
    assert ("lpr_1y", date(1991, 4, 21)) not in found  # the table has older rates, before there was an LPR
    assert min(period for name, period in found if name == "lpr_1y").year == 2013
    assert sum(name == "cpi_yoy" for name, _period in found) == 222
    assert sum(name == "shibor_on" for name, _period in found) == 2336  # in five pages of at most 500
    assert result.records == len(found)
    assert market.rows(market_macro_revision) == []
    assert market.rows(data_update_log)[-1].record_count == len(found)


def test_again_changes_nothing_and_asks_for_little(market: Market, site: MarketSite) -> None:
    run(market, site)
    first = market.rows(market_macro)
    assert site.requests["/api/data/v1/get"] == 4 + 4 + 4 * 5
    site.requests.clear()
    assert run(market, site, date(2026, 8, 4)).status == "SUCCESS"
    assert market.rows(market_macro) == first
    assert site.requests["/api/data/v1/get"] <= 4 + 2 + 4 * 2


def test_a_correction_leaves_a_trace(market: Market, site: MarketSite) -> None:
    site.until = date(2026, 6, 15)
    run(market, site, date(2026, 6, 16))
    site.until = DAY
    site.changes["RPT_ECONOMY_CURRENCY_SUPPLY", "2026-05-01", "BASIC_CURRENCY_SAME"] = 8.5
    run(market, site)
    (trace,) = market.rows(market_macro_revision)
    assert (trace.series, trace.period, trace.old_value, trace.new_value) == (
        "m2_yoy",
        date(2026, 5, 1),
        8.6,
        8.5,
    )
    (row,) = market.rows(
        market_macro, market_macro.c.series == "m2_yoy", market_macro.c.period == date(2026, 5, 1)
    )
    assert (row.value, row.fetched_at) == (8.5, trace.known_at)
    assert market.rows(market_macro, market_macro.c.series == "m2_yoy")[-1].period == date(2026, 6, 1)


def page(*rows: dict[str, Any], pages: Any = 1, count: int | None = None) -> Any:
    result = {"pages": pages, "count": len(rows) if count is None else count, "data": rows}
    return 200, text({"result": result, "success": True, "code": 0})


def refusal(code: int) -> Any:
    return 200, text({"result": None, "success": False, "message": "报表配置不存在", "code": code})


GOOD = {"REPORT_DATE": "2026-06-01", "BASE_SAME": 1}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refusal(9501), SourceChanged),
        (refusal(9999), SourceUnavailable),
        (page({"REPORT_DATE": "2026-06-01"}), SourceChanged),
        (page(pages="1"), SourceChanged),
        (page(GOOD, count=2), SourceUnavailable),
        (page(GOOD | {"REPORT_DATE": "June"}), SourceChanged),
        (page(GOOD | {"BASE_SAME": "x"}), SourceChanged),
        (page(GOOD | {"BASE_SAME": None}), SourceChanged),
        (page(pages=9999), SourceChanged),
        ((200, b"<html>busy</html>"), SourceUnavailable),
        ((200, b'{"result":{"pages":1,"count":1,"da'), SourceUnavailable),
        ((200, b""), SourceUnavailable),
        ((500, b""), SourceUnavailable),
        ((403, b""), SourceUnavailable),
    ],
)
def test_another_reply_is_refused(site: MarketSite, http: EastmoneyHttp, reply: Any, error: Any) -> None:
    site.replies["RPT_ECONOMY_PPI"] = reply
    asked = next(each for each in REPORTS if each.name == "RPT_ECONOMY_PPI")
    with pytest.raises(error):
        fetch_report(http, site.url, asked, None)


def test_one_table_fails_alone(market: Market, site: MarketSite) -> None:
    site.replies["RPT_ECONOMY_CPI"] = 200, text({"result": None, "message": "报表配置不存在", "code": 9501})
    result = run(market, site)
    assert result.status == "PARTIAL"
    assert result.reason.startswith("cpi_yoy: source_changed: ")
    assert {row.series for row in market.rows(market_macro)} == set(SERIES) - {"cpi_yoy", "cpi_mom"}


def test_all_failed_is_a_failure(market: Market, site: MarketSite) -> None:
    site.replies["/api/data/v1/get"] = 200, text({"result": None, "message": "?", "code": 9501})
    with pytest.raises(SourceChanged):
        run(market, site)
    assert market.rows(market_macro) == []


def test_fred_with_the_users_key(market: Market, site: MarketSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="run.market.macro")
    caplog.set_level(logging.DEBUG, logger="core")
    market.know(fred_api_key=site.key)
    result = run(market, site, fred_series=("GNPCA",))
    assert result.status == "SUCCESS"
    rows = market.rows(market_macro, market_macro.c.source == "fred")
    assert [(row.series, row.period.year, row.value) for row in rows] == [
        ("fred:GNPCA", 1929, 1065.9),
        ("fred:GNPCA", 1930, 975.5),
        ("fred:GNPCA", 1932, 791.7),
    ]
    market.know(fred_api_key="wrong-key")
    result = run(market, site, fred_series=("GNPCA",))
    assert result.status == "PARTIAL"
    assert result.reason.startswith("fred:GNPCA: source_refused: ")
    assert "fred_api_key" in result.reason
    for secret in (site.key, "wrong-key"):
        assert secret not in caplog.text
        assert secret not in result.reason


def test_without_a_key_the_rest_goes_on(market: Market, site: MarketSite) -> None:
    result = run(market, site, fred_series=("GNPCA",))
    assert result.status == "PARTIAL"
    assert "fred:GNPCA: configuration: there is no secret 'fred_api_key'" in result.reason
    assert {row.series for row in market.rows(market_macro)} == set(SERIES)


def test_what_fred_may_say_else(site: MarketSite, http: EastmoneyHttp) -> None:
    path = "/fred/series/observations"
    with pytest.raises(UsageError):
        fred.fetch_series(http, site.url, site.key, "GNPCA&api_key=x", None)
    with pytest.raises(SourceRefused):
        fred.fetch_series(http, site.url, site.key, "NOSUCH", None)
    site.replies[path] = 200, text({"count": 2, "observations": [{"date": "2026-01-01", "value": "1"}]})
    with pytest.raises(SourceUnavailable, match="1 of 2"):
        fred.fetch_series(http, site.url, site.key, "GNPCA", None)
    site.replies[path] = 200, text({"seriess": []})
    with pytest.raises(SourceChanged):
        fred.fetch_series(http, site.url, site.key, "GNPCA", None)
    site.replies[path] = 500, b""
    with pytest.raises(SourceUnavailable) as caught:
        fred.fetch_series(http, site.url, site.key, "GNPCA", None)
    assert site.key not in str(caught.value)


def test_when_a_figure_is_out() -> None:
    assert out_by(SERIES["cpi_yoy"], date(2026, 2, 1)) == date(2026, 3, 16)
    assert out_by(SERIES["m2_yoy"], date(2025, 12, 1)) == date(2026, 1, 18)
    assert out_by(SERIES["shibor_on"], date(2026, 2, 3)) == date(2026, 2, 3)
