"""One job as a record: its definition, whoever keeps it, its versions, when it is due next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from core import db
from core.errors import UnknownJob
from core.trading_calendar import SHANGHAI, load_calendar
from scheduler import job_store
from scheduler.job import Job
from scheduler.job_definition import DEFAULTS
from scheduler.jobs import Jobs
from scheduler.plan import plan
from scheduler.schedule import Every, Once, Schedule

FIRES = 5
AHEAD = timedelta(days=40)
Record = dict[str, Any]


def show_job(engine: Engine, jobs: Jobs, job_id: str, now: datetime) -> Record:
    """Raises UnknownJob. `wrong`: why a stored one is not run; `version` is None for one of the file."""
    with db.read(engine) as connection:
        row, calendar = job_store.find_job(connection, job_id), load_calendar(connection)
        versions = [dict(item._mapping) for item in job_store.versions(connection, job_id)]
    if row is None and job_id not in jobs:
        raise UnknownJob(f"there is no job {job_id!r}; there are {', '.join(jobs)}")
    of_file = job_id in jobs.of_file
    job = jobs.get(job_id)
    coming = plan([job], calendar, now, now + AHEAD) if job is not None and calendar is not None else []
    fires = [run.scheduled_for for run in coming if run.reason is None][:FIRES]
    if not fires and job is not None and (later := job.next_fire(now)) is not None:
        fires = [later]
    return {
        "job": job_id,
        "kept_in": "file" if of_file else "database",
        "version": None if of_file or row is None else row.version,
        "wrong": jobs.wrong.get(job_id),
        "next_fires": [_local(fire) for fire in fires],
        "definition": _definition(job) if of_file and job else _read(row.definition if row else "{}"),
        "versions": [
            {
                "version": item["version"],
                "changed_by": item["changed_by"],
                "changed_at": _local(item["changed_at"]),
                "reason": item["reason"],
                "definition": None if item["definition"] is None else _read(item["definition"]),
            }
            for item in versions
        ],
    }


def _local(instant: datetime) -> str:
    return instant.astimezone(SHANGHAI).isoformat(timespec="seconds")


def _read(text: str) -> Record:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _definition(job: Job) -> Record:
    """Of a job of the file the keys that are not as they are by default."""
    found: Record = {"task": job.task} | _times(job)
    for key in DEFAULTS:
        value = getattr(job, key, None)
        if isinstance(value, (str, bool, int, float, type(None))) and value != DEFAULTS[key]:
            found[key] = value
    needs = [job.conditions[need].as_table(need) if need in job.conditions else need for need in job.needs]
    of_retry: Mapping[str, Any] = {k: v for k, v in vars(job.retry).items() if k != "spent"}
    found |= {"needs": needs} if needs else {}
    found |= {"params": job.params} if job.params else {}
    return found | {"retry": dict(of_retry), "catch_up": dict(vars(job.catch_up))}


def _times(job: Job) -> Record:
    due, zone = (
        job.schedule,
        {} if job.schedule.zone.key == DEFAULTS["timezone"] else {"timezone": job.schedule.zone.key},
    )
    if isinstance(due, Schedule) and due.line:
        return {"crontab": due.line} | zone
    if isinstance(due, Schedule):
        fields = {field.name: str(field) for field in due.walls[0].fields if not field.is_default}
        return {"cron": fields} | zone
    if isinstance(due, Every):
        minutes = int(due.step.total_seconds() // 60)
        return {"every": f"{minutes}m", "anchor": due.anchor.isoformat()} | zone
    return ({"at": due.at.isoformat()} if isinstance(due, Once) else {"on_event": list(job.on_event)}) | zone
