"""SQL on the outbox: what is to be said is claimed, sent outside of every transaction, then recorded.

Who dies between sending and recording has it sent again: at least once, never lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.schema import alert, alert_delivery
from scheduler.alert_rules import FAILURE, START, SUCCESS
from scheduler.alert_store import DROPPED, PENDING, SENDING, SENT

PINGS = (START, SUCCESS, FAILURE)
GATHERED = timedelta(minutes=1)  # what comes within a minute of the first goes out in one message
BACK_OFF = timedelta(seconds=30)
LONGEST_BACK_OFF = timedelta(minutes=15)
STALE_PING = timedelta(hours=12)
ERROR = 500
IS_PING = alert_delivery.c.notice.in_(PINGS)


def say_once(connection: Connection, ping: str, key: str, now: datetime) -> None:
    """A ping, unless it has been put here before."""
    values = {"notice": ping, "once_key": key, "status": PENDING, "created_at": now, "next_try_at": now}
    try:
        with connection.begin_nested():
            connection.execute(insert(alert_delivery).values(values))
    except IntegrityError:
        return


def said_once(connection: Connection, prefix: str) -> set[str]:
    """The keys of pings that begin so."""
    key = alert_delivery.c.once_key
    found = select(key).where(key.startswith(prefix, autoescape=True))
    return set(connection.execute(found).scalars().all())


def _may_go(now: datetime) -> ColumnElement[bool]:
    """Also what a clock ahead of ours has put off."""
    said = alert_delivery.c
    in_time = or_(said.next_try_at <= now, said.next_try_at > now + LONGEST_BACK_OFF)
    return and_(said.status == PENDING, in_time)


def anything_due(connection: Connection, now: datetime) -> bool:
    """Whether something is to go out now: a look into an index, every second."""
    said = alert_delivery.c
    old_enough = or_(IS_PING, said.created_at <= now - GATHERED, said.created_at > now)
    return connection.execute(select(said.id).where(_may_go(now), old_enough).limit(1)).first() is not None


def put_back(connection: Connection) -> None:
    """What somebody was sending who is no more. Call it only while nobody sends."""
    sending = alert_delivery.c.status == SENDING
    connection.execute(update(alert_delivery).where(sending).values(status=PENDING, claim=None))


def drop_unwanted(connection: Connection, now: datetime, *, channels: bool, switch: bool) -> None:
    """What nobody is to hear: there is no channel, or the ping is of yesterday."""
    waits, old = alert_delivery.c.status == PENDING, alert_delivery.c.created_at < now - STALE_PING
    unwanted = [IS_PING if not switch else and_(IS_PING, old)]
    if not channels:
        unwanted.append(~IS_PING)
    connection.execute(update(alert_delivery).where(waits, or_(*unwanted)).values(status=DROPPED))


def claim_message(connection: Connection, now: datetime) -> str | None:
    """Claim all that goes out in the next message; None while there is nothing, or more may come within the minute."""
    said = alert_delivery.c
    ready = and_(_may_go(now), ~IS_PING)
    first = connection.execute(select(func.min(said.created_at)).where(ready)).scalar()
    if first is None or now - GATHERED < first <= now:
        return None
    return _claim(connection, ready)


def claim_ping(connection: Connection, now: datetime) -> str | None:
    """Claim the oldest ping, unless one before it could not be sent yet: they keep their order."""
    said = alert_delivery.c
    ready = and_(_may_go(now), IS_PING)
    first = connection.execute(select(said.id).where(ready).order_by(said.id).limit(1)).scalar()
    if first is None:
        return None
    earlier = select(said.id).where(IS_PING, said.status == PENDING, said.id < first)
    if connection.execute(select(exists(earlier))).scalar():
        return None
    return _claim(connection, and_(ready, said.id == first))


def _claim(connection: Connection, which: ColumnElement[bool]) -> str | None:
    claim = str(uuid.uuid4())
    values = {"status": SENDING, "claim": claim, "attempts": alert_delivery.c.attempts + 1}
    done = connection.execute(update(alert_delivery).where(which).values(values))
    return claim if done.rowcount else None


def claimed(connection: Connection, claim: str) -> Sequence[Row[tuple[object, ...]]]:
    """The rows of a claim with their alerts, oldest alert first."""
    said = alert_delivery.c
    of_alert = (*(column for column in alert.c if column.name != "id"), alert.c.id.label("alert"))
    query = select(said.id, said.notice, said.attempts, said.once_key, *of_alert)
    joined = query.join_from(alert_delivery, alert, alert.c.id == said.alert_id, isouter=True)
    return connection.execute(joined.where(said.claim == claim).order_by(said.alert_id, said.id)).all()


def record_sent(connection: Connection, claim: str, channel: str, now: datetime, error: str | None) -> None:
    """`error`: of the channels before the one by which it went out."""
    values = {"status": SENT, "channel": channel, "sent_at": now, "last_error": error and error[:ERROR]}
    connection.execute(update(alert_delivery).where(_ours(claim)).values(values))


def record_failed(connection: Connection, claim: str, error: str, attempts: int, now: datetime) -> None:
    """By no channel; tried again after a while, twice as long each time."""
    pause = min(BACK_OFF * 2 ** min(attempts - 1, 10), LONGEST_BACK_OFF)
    values = {"status": PENDING, "claim": None, "next_try_at": now + pause, "last_error": error[:ERROR]}
    connection.execute(update(alert_delivery).where(_ours(claim)).values(values))


def _ours(claim: str) -> ColumnElement[bool]:
    return and_(alert_delivery.c.claim == claim, alert_delivery.c.status == SENDING)


def sent_within_a_minute(connection: Connection, channel: str, now: datetime) -> int:
    """Messages, not what was in them."""
    said = alert_delivery.c
    lately = and_(said.channel == channel, said.sent_at > now - timedelta(minutes=1), said.sent_at <= now)
    return connection.execute(select(func.count(said.claim.distinct())).where(lately)).scalar() or 0
