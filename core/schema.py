"""Every table. The same definitions serve SQLite and MySQL/MariaDB.

What is not yet believed rests as DOUBLE: a misprint of any size can be staged and quarantined.
"""

from __future__ import annotations

from sqlalchemy import (
    CHAR,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
)

from core.alert_tables import alert as alert, alert_delivery as alert_delivery
from core.cache_tables import (
    cache_count as cache_count,
    cache_entry as cache_entry,
    cache_epoch as cache_epoch,
)
from core.column_types import (
    CLUSTERED,
    CODE,
    COMMON,
    ID,
    NAV,
    PERCENT,
    Instant as Instant,
    metadata as metadata,
)
from core.event_tables import (
    event_cursor as event_cursor,
    event_order as event_order,
    event_parked as event_parked,
)
from core.job_tables import (
    exchange_day as exchange_day,
    job as job,
    job_change as job_change,
    job_version as job_version,
)
from core.metric_columns import COLUMNS as METRIC_COLUMNS
from core.plugin_tables import plugin as plugin, plugin_source as plugin_source
from core.rank_columns import COMPONENT_COLUMNS, RANK_COLUMNS, worked_out
from core.run_tables import (
    daemon as daemon,
    job_command as job_command,
    job_pause as job_pause,
    job_run as job_run,
    run_attempt as run_attempt,
    run_event as run_event,
)

fund_info = Table(
    "fund_info",
    metadata,
    Column("fund_code", CODE, primary_key=True),
    Column("fund_name", String(200), nullable=False),
    Column("fund_type", String(50), nullable=False, comment="the publisher's words, e.g. 混合型-灵活"),
    Column("category", String(16), nullable=False, index=True, comment="core.fund_category"),
    Column("pinyin", String(100), nullable=False, server_default=""),
    Column("inception_date", Date),
    Column(
        "status",
        String(12),
        nullable=False,
        server_default="active",
        comment="core.fund_status: active, new, closed, suspended or liquidated",
    ),
    Column("purchase_status", String(20), comment="the publisher's words, e.g. 开放申购"),
    Column("redemption_status", String(20)),
    Column("last_listed", Date, comment="the last business date on which the fund list named it"),
    Column("updated_at", Instant, nullable=False),
    **CLUSTERED,
)

nav_batch = Table(
    "nav_batch",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    # or sweep: what is new since the night's batch
    Column("kind", String(8), nullable=False, comment="latest, sweep, history, second or release"),
    Column("business_date", Date, comment="the night a latest batch was collected for"),
    Column("source", String(32), nullable=False),
    Column("provenance", String(500), nullable=False, comment="addresses asked and who answered"),
    Column("collected_at", Instant, nullable=False),
    Column("row_count", Integer, nullable=False),
    Column(
        "status",
        String(12),
        nullable=False,
        comment="STAGED, MERGED, REJECTED, SUPERSEDED, EXPIRED or COMPARED",
    ),
    Column("merged_count", Integer, comment="rows believed when it was merged"),
    Column("decided_at", Instant),
    Column("run_id", ID),
    Index(None, "kind", "business_date"),
    sqlite_autoincrement=True,
    **COMMON,
)

tmp_fund_nav = Table(
    "tmp_fund_nav",
    metadata,
    Column("batch_id", ID, ForeignKey("nav_batch.id", ondelete="CASCADE"), primary_key=True),
    Column("row_no", Integer, primary_key=True, autoincrement=False),
    Column("fund_code", String(32), nullable=False),
    Column("nav_date", Date),
    Column("unit_nav", Double()),
    Column("accum_nav", Double()),
    Column("daily_return", Double(), comment="percent, as published"),
    Column("dividend", Double(), comment="cash per pre-event share, ex on nav_date"),
    Column("split_ratio", Double()),
    Column("income_per_10k", Double()),
    Column("yield_7d", Double()),
    Column("origin", String(300), comment="file:line"),
    Column("defect", String(200), comment="why the text could not be read"),
    Column("raw", Text),
    Column("held", SmallInteger, nullable=False, server_default="0", comment="1 quarantined, 2 a repeat"),
    **CLUSTERED,
)

fund_nav = Table(
    "fund_nav",
    metadata,
    Column("fund_code", CODE, primary_key=True),
    Column("nav_date", Date, primary_key=True),
    Column("unit_nav", NAV, nullable=False),
    Column("accum_nav", NAV),
    Column("daily_return", PERCENT, comment="percent, as published"),
    Column("batch_id", ID, nullable=False),
    CheckConstraint("unit_nav > 0", name="positive"),
    **CLUSTERED,
)

