"""The market plugin: five refreshes beside the nights. The domain is core/market, schedules config/market_jobs.toml."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from sqlalchemy import insert, select

from core import db
from core.errors import ConfigurationError, NavKeeperError, NotReady, SourceError, UsageError
from core.market.migrations import MIGRATIONS
from core.market.tables import (
    market_fundamental,
    market_index_bar,
    market_news,
    market_risk,
    market_technical,
    metadata,
)
from core.trading_calendar import SHANGHAI
from scheduler.plugin import Params, Plugin, Task, TaskResult

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from core.sources.eastmoney_http import EastmoneyHttp
    from scheduler.run_context import RunContext

LONGEST_REASON = 1000
SHOWN = 5
NEWS_KEPT = timedelta(
    days=30
)  # as core.retention has it: what is older would be cleaned up, and be new again
NEWS_TOLD = 20
QUICK_NEWS = (
    "https://np-weblist.eastmoney.com/comm/web/getFastNewsList"
    "?client=web&biz=web_724&fastColumn=102&sortEnd=&pageSize=200&req_trace=1"
)
FundCode = Annotated[str, Field(pattern=r"^[0-9]{6}$")]
Write = Callable[["Connection"], None]


class MacroParams(Params):
    fred_series: tuple[str, ...] = ()  # ids such as DGS10, with the secret fred_api_key
    datacenter_url: str = "https://datacenter-web.eastmoney.com"
    fred_url: str = "https://api.stlouisfed.org"
    requests_per_second: float = Field(2.0, gt=0, le=1000)


def macro(context: RunContext, params: MacroParams) -> TaskResult:
    """CPI, PPI, PMI, money, LPR and Shibor from Eastmoney, other series from FRED: each by itself."""
    from core.market.macro import REPORTS, save_figures
    from core.sources.eastmoney_http import http_client

    http = http_client(params.datacenter_url, requests_per_second=params.requests_per_second)
    parts = [(each.series[0].name, partial(_report, context, http, params, each)) for each in REPORTS]
    parts += [(f"fred:{name}", partial(_fred, context, params, name)) for name in params.fred_series]
    try:
        fetched, reasons = _each(context, parts)
    finally:
        http.close()
    now = context.now()
    found = {"new": 0, "changed": 0}

    def write(connection: Connection) -> None:
        for name, figures in fetched:
            source = "fred" if name.startswith("fred:") else "eastmoney"
            new, changed = save_figures(connection, figures, now, source)
            found["new"] += new
            found["changed"] += changed
        context.log.info("macro: %d new values, %d corrected", found["new"], found["changed"])

    return _result(sum(len(figures) for _name, figures in fetched), reasons, write)


def _report(context: RunContext, http: EastmoneyHttp, params: MacroParams, asked: Any) -> Any:
    from core.market.macro import ASKED_AGAIN, fetch_report, newest_period

    with db.read(context.engine) as connection:
        newest = newest_period(connection, [series.name for series in asked.series])
    return fetch_report(http, params.datacenter_url, asked, newest and newest - ASKED_AGAIN)


def _fred(context: RunContext, params: MacroParams, name: str) -> Any:
    from core.market import fred
    from core.market.macro import ASKED_AGAIN, newest_period
    from core.sources.eastmoney_http import http_client

    key = context.secret("fred_api_key")
    with db.read(context.engine) as connection:
        newest = newest_period(connection, [f"fred:{name}"])
    rate = min(fred.REQUESTS_PER_SECOND, params.requests_per_second)
    http = http_client(params.fred_url, requests_per_second=rate, headers=fred.HEADERS)
    try:
        return fred.fetch_series(http, params.fred_url, key, name, newest and newest - ASKED_AGAIN)
    finally:
        http.close()


class RiskParams(Params):
    days: int = Field(1, ge=1, le=366)  # the business date and so many days up to it


def risk(context: RunContext, params: RiskParams) -> TaskResult:
    """The macro risk score of the business date; a day whose figures changed is replaced, and told."""
    from core.market.risk_score import as_row, score
    from core.market.store import save

    days = [context.business_date - timedelta(days=back) for back in range(params.days)]
    scores = []
    for number, day in enumerate(days, 1):
        with db.read(context.engine) as connection:
            scores.append(score(connection, day))
        context.progress(number, len(days), "days")
    known = [found for found in scores if found.score is not None]
    if not known:
        lacking = ", ".join(scores[0].missing)
        raise NotReady(
            f"too little is known for {days[0]}: {lacking}; first run the jobs market.macro and reference"
        )
    now = context.now()

    def write(connection: Connection) -> None:
        for found in reversed(known):
            row = as_row(found) | {"calculated_at": now}
            if save(connection, market_risk, [row], "calculated_at"):
                payload = {"as_of": found.as_of.isoformat(), "score": found.score, **found.dimensions}
                context.publish(connection, "market.risk", payload)

    missing = sorted({what for found in known for what in found.missing})
    reasons = [f"without {', '.join(missing)}"] if missing else []
    newest = known[0]
    data = {"as_of": newest.as_of.isoformat(), "score": newest.score, **newest.dimensions}
    return _result(len(known), reasons, write, data)


class TechnicalParams(Params):
    fund_codes: tuple[FundCode, ...] = ()  # watched, beside those that the holdings plugin has orders for
    indexes: tuple[FundCode, ...] = ("000300", "000985")
    days: int = Field(90, ge=1, le=90)  # so far back rows are stored; older ones are cleaned up
    quote_url: str = "https://push2his.eastmoney.com"
    requests_per_second: float = Field(2.0, gt=0, le=1000)


def technical(context: RunContext, params: TechnicalParams) -> TaskResult:
    """Indicators of funds held and watched, and of indexes, whose bars are asked for first."""
    from core.market import technical as prices
    from core.market.store import save
    from core.sources.eastmoney_http import http_client

    day, now = context.business_date, context.now()
    since = day - timedelta(days=params.days)
    http = http_client(params.quote_url, requests_per_second=params.requests_per_second)
    parts = [(f"index:{code}", partial(_bars, context, http, params, code)) for code in params.indexes]
    try:
        fetched, reasons = _each(context, parts, needed=False)
    finally:
        http.close()
    bars = [bar._asdict() | {"fetched_at": now} for _name, found in fetched for bar in found]
    with db.read(context.engine) as connection:
        funds = sorted({*params.fund_codes, *prices.held_funds(connection)})
    if not funds and not params.indexes:
        raise NotReady(
            "there is nothing to look at: name fund_codes or indexes, or turn the holdings plugin on"
        )
    with context.transaction() as connection:  # the indicators look at all bars, and hold no lock meanwhile
        changed = save(connection, market_index_bar, bars, "fetched_at")
    context.log.info("technical: %d bars of indexes are new or changed", changed)
    rows: list[dict[str, Any]] = []
    without = []
    looked_at: list[tuple[str, str, Callable[..., Any]]]
    looked_at = [(f"index:{code}", code, prices.index_prices) for code in params.indexes]
    looked_at += [(code, code, prices.fund_prices) for code in funds]
    for name, code, of in looked_at:
        with db.read(context.engine) as connection:
            found = of(connection, code, day)
        rows += prices.rows_of(name, found, since, now)
        without += [] if found.days else [name]
    reasons += [f"no prices of {', '.join(without[:SHOWN])}"] if without else []

    def write(connection: Connection) -> None:
        changed = save(connection, market_technical, rows, "calculated_at")
        context.log.info("technical: %d of %d rows are new or changed", changed, len(rows))

    return _result(len(rows), reasons, write)


def _bars(context: RunContext, http: EastmoneyHttp, params: TechnicalParams, code: str) -> Any:
    from core.market.technical import fetch_bars, newest_bar

    with db.read(context.engine) as connection:
        newest = newest_bar(connection, code)
    return fetch_bars(http, params.quote_url, code, newest, context.business_date)


class FundamentalParams(Params):
    fund_codes: tuple[FundCode, ...] = ()  # watched, beside those that the holdings plugin has orders for
    fund_url: str = "https://fund.eastmoney.com"
    requests_per_second: float = Field(1.0, gt=0, le=1000)


def fundamentals(context: RunContext, params: FundamentalParams) -> TaskResult:
    """Size, fees, managers and holdings as they stand now, under the date (Shanghai) of the reading; a page a fund."""
    from core.market.fundamentals import fetch_fundamentals
    from core.market.store import save
    from core.market.technical import held_funds
    from core.sources.eastmoney_http import http_client

    with db.read(context.engine) as connection:
        funds = sorted({*params.fund_codes, *held_funds(connection)})
    if not funds:
        return TaskResult(
            0, "SKIPPED", "no fund is watched or held: name fund_codes, or turn the holdings plugin on"
        )
    http = http_client(params.fund_url, requests_per_second=params.requests_per_second)
    try:
        parts = [(code, partial(fetch_fundamentals, http, params.fund_url, code)) for code in funds]
        fetched, reasons = _each(context, parts)
    finally:
        http.close()
    now = context.now()
    as_of = now.astimezone(SHANGHAI).date()
    rows = [found | {"as_of": as_of, "fetched_at": now} for _code, found in fetched]

    def write(connection: Connection) -> None:
        save(connection, market_fundamental, rows, "fetched_at")

    return _result(len(rows), reasons, write)


class NewsParams(Params):
    feeds: tuple[str, ...] = (QUICK_NEWS,)  # addresses of RSS, Atom, or Eastmoney's JSON
    requests_per_second: float = Field(1.0, gt=0, le=1000)


def news(context: RunContext, params: NewsParams) -> TaskResult:
    """What the feeds have and the last days' news do not tell: judged, kept, and told as one event."""
    from core.market.feeds import fetch_entries
    from core.market.news import as_row, fresh
    from core.sources.eastmoney_http import http_client

    if not params.feeds:
        raise UsageError("feeds is empty: name the address of at least one")
    now = context.now()
    http = http_client(*params.feeds, requests_per_second=params.requests_per_second)
    try:
        parts = [(_host(url), partial(fetch_entries, http, url, now)) for url in params.feeds]
        fetched, reasons = _each(context, parts)
    finally:
        http.close()
    oldest = now - NEWS_KEPT
    sources = {
        entry: host
        for host, entries in reversed(fetched)
        for entry in entries
        if entry.published_at >= oldest
    }

    def write(connection: Connection) -> None:
        known = select(market_news.c.title).where(market_news.c.published_at >= oldest)
        found = fresh(sources, connection.execute(known).scalars())
        rows = [as_row(entry, sources[entry], now) for entry in found]
        if rows:
            connection.execute(insert(market_news), rows)
            context.publish(connection, "market.news", _told(rows))
        context.log.info("news: %d of %d entries are new", len(rows), len(sources))

    return _result(len(sources), reasons, write)


