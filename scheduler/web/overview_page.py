"""The overview: how fresh the data are, what ran and what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.web.site import Site


def overview(site: Site) -> str:
    return site.render("overview.html")
