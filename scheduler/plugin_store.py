"""SQL on plugins, and what follows from it: which may be used, and why another may not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from core.errors import PluginDisabled, PluginUnavailable
from core.plugin_tables import plugin, plugin_source
from core.schema import metadata
from scheduler.plugin import BUILT_IN

ENABLED, DISABLED, FAILED = "ENABLED", "DISABLED", "FAILED"
STATES = (ENABLED, DISABLED, FAILED)
RESERVED = (BUILT_IN, "run", "data", "quality", "job")  # first words of topics that are ours
TEXT, NAME = 1000, 64  # the columns' lengths


@dataclass(frozen=True)
class Found:
    """A plugin as it last said of itself, and what is to be thought of it. `id`: its name in the settings, where it
    could not say."""

    id: str
    name: str
    origin: str
    version: str | None
    state: str
    reason: str | None
    manifest: Mapping[str, Any]
    schema_version: int
    changed_by: str | None
    changed_at: datetime | None
    probed_at: datetime

    @property
    def tasks(self) -> Sequence[Mapping[str, Any]]:
        tasks: Sequence[Mapping[str, Any]] = self.manifest.get("tasks", ())
        return tasks

    @property
    def subscribers(self) -> Sequence[Mapping[str, Any]]:
        subscribers: Sequence[Mapping[str, Any]] = self.manifest.get("subscribers", ())
        return subscribers

    @property
    def migrations(self) -> int:
        return int(self.manifest.get("migrations", 0))

    @property
    def requires(self) -> Sequence[str]:
        requires: Sequence[str] = self.manifest.get("requires", ())
        return requires


def save(
    connection: Connection,
    name: str,
    *,
    origin: str,
    stamp: str,
    now: datetime,
    manifest: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """What a probe has found out."""
    values = {
        "plugin_id": manifest["id"] if manifest else None,
        "origin": origin,
        "version": manifest["version"][:64] if manifest else None,
        "error": error and error[:TEXT],
        "manifest": json.dumps(manifest) if manifest else None,
        "stamp": stamp,
        "probed_at": now,
    }
    _put(connection, plugin_source, {"name": name}, values)


def switch(connection: Connection, plugin_id: str, by: str, now: datetime, *, enabled: bool) -> None:
    values = {"enabled": enabled, "changed_by": by[:NAME], "changed_at": now}
    _put(connection, plugin, {"id": plugin_id}, values)


def note_schema(connection: Connection, plugin_id: str, version: int) -> None:
    connection.execute(update(plugin).where(plugin.c.id == plugin_id).values(schema_version=version))


def note_failure(connection: Connection, name: str, error: str) -> None:
    """It cannot be used until it is another, or is looked at again."""
    mine = plugin_source.c.name == name
    connection.execute(update(plugin_source).where(mine).values(error=error[:TEXT]))


def _put(connection: Connection, table: Any, key: dict[str, Any], values: dict[str, Any]) -> None:
    mine = [table.c[name] == value for name, value in key.items()]
    if connection.execute(update(table).where(*mine).values(values)).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(key | values))
    except IntegrityError:  # there already: the same values, or another was faster
        connection.execute(update(table).where(*mine).values(values))


def forget_others(connection: Connection, names: Iterable[str]) -> None:
    """What is allowed no more. That it was enabled, and its tables' version, stay known."""
    connection.execute(delete(plugin_source).where(plugin_source.c.name.not_in(list(names))))


def stamps(connection: Connection) -> dict[str, str]:
    return {row.name: row.stamp for row in connection.execute(select(plugin_source))}


def plugins(connection: Connection) -> list[Found]:
    """Every plugin that was looked at, by id."""
    rows = connection.execute(select(plugin_source).order_by(plugin_source.c.name)).all()
    switches = {row.id: row for row in connection.execute(select(plugin)).all()} if rows else {}
    found = [_found(row, switches.get(row.plugin_id), rows) for row in rows]
    usable = {item.id: item for item in found if item.state != FAILED}
    return sorted((_with_required(item, usable) for item in found), key=lambda item: (item.id, item.name))


def behind(connection: Connection) -> list[Found]:
    """Those switched on whose tables are not yet what their code knows."""
    return [
        item
        for item in plugins(connection)
        if item.state == ENABLED and item.schema_version < item.migrations
    ]


