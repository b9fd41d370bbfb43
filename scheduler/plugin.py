"""What an author of a plugin imports: a plugin, its tasks, and what a task hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scheduler.task_params import Params as Params

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy import Connection, MetaData


@dataclass(frozen=True)
class TaskResult:
    """How a task ended; `write` is called in the run's last transaction, `data` is JSON."""

    records: int = 0
    status: str = "SUCCESS"
    reason: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    write: Callable[[Connection], None] | None = None


@dataclass(frozen=True)
class Task:
    """`function(context, params)`; `table_name` is what data_update_log names."""

    id: str
    name: str
    description: str
    params: type[Params]
    function: Callable[[Any, Any], TaskResult | None]
    table_name: str = ""


@dataclass(frozen=True)
class Plugin:
    """Tables begin with "<id>_"; `migrations` make them."""

    id: str
    version: str
    name: str
    description: str
    tasks: tuple[Task, ...]
    requires: tuple[str, ...] = ()
    tables: MetaData | None = None
    migrations: tuple[Callable[[Operations], None], ...] = ()
    subscribers: tuple[Any, ...] = ()
