"""The overview: how fresh the data are, what ran and what comes next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from core import db
from core.trading_calendar import load_calendar
from scheduler import listing
from scheduler.coverage import coverage_by_type
from scheduler.overview import Overview, collect_overview
from scheduler.quality_text import category_name
from scheduler.web.timeline import timeline
from scheduler.wording import place, say

if TYPE_CHECKING:
    from scheduler.listing import Record
    from scheduler.web.site import Site

SPARKS = 10
RUNS_SHOWN = 20


def overview(site: Site) -> str:
    api, _ = site.api, site.translate
    seen = collect_overview(api.engine, api.jobs, site.clock())
    recent = listing.recent_runs(api.engine, [rate.job for rate in seen.success_7d], seen.now, SPARKS)
    return site.render(
        "overview.html",
        seen=seen,
        reasons=[(reason.state, say(reason, _)) for reason in seen.verdict.reasons],
        command=_command(site, seen),
        times=timeline(seen.chain, api.jobs, seen.chain_date, seen.now),
        coverage=_coverage(site, seen),
        runs=seen.runs_24h[:RUNS_SHOWN],
        sparks={job: _spark(runs) for job, runs in recent.items()},
        coming={run.job: run for run in seen.next_runs},
        place=place,
    )


def _command(site: Site, seen: Overview) -> str:
    setting = "" if site.home is None else f"NAVKEEPER_HOME={shlex.quote(str(site.home))} "
    return setting + seen.next_command


def _coverage(site: Site, seen: Overview) -> list[dict[str, Any]]:
    """By fund type, on the newest date there is."""
    day = seen.table("fund_nav").newest_date
    if day is None:
        return []
    with db.read(site.api.engine) as connection:
        calendar = load_calendar(connection)
        if calendar is None or not calendar.sessions[0] <= day or not calendar.is_session(day):
            return []
        found = coverage_by_type(connection, calendar, day)
    return [
        record
        | {"name": category_name(record["category"], site.translate)}
        | {"share": record["published"] / record["expected"]}
        for record in found
    ]


def _spark(runs: list[Record]) -> list[dict[str, Any]]:
    """Each run's state, seconds and height in percent of the longest."""
    longest = max((run["seconds"] or 0 for run in runs), default=0) or 1
    return [run | {"height": round(100 * (run["seconds"] or 0) / longest, 1)} for run in runs]
