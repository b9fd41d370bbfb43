"""A job: a task with a schedule and a policy. A run: one execution of a job for one business date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal

from apscheduler.triggers.cron import CronTrigger

from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler.catch_up import CatchUp
from scheduler.retry import RetryPolicy


class RunStatus(StrEnum):
    WAITING = "WAITING"  # for the runs it needs
    QUEUED = "QUEUED"  # may start
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    PARTIAL = "PARTIAL"  # done, with some of the expected data missing
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"  # over its time limit, and killed for it
    INTERRUPTED = "INTERRUPTED"  # its process died or was stopped
    BLOCKED = "BLOCKED"  # a run it needs failed; released when that one succeeds after all
    SKIPPED = "SKIPPED"  # holiday, or waited too long
    MISSED = "MISSED"  # was due while nothing ran, and may not be caught up


_ENDS = frozenset(
    {
        RunStatus.SUCCESS,
        RunStatus.PARTIAL,
        RunStatus.FAILED,
        RunStatus.TIMED_OUT,
        RunStatus.INTERRUPTED,
        RunStatus.SKIPPED,  # it found out itself that there is nothing to do
    }
)
# Every allowed move; README.md draws them. FAILED, TIMED_OUT and INTERRUPTED go back to QUEUED
# for the next attempt, within the job's retry policy or when somebody asks.
TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.WAITING: frozenset({RunStatus.QUEUED, RunStatus.BLOCKED, RunStatus.SKIPPED}),
    RunStatus.BLOCKED: frozenset({RunStatus.QUEUED, RunStatus.WAITING, RunStatus.SKIPPED}),
    RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.SKIPPED}),
    RunStatus.RUNNING: _ENDS,
    RunStatus.FAILED: frozenset({RunStatus.QUEUED}),
    RunStatus.TIMED_OUT: frozenset({RunStatus.QUEUED}),
    RunStatus.INTERRUPTED: frozenset({RunStatus.QUEUED}),
}
PENDING = frozenset({RunStatus.WAITING, RunStatus.BLOCKED, RunStatus.QUEUED, RunStatus.RUNNING})
DONE_WELL = frozenset({RunStatus.SUCCESS, RunStatus.PARTIAL})


@dataclass(frozen=True)
class Job:
    """What config/jobs.toml says of one job."""

    id: str
    task: str
    trigger: CronTrigger
    business_date: Literal["session", "last_session"]
    holidays_off: bool
    needs: tuple[str, ...]
    wait_hours: float
    timeout_minutes: float
    retry: RetryPolicy
    catch_up: CatchUp
    latest_only: bool
    params: dict[str, Any]

    def fires(self, after: datetime, until: datetime) -> list[datetime]:
        """The instants in (after, until] at which this job is due, oldest first."""
        found: list[datetime] = []
        previous = after
        while (fire := self.trigger.get_next_fire_time(previous, previous)) and fire <= until:
            if fire > after:
                found.append(fire)
            previous = fire
        return found

    def next_fire(self, after: datetime) -> datetime | None:
        """The first instant after `after` at which this job is due, holidays not considered."""
        fire: datetime | None = self.trigger.get_next_fire_time(after, after)
        if fire is not None and fire <= after:  # `after` itself is a fire time
            fire = self.trigger.get_next_fire_time(fire, fire)
        return fire

    def business_date_of(self, fire: datetime, calendar: TradingCalendar) -> date:
        day = fire.astimezone(SHANGHAI).date()
        return day if self.business_date == "session" else calendar.last_session(day)

    def skip_reason(self, fire: datetime, calendar: TradingCalendar) -> str | None:
        """Why this fire does not run, or None. A provisional calendar never says no on a weekday."""
        day = fire.astimezone(SHANGHAI).date()
        if self.holidays_off and not calendar.is_session(day):
            return f"{day} is not a trading day"
        return None
