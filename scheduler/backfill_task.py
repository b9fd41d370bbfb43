"""backfill_nav: the histories of many funds, fetched, judged and merged a portion of whole funds at a time.

Every portion is merged in a transaction of its own, fenced by the run's claim, which also marks its funds as done.
A further attempt, and a new run of the same parameters after one that did not end well, asks only for the others.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, func, or_, select

from core import db
from core.crash_points import reached
from core.errors import NotReady, UnknownFund, UsageError
from core.fund_category import CATEGORIES, fund_category
from core.schema import backfilled_fund, job_run, nav_batch
from scheduler.cluster import histories_of
from scheduler.job import ENDED_BADLY, RunStatus
from scheduler.pace import Pace
from scheduler.sources import make_source
from scheduler.task_params import SourceParams
from scheduler.task_parts import RULES_FILE, calendar_of, merged_status
from scheduler.wording import duration

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from core.collector import Histories, History
    from core.data_pipeline import NavResult
    from core.history import HistoryMerger
    from core.sources.base import FundInfo, Source
    from scheduler.run_context import RunContext

TASK = "backfill_nav"
CONTINUED_WITHIN = timedelta(days=7)
CONTINUED = ENDED_BADLY | {RunStatus.PARTIAL}  # a PARTIAL one leaves marks only where funds could not be had
COLLECT_AFTER = 100_000  # objects
NAMED = 5  # funds named in a reason
COUNTS = ("total", "inserted", "revised", "unchanged", "quarantined", "repeated")


class BackfillParams(SourceParams):
    fund_codes: tuple[str, ...] | None = None  # all
    fund_type: str | None = None  # those whose published type begins so, or of this category
    start: date | None = None
    end: date | None = None
    unless_stored: bool = False  # nothing to do where `start` is stored as fully as the session before it


@dataclass
class Tally:
    """What came of the portions so far."""

    codes: Sequence[str]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    got: set[str] = field(default_factory=set)
    empty: int = 0

    def add(self, history: History, result: NavResult | None) -> None:
        self.got |= history.row_counts.keys()
        self.empty += history.empty
        for name in COUNTS if result is not None else ():
            self.counts[name] += getattr(result, name)

    @property
    def missing(self) -> list[str]:
        """Funds that the source could not give."""
        return [code for code in self.codes if code not in self.got]


def backfill_nav(context: RunContext, params: BackfillParams) -> None:
    """Histories of all funds, of one type or of those named; only of those that are not done yet."""
    from core import nav_store

    if (
        params.unless_stored
        and params.start is not None
        and not _begun(context)
        and _stored(context, params.start)
    ):
        with context.commit() as commit:
            commit.end(RunStatus.SUCCESS, 0, "filled already")
        return
    source = make_source(context.settings, params.source)
    try:
        funds = source.fund_list()
        wanted = wanted_codes(funds, params)
        with context.transaction() as connection:
            nav_store.save_funds(connection, funds, context.now())
            root, done = _continued(connection, context, params)
        if root != context.run_id:
            context.log.info("continues run %d: %s", root, _share(wanted, done))
        codes = [code for code in wanted if code not in done]
        with histories_of(context, source, codes) as histories:
            tally = fill(
                context,
                source,
                codes,
                params.start,
                params.end,
                root=root,
                done_before=len(wanted) - len(codes),
                histories=histories,
            )
        _finish(context, params, tally, root, wanted, done)
    finally:
        source.close()


def wanted_codes(funds: Iterable[FundInfo], params: BackfillParams) -> list[str]:
    """The codes meant, sorted unless they were named. Raises UnknownFund, UsageError for an unknown type."""
    types = {fund.fund_code: fund.fund_type for fund in funds}
    unknown = sorted(set(params.fund_codes or ()) - types.keys())
    if unknown:
        raise UnknownFund(f"the source knows no fund {', '.join(unknown[:NAMED])}; check the code")
    codes = list(dict.fromkeys(params.fund_codes or sorted(types)))
    return codes if params.fund_type is None else of_type(types, codes, params.fund_type)


def of_type(types: Mapping[str, str], codes: Iterable[str], wanted: str) -> list[str]:
    """Those of `codes` whose published type begins with `wanted`, or whose category it is. Raises UsageError."""
    if wanted in CATEGORIES:
        return [code for code in codes if fund_category(types[code]) == wanted]
    if not any(kind.startswith(wanted) for kind in types.values()):
        known = ", ".join(sorted({kind for kind in types.values() if kind}))
        raise UsageError(
            f"there is no fund type {wanted!r}; there are {known}; and the categories {', '.join(CATEGORIES)}"
        )
    return [code for code in codes if types[code].startswith(wanted)]


def _share(wanted: Sequence[str], done: set[str]) -> str:
    return f"{len(done.intersection(wanted)):,} of {len(wanted):,} funds are done"


def _continued(connection: Connection, context: RunContext, params: BackfillParams) -> tuple[int, set[str]]:
    """The run that this back-fill began with, and the funds that are done since."""
    from core.history_store import funds_done

    own = funds_done(connection, context.run_id)
    if own:
        return context.run_id, own
    runs = job_run.c
    earlier = connection.execute(
        select(runs.id, runs.status, runs.params, runs.finished_at)
        .where(
            runs.task == TASK, runs.id < context.run_id, runs.finished_at > context.now() - CONTINUED_WITHIN
        )
        .order_by(runs.id.desc())
    )
    mine = connection.execute(select(runs.task).where(runs.id == context.run_id)).scalar()
    for run in earlier if mine == TASK else ():
        if not _same(run.params, params):
            continue
        if RunStatus(run.status) not in CONTINUED:
            break
        done = funds_done(connection, run.id)
        if done:
            return run.id, done
    return context.run_id, set()


def _same(text: str, params: BackfillParams) -> bool:
    known = BackfillParams.model_fields.keys()
    found = json.loads(text)
    return found.keys() <= known and BackfillParams.model_validate_json(text) == params


def fill(
    context: RunContext,
    source: Source,
    codes: Sequence[str],
    start: date | None,
    end: date | None,
    *,
    root: int | None,
    done_before: int = 0,
    histories: Histories | None = None,
) -> Tally:
    """Fetch, judge and merge the histories of these funds. `root`: the run under which they are marked as done."""
    from core.collector import FundCollector
    from core.history import HistoryMerger
    from core.thresholds import load_thresholds

    collector = FundCollector(context.engine, source)
    thresholds = load_thresholds(RULES_FILE)
    merger = HistoryMerger(context.engine, thresholds, calendar_of(context), source.name, context.run_id)
    tally, pace, total = Tally(codes), Pace(), done_before + len(codes)

    def arrived(funds: int, code: str) -> None:
        done = done_before + len(tally.got) + funds
        left = pace.seconds_left(context.now(), done, total)
        context.progress(done, total, funds_left(left, context), code)

    with rare_collections():
        for history in collector.collect_history(codes, start, end, arrived, histories):
            tally.add(history, _merge(context, merger, history, source.provenance, root))
    return tally


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for cyclic garbage less often: millions of rows come and go, and none of them is any.

    By default that search takes a third of the time in which pages are parsed.
    """
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def funds_left(seconds: float | None, context: RunContext) -> str:
    """What progress counts, and how long the rest will take."""
    if seconds is None:
        return "funds"
    _ = context.translate
    return _("funds, {left} left").format(left=duration(seconds, _))


