"""TASKS: what can be run, by name. The only bridge from the machinery to the domain.

The domain is imported inside the functions: the daemon and the dashboard know the names without
loading pandas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from core import db
from core.errors import BatchRejected, NotPublished, NotReady, UnknownFund, UsageError
from core.trading_calendar import TradingCalendar, load_calendar
from scheduler.job import RunStatus

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.settings import Settings
    from core.data_pipeline import DataPipeline
    from core.metrics_calculator import FundMetricsCalculator
    from core.sources.base import Source
    from scheduler.run_context import RunContext

RULES_FILE = Path(__file__).resolve().parents[1] / "config" / "rules.toml"


class Params(BaseModel):
    """Parameters of a task; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceParams(Params):
    source: str | None = None  # instead of the setting


class BackfillParams(SourceParams):
    fund_codes: tuple[str, ...] | None = None  # all
    start: date | None = None
    end: date | None = None
    unless_stored: bool = False  # nothing to do where `start` is stored as fully as the session before it


class ValidateParams(Params):
    force: bool = False  # merge although a gate refuses the batch


class MetricsParams(Params):
    fund_codes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Task:
    name: str
    function: Callable[[RunContext, Any], None]
    params: type[Params]
    table_name: str  # what data_update_log names


def make_source(settings: Settings, spec: str | None = None) -> Source:
    """The source named `spec` or by the settings: "eastmoney", or a file or folder."""
    wanted = spec or settings.source
    if wanted == "eastmoney":
        from core.sources.eastmoney import EastmoneySource

        return EastmoneySource(
            settings.eastmoney_fund_url,
            settings.eastmoney_api_url,
            requests_per_second=settings.requests_per_second,
            concurrency=settings.concurrency,
        )
    from core.sources.files import FilesSource

    return FilesSource(wanted)


def calendar_of(context: RunContext) -> TradingCalendar:
    with db.read(context.engine) as connection:
        calendar = load_calendar(connection)
    if calendar is None:
        raise NotReady("the trading calendar is empty; run: python main.py init")
    return calendar


def pipeline_for(engine: Engine, calendar: TradingCalendar) -> DataPipeline:
    from core.data_pipeline import DataPipeline
    from core.rules import load_thresholds

    return DataPipeline(engine, load_thresholds(RULES_FILE), calendar)


def calculator_for(engine: Engine, settings: Settings, calendar: TradingCalendar) -> FundMetricsCalculator:
    from core.metrics_calculator import FundMetricsCalculator
    from core.rules import load_thresholds

    return FundMetricsCalculator(
        engine,
        calendar,
        load_thresholds(RULES_FILE),
        risk_free=settings.risk_free_rate,
        periods_per_year=settings.periods_per_year,
    )


def collect_nav(context: RunContext, params: SourceParams) -> None:
    """The newest row of every fund, staged as one batch."""
    from core.collector import FundCollector, coverage, nothing_published
    from core.rules import load_thresholds

    calendar = calendar_of(context)
    source = make_source(context.settings, params.source)
    try:
        collector = FundCollector(context.engine, source)
        fetched = collector.fetch(context.business_date)
        if not fetched.advanced:
            if context.business_date in calendar.provisional:
                with context.commit() as commit:
                    commit.end(
                        RunStatus.SKIPPED, 0, f"no fund advanced: {context.business_date} was no trading day"
                    )
                return
            raise NotPublished(nothing_published(fetched))
        with context.commit() as commit:
            collector.stage(commit.connection, fetched, context.now(), context.run_id)
            advanced, before, share = coverage(commit.connection, fetched, calendar)
            needed = load_thresholds(RULES_FILE).share_of_last_session
            if share < needed:
                reason = f"{advanced} funds have published, {share:.0%} of the {before} of the session before"
                commit.end(RunStatus.PARTIAL, len(fetched.rows), reason)
            else:
                commit.end(RunStatus.SUCCESS, len(fetched.rows))
    finally:
        source.close()


def validate_nav(context: RunContext, params: ValidateParams) -> None:
    """Judge the night's staged batch and merge what can be believed."""
    from core import nav_store

    with db.read(context.engine) as connection:
        batch_id = nav_store.newest_batch(connection, context.business_date, "STAGED")
        merged = nav_store.newest_batch(connection, context.business_date, "MERGED")
    if batch_id is None and merged is not None:
        with context.commit() as commit:
            commit.end(RunStatus.SUCCESS, 0, f"nothing new since batch {merged}")
        return
    if batch_id is None and merged is None and context.was_done("backfill_nav"):
        with context.commit() as commit:
            commit.end(RunStatus.SUCCESS, 0, "filled from history, and judged there")
        return
    if batch_id is None:
        raise NotReady(f"nothing is staged for {context.business_date}; first run: python main.py nav")
    pipeline = pipeline_for(context.engine, calendar_of(context))
    checked = pipeline.check(batch_id, context.now(), force=params.force)
    with context.commit() as commit:
        result = pipeline.merge(commit.connection, checked, context.now())
        context.details["validation"] = result
        if not result.is_valid:
            commit.end(RunStatus.FAILED, 0, f"{BatchRejected.code}: {result.reason}; nothing was merged")
        else:
            status, reason = merged_status(
                result.merged, result.quarantined, result.total, pipeline.thresholds.share_quarantined
            )
            commit.end(status, result.merged, reason)