fund_nav_revision = Table(
    "fund_nav_revision",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("fund_code", CODE, nullable=False),
    Column("nav_date", Date, nullable=False),
    Column("old_unit_nav", NAV, nullable=False),
    Column("new_unit_nav", NAV, nullable=False),
    Column("old_accum_nav", NAV),
    Column("new_accum_nav", NAV),
    Column("old_daily_return", PERCENT),
    Column("new_daily_return", PERCENT),
    Column("old_batch_id", ID, nullable=False),
    Column("new_batch_id", ID, nullable=False),
    Column("known_at", Instant, nullable=False),
    Column(
        "reason",
        String(16),
        nullable=False,
        comment="filled: a blank was published later; precision, small or large",
    ),
    Index(None, "new_batch_id"),
    Index(None, "fund_code", "nav_date"),
    **COMMON,
)

fund_event = Table(
    "fund_event",
    metadata,
    Column("fund_code", CODE, primary_key=True),
    Column("ex_date", Date, primary_key=True),
    Column("kind", String(8), primary_key=True, comment="dividend or split"),
    Column("value", NAV, nullable=False, comment="cash per pre-event share, or shares after for one before"),
    Column(
        "evidence",
        String(16),
        nullable=False,
        comment="published, confirmed by somebody, implied, or announced: not in the NAV yet",
    ),
    Column(
        "listed_value", NAV, comment="what the list of dividends and splits says; null where it is silent"
    ),
    Column("batch_id", ID, nullable=False),
    Index(None, "batch_id"),
    CheckConstraint("value > 0", name="positive"),
    **CLUSTERED,
)

fund_adjustment = Table(
    "fund_adjustment",
    metadata,
    Column("fund_code", CODE, primary_key=True),
    Column("ex_date", Date, primary_key=True),
    Column("factor", Double(), nullable=False, comment="(s*U + D)/U of the ex-date"),
    Column("cumulative", Double(), nullable=False, comment="adjusted NAV over unit NAV from this date on"),
    **CLUSTERED,
)

money_fund_yield = Table(
    "money_fund_yield",
    metadata,
    Column("fund_code", CODE, primary_key=True),
    Column("nav_date", Date, primary_key=True),
    Column("income_per_10k", NAV),
    Column("yield_7d", PERCENT, comment="percent a year"),
    Column("batch_id", ID, nullable=False),
    **CLUSTERED,
)

nav_day = Table(
    "nav_day",
    metadata,
    Column("table_name", String(20), primary_key=True, comment="fund_nav or money_fund_yield"),
    Column("nav_date", Date, primary_key=True),
    Column("row_count", Integer, nullable=False, comment="funds with a row of that date"),
    **CLUSTERED,
)

nav_version = Table(
    "nav_version",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("token", CHAR(16), nullable=False, comment="random: no other database has it"),
    sqlite_autoincrement=True,
    **COMMON,
)

fund_series = Table(
    "fund_series",
    metadata,
    Column("table_name", String(20), primary_key=True, comment="fund_nav or money_fund_yield"),
    Column("fund_code", CODE, primary_key=True),
    Column("row_count", Integer, nullable=False),
    Column("first_date", Date, nullable=False),
    Column("last_date", Date, nullable=False),
    Column("changed", ID, nullable=False, comment="the newest nav_version that changed anything"),
    Column("rewritten", ID, nullable=False, comment="the newest that did more than add later rows"),
    **CLUSTERED,
)

# A night's rows lie together: it appends, and touches no page of another night.
BY_DATE = ("calc_date", "fund_code", "definition_version")

fund_metrics = Table(
    "fund_metrics",
    metadata,
    Column("fund_code", CODE, nullable=False),
    Column("calc_date", Date, nullable=False),
    Column("definition_version", String(8), nullable=False),
    Column("nav_date", Date, nullable=False, comment="the newest NAV used"),
    Column("nav_count", Integer, nullable=False),
    *(
        Column(name, Date if name.rpartition("_")[0].endswith(("peak", "trough", "recovery")) else Double())
        for name in METRIC_COLUMNS
    ),
    PrimaryKeyConstraint(*BY_DATE),
    **CLUSTERED,
)

fund_rank = Table(
    "fund_rank",
    metadata,
    Column("fund_code", CODE, nullable=False),
    Column("calc_date", Date, nullable=False),
    Column("definition_version", String(8), nullable=False),
    *(
        Column(
            name,
            Double() if name.startswith("percentile_") else Integer,
            *([Computed(formula, persisted=False)] if (formula := worked_out(name)) else []),
        )
        for name in RANK_COLUMNS
    ),
    PrimaryKeyConstraint(*BY_DATE),
    **CLUSTERED,
)

