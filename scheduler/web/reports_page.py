"""The reports that the nights and weeks have written, as they are on disk: each one file that needs nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flask import Response

from scheduler.web.problems import Problem

if TYPE_CHECKING:
    from scheduler.web.site import Site

KINDS = ("quality", "weekly")  # folders below logs/
# They bring their style with them, and no script.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def show_report(site: Site, kind: str, day: str) -> Response:
    known = kind in KINDS and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", day)
    if site.logs is None or not known:
        raise Problem("not_found")
    try:
        text = (site.logs / kind / f"{day}.html").read_bytes()
    except OSError:
        raise Problem("not_found") from None
    return Response(
        text, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY}
    )
