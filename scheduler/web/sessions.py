"""Who has logged in with a browser: opaque cookies, of which only hashes are kept, in a file that outlives the server.

A session stands for the token it was begun with: it may what that token may, and ends when the token is replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from flask import request
from pydantic import Field, TypeAdapter
from werkzeug.wrappers import Response

from core.errors import NavKeeperError

COOKIE = "navkeeper_session"
LIFE = timedelta(days=7)
MOST = 1000  # kept at once
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Kept = dict[Hash, tuple[Hash, str]]  # of the cookie -> of the token, end in ISO 8601
FILE = TypeAdapter(Kept)


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


class Sessions:
    """Without a `path` they are forgotten with the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._kept: Kept = {}

    def begin(self, token_hash: str, now: datetime) -> str:
        """A new session; its cookie. Raises NavKeeperError where it cannot be kept."""
        cookie = secrets.token_urlsafe(32)
        with self._alone():
            kept = {key: value for key, value in self._read().items() if value[1] > now.isoformat()}
            newest = list(kept.items())[-(MOST - 1) :]
            self._write(dict(newest) | {_hash(cookie): (token_hash, (now + LIFE).isoformat())})
        return cookie

    def token_hash(self, cookie: str, now: datetime) -> str | None:
        """The hash of the token behind a cookie, None for one that is not known or over."""
        found = self._read().get(_hash(cookie))
        return found[0] if found is not None and now.isoformat() < found[1] else None

    def end(self, cookie: str) -> None:
        with self._alone():
            kept = self._read()
            if kept.pop(_hash(cookie), None) is not None:
                self._write(kept)

    def _read(self) -> Kept:
        if self._path is None:
            return self._kept
        try:
            return FILE.validate_json(self._path.read_bytes())
        except (OSError, ValueError):  # none yet, or not ours: everybody logs in again
            return {}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the sessions meanwhile: no thread, and no other server of this home."""
        with self._lock, contextlib.ExitStack() as held:
            if self._path is not None:
                try:
                    path = self._path.with_name(f"{self._path.name}.lock")
                    fcntl.flock(held.enter_context(path.open("a")), fcntl.LOCK_EX)
                except OSError as error:
                    raise NavKeeperError(f"{self._path} cannot be locked: {error.strerror}") from None
            yield

    def _write(self, kept: Kept) -> None:
        if self._path is None:
            self._kept = kept
            return
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        try:
            with open(
                fresh, "w", encoding="ascii", opener=lambda name, how: os.open(name, how, 0o600)
            ) as file:
                json.dump(kept, file)
            fresh.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise NavKeeperError(f"{self._path} cannot be written: {error.strerror}") from None


def shown_cookie() -> str | None:
    return request.cookies.get(COOKIE)


def set_cookie(response: Response, cookie: str) -> None:
    response.set_cookie(COOKIE, cookie, httponly=True, samesite="Strict", secure=request.is_secure)


def form_token(cookie: str) -> str:
    """What a form of ours carries, and what another site cannot know."""
    return _hash(f"form {cookie}")


def form_is_ours() -> bool:
    """Whether the form that was sent carries the token of the cookie that came with it."""
    cookie, shown = shown_cookie(), request.form.get("form_token", "")
    return cookie is not None and hmac.compare_digest(form_token(cookie).encode(), shown.encode())
