"""What the fund tasks do (scheduler.fund_plugin names them): the bridge from the machinery to the domain.

The domain is imported inside the functions: the daemon and the dashboard know the names without
loading pandas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from core import db
from core.crash_points import reached
from core.errors import BatchRejected, NavKeeperError, NotPublished, NotReady
from core.schema import fund_metrics
from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler import run_store
from scheduler.backfill_task import BackfillParams, backfill_nav
from scheduler.cluster import measure_everything
from scheduler.job import DONE_WELL, ENDED_BADLY, PENDING, RunStatus
from scheduler.retry import RetryPolicy
from scheduler.sources import make_source
from scheduler.task_params import InstantText, Params, SourceParams
from scheduler.task_parts import RULES_FILE, calendar_of, merged_status

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row

    from config.settings import Settings
    from core.collector import Fetched, FundCollector
    from core.data_pipeline import DataPipeline, NavResult
    from core.metrics_calculator import FundMetricsCalculator
    from scheduler.run_context import Commit, RunContext

GIVEN_UP = ENDED_BADLY - {RunStatus.CANCELLED}  # what a sweep tries again; somebody's will is respected
FUNDS_NAMED = 2000  # of more changed funds than this the whole market is recalculated
RECALCULATION = RetryPolicy(attempts=4, base_seconds=30)


class ValidateParams(Params):
    force: bool = False  # merge although a gate refuses the batch


class MetricsParams(Params):
    fund_codes: tuple[str, ...] | None = None
    as_of: InstantText | None = None  # from what was known then


def pipeline_for(engine: Engine, calendar: TradingCalendar) -> DataPipeline:
    from core.data_pipeline import DataPipeline
    from core.thresholds import load_thresholds

    return DataPipeline(engine, load_thresholds(RULES_FILE), calendar)


def calculator_for(engine: Engine, settings: Settings, calendar: TradingCalendar) -> FundMetricsCalculator:
    from core.metrics_calculator import FundMetricsCalculator
    from core.thresholds import load_thresholds

    return FundMetricsCalculator(
        engine,
        calendar,
        load_thresholds(RULES_FILE),
        risk_free=settings.risk_free_rate,
        periods_per_year=settings.periods_per_year,
        mirror=settings.home / "mirror",
    )


def collect_nav(context: RunContext, params: SourceParams) -> None:
    """The newest row of every fund, staged as one batch."""
    from core.collector import FundCollector, coverage, nothing_published
    from core.thresholds import load_thresholds

    calendar = calendar_of(context)
    source = make_source(context.settings, params.source)
    try:
        collector = FundCollector(context.engine, source)
        fetched = collector.fetch(context.business_date)
        reached("collect.fetched")
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
            reached("collect.staged")
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
    reached("validate.checked")
    with context.commit() as commit:
        result = pipeline.merge(commit.connection, checked, context.now())
        context.details["validation"] = result
        if not result.is_valid:
            commit.end(RunStatus.FAILED, 0, f"{BatchRejected.code}: {result.reason}; nothing was merged")
        else:
            status, reason = merged_status(
                result.merged, result.quarantined, result.total, pipeline.thresholds.share_quarantined
            )
            commit.end(*_with_gates(status, result, reason))
        publish_merge(context, commit.connection, result)
    _report(context)


def publish_merge(context: RunContext, connection: Connection, result: NavResult) -> None:
    """What a merge did; what was released comes as a batch of its own."""
    day = {"business_date": context.business_date.isoformat()}
    look = result.second_look
    if result.is_valid and result.merged:
        counts = {"batch_id": result.batch_id, "inserted": result.inserted, "revised": result.revised}
        context.publish(connection, "data.nav.merged", day | counts)
    if result.quarantined:
        held = {"batch_id": result.batch_id, "rows": result.quarantined}
        context.publish(connection, "quality.quarantined", day | held)
    if look.released:
        context.publish(connection, "quality.released", day | {"rows": len(look.released)})


def publish_metrics(context: RunContext, connection: Connection, funds: int) -> None:
    payload = {"business_date": context.business_date.isoformat(), "funds": funds}
    context.publish(connection, "data.metrics.calculated", payload)


def _with_gates(
    status: RunStatus, result: NavResult, reason: str | None
) -> tuple[RunStatus, int, str | None]:
    """A night in which a whole category is behind is PARTIAL; what was released from quarantine is said."""
    said = [reason] if reason else []
    if result.second_look.released:
        said.append(f"rows released from quarantine: {len(result.second_look.released)}")
    said += result.shortfalls
    if result.shortfalls and status is RunStatus.SUCCESS:
        status = RunStatus.PARTIAL
    return status, result.merged, "; ".join(said)[:1000] or None


def _report(context: RunContext) -> None:
    """The night's evidence as a page; what is proved is committed already, so a full disk costs only the page."""
    from scheduler.quality_page import write_report

    try:
        path = write_report(
            context.engine, context.business_date, context.settings.logs / "quality", context.translate
        )
    except (OSError, NavKeeperError) as error:
        context.log.warning("the quality report could not be written: %s", error)
    else:
        context.log.info("quality report: %s", path)


