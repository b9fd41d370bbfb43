"""events: run_event becomes the bus"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.column_types import CLUSTERED, COMMON, ID, Instant

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _run_event()
    order = op.create_table(
        "event_order",
        sa.Column(
            "id", sa.Integer(), autoincrement=False, nullable=False, comment="one row, locked by who numbers"
        ),
        sa.Column("last", ID, nullable=False, comment="the last position given away"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_order")),
        **COMMON,
    )
    event = sa.table("run_event", sa.column("id", ID))
    newest = op.get_bind().execute(sa.select(sa.func.max(event.c.id))).scalar()
    op.bulk_insert(order, [{"id": 1, "last": newest or 0}])
    op.create_table(
        "event_cursor",
        sa.Column("subscriber", sa.String(100), nullable=False, comment="<plugin>.<name>, or job:<id>"),
        sa.Column(
            "topic",
            sa.String(64),
            nullable=False,
            comment="as subscribed to: a topic, or one that ends in .*",
        ),
        sa.Column("position", ID, nullable=False, comment="of the last event done with"),
        sa.Column("claim", sa.String(36), comment="of the process at work; left behind by one that died"),
        sa.Column(
            "attempts",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="that failed at the next event",
        ),
        sa.Column("next_try_at", Instant()),
        sa.Column("last_error", sa.String(500)),
        sa.Column("seen_at", Instant(), nullable=False, comment="when the daemon last knew the subscriber"),
        sa.PrimaryKeyConstraint("subscriber", "topic", name=op.f("pk_event_cursor")),
        **CLUSTERED,
    )
    op.create_table(
        "event_parked",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("subscriber", sa.String(100), nullable=False),
        sa.Column("event_id", ID, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(500), nullable=False),
        sa.Column("parked_at", Instant(), nullable=False),
        sa.Column("retry_by", sa.String(64), comment="who wants it tried again; null once it is"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_parked")),
        sa.ForeignKeyConstraint(
            ["event_id"], ["run_event.id"], name=op.f("fk_event_parked_event_id"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("subscriber", "event_id", name=op.f("uq_event_parked_subscriber_event_id")),
        sqlite_autoincrement=True,
        **COMMON,
    )
    op.create_index(op.f("ix_event_parked_event_id"), "event_parked", ["event_id"])
    op.create_index(op.f("ix_event_parked_retry_by"), "event_parked", ["retry_by"])
    # Not in a batch: SQLite would make job_run anew, and its events and attempts would go with the old one.
    op.add_column("job_run", sa.Column("event_id", ID, comment="the event that asked for it"))
    op.create_index(op.f("ix_job_run_job_id_event_id"), "job_run", ["job_id", "event_id"], unique=True)


def _run_event() -> None:
    with op.batch_alter_table("run_event", table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.alter_column("run_id", existing_type=ID, nullable=True)
        batch_op.alter_column(
            "to_status",
            existing_type=sa.String(12),
            nullable=True,
            comment="null for what was published",
        )
        batch_op.alter_column(
            "kind",
            existing_type=sa.String(16),
            existing_nullable=False,
            existing_server_default="state",
            comment="state, chain_blocked, silent; event: published",
        )
        batch_op.add_column(sa.Column("topic", sa.String(64), nullable=False, server_default=""))
        batch_op.add_column(
            sa.Column("payload", sa.Text(), comment="JSON; null where the columns say it all")
        )
        batch_op.add_column(
            sa.Column("position", ID, comment="in the order of delivery; null until it was seen committed")
        )
    event = sa.table("run_event", *map(sa.column, ("id", "kind", "to_status", "topic", "position")))
    word = sa.case((event.c.kind == "state", event.c.to_status), else_=event.c.kind)
    topic = sa.literal("run.", sa.String) + sa.func.lower(word)
    op.execute(event.update().values(topic=topic, position=event.c.id))
    with op.batch_alter_table("run_event", table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        batch_op.alter_column(
            "topic", existing_type=sa.String(64), existing_nullable=False, server_default=None
        )
        batch_op.create_index(op.f("ix_run_event_position"), ["position"])
        batch_op.create_index(op.f("ix_run_event_topic_position"), ["topic", "position"])
        batch_op.create_index(op.f("ix_run_event_at"), ["at"])
