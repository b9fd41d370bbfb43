"""The tables of the cache: what was dear to make, when all must be asked for anew, how often it was of use."""

from __future__ import annotations

from sqlalchemy import CHAR, Column, Integer, LargeBinary, String, Table
from sqlalchemy.dialects import mysql

from core.column_types import COMMON, ID, Instant, metadata

cache_entry = Table(
    "cache_entry",
    metadata,
    Column("digest", CHAR(64), primary_key=True, comment="SHA-256 of kind and key"),
    Column("kind", String(16), nullable=False, index=True, comment="a word of config/cache.toml"),
    Column("tags", String(500), nullable=False, comment="a blank before and after each"),
    Column("value", LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), comment="checksum and JSON"),
    Column("made_at", Instant, comment="when its making began; null while it is first made"),
    Column("claim", String(36), comment="of who makes it"),
    Column("claimed_until", Instant),
    **COMMON,
)

cache_epoch = Table(
    "cache_epoch",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", ID, nullable=False, comment="of invalidations; a process drops what it read before"),
    **COMMON,
)

cache_count = Table(
    "cache_count",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("layer", String(10), primary_key=True, comment="memory, database or redis"),
    Column("outcome", String(10), primary_key=True, comment="hit, stale, miss or computed"),
    Column("count", ID, nullable=False),
    **COMMON,
)
