"""Plugins and tasks as plain records: what the command line, the API and the pages show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Engine

from core import db
from scheduler import plugin_store, task_catalogue
from scheduler.fund_plugin import FUNDS
from scheduler.plugin_store import ENABLED, Found
from scheduler.task_catalogue import Described

Record = dict[str, Any]
UNKNOWN, NOT_ALLOWED = "UNKNOWN", "NOT ALLOWED"


def list_plugins(engine: Engine) -> list[Record]:
    """Ours first, then by id."""
    with db.read(engine) as connection:
        found = plugin_store.plugins(connection)
    ours = _record(FUNDS.id, FUNDS.version, FUNDS.name, FUNDS.description, ENABLED, "NavKeeper")
    ours["tasks"] = [task.id for task in FUNDS.tasks]
    return [ours, *map(_of_found, found)]


def missing(records: list[Record], allowed: tuple[str, ...], offered: list[str]) -> Iterator[Record]:
    """What is allowed and was not looked at yet, and what is installed and not allowed."""
    known = {record["source"] for record in records}
    for name in allowed:
        if name not in known:
            reason = "not looked at yet: main.py plugins check"
            yield _record(name, None, name, "", UNKNOWN, name) | {"reason": reason}
    for name in offered:
        if name not in allowed:
            reason = f"to allow it: NAVKEEPER_PLUGINS={','.join((*allowed, name))}"
            yield _record(name, None, name, "", NOT_ALLOWED, name) | {"reason": reason}


def _record(plugin: str, version: str | None, name: str, description: str, state: str, source: str) -> Record:
    said = {"plugin": plugin, "version": version, "name": name, "description": description, "state": state}
    more: Record = {"reason": None, "origin": source, "tables": [], "schema_version": 0, "changed_by": None}
    return (
        said
        | {"source": source, "tasks": [], "requires": []}
        | more
        | {"changed_at": None, "probed_at": None}
    )


def _of_found(found: Found) -> Record:
    manifest = found.manifest
    named = (manifest.get("name", found.id), manifest.get("description", ""))
    return _record(found.id, found.version, *named, found.state, found.name) | {
        "reason": found.reason,
        "origin": found.origin,
        "tasks": [task["id"] for task in found.tasks],
        "requires": list(found.requires),
        "tables": manifest.get("tables", []),
        "schema_version": found.schema_version,
        "changed_by": found.changed_by,
        "changed_at": found.changed_at,
        "probed_at": found.probed_at,
    }


def list_tasks(engine: Engine) -> list[Record]:
    with db.read(engine) as connection:
        return [_task(item) for item in task_catalogue.tasks(connection)]


def show_task(engine: Engine, task: str) -> Record:
    """Raises UsageError naming the tasks there are."""
    with db.read(engine) as connection:
        return _task(task_catalogue.find(connection, task))


def _task(item: Described) -> Record:
    return {
        "task": item.id,
        "plugin": item.plugin,
        "state": item.state,
        "name": item.name,
        "description": item.description,
        "table": item.table_name,
        "params": dict(item.schema),
    }


def parameters(schema: Mapping[str, Any]) -> list[Record]:
    """One a parameter: its name, type in words, default (None where it is required), what is said of it."""
    definitions = schema.get("$defs", {})
    required = schema.get("required", ())
    return [
        {
            "name": name,
            "type": _type(part, definitions),
            "required": name in required,
            "default": part.get("default"),
            "description": part.get("description", ""),
        }
        for name, part in schema.get("properties", {}).items()
    ]


def _type(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in part:
        part = definitions.get(part["$ref"].rpartition("/")[2], {})
    if "anyOf" in part:
        kinds = (_type(kind, definitions) for kind in part["anyOf"] if kind.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in part:
        return " or ".join(map(str, part["enum"]))
    if part.get("type") == "array":
        return f"list of {_type(part.get('items', {}), definitions)}"
    return str(part.get("format") or part.get("type", "anything"))
