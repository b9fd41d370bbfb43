"""The daemon's part in events: it gives them their order, and has a child call each subscriber that has something new.

Nothing that hangs or dies there is the daemon's, and no run waits for it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from core import db
from scheduler import events, subscriptions
from scheduler.deliver import BATCH_SECONDS, EVENT_SECONDS
from scheduler.leadership import Leadership
from scheduler.subscriptions import Subscriber
from scheduler.supervisor import kill_group

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
AT_ONCE = 2  # subscribers
LONGEST = BATCH_SECONDS + 2.0 * EVENT_SECONDS  # seconds; a child has its own limit on each event
STEPS = 10  # of numbering, a beat
REGISTERED_EVERY = 3600.0  # seconds; says also that a subscriber is still there
Subscribers = Callable[[Engine], Mapping[str, Subscriber]]


@dataclass
class Child:
    process: subprocess.Popen[bytes]
    deadline: float  # time.monotonic()


class EventDispatch:
    """At most one child for a subscriber, AT_ONCE in all."""

    def __init__(self, leader: Leadership, subscribers: Subscribers = subscriptions.subscribers) -> None:
        self.leader = leader
        self.subscribers = subscribers
        self.children: dict[str, Child] = {}
        self._known: Mapping[str, Subscriber] = {}
        self._registered = float("-inf")  # time.monotonic()
        self._turn: list[str] = []  # who has waited longest comes first

    def tend(self, now: datetime) -> None:
        """Number what is new; bury the children that are done; start those that are due."""
        self._bury()
        with db.read(self.leader.engine) as connection:
            fresh = events.any_without_position(connection)
        if fresh:
            with self.leader.write() as connection:
                for _ in range(STEPS):
                    if events.number(connection) < events.NUMBERED_AT_ONCE:
                        break
        self._register(now)
        if not self._known or len(self.children) >= AT_ONCE:
            return
        with db.read(self.leader.engine) as connection:
            again = subscriptions.wanted_again(connection)
            idle = [name for name in self._turn if name not in self.children]
            due = [name for name in idle if name in again or subscriptions.due_topics(connection, name, now)]
        for name in due[: AT_ONCE - len(self.children)]:
            self._start(self._known[name])

    def _register(self, now: datetime) -> None:
        known = self.subscribers(self.leader.engine)
        if known == self._known and time.monotonic() - self._registered < REGISTERED_EVERY:
            return
        with self.leader.write() as connection:
            for subscriber in known.values():
                subscriptions.register(connection, subscriber.name, subscriber.topics, now)
        self._known, self._registered = dict(known), time.monotonic()
        self._turn = [name for name in self._turn if name in known]
        self._turn += sorted(known.keys() - set(self._turn))

    def _start(self, subscriber: Subscriber) -> None:
        words = [sys.executable, "-m", "scheduler.deliver", subscriber.name, subscriber.function]
        process = subprocess.Popen(
            [*words, *subscriber.topics],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a subscriber may print a gigabyte; what it logs is in logs/events.log
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.children[subscriber.name] = Child(process, time.monotonic() + LONGEST)
        self._turn.remove(subscriber.name)
        self._turn.append(subscriber.name)

    def _bury(self) -> None:
        for name, child in list(self.children.items()):
            if _has_ended(child.process):
                kill_group(child.process.pid, signal.SIGKILL)  # what it forked
                code = child.process.wait()
                del self.children[name]
                if code != 0:
                    log.warning("subscriber %s ended with %d, see logs/events.log", name, code)
            elif time.monotonic() >= child.deadline:
                kill_group(child.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """What they had not done with is delivered again."""
        for child in self.children.values():
            kill_group(child.process.pid, signal.SIGKILL)
            child.process.wait()
        self.children.clear()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping it: until then nobody has its number again."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, options) is not None
