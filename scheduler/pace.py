"""How long what is left will take, by how fast the last minutes went."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

LOOK_BACK = timedelta(minutes=5)
ENOUGH = timedelta(seconds=10)  # before that a guess is worth nothing


class Pace:
    """Told now and then how much is done; never reads a clock itself."""

    def __init__(self) -> None:
        self._seen: deque[tuple[datetime, int]] = deque()

    def seconds_left(self, now: datetime, done: int, total: int) -> float | None:
        """Seconds until `total` is done, None while nobody can tell."""
        if self._seen and now < self._seen[-1][0]:  # somebody set the clock back
            self._seen.clear()
        self._seen.append((now, done))
        while now - self._seen[0][0] > LOOK_BACK:
            self._seen.popleft()
        since, before = self._seen[0]
        if now - since < ENOUGH or done <= before:
            return None
        return (total - done) * (now - since).total_seconds() / (done - before)
