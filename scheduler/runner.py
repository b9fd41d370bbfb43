"""One run, in one process: `python -m scheduler.runner RUN_ID CLAIM` as the daemon's child, or called by main.py.

The run's data, its data_update_log row and its final state commit in one transaction, fenced by the
claim. Died before: nothing happened. Died after: it succeeded.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row

from core import db
from core.errors import ClaimLost, DatabaseUnavailable, NavKeeperError
from scheduler import run_store
from scheduler.clock import Clock
from scheduler.job import RunStatus
from scheduler.tasks import require_task

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
            table_name=require_task(self._run.task).table_name,
            record_count=count,
            reason=reason,
        )


def execute(context: RunContext, run: Row[Any]) -> tuple[RunStatus, int, str | None]:
    """Do the run's work and record its end; never raises. Returns state, record count and reason."""
    context.log.info("run %d: %s for %s", run.id, run.task, run.business_date)
    try:
        task = require_task(run.task)
        task.function(context, task.params.model_validate_json(run.params))
        if context.outcome is None:
            raise RuntimeError(f"task {run.task} returned without a commit")
    except NavKeeperError as error:
        context.log.error("%s: %s", error.code, error)
        context.fail(f"{error.code}: {error}")
    except ValidationError as error:
        context.fail(f"usage: parameters do not fit: {error.errors(include_input=False, include_url=False)}")
    except Exception as error:
        context.log.exception("run %d failed", run.id)
        context.fail(f"internal_error: {type(error).__name__}; the traceback is in the run's log")
    assert context.outcome is not None  # noqa: S101 - set by commit() or fail()
    context.log.info("run %d: %s, %d records%s", run.id, *_shown(context.outcome))
    return context.outcome


def _shown(outcome: tuple[RunStatus, int, str | None]) -> tuple[str, int, str]:
    status, count, reason = outcome
    return status.value, count, f" ({reason})" if reason else ""


def main(argv: list[str]) -> int:
    """The child's entry: take the claim over from the supervisor, then run."""
    from config.logging_config import configure_logging
    from config.settings import load_settings
    from config.translation import translator
    from scheduler.clock import clock_from
    from scheduler.process_identity import this_process

    run_id, claim = int(argv[0]), argv[1]
    settings = load_settings()
    configure_logging(settings.log_level, settings.secrets())
    engine = db.connect(settings.database_url())
    with db.write(engine) as connection:
        ours = run_store.hand_over(connection, run_id, claim, this_process())
        run = run_store.get_run(connection, run_id)
    if not ours or run is None:
        logging.getLogger(__name__).error("run %d is not ours to do", run_id)
        return 1
    translate = translator(settings.language)
    context = RunContext(engine, settings, run, claim, clock_from(settings), translate=translate)
    status, _count, _reason = execute(context, run)
    return 0 if status in (RunStatus.SUCCESS, RunStatus.PARTIAL, RunStatus.SKIPPED) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
