"""What would explain a held jump, reckoned by hand."""

from __future__ import annotations

import json
from math import nan

import pandas as pd
import pytest

from core.proposal import propose, with_proposals
from tests.example_batch import MON, TUE, WED, nav, verdicts


@pytest.mark.parametrize(
    ("before", "unit", "published", "kind", "value"),
    [
        # 2.0001 * 1.01 / 1.0101 = 1.99990
        (2.0001, 1.0101, 1.0, "split", 2.0),
        # 0.8001 * 1.0099 / 1.6161 = 0.49998
        (0.8001, 1.6161, 0.99, "split", 0.5),
        # 1.5000 * 1.02 / 1.0200 = 1.5
        (1.5, 1.02, 2.0, "split", 1.5),
        # 100.258 / 10.0258 = 10; no return: the share kept its worth
        (100.258, 10.0258, nan, "split", 10.0),
        # 1.0 / 0.3003 = 3.3300, 0.1 % from ten thirds
        (1.0, 0.3003, nan, "split", 10 / 3),
        # 1.0 / 0.2873 = 3.480682: 3.5 is 0.55 % away, nothing simpler is nearer
        (1.0, 0.2873, nan, "split", 3.480682),
        # 1.2001 * 1.0017 - 1.1521 = 0.05004
        (1.2001, 1.1521, 0.17, "dividend", 0.05),
        # 1.0 / 0.763 = 1.3106 is 0.8 % from 1.3: too far to be a split
        (1.0, 0.763, nan, "dividend", 0.237),
        # 1.0 - 0.997 = 0.003
        (1.0, 0.997, nan, "dividend", 0.003),
    ],
)
def test_the_event_that_would_explain_a_jump(
    before: float, unit: float, published: float, kind: str, value: float
) -> None:
    text = propose(before, unit, published)
    assert text is not None
    found = json.loads(text)
    assert (found["kind"], found["value"]) == (kind, pytest.approx(value, abs=1e-9))


@pytest.mark.parametrize(
    ("before", "unit", "published"),
    [
        (1.0, 0.9981, nan),  # 0.19 % is no jump
        (1.0001, 1.1101, 1.0),  # no fund pays less than nothing, and 0.91 is no split
        (1.0, 1.08, nan),
        (nan, 1.0, 1.0),
        (1.0, 0.0, 1.0),
        (1.0, -1.0, 1.0),
        (1.0, 0.5, -100.0),
    ],
)
def test_where_nothing_simple_explains_it_nothing_is_proposed(
    before: float, unit: float, published: float
) -> None:
    assert propose(before, unit, published) is None


def test_a_proposal_says_from_what_it_follows() -> None:
    assert json.loads(str(propose(2.0001, 1.0101, 1.0)))["why"] == "2.0001 -> 1.0101, published +1.00 %"
    assert json.loads(str(propose(2.0, 1.0, nan)))["why"] == "2 -> 1, published no return"


def test_only_held_jumps_have_a_proposal() -> None:
    rows = [nav(MON, 2.0001), nav(TUE, 1.0101, 1.0), nav(WED, 1.0202, 1.0)]
    other = [nav(MON, 1.0, code="000002"), nav(TUE, -1.0, 1.0, code="000002")]
    first = [nav(MON, 1.0, 99.0, code="000003")]
    found = verdicts([*rows, *other, *first])
    kept = with_proposals(found, found.reasons != "").set_index(["fund_code", "nav_date"])
    assert kept.index.get_level_values("fund_code").tolist() == ["000001", "000001", "000002", "000003"]
    split, waits, negative, alone = kept["proposal"].tolist()
    assert json.loads(split) == {
        "kind": "split",
        "value": 2.0,
        "why": "2.0001 -> 1.0101, published +1.00 %",
    }
    assert pd.isna(waits)  # it goes on from the split
    assert pd.isna(negative)  # a NAV below zero is no jump
    assert pd.isna(alone)  # there is nothing before it
    assert kept["reasons"].tolist() == found.reasons[found.reasons != ""].tolist()
