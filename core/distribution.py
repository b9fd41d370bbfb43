"""How values are spread: quantiles and a histogram with round edges. Pure, on arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"min": 0, "p5": 5, "q1": 25, "median": 50, "q3": 75, "p95": 95, "max": 100}
BINS = 20  # at most about as many between the 1 % and the 99 % quantile
DECIMALS = 6


def distribution(values: NDArray[np.float64]) -> dict[str, Any] | None:
    """Quantiles (linear between neighbours) and histogram of values (N,), NaN and infinite ones left out.

    `count`; the QUANTILES; `up`, `down` and `flat`: how many are above, below and at zero; `histogram`: `edges`
    (B+1,), multiples of 1, 2 or 5 times a power of ten, and `counts` (B,) of [edge, next edge), the few values
    beyond the 1 % and 99 % quantiles in the first and last bin. None without a value.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    figures = np.percentile(known, list(QUANTILES.values()))
    return {
        "count": len(known),
        **{name: round(float(value), DECIMALS) for name, value in zip(QUANTILES, figures, strict=True)},
        "up": int((known > 0).sum()),
        "down": int((known < 0).sum()),
        "flat": int((known == 0).sum()),
        "histogram": _histogram(known),
    }


def _histogram(known: NDArray[np.float64]) -> dict[str, list[Any]]:
    low, high = np.percentile(known, (1, 99))
    bins = min(BINS, math.ceil(2 * math.sqrt(len(known))))
    step = round_step((high - low) / bins if high > low else max(abs(low), 1) / bins)
    first = math.floor(low / step)
    last = max(first + 1, math.ceil(high / step))
    edges = np.round(np.arange(first, last + 1) * step, 12)
    # Within the last bin, not on its upper edge, which only numpy's own last bin would count.
    at = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(at, minlength=len(edges) - 1)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `least`, which is above 0."""
    power = float(10.0 ** math.floor(math.log10(least)))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least * (1 - 1e-9))
