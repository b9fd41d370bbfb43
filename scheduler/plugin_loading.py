"""A plugin's code, in the process of a run or of `main.py plugins enable`, and its tables brought up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from core import db
from core.errors import PluginUnavailable
from core.plugin_tables import plugin
from scheduler import plugin_store
from scheduler.fund_plugin import TASKS
from scheduler.plugin import Plugin, Task
from scheduler.plugin_sources import find, load

if TYPE_CHECKING:
    from config.settings import Settings

LOCK_SECONDS = 60


def find_task(engine: Engine, settings: Settings, task_id: str) -> Task:
    """Ours, or a plugin's, which is imported. Raises PluginUnavailable, PluginDisabled, and what the plugin raises."""
    if task_id in TASKS:
        return TASKS[task_id]
    with db.read(engine) as connection:
        order = plugin_store.loading_order(connection, task_id.partition(".")[0])
    for item in order:
        owner = load_plugin(engine, settings, item.name)
    found = next((task for task in owner.tasks if task.id == task_id), None)
    if found is None:
        raise PluginUnavailable(
            f"plugin {owner.id} {owner.version} has no task {task_id}; see: main.py tasks"
        )
    return found


def load_plugin(engine: Engine, settings: Settings, name: str) -> Plugin:
    """Import an allowed plugin, and apply the migrations that it has more than its tables have seen."""
    if name not in settings.plugins:
        raise PluginUnavailable(f"{name} is not allowed; to allow it: NAVKEEPER_PLUGINS={name}")
    found = load(find(name))
    try:
        migrate(engine, found)
    except PluginUnavailable as error:  # until its code is another
        with db.write(engine) as connection:
            plugin_store.note_failure(connection, name, str(error))
        raise
    return found


def migrate(engine: Engine, owner: Plugin) -> None:
    """Apply what is missing, in order, each in a transaction of its own. Raises PluginUnavailable saying which failed.

    With SQLite one that fails leaves nothing; MariaDB and MySQL keep the statements that went through, since
    theirs end a transaction.
    """
    while (done := _version(engine, owner.id)) < len(owner.migrations):
        try:
            with db.write(engine) as connection, _alone(connection, owner.id):
                _apply(connection, owner, done)
        except SQLAlchemyError as error:
            said = str(error).splitlines()[0]
            raise PluginUnavailable(f"migration {done + 1} of {owner.id} failed: {said}") from error
    if done > len(owner.migrations):
        raise PluginUnavailable(
            f"the tables of {owner.id} are of version {done}, its code knows {len(owner.migrations)}: "
            "install the newer version again"
        )


def _version(engine: Engine, plugin_id: str) -> int:
    with db.read(engine) as connection:
        return int(connection.scalar(select(plugin.c.schema_version).where(plugin.c.id == plugin_id)) or 0)


@contextmanager
def _alone(connection: Connection, plugin_id: str) -> Iterator[None]:
    """A file's writers are one at a time anyway; a server's statements on tables end the transaction and its locks."""
    if connection.dialect.name == "sqlite":
        yield
        return
    name = f"navkeeper.plugin.{plugin_id}"
    if connection.scalar(select(func.get_lock(name, LOCK_SECONDS))) != 1:
        raise PluginUnavailable(f"another process has changed the tables of {plugin_id} for {LOCK_SECONDS} s")
    try:
        yield
    finally:
        connection.execute(select(func.release_lock(name)))


def _apply(connection: Connection, owner: Plugin, number: int) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    mine = plugin.c.id == owner.id
    if connection.scalar(select(plugin.c.schema_version).where(mine)) != number:
        return  # another process was faster
    before = set(inspect(connection).get_table_names())
    owner.migrations[number](Operations(MigrationContext.configure(connection)))
    after = set(inspect(connection).get_table_names())
    touched = sorted(name for name in before ^ after if not name.startswith(f"{owner.id}_"))
    if touched:
        raise PluginUnavailable(
            f"migration {number + 1} of {owner.id} makes or drops {touched[0]}, which is not its own"
        )
    last = number + 1 == len(owner.migrations)
    missing = sorted(set(owner.tables.tables) - after) if last and owner.tables is not None else []
    if missing:
        raise PluginUnavailable(f"the migrations of {owner.id} do not make its table {missing[0]}")
    plugin_store.note_schema(connection, owner.id, number + 1)


def main(argv: list[str]) -> int:
    """`python -m scheduler.plugin_loading NAME`: bring the tables of a plugin up to date; why not is said on stderr."""
    from config.settings import load_settings
    from scheduler.exit_codes import FAILED, OK

    settings = load_settings()
    try:
        load_plugin(db.connect(settings.database_url()), settings, argv[0])
    except PluginUnavailable as error:
        print(error, file=sys.stderr)
        return FAILED
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
