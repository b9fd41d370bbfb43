"""SQL on runs: their states, attempts and events. Who leads is in leadership.py, who asks in commands.py."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.db import new_id
from core.schema import data_update_log, job_pause, job_run, run_attempt, run_event
from scheduler import run_alerts
from scheduler.job import DONE_WELL, ENDED_BADLY, PENDING, TRANSITIONS, RunStatus
from scheduler.process_identity import Process
from scheduler.retry import RetryPolicy, next_attempt

BY_SCHEDULE = "schedule"
BY_SWEEP = "sweep"
AFTER_INTERRUPTION = 3  # attempts that a run has at least when its process was killed
TEXT = 1000


@dataclass(frozen=True)
class End:
    """How an attempt ended. `retry`: whether trying again may help."""

    status: RunStatus
    record_count: int = 0
    reason: str | None = None
    retry: bool = False
    exit_code: int | None = None
    peak_memory_kb: int | None = None
    result: str | None = None  # JSON


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
    event_id: int | None = None,
) -> int | None:
    """Insert a run; None if this fire of the job, or this event, has one already (a UNIQUE constraint says so)."""
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
        "event_id": event_id,
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
            topic=f"run.{new.value.lower()}",
        )
    )


def note_alert(
    connection: Connection, run: Row[Any], kind: str, fingerprint: str, reason: str, now: datetime
) -> bool:
    """An event that somebody should hear of, once per fingerprint; whether it is news."""
    values = {"run_id": run.id, "at": now, "to_status": run.status, "reason": reason[:TEXT], "kind": kind}
    values |= {"topic": f"run.{kind}"}
    try:
        with connection.begin_nested():
            connection.execute(insert(run_event).values(**values, fingerprint=fingerprint))
    except IntegrityError:
        return False
    return True


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
    connection: Connection,
    run: Row[Any],
    process: Process,
    now: datetime,
    log_file: str | None = None,
    slots: int = 1,
    **changes: Any,
) -> str | None:
    """QUEUED -> RUNNING for this process; its claim, or None if another was faster, or as many of the job run already
    as it has slots."""
    for slot in range(1, slots + 1):
        key = run.job_id if slot == 1 else f"{run.job_id}:{slot}"
        claim = _claim_slot(connection, run, key, process, now, log_file=log_file, **changes)
        if claim is not None:
            return claim
    return None


def _claim_slot(
    connection: Connection, run: Row[Any], key: str, process: Process, now: datetime, **changes: Any
) -> str | None:
    claim = str(uuid.uuid4())
    try:
        with connection.begin_nested():
            done = move(
                connection,
                run.id,
                RunStatus.QUEUED,
                RunStatus.RUNNING,
                now,
                active_key=key,
                attempt=run.attempt + 1,
                first_started_at=run.first_started_at or now,
                started_at=now,
                beat_at=now,
                progress_at=None,
                progress_done=None,
                progress_total=None,
                progress_text=None,
                progress_item=None,
                not_before=None,
                **_claimed_by(claim, process),
                **changes,
            )
    except IntegrityError:  # active_key: another run of the job is RUNNING in this slot
        return None
    return claim if done else None


def _claimed_by(claim: str, process: Process) -> dict[str, Any]:
    return {"host": process.host, "pid": process.pid, "pid_started": process.started} | {"claim": claim}


def hand_over(connection: Connection, run_id: int, claim: str, process: Process) -> bool:
    """The supervisor's claim now belongs to its child."""
    changes = _claimed_by(claim, process)
    return connection.execute(update(job_run).where(_ours(run_id, claim)).values(changes)).rowcount == 1


def holds(connection: Connection, run_id: int, claim: str) -> bool:
    """Whether the run is still ours; it stays so until the end of the caller's transaction."""
    query = select(job_run.c.id).where(_ours(run_id, claim)).with_for_update()
    return connection.execute(query).first() is not None


def is_wanted(connection: Connection, run_id: int, claim: str) -> bool:
    """Whether the run is still ours, and nobody has cancelled it."""
    query = select(job_run.c.id).where(_ours(run_id, claim), job_run.c.cancelled_by.is_(None))
    return connection.execute(query).first() is not None


