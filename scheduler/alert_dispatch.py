"""The daemon's part in sending alerts: a child process sends, so nothing that hangs or fails there is the daemon's.

An outage of the database is the one alert that cannot be in the outbox: it is kept here, and goes out directly.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core import db
from scheduler import alert_outbox
from scheduler.alert_rules import REPEAT_AFTER
from scheduler.alert_store import OPENED, RECOVERED, REPEATED
from scheduler.leadership import Leadership
from scheduler.supervisor import kill_group

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
DIRECT = "direct"
LONGEST = 300.0  # seconds; each channel gets thirty
OUTAGE_TOLD_AFTER = timedelta(minutes=1)
TOLD_AGAIN = 60.0  # seconds after a message of the database's alert could not be sent


@dataclass(frozen=True)
class Outlets:
    """What is configured, without its secrets: the sending child reads those itself."""

    channels: bool = False
    switch: bool = False  # a dead man's switch


@dataclass
class Outage:
    """The database cannot be reached. `told_at`: when that was last said."""

    since: datetime
    told_at: datetime | None = None


class Dispatch:
    """At most one child at a time, that sends what is due."""

    def __init__(self, leader: Leadership, outlets: Outlets) -> None:
        self.leader = leader
        self.outlets = outlets
        self.outage: Outage | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._deadline = self._direct_after = 0.0  # time.monotonic()
        self._direct: list[dict[str, Any]] = []  # of the database's alert, still to be said
        self._died = False  # the last child, and may have left what it was sending
        self._saying = False  # whether the child says the first of them

    def put_back(self) -> None:
        """What an earlier daemon's child was sending may not have been sent."""
        if not self._busy():
            with self.leader.write() as connection:
                alert_outbox.put_back(connection)
            self._died = False

    def tend(self, now: datetime) -> None:
        """Bury the child that is done; start one where something is due."""
        if self._busy() or self._say_directly():
            return
        if self._died:
            self.put_back()
        with db.read(self.leader.engine) as connection:
            due = alert_outbox.anything_due(connection, now)
        if not due:
            return
        with self.leader.write() as connection:
            wanted = self.outlets
            alert_outbox.drop_unwanted(connection, now, channels=wanted.channels, switch=wanted.switch)
            due = alert_outbox.anything_due(connection, now)
        if due:
            self._start()

    def database_is_away(self, now: datetime) -> None:
        """Said once it has lasted, again every REPEAT_AFTER."""
        if self.outage is None:
            self.outage = Outage(now)
        outage = self.outage
        if outage.told_at is None and now - outage.since >= OUTAGE_TOLD_AFTER:
            self._tell(OPENED, outage.since)
            outage.told_at = now
        elif outage.told_at is not None and now - outage.told_at >= REPEAT_AFTER and not self._direct:
            self._tell(REPEATED, outage.since)
            outage.told_at = now
        if not self._busy():
            self._say_directly()

    def database_is_back(self, now: datetime) -> None:
        if self.outage is not None and self.outage.told_at is not None:
            self._tell(RECOVERED, self.outage.since, now)
        self.outage = None

    def _tell(self, notice: str, since: datetime, over: datetime | None = None) -> None:
        if self.outlets.channels:
            found = {"notice": notice, "opened_at": since.isoformat()}
            self._direct.append(found | {"recovered_at": over and over.isoformat()})

    def _say_directly(self) -> bool:
        """Whether a child was started for it."""
        if not self._direct or time.monotonic() < self._direct_after:
            return False
        self._saying = True
        self._start(json.dumps(self._direct[0]))
        return True

    def _start(self, text: str | None = None) -> None:
        words = [sys.executable, "-m", "scheduler.alert_delivery", *([DIRECT] if text else [])]
        self._child = subprocess.Popen(
            words,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # stderr is the daemon's: what it says goes to its own log, only a traceback there
            start_new_session=True,
        )
        self._deadline = time.monotonic() + LONGEST
        assert self._child.stdin is not None  # noqa: S101 - for the type checker
        self._child.stdin.write((text or "").encode())  # shorter than a pipe is long
        self._child.stdin.close()

    def _busy(self) -> bool:
        """Whether a child is at work; one that is done is buried, one over its time killed."""
        if self._child is None:
            return False
        code = self._child.poll()
        if code is None:
            if time.monotonic() >= self._deadline:
                kill_group(self._child.pid, signal.SIGKILL)
            return True
        self._died |= code != 0
        if code != 0:
            log.warning("an alert could not be sent, see logs/alerts.log (exit code %d)", code)
        if self._saying and code == 0:
            self._direct.pop(0)
        elif self._saying:
            self._direct_after = time.monotonic() + TOLD_AGAIN
        self._child, self._saying = None, False
        return False
