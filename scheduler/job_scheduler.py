"""FundJobScheduler: the daemon's clockwork on APScheduler's BlockingScheduler.

APScheduler gives the beat and the cron triggers; what is due is asked of the triggers for the time
between two beats. So a stopped clock, a jump or a slow database loses no fire, and the uniqueness
of a run is an index of the database, not a matter of timing.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from datetime import datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING

from apscheduler.schedulers.blocking import BlockingScheduler
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from core import db
from core.errors import AlreadyRunning, NavKeeperError, NotReady
from core.trading_calendar import SHANGHAI, TradingCalendar, load_calendar
from scheduler import run_store
from scheduler.catch_up import ON_TIME, horizon, sort_out
from scheduler.chain import decide
from scheduler.clock import Clock
from scheduler.job import Job, RunStatus
from scheduler.plan import plan_run
from scheduler.process_identity import this_process
from scheduler.supervisor import Supervisor

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)
BEAT_SECONDS = 1.0
HEARTBEAT = timedelta(seconds=10)
COMPLAIN_AGAIN = timedelta(minutes=1)
SEARCH_EVERY = timedelta(hours=1)


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
        self.drain = drain.total_seconds()
        self.process = this_process()
        self.supervisor = Supervisor(engine, jobs, logs)
        self.checked_until: datetime | None = None
        self.searched: datetime | None = None
        self.last_heartbeat: datetime | None = None
        self.complained: datetime | None = None
        self.signals = 0
        self.stopping_since: float | None = None  # time.monotonic()
        self.lost = False
        self._beating = threading.Lock()
        self._blocking = BlockingScheduler(timezone=SHANGHAI)

    def start(self) -> None:
        """Work until SIGTERM or SIGINT: then let running jobs finish (a second signal does not wait)."""
        now = self.clock()
        with db.write(self.engine) as connection:
            run_store.take_over(connection, self.process, now)
        self.supervisor.recover(now)
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
        except AlreadyRunning as error:
            log.error("%s; this one steps down", error)
            self.lost = True
        except (NavKeeperError, SQLAlchemyError, OSError) as error:
            if self.complained is None or now - self.complained >= COMPLAIN_AGAIN:
                log.error("%s; trying again every second", str(error).splitlines()[0])
                self.complained = now
        finally:
            self._stop_if_asked(now)
            self._beating.release()

    def step(self, now: datetime) -> None:
        """Watch what runs; unless we are stopping, also start what is due."""
        self.supervisor.watch(now)
        if self.signals:
            return
        self.fire_due(now)
        self.release_waiting(now)
        self.supervisor.start_queued(now)
        if self.last_heartbeat is None or abs(now - self.last_heartbeat) >= HEARTBEAT:
            with db.write(self.engine) as connection:
                if not run_store.beat(connection, self.process, now):
                    raise AlreadyRunning("another daemon has taken over this database")
            self.supervisor.recover(now)
            self.last_heartbeat = now

    def fire_due(self, now: datetime) -> None:
        """Insert a run for every fire since the last beat; after an absence, and hourly, for every one missed."""
        since = self.checked_until
        away = since is None or now - since > ON_TIME
        if away or self.searched is None or now - self.searched >= SEARCH_EVERY:
            with db.write(self.engine) as connection:
                self._fire_all(connection, self._missed(connection, now), now)
            self.searched = now
        else:
            due = [(fire, job, True) for job in self.jobs.values() for fire in job.fires(since or now, now)]
            if due:
                with db.write(self.engine) as connection:
                    self._fire_all(connection, due, now)
        self.checked_until = now

    def _missed(self, connection: Connection, now: datetime) -> list[tuple[datetime, Job, bool]]:
        """Fires without a run, within each job's catch-up window, and whether they are run."""
        known_since = run_store.known_since(connection)
        found = []
        for job in self.jobs.values():
            since = horizon(job.catch_up, now, known_since)
            have = run_store.fires_recorded(connection, job.id, since)
            found += [
                (fire, job, run) for fire, run in sort_out(job.catch_up, job.fires(since, now), have, now)
            ]
        return found

    def _fire_all(self, connection: Connection, due: list[tuple[datetime, Job, bool]], now: datetime) -> None:
        if not due:
            return
        calendar = load_calendar(connection)
        if calendar is None:
            raise NotReady("the trading calendar is empty; run: python main.py init")
        order = list(self.jobs)
        for fire, job, run in sorted(due, key=lambda item: (item[0], order.index(item[1].id))):
            self._fire(connection, job, fire, calendar, now, run=run)

    def _fire(
        self,
        connection: Connection,
        job: Job,
        fire: datetime,
        calendar: TradingCalendar,
        now: datetime,
        *,
        run: bool,
    ) -> None:
        plan = plan_run(job, fire, calendar, now, run=run)
        run_id = run_store.add_run(
            connection,
            job_id=job.id,
            task=plan.task,
            business_date=plan.business_date,
            status=plan.status,
            now=now,
            scheduled_for=fire,
            params=plan.params,
            reason=plan.reason,
            retry=job.retry,
        )
        if run_id is not None:
            why = f": {plan.reason}" if plan.reason else ""
            log.info("run %d: %s due at %s is %s%s", run_id, job.id, fire, plan.status.value, why)

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
                    need: run_store.deciding_run(connection, need, run.business_date) for need in job.needs
                }
            upstream = {need: RunStatus(other.status) if other else None for need, other in found.items()}
            status, reason = decide(job, run.queued_at, upstream, now)
            if status.value != run.status:
                with db.write(self.engine) as connection:
                    run_store.move(connection, run.id, RunStatus(run.status), status, now, reason)
                log.info(
                    "run %d: %s is %s%s", run.id, run.job_id, status.value, f": {reason}" if reason else ""
                )

    def _stop_if_asked(self, now: datetime) -> None:
        """After a signal: once the children are done, or the drain is over, the daemon ends, database or not."""
        if self.lost:
            self.signals = max(self.signals, 2)
        if not self.signals:
            return
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            log.info("stopping: waiting for %d running jobs", len(self.supervisor.children))
        if self.signals > 1 or time.monotonic() - self.stopping_since >= self.drain:
            self.supervisor.terminate_all("the daemon was stopped")
        if self.supervisor.any_alive():
            return
        try:
            self.supervisor.watch(now)
            with db.write(self.engine) as connection:
                run_store.daemon_stopped(connection, self.process, now)
        except (NavKeeperError, SQLAlchemyError) as error:
            log.warning("the stop could not be recorded: %s", str(error).splitlines()[0])
        self._blocking.shutdown(wait=False)
