"""The tables of the bus beside run_event: what order events have, who has had which, what nobody could take."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from core.column_types import CLUSTERED, COMMON, ID, Instant, metadata

event_order = Table(
    "event_order",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="one row, locked by who numbers"),
    Column("last", ID, nullable=False, comment="the last position given away"),
    **COMMON,
)

event_cursor = Table(
    "event_cursor",
    metadata,
    Column("subscriber", String(100), primary_key=True, comment="<plugin>.<name>, or job:<id>"),
    Column(
        "topic", String(64), primary_key=True, comment="as subscribed to: a topic, or one that ends in .*"
    ),
    Column("position", ID, nullable=False, comment="of the last event done with"),
    Column("claim", String(36), comment="of the process at work; left behind by one that died"),
    Column("attempts", Integer, nullable=False, server_default="0", comment="that failed at the next event"),
    Column("next_try_at", Instant),
    Column("last_error", String(500)),
    Column("seen_at", Instant, nullable=False, comment="when the daemon last knew the subscriber"),
    **CLUSTERED,
)

event_parked = Table(
    "event_parked",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("subscriber", String(100), nullable=False),
    Column("event_id", ID, ForeignKey("run_event.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("error", String(500), nullable=False),
    Column("parked_at", Instant, nullable=False),
    Column("retry_by", String(64), comment="who wants it tried again; null once it is"),
    UniqueConstraint("subscriber", "event_id"),
    Index(None, "retry_by"),
    sqlite_autoincrement=True,
    **COMMON,
)
