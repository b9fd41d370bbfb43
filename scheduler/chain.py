"""Runs that need other runs, or fresh data: they wait, are blocked, released. A clock gap is never the dependency."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, select

from core import db
from core.crash_points import reached
from core.schema import data_update_log
from scheduler import run_alerts, run_store
from scheduler.condition import Need
from scheduler.job import DONE_WELL, PENDING, Job, RunStatus
from scheduler.leadership import Leadership

log = logging.getLogger(__name__)
GIVEN_UP_FOR_GOOD = timedelta(days=10)
Decision = tuple[RunStatus, str | None]
PLAIN = Need()


def decide(
    job: Job,
    waited: timedelta,
    upstream: Mapping[str, RunStatus | None],
    unmet: Mapping[str, str] | None = None,
    *,
    stale: bool = False,
) -> Decision:
    """What becomes of a WAITING or BLOCKED run of `job`, given the state of each job it needs.

    `upstream`: the state of the run that counts for the same business date, None if there is none. `unmet`: why the
    result of one that has ended is not as the job asks. `stale`: the table it needs has not been updated yet.
    A failure blocks; a later success of the failed run releases. Waiting ends after job.wait_hours.
    """
    late = waited > timedelta(hours=job.wait_hours)
    for need, status in upstream.items():
        why = _not_for_us(need, job.conditions.get(need, PLAIN), status) or (unmet or {}).get(need)
        if why:
            return RunStatus.SKIPPED, why
    for need, status in upstream.items():
        wanted = job.conditions.get(need, PLAIN)
        if status is not None and status not in wanted.accepted and status not in PENDING:
            blocked = f"{need} is {status.value}"
            return (
                (RunStatus.SKIPPED, f"{blocked} after {job.wait_hours:g} h")
                if late
                else (RunStatus.BLOCKED, blocked)
            )
        if status is RunStatus.BLOCKED and wanted.when in SUCCEEDED and not late:
            return RunStatus.BLOCKED, f"{need} is BLOCKED"
    waiting = [
        need
        for need, status in upstream.items()
        if status is None or status not in job.conditions.get(need, PLAIN).accepted
    ]
    waiting += [job.fresh] if stale and job.fresh else []
    if not waiting:
        return RunStatus.QUEUED, None
    if late:
        return RunStatus.SKIPPED, f"{waiting[0]} did not finish within {job.wait_hours:g} h"
    return RunStatus.WAITING, f"waiting for {', '.join(waiting)}"


SUCCEEDED = ("success", "partial")


def _not_for_us(need: str, wanted: Need, status: RunStatus | None) -> str | None:
    """Why a run that has ended for good means that this one is not meant: a holiday up there, the other branch."""
    if status is None or status in PENDING or status in wanted.accepted:
        return None
    if status is RunStatus.SKIPPED:
        return f"{need} was skipped"
    if status in DONE_WELL or wanted.when not in SUCCEEDED:
        return f"{need} is {status.value}; this is only for {wanted.when}"
    return None


Upstream = dict[str, Row[Any] | None]


def _unmet(job: Job, upstream: Upstream) -> dict[str, str]:
    """Of the runs that ended as the job asks: whose result is not as it asks, and why."""
    found = {}
    for need, wanted in job.conditions.items():
        run = upstream.get(need)
        if wanted.where is None or run is None or RunStatus(run.status) not in wanted.accepted:
            continue
        why = wanted.where.unmet(run.record_count, run.result)
        if why:
            found[need] = f"{need}: {why}"
    return found


def _states(upstream: Upstream) -> dict[str, RunStatus | None]:
    return {need: RunStatus(other.status) if other else None for need, other in upstream.items()}


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

    def decide(self, job: Job, day: date, waited: timedelta) -> tuple[Decision, Upstream]:
        upstream = self.of(job, day)
        stale = job.fresh is not None and not _is_updated(self._connection, job.fresh, day)
        return decide(job, waited, _states(upstream), _unmet(job, upstream), stale=stale), upstream


def release_waiting(
    leader: Leadership, jobs: Mapping[str, Job], now: datetime, broken: Collection[str] = ()
) -> None:
    """Move the runs that wait for others, as far as the others let them; those of `broken` jobs stay as they are."""
    moves: list[tuple[Row[Any], Decision, Upstream]] = []
    with db.read(leader.engine) as connection:
        upstreams = _Upstreams(connection)
        for run in run_store.runs_in(connection, RunStatus.WAITING, RunStatus.BLOCKED):
            job = jobs.get(run.job_id)
            if job is None and run.job_id in broken:
                continue
            if job is None:
                moves.append((run, (RunStatus.SKIPPED, "its job is no longer there"), {}))
                continue
            waited = now - run.queued_at - timedelta(seconds=run.absent_seconds)
            decision, upstream = upstreams.decide(job, run.business_date, waited)
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
            if _done_after(run, *upstreams.decide(jobs[run.job_id], run.business_date, timedelta()))
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


def _done_after(run: Row[Any], decision: Decision, upstream: Upstream) -> bool:
    """Whether it may go now because of something that succeeded since; a holiday's SKIPPED stays what it is."""
    others = [other for other in upstream.values() if other is not None and other.status in DONE_WELL]
    return decision[0] is RunStatus.QUEUED and any(other.finished_at > run.finished_at for other in others)


def _stands_in_the_way(run: Row[Any]) -> bool:
    """The first of a blocked chain: it ended badly itself, so that one alert names it and not each that waits."""
    status = RunStatus(run.status)
    return status not in DONE_WELL and status not in PENDING


def _is_updated(connection: Connection, table_name: str, business_date: date) -> bool:
    """Whether data_update_log has a success of the table for the date."""
    log = data_update_log.c
    done = and_(log.table_name == table_name, log.update_date == business_date, log.status == "SUCCESS")
    return connection.execute(select(log.id).where(done).limit(1)).first() is not None
