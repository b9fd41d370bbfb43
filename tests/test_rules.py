"""The row rules one by one: a row that fails, and a near one that passes."""

from __future__ import annotations

import re
from datetime import date
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.background import FundFacts
from core.errors import ConfigurationError
from core.rules import COMPANY, RULES
from core.sources.base import NavRow
from core.thresholds import load_thresholds
from tests.example_batch import (
    FRI,
    MON,
    ROOT,
    THRESHOLDS,
    THU,
    TODAY,
    TUE,
    WED,
    beside,
    booked,
    counted,
    nav,
    reasons,
    verdicts,
)

RULES_TEXT = (ROOT / "config" / "rules.toml").read_text(encoding="utf-8")


def test_the_rules_and_their_severities() -> None:
    assert [rule.id for rule in RULES if rule.severity == "error"] == [
        "key_fields",
        "code_format",
        "unknown_fund",
        "future_date",
        "before_inception",
        "no_session",
        "nav_positive",
        "conflict",
        "return_matches_nav",
        "return_limit",
        "rejected",
        "behind_held",
        "unannounced_dividend",
        "cross_section",
        "share_class",
        "stale",
        "clone",
        "accum_vs_unit",
        "money_limit",
        "money_yield",
        "revision",
        "sources_agree",
    ]
    warnings = {rule.id for rule in RULES if rule.severity == "warning"}
    assert warnings == {"decimals", "duplicate", "return_unusual"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_says_in_both_languages_what_it_wants(rule: object) -> None:
    zh, en = rule.zh, rule.en  # type: ignore[attr-defined]
    assert len(en.split()) >= 3
    assert en.isascii()
    assert any("\u4e00" <= character <= "\u9fff" for character in zh)


def test_a_sound_row_passes_every_rule() -> None:
    found = verdicts([nav(MON, 1.0001, None, 1.5001), nav(TUE, 1.0101, 1.0, 1.5101)])
    assert [(result.rule_id, result.failed) for result in found.results] == [(rule.id, 0) for rule in RULES]
    checked = {result.rule_id: result.checked for result in found.results}
    # the first row has no row before it, and no return of its own; nothing else is known of either
    follows = ("return_matches_nav", "return_limit", "return_unusual", "unannounced_dividend")
    context = ("behind_held", "cross_section", "share_class", "stale", "clone", "sources_agree", "revision")
    expected = dict.fromkeys(checked, 2) | dict.fromkeys(follows, 1) | dict.fromkeys(context, 0)
    expected |= {"decimals": 1, "no_session": 1, "accum_vs_unit": 1, "money_limit": 0, "money_yield": 0}
    assert checked == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (nav(None, 1.0), "key_fields"),
        (nav(MON, 1.0, code=""), "code_format"),
        (nav(MON, None, 0.5, 1.5), "key_fields"),
        (nav(MON, 1.0, defect="unit_nav 'x' is no number"), "key_fields"),
        (nav(MON, 1.0, income_per_10k=0.5), "key_fields"),
        (nav(MON, None, 0.5, income_per_10k=0.5), "key_fields"),
        (nav(MON, None, None, 1.5, yield_7d=1.8), "key_fields"),
        (nav(MON, 1.0), ""),
        (nav(MON, None, income_per_10k=0.5), ""),
        (nav(MON, None, yield_7d=1.8), ""),
        (nav(MON, None, income_per_10k=-0.01, yield_7d=-0.03), ""),
    ],
)
def test_key_fields(row: NavRow, reason: str) -> None:
    assert reasons([row], category="other") == [reason]


@pytest.mark.parametrize(
    "code", ["00001", "0000011", "00000a", "000001 ", "000001\n", "０００００１", "-00001"]
)
def test_code_format(code: str) -> None:
    assert reasons([nav(MON, 1.0, code=code)]) == ["code_format"]
    assert reasons([nav(MON, 1.0, code="000001")]) == [""]


