"""The internal rate of return of flows on any days."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date

Worth = Callable[[float], tuple[float, float]]
Flow = tuple[date, float]  # paid is negative, received positive
STEPS = 200
EPSILON = 1e-16
WIDEST = 60.0  # log(1 + rate): from -100 % to more than anything has ever earned


def xirr(flows: Sequence[Flow]) -> float | None:
    """The yearly rate, as a fraction, at which the flows' present values add up to 0.

    sum(flow / (1 + rate) ** (days / 365)) = 0, days since the first flow (Excel's XIRR). Of several rates the one
    nearest to 0; None where there is none, such as without a flow in each direction.
    """
    if not flows:
        return None
    first = min(day for day, _ in flows)
    timed = [((day - first).days / 365, amount) for day, amount in flows if amount]

    def worth(growth: float) -> tuple[float, float]:
        """The present value with log(1 + rate) = growth, and how it changes with growth."""
        values = [(years, amount * math.exp(-growth * years)) for years, amount in timed]
        return math.fsum(value for _, value in values), -math.fsum(years * value for years, value in values)

    if not timed or all(amount > 0 for _, amount in timed) or all(amount < 0 for _, amount in timed):
        return None
    bracket = _bracket(worth, max(years for years, _ in timed))
    return None if bracket is None else math.expm1(_root(worth, *bracket))


def _bracket(worth: Worth, years: float) -> tuple[float, float] | None:
    """Growths between which the present value changes its sign, nearest to 0."""
    if years == 0:
        return None
    widest = min(WIDEST, 600 / years)  # beyond that exp() overflows
    step, low, high = 0.05, 0.0, 0.0
    while high < widest:
        if worth(high)[0] * worth(high + step)[0] <= 0:
            return high, high + step
        if worth(low)[0] * worth(low - step)[0] <= 0:
            return low - step, low
        low, high, step = low - step, high + step, min(step * 1.2, widest / 4)
    return None


def _root(worth: Worth, low: float, high: float) -> float:
    """Newton's steps, halves where one would leave the bracket."""
    rising = worth(low)[0] < 0
    growth = (low + high) / 2
    for _ in range(STEPS):
        value, slope = worth(growth)
        if (value < 0) == rising:
            low = growth
        else:
            high = growth
        following = growth - value / slope if slope else low
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - growth) <= EPSILON:
            return following
        growth = following
    return growth
