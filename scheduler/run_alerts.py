"""What the end of a run, a blocked chain or a silent run means for alerts, in the transaction that records it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from core.schema import alert, job_run
from scheduler import alert_store
from scheduler.alert_rules import FAILED, SILENT, Matter, kind_of_end, mended
from scheduler.job import DONE_WELL, RunStatus

REASON = 500


def note_end(
    connection: Connection,
    run: Row[Any],
    status: RunStatus,
    records: int,
    reason: str | None,
    now: datetime,
    *,
    last: bool,
) -> None:
    """An attempt of `run` has ended; `last`: there will be no other by itself."""
    alert_store.recover(connection, now, alert.c.kind == SILENT, alert.c.run_id == run.id)
    for cure in mended(run.task, status, json.loads(run.params)):
        of = alert.c.task.in_(cure.tasks) if cure.tasks else alert.c.job_id == run.job_id
        day = alert.c.business_date
        when = day <= run.business_date if cure.and_before else day == run.business_date
        alert_store.recover(connection, now, alert.c.kind.in_(cure.kinds), of, when)
    kind = kind_of_end(run.task, status, watched=run.log_file is None) if last else None
    if kind is not None:
        matter = _matter(connection, kind, run, status.value, reason, records)
        alert_store.open_alert(connection, matter, now)


def note_blocked(connection: Connection, run: Row[Any], why: str, now: datetime) -> None:
    """`run` stands in the way of others. Where its own failure is told already, that is the same matter."""
    matter = _matter(connection, FAILED, run, run.status, run.reason or why, run.record_count or 0)
    alert_store.open_alert(connection, matter, now)


def note_silence(connection: Connection, run: Row[Any], minutes: float, now: datetime) -> None:
    matter = _matter(connection, SILENT, run, run.status, None, run.progress_done or 0)
    matter.figures["minutes"] = minutes
    alert_store.open_alert(connection, matter, now)


def note_sound(connection: Connection, run_id: int, now: datetime) -> None:
    """A run that was silent says something again."""
    alert_store.recover(connection, now, alert.c.kind == SILENT, alert.c.run_id == run_id)


def _matter(
    connection: Connection, kind: str, run: Row[Any], status: str, reason: str | None, records: int
) -> Matter:
    good = job_run.c.status.in_([well.value for well in DONE_WELL])
    before = connection.execute(
        select(job_run.c.record_count, job_run.c.business_date, job_run.c.finished_at)
        .where(job_run.c.job_id == run.job_id, good, job_run.c.id != run.id)
        .order_by(job_run.c.business_date.desc(), job_run.c.id.desc())
        .limit(1)
    ).first()
    figures = {
        "status": status,
        "reason": reason and reason[:REASON],
        "attempt": run.attempt,
        "records": records,
        "expected": before.record_count if before else None,
        "last_success": before.finished_at.isoformat() if before else None,
        "last_date": before.business_date.isoformat() if before else None,
    }
    of = f"{run.job_id}:{run.business_date}"
    return Matter(kind, of, figures, run.job_id, run.task, run.business_date, run.id)
