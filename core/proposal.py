"""What would explain a held jump: the dividend or the split it implies, for whoever has to decide."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.judging import Verdicts
from core.series import LARGEST_IMPLIED_DIVIDEND

JUMPS = ("return_matches_nav", "return_limit", "cross_section", "share_class", "accum_vs_unit")
ROUND_WITHIN = 0.004  # a ratio so near to a simple fraction is that fraction
SMALLEST_SPLIT = 0.1  # how far from 1 a ratio must be to be a split rather than a dividend
SMALLEST_JUMP = 0.002  # of the NAV; below it there is nothing to explain


def with_proposals(verdicts: Verdicts, held: NDArray[np.bool_]) -> pd.DataFrame:
    """The held rows with `reasons` and, for a jump, `proposal` (JSON text, else None)."""
    rows = np.flatnonzero(held)
    frame, previous = verdicts.frame, verdicts.series.previous
    unit = frame["unit_nav"].to_numpy(dtype=float)
    published = frame["daily_return"].to_numpy(dtype=float)
    proposals: list[str | None] = []
    for at in rows.tolist():
        jump = set(verdicts.reasons[at].split(",")) & set(JUMPS)
        before = unit[previous[at]] if previous[at] >= 0 else np.nan
        proposals.append(propose(before, unit[at], published[at]) if jump else None)
    return frame[held].assign(reasons=verdicts.reasons[held], proposal=np.array(proposals, dtype=object))


def propose(before: float, unit: float, published: float) -> str | None:
    """JSON of the event that makes `unit` follow from `before` with the published return (percent).

    Without a published return the share is taken to have kept its worth. None where nothing simple explains it.
    """
    growth = 1 + (published if published == published else 0.0) / 100
    if not (before > 0 and unit > 0 and growth > 0):
        return None
    ratio, cash = before * growth / unit, before * growth - unit
    if abs(cash) < SMALLEST_JUMP * before:
        return None
    simple = min(
        (_nearest(ratio, bottom) for bottom in (1, 2, 3, 5, 10)), key=lambda value: abs(value / ratio - 1)
    )
    is_simple = abs(simple / ratio - 1) <= ROUND_WITHIN and abs(simple - 1) >= SMALLEST_SPLIT
    if not is_simple and 0 < cash <= LARGEST_IMPLIED_DIVIDEND * before:
        return _text("dividend", round(cash, 4), before, unit, published)
    if abs(ratio - 1) < SMALLEST_SPLIT:
        return None
    return _text("split", float(simple) if is_simple else round(ratio, 6), before, unit, published)


def _nearest(ratio: float, bottom: int) -> float:
    """The nearest multiple of 1/bottom, or the inverse of one."""
    straight = round(ratio * bottom) / bottom
    inverse = round(bottom / ratio)
    other = float(Fraction(bottom, inverse)) if inverse else straight
    found = min((straight, other), key=lambda value: abs(value - ratio))
    return found if found > 0 else ratio


def _text(kind: str, value: float, before: float, unit: float, published: float) -> str:
    said = f"{published:+.2f} %" if published == published else "no return"
    return json.dumps({"kind": kind, "value": value, "why": f"{before:g} -> {unit:g}, published {said}"})
