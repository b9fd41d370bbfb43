"""The evidence of one night, as one plain record: what was checked, held, corrected, booked, and what is missing.

A night is its merged batch and the sweeps after it together; where nothing could be merged, the batch that
was refused. Filled from history, the runs alone can tell of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, func, select

from core import db, quarantine as held_back
from core.errors import NotReady, UsageError
from core.schema import (
    data_update_log,
    fund_event,
    fund_info,
    fund_nav,
    fund_nav_revision,
    money_fund_yield,
    nav_batch,
    quarantine,
    rule_result,
    tmp_fund_nav,
)
from core.trading_calendar import TradingCalendar, load_calendar
from scheduler import run_store
from scheduler.job import ENDED_BADLY, RunStatus

Record = dict[str, Any]
STEPS = {
    "collect_nav": "collect",
    "validate_nav": "validate",
    "sweep_nav": "sweep",
    "backfill_nav": "backfill",
}
GATES = ("gate", "partial")
LATE_SESSIONS = 10  # who published in these is expected to publish
SAMPLES = 5
HELD_SHOWN = 500
HELD_FIELDS = (
    *("fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return", "dividend", "split_ratio"),
    *("income_per_10k", "yield_7d", "source", "origin", "defect", "held_at", "resolution"),
)
LATE_SHOWN = 20  # funds named in each category


def quality(engine: Engine, business_date: date | None = None, *, late: bool = True) -> Record:
    """Everything on record of the night of a business date; None: the newest one that was collected.

    Without `late` nothing is said of late funds, which takes reading the NAVs of every fund.

    Raises NotReady where nothing was ever collected, UsageError for a date of which nothing is on record.
    """
    with db.read(engine) as connection:
        day = business_date or _newest_night(connection)
        batches = _batches(connection, day)
        steps = steps_of(connection, day)
        if not batches and not steps:
            raise UsageError(f"nothing is on record of the night of {day}; main.py runs shows what ran")
        deciding = _deciding(batches)
        judged = [row.id for row in deciding]
        merged = [row.id for row in batches if row.status == "MERGED"]
        results = connection.execute(
            select(rule_result)
            .where(rule_result.c.batch_id.in_(judged))
            .order_by(rule_result.c.rule_id, rule_result.c.batch_id)
        ).all()
        return {
            "business_date": day,
            "outcome": outcome(steps),
            "simulated": any("SIMULATED" in row.provenance for row in batches),
            "steps": steps,
            "batches": [_batch(row) for row in batches],
            "believed": sum(row.merged_count or 0 for row in deciding),
            "gates": _gates(results),
            "rules": _rules(results),
            "quarantine": _quarantine(connection, judged, merged),
            "revisions": _counted(connection, fund_nav_revision, "reason", "new_batch_id", merged),
            "events": _counted(connection, fund_event, "kind", "batch_id", merged),
            "late": _late(connection, day, load_calendar(connection)) if late else [],
        }


def _newest_night(connection: Connection) -> date:
    newest: date | None = connection.scalar(
        select(func.max(nav_batch.c.business_date)).where(nav_batch.c.kind == "latest")
    )
    if newest is None:
        raise NotReady("no night was collected yet; collect one: python main.py all")
    return newest


def findings(engine: Engine, until: date, nights: int) -> Record:
    """`nights`: the business dates of the last ones up to a date, oldest first; `rules`: what failed in any of them.

    Each rule has `rule` and `failed`, a number by night; None where it judged nothing of the night.
    """
    batch, result = nav_batch.c, rule_result.c
    with db.read(engine) as connection:
        known = select(batch.business_date).where(batch.kind != "history", batch.business_date <= until)
        newest = connection.execute(known.distinct().order_by(batch.business_date.desc()).limit(nights))
        days = sorted(newest.scalars())
        night_of = {row.id: day for day in days for row in _deciding(_batches(connection, day))}
        rows = connection.execute(
            select(result.rule_id, result.batch_id, result.failed).where(
                result.batch_id.in_(night_of), result.severity.not_in(GATES)
            )
        ).all()
    failed: dict[str, dict[date, int]] = {}
    for rule, number, count in rows:
        of_night = failed.setdefault(rule, {})
        of_night[night_of[number]] = of_night.get(night_of[number], 0) + count
    rules = [
        {"rule": rule, "failed": [counts.get(day) for day in days]}
        for rule, counts in sorted(failed.items(), key=lambda item: (-sum(item[1].values()), item[0]))
        if any(counts.values())
    ]
    return {"nights": days, "rules": rules}


def _batches(connection: Connection, day: date) -> Sequence[Row[Any]]:
    batch = nav_batch.c
    return connection.execute(
        select(nav_batch).where(batch.business_date == day, batch.kind != "history").order_by(batch.id)
    ).all()


def _deciding(batches: Sequence[Row[Any]]) -> list[Row[Any]]:
    """The batches whose verdicts are the night's: the newest whole one that was merged and the sweeps after it.

    Where nothing was merged: the newest that was refused.
    """
    merged = [row for row in batches if row.status == "MERGED"]
    whole = max((row.id for row in merged if row.kind == "latest"), default=0)
    return [row for row in merged if row.id >= whole] or [row for row in batches if row.status == "REJECTED"][
        -1:
    ]


def _batch(row: Row[Any]) -> Record:
    return {
        "batch": row.id,
        "kind": row.kind,
        "source": row.source,
        "provenance": row.provenance,
        "status": row.status,
        "rows": row.row_count,
        "merged": row.merged_count,
        "collected_at": row.collected_at,
        "decided_at": row.decided_at,
    }


def steps_of(connection: Connection, day: date) -> list[Record]:
    """The run that decides of each job that collects or judges, in the order they first ran."""
    found = []
    for row in run_store.deciding_runs(connection, STEPS, day):
        if row.task not in STEPS:
            continue
        logged = connection.execute(
            select(data_update_log.c.status)
            .where(data_update_log.c.run_id == row.id)
            .order_by(data_update_log.c.id.desc())
            .limit(1)
        ).scalar()
        found.append(
            {
                "job": row.job_id,
                "step": STEPS[row.task],
                "run": row.id,
                "status": row.status,
                "logged": logged,  # in data_update_log: SUCCESS, PARTIAL, FAILURE
                "records": row.record_count,
                "started_at": row.started_at,
                "finished_at": row.finished_at,
                "reason": row.reason,
            }
        )
    return found


def outcome(steps: Sequence[Mapping[str, Any]]) -> str:
    """SUCCESS, PARTIAL or FAILURE of collecting and judging; UNFINISHED while either is to come.

    A night that was filled from history is what its back-fill is.
    """
    decisive = [step for step in steps if step["step"] in ("collect", "validate")]
    decisive = decisive or [step for step in steps if step["step"] == "backfill"]
    states = {step["status"] for step in decisive}
    if states & {status.value for status in (*ENDED_BADLY, RunStatus.BLOCKED)}:
        return "FAILURE"
    validated = any(step["step"] in ("validate", "backfill") for step in decisive)
    if not validated or states - {"SUCCESS", "PARTIAL", "SKIPPED"}:
        return "UNFINISHED"
    return "PARTIAL" if "PARTIAL" in states else "SKIPPED" if states == {"SKIPPED"} else "SUCCESS"


def _gates(results: Sequence[Row[Any]]) -> list[Record]:
    """Every figure of every gate: of a gate that judged several batches the newest verdict."""
    newest = {row.rule_id: row for row in results if row.severity in GATES}
    return [
        {
            "gate": row.rule_id,
            "version": row.version,
            "severity": row.severity,
            "batch": row.batch_id,
            "checked": row.checked,
            "failed": row.failed,
            "said": json.loads(row.detail),
            "figures": json.loads(row.figures) if row.figures else None,
        }
        for row in newest.values()
    ]


def _rules(results: Sequence[Row[Any]]) -> list[Record]:
    """Each rule's figures over all batches of the night, errors first, those that failed most first."""
    found = []
    of_rows = [row for row in results if row.severity not in GATES]
    for rule_id, group in groupby(of_rows, key=lambda row: row.rule_id):
        rows = list(group)
        samples = [sample for row in rows for sample in json.loads(row.detail)]
        found.append(
            {
                "rule": rule_id,
                "version": rows[-1].version,
                "severity": rows[-1].severity,
                "checked": sum(row.checked for row in rows),
                "failed": sum(row.failed for row in rows),
                "samples": samples[:SAMPLES],
            }
        )
    return sorted(found, key=lambda rule: (-rule["failed"], rule["severity"], rule["rule"]))


