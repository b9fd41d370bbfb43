"""Compiled loops of core.metrics: every figure of one fund after the other, on plain numbers.

Days are integers (since 1970-01-01), positions count the usable NAVs of one fund, figures are fractions
and what has no meaning is NaN or infinite: core.metrics.measure makes it null. Definitions stand there
too. Numba keeps the compiled code on disk and compiles again when this file changes; so everything the
loops know is in this file or handed to them: a name of another module would go stale unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Days = NDArray[np.int32]
Ints = NDArray[np.int64]

MAX_AGE_DAYS = 10  # the longest closure of the market is 10 days between anchor and last session
MIN_RETURNS = 60
MIN_COVERAGE_TENTHS = 9  # of the window's trading days
MIN_CAGR_DAYS = 365
MIN_PAIRS = 60
MIN_TAIL_RETURNS = 250
TAIL = 0.05
MIN_RATIO_VOLATILITY = 0.001  # a year; below it a ratio measures rounding of the NAV, not risk
MIN_FALL = 1e-12  # a smaller fall is rounding (a dividend that equals the drop), not a drawdown
SINCE_INCEPTION = -(2**62)  # in the place of an anchor: the first NAV is the base

FIGURES = (
    *("cagr", "volatility", "downside_deviation", "sharpe", "sortino"),
    *("max_drawdown", "max_drawdown_peak", "max_drawdown_trough", "max_drawdown_recovery"),
    *("days_under_water", "calmar", "var_95", "cvar_95", "skewness", "kurtosis"),
    *("best_day", "worst_day", "win_rate"),
    *("beta", "alpha", "r_squared", "tracking_error", "information_ratio", "up_capture", "down_capture"),
)
CAGR, VOLATILITY, DOWNSIDE, SHARPE, SORTINO = range(5)
DRAWDOWN, PEAK, TROUGH, RECOVERY = range(5, 9)
UNDER_WATER, CALMAR, VAR, CVAR, SKEWNESS, KURTOSIS = range(9, 15)
BEST, WORST, WINS = range(15, 18)
BETA, ALPHA, R_SQUARED, TRACKING, INFORMATION, UP, DOWN = range(18, 25)

# read-only, so that mapped files may come in as they are; writable arrays are accepted as well
_FLOATS = types.Array(types.float64, 1, "C", readonly=True)
_DAYS = types.Array(types.int32, 1, "C", readonly=True)
_INTS = types.Array(types.int64, 1, "C", readonly=True)
_SIGNATURE = types.void(
    *(_INTS, _DAYS, _FLOATS, types.int64, types.int64, types.int64),
    *(_INTS, _INTS, _DAYS, _DAYS, _FLOATS, _DAYS, _FLOATS, types.float64, types.float64[:, ::1]),
)

_inner = njit(nogil=True, error_model="numpy")


def _kept(function: Callable[..., None]) -> Any:
    """`function` compiled for _SIGNATURE; in memory only where no folder takes the code."""
    try:
        return njit(_SIGNATURE, nogil=True, error_model="numpy", cache=True)(function)
    except (RuntimeError, OSError):  # numba found no folder to write to, or the disk is full
        return njit(_SIGNATURE, nogil=True, error_model="numpy")(function)


@_inner
def _up_to(days: Days | Ints, day: int, count: int) -> int:
    """How many of the first `count` days, ascending, are not after `day`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if days[middle] <= day:
            low = middle + 1
        else:
            high = middle
    return low


@_inner
def _usable(days: Days, adjusted: Floats, today: int, day: Ints, nav: Floats) -> int:
    """Copies the usable NAVs up to `today`; their number, 0 where the days are not in order."""
    count = 0
    for row in range(days.size):
        if row > 0 and days[row] <= days[row - 1]:
            return 0
        value = adjusted[row]
        if days[row] <= today and value > 0 and value < np.inf:
            day[count] = days[row]
            nav[count] = value
            count += 1
    return count


@_inner
def _base(day: Ints, count: int, anchor: int) -> int:
    """Position of the last NAV on or before `anchor`; -1 where it is too old, none, or the end itself."""
    if anchor == SINCE_INCEPTION:
        return 0
    position = _up_to(day, anchor, count) - 1
    if position < 0 or position == count - 1 or anchor - day[position] > MAX_AGE_DAYS:
        return -1
    return position


@_inner
def _rates_of(day: Ints, count: int, rate_days: Days, rates: Floats, rate: Floats) -> None:
    """The daily risk-free rate valid on each day."""
    at = max(_up_to(rate_days, day[0], rate_days.size) - 1, 0)
    for row in range(count):
        while at + 1 < rate_days.size and rate_days[at + 1] <= day[row]:
            at += 1
        rate[row] = rates[at]


