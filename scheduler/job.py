"""A job: a task with a schedule and a policy. A run: one execution of a job for one business date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler.catch_up import CatchUp
from scheduler.retry import RetryPolicy
from scheduler.schedule import Schedule


class RunStatus(StrEnum):
    WAITING = "WAITING"  # for the runs it needs
    QUEUED = "QUEUED"  # may start
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    PARTIAL = "PARTIAL"  # done, with some of the expected data missing
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"  # over its time limit, and killed for it
    INTERRUPTED = "INTERRUPTED"  # its process died or was stopped
    CANCELLED = "CANCELLED"  # somebody did not want it
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
        RunStatus.CANCELLED,
        RunStatus.SKIPPED,  # it found out itself that there is nothing to do
    }
)
# Every allowed move; README.md draws them. An attempt that ended badly goes back to QUEUED for the
# next one, within the job's retry policy or when somebody asks.
TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.WAITING: frozenset(
        {RunStatus.QUEUED, RunStatus.BLOCKED, RunStatus.SKIPPED, RunStatus.CANCELLED}
    ),
    RunStatus.BLOCKED: frozenset(
        {RunStatus.QUEUED, RunStatus.WAITING, RunStatus.SKIPPED, RunStatus.CANCELLED}
    ),
    RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.SKIPPED, RunStatus.CANCELLED}),
    RunStatus.RUNNING: _ENDS,
    RunStatus.FAILED: frozenset({RunStatus.QUEUED}),
    RunStatus.TIMED_OUT: frozenset({RunStatus.QUEUED}),
    RunStatus.INTERRUPTED: frozenset({RunStatus.QUEUED}),
    RunStatus.CANCELLED: frozenset({RunStatus.QUEUED}),
    RunStatus.SKIPPED: frozenset({RunStatus.QUEUED}),  # what it needs succeeded after all
}
PENDING = frozenset({RunStatus.WAITING, RunStatus.BLOCKED, RunStatus.QUEUED, RunStatus.RUNNING})
DONE_WELL = frozenset({RunStatus.SUCCESS, RunStatus.PARTIAL})
ENDED_BADLY = frozenset({RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.INTERRUPTED, RunStatus.CANCELLED})


@dataclass(frozen=True)
class Job:
    """What config/jobs.toml says of one job."""

    id: str
    task: str
    schedule: Schedule
    business_date: Literal["session", "last_session", "previous_session"]
    holidays_off: bool
    needs: tuple[str, ...]
    wait_hours: float
    timeout_minutes: float
    retry: RetryPolicy
    catch_up: CatchUp
    latest_only: bool
    params: dict[str, Any]
    eager: bool  # starts when the runs it needs have succeeded, though its time has not come
    silent_minutes: float  # a run that says nothing for so long is flagged
    kill_silent: bool  # and ended
    on_event: tuple[str, ...] = ()  # topics, or all that begin alike (quality.*): each event queues a run

    def fires(self, after: datetime, until: datetime) -> list[datetime]:
        """The instants in (after, until] at which this job is due, oldest first, holidays not considered."""
        return self.schedule.fires(after, until)

    def next_fire(self, after: datetime) -> datetime | None:
        """The first instant after `after` at which this job is due, holidays not considered."""
        return self.schedule.next_fire(after)

    def business_date_of(self, fire: datetime, calendar: TradingCalendar) -> date:
        day = fire.astimezone(SHANGHAI).date()
        if self.business_date == "previous_session":
            return calendar.previous_session(day)
        return day if self.business_date == "session" else calendar.last_session(day)

    def skip_reason(self, fire: datetime, calendar: TradingCalendar) -> str | None:
        """Why this fire does not run, or None. A provisional calendar never says no on a weekday.

        A job for the session before its fire belongs to the morning after one: the day before must be one.
        """
        day = fire.astimezone(SHANGHAI).date()
        if self.business_date == "previous_session":
            day -= timedelta(days=1)
        if self.holidays_off and not calendar.is_session(day):
            return f"{day} is not a trading day"
        return None
