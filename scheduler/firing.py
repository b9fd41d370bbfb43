"""Fires become runs: on time, after an absence, and early for eager jobs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from core import db
from core.crash_points import reached
from core.errors import NotReady
from core.initialise import guess_further
from core.trading_calendar import TradingCalendar, load_calendar
from scheduler import fire_store, run_store
from scheduler.catch_up import ON_TIME, horizon, sort_out
from scheduler.job import DONE_WELL, Job
from scheduler.leadership import Leadership
from scheduler.plan import plan_run

log = logging.getLogger(__name__)
SEARCH_EVERY = timedelta(hours=1)
Fire = tuple[datetime, Job, bool]  # when it was due, of which job, and whether it is run or only recorded


class Firing:
    """Inserts a run for every fire, once: the uniqueness is an index of the database, not a matter of timing."""

    def __init__(self, leader: Leadership, jobs: Mapping[str, Job]) -> None:
        self.leader = leader
        self.jobs = jobs
        self.checked_until: datetime | None = None
        self.searched: datetime | None = None
        self._next: dict[str, datetime | None] = {}  # so that a thousand idle jobs cost nothing
        self._early: set[tuple[str, datetime]] = set()

    def search_again(self) -> None:
        """Look for missed fires at the next step, as after a start."""
        self.searched = None

    def forget(self, changed: Iterable[str]) -> None:
        """These jobs are not what they were: their next fires are another schedule's, and may have come this moment."""
        for job_id in changed:
            self._next.pop(job_id, None)
        self.search_again()

    def fire_due(self, now: datetime) -> None:
        """Insert a run for every fire since the last step; after an absence, and hourly, for every one missed."""
        since = self.checked_until
        away = since is not None and now - since > ON_TIME
        before = since or self.leader.last_led
        if before is not None and before - now > ON_TIME:
            self._set_back(now)
        if away or self.searched is None or abs(now - self.searched) >= SEARCH_EVERY:
            with self.leader.write() as connection:
                guess_further(connection, now)
                self._insert(connection, self._missed(connection, now), now)
            self.searched = now
        else:
            due = self._due(since or now, now) + self._early_fires(now)
            if due:
                with self.leader.write() as connection:
                    self._insert(connection, due, now)
                reached("fire.committed")
        self.checked_until = now

    def _set_back(self, now: datetime) -> None:
        """The clock was ahead and has been mended: what became due meanwhile becomes due again."""
        early = [job.id for job in self.jobs.values() if job.eager]
        with self.leader.write() as connection:
            undone = fire_store.undo_future(connection, now, early)
        self._next.clear()
        log.warning("the clock was set back to %s; %d runs of the time after it are undone", now, undone)

    def _due(self, since: datetime, now: datetime) -> list[Fire]:
        """The fires in (since, now]."""
        if now < since:  # set back a little: what comes again has its run already
            self._next.clear()
        found: list[Fire] = []
        for job in self.jobs.values():
            if job.id not in self._next:
                self._next[job.id] = job.next_fire(since)
            due = self._next[job.id]
            if due is not None and due <= now:
                found += [(fire, job, True) for fire in job.fires(_later(since, job.since), now)]
                del self._next[job.id]
        return found

    def _missed(self, connection: Connection, now: datetime) -> list[Fire]:
        """Fires without a run, within each job's catch-up window, and whether they are run."""
        # This daemon led, or the one before it; or somebody used the database by hand.
        led_since = self.checked_until or self.leader.last_led or run_store.known_since(connection)
        found: list[Fire] = []
        for job in self.jobs.values():
            newest = fire_store.last_fire(connection, job.id, now)
            since = _later(horizon(now, newest, led_since), job.since)
            have = fire_store.fires_recorded(connection, job.id, since)
            found += [
                (fire, job, run) for fire, run in sort_out(job.catch_up, job.fires(since, now), have, now)
            ]
        return found

    def _early_fires(self, now: datetime) -> list[Fire]:
        """The next fire of each eager job whose upstream has succeeded for its date already."""
        eager = [job for job in self.jobs.values() if job.eager and job.needs]
        found: list[Fire] = []
        if not eager:
            return found
        with db.read(self.leader.engine) as connection:
            calendar = require_calendar(connection)
            for job in eager:
                fire = job.next_fire(now)
                if fire is None or (job.id, fire) in self._early or job.skip_reason(fire, calendar):
                    continue
                day = job.business_date_of(fire, calendar)
                upstream = [run_store.deciding_run(connection, need, day) for need in job.needs]
                if all(run is not None and run.status in DONE_WELL for run in upstream):
                    found.append((fire, job, True))
                    self._early.add((job.id, fire))
        return found

    def _insert(self, connection: Connection, due: list[Fire], now: datetime) -> None:
        if not due:
            return
        calendar = require_calendar(connection)
        paused = run_store.paused_jobs(connection)
        order = {job_id: place for place, job_id in enumerate(self.jobs)}
        for fire, job, run in sorted(due, key=lambda item: (item[0], order[item[1].id])):
            if job.id not in paused:
                self._fire(connection, job, fire, calendar, now, run=run)
        reached("fire.inserted")

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


def _later(instant: datetime, other: datetime | None) -> datetime:
    return instant if other is None else max(instant, other)


def require_calendar(connection: Connection) -> TradingCalendar:
    """Raises NotReady before `init` has filled it."""
    calendar = load_calendar(connection)
    if calendar is None:
        raise NotReady("the trading calendar is empty; run: python main.py init")
    return calendar
