"""When a failed attempt is followed by another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.retry import RetryPolicy, next_attempt

START = datetime(2025, 12, 1, 11, 0, tzinfo=UTC)
POLICY = RetryPolicy(attempts=5, base_seconds=60, cap_seconds=300, total_minutes=30)


@pytest.mark.parametrize(
    ("attempt", "jitter", "seconds"),
    [
        (1, 0.0, 60),
        (2, 0.0, 120),
        (3, 0.0, 240),
        (4, 0.0, 300),  # 480, capped
        (1, 1.0, 30),  # jitter takes up to half off
        (2, 0.5, 90),  # 120 * 0.75
        (5, 0.0, None),  # that was the last one
    ],
)
def test_delays_double_to_the_cap(attempt: int, jitter: float, seconds: int | None) -> None:
    at = next_attempt(POLICY, attempt, START, START, jitter)
    assert at == (None if seconds is None else START + timedelta(seconds=seconds))


def test_the_total_time_is_a_limit() -> None:
    late = START + timedelta(minutes=29)
    assert next_attempt(POLICY, 1, START, late, 0.0) == late + timedelta(minutes=1)
    assert next_attempt(POLICY, 1, START, late + timedelta(seconds=1), 0.0) is None


def test_one_attempt_is_the_default() -> None:
    assert next_attempt(RetryPolicy(), 1, START, START, 0.0) is None
