"""One word on the whole: what is the matter, how bad it is and what to type. Pure decisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from core.trading_calendar import TradingCalendar
from scheduler.job import ENDED_BADLY, RunStatus

STATES = ("FAILED", "EMPTY", "STOPPED", "LATE", "INCOMPLETE", "RUNNING", "OK")  # worst first
BROKEN = ENDED_BADLY | {RunStatus.BLOCKED}
THIN = 0.5  # under half of the previous trading day's rows is not a whole night
COMPLETE = 0.8  # of them is a whole night; config/rules.toml, [collection], ships the same
HELD = 0.01  # over this share of quarantined rows a night is incomplete; config/rules.toml, [merge], ships the same
ACTIONS = {  # task -> word of the command line
    "collect_nav": "nav",
    "validate_nav": "validate",
    "calculate_metrics": "metrics",
    "weekly_full_calc": "weekly",
}


@dataclass(frozen=True)
class Reason:
    """One thing that is the matter: a stable code and its figures."""

    state: str  # one of STATES
    code: str
    figures: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """The worst reason's state, and every reason, worst first. OK has the one reason `fresh`."""

    state: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class LogEntry:
    """The last row of data_update_log on a table."""

    update_date: date
    status: str
    records: int
    end_time: datetime
    error: str | None


@dataclass(frozen=True)
class Freshness:
    """How far a table reaches. `tmp_fund_nav` stands for the last nightly batch."""

    table: str
    newest_date: date | None  # the newest trading day with rows; None: the table is empty
    sessions_behind: int | None  # trading days from there to the expected date
    rows: int  # funds with a row on newest_date
    previous_date: date | None  # the trading day before newest_date
    previous_rows: int
    coverage: float | None  # rows / previous_rows
    has_older: bool  # there are rows before previous_date
    last_update: LogEntry | None


@dataclass(frozen=True)
class Daemon:
    """What the daemon last said of itself."""

    running: bool
    state: str  # running, daemon_absent, daemon_stopped, daemon_gone or heartbeat_old
    host: str | None
    pid: int | None
    started_at: datetime | None
    heartbeat_at: datetime | None
    heartbeat_age_seconds: int | None


@dataclass(frozen=True)
class RunLine:
    """One run; `seconds` is its duration, so far if it is not over."""

    id: int
    job: str
    task: str
    business_date: date
    status: str
    requested_by: str
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    records: int | None
    reason: str | None


@dataclass(frozen=True)
class ChainStep:
    """A job and its newest run, None where there is none yet."""

    job: str
    run: RunLine | None


@dataclass(frozen=True)
class Batch:
    """One collection."""

    id: int
    kind: str
    business_date: date | None
    source: str
    provenance: str
    collected_at: datetime
    rows: int
    status: str
    held: int  # rows that failed a rule


@dataclass(frozen=True)
class Quarantine:
    """Rows kept out of fund_nav.

    The same bad row is kept and counted once in `total`; `new_in_last_batch` counts every row of the
    newest batch that failed, whether an earlier batch had brought it or not.
    """

    total: int
    new_in_last_batch: int


@dataclass(frozen=True)
class Gate:
    """A check of a whole batch that refused it."""

    batch_id: int
    business_date: date | None
    rule: str
    checked: int
    failed: int
    detail: Any


def judge(
    today: date,
    calendar: TradingCalendar | None,
    expected: date | None,
    daemon: Daemon,
    tables: tuple[Freshness, ...],
    steps: tuple[ChainStep, ...],
    batch: Batch | None,
    gate: Gate | None,
) -> tuple[Verdict, str]:
    """The verdict and the command to type next; `batch` is the last nightly one."""
    table = {item.table: item for item in tables}
    nav = table["fund_nav"]
    reasons = [*_rejected(batch, gate), *_broken(steps), *_calendar(calendar, today, nav)]
    if not daemon.running:
        stopped = {"pid": daemon.pid, "host": daemon.host, "age": daemon.heartbeat_age_seconds}
        reasons.append(Reason("STOPPED", daemon.state, stopped))
    if nav.newest_date is None:
        reasons.append(Reason("EMPTY", "no_data", {}))
    else:
        reasons += _late(nav, table["money_fund_yield"], table["fund_metrics"], expected)
    reasons += _incomplete(steps, batch, nav)
    for step in steps:
        if step.run is not None and step.run.status == RunStatus.RUNNING:
            run: dict[str, Any] = {
                "job": step.job,
                "date": step.run.business_date,
                "seconds": step.run.seconds,
            }
            reasons.append(Reason("RUNNING", "job_running", run))
    if not reasons:
        reasons.append(Reason("OK", "fresh", {"date": nav.newest_date, "rows": nav.rows}))
    reasons.sort(key=lambda reason: STATES.index(reason.state))  # stable: the first found stays first
    return Verdict(reasons[0].state, tuple(reasons)), _command(reasons, expected)


