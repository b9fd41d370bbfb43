"""The market plugin's tasks on a database, each as the run of a job, to its last transaction."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, select

from config.settings import load_settings
from core import db
from core.errors import NavKeeperError
from scheduler import run_store
from scheduler.job import RunStatus
from scheduler.market_plugin import PLUGIN
from scheduler.plugin import TaskResult
from scheduler.process_identity import this_process
from scheduler.run_context import RunContext
from tests.daemon import at


class Context(RunContext):
    """With what a plugin may do beside: events are kept in a list."""

    events: list[tuple[str, dict[str, Any]]]
    secrets: dict[str, str]

    def publish(self, connection: Connection, topic: str, payload: dict[str, Any]) -> int:
        self.events.append((topic, payload))
        return len(self.events)

    def secret(self, name: str) -> str:
        return self.secrets[name]


class Market:
    """Runs on one database, one after the other."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.settings = engine, load_settings()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.secrets: dict[str, str] = {}
        with engine.begin() as connection:
            for migration in PLUGIN.migrations:
                migration(Operations(MigrationContext.configure(connection)))

    def context(self, task: str, day: date, now: datetime) -> Context:
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
        context = Context(self.engine, self.settings, run, claim, lambda: now, table_name=task, translate=str)
        context.events, context.secrets = self.events, self.secrets
        return context

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
