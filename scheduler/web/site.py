"""What every page of the site is made from: the API's records, the language asked for, who asks, our own files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from flask import g, render_template, request
from pydantic import BaseModel, ValidationError
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from config.translation import N_, translator
from core.errors import NoDaemon
from scheduler import wording
from scheduler.quality_text import style_of
from scheduler.sections import Cell
from scheduler.web.access import Access, Failures, Role, session_role
from scheduler.web.assets import asset, plotly_id
from scheduler.web.problems import CODES, Problem
from scheduler.web.sessions import Sessions, form_token, shown_cookie

if TYPE_CHECKING:
    from scheduler.cache import Cache
    from scheduler.clock import Clock
    from scheduler.listing import Record
    from scheduler.web.api import Api
    from scheduler.web.overview_page import Look

Asked = TypeVar("Asked", bound=BaseModel)
LANGUAGES = {"zh": "中文", "en": "English"}
OWN_WORDS = ("lang", "command", "problem")  # of a query, on every page
LANGUAGE_COOKIE = "navkeeper_language"
NAVIGATION = (
    ("/", N_("Overview")),
    ("/jobs", N_("Jobs")),
    ("/runs", N_("Runs")),
    ("/quality", N_("Quality")),
    ("/market", N_("Market")),
    ("/funds", N_("Funds")),
    ("/alerts", N_("Alerts")),
)
# Beside its word, so that a state is never told by its colour alone.
SYMBOLS = {
    **dict.fromkeys(("OK", "SUCCESS", "DONE", "MERGED", "RELEASED"), "✓"),
    **dict.fromkeys(("FAILED", "FAILURE", "TIMED_OUT", "INTERRUPTED", "REFUSED", "REJECTED"), "✗"),
    **dict.fromkeys(("LATE", "INCOMPLETE", "PARTIAL", "HELD", "EMPTY", "STOPPED", "MISSED"), "!"),
    "RUNNING": "▶",
    **dict.fromkeys(("WAITING", "QUEUED", "PENDING", "STAGED", "UNFINISHED"), "…"),
    **dict.fromkeys(("BLOCKED", "CANCELLED", "EXPIRED"), "⊘"),
    **dict.fromkeys(("SKIPPED", "SUPERSEDED", "COMPARED"), "–"),
    **dict.fromkeys(("UP", "DOWN"), ""),  # their numbers have signs
}


@dataclass(frozen=True)
class Site:
    """The pages' part of the application. `home`: see JobMonitor."""

    api: Api
    access: Access
    sessions: Sessions
    failures: Failures
    look: Callable[[], Look]  # at the database, for the overview
    cache: Cache
    default_language: str = "zh"
    home: Path | None = None
    logs: Path | None = None  # where the nights and weeks write their reports

    @property
    def clock(self) -> Clock:
        return self.api.clock

    @property
    def language(self) -> str:
        """As ?lang= says, else as it said last, else the setting."""
        asked = request.args.get("lang") or request.cookies.get(LANGUAGE_COOKIE) or ""
        return asked if asked in LANGUAGES else self.default_language

    @property
    def translate(self) -> wording.Translate:
        return _translator(self.language)

    def render(self, template: str, **values: Any) -> str:
        return render_template(template, notice=self._notice(), **values)

    def reports(self, kind: str, newest: int) -> list[str]:
        """The dates of the newest reports of a kind, newest first."""
        folder = self.logs / kind if self.logs is not None else None
        if folder is None or not folder.is_dir():
            return []
        return sorted((path.stem for path in folder.glob("????-??-??.html")), reverse=True)[:newest]

    def asked(self, model: type[Asked], **path: str) -> Asked:
        """What the query and the path ask for, fields left empty left out. Raises Problem."""
        given = {name: value for name, value in request.args.items() if value and name not in OWN_WORDS}
        try:
            return model.model_validate(given | path)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_url=False, include_context=False, include_input=False)
            )
            raise Problem("invalid_request", detail=wrong) from None

    def act(self, back: str, action: str, **what: Any) -> Response:
        """Have the daemon do it, then show its answer on the page `back`, where a reload does not ask again.

        What was triggered is shown on its run's page.
        """
        try:
            command = self.api.ask(action, by="web", **what)
        except NoDaemon as error:
            return redirect(f"{back}?{urlencode({'problem': error.code})}", 303)
        except Problem as problem:
            if problem.code != "refused":
                raise
            command = {"command": problem.members["command"], "run_id": None}
        if action == "trigger" and command["run_id"] is not None:
            back = f"/runs/{command['run_id']}"
        return redirect(f"{back}?{urlencode({'command': command['command']})}", 303)

    def _notice(self) -> Record | None:
        """What came of the command that led here."""
        number, problem = request.args.get("command", ""), request.args.get("problem", "")
        if re.fullmatch(r"[0-9]{1,15}", number):
            return self.api.command(int(number))
        if problem in CODES:
            return {"status": "REFUSED", "answer": self.translate(CODES[problem][1]), "action": None}
        return None


@cache
def _translator(language: str) -> wording.Translate:
    return translator(language)


def keep_language(response: Response) -> Response:
    asked = request.args.get("lang")
    if asked in LANGUAGES:
        response.set_cookie(
            LANGUAGE_COOKIE,
            asked,
            max_age=365 * 86400,
            httponly=True,
            samesite="Strict",
            secure=request.is_secure,
        )
    return response


def words(site: Site) -> dict[str, Any]:
    """What every template may use beside its own values."""
    _ = site.translate
    cookie = shown_cookie()
    return {
        "_": _,
        "notice": None,
        "language": site.language,
        "languages": LANGUAGES,
        "with_language": _with_language,
        "navigation": NAVIGATION,
        "asset": asset,
        "plotly_id": plotly_id,
        "can_act": g.get("role") is Role.ADMIN,
        "logged_in": cookie is not None
        and session_role(site.access, site.sessions, site.clock()) is not None,
        "known_jobs": site.api.jobs,
        "has_tokens": site.access.has_tokens,
        "has_admin_token": site.access.admin_hash is not None,
        "form_token": "" if cookie is None else form_token(cookie),
        "here": request.full_path.removesuffix("?"),
        **_in(_),
        "job_cell": lambda job: wording.job_cell(job, _, _given_name(site, job)),
        "job_name": lambda job: wording.job_name(job, _, _given_name(site, job)),
    }


def _given_name(site: Site, job: str) -> str:
    known = site.api.jobs.get(job)
    return known.name if known is not None else ""


def _with_language(code: str) -> str:
    """The same address in another language, relative so that no path can lead to another host."""
    return f"?{urlencode({**request.args.to_dict(), 'lang': code})}"


def _in(_: wording.Translate) -> dict[str, Callable[..., Any]]:
    """States, instants and figures as wording.py writes them, in one language."""
    return {
        "word": lambda status: _(wording.WORDS.get(status, str(status))),
        "symbol": lambda status: SYMBOLS.get(status, "·"),
        "colour": style_of,
        "duration": lambda seconds: wording.duration(seconds, _),
        "error_text": lambda text: wording.error_text(text, _),
        "one_line": wording.one_line,
        "clock_time": wording.clock_time,
        "day": wording.day,
        "percent": wording.percent,
        "number": wording.number,
        "as_cell": lambda cell: cell if isinstance(cell, Cell) else Cell(cell),
    }
