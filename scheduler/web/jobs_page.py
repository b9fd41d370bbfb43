"""The jobs: when they are due, how their last runs went; paused, resumed and run from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import request

from core import db
from scheduler import listing
from scheduler.plugin_listing import list_plugins
from scheduler.schedule_text import schedule_text
from scheduler.task_catalogue import tasks
from scheduler.web import params
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
    jobs = listing.list_jobs(api.engine, api.jobs, site.clock())
    strips = listing.recent_runs(api.engine, api.jobs, site.clock(), STRIP)
    shown = [_shown(site, job) | {"strip": strips[job["job"]]} for job in jobs]
    return site.render(
        "jobs.html",
        jobs=shown,
        commands=listing.list_commands(api.engine, COMMANDS),
        plugins=list_plugins(api.engine),
    )


def show_job(site: Site, job: str) -> str:
    api = site.api
    found = _shown(site, api.show_job(site.asked(params.JobPath, job=job)))
    runs = listing.recent_runs(api.engine, [job], site.clock(), STRIP)[job]
    policy = api.jobs[job]
    fields = fields_of(_schema(site, policy.task), policy.params)
    return site.render("job.html", job=found | {"strip": runs}, policy=policy, fields=fields)


def _shown(site: Site, job: Record) -> dict[str, Any]:
    return job | {"schedule": schedule_text(site.api.jobs[job["job"]], site.translate)}


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
