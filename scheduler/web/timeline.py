"""The night on one line a job: when each was due, began and ended, in percent of the span shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from core.trading_calendar import SHANGHAI
from scheduler.job import Job
from scheduler.verdict import ChainStep, RunLine

HOUR = timedelta(hours=1)
STEPS = (1, 2, 3, 6, 12, 24, 48, 168, 720)  # hours between two marks
MARKS = 5
THINNEST = 1.5  # percent, so that a second of work can be seen


class Bar(NamedTuple):
    left: float
    width: float


class Timeline(NamedTuple):
    marks: list[tuple[float, str]]
    due: dict[str, list[float]]  # by job
    ran: dict[str, Bar]
    now: float | None  # None: beyond what is shown


def timeline(
    steps: Sequence[ChainStep], jobs: Mapping[str, Job], night: date | None, now: datetime
) -> Timeline | None:
    """None where there is nothing to show."""
    if night is None:
        return None
    midnight = datetime.combine(night, time(), SHANGHAI)
    fires = {step.job: jobs[step.job].fires(midnight, midnight + timedelta(days=1)) for step in steps}
    spans = {step.job: span for step in steps if (span := _span(step.run, now)) is not None}
    instants = [
        *(at for due in fires.values() for at in due),
        *(at for span in spans.values() for at in span),
    ]
    if not instants:
        return None
    first, last = _hour(min(instants)), _hour(max(instants)) + HOUR
    whole = (last - first) / timedelta(seconds=1)

    def at(instant: datetime) -> float:
        return round(100 * (instant - first).total_seconds() / whole, 2)

    return Timeline(
        marks=[(at(mark), mark.strftime("%H:%M")) for mark in _marks(first, last)],
        due={job: [at(fire) for fire in due] for job, due in fires.items()},
        ran={job: _bar(at(start), at(end)) for job, (start, end) in spans.items()},
        now=at(now) if first <= now <= last else None,
    )


def _bar(left: float, right: float) -> Bar:
    width = max(right - left, THINNEST)
    return Bar(min(left, 100 - width), width)


def _span(run: RunLine | None, now: datetime) -> tuple[datetime, datetime] | None:
    if run is None or run.started_at is None:
        return None
    return run.started_at, max(run.finished_at or now, run.started_at)


def _hour(instant: datetime) -> datetime:
    return instant.astimezone(SHANGHAI).replace(minute=0, second=0, microsecond=0)


def _marks(first: datetime, last: datetime) -> list[datetime]:
    step = next((step for step in STEPS if (last - first) / HOUR / step <= MARKS), STEPS[-1])
    return [first + HOUR * n for n in range(0, int((last - first) / HOUR), step)]