def calculate_metrics(context: RunContext, params: MetricsParams) -> None:
    """Metrics of all funds as of the business date, from what is known now or was known at an instant."""
    from core import rank_store
    from core.metrics_store import save_metrics

    calculator = calculator_for(context.engine, context.settings, calendar_of(context))
    found = calculator.calculate_market(context.business_date, params.fund_codes, as_of=params.as_of)
    then = f"as known at {params.as_of.astimezone(SHANGHAI).isoformat()}" if params.as_of else None
    if not found.codes and then:
        raise NotReady(f"there are no NAVs up to {context.business_date}, {then}")
    if not found.codes:
        raise NotReady(
            f"there are no NAVs up to {context.business_date}; collect some first: python main.py nav"
        )
    context.progress(len(found.codes), len(found.codes), "funds")
    reached("metrics.calculated")
    with context.commit() as commit:
        if params.fund_codes is None:
            rank_store.save_market(commit.connection, found)
        else:
            save_metrics(commit.connection, context.business_date, found.rows(), params.fund_codes)
            rank_store.rank_stored(commit.connection, context.business_date)
        commit.end(RunStatus.SUCCESS, len(found.codes), then)
        publish_metrics(context, commit.connection, len(found.codes))


def weekly_full_calc(context: RunContext, _params: Params) -> None:
    """Everything again, straight from the database, held against the nights'; old metrics go; the week's report."""
    from core import fund_series, nav_days, nav_store, rank_store
    from core.metrics_store import delete_metrics_before, differing

    calculator = calculator_for(context.engine, context.settings, calendar_of(context))
    found = measure_everything(context, calculator)
    if not found.codes:
        raise NotReady("there are no NAVs yet; collect some first: python main.py nav")
    context.progress(len(found.codes), len(found.codes), "funds")
    oldest = context.business_date - timedelta(days=context.settings.metrics_days)
    with context.commit() as commit:
        others = differing(commit.connection, found)
        rank_store.save_market(commit.connection, found)
        thinned = delete_metrics_before(commit.connection, oldest)
        nav_store.lock_merges(commit.connection)
        days, funds = nav_days.recount(commit.connection), fund_series.recount(commit.connection)
        commit.end(RunStatus.SUCCESS, len(found.codes))
        publish_metrics(context, commit.connection, len(found.codes))
    if others:
        context.log.warning(
            "the metrics of %d funds were not what their NAVs give, %s first: replaced",
            len(others),
            others[0],
        )
    for table in days:
        if days[table] or funds[table]:
            context.log.warning(
                "%s was changed by other hands on %d dates, of %d funds: counted anew",
                *(table, days[table], funds[table]),
            )
    context.log.info("%d old metrics removed", thinned)
    _report_week(context)


def _report_week(context: RunContext) -> None:
    """The week as a page and as Markdown; all is committed already, so a full disk costs only these."""
    from scheduler.weekly_page import write_weekly

    try:
        path = write_weekly(
            context.engine,
            calendar_of(context),
            context.business_date,
            context.settings.logs / "weekly",
            context.translate,
        )
    except (OSError, NavKeeperError) as error:
        context.log.warning("the weekly report could not be written: %s", error)
    else:
        context.log.info("weekly report: %s", path)


def sweep_nav(context: RunContext, params: SourceParams) -> None:
    """Once more for a night that was collected: what is new or changed since is judged and merged, nothing else.

    A night that was not, or whose batch was refused, gets another chance. A date that the whole-market pages
    have left is filled from history where it is stored thinly. While the night's own runs are at work the sweep
    leaves them alone: the next one comes.
    """
    from core import nav_store

    day = context.business_date
    past = calendar_of(context).newest_business_date(context.now()) > day
    with db.read(context.engine) as connection:
        collect, validate = (run_store.deciding_run(connection, job, day) for job in ("collect", "validate"))
        merged = nav_store.newest_batch(connection, day, "MERGED") is not None
        running = run_store.runs_in(connection, RunStatus.RUNNING)
    earlier = [run for run in running if (run.task, run.business_date) == ("sweep_nav", day)]
    reason = sweep_obstacle(_status(collect), _status(validate), merged=merged or past)
    if any(run.id < context.run_id for run in earlier):
        reason = "another sweep of this date is at work"
    if reason is None and past:
        backfill_nav(context, BackfillParams(source=params.source, start=day, end=day, unless_stored=True))
    elif reason is None and collect is not None and RunStatus(collect.status) in DONE_WELL:
        _sweep(context, params, None if merged else validate)
    else:
        with context.commit() as commit:
            if reason is None and collect is not None:
                reason = f"collect was {collect.status}; it is tried again"
                run_store.try_again(commit.connection, collect, "a sweep tries it again", context.now())
            commit.end(RunStatus.SKIPPED, 0, reason)


