"""The bus: what happened, published in the transaction in which it happened, and its order.

Numbers are handed out before a commit, so a later `id` may be committed first; who remembered the last id seen would
lose the earlier one. So a committed event is given its `position` afterwards, by one at a time: whoever sees a
position sees every smaller one. Publishers take no lock for it, and cannot meet in a deadlock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, insert, select, update

from core.db import new_id
from core.errors import EventRefused
from core.schema import event_order, job_run, run_event

PUBLISHED = "event"  # the kind of what is no state of a run
LONGEST = 16_000  # bytes of JSON
NUMBERED_AT_ONCE = 1000
ALL = ".*"  # at the end of what is subscribed to
NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")
LONGEST_NAME = 64
Keys = Mapping[str, tuple[type, ...]]


class Topic(NamedTuple):
    about: str
    keys: Keys


_DAY, _RUN = (str,), (int,)
_OF_RUN: Keys = {
    "run_id": _RUN,
    "job_id": (str,),
    "task": (str,),
    "business_date": _DAY,
    "from_status": (str, type(None)),
    "to_status": (str, type(None)),
    "reason": (str, type(None)),
}
# What a run becomes, published by itself: run.waiting, run.queued, run.running, and how an attempt ended.
STATES = (
    *("waiting", "queued", "running", "success", "partial", "failed", "timed_out", "interrupted"),
    *("cancelled", "blocked", "skipped", "missed"),
)
TOPICS: dict[str, Topic] = {
    **{f"run.{state}": Topic(f"a run, or an attempt of it, is {state.upper()}", _OF_RUN) for state in STATES},
    "run.chain_blocked": Topic("a run ended badly, and others wait for it", _OF_RUN),
    "run.silent": Topic("a run has said nothing for long", _OF_RUN),
    "data.nav.merged": Topic(
        "NAVs were merged into fund_nav; by a back-fill in many batches, all of them counted as inserted",
        {"business_date": _DAY, "batch_id": (int, type(None)), "inserted": (int,), "revised": (int,)},
    ),
    "data.metrics.calculated": Topic("metrics were saved", {"business_date": _DAY, "funds": (int,)}),
    "data.reference.collected": Topic(
        "funds, dividends and splits, index closes were looked through",
        {"business_date": _DAY, "rows": (int,)},
    ),
    "quality.quarantined": Topic(
        "rows of a batch failed a rule and are held",
        {"business_date": _DAY, "batch_id": (int,), "rows": (int,)},
    ),
    "quality.released": Topic(
        "rows that were held are believed after all", {"business_date": _DAY, "rows": (int,)}
    ),
}
OURS = frozenset(name.partition(".")[0] for name in TOPICS)


@dataclass(frozen=True)
class Event:
    """What a subscriber is given. `position`: its place in the order of delivery."""

    id: int
    position: int
    topic: str
    at: datetime
    run_id: int | None
    payload: dict[str, Any]


def publish(
    connection: Connection, topic: str, payload: Mapping[str, Any], now: datetime, run_id: int | None = None
) -> int:
    """Say what this transaction does, to be heard once it is committed. Returns the event's number.

    `payload`: JSON, 16 kB at most; of a topic of ours just its keys. Raises EventRefused, and then nothing was written.
    """
    check_topic(topic)
    if topic.startswith("run."):
        raise EventRefused(f"{topic} says itself: it is not for publishing")
    if topic in TOPICS:
        _check_keys(topic, payload, TOPICS[topic].keys)
    values = {"run_id": run_id, "at": now, "kind": PUBLISHED, "topic": topic}
    return new_id(connection.execute(insert(run_event).values(**values, payload=_text(topic, payload))))


def check_topic(topic: str) -> None:
    """Raises EventRefused unless it is one of ours or could be a plugin's: "<plugin id>.<what happened>"."""
    if topic in TOPICS:
        return
    if not NAME.fullmatch(topic) or len(topic) > LONGEST_NAME:
        raise EventRefused(
            f"{topic!r} is no topic: write <plugin id>.<what happened> in small letters, {LONGEST_NAME} at most"
        )
    if topic.partition(".")[0] in OURS:
        raise EventRefused(f"there is no topic {topic}; there are {', '.join(TOPICS)}")


