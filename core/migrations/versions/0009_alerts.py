"""alerts and their outbox"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.column_types import COMMON, ID, Instant

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("fingerprint", sa.String(100), nullable=False, comment="what is the matter with what"),
        sa.Column("open_key", sa.String(100), comment="the fingerprint while the alert is open"),
        sa.Column("kind", sa.String(16), nullable=False, comment="a word of scheduler.alert_rules"),
        sa.Column("job_id", sa.String(64)),
        sa.Column("task", sa.String(64)),
        sa.Column("business_date", sa.Date()),
        sa.Column("run_id", ID),
        sa.Column(
            "figures", sa.Text(), nullable=False, comment="JSON: what the message says, in no language"
        ),
        sa.Column("opened_at", Instant(), nullable=False),
        sa.Column("last_seen_at", Instant(), nullable=False),
        sa.Column(
            "seen", sa.Integer(), nullable=False, server_default="1", comment="how often it was noticed"
        ),
        sa.Column(
            "told_at", Instant(), nullable=False, comment="when its last message was put into the outbox"
        ),
        sa.Column("silenced_until", Instant()),
        sa.Column("silenced_by", sa.String(64)),
        sa.Column("recovered_at", Instant()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
        sa.UniqueConstraint("open_key", name=op.f("uq_alert_open_key")),
        sqlite_autoincrement=True,
        **COMMON,
    )
    op.create_index(op.f("ix_alert_fingerprint"), "alert", ["fingerprint"])
    op.create_index(op.f("ix_alert_opened_at"), "alert", ["opened_at"])
    op.create_table(
        "alert_delivery",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("alert_id", ID),
        sa.Column("notice", sa.String(10), nullable=False, comment="OPENED, REPEATED, RECOVERED; or a ping"),
        sa.Column("once_key", sa.String(100), comment="of what is said once: a day's ping"),
        sa.Column("status", sa.String(8), nullable=False, comment="PENDING, SENDING, SENT or DROPPED"),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("next_try_at", Instant(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("claim", sa.String(36), comment="of the message; what goes out together has the same"),
        sa.Column("channel", sa.String(64), comment="by which it went out"),
        sa.Column("sent_at", Instant()),
        sa.Column("last_error", sa.String(500)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_delivery")),
        sa.UniqueConstraint("once_key", name=op.f("uq_alert_delivery_once_key")),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["alert.id"], name=op.f("fk_alert_delivery_alert_id"), ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
        **COMMON,
    )
    op.create_index(op.f("ix_alert_delivery_alert_id"), "alert_delivery", ["alert_id"])
    op.create_index(op.f("ix_alert_delivery_status"), "alert_delivery", ["status"])
