"""The overview: how fresh the data are, what ran and what comes next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import g, request

from core import db
from core.trading_calendar import load_calendar
from scheduler import listing
from scheduler.coverage import coverage_by_type
from scheduler.overview import Overview, collect_overview
from scheduler.quality_text import category_name
from scheduler.web import alerts_page
from scheduler.web.sessions import shown_cookie
from scheduler.web.timeline import timeline
from scheduler.wording import place, say

if TYPE_CHECKING:
    from scheduler.listing import Record
    from scheduler.web.api import Api
    from scheduler.web.site import Site

SPARKS = 10
RUNS_SHOWN = 20


class Look(NamedTuple):
    """What the database said at one moment, and the pages made of it by what makes them differ."""

    seen: Overview
    recent: dict[str, list[Record]]
    coverage: list[Record]
    pages: dict[tuple[str, ...], str]


def look(api: Api) -> Look:
    """Raises DatabaseUnavailable, SchemaOutdated."""
    seen = collect_overview(api.engine, api.jobs, api.clock())
    names = [rate.job for rate in seen.success_7d]
    recent = listing.recent_runs(api.engine, names, seen.now, SPARKS)
    return Look(seen, recent, _coverage(api, seen), {})


def overview(site: Site) -> str:
    """Made once for all who would get the same of one look at the database."""
    found = site.look()
    differs = (site.language, str(g.get("role")), shown_cookie() or "", request.full_path)
    if differs not in found.pages:
        found.pages[differs] = _page(site, found)
    return found.pages[differs]


def _page(site: Site, found: Look) -> str:
    seen, _ = found.seen, site.translate
    return site.render(
        "overview.html",
        seen=seen,
        reasons=[(reason.state, say(reason, _)) for reason in seen.verdict.reasons],
        command=_command(site, seen),
        alerts=[alerts_page.shown(record, site) for record in seen.alerts],
        times=timeline(seen.chain, site.api.jobs, seen.chain_date, seen.now),
        coverage=[record | {"name": category_name(record["category"], _)} for record in found.coverage],
        runs=seen.runs_24h[:RUNS_SHOWN],
        sparks={job: _spark(runs) for job, runs in found.recent.items()},
        coming={run.job: run for run in seen.next_runs},
        place=place,
    )


def _command(site: Site, seen: Overview) -> str:
    setting = "" if site.home is None else f"NAVKEEPER_HOME={shlex.quote(str(site.home))} "
    return setting + seen.next_command


def _coverage(api: Api, seen: Overview) -> list[Record]:
    """By fund type, on the newest date there is."""
    day = seen.table("fund_nav").newest_date
    if day is None:
        return []
    with db.read(api.engine) as connection:
        calendar = load_calendar(connection)
        if calendar is None or day < calendar.sessions[0] or not calendar.is_session(day):
            return []
        found = coverage_by_type(connection, calendar, day)
    return [record | {"share": record["published"] / record["expected"]} for record in found]


def _spark(runs: list[Record]) -> list[dict[str, Any]]:
    """Each run's state, seconds and height in percent of the longest."""
    longest = max((run["seconds"] or 0 for run in runs), default=0) or 1
    return [run | {"height": round(100 * (run["seconds"] or 0) / longest, 1)} for run in runs]
