"""The tables of the market plugin: metadata of their own, made when the plugin is turned on."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    Double,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

from core.column_types import CLUSTERED, CODE, COMMON, ID, NAV, Instant, metadata as core_metadata

metadata = MetaData(naming_convention=core_metadata.naming_convention)

market_index_bar = Table(
    "market_index_bar",
    metadata,
    Column("index_code", String(16), primary_key=True, comment="e.g. 000300"),
    Column("trade_date", Date, primary_key=True),
    Column("high", NAV, nullable=False),
    Column("low", NAV, nullable=False),
    Column("close", NAV, nullable=False),
    Column("fetched_at", Instant, nullable=False),
    CheckConstraint("low > 0 AND low <= close AND close <= high", name="in_order"),
    **CLUSTERED,
)

INDICATORS = (
    *("sma_20", "sma_60", "ema_12", "ema_26", "rsi_14", "macd", "macd_signal", "macd_histogram"),
    *("bollinger_lower", "bollinger_upper", "atr_14"),
)
market_technical = Table(
    "market_technical",
    metadata,
    Column("code", String(16), primary_key=True, comment="of a fund, or of an index as index:000300"),
    Column("date", Date, primary_key=True),
    Column("value", Double, nullable=False, comment="adjusted NAV or close that the indicators are of"),
    *(Column(name, Double, comment="null: no history yet, or no meaning") for name in INDICATORS),
    Column("calculated_at", Instant, nullable=False),
    **CLUSTERED,
)

market_fundamental = Table(
    "market_fundamental",
    metadata,
    Column("fund_code", CODE, primary_key=True),
    Column("as_of", Date, primary_key=True, comment="Shanghai's date of the reading"),
    Column("size_date", Date, comment="end of the quarter of net_assets"),
    Column("net_assets", Double, comment="100 million yuan"),
    Column("net_assets_change", Double, comment="percent, against the quarter before"),
    Column("source_rate", Double, comment="subscription fee before discount, percent"),
    Column("current_rate", Double, comment="subscription fee as charged, percent"),
    Column("minimum_purchase", Double, comment="yuan"),
    Column("managers", Text, nullable=False, comment="JSON: id, name, term, funds: as published"),
    Column("allocation_date", Date, comment="end of the quarter of the shares"),
    Column("stock_share", Double, comment="percent of net assets"),
    Column("bond_share", Double, comment="percent of net assets; over 100 with borrowed money"),
    Column("cash_share", Double, comment="percent of net assets"),
    Column("stocks", Text, nullable=False, comment="JSON list of the largest holdings' codes"),
    Column("bonds", Text, nullable=False, comment="JSON list of the largest holdings' codes"),
    Column("page_time", Instant, comment="when the page says it was made"),
    Column("fetched_at", Instant, nullable=False),
    **CLUSTERED,
)

market_macro = Table(
    "market_macro",
    metadata,
    Column("series", String(64), primary_key=True, comment="core.market.macro; fred:ID"),
    Column("period", Date, primary_key=True, comment="its first day for a month, its day for a rate"),
    Column("value", Double, nullable=False),
    Column("unit", String(32), nullable=False),
    Column("source", String(32), nullable=False),
    Column("fetched_at", Instant, nullable=False, comment="when this value was first seen"),
    **CLUSTERED,
)

market_macro_revision = Table(
    "market_macro_revision",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("series", String(64), nullable=False, index=True),
    Column("period", Date, nullable=False),
    Column("old_value", Double, nullable=False),
    Column("new_value", Double, nullable=False),
    Column("known_at", Instant, nullable=False),
    **COMMON,
)

market_news = Table(
    "market_news",
    metadata,
    Column("digest", String(64), primary_key=True, comment="SHA-256 of the title without blanks and marks"),
    Column("published_at", Instant, nullable=False, index=True),
    Column("title", String(500), nullable=False),
    Column("summary", Text, nullable=False),
    Column("link", String(1000), nullable=False),
    Column("source", String(200), nullable=False, comment="host it was read from"),
    Column("classes", String(200), nullable=False, comment="a blank before and after each"),
    Column("importance", SmallInteger, nullable=False, comment="0 to 100"),
    Column("mood", SmallInteger, nullable=False, comment="-100 to 100"),
    Column("fetched_at", Instant, nullable=False),
    **COMMON,
)

market_risk = Table(
    "market_risk",
    metadata,
    Column("as_of", Date, primary_key=True, comment="what was published by the end of this day"),
    Column("definition", String(16), primary_key=True, comment="version of core.market.risk_score"),
    Column("score", Double, nullable=False, comment="0 calm to 100 strained"),
    Column("growth", Double),
    Column("inflation", Double),
    Column("liquidity", Double),
    Column("credit", Double),
    Column("volatility", Double),
    Column(
        "components",
        Text,
        nullable=False,
        comment="JSON: of each its value, period, observations, percentile",
    ),
    Column("calculated_at", Instant, nullable=False),
    **CLUSTERED,
)