def test_unknown_fund() -> None:
    row = nav(TUE, 1.0)
    assert reasons([row], funds={"000001": FundFacts("mixed")}) == [""]
    assert reasons([row], funds={"000002": FundFacts("mixed")}) == ["unknown_fund"]
    # a fund of which we hold rows may have left the list; without a list nobody is a stranger
    assert reasons([row], [nav(MON, 1.0)], funds={"000002": FundFacts("mixed")}) == [""]
    assert reasons([row], funds={}) == [""]


def test_future_date() -> None:
    assert reasons([nav(TODAY, 1.0)]) == [""]
    assert reasons([nav(date(2026, 1, 1), 1.0)]) == ["future_date"]


def test_before_inception() -> None:
    known = {"000001": FundFacts("mixed", inception=TUE)}
    rows = [nav(MON, 1.0), nav(TUE, 1.0, 0.0)]
    assert reasons(rows, funds=known) == ["before_inception", ""]
    # a fund that was converted keeps the history we hold
    assert reasons(rows, [nav(date(2025, 11, 28), 1.0)], funds=known) == ["", ""]
    assert reasons(rows, [nav(date(2025, 11, 28), 1.0, code="000002")], funds=known)[0] == "before_inception"


def test_no_fund_is_older_than_the_first() -> None:
    assert reasons([nav(date(1998, 2, 27), 1.0)]) == ["before_inception"]
    assert reasons([nav(date(1998, 3, 23), 1.0)]) == [""]


SAT = date(2025, 12, 6)


def test_a_lone_nav_of_a_day_without_trading() -> None:
    def saturday(funds: int, day: date = SAT) -> list[str]:
        codes = [f"{n:06d}" for n in range(1, funds + 1)]
        return reasons(
            [nav(day, 1.0, 0.0, code=code) for code in codes], [nav(FRI, 1.0, code=code) for code in codes]
        )

    assert saturday(1) == ["no_session"]
    assert saturday(COMPANY - 1) == ["no_session"] * (COMPANY - 1)
    assert saturday(COMPANY) == [""] * COMPANY
    # a fund's first row may be of the day it was founded
    assert reasons([nav(SAT, 1.0)]) == [""]
    # the half year is valued on its last day, a Sunday in 2024
    assert reasons([nav(date(2024, 6, 28), 1.0), nav(date(2024, 6, 30), 1.0, 0.0)]) == ["", ""]
    assert reasons([nav(date(2024, 6, 28), 1.0), nav(date(2024, 6, 29), 1.0, 0.0)]) == ["", "no_session"]


def test_the_calendar_is_asked_for_the_days_it_knows_only() -> None:
    rows = [nav(date(2026, 1, 2), 1.0), nav(date(2026, 1, 3), 1.0, 0.0)]
    assert reasons(rows, today=date(2026, 2, 1)) == ["", ""]


def test_decimals() -> None:
    def failed(*values: float) -> int:
        days = [nav(day, value) for day, value in zip((MON, TUE, WED), values, strict=False)]
        return counted(verdicts(days), "decimals")[1]

    assert failed(1.0001, 1.0002) == 0
    assert failed(1.01, 1.0001) == 0  # four are usual
    assert failed(1.0001, 1.00010001) == 1
    assert failed(1.0001, 1.00010001, 1.00010002) == 1


@pytest.mark.parametrize("value", [0.0, -0.0001, 9.9e-7, 4e-13, 1e8, 1e300])
def test_nav_positive(value: float) -> None:
    assert reasons([nav(MON, value)]) == ["nav_positive"]
    assert reasons([nav(MON, 1.0, None, value)]) == ["nav_positive"]


@pytest.mark.parametrize("value", [1e-6, 0.0001, 0.5, 99_999_999.0])
def test_nav_above_zero(value: float) -> None:
    assert reasons([nav(MON, value, None, value)]) == [""]


@pytest.mark.parametrize("field", ["dividend", "split_ratio"])
@pytest.mark.parametrize("value", [1e9, 9.9e-7, 1e-300, -0.5])
def test_an_event_no_column_holds_is_not_believed(field: str, value: float) -> None:
    row = nav(MON, 1.0, **dict[str, Any]({field: value}))
    assert reasons([row]) == ["nav_positive"]
    assert reasons([row._replace(**dict[str, Any]({field: 0.0}))]) == [""]
    assert booked([row, nav(TUE, 1.0)]) == []


