"""Whether all is well, for those who ask over HTTP: pure decisions on what was seen, and two ways to write them.

A reply of 503 says that somebody has to act: restart a process, run a command. What mends itself, such as a late
night, is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import DatabaseUnavailable, NavKeeperError
from core.trading_calendar import SHANGHAI
from scheduler.overview import Overview
from scheduler.verdict import Freshness, Reason

PASS, WARN, FAIL = LEVELS = ("pass", "warn", "fail")  # better to worse
MEDIA_TYPE = "application/health+json"
REASONS = {  # every code that a verdict gives for something being the matter: how bad it is
    "batch_rejected": FAIL,
    "job_failed": FAIL,  # no attempt is left
    "job_blocked": FAIL,
    "no_calendar": FAIL,
    "calendar_ends": FAIL,
    "daemon_absent": FAIL,
    "daemon_stopped": FAIL,
    "daemon_gone": FAIL,
    "heartbeat_old": FAIL,
    "no_data": WARN,
    "behind": WARN,
    "not_calculated": WARN,
    "thin": WARN,
    "gap": WARN,
    "partial": WARN,
    "quarantined": WARN,
}
WELL = ("fresh", "job_running")  # and the codes of what is not the matter


@dataclass(frozen=True)
class Health:
    """`status` is the worst level of `reasons`; `seen` is None where nothing could be read, `error` says why."""

    now: datetime
    status: str
    reasons: tuple[str, ...]  # codes, worst first
    seen: Overview | None
    error: NavKeeperError | None = None

    @property
    def http_status(self) -> int:
        return 503 if self.status == FAIL else 200


def health_of(seen: Overview, now: datetime) -> Health:
    codes = dict.fromkeys(reason.code for reason in seen.verdict.reasons if reason.code not in WELL)
    status = max((REASONS[code] for code in codes), key=LEVELS.index, default=PASS)
    reasons = sorted(codes, key=lambda code: -LEVELS.index(REASONS[code]))
    return Health(now, status, tuple(reasons), seen)


def unreadable(error: NavKeeperError, now: datetime) -> Health:
    return Health(now, FAIL, (error.code,), None, error)


def plain_body(health: Health) -> dict[str, Any]:
    """What /health answers.

    `today_nav_count` counts the funds of the newest business date: the expected one, or a newer
    one as soon as rows of it have arrived.
    """
    body: dict[str, Any] = {
        "status": "unhealthy" if health.status == FAIL else "healthy",
        "database": "disconnected" if isinstance(health.error, DatabaseUnavailable) else "connected",
        "today_nav_count": None,
        "timestamp": shanghai(health.now),
        "daemon": "unknown",
        "expected_date": None,
        "newest_date": None,
        "reasons": list(health.reasons),
    }
    seen = health.seen
    if seen is None:
        return body
    nav, expected = seen.table("fund_nav"), seen.expected_date
    late = expected is not None and (nav.newest_date is None or nav.newest_date < expected)
    return body | {
        "today_nav_count": 0 if late else nav.rows,
        "daemon": "running" if seen.daemon.running else "stopped",
        "expected_date": expected.isoformat() if expected else None,
        "newest_date": nav.newest_date.isoformat() if nav.newest_date else None,
    }


def standard_body(health: Health) -> dict[str, Any]:
    """The same as application/health+json, as draft-inadarei-api-health-check-06 has it."""
    checks: dict[str, dict[str, Any]] = {"database:connectivity": {"componentType": "datastore"}}
    if health.error is not None:
        checks["database:connectivity"] |= {"status": FAIL, "output": health.error.code}
    if health.seen is not None:
        checks |= _checks(health.seen)
        for reason in health.seen.verdict.reasons:
            if reason.code not in WELL:
                _mark(checks.setdefault(_check_of(reason), {}), reason.code)
    time = {"time": shanghai(health.now)}
    listed = {name: [{"status": PASS} | check | time] for name, check in checks.items()}
    return {
        "status": health.status,
        "serviceId": "navkeeper",
        "notes": list(health.reasons),
        "checks": listed,
    }


def short_body(reasons: tuple[str, ...], *, standard: bool) -> dict[str, Any]:
    """Of /health/live and /health/ready: codes and nothing else."""
    if standard:
        return {"status": FAIL if reasons else PASS, "notes": list(reasons)}
    return {"status": "unhealthy" if reasons else "healthy", "reasons": list(reasons)}


def _checks(seen: Overview) -> dict[str, dict[str, Any]]:
    heart = {"observedValue": seen.daemon.heartbeat_age_seconds, "observedUnit": "s"}
    return {
        "daemon:heartbeat": {"componentType": "component", **heart},
        **dict(_tables(seen.freshness)),
        **{
            f"{step.job}:status": {
                "componentType": "component",
                "observedValue": step.run and step.run.status,
            }
            for step in seen.chain
        },
    }


def _tables(freshness: tuple[Freshness, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in freshness:
        newest = item.newest_date.isoformat() if item.newest_date else None
        kind = {"componentType": "datastore"}
        yield f"{item.table}:newestDate", kind | {"observedValue": newest}
        yield f"{item.table}:rows", kind | {"observedValue": item.rows, "observedUnit": "funds"}


def _mark(check: dict[str, Any], code: str) -> None:
    """The worst of a check's reasons is what it says."""
    if LEVELS.index(REASONS[code]) > LEVELS.index(check.get("status", PASS)):
        check |= {"status": REASONS[code], "output": code}


def _check_of(reason: Reason) -> str:
    if reason.code in ("no_calendar", "calendar_ends"):
        return "calendar:horizon"
    if reason.state == "STOPPED":
        return "daemon:heartbeat"
    if "job" in reason.figures:
        return f"{reason.figures['job']}:status"
    if reason.code in ("batch_rejected", "quarantined"):
        return f"batch:{reason.code}"
    measure = "rows" if reason.code == "thin" else "newestDate"
    return f"{reason.figures.get('table', 'fund_nav')}:{measure}"


def shanghai(instant: datetime) -> str:
    return instant.astimezone(SHANGHAI).isoformat(timespec="seconds")
