"""The macro risk score: how strained growth, prices, money, credit and the stock market are, 0 (calm) to 100.

Of each component the newest value that was out on the day is placed among its own values of the ten years before:
the percentile rank (those below count whole, those equal half). `side` says what is strained: high values, low
values, or those far from a target (the rank is then of the distance). A dimension is the mean of its components,
the score the weighted mean of the dimensions; a dimension without any component is left out, and its weight
shared by the others. With fewer than three dimensions there is no score.

All of it can be reckoned again from market_macro and benchmark_index for any day: nothing that came out later is
used (core.market.macro.out_by). A figure corrected since counts as corrected.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

import numpy as np
from sqlalchemy import Connection, select

from core.market.macro import history
from core.schema import benchmark_index

DEFINITION = "1"
WINDOW_YEARS = 10
FEWEST = 24  # observations in the window; of fewer a percentile says nothing
INDEX = "000300"
TRADING_DAYS = 250
Points = list[tuple[date, float]]


class Component(NamedTuple):
    """`what`: a series of core.market.macro, a difference of two ("a-b"), or a figure of the index.

    `stale_days`: an older period no longer says anything of the day.
    """

    dimension: str
    what: str
    side: Literal["high", "low"] | float
    stale_days: int


class Placed(NamedTuple):
    """A component on a day: its value, that value's period, how many it was placed among, and where, 0 to 100."""

    what: str
    value: float
    period: date
    observations: int
    percentile: float


class Score(NamedTuple):
    """A dimension that nothing is known of is not in `dimensions`."""

    as_of: date
    score: float | None
    dimensions: dict[str, float]
    placed: list[tuple[str, Placed]]
    missing: list[str]


# CPI: around the official target of about 2 %. PPI: falling prices strain as rising ones do, around 0.
COMPONENTS = (
    Component("growth", "pmi", "low", 75),
    Component("growth", "pmi_services", "low", 75),
    Component("inflation", "cpi_yoy", 2.0, 90),
    Component("inflation", "ppi_yoy", 0.0, 90),
    Component("liquidity", "m2_yoy", "low", 90),
    Component("liquidity", "m1_yoy-m2_yoy", "low", 90),
    Component("liquidity", "shibor_on", "high", 14),
    Component("credit", "shibor_3m-shibor_on", "high", 14),
    Component("credit", "lpr_1y", "high", 75),
    Component("volatility", "index_volatility_60d", "high", 14),
    Component("volatility", "index_drawdown_250d", "high", 14),
)
WEIGHTS = {"growth": 0.25, "inflation": 0.15, "liquidity": 0.2, "credit": 0.2, "volatility": 0.2}
FEWEST_DIMENSIONS = 3


def score(connection: Connection, as_of: date) -> Score:
    """The score of what was out by the end of `as_of`; its `score` is None where too little was."""
    closes = index_closes(connection, as_of)
    placed: list[tuple[str, Placed]] = []
    missing = []
    for component in COMPONENTS:
        found = place(component, points_of(connection, component.what, as_of, closes), as_of)
        if found is None:
            missing.append(component.what)
        else:
            placed.append((component.dimension, found))
    dimensions = {
        name: float(np.mean([found.percentile for own, found in placed if own == name]))
        for name in WEIGHTS
        if any(own == name for own, _found in placed)
    }
    total = None
    if len(dimensions) >= FEWEST_DIMENSIONS:
        weight = sum(WEIGHTS[name] for name in dimensions)
        total = sum(WEIGHTS[name] * value for name, value in dimensions.items()) / weight
    return Score(as_of, total, dimensions, placed, missing)


def place(component: Component, points: Points, as_of: date) -> Placed | None:
    """Where the newest of `points` (oldest first) stands among those of the window; None for too few or too old."""
    start = as_of.replace(year=as_of.year - WINDOW_YEARS, day=min(as_of.day, 28))
    window = [(day, value) for day, value in points if start < day <= as_of]
    if len(window) < FEWEST or (as_of - window[-1][0]).days > component.stale_days:
        return None
    period, value = window[-1]
    if component.side == "high":
        strain = [each for _day, each in window]
    elif component.side == "low":
        strain = [-each for _day, each in window]
    else:
        strain = [abs(each - component.side) for _day, each in window]
    return Placed(component.what, value, period, len(window), percentile(strain))


def percentile(values: Sequence[float]) -> float:
    """The rank of the last of `values` among all of them, itself included: 0 to 100, equals count half.

    Equal are values within 1e-9 of each other: a difference of two published figures is not exact.
    """
    ordered, own = sorted(values), values[-1]
    below = bisect_left(ordered, own - 1e-9)
    equal = bisect_right(ordered, own + 1e-9) - below
    return 100 * (below + equal / 2) / len(ordered)


def points_of(connection: Connection, what: str, as_of: date, closes: Points) -> Points:
    """Day and value of a component's series, oldest first."""
    if what == "index_volatility_60d":
        return volatility(closes, 60)
    if what == "index_drawdown_250d":
        return drawdown(closes, TRADING_DAYS)
    name, _, less = what.partition("-")
    points = history(connection, name, as_of)
    if not less:
        return points
    other = dict(history(connection, less, as_of))
    return [(day, value - other[day]) for day, value in points if day in other]


def index_closes(connection: Connection, as_of: date) -> Points:
    """Closes of the CSI 300 up to the day, oldest first."""
    kept = benchmark_index.c
    query = select(kept.trade_date, kept.close).where(kept.index_code == INDEX, kept.trade_date <= as_of)
    return [(row[0], row[1]) for row in connection.execute(query.order_by(kept.trade_date))]


def volatility(closes: Points, days: int) -> Points:
    """Of each day the annualised deviation (ddof 1, percent) of the newest `days` log returns."""
    values = np.log([close for _day, close in closes])
    if len(values) <= days:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(np.diff(values), days)
    found = windows.std(axis=-1, ddof=1) * np.sqrt(TRADING_DAYS) * 100
    return [(day, float(value)) for (day, _close), value in zip(closes[days:], found, strict=True)]


def drawdown(closes: Points, days: int) -> Points:
    """Of each day by how much (percent, at least 0) the close is below the highest of the newest `days`."""
    values = np.array([close for _day, close in closes])
    if len(values) < days:
        return []
    highest = np.lib.stride_tricks.sliding_window_view(values, days).max(axis=-1)
    found = 100 * (1 - values[days - 1 :] / highest)
    return [(day, float(value)) for (day, _close), value in zip(closes[days - 1 :], found, strict=True)]


def as_row(found: Score) -> dict[str, Any]:
    """The score as a row of market_risk, without the instant; every component in it, as JSON."""
    components = [
        {"dimension": dimension, **placed._asdict(), "period": placed.period.isoformat()}
        for dimension, placed in found.placed
    ]
    return {
        "as_of": found.as_of,
        "definition": DEFINITION,
        "score": found.score,
        **{name: found.dimensions.get(name) for name in WEIGHTS},
        "components": json.dumps(components),
    }
