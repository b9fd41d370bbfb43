"""The jobs beside the nights: cleanup, the watch over size and disk, the backup, the monthly report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from core import db, retention
from core.schema import data_update_log
from core.storage import database_bytes
from scheduler import run_store
from scheduler.job import RunStatus
from scheduler.task_params import Params
from scheduler.task_parts import calendar_of

if TYPE_CHECKING:
    from datetime import datetime

    from core.retention import Retention
    from scheduler.run_context import RunContext

NIGHT = ("collect_nav", "validate_nav", "calculate_metrics", "sweep_nav")
WRITE_SECONDS = 0.05  # that one step of the cleanup holds the database
FEWEST, MOST = 500, 20_000  # rows in a step
REST, REST_IN_THE_NIGHT = 1, 20  # times as long as the step took
LONGEST_REST = 5.0
REPORT_DAYS = 365
REPORTS = ("quality", "weekly", "monthly")
MB = 1_000_000
DAYS_LEFT = 30
SHARE_FREE = 0.1
WEEK = timedelta(days=7)
SIZE = "database"  # what data_update_log calls it; its record_count is in MB


def cleanup(context: RunContext, _params: Params) -> None:
    """Remove what was kept long enough in small transactions of its own; the last one says how much it was.

    What it has removed when it is stopped stays removed, and the next cleanup goes on.
    """
    from scheduler.jobs import all_jobs  # which knows the tasks, and so this one

    days = retention.kept_days(context.settings.retention_days)
    jobs = all_jobs(context.settings.jobs_file, context.engine)
    reach = max((job.catch_up.days for job in jobs.values()), default=0)
    days["runs"] = max(days["runs"], int(reach) + 1)
    with context.transaction() as connection:
        retention.expire_batches(connection, context.now() - timedelta(days=days["staging"]))
    removed = {}
    with db.read(context.engine) as connection:
        present = retention.present(connection)
    for kept in present:
        removed[kept.name] = _remove(context, kept, days[kept.name])
        context.log.info(
            "%s: %d rows older than %d days removed", kept.name, removed[kept.name], days[kept.name]
        )
    rows = sum(removed.values())
    removed["files"] = _remove_files(context, min(days["logs"], days["runs"]))
    said = ", ".join(f"{name} {count:,}" for name, count in removed.items() if count)
    with context.commit() as commit:
        commit.end(RunStatus.SUCCESS, rows, f"removed: {said}" if said else None)


def _remove(context: RunContext, kept: Retention, days: int) -> int:
    """All expired rows of a table, step by step: each as long as WRITE_SECONDS, then a rest for the others."""
    with db.read(context.engine) as connection:
        wanted = retention.expired(connection, kept, context.now(), days)
    total, rows, after = 0, FEWEST, None
    while True:
        with db.read(context.engine) as connection:
            until = retention.next_key(connection, kept.table, wanted, after, rows)
        with context.transaction() as connection:
            began = time.monotonic()  # the database is ours: what others held it for does not count
            total += retention.remove(connection, kept.table, wanted, after, until)
        took = time.monotonic() - began
        context.progress(total, None, f"rows removed: {kept.name}")
        if until is None:
            return total
        after, rows = until, min(MOST, max(FEWEST, int(rows * WRITE_SECONDS / max(took, 0.001))))
        time.sleep(min(LONGEST_REST, took * (REST_IN_THE_NIGHT if _is_night(context) else REST)))


def _is_night(context: RunContext) -> bool:
    with db.read(context.engine) as connection:
        return any(run.task in NIGHT for run in run_store.runs_in(connection, RunStatus.RUNNING))


def _remove_files(context: RunContext, days: int) -> int:
    """Logs of runs, and reports of any kind after a year; returns their number."""
    ages = {"runs": days, **dict.fromkeys(REPORTS, REPORT_DAYS)}
    old = [
        path
        for folder, age in ages.items()
        for path in _older(context.settings.logs / folder, context.now() - timedelta(days=age))
    ]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _older(folder: Path, before: datetime) -> Iterator[Path]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and path.stat().st_mtime < before.timestamp():
            yield path


class Space(NamedTuple):
    """Bytes of the database and of its disk; `grown` a day, None while nobody can tell."""

    used: int
    free: int
    total: int
    grown: float | None


def monthly_report(context: RunContext, _params: Params) -> None:
    """The month of the business date as a page and as Markdown."""
    from scheduler.weekly_page import write_weekly

    path = write_weekly(
        context.engine,
        calendar_of(context),
        context.business_date,
        context.settings.logs / "monthly",
        context.translate,
        "month",
    )
    with context.commit() as commit:
        commit.end(RunStatus.SUCCESS, 1, str(path))


def size_watch(context: RunContext, _params: Params) -> None:
    """How large the database is, how fast it grows, how long the disk lasts: PARTIAL where that is not long."""
    with db.read(context.engine) as connection:
        used = database_bytes(connection)
    url = context.engine.url
    in_file = url.get_backend_name() == "sqlite"
    folder = Path(url.database or ".").parent if in_file else context.settings.home
    disk = shutil.disk_usage(folder)
    space = Space(used, disk.free, disk.total, _grown(context, used))
    with context.commit() as commit:
        commit.end(
            *size_verdict(space, folder),
        )


def _grown(context: RunContext, used: int) -> float | None:
    """Bytes a day since the watch a week ago, or since the oldest one of at least a day."""
    log, now = data_update_log.c, context.now()
    query = select(log.end_time, log.record_count).where(log.table_name == SIZE, log.status != "FAILURE")
    with db.read(context.engine) as connection:
        before = (
            connection.execute(
                query.where(log.end_time <= now - WEEK).order_by(log.end_time.desc()).limit(1)
            ).first()
            or connection.execute(
                query.where(log.end_time <= now - timedelta(days=1)).order_by(log.end_time).limit(1)
            ).first()
        )
    if before is None:
        return None
    grown: float = (used - before.record_count * MB) / ((now - before.end_time) / timedelta(days=1))
    return grown


def size_verdict(space: Space, folder: Path) -> tuple[RunStatus, int, str]:
    """PARTIAL where the disk lasts under DAYS_LEFT days, or under SHARE_FREE of it is free; MB; why, in words."""
    said = f"{space.used / MB:,.0f} MB; {space.free / MB:,.0f} MB free at {folder}, {space.free / space.total:.0%}"
    tight = [f"under {SHARE_FREE:.0%} free"] if space.free < SHARE_FREE * space.total else []
    if space.grown is not None:
        said += f"; {space.grown / MB:+,.1f} MB a day"
    if space.grown is not None and space.grown > 0 and space.free < DAYS_LEFT * space.grown:
        tight.append(f"full in {space.free / space.grown:.0f} days")
    if not tight:
        return RunStatus.SUCCESS, round(space.used / MB), said
    return (
        RunStatus.PARTIAL,
        round(space.used / MB),
        f"the disk is {' and '.join(tight)}: {said}; make room there or keep less (NAVKEEPER_RETENTION_DAYS)",
    )
