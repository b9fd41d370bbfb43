"""The market plugin: five refreshes beside the nights. The domain is core/market, schedules config/market_jobs.toml."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from core import db
from core.errors import ConfigurationError, NavKeeperError, NotReady, SourceError, UsageError
from core.market.migrations import MIGRATIONS
from core.market.tables import market_risk, metadata
from scheduler.plugin import Params, Plugin, Task, TaskResult

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from core.sources.eastmoney_http import EastmoneyHttp
    from scheduler.run_context import RunContext

LONGEST_REASON = 1000
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
        missing = ", ".join(scores[0].missing)
        raise NotReady(
            f"too little is known for {days[0]}: {missing}; first run the jobs market.macro and reference"
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


def _each(
    context: RunContext, parts: list[tuple[str, Callable[[], Any]]]
) -> tuple[list[tuple[str, Any]], list[str]]:
    """What each part gave, and why others gave nothing; raises where all of them failed."""
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
    if errors and len(errors) == len(parts):
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
            "market.macro",
            "Macro figures",
            "CPI, PPI, PMI, money, LPR, Shibor; FRED series with your key",
            MacroParams,
            macro,
            "market_macro",
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
