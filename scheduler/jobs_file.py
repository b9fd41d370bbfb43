"""config/jobs.toml -> jobs. A wrong file stops the program, naming job, key and value."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from core.errors import ConfigurationError, EventRefused
from scheduler.catch_up import CatchUp
from scheduler.events import check_wanted
from scheduler.job import Job
from scheduler.retry import RetryPolicy
from scheduler.schedule import Schedule

JOBS_FILE = Path(__file__).resolve().parents[1] / "config" / "jobs.toml"
LARGEST = 1_000_000
LONGEST_NAME = 64
LONGEST_WINDOW_DAYS = 400
DEFAULTS: dict[str, Any] = {
    "calendar": None,
    "business_date": "session",
    "needs": [],
    "wait_hours": 12,
    "timeout_minutes": 60,
    "params": {},
    "retry": {},
    "catch_up": {},
    "latest_only": False,
    "eager": False,
    "silent_minutes": 30,
    "kill_silent": False,
    "timezone": "Asia/Shanghai",
    "on_event": [],
}
NEVER = {"year": 1970}  # the times of a job that only waits for events


def load_jobs(path: Path) -> dict[str, Job]:
    """Jobs by id, those needed before those that need them. Raises ConfigurationError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    jobs = {name: _job(name, table, path) for name, table in document.items()}
    return _in_order(jobs, path)


def _job(name: str, table: Any, path: Path) -> Job:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path.name}: {name} must be a table such as [{name}]")
    values = DEFAULTS | ({"cron": NEVER} if table.get("on_event") else {}) | table
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(f"{path.name}: [{name}] is too long a name: at most {LONGEST_NAME} letters")
    for key, allowed, fits in CHECKS:
        if not fits(values.get(key)):
            raise _refusal(path, name, key, values.get(key), allowed)
    for key in table:
        if key not in DEFAULTS and key not in ("task", "cron"):
            raise _refusal(
                path, name, key, table[key], f"unknown key; known are task, cron, {', '.join(DEFAULTS)}"
            )
    try:
        schedule = Schedule.of(values["cron"], ZoneInfo(values["timezone"]))
    except (ValueError, TypeError) as error:
        raise _refusal(path, name, "cron", values["cron"], str(error)) from None
    return Job(
        id=name,
        task=values["task"],
        schedule=schedule,
        business_date=values["business_date"],
        holidays_off=values["calendar"] == "XSHG",
        needs=tuple(values["needs"]),
        wait_hours=float(values["wait_hours"]),
        timeout_minutes=float(values["timeout_minutes"]),
        params=json.loads(json.dumps(values["params"], default=str)),  # TOML has dates, JSON has texts
        retry=RetryPolicy(**values["retry"]),
        catch_up=CatchUp(**values["catch_up"]),
        latest_only=values["latest_only"],
        eager=values["eager"],
        silent_minutes=float(values["silent_minutes"]),
        kill_silent=values["kill_silent"],
        on_event=tuple(values["on_event"]),
    )


def _refusal(path: Path, name: str, key: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{path.name}: [{name}] {key} = {value!r} is not allowed: {allowed}")


def _positive(value: object) -> bool:
    """A number over 0; anything above the largest has no meaning here, and instants cannot be reckoned with it."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LARGEST


def _whole(value: object) -> bool:
    return _positive(value) and isinstance(value, int)


def _retry(value: object) -> bool:
    known = {field.name for field in fields(RetryPolicy)} - {"spent"}
    if not isinstance(value, dict) or not value.keys() <= known or not _whole(value.get("attempts", 1)):
        return False
    return all(_positive(part) for part in value.values())


def _catch_up(value: object) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {field.name for field in fields(CatchUp)}:
        return False
    days = value.get("days", 1)
    if not _whole(value.get("cap", 1)) or not _positive(days) or days > LONGEST_WINDOW_DAYS:
        return False
    return value.get("policy", "all") in ("all", "last", "none")


def _cron(value: object) -> bool:
    """Fields alone: with a jitter every look would find other instants, and each would be a run."""
    if not isinstance(value, dict) or not value.keys() <= set(CronTrigger.FIELD_NAMES):
        return False
    return not any(ch.isdigit() for ch in str(value.get("day_of_week", "")))


def _zone(value: object) -> bool:
    try:
        return isinstance(value, str) and ZoneInfo(value) is not None
    except (KeyError, ValueError, OSError):  # unknown; a path; a folder
        return False


def _topics(value: object) -> bool:
    """Of what is no topic the refusal says what there is."""
    if not isinstance(value, list) or not all(isinstance(wanted, str) for wanted in value):
        return False
    try:
        for wanted in value:
            check_wanted(wanted)
    except EventRefused:
        return False
    return True


CHECKS: tuple[tuple[str, str, Callable[[object], bool]], ...] = (
    ("task", "the name of a task", lambda value: isinstance(value, str)),
    (
        "cron",
        "a table such as { day_of_week = 'mon-fri', hour = 19, minute = 0 }; weekdays by name,"
        " since numbers mean different days to different programs",
        _cron,
    ),
    ("calendar", '"XSHG", or left out for every day', lambda value: value in (None, "XSHG")),
    (
        "business_date",
        '"session", "last_session" or "previous_session"',
        lambda value: value in ("session", "last_session", "previous_session"),
    ),
    (
        "needs",
        "a list of job names",
        lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    ),
    ("wait_hours", "a number over 0", _positive),
    ("timeout_minutes", "a number over 0", _positive),
    (
        "retry",
        "numbers over 0 for attempts, base_seconds, cap_seconds, total_minutes",
        _retry,
    ),
    ("catch_up", "policy = 'all', 'last' or 'none', days (400 at most) and a whole cap over 0", _catch_up),
    ("latest_only", "true or false", lambda value: isinstance(value, bool)),
    ("eager", "true or false", lambda value: isinstance(value, bool)),
    ("silent_minutes", "a number over 0", _positive),
    ("kill_silent", "true or false", lambda value: isinstance(value, bool)),
    ("timezone", "a zone such as 'Asia/Shanghai'", _zone),
    (
        "on_event",
        "a list of topics such as 'data.nav.merged', 'quality.*' or '<plugin id>.*'; docs/events.md has them",
        _topics,
    ),
    ("params", "a table", lambda value: isinstance(value, dict)),
)


def _in_order(jobs: dict[str, Job], path: Path) -> dict[str, Job]:
    ordered: dict[str, Job] = {}
    waiting = dict(jobs)
    while waiting:
        ready = next((job for job in waiting.values() if all(need in ordered for need in job.needs)), None)
        if ready is None:
            job = next(iter(waiting.values()))
            missing = [need for need in job.needs if need not in jobs]
            what = f"unknown job {missing[0]!r}" if missing else "a cycle"
            raise ConfigurationError(
                f"{path.name}: [{job.id}] needs = {list(job.needs)!r} is not allowed: {what}"
            )
        ordered[ready.id] = waiting.pop(ready.id)
    return ordered