def require(connection: Connection, plugin_id: str) -> Found:
    """A plugin that may be used. Raises PluginUnavailable, PluginDisabled."""
    mine = [item for item in plugins(connection) if item.id == plugin_id]
    if not mine:
        raise PluginUnavailable(
            f"there is no plugin {plugin_id!r}: is it installed, and named in NAVKEEPER_PLUGINS? see: main.py plugins"
        )
    if mine[0].state == DISABLED:
        raise PluginDisabled(
            f"plugin {plugin_id} is not enabled; to do so: main.py plugins enable {plugin_id}"
        )
    if mine[0].state == FAILED:
        raise PluginUnavailable(f"plugin {plugin_id} cannot be used: {mine[0].reason}")
    return mine[0]


def loading_order(connection: Connection, plugin_id: str) -> list[Found]:
    """A plugin that may be used after those that it requires. Raises PluginUnavailable, PluginDisabled."""
    ordered: dict[str, Found] = {}

    def visit(name: str) -> None:
        if name not in ordered and name != BUILT_IN:
            found = require(connection, name)
            for needed in found.requires:
                visit(needed)
            ordered[name] = found

    visit(plugin_id)
    return [*ordered.values()]


def _found(row: Row[Any], switched: Row[Any] | None, rows: Sequence[Row[Any]]) -> Found:
    reason = row.error
    same = [other.name for other in rows if row.plugin_id is not None and other.plugin_id == row.plugin_id]
    if reason is None and len(same) > 1:
        named = " and ".join(same)
        reason = f"{named} both call themselves {row.plugin_id}: take one out of NAVKEEPER_PLUGINS"
    if reason is None and (clash := _clash(row, rows)):
        reason = clash
    if reason is None and (owned := _ours(row.plugin_id)):
        reason = f"the id {row.plugin_id} is taken: {owned}"
    is_on = switched is not None and switched.enabled
    return Found(
        id=row.plugin_id or row.name,
        name=row.name,
        origin=row.origin,
        version=row.version,
        state=FAILED if reason else ENABLED if is_on else DISABLED,
        reason=reason,
        manifest=json.loads(row.manifest) if row.manifest else {},
        schema_version=switched.schema_version if switched is not None else 0,
        changed_by=switched.changed_by if switched is not None else None,
        changed_at=switched.changed_at if switched is not None else None,
        probed_at=row.probed_at,
    )


def _clash(row: Row[Any], rows: Sequence[Row[Any]]) -> str | None:
    """`a_b` and `a` may both call a table a_b_c: neither is loaded."""

    def tables(of: Row[Any]) -> set[str]:
        return set(json.loads(of.manifest).get("tables", ())) if of.manifest else set()

    mine = tables(row)
    for other in rows:
        if mine and other.name != row.name and (both := mine & tables(other)):
            return f"{row.name} and {other.name} both have a table {min(both)}: take one out of NAVKEEPER_PLUGINS"
    return None


def _ours(plugin_id: str) -> str | None:
    """What of ours begins as everything of a plugin of this id would."""
    if plugin_id in RESERVED:
        return "it is NavKeeper's own"
    tables = [name for name in metadata.tables if name.startswith(f"{plugin_id}_")]
    return f"NavKeeper's table {tables[0]} begins with it" if tables else None


def _with_required(item: Found, usable: Mapping[str, Found]) -> Found:
    """FAILED where what it requires is missing, off or requires it in turn."""
    if item.state == FAILED:
        return item
    reason = _obstacle(item, usable, (item.id,))
    if reason is None:
        return item
    return replace(item, state=FAILED, reason=reason)


def _obstacle(item: Found, usable: Mapping[str, Found], above: tuple[str, ...]) -> str | None:
    for name in item.requires:
        if name == BUILT_IN:
            continue
        if name in above:
            return f"requires itself: {' -> '.join((*above, name))}"
        if name not in usable:
            return f"requires {name}, which is not there or cannot be used"
        if item.state == ENABLED and usable[name].state == DISABLED:
            return f"requires {name}, which is not enabled; to do so: main.py plugins enable {name}"
        below = _obstacle(usable[name], usable, (*above, name))
        if below is not None:
            return below if name in below else f"requires {name}, which {below}"
    return None
