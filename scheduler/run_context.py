"""What a task may know and do while it runs, and the one transaction in which its run ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row

from core import db
from core.errors import ClaimLost, DatabaseUnavailable
from scheduler import run_store
from scheduler.clock import Clock
from scheduler.job import RunStatus

if TYPE_CHECKING:
    from config.settings import Settings

Progress = Callable[[int, int | None, str], None]


def no_progress(_done: int, _total: int | None, _unit: str) -> None:
    """For runs nobody watches."""


class Commit:
    """The run's last transaction: write the data on `connection`, then say how it ended."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.outcome: tuple[RunStatus, int, str | None] | None = None

    def end(self, status: RunStatus, record_count: int, reason: str | None = None) -> None:
        self.outcome = (status, record_count, reason)


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
        self.progress = progress
        self.translate = translate  # for files people read
        self.run_id: int = run.id
        self.business_date: date = run.business_date
        self.details: dict[str, Any] = {}  # for who called the run in this process
        self.log = logging.getLogger(f"run.{run.job_id}")
        self.outcome: tuple[RunStatus, int, str | None] | None = None
        self._run = run
        self._table_name = table_name
        self._claim = claim

    @contextmanager
    def commit(self) -> Iterator[Commit]:
        """The one transaction of this run. Raises ClaimLost, and then nothing was written."""
        with db.write(self.engine) as connection:
            commit = Commit(connection)
            yield commit
            if commit.outcome is None:
                raise RuntimeError("the task ended its transaction without saying how it ended")
            status, record_count, reason = commit.outcome
            self._finish(connection, status, record_count, reason, self.now())
        self.outcome = commit.outcome

    def fail(self, reason: str) -> None:
        """Record a failure; if even that is impossible, the supervisor will."""
        for secret in self.settings.secrets():
            reason = reason.replace(secret, "***")
        self.outcome = (RunStatus.FAILED, 0, reason)
        try:
            with db.write(self.engine) as connection:
                self._finish(connection, RunStatus.FAILED, 0, reason, self.now())
        except (ClaimLost, DatabaseUnavailable) as error:
            self.log.error("the failure could not be recorded: %s", error)

    def _finish(
        self, connection: Connection, status: RunStatus, count: int, reason: str | None, now: datetime
    ) -> None:
        run_store.finish(
            connection,
            self._run,
            self._claim,
            status,
            now,
            table_name=self._table_name,
            record_count=count,
            reason=reason,
        )
