"""How the holdings plugin's tables came to be what they are; each step is called once for a database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from core.column_types import CLUSTERED, CODE, COMMON, ID, NAV, Instant

MONEY, RATE = sa.Numeric(18, 2), sa.Numeric(8, 5)


def first_tables(op: Operations) -> None:
    """Orders, plans, choices about dividends, positions."""
    _orders(op)
    _plans(op)
    _positions(op)


def _orders(op: Operations) -> None:
    op.create_table(
        "holdings_order",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("portfolio", sa.String(64), nullable=False),
        sa.Column("fund_code", CODE, nullable=False),
        sa.Column("kind", sa.String(4), nullable=False, comment="buy or sell"),
        sa.Column(
            "amount", MONEY, comment="yuan: paid for what is bought, fee included; got for what is sold"
        ),
        sa.Column("shares", MONEY, comment="asked for where sold, got where bought"),
        sa.Column("placed_at", Instant(), nullable=False),
        sa.Column("fee_rate", RATE, nullable=False, comment="percent"),
        sa.Column(
            "reference", sa.String(64), nullable=False, comment="whose order this is: the same is stored once"
        ),
        sa.Column("nav_date", sa.Date(), nullable=False, comment="the trading day whose NAV counts"),
        sa.Column("confirm_date", sa.Date(), nullable=False),
        sa.Column("status", sa.String(8), nullable=False, comment="PENDING, FILLED (has its NAV) or REFUSED"),
        sa.Column("unit_nav", NAV),
        sa.Column("fee", MONEY),
        sa.Column("reason", sa.String(500)),
        sa.PrimaryKeyConstraint("id", name="pk_holdings_order"),
        sa.UniqueConstraint("portfolio", "reference", name="uq_holdings_order_portfolio_reference"),
        sa.CheckConstraint("kind IN ('buy', 'sell')", name="ck_holdings_order_kind"),
        sqlite_autoincrement=True,
        **COMMON,
    )
    op.create_index("ix_holdings_order_status", "holdings_order", ["status"])


def _plans(op: Operations) -> None:
    op.create_table(
        "holdings_plan",
        sa.Column("portfolio", sa.String(64), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("fund_code", CODE, nullable=False),
        sa.Column("amount", MONEY, nullable=False, comment="yuan a time, fee included"),
        sa.Column("fee_rate", RATE, nullable=False, comment="percent"),
        sa.Column("every", sa.String(9), nullable=False, comment="session, week, two_weeks or month"),
        sa.Column("day", sa.Integer(), nullable=False, comment="1 to 7, Monday first; of a month 1 to 28"),
        sa.Column("start_date", sa.Date(), nullable=False),
        sa.Column("end_date", sa.Date()),
        sa.PrimaryKeyConstraint("portfolio", "name", name="pk_holdings_plan"),
        sa.CheckConstraint("amount > 0", name="ck_holdings_plan_amount"),
        **CLUSTERED,
    )
    op.create_table(
        "holdings_choice",
        sa.Column("portfolio", sa.String(64), nullable=False),
        sa.Column("fund_code", CODE, nullable=False),
        sa.Column(
            "dividends",
            sa.String(8),
            nullable=False,
            comment="cash or reinvest; cash where there is no row",
        ),
        sa.PrimaryKeyConstraint("portfolio", "fund_code", name="pk_holdings_choice"),
        **CLUSTERED,
    )


def _positions(op: Operations) -> None:
    op.create_table(
        "holdings_position",
        sa.Column("portfolio", sa.String(64), nullable=False),
        sa.Column("fund_code", CODE, nullable=False),
        sa.Column("position_date", sa.Date(), nullable=False),
        sa.Column(
            "nav_date", sa.Date(), nullable=False, comment="of the NAV that values it, on or before its date"
        ),
        sa.Column("shares", MONEY, nullable=False),
        sa.Column(
            "unconfirmed_shares", MONEY, nullable=False, comment="of them, those that are on their way"
        ),
        sa.Column("value", MONEY, nullable=False),
        sa.Column(
            "cost", MONEY, nullable=False, comment="paid for the shares that are left, at average cost"
        ),
        sa.Column("invested", MONEY, nullable=False, comment="paid so far"),
        sa.Column("returned", MONEY, nullable=False, comment="got so far, from sales and dividends in cash"),
        sa.Column("profit", MONEY, nullable=False, comment="value + returned - invested"),
        sa.Column(
            "xirr", sa.Double(), comment="percent a year; null where there is none, and in the first 30 days"
        ),
        sa.PrimaryKeyConstraint("portfolio", "fund_code", "position_date", name="pk_holdings_position"),
        **CLUSTERED,
    )


MIGRATIONS = (first_tables,)