def _quarantine(connection: Connection, judged: Sequence[int], batches: Sequence[int]) -> Record:
    """Rows of the `judged` batches that failed, and what these `batches` were the first to bring."""
    staged = tmp_fund_nav.c
    failed = connection.scalar(select(func.count()).where(staged.batch_id.in_(judged), staged.held == 1))
    rows = held_back.held_rows(connection, batches=batches, decided=True, limit=HELD_SHOWN)
    total = held_back.count_held(connection, batches=batches, decided=True)
    reasons = select(quarantine.c.reasons, func.count()).where(quarantine.c.batch_id.in_(batches))
    counts: dict[str, int] = {}
    for text, count in connection.execute(reasons.group_by(quarantine.c.reasons)):
        for reason in text.split(","):
            counts[reason] = counts.get(reason, 0) + count
    states = select(quarantine.c.resolution, func.count()).where(quarantine.c.batch_id.in_(batches))
    rows_in: dict[str | None, int] = dict(connection.execute(states.group_by(quarantine.c.resolution)).all())
    return {
        "rows": max(int(failed or 0), total),  # staged rows are cleaned away after a while
        "new": total,
        "open": rows_in.get(None, 0),
        "released": rows_in.get(held_back.RELEASED, 0),
        "rejected": rows_in.get(held_back.REJECTED, 0),
        "by_reason": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "listed": [held_record(row) for row in rows],
    }


