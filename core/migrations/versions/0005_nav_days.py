"""nav_day: rows by date, in the place of the indexes by date that every merge had to keep"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "nav_day",
        sa.Column("table_name", sa.String(length=20), nullable=False, comment="fund_nav or money_fund_yield"),
        sa.Column("nav_date", sa.Date(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="funds with a row of that date"),
        sa.PrimaryKeyConstraint("table_name", "nav_date", name=op.f("pk_nav_day")),
        mysql_charset="utf8mb4",
        mysql_engine="InnoDB",
        sqlite_with_rowid=False,
    )
    days = sa.table("nav_day", *(sa.column(name) for name in ("table_name", "nav_date", "row_count")))
    for name in ("fund_nav", "money_fund_yield"):
        rows = sa.table(name, sa.column("nav_date"))
        counted = sa.select(sa.literal(name), rows.c.nav_date, sa.func.count()).group_by(rows.c.nav_date)
        op.execute(days.insert().from_select(["table_name", "nav_date", "row_count"], counted))
        op.drop_index(op.f(f"ix_{name}_nav_date"), table_name=name)
