"""Money funds publish incomes and yields: a row that fails, and a near one that passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest

from core.money_rules import MONEY_NAV_FLOOR
from core.sources.base import NavRow
from tests.example_batch import MON, THRESHOLDS, THU, TUE, nav, reasons

LAST = date(2025, 12, 14)  # a Sunday: incomes are published for every day of the week
LIMITS = sorted(THRESHOLDS.money_limit.items())
SLACK = THRESHOLDS.yield_slack


def row(day: date, income: float | None, published: float | None = None) -> NavRow:
    return nav(day, None, income_per_10k=income, yield_7d=published)


def week(incomes: Sequence[float], published: float) -> list[NavRow]:
    """One row a calendar day up to LAST, the yield on the last."""
    days = [LAST - timedelta(days=n) for n in range(len(incomes))][::-1]
    rows = [row(day, income) for day, income in zip(days, incomes, strict=True)]
    return [*rows[:-1], rows[-1]._replace(yield_7d=published)]


def last(rows: Sequence[NavRow], before: Sequence[NavRow] = ()) -> str:
    return reasons(rows, before, "money")[-1]


@pytest.mark.parametrize("field", ["income_per_10k", "yield_7d"])
def test_an_income_no_column_holds_is_not_believed(field: str) -> None:
    huge = nav(MON, None, **dict[str, Any]({field: 1e9}))
    assert reasons([huge], category="money") == ["nav_positive,money_limit"]
    fair = nav(MON, None, **dict[str, Any]({field: 12.5}))
    assert reasons([fair], category="money") == [""]


@pytest.mark.parametrize(("field", "limit"), LIMITS)
def test_money_limit(field: str, limit: float) -> None:
    def found(value: float) -> list[str]:
        return reasons([nav(MON, None, **dict[str, Any]({field: value}))], category="money")

    assert found(limit) == found(-limit) == [""]
    assert found(limit + 0.01) == found(-limit - 0.01) == ["money_limit"]


def test_a_yield_as_nav_is_held_and_an_exchange_traded_money_fund_is_not() -> None:
    assert reasons([nav(MON, 1.853)], category="money") == ["money_limit"]
    assert reasons([nav(MON, MONEY_NAV_FLOOR)], category="money") == [""]
    assert reasons([nav(MON, 100.258)], category="money") == [""]
    assert reasons([nav(MON, 1.853)], category="bond") == [""]


def test_a_fund_that_has_navs_publishes_no_income() -> None:
    income = row(TUE, 0.5)
    assert reasons([income], category="mixed") == ["money_limit"]
    assert reasons([income], category="money") == [""]
    assert reasons([income], category="other") == [""]
    # of a type nobody knows: what we hold tells
    assert reasons([income], [nav(MON, 1.0)], "other") == ["money_limit"]
    assert reasons([income], [nav(MON, 1.0, code="000002")], "other") == [""]


# 0.5 a day is 7 * 0.5 / 10000 / 7 * 365 = 1.825 % a year; compounded over 52 weeks 1.84 %
FIXED = [0.5] * 7


@pytest.mark.parametrize(
    ("published", "reason"),
    [
        (1.825, ""),
        (1.84, ""),
        (1.825 * THRESHOLDS.yield_low - SLACK + 0.001, ""),
        (1.825 * THRESHOLDS.yield_low - SLACK - 0.001, "money_yield"),
        (1.825 * THRESHOLDS.yield_high + SLACK - 0.001, ""),
        (1.825 * THRESHOLDS.yield_high + SLACK + 0.001, "money_yield"),
        (18.25, "money_yield"),
        (0.01825, "money_yield"),
        (-1.825, "money_yield"),
    ],
)
def test_money_yield(published: float, reason: str) -> None:
    assert last(week(FIXED, published)) == reason


def test_what_was_earned_eight_days_ago_is_not_in_the_yield() -> None:
    # 28.0 on the first day would make 16.4 % of it
    assert last(week([28.0, *FIXED], 1.825)) == ""
    assert last(week([28.0, *FIXED[1:]], 16.4)) == ""


def test_a_loss_brings_a_negative_yield() -> None:
    assert last(week([-0.5] * 7, -1.825)) == ""
    assert last(week([-0.5] * 7, 1.825)) == "money_yield"
    assert last(week([-0.5] * 7, -18.25)) == "money_yield"


def test_days_that_we_do_not_hold_leave_room() -> None:
    # one day of 0.5: between 0.6 * 0.2607 - 0.1 and 1.6 * 1.825 + 0.1, if the other six brought as much or nothing
    most = THRESHOLDS.yield_high * 1.825 + SLACK
    assert last(week([0.5], 1.825)) == ""
    assert last(week([0.5], 0.27)) == ""
    assert last(week([0.5], most - 0.01)) == ""
    assert last(week([0.5], most + 0.01)) == "money_yield"
    # believed rows count as those of the batch
    known = week(FIXED, 1.825)
    assert last(known[-1:], known[:-1]) == ""


def test_the_income_of_a_weekend_is_published_with_the_day_after() -> None:
    # Friday 0.5, then 1.5 for Saturday to Monday, then three days of 0.5: 3.5 in the week up to Thursday
    friday = date(2025, 11, 28)
    rows = [row(friday, 0.5), row(MON, 1.5), *(row(MON + timedelta(days=n), 0.5) for n in (1, 2, 3))]
    assert rows[-1].nav_date == THU
    assert last([*rows[:-1], rows[-1]._replace(yield_7d=1.825)]) == ""
    assert last([*rows[:-1], rows[-1]._replace(yield_7d=18.25)]) == "money_yield"
    assert last([*rows[:-1], rows[-1]._replace(yield_7d=0.25)]) == "money_yield"


def test_a_yield_alone_has_nothing_to_be_held_against() -> None:
    assert last([row(MON, None, 30.0)]) == ""