def check_wanted(wanted: str) -> None:
    """As `check_topic`, for what is subscribed to: a topic, or all that begin alike, such as quality.*"""
    if wanted.endswith(ALL) and wanted.removesuffix(ALL) in OURS | {
        "data.nav",
        "data.metrics",
        "data.reference",
    }:
        return
    check_topic(wanted.removesuffix(ALL) + ".any" if wanted.endswith(ALL) else wanted)


def _check_keys(topic: str, payload: Mapping[str, Any], keys: Keys) -> None:
    if payload.keys() != keys.keys():
        raise EventRefused(f"{topic} has {', '.join(keys)}, not {', '.join(payload)}")
    for name, types in keys.items():
        if not isinstance(payload[name], types) or isinstance(payload[name], bool):
            wanted = " or ".join(kind.__name__ for kind in types)
            raise EventRefused(f"{topic}: {name} must be {wanted}, not {payload[name]!r}")


def _text(topic: str, payload: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(payload), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EventRefused(f"{topic}: its payload is no JSON: {error}") from None
    if len(text.encode()) > LONGEST:
        raise EventRefused(
            f"{topic}: its payload is over {LONGEST} bytes; publish what it is about, not all of it"
        )
    return text


def number(connection: Connection) -> int:
    """Give positions to events that have none, the oldest first, NUMBERED_AT_ONCE at most. Returns how many.

    The counter's row is held until the commit, so positions become visible in their order. Which events are there is
    read without locking and after the counter was: an event whose transaction is open keeps nobody waiting, and one
    that was committed before another began comes before it.
    """
    order, event = event_order.c, run_event.c
    last = connection.execute(select(order.last).where(order.id == 1).with_for_update()).scalar_one()
    fresh = select(event.id).where(event.position.is_(None)).order_by(event.id).limit(NUMBERED_AT_ONCE)
    ids = connection.execute(fresh).scalars().all()
    if ids:
        shift = last + 1 - ids[0]
        connection.execute(update(run_event).where(event.id.in_(ids)).values(position=event.id + shift))
        connection.execute(update(event_order).where(order.id == 1).values(last=ids[-1] + shift))
    return len(ids)


def any_without_position(connection: Connection) -> bool:
    """A look into an index, every second."""
    event = run_event.c
    return connection.execute(select(event.id).where(event.position.is_(None)).limit(1)).first() is not None


def last_position(connection: Connection) -> int:
    return connection.execute(select(event_order.c.last)).scalar() or 0


def of_topic(wanted: str) -> ColumnElement[bool]:
    """Events of a topic, or of all that begin alike where it ends in .*"""
    if wanted.endswith(ALL):
        return run_event.c.topic.startswith(wanted.removesuffix("*"), autoescape=True)
    return run_event.c.topic == wanted


def read_after(connection: Connection, wanted: str, position: int, limit: int) -> list[Event]:
    """The next events of a topic, in order."""
    query = _events().where(of_topic(wanted), run_event.c.position > position)
    return [_event(row) for row in connection.execute(query.order_by(run_event.c.position).limit(limit))]


def read_ids(connection: Connection, ids: Sequence[int]) -> list[Event]:
    """Events by their numbers, the oldest first."""
    query = _events().where(run_event.c.id.in_(ids)).order_by(run_event.c.id)
    return [_event(row) for row in connection.execute(query)]


def _events() -> Select[Any]:
    run = (job_run.c.job_id, job_run.c.task, job_run.c.business_date)
    return select(run_event, *run).join_from(
        run_event, job_run, job_run.c.id == run_event.c.run_id, isouter=True
    )


def _event(row: Row[Any]) -> Event:
    return Event(row.id, row.position, row.topic, row.at, row.run_id, payload_of(row))


def payload_of(row: Row[Any]) -> dict[str, Any]:
    """Of a run's state its columns say it all; `row` has the run's job, task and business date too."""
    if row.payload is not None:
        found: dict[str, Any] = json.loads(row.payload)
        return found
    day: date | None = row.business_date
    return {
        "run_id": row.run_id,
        "job_id": row.job_id,
        "task": row.task,
        "business_date": day and day.isoformat(),
        "from_status": row.from_status,
        "to_status": row.to_status,
        "reason": row.reason,
    }
