"""Formulas of core.metrics against results worked out by hand (the arithmetic is in the comments)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core import metrics


def day(text: str) -> np.datetime64:
    return np.datetime64(text, "D")


def weekdays(first: str, count: int) -> NDArray[np.datetime64]:
    return np.busday_offset(np.datetime64(first, "D"), np.arange(count), roll="forward")


def measure(
    navs: Mapping[str, float] | tuple[NDArray[np.datetime64], Sequence[float]],
    calc_date: str,
    *,
    risk_free: float = 0.0,
    k: float = 250.0,
) -> dict[str, Any]:
    """All metrics of one fund; every weekday of two decades is a trading day."""
    given = navs if isinstance(navs, tuple) else (np.array(list(navs), "datetime64[D]"), list(navs.values()))
    dates, values = given
    column = np.array(values, dtype=np.float64)[:, None]
    sessions, day_t = weekdays("2010-01-01", 5300), date.fromisoformat(calc_date)
    result = metrics.calculate(dates, column, day_t, sessions, risk_free=risk_free, periods_per_year=k)
    assert tuple(result) == metrics.COLUMNS
    assert all(values.shape == (1,) for values in result.values())
    return {name: values[0] for name, values in result.items()}


def nulls(result: Mapping[str, Any]) -> set[str]:
    return {name for name, value in result.items() if value != value}  # NaN and NaT differ from themselves


def benchmark_columns() -> set[str]:
    return {f"{metric}_{window}" for metric in metrics.BENCHMARK_METRICS for window in metrics.WINDOWS}


def chain(returns: Sequence[float], start: float = 1.0) -> list[float]:
    """NAVs of a fund that earns these returns, the starting point included."""
    navs = [start]
    for one in returns:
        navs.append(navs[-1] * (1 + one))
    return navs


# --- the published names ---------------------------------------------------------------------------


def test_column_names_are_the_published_ones() -> None:
    window = ["cagr", "volatility", "downside_deviation", "sharpe", "sortino", "max_drawdown"]
    window += ["max_drawdown_peak", "max_drawdown_trough", "max_drawdown_recovery", "days_under_water"]
    window += ["calmar", "var_95", "cvar_95", "skewness", "kurtosis", "best_day", "worst_day", "win_rate"]
    window += ["beta", "alpha", "r_squared", "tracking_error", "information_ratio", "up_capture"]
    window += ["down_capture"]
    periods = ["1w", "1m", "3m", "6m", "1y", "2y", "3y", "5y", "ytd", "inception"]
    expected = [f"return_{p}" for p in periods]
    expected += [f"{m}_{w}" for w in ("1y", "3y", "inception") for m in window]
    assert list(metrics.COLUMNS) == expected
    assert metrics.DEFINITION_VERSION == "1"


# --- adjusted NAV ----------------------------------------------------------------------------------


def adjusted(
    unit: Sequence[float], dividend: dict[int, float] | None = None, split: dict[int, float] | None = None
) -> list[float]:
    rows = range(len(unit))
    result = metrics.adjusted_nav(
        np.array(unit),
        np.array([(dividend or {}).get(row, math.nan) for row in rows]),
        np.array([(split or {}).get(row, math.nan) for row in rows]),
    )
    return [float(one) for one in result]


def test_dividend_is_reinvested() -> None:
    # 1.1 * (1.05 + 0.05) / 1.10 = 1.1: the holder lost nothing; then 1.1 * 1.26 / 1.05 = 1.32
    assert adjusted([1.0, 1.1, 1.05, 1.26], dividend={2: 0.05}) == pytest.approx([1.0, 1.1, 1.1, 1.32])


def test_split_is_undone() -> None:
    # 2.2 * (2 * 1.21) / 2.2 = 2.42; a merger of ten into one: 2.42 * (0.1 * 12.1) / 1.21 = 2.42
    assert adjusted([2.0, 2.2, 1.21, 12.1], split={2: 2.0, 3: 0.1}) == pytest.approx([2.0, 2.2, 2.42, 2.42])


def test_dividend_and_split_on_one_day_count_from_the_share_before() -> None:
    # one share of 2.0 becomes two of 0.9 and 0.3 in cash: 2.0 * (2 * 0.9 + 0.3) / 2.0 = 2.1
    assert adjusted([2.0, 0.9], dividend={1: 0.3}, split={1: 2.0}) == pytest.approx([2.0, 2.1])


def test_without_events_the_adjusted_nav_is_the_unit_nav_to_the_last_bit() -> None:
    unit = [1.0007, 1.0811, 0.9973, 1.0811, 1.2049]
    assert adjusted(unit) == unit
    assert adjusted(unit, dividend={1: 0.0}, split={2: 1.0}) == unit


def test_an_event_on_the_first_nav_has_no_effect() -> None:
    assert adjusted([1.0, 1.1], dividend={0: 0.5}, split={0: 3.0}) == [1.0, 1.1]


def test_an_event_without_a_nav_takes_effect_with_the_next_nav() -> None:
    # 1.0 * (0.9 + 0.2) / 1.0 = 1.1
    assert adjusted([1.0, math.nan, 0.9], dividend={1: 0.2})[2] == pytest.approx(1.1)
    # one share becomes two on the first gap; each pays 0.1 on the second; at 0.5: 2 * 0.5 + 2 * 0.1 = 1.2
    both = adjusted([1.0, math.nan, math.nan, 0.5], split={1: 2.0}, dividend={2: 0.1})
    assert both == pytest.approx([1.0, math.nan, math.nan, 1.2], nan_ok=True)


def test_unusable_navs_are_missing_and_the_recursion_goes_on() -> None:
    unit = [1.0, 0.0, -1.0, math.inf, 1.5]
    assert adjusted(unit) == pytest.approx([1.0, math.nan, math.nan, math.nan, 1.5], nan_ok=True)
    assert adjusted([math.nan, 2.0, 2.2]) == pytest.approx([math.nan, 2.0, 2.2], nan_ok=True)
    assert adjusted([]) == []


@pytest.mark.parametrize(
    ("dividend", "split"),
    [({1: -0.1}, {}), ({1: math.inf}, {}), ({}, {1: 0.0}), ({}, {1: -2}), ({}, {1: math.inf})],
)
def test_after_an_impossible_event_the_value_is_unknown(
    dividend: dict[int, float], split: dict[int, float]
) -> None:
    assert adjusted([1.0, 1.1, 1.2], dividend, split) == pytest.approx([1.0, math.nan, math.nan], nan_ok=True)


def test_adjusted_nav_refuses_arrays_of_different_length() -> None:
    with pytest.raises(ValueError, match="one length"):
        metrics.adjusted_nav(np.ones(3), np.ones(2), np.ones(3))


# --- anchors and period returns --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calc_date", "period", "expected"),
    [
        ("2025-03-05", "1w", "2025-02-26"),
        ("2024-03-31", "1m", "2024-02-29"),  # clipped, leap year
        ("2023-03-31", "1m", "2023-02-28"),
        ("2025-01-31", "1m", "2024-12-31"),
        ("2025-02-28", "1m", "2025-01-28"),  # not pulled to the month's end
        ("2025-05-31", "3m", "2025-02-28"),
        ("2024-12-31", "6m", "2024-06-30"),
        ("2024-02-29", "1y", "2023-02-28"),
        ("2025-12-03", "2y", "2023-12-03"),
        ("2024-02-29", "3y", "2021-02-28"),
        ("2025-12-03", "5y", "2020-12-03"),
        ("2025-12-03", "ytd", "2024-12-31"),
        ("2024-12-31", "ytd", "2023-12-31"),
        ("2025-01-01", "ytd", "2024-12-31"),
    ],
)
def test_anchor(calc_date: str, period: str, expected: str) -> None:
    assert metrics.anchor(date.fromisoformat(calc_date), period) == day(expected)
    assert metrics.anchor(day(calc_date), period) == day(expected)


def test_anchor_knows_no_other_period() -> None:
    with pytest.raises(KeyError):
        metrics.anchor(date(2025, 1, 1), "4m")


def test_period_returns() -> None:
    result = measure(
        {
            "2019-03-25": 0.5,  # inception: 2.0 / 0.5 - 1 = 300 %
            "2020-03-31": 0.8,  # 5y: 150 %
            "2022-03-31": 1.6,  # 3y: 25 %
            "2023-03-31": 1.0,  # 2y: 100 %
            "2024-03-29": 1.25,  # 1y, anchor 03-31 is a Sunday: 60 %
            "2024-04-01": 9.0,
            "2024-09-30": 4.0,  # 6m, anchor 30 September (clipped): -50 %
            "2024-12-30": 3.0,
            "2024-12-31": 2.5,  # ytd and 3m: -20 %
            "2025-02-28": 1.9,  # 1m, anchor 28 February (clipped): 2.0 / 1.9 - 1
            "2025-03-24": 1.6,  # 1w: 25 %
            "2025-03-25": 9.0,
            "2025-03-31": 2.0,
            "2025-04-01": 9.0,  # after the calculation date
        },
        "2025-03-31",
    )
    expected = {
        "1w": 25.0,
        "1m": 100 * (2.0 / 1.9 - 1),
        "3m": -20.0,
        "6m": -50.0,
        "1y": 60.0,
        "2y": 100.0,
        "3y": 25.0,
        "5y": 150.0,
        "ytd": -20.0,
        "inception": 300.0,
    }
    assert {p: result[f"return_{p}"] for p in expected} == pytest.approx(expected, rel=1e-12)


def test_base_may_be_ten_days_older_than_its_anchor_but_not_eleven() -> None:
    # T = 2025-03-31, 1m anchor 2025-02-28
    assert measure({"2025-02-18": 1.0, "2025-03-31": 1.1}, "2025-03-31")["return_1m"] == pytest.approx(10)
    result = measure({"2025-02-17": 1.0, "2025-03-31": 1.1}, "2025-03-31")
    assert nulls(result) == set(metrics.COLUMNS) - {"return_inception"}
    assert result["return_inception"] == pytest.approx(10)


def test_year_to_date_base_is_the_last_nav_of_the_old_year() -> None:
    later = {"2025-01-02": 5.0, "2025-02-05": 2.0}
    assert measure({"2024-12-21": 1.0} | later, "2025-02-05")["return_ytd"] == pytest.approx(100)
    assert "return_ytd" in nulls(measure({"2024-12-20": 1.0} | later, "2025-02-05"))  # 11 days before
    assert "return_ytd" in nulls(measure(later, "2025-02-05"))  # born this year


def test_a_fund_whose_last_nav_is_over_ten_days_old_has_no_metrics() -> None:
    navs = (weekdays("2020-01-01", 1000), chain([0.02, -0.01] * 499 + [0.02]))
    last = navs[0][-1].item()
    alive = measure(navs, (last + timedelta(days=10)).isoformat())
    # the week before T holds no new NAV: base and end are one NAV, which is no return of zero
    assert nulls(alive) - benchmark_columns() == {"return_1w", "return_5y"}
    assert nulls(measure(navs, (last + timedelta(days=11)).isoformat())) == set(metrics.COLUMNS)


def test_one_nav_none_or_only_later_ones_give_nulls() -> None:
    everything = set(metrics.COLUMNS)
    assert nulls(measure({"2025-03-31": 1.0}, "2025-03-31")) == everything
    assert nulls(measure({"2025-03-28": math.nan, "2025-03-31": math.nan}, "2025-03-31")) == everything
    assert nulls(measure({"2025-04-01": 1.0, "2025-04-02": 1.1}, "2025-03-31")) == everything
    assert nulls(measure((weekdays("2025-01-01", 0), []), "2025-03-31")) == everything


def test_zero_negative_and_infinite_navs_count_as_missing() -> None:
    navs = {
        "2025-02-28": 1.0,
        "2025-03-03": 0.0,
        "2025-03-10": -1.0,
        "2025-03-20": math.inf,
        "2025-03-31": 1.2,
    }
    result = measure(navs, "2025-03-31")
    assert result["return_1m"] == pytest.approx(20)
    assert "return_1w" in nulls(result)  # anchor 24 March: the last usable NAV is 24 days older


# --- risk over windows -----------------------------------------------------------------------------

HUNDRED = weekdays("2025-01-01", 101)  # a base and 100 returns; 2025-01-01 .. 2025-05-21
HUNDREDTH = "2025-05-21"


def test_volatility_sharpe_and_sortino() -> None:
    # r is +2 % fifty times and -1 % fifty times: mean 0.5 %, deviations +-1.5 %,
    # std = sqrt(100 * 0.015^2 / 99), downside = sqrt(50 * 0.01^2 / 100)
    assert str(HUNDRED[-1]) == HUNDREDTH
    std = math.sqrt(100 * 0.015**2 / 99)
    result = measure((HUNDRED, chain([0.02, -0.01] * 50)), HUNDREDTH)
    assert result["volatility_inception"] == pytest.approx(100 * std * math.sqrt(250), rel=1e-12)
    assert result["sharpe_inception"] == pytest.approx(0.005 / std * math.sqrt(250), rel=1e-12)
    assert result["sortino_inception"] == pytest.approx(
        0.005 * 250 / (math.sqrt(0.5 * 0.01**2) * math.sqrt(250)), rel=1e-12
    )
    assert {"volatility_1y", "sharpe_1y", "cagr_inception", "calmar_inception"} <= nulls(result)


def test_risk_free_rate_is_compounded_daily() -> None:
    # 1.001^250 - 1 a year is 0.1 % a day: e is +1.9 % and -1.1 %, mean 0.4 %, std unchanged
    std = math.sqrt(100 * 0.015**2 / 99)
    result = measure((HUNDRED, chain([0.02, -0.01] * 50)), HUNDREDTH, risk_free=1.001**250 - 1)
    assert result["sharpe_inception"] == pytest.approx(0.004 / std * math.sqrt(250), rel=1e-11)
    assert result["sortino_inception"] == pytest.approx(
        0.004 * 250 / (math.sqrt(0.5 * 0.011**2) * math.sqrt(250)), rel=1e-11
    )


def test_periods_per_year_is_the_k_of_the_formulas() -> None:
    result = measure((HUNDRED, chain([0.02, -0.01] * 50)), HUNDREDTH, k=252)
    std = math.sqrt(100 * 0.015**2 / 99)
    assert result["volatility_inception"] == pytest.approx(100 * std * math.sqrt(252), rel=1e-12)


def test_gaps_are_skipped_not_filled() -> None:
    # every tenth NAV is missing: ten days fewer, each a return over two days of 1.1 * 1.1 - 1 = 21 %;
    # filling would make returns of 0 % and 21 %, and a count of 100
    navs = chain([0.1] * 100)
    for row in range(5, 100, 10):
        navs[row] = math.nan
    # 90 returns: 80 of 10 %, 10 of 21 %; mean (80 * 0.1 + 10 * 0.21) / 90
    mean = (80 * 0.1 + 10 * 0.21) / 90
    std = math.sqrt((80 * (0.1 - mean) ** 2 + 10 * (0.21 - mean) ** 2) / 89)
    result = measure((HUNDRED, navs), HUNDREDTH)
    assert result["volatility_inception"] == pytest.approx(100 * std * math.sqrt(250), rel=1e-11)


def test_ninety_per_cent_of_the_trading_days_are_enough_and_less_is_not() -> None:
    navs = chain([0.02, -0.01] * 50)
    for row in range(1, 11):
        navs[row] = math.nan
    assert "volatility_inception" not in nulls(measure((HUNDRED, navs), HUNDREDTH))  # 90 of 100
    navs[11] = math.nan
    result = measure((HUNDRED, navs), HUNDREDTH)  # 89 of 100
    assert nulls(result) >= {name for name in metrics.COLUMNS if not name.startswith("return_")}
    assert "return_1m" not in nulls(result)


def test_sixty_returns_are_enough_and_fifty_nine_are_not() -> None:
    dates = weekdays("2025-01-01", 61)
    navs = chain([0.02, -0.01] * 30)
    assert "sharpe_inception" not in nulls(measure((dates, navs), "2025-03-26"))
    assert "sharpe_inception" in nulls(measure((dates[1:], navs[1:]), "2025-03-26"))


def test_a_window_starts_at_its_base_and_forgets_what_was_before() -> None:
    # 2024-05-21 is a Tuesday, 261 weekdays before 2025-05-21; before it the fund crashes daily
    calm = weekdays("2024-05-21", 262)
    wild = weekdays("2024-01-01", 101)
    navs = np.concatenate([np.array(chain([-0.05, 0.02] * 50)), chain([0.02, -0.01] * 130 + [0.02], 3.0)])
    assert str(calm[-1]) == HUNDREDTH
    assert wild[-1] < calm[0]
    result = measure((np.concatenate([wild, calm]), navs.tolist()), HUNDREDTH)
    mean = (131 * 0.02 - 130 * 0.01) / 261
    std = math.sqrt((131 * (0.02 - mean) ** 2 + 130 * (-0.01 - mean) ** 2) / 260)
    assert result["volatility_1y"] == pytest.approx(100 * std * math.sqrt(250), rel=1e-11)
    assert result["max_drawdown_1y"] == pytest.approx(-1, rel=1e-11)
    # and 365 days: cagr is the growth itself
    growth = 1.02**131 * 0.99**130
    assert result["cagr_1y"] == pytest.approx(100 * (growth - 1), rel=1e-11)
    assert result["calmar_1y"] == pytest.approx((growth - 1) / 0.01, rel=1e-11)


# --- cagr ------------------------------------------------------------------------------------------


def grow(first: str, last: str, total: float) -> tuple[NDArray[np.datetime64], list[float]]:
    """A fund that swings daily and ends `total` times where it began."""
    dates = np.arange(day(first), day(last) + 1, dtype="datetime64[D]")
    dates = dates[np.is_busday(dates)]
    navs = chain([0.01, -0.01] * len(dates))[: len(dates)]
    return dates, [*navs[:-1], total]


def test_cagr() -> None:
    # 2023-05-22 to 2025-05-21 are 730 days: 1.21^(365/730) - 1 = 10 %
    result = measure(grow("2023-05-22", "2025-05-21", 1.21), "2025-05-21")
    assert result["cagr_inception"] == pytest.approx(10, rel=1e-11)
    assert "cagr_3y" in nulls(result)


def test_cagr_needs_365_days() -> None:
    # 2024-05-21 to 2025-05-21 are 365 days, from the day after 364
    assert measure(grow("2024-05-21", "2025-05-21", 1.1), "2025-05-21")["cagr_inception"] == pytest.approx(10)
    young = measure(grow("2024-05-22", "2025-05-21", 1.1), "2025-05-21")
    assert {"cagr_inception", "calmar_inception", "cagr_1y"} <= nulls(young)
    assert "sharpe_inception" not in nulls(young)


def test_a_fund_that_publishes_two_days_late_still_has_its_year() -> None:
    # base 2024-05-21, end 2025-05-19: 363 days, and T is 365 days after the base
    result = measure(grow("2024-05-21", "2025-05-19", 1.1), "2025-05-21")
    assert result["cagr_1y"] == pytest.approx(100 * (1.1 ** (365 / 363) - 1), rel=1e-11)


# --- drawdown --------------------------------------------------------------------------------------


def hill(*points: tuple[int, float]) -> list[float]:
    """101 NAVs of 1.0, and from each row on the value given for it."""
    navs = np.ones(101)
    for row, value in points:
        navs[row:] = value
    return navs.tolist()


def drawdown(navs: list[float]) -> tuple[float, Any, Any, Any]:
    result = measure((HUNDRED, navs), HUNDREDTH)
    names = ("max_drawdown", "max_drawdown_peak", "max_drawdown_trough", "max_drawdown_recovery")
    depth, peak, trough, recovery = (result[f"{name}_inception"] for name in names)
    return depth, peak, trough, recovery


def test_max_drawdown_with_peak_trough_and_recovery() -> None:
    # rows 10-19 at 1.2, 20-24 at 0.9 (0.9/1.2 - 1 = -25 %), 25-29 at 1.1, from 30 on 1.2 again: the peak
    # is the last day at the high, the trough the first at the low, and reaching the high is recovery
    depth, *days = drawdown(hill((10, 1.2), (20, 0.9), (25, 1.1), (30, 1.2), (50, 1.15)))
    assert depth == pytest.approx(-25, rel=1e-12)
    assert days == [HUNDRED[19], HUNDRED[20], HUNDRED[30]]


def test_of_two_drawdowns_the_deeper_counts_and_recovery_may_be_missing() -> None:
    # 1.5 -> 1.2 is -20 %; 2.0 -> 1.5 is -25 %, never recovered
    depth, peak, trough, recovery = drawdown(hill((5, 1.5), (10, 1.2), (15, 2.0), (60, 1.5), (70, 1.9)))
    assert depth == pytest.approx(-25, rel=1e-12)
    assert (peak, trough) == (HUNDRED[59], HUNDRED[60])
    assert np.isnat(recovery)


def test_the_base_point_can_be_the_peak() -> None:
    depth, peak, trough, _ = drawdown(hill((1, 0.9), (2, 0.8)))
    assert depth == pytest.approx(-20, rel=1e-12)
    assert (peak, trough) == (HUNDRED[0], HUNDRED[2])


def test_a_fund_that_never_falls_has_a_drawdown_of_zero_without_dates_and_no_calmar() -> None:
    dates = weekdays("2023-01-02", 700)
    navs = chain([0.002, 0.0] * 349 + [0.002])
    result = measure((dates, navs), str(dates[-1]))
    assert result["max_drawdown_inception"] == 0
    for name in ("max_drawdown_peak", "max_drawdown_trough", "max_drawdown_recovery", "calmar"):
        assert f"{name}_inception" in nulls(result)
    assert "cagr_inception" not in nulls(result)


def test_a_dividend_as_large_as_the_drop_is_no_drawdown() -> None:
    # 1.4 * (1 + 0.1/1.4) is 1.4999999999999998 in floats, the NAV before was 1.5
    unit = np.array(hill((10, 1.5), (50, 1.4)))
    dividend = np.zeros(101)
    dividend[50] = 1.5 - 1.4
    depth, *days = drawdown(metrics.adjusted_nav(unit, dividend, np.ones(101)).tolist())
    assert depth == 0
    assert all(np.isnat(one) for one in days)


# --- cases where libraries disagree ----------------------------------------------------------------


@pytest.mark.parametrize("risk_free", [0.0, 0.015, -0.01])
@pytest.mark.parametrize(
    "returns",
    [
        [0.0] * 1000,  # constant
        [0.00005] * 1000,  # constant growth: its deviation is rounding only
        [0.00005, 0.00006] * 500,  # money-like: 0.0005 % a day is 0.008 % a year
    ],
)
def test_constant_and_money_like_series_have_no_ratios(returns: list[float], risk_free: float) -> None:
    dates = weekdays("2021-01-04", 1001)
    result = measure((dates, chain(returns)), str(dates[-1]), risk_free=risk_free)
    for window in metrics.WINDOWS:
        assert {f"sharpe_{window}", f"sortino_{window}", f"calmar_{window}"} <= nulls(result)
        assert result[f"max_drawdown_{window}"] == 0
        assert result[f"volatility_{window}"] == pytest.approx(0, abs=0.01)
    assert result["cagr_1y"] == pytest.approx(result["return_1y"], rel=0.02)


def test_a_fund_that_never_falls_below_the_risk_free_return_has_no_sortino() -> None:
    # volatility 0.5 % * sqrt(250) = 8 % a year: the Sharpe ratio is a number
    result = measure((HUNDRED, chain([0.0, 0.01] * 50)), HUNDREDTH)
    assert "sharpe_inception" not in nulls(result)
    assert "sortino_inception" in nulls(result)


def test_the_limit_of_ratios_is_a_volatility_of_a_tenth_of_a_per_cent() -> None:
    # +-x alternating: std = x * sqrt(100/99); times sqrt(250) = 0.001 at x = 6.2929e-5
    limit = 0.001 / math.sqrt(250 * 100 / 99)
    above = measure((HUNDRED, chain([limit * 1.001, -limit * 1.001] * 50)), HUNDREDTH, risk_free=0.01)
    below = measure((HUNDRED, chain([limit * 0.999, -limit * 0.999] * 50)), HUNDREDTH, risk_free=0.01)
    assert not {"sharpe_inception", "sortino_inception"} & nulls(above)
    assert {"sharpe_inception", "sortino_inception"} <= nulls(below)


# --- many funds ------------------------------------------------------------------------------------


def test_every_fund_of_a_large_market_gets_its_own_figures() -> None:
    # 3,100 funds of 101 days are shared among threads; fund n ends at 1 + n/1000
    navs = np.tile(np.array(chain([0.02, -0.01] * 50))[:, None], 3100)
    navs[-1] = 1 + np.arange(3100) / 1000
    result = metrics.calculate(HUNDRED, navs, HUNDRED[-1], HUNDRED, risk_free=0.0)
    assert result["return_inception"] == pytest.approx(np.arange(3100) / 10, abs=1e-10)
    assert result["max_drawdown_trough_inception"].dtype == np.dtype("datetime64[D]")


@pytest.mark.parametrize(
    ("dates", "navs"),
    [
        (HUNDRED[::-1], np.ones((101, 1))),
        (np.concatenate([HUNDRED[:1], HUNDRED[:100]]), np.ones((101, 1))),
        *((HUNDRED, np.ones(shape)) for shape in ((100, 1), 101)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(dates: NDArray[np.datetime64], navs: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=r"order|need dates"):
        metrics.calculate(dates, navs, HUNDRED[-1], HUNDRED, risk_free=0.0)


def test_sessions_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="sessions"):
        metrics.calculate(HUNDRED, np.ones((101, 1)), HUNDRED[-1], HUNDRED[::-1], risk_free=0.0)
