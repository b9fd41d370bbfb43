"""SQL on subscribers: how far each has come, who is at work for it, and the events that nobody could take.

An event is done with in the transaction in which its subscriber's function worked: what that wrote in this database
is written once. A process that dies leaves its claim behind, which counts as a failed attempt at the next event.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from core import db
from core.errors import UsageError
from core.schema import event_cursor, event_parked, run_event
from scheduler import events, plugin_store
from scheduler.events import Event

ATTEMPTS = 3  # then an event is parked, and the next one's turn comes
BACK_OFF = timedelta(seconds=5)  # four times as long after every further attempt
LONGEST_BACK_OFF = timedelta(minutes=15)
ERROR = 500
BY_JOB = "job:"  # before a job's id: its cursor is the daemon's own


@dataclass(frozen=True)
class Subscriber:
    """A module-level function `(connection, event) -> None` of a plugin. `function`: "module:name"."""

    name: str  # "<plugin>.<name>"
    function: str
    topics: tuple[str, ...]


def subscribers(engine: Engine) -> dict[str, Subscriber]:
    """Those of the plugins that are enabled and whose tables are up to date, by name. None of their code is loaded."""
    with db.read(engine) as connection:
        found = [
            plugin
            for plugin in plugin_store.plugins(connection)
            if plugin.state == plugin_store.ENABLED and plugin.schema_version == plugin.migrations
        ]
    return {
        item["id"]: Subscriber(item["id"], item["function"], tuple(item["topics"]))
        for plugin in found
        for item in plugin.subscribers
    }


def register(connection: Connection, name: str, topics: Iterable[str], now: datetime) -> None:
    """A cursor for every topic: a new one begins with what is published from now on. Others of that name go."""
    cursor, wanted = event_cursor.c, set(topics)
    connection.execute(delete(event_cursor).where(cursor.subscriber == name, cursor.topic.not_in(wanted)))
    connection.execute(update(event_cursor).where(cursor.subscriber == name).values(seen_at=now))
    have = set(connection.execute(select(cursor.topic).where(cursor.subscriber == name)).scalars())
    if wanted - have:
        while events.number(connection):
            pass
    for topic in sorted(wanted - have):
        values = {"subscriber": name, "topic": topic, "seen_at": now}
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(event_cursor).values(**values, position=events.last_position(connection))
                )
        except IntegrityError:  # another was faster
            continue


def due_topics(connection: Connection, name: str, now: datetime) -> list[str]:
    """Topics of a subscriber that have something for it now."""
    rows = connection.execute(select(event_cursor).where(event_cursor.c.subscriber == name)).all()
    ready = [row for row in rows if not _waits(row, now)]
    return [row.topic for row in ready if _any_after(connection, row.topic, row.position)]


def _waits(row: Row[Any], now: datetime) -> bool:
    """Not for an instant that a clock ahead of ours has set."""
    return row.next_try_at is not None and now < row.next_try_at <= now + LONGEST_BACK_OFF


def _any_after(connection: Connection, topic: str, position: int) -> bool:
    event = run_event.c
    query = select(event.id).where(events.of_topic(topic), event.position > position).limit(1)
    return connection.execute(query).first() is not None


def claim(connection: Connection, name: str, topic: str, now: datetime) -> str | None:
    """Be the one who works on a topic of a subscriber; None where its next event has to wait after all.

    Where another's claim is still there it has died, or is about to find out that it is no longer meant.
    """
    mine = _of(name, topic)
    row = connection.execute(select(event_cursor).where(*mine).with_for_update()).one_or_none()
    if row is None or (row.claim is None and _waits(row, now)):
        return None
    if row.claim is not None:
        connection.execute(update(event_cursor).where(*mine).values(claim=None))
        note_failure(connection, name, topic, "the process ended before it was done with the event", now)
        row = connection.execute(select(event_cursor).where(*mine)).one()
        if row.attempts > 1:  # once may have been somebody's kill
            return None
    token = str(uuid.uuid4())
    connection.execute(update(event_cursor).where(*mine).values(claim=token))
    return token


def release(connection: Connection, token: str) -> None:
    connection.execute(update(event_cursor).where(event_cursor.c.claim == token).values(claim=None))


def advance(connection: Connection, token: str, event: Event) -> bool:
    """The event is done with; False, and the transaction must not be committed, if another is meant now."""
    cursor = event_cursor.c
    ours = and_(cursor.claim == token, cursor.position < event.position)
    values = {"position": event.position, "attempts": 0, "next_try_at": None, "last_error": None}
    return connection.execute(update(event_cursor).where(ours).values(values)).rowcount == 1


def position_of(connection: Connection, token: str) -> int | None:
    """How far the topic under this claim has come; None where another has claimed it."""
    query = select(event_cursor.c.position).where(event_cursor.c.claim == token)
    return connection.execute(query).scalar_one_or_none()


def note_failure(connection: Connection, name: str, topic: str, error: str, now: datetime) -> None:
    """The next event of a topic could not be taken: later again, or it is parked and the one after it is next."""
    mine = _of(name, topic)
    row = connection.execute(select(event_cursor).where(*mine).with_for_update()).one()
    attempts, cut = row.attempts + 1, error[:ERROR]
    failed = events.read_after(connection, topic, row.position, 1)
    if attempts < ATTEMPTS or not failed:
        again = now + BACK_OFF * 4 ** (attempts - 1) if failed else None
        values: dict[str, Any] = {"attempts": attempts if failed else 0, "next_try_at": again}
    else:
        _park(connection, name, failed[0].id, attempts, cut, now)
        values = {"attempts": 0, "next_try_at": None, "position": failed[0].position}
    connection.execute(update(event_cursor).where(*mine).values(**values, last_error=cut))


def postpone(connection: Connection, token: str, error: str, until: datetime) -> None:
    """The subscriber itself cannot be used, whatever the event."""
    values = {"next_try_at": until, "last_error": error[:ERROR], "claim": None}
    connection.execute(update(event_cursor).where(event_cursor.c.claim == token).values(values))


def _of(name: str, topic: str) -> tuple[ColumnElement[bool], ...]:
    return event_cursor.c.subscriber == name, event_cursor.c.topic == topic


def _park(connection: Connection, name: str, event_id: int, attempts: int, error: str, now: datetime) -> None:
    parked = event_parked.c
    values = {"attempts": attempts, "error": error, "parked_at": now}
    again = and_(parked.subscriber == name, parked.event_id == event_id)
    if not connection.execute(update(event_parked).where(again).values(values)).rowcount:
        connection.execute(insert(event_parked).values(subscriber=name, event_id=event_id, **values))


def retry(connection: Connection, parked_id: int, by: str) -> Row[Any]:
    """Have a parked event tried again. Raises UsageError."""
    parked = event_parked.c
    row = connection.execute(select(event_parked).where(parked.id == parked_id)).one_or_none()
    if row is None:
        raise UsageError(f"nothing is parked under {parked_id}; main.py events parked lists what is")
    connection.execute(update(event_parked).where(parked.id == parked_id).values(retry_by=by))
    return row


def to_retry(connection: Connection, name: str) -> Sequence[Row[Any]]:
    """What is parked for a subscriber and somebody wants tried again, oldest event first."""
    parked = event_parked.c
    query = select(event_parked).where(parked.subscriber == name, parked.retry_by.is_not(None))
    return connection.execute(query.order_by(parked.event_id)).all()


def begin_retry(connection: Connection, row: Row[Any], now: datetime) -> bool:
    """Counted before it is tried: who dies of it is not asked again."""
    parked = event_parked.c
    wanted = and_(parked.id == row.id, parked.retry_by.is_not(None))
    values = {"attempts": row.attempts + 1, "retry_by": None, "parked_at": now}
    return connection.execute(update(event_parked).where(wanted).values(values)).rowcount == 1


def end_retry(connection: Connection, parked_id: int, error: str | None) -> None:
    """It was taken after all, or why not."""
    this = event_parked.c.id == parked_id
    if error is None:
        connection.execute(delete(event_parked).where(this))
    else:
        connection.execute(update(event_parked).where(this).values(error=error[:ERROR]))


def wanted_again(connection: Connection) -> set[str]:
    """Subscribers of parked events that somebody wants tried again."""
    parked = event_parked.c
    return set(connection.execute(select(parked.subscriber).where(parked.retry_by.is_not(None))).scalars())


def cursors(connection: Connection, names: Collection[str] | None = None) -> Sequence[Row[Any]]:
    """How far subscribers have come."""
    cursor = event_cursor.c
    query = select(event_cursor).order_by(cursor.subscriber, cursor.topic)
    return connection.execute(query if names is None else query.where(cursor.subscriber.in_(names))).all()


def lag(connection: Connection, topic: str, position: int) -> int:
    """Events of a topic after a position, those without one included."""
    event = run_event.c
    after = or_(event.position > position, event.position.is_(None))
    query = select(func.count()).select_from(run_event).where(events.of_topic(topic), after)
    return connection.execute(query).scalar_one()
