"""Alerts as plain records, and in words for a screen: for the command line, the API and the pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row

from config.translation import N_
from core import db
from scheduler import alert_store
from scheduler.alert_text import NOTICES, Told, command, headline
from scheduler.sections import Cell, Section
from scheduler.wording import Translate, clock_time, duration, error_text, number

Record = dict[str, Any]
TIME = "%Y-%m-%d %H:%M:%S"
DELIVERIES = {
    "PENDING": N_("to be sent"),
    "SENDING": N_("being sent"),
    "SENT": N_("sent"),
    "DROPPED": N_("dropped"),
}


def open_alerts(connection: Connection, now: datetime) -> list[Record]:
    """What is the matter now, oldest first."""
    return [alert_record(row, now) for row in alert_store.open_alerts(connection)]


def list_alerts(
    engine: Engine, now: datetime, *, only_open: bool, limit: int, before: int | None = None
) -> list[Record]:
    """Newest first; `only_open`: not those that are over."""
    with db.read(engine) as connection:
        if only_open:
            found = alert_store.open_alerts(connection)[::-1]
            rows: Sequence[Row[Any]] = [row for row in found if before is None or row.id < before][:limit]
        else:
            rows = alert_store.newest_alerts(connection, limit, before)
    return [alert_record(row, now) for row in rows]


def show_alert(engine: Engine, alert_id: int, now: datetime) -> Record:
    """Raises UsageError where there is none."""
    with db.read(engine) as connection:
        return _whole(connection, alert_id, now)


def silence(engine: Engine, alert_id: int, until: datetime, by: str, now: datetime) -> Record:
    """Raises UsageError."""
    with db.write(engine) as connection:
        alert_store.silence(connection, alert_id, until, by, now)
        return _whole(connection, alert_id, now)


def unsilence(engine: Engine, alert_id: int, now: datetime) -> Record:
    """Raises UsageError."""
    with db.write(engine) as connection:
        alert_store.unsilence(connection, alert_id)
        return _whole(connection, alert_id, now)


def _whole(connection: Connection, alert_id: int, now: datetime) -> Record:
    row = alert_store.get_alert(connection, alert_id)
    fields = ("notice", "status", "created_at", "sent_at", "channel", "attempts", "last_error")
    sent = [
        {name: getattr(item, name) for name in fields}
        for item in alert_store.deliveries_of(connection, alert_id)
    ]
    return alert_record(row, now) | {"deliveries": sent}


def alert_record(row: Row[Any], now: datetime) -> Record:
    """`seconds`: how long it has been, or was, the matter."""
    silenced = row.silenced_until is not None and row.silenced_until > now
    state = "RECOVERED" if row.recovered_at else "SILENCED" if silenced else "OPEN"
    end = row.recovered_at or now
    return {
        "alert": row.id,
        "state": state,
        "kind": row.kind,
        "fingerprint": row.fingerprint,
        "job": row.job_id,
        "task": row.task,
        "business_date": row.business_date,
        "run": row.run_id,
        "opened_at": row.opened_at,
        "last_seen_at": row.last_seen_at,
        "recovered_at": row.recovered_at,
        "seconds": round((end - row.opened_at).total_seconds()),
        "seen": row.seen,
        "silenced_until": row.silenced_until,
        "silenced_by": row.silenced_by,
        "figures": json.loads(row.figures),
        "command": command(Told.of(row, "")),
    }


def summary(record: Record, _: Translate) -> str:
    """What is the matter, in one line."""
    return headline(_told(record), _)


def _told(record: Record) -> Told:
    day = record["business_date"]
    text = None if day is None else str(day)
    at = (record["opened_at"], record["figures"], record["job"], record["task"], text, record["run"])
    return Told("", record["kind"], *at)


def state_cell(record: Record, _: Translate) -> Cell:
    words = {"OPEN": _("OPEN"), "SILENCED": _("SILENCED"), "RECOVERED": _("RECOVERED")}
    colours = {"OPEN": "FAILED", "SILENCED": "SKIPPED", "RECOVERED": "SUCCESS"}
    return Cell(words[record["state"]], colours[record["state"]])


def alerts_section(records: Sequence[Record], _: Translate) -> Section:
    headers = ("ID", _("state"), _("since"), _("for so long"), _("silenced until"), _("what"))
    rows = [
        (
            str(record["alert"]),
            state_cell(record, _),
            clock_time(record["opened_at"]),
            duration(record["seconds"], _),
            clock_time(record["silenced_until"]),
            summary(record, _),
        )
        for record in records
    ]
    return Section("", headers, rows, right=(0, 3), note="" if rows else _("no alerts"))


def alert_sections(record: Record, _: Translate) -> list[Section]:
    """One alert in full, and what was sent of it."""
    figures = record["figures"]
    facts: list[tuple[str | Cell, ...]] = [
        (_("what"), summary(record, _)),
        (_("state"), state_cell(record, _)),
        (_("since"), clock_time(record["opened_at"], TIME)),
        (_("for so long"), duration(record["seconds"], _)),
        (_("noticed"), number(record["seen"])),
        (_("silenced until"), clock_time(record["silenced_until"], TIME)),
        (_("reason"), error_text(figures.get("reason"), _) or "-"),
        (_("funds"), number(figures.get("records"))),
        (_("expected"), number(figures.get("expected"))),
        (_("run"), str(record["run"] or "-")),
        (_("type next"), record["command"]),
    ]
    headers = (
        _("message"),
        _("state"),
        _("written"),
        _("sent"),
        _("channel"),
        _("attempts"),
        _("last error"),
    )
    sent = [
        (
            _(NOTICES[item["notice"]]),
            _(DELIVERIES[item["status"]]),
            clock_time(item["created_at"], TIME),
            clock_time(item["sent_at"], TIME),
            item["channel"] or "-",
            str(item["attempts"]),
            item["last_error"] or "",
        )
        for item in record.get("deliveries", ())
    ]
    title = _("Alert {id}").format(id=record["alert"])
    messages = Section(_("Messages"), headers, sent, right=(5,), note="" if sent else _("none"))
    return [Section(title, ("", ""), facts), messages]
