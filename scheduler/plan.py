"""What a fire becomes: the same for the daemon that does it and for `main.py plan` that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from core.trading_calendar import TradingCalendar
from scheduler.job import Job, RunStatus


@dataclass(frozen=True)
class PlannedRun:
    job_id: str
    task: str
    scheduled_for: datetime
    business_date: date
    status: RunStatus
    reason: str | None
    params: dict[str, Any]


def plan_run(
    job: Job, fire: datetime, calendar: TradingCalendar, now: datetime, *, run: bool = True
) -> PlannedRun:
    """The run for one fire of a job. `run` False: it was missed and its policy does not catch it up."""
    business_date = job.business_date_of(fire, calendar)
    task, params, reason = job.task, job.params, job.skip_reason(fire, calendar)
    status = RunStatus.SKIPPED if reason else RunStatus.WAITING if job.needs else RunStatus.QUEUED
    if not reason and not run:
        status, reason = RunStatus.MISSED, "nothing ran at its time, and the job does not catch up further"
    elif (
        not reason and job.latest_only and fire <= now and calendar.newest_business_date(now) > business_date
    ):
        # The whole-market pages have moved on: that date can only come from each fund's history.
        # One pass over the funds fills every later hole too; the runs of those dates then find them filled.
        task, reason = "backfill_nav", "missed; filled from history"
        last = calendar.previous_session(calendar.newest_business_date(now))
        dates = {"start": business_date.isoformat(), "end": max(business_date, last).isoformat()}
        params = params | dates | {"unless_stored": True}
    return PlannedRun(job.id, task, fire, business_date, status, reason, params)


def plan(jobs: Iterable[Job], calendar: TradingCalendar, now: datetime, until: datetime) -> list[PlannedRun]:
    """Every run that falls due in (now, until], skipped ones with their reason, in order."""
    found = [plan_run(job, fire, calendar, now) for job in jobs for fire in job.fires(now, until)]
    return sorted(found, key=lambda item: item.scheduled_for)
