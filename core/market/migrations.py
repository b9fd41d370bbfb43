"""How the market plugin's tables came to be what they are; each step is called once for a database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from core.column_types import CLUSTERED, CODE, COMMON, ID, NAV, Instant


def first_tables(op: Operations) -> None:
    """Bars, indicators, fundamentals, macro figures and their corrections, news, the score."""
    _prices(op)
    _fundamentals(op)
    _macro(op)
    _news(op)


def _prices(op: Operations) -> None:
    op.create_table(
        "market_index_bar",
        sa.Column("index_code", sa.String(16), nullable=False),
        sa.Column("trade_date", sa.Date(), nullable=False),
        sa.Column("high", NAV, nullable=False),
        sa.Column("low", NAV, nullable=False),
        sa.Column("close", NAV, nullable=False),
        sa.Column("fetched_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("index_code", "trade_date", name="pk_market_index_bar"),
        sa.CheckConstraint("low > 0 AND low <= close AND close <= high", name="ck_market_index_bar_in_order"),
        **CLUSTERED,
    )
    names = (
        *("sma_20", "sma_60", "ema_12", "ema_26", "rsi_14", "macd", "macd_signal", "macd_histogram"),
        *("bollinger_lower", "bollinger_upper", "atr_14"),
    )
    op.create_table(
        "market_technical",
        sa.Column("code", sa.String(16), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        *(sa.Column(name, sa.Double()) for name in names),
        sa.Column("calculated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("code", "date", name="pk_market_technical"),
        **CLUSTERED,
    )


def _fundamentals(op: Operations) -> None:
    op.create_table(
        "market_fundamental",
        sa.Column("fund_code", CODE, nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("size_date", sa.Date()),
        *(
            sa.Column(name, sa.Double())
            for name in ("net_assets", "net_assets_change", "source_rate", "current_rate", "minimum_purchase")
        ),
        sa.Column("managers", sa.Text(), nullable=False),
        sa.Column("allocation_date", sa.Date()),
        *(sa.Column(name, sa.Double()) for name in ("stock_share", "bond_share", "cash_share")),
        sa.Column("stocks", sa.Text(), nullable=False),
        sa.Column("bonds", sa.Text(), nullable=False),
        sa.Column("page_time", Instant()),
        sa.Column("fetched_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("fund_code", "as_of", name="pk_market_fundamental"),
        **CLUSTERED,
    )


def _macro(op: Operations) -> None:
    op.create_table(
        "market_macro",
        sa.Column("series", sa.String(64), nullable=False),
        sa.Column("period", sa.Date(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("unit", sa.String(32), nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("fetched_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("series", "period", name="pk_market_macro"),
        **CLUSTERED,
    )
    op.create_table(
        "market_macro_revision",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("series", sa.String(64), nullable=False),
        sa.Column("period", sa.Date(), nullable=False),
        sa.Column("old_value", sa.Double(), nullable=False),
        sa.Column("new_value", sa.Double(), nullable=False),
        sa.Column("known_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_market_macro_revision"),
        **COMMON,
    )
    op.create_index("ix_market_macro_revision_series", "market_macro_revision", ["series"])
    op.create_table(
        "market_risk",
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("definition", sa.String(16), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        *(
            sa.Column(name, sa.Double())
            for name in ("growth", "inflation", "liquidity", "credit", "volatility")
        ),
        sa.Column("components", sa.Text(), nullable=False),
        sa.Column("calculated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("as_of", "definition", name="pk_market_risk"),
        **CLUSTERED,
    )


def _news(op: Operations) -> None:
    op.create_table(
        "market_news",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("published_at", Instant(), nullable=False),
        sa.Column("title", sa.String(500), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("link", sa.String(1000), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("classes", sa.String(200), nullable=False),
        sa.Column("importance", sa.SmallInteger(), nullable=False),
        sa.Column("mood", sa.SmallInteger(), nullable=False),
        sa.Column("fetched_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_market_news"),
        **COMMON,
    )
    op.create_index("ix_market_news_published_at", "market_news", ["published_at"])


MIGRATIONS = (first_tables,)
