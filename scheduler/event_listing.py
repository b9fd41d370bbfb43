"""Events, subscribers and what is parked as plain records, and in words for a screen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from core import db
from core.schema import event_cursor, event_parked, job_run, run_event
from scheduler import events, subscriptions
from scheduler.sections import Section
from scheduler.wording import Translate, clock_time, cut, number, one_line

Record = dict[str, Any]
TIME = "%Y-%m-%d %H:%M:%S"
LONGEST = 120  # characters of a payload in a table


def list_events(
    engine: Engine,
    *,
    topic: str | None = None,
    run_id: int | None = None,
    kind: str | None = None,
    since: datetime | None = None,
    before: int | None = None,
    limit: int,
) -> list[Record]:
    """What was published and what befell the runs, newest first. `topic`: one, or all that begin alike (quality.*)."""
    event = run_event.c
    wanted = [
        events.of_topic(topic) if topic is not None else None,
        event.run_id == run_id if run_id is not None else None,
        event.kind == kind if kind is not None else None,
        event.at >= since if since is not None else None,
        event.id < before if before is not None else None,
    ]
    query = select(run_event, job_run.c.job_id, job_run.c.task, job_run.c.business_date)
    joined = query.join_from(run_event, job_run, job_run.c.id == event.run_id, isouter=True)
    found = joined.where(*(clause for clause in wanted if clause is not None))
    with db.read(engine) as connection:
        rows = connection.execute(found.order_by(event.id.desc()).limit(limit)).all()
    return [
        {
            "event": row.id,
            "topic": row.topic,
            "run": row.run_id,
            "job": row.job_id,
            "business_date": row.business_date,
            "at": row.at,
            "kind": row.kind,
            "from_status": row.from_status,
            "to_status": row.to_status,
            "reason": row.reason,
            "payload": events.payload_of(row),
        }
        for row in rows
    ]


def list_parked(engine: Engine, limit: int, before: int | None = None) -> list[Record]:
    """Events that a subscriber could not take, newest first."""
    parked, event = event_parked.c, run_event.c
    query = select(event_parked, event.topic, event.at).join(run_event, event.id == parked.event_id)
    if before is not None:
        query = query.where(parked.id < before)
    with db.read(engine) as connection:
        rows = connection.execute(query.order_by(parked.id.desc()).limit(limit)).all()
    return [
        {
            "parked": row.id,
            "subscriber": row.subscriber,
            "event": row.event_id,
            "topic": row.topic,
            "at": row.at,
            "attempts": row.attempts,
            "error": row.error,
            "parked_at": row.parked_at,
            "retry_by": row.retry_by,
        }
        for row in rows
    ]


def list_subscribers(engine: Engine) -> list[Record]:
    """Who listens to what, jobs included, and how many events each has still to take."""
    with db.read(engine) as connection:
        parked = _parked(connection)
        return [
            {
                "subscriber": row.subscriber,
                "topic": row.topic,
                "position": row.position,
                "lag": subscriptions.lag(connection, row.topic, row.position),
                "working": row.claim is not None,
                "attempts": row.attempts,
                "next_try_at": row.next_try_at,
                "last_error": row.last_error,
                "parked": parked[row.subscriber],
                "seen_at": row.seen_at,
            }
            for row in subscriptions.cursors(connection)
        ]


def _parked(connection: Connection) -> Counter[str]:
    name = event_parked.c.subscriber
    rows = connection.execute(select(name, func.count().label("rows")).group_by(name))
    return Counter({row.subscriber: row.rows for row in rows})


@dataclass(frozen=True)
class EventFigures:
    """For /metrics: events published so far; of each subscriber its lag and what is parked."""

    published: int
    lag: dict[str, int] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)


def event_figures(connection: Connection) -> EventFigures:
    lag: Counter[str] = Counter()
    for row in connection.execute(select(event_cursor)):
        lag[row.subscriber] += subscriptions.lag(connection, row.topic, row.position)
    parked = _parked(connection)
    published = events.last_position(connection)
    return EventFigures(published, dict(lag), {name: parked[name] for name in lag.keys() | parked.keys()})


def events_section(records: Sequence[Record], _: Translate) -> Section:
    headers = [_("event"), _("time"), _("topic"), _("run"), _("job"), _("content")]
    rows = [
        (
            str(record["event"]),
            clock_time(record["at"], TIME),
            one_line(record["topic"]),
            str(record["run"] or ""),
            one_line(record["job"]),
            _content(record),
        )
        for record in records
    ]
    return Section("", headers, rows, right=(0, 3))


def _content(record: Record) -> str:
    if record["to_status"] is not None:
        return one_line(" ".join(filter(None, (record["to_status"], record["reason"]))))
    return cut(one_line(json.dumps(record["payload"], ensure_ascii=False)), LONGEST)


def parked_section(records: Sequence[Record], _: Translate) -> Section:
    headers = [
        _("number"),
        _("subscriber"),
        _("event"),
        _("topic"),
        _("parked at"),
        _("attempts"),
        _("error"),
    ]
    rows = [
        (
            str(record["parked"]),
            one_line(record["subscriber"]),
            str(record["event"]),
            one_line(record["topic"]),
            clock_time(record["parked_at"], TIME),
            str(record["attempts"]),
            one_line(record["error"]),
        )
        for record in records
    ]
    return Section("", headers, rows, right=(0, 2, 5))


def subscribers_section(records: Sequence[Record], _: Translate) -> Section:
    headers = [_("subscriber"), _("topic"), _("to take"), _("parked"), _("next attempt"), _("error")]
    rows = [
        (
            one_line(record["subscriber"]),
            one_line(record["topic"]),
            number(record["lag"]),
            number(record["parked"]),
            clock_time(record["next_try_at"], TIME),
            one_line(record["last_error"]),
        )
        for record in records
    ]
    return Section("", headers, rows, right=(2, 3))
