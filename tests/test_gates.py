"""The gates one by one: a night that fails, and a near one that passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pytest

from core import gates as gate_names
from core.background import Background, FundFacts
from core.gates import LAGS, PAGE, Nights, category_figures, gates
from core.judging import RuleResult, Verdicts, judge
from core.nav_frames import ANCHOR_COLUMNS, frame_of, frame_of_rows
from core.sources.base import NavRow
from tests.example_batch import FRI, MON, SESSIONS, THRESHOLDS, THU, TODAY, TUE, WED, nav

DAYS = np.array(SESSIONS, dtype="datetime64[D]")


def judged(
    rows: Sequence[NavRow], before: Sequence[NavRow] = (), category: str = "mixed"
) -> tuple[Verdicts, Background]:
    funds = {row.fund_code: FundFacts(category) for row in (*rows, *before)}
    funds |= {row.fund_code: FundFacts("money") for row in rows if row.income_per_10k is not None}
    background = Background(TODAY, THRESHOLDS, DAYS, funds)
    anchors = frame_of(ANCHOR_COLUMNS, [row[: len(ANCHOR_COLUMNS)] for row in before])
    return judge(frame_of_rows(rows), anchors, background), background


def night(
    rows: Sequence[NavRow],
    before: Sequence[NavRow] = (),
    nights: Nights | None = None,
    category: str = "mixed",
    day: date = WED,
) -> dict[str, RuleResult]:
    found = gates(*judged(rows, before, category), day, nights or Nights())
    return {result.rule_id: result for result in found}


def market(count: int, day: date = WED, first: int = 1) -> list[NavRow]:
    return [nav(day, 1.0001 + n / 10_000, code=f"{n:06d}") for n in range(first, first + count)]


def test_a_sound_first_night_passes_every_gate() -> None:
    found = night(market(30))
    assert {name: result.failed for name, result in found.items() if result.failed} == {}
    assert {name for name, result in found.items() if result.severity == "partial"} == {"coverage.mixed"}
    # there is no night before to be held against
    assert gate_names.COVERAGE not in found


def test_coverage_is_held_against_the_middle_of_the_nights_before() -> None:
    nights = Nights([10, 400, 200])  # median 200
    least = round(200 * THRESHOLDS.share_of_last_batch)
    assert night(market(least), nights=nights)["coverage"].failed == 0
    short = night(market(least - 1), nights=nights)["coverage"]
    assert (short.failed, short.severity) == (1, "gate")
    assert short.figures == {"count": least - 1, "usual": 200, "needed": THRESHOLDS.share_of_last_batch}
    assert short.samples[0].startswith(f"{least - 1} sound rows, ")


def test_held_and_repeated_rows_do_not_count_as_coverage() -> None:
    least = round(200 * THRESHOLDS.share_of_last_batch)
    rows = [*market(least - 1), nav(WED, -1.0, code="900000"), market(1)[0]]
    assert night(rows, nights=Nights([200]))["coverage"].figures == {
        "count": least - 1,
        "usual": 200,
        "needed": THRESHOLDS.share_of_last_batch,
    }


def test_more_held_rows_than_the_limit_refuse_the_batch() -> None:
    most = round(100 * THRESHOLDS.share_quarantined_limit)
    bad = [nav(WED, -1.0, code=f"{n:06d}") for n in range(900_000, 900_000 + most + 1)]
    fine = night([*market(100 - most), *bad[:most]])["quarantined_share"]
    assert (fine.failed, fine.severity) == (0, "gate")
    assert fine.figures == {"count": most, "total": 100, "allowed": THRESHOLDS.share_quarantined_limit}
    assert night([*market(99 - most), *bad])["quarantined_share"].failed == 1
    # of a handful of rows most must be wrong
    half = gate_names.FEWEST_ROWS // 2
    assert night([*market(half - 1), *bad[: half - 1]])["quarantined_share"].failed == 0
    assert night([*market(half - 1), *bad[:half]])["quarantined_share"].failed == 1


def test_an_empty_batch_passes_no_gate_by_dividing_by_nothing() -> None:
    found = night([])
    assert {result.failed for result in found.values()} == {0}
    assert night([], nights=Nights([100]))["coverage"].failed == 1


def test_a_whole_number_of_pages_is_one_page_taken_for_the_market() -> None:
    rows = market(PAGE)
    capped = night(rows)["page_cap"]
    assert (capped.failed, capped.severity) == (1, "gate")
    assert capped.figures == {"all": PAGE, "nav": PAGE, "money": 0}
    assert capped.samples == [f"all {PAGE}, nav {PAGE} rows are a whole number of pages of {PAGE}"]
    assert night(rows[1:])["page_cap"].failed == 0
    # the NAVs came by the page though the money funds came whole
    money = [nav(WED, None, code=f"9{n:05d}", income_per_10k=0.5) for n in range(3)]
    mixed = night([*rows, *money])["page_cap"]
    assert (mixed.failed, mixed.figures) == (1, {"all": PAGE + 3, "nav": PAGE, "money": 3})


@pytest.mark.parametrize(("usual", "failed"), [(4976, 0), (5025, 0), (4970, 1), (5030, 1), (26_000, 1)])
def test_a_market_that_is_as_large_as_some_pages_passes(usual: int, failed: int) -> None:
    # within half a percent of the usual: 5000 of 4976 to 5025
    assert night(market(PAGE), nights=Nights([usual]))["page_cap"].failed == failed


def moved(count: int) -> list[NavRow]:
    """Two rows before the night: +1.00 % from Monday to Tuesday."""
    codes = [f"{n:06d}" for n in range(1, count + 1)]
    return [row for code in codes for row in (nav(MON, 1.0, code=code), nav(TUE, 1.01, 1.0, 1.01, code=code))]


def after(count: int, same: int, unit: float, published: float | None) -> list[NavRow]:
    """Wednesday: the first `same` funds as given, the others +2.00 %."""
    codes = [f"{n:06d}" for n in range(1, count + 1)]
    return [
        nav(WED, unit, published, code=code) if n < same else nav(WED, 1.0302, 2.0, code=code)
        for n, code in enumerate(codes)
    ]


def test_a_night_of_yesterdays_navs_is_refused() -> None:
    most = round(50 * THRESHOLDS.share_unchanged)
    fine = night(after(50, most, 1.01, 0.0), moved(50))["unchanged_share"]
    assert (fine.failed, fine.figures) == (
        0,
        {"count": most, "total": 50, "allowed": THRESHOLDS.share_unchanged},
    )
    stale = night(after(50, most + 1, 1.01, 0.0), moved(50))["unchanged_share"]
    assert (stale.failed, stale.severity) == (1, "gate")


def test_only_funds_that_follow_a_market_are_expected_to_move() -> None:
    still = after(50, 50, 1.01, 0.0)
    assert night(still, moved(50), category="mixed")["unchanged_share"].failed == 1
    assert night(still, moved(50), category="money")["unchanged_share"].figures == {
        "count": 0,
        "total": 0,
        "allowed": THRESHOLDS.share_unchanged,
    }
    # nor funds that stood still the day before
    dull = [row._replace(unit_nav=1.01, daily_return=0.0) for row in moved(50)]
    assert night(still, dull)["unchanged_share"].failed == 0


def test_a_handful_of_rows_says_nothing_of_a_night() -> None:
    few = gate_names.FEWEST_ROWS - 1
    assert night(after(few, few, 1.01, 0.0), moved(few))["unchanged_share"].failed == 0
    assert night(after(few + 1, few + 1, 1.01, 0.0), moved(few + 1))["unchanged_share"].failed == 1


def test_a_night_of_yesterdays_returns_is_refused() -> None:
    # 1.01 * 1.01 = 1.0201: 1.00 % again
    most = round(50 * THRESHOLDS.share_repeated)
    fine = night(after(50, most, 1.0201, 1.0), moved(50))["repeated_share"]
    assert (fine.failed, fine.figures) == (
        0,
        {"count": most, "total": 50, "allowed": THRESHOLDS.share_repeated},
    )
    again = night(after(50, most + 1, 1.0201, 1.0), moved(50))["repeated_share"]
    assert (again.failed, again.severity) == (1, "gate")


def test_a_return_of_nothing_may_be_that_of_the_day_before() -> None:
    dull = [row._replace(unit_nav=1.01, daily_return=0.0) for row in moved(50)]
    found = night(after(50, 50, 1.01, 0.0), dull)["repeated_share"]
    assert (found.failed, found.figures) == (
        0,
        {"count": 0, "total": 0, "allowed": THRESHOLDS.share_repeated},
    )


def test_a_night_of_blank_returns_is_refused() -> None:
    most = round(50 * THRESHOLDS.share_blank)
    nights = Nights(blank=[0.9, 0.01, 0.02])  # median 2 %
    fine = night(after(50, most, 1.0201, None), moved(50), nights)["blank_share"]
    assert (fine.failed, fine.figures) == (
        0,
        {"count": most, "total": 50, "allowed": THRESHOLDS.share_blank},
    )
    blank = night(after(50, most + 1, 1.0201, None), moved(50), nights)["blank_share"]
    assert (blank.failed, blank.severity) == (1, "gate")
    # a fund that has never published one leaves none out
    never = [row._replace(daily_return=None) for row in moved(50)]
    assert night(after(50, 50, 1.0201, None), never, nights)["blank_share"].failed == 0


def test_a_source_that_knows_no_returns_is_not_asked_for_them() -> None:
    rows = after(50, 50, 1.0201, None)
    usual = THRESHOLDS.share_blank + 0.01
    for nights in (Nights(), Nights(blank=[usual, usual, 0.0])):
        found = night(rows, moved(50), nights)["blank_share"]
        assert (found.failed, found.checked) == (0, 1)
        assert found.figures == {"count": 50, "total": 50, "allowed": THRESHOLDS.share_blank}


def test_category_figures_count_funds_by_sessions_behind() -> None:
    # on Friday: 3 up to date, 2 of Wednesday, 1 of Monday, 1 of the year before
    rows = [*market(3, FRI), *market(2, WED, 4), *market(1, MON, 6), *market(1, SESSIONS[0], 7)]
    verdicts, _background = judged(rows)
    everybody = np.ones(len(verdicts.frame), dtype=bool)
    assert category_figures(verdicts, everybody, DAYS, FRI) == {"mixed": [3, 3, 5, 5, 6, 6, 7]}
    assert len([3, 3, 5, 5, 6, 6, 7]) == LAGS + 1
    # a row of the day after is not behind
    assert category_figures(verdicts, everybody, DAYS, THU) == {"mixed": [3, 5, 5, 6, 6, 6, 7]}
    nobody = np.zeros(len(verdicts.frame), dtype=bool)
    assert category_figures(verdicts, nobody, DAYS, FRI) == {}


def usually(*counts: int, nights: int = 3) -> Nights:
    return Nights((), {"mixed": [list(counts)] * nights})


def test_a_category_is_held_against_its_own_lag() -> None:
    # by this time of night 100 of 110 have usually published: 100 >= 0.8 * 110
    prompt = usually(100, 105, 105, 105, 105, 105, 110)
    least = round(100 * THRESHOLDS.share_of_category)
    assert night(market(least), nights=prompt)["coverage.mixed"].failed == 0
    thin = night([*market(least - 1), *market(20, TUE, 200)], nights=prompt)["coverage.mixed"]
    assert (thin.severity, thin.checked, thin.failed) == ("partial", 1, 1)
    assert thin.figures == {
        "category": "mixed",
        "counts": [least - 1, *[least + 19] * (LAGS - 1), least + 19],
        "lag": 0,
        "count": least - 1,
        "usual": 100,
        "needed": THRESHOLDS.share_of_category,
    }
    # a category that is usually a day late is asked for yesterday's
    late = usually(10, 100, 105, 105, 105, 105, 110)
    assert night(market(least, TUE), nights=late)["coverage.mixed"].failed == 0
    assert night(market(least - 1, TUE), nights=late)["coverage.mixed"].failed == 1


def test_a_category_of_which_nothing_came_is_missed() -> None:
    found = night(market(30), nights=Nights((), {"bond": [[50] * (LAGS + 1)] * 3}))
    assert (found["coverage.mixed"].failed, found["coverage.bond"].failed) == (0, 1)
    assert found["coverage.bond"].figures is not None
    assert found["coverage.bond"].figures["counts"] == [0] * (LAGS + 1)


def test_two_nights_and_nine_funds_are_no_yardstick() -> None:
    young = night(market(1), nights=usually(*[100] * 7, nights=2))["coverage.mixed"]
    assert (young.checked, young.failed) == (0, 0)
    assert young.figures == {"category": "mixed", "counts": [1] * (LAGS + 1)}
    assert night(market(1), nights=usually(*[9] * 7))["coverage.mixed"].failed == 0
    assert night(market(1), nights=usually(*[10] * 7))["coverage.mixed"].failed == 1
