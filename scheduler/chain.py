"""Runs that need other runs: they wait, are blocked, are released. A clock gap is never the dependency."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from core import db
from core.crash_points import reached
from scheduler import run_store
from scheduler.job import DONE_WELL, PENDING, Job, RunStatus
from scheduler.leadership import Leadership

log = logging.getLogger(__name__)
Decision = tuple[RunStatus, str | None]


def decide(job: Job, waited: timedelta, upstream: Mapping[str, RunStatus | None]) -> Decision:
    """What becomes of a WAITING or BLOCKED run of `job`, given the state of each job it needs.

    `upstream`: the state of the run that counts for the same business date, None if there is none.
    A failure blocks; a later success of the failed run releases. Waiting ends after job.wait_hours.
    """
    late = waited > timedelta(hours=job.wait_hours)
    for need, status in upstream.items():
        if status is RunStatus.SKIPPED:
            return RunStatus.SKIPPED, f"{need} was skipped"
    for need, status in upstream.items():
        if status is not None and status not in DONE_WELL and status not in PENDING:
            blocked = f"{need} is {status.value}"
            return (
                (RunStatus.SKIPPED, f"{blocked} after {job.wait_hours:g} h")
                if late
                else (RunStatus.BLOCKED, blocked)
            )
        if status is RunStatus.BLOCKED and not late:
            return RunStatus.BLOCKED, f"{need} is BLOCKED"
    waiting = [need for need, status in upstream.items() if status not in DONE_WELL]
    if not waiting:
        return RunStatus.QUEUED, None
    if late:
        return RunStatus.SKIPPED, f"{waiting[0]} did not finish within {job.wait_hours:g} h"
    return RunStatus.WAITING, f"waiting for {', '.join(waiting)}"


Upstream = dict[str, Row[Any] | None]


def release_waiting(leader: Leadership, jobs: Mapping[str, Job], now: datetime) -> None:
    """Move the runs that wait for others, as far as the others let them."""
    moves: list[tuple[Row[Any], Decision, Upstream]] = []
    seen: dict[tuple[str, date], Row[Any] | None] = {}
    with db.read(leader.engine) as connection:
        for run in run_store.runs_in(connection, RunStatus.WAITING, RunStatus.BLOCKED):
            job = jobs.get(run.job_id)
            if job is None:
                continue
            for need in job.needs:
                if (need, run.business_date) not in seen:
                    seen[need, run.business_date] = run_store.deciding_run(
                        connection, need, run.business_date
                    )
            upstream = {need: seen[need, run.business_date] for need in job.needs}
            states = {need: RunStatus(other.status) if other else None for need, other in upstream.items()}
            waited = now - run.queued_at - timedelta(seconds=run.absent_seconds)
            decision = decide(job, waited, states)
            if decision[0].value != run.status:
                moves.append((run, decision, upstream))
    if not moves:
        return
    with leader.write() as connection:
        for run, (status, reason), upstream in moves:
            run_store.move(connection, run.id, RunStatus(run.status), status, now, reason)
            log.info("run %d: %s is %s%s", run.id, run.job_id, status.value, f": {reason}" if reason else "")
            for other in upstream.values():
                if status is RunStatus.BLOCKED and other is not None and _stands_in_the_way(other):
                    why = f"{other.job_id} is {other.status}; what needs it for {other.business_date} waits"
                    mark = f"chain_blocked:{other.id}:{other.attempt}"
                    run_store.note_alert(connection, other, "chain_blocked", mark, why, now)
        reached("release.moved")
    reached("release.committed")


def _stands_in_the_way(run: Row[Any]) -> bool:
    """The first of a blocked chain: it ended badly itself, so that one alert names it and not each that waits."""
    status = RunStatus(run.status)
    return status not in DONE_WELL and status not in PENDING