def _ours(run_id: int, claim: str) -> ColumnElement[bool]:
    return and_(job_run.c.id == run_id, job_run.c.claim == claim, job_run.c.status == RunStatus.RUNNING.value)


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
    if current is not None and current.cancelled_by and end.status in ENDED_BADLY:
        end = replace(
            end, status=RunStatus.CANCELLED, reason=f"cancelled by {current.cancelled_by}", retry=False
        )
    done = current is not None and move(
        connection,
        run.id,
        RunStatus.RUNNING,
        end.status,
        now,
        end.reason,
        claim,
        record_count=end.record_count,
        result=end.result,
        **_of_process(end),
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
            log_file=current.log_file,
            **_of_process(end),
        )
    )
    again = _next_attempt(current, end, now)
    if again is not None:
        why = f"attempt {current.attempt} was {end.status.value}: {end.reason}"
        move(connection, run.id, end.status, RunStatus.QUEUED, now, why, not_before=again, finished_at=None)
    elif end.status is not RunStatus.SKIPPED:  # a day without trading is no failed update
        log_update(connection, current, end, now, table_name=table_name)
    last = again is None
    run_alerts.note_end(connection, current, end.status, end.record_count, end.reason, now, last=last)
    return True


def _of_process(end: End) -> dict[str, Any]:
    return {"exit_code": end.exit_code, "peak_memory_kb": end.peak_memory_kb}


def _next_attempt(run: Row[Any], end: End, now: datetime) -> datetime | None:
    if not end.retry or end.status not in ENDED_BADLY or run.retry_policy is None:
        return None
    policy = RetryPolicy.from_json(run.retry_policy)
    if end.status is RunStatus.INTERRUPTED:  # not the work's fault
        policy = replace(policy, attempts=max(policy.attempts, AFTER_INTERRUPTION))
    started = run.first_started_at + timedelta(seconds=run.absent_seconds)
    return next_attempt(policy, run.attempt, started, now, random.SystemRandom().random())


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


def ready_runs(
    connection: Connection,
    now: datetime,
    limit: int,
    slots: Mapping[str, int] | None = None,
    *,
    foreign: bool = False,
) -> Sequence[Row[Any]]:
    """Queued runs that may start, oldest business date first: none of a job that runs or is paused.
    What somebody asked for is started though the job's schedule is paused. `slots`: how many runs at once, of the jobs
    that may have more than one. `foreign`: of plugins, whose tasks have a dot in their names, and no others; else none
    of them.
    """
    roomy = _with_room(connection, slots) if slots else []
    other = job_run.alias()
    busy = select(other.c.id).where(other.c.active_key == job_run.c.job_id)
    paused = select(job_pause.c.job_id).where(job_pause.c.job_id == job_run.c.job_id)
    ready = select(job_run).where(
        job_run.c.status == RunStatus.QUEUED.value,
        or_(job_run.c.not_before.is_(None), job_run.c.not_before <= now),
        or_(~busy.exists(), job_run.c.job_id.in_(roomy)),
        job_run.c.task.contains(".") if foreign else ~job_run.c.task.contains("."),
        or_(job_run.c.requested_by.not_in((BY_SCHEDULE, BY_SWEEP)), ~paused.exists()),
    )
    return connection.execute(ready.order_by(job_run.c.business_date, job_run.c.id).limit(limit)).all()


def _with_room(connection: Connection, slots: Mapping[str, int]) -> list[str]:
    running = and_(job_run.c.status == RunStatus.RUNNING.value, job_run.c.job_id.in_(list(slots)))
    query = select(job_run.c.job_id, func.count()).where(running).group_by(job_run.c.job_id)
    taken = {row[0]: row[1] for row in connection.execute(query)}
    return [job for job, most in slots.items() if taken.get(job, 0) < most]


