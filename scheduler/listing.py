"""Jobs, runs and commands as plain records: what the command line shows, in words or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, select

from core import db
from core.errors import NavKeeperError, UsageError
from core.schema import job_run, run_attempt, run_event
from core.trading_calendar import SHANGHAI
from scheduler import commands, run_store
from scheduler.firing import require_calendar
from scheduler.job import Job, RunStatus
from scheduler.overview import collect_overview
from scheduler.plan import plan, reaching

Record = dict[str, Any]


def as_json(record: Record) -> str:
    """One line of ASCII: dates as YYYY-MM-DD, instants in ISO 8601 with Shanghai's offset."""
    return json.dumps(record, default=_text)


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(SHANGHAI).isoformat(timespec="seconds")
    return str(value)


def list_jobs(
    engine: Engine, jobs: Mapping[str, Job], now: datetime, wrong: Mapping[str, str] | None = None
) -> list[Record]:
    """Each job: whether it is paused, its next fire that its calendar lets through, its newest run.

    `wrong`: stored jobs that are not run, with the reason; they come last.
    """
    wrong = wrong or {}
    overview = collect_overview(engine, jobs, now)
    coming = {run.job: run for run in overview.next_runs}
    with db.read(engine) as connection:
        paused = commands.pauses(connection)
        newest = {name: _newest_run(connection, name, now) for name in {**jobs, **wrong}}
    found = []
    for name in {**jobs, **wrong}:
        job, pause, fire = jobs.get(name), paused.get(name), coming.get(name)
        found.append(
            {
                "job": name,
                "name": job.name if job else "",
                "task": job.task if job else "",
                "wrong": wrong.get(name),
                "paused_since": pause.paused_at if pause else None,
                "paused_by": pause.paused_by if pause else None,
                "next_fire": fire.at if fire and not pause else None,
                "next_business_date": fire.business_date if fire and not pause else None,
                "last_run": newest[name],
                "daemon_running": overview.daemon.running,
            }
        )
    return found


def _newest_run(connection: Connection, job_id: str, now: datetime) -> Record | None:
    query = select(job_run).where(job_run.c.job_id == job_id).order_by(job_run.c.id.desc()).limit(1)
    row = connection.execute(query).first()
    return None if row is None else _brief(row, now)


def recent_runs(engine: Engine, jobs: Iterable[str], now: datetime, limit: int) -> dict[str, list[Record]]:
    """By job its runs for the newest business dates, oldest first."""
    run = job_run.c
    found = {}
    with db.read(engine) as connection:
        for name in jobs:
            newest = (
                select(job_run).where(run.job_id == name).order_by(run.business_date.desc(), run.id.desc())
            )
            rows = connection.execute(newest.limit(limit)).all()
            found[name] = [_brief(row, now) for row in reversed(rows)]
    return found


def _brief(row: Row[Any], now: datetime) -> Record:
    return {
        "run": row.id,
        "job": row.job_id,
        "business_date": row.business_date,
        "status": row.status,
        "reason": row.reason,
        "requested_by": row.requested_by,
        "queued_at": row.queued_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "seconds": _seconds(row, now),
        "records": row.record_count,
        "progress": _progress(row),
    }


def _seconds(row: Row[Any], now: datetime) -> float | None:
    """How long it took, or has taken so far; None while it is not at work."""
    end = row.finished_at or (now if row.status == RunStatus.RUNNING else None)
    if end is None or row.started_at is None:
        return None
    took: float = (end - row.started_at).total_seconds()
    return round(took, 1)


def _progress(row: Row[Any]) -> Record:
    """How far the work is; nothing but None where it has not said so."""
    done, total = row.progress_done, row.progress_total
    return {
        "percent": round(100 * done / total, 1) if done is not None and total else None,
        "message": row.progress_text,
        "item": row.progress_item,
        "processed": done,
        "total": total,
        "at": row.progress_at,
    }


def list_plan(
    engine: Engine, jobs: Mapping[str, Job], now: datetime, days: int, job_id: str | None
) -> list[Record]:
    """Every run that falls due in the next `days`, with the reason of those that will not run."""
    if job_id is not None and job_id not in jobs:
        raise UsageError(f"there is no job {job_id!r}; there are {', '.join(jobs)}")
    wanted = [job for job in jobs.values() if job_id in (None, job.id)]
    until = now + timedelta(days=days)
    with db.read(engine) as connection:
        calendar, paused = require_calendar(connection), commands.pauses(connection)
    guessed = reaching(calendar, until.astimezone(SHANGHAI).date()).provisional
    return [
        {
            "at": run.scheduled_for,
            "job": run.job_id,
            "name": jobs[run.job_id].name,
            "business_date": run.business_date,
            "status": run.status.value,
            "reason": run.reason,
            "provisional": run.business_date in guessed,
        }
        for run in plan(wanted, calendar, now, until, paused)
    ]


