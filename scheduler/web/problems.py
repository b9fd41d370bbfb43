"""Errors as clients get them: RFC 9457 problem details with a stable code, never the text of an exception."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, redirect, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from config.translation import N_
from core.errors import NavKeeperError

log = logging.getLogger(__name__)
API = "/api/"
MEDIA_TYPE = "application/problem+json"
CODES: dict[str, tuple[int, str]] = {
    "invalid_request": (400, N_("A parameter or the body is not as the API describes it")),
    "untrusted_host": (
        400,
        N_("This server is not known by that name; NAVKEEPER_TRUSTED_HOSTS lists its names"),
    ),
    "token_missing": (401, N_("A token is needed: Authorization: Bearer TOKEN")),
    "token_unknown": (401, N_("This token is not known")),
    "forbidden": (403, N_("This needs the admin token")),
    "no_admin_token": (
        403,
        N_("Acting needs an admin token, and none is set; make one: python main.py token"),
    ),
    "form_expired": (403, N_("This form is no longer valid: load the page again")),
    "cross_origin": (403, N_("A page of another site may not act here")),
    "not_found": (404, N_("There is nothing at this address")),
    "unknown_job": (404, N_("There is no such job")),
    "unknown_run": (404, N_("There is no such run")),
    "unknown_fund": (404, N_("There is no such fund")),
    "unknown_alert": (404, N_("There is no such alert")),
    "unknown_row": (404, N_("There is no such row in quarantine")),
    "no_log": (404, N_("This attempt has no log that could be read here")),
    "not_stored": (404, N_("Nothing is stored of what was asked for")),
    "not_ready": (404, N_("It is not there yet: collect and calculate first")),
    "method_not_allowed": (405, N_("This address does not take this method")),
    "job_in_file": (
        409,
        N_(
            "This job comes from the jobs file: change it there and restart the daemon. "
            "Here it can be paused, resumed and triggered"
        ),
    ),
    "job_exists": (409, N_("There is a job of this name already")),
    "job_needed": (409, N_("Other jobs need this one")),
    "job_changed": (412, N_("Somebody else has changed the job meanwhile: look at it again")),
    "job_refused": (422, N_("The definition of the job is not allowed")),
    "not_adjusted": (409, N_("A money fund has incomes and yields, and no NAV to adjust")),
    "alert_over": (409, N_("This alert is over; there is nothing to silence")),
    "not_decided": (409, N_("Nothing was decided about the row")),
    "refused": (409, N_("The daemon refused; its answer says why")),
    "request_entity_too_large": (413, N_("The body is too large")),
    "unsupported_media_type": (415, N_("The body must be application/json")),
    "too_many_failures": (429, N_("Too many wrong tokens; wait a minute")),
    "internal_error": (500, N_("The server failed; its log says why")),
    "database_unavailable": (503, N_("The database does not answer")),
    "schema_outdated": (
        503,
        N_("The database's tables are missing or of another version: python main.py init"),
    ),
    "no_daemon": (503, N_("No daemon answered; what was asked for will not be done")),
}


class Problem(Exception):
    """An error to be answered. `members` are added to it; they must not hold secrets."""

    def __init__(self, code: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(code)
        self.code = code
        self.headers = dict(headers or {})
        self.members = members


def handle(app: Flask) -> None:
    """Answer every error: below /api/ as problem details, elsewhere as {"error": code}, to a browser as a page."""

    @app.errorhandler(Problem)
    def problem(error: Problem) -> AnyResponse:
        return _reply(error.code, headers=error.headers, **error.members)

    @app.errorhandler(NavKeeperError)
    def refused(error: NavKeeperError) -> AnyResponse:
        log.error("%s: %s: %s", request.path, error.code, error)
        return _reply(error.code if error.code in CODES else "internal_error")

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> AnyResponse:
        code = error.name.lower().replace(" ", "_")
        allowed = {name: value for name, value in error.get_headers() if name == "Allow"}
        return _reply(code, error.code or 500, error.name, allowed)

    @app.errorhandler(Exception)
    def broken(error: Exception) -> AnyResponse:
        log.error("%s failed", request.path, exc_info=error)
        return _reply("internal_error")


def _reply(
    code: str,
    status: int = 500,
    title: str = "",
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> AnyResponse:
    status, title = CODES.get(code, (status, title or CODES["internal_error"][1]))
    if _wants_page():
        return _page(code, status, title, headers or {}, members.get("detail", ""))
    if not request.path.startswith(API):
        body: dict[str, Any] = {"error": code}
        kind = "application/json"
    else:
        named = {"type": f"urn:navkeeper:problem:{code}", "title": title, "status": status, "code": code}
        body, kind = {**named, **members}, MEDIA_TYPE
    return Response(json.dumps(body, default=str), status, dict(headers or {}), content_type=kind)


def _wants_page() -> bool:
    return not request.path.startswith(API) and "text/html" in request.headers.get("Accept", "")


def _page(code: str, status: int, title: str, headers: Mapping[str, str], detail: str) -> AnyResponse:
    if code == "token_missing" and request.method == "GET":
        return redirect(f"/login?{urlencode({'next': request.full_path.removesuffix('?')})}")
    text = render_template("problem.html", code=code, title=title, detail=detail)
    return Response(text, status, dict(headers))
