"""SQL on runs, their events, the daemon's row and the calendar the daemon needs."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.db import new_id
from core.errors import AlreadyRunning
from core.schema import daemon, data_update_log, job_run, run_attempt, run_event
from scheduler.job import DONE_WELL, PENDING, TRANSITIONS, RunStatus
from scheduler.process_identity import Process
from scheduler.retry import RetryPolicy, next_attempt

BY_SCHEDULE = "schedule"
TEXT = 1000
LEASE = timedelta(seconds=60)  # how long a silent daemon of another host still counts as alive


@dataclass(frozen=True)
class End:
    """How an attempt ended. `retry`: whether trying again may help."""

    status: RunStatus
    record_count: int = 0
    reason: str | None = None
    retry: bool = False
    exit_code: int | None = None
    peak_memory_kb: int | None = None


GONE = End(RunStatus.INTERRUPTED, 0, "its process is gone", retry=True)


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
    retry: RetryPolicy | None = None,
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
        "retry_policy": json.dumps(asdict(retry)) if retry else None,
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
                attempt=run.attempt + 1,
                first_started_at=run.first_started_at or now,
                started_at=now,
                beat_at=now,
                not_before=None,
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


def end_run(
    connection: Connection,
    run: Row[Any],
    end: End,
    now: datetime,
    *,
    claim: str | None,
    table_name: str,
) -> bool:
    """End the running attempt of `run`: its attempt row, then its next attempt or its data_update_log row.

    All in the caller's transaction. False, and nothing written, if the run is not RUNNING under `claim`
    any more: it was declared dead, cancelled or ended by another.
    """
    current = get_run(connection, run.id)
    done = current is not None and move(
        connection,
        run.id,
        RunStatus.RUNNING,
        end.status,
        now,
        end.reason,
        claim,
        record_count=end.record_count,
        exit_code=end.exit_code,
        peak_memory_kb=end.peak_memory_kb,
    )
    if not done or current is None:
        return False
    connection.execute(
        insert(run_attempt).values(
            run_id=run.id,
            attempt=current.attempt,
            status=end.status.value,
            started_at=current.started_at,
            finished_at=now,
            reason=end.reason and end.reason[:TEXT],
            exit_code=end.exit_code,
            log_file=current.log_file,
            peak_memory_kb=end.peak_memory_kb,
        )
    )
    again = _next_attempt(current, end, now)
    if again is not None:
        why = f"attempt {current.attempt} was {end.status.value}: {end.reason}"
        move(connection, run.id, end.status, RunStatus.QUEUED, now, why, not_before=again, finished_at=None)
    elif end.status is not RunStatus.SKIPPED:  # a day without trading is no failed update
        log_update(connection, current, end, now, table_name=table_name)
    return True


def _next_attempt(run: Row[Any], end: End, now: datetime) -> datetime | None:
    if not end.retry or end.status not in RETRIED or run.retry_policy is None:
        return None
    policy = RetryPolicy(**json.loads(run.retry_policy))
    return next_attempt(policy, run.attempt, run.first_started_at, now, random.SystemRandom().random())


RETRIED = frozenset({RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.INTERRUPTED})
LOG_STATUS = {RunStatus.SUCCESS: "SUCCESS", RunStatus.PARTIAL: "PARTIAL"}


def log_update(connection: Connection, run: Row[Any], end: End, now: datetime, *, table_name: str) -> None:
    """The run's row in data_update_log; its time runs from the first attempt."""
    start = run.first_started_at or now
    connection.execute(
        insert(data_update_log).values(
            table_name=table_name,
            update_date=run.business_date,
            record_count=end.record_count,
            status=LOG_STATUS.get(end.status, "FAILURE"),
            error_msg=end.reason and end.reason[:TEXT],
            start_time=start,
            end_time=now,
            duration_seconds=(now - start).total_seconds(),
            run_id=run.id,
        )
    )


def ready_runs(connection: Connection, now: datetime) -> Sequence[Row[Any]]:
    """Queued runs that may start, oldest business date first."""
    return connection.execute(
        select(job_run)
        .where(
            job_run.c.status == RunStatus.QUEUED.value,
            or_(job_run.c.not_before.is_(None), job_run.c.not_before <= now),
        )
        .order_by(job_run.c.business_date, job_run.c.id)
    ).all()