def _counts(rows: list[NavRow]) -> tuple[int, int, int]:
    """Findings of duplicate and of conflict, and rows to be dropped."""
    found = verdicts(rows)
    failed = {result.rule_id: result.failed for result in found.results}
    return failed["duplicate"], failed["conflict"], int(found.repeats.sum())


def test_duplicates_are_dropped_and_not_held() -> None:
    row = nav(MON, 1.0, 0.5, 1.5)
    assert _counts([row, row, row]) == (2, 0, 2)
    assert reasons([row, row, row]) == ["", "", ""]
    assert _counts([row, row._replace(origin="another.csv:7")]) == (1, 0, 1)
    assert _counts([row, row._replace(fund_code="000002"), row._replace(nav_date=TUE)]) == (0, 0, 0)


def test_of_conflicting_rows_none_is_believed() -> None:
    row = nav(MON, 1.0, None, 1.5)
    assert _counts([row, row._replace(unit_nav=1.0001)]) == (0, 2, 0)
    assert reasons([row, row._replace(unit_nav=1.0001)]) == ["conflict", "conflict"]
    assert reasons([row, row._replace(accum_nav=None)]) == ["conflict", "conflict"]
    # of two equal rows one is a repeat, the other is in the conflict
    assert _counts([row, row, row._replace(accum_nav=1.6)]) == (1, 2, 1)
    assert reasons([row, row._replace(fund_code="000002", unit_nav=1.0001)]) == ["", ""]


def test_rows_without_a_date_are_neither_duplicates_nor_conflicts() -> None:
    assert _counts([nav(None, 1.0), nav(None, 1.0), nav(None, 2.0)]) == (0, 0, 0)


def test_two_undated_or_broken_rows_do_not_hide_each_other() -> None:
    broken = nav(MON, None, defect="unit_nav 'x' is no number", raw="000001,2025-12-01,x")
    assert (
        reasons([broken._replace(origin="a.csv:3"), broken._replace(origin="a.csv:9")]) == ["key_fields"] * 2
    )


@pytest.mark.parametrize(("category", "limit"), sorted(THRESHOLDS.return_limit.items()))
@pytest.mark.parametrize("sign", [1, -1])
def test_return_limit_of_a_day_by_category(category: str, limit: float, sign: int) -> None:
    def day(change: float) -> str:
        return reasons([nav(MON, 1.0), nav(TUE, 1 + sign * change / 100)], category=category)[1]

    assert day(limit - 0.01) == ""
    assert day(limit + 0.01) == "return_limit"


def test_a_category_without_a_limit_of_its_own_has_that_of_other_funds() -> None:
    assert reasons([nav(MON, 100.0), nav(TUE, 134.99)], category="money")[1] == ""
    assert reasons([nav(MON, 100.0), nav(TUE, 135.01)], category="money")[1] == "return_limit"


def test_return_limit_grows_with_the_root_of_the_sessions_between() -> None:
    # Monday to Friday is four sessions: 15 % * 2 for bond funds
    assert reasons([nav(MON, 1.0), nav(FRI, 1.2999)], category="bond")[1] == ""
    assert reasons([nav(MON, 1.0), nav(FRI, 1.3001)], category="bond")[1] == "return_limit"
    # five at most: after two years 15 % * sqrt(5) = 33.5 %
    assert reasons([nav(date(2024, 1, 2), 1.0), nav(FRI, 1.335)], category="bond")[1] == ""
    assert reasons([nav(date(2024, 1, 2), 1.0), nav(FRI, 1.336)], category="bond")[1] == "return_limit"


JUMP = [  # +68 % after a large redemption, and two days of +1.00 %
    nav(MON, 1.0),
    nav(TUE, 1.68, 68.0),
    nav(WED, 1.6968, 1.0),
    nav(THU, 1.7138, 1.0),
]