def sweep_obstacle(collect: RunStatus | None, validate: RunStatus | None, *, merged: bool) -> str | None:
    """Why a night in this state cannot be swept now, or None. `merged`: whether anything of it is."""
    if collect is None or collect not in DONE_WELL | GIVEN_UP:
        return f"collect is {collect.value}" if collect else "there is no run of collect for this date"
    if collect in GIVEN_UP or (validate in GIVEN_UP or (merged and validate not in PENDING)):
        return None
    return f"validate is {validate.value}" if validate else "there is no run of validate for this date"


def _status(run: Row[Any] | None) -> RunStatus | None:
    return RunStatus(run.status) if run is not None else None


def _sweep(context: RunContext, params: SourceParams, refused: Row[Any] | None) -> None:
    """`refused`: the night's run of validate where it merged nothing."""
    from core import nav_store
    from core.collector import FundCollector, nothing_published

    pipeline = pipeline_for(context.engine, calendar_of(context))
    source = make_source(context.settings, params.source)
    try:
        collector = FundCollector(context.engine, source)
        fetched = collector.fetch(context.business_date)
        reached("sweep.fetched")
        if refused is not None and not fetched.advanced:
            raise NotPublished(nothing_published(fetched))
        with context.commit() as commit:
            nav_store.lock_merges(commit.connection)  # a sweep that was faster has made its news known
            if refused is None:
                _merge_news(context, commit, collector, pipeline, fetched)
            elif run_store.try_again(commit.connection, refused, "a sweep collected anew", context.now()):
                collector.stage(commit.connection, fetched, context.now(), context.run_id)
                rows = f"{len(fetched.rows)} rows were collected anew"
                commit.end(RunStatus.SUCCESS, 0, f"validate was {refused.status}; {rows}")
            else:
                commit.end(RunStatus.SKIPPED, 0, "validate is at work")
    finally:
        source.close()


def _merge_news(
    context: RunContext, commit: Commit, collector: FundCollector, pipeline: DataPipeline, fetched: Fetched
) -> None:
    """Stage, judge and merge the rows that are new or changed, in the run's last transaction."""
    from core import nav_store

    connection, now = commit.connection, context.now()
    news = nav_store.unseen_rows(connection, fetched.business_date, fetched.rows)
    if not news:
        commit.end(RunStatus.SUCCESS, 0, "nothing new")
        return
    batch_id = collector.stage(connection, replace(fetched, rows=news), now, context.run_id, kind="sweep")
    result = pipeline.merge(connection, pipeline.check(batch_id, now, news, within=connection), now)
    changed = sorted({*nav_store.changed_funds(connection, batch_id), *result.second_look.funds})
    recalculate(connection, context.business_date, now, changed, run_store.BY_SWEEP)
    many = pipeline.thresholds.share_quarantined * len(fetched.rows)  # of the night, not of a handful of rows
    status = RunStatus.PARTIAL if result.quarantined > many else RunStatus.SUCCESS
    reason = f"{result.quarantined} of {result.total} new rows quarantined" if result.quarantined else None
    commit.end(status, result.inserted + result.revised, reason)
    publish_merge(context, connection, result)


def recalculate(
    connection: Connection, business_date: date, now: datetime, funds: Sequence[str], requested_by: str
) -> int | None:
    """Queue the metrics of these funds, unless the night's own calculation is still to come; the run, if any."""
    metrics = run_store.deciding_run(connection, "metrics", business_date)
    if not funds or _status(metrics) not in DONE_WELL | {RunStatus.QUEUED, RunStatus.RUNNING}:
        return None
    return run_store.add_run(
        connection,
        job_id="metrics",
        task="calculate_metrics",
        business_date=business_date,
        status=RunStatus.QUEUED,
        now=now,
        params={"fund_codes": list(funds)} if len(funds) <= FUNDS_NAMED else {},
        requested_by=requested_by,
        reason=f"{len(funds)} funds changed",
        retry=RECALCULATION,
    )


def recalculate_newest(
    connection: Connection, now: datetime, funds: Sequence[str], requested_by: str
) -> int | None:
    """As `recalculate`, for the newest date that metrics were calculated for."""
    newest = connection.scalar(select(func.max(fund_metrics.c.calc_date)))
    return None if newest is None else recalculate(connection, newest, now, funds, requested_by)
