"""News: feeds as they may come, what tells the same, and the rules by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Engine

from core.errors import SourceChanged, SourceUnavailable, UsageError
from core.market.feeds import parse_feed
from core.market.news import Entry, Judged, digest, fresh, judge, same_news
from core.market.tables import market_news
from core.trading_calendar import SHANGHAI
from tests.market_run import Market
from tests.market_site import MarketSite, running

DAY = date(2026, 8, 3)
NOW = datetime(2026, 8, 3, 12, tzinfo=UTC)
RSS = """<?xml version="1.0" encoding="utf-8"?>
<rss version="2.0"><channel><title>x</title>
<item><title>央行宣布降准0.5个百分点</title><link>https://example.com/1</link>
<description>&lt;b&gt;释放&lt;/b&gt;流动性 {more}</description><pubDate>Mon, 03 Aug 2026 01:30:00 GMT</pubDate></item>
<item><title>某城投债展期</title><link>javascript:alert(1)</link></item>
</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>x</title><entry><title>沪指大涨</title>
<link href="https://example.com/2"/><updated>2026-08-03T10:00:00+08:00</updated></entry></feed>"""


def quick(*entries: tuple[str, str, str]) -> str:
    found = [
        {"code": code, "title": title, "summary": f"【{title}】", "showTime": at, "stockList": []}
        for code, title, at in entries
    ]
    return json.dumps({"code": "1", "message": "success", "data": {"sortEnd": "1", "fastNewsList": found}})


QUICK = quick(
    ("202608033000000001", "央行宣布降准0.5个百分点", "2026-08-03 09:31:00"),
    ("202608033000000002", "7月CPI同比上涨1.0%", "2026-08-03 09:30:00"),
    ("202608033000000003", "7月CPI同比上涨1.2%", "2026-08-03 09:29:00"),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[MarketSite]:
    with running(tmp_path) as found:
        found.pages = {"/quick": QUICK, "/rss": RSS, "/atom": ATOM}
        yield found


@pytest.fixture
def market(engine: Engine) -> Market:
    return Market(engine)


def run(market: Market, site: MarketSite, *paths: str, day: date = DAY, hour: int = 20) -> Any:
    feeds = tuple(site.url + path for path in paths)
    return market.do("news", day, hour, feeds=feeds, requests_per_second=1000)


def test_three_feeds_and_each_news_once(market: Market, site: MarketSite) -> None:
    result = run(market, site, "/quick?client=web&pageSize=200", "/rss", "/atom")
    assert (result.status, result.records) == ("SUCCESS", 6)
    assert site.asked[0] == ("/quick", {"client": "web", "pageSize": "200"})
    rows = {row.title: row for row in market.rows(market_news)}
    assert set(rows) == {
        *("央行宣布降准0.5个百分点", "7月CPI同比上涨1.0%", "7月CPI同比上涨1.2%", "某城投债展期", "沪指大涨")
    }
    cut = rows["央行宣布降准0.5个百分点"]
    assert cut.published_at == datetime(
        2026, 8, 3, 9, 30, tzinfo=SHANGHAI
    )  # the first of the two that tell it
    assert (cut.classes, cut.importance, cut.mood) == (" liquidity ", 80, 100)
    assert rows["某城投债展期"].link == ""
    assert rows["某城投债展期"].published_at == datetime(2026, 8, 3, 20, tzinfo=SHANGHAI)
    assert rows["7月CPI同比上涨1.0%"].link == "https://finance.eastmoney.com/a/202608033000000002.html"
    ((topic, payload),) = market.events
    assert (topic, payload["new"]) == ("market.news", 5)
    assert payload["items"][0]["title"] == "央行宣布降准0.5个百分点"
    json.dumps(payload)


def test_again_is_nothing_new(market: Market, site: MarketSite) -> None:
    run(market, site, "/quick", "/atom")
    rows = market.rows(market_news)
    run(market, site, "/quick", "/atom", hour=23)
    assert market.rows(market_news) == rows
    assert len(market.events) == 1
    site.pages["/quick"] = quick(("1", "【快讯】央行宣布:降准０.5个百分点!", "2026-08-03 22:00:00"))
    run(market, site, "/quick", hour=23)
    assert market.rows(market_news) == rows


def test_what_is_older_than_it_is_kept_does_not_come_back(market: Market, site: MarketSite) -> None:
    run(market, site, "/quick", day=DAY + timedelta(days=40))
    assert market.rows(market_news) == []


def test_one_feed_fails_alone(market: Market, site: MarketSite) -> None:
    site.replies["/rss"] = 200, b"<!DOCTYPE html><html><body>busy</body></html>"
    result = run(market, site, "/gone", "/atom")
    assert result.status == "PARTIAL"
    assert "127.0.0.1: source_changed" in result.reason
    assert [row.title for row in market.rows(market_news)] == ["沪指大涨"]
    with pytest.raises(UsageError):
        run(market, site)
    with pytest.raises(SourceChanged):
        run(market, site, "/gone")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", SourceUnavailable),
        (b"<!DOCTYPE html><html><body>busy</body></html>", SourceUnavailable),
        (b"not a feed", SourceUnavailable),
        (b'{"code":"-1","data":null}', SourceChanged),
        (b'{"code":"1","data":{"fastNewsList":{}}}', SourceChanged),
        (b'{"code":"1","data":{"fastNewsList":[{"title":"x"}]}}', SourceChanged),
        (
            b'{"code":"1","data":{"fastNewsList":[{"title":"x","code":"1","showTime":"today"}]}}',
            SourceChanged,
        ),
        (b'{"code":"1","data":{"fastNews', SourceUnavailable),
    ],
)
def test_what_is_no_feed_is_refused(body: bytes, error: Any) -> None:
    with pytest.raises(error):
        parse_feed(body, NOW)


def test_a_feed_cannot_reach_into_the_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden", encoding="utf-8")
    body = RSS.replace("<rss", f'<!DOCTYPE rss [<!ENTITY more SYSTEM "{secret.as_uri()}">]><rss').replace(
        "{more}", "&more;"
    )
    assert "hidden" not in str(parse_feed(body.encode(), NOW))
    bomb = '<!DOCTYPE rss [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 20}">' for n in range(8)
    )
    body = RSS.replace("<rss", bomb + "]><rss").replace("{more}", "&i;")
    assert len(str(parse_feed(body.encode(), NOW))) < 10_000


def test_rules_by_hand() -> None:
    def of(title: str, summary: str = "") -> Judged:
        return judge(Entry(title, summary, "", NOW))

    assert of("央行开展逆回购") == Judged(("liquidity",), 60, 0)
    # policy 60, and ten each for credit and fund, and twenty for an urgent word
    assert of("证监会立案调查", "旗下债券基金净值大跌") == Judged(("policy", "credit", "fund"), 100, -100)
    assert of("基金经理离任") == Judged(("fund", "manager"), 65, 0)
    assert of("今天天气不错") == Judged((), 10, 0)
    assert of("沪指上涨 港股下跌") == Judged(("equity",), 35, 0)
    assert of("cpi 回升,ppi 回落, 增长") == Judged(("macro",), 50, 33)  # two good, one bad


def test_the_same_told_in_other_words() -> None:
    assert (
        same_news("央行:8月3日开展1000亿元逆回购操作", "央行8月3日开展1000亿元7天期逆回购操作") is False
    )  # 7 is new
    assert same_news("央行8月3日开展1000亿元逆回购操作", "【快讯】央行 8月3日 开展1000亿元逆回购操作")
    assert not same_news("沪指涨0.5%", "沪指跌0.5%")
    assert not same_news("甲基金增聘张三为基金经理", "甲基金清盘")
    assert digest("ＣＰＩ 上涨1.0%") == digest("cpi上涨1.0")
    assert digest("上涨1.0") != digest("上涨10")


@given(
    st.lists(st.sampled_from([f"新闻标题第{n}号内容{chr(0x4E00 + n * 37)}" for n in range(12)]), max_size=30)
)
def test_fresh_keeps_one_of_each_whatever_the_order(titles: list[str]) -> None:
    entries = [Entry(title, "", "", NOW + timedelta(minutes=at)) for at, title in enumerate(titles)]
    found = fresh(entries, [])
    assert [entry.title for entry in found] == list(dict.fromkeys(titles))
    assert fresh(entries, [entry.title for entry in found]) == []
    assert fresh(reversed(entries), []) == found