def note_progress(
    connection: Connection,
    run_id: int,
    claim: str,
    now: datetime,
    done: int,
    total: int | None,
    text: str,
    item: str | None = None,
) -> bool:
    """How far the work is; False if the run is no longer ours or somebody has cancelled it."""
    values = {
        "beat_at": now,
        "progress_at": now,
        "progress_done": done,
        "progress_total": total,
        "progress_text": text[:200],
        "progress_item": item and item[:100],
    }
    wanted = and_(_ours(run_id, claim), job_run.c.cancelled_by.is_(None))
    return connection.execute(update(job_run).where(wanted).values(values)).rowcount == 1


def note_beat(connection: Connection, run_id: int, claim: str, now: datetime) -> bool:
    """A sign of life of the run's process; False if the run is no longer ours."""
    return connection.execute(update(job_run).where(_ours(run_id, claim)).values(beat_at=now)).rowcount == 1


def cancel(connection: Connection, run: Row[Any], by: str, now: datetime) -> bool:
    """End a run that has not started, or mark one that runs so that whatever ends it makes it CANCELLED."""
    status = RunStatus(run.status)
    if status is not RunStatus.RUNNING:
        return move(connection, run.id, status, RunStatus.CANCELLED, now, f"cancelled by {by}")
    running = and_(job_run.c.id == run.id, job_run.c.status == status.value)
    return connection.execute(update(job_run).where(running).values(cancelled_by=by)).rowcount == 1


def try_again(connection: Connection, run: Row[Any], reason: str, now: datetime, **values: Any) -> bool:
    """A run that ended badly goes back to QUEUED; the attempts of its policy and their time start anew."""
    if run.retry_policy is not None:
        policy = replace(RetryPolicy.from_json(run.retry_policy), spent=run.attempt)
        values |= {"retry_policy": json.dumps(asdict(policy))}
    values |= {
        "first_started_at": None,
        "absent_seconds": 0,
        "not_before": None,
        "finished_at": None,
        "cancelled_by": None,
    }
    return move(connection, run.id, RunStatus(run.status), RunStatus.QUEUED, now, reason, **values)


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


def skipped_since(connection: Connection, since: datetime, jobs: Collection[str]) -> Sequence[Row[Any]]:
    """Runs of these jobs that were given up before they began, oldest business date first."""
    given_up = and_(job_run.c.status == RunStatus.SKIPPED.value, job_run.c.started_at.is_(None))
    recent = and_(job_run.c.finished_at > since, job_run.c.job_id.in_(jobs))
    query = select(job_run).where(given_up, recent).order_by(job_run.c.business_date, job_run.c.id)
    return connection.execute(query).all()


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


def deciding_runs(connection: Connection, tasks: Collection[str], business_date: date) -> list[Row[Any]]:
    """Of each job that ran one of these tasks for the date the run that decides, in the order they first ran."""
    run = job_run.c
    jobs = connection.execute(
        select(run.job_id)
        .where(run.business_date == business_date, run.task.in_(list(tasks)))
        .group_by(run.job_id)
        .order_by(func.min(run.id))
    ).scalars()
    found = [deciding_run(connection, job, business_date) for job in jobs.all()]
    return [row for row in found if row is not None]


def was_done(connection: Connection, task: str, business_date: date) -> bool:
    """Whether a run of this task for this date has succeeded."""
    good = job_run.c.status.in_([status.value for status in DONE_WELL])
    query = select(job_run.c.id).where(job_run.c.task == task, job_run.c.business_date == business_date, good)
    return connection.execute(query.limit(1)).first() is not None


def paused_jobs(connection: Connection) -> set[str]:
    return set(connection.execute(select(job_pause.c.job_id)).scalars())


def note_absence(connection: Connection, absence: timedelta) -> None:
    """Time in which no daemon was there counts for no run's limits."""
    pending = job_run.c.status.in_([status.value for status in PENDING])
    longer = job_run.c.absent_seconds + int(absence.total_seconds())
    connection.execute(update(job_run).where(pending).values(absent_seconds=longer))


def known_since(connection: Connection) -> datetime | None:
    """When this database had its first run."""
    return connection.execute(select(func.min(job_run.c.queued_at))).scalar()


def running_job(connection: Connection, job_id: str) -> Row[Any] | None:
    return connection.execute(select(job_run).where(job_run.c.active_key == job_id)).one_or_none()
