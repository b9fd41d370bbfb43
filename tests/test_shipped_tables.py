"""The migrations of the shipped plugins build exactly the tables of their code, comments aside."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine

from scheduler import holdings_plugin, market_plugin
from scheduler.plugin import Plugin


@pytest.mark.parametrize("plugin", [holdings_plugin.PLUGIN, market_plugin.PLUGIN], ids=["holdings", "market"])
def test_migrations_build_exactly_the_tables_of_the_code(engine: Engine, plugin: Plugin) -> None:
    def is_ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or (name or "").startswith(f"{plugin.id}_")

    with engine.begin() as connection:
        for migration in plugin.migrations:
            migration(Operations(MigrationContext.configure(connection)))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": is_ours})
        assert plugin.tables is not None
        found = compare_metadata(context, plugin.tables)
        # What differs in a column alone comes as a list of its own.
        kinds = [part[0] for item in found for part in (item if isinstance(item, list) else [item])]
        assert [kind for kind in kinds if kind != "modify_comment"] == []
        assert {*plugin.tables.tables} == {
            name
            for name in connection.dialect.get_table_names(connection)
            if name.startswith(f"{plugin.id}_")
        }
