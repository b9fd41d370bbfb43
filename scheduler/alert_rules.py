"""What is worth an alert, what mends it, and what the dead man's switch hears: pure decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler.job import DONE_WELL, ENDED_BADLY, RunStatus
from scheduler.verdict import COMPLETE

FAILED, PARTIAL, SILENT, LATE, ABSENT = "failed", "partial", "silent", "late", "absent"
CALENDAR, DISK, DATABASE, TEST = "calendar", "disk", "database", "test"
PLUGIN = "plugin"

REPEAT_AFTER = timedelta(hours=4)
NIGHT_ENDS = time(23, 30)  # by then a night is collected, judged and measured
STILL_TONIGHT = timedelta(hours=24)  # a night that was not done by then is known, or was slept through
ABSENCE = timedelta(minutes=10)  # a shorter one is a restart
CALENDAR_DAYS = 10
FREE_BYTES = 2_000_000_000
FREE_AGAIN = 1.1  # times FREE_BYTES: an alert does not come and go with every log line

COLLECTION, VALIDATION, METRICS = "collect_nav", "validate_nav", "calculate_metrics"
CHAIN = (COLLECTION, VALIDATION, METRICS)
HISTORY = "backfill_nav"
OF_ITS_DATE = (*CHAIN, HISTORY)  # no later night's success makes up for theirs
FILLED_FROM_HISTORY = (COLLECTION, VALIDATION, HISTORY)
SWEPT = (COLLECTION, VALIDATION)  # what was PARTIAL because funds publish late

SWITCH_DAY = timedelta(hours=12)  # a day of the dead man's switch lasts from noon to noon: a night is in one
QUIET_DAY_DONE = time(20, 30)  # when the night of a day without trading is over
START, SUCCESS, FAILURE = "PING_START", "PING_OK", "PING_FAIL"


@dataclass(frozen=True)
class Matter:
    """Something that is the matter. `figures` are plain values, for the message in any language."""

    kind: str
    of: str  # with `kind` the fingerprint
    figures: dict[str, Any] = field(default_factory=dict)
    job_id: str | None = None
    task: str | None = None
    business_date: date | None = None
    run_id: int | None = None

    @property
    def fingerprint(self) -> str:
        return f"{self.kind}:{self.of}"


@dataclass(frozen=True)
class Mended:
    """Which alerts the success of a run closes: of these kinds, and of its job or these tasks, for its date."""

    kinds: tuple[str, ...]
    tasks: tuple[str, ...] = ()  # empty: of the run's own job
    and_before: bool = False  # for earlier dates too


def mended(task: str, status: RunStatus, params: Mapping[str, Any]) -> list[Mended]:
    """What a run that ended `status` has mended. SKIPPED: there was nothing left to do."""
    if status not in (*DONE_WELL, RunStatus.SKIPPED):
        return []
    whole = (FAILED,) if status is RunStatus.PARTIAL else (FAILED, PARTIAL)
    found = [Mended(whole, and_before=task not in OF_ITS_DATE)]
    if task == HISTORY and not {"fund_codes", "fund_type"} & params.keys():
        found.append(Mended(whole, FILLED_FROM_HISTORY))
    if task == "sweep_nav" and status is RunStatus.SUCCESS:
        found.append(Mended((PARTIAL,), SWEPT))
    return found


def kind_of_end(task: str, status: RunStatus, *, watched: bool) -> str | None:
    """The alert that the last attempt of a run is worth. `watched`: somebody ran it in a terminal and saw it.

    A collection at 19:00 is PARTIAL on many a good night: what is missing then is judged at NIGHT_ENDS.
    """
    if watched:
        return None
    if status in ENDED_BADLY and status is not RunStatus.CANCELLED:
        return FAILED
    return PARTIAL if status is RunStatus.PARTIAL and task != COLLECTION else None


@dataclass(frozen=True)
class Step:
    """A job of the chain and the state of the run that decides for the night, None without one.

    `done`: it was done well once, though it may be at work again after a late correction.
    """

    job: str
    task: str
    status: RunStatus | None
    run_id: int | None
    done: bool


@dataclass(frozen=True)
class Night:
    """How far the night of a trading day is."""

    day: date
    steps: tuple[Step, ...]
    funds: int  # with a NAV of that day
    funds_before: int  # of the trading day before


def night_to_judge(calendar: TradingCalendar, now: datetime) -> date | None:
    """The trading day whose night should have ended, within the last day; None where none did."""
    if now.astimezone(SHANGHAI).date() <= calendar.sessions[0]:
        return None
    day = calendar.newest_business_date(now, NIGHT_ENDS)
    ended = datetime.combine(day, NIGHT_ENDS, SHANGHAI)
    return day if now - ended < STILL_TONIGHT else None


def late_night(night: Night) -> Matter | None:
    """The night is not done though it should be."""
    undone = [step for step in night.steps if not step.done]
    thin = not undone and night.funds < COMPLETE * night.funds_before
    if not undone and not thin:
        return None
    figures = {
        "steps": [[step.job, step.status.value if step.status else None] for step in undone],
        "records": night.funds,
        "expected": night.funds_before or None,
    }
    first = undone[0] if undone else None
    return Matter(
        LATE,
        night.day.isoformat(),
        figures,
        job_id=first.job if first else None,
        business_date=night.day,
        run_id=first.run_id if first else None,
    )


def short_calendar(calendar: TradingCalendar, now: datetime) -> Matter | None:
    """The exchange's calendar ends soon, and beyond it are only guesses."""
    confirmed = max((day for day in calendar.sessions if day not in calendar.provisional), default=None)
    today = now.astimezone(SHANGHAI).date()
    if confirmed is None or (confirmed - today).days >= CALENDAR_DAYS:
        return None
    return Matter(CALENDAR, "", {"until": confirmed.isoformat()})


