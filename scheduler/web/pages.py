"""The pages that people look at: one table row an address. Each view makes its page from the records of the API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Blueprint, Flask
from jinja2 import StrictUndefined

from scheduler.shared_answer import SharedAnswer
from scheduler.web import (
    alerts_page,
    assets,
    events_page,
    funds_page,
    job_form,
    jobs_page,
    login_page,
    market_page,
    overview_page,
    quality_page,
    reports_page,
    runs_page,
)
from scheduler.web.access import Access, Failures, Role, allow
from scheduler.web.sessions import Sessions
from scheduler.web.site import Site, keep_language, words

if TYPE_CHECKING:
    from scheduler.cache import Cache
    from scheduler.web.api import Api


class Page(NamedTuple):
    """`view` is given the site and what the path holds."""

    method: str
    path: str
    view: Callable[..., Any]
    role: Role = Role.VIEWER


PAGES = (
    Page("GET", "/", overview_page.overview),
    Page("GET", "/jobs", jobs_page.list_jobs),
    Page("GET", "/jobs/<job>", jobs_page.show_job),
    Page("POST", "/jobs/<job>/pause", jobs_page.pause, Role.ADMIN),
    Page("POST", "/jobs/<job>/resume", jobs_page.resume, Role.ADMIN),
    Page("POST", "/jobs/<job>/trigger", jobs_page.trigger, Role.ADMIN),
    Page("GET", "/new-job", job_form.ask_new, Role.ADMIN),
    Page("POST", "/new-job", job_form.create, Role.ADMIN),
    Page("GET", "/jobs/<job>/change", job_form.ask_change, Role.ADMIN),
    Page("POST", "/jobs/<job>/change", job_form.change, Role.ADMIN),
    Page("POST", "/jobs/<job>/delete", job_form.delete, Role.ADMIN),
    Page("GET", "/runs", runs_page.list_runs),
    Page("GET", "/runs/<run>", runs_page.show_run),
    Page("POST", "/runs/<run>/cancel", runs_page.cancel, Role.ADMIN),
    Page("POST", "/runs/<run>/retry", runs_page.retry, Role.ADMIN),
    Page("GET", "/quality", quality_page.show_quality),
    Page("GET", "/quality/held/<row>", quality_page.show_held),
    Page("POST", "/quality/held/<row>/release", quality_page.release, Role.ADMIN),
    Page("POST", "/quality/held/<row>/reject", quality_page.reject, Role.ADMIN),
    Page("GET", "/market", market_page.show_market),
    Page("GET", "/market/late.csv", market_page.late_csv),
    Page("GET", "/funds", funds_page.list_funds),
    Page("GET", "/funds/<code>", funds_page.show_fund),
    Page("GET", "/reports/<kind>/<day>", reports_page.show_report),
    Page("GET", "/alerts", alerts_page.list_alerts),
    Page("GET", "/alerts/<alert>", alerts_page.show_alert),
    Page("POST", "/alerts/<alert>/silence", alerts_page.silence, Role.ADMIN),
    Page("POST", "/alerts/<alert>/unsilence", alerts_page.unsilence, Role.ADMIN),
    Page("GET", "/events", events_page.list_events),
    Page("GET", "/login", login_page.ask_token, Role.ANYONE),
    Page("POST", "/login", login_page.log_in, Role.ANYONE),
    Page("POST", "/logout", login_page.log_out, Role.ANYONE),
)


def make_site(
    api: Api,
    access: Access,
    shared_seconds: float,
    cache: Cache,
    sessions: Path | None,
    language: str,
    home: Path | None,
    logs: Path | None,
) -> Site:
    """What the pages are made from; the overview may be `shared_seconds` old."""
    looked = SharedAnswer(partial(overview_page.look, api), shared_seconds)
    return Site(api, access, Sessions(sessions), Failures(), looked, cache, language, home, logs)


def add_pages(app: Flask, site: Site) -> None:
    app.url_map.merge_slashes = False  # else answered by a redirection of werkzeug's own
    pages = Blueprint("pages", __name__, template_folder="templates")
    for page in PAGES:
        view = allow(page.role)(partial(page.view, site))
        name = f"{page.method.lower()} {page.path}".replace(".", "_")
        pages.add_url_rule(page.path, name, view, methods=[page.method], strict_slashes=True)
    pages.add_url_rule("/static/<name>", "static", allow(Role.ANYONE)(partial(assets.serve)))
    pages.after_request(keep_language)
    app.context_processor(lambda: words(site))
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.register_blueprint(pages)
