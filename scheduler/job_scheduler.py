"""FundJobScheduler: the daemon's clockwork on APScheduler's BlockingScheduler.

APScheduler gives the beat and the cron triggers; what is due is asked of the triggers for the time
between two beats. So a stopped clock, a jump or a slow database loses no fire, and the uniqueness
of a run is an index of the database, not a matter of timing.
"""

from __future__ import annotations

import logging
import signal
import threading
from datetime import datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING

from apscheduler.schedulers.blocking import BlockingScheduler
from sqlalchemy import Connection, Engine

from core import db
from core.errors import DatabaseUnavailable, NavKeeperError
from core.trading_calendar import SHANGHAI, TradingCalendar, load_calendar
from scheduler import run_store
from scheduler.chain import decide
from scheduler.clock import Clock
from scheduler.job import Job, RunStatus
from scheduler.process_identity import this_process
from scheduler.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)
BEAT_SECONDS = 1.0
HEARTBEAT = timedelta(seconds=10)
COMPLAIN_AGAIN = timedelta(minutes=1)
LOOK_BACK = timedelta(hours=12)  # a daemon started in the night still does that night


class FundJobScheduler:
    """Runs the jobs of `jobs` at their times, each run in a child process. `start` blocks."""

    def __init__(
        self,
        engine: Engine,
        jobs: dict[str, Job],
        clock: Clock,
        logs: Path,
        drain: timedelta = timedelta(minutes=10),
    ) -> None:
        self.engine = engine
        self.jobs = jobs
        self.clock = clock
        self.drain = drain
        self.supervisor = Supervisor(engine, jobs, logs)
        self.calendar: TradingCalendar | None = None
        self.checked_until: datetime | None = None
        self.last_heartbeat: datetime | None = None
        self.complained: datetime | None = None
        self.signals = 0
        self.stopping_since: datetime | None = None
        self._beating = threading.Lock()
        self._blocking = BlockingScheduler(timezone=SHANGHAI)

    def start(self) -> None:
        """Work until SIGTERM or SIGINT: then let running jobs finish (a second signal does not wait)."""
        now = self.clock()
        self.checked_until = now - LOOK_BACK
        self.supervisor.recover(now)
        with db.write(self.engine) as connection:
            run_store.announce_daemon(connection, this_process(), now)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        self._blocking.add_job(
            self.beat,
            "interval",
            seconds=BEAT_SECONDS,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        log.info("daemon started: %s", ", ".join(self.jobs))
        self._blocking.start()
        log.info("daemon stopped")

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self.signals += 1

    def beat(self) -> None:
        """One step of everything. While the database is away it is a step of nothing."""
        now = self.clock()
        if not self._beating.acquire(blocking=False):
            return
        try:
            self.step(now)
            if self.complained is not None:
                log.info("all is well again")
                self.complained = None
        except NavKeeperError as error:
            if self.complained is None or now - self.complained >= COMPLAIN_AGAIN:
                log.error("%s; trying again every second", error)
                self.complained = now
            self._stop_if_asked(now)
        finally:
            self._beating.release()

    def step(self, now: datetime) -> None:
        self.supervisor.watch(now)
        if self._stop_if_asked(now):
            return
        self.fire_due(now)
        self.release_waiting(now)
        self.supervisor.start_queued(now)
        if self.last_heartbeat is None or abs(now - self.last_heartbeat) >= HEARTBEAT:
            with db.write(self.engine) as connection:
                run_store.beat(connection, now)
            self.supervisor.recover(now)
            self.last_heartbeat = now

    def fire_due(self, now: datetime) -> None:
        """Insert a run for every fire since the last beat."""
        since = self.checked_until or now
        due = sorted(
            (fire, place, job)
            for place, job in enumerate(self.jobs.values())
            for fire in job.fires(since, now)
        )
        if due:
            with db.write(self.engine) as connection:
                self.calendar = load_calendar(connection)
                for fire, _place, job in due:
                    self._fire(connection, job, fire, now)
        self.checked_until = max(since, now)

    def _fire(self, connection: Connection, job: Job, fire: datetime, now: datetime) -> None:
        if self.calendar is None:
            log.error("the trading calendar is empty; run: python main.py init")
            return
        reason = job.skip_reason(fire, self.calendar)
        status = RunStatus.SKIPPED if reason else RunStatus.WAITING if job.needs else RunStatus.QUEUED
        run_id = run_store.add_run(
            connection,
            job_id=job.id,
            task=job.task,
            business_date=job.business_date_of(fire, self.calendar),
            status=status,
            now=now,
            scheduled_for=fire,
            params=job.params,
            reason=reason,
            retry=job.retry,
        )
        if run_id is not None:
            log.info(
                "run %d: %s due at %s is %s%s",
                run_id,
                job.id,
                fire,
                status.value,
                f": {reason}" if reason else "",
            )

    def release_waiting(self, now: datetime) -> None:
        """Move the runs that wait for others, as far as the others let them."""
        with db.read(self.engine) as connection:
            waiting = run_store.runs_in(connection, RunStatus.WAITING, RunStatus.BLOCKED)
        for run in waiting:
            job = self.jobs.get(run.job_id)
            if job is None:
                continue
            with db.read(self.engine) as connection:
                found = {
                    need: run_store.newest_run(connection, need, run.business_date) for need in job.needs
                }
            upstream = {need: RunStatus(other.status) if other else None for need, other in found.items()}
            status, reason = decide(job, run.queued_at, upstream, now)
            if status.value != run.status:
                with db.write(self.engine) as connection:
                    run_store.move(connection, run.id, RunStatus(run.status), status, now, reason)
                log.info(
                    "run %d: %s is %s%s", run.id, run.job_id, status.value, f": {reason}" if reason else ""
                )

    def _stop_if_asked(self, now: datetime) -> bool:
        """After a signal: nothing new is started; once the children are done, the daemon ends."""
        if not self.signals:
            return False
        if self.stopping_since is None:
            self.stopping_since = now
            log.info("stopping: waiting for %d running jobs", len(self.supervisor.children))
        if self.signals > 1 or now - self.stopping_since >= self.drain:
            self.supervisor.terminate_all("the daemon was stopped")
        if not self.supervisor.children:
            try:
                with db.write(self.engine) as connection:
                    run_store.daemon_stopped(connection, now)
            except DatabaseUnavailable as error:
                log.warning("the stop could not be recorded: %s", error)
            self._blocking.shutdown(wait=False)
        return True
