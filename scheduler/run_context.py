"""What a task may know and do while it runs, and the one transaction in which its run ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row

from core import db
from core.crash_points import reached
from core.errors import ClaimLost, ConfigurationError, DatabaseUnavailable
from scheduler import events, run_store
from scheduler.clock import Clock
from scheduler.job import RunStatus
from scheduler.process_identity import peak_memory_kb
from scheduler.run_store import End

if TYPE_CHECKING:
    from config.settings import Settings
    from scheduler.cache import Cache

BEAT = timedelta(seconds=1)
LOST = "run {} is no longer ours: it was declared dead, cancelled or stopped; nothing was written"
Progress = Callable[[int, int | None, str], None]


def no_progress(_done: int, _total: int | None, _unit: str) -> None:
    """For runs nobody watches."""


class Commit:
    """The run's last transaction: write the data on `connection`, then say how it ended."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.outcome: End | None = None

    def end(
        self, status: RunStatus | str, record_count: int, reason: str | None = None, result: str | None = None
    ) -> None:
        """`result`: JSON that is kept with the run."""
        self.outcome = End(RunStatus(status), record_count, reason, result=result)


class RunContext:
    """What a task may know and do."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        run: Row[Any],
        claim: str,
        clock: Clock,
        *,
        table_name: str,
        translate: Callable[[str], str],
        progress: Progress = no_progress,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.now = clock
        self._show = progress
        self._last_beat: datetime | None = None
        self.translate = translate  # for files people read
        self.run_id: int = run.id
        self.business_date: date = run.business_date
        self.details: dict[str, Any] = {}  # for who called the run in this process
        self.log = logging.getLogger(f"run.{run.job_id}")
        self.outcome: End | None = None
        self._run = run
        self._table_name = table_name
        self._claim = claim

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction before the last one. Raises ClaimLost if the run was taken from us; then nothing is written."""
        with db.write(self.engine) as connection:
            yield connection
            # At the end: who cancels the run or watches over it does not wait for the work.
            if not run_store.holds(connection, self.run_id, self._claim):
                raise ClaimLost(LOST.format(self.run_id))

    @contextmanager
    def commit(self) -> Iterator[Commit]:
        """The last transaction of this run. Raises ClaimLost, and then nothing was written."""
        with db.write(self.engine) as connection:
            commit = Commit(connection)
            yield commit
            if commit.outcome is None:
                raise RuntimeError("the task ended its transaction without saying how it ended")
            reached(f"{self._run.job_id}.written")
            self._end(connection, commit.outcome)
            reached(f"{self._run.job_id}.ended")
        reached(f"{self._run.job_id}.committed")
        self.outcome = commit.outcome

    @cached_property
    def cache(self) -> Cache:
        """What is dear to make and may be old: scheduler/cache.py."""
        from scheduler.cache import open_cache

        return open_cache(self.settings, self.engine)

    def secret(self, name: str) -> str:
        """What NAVKEEPER_SECRETS has under this name; no log shows it. Raises ConfigurationError."""
        found = self.settings.secrets_by_name()
        if name not in found:
            raise ConfigurationError(
                f"there is no secret {name!r}; add it to the JSON of NAVKEEPER_SECRETS where the daemon runs"
            )
        return found[name]

    def cancelled(self) -> bool:
        """Whether the work is wanted no more. The process is ended soon after: for a task that wants to end tidily."""
        with db.read(self.engine) as connection:
            return not run_store.is_wanted(connection, self.run_id, self._claim)

    def skip(self, reason: str) -> None:
        """There is nothing to do, and nothing was done."""
        with self.commit() as commit:
            commit.end(RunStatus.SKIPPED, 0, reason)

    def publish(self, connection: Connection, topic: str, payload: Mapping[str, Any]) -> int:
        """Say what this transaction does; nobody hears of it unless it is committed. Raises EventRefused."""
        return events.publish(connection, topic, payload, self.now(), self.run_id)

    def clean(self, text: str) -> str:
        """Without secrets."""
        for secret in self.settings.secrets():
            text = text.replace(secret, "***")
        return text

    def fail(self, reason: str, *, retry: bool) -> None:
        """Record a failed attempt; if even that is impossible, the supervisor will."""
        self.outcome = End(RunStatus.FAILED, 0, self.clean(reason), retry)
        try:
            with db.write(self.engine) as connection:
                self._end(connection, self.outcome)
        except (ClaimLost, DatabaseUnavailable) as error:
            self.log.error("the failure could not be recorded: %s", error)

    def _end(self, connection: Connection, end: End) -> None:
        end = replace(end, peak_memory_kb=peak_memory_kb(os.getpid()))
        if not run_store.end_run(
            connection, self._run, end, self.now(), claim=self._claim, table_name=self._table_name
        ):
            raise ClaimLost(LOST.format(self.run_id))

    def was_done(self, task: str) -> bool:
        """Whether a run of `task` has succeeded for this business date."""
        with db.read(self.engine) as connection:
            return run_store.was_done(connection, task, self.business_date)

    def progress(self, done: int, total: int | None, text: str, item: str | None = None) -> None:
        """Tell who watches, and the database once a second at the most: `done` of `total` `text`, now at `item`.

        Raises ClaimLost if the run was taken from us or cancelled meanwhile. A database that is away is not
        the work's trouble yet.
        """
        self._show(done, total, text)
        now = self.now()
        if self._last_beat is not None and abs(now - self._last_beat) < BEAT:
            return
        self._last_beat = now
        try:
            with db.write(self.engine) as connection:
                ours = run_store.note_progress(
                    connection, self.run_id, self._claim, now, done, total, text, item
                )
        except DatabaseUnavailable as error:
            self.log.warning("progress could not be noted: %s", error)
            return
        if not ours:
            raise ClaimLost(LOST.format(self.run_id))
