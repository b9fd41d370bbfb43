"""plugins, and what a task says beside how many records"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from core.column_types import CLUSTERED, COMMON, Instant

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plugin",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column(
            "schema_version",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="migrations applied",
        ),
        sa.Column("changed_by", sa.String(64), nullable=False),
        sa.Column("changed_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plugin")),
        **CLUSTERED,
    )
    op.create_table(
        "plugin_source",
        sa.Column("name", sa.String(128), nullable=False, comment="as NAVKEEPER_PLUGINS has it"),
        sa.Column("plugin_id", sa.String(32), comment="null where it could not say"),
        sa.Column("origin", sa.String(200), nullable=False, comment="distribution or module"),
        sa.Column("version", sa.String(64)),
        sa.Column("error", sa.String(1000), comment="why it cannot be used"),
        sa.Column(
            "manifest",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql"),
            comment="JSON: tasks, tables, requires",
        ),
        sa.Column("stamp", sa.String(200), nullable=False, comment="another one means: look again"),
        sa.Column("probed_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_plugin_source")),
        **COMMON,
    )
    op.create_index(op.f("ix_plugin_source_plugin_id"), "plugin_source", ["plugin_id"])
    # Not in a batch: SQLite would make job_run anew, and its events and attempts would go with the old one.
    op.add_column("job_run", sa.Column("result", sa.Text(), comment="JSON that the task returned"))
