"""series: rows by date and by fund, in the place of the indexes by date that every merge had to keep"""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEPT: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}


def upgrade() -> None:
    op.create_table(
        "nav_day",
        sa.Column("table_name", sa.String(length=20), nullable=False, comment="fund_nav or money_fund_yield"),
        sa.Column("nav_date", sa.Date(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False, comment="funds with a row of that date"),
        sa.PrimaryKeyConstraint("table_name", "nav_date", name=op.f("pk_nav_day")),
        sqlite_with_rowid=False,
        **KEPT,
    )
    op.create_table(
        "nav_version",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("token", sa.CHAR(length=16), nullable=False, comment="random: no other database has it"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nav_version")),
        sqlite_autoincrement=True,
        **KEPT,
    )
    op.create_table(
        "fund_series",
        sa.Column("table_name", sa.String(length=20), nullable=False, comment="fund_nav or money_fund_yield"),
        sa.Column("fund_code", sa.CHAR(length=6), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("first_date", sa.Date(), nullable=False),
        sa.Column("last_date", sa.Date(), nullable=False),
        sa.Column("changed", ID, nullable=False, comment="the newest nav_version that changed anything"),
        sa.Column("rewritten", ID, nullable=False, comment="the newest that did more than add later rows"),
        sa.PrimaryKeyConstraint("table_name", "fund_code", name=op.f("pk_fund_series")),
        sqlite_with_rowid=False,
        **KEPT,
    )
    _count()
    for name in ("fund_nav", "money_fund_yield"):
        op.drop_index(op.f(f"ix_{name}_nav_date"), table_name=name)


def _count() -> None:
    days = sa.table("nav_day", *(sa.column(name) for name in ("table_name", "nav_date", "row_count")))
    names = ["table_name", "fund_code", "row_count", "first_date", "last_date", "changed", "rewritten"]
    series = sa.table("fund_series", *(sa.column(name) for name in names))
    versions = sa.table("nav_version", sa.column("id"), sa.column("token"))
    op.execute(versions.insert().values(id=1, token=secrets.token_hex(8)))
    count, one = sa.func.count(), sa.literal(1)
    for name in ("fund_nav", "money_fund_yield"):
        rows = sa.table(name, sa.column("nav_date"), sa.column("fund_code")).c
        by_day = sa.select(sa.literal(name), rows.nav_date, count).group_by(rows.nav_date)
        op.execute(days.insert().from_select(["table_name", "nav_date", "row_count"], by_day))
        span = sa.func.min(rows.nav_date), sa.func.max(rows.nav_date)
        by_fund = sa.select(sa.literal(name), rows.fund_code, count, *span, one, one)
        op.execute(series.insert().from_select(names, by_fund.group_by(rows.fund_code)))
