"""Switching a plugin on and off: what `main.py plugins enable|disable` does, with or without a daemon."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from core import db
from core.errors import PluginUnavailable, UsageError
from scheduler import commands, plugin_store
from scheduler.plugin import BUILT_IN
from scheduler.plugin_check import check, migrated, stamp_of
from scheduler.plugin_sources import offered_names

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.settings import Settings


def enable(engine: Engine, settings: Settings, plugin_id: str, by: str, now: datetime) -> plugin_store.Found:
    """Look at it again if it is another, switch it on, and make its tables, in a process of its own.

    Raises UsageError saying why it cannot be; it stays off then.
    """
    with db.read(engine) as connection:
        known = plugin_store.stamps(connection)
        broken = [item.name for item in plugin_store.plugins(connection) if item.state == plugin_store.FAILED]
    changed = [name for name in settings.plugins if name in broken or known.get(name) != stamp_of(name)]
    check(engine, settings, now, only=changed)
    try:
        with db.write(engine) as connection:  # what cannot be used is not switched on
            plugin_store.switch(connection, plugin_id, by, now, enabled=True)
            found = plugin_store.loading_order(connection, plugin_id)[-1]
            commands.note_done(
                connection, "enable plugin", plugin_id, by, now, f"{plugin_id} {found.version}"
            )
    except PluginUnavailable as error:
        raise UsageError(_hint(settings, plugin_id) or str(error)) from None
    why = migrated(found.name)
    if why is not None:
        disable(engine, plugin_id, by, now, why=why)
        raise UsageError(f"{plugin_id} stays off: {why}")
    with db.read(engine) as connection:
        return plugin_store.require(connection, plugin_id)


def disable(engine: Engine, plugin_id: str, by: str, now: datetime, *, why: str = "") -> list[str]:
    """Its runs are skipped from now on; what runs goes on, its tables stay. Returned is who requires it."""
    with db.write(engine) as connection:
        if plugin_id not in {item.id for item in plugin_store.plugins(connection)}:
            raise UsageError(f"there is no plugin {plugin_id!r}; main.py plugins lists them")
        plugin_store.switch(connection, plugin_id, by, now, enabled=False)
        commands.note_done(connection, "disable plugin", plugin_id, by, now, why or f"{plugin_id} is off")
        return [item.id for item in plugin_store.plugins(connection) if plugin_id in item.requires]


def _hint(settings: Settings, plugin_id: str) -> str | None:
    if plugin_id == BUILT_IN:
        return f"{BUILT_IN} is NavKeeper's own, and always on"
    if plugin_id in settings.plugins or plugin_id not in offered_names():
        return None
    allowed = ",".join((*settings.plugins, plugin_id))
    return (
        f"{plugin_id} is installed, but not allowed; set NAVKEEPER_PLUGINS={allowed} and restart the daemon"
    )