def held_record(row: Row[Any]) -> Record:
    """A row in quarantine as the command line shows it."""
    record: Record = {"id": row.id} | {name: getattr(row, name) for name in HELD_FIELDS}
    return record | {
        "reasons": row.reasons.split(","),
        "proposal": json.loads(row.proposal) if row.proposal else None,
        "resolved_at": row.resolved_at,
        "resolved_by": row.resolved_by,
        "note": row.note,
        "batch": row.batch_id,
    }


def _counted(
    connection: Connection, table: Table, kind: str, batch: str, batches: Sequence[int]
) -> dict[str, int]:
    query = select(table.c[kind], func.count()).where(table.c[batch].in_(batches))
    return dict(connection.execute(query.group_by(table.c[kind]).order_by(table.c[kind])).all())


def _late(connection: Connection, day: date, calendar: TradingCalendar | None) -> list[Record]:
    """By category: funds that published in the last ten sessions, and those of them without a row of this date."""
    if calendar is None or day <= calendar.sessions[LATE_SESSIONS]:
        return []
    since = calendar.sessions[calendar.sessions.index(calendar.last_session(day)) - LATE_SESSIONS]
    found: dict[str, Record] = {}
    for table in (fund_nav, money_fund_yield):
        newest = func.max(table.c.nav_date).label("newest")
        active = (
            select(table.c.fund_code, newest)
            .where(table.c.nav_date.between(since, day))
            .group_by(table.c.fund_code)
            .subquery()
        )
        category = func.coalesce(fund_info.c.category, "other").label("category")
        query = select(active.c.fund_code, active.c.newest, category).outerjoin(
            fund_info, fund_info.c.fund_code == active.c.fund_code
        )
        for code, last, name in connection.execute(query.order_by(active.c.newest, active.c.fund_code)):
            record = found.setdefault(
                name, {"category": name, "expected": 0, "late": 0, "oldest": last, "funds": []}
            )
            record["expected"] += 1
            if last < day:
                record["late"] += 1
                record["oldest"] = min(record["oldest"], last)
                if len(record["funds"]) < LATE_SHOWN:
                    record["funds"].append({"fund_code": code, "newest": last})
    return sorted(found.values(), key=lambda record: (-record["late"], record["category"]))
