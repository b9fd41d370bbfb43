"""The tables of runs: what is due, what ran and how it went, what people asked for, who leads."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from core.column_types import CLUSTERED, COMMON, ID, Instant, metadata

job_run = Table(
    "job_run",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("job_id", String(64), nullable=False),
    Column("task", String(64), nullable=False),
    Column("business_date", Date, nullable=False),
    Column("scheduled_for", Instant, comment="null for runs asked for by hand"),
    Column("params", Text, nullable=False, comment="JSON"),
    Column("status", String(12), nullable=False, comment="scheduler.job.RunStatus"),
    Column("active_key", String(64), unique=True, comment="the job's id while the run is RUNNING"),
    Column("reason", String(1000)),
    Column("requested_by", String(64), nullable=False),
    Column("queued_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("record_count", Integer),
    Column("claim", String(36)),
    Column("host", String(255)),
    Column("pid", Integer),
    Column("pid_started", String(64), comment="boot id and start tick of the process"),
    Column("exit_code", Integer),
    Column("log_file", String(500)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("first_started_at", Instant),
    Column("not_before", Instant, comment="when the next attempt may start"),
    Column("retry_policy", Text, comment="JSON of scheduler.retry.RetryPolicy"),
    Column("peak_memory_kb", Integer),
    Column("progress_done", Integer),
    Column("progress_total", Integer),
    Column("progress_text", String(200)),
    Column("beat_at", Instant, comment="the last sign of life of the run's process"),
    Column("progress_item", String(100), comment="what it is at: a fund code, a file"),
    Column("progress_at", Instant, comment="when the work last said that it goes on"),
    Column("absent_seconds", Integer, nullable=False, server_default="0", comment="while no daemon led"),
    Column("cancelled_by", String(64), comment="who wants it to end; it becomes CANCELLED"),
    Column("result", Text, comment="JSON that the task returned"),
    Column("event_id", ID, comment="the event that asked for it"),
    UniqueConstraint("job_id", "scheduled_for"),
    Index(None, "status"),
    Index(None, "job_id", "business_date"),
    Index(None, "queued_at"),
    Index(None, "job_id", "event_id", unique=True),  # SQLite adds no constraint to a table that is there
    sqlite_autoincrement=True,
    **COMMON,
)

run_event = Table(
    "run_event",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("run_id", ID, ForeignKey("job_run.id", ondelete="CASCADE"), index=True),
    Column("at", Instant, nullable=False),
    Column("from_status", String(12)),
    Column("to_status", String(12), comment="null for what was published"),
    Column("reason", String(1000)),
    Column(
        "kind",
        String(16),
        nullable=False,
        server_default="state",
        comment="state, chain_blocked, silent; event: published",
    ),
    Column("fingerprint", String(100), unique=True, comment="an alert of the same fingerprint is noted once"),
    Column("topic", String(64), nullable=False),
    Column("payload", Text, comment="JSON; null where the columns say it all"),
    Column("position", ID, index=True, comment="in the order of delivery; null until it was seen committed"),
    Index(None, "topic", "position"),
    Index(None, "at"),
    sqlite_autoincrement=True,
    **COMMON,
)

run_attempt = Table(
    "run_attempt",
    metadata,
    Column("run_id", ID, ForeignKey("job_run.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("status", String(12), nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant, nullable=False),
    Column("reason", String(1000)),
    Column("exit_code", Integer),
    Column("log_file", String(500)),
    Column("peak_memory_kb", Integer),
    **CLUSTERED,
)

daemon = Table(
    "daemon",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False, comment="always 1"),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", String(64), nullable=False, server_default="", comment="as in job_run"),
    Column("started_at", Instant, nullable=False),
    Column("heartbeat_at", Instant, nullable=False),
    Column("stopped_at", Instant),
    Column("epoch", BigInteger, nullable=False, server_default="0", comment="one more with every leader"),
    Column(
        "beats", BigInteger, nullable=False, server_default="0", comment="one more with every sign of life"
    ),
    **COMMON,
)

job_pause = Table(
    "job_pause",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("paused_at", Instant, nullable=False),
    Column("paused_by", String(64), nullable=False),
    **CLUSTERED,
)

job_command = Table(
    "job_command",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("action", String(16), nullable=False, comment="pause, resume, trigger, cancel or retry"),
    Column("job_id", String(64)),
    Column("run_id", ID, comment="the run meant, or the run that came of it"),
    Column("business_date", Date),
    Column("params", Text, nullable=False, comment="JSON"),
    Column("requested_by", String(64), nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, comment="never carried out after this"),
    Column("status", String(8), nullable=False, comment="PENDING, DONE, REFUSED or EXPIRED"),
    Column("answer", String(1000)),
    Column("answered_at", Instant),
    Index(None, "status"),
    sqlite_autoincrement=True,
    **COMMON,
)
