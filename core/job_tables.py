"""The tables of jobs made at run time, and the trading days of other exchanges than Shanghai's."""

from __future__ import annotations

from sqlalchemy import Column, Date, Integer, SmallInteger, String, Table, Text

from core.column_types import CLUSTERED, COMMON, ID, Instant, metadata

job = Table(
    "job",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("definition", Text, nullable=False, comment="JSON: the keys of config/jobs.toml"),
    Column("version", Integer, nullable=False, comment="one more with every change"),
    Column("counts_from", Instant, nullable=False, comment="fires before it were another schedule's"),
    Column("created_by", String(64), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("changed_by", String(64), nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    **CLUSTERED,
)

job_version = Table(
    "job_version",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("definition", Text, comment="JSON; null: deleted"),
    Column("changed_by", String(64), nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("reason", String(200)),
    **CLUSTERED,
)

job_change = Table(
    "job_change",
    metadata,
    Column(
        "id", SmallInteger, primary_key=True, autoincrement=False, comment="one row, locked by who changes"
    ),
    Column("number", ID, nullable=False, comment="of changes; who has seen another looks again"),
    **COMMON,
)

exchange_day = Table(
    "exchange_day",
    metadata,
    Column("exchange", String(8), primary_key=True, comment="a code of exchange_calendars, e.g. XHKG"),
    Column("cal_date", Date, primary_key=True, comment="a trading day"),
    **CLUSTERED,
)
