"""When a job is due: cron fields on the wall clock of a zone, summer time included; every so often; once.

APScheduler's trigger finds the wall-clock times. They become instants here, because across a change to or
from summer time the trigger itself skips times that do not exist, gives others twice, or stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from scheduler.crontab import crontab_fields

CHANGE = timedelta(hours=3)  # more than any zone's clock is ever put forward or back
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
FAR = 5 * 366 * DAY


class Due(Protocol):
    """What a job asks of its trigger, whatever it is."""

    @property
    def zone(self) -> ZoneInfo: ...

    def fires(self, after: datetime, until: datetime) -> list[datetime]:
        """The instants in (after, until] at which the job is due, oldest first."""

    def next_fire(self, after: datetime) -> datetime | None:
        """The first instant after `after` at which the job is due, None if none within five years."""


@dataclass(frozen=True)
class Schedule:
    """Cron fields as the vixie cron reads them: a time that summer time leaves out comes right after the gap, one
    that the clock shows twice counts the first time; with every hour, each hour counts.
    """

    walls: tuple[CronTrigger, ...]  # any of them; in UTC, which stands for the zone's wall clock
    zone: ZoneInfo
    line: str = ""  # of a crontab, if it was given as such

    @classmethod
    def of(cls, cron: dict[str, Any], zone: ZoneInfo) -> Schedule:
        """Raises ValueError and TypeError for fields that cron does not know."""
        return cls((CronTrigger(timezone=UTC, **cron),), zone)

    @classmethod
    def of_line(cls, line: str, zone: ZoneInfo) -> Schedule:
        """Of a crontab line. Raises ValueError."""
        return cls(tuple(CronTrigger(timezone=UTC, **cron) for cron in crontab_fields(line)), zone, line)

    def fires(self, after: datetime, until: datetime) -> list[datetime]:
        """The instants in (after, until] at which the job is due, oldest first."""
        around = CHANGE if self._offset(after - DAY) != self._offset(until + DAY) else timedelta()
        wall, last = self._wall(after - around), self._wall(until + around)
        found: set[datetime] = set()
        for walls in self.walls:
            for due in _walls_between(walls, wall, last):
                found |= self._instants(due)
        return [fire.astimezone(self.zone) for fire in sorted(found) if after < fire <= until]

    def next_fire(self, after: datetime) -> datetime | None:
        """The first instant after `after` at which the job is due, None if none within five years."""
        limit = after + FAR
        while after < limit:
            near = [_next_wall(walls, self._wall(after - CHANGE)) for walls in self.walls]
            walls = [wall for wall in near if wall is not None]
            if not walls:
                return None
            # Straight to the next wall-clock time: not through a year of minutes for those of one day.
            until = max(after + HOUR, min(walls).replace(tzinfo=self.zone).astimezone(UTC) + CHANGE)
            if fires := self.fires(after, until):
                return fires[0]
            after = until
        return None

    def _offset(self, instant: datetime) -> timedelta | None:
        return instant.astimezone(self.zone).utcoffset()

    def _wall(self, instant: datetime) -> datetime:
        return instant.astimezone(self.zone).replace(tzinfo=UTC)

    def _instants(self, wall: datetime) -> set[datetime]:
        every_hour = any(field.name == "hour" and "*" in str(field) for field in self.walls[0].fields)
        folds = (0, 1) if every_hour else (0,)
        return {wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in folds}


def _walls_between(walls: CronTrigger, wall: datetime, last: datetime) -> Iterator[datetime]:
    while (due := _next_wall(walls, wall)) is not None and due <= last:
        yield due
        wall = due


def _next_wall(walls: CronTrigger, wall: datetime) -> datetime | None:
    due: datetime | None = walls.get_next_fire_time(None, wall + timedelta(microseconds=1))
    return due


@dataclass(frozen=True)
class Every:
    """`anchor` and every `step` after it, by the clock that no summer time changes."""

    step: timedelta
    anchor: datetime  # UTC
    zone: ZoneInfo

    def fires(self, after: datetime, until: datetime) -> list[datetime]:
        last = (until.astimezone(UTC) - self.anchor) // self.step
        return [self._at(n).astimezone(self.zone) for n in range(self._first(after), last + 1)]

    def next_fire(self, after: datetime) -> datetime:
        return self._at(self._first(after)).astimezone(self.zone)

    def _at(self, number: int) -> datetime:
        return self.anchor + number * self.step

    def _first(self, after: datetime) -> int:
        return max(0, (after.astimezone(UTC) - self.anchor) // self.step + 1)


@dataclass(frozen=True)
class Once:
    """One instant, and then never again."""

    at: datetime
    zone: ZoneInfo

    def fires(self, after: datetime, until: datetime) -> list[datetime]:
        return [self.at.astimezone(self.zone)] if after < self.at <= until else []

    def next_fire(self, after: datetime) -> datetime | None:
        return self.at.astimezone(self.zone) if after < self.at else None


@dataclass(frozen=True)
class Never:
    """No time of its own: the job waits for an event."""

    zone: ZoneInfo

    def fires(self, _after: datetime, _until: datetime) -> list[datetime]:
        return []

    def next_fire(self, _after: datetime) -> None:
        return None