@_inner
def _benchmark_returns(day: Ints, count: int, close_days: Days, closes: Floats, bench: Floats) -> None:
    """Return of the benchmark over each of the fund's steps, NaN where it has no close at both ends."""
    at = max(_up_to(close_days, day[0], close_days.size) - 1, 0)
    before = np.nan
    for row in range(count):
        while at < close_days.size and close_days[at] < day[row]:
            at += 1
        known = at < close_days.size and close_days[at] == day[row]
        close = closes[at] if known else np.nan
        bench[row] = close / before - 1
        before = close


@_inner
def _growth(nav: Floats, day: Ints, base: int, count: int, today: int, figures: Floats) -> None:
    if today - day[base] >= MIN_CAGR_DAYS:
        days = day[count - 1] - day[base]
        figures[CAGR] = (nav[count - 1] / nav[base]) ** (365 / days) - 1


@_inner
def _risk(returns: Floats, rate: Floats, k: float, figures: Floats) -> None:
    """Figures of the returns alone and against the risk-free rate."""
    count = returns.size
    total = excess = below = 0.0
    wins = 0
    best, worst = -np.inf, np.inf
    for row in range(count):
        one = returns[row]
        over = one - rate[row]
        total += one
        excess += over
        if over < 0:
            below += over * over
        wins += one > 0
        best, worst = max(best, one), min(worst, one)
    mean = total / count
    second = third = fourth = 0.0
    for row in range(count):
        apart = returns[row] - mean
        square = apart * apart
        second += square
        third += square * apart
        fourth += square * square

    deviation = math.sqrt(second / (count - 1))
    downside = math.sqrt(below / count)
    figures[VOLATILITY] = deviation * math.sqrt(k)
    figures[DOWNSIDE] = downside * math.sqrt(k)
    figures[BEST], figures[WORST], figures[WINS] = best, worst, wins / count
    if figures[VOLATILITY] >= MIN_RATIO_VOLATILITY:
        figures[SHARPE] = excess / count / deviation * math.sqrt(k)
        figures[SORTINO] = excess / count * k / figures[DOWNSIDE]
        figures[SKEWNESS], figures[KURTOSIS] = _shape(count, second, third, fourth)


@_inner
def _shape(count: int, second: float, third: float, fourth: float) -> tuple[float, float]:
    """Adjusted skewness G1 and excess kurtosis G2 from sums of powers of the deviations."""
    variance = second / count
    skewness = third / count / (variance * math.sqrt(variance))
    kurtosis = fourth / count / (variance * variance) - 3
    less = count - 1
    return (
        skewness * math.sqrt(count * less) / (count - 2),
        less / ((count - 2) * (count - 3)) * ((count + 1) * kurtosis + 6),
    )


@_inner
def _drawdown(nav: Floats, day: Ints, base: int, count: int, figures: Floats) -> None:
    high, high_at = nav[base], base
    depth, high_before, recovered_at = 0.0, 0.0, -1
    peak = trough = base
    for row in range(base + 1, count):
        value = nav[row]
        if value >= high:
            high, high_at = value, row
        else:
            fall = value / high - 1
            if fall > -MIN_FALL:
                high_at = row
            elif fall < depth:
                depth, high_before, recovered_at = fall, high, -1
                peak, trough = high_at, row
        if depth < 0 and recovered_at < 0 and row > trough and value >= high_before * (1 - MIN_FALL):
            recovered_at = row
    figures[DRAWDOWN] = depth
    figures[UNDER_WATER] = 0.0
    if depth < 0:
        figures[PEAK], figures[TROUGH] = day[peak], day[trough]
        if recovered_at >= 0:
            figures[RECOVERY] = day[recovered_at]
        figures[UNDER_WATER] = day[recovered_at if recovered_at >= 0 else count - 1] - day[peak]
        figures[CALMAR] = figures[CAGR] / -depth


@_inner
def _sift(heap: Floats, parent: int, size: int) -> None:
    """Lets the value at `parent` sink until none below it is larger."""
    value = heap[parent]
    child = 2 * parent + 1
    while child < size:
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[parent] = heap[child]
        parent, child = child, 2 * child + 1
    heap[parent] = value