fund_score = Table(
    "fund_score",
    metadata,
    Column("fund_code", CODE, nullable=False),
    Column("calc_date", Date, nullable=False),
    Column("definition_version", String(8), nullable=False),
    Column("score", Double(), comment="0 to 100; null where too little is known"),
    Column("level", String(1), comment="S, A, B, C or D"),
    Column("known_count", SmallInteger, nullable=False, comment="components that are known"),
    *(Column(name, Double(), comment="percentile among its type") for name in COMPONENT_COLUMNS),
    PrimaryKeyConstraint(*BY_DATE),
    **CLUSTERED,
)

risk_free_rate = Table(
    "risk_free_rate",
    metadata,
    Column("effective_from", Date, primary_key=True, comment="the first day it holds for"),
    Column("rate", Double(), nullable=False, comment="a year, as a fraction"),
    Column("note", String(200)),
    CheckConstraint("rate > -1", name="possible"),
    **CLUSTERED,
)

benchmark_index = Table(
    "benchmark_index",
    metadata,
    Column("index_code", String(16), primary_key=True, comment="e.g. 000300"),
    Column("trade_date", Date, primary_key=True),
    Column("close", NAV, nullable=False),
    Column("source", String(32), nullable=False),
    Column("known_at", Instant, nullable=False),
    CheckConstraint("close > 0", name="positive"),
    **CLUSTERED,
)

category_return = Table(
    "category_return",
    metadata,
    Column("category", String(16), primary_key=True),
    Column("nav_date", Date, primary_key=True),
    Column("median", Double(), nullable=False, comment="of the day's changes, percent"),
    Column("spread", Double(), nullable=False, comment="1.4826 times the median absolute deviation, percent"),
    Column("fund_count", Integer, nullable=False),
    **CLUSTERED,
)

backfilled_fund = Table(
    "backfilled_fund",
    metadata,
    Column("run_id", ID, primary_key=True, comment="the run that the back-fill began with"),
    Column("fund_code", CODE, primary_key=True),
    Column("row_count", Integer, nullable=False),
    Column("merged_at", Instant, nullable=False),
    **CLUSTERED,
)

data_update_log = Table(
    "data_update_log",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("table_name", String(64), nullable=False),
    Column("update_date", Date, nullable=False, comment="business date"),
    Column("record_count", Integer, nullable=False),
    Column("status", String(8), nullable=False, comment="SUCCESS, FAILURE or PARTIAL"),
    Column("error_msg", String(1000)),
    Column("start_time", Instant, nullable=False),
    Column("end_time", Instant, nullable=False),
    Column("duration_seconds", Double(), nullable=False),
    Column("run_id", ID),
    Index(None, "table_name", "update_date"),
    Index(None, "end_time"),
    **COMMON,
)

rule_result = Table(
    "rule_result",
    metadata,
    Column("batch_id", ID, ForeignKey("nav_batch.id", ondelete="CASCADE"), primary_key=True),
    Column("rule_id", String(40), primary_key=True),
    Column("severity", String(8), nullable=False, comment="error, warning, gate or partial"),
    Column("version", SmallInteger, nullable=False, server_default="1", comment="of the rule's definition"),
    Column("checked", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("detail", Text, nullable=False, comment="JSON: samples, or a gate's figures"),
    Column("figures", Text, comment="JSON: the numbers behind a gate"),
    **CLUSTERED,
)

merge_lock = Table(
    "merge_lock",
    metadata,
    Column(
        "id", SmallInteger, primary_key=True, autoincrement=False, comment="one row, locked by who merges"
    ),
    **COMMON,
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("row_hash", CHAR(64), nullable=False, unique=True, comment="the same bad row is kept once"),
    Column("batch_id", ID, nullable=False, index=True),
    Column("source", String(32), nullable=False),
    Column("fund_code", String(32), nullable=False, index=True),
    Column("nav_date", Date),
    Column("unit_nav", Double()),
    Column("accum_nav", Double()),
    Column("daily_return", Double()),
    Column("dividend", Double()),
    Column("split_ratio", Double()),
    Column("income_per_10k", Double()),
    Column("yield_7d", Double()),
    Column("origin", String(300)),
    Column("defect", String(200)),
    Column("raw", Text),
    Column("reasons", String(500), nullable=False, comment="rule ids, comma-separated"),
    Column("proposal", Text, comment="JSON: the dividend or split that would explain the row"),
    Column("held_at", Instant, nullable=False),
    Column("resolution", String(8), comment="RELEASED or REJECTED; null while it is held"),
    Column("resolved_at", Instant),
    Column("resolved_by", String(64), comment="cli:name, or event, source or followers: what confirmed it"),
    Column("note", String(500)),
    Index(None, "nav_date"),
    Index(None, "resolution"),
    **COMMON,
)

trade_calendar = Table(
    "trade_calendar",
    metadata,
    Column("cal_date", Date, primary_key=True, comment="a trading day"),
    Column("provisional", Boolean(), nullable=False),
    **CLUSTERED,
)
