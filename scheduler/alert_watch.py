"""What no transaction shows by itself: a late night, a short calendar, a full disk, what the dead man's switch hears.

The daemon looks every few seconds; the decisions are in alert_rules.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine

from core import db
from core.nav_days import row_count
from core.schema import alert, fund_nav
from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler import alert_outbox, alert_rules, alert_store, plugin_store, run_store
from scheduler.alert_rules import CHAIN, FAILED, Matter, Night, Step
from scheduler.firing import require_calendar
from scheduler.job import DONE_WELL, Job, RunStatus
from scheduler.leadership import Leadership

CALENDAR_READ_EVERY = timedelta(hours=1)


class AlertWatch:
    """Looks at the state of things for the leading daemon."""

    def __init__(self, leader: Leadership, jobs: Mapping[str, Job], logs: Path, *, switch: bool) -> None:
        self.leader = leader
        self.chain = [job for job in jobs.values() if job.task in CHAIN and job.business_date == "session"]
        self.folders = _folders(leader.engine, logs)
        self.switch = switch  # whether there is a dead man's switch
        self._calendar: tuple[datetime, TradingCalendar] | None = None  # and when it was read

    def look(self, now: datetime) -> None:
        """Open and close what has changed; repeat what is due."""
        with db.read(self.leader.engine) as connection:
            calendar = self._known_calendar(connection, now)
            is_open = {row.fingerprint for row in alert_store.open_alerts(connection)}
            found = self._matters(connection, calendar, is_open, now)
            pings = self._pings(connection, calendar, now) if self.switch else []
            repeat = alert_store.any_to_repeat(connection, now)
        kinds = (alert_rules.LATE, alert_rules.CALENDAR, alert_rules.DISK, alert_rules.PLUGIN)
        wanted = {matter.fingerprint for matter in found}
        over = {mark for mark in is_open - wanted if mark.partition(":")[0] in kinds}
        news = [matter for matter in found if matter.fingerprint not in is_open]
        if not (over or news or pings or repeat):
            return
        with self.leader.write() as connection:
            for matter in news:
                alert_store.open_alert(connection, matter, now)
            if over:
                alert_store.recover(connection, now, alert.c.open_key.in_(over))
            alert_store.repeat_due(connection, now)
            for ping, key in pings:
                alert_outbox.say_once(connection, ping, key, now)

    def _known_calendar(self, connection: Connection, now: datetime) -> TradingCalendar:
        """Read once an hour: it has thousands of days."""
        if self._calendar is None or abs(now - self._calendar[0]) >= CALENDAR_READ_EVERY:
            self._calendar = now, require_calendar(connection)
        return self._calendar[1]

    def _matters(
        self, connection: Connection, calendar: TradingCalendar, is_open: set[str], now: datetime
    ) -> list[Matter]:
        free = {str(folder): shutil.disk_usage(folder).free for folder in self.folders if folder.exists()}
        nights = {alert_rules.night_to_judge(calendar, now)} | {
            date.fromisoformat(mark.partition(":")[2])
            for mark in is_open
            if mark.startswith(f"{alert_rules.LATE}:")
        }
        late = [self._late(connection, calendar, day, is_open) for day in nights if day is not None]
        found = [
            *late,
            alert_rules.short_calendar(calendar, now),
            alert_rules.full_disk(free, is_open=f"{alert_rules.DISK}:" in is_open),
            *alert_rules.broken_plugins(_broken_plugins(connection)),
        ]
        return [matter for matter in found if matter is not None]

    def _late(
        self, connection: Connection, calendar: TradingCalendar, day: date, is_open: set[str]
    ) -> Matter | None:
        """Nothing of a night before this database had its first run, nor of one whose failure is told already."""
        since = run_store.known_since(connection)
        ended = datetime.combine(day, alert_rules.NIGHT_ENDS, SHANGHAI)
        told = any(f"{FAILED}:{job.id}:{day}" in is_open for job in self.chain)
        if since is None or since > ended or (told and f"{alert_rules.LATE}:{day}" not in is_open):
            return None
        before = calendar.previous_session(day)
        funds, earlier = (row_count(connection, fund_nav, when) for when in (day, before))
        return alert_rules.late_night(Night(day, self._steps(connection, day), funds, earlier))

    def _steps(self, connection: Connection, day: date) -> tuple[Step, ...]:
        found = []
        for job in self.chain:
            run = run_store.deciding_run(connection, job.id, day)
            status = RunStatus(run.status) if run else None
            done = status in DONE_WELL or run_store.was_done(connection, job.task, day)
            found.append(Step(job.id, job.task, status, run.id if run else None, done))
        return tuple(found)

    def _pings(
        self, connection: Connection, calendar: TradingCalendar, now: datetime
    ) -> list[tuple[str, str]]:
        """Pings that are due and were not said yet, with the key by which each is said once."""
        day = alert_rules.day_of_switch(now)
        trading = calendar.is_session(day) and bool(self.chain)
        steps: Sequence[Step] = self._steps(connection, day) if trading else ()
        due = alert_rules.pings_due(day, trading=trading, steps=steps, now=now)
        said = alert_outbox.said_once(connection, f"ping:{day}:") if due else set()
        if f"ping:{day}:{alert_rules.SUCCESS}" in said:
            return []
        keys = [(ping, f"ping:{day}:{ping}") for ping in due]
        return [(ping, key) for ping, key in keys if key not in said]


def _broken_plugins(connection: Connection) -> dict[str, str]:
    found = plugin_store.plugins(connection)
    return {item.name: item.reason or "" for item in found if item.state == plugin_store.FAILED}


def note_absence(connection: Connection, away: timedelta, now: datetime) -> None:
    """Nobody led for a while, which somebody should hear of; it is over."""
    matter = alert_rules.absence(away, now)
    if matter is not None:
        alert_store.note_passed(connection, matter, now - away, now)


def _folders(engine: Engine, logs: Path) -> set[Path]:
    """Where the daemon writes."""
    found = {logs}
    if engine.dialect.name == "sqlite":
        with suppress(OSError):
            found.add(Path(str(engine.url.database)).resolve().parent)
    return found
