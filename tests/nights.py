"""Nights played run by run in this process, on a clock that is set with each, against the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, select

from config.settings import load_settings
from core import db
from core.standin import StandinServer
from scheduler import run_store
from scheduler.fund_plugin import TASKS as KNOWN
from scheduler.job import RunStatus
from scheduler.process_identity import this_process
from scheduler.run_context import RunContext, no_progress
from scheduler.run_store import End
from scheduler.runner import execute
from tests.daemon import at

TASKS = {
    "collect": "collect_nav",
    "validate": "validate_nav",
    "metrics": "calculate_metrics",
    "sweep": "sweep_nav",
    "sweep_morning": "sweep_nav",
    "backfill": "backfill_nav",
    "weekly": "weekly_full_calc",
    "repair": "repair_history",
    "reference": "collect_reference",
    "second": "compare_sources",
    "cleanup": "cleanup",
    "backup": "back_up",
    "size_watch": "size_watch",
    "monthly": "monthly_report",
}


class Nights:
    """Runs of jobs on one database, one after the other; `now` is when it begins."""

    def __init__(self, engine: Engine, standin: StandinServer, now: datetime) -> None:
        self.engine, self.standin, self.settings = engine, standin, load_settings()
        self.now = now
        self.clock: Callable[[], datetime] = lambda: self.now

    def queue(self, job: str, day: date, **params: Any) -> int:
        with db.write(self.engine) as connection:
            run_id = run_store.add_run(
                connection,
                job_id=job,
                task=TASKS[job],
                business_date=day,
                status=RunStatus.QUEUED,
                now=self.now,
                params=params,
            )
        assert run_id is not None
        return run_id

    def run(self, run_id: int) -> Any:
        with db.read(self.engine) as connection:
            return run_store.get_run(connection, run_id)

    def claim(self, run_id: int) -> str:
        with db.write(self.engine) as connection:
            claim = run_store.claim_run(connection, self.run(run_id), this_process(), self.now)
        assert claim is not None
        return claim

    def execute(self, run_id: int, progress: Callable[..., None] = no_progress) -> End:
        claim = self.claim(run_id)
        return self.work_on(run_id, claim, progress)

    def work_on(self, run_id: int, claim: str, progress: Callable[..., None] = no_progress) -> End:
        run = self.run(run_id)
        context = RunContext(
            self.engine,
            self.settings,
            run,
            claim,
            self.clock,
            table_name=KNOWN[run.task].table_name,
            translate=str,
            progress=progress,
        )
        return execute(context, run)

    def do(self, job: str, day: date, hour: int, minute: int = 0, *, later: int = 0, **params: Any) -> End:
        """A run of `job` for `day` at this hour, `later` days after it; all that is out by then is published."""
        self.now = at(day + timedelta(days=later), hour, minute)
        self.standin.set_now(self.now)
        return self.execute(self.queue(job, day, **params))

    def night(self, day: date, *, published_at: int = 19) -> None:
        """Collection, validation and metrics of everything published by then."""
        ends = [self.do(job, day, published_at) for job in ("collect", "validate", "metrics")]
        assert {end.status for end in ends} <= {RunStatus.SUCCESS, RunStatus.PARTIAL}, ends

    def lose(self, run_id: int) -> None:
        """The supervisor declares the run dead."""
        with db.write(self.engine) as connection:
            ended = run_store.end_run(
                connection,
                self.run(run_id),
                run_store.GONE,
                self.now,
                claim=None,
                table_name="fund_nav",
            )
        assert ended

    def rows(self, table: Any, *where: Any) -> list[Any]:
        with db.read(self.engine) as connection:
            return list(connection.execute(select(table).where(*where).order_by(*table.primary_key.columns)))
