"""When a failed run is tried again: a pure decision."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime, timedelta


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon; seconds and minutes. `attempts` counts the first one."""

    attempts: int = 1
    base_seconds: float = 60.0
    cap_seconds: float = 900.0
    total_minutes: float = 240.0  # from the start of the first attempt to the start of the last
    spent: int = 0  # attempts made before somebody asked for the run anew; they do not count

    @classmethod
    def from_json(cls, text: str) -> RetryPolicy:
        """As it was stored, by whatever version of this program."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})


def next_attempt(
    policy: RetryPolicy, attempt: int, first_started: datetime, now: datetime, jitter: float
) -> datetime | None:
    """The instant of the attempt after number `attempt`, None if there is to be none.

    The delay doubles from base to cap; `jitter`, from 0 to 1, takes up to half of it off, so that what
    failed together does not come back together.
    """
    attempt -= policy.spent
    if attempt >= policy.attempts:
        return None
    delay = min(policy.cap_seconds, policy.base_seconds * 2.0 ** (attempt - 1)) * (1 - jitter / 2)
    at = now + timedelta(seconds=delay)
    return at if at - first_started <= timedelta(minutes=policy.total_minutes) else None
