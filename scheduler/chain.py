"""Runs that need other runs: they wait, are blocked, are released. A clock gap is never the dependency."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from core import db
from core.crash_points import reached
from scheduler import run_alerts, run_store
from scheduler.job import DONE_WELL, PENDING, Job, RunStatus
from scheduler.leadership import Leadership

log = logging.getLogger(__name__)
GIVEN_UP_FOR_GOOD = timedelta(days=10)
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


class _Upstreams:
    """The runs that decide, each looked up once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen: dict[tuple[str, date], Row[Any] | None] = {}

    def of(self, job: Job, day: date) -> Upstream:
        for need in job.needs:
            if (need, day) not in self._seen:
                self._seen[need, day] = run_store.deciding_run(self._connection, need, day)
        return {need: self._seen[need, day] for need in job.needs}


def release_waiting(leader: Leadership, jobs: Mapping[str, Job], now: datetime) -> None:
    """Move the runs that wait for others, as far as the others let them."""
    moves: list[tuple[Row[Any], Decision, Upstream]] = []
    with db.read(leader.engine) as connection:
        upstreams = _Upstreams(connection)
        for run in run_store.runs_in(connection, RunStatus.WAITING, RunStatus.BLOCKED):
            job = jobs.get(run.job_id)
            if job is None:
                moves.append((run, (RunStatus.SKIPPED, "its job is no longer in the jobs file"), {}))
                continue
            upstream = upstreams.of(job, run.business_date)
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
                    if run_store.note_alert(connection, other, "chain_blocked", mark, why, now):
                        run_alerts.note_blocked(connection, other, why, now)
        reached("release.moved")
    reached("release.committed")


def release_given_up(leader: Leadership, jobs: Mapping[str, Job], now: datetime) -> None:
    """Queue runs that were SKIPPED, waiting too long, if what they need has succeeded since."""
    chained = [job.id for job in jobs.values() if job.needs]
    with db.read(leader.engine) as connection:
        upstreams = _Upstreams(connection)
        late = [
            run
            for run in run_store.skipped_since(connection, now - GIVEN_UP_FOR_GOOD, chained)
            if _done_after(run, upstreams.of(jobs[run.job_id], run.business_date))
        ]
    if not late:
        return
    with leader.write() as connection:
        for run in late:
            why = "what it needs succeeded after all"
            run_store.move(
                connection, run.id, RunStatus.SKIPPED, RunStatus.QUEUED, now, why, finished_at=None
            )
            log.info("run %d: %s is QUEUED: %s", run.id, run.job_id, why)


def _done_after(run: Row[Any], upstream: Upstream) -> bool:
    others = [other for other in upstream.values() if other is not None and other.status in DONE_WELL]
    return len(others) == len(upstream) and any(other.finished_at > run.finished_at for other in others)


def _stands_in_the_way(run: Row[Any]) -> bool:
    """The first of a blocked chain: it ended badly itself, so that one alert names it and not each that waits."""
    status = RunStatus(run.status)
    return status not in DONE_WELL and status not in PENDING
