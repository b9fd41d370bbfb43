"""What the author of a plugin imports: docs/plugins.md is the guide.

    from scheduler.plugin import Params, Plugin, Task, TaskResult

The fund tasks are a plugin too (scheduler.tasks.FUNDS), found and run the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from core.errors import EventRefused
from scheduler.events import check_wanted
from scheduler.task_params import InstantText as InstantText, Params as Params

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy import Connection, MetaData

    from scheduler.run_context import RunContext

BUILT_IN = "funds"
NAME = re.compile(r"[a-z][a-z0-9_]{1,31}", re.ASCII)
LONGEST_ID = 64  # the column's length
SUCCESS, PARTIAL, SKIPPED = "SUCCESS", "PARTIAL", "SKIPPED"


@dataclass(frozen=True)
class TaskResult:
    """How a run ended well.

    `data`: what JSON can say, 64 kB at most; conditions of other jobs read it. `write` is called in the run's last
    transaction: what it writes and the run's end are committed together, or neither is.
    """

    records: int = 0
    status: str = SUCCESS  # or PARTIAL: some of it is missing; or SKIPPED: there was nothing to do
    reason: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    write: Callable[[Connection], None] | None = None


@dataclass(frozen=True)
class Task:
    """What a job can run. `function` returns None where it ended its run itself, by `context.commit()`.

    An exception ends the run as FAILED; a core.errors.NavKeeperError says whether trying again may help. What
    data_update_log says was written is `table_name`. Raises ValueError for what cannot be.
    """

    id: str
    name: str
    description: str
    params: type[Params]
    function: Callable[[RunContext, Any], TaskResult | None]
    table_name: str = ""

    def __post_init__(self) -> None:
        for part in self.id.split("."):
            if not NAME.fullmatch(part):
                raise ValueError(f"task id {self.id!r} is not allowed: small letters, digits and _")
        if len(self.id) > LONGEST_ID or len(self.table_name) > LONGEST_ID:
            raise ValueError(f"task {self.id!r}: id and table_name have {LONGEST_ID} letters at most")
        if not self.name.strip():
            raise ValueError(f"task {self.id} needs a name")
        if not (isinstance(self.params, type) and issubclass(self.params, Params)):
            raise ValueError(f"params of task {self.id} must be a subclass of scheduler.plugin.Params")
        if not callable(self.function):
            raise ValueError(f"function of task {self.id} cannot be called")


@dataclass(frozen=True)
class Subscriber:
    """`function(connection, event)` is called for each event of `topics`; see docs/events.md."""

    id: str
    topics: tuple[str, ...]
    function: Callable[[Connection, Any], object]

    def __post_init__(self) -> None:
        if not self.topics:
            raise ValueError(f"subscriber {self.id} has no topics")
        for topic in self.topics:
            try:
                check_wanted(topic)
            except EventRefused as error:
                raise ValueError(f"subscriber {self.id}: {error}") from None
        if not callable(self.function) or "<" in getattr(self.function, "__qualname__", "<"):
            raise ValueError(f"function of subscriber {self.id} must be a function of a module")

    @property
    def path(self) -> str:
        """By which another process finds the function: "module:name"."""
        return f"{self.function.__module__}:{self.function.__qualname__}"


@dataclass(frozen=True)
class Plugin:
    """What a package offers. Raises ValueError for what cannot be.

    `requires`: ids of plugins that are loaded first. `migrations` make and change the tables of `tables`; they are
    called in order, each once for a database, and never changed once they are out.
    """

    id: str
    version: str
    name: str
    description: str
    tasks: tuple[Task, ...]
    requires: tuple[str, ...] = ()
    tables: MetaData | None = None
    migrations: tuple[Callable[[Operations], None], ...] = ()
    subscribers: tuple[Subscriber, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.id):
            raise ValueError(f"plugin id {self.id!r} is not allowed: 2 to 32 small letters, digits and _")
        try:
            Version(self.version)
        except (InvalidVersion, TypeError):
            raise ValueError(f"version {self.version!r} of {self.id} is none such as 1.0 (PEP 440)") from None
        for task in self.tasks:
            if not isinstance(task, Task):
                raise ValueError(
                    f"tasks of {self.id} must be scheduler.plugin.Task, not {type(task).__name__}"
                )
        own = [task.id for task in self.tasks] + [subscriber.id for subscriber in self.subscribers]
        foreign = [name for name in own if name.partition(".")[0] != self.id or name.count(".") != 1]
        if foreign and self.id != BUILT_IN:
            raise ValueError(f"{foreign[0]!r} must be called {self.id}.<name>")
        if len(set(own)) < len(own):
            raise ValueError(f"{self.id} has two tasks or subscribers of one id")
        names = [] if self.tables is None else [*self.tables.tables]
        if strange := [name for name in names if not name.startswith(f"{self.id}_")]:
            raise ValueError(f"table {strange[0]!r} must begin with {self.id}_")
        if names and not self.migrations:
            raise ValueError(f"{self.id} has tables, but no migration that makes them")