def note_progress(
    connection: Connection, run_id: int, claim: str, now: datetime, done: int, total: int | None, text: str
) -> bool:
    """A sign of life with figures; False if the run is no longer ours."""
    mine = and_(job_run.c.id == run_id, job_run.c.claim == claim, job_run.c.status == RunStatus.RUNNING.value)
    values = {"beat_at": now, "progress_done": done, "progress_total": total, "progress_text": text[:200]}
    return connection.execute(update(job_run).where(mine).values(values)).rowcount == 1


def note_process_end(connection: Connection, run_id: int, attempt: int, exit_code: int, peak_kb: int) -> None:
    """What only the parent of the process knows."""
    values = {"exit_code": exit_code, "peak_memory_kb": peak_kb}
    connection.execute(
        update(job_run).where(job_run.c.id == run_id, job_run.c.attempt == attempt).values(values)
    )
    connection.execute(
        update(run_attempt)
        .where(run_attempt.c.run_id == run_id, run_attempt.c.attempt == attempt)
        .values(values)
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


def deciding_run(connection: Connection, job_id: str, business_date: date) -> Row[Any] | None:
    """The run that decides for those that need `job_id`: one still under way, else a success, else the newest.

    A success of the afternoon does not release the night while tonight's own run is still at work.
    """
    pending = job_run.c.status.in_([status.value for status in PENDING])
    good = job_run.c.status.in_([status.value for status in DONE_WELL])
    return connection.execute(
        select(job_run)
        .where(job_run.c.job_id == job_id, job_run.c.business_date == business_date)
        .order_by(pending.desc(), good.desc(), job_run.c.id.desc())
        .limit(1)
    ).one_or_none()


def was_done(connection: Connection, task: str, business_date: date) -> bool:
    """Whether a run of this task for this date has succeeded."""
    good = job_run.c.status.in_([status.value for status in DONE_WELL])
    query = select(job_run.c.id).where(job_run.c.task == task, job_run.c.business_date == business_date, good)
    return connection.execute(query.limit(1)).first() is not None


def fires_recorded(connection: Connection, job_id: str, since: datetime) -> set[datetime]:
    """The fires of a job after `since` that have a run, whatever became of it."""
    query = select(job_run.c.scheduled_for).where(job_run.c.job_id == job_id, job_run.c.scheduled_for > since)
    return set(connection.execute(query).scalars())


def known_since(connection: Connection) -> datetime | None:
    """When this database had its first run."""
    return connection.execute(select(func.min(job_run.c.queued_at))).scalar()


def running_job(connection: Connection, job_id: str) -> Row[Any] | None:
    return connection.execute(select(job_run).where(job_run.c.active_key == job_id)).one_or_none()


def take_over(connection: Connection, process: Process, now: datetime) -> None:
    """This process is the daemon from now on. Raises AlreadyRunning while another one lives."""
    other = connection.execute(select(daemon).with_for_update()).one_or_none()
    values = {
        "host": process.host,
        "pid": process.pid,
        "pid_started": process.started,
        "started_at": now,
        "heartbeat_at": now,
        "stopped_at": None,
    }
    if other is None:
        connection.execute(insert(daemon).values(id=1, **values))
        return
    if other.stopped_at is None and other.pid != process.pid:
        known = Process(other.host, other.pid, other.pid_started)
        alive = known.is_alive() if other.host == process.host else abs(now - other.heartbeat_at) < LEASE
        if alive:
            raise AlreadyRunning(f"a daemon runs already on this database: pid {other.pid} on {other.host}")
    connection.execute(update(daemon).where(daemon.c.id == 1).values(values))


def beat(connection: Connection, process: Process, now: datetime) -> bool:
    """A sign of life; False if another daemon has taken over."""
    return _own_row(connection, process, heartbeat_at=now)


def daemon_stopped(connection: Connection, process: Process, now: datetime) -> None:
    _own_row(connection, process, heartbeat_at=now, stopped_at=now)


def _own_row(connection: Connection, process: Process, **values: Any) -> bool:
    mine = and_(
        daemon.c.host == process.host, daemon.c.pid == process.pid, daemon.c.pid_started == process.started
    )
    return connection.execute(update(daemon).where(mine).values(values)).rowcount == 1
