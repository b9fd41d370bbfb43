"""Logging in with a token, and out again."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from flask import Response, make_response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from scheduler.web.access import token_hash, token_role
from scheduler.web.problems import CODES, Problem
from scheduler.web.sessions import COOKIE, form_is_ours, form_token, set_cookie, shown_cookie

if TYPE_CHECKING:
    from scheduler.web.site import Site

HOME = "/"


def ask_token(site: Site) -> AnyResponse:
    return _form(site)


def log_in(site: Site) -> AnyResponse:
    """A cookie for a token. Raises Problem after too many wrong ones."""
    if not form_is_ours():
        raise Problem("form_expired")
    token, now = request.form.get("token", "").strip(), site.clock()
    try:
        token_role(site.access, site.failures, token, now)
    except Problem as problem:
        return _form(site, problem.code)
    response = redirect(_local(request.form.get("next", "")), 303)
    set_cookie(response, site.sessions.begin(token_hash(token), now))
    return response


def log_out(site: Site) -> AnyResponse:
    if not form_is_ours():
        raise Problem("form_expired")
    cookie = shown_cookie()
    if cookie is not None:
        site.sessions.end(cookie)
    response = redirect(HOME, 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="Strict")
    return response


def _form(site: Site, problem: str | None = None) -> Response:
    """The form, tied to a cookie that stands for nobody yet where there is none."""
    cookie = shown_cookie() or secrets.token_urlsafe(32)
    status, title = CODES[problem] if problem else (200, "")
    then = _local(request.values.get("next", ""))
    text = site.render("login.html", problem=title, then=then, login_token=form_token(cookie))
    response = make_response(text, status)
    set_cookie(response, cookie)
    return response


def _local(path: str) -> str:
    """A path of this site, never the address of another."""
    return path if re.fullmatch(r"/(?![/\\])[!-~]*", path) else HOME
