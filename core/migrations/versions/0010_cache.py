"""the cache"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from core.column_types import COMMON, ID, Instant

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cache_entry",
        sa.Column("digest", sa.CHAR(64), nullable=False, comment="SHA-256 of kind and key"),
        sa.Column("kind", sa.String(16), nullable=False, comment="a word of config/cache.toml"),
        sa.Column("tags", sa.String(500), nullable=False, comment="a blank before and after each"),
        sa.Column(
            "value", sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), comment="checksum and JSON"
        ),
        sa.Column("made_at", Instant(), comment="when its making began; null while it is first made"),
        sa.Column("claim", sa.String(36), comment="of who makes it"),
        sa.Column("claimed_until", Instant()),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_cache_entry")),
        **COMMON,
    )
    op.create_index(op.f("ix_cache_entry_kind"), "cache_entry", ["kind"])
    epoch = op.create_table(
        "cache_epoch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "number", ID, nullable=False, comment="of invalidations; a process drops what it read before"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cache_epoch")),
        **COMMON,
    )
    op.bulk_insert(epoch, [{"id": 1, "number": 0}])
    op.create_table(
        "cache_count",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("layer", sa.String(10), nullable=False, comment="memory, database or redis"),
        sa.Column("outcome", sa.String(10), nullable=False, comment="hit, stale, miss or computed"),
        sa.Column("count", ID, nullable=False),
        sa.PrimaryKeyConstraint("kind", "layer", "outcome", name=op.f("pk_cache_count")),
        **COMMON,
    )
