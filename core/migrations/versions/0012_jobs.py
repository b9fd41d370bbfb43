"""jobs at run time"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.column_types import CLUSTERED, COMMON, ID, Instant

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False, comment="JSON: the keys of config/jobs.toml"),
        sa.Column("version", sa.Integer(), nullable=False, comment="one more with every change"),
        sa.Column(
            "counts_from", Instant(), nullable=False, comment="fires before it were another schedule's"
        ),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
        sa.Column("changed_at", Instant(), nullable=False),
        sa.Column("deleted_at", Instant()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        **CLUSTERED,
    )
    op.create_table(
        "job_version",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("definition", sa.Text(), comment="JSON; null: deleted"),
        sa.Column("changed_by", sa.String(64), nullable=False),
        sa.Column("changed_at", Instant(), nullable=False),
        sa.Column("reason", sa.String(200)),
        sa.PrimaryKeyConstraint("job_id", "version", name=op.f("pk_job_version")),
        **CLUSTERED,
    )
    change = op.create_table(
        "job_change",
        sa.Column(
            "id",
            sa.SmallInteger(),
            autoincrement=False,
            nullable=False,
            comment="one row, locked by who changes",
        ),
        sa.Column("number", ID, nullable=False, comment="of changes; who has seen another looks again"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_change")),
        **COMMON,
    )
    op.bulk_insert(change, [{"id": 1, "number": 0}])
    op.create_table(
        "exchange_day",
        sa.Column(
            "exchange", sa.String(8), nullable=False, comment="a code of exchange_calendars, e.g. XHKG"
        ),
        sa.Column("cal_date", sa.Date(), nullable=False, comment="a trading day"),
        sa.PrimaryKeyConstraint("exchange", "cal_date", name=op.f("pk_exchange_day")),
        **CLUSTERED,
    )
