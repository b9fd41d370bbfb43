"""Tushare as a second source, against a local server that speaks it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from config.settings import load_settings
from core.errors import (
    ConfigurationError,
    SourceChanged,
    SourceRefused,
    SourceUnavailable,
    UnknownFund,
    UsageError,
)
from core.sources.eastmoney import EastmoneySource
from core.sources.tushare import TushareSource, parse_table
from core.standin import Market, StandinServer, simulated_market
from core.standin.tushare import TOKEN
from core.trading_calendar import library_sessions
from scheduler.tasks import make_source
from tests.daemon import at

DAY = date(2025, 12, 1)


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(300, date(2024, 6, 1), DAY, 1, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, at(DAY, 23, 30)) as server:
        yield server


def client(standin: StandinServer, token: str = TOKEN, **options: Any) -> TushareSource:
    settings = {"requests_per_second": 1e6, "attempts": 1} | options
    return TushareSource(token, standin.url, **settings)


@pytest.fixture
def source(standin: StandinServer) -> Iterator[TushareSource]:
    with contextlib.closing(client(standin)) as made:
        yield made


@pytest.fixture
def eastmoney(standin: StandinServer) -> Iterator[EastmoneySource]:
    url = standin.url
    with contextlib.closing(EastmoneySource(url, url, url, requests_per_second=1e6)) as made:
        yield made


def test_both_sources_say_the_same_of_every_fund_with_navs(
    source: TushareSource, eastmoney: EastmoneySource, market: Market
) -> None:
    ours = {row.fund_code: (row.nav_date, row.unit_nav, row.accum_nav) for row in source.latest()}
    theirs = {row.fund_code: (row.nav_date, row.unit_nav, row.accum_nav) for row in eastmoney.latest()}
    money = {fund.code for fund in market.funds if fund.money}
    assert money
    assert ours == {code: values for code, values in theirs.items() if code not in money}


def test_history_with_dividends(source: TushareSource, eastmoney: EastmoneySource, market: Market) -> None:
    owner = max(range(len(market.funds)), key=lambda fund: _dividends(market, fund))
    code = market.funds[owner].code
    ours, theirs = source.history(code), eastmoney.history(code)
    assert [(row.nav_date, row.unit_nav, row.dividend) for row in ours] == [
        (row.nav_date, row.unit_nav, row.dividend) for row in theirs
    ]
    assert sum(row.dividend is not None for row in ours) == _dividends(market, owner) > 0
    part = source.history(code, date(2025, 11, 3), date(2025, 11, 28))
    assert part == [
        row for row in ours if row.nav_date and date(2025, 11, 3) <= row.nav_date <= date(2025, 11, 28)
    ]


def _dividends(market: Market, fund: int) -> int:
    low, high = market.offsets[fund], market.offsets[fund + 1]
    return sum(low <= row < high and event.dividend is not None for row, event in market.events.items())


def test_many_histories_events_and_indices(
    source: TushareSource, eastmoney: EastmoneySource, market: Market
) -> None:
    money = next(fund.code for fund in market.funds if fund.money)
    etf = next(fund.code for fund in market.funds if fund.exchange)
    found = dict(source.histories([etf, money, "999999"], DAY, DAY))
    assert {code: len(rows) for code, rows in found.items()} == {etf: 1, money: 0, "999999": 0}
    since = date(2025, 10, 1)
    assert set(source.events(since, DAY)) == {n for n in eastmoney.events(since, DAY) if n.kind == "dividend"}
    for code in ("000300", "000985"):
        assert source.index_closes(code, since, DAY) == eastmoney.index_closes(code, since, DAY)
    with pytest.raises(UnknownFund):
        source.history("999999")
    with pytest.raises(UnknownFund):
        source.index_closes("600519", None, DAY)
    with pytest.raises(UsageError):
        source.history(etf, DAY, since)


def test_the_fund_list(source: TushareSource, standin: StandinServer, market: Market) -> None:
    funds = {fund.fund_code: fund for fund in source.fund_list()}
    assert len(funds) == len(market.funds)
    standin.add_fault("delisted", fund_codes=["000001"])
    with contextlib.closing(client(standin)) as later:
        gone = next(fund for fund in later.fund_list() if fund.fund_code == "000001")
    assert (funds["000001"].purchase, gone.purchase) == (None, "终止")
    assert gone.inception == funds["000001"].inception


def test_capped_replies_are_read_to_their_end(standin: StandinServer, market: Market) -> None:
    with contextlib.closing(client(standin)) as source:
        whole = source.latest()
        standin.add_fault("page_cap", path="fund_nav", times=None, rows=100)
        standin.requests.clear()
        assert source.latest() == whole
    assert standin.requests["/dataapi/fund_nav"] >= 10 * 3


def test_a_server_that_cuts_and_cannot_page_is_truncated() -> None:
    rows = [["000001.OF"]] * 100

    class Same(TushareSource):
        def _ask(self, api: str, params: dict[str, Any], fields: tuple[str, ...]) -> Any:
            return parse_table(
                json.dumps({"code": 0, "data": {"fields": ["ts_code"], "items": rows}}).encode(), fields
            )

    found = pytest.raises(SourceUnavailable, match="truncated at 100 rows")
    with contextlib.closing(Same(TOKEN, "http://127.0.0.1:1")) as source, found:
        source._rows("fund_nav", {}, ("ts_code",))


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        (40203, "抱歉，您每分钟最多访问该接口80次，权限的具体详情访问：…", SourceUnavailable),
        (40203, "抱歉，您没有访问该接口的权限", SourceRefused),
        (-2002, "抱歉，您没有权限访问该接口", SourceRefused),
        (2002, "权限不足", SourceRefused),
        (40101, "您的token不对，请确认。", SourceRefused),
        (50101, "服务器异常", SourceUnavailable),
    ],
)
def test_refusals_are_typed(standin: StandinServer, code: int, message: str, error: type[Exception]) -> None:
    standin.add_fault("code", path="index_daily", code=code, msg=message)
    with contextlib.closing(client(standin)) as source, pytest.raises(error, match=str(code)):
        source.latest()


def test_a_rate_limit_is_waited_out(standin: StandinServer) -> None:
    standin.add_fault("code", path="fund_nav", times=3)
    pauses: list[float] = []
    with contextlib.closing(client(standin, attempts=6, sleep=pauses.append)) as source:
        assert source.latest()
    assert [pause > 0.9 for pause in pauses].count(True) == 3


def test_the_token_is_in_no_message(standin: StandinServer) -> None:
    with contextlib.closing(client(standin, token="s3cr3t-t0ken")) as source:
        standin.add_fault("code", path="index_daily", code=1, msg="bad s3cr3t-t0ken")
        for _ in range(2):
            with pytest.raises((SourceRefused, SourceUnavailable)) as caught:
                source.latest()
            assert "s3cr3t" not in str(caught.value)
            assert caught.value.__cause__ is None
        assert "s3cr3t" not in source.provenance


@pytest.mark.parametrize(
    "reply",
    [
        {"code": 0, "data": None},
        {"code": 0, "data": {"fields": ["ts_code"], "items": []}},
        {"code": 0, "data": {"fields": ["ts_code", "close"], "items": [["000300.SH"]]}},
    ],
)
def test_another_format_is_changed(reply: dict[str, Any]) -> None:
    with pytest.raises(SourceChanged):
        parse_table(json.dumps(reply).encode(), ("ts_code", "close"))


def test_added_and_moved_columns_are_found_by_name() -> None:
    data = {"fields": ["new", "close", "ts_code"], "items": [[1, 2.0, "000300.SH"]]}
    reply = json.dumps({"code": 0, "msg": "", "data": data}).encode()
    assert parse_table(reply, ("ts_code", "close")).rows == [["000300.SH", 2.0]]


def test_the_setting(standin: StandinServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVKEEPER_SOURCE", "tushare")
    with pytest.raises(ConfigurationError, match="NAVKEEPER_TUSHARE_TOKEN"):
        make_source(load_settings())
    monkeypatch.setenv("NAVKEEPER_TUSHARE_TOKEN", "s3cr3t t0ken")
    monkeypatch.setenv("NAVKEEPER_TUSHARE_URL", standin.url)
    settings = load_settings()
    assert settings.secrets() == ["s3cr3t t0ken"]
    assert "s3cr3t" not in repr(settings)
    with contextlib.closing(make_source(settings)) as source, pytest.raises(SourceRefused):
        source.latest()