def _rejected(batch: Batch | None, gate: Gate | None) -> Iterator[Reason]:
    if batch is not None and batch.status == "REJECTED":
        rule = gate.rule if gate is not None and gate.batch_id == batch.id else None
        yield Reason("FAILED", "batch_rejected", {"date": batch.business_date, "gate": rule})


def _calendar(calendar: TradingCalendar | None, today: date, nav: Freshness) -> Iterator[Reason]:
    if calendar is None:
        yield Reason("EMPTY" if nav.newest_date is None else "LATE", "no_calendar", {})
    elif calendar.sessions[-1] < today:
        yield Reason("LATE", "calendar_ends", {"date": calendar.sessions[-1]})


def _broken(steps: tuple[ChainStep, ...]) -> Iterator[Reason]:
    """Failures in job order; a step that is only BLOCKED by one of them follows them."""
    failed = [step.run for step in steps if step.run is not None and step.run.status in BROKEN]
    for run in sorted(failed, key=lambda run: run.status == RunStatus.BLOCKED):
        code = "job_blocked" if run.status == RunStatus.BLOCKED else "job_failed"
        figures = {"job": run.job, "task": run.task, "date": run.business_date, "status": run.status}
        yield Reason("FAILED", code, figures | {"reason": run.reason})


def _late(nav: Freshness, money: Freshness, metrics: Freshness, expected: date | None) -> Iterator[Reason]:
    for item in (nav, money, metrics):
        if item.sessions_behind and item.newest_date is not None:
            figures = {"table": item.table, "newest": item.newest_date, "expected": expected}
            yield Reason("LATE", "behind", figures | {"sessions": item.sessions_behind})
    if metrics.newest_date is None:
        yield Reason("LATE", "not_calculated", {"table": metrics.table})
    for item in (nav, money, metrics):
        figures = {"table": item.table, "date": item.newest_date, "rows": item.rows}
        thin = item.coverage is not None and item.coverage < THIN
        if thin and item.newest_date == expected:
            previous = {"previous": item.previous_date, "previous_rows": item.previous_rows}
            yield Reason("LATE", "thin", figures | previous)
    if nav.previous_date is not None and nav.previous_rows == 0 and nav.has_older:
        yield Reason("LATE", "gap", {"table": nav.table, "date": nav.previous_date})


def _incomplete(steps: tuple[ChainStep, ...], batch: Batch | None, nav: Freshness) -> Iterator[Reason]:
    """Steps that did their work on less than they should have; too many quarantined rows, said once."""
    partial = [step.run for step in steps if step.run is not None and step.run.status == RunStatus.PARTIAL]
    if nav.coverage is not None and nav.coverage >= COMPLETE:  # the late sweeps have brought the rest
        partial = [
            run for run in partial if (run.task, run.business_date) != ("collect_nav", nav.newest_date)
        ]
    for run in partial:
        figures = {"job": run.job, "task": run.task, "date": run.business_date, "reason": run.reason}
        yield Reason("INCOMPLETE", "partial", figures)
    said = any(run.task == "validate_nav" for run in partial)
    if batch is not None and batch.held > HELD * batch.rows and not said:
        held = {"date": batch.business_date, "held": batch.held, "rows": batch.rows}
        yield Reason("INCOMPLETE", "quarantined", held)


def _command(reasons: list[Reason], expected: date | None) -> str:
    """What mends the worst reason, to be typed as it stands."""
    main = "python main.py"
    worst = reasons[0]
    night = worst.figures.get("date") or expected
    if worst.code in ("job_failed", "job_blocked"):
        action = ACTIONS.get(worst.figures["task"])
        again = (
            f"{action} --date {night}" if action else f"jobs trigger {worst.figures['job']} --date {night}"
        )
        return f"{main} {again}"
    if worst.code == "batch_rejected":
        return f"{main} all --date {night}"
    if any(reason.code in ("no_calendar", "calendar_ends") for reason in reasons):
        return f"{main} init"
    if worst.code == "gap":
        return f"{main} nav --from {night} --to {night}"
    if worst.state == "LATE":
        action = "metrics" if worst.figures["table"] == "fund_metrics" else "all"
        return f"{main} {action} --date {expected}"
    if worst.state == "INCOMPLETE":
        action = "metrics" if worst.figures.get("task") == "calculate_metrics" else "all"
        return f"{main} {action} --date {night}"
    by_state = {"EMPTY": "all", "STOPPED": "scheduler"}
    return f"{main} {by_state.get(worst.state, 'monitor --watch')}"
