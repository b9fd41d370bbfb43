"""A job as a table of keys: from config/jobs.toml, or from who makes one at run time. Checked here, for both."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from core.errors import EventRefused, JobRefused
from core.trading_calendar import SHANGHAI
from scheduler.catch_up import CatchUp
from scheduler.condition import ACCEPTED, FORM, Need
from scheduler.crontab import EXAMPLE
from scheduler.events import check_wanted
from scheduler.job import Job
from scheduler.retry import RetryPolicy
from scheduler.schedule import Due, Every, Never, Once, Schedule

LARGEST = 1_000_000
LONGEST_ID, LONGEST_NAME, LONGEST_DESCRIPTION = 64, 100, 500
LONGEST_WINDOW_DAYS = 400
MOST_PARALLEL = 16
LONGEST_PARALLEL_ID = 60  # with the number of its slot it is job_run.active_key
MOST_TOPICS = 20  # each costs a look every second
DEEPEST, LONGEST_SHOWN = 30, 200
TRIGGERS = ("cron", "crontab", "every", "at", "on_event")
SHORTEST, LONGEST_STEP = timedelta(minutes=1), timedelta(days=366)
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
HOME = "XSHG"
FROM_THE_FILE = "2000-01-01T00:00"  # what intervals are counted from unless told
DEFAULTS: dict[str, Any] = {
    "name": "",
    "description": "",
    "cron": None,
    "crontab": None,
    "every": None,
    "anchor": FROM_THE_FILE,
    "at": None,
    "on_event": [],
    "calendar": None,
    "business_date": "session",
    "needs": [],
    "fresh": None,
    "wait_hours": 12,
    "timeout_minutes": 60,
    "max_parallel": 1,
    "params": {},
    "retry": {},
    "catch_up": {},
    "latest_only": False,
    "eager": False,
    "silent_minutes": 30,
    "kill_silent": False,
    "timezone": "Asia/Shanghai",
}
KEYS = ("task", *DEFAULTS)


def job_of(job_id: str, table: Mapping[str, Any]) -> Job:
    """The job that the table defines. Raises JobRefused naming the key; that needs and task exist is not looked at."""
    given = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in table.items()}
    values = DEFAULTS | given  # TOML has instants, JSON has texts
    for key, value in given.items():
        if _depth(value) > DEEPEST:
            raise JobRefused(key, f"{key} is not allowed: over {DEEPEST} tables and lists in each other")
    if len(job_id) > LONGEST_ID:
        raise JobRefused("job", f"is too long a name: at most {LONGEST_ID} letters")
    for key in table:
        if key not in KEYS:
            raise refusal(key, table[key], f"unknown key; known are {', '.join(KEYS)}")
    for key, allowed, fits in CHECKS:
        if not fits(values.get(key)):
            raise refusal(key, values.get(key), allowed)
    if values["max_parallel"] > 1 and len(job_id) > LONGEST_PARALLEL_ID:
        allowed = f"only 1, for the job's name has over {LONGEST_PARALLEL_ID} letters"
        raise refusal("max_parallel", values["max_parallel"], allowed)
    needs = _needs(values["needs"])
    default = {"policy": "last"} if values["every"] else {}
    return Job(
        id=job_id,
        task=values["task"],
        schedule=_schedule(values),
        business_date=values["business_date"],
        holidays_off=values["calendar"] is not None,
        needs=tuple(needs),
        wait_hours=float(values["wait_hours"]),
        timeout_minutes=float(values["timeout_minutes"]),
        params=json.loads(json.dumps(values["params"], default=str)),
        retry=RetryPolicy(**values["retry"]),
        catch_up=CatchUp(**(default | values["catch_up"])),
        latest_only=values["latest_only"],
        eager=values["eager"],
        silent_minutes=float(values["silent_minutes"]),
        kill_silent=values["kill_silent"],
        name=values["name"],
        description=values["description"],
        on_event=tuple(_topics(values["on_event"])),
        fresh=values["fresh"],
        conditions={job: need for job, need in needs.items() if need != Need()},
        max_parallel=values["max_parallel"],
        calendar=values["calendar"],
    )


def refusal(key: str, value: object, allowed: str) -> JobRefused:
    text = repr(value)
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
    return JobRefused(key, f"{key} = {shown} is not allowed: {allowed}")


def _depth(value: object) -> int:
    """How many tables and lists are in each other, DEEPEST + 1 at the most."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        level = [
            part
            for item in level
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        depth += 1
    return depth


