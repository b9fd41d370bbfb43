"""FundJobScheduler: the daemon's clockwork on APScheduler's BlockingScheduler.

APScheduler gives the process and the cron triggers; what is due is asked of the triggers for the time
between two beats (firing.py). So a stopped clock, a jump or a slow database loses no fire.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import FrameType

from apscheduler.schedulers.base import STATE_STOPPED
from apscheduler.schedulers.blocking import BlockingScheduler
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from core import db
from core.crash_points import reached
from core.errors import AlreadyRunning, DatabaseUnavailable, LeadershipLost, NavKeeperError
from core.trading_calendar import SHANGHAI
from scheduler import commands, run_store
from scheduler.alert_dispatch import Dispatch, Outlets
from scheduler.alert_watch import AlertWatch, note_absence
from scheduler.chain import release_given_up, release_waiting
from scheduler.clock import Clock
from scheduler.event_dispatch import EventDispatch
from scheduler.event_firing import fire_events, wait_anew
from scheduler.firing import Firing, require_calendar
from scheduler.job import Job
from scheduler.jobs import Jobs
from scheduler.leadership import Leadership
from scheduler.plugin_watch import PluginWatch
from scheduler.process_identity import this_process
from scheduler.supervisor import Supervisor

log = logging.getLogger(__name__)
BEAT_SECONDS = 1.0
RECOVER_SECONDS = 10.0
COMPLAIN_SECONDS = 60.0
LOOK_SECONDS = 5.0


class Beat(BlockingScheduler):  # type: ignore[misc] # APScheduler has no types
    """A BlockingScheduler that calls `beat` every second of the monotonic clock.

    Its own loop sleeps until an instant of the wall clock: set back two hours, it would sleep for two hours.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        super().__init__(timezone=SHANGHAI)
        self._beat = beat

    def _main_loop(self) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="beat") as pool:
            while self.state != STATE_STOPPED:
                error = pool.submit(self._beat).exception()
                if error is not None:  # nobody foresaw it; the next beat may do better
                    log.error("the beat failed", exc_info=error)
                self._event.clear()  # it was set by the start, and is by a shutdown, which changes the state first
                if self.state != STATE_STOPPED:
                    self._event.wait(BEAT_SECONDS)


