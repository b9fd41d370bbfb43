"""Events become runs: one of each job that waits for such an event, once (an index says so).

The job's cursor moves in the transaction that inserts the runs. A job never starts a run because of what came of its
own run, over however many jobs: circles end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, delete, select, update

from core import db
from core.errors import UsageError
from core.schema import event_cursor, job_run, run_event
from core.trading_calendar import TradingCalendar
from scheduler import job_store, run_store, subscriptions
from scheduler.events import Event, read_after
from scheduler.firing import require_calendar
from scheduler.job import Job, RunStatus
from scheduler.leadership import Leadership
from scheduler.plan import work_for
from scheduler.subscriptions import BY_JOB
from scheduler.task_catalogue import find

log = logging.getLogger(__name__)
AT_ONCE = 100  # events a beat of each job
BY_EVENT = "event"
PARAM = "event"  # a task whose parameters have this is told


def wait_anew(leader: Leadership, of_file: Mapping[str, Job], now: datetime) -> None:
    """As a daemon begins: a job that is gone, or was out of the file meanwhile, has nothing left over from before."""
    cursor = event_cursor.c
    with leader.write() as connection:
        for job in of_file.values():
            subscriptions.register(connection, BY_JOB + job.id, job.on_event, now)
        names = {*of_file, *(row.id for row in job_store.stored_jobs(connection))}
        gone = {
            row.subscriber
            for row in subscriptions.cursors(connection)
            if row.subscriber.startswith(BY_JOB) and row.subscriber.removeprefix(BY_JOB) not in names
        }
        connection.execute(delete(event_cursor).where(cursor.subscriber.in_(gone)))


def fire_events(leader: Leadership, jobs: Mapping[str, Job], now: datetime) -> int:
    """Queue runs for what was published since the last beat. Returns their number.

    What comes while a job is paused passes it by. A job that is new, or waits
    for something new, begins with what is published from now on.
    """
    waiting = [job for job in jobs.values() if job.on_event]
    if not waiting:
        return 0
    with db.read(leader.engine) as connection:
        known = {(row.subscriber, row.topic) for row in subscriptions.cursors(connection)}
        strange = [
            job for job in waiting if any((BY_JOB + job.id, topic) not in known for topic in job.on_event)
        ]
        due = [job for job in waiting if subscriptions.due_topics(connection, BY_JOB + job.id, now)]
    if not strange and not due:
        return 0
    queued = 0
    with leader.write() as connection:
        for job in strange:
            subscriptions.register(connection, BY_JOB + job.id, job.on_event, now)
        calendar, paused = require_calendar(connection), run_store.paused_jobs(connection)
        for job in due:
            queued += _fire(connection, job, calendar, now, paused=job.id in paused)
    return queued


def _fire(connection: Connection, job: Job, calendar: TradingCalendar, now: datetime, *, paused: bool) -> int:
    queued, cursor, told = 0, event_cursor.c, _is_told(connection, job.task)
    for row in subscriptions.cursors(connection, [BY_JOB + job.id]):
        found = read_after(connection, row.topic, row.position, AT_ONCE) if row.topic in job.on_event else []
        for event in found:
            if paused or job.id in causes(connection, event.run_id):
                log.info("event %d, %s: no run of %s", event.id, event.topic, job.id)
            else:
                queued += _queue(connection, job, event, calendar, now, told=told)
        if found:
            mine = (cursor.subscriber == row.subscriber, cursor.topic == row.topic)
            done = {"position": found[-1].position, "seen_at": now}
            connection.execute(update(event_cursor).where(*mine).values(done))
    return queued


def _is_told(connection: Connection, task: str) -> bool:
    try:
        return PARAM in find(connection, task).schema.get("properties", {})
    except UsageError:  # its plugin is gone; the run will say so
        return False


def causes(connection: Connection, run_id: int | None) -> list[str]:
    """The job of a run, then those of the runs whose events it came of; none where it is gone."""
    found: list[str] = []
    while run_id is not None:
        query = select(job_run.c.job_id, job_run.c.event_id).where(job_run.c.id == run_id)
        run = connection.execute(query).one_or_none()
        if run is None:
            return found
        found.append(run.job_id)
        run_id = connection.scalar(select(run_event.c.run_id).where(run_event.c.id == run.event_id))
    return found


def _queue(
    connection: Connection, job: Job, event: Event, calendar: TradingCalendar, now: datetime, *, told: bool
) -> int:
    """1 if there is a run now that was not there before. Also where another topic of the job has the same event."""
    day = business_date_of(event, calendar, now)
    task, params = work_for(job, _params(job, event, told=told), day, calendar, now)
    run_id = run_store.add_run(
        connection,
        job_id=job.id,
        task=task,
        business_date=day,
        status=RunStatus.WAITING if job.needs or job.fresh else RunStatus.QUEUED,
        now=now,
        params=params,
        requested_by=BY_EVENT,
        retry=job.retry,
        event_id=event.id,
        reason=f"event {event.id}, {event.topic}",
    )
    if run_id is not None:
        log.info("run %d: %s for event %d, %s", run_id, job.id, event.id, event.topic)
    return int(run_id is not None)


def _params(job: Job, event: Event, *, told: bool) -> dict[str, Any]:
    about = {"id": event.id, "topic": event.topic, "payload": event.payload}
    return job.params | ({PARAM: about} if told else {})


def business_date_of(event: Event, calendar: TradingCalendar, now: datetime) -> date:
    """The one that the event names, if it is a trading day that has come; else the newest."""
    newest, named = calendar.newest_business_date(now), event.payload.get("business_date")
    try:
        day = date.fromisoformat(named) if isinstance(named, str) else newest
    except ValueError:
        return newest
    return day if calendar.sessions[0] <= day <= newest and calendar.is_session(day) else newest