def in_order(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """Those needed before those that need them. Raises JobRefused for a job that needs what is not there, or itself."""
    ordered: dict[str, Job] = {}
    waiting = dict(jobs)
    while waiting:
        ready = next((job for job in waiting.values() if all(need in ordered for need in job.needs)), None)
        if ready is None:
            missing = [(job, need) for job in waiting.values() for need in job.needs if need not in jobs]
            job = missing[0][0] if missing else next(iter(waiting.values()))
            what = f"unknown job {missing[0][1]!r}" if missing else "a cycle"
            raise JobRefused("needs", f"needs = {list(job.needs)!r} is not allowed: {what}", job=job.id)
        ordered[ready.id] = waiting.pop(ready.id)
    return ordered


def _schedule(values: Mapping[str, Any]) -> Due:
    given = [key for key in TRIGGERS if values[key]]
    if len(given) > 1:
        raise refusal(given[1], values[given[1]], f"{given[0]} says already when it is due; one of them")
    if not given:
        raise refusal("cron", values["cron"], f"a job is due by one of {', '.join(TRIGGERS)}; none is given")
    zone = ZoneInfo(values["timezone"])
    try:
        if values["cron"]:
            return Schedule.of(values["cron"], zone)
        if values["crontab"]:
            return Schedule.of_line(values["crontab"], zone)
    except (ValueError, TypeError) as error:
        raise refusal(given[0], values[given[0]], str(error)) from None
    if values["every"]:
        return Every(step_of(values["every"]), _instant(values["anchor"], zone), zone)
    return Once(_instant(values["at"], zone), zone) if values["at"] else Never(zone)


def step_of(text: str) -> timedelta:
    """ "10m", "2h" or "1d". Raises ValueError."""
    matched = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if matched is None:
        raise ValueError(text)
    return int(matched[1]) * UNITS[matched[2]]


def _instant(text: str, zone: ZoneInfo) -> datetime:
    """By the zone's clock unless it has an offset; in UTC. Raises ValueError, OverflowError."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)


def _needs(value: list[Any]) -> dict[str, Need]:
    return {item if isinstance(item, str) else item["job"]: _need(item) for item in value}


def _need(item: Any) -> Need:
    return Need() if isinstance(item, str) else Need.of(item)


def _topics(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) and value else list(value)


def _positive(value: object) -> bool:
    """A number over 0; anything above the largest has no meaning here, and instants cannot be reckoned with it."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LARGEST


def _whole(value: object) -> bool:
    return _positive(value) and isinstance(value, int)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


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
    if value is None:
        return True
    if not isinstance(value, dict) or not value.keys() <= set(CronTrigger.FIELD_NAMES):
        return False
    if not str(value.get("second", 0)).isdecimal():  # no more often than once a minute, as `every`
        return False
    return not any(ch.isdigit() for ch in str(value.get("day_of_week", "")))


def _every(value: object) -> bool:
    try:
        return value is None or (isinstance(value, str) and SHORTEST <= step_of(value) <= LONGEST_STEP)
    except ValueError:
        return False


def _some_instant(value: object) -> bool:
    try:
        return isinstance(value, str) and 1970 < _instant(value, SHANGHAI).year < 2200
    except (ValueError, OverflowError):
        return False


def _zone(value: object) -> bool:
    try:
        return isinstance(value, str) and ZoneInfo(value) is not None
    except (KeyError, ValueError, OSError):  # unknown; a path; a folder
        return False


@cache
def _exchange(value: str) -> bool:
    """Whether the calendars' library has it: a file of its own. To load the library costs 90 MB."""
    library = importlib.util.find_spec("exchange_calendars")
    folders = (library.submodule_search_locations or []) if library else []
    return any((Path(folder) / f"exchange_calendar_{value.lower()}.py").is_file() for folder in folders)


def _calendar(value: object) -> bool:
    known = isinstance(value, str) and re.fullmatch(r"[A-Z]{4}", value) is not None
    return value is None or (known and (value == HOME or _exchange(str(value))))


def _shown(longest: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and len(value) <= longest and value.isprintable()


def _named(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value, re.ASCII) is not None


def _need_fits(item: object) -> bool:
    if isinstance(item, str):
        return True
    if not isinstance(item, dict) or not item.keys() <= {"job", "when", "where"}:
        return False
    try:
        return all(isinstance(part, str) for part in (item.get("job"), *item.values())) and bool(_need(item))
    except ValueError:
        return False


def _needs_fit(value: object) -> bool:
    fit = isinstance(value, list) and all(_need_fits(item) for item in value)
    return fit and isinstance(value, list) and len(_needs(value)) == len(value)  # each once


def _on_event(value: object) -> bool:
    texts = [value] if isinstance(value, str) and value else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return False
    if len(texts) > MOST_TOPICS:
        return False
    try:
        for text in texts:
            check_wanted(text)
    except EventRefused:
        return False
    return True


CHECKS: tuple[tuple[str, str, Callable[[object], bool]], ...] = (
    ("task", "the name of a task", lambda value: isinstance(value, str)),
    ("name", f"a text of {LONGEST_NAME} letters at most, on one line", _shown(LONGEST_NAME)),
    (
        "description",
        f"a text of {LONGEST_DESCRIPTION} letters at most, on one line",
        _shown(LONGEST_DESCRIPTION),
    ),
    (
        "cron",
        "a table such as { day_of_week = 'mon-fri', hour = 19, minute = 0 }; weekdays by name,"
        " since numbers mean different days to different programs",
        _cron,
    ),
    ("crontab", EXAMPLE, lambda value: value is None or isinstance(value, str)),
    ("every", 'a number of minutes, hours or days such as "10m", "2h" or "1d", a year at most', _every),
    (
        "at",
        "an instant such as 2026-03-01T09:30, by the clock of its timezone or with an offset",
        lambda value: value is None or _some_instant(value),
    ),
    ("anchor", "an instant such as 2026-03-01T09:30, from which `every` is counted", _some_instant),
    (
        "on_event",
        'a topic such as "data.nav.merged", "quality.*" or "<plugin id>.*", or a list of such, '
        f"{MOST_TOPICS} at most: docs/events.md",
        _on_event,
    ),
    (
        "calendar",
        f'"{HOME}" or the code of another exchange such as "XHKG", or left out for every day',
        _calendar,
    ),
    (
        "business_date",
        '"session", "last_session" or "previous_session"',
        lambda value: value in ("session", "last_session", "previous_session"),
    ),
    (
        "needs",
        "a list of job names, each once, or of tables { job = 'x', when = 'success', where = 'records > 0' }; "
        f"when: {', '.join(ACCEPTED)}; where: {FORM}",
        _needs_fit,
    ),
    ("fresh", "the name of a table such as fund_nav", lambda value: value is None or _named(value)),
    ("wait_hours", "a number over 0", _positive),
    ("timeout_minutes", "a number over 0", _positive),
    (
        "max_parallel",
        f"a whole number from 1 to {MOST_PARALLEL}",
        lambda value: _whole(value) and int(str(value)) <= MOST_PARALLEL,
    ),
    (
        "retry",
        "numbers over 0 for attempts, base_seconds, cap_seconds, total_minutes",
        _retry,
    ),
    ("catch_up", "policy = 'all', 'last' or 'none', days (400 at most) and a whole cap over 0", _catch_up),
    ("latest_only", "true or false", _flag),
    ("eager", "true or false", _flag),
    ("silent_minutes", "a number over 0", _positive),
    ("kill_silent", "true or false", _flag),
    ("timezone", "a zone such as 'Asia/Shanghai'", _zone),
    ("params", "a table", lambda value: isinstance(value, dict)),
)
