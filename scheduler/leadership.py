"""Who leads: one row with an epoch. What a daemon writes holds only while its own epoch does.

A leader counts its signs of life up in the row. Who stands by takes over when the count has stood still
for LEASE_SECONDS of its own monotonic clock: no two hosts need to agree on the time, and a jump of
anybody's clock changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from core import db
from core.errors import AlreadyRunning, LeadershipLost
from core.schema import daemon
from scheduler.catch_up import ON_TIME
from scheduler.process_identity import Process

log = logging.getLogger(__name__)
LEASE_SECONDS = 15.0
RENEW_SECONDS = 3.0


class Stillness:
    """For how long each thing looked at has not changed, by this process's monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[object, float]] = {}

    def seconds(self, thing: Hashable, value: object) -> float:
        """Seconds since `thing` was first seen with its present `value`."""
        now = time.monotonic()
        before = self._seen.get(thing)
        if before is None or before[0] != value:
            self._seen[thing] = (value, now)
            return 0.0
        return now - before[1]

    def keep_only(self, things: set[Hashable]) -> None:
        self._seen = {thing: seen for thing, seen in self._seen.items() if thing in things}


class Leadership:
    """This daemon's claim to lead all daemons on its database."""

    def __init__(self, engine: Engine, process: Process) -> None:
        self.engine = engine
        # Renewed on a connection of its own, whatever the work does with the others.
        self._own = db.connect(engine.url, supervising=True)
        self.process = process
        self.epoch: int | None = None
        self.last_led: datetime | None = None  # the last sign of life of who led before us
        self.heartbeat: datetime | None = None  # the row's: no absence before it is left to be noted
        self._stillness = Stillness()
        self._renewed = 0.0
        self._named: tuple[int, int] | None = None

    def acquire(self, now: datetime) -> bool:
        """Whether we lead now. Raises AlreadyRunning where another lives and nobody may stand by (SQLite)."""
        with db.read(self._own) as connection:
            leader = connection.execute(select(daemon)).one_or_none()
        if leader is not None and self._lives(leader):
            self._stand_by(leader)
            return False
        with db.write(self._own) as connection:
            epoch = self._take(connection, leader, now)
        self.epoch = epoch  # committed
        self._renewed = time.monotonic()
        self.last_led = leader.heartbeat_at if leader is not None else None
        self.heartbeat = self.last_led or now
        if self.epoch is not None:
            log.info("leading, epoch %d", self.epoch)
        return self.epoch is not None

    def _lives(self, leader: Row[Any]) -> bool:
        if leader.stopped_at is not None:
            return False
        process = Process(leader.host, leader.pid, leader.pid_started)
        if process.host == self.process.host and not process.is_alive() and self._is_told_here(process):
            return False
        if self._own.dialect.name == "sqlite":  # one host has the file, and its daemon the file lock
            return process.host == self.process.host and process != self.process
        return self._stillness.seconds("leader", (leader.epoch, leader.beats)) < LEASE_SECONDS

    def _is_told_here(self, process: Process) -> bool:
        """Whether it must have been a process of this very machine: another may have the same name."""
        return self._own.dialect.name == "sqlite" or process.boot == self.process.boot

    def _stand_by(self, leader: Row[Any]) -> None:
        who = f"pid {leader.pid} on {leader.host}"
        if self._own.dialect.name == "sqlite":
            raise AlreadyRunning(f"a daemon runs already on this database: {who}")
        if self._named != (leader.epoch, leader.pid):
            log.info("standing by: %s leads, epoch %d", who, leader.epoch)
            self._named = (leader.epoch, leader.pid)

    def _take(self, connection: Connection, leader: Row[Any] | None, now: datetime) -> int | None:
        """The next epoch, ours, unless another was faster."""
        epoch = 1 if leader is None else leader.epoch + 1
        values = {
            "host": self.process.host,
            "pid": self.process.pid,
            "pid_started": self.process.started,
            "started_at": now,
            "heartbeat_at": now if leader is None else leader.heartbeat_at,
            "stopped_at": None,
            "epoch": epoch,
            "beats": 0,
        }
        if leader is None:
            try:
                with connection.begin_nested():
                    connection.execute(insert(daemon).values(id=1, **values))
            except IntegrityError:
                return None
            return epoch
        same = and_(daemon.c.id == 1, daemon.c.epoch == leader.epoch, daemon.c.beats == leader.beats)
        taken = connection.execute(update(daemon).where(same).values(values)).rowcount == 1
        return epoch if taken else None

    def renew(self, now: datetime) -> None:
        """A sign of life, at most every RENEW_SECONDS. Raises LeadershipLost."""
        if time.monotonic() - self._renewed < RENEW_SECONDS:
            return
        heartbeat = self.heartbeat if self.absence(now) else now
        with db.write(self._own) as connection:
            self._update(connection, heartbeat_at=heartbeat, beats=daemon.c.beats + 1)
        self.heartbeat, self._renewed = heartbeat, time.monotonic()

    def absence(self, now: datetime) -> timedelta:
        """For how long no daemon was there, as far as that is not noted yet; nothing where it was on time."""
        away = now - (self.heartbeat or now)
        return away if away > ON_TIME else timedelta()

    def note_absence(self, now: datetime, note: Callable[[Connection, timedelta], None]) -> None:
        """Once for each absence, and not lost where we die: with the sign of life that ends it."""
        absence = self.absence(now)
        if not absence:
            return
        with self.write() as connection:
            note(connection, absence)
            self._update(connection, heartbeat_at=now)
        self.heartbeat = now

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds only in our epoch. Raises LeadershipLost, and then nothing was written."""
        with db.write(self.engine) as connection:
            held = select(daemon.c.epoch).where(daemon.c.id == 1).with_for_update(read=True)
            if self.epoch is None or connection.execute(held).scalar() != self.epoch:
                raise self._lost()
            yield connection

    def resign(self, now: datetime) -> None:
        """Others may take over at once."""
        if self.epoch is not None:
            with db.write(self._own) as connection:
                self._update(connection, heartbeat_at=now, stopped_at=now)

    def close(self) -> None:
        self._own.dispose()

    def _update(self, connection: Connection, **values: Any) -> None:
        ours = and_(daemon.c.id == 1, daemon.c.epoch == self.epoch)
        if connection.execute(update(daemon).where(ours).values(values)).rowcount != 1:
            raise self._lost()

    def _lost(self) -> LeadershipLost:
        lost = LeadershipLost(f"another daemon has taken over; epoch {self.epoch} is over")
        self.epoch = None
        return lost
