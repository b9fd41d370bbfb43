"""The jobs: when they are due, how their last runs went; paused, resumed and run from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import request

from core import db
from scheduler import listing
from scheduler.job_line import toml_of
from scheduler.plugin_listing import list_plugins
from scheduler.schedule_text import schedule_text
from scheduler.task_catalogue import tasks
from scheduler.web import params
from scheduler.web.job_graph import condition_text, draw
from scheduler.web.params_form import date_from, fields_of, params_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.wrappers import Response

    from scheduler.listing import Record
    from scheduler.web.site import Site

STRIP = 14
COMMANDS = 10


def list_jobs(site: Site) -> str:
    api = site.api
    jobs = api.list_jobs(params.NoParams()).items
    strips = listing.recent_runs(api.engine, api.jobs, site.clock(), STRIP)
    shown = [_shown(site, job) | {"strip": strips.get(job["job"], [])} for job in jobs]
    return site.render(
        "jobs.html",
        jobs=shown,
        graph=draw(api.jobs, site.translate),
        condition_text=condition_text,
        commands=listing.list_commands(api.engine, COMMANDS),
        plugins=list_plugins(api.engine),
    )


def show_job(site: Site, job: str) -> str:
    api = site.api
    found = _shown(site, api.describe_job(site.asked(params.JobPath, job=job).job))
    runs = listing.recent_runs(api.engine, [job], site.clock(), STRIP)[job]
    policy = api.jobs.get(job)
    fields = fields_of(_schema(site, policy.task), policy.params) if policy else []
    return site.render(
        "job.html",
        job=found | {"strip": runs},
        policy=policy,
        fields=fields,
        definition=toml_of(job, found["definition"]),
        condition_text=condition_text,
    )


def _shown(site: Site, record: Record) -> dict[str, Any]:
    job = site.api.jobs.get(record["job"])
    if job is None:
        return record | {"schedule": "-", "description": ""}
    return record | {"schedule": schedule_text(job, site.translate), "description": job.description}


def pause(site: Site, job: str) -> Response:
    return site.act(_back(job), "pause", job=job)


def resume(site: Site, job: str) -> Response:
    return site.act(_back(job), "resume", job=job)


def _schema(site: Site, task: str) -> Mapping[str, Any]:
    """Of its parameters; of a plugin's task that is not there any more nothing is known."""
    with db.read(site.api.engine) as connection:
        return next((found.schema for found in tasks(connection) if found.id == task), {})


def _back(job: str) -> str:
    return "/jobs" if request.form.get("back") == "/jobs" else f"/jobs/{job}"


def trigger(site: Site, job: str) -> Response:
    api = site.api
    api.show_job(site.asked(params.JobPath, job=job))
    given = params_from(_schema(site, api.jobs[job].task), request.form)
    business_date = date_from(request.form.get("business_date", ""))
    return site.act(f"/jobs/{job}", "trigger", job=job, business_date=business_date, params=given)