def merged_status(merged: int, held: int, total: int, share_allowed: float) -> tuple[RunStatus, str | None]:
    """FAILED where nothing could be believed, PARTIAL where more was held than is normal."""
    reason = f"{held} of {total} rows quarantined" if held else None
    if not merged:
        return RunStatus.FAILED, reason or "there was nothing to merge"
    return (RunStatus.PARTIAL if held > share_allowed * total else RunStatus.SUCCESS), reason


def calculate_metrics(context: RunContext, params: MetricsParams) -> None:
    """Metrics of all funds as of the business date."""
    from core.metrics_calculator import save_metrics

    rows = []
    for part in calculator_for(context.engine, context.settings, calendar_of(context)).calculate_market(
        context.business_date, params.fund_codes
    ):
        rows += part
        context.progress(len(rows), None, "funds")
    if not rows:
        raise NotReady(
            f"there are no NAVs up to {context.business_date}; collect some first: python main.py nav"
        )
    with context.commit() as commit:
        save_metrics(commit.connection, context.business_date, rows, params.fund_codes)
        commit.end(RunStatus.SUCCESS, len(rows))


def weekly_full_calc(context: RunContext, _params: Params) -> None:
    """Recalculate everything, clean expired staging rows, write the week's summary file."""
    from core import nav_store
    from core.metrics_calculator import save_metrics
    from core.weekly_summary import weekly_summary

    rows = []
    for part in calculator_for(context.engine, context.settings, calendar_of(context)).calculate_market(
        context.business_date
    ):
        rows += part
        context.progress(len(rows), None, "funds")
    if not rows:
        raise NotReady("there are no NAVs yet; collect some first: python main.py nav")
    expired = context.now() - timedelta(days=context.settings.staging_days)
    sessions = calendar_of(context).between(context.business_date - timedelta(days=6), context.business_date)
    folder = context.settings.logs / "weekly"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{context.business_date}.md"
    with context.commit() as commit:
        save_metrics(commit.connection, context.business_date, rows)
        removed = nav_store.delete_staging_before(commit.connection, expired)
        path.write_text(
            weekly_summary(commit.connection, sessions, removed, context.translate),
            encoding="utf-8",
        )
        commit.end(RunStatus.SUCCESS, len(rows))
    context.log.info("weekly summary: %s; %d staged rows removed", path, removed)


def backfill_nav(context: RunContext, params: BackfillParams) -> None:
    """Histories of many funds: staged, checked and merged a few hundred funds at a time.

    Every batch is merged in a transaction of its own; doing it again changes nothing, so a run that
    died is simply run again.
    """
    from core import nav_store
    from core.collector import FundCollector

    if params.unless_stored and params.start is not None and _stored(context, params.start):
        with context.commit() as commit:
            commit.end(RunStatus.SUCCESS, 0, "filled already")
        return
    source = make_source(context.settings, params.source)
    try:
        collector, pipeline = (
            FundCollector(context.engine, source),
            pipeline_for(context.engine, calendar_of(context)),
        )
        funds = source.fund_list()
        listed = {fund.fund_code for fund in funds}
        unknown = sorted(set(params.fund_codes or ()) - listed)
        if unknown:
            raise UnknownFund(f"the source knows no fund {', '.join(unknown[:5])}; check the code")
        codes = list(params.fund_codes or sorted(listed))
        with db.write(context.engine) as connection:
            nav_store.save_funds(connection, funds, context.now())
        total = dict.fromkeys(("total", "inserted", "revised", "unchanged", "quarantined", "repeated"), 0)
        done = empty = 0

        def arrived(funds: int) -> None:
            context.progress(done + funds, len(codes), "funds")

        history = collector.collect_history(
            codes, context.now(), params.start, params.end, context.run_id, arrived
        )
        for batch in history:
            result = pipeline.process_nav_data(batch.batch_id, context.now(), batch.rows)
            total = {name: count + getattr(result, name) for name, count in total.items()}
            done += batch.funds
            empty += batch.empty
        context.details["backfill"] = total | {"funds": done, "funds_without_rows": empty}
        if not total["total"]:
            raise NotReady("the source has no rows for these funds and dates")
        merged = total["inserted"] + total["revised"] + total["unchanged"]
        with context.commit() as commit:
            status, reason = merged_status(
                merged, total["quarantined"], total["total"], pipeline.thresholds.share_quarantined
            )
            if empty > done / 2 and params.start is None and status is RunStatus.SUCCESS:
                status, reason = RunStatus.PARTIAL, f"{empty} of {done} funds gave no rows"
            commit.end(status, merged, reason)
    finally:
        source.close()


def _stored(context: RunContext, day: date) -> bool:
    from core import nav_store
    from core.rules import load_thresholds

    before = calendar_of(context).previous_session(day)
    with db.read(context.engine) as connection:
        found = nav_store.published_count(connection, day)
        usual = nav_store.published_count(connection, before)
    return found > 0 and found >= load_thresholds(RULES_FILE).share_of_last_session * usual


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("collect_nav", collect_nav, SourceParams, "tmp_fund_nav"),
        Task("validate_nav", validate_nav, ValidateParams, "fund_nav"),
        Task("calculate_metrics", calculate_metrics, MetricsParams, "fund_metrics"),
        Task("weekly_full_calc", weekly_full_calc, Params, "fund_metrics"),
        Task("backfill_nav", backfill_nav, BackfillParams, "fund_nav"),
    )
}


def require_task(name: str) -> Task:
    """Raises UsageError naming the tasks there are."""
    if name not in TASKS:
        raise UsageError(f"unknown task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def table_of(name: str) -> str:
    """What data_update_log names for a task; an unknown task by its own name."""
    return TASKS[name].table_name if name in TASKS else name