def test_a_jump_is_held_until_two_rows_follow_from_it() -> None:
    assert reasons(JUMP[:2])[1] == "return_limit"
    assert reasons(JUMP[:3])[1] == "return_limit"
    assert reasons(JUMP) == [""] * 4
    # nobody published the jump itself, or nothing follows from it
    assert reasons([JUMP[0], JUMP[1]._replace(daily_return=None), *JUMP[2:]])[1] == "return_limit"
    assert reasons([*JUMP[:2], nav(WED, 1.0202, 1.0), nav(THU, 1.0304, 1.0)])[1] == "return_limit"


def test_return_unusual_is_counted_and_believed() -> None:
    limit = THRESHOLDS.return_limit["mixed"]
    edge = THRESHOLDS.return_warning * limit / 100

    def warned(change: float) -> int:
        return counted(verdicts([nav(MON, 1.0), nav(TUE, 1 + change)]), "return_unusual")[1]

    assert [warned(edge - 0.0001), warned(edge + 0.0001), warned(limit / 100 + 0.0001)] == [0, 1, 0]


def held_on_tuesday(unit: float, level: bool = True) -> pd.DataFrame:
    """The newest row held before that of a batch, for its NAV's level or for something beside it."""
    return beside(held_unit=[unit], held_day=[(TUE - date(1970, 1, 1)).days], held_level=[float(level)])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        # held on Tuesday at 1.2000: 1.2120 / 1.2 - 1 = 1.00 %, 1.0201 goes on from Monday's 1.0000
        (nav(WED, 1.212, 1.0), "behind_held"),
        (nav(WED, 1.0201, 1.0), ""),
        (nav(WED, 1.212, None), "behind_held"),
        (nav(WED, 1.0201, None), ""),
        # 1.2000 / 1.2000: neither does a return of nothing say anything
        (nav(WED, 1.2, 0.0), "behind_held"),
    ],
)
def test_a_row_that_goes_on_from_a_held_level_waits_with_it(row: NavRow, reason: str) -> None:
    held = held_on_tuesday(1.2)
    assert reasons([row], [nav(MON, 1.0)], held=held) == [reason]
    assert reasons([row], [nav(MON, 1.0)]) == [""]
    # what was held before the last believed row waits alone
    assert reasons([row], [nav(MON, 1.0), nav(TUE, 1.1)], held=held) == reasons(
        [row], [nav(MON, 1.0), nav(TUE, 1.1)]
    )


def test_a_row_held_for_something_beside_its_level_keeps_nobody_waiting() -> None:
    row = nav(WED, 1.0302, 1.0)  # 1.0302 / 1.0200 - 1 = 1.00 %
    assert reasons([row], [nav(MON, 1.0)], held=held_on_tuesday(1.02)) == ["behind_held"]
    assert reasons([row], [nav(MON, 1.0)], held=held_on_tuesday(1.02, level=False)) == [""]
    # unless its NAV is far off as well
    far = nav(WED, 1.212, 1.0)
    assert reasons([far], [nav(MON, 1.0)], held=held_on_tuesday(1.2, level=False)) == ["behind_held"]


def test_a_value_that_somebody_rejected_comes_back_in_vain() -> None:
    wrong = frozenset({("000001", TUE, 1.0101, None)})
    rows = [nav(MON, 1.0001), nav(TUE, 1.0101, 1.0)]
    assert reasons(rows, rejected=wrong) == ["", "rejected"]
    assert reasons([nav(MON, 1.0101), nav(TUE, 1.0102)], rejected=wrong) == ["", ""]
    assert reasons([nav(TUE, 1.0101, code="000002"), nav(None, 1.0101)], rejected=wrong) == ["", "key_fields"]


