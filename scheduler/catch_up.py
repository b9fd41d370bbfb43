"""What becomes of the fires that passed while nothing ran: pure decisions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

ON_TIME = timedelta(minutes=5)  # a later beat means that we were away: down, suspended, or the clock jumped
LONGEST = timedelta(days=400)
MOST_RECORDED = 500  # fires of one job that an absence leaves behind; a minutely job has that many in a night
FIRST_NIGHT = timedelta(hours=12)  # a first start in the night still does that night


@dataclass(frozen=True)
class CatchUp:
    """A job's policy: which missed fires are run after all."""

    policy: Literal["all", "last", "none"] = "all"
    days: float = 10.0  # how far back
    cap: int = 20  # at most so many runs at once, the newest; the others are recorded as MISSED


def horizon(now: datetime, last_fire: datetime | None, led_since: datetime | None) -> datetime:
    """From when on a job's fires count: its last one that has a run, whatever its times were then.

    A job without any counts from the night before, or since a daemon led. The window of the policy does not
    matter here: what is older is recorded as MISSED.
    """
    since = last_fire or min(led_since or now, now - FIRST_NIGHT)
    return max(since, now - LONGEST)


def sort_out(
    catch_up: CatchUp, fires: Sequence[datetime], have: Collection[datetime], now: datetime
) -> list[tuple[datetime, bool]]:
    """Each fire without a run, oldest first, with whether it is run (else it is recorded as MISSED)."""
    open_fires = [fire for fire in fires if fire not in have][-MOST_RECORDED:]
    window = timedelta(days=catch_up.days)
    late = [fire for fire in open_fires if ON_TIME < now - fire <= window]
    kept = {"all": late[-catch_up.cap :], "last": late[-1:], "none": []}[catch_up.policy]
    return [(fire, fire in kept or now - fire <= ON_TIME) for fire in open_fires]
