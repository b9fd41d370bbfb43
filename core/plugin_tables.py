"""The tables of plugins: what each said of itself when it was last looked at, and which are switched on."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Integer, String, Table, Text
from sqlalchemy.dialects import mysql

from core.column_types import CLUSTERED, COMMON, Instant, metadata

plugin = Table(
    "plugin",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("schema_version", Integer, nullable=False, server_default="0", comment="migrations applied"),
    Column("changed_by", String(64), nullable=False),
    Column("changed_at", Instant, nullable=False),
    **CLUSTERED,
)

plugin_source = Table(
    "plugin_source",
    metadata,
    Column("name", String(128), primary_key=True, comment="as NAVKEEPER_PLUGINS has it"),
    Column("plugin_id", String(32), index=True, comment="null where it could not say"),
    Column("origin", String(200), nullable=False, comment="distribution or module"),
    Column("version", String(64)),
    Column("error", String(1000), comment="why it cannot be used"),
    Column(
        "manifest", Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), comment="JSON: tasks, tables, requires"
    ),
    Column("stamp", String(200), nullable=False, comment="another one means: look again"),
    Column("probed_at", Instant, nullable=False),
    **COMMON,
)
