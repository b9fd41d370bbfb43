"""The row rules one by one: a row that fails, and a near one that passes."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigurationError
from core.rules import GATE, HELD_GATE, RULES
from core.sources.base import NavRow
from core.thresholds import load_thresholds
from tests.example_batch import FRI, MON, ROOT, THRESHOLDS, TODAY, TUE, WED, booked, nav, reasons, verdicts

RULES_TEXT = (ROOT / "config" / "rules.toml").read_text(encoding="utf-8")


def test_ten_rules_on_rows_and_two_on_the_batch() -> None:
    assert [rule.id for rule in RULES] == [
        "key_fields",
        "code_format",
        "future_date",
        "nav_positive",
        "duplicate",
        "conflict",
        "return_matches_nav",
        "return_limit",
        "accum_vs_unit",
        "money_limit",
    ]
    assert (GATE, HELD_GATE) == ("coverage", "quarantined_share")
    assert {rule.id: rule.severity for rule in RULES if rule.severity != "error"} == {"duplicate": "warning"}


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
    # the first row has no row before it, and no return of its own
    assert checked == dict.fromkeys(checked, 2) | {
        "return_matches_nav": 1,
        "return_limit": 1,
        "accum_vs_unit": 1,
        "money_limit": 0,
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (nav(None, 1.0), "key_fields"),
        (nav(MON, 1.0, code=""), "key_fields,code_format"),
        (nav(MON, None, 0.5, 1.5), "key_fields"),
        (nav(MON, 1.0, defect="unit_nav 'x' is no number"), "key_fields"),
        (nav(MON, 1.0, income_per_10k=0.5), "key_fields"),
        (nav(MON, None, 0.5, income_per_10k=0.5), "key_fields"),
        (nav(MON, None, None, 1.5, yield_7d=1.8), "key_fields"),
        (nav(MON, 1.0), ""),
        (nav(MON, None, income_per_10k=0.5), ""),
        (nav(MON, None, yield_7d=1.8), ""),
        (nav(MON, None, income_per_10k=-0.01, yield_7d=-0.2), ""),
    ],
)
def test_key_fields(row: NavRow, reason: str) -> None:
    assert reasons([row]) == [reason]


@pytest.mark.parametrize(
    "code", ["00001", "0000011", "00000a", "000001 ", "000001\n", "０００００１", "-00001"]
)
def test_code_format(code: str) -> None:
    assert reasons([nav(MON, 1.0, code=code)]) == ["code_format"]
    assert reasons([nav(MON, 1.0, code="000001")]) == [""]


def test_future_date() -> None:
    assert reasons([nav(TODAY, 1.0)]) == [""]
    assert reasons([nav(date(2026, 1, 1), 1.0)]) == ["future_date"]


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


@pytest.mark.parametrize("field", ["income_per_10k", "yield_7d"])
def test_an_income_no_column_holds_is_not_believed(field: str) -> None:
    assert reasons([nav(MON, None, **dict[str, Any]({field: 1e9}))]) == ["nav_positive,money_limit"]
    assert reasons([nav(MON, None, **dict[str, Any]({field: 12.5}))]) == [""]


@pytest.mark.parametrize(("field", "limit"), [("income_per_10k", 30.0), ("yield_7d", 40.0)])
def test_money_limit(field: str, limit: float) -> None:
    def row(value: float) -> NavRow:
        return nav(MON, None, **dict[str, Any]({field: value}))

    assert reasons([row(limit)]) == reasons([row(-limit)]) == [""]
    assert reasons([row(limit + 0.01)]) == reasons([row(-limit - 0.01)]) == ["money_limit"]


def test_a_yield_as_nav_is_held_and_an_exchange_traded_money_fund_is_not() -> None:
    assert reasons([nav(MON, 1.853)], category="money") == ["money_limit"]
    assert reasons([nav(MON, 100.258)], category="money") == [""]
    assert reasons([nav(MON, 1.853)], category="bond") == [""]


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


def test_the_published_return_has_the_same_limit() -> None:
    # first row of a fund: 25 % * sqrt(5) = 55.9 %
    assert reasons([nav(MON, 1.0, 55.8)]) == [""]
    assert reasons([nav(MON, 1.0, 56.0)]) == ["return_limit"]
    assert reasons([nav(MON, 1.0, -56.0)]) == ["return_limit"]


def test_accum_vs_unit() -> None:
    before = nav(MON, 1.0001, None, 1.0001)
    # accumulated over unit from 1.0000 to 1.2999 and to 1.3001; the limit is 1.3
    assert reasons([before, nav(TUE, 1.0001, 0.0, 1.3)]) == ["", ""]
    assert reasons([before, nav(TUE, 1.0001, 0.0, 1.3002)]) == ["", "accum_vs_unit"]
    assert reasons([before, nav(TUE, 1.0001, 0.0, 0.7694)]) == ["", ""]
    assert reasons([before, nav(TUE, 1.0001, 0.0, 0.7692)]) == ["", "accum_vs_unit"]


def test_accum_vs_unit_may_change_its_basis_in_a_split() -> None:
    before = nav(MON, 2.0001, None, 2.0001)
    # 2 * 1.0101 / 2.0001 - 1 = 1.00495 %; the accumulated NAV goes on at the old basis
    assert reasons([before, nav(TUE, 1.0101, 1.0, 2.0201, split_ratio=2.0)]) == ["", ""]
    assert reasons([before, nav(TUE, 1.0101, None, 2.0201)]) == ["", "return_limit,accum_vs_unit"]


def test_a_blank_accumulated_nav_is_no_finding() -> None:
    rows = [nav(MON, 1.0001, None, 1.5001), nav(TUE, 1.0001, 0.0), nav(WED, 1.0001, 0.0, 3.0)]
    found = verdicts(rows)
    assert [result.checked for result in found.results if result.rule_id == "accum_vs_unit"] == [0]


def test_a_batch_without_rows() -> None:
    found = verdicts([])
    assert found.reasons.size == 0
    assert [(result.checked, result.failed) for result in found.results] == [(0, 0)] * len(RULES)


def test_samples_name_fund_date_and_values() -> None:
    found = verdicts([nav(MON, -1.0, origin="navs.csv:17")])
    samples = {result.rule_id: result.samples for result in found.results}
    assert samples["nav_positive"] == ["000001 2025-12-01 unit_nav=-1 navs.csv:17"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("factor = 1.3", "", "factor"),
        ("share_of_last_batch = 0.9", "share_of_last_batch = 9", "share_of_last_batch = 9"),
        ("share_quarantined = 0.01", "share_quarantined = -0.01", "share_quarantined = -0.01"),
        ("stock = 25", 'stock = "a lot"', "a lot"),
        ("other = 35", "", "other"),
        ("[merge]", "[merge", "rules.toml"),
        ("factor = 1.3", "factor = 1.0", "factor = 1 "),
        ("bond = 15", "bond = 0", "bond = 0"),
        ("share_quarantined_limit = 0.2", "share_quarantined_limit = 2", "share_quarantined_limit = 2"),
        ("share_quarantined_limit = 0.2", "", "share_quarantined_limit"),
        ("yield_7d = 40       # percent a year", "yield_7d = 0", "money.yield_7d = 0"),
        ("yield_7d = 40       # percent a year", "", "yield_7d"),
        ("bond = 15", "bonds = 15", "bonds"),
    ],
)
def test_wrong_thresholds_are_refused(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert RULES_TEXT.count(f"\n{old}\n") == 1
    path = tmp_path / "rules.toml"
    path.write_text(RULES_TEXT.replace(f"\n{old}\n", f"\n{new}\n"), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_thresholds(path)
    assert named in str(caught.value)
    assert "rules.toml" in str(caught.value)


def test_missing_thresholds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml"):
        load_thresholds(tmp_path / "nothing.toml")