def _merge(
    context: RunContext, merger: HistoryMerger, history: History, provenance: str, root: int | None
) -> NavResult | None:
    """Judge a portion, then merge it and mark its funds in one transaction, only while the run is ours."""
    from core.history_store import mark_done

    checked = merger.check(history.rows, context.now()) if history.rows else None
    reached("history.judged")
    with context.transaction() as connection:
        now = context.now()
        result = merger.merge(connection, checked, provenance, now) if checked is not None else None
        if root is not None:
            mark_done(connection, root, history.row_counts, now)
        reached("history.marked")
    reached("history.merged")
    return result


def _finish(
    context: RunContext,
    params: BackfillParams,
    tally: Tally,
    root: int,
    wanted: Sequence[str],
    done: set[str],
) -> None:
    """End the run: complete, or PARTIAL with the marks kept, so that a new run takes only what is missing."""
    from core.thresholds import load_thresholds

    context.details["backfill"] = tally.counts | {
        "funds": len(tally.got),
        "funds_without_rows": tally.empty,
        "funds_done_before": len(wanted) - len(tally.codes),
        "funds_missing": len(tally.missing),
    }
    missing = tally.missing
    if not tally.counts["total"] and not missing and wanted and len(tally.codes) == len(wanted):
        raise NotReady("the source has no rows for these funds and dates")
    with db.read(context.engine) as connection:
        total, merged = _merged_by(connection, context.run_id)
    status, reason = RunStatus.SUCCESS, None
    if total:
        held = total - merged - tally.counts["repeated"]
        status, reason = merged_status(merged, held, total, load_thresholds(RULES_FILE).share_quarantined)
    if tally.empty > len(tally.got) / 2 and params.start is None and status is RunStatus.SUCCESS:
        status, reason = RunStatus.PARTIAL, f"{tally.empty} of {len(tally.got)} funds gave no rows"
    if missing:
        status = RunStatus.PARTIAL
        named = ", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")
        reason = (
            f"{len(missing):,} of {len(wanted):,} funds could not be had: {named}; run it again for those"
        )
    if root != context.run_id:
        reason = "; ".join(filter(None, (f"continued run {root}: {_share(wanted, done)}", reason)))
    with context.commit() as commit:
        _forget(commit.connection, context, root if not missing and status is not RunStatus.FAILED else None)
        commit.end(status, merged, reason)
        if merged:
            about = {"business_date": context.business_date.isoformat(), "batch_id": None}
            counts = {"inserted": merged, "revised": 0}
            context.publish(commit.connection, "data.nav.merged", about | counts)


