"""What tasks there are: ours, and those of plugins as they last said of themselves. Nothing of a plugin is imported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, select

from core import db
from core.errors import PluginUnavailable, UsageError
from core.plugin_tables import plugin_source
from scheduler import plugin_store
from scheduler.fund_plugin import FUNDS, TASKS
from scheduler.plugin import Task


@dataclass(frozen=True)
class Described:
    """A task in words. `schema`: of its parameters, JSON Schema. `state`: of its plugin."""

    id: str
    plugin: str
    name: str
    description: str
    table_name: str
    schema: Mapping[str, Any]
    state: str = plugin_store.ENABLED


def is_foreign(task: str) -> bool:
    """Whether it would be a plugin's, whether there is one or not."""
    return task not in TASKS and "." in task


def tasks(connection: Connection) -> list[Described]:
    """Ours, then those of the plugins, by id; one of a plugin that cannot be used is there too."""
    return [*map(_ours, FUNDS.tasks), *_of_plugins(connection)]


def find(connection: Connection, task: str) -> Described:
    """Raises UsageError naming the tasks there are."""
    if task in TASKS:
        return _ours(TASKS[task])
    known = [*_of_plugins(connection)]
    for item in known:
        if item.id == task:
            return item
    if is_foreign(task):
        try:
            plugin_store.require(connection, task.partition(".")[0])
        except PluginUnavailable as error:
            raise UsageError(f"unknown task {task!r}: {error}") from None
    names = ", ".join([*TASKS, *(item.id for item in known)])
    raise UsageError(f"unknown task {task!r}; there are {names}")


def table_of(connection: Connection, task: str) -> str:
    """What data_update_log names for a task; an unknown task by its own name."""
    if not is_foreign(task):
        return TASKS[task].table_name or task if task in TASKS else task
    return next((item.table_name for item in _of_plugins(connection) if item.id == task), task)


def require_known(task: str, params: dict[str, Any]) -> None:
    """As check_params before there is a database: what is or would be a plugin's is left to its run."""
    if task in TASKS:
        _by_model(TASKS[task], params)
    elif not is_foreign(task):
        raise UsageError(
            f"unknown task {task!r}; there are {', '.join(TASKS)}, and those of plugins, with a dot"
        )


def check_params(where: Engine | Connection, task: str, params: dict[str, Any]) -> None:
    """Raises UsageError for an unknown task, and naming what is wrong with the parameters and what the task has.

    Ours are read as the run will read them. Of a plugin's the schema is looked at: what only its code can refuse, its
    run does.
    """
    if task in TASKS:
        _by_model(TASKS[task], params)
        return
    with db.read(where) if isinstance(where, Engine) else nullcontext(where) as connection:
        found = find(connection, task)
        try:
            plugin_store.require(connection, found.plugin)
        except PluginUnavailable as error:
            raise UsageError(f"{task} cannot be run: {error}") from None
    _by_schema(found, params)


def _ours(task: Task) -> Described:
    schema = task.params.model_json_schema()
    return Described(task.id, FUNDS.id, task.name, task.description, task.table_name or task.id, schema)


def _of_plugins(connection: Connection) -> Iterator[Described]:
    if connection.execute(select(plugin_source.c.name).limit(1)).first() is None:
        return
    for owner in plugin_store.plugins(connection):
        for task in owner.tasks:
            named = (task["id"], owner.id, task["name"], task["description"], task["table_name"])
            yield Described(*named, task["params"], owner.state)


def _by_model(task: Task, params: dict[str, Any]) -> None:
    try:
        task.params.model_validate_json(json.dumps(params))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise _refusal(task.id, wrong, task.params.model_fields) from None


def _by_schema(task: Described, params: dict[str, Any]) -> None:
    from jsonschema_rs import validator_for

    # Instants may be written without an offset: scheduler.task_params.InstantText.
    model = validator_for(dict(task.schema), validate_formats=True, formats={"date-time": lambda _text: True})
    wrong = [
        f"{'.'.join(map(str, item.instance_path))}: {item.message}" if item.instance_path else item.message
        for item in model.iter_errors(params)
    ]
    if wrong:
        raise _refusal(task.id, wrong, task.schema.get("properties", {}))


def _refusal(task: str, wrong: list[str], known: Any) -> UsageError:
    has = ", ".join(known) or "none"
    return UsageError(f"{task} cannot take these parameters: {'; '.join(wrong)}. It has: {has}")