def _told(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The event: how many, and the weightiest of them."""
    first = sorted(rows, key=lambda row: (-row["importance"], row["published_at"]))[:NEWS_TOLD]
    names = ("title", "link", "importance", "mood")
    items = [
        {name: row[name] for name in names}
        | {"classes": row["classes"].split(), "published_at": row["published_at"].isoformat()}
        for row in first
    ]
    return {"new": len(rows), "items": items}


def _host(url: str) -> str:
    return urlsplit(url).hostname or "?"


def _each(
    context: RunContext, parts: Sequence[tuple[str, Callable[[], Any]]], *, needed: bool = True
) -> tuple[list[tuple[str, Any]], list[str]]:
    """What each part gave, and why others gave nothing; raises where all failed and are `needed`."""
    found: list[tuple[str, Any]] = []
    errors: list[NavKeeperError] = []
    reasons = []
    for number, (name, fetch) in enumerate(parts, 1):
        try:
            found.append((name, fetch()))
        except (SourceError, UsageError, ConfigurationError) as error:
            context.log.warning("%s: %s: %s", name, error.code, error)
            errors.append(error)
            reasons.append(f"{name}: {error.code}: {error}")
        context.progress(number, len(parts), "lists")
    if needed and errors and len(errors) == len(parts):
        raise next((error for error in errors if error.retry), errors[0])
    return found, reasons


def _result(records: int, reasons: list[str], write: Write, data: dict[str, Any] | None = None) -> TaskResult:
    return TaskResult(
        records,
        "PARTIAL" if reasons else "SUCCESS",
        "; ".join(reasons)[:LONGEST_REASON] or None,
        data or {},
        write,
    )


PLUGIN = Plugin(
    id="market",
    version="1.0",
    name="Market",
    description="Technical indicators, fundamentals, macro figures, news, and a macro risk score",
    tasks=(
        Task(
            "market.technical",
            "Technical indicators",
            "SMA, EMA, RSI, MACD, Bollinger, ATR of funds held and watched, and of indexes",
            TechnicalParams,
            technical,
            "market_technical",
        ),
        Task(
            "market.fundamentals",
            "Fundamentals",
            "Size, fees, managers and holdings of funds held and watched",
            FundamentalParams,
            fundamentals,
            "market_fundamental",
        ),
        Task(
            "market.macro",
            "Macro figures",
            "CPI, PPI, PMI, money, LPR, Shibor; FRED series with your key",
            MacroParams,
            macro,
            "market_macro",
        ),
        Task(
            "market.news",
            "News",
            "Entries of feeds, classified, scored, each once",
            NewsParams,
            news,
            "market_news",
        ),
        Task(
            "market.risk",
            "Macro risk score",
            "Five dimensions from macro figures and the CSI 300, 0 to 100",
            RiskParams,
            risk,
            "market_risk",
        ),
    ),
    tables=metadata,
    migrations=MIGRATIONS,
)
