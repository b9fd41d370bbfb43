"""Our own style sheet and scripts, and plotly's from its installed package: nothing comes from elsewhere."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path

from flask import Response, request, send_file

from scheduler.web.problems import Problem

STATIC = Path(__file__).parent / "static"
PLOTLY = "plotly.min.js"
FILES = ("site.css", "live.js", "charts.js", PLOTLY)
FOR_GOOD = "public, max-age=31536000, immutable"


@cache
def _path(name: str) -> Path:
    if name != PLOTLY:
        return STATIC / name
    return Path(str(distribution("plotly").locate_file(f"plotly/package_data/{PLOTLY}")))


@cache
def _digest(name: str) -> str:
    return sha256(_path(name).read_bytes()).hexdigest()[:16]


def asset(name: str) -> str:
    """The address of a file, which changes with what is in it."""
    return f"/static/{name}?v={_digest(name)}"


@cache
def plotly_id() -> str:
    """The id of the inline style sheet that plotly adds for its maps unless an element of that id is there.

    Our pages forbid inline styles, and have no maps: its own <script> bears the id. Empty where it adds none.
    """
    found = re.search(
        r'document\.getElementById\("([0-9a-f]{64})"\)', _path(PLOTLY).read_text(encoding="utf-8")
    )
    return found[1] if found is not None else ""


def serve(name: str) -> Response:
    if name not in FILES:
        raise Problem("not_found")
    response = send_file(_path(name), etag=_digest(name), conditional=True)
    named = request.args.get("v") == _digest(name)
    response.headers["Cache-Control"] = FOR_GOOD if named else "no-cache"
    return response
