"""A fund's score, 0 to 100 within its type, and its level: config/score.toml."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError
from core.rank_columns import COMPONENTS, LEVELS

SCORE_FILE = Path(__file__).resolve().parents[1] / "config" / "score.toml"
NO_SCORE = frozenset({"money"})  # categories whose funds differ in yield alone
ROUNDING = 1e-9
DECIMALS = 2  # of a score

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scoring:
    """config/score.toml, where each figure is explained."""

    weights: dict[str, float]  # of COMPONENTS; they sum to 1
    least_weight: float
    levels: dict[str, float]  # of LEVELS: the lowest score of each


class Scores(NamedTuple):
    """Of all funds, each (F,)."""

    score: Floats  # two decimals, NaN for none
    level: list[str | None]
    known: NDArray[np.int64]  # components that are known


def load_scoring(path: Path = SCORE_FILE) -> Scoring:
    """Raises ConfigurationError naming the file and the key."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        weights = _figures(path, document, "weights", COMPONENTS, 1)
        total = math.fsum(weights.values())
        if abs(total - 1) > ROUNDING:
            raise ConfigurationError(f"{path.name}: the weights sum to {total:g}, not to 1")
        least = _figures(path, document, "score", ("least_weight",), 1)["least_weight"]
        if not least > 0:
            raise _refused(path, "score.least_weight", least, "a share over 0")
        levels = _figures(path, document, "levels", LEVELS, 100)
        for better, worse in pairwise(LEVELS):
            if not levels[better] > levels[worse]:
                allowed = f"a score over levels.{worse}, {levels[worse]:g}"
                raise _refused(path, f"levels.{better}", levels[better], allowed)
        if levels[LEVELS[-1]] != 0:
            raise _refused(path, f"levels.{LEVELS[-1]}", levels[LEVELS[-1]], "0: every score has a level")
        return Scoring(weights, least, levels)
    except KeyError as error:
        raise ConfigurationError(f"{path.name}: {error.args[0]} is missing") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None


def _figures(
    path: Path, document: dict[str, Any], section: str, names: tuple[str, ...], largest: float
) -> dict[str, float]:
    given = document[section]
    for name in given:
        if name not in names:
            raise ConfigurationError(
                f"{path.name}: {section}.{name} is unknown; there are {', '.join(names)}"
            )
    found = {}
    for name in names:
        if name not in given:
            raise KeyError(f"{section}.{name}")
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
            raise _refused(path, f"{section}.{name}", value, f"a number from 0 to {largest:g}")
        found[name] = float(value)
    return found


def _refused(path: Path, key: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{path.name}: {key} = {value!r} is not allowed: {allowed}")


def score_market(percentiles: Mapping[str, Floats], scoring: Scoring) -> Scores:
    """Scores from the percentiles (F,) of every one of COMPONENTS, 0 to 100, NaN where not known.

    `sum(w*p)/sum(w)` over the known components; NaN where their weights sum to less than `least_weight`.
    Whose funds have no score at all (NO_SCORE) is for the caller to leave out.
    """
    points = np.stack([np.asarray(percentiles[name], dtype=np.float64) for name in COMPONENTS])
    weight = np.array([scoring.weights[name] for name in COMPONENTS])
    known = np.isfinite(points)
    total = weight @ known
    enough = total >= scoring.least_weight - ROUNDING
    weighed = weight @ np.where(known, points, 0.0)
    score = np.round(np.divide(weighed, total, out=np.full(len(total), np.nan), where=enough), DECIMALS)
    return Scores(score, _levels(score, scoring), np.count_nonzero(known, axis=0))


def _levels(score: Floats, scoring: Scoring) -> list[str | None]:
    """The level of each score; None for none."""
    rising = LEVELS[::-1]
    at = np.searchsorted([scoring.levels[name] for name in rising], score, side="right") - 1
    return [
        None if none else rising[place]
        for none, place in zip(np.isnan(score).tolist(), at.tolist(), strict=True)
    ]
