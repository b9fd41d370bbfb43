"""What a night leaves in the database, without what differs from one night to the next: to compare them by."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, Table, select

from core import db, schema
from core.schema import data_update_log, job_run, nav_batch
from tests.stored_days import require_counted


def rows(engine: Engine, table: Table, *without: str) -> list[Any]:
    """A table's content but for some columns, in order."""
    columns = [column for column in table.c if column.name not in without]
    with db.read(engine) as connection:
        return sorted((tuple(row) for row in connection.execute(select(*columns))), key=repr)


def ledger(engine: Engine) -> list[Any]:
    """Which runs there are and how they stand, whatever their ids and attempts."""
    names = ("job_id", "task", "business_date", "scheduled_for", "requested_by", "status", "record_count")
    return rows(engine, job_run, *(column.name for column in job_run.c if column.name not in names))


WHEN_AND_WHICH = (
    *("id", "batch_id", "old_batch_id", "new_batch_id", "known_at", "held_at", "resolved_at", "updated_at"),
)


def effects(engine: Engine) -> dict[str, list[Any]]:
    """Everything that a night leaves to its readers."""
    data = ("fund_info", "fund_nav", "fund_nav_revision", "fund_event", "money_fund_yield", "fund_metrics")
    require_counted(engine)
    found = {
        name: rows(engine, schema.metadata.tables[name], *WHEN_AND_WHICH) for name in (*data, "quarantine")
    }
    clocked = ("id", "start_time", "end_time", "duration_seconds", "run_id")
    found["data_update_log"] = rows(engine, data_update_log, *clocked)
    found["nav_batch"] = rows(engine, nav_batch, "id", "provenance", "collected_at", "decided_at", "run_id")
    found["job_run"] = ledger(engine)
    return found


PINGED = [("PING_START", "SENT"), ("PING_OK", "SENT")]


def pings(engine: Engine) -> list[Any]:
    """What the dead man's switch was to hear, and whether that is done."""
    said = schema.alert_delivery.c
    query = select(said.notice, said.status).where(said.once_key.is_not(None)).order_by(said.id)
    with db.read(engine) as connection:
        return [tuple(row) for row in connection.execute(query)]
