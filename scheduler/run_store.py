"""SQL on runs, their events, the daemon's row and the calendar the daemon needs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from core.db import new_id
from core.errors import ClaimLost
from core.schema import daemon, data_update_log, job_run, run_event
from scheduler.job import PENDING, TRANSITIONS, RunStatus
from scheduler.process_identity import Process

BY_SCHEDULE = "schedule"
TEXT = 1000


def add_run(
    connection: Connection,
    *,
    job_id: str,
    task: str,
    business_date: date,
    status: RunStatus,
    now: datetime,
    scheduled_for: datetime | None = None,
    params: dict[str, Any] | None = None,
    requested_by: str = BY_SCHEDULE,
    reason: str | None = None,
) -> int | None:
    """Insert a run; None if this fire of the job has one already (a UNIQUE constraint says so)."""
    values = {
        "job_id": job_id,
        "task": task,
        "business_date": business_date,
        "scheduled_for": scheduled_for,
        "params": json.dumps(params or {}),
        "status": status.value,
        "reason": reason,
        "requested_by": requested_by,
        "queued_at": now,
        "finished_at": now if status not in PENDING else None,
    }
    try:
        with connection.begin_nested():
            run_id = new_id(connection.execute(insert(job_run).values(values)))
    except IntegrityError:
        return None
    _note(connection, run_id, None, status, reason, now)
    return run_id


def _note(
    connection: Connection,
    run_id: int,
    old: RunStatus | None,
    new: RunStatus,
    reason: str | None,
    now: datetime,
) -> None:
    connection.execute(
        insert(run_event).values(
            run_id=run_id,
            at=now,
            from_status=old and old.value,
            to_status=new.value,
            reason=reason and reason[:TEXT],
        )
    )


def move(
    connection: Connection,
    run_id: int,
    old: RunStatus,
    new: RunStatus,
    now: datetime,
    reason: str | None = None,
    fence: str | None = None,
    **values: Any,
) -> bool:
    """Change a run's state if it still is in `old` (and claimed by `fence`); whether it was.

    The only place that writes job_run.status after insertion.
    """
    if new not in TRANSITIONS[old]:
        raise ValueError(f"a run cannot go from {old} to {new}")
    mine = and_(job_run.c.id == run_id, job_run.c.status == old.value)
    if fence is not None:
        mine = and_(mine, job_run.c.claim == fence)
    changes = values | {"status": new.value, "reason": reason and reason[:TEXT]}
    if new not in PENDING:
        changes |= {"finished_at": now, "active_key": None}
    done = connection.execute(update(job_run).where(mine).values(changes)).rowcount == 1
    if done:
        _note(connection, run_id, old, new, reason, now)
    return done


def claim_run(
    connection: Connection, run: Row[Any], process: Process, now: datetime, log_file: str | None = None
) -> str | None:
    """QUEUED -> RUNNING for this process; its claim, or None if the job runs already or another was faster."""
    claim = str(uuid.uuid4())
    try:
        with connection.begin_nested():
            done = move(
                connection,
                run.id,
                RunStatus.QUEUED,
                RunStatus.RUNNING,
                now,
                active_key=run.job_id,
                started_at=now,
                log_file=log_file,
                **_claimed_by(claim, process),
            )
    except IntegrityError:  # active_key: another run of the job is RUNNING
        return None
    return claim if done else None


def _claimed_by(claim: str, process: Process) -> dict[str, Any]:
    return {"host": process.host, "pid": process.pid, "pid_started": process.started} | {"claim": claim}


def hand_over(connection: Connection, run_id: int, claim: str, process: Process) -> bool:
    """The supervisor's claim now belongs to its child."""
    mine = and_(job_run.c.id == run_id, job_run.c.claim == claim, job_run.c.status == RunStatus.RUNNING.value)
    return connection.execute(update(job_run).where(mine).values(_claimed_by(claim, process))).rowcount == 1


def finish(
    connection: Connection,
    run: Row[Any],
    claim: str,
    status: RunStatus,
    now: datetime,
    *,
    table_name: str,
    record_count: int,
    reason: str | None,
) -> None:
    """A run's end and its data_update_log row, in the transaction of its data. Raises ClaimLost."""
    if not move(
        connection,
        run.id,
        RunStatus.RUNNING,
        status,
        now,
        reason,
        claim,
        record_count=record_count,
    ):
        raise ClaimLost(
            f"run {run.id} is no longer ours: it was declared dead or stopped; nothing was written"
        )
    log_update(connection, run, status, now, table_name=table_name, record_count=record_count, reason=reason)


LOG_STATUS = {RunStatus.SUCCESS: "SUCCESS", RunStatus.PARTIAL: "PARTIAL"}


def log_update(
    connection: Connection,
    run: Row[Any],
    status: RunStatus,
    now: datetime,
    *,
    table_name: str,
    record_count: int,
    reason: str | None,
) -> None:
    start = run.started_at or now
    connection.execute(
        insert(data_update_log).values(
            table_name=table_name,
            update_date=run.business_date,
            record_count=record_count,
            status=LOG_STATUS.get(status, "FAILURE"),
            error_msg=reason and reason[:TEXT],
            start_time=start,
            end_time=now,
            duration_seconds=(now - start).total_seconds(),
            run_id=run.id,
        )
    )


def get_run(connection: Connection, run_id: int) -> Row[Any] | None:
    return connection.execute(select(job_run).where(job_run.c.id == run_id)).one_or_none()


def runs_in(connection: Connection, *statuses: RunStatus) -> Sequence[Row[Any]]:
    """Runs in these states, oldest business date first."""
    return connection.execute(
        select(job_run)
        .where(job_run.c.status.in_([status.value for status in statuses]))
        .order_by(job_run.c.business_date, job_run.c.id)
    ).all()


def newest_run(connection: Connection, job_id: str, business_date: date) -> Row[Any] | None:
    """The run that decides for those that need `job_id`: a success if there is one, else the newest."""
    return connection.execute(
        select(job_run)
        .where(job_run.c.job_id == job_id, job_run.c.business_date == business_date)
        .order_by(
            job_run.c.status.in_([RunStatus.SUCCESS.value, RunStatus.PARTIAL.value]).desc(),
            job_run.c.id.desc(),
        )
        .limit(1)
    ).one_or_none()


def running_job(connection: Connection, job_id: str) -> Row[Any] | None:
    return connection.execute(select(job_run).where(job_run.c.active_key == job_id)).one_or_none()


def announce_daemon(connection: Connection, process: Process, now: datetime) -> None:
    """This process is the daemon from now on."""
    values = {
        "host": process.host,
        "pid": process.pid,
        "started_at": now,
        "heartbeat_at": now,
        "stopped_at": None,
    }
    if connection.execute(update(daemon).where(daemon.c.id == 1).values(values)).rowcount == 0:
        connection.execute(insert(daemon).values(id=1, **values))


def beat(connection: Connection, now: datetime) -> None:
    connection.execute(update(daemon).where(daemon.c.id == 1).values(heartbeat_at=now))


def daemon_stopped(connection: Connection, now: datetime) -> None:
    connection.execute(update(daemon).where(daemon.c.id == 1).values(heartbeat_at=now, stopped_at=now))
