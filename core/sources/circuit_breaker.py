"""When to ask a source that keeps failing: a pure decision, which takes the time and does not wait itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

FAILURES_TO_OPEN = 5  # in a row
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0  # seconds; doubling
GIVE_UP_AFTER = 3600.0  # seconds without any answer
JITTER = 0.25  # what is asked by many must not come back all at once


@dataclass(frozen=True)
class CircuitBreaker:
    """Closed: ask freely. Open: pause, ask one thing as a probe, pause longer while it fails too.

    Times are seconds on any steady clock; `chance` is a random number from 0 to 1.
    """

    failures: int = 0  # in a row
    opened_at: float | None = None
    pauses: int = 0  # since it opened
    probe_at: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    def after_success(self) -> CircuitBreaker:
        return CircuitBreaker()

    def after_failure(self, now: float, chance: float) -> CircuitBreaker:
        """One more request failed, the probe where it is open."""
        failures = self.failures + 1
        if not self.is_open and failures < FAILURES_TO_OPEN:
            return replace(self, failures=failures)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.pauses, 30))
        return CircuitBreaker(
            failures=failures,
            opened_at=now if self.opened_at is None else self.opened_at,
            pauses=self.pauses + 1,
            probe_at=now + pause * (1 + JITTER * (2 * chance - 1)),
        )

    def pause(self, now: float) -> float:
        """Seconds until the next request may be made; 0 where it is closed."""
        return max(0.0, self.probe_at - now) if self.is_open else 0.0

    def is_hopeless(self, now: float) -> bool:
        """Whether it has been open for so long that waiting is over."""
        return self.opened_at is not None and now - self.opened_at >= GIVE_UP_AFTER
