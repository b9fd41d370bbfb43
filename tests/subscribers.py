"""Subscribers for tests, called in processes of their own; what they keep is in a table that the test made."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, insert

from core.column_types import COMMON, ID
from scheduler.events import Event

metadata = MetaData()
taken = Table(
    "example_taken",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("subscriber", String(20), nullable=False),
    Column("topic", String(64), nullable=False),
    Column("event_id", ID, nullable=False),
    Column("number", Integer, nullable=False),
    **COMMON,
)


def _keep(connection: Connection, subscriber: str, event: Event) -> None:
    values = {"topic": event.topic, "event_id": event.id, "number": event.payload.get("number", 0)}
    connection.execute(insert(taken).values(subscriber=subscriber, **values))


def keep(connection: Connection, event: Event) -> None:
    _keep(connection, "keep", event)


def write_down(_connection: Connection, event: Event) -> None:
    """An effect outside of the database: a line in the file that the payload names."""
    with Path(event.payload["file"]).open("ab", buffering=0) as file:
        file.write(f"{event.topic} {event.payload['number']}\n".encode())


def refuse_odd(connection: Connection, event: Event) -> None:
    """Fails after it has written, and says a secret."""
    _keep(connection, "refuse_odd", event)
    if event.payload["number"] % 2:
        raise ValueError("the password is topsecret, of course")


def die_of_two(connection: Connection, event: Event) -> None:
    """As a segmentation fault ends a process: nothing is caught."""
    _keep(connection, "die_of_two", event)
    if event.payload["number"] == 2:
        os.kill(os.getpid(), signal.SIGSEGV)


def hang_of_two(connection: Connection, event: Event) -> None:
    """For ever, with the transaction's locks."""
    _keep(connection, "hang_of_two", event)
    while event.payload["number"] == 2:
        time.sleep(0.1)