def test_a_dividend_nobody_announced_waits_for_two_rows() -> None:
    # accumulated +0.0020, unit -0.0480: (1.1521 + 0.05) / 1.2001 - 1 = 0.16665 %;
    # 1.1621 / 1.1521 - 1 = 0.86798 %, 1.1737 / 1.1621 - 1 = 0.99819 %
    rows = [
        nav(MON, 1.2001, None, 1.5001),
        nav(TUE, 1.1521, 0.17, 1.5021),
        nav(WED, 1.1621, 0.87, 1.5121),
        nav(THU, 1.1737, 1.0, 1.5237),
    ]
    assert reasons(rows) == [""] * 4
    assert reasons(rows[:3])[1] == "unannounced_dividend"
    assert reasons(rows[:2])[1] == "unannounced_dividend"
    assert reasons([rows[0], rows[1]._replace(dividend=0.05)]) == ["", ""]
    # on record already: the list of dividends named it
    events = beside(dividend=[nan, 0.05], split_ratio=[nan, nan])
    assert reasons(rows[:2], events=events) == ["", ""]


SMALL = THRESHOLDS.revision_small / 100


@pytest.mark.parametrize(
    ("old", "old_return", "new", "published", "reason"),
    [
        (1.0, nan, 1 + SMALL - 0.0001, None, ""),
        (1.0, nan, 1 + SMALL + 0.0001, None, "revision"),
        (1.0, nan, 1 - SMALL - 0.0001, None, "revision"),
        # more digits of the same value
        (1.0101, 1.01, 1.01012345, 1.01, ""),
        # Monday's 1.0000 and the return prove 1.0100, and did not prove 1.0500
        (1.05, 1.0, 1.01, 1.0, ""),
        (1.05, nan, 1.01, 1.0, ""),
        # both prove themselves
        (1.05, 5.0, 1.01, 1.0, "revision"),
    ],
)
def test_revision(old: float, old_return: float, new: float, published: float | None, reason: str) -> None:
    stored = beside(stored_unit=[old], stored_accum=[nan], stored_return=[old_return])
    assert reasons([nav(TUE, new, published)], [nav(MON, 1.0)], stored=stored) == [reason]


def test_what_is_believed_already_is_not_held_for_being_said_again() -> None:
    stored = beside(stored_unit=[2.0], stored_accum=[3.0], stored_return=[100.0])
    row = nav(TUE, 2.0, 100.0, 3.0)
    for again in (row, row._replace(accum_nav=None), row._replace(daily_return=None)):
        assert reasons([again], [nav(MON, 1.0)], stored=stored) == [""]
    assert reasons([row], [nav(MON, 1.0)]) == ["return_limit"]
    # with other values beside it, or an event, it is judged as any
    for new in (row._replace(accum_nav=3.1), row._replace(daily_return=99.0), row._replace(dividend=0.1)):
        assert reasons([new], [nav(MON, 1.0)], stored=stored) != [""]


def test_a_row_somebody_vouches_for_is_held_by_no_rule() -> None:
    rows = [nav(MON, 1.0), nav(TUE, 2.0, 1.0), nav(WED, 4.0, 1.0)]
    assert reasons(rows)[1] != ""
    assert reasons(rows, released=frozenset({2}))[1] == ""


def test_the_published_return_has_the_same_limit() -> None:
    # first row of a fund: 25 % * sqrt(5) = 55.9 %
    assert reasons([nav(MON, 1.0, 55.8)]) == [""]
    assert reasons([nav(MON, 1.0, 56.0)]) == ["return_limit"]
    assert reasons([nav(MON, 1.0, -56.0)]) == ["return_limit"]


ACCUM = THRESHOLDS.accum_tolerance


@pytest.mark.parametrize(
    ("published", "off", "reason"),
    [
        (1.0, 0.99 * ACCUM, ""),
        (1.0, 1.01 * ACCUM, "accum_vs_unit"),
        (1.0, -0.99 * ACCUM, ""),
        (1.0, -1.01 * ACCUM, "accum_vs_unit"),
        # without a return nothing else tells of a dividend: then rounding alone is allowed, 4 * 0.00005 / 1.0
        (None, 0.00019, ""),
        (None, 0.00021, "accum_vs_unit"),
        (0.0, -0.00021, "accum_vs_unit"),
    ],
)
def test_accum_vs_unit(published: float | None, off: float, reason: str) -> None:
    # both from 1.0001, the unit NAV by 0.0100 or not at all
    unit = 1.0101 if published == 1.0 else 1.0001
    row = nav(TUE, unit, published, unit + off * 1.0001)
    assert reasons([nav(MON, 1.0001, None, 1.0001), row]) == ["", reason]


