"""When a job is due: cron fields on the wall clock of a zone, summer time included.

APScheduler's trigger finds the wall-clock times. They become instants here, because across a change to or
from summer time the trigger itself skips times that do not exist, gives others twice, or stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

CHANGE = timedelta(hours=3)  # more than any zone's clock is ever put forward or back
DAY = timedelta(days=1)
SPANS = (timedelta(hours=1), DAY, 8 * DAY, 370 * DAY, 5 * 366 * DAY)


@dataclass(frozen=True)
class Schedule:
    """Cron fields as the vixie cron reads them: a time that summer time leaves out comes right after the gap, one
    that the clock shows twice counts the first time; with every hour, each hour counts.
    """

    walls: CronTrigger  # in UTC, which stands for the zone's wall clock
    zone: ZoneInfo

    @classmethod
    def of(cls, cron: dict[str, Any], zone: ZoneInfo) -> Schedule:
        """Raises ValueError and TypeError for fields that cron does not know."""
        return cls(CronTrigger(timezone=UTC, **cron), zone)

    def fires(self, after: datetime, until: datetime) -> list[datetime]:
        """The instants in (after, until] at which the job is due, oldest first."""
        around = CHANGE if self._offset(after - DAY) != self._offset(until + DAY) else timedelta()
        wall, last = self._wall(after - around), self._wall(until + around)
        found: set[datetime] = set()
        while (due := self._next_wall(wall)) is not None and due <= last:
            found |= self._instants(due)
            wall = due
        return [fire.astimezone(self.zone) for fire in sorted(found) if after < fire <= until]

    def next_fire(self, after: datetime) -> datetime | None:
        """The first instant after `after` at which the job is due, None if none within five years."""
        return next((fires[0] for span in SPANS if (fires := self.fires(after, after + span))), None)

    def _offset(self, instant: datetime) -> timedelta | None:
        return instant.astimezone(self.zone).utcoffset()

    def _wall(self, instant: datetime) -> datetime:
        return instant.astimezone(self.zone).replace(tzinfo=UTC)

    def _next_wall(self, wall: datetime) -> datetime | None:
        due: datetime | None = self.walls.get_next_fire_time(None, wall + timedelta(microseconds=1))
        return due

    def _instants(self, wall: datetime) -> set[datetime]:
        every_hour = any(field.name == "hour" and "*" in str(field) for field in self.walls.fields)
        folds = (0, 1) if every_hour else (0,)
        return {wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in folds}
