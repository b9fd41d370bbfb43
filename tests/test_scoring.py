"""Scores by hand, and what config/score.toml may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigurationError
from core.rank_columns import COMPONENTS
from core.scoring import SCORE_FILE, Scores, Scoring, load_scoring, score_market

NULL = float("nan")
HALVES = Scoring(
    dict.fromkeys(COMPONENTS, 0.0) | {"return_1y": 0.5, "sharpe_1y": 0.3, "volatility_1y": 0.2},
    0.5,
    {"S": 85.0, "A": 70.0, "B": 50.0, "C": 30.0, "D": 0.0},
)


def scores(scoring: Scoring = HALVES, **percentiles: list[float]) -> Scores:
    count = len(next(iter(percentiles.values())))
    given = {name: np.full(count, NULL) for name in COMPONENTS}
    return score_market(given | {name: np.array(of) for name, of in percentiles.items()}, scoring)


def test_the_weighted_mean() -> None:
    found = scores(return_1y=[80.0], sharpe_1y=[50.0], volatility_1y=[10.0])
    assert found.score.tolist() == [57.0]  # 0.5*80 + 0.3*50 + 0.2*10
    assert (found.level, found.known.tolist()) == (["B"], [3])


def test_what_is_not_known_leaves_its_weight_to_the_others() -> None:
    found = scores(
        return_1y=[80.0, 80.0, NULL, NULL],
        sharpe_1y=[50.0, NULL, 60.0, NULL],
        volatility_1y=[NULL, NULL, 10.0, NULL],
    )
    # (40 + 15)/0.8; 80 with half of the weight, just enough; 0.3 + 0.2 is half of it as well: (18 + 2)/0.5
    assert found.score.tolist()[:3] == [68.75, 80.0, 40.0]
    assert np.isnan(found.score[3])
    assert found.level == ["B", "A", "C", None]
    assert found.known.tolist() == [2, 1, 2, 0]


def test_too_little_is_no_score() -> None:
    found = scores(sharpe_1y=[100.0])  # 0.3 of the weight
    assert np.isnan(found.score[0])
    assert found.level == [None]
    assert found.known.tolist() == [1]


def test_a_component_of_no_weight_does_not_count() -> None:
    found = scores(return_1y=[80.0], sharpe_1y=[50.0], volatility_1y=[10.0], calmar_3y=[0.0])
    assert found.score.tolist() == [57.0]
    assert found.known.tolist() == [4]


def test_each_level_begins_with_its_score() -> None:
    found = scores(return_1y=[100.0, 85.0, 84.994, 84.996, 70.0, 69.9, 50.0, 30.0, 29.99, 0.0])
    assert found.score.tolist() == [100.0, 85.0, 84.99, 85.0, 70.0, 69.9, 50.0, 30.0, 29.99, 0.0]
    assert found.level == ["S", "S", "A", "S", "A", "B", "B", "C", "D", "D"]  # by the score that is shown


def test_the_file_of_the_project() -> None:
    found = load_scoring()
    assert sum(found.weights.values()) == pytest.approx(1)
    one_year = sum(weight for name, weight in found.weights.items() if name.endswith("_1y"))
    assert one_year >= found.least_weight  # a fund with NAVs of one year has a score


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("return_1y = 0.15", "return_1y = 0.25", "the weights sum to 1.1, not to 1"),
        (
            "return_1y = 0.15",
            "return_1y = -0.15",
            "weights.return_1y = -0.15 is not allowed: a number from 0 to 1",
        ),
        ("return_1y = 0.15", "return_1y = true", "weights.return_1y = True is not allowed"),
        ("return_1y = 0.15", 'return_1y = "much"', "weights.return_1y = 'much' is not allowed"),
        ("return_1y = 0.15", "return_1y = nan", "weights.return_1y = nan is not allowed"),
        ("return_1y = 0.15", "", "weights.return_1y is missing"),
        (
            "return_1y = 0.15",
            "return_1 = 0.15",
            "weights.return_1 is unknown; there are return_1y, return_3y",
        ),
        ("[weights]", "[weight]", "weights is missing"),
        ("least_weight = 0.5", "least_weight = 0", "score.least_weight = 0.0 is not allowed: a share over 0"),
        ("least_weight = 0.5", "least_weight = 1.5", "score.least_weight = 1.5 is not allowed"),
        ("A = 70", "A = 85", "levels.S = 85.0 is not allowed: a score over levels.A, 85"),
        ("S = 85", "S = 185", "levels.S = 185 is not allowed: a number from 0 to 100"),
        ("D = 0", "D = 1", "levels.D = 1.0 is not allowed: 0: every score has a level"),
        ("[levels]", "levels", "cannot read"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = SCORE_FILE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "score.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        load_scoring(path)
    assert said in str(error.value)
    assert "score.toml" in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*none\.toml"):
        load_scoring(tmp_path / "none.toml")
