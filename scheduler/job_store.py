"""SQL on the jobs made at run time: their newest state, and every version that there was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from core.errors import JobChanged, JobRefused
from core.schema import job, job_change, job_pause, job_version

NAME, TEXT = 64, 200  # the columns' lengths
CHANGED = "{job} was changed meanwhile; look at it again, then ask again: main.py jobs show {job}"


def number_of_changes(connection: Connection) -> int:
    """Who has seen another number looks again: a look at one row."""
    return int(connection.scalar(select(job_change.c.number)) or 0)


def begin_change(connection: Connection) -> None:
    """From here to the end of the transaction nobody else changes a job: what is checked stays so."""
    connection.execute(update(job_change).values(number=job_change.c.number + 1))


def stored_jobs(connection: Connection) -> Sequence[Row[Any]]:
    """The jobs that are not deleted."""
    return connection.execute(select(job).where(job.c.deleted_at.is_(None)).order_by(job.c.id)).all()


def find_job(connection: Connection, job_id: str) -> Row[Any] | None:
    """The job, None where it is not there or deleted."""
    mine = (job.c.id == job_id) & job.c.deleted_at.is_(None)
    return connection.execute(select(job).where(mine)).one_or_none()


def versions(connection: Connection, job_id: str) -> Sequence[Row[Any]]:
    """Newest first."""
    query = select(job_version).where(job_version.c.job_id == job_id)
    return connection.execute(query.order_by(job_version.c.version.desc())).all()


def add_job(
    connection: Connection, job_id: str, table: dict[str, Any], by: str, now: datetime, reason: str | None
) -> int:
    """Its version. Raises JobRefused where there is one of that name."""
    definition = as_text(table)
    values = {
        "definition": definition,
        "counts_from": now,
        "created_by": by[:NAME],
        "created_at": now,
        "changed_by": by[:NAME],
        "changed_at": now,
        "deleted_at": None,
    }
    old = connection.execute(select(job).where(job.c.id == job_id)).one_or_none()
    version = 1 if old is None else old.version + 1
    try:
        with connection.begin_nested():
            if old is None:
                connection.execute(insert(job).values(id=job_id, version=version, **values))
                free = True
            else:  # its versions go on where it was deleted
                gone = (job.c.id == job_id) & job.c.deleted_at.is_not(None)
                changes = values | {"version": version}
                free = connection.execute(update(job).where(gone).values(changes)).rowcount == 1
    except IntegrityError:
        free = False
    if not free:
        raise JobRefused(
            "job", f"there is a job {job_id!r} already; main.py jobs show {job_id}", conflict="job_exists"
        )
    _note(connection, job_id, version, definition, by, now, reason)
    return version


def change_job(
    connection: Connection,
    row: Row[Any],
    table: dict[str, Any] | None,
    by: str,
    now: datetime,
    reason: str | None,
    *,
    counts_from: datetime,
) -> int:
    """Its next version; `table` None deletes it. Raises JobChanged where it is no longer as `row` says."""
    definition = None if table is None else as_text(table)
    values = {
        "version": row.version + 1,
        "definition": row.definition if definition is None else definition,
        "counts_from": counts_from,
        "changed_by": by[:NAME],
        "changed_at": now,
        "deleted_at": now if definition is None else None,
    }
    same = (job.c.id == row.id) & (job.c.version == row.version) & job.c.deleted_at.is_(None)
    if connection.execute(update(job).where(same).values(values)).rowcount != 1:
        raise JobChanged(CHANGED.format(job=row.id))
    if definition is None:
        connection.execute(delete(job_pause).where(job_pause.c.job_id == row.id))
    _note(connection, row.id, row.version + 1, definition, by, now, reason)
    return int(row.version) + 1


def _note(
    connection: Connection,
    job_id: str,
    version: int,
    definition: str | None,
    by: str,
    now: datetime,
    reason: str | None,
) -> None:
    connection.execute(
        insert(job_version).values(
            job_id=job_id,
            version=version,
            definition=definition,
            changed_by=by[:NAME],
            changed_at=now,
            reason=reason and reason[:TEXT],
        )
    )


def as_text(table: dict[str, Any]) -> str:
    return json.dumps(table, allow_nan=False)
