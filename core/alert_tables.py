"""The tables of alerts: what is the matter since when, and what is to be said about it."""

from __future__ import annotations

from sqlalchemy import Column, Date, ForeignKey, Index, Integer, String, Table, Text

from core.column_types import COMMON, ID, Instant, metadata

alert = Table(
    "alert",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("fingerprint", String(100), nullable=False, comment="what is the matter with what"),
    Column("open_key", String(100), unique=True, comment="the fingerprint while the alert is open"),
    Column("kind", String(16), nullable=False, comment="a word of scheduler.alert_rules"),
    Column("job_id", String(64)),
    Column("task", String(64)),
    Column("business_date", Date),
    Column("run_id", ID),
    Column("figures", Text, nullable=False, comment="JSON: what the message says, in no language"),
    Column("opened_at", Instant, nullable=False),
    Column("last_seen_at", Instant, nullable=False),
    Column("seen", Integer, nullable=False, server_default="1", comment="how often it was noticed"),
    Column("told_at", Instant, nullable=False, comment="when its last message was put into the outbox"),
    Column("silenced_until", Instant),
    Column("silenced_by", String(64)),
    Column("recovered_at", Instant),
    Index(None, "fingerprint"),
    Index(None, "opened_at"),
    sqlite_autoincrement=True,
    **COMMON,
)

alert_delivery = Table(
    "alert_delivery",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("alert_id", ID, ForeignKey("alert.id", ondelete="CASCADE"), index=True),
    Column("notice", String(10), nullable=False, comment="OPENED, REPEATED, RECOVERED; or a ping"),
    Column("once_key", String(100), unique=True, comment="of what is said once: a day's ping"),
    Column("status", String(8), nullable=False, comment="PENDING, SENDING, SENT or DROPPED"),
    Column("created_at", Instant, nullable=False),
    Column("next_try_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("claim", String(36), comment="of the message; what goes out together has the same"),
    Column("channel", String(64), comment="by which it went out"),
    Column("sent_at", Instant),
    Column("last_error", String(500)),
    Index(None, "status"),
    sqlite_autoincrement=True,
    **COMMON,
)