def list_runs(
    engine: Engine,
    now: datetime,
    *,
    job_id: str | None = None,
    status: str | None = None,
    business_date: date | None = None,
    before: int | None = None,
    limit: int,
) -> list[Record]:
    """The newest runs, or those before one, newest first."""
    if status is not None and status.upper() not in RunStatus.__members__:
        raise UsageError(f"there is no status {status!r}; there are {', '.join(RunStatus)}")
    asked = {"job_id": job_id, "status": status and status.upper(), "business_date": business_date}
    query = select(job_run).where(*(job_run.c[name] == value for name, value in asked.items() if value))
    if before is not None:
        query = query.where(job_run.c.id < before)
    with db.read(engine) as connection:
        rows = connection.execute(query.order_by(job_run.c.id.desc()).limit(limit)).all()
    return [_brief(row, now) for row in rows]


def show_run(engine: Engine, run_id: int, now: datetime) -> Record:
    """Everything known of one run. Raises UsageError."""
    with db.read(engine) as connection:
        row = _run(connection, run_id)
        ended = connection.execute(
            select(run_attempt).where(run_attempt.c.run_id == run_id).order_by(run_attempt.c.attempt)
        ).all()
        events = connection.execute(
            select(run_event)
            .where(run_event.c.run_id == run_id, run_event.c.to_status.is_not(None))
            .order_by(run_event.c.id)
        ).all()
    of_event = ("at", "kind", "from_status", "to_status", "reason")
    of_attempt = ("attempt", "status", "started_at", "finished_at", "reason", "exit_code", "log_file")
    return _brief(row, now) | {
        "task": row.task,
        "params": json.loads(row.params),
        "scheduled_for": row.scheduled_for,  # null: asked for by hand
        "attempt": row.attempt,
        "first_started_at": row.first_started_at,
        "next_attempt_at": row.not_before,
        "cancelled_by": row.cancelled_by,
        "host": row.host,
        "pid": row.pid,
        "beat_at": row.beat_at,
        "exit_code": row.exit_code,
        "peak_memory_kb": row.peak_memory_kb,
        "log_file": row.log_file,
        "result": json.loads(row.result) if row.result else None,
        "attempts": [
            _fields(item, *of_attempt, "peak_memory_kb") | {"seconds": _seconds(item, now)} for item in ended
        ],
        "events": [_fields(item, *of_event) for item in events],
    }


def _fields(row: Row[Any], *names: str) -> Record:
    return {name: getattr(row, name) for name in names}


def _run(connection: Connection, run_id: int) -> Row[Any]:
    row = run_store.get_run(connection, run_id)
    if row is None:
        raise UsageError(f"there is no run {run_id}; main.py runs lists them")
    return row


def read_log(engine: Engine, run_id: int, attempt: int | None, last: int | None = None) -> Record:
    """The log of a run's last attempt, or of attempt number `attempt`; only its `last` bytes, from a line's beginning.

    Raises UsageError, NavKeeperError where it cannot be read.
    """
    with db.read(engine) as connection:
        run = _run(connection, run_id)
        query = select(run_attempt.c.attempt, run_attempt.c.log_file).where(run_attempt.c.run_id == run_id)
        files = {row.attempt: row.log_file for row in connection.execute(query)}
    if run.attempt:
        files[run.attempt] = run.log_file
    number = run.attempt if attempt is None else attempt
    if number not in files:
        known = ", ".join(map(str, sorted(files)))
        raise UsageError(
            f"run {run_id} has attempts {known}, not {number}" if known else f"run {run_id} has not started"
        )
    if files[number] is None:
        raise UsageError(f"run {run_id} has no log file: it ran in a terminal, by {run.requested_by}")
    try:
        text = _end_of(Path(files[number]), last).decode("utf-8", errors="replace")
    except OSError as error:
        raise NavKeeperError(f"{files[number]}: {error.strerror}; it was written on {run.host}") from None
    return {"run": run_id, "attempt": number, "log_file": files[number], "text": text}


def _end_of(path: Path, last: int | None) -> bytes:
    with path.open("rb") as file:
        if last is None or file.seek(0, os.SEEK_END) <= last:
            file.seek(0)
            return file.read()
        file.seek(-last - 1, os.SEEK_END)  # one more: it may be the end of the line before
        return file.read(last + 1).partition(b"\n")[2]


def list_commands(engine: Engine, limit: int, before: int | None = None) -> list[Record]:
    """The newest commands, or those before one, newest first."""
    with db.read(engine) as connection:
        return [command_record(row) for row in commands.history(connection, limit, before)]


def command_record(row: Row[Any]) -> Record:
    fields = ("action", "job_id", "run_id", "business_date", "requested_by", "requested_at", "status")
    record = {"command": row.id} | _fields(row, *fields, "answer", "answered_at")
    return record | {"params": json.loads(row.params)}
