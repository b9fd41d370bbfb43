"""What a fire becomes: the same for the daemon that does it and for `main.py jobs plan` that shows it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from core.errors import UsageError
from core.trading_calendar import SHANGHAI, TradingCalendar, provisional_sessions
from scheduler.job import Job, RunStatus

PAUSED = "the job is paused"


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
    status = (
        RunStatus.SKIPPED if reason else RunStatus.WAITING if job.needs or job.fresh else RunStatus.QUEUED
    )
    if not reason and not run:
        status, reason = RunStatus.MISSED, "nothing ran at its time, and the job does not catch up further"
    elif not reason and fire <= now:
        task, params = work_for(job, params, business_date, calendar, now)
        reason = "missed; filled from history" if task != job.task else None
    return PlannedRun(job.id, task, fire, business_date, status, reason, params)


def work_for(
    job: Job, params: dict[str, Any], business_date: date, calendar: TradingCalendar, now: datetime
) -> tuple[str, dict[str, Any]]:
    """The task and its parameters by which `job` is done for a date.

    A job that sees only the newest data does not pretend to see an older date: that becomes a back-fill.
    """
    newest = calendar.newest_business_date(now)
    if not job.latest_only or newest <= business_date:
        return job.task, params
    # The whole-market pages have moved on: that date can only come from each fund's history.
    # One pass over the funds fills every later hole too; the runs of those dates then find them filled.
    last = max(business_date, calendar.previous_session(newest))
    dates = {"start": business_date.isoformat(), "end": last.isoformat()}
    return "backfill_nav", params | dates | {"unless_stored": True}


def asked_date(calendar: TradingCalendar, wanted: date | None, now: datetime) -> date:
    """The date asked for, which must be a trading day that has come, or by default the newest one.

    Raises UsageError saying what would be right.
    """
    newest = calendar.newest_business_date(now)
    if wanted is None:
        return newest
    if wanted < calendar.sessions[0]:
        raise UsageError(f"{wanted} is before the first trading day known, {calendar.sessions[0]}")
    if wanted > newest:
        raise UsageError(f"{wanted} has no NAVs yet; the newest date that can have is {newest}")
    if not calendar.is_session(wanted):
        raise UsageError(f"{wanted} is not a trading day; the one before is {calendar.last_session(wanted)}")
    return wanted


def plan(
    jobs: Iterable[Job],
    calendar: TradingCalendar,
    now: datetime,
    until: datetime,
    paused: Collection[str] = (),
) -> list[PlannedRun]:
    """Every run that falls due in (now, until], those that will not run with their reason, in order."""
    known = reaching(calendar, until.astimezone(SHANGHAI).date())
    found = [plan_run(job, fire, known, now) for job in jobs for fire in job.fires(now, until)]
    found = [
        replace(run, status=RunStatus.SKIPPED, reason=PAUSED)
        if run.job_id in paused and run.reason is None
        else run
        for run in found
    ]
    return sorted(found, key=lambda item: item.scheduled_for)


def reaching(calendar: TradingCalendar, until: date) -> TradingCalendar:
    """The calendar, with guesses for the years that the exchange has not announced: as the daemon will guess."""
    if calendar.sessions[-1] >= until:
        return calendar
    confirmed = [day for day in calendar.sessions if day not in calendar.provisional]
    guesses = provisional_sessions(confirmed, until)
    return TradingCalendar([*confirmed, *guesses], guesses)