class FundJobScheduler:
    """Runs the jobs of `jobs` at their times, each run in a child process. `start` blocks."""

    def __init__(
        self,
        engine: Engine,
        jobs: Mapping[str, Job],
        clock: Clock,
        logs: Path,
        *,
        drain: timedelta,
        limit: int,
        notify: Callable[[str], None],
        outlets: Outlets,
        plugins: tuple[str, ...] = (),
    ) -> None:
        self.engine = engine
        self.jobs = Jobs(jobs)
        self.clock = clock
        self.drain = drain.total_seconds()
        self.notify = notify
        self.leader = Leadership(engine, this_process())
        self.supervisor = Supervisor(self.leader, self.jobs, logs, limit)
        self.firing = Firing(self.leader, self.jobs)
        self.alerts = AlertWatch(self.leader, jobs, logs, switch=outlets.switch)
        self.dispatch = Dispatch(self.leader, outlets)
        self.plugins = PluginWatch(self.leader, plugins)
        self.events = EventDispatch(self.leader)
        self.recovered = float("-inf")  # these four: time.monotonic()
        self.looked = float("-inf")
        self.complained: float | None = None
        self.stopping_since: float | None = None
        self.signals = 0
        self.refused: AlreadyRunning | None = None
        self._blocking = Beat(self.beat)

    def start(self) -> None:
        """Work until SIGTERM or SIGINT: then let running jobs finish (a second signal does not wait).

        Raises AlreadyRunning where another daemon leads and this one may not stand by.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        log.info("daemon started: %s", ", ".join(self.jobs))
        self.notify("READY=1")
        self._blocking.start()
        self.notify("STOPPING=1")
        if self.refused is not None:
            raise self.refused
        log.info("daemon stopped")

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self.signals += 1

    def beat(self) -> None:
        """One step of everything. While the database is away it is a step of nothing."""
        try:
            now = self.clock()
            self.step(now)
            self.dispatch.database_is_back(now)
            if self.complained is not None:
                log.info("all is well again")
                self.complained = None
        except AlreadyRunning as error:
            self.refused = error
        except LeadershipLost as error:
            log.error("%s; stepping down", error)
            self.supervisor.abandon()
            self.events.stop()
        except (NavKeeperError, SQLAlchemyError, OSError) as error:
            if self.complained is None or time.monotonic() - self.complained >= COMPLAIN_SECONDS:
                log.error("%s; trying again every second", str(error).splitlines()[0])
                self.complained = time.monotonic()
            if isinstance(error, DatabaseUnavailable | SQLAlchemyError):
                self.dispatch.database_is_away(self.clock())
        finally:
            self._stop_if_asked()
        # Not after an error that nobody foresaw: if that goes on, we had better be started anew.
        self.notify("WATCHDOG=1")

    def step(self, now: datetime) -> None:
        """Lead if we may. Watch what runs; unless we are stopping, also start what is due."""
        if self.leader.epoch is None and (self.signals or not self._lead(now)):
            self.supervisor.bury()
            return
        self.leader.renew(now)
        self.leader.note_absence(now, partial(self._note_absence, now=now))
        self.supervisor.watch(now)
        self.look_at_jobs()
        self.answer(now)
        if self.signals:
            return
        self.events.tend(now)
        self.firing.fire_due(now)
        fire_events(self.leader, self.jobs, now)
        release_waiting(self.leader, self.jobs, now, self.jobs.wrong)
        self.supervisor.start_queued(now)
        self.dispatch.tend(now)
        self.plugins.look()
        if time.monotonic() - self.looked >= LOOK_SECONDS:
            self.alerts.look(now)
            self.looked = time.monotonic()
        if time.monotonic() - self.recovered >= RECOVER_SECONDS:
            self.supervisor.recover(now)
            release_given_up(self.leader, self.jobs, now)
            self.recovered = time.monotonic()

    def look_at_jobs(self) -> None:
        """See what somebody has made, changed or deleted since the last step."""
        with db.read(self.engine) as connection:
            changed = self.jobs.look(connection)
        if changed:
            self.firing.forget(changed)
            log.info("jobs looked at again: %s", ", ".join(sorted(changed)))

    def answer(self, now: datetime) -> None:
        """Do what people asked for."""
        with db.read(self.engine) as connection:
            if not commands.any_pending(connection):
                return
        with self.leader.write() as connection:
            answered = commands.answer_pending(connection, self.jobs, require_calendar(connection), now)
            reached("command.answered")
        for command in answered:
            log.info("command %d, %s: %s, %s", command.id, command.action, command.status, command.answer)
            if command.action == "cancel" and command.run_id is not None:
                self.supervisor.cancel(command.run_id)
            elif command.action == "resume":
                self.firing.search_again()

    def _lead(self, now: datetime) -> bool:
        """Try to become the leader; then see what the last one left."""
        if not self.leader.acquire(now):
            return False
        reached("daemon.leading")
        self.leader.note_absence(now, partial(self._note_absence, now=now))
        wait_anew(self.leader, self.jobs.of_file, now)
        self.dispatch.put_back()
        self.supervisor.recover(now)
        self.recovered = time.monotonic()
        self.firing.search_again()
        return True

    def _note_absence(self, connection: Connection, away: timedelta, *, now: datetime) -> None:
        """Time without a daemon counts for no run's limits; where it was the database that was away, that was said."""
        run_store.note_absence(connection, away)
        if self.dispatch.outage is None:
            note_absence(connection, away, now)

    def _stop_if_asked(self) -> None:
        """After a signal: once the children are done, or the drain is over, the daemon ends, database or not."""
        if self.refused is not None:
            self._blocking.shutdown(wait=False)
            return
        if not self.signals:
            return
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            log.info("stopping: waiting for %d running jobs", len(self.supervisor.children))
        if self.signals > 1 or time.monotonic() - self.stopping_since >= self.drain:
            self.supervisor.terminate_all("the daemon was stopped")
        self.events.stop()
        if self.supervisor.any_alive():
            return
        self.plugins.stop()
        try:
            now = self.clock()
            self.supervisor.watch(now)
            self.leader.resign(now)
        except (NavKeeperError, SQLAlchemyError) as error:
            log.warning("the stop could not be recorded: %s", str(error).splitlines()[0])
        self._blocking.shutdown(wait=False)