@_inner
def _tail(returns: Floats, heap: Floats, figures: Floats) -> None:
    """VaR and CVaR from the smallest returns, kept in a heap with the largest of them on top."""
    place = (returns.size - 1) * TAIL
    worst = int(place)  # place of the quantile's lower neighbour, its upper one is the next
    size = worst + 2
    heap[:size] = returns[:size]
    for parent in range(size // 2 - 1, -1, -1):
        _sift(heap, parent, size)
    for row in range(size, returns.size):
        if returns[row] < heap[0]:
            heap[0] = returns[row]
            _sift(heap, 0, size)
    lower = max(heap[1], heap[2])
    figures[VAR] = lower + (heap[0] - lower) * (place - worst)
    total = 0.0
    for row in range(1, size):
        total += heap[row]
    figures[CVAR] = total / (worst + 1)


@_inner
def _against(returns: Floats, bench: Floats, rate: Floats, k: float, figures: Floats) -> None:
    """Figures against the benchmark, over the steps that both have."""
    pairs = 0
    mean = bench_mean = 0.0
    for row in range(returns.size):
        if not math.isnan(bench[row]):
            pairs += 1
            mean += returns[row] - rate[row]
            bench_mean += bench[row] - rate[row]
    if pairs < MIN_PAIRS:
        return
    mean, bench_mean = mean / pairs, bench_mean / pairs
    own = common = market = apart = 0.0
    for row in range(returns.size):
        if not math.isnan(bench[row]):
            x = bench[row] - rate[row] - bench_mean
            y = returns[row] - rate[row] - mean
            own += y * y
            common += x * y
            market += x * x
            apart += (y - x) * (y - x)
    yearly = math.sqrt(k / (pairs - 1))
    figures[TRACKING] = math.sqrt(apart) * yearly
    if math.sqrt(own) * yearly < MIN_RATIO_VOLATILITY:
        return
    if figures[TRACKING] >= MIN_RATIO_VOLATILITY:
        figures[INFORMATION] = (mean - bench_mean) * k / figures[TRACKING]
    if math.sqrt(market) * yearly >= MIN_RATIO_VOLATILITY:
        figures[BETA] = common / market
        figures[ALPHA] = k * (mean - figures[BETA] * bench_mean)
        figures[R_SQUARED] = min(common * common / (own * market), 1.0)
        figures[UP] = _capture(returns, bench, k, 1)
        figures[DOWN] = _capture(returns, bench, k, -1)


@_inner
def _capture(returns: Floats, bench: Floats, k: float, side: int) -> float:
    """Annual return over the benchmark's, on the steps when the benchmark rose (`side` 1) or fell (-1)."""
    steps = 0
    worth = bench_worth = 1.0
    for row in range(returns.size):
        if bench[row] * side > 0:
            steps += 1
            worth *= 1 + returns[row]
            bench_worth *= 1 + bench[row]
    if steps == 0:
        return np.nan
    ratio: float = (worth ** (k / steps) - 1) / (bench_worth ** (k / steps) - 1)
    return ratio


@_inner
def _enough(day: Ints, base: int, count: int, sessions: Days) -> bool:
    """Whether the window after `base` has the returns that its figures need."""
    steps = count - 1 - base
    due = _up_to(sessions, day[count - 1], sessions.size) - _up_to(sessions, day[base], sessions.size)
    return steps >= MIN_RETURNS and 10 * steps >= MIN_COVERAGE_TENTHS * due


@_inner
def _window(
    day: Ints,
    nav: Floats,
    returns: Floats,
    rate: Floats,
    bench: Floats,
    base: int,
    count: int,
    today: int,
    k: float,
    heap: Floats,
    figures: Floats,
) -> None:
    """Fills `figures` with those of the window after `base`."""
    within = slice(base + 1, count)
    figures[:] = np.nan
    _growth(nav, day, base, count, today, figures)
    _risk(returns[within], rate[within], k, figures)
    _drawdown(nav, day, base, count, figures)
    if count - 1 - base >= MIN_TAIL_RETURNS:
        _tail(returns[within], heap, figures)
    _against(returns[within], bench[within], rate[within], k, figures)


@_kept
def measure_funds(
    offsets: Ints,
    days: Days,
    adjusted: Floats,
    first: int,
    last: int,
    today: int,
    anchors: Ints,
    windows: Ints,
    sessions: Days,
    rate_days: Days,
    rates: Floats,
    close_days: Days,
    closes: Floats,
    k: float,
    out: Floats,
) -> None:
    """Fills the columns `first` to `last` of `out`, funds across: the return from each anchor, then
    FIGURES for each window, a window being the place of its anchor. `rates` are daily."""
    longest = 1
    for fund in range(first, last):
        longest = max(longest, offsets[fund + 1] - offsets[fund])
    day, nav, returns = np.empty(longest, np.int64), np.empty(longest), np.empty(longest)
    rate, bench, heap = np.empty(longest), np.empty(longest), np.empty(longest)
    figures = np.empty(len(FIGURES))
    for fund in range(first, last):
        rows = slice(offsets[fund], offsets[fund + 1])
        count = _usable(days[rows], adjusted[rows], today, day, nav)
        if count < 2 or today - day[count - 1] > MAX_AGE_DAYS:
            continue
        for row in range(1, count):
            returns[row] = nav[row] / nav[row - 1] - 1
        _rates_of(day, count, rate_days, rates, rate)
        _benchmark_returns(day, count, close_days, closes, bench)
        for period in range(anchors.size):
            base = _base(day, count, anchors[period])
            if base >= 0:
                out[period, fund] = nav[count - 1] / nav[base] - 1
        for window in range(windows.size):
            base = _base(day, count, anchors[windows[window]])
            if base >= 0 and _enough(day, base, count, sessions):
                _window(day, nav, returns, rate, bench, base, count, today, k, heap, figures)
                top = anchors.size + window * len(FIGURES)
                out[top : top + len(FIGURES), fund] = figures
