"""Rows held against others: a row that fails, and a near one that passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.background import FundFacts, family_of
from core.peer_rules import FEWEST_PEERS, RETURNS
from core.sources.base import NavRow
from tests.example_batch import (
    FRI,
    MON,
    SESSIONS,
    THRESHOLDS,
    THU,
    TUE,
    WED,
    beside,
    counted,
    nav,
    reasons,
    verdicts,
)

MINE = "000001"
PEERS = [f"9{n:05d}" for n in range(FEWEST_PEERS + 2)]
FLOOR = THRESHOLDS.cross_section_floor * THRESHOLDS.return_limit["mixed"]
LONE = THRESHOLDS.company_floor


def before(*codes: str) -> list[NavRow]:
    """Two believed rows of each fund: 1.0000 and, +1.00 %, 1.0100."""
    return [row for code in codes for row in (nav(MON, 1.0, code=code), nav(TUE, 1.01, 1.0, code=code))]


def day(change: float, code: str = MINE, at: date = WED) -> NavRow:
    """The row after `before` that is up by `change` percent, its return published."""
    return nav(at, 1.01 * (1 + change / 100), change, code=code)


def market(changes: Sequence[float]) -> list[NavRow]:
    return [day(change, code) for change, code in zip(changes, PEERS, strict=True)]


CALM = [0.0] * len(PEERS)
WILD = [3.0, -3.0] * (len(PEERS) // 2)


def wrong(rule: str, rows: Sequence[NavRow], category: str = "mixed", **known: Any) -> set[str]:
    """The funds that fail this rule on the night after `before`, the peers aside."""
    codes = sorted({row.fund_code for row in rows})
    held = reasons(rows, before(*codes), category, **known)
    found = {row.fund_code for row, text in zip(rows, held, strict=True) if rule in text.split(",")}
    return found - set(PEERS)


def test_no_outlier_of_a_calm_day() -> None:
    edge = min(FLOOR, LONE)  # what one fund alone may be off when the others stand still
    for sign in (1, -1):
        assert wrong("cross_section", [day(sign * (edge - 0.1)), *market(CALM)]) == set()
        assert wrong("cross_section", [day(sign * (edge + 0.1)), *market(CALM)]) == {MINE}


def test_funds_of_one_theme_are_each_others_company() -> None:
    if LONE >= FLOOR:
        pytest.skip("by these thresholds company excuses nothing")
    between = (LONE + FLOOR) / 2
    theme = [f"{n:06d}" for n in range(1, THRESHOLDS.company + 2)]
    assert wrong("cross_section", [*(day(between, code) for code in theme), *market(CALM)]) == set()
    few = theme[:-1]
    assert wrong("cross_section", [*(day(between, code) for code in few), *market(CALM)]) == set(few)
    # another fund with as large a change the other way is no company
    mixed = [*(day(between, code) for code in few), day(-between, theme[-1])]
    assert wrong("cross_section", [*mixed, *market(CALM)]) == set(theme)
    # beyond the floor company does not help
    assert wrong("cross_section", [*(day(FLOOR + 0.1, code) for code in theme), *market(CALM)]) == set(theme)


def test_a_wild_day_allows_more() -> None:
    # half of the peers at +3 %, half at -3 %: the median is near 0, the median deviation 3, the spread 4.45
    lone = THRESHOLDS.company_z * 1.4826 * 3.0
    assert wrong("cross_section", [day(lone - 0.5), *market(WILD)]) == set()
    assert lone - 0.5 > min(FLOOR, LONE)  # of a calm day it would not be believed


def test_an_outlier_that_two_rows_follow_is_believed() -> None:
    rows = [day(FLOOR + 1), *market(CALM)]
    unit = rows[0].unit_nav
    assert unit is not None
    later = [nav(THU, unit * 1.01, 1.0), nav(FRI, unit * 1.01**2, 1.0)]
    assert wrong("cross_section", [*rows, *later[:1]]) == {MINE}
    assert wrong("cross_section", [*rows, *later]) == set()


def test_too_few_peers_are_no_measure() -> None:
    rows = [day(FLOOR + 1), *market(CALM)]
    assert wrong("cross_section", rows[:FEWEST_PEERS]) == {MINE}
    assert wrong("cross_section", rows[: FEWEST_PEERS - 1]) == set()


def kept(median: float, funds: int, category: str = "mixed", at: date = WED) -> pd.DataFrame:
    frame = pd.DataFrame([(category, at, median, 0.0, funds)], columns=list(RETURNS))
    return frame.assign(nav_date=frame["nav_date"].to_numpy(dtype="datetime64[s]"))


def test_what_the_category_did_is_on_record_for_a_fund_alone() -> None:
    assert wrong("cross_section", [day(0.0)], returns=kept(FLOOR + 1, 1000)) == {MINE}
    assert wrong("cross_section", [day(0.0)], returns=kept(0.5, 1000)) == set()
    assert wrong("cross_section", [day(0.0)], returns=kept(FLOOR + 1, 1000, "bond")) == set()
    assert wrong("cross_section", [day(0.0)], returns=kept(FLOOR + 1, 1000, at=THU)) == set()
    # the batch counts where it has more funds than that
    rows = [day(0.0), *market(CALM)]
    assert wrong("cross_section", rows, returns=kept(FLOOR + 1, 1)) == set()
    assert wrong("cross_section", rows, returns=kept(FLOOR + 1, 1000)) == {MINE}


def test_a_change_over_more_than_one_session_has_no_peers() -> None:
    found = verdicts([day(FLOOR + 1, at=THU)], before(MINE), returns=kept(0.0, 1000, at=THU))
    assert counted(found, "cross_section") == (0, 0)


# Percent that peers must move for a fund that stands still to be stale; all alike, so their spread is 0.
MOVED = THRESHOLDS.stale_median
SAME = nav(WED, 1.01, 0.0)


def peers_up(change: float) -> list[NavRow]:
    return market([change] * len(PEERS))


def test_stale() -> None:
    assert wrong("stale", [SAME, *peers_up(MOVED + 0.1)]) == {MINE}
    assert wrong("stale", [SAME, *peers_up(-MOVED - 0.1)]) == {MINE}
    assert wrong("stale", [SAME, *peers_up(MOVED - 0.1)]) == set()
    assert wrong("stale", [nav(WED, 1.0099, -0.01), *peers_up(MOVED + 0.1)]) == set()
    # bonds and money stand still on many a day
    assert wrong("stale", [SAME, *peers_up(MOVED + 0.1)], "bond") == set()


def test_where_peers_went_both_ways_a_fund_may_stand_still() -> None:
    # half of the peers at +0.6 %, half at +6.0 %: the median is 3.3 %, the median deviation 2.7, the spread 4.0
    torn = [0.6, 6.0] * (len(PEERS) // 2)
    rows = [SAME, *market(torn)]
    allowed = max(MOVED, THRESHOLDS.stale_spread * 1.4826 * 2.7)
    assert wrong("stale", rows) == ({MINE} if allowed < 3.3 else set())


def test_a_fund_that_stood_still_before_is_not_stale() -> None:
    still = [nav(MON, 1.01), nav(TUE, 1.01, 0.0), *before(*PEERS)]
    held = reasons([SAME, *peers_up(MOVED + 0.1)], still)
    assert held[0] == ""


def test_a_day_without_change_that_two_rows_follow_is_believed() -> None:
    later = [nav(THU, 1.0201, 1.0), nav(FRI, 1.0303, 1.0)]
    assert wrong("stale", [SAME, *peers_up(MOVED + 0.1), *later[:1]]) == {MINE}
    assert wrong("stale", [SAME, *peers_up(MOVED + 0.1), *later]) == set()


def classes(*changes: float, names: Sequence[str] = ("甲混合A", "甲混合C", "甲混合E")) -> dict[str, Any]:
    """Rows of so many funds with these names, and the fund list that names them."""
    codes = [f"{n:06d}" for n in range(1, len(changes) + 1)]
    facts = {code: FundFacts("mixed", name) for code, name in zip(codes, names, strict=False)}
    rows = [day(change, code) for change, code in zip(changes, codes, strict=True)]
    return {"rows": rows, "funds": facts | {code: FundFacts("mixed") for code in PEERS}}


APART = THRESHOLDS.share_class


def test_of_two_share_classes_the_one_far_from_the_market_is_blamed() -> None:
    def blamed(*changes: float) -> set[str]:
        asked = classes(*changes)
        return wrong("share_class", [*asked["rows"], *market(CALM)], funds=asked["funds"])

    assert blamed(0.1, 0.1 + APART - 0.02) == set()
    assert blamed(0.1, 0.1 + APART + 0.02) == {"000002"}
    assert blamed(-0.1 - APART - 0.02, -0.1) == {"000001"}


def test_where_the_market_is_unknown_both_classes_wait() -> None:
    asked = classes(0.1, 0.1 + APART + 0.02)
    assert wrong("share_class", asked["rows"], funds=asked["funds"]) == {"000001", "000002"}


def test_of_three_share_classes_the_odd_one_is_blamed() -> None:
    asked = classes(1.0, 1.0 + APART + 0.02, 1.01)
    assert wrong("share_class", asked["rows"], funds=asked["funds"]) == {"000002"}


def test_funds_of_other_names_are_no_share_classes() -> None:
    asked = classes(0.1, 0.1 + APART + 0.02, names=("甲混合A", "乙混合C"))
    assert wrong("share_class", asked["rows"], funds=asked["funds"]) == set()
    nameless = classes(0.1, 0.1 + APART + 0.02, names=("", ""))
    assert wrong("share_class", nameless["rows"], funds=nameless["funds"]) == set()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("华夏成长混合A", "华夏成长混合"),
        ("华夏成长混合C", "华夏成长混合"),
        ("华夏成长混合(后端)", "华夏成长混合"),
        ("华夏成长混合（后端）", "华夏成长混合"),
        ("华夏成长混合", "华夏成长混合"),
        ("华夏全球股票(QDII)", "华夏全球股票(QDII)"),
        ("某某债券A类", "某某债券"),
        ("", ""),
    ],
)
def test_family_of(name: str, family: str) -> None:
    assert family_of(name) == family


@pytest.mark.parametrize(
    ("unit", "second", "reason"),
    [
        (1.0101, 1.0101, ""),
        (1.0101, 1.0102, "sources_agree"),
        (1.0101, 1.01014, ""),  # the other source shows more digits
        (1.01010012, 1.0101, ""),
        (1.0101, 1.012, "sources_agree"),
        (1.0101, 1.0, "sources_agree"),
        (1.0101, 10.101, "sources_agree"),
        (1.0101, np.nan, ""),
    ],
)
def test_sources_agree(unit: float, second: float, reason: str) -> None:
    assert reasons([nav(MON, unit)], second=beside(second_unit=[second])) == [reason]


ROWS = THRESHOLDS.clone_rows


def history(code: str, count: int = ROWS, start: float = 1.0) -> list[NavRow]:
    """Up by 0.0010 a day, no two days alike."""
    return [nav(at, round(start + n / 1000, 4), code=code) for n, at in enumerate(SESSIONS[:count])]


def cloned(*histories: Sequence[NavRow], names: Sequence[str] = ()) -> set[str]:
    rows = [row for one in histories for row in one]
    codes = sorted({row.fund_code for row in rows})
    facts = {
        code: FundFacts("mixed", names[n] if n < len(names) else f"基金{code}")
        for n, code in enumerate(codes)
    }
    found = reasons(rows, funds=facts)
    return {row.fund_code for row, text in zip(rows, found, strict=True) if "clone" in text.split(",")}


def test_clone() -> None:
    one, two, other = history("000001"), history("000002"), history("000003", start=2.0)
    assert cloned(one, two, other) == {"000001", "000002"}
    assert cloned(one, [*two[:-1], two[-1]._replace(unit_nav=1.5)], other) == set()
    # the same NAVs, each a session later
    late = [row._replace(nav_date=at) for row, at in zip(two, SESSIONS[1:], strict=False)]
    assert cloned(one, late) == set()
    assert cloned(one, history("000002", ROWS + 1)) == set()


def test_few_rows_and_quiet_funds_look_alike_without_being_clones() -> None:
    assert cloned(history("000001", ROWS - 1), history("000002", ROWS - 1)) == set()
    quiet = [[row._replace(unit_nav=1.0) for row in history(code)] for code in ("000001", "000002")]
    assert cloned(*quiet) == set()


def test_share_classes_may_have_one_history() -> None:
    pair = (history("000001"), history("000002"))
    assert cloned(*pair, names=("甲混合A", "甲混合C")) == set()
    assert cloned(*pair, names=("甲混合A", "乙混合C")) == {"000001", "000002"}