def full_disk(free: Mapping[str, int], *, is_open: bool) -> Matter | None:
    """`free`: bytes by folder. One that is open stays so until there is room to spare."""
    needed = FREE_BYTES * (FREE_AGAIN if is_open else 1)
    short = {folder: left for folder, left in free.items() if left < needed}
    if not short:
        return None
    folder = min(short, key=lambda name: short[name])
    return Matter(DISK, "", {"folder": folder, "free": short[folder], "needed": FREE_BYTES})


def broken_plugins(broken: Mapping[str, str]) -> list[Matter]:
    """`broken`: why by name."""
    return [Matter(PLUGIN, name[:80], {"plugin": name, "reason": why}) for name, why in broken.items()]


def absence(away: timedelta, now: datetime) -> Matter | None:
    """Nobody led for a while; it is over when it is known."""
    if away < ABSENCE:
        return None
    since = now - away
    return Matter(ABSENT, f"{since:%Y-%m-%dT%H:%M}", {"seconds": round(away.total_seconds())})


def day_of_switch(now: datetime) -> date:
    return (now.astimezone(SHANGHAI) - SWITCH_DAY).date()


def pings_due(day: date, *, trading: bool, steps: Sequence[Step], now: datetime) -> list[str]:
    """What the dead man's switch should have heard of `day` by now, in order; each is said once.

    Success only when the whole chain is done well, which it is only after the night's gates have passed.
    """
    if not trading:
        over = now >= datetime.combine(day, QUIET_DAY_DONE, SHANGHAI)
        return [SUCCESS] if over else []
    started = any(step.run_id is not None and step.status is not RunStatus.WAITING for step in steps)
    if not started:
        ended = now >= datetime.combine(day, NIGHT_ENDS, SHANGHAI)
        return [FAILURE] if ended else []
    if steps and all(step.status in DONE_WELL for step in steps):
        return [START, SUCCESS]
    bad = any(step.status in ENDED_BADLY for step in steps)
    late = now >= datetime.combine(day, NIGHT_ENDS, SHANGHAI) and not all(step.done for step in steps)
    return [START, FAILURE] if bad or late else [START]
