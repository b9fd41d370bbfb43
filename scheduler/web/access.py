"""Who may ask what: by the token shown, the host asked for and the page it is asked from.

Reading is open as long as no token is set, and then only on this machine: the server refuses another address.
Acting always needs the admin token, so that a further user of this machine cannot.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from core.errors import ConfigurationError
from scheduler.web.problems import Problem
from scheduler.web.sessions import Sessions, form_is_ours, shown_cookie

if TYPE_CHECKING:
    from config.settings import Settings
    from scheduler.clock import Clock

log = logging.getLogger(__name__)
SAFE = ("GET", "HEAD", "OPTIONS")
LARGEST_BODY = 16 * 1024
LARGEST_HEAD = 32 * 1024
FAILURES, WINDOW = 10, timedelta(minutes=1)
ADDRESSES = 10_000  # kept in mind at once
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Pages load what is ours and nothing else: no inline script or style, no other host. With no-referrer browsers would
# send "Origin: null" with our own forms.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}
View = TypeVar("View", bound=Callable[..., object])


class Role(IntEnum):
    ANYONE = 0
    VIEWER = 1
    ADMIN = 2


@dataclass(frozen=True)
class Access:
    """The tokens' SHA-256 in hexadecimal, and the names by which the server may be asked for beside its addresses."""

    viewer_hash: str | None = None
    admin_hash: str | None = None
    hosts: frozenset[str] = frozenset({"localhost"})

    @property
    def has_tokens(self) -> bool:
        return bool(self.viewer_hash or self.admin_hash)

    def role_of(self, token: str) -> Role | None:
        """What the token allows; None for one that is not known."""
        return self.role_behind(token_hash(token))

    def role_behind(self, shown: str) -> Role | None:
        """The same by the token's hash. Takes as long whatever is shown."""
        known = ((self.admin_hash, Role.ADMIN), (self.viewer_hash, Role.VIEWER))
        roles = [role for kept, role in known if hmac.compare_digest(kept or "", shown)]
        return max(roles, default=None)

    def trusts(self, host: str) -> bool:
        """Whether the Host header names us: an address always does, since a page that had its own name point here
        (DNS rebinding) sends that name."""
        name = (urlsplit(f"//{host}").hostname or "") if host else ""
        return name in self.hosts or _address(name) is not None


OPEN = Access()


def new_token() -> str:
    """A fresh token of 256 random bits: long enough that a plain hash of it can be kept."""
    return f"nk_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def access_of(settings: Settings, host: str) -> Access:
    """Who may ask a server that listens on `host`. Raises ConfigurationError for one open to others without a token."""
    viewer, admin = settings.viewer_token_hash, settings.admin_token_hash
    if not (viewer or admin) and not _is_loopback(host):
        raise ConfigurationError(
            f"NAVKEEPER_HEALTH_HOST = {host!r} is not allowed without a token, since others could read: "
            "make one with python main.py token, or listen on 127.0.0.1"
        )
    return Access(viewer, admin, frozenset({"localhost", host.lower(), *settings.trusted_hosts}))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    """A name that does not resolve counts as such: the server will say that it cannot listen there."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return host != "*"
    addresses = [_address(str(item[4][0])) for item in found]
    return all(address is not None and address.is_loopback for address in addresses)


def allow(role: Role) -> Callable[[View], View]:
    """Mark a view with who may ask for it; one without a mark is the admin's alone."""

    def mark(view: View) -> View:
        vars(view)["role"] = role
        return view

    return mark


def role_needed(app: Flask, endpoint: str) -> Role:
    role = vars(app.view_functions[endpoint]).get("role", Role.ADMIN)
    assert isinstance(role, Role)  # noqa: S101 - for the type checker
    return role


def guard(app: Flask, access: Access, clock: Clock, sessions: Sessions, failures: Failures) -> None:
    """Have every request checked before it is served, and every reply carry the headers that browsers heed."""
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False

    @app.before_request
    def check() -> None:
        if not access.trusts(request.host):
            raise Problem("untrusted_host")
        if request.endpoint is None:  # no such path, or no such method of it: said to anyone
            return
        needed = role_needed(app, request.endpoint)
        if request.method not in SAFE and _is_foreign(request.headers.get("Origin"), request.host):
            raise Problem("cross_origin")
        if needed is not Role.ANYONE:
            g.role = _role(access, sessions, failures, needed, clock())

    @app.after_request
    def harden(response: Response) -> Response:
        page = PAGE_HEADERS if response.mimetype == "text/html" else {}
        for name, value in (HEADERS | page).items():
            response.headers.setdefault(name, value)
        return response


def _is_foreign(origin: str | None, host: str) -> bool:
    return origin is not None and origin.partition("://")[2].lower() != host.lower()


def _role(access: Access, sessions: Sessions, failures: Failures, needed: Role, now: datetime) -> Role:
    """The role of who asks. Raises Problem where it does not suffice."""
    if not access.has_tokens:
        if needed is Role.VIEWER:
            return Role.VIEWER
        raise Problem("no_admin_token")
    shown = request.authorization
    token = shown.token if shown is not None and shown.type == "bearer" else None
    role = token_role(access, failures, token, now) if token else session_role(access, sessions, now)
    if role is None:
        refuse_guesses(failures, now)
        raise Problem("token_missing", headers={"WWW-Authenticate": 'Bearer realm="navkeeper"'})
    if role < needed:
        raise Problem("forbidden" if access.admin_hash else "no_admin_token")
    if not token and request.method not in SAFE and not form_is_ours():
        raise Problem("form_expired")
    return role


def session_role(access: Access, sessions: Sessions, now: datetime) -> Role | None:
    """What who has logged in may do; None where nobody has."""
    cookie = shown_cookie()
    behind = None if cookie is None else sessions.token_hash(cookie, now)
    return None if behind is None else access.role_behind(behind)


def token_role(access: Access, failures: Failures, token: str, now: datetime) -> Role:
    """What the token allows. Raises Problem for one that is not known, and for any after too many such."""
    refuse_guesses(failures, now)
    role = access.role_of(token)
    if role is None:
        address = request.remote_addr or ""
        failures.note(address, now)
        log.warning("a token that is not known, from %s for %s", address, request.path)
        wrong = 'Bearer realm="navkeeper", error="invalid_token"'
        raise Problem("token_unknown", headers={"WWW-Authenticate": wrong})
    return role


def who(by: str) -> str:
    """For the audit: by which door, in which role, from where."""
    return f"{by}:{g.role.name.lower()}@{request.remote_addr}"


def refuse_guesses(failures: Failures, now: datetime) -> None:
    if failures.too_many(request.remote_addr or "", now):
        raise Problem("too_many_failures", headers={"Retry-After": str(int(WINDOW.total_seconds()))})


class Failures:
    """Wrong tokens of late, by address."""

    def __init__(self) -> None:
        self._seen: dict[str, list[datetime]] = {}
        self._lock = threading.Lock()

    def too_many(self, address: str, now: datetime) -> bool:
        with self._lock:
            return len(self._recent(address, now)) >= FAILURES

    def note(self, address: str, now: datetime) -> None:
        with self._lock:
            recent = self._recent(address, now)
            self._seen.pop(address, None)
            if len(self._seen) >= ADDRESSES:
                self._seen.pop(next(iter(self._seen)))  # who failed longest ago
            self._seen[address] = [*recent, now]

    def _recent(self, address: str, now: datetime) -> list[datetime]:
        """A clock that was set back does not lock anybody out for longer."""
        return [at for at in self._seen.get(address, ()) if now - WINDOW < at <= now]
