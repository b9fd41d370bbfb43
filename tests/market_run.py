"""The market plugin's tasks on a database, each as the run of a job, to its last transaction."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from pydantic import SecretStr
from sqlalchemy import Engine, select

from config.settings import load_settings
from core import db
from core.errors import NavKeeperError
from core.schema import run_event
from scheduler import run_store
from scheduler.job import RunStatus
from scheduler.market_plugin import PLUGIN
from scheduler.plugin import TaskResult
from scheduler.process_identity import this_process
from scheduler.run_context import RunContext
from tests.daemon import at


class Market:
    """Runs on one database, one after the other."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.settings = engine, load_settings()
        with engine.begin() as connection:
            for migration in PLUGIN.migrations:
                migration(Operations(MigrationContext.configure(connection)))

    def context(self, task: str, day: date, now: datetime) -> RunContext:
        with db.write(self.engine) as connection:
            run_id = run_store.add_run(
                connection,
                job_id=task,
                task=task,
                business_date=day,
                status=RunStatus.QUEUED,
                now=now,
                params={},
            )
            assert run_id is not None
            claim = run_store.claim_run(
                connection, run_store.get_run(connection, run_id), this_process(), now
            )
            assert claim is not None
            run = run_store.get_run(connection, run_id)
        return RunContext(self.engine, self.settings, run, claim, lambda: now, table_name=task, translate=str)

    def know(self, **secrets: str) -> None:
        """As NAVKEEPER_SECRETS would have it."""
        secret = SecretStr(json.dumps(secrets))
        self.settings = self.settings.model_copy(update={"plugin_secrets": secret})

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What was published, in its order."""
        published = select(run_event).where(run_event.c.topic.startswith("market.")).order_by(run_event.c.id)
        with db.read(self.engine) as connection:
            return [(row.topic, json.loads(row.payload)) for row in connection.execute(published)]

    def do(self, name: str, day: date, hour: int = 20, **params: Any) -> TaskResult:
        """One run of a task to its end; its errors are raised."""
        task = next(task for task in PLUGIN.tasks if task.id == f"market.{name}")
        context = self.context(task.id, day, at(day, hour))
        try:
            result = task.function(context, task.params(**params))
        except NavKeeperError as error:
            context.fail(f"{error.code}: {error}", retry=error.retry)
            raise
        assert result is not None
        with context.commit() as commit:
            if result.write is not None:
                result.write(commit.connection)
            commit.end(RunStatus(result.status), result.records, result.reason)
        return result

    def rows(self, table: Any, *where: Any) -> list[Any]:
        with db.read(self.engine) as connection:
            return list(connection.execute(select(table).where(*where).order_by(*table.primary_key.columns)))
