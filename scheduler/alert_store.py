"""SQL on alerts: opened, seen again, repeated, silenced, recovered; each says so into the outbox.

One open alert per fingerprint: a UNIQUE column says so. All in the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.db import new_id
from core.errors import UsageError
from core.schema import alert, alert_delivery
from core.trading_calendar import SHANGHAI
from scheduler.alert_rules import REPEAT_AFTER, Matter

OPENED, REPEATED, RECOVERED, OVER = (
    "OPENED",
    "REPEATED",
    "RECOVERED",
    "OVER",
)  # OVER: known when it had passed
PENDING, SENDING, SENT, DROPPED = "PENDING", "SENDING", "SENT", "DROPPED"
NAME = 64
OPEN = alert.c.open_key.is_not(None)


def open_alert(connection: Connection, matter: Matter, now: datetime) -> int | None:
    """Open an alert, or note on the open one that it was seen again; the id of a new one."""
    if _seen_again(connection, matter, now):
        return None
    silence = connection.execute(
        select(alert.c.silenced_until, alert.c.silenced_by)
        .where(alert.c.fingerprint == matter.fingerprint, alert.c.silenced_until > now)
        .order_by(alert.c.id.desc())
        .limit(1)
    ).first()
    try:
        with connection.begin_nested():
            alert_id = _insert(connection, matter, now, open_key=matter.fingerprint)
    except IntegrityError:  # another was faster
        _seen_again(connection, matter, now)
        return None
    if silence is not None:  # it is the same trouble again, and somebody wants to hear nothing of it
        values = {"silenced_until": silence.silenced_until, "silenced_by": silence.silenced_by}
        connection.execute(update(alert).where(alert.c.id == alert_id).values(values))
    else:
        _say(connection, alert_id, OPENED, now)
    return alert_id


def note_passed(connection: Connection, matter: Matter, since: datetime, now: datetime) -> None:
    """An alert that was over when it became known."""
    alert_id = _insert(connection, matter, now, opened_at=since, recovered_at=now)
    _say(connection, alert_id, OVER, now)


def _insert(connection: Connection, matter: Matter, now: datetime, **values: Any) -> int:
    row = {
        "fingerprint": matter.fingerprint,
        "kind": matter.kind,
        "job_id": matter.job_id,
        "task": matter.task,
        "business_date": matter.business_date,
        "run_id": matter.run_id,
        "figures": json.dumps(matter.figures, ensure_ascii=False),
        "opened_at": now,
        "last_seen_at": now,
        "told_at": now,
    }
    return new_id(connection.execute(insert(alert).values(row | values)))


def _seen_again(connection: Connection, matter: Matter, now: datetime) -> bool:
    """The newest figures and run are what the next message says."""
    known = alert.c.open_key == matter.fingerprint
    values = {
        "last_seen_at": now,
        "seen": alert.c.seen + 1,
        "figures": json.dumps(matter.figures, ensure_ascii=False),
        "run_id": matter.run_id,
    }
    return connection.execute(update(alert).where(known).values(values)).rowcount == 1


def _say(connection: Connection, alert_id: int, notice: str, now: datetime) -> None:
    values = {"alert_id": alert_id, "notice": notice, "status": PENDING, "created_at": now}
    connection.execute(insert(alert_delivery).values(values | {"next_try_at": now}))


def recover(connection: Connection, now: datetime, *which: ColumnElement[bool]) -> list[int]:
    """Close the open alerts that meet all conditions; their ids. Who was not told of one is not told of its end."""
    closed = []
    for alert_id in connection.execute(select(alert.c.id).where(OPEN, *which)).scalars().all():
        ours = and_(alert.c.id == alert_id, OPEN)
        values = {"open_key": None, "recovered_at": now}
        if connection.execute(update(alert).where(ours).values(values)).rowcount == 1:
            closed.append(alert_id)
            if _was_told(connection, alert_id):
                _say(connection, alert_id, RECOVERED, now)
    return closed


def _was_told(connection: Connection, alert_id: int) -> bool:
    said = alert_delivery.c
    told = select(said.id).where(said.alert_id == alert_id, said.status != DROPPED)
    return connection.execute(told.limit(1)).first() is not None


def any_to_repeat(connection: Connection, now: datetime) -> bool:
    return connection.execute(select(alert.c.id).where(*_to_repeat(now)).limit(1)).first() is not None


def _to_repeat(now: datetime) -> tuple[ColumnElement[bool], ...]:
    loud = or_(alert.c.silenced_until.is_(None), alert.c.silenced_until <= now)
    return OPEN, loud, alert.c.told_at <= now - REPEAT_AFTER


def repeat_due(connection: Connection, now: datetime) -> None:
    """Say again what is still the matter and was last said REPEAT_AFTER ago, unless that is still to go out."""
    for alert_id in connection.execute(select(alert.c.id).where(*_to_repeat(now))).scalars().all():
        ours = and_(alert.c.id == alert_id, *_to_repeat(now))
        if connection.execute(update(alert).where(ours).values(told_at=now)).rowcount == 1:
            said = alert_delivery.c
            unsent = and_(said.alert_id == alert_id, said.status.in_((PENDING, SENDING)))
            if connection.execute(select(said.id).where(unsent).limit(1)).first() is None:
                _say(connection, alert_id, REPEATED, now)


def silence(connection: Connection, alert_id: int, until: datetime, by: str, now: datetime) -> Row[Any]:
    """Say nothing of an open alert, nor of it again, until then; the alert. Raises UsageError."""
    row = get_alert(connection, alert_id)
    if row.open_key is None:
        over = row.recovered_at.astimezone(SHANGHAI)
        raise UsageError(f"alert {alert_id} is over since {over:%Y-%m-%d %H:%M}; there is nothing to silence")
    if until <= now:
        raise UsageError("silence it until an instant that is still to come")
    values = {"silenced_until": until, "silenced_by": by[:NAME]}
    connection.execute(update(alert).where(alert.c.id == alert_id).values(values))
    said = alert_delivery.c
    unsaid = and_(said.alert_id == alert_id, said.status == PENDING, said.notice.in_((OPENED, REPEATED)))
    connection.execute(update(alert_delivery).where(unsaid).values(status=DROPPED))
    return get_alert(connection, alert_id)


def unsilence(connection: Connection, alert_id: int) -> Row[Any]:
    """The alert, no longer silenced, if it was. Raises UsageError where there is none."""
    values = {"silenced_until": None, "silenced_by": None}
    connection.execute(update(alert).where(alert.c.id == alert_id).values(values))
    return get_alert(connection, alert_id)


def get_alert(connection: Connection, alert_id: int) -> Row[Any]:
    """Raises UsageError where there is none."""
    row = connection.execute(select(alert).where(alert.c.id == alert_id)).one_or_none()
    if row is None:
        raise UsageError(f"there is no alert {alert_id}; main.py alert list shows them")
    return row


def open_alerts(connection: Connection) -> Sequence[Row[Any]]:
    """What is the matter now, oldest first."""
    return connection.execute(select(alert).where(OPEN).order_by(alert.c.id)).all()


def newest_alerts(connection: Connection, limit: int, before: int | None = None) -> Sequence[Row[Any]]:
    """The newest alerts, or those before one, open or over, newest first."""
    query = select(alert).order_by(alert.c.id.desc()).limit(limit)
    return connection.execute(query if before is None else query.where(alert.c.id < before)).all()


def deliveries_of(connection: Connection, alert_id: int) -> Sequence[Row[Any]]:
    said = alert_delivery.c
    return connection.execute(select(alert_delivery).where(said.alert_id == alert_id).order_by(said.id)).all()
