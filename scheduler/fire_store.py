"""SQL on fires: which of a job have a run."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, func, select, update

from core.schema import job_run
from scheduler import run_store
from scheduler.job import DONE_WELL, PENDING, RunStatus
from scheduler.retry import RetryPolicy


def fires_recorded(connection: Connection, job_id: str, since: datetime) -> set[datetime]:
    """The fires of a job after `since` that have a run, whatever became of it."""
    query = select(job_run.c.scheduled_for).where(job_run.c.job_id == job_id, job_run.c.scheduled_for > since)
    return set(connection.execute(query).scalars())


def last_fire(connection: Connection, job_id: str, now: datetime) -> datetime | None:
    """The newest fire of a job up to `now` that has a run."""
    mine = and_(job_run.c.job_id == job_id, job_run.c.scheduled_for <= now)
    return connection.execute(select(func.max(job_run.c.scheduled_for)).where(mine)).scalar()


def undo_future(connection: Connection, now: datetime, spared: Collection[str]) -> int:
    """Runs of fires that have not come yet, queued by a clock that was ahead: their fires are free again.

    What ran and succeeded stays. `spared`: jobs that start before their time on purpose. Returns their number.
    """
    future = and_(
        job_run.c.scheduled_for > now,
        job_run.c.job_id.not_in(spared),
        job_run.c.status.not_in([status.value for status in (*DONE_WELL, RunStatus.RUNNING)]),
    )
    runs = connection.execute(select(job_run).where(future)).all()
    for run in runs:
        if run.status in PENDING:
            why = "queued by a clock that was ahead"
            run_store.move(connection, run.id, RunStatus(run.status), RunStatus.CANCELLED, now, why)
        connection.execute(update(job_run).where(job_run.c.id == run.id).values(scheduled_for=None))
    held = and_(job_run.c.status == RunStatus.QUEUED.value, job_run.c.not_before > now)
    for run in connection.execute(select(job_run).where(held)).all():
        policy = RetryPolicy.from_json(run.retry_policy or "{}")
        if run.not_before > now + timedelta(seconds=policy.cap_seconds):
            connection.execute(update(job_run).where(job_run.c.id == run.id).values(not_before=now))
    return len(runs)
