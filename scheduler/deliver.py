"""The child that calls a subscriber: `python -m scheduler.deliver NAME MODULE:FUNCTION TOPIC…`.

A subscriber is somebody's code: it may crash, hang or eat the memory. So it is called here, with a limit on each, and
holds a transaction for HOLD_SECONDS at the most: longer no run waits for its locks, nor for SQLite's only one.
"""

from __future__ import annotations

import importlib
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, Row, event as sqlalchemy_event

from core import db
from core.errors import DatabaseUnavailable, NavKeeperError
from scheduler import events, subscriptions
from scheduler.clock import Clock, clock_from
from scheduler.events import Event
from scheduler.subscriptions import Subscriber

log = logging.getLogger(__name__)
EVENT_SECONDS = 60  # for one event, without the wait for a lock
HOLD_SECONDS = 5  # of them, from its first statement on
BATCH_SECONDS = 20  # for one process: no new event after that
MEMORY = 2 << 30  # bytes
BATCH = 1000
TOGETHER = 100  # events in one transaction at the most, as long as all goes well
TOGETHER_SECONDS = 0.5
NOT_NOW = timedelta(seconds=10)  # until what no event is to blame for is tried again
Function = Callable[[Connection, Event], object]


class Delivery:
    """One process's part: every topic of a subscriber until nothing is left or `enough` says so."""

    def __init__(
        self,
        engine: Engine,
        subscriber: Subscriber,
        clock: Clock,
        secrets: list[str],
        enough: Callable[[], bool],
    ) -> None:
        self.engine = engine
        self.subscriber = subscriber
        self.clock = clock
        self.secrets = sorted(secrets, key=len, reverse=True)
        self.enough = enough

    def run(self) -> None:
        """Raises NavKeeperError where the database is away."""
        for topic in self.subscriber.topics:
            with db.write(self.engine) as connection:
                token = subscriptions.claim(connection, self.subscriber.name, topic, self.clock())
            if token is not None:
                while self._batch(topic, token):
                    pass
                with db.write(self.engine) as connection:
                    subscriptions.release(connection, token)
        self._retry_parked()

    def _batch(self, topic: str, token: str) -> bool:
        """Whether there may be more to do now."""
        with db.read(self.engine) as connection:
            position = subscriptions.position_of(connection, token)
            found = [] if position is None else events.read_after(connection, topic, position, BATCH)
        if not found:
            return False
        functions: list[Function] = []
        error = failure_of(lambda: functions.append(load(self.subscriber.function)))
        if error is not None:
            self._postpone(token, error)
            return False
        at, size = 0, 1  # one, until it is known to work: who died of one of many died of the first
        while at < len(found):
            if self.enough():
                return False
            part, taken = found[at : at + size], list[Event]()
            error = failure_of(partial(self._take, functions[0], part, token, taken))
            if error is None:
                at, size = at + len(taken), min(2 * size, TOGETHER)
            elif len(part) > 1 and not isinstance(error, Superseded | DatabaseUnavailable):
                size = 1  # which of them it is shows one by one
            else:
                self._note(topic, token, part[0], error)
                return False
        return len(found) == BATCH

    def _take(self, function: Function, part: list[Event], token: str, taken: list[Event]) -> None:
        """As many of them as a short transaction has time for; `taken` says which."""
        until = time.monotonic() + TOGETHER_SECONDS
        with db.write_when_used(self.engine) as connection:
            for event in part:
                function(connection, event)
                taken.append(event)
                if time.monotonic() > until:
                    break
            if not subscriptions.advance(connection, token, taken[-1]):
                raise Superseded

    def _note(self, topic: str, token: str, event: Event, error: Exception) -> None:
        """What failed, unless another has the claim now."""
        if isinstance(error, Superseded):
            return
        log.error("%s failed at event %d, %s", self.subscriber.name, event.id, event.topic)
        if isinstance(error, DatabaseUnavailable):
            self._postpone(token, error)
            return
        with db.write(self.engine) as connection:
            if subscriptions.position_of(connection, token) is not None:
                said = self.clean(error)
                subscriptions.note_failure(connection, self.subscriber.name, topic, said, self.clock())

    def _postpone(self, token: str, error: Exception) -> None:
        log.error("%s has to wait: %s", self.subscriber.name, self.clean(error))
        with db.write(self.engine) as connection:
            subscriptions.postpone(connection, token, self.clean(error), self.clock() + NOT_NOW)

    def _retry_parked(self) -> None:
        with db.read(self.engine) as connection:
            rows = subscriptions.to_retry(connection, self.subscriber.name)
            found = {event.id: event for event in events.read_ids(connection, [row.event_id for row in rows])}
        for row in rows:
            with db.write(self.engine) as connection:
                ours = subscriptions.begin_retry(connection, row, self.clock())
            if ours:
                error = failure_of(partial(self._retry, row, found[row.event_id]))
                if error is not None:
                    log.error("%s failed again at event %d", row.subscriber, row.event_id)
                    with db.write(self.engine) as connection:
                        subscriptions.end_retry(connection, row.id, self.clean(error))

    def _retry(self, row: Row[Any], event: Event) -> None:
        function = load(self.subscriber.function)
        with db.write_when_used(self.engine) as connection:
            function(connection, event)
            subscriptions.end_retry(connection, row.id, None)

    def clean(self, error: Exception) -> str:
        """One line without secrets; whoever cuts it does so afterwards, or half a secret could be left."""
        text = f"{type(error).__name__}: {error}"
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())


class Superseded(Exception):
    """Another process has the claim now."""


def failure_of(call: Callable[[], object]) -> Exception | None:
    """What went wrong in somebody's code; beside the runner, the one place that catches everything."""
    signal.alarm(EVENT_SECONDS)  # whose default is the end of the process, whatever it is at
    try:
        call()
    except Superseded as error:
        return error
    except Exception as error:
        log.exception("a subscriber failed")
        return error
    finally:
        signal.alarm(0)
    return None


def load(path: str) -> Function:
    """The function named "module:name"; raises what its module raises."""
    module, _, name = path.partition(":")
    found: Function = getattr(importlib.import_module(module), name)
    return found


def limit_transactions(engine: Engine) -> None:
    """From its first statement on others may have to wait for a transaction. How long it waits is not counted."""
    timed: list[int] = []

    def before(_connection: Connection) -> None:
        timed[:] = [signal.alarm(0)]

    def after(_connection: Connection) -> None:
        if timed[0]:
            signal.alarm(HOLD_SECONDS)

    sqlalchemy_event.listen(engine, "begin", before, insert=True)
    sqlalchemy_event.listen(engine, "begin", after)


def main(argv: list[str]) -> int:
    """Exit code 1 where the database is away."""
    from config.logging_config import configure_logging
    from config.settings import load_settings

    os.nice(10)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    until = time.monotonic() + BATCH_SECONDS
    name, path, *topics = argv
    settings = load_settings()
    configure_logging(settings.log_level, settings.secrets(), settings.logs / "events.log", console=False)
    engine = db.connect(settings.database_url())
    limit_transactions(engine)
    subscriber = Subscriber(name, path, tuple(topics))
    clock = clock_from(settings)
    try:
        Delivery(engine, subscriber, clock, settings.secrets(), lambda: time.monotonic() > until).run()
    except NavKeeperError as error:
        log.error("%s: %s", error.code, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