def _forget(connection: Connection, context: RunContext, root: int | None) -> None:
    """Marks that nothing will go on from: of the back-fill that is complete, and of those that are too old."""
    mine = select(job_run.c.id).where(job_run.c.task == TASK)
    too_old = backfilled_fund.c.merged_at < context.now() - CONTINUED_WITHIN
    old = and_(backfilled_fund.c.run_id.in_(mine), too_old)
    connection.execute(delete(backfilled_fund).where(or_(backfilled_fund.c.run_id == root, old)))


def named(codes: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(codes[:NAMED]) + (", …" if len(codes) > NAMED else "")


def _begun(context: RunContext) -> bool:
    """Whether an earlier attempt of this run has merged anything: then it is gone on with."""
    from core.history_store import funds_done

    with db.read(context.engine) as connection:
        return bool(funds_done(connection, context.run_id))


def _merged_by(connection: Connection, run_id: int) -> tuple[int, int]:
    """Rows of the batches of a run, and how many of them were believed, over all its attempts."""
    mine = (nav_batch.c.run_id == run_id, nav_batch.c.kind == "history", nav_batch.c.status == "MERGED")
    query = select(func.sum(nav_batch.c.row_count), func.sum(nav_batch.c.merged_count)).where(*mine)
    total, merged = connection.execute(query).one()
    return int(total or 0), int(merged or 0)


def _stored(context: RunContext, day: date) -> bool:
    from core.nav_days import row_count
    from core.schema import fund_nav
    from core.thresholds import load_thresholds

    before = calendar_of(context).previous_session(day)
    with db.read(context.engine) as connection:
        found = row_count(connection, fund_nav, day)
        usual = row_count(connection, fund_nav, before)
    return found > 0 and found >= load_thresholds(RULES_FILE).share_of_last_session * usual
