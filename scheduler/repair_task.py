"""repair_history: a night's bounded share of holes in stored history is asked for again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from core import db
from core.schema import backfilled_fund, job_run
from scheduler.backfill_task import fill, named
from scheduler.job import RunStatus
from scheduler.sources import make_source
from scheduler.task_params import SourceParams
from scheduler.task_parts import calendar_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from core.history_gaps import Gap
    from scheduler.run_context import RunContext

TASK = "repair_history"
ASKED_AGAIN_AFTER = timedelta(days=30)  # what the source does not have today it may have in a month


class RepairParams(SourceParams):
    max_funds: int = 200  # a night: forty seconds at five requests a second
    sessions: int = 400  # looked back


def repair_history(context: RunContext, params: RepairParams) -> None:
    """Find holes, newest first, ask the source for them, and remember which funds it could not mend."""
    from core.history_gaps import find_gaps, still_missing

    looked_at = calendar_of(context).between(
        context.business_date - timedelta(days=2 * params.sessions), context.business_date
    )[-params.sessions :]
    with db.read(context.engine) as connection:
        gaps = find_gaps(connection, looked_at)
        asked = _asked(connection, context)
    news = [gap for gap in gaps if len(gap.days) > asked.get(gap.fund_code, 0)]
    chosen = news[: params.max_funds]
    context.log.info("%d funds have holes, %d were not asked for lately", len(gaps), len(news))
    if not chosen:
        with context.commit() as commit:
            _forget(commit.connection, context)
            commit.end(
                RunStatus.SUCCESS, 0, f"{len(gaps)} funds have holes, all asked for lately" if gaps else None
            )
        return
    source = make_source(context.settings, params.source)
    try:
        days = [day for gap in chosen for day in gap.days]
        codes = [gap.fund_code for gap in chosen]
        tally = fill(context, source, codes, min(days), max(days), root=None)
    finally:
        source.close()
    with context.commit() as commit:
        left = still_missing(commit.connection, chosen)
        _forget(commit.connection, context)
        _remember(commit.connection, context, [gap for gap in left if gap.fund_code in tally.got])
        still = sum(len(gap.days) for gap in left)
        reason = f"{len(days) - still} of {len(days)} missing sessions of {len(codes)} funds filled"
        if len(news) > len(chosen):
            reason += f"; {len(news) - len(chosen)} funds wait for the next night"
        if tally.missing:
            reason += f"; {len(tally.missing)} could not be had: {named(tally.missing)}"
        commit.end(
            RunStatus.PARTIAL if tally.missing else RunStatus.SUCCESS, tally.counts["inserted"], reason
        )


def _asked(connection: Connection, context: RunContext) -> dict[str, int]:
    """Funds that were asked for lately, and how many sessions they lacked afterwards."""
    marks = backfilled_fund.c
    query = (
        select(marks.fund_code, func.max(marks.row_count))
        .join(job_run, job_run.c.id == marks.run_id)
        .where(job_run.c.task == TASK, marks.merged_at > context.now() - ASKED_AGAIN_AFTER)
        .group_by(marks.fund_code)
    )
    return dict(connection.execute(query).all())


def _forget(connection: Connection, context: RunContext) -> None:
    """What was asked for long ago."""
    repairs = select(job_run.c.id).where(job_run.c.task == TASK)
    old = backfilled_fund.c.merged_at <= context.now() - ASKED_AGAIN_AFTER
    connection.execute(delete(backfilled_fund).where(backfilled_fund.c.run_id.in_(repairs), old))


def _remember(connection: Connection, context: RunContext, left: list[Gap]) -> None:
    """Funds whose holes the source could not fill: the same ones need not be asked for tomorrow."""
    records = [
        {
            "run_id": context.run_id,
            "fund_code": gap.fund_code,
            "row_count": len(gap.days),
            "merged_at": context.now(),
        }
        for gap in left
    ]
    if records:
        connection.execute(insert(backfilled_fund), records)
