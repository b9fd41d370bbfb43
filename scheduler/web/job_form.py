"""The form for the jobs kept in the database: what is typed as a definition, and a definition as it is typed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import request
from werkzeug.utils import redirect

from core import db
from core.errors import JobChanged, JobRefused, UnknownJob
from scheduler import job_listing
from scheduler.job_changes import Asked, change_job, create_job, delete_job
from scheduler.job_definition import TRIGGERS, refusal
from scheduler.job_line import json_of, needs_of, number_of
from scheduler.plugin_listing import list_tasks, parameters
from scheduler.web import params
from scheduler.web.access import who
from scheduler.web.problems import CODES, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug.wrappers import Response

    from scheduler.web.site import Site

Typed = dict[str, str]
# Keys with a field of their own; of the others the field `more` has JSON.
TEXTS = ("name", "description", "task", "timezone", "calendar", "business_date")
FIELDS = (
    "job",
    *TEXTS,
    "params",
    "trigger",
    "when",
    "needs",
    "timeout_minutes",
    "attempts",
    "more",
    "reason",
)
FIELD_OF = {**dict.fromkeys(TRIGGERS, "when"), "retry": "attempts"}
EMPTY: Typed = dict.fromkeys(FIELDS, "") | {"trigger": "crontab", "version": ""}


def table_from(typed: Mapping[str, str]) -> dict[str, Any]:
    """The definition; what was left empty is as it is by default. Raises JobRefused naming the key."""
    more = _table("more", typed["more"])
    own = (*TEXTS, *TRIGGERS, "params", "needs", "timeout_minutes")
    for key in more:
        if key in own:
            raise refusal("more", key, "it has a field of its own")
    if typed["trigger"] not in TRIGGERS:
        raise refusal("cron", typed["trigger"], f"one of {', '.join(TRIGGERS)}")
    table: dict[str, Any] = {key: typed[key] for key in TEXTS}
    table[typed["trigger"]] = _when(typed["trigger"], typed["when"])
    table |= {"params": _table("params", typed["params"]), "needs": needs_of(typed["needs"])}
    table |= {"timeout_minutes": number_of(typed["timeout_minutes"])} | more
    if typed["attempts"]:
        retry = more.get("retry", {})
        table["retry"] = {
            **(retry if isinstance(retry, dict) else {}),
            "attempts": number_of(typed["attempts"]),
        }
    return {key: value for key, value in table.items() if value not in ("", [""], [], {}, None)}


def _table(key: str, text: str) -> dict[str, Any]:
    found = json_of(key, text) if text else {}
    if not isinstance(found, dict):
        raise refusal(key, text, 'a table as JSON, such as {"source": "eastmoney"}')
    return found


def _when(trigger: str, text: str) -> Any:
    if trigger == "cron":
        return _table("cron", text)
    return [part.strip() for part in text.split(",")] if trigger == "on_event" else text


def typed_of(definition: Mapping[str, Any]) -> Typed:
    """The definition as the fields have it."""
    left = dict(definition)
    typed = EMPTY | {key: _text(left.pop(key, None)) for key in (*TEXTS, "timeout_minutes")}
    typed["trigger"] = next((key for key in TRIGGERS if left.get(key)), "crontab")
    typed["when"] = _listed(left.get(typed["trigger"]))
    typed |= {"needs": _listed(left.pop("needs", None)), "params": _pretty(left.pop("params", None))}
    retry = left.get("retry")
    if isinstance(retry, dict) and "attempts" in retry:
        typed["attempts"] = _text(retry["attempts"])
        left["retry"] = {key: value for key, value in retry.items() if key != "attempts"}
    left = {key: value for key, value in left.items() if key not in TRIGGERS and value not in (None, {})}
    return typed | {"more": _pretty(left)}


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _listed(value: object) -> str:
    """A list of texts with commas, as people write one."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return _text(value)


def _pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) if value else ""


def ask_new(site: Site) -> str:
    return _form(site, EMPTY, None)


def create(site: Site) -> Response | tuple[str, int]:
    typed = _typed()

    def do() -> str:
        create_job(
            site.api.writer(), site.api.jobs.of_file, typed["job"], table_from(typed), _asked(site, typed)
        )
        return f"/jobs/{typed['job']}"

    return _done(site, typed, None, do)


def ask_change(site: Site, job: str) -> Response | str:
    found = _stored(site, job)
    if found["kept_in"] == "file":
        return _in_file(job)
    return _form(site, typed_of(found["definition"]) | {"version": str(found["version"])}, job)


def change(site: Site, job: str) -> Response | tuple[str, int]:
    """All of the definition anew, unless somebody else has changed it since the form was fetched."""
    typed = _typed()
    if _stored(site, job)["kept_in"] == "file":
        return _in_file(job)

    def do() -> str:
        asked = _of_version(site, typed)
        change_job(site.api.writer(), site.api.jobs.of_file, job, table_from(typed), asked, whole=True)
        return f"/jobs/{job}"

    return _done(site, typed, job, do)


def delete(site: Site, job: str) -> Response | tuple[str, int]:
    found = _stored(site, job)
    if found["kept_in"] == "file":
        return _in_file(job)
    typed = typed_of(found["definition"]) | {name: _typed()[name] for name in ("version", "reason")}

    def do() -> str:
        delete_job(site.api.writer(), site.api.jobs.of_file, job, _of_version(site, typed))
        return "/jobs"

    return _done(site, typed, job, do)


def _in_file(job: str) -> Response:
    return redirect(f"/jobs/{job}?problem=job_in_file", 303)


def _done(site: Site, typed: Typed, job: str | None, do: Callable[[], str]) -> Response | tuple[str, int]:
    """Where it leads; or the form again, with what was typed and why it was refused."""
    with db.read(site.api.engine):  # a database that is not there is refused here, not made
        pass
    try:
        return redirect(do(), 303)
    except UnknownJob:
        raise Problem("unknown_job") from None
    except JobChanged:
        return _form(site, typed, job, JobRefused("", "", conflict="job_changed")), CODES["job_changed"][0]
    except JobRefused as error:
        return _form(site, typed, job, error), CODES[error.conflict or "job_refused"][0]


def _form(site: Site, typed: Typed, job: str | None, error: JobRefused | None = None) -> str:
    field = FIELD_OF.get(error.field, error.field if error.field in FIELDS else "more") if error else ""
    tasks = [task | {"fields": parameters(task["params"])} for task in list_tasks(site.api.engine)]
    return site.render(
        "job_form.html",
        job=job,
        typed=typed if job is None else typed | {"job": job},
        tasks=tasks,
        error=error,
        title=CODES[error.conflict or "job_refused"][1] if error else "",
        field="" if error and error.conflict in ("job_changed", "job_needed") else field,
    )


def _stored(site: Site, job: str) -> dict[str, Any]:
    asked = site.asked(params.JobPath, job=job)
    try:
        return job_listing.show_job(site.api.engine, site.api.jobs, asked.job, site.clock())
    except UnknownJob:
        raise Problem("unknown_job") from None


def _typed() -> Typed:
    return {name: request.form.get(name, EMPTY[name]).strip() for name in EMPTY}


def _asked(site: Site, typed: Typed) -> Asked:
    return Asked(who("web"), site.clock(), typed["reason"] or None)


def _of_version(site: Site, typed: Typed) -> Asked:
    """Raises Problem for a version that is none."""
    if not re.fullmatch(r"[0-9]{1,9}", typed["version"]):
        raise Problem("invalid_request", detail="version: a whole number")
    return _asked(site, typed)._replace(version=int(typed["version"]))