def test_a_basis_of_the_accumulated_nav_that_two_rows_keep_is_believed() -> None:
    rows = [
        nav(MON, 1.0001, None, 1.0001),
        nav(TUE, 1.0101, 1.0, 1.5101),
        nav(WED, 1.0202, 1.0, 1.5202),
        nav(THU, 1.0304, 1.0, 1.5304),
    ]
    assert reasons(rows) == [""] * 4
    assert reasons(rows[:3]) == ["", "accum_vs_unit", ""]
    # back on the old basis on Thursday
    assert reasons([*rows[:3], rows[3]._replace(accum_nav=1.0304)])[1] == "accum_vs_unit"


def test_accum_vs_unit_may_change_its_basis_in_a_split() -> None:
    before = nav(MON, 2.0001, None, 2.0001)
    # 2 * 1.0101 / 2.0001 - 1 = 1.00495 %; the accumulated NAV goes on at the old basis
    assert reasons([before, nav(TUE, 1.0101, 1.0, 2.0201, split_ratio=2.0)]) == ["", ""]
    assert reasons([before, nav(TUE, 1.0101, None, 2.0201)]) == ["", "return_limit,accum_vs_unit"]


def test_a_blank_accumulated_nav_is_no_finding() -> None:
    found = verdicts([nav(MON, 1.0001, None, 1.5001), nav(TUE, 1.0001, 0.0), nav(WED, 1.0001, 0.0)])
    assert counted(found, "accum_vs_unit") == (0, 0)
    # and the next one is held against the one before it
    rows = [nav(MON, 1.0001, None, 1.5001), nav(TUE, 1.0001, 0.0), nav(WED, 1.0001, 0.0, 3.0)]
    assert reasons(rows) == ["", "", "accum_vs_unit"]
    assert reasons([*rows[:2], rows[2]._replace(accum_nav=1.5001)]) == ["", "", ""]


def test_a_batch_without_rows() -> None:
    found = verdicts([])
    assert found.reasons.size == 0
    assert [(result.checked, result.failed) for result in found.results] == [(0, 0)] * len(RULES)


def test_samples_name_fund_date_and_values() -> None:
    found = verdicts([nav(MON, -1.0, origin="navs.csv:17")])
    samples = {result.rule_id: result.samples for result in found.results}
    assert samples["nav_positive"] == ["000001 2025-12-01 unit_nav=-1 navs.csv:17"]


@pytest.mark.parametrize(
    ("key", "new", "named"),
    [
        ("accum_tolerance", "", "accum_tolerance"),
        ("share_of_last_batch", "share_of_last_batch = 9", "share_of_last_batch = 9"),
        ("share_quarantined", "share_quarantined = -0.01", "share_quarantined = -0.01"),
        ("stock", 'stock = "a lot"', "a lot"),
        ("other", "", "other"),
        ("clone_rows", "clone_rows = 0", "peers.clone_rows = 0"),
        ("bond", "bond = 0", "bond = 0"),
        ("share_quarantined_limit", "share_quarantined_limit = 2", "share_quarantined_limit = 2"),
        ("share_quarantined_limit", "", "share_quarantined_limit"),
        ("yield_7d", "yield_7d = 0", "money.yield_7d = 0"),
        ("yield_7d", "", "yield_7d"),
        ("bond", "bonds = 15", "bonds"),
        ("bond", "[bond", "rules.toml"),
    ],
)
def test_wrong_thresholds_are_refused(tmp_path: Path, key: str, new: str, named: str) -> None:
    text, found = re.subn(rf"(?m)^{key} = .*$", new, RULES_TEXT)
    assert found == 1
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_thresholds(path)
    assert named in str(caught.value)
    assert "rules.toml" in str(caught.value)


def test_missing_thresholds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml"):
        load_thresholds(tmp_path / "nothing.toml")
