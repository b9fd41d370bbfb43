"""Money-market funds of a simulated market: income per 10,000 shares and 7-day yield, weekends too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.standin.market import MINUTES_PER_DAY, SHANGHAI_OFFSET_MINUTES, Days, Event, Floats, Minutes

YIELD_MEAN, YIELD_SPREAD = 0.018, 0.002  # a year
FIRST_MINUTE, LAST_MINUTE = 17 * 60 + 30, 20 * 60

MoneyColumns = tuple[
    NDArray[np.int64],
    Days,
    Floats,
    Floats,
    NDArray[np.float32],
    Minutes,
    dict[int, Event],
    dict[int, int],
]


def money_columns(
    rng: np.random.Generator, count: int, sessions: Days, calendar: Days, last: int
) -> MoneyColumns:
    """Rows of `count` money funds from the first session to day `last`, in the order of `Columns`.

    Half of them publish a row for every calendar day, half one row for a whole run of days off,
    dated on its last day and naming its first.
    """
    days = np.arange(sessions[0], last + 1, dtype=np.int32)
    trading = np.isin(days, calendar)
    base = rng.normal(YIELD_MEAN, YIELD_SPREAD, count)[:, None]
    wave = np.cumsum(rng.normal(0, 0.0001, (1, days.size)), axis=1)
    daily = np.clip(base + wave + rng.normal(0, 0.0008, (count, days.size)), 0.002, None)
    income = np.round(daily / 365 * 10_000, 4)
    yield_7d = np.round(_seven_day_mean(income) * 365 / 10_000 * 100, 3)

    run_end = np.append(trading[1:], False) & ~trading  # a run cut off by the end is not published yet
    sums_runs = rng.random(count) < 0.5
    published = np.where(sums_runs[:, None], trading | run_end, True)
    spans = _run_spans(days, trading, run_end)
    for end, start in spans.items():
        income[sums_runs, end] = np.round(income[sums_runs, start : end + 1].sum(axis=1), 4)
    flat_at = (np.cumsum(published.ravel()) - 1).reshape(published.shape)
    span_starts = {
        int(flat_at[fund, end]): int(days[start])
        for fund in np.flatnonzero(sums_runs).tolist()
        for end, start in spans.items()
        if end > start
    }
    hour = rng.integers(FIRST_MINUTE, LAST_MINUTE, count)[:, None]
    visible = days * MINUTES_PER_DAY - SHANGHAI_OFFSET_MINUTES + hour
    rows = int(published.sum())
    return (
        published.sum(axis=1),
        np.broadcast_to(days, published.shape)[published],
        income[published],
        yield_7d[published],
        np.full(rows, np.nan, dtype=np.float32),
        visible.astype(np.int32)[published],
        {},
        span_starts,
    )


def _seven_day_mean(income: Floats) -> Floats:
    """Mean over the last seven calendar days, over fewer at the beginning."""
    total = np.concatenate([np.zeros((income.shape[0], 1)), np.cumsum(income, axis=1)], axis=1)
    ends = np.arange(1, income.shape[1] + 1)
    starts = np.maximum(ends - 7, 0)
    mean: Floats = (total[:, ends] - total[:, starts]) / (ends - starts)
    return mean


def _run_spans(days: Days, trading: NDArray[np.bool_], run_end: NDArray[np.bool_]) -> dict[int, int]:
    """Position of the last day of each run of days off -> position of its first."""
    spans, start = {}, 0
    for at in range(days.size):
        if trading[at]:
            start = at + 1
        elif run_end[at]:
            spans[at] = start
    return spans
