"""What an operator wants to know at a glance, read from the database in one consistent view.

Every query is an index look-up or touches a small table: the cost does not grow with the rows of
`fund_nav`. The same statements run on SQLite and MySQL.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    Row,
    Table,
    and_,
    case,
    create_engine,
    event,
    func,
    select,
)

from core import nav_days
from core.db import connect, read
from core.schema import (
    daemon,
    data_update_log,
    fund_metrics,
    fund_nav,
    job_run,
    money_fund_yield,
    nav_batch,
    quarantine,
    rule_result,
    tmp_fund_nav,
)
from core.trading_calendar import CHAIN_DUE, SHANGHAI, TradingCalendar, load_calendar
from scheduler.alert_listing import open_alerts
from scheduler.job import DONE_WELL, ENDED_BADLY, Job
from scheduler.process_identity import Process, this_process
from scheduler.verdict import (
    Batch,
    ChainStep,
    Daemon,
    Freshness,
    Gate,
    LogEntry,
    Quarantine,
    RunLine,
    Verdict,
    judge,
)

HEARTBEAT_SECONDS = 60
LOOK_SECONDS = 5  # how long looking waits for a locked or silent database
RUNS_SHOWN = 200
FIRES_TRIED = 400  # a year of trading days; the longest closure of the market is two weeks
FINISHED = DONE_WELL | ENDED_BADLY
DATED = (fund_nav, money_fund_yield, fund_metrics)


@dataclass(frozen=True)
class SuccessRate:
    """Runs of one job queued in the last 7 days; those skipped or not finished do not count."""

    job: str
    succeeded: int
    finished: int
    rate: float | None  # a fraction; None without a finished run


@dataclass(frozen=True)
class NextRun:
    """The next fire of a job that its calendar lets through."""

    job: str
    at: datetime
    business_date: date | None
    in_seconds: int


@dataclass(frozen=True)
class Overview:
    """Everything on the dashboard. Dates are business dates in Shanghai, instants are aware."""

    now: datetime
    verdict: Verdict
    next_command: str
    expected_date: date | None  # None without a calendar
    expected_is_provisional: bool
    simulated: bool  # some rows come from a market that declares itself simulated
    daemon: Daemon
    freshness: tuple[Freshness, ...]
    chain_date: date | None
    chain: tuple[ChainStep, ...]
    runs_24h: tuple[RunLine, ...]  # newest first
    success_7d: tuple[SuccessRate, ...]
    next_runs: tuple[NextRun, ...]
    last_batch: Batch | None
    quarantine: Quarantine
    last_failed_gate: Gate | None
    alerts: tuple[dict[str, Any], ...]  # open ones, oldest first

    def table(self, name: str) -> Freshness:
        return next(item for item in self.freshness if item.table == name)

    def as_json(self) -> dict[str, Any]:
        """Plain values only: dates as YYYY-MM-DD, instants in ISO 8601 with Shanghai's offset."""
        plain = _plain(asdict(self))
        assert isinstance(plain, dict)  # noqa: S101 - for the type checker
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(SHANGHAI).isoformat(timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def observer_engine(url: URL) -> Engine:
    """An engine for looking only: it answers or fails within seconds and never creates a SQLite file.

    SQLite is opened anew each time, so a file that was moved away or put back is noticed.
    """
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        engine = create_engine(url, poolclass=NullPool, creator=lambda: _open_existing(path))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return engine
    engine = connect(url)
    limits = {"connect_timeout": LOOK_SECONDS, "read_timeout": LOOK_SECONDS, "write_timeout": LOOK_SECONDS}
    event.listen(engine, "do_connect", lambda _dialect, _record, _args, settings: settings.update(limits))
    return engine.execution_options(isolation_level="REPEATABLE READ")  # one view for all statements


def _open_existing(path: Path) -> sqlite3.Connection:
    if not path.exists():
        missing = sqlite3.OperationalError("there is no such file; run: python main.py init")
        missing.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN  # by which it is told from a wrong statement
        raise missing
    address = f"{path.resolve().as_uri()}?mode=rw"
    return sqlite3.connect(
        address, uri=True, timeout=LOOK_SECONDS, isolation_level=None, check_same_thread=False
    )


def collect_overview(engine: Engine, jobs: Mapping[str, Job], now: datetime) -> Overview:
    """Read everything at once. Raises DatabaseUnavailable, SchemaOutdated."""
    with read(engine) as connection:
        calendar = load_calendar(connection)
        expected = expected_date(calendar, now)
        state = daemon_state(connection, now)
        tables = (
            *(_freshness(connection, table, calendar, expected) for table in DATED),
            _staging(connection, calendar, expected),
        )
        runs = _runs_since(connection, now - timedelta(hours=24), now)
        chain_date = _chain_date(connection, jobs, calendar, expected)
        chain = tuple(_step(connection, job, chain_date, now) for job in jobs.values() if _nightly(job))
        others = tuple(_step(connection, job, None, now) for job in jobs.values() if not _nightly(job))
        last, latest = _last_batch(connection), _last_batch(connection, "latest")
        held = _quarantine(connection, last)
        gate = _last_failed_gate(connection)
        simulated = _simulated(connection)
        rates = tuple(_success(connection, jobs, now))
        alerts = tuple(open_alerts(connection, now))
    verdict, command = judge(
        now.astimezone(SHANGHAI).date(), calendar, expected, state, tables, chain + others, latest, gate
    )
    return Overview(
        now=now,
        verdict=verdict,
        next_command=command,
        expected_date=expected,
        expected_is_provisional=calendar is not None and expected in calendar.provisional,
        simulated=simulated,
        daemon=state,
        freshness=tables,
        chain_date=chain_date,
        chain=chain,
        runs_24h=runs,
        success_7d=rates,
        next_runs=tuple(sorted(_next_runs(jobs, calendar, now), key=lambda run: run.at)),
        last_batch=last,
        quarantine=held,
        last_failed_gate=gate,
        alerts=alerts,
    )


def expected_date(calendar: TradingCalendar | None, now: datetime) -> date | None:
    """The business date every table should have reached by `now`; None where no calendar can say."""
    if calendar is None or now.astimezone(SHANGHAI).date() <= calendar.sessions[0]:
        return None
    return calendar.newest_business_date(now, CHAIN_DUE)


def daemon_state(connection: Connection, now: datetime) -> Daemon:
    """Whether a daemon is alive: it says so every HEARTBEAT_SECONDS; on this host its process is looked for."""
    row = connection.execute(select(daemon)).first()
    if row is None:
        return Daemon(False, "daemon_absent", None, None, None, None, None)
    age = round((now - row.heartbeat_at).total_seconds())
    code = _state_of(row, age)
    return Daemon(code == "running", code, row.host, row.pid, row.started_at, row.heartbeat_at, age)


def _state_of(row: Row[Any], age: int) -> str:
    if row.stopped_at is not None:
        return "daemon_stopped"
    process = Process(row.host, row.pid, row.pid_started)
    # Without its start time a pid may be another's. A process of another host cannot be seen from here.
    if process.started and process.host == this_process().host and not process.is_alive():
        return "daemon_gone"
    # A heartbeat far ahead of our clock proves nothing: either clock may have jumped.
    return "running" if abs(age) <= HEARTBEAT_SECONDS else "heartbeat_old"


def newest_trading_day(connection: Connection, table: Table, calendar: TradingCalendar | None) -> date | None:
    """The newest trading day that a table of DATED has rows of.

    Rows of closed days are passed over: money funds have weekend rows, and every fund is valued
    on 30 June and 31 December whatever the weekday; they must not hide a missing Friday.
    """
    newest = _newest(connection, table)
    while newest and calendar and newest > calendar.sessions[0] and not calendar.is_session(newest):
        last = calendar.last_session(newest)
        newest = _newest(connection, table, min(newest, last + timedelta(days=1)))
    return newest


def rows_of(connection: Connection, table: Table, day: date | None) -> int:
    """Funds with a row of that date."""
    if day is None:
        return 0
    if table is not fund_metrics:
        return nav_days.row_count(connection, table, day)
    metrics = fund_metrics.c
    funds = select(func.count(metrics.fund_code.distinct())).where(metrics.calc_date == day)
    return connection.scalar(funds) or 0


def _newest(connection: Connection, table: Table, before: date | None = None) -> date | None:
    if table is not fund_metrics:
        return nav_days.newest_date(connection, table, before)
    newest = select(func.max(fund_metrics.c.calc_date))
    found: date | None = connection.scalar(
        newest if before is None else newest.where(fund_metrics.c.calc_date < before)
    )
    return found


def _freshness(
    connection: Connection, table: Table, calendar: TradingCalendar | None, expected: date | None
) -> Freshness:
    newest = newest_trading_day(connection, table, calendar)
    if calendar is not None and newest is not None and newest > calendar.sessions[0]:
        previous: date | None = calendar.previous_session(newest)
    else:
        previous = newest and _newest(connection, table, newest)
    rows, previous_rows = rows_of(connection, table, newest), rows_of(connection, table, previous)
    return Freshness(
        table=table.name,
        newest_date=newest,
        sessions_behind=_behind(calendar, newest, expected),
        rows=rows,
        previous_date=previous,
        previous_rows=previous_rows,
        coverage=_ratio(rows, previous_rows),
        has_older=previous is not None and _newest(connection, table, previous) is not None,
        last_update=_last_update(connection, table.name),
    )


def _staging(connection: Connection, calendar: TradingCalendar | None, expected: date | None) -> Freshness:
    batch = nav_batch.c
    nights = select(batch.business_date, batch.row_count).where(
        batch.kind == "latest", batch.business_date.is_not(None)
    )
    last = connection.execute(nights.order_by(batch.id.desc()).limit(1)).first()
    earlier = None
    if last is not None:
        older = nights.where(batch.business_date < last.business_date)
        newest_first = older.order_by(batch.business_date.desc(), batch.id.desc())
        earlier = connection.execute(newest_first.limit(1)).first()
    newest = last.business_date if last else None
    rows, previous_rows = last.row_count if last else 0, earlier.row_count if earlier else 0
    return Freshness(
        table="tmp_fund_nav",
        newest_date=newest,
        sessions_behind=_behind(calendar, newest, expected),
        rows=rows,
        previous_date=earlier.business_date if earlier else None,
        previous_rows=previous_rows,
        coverage=_ratio(rows, previous_rows),
        has_older=False,
        last_update=_last_update(connection, "tmp_fund_nav"),
    )


def _behind(calendar: TradingCalendar | None, newest: date | None, expected: date | None) -> int | None:
    if calendar is None or newest is None or expected is None:
        return None
    return len(calendar.between(newest + timedelta(days=1), expected))


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _last_update(connection: Connection, table: str) -> LogEntry | None:
    log = data_update_log.c
    row = connection.execute(
        select(data_update_log).where(log.table_name == table).order_by(log.id.desc()).limit(1)
    ).first()
    if row is None:
        return None
    return LogEntry(row.update_date, row.status, row.record_count, row.end_time, row.error_msg)


def _run_line(row: Any, now: datetime) -> RunLine:
    end = row.finished_at or now
    return RunLine(
        id=row.id,
        job=row.job_id,
        task=row.task,
        business_date=row.business_date,
        status=row.status,
        requested_by=row.requested_by,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        seconds=None if row.started_at is None else round((end - row.started_at).total_seconds(), 1),
        records=row.record_count,
        reason=row.reason,
    )


def _runs_since(connection: Connection, since: datetime, now: datetime) -> tuple[RunLine, ...]:
    run = job_run.c
    rows = connection.execute(
        select(job_run)
        .where(run.queued_at >= since)
        .order_by(
            run.queued_at.desc(), run.id.desc()
        )  # by that index: by id alone SQLite reads every run there is
        .limit(RUNS_SHOWN)
    )
    return tuple(_run_line(row, now) for row in rows)


def _nightly(job: Job) -> bool:
    return job.business_date == "session"


def _chain_date(
    connection: Connection, jobs: Mapping[str, Job], calendar: TradingCalendar | None, expected: date | None
) -> date | None:
    """The night to show: tonight's as soon as one of its runs exists, else the one that should be done."""
    nightly = [job.id for job in jobs.values() if _nightly(job)]
    run = job_run.c
    # By job: of each the index has the newest at its end.
    of_nights = select(func.max(run.business_date)).where(run.job_id.in_(nightly)).group_by(run.job_id)
    newest: date | None = max(connection.scalars(of_nights), default=None)
    if newest and calendar and newest > calendar.sessions[0]:
        newest = calendar.last_session(newest)  # a holiday's runs are only SKIPPED
    return max((day for day in (newest, expected) if day is not None), default=None)


def _step(connection: Connection, job: Job, night: date | None, now: datetime) -> ChainStep:
    """The newest run of a job: for that night, or for any when `night` is None."""
    run = job_run.c
    runs = select(job_run).where(run.job_id == job.id)
    if night is not None:
        runs = runs.where(run.business_date == night)
    row = connection.execute(runs.order_by(run.business_date.desc(), run.id.desc()).limit(1)).first()
    return ChainStep(job.id, None if row is None else _run_line(row, now))


def _last_batch(connection: Connection, kind: str | None = None) -> Batch | None:
    collected = and_(nav_batch.c.kind.in_(("latest", "sweep", "history")), nav_batch.c.row_count > 0)
    batches = select(nav_batch).where(collected).order_by(nav_batch.c.id.desc()).limit(1)
    if kind is not None:
        batches = batches.where(nav_batch.c.kind == kind)
    row = connection.execute(batches).first()
    if row is None:
        return None
    return Batch(
        id=row.id,
        kind=row.kind,
        business_date=row.business_date,
        source=row.source,
        provenance=row.provenance,
        collected_at=row.collected_at,
        rows=row.row_count,
        status=row.status,
        held=_held(connection, row.id),
    )


def _held(connection: Connection, batch_id: int) -> int:
    """Rows of the batch that failed a rule. Once its staged rows are cleaned away: those it brought first."""
    staged = tmp_fund_nav.c
    failed = func.sum(case((staged.held == 1, 1), else_=0))
    rows, held = connection.execute(select(func.count(), failed).where(staged.batch_id == batch_id)).one()
    if rows:
        return int(held)
    return connection.scalar(select(func.count()).where(quarantine.c.batch_id == batch_id)) or 0


def _simulated(connection: Connection) -> bool:
    """Whether the newest batch, or any that was merged, says it is simulated."""
    batch = nav_batch.c
    newest = select(func.max(batch.id)).scalar_subquery()
    kept = (batch.status == "MERGED") | (batch.id == newest)
    found = select(batch.id).where(kept, batch.provenance.contains("SIMULATED"))
    return connection.scalar(found.limit(1)) is not None


def _quarantine(connection: Connection, last: Batch | None) -> Quarantine:
    total = connection.scalar(select(func.count()).where(quarantine.c.resolution.is_(None))) or 0
    return Quarantine(total, last.held if last else 0)


def _last_failed_gate(connection: Connection) -> Gate | None:
    row = connection.execute(
        select(rule_result, nav_batch.c.business_date)
        .join(nav_batch, nav_batch.c.id == rule_result.c.batch_id)
        .where(rule_result.c.severity == "gate", rule_result.c.failed > 0)
        .order_by(rule_result.c.batch_id.desc(), rule_result.c.rule_id)
        .limit(1)
    ).first()
    if row is None:
        return None
    return Gate(row.batch_id, row.business_date, row.rule_id, row.checked, row.failed, json.loads(row.detail))


def _success(connection: Connection, jobs: Mapping[str, Job], now: datetime) -> list[SuccessRate]:
    run = job_run.c
    recent = select(run.job_id, run.status).where(run.queued_at >= now - timedelta(days=7))
    # Counted here: to group them SQLite would go through every run there is, by another index.
    counts = Counter((row.job_id, row.status) for row in connection.execute(recent))
    names = list(jobs) + sorted({job for job, _ in counts} - set(jobs))
    rates = []
    for name in names:
        finished = sum(counts[name, status] for status in FINISHED)
        succeeded = sum(counts[name, status] for status in DONE_WELL)
        rates.append(SuccessRate(name, succeeded, finished, _ratio(succeeded, finished)))
    return rates


def _next_runs(jobs: Mapping[str, Job], calendar: TradingCalendar | None, now: datetime) -> list[NextRun]:
    found = []
    for job in jobs.values():
        fire = job.next_fire(now)
        tried = 0
        while fire and calendar and job.skip_reason(fire, calendar) and tried < FIRES_TRIED:
            fire = job.next_fire(fire)
            tried += 1
        if fire is None or tried == FIRES_TRIED:
            continue
        day = job.business_date_of(fire, calendar) if calendar else None
        found.append(NextRun(job.id, fire, day, round((fire - now).total_seconds())))
    return found
