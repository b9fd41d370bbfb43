"""The tables of the holdings plugin."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    Double,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    UniqueConstraint,
)

from core.column_types import CLUSTERED, CODE, COMMON, ID, NAV, Instant, metadata as ours

metadata = MetaData(naming_convention=ours.naming_convention)
MONEY = Numeric(18, 2)  # yuan, and shares: both have cents
RATE = Numeric(8, 5)  # percent
PORTFOLIO = String(64)

holdings_order = Table(
    "holdings_order",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("portfolio", PORTFOLIO, nullable=False),
    Column("fund_code", CODE, nullable=False),
    Column("kind", String(4), nullable=False, comment="buy or sell"),
    Column("amount", MONEY, comment="yuan: paid for what is bought, fee included; got for what is sold"),
    Column("shares", MONEY, comment="asked for where sold, got where bought"),
    Column("placed_at", Instant, nullable=False),
    Column("fee_rate", RATE, nullable=False, comment="percent"),
    Column("reference", String(64), nullable=False, comment="whose order this is: the same is stored once"),
    Column("nav_date", Date, nullable=False, comment="the trading day whose NAV counts"),
    Column("confirm_date", Date, nullable=False),
    Column("status", String(8), nullable=False, comment="PENDING, FILLED (has its NAV) or REFUSED"),
    Column("unit_nav", NAV),
    Column("fee", MONEY),
    Column("reason", String(500)),
    UniqueConstraint("portfolio", "reference"),
    Index(None, "status"),
    CheckConstraint("kind IN ('buy', 'sell')", name="kind"),
    sqlite_autoincrement=True,
    **COMMON,
)

holdings_plan = Table(
    "holdings_plan",
    metadata,
    Column("portfolio", PORTFOLIO, primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("fund_code", CODE, nullable=False),
    Column("amount", MONEY, nullable=False, comment="yuan a time, fee included"),
    Column("fee_rate", RATE, nullable=False, comment="percent"),
    Column("every", String(9), nullable=False, comment="session, week, two_weeks or month"),
    Column("day", Integer, nullable=False, comment="1 to 7, Monday first; of a month 1 to 28"),
    Column("start_date", Date, nullable=False),
    Column("end_date", Date),
    CheckConstraint("amount > 0", name="amount"),
    **CLUSTERED,
)

holdings_choice = Table(
    "holdings_choice",
    metadata,
    Column("portfolio", PORTFOLIO, primary_key=True),
    Column("fund_code", CODE, primary_key=True),
    Column("dividends", String(8), nullable=False, comment="cash or reinvest; cash where there is no row"),
    **CLUSTERED,
)

holdings_position = Table(
    "holdings_position",
    metadata,
    Column("portfolio", PORTFOLIO, primary_key=True),
    Column("fund_code", CODE, primary_key=True),
    Column("position_date", Date, primary_key=True),
    Column("nav_date", Date, nullable=False, comment="of the NAV that values it, on or before its date"),
    Column("shares", MONEY, nullable=False),
    Column("unconfirmed_shares", MONEY, nullable=False, comment="of them, those that are on their way"),
    Column("value", MONEY, nullable=False),
    Column("cost", MONEY, nullable=False, comment="paid for the shares that are left, at average cost"),
    Column("invested", MONEY, nullable=False, comment="paid so far"),
    Column("returned", MONEY, nullable=False, comment="got so far, from sales and dividends in cash"),
    Column("profit", MONEY, nullable=False, comment="value + returned - invested"),
    Column("xirr", Double(), comment="percent a year; null where there is none, and in the first 30 days"),
    **CLUSTERED,
)
