"""Tail, shape, days, benchmark and money figures of core.metrics against results worked out by hand."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core import metrics
from tests.test_metrics import (
    HUNDRED,
    HUNDREDTH,
    benchmark_columns,
    chain,
    day,
    hill,
    measure,
    nulls,
    weekdays,
)

ROOT = Path(__file__).resolve().parents[1]
SIGNS = np.array([1.0, -1.0] * 50)


def numbers(days: NDArray[np.datetime64]) -> NDArray[np.int32]:
    return days.astype("datetime64[D]").astype(np.int64).astype(np.int32)


def against(
    returns: Sequence[float] | NDArray[np.float64],
    closes: Sequence[float],
    close_days: NDArray[np.datetime64] = HUNDRED,
    *,
    without: Sequence[int] = (),
    risk_free: metrics.RiskFree = 0.0,
) -> dict[str, Any]:
    """Figures since inception of a fund of HUNDRED, less the NAVs of rows `without`, beside these closes."""
    navs = np.array(chain(list(returns)))
    navs[list(without)] = np.nan
    result = metrics.calculate(
        *(HUNDRED, navs[:, None], day(HUNDREDTH), HUNDRED),
        risk_free=risk_free,
        benchmark=(close_days, np.array(closes)),
    )
    return {name.removesuffix("_inception"): v[0] for name, v in result.items() if name.endswith("inception")}


def null(result: dict[str, Any]) -> set[str]:
    return {name for name in metrics.BENCHMARK_METRICS if math.isnan(result[name])}


# --- the returns alone -----------------------------------------------------------------------------


def test_downside_deviation_counts_every_day() -> None:
    # fifty of a hundred days fall 1 %: sqrt(50 * 0.01^2 / 100) a day, times sqrt(250) a year
    result = measure((HUNDRED, chain([0.02, -0.01] * 50)), HUNDREDTH)
    assert result["downside_deviation_inception"] == pytest.approx(
        100 * math.sqrt(0.5 * 0.01**2 * 250), rel=1e-12
    )
    # less 0.1 % a day risk-free the falls are 1.1 %
    result = measure((HUNDRED, chain([0.02, -0.01] * 50)), HUNDREDTH, risk_free=1.001**250 - 1)
    assert result["downside_deviation_inception"] == pytest.approx(
        100 * math.sqrt(0.5 * 0.011**2 * 250), rel=1e-11
    )


def test_a_return_of_nothing_is_below_a_risk_free_return() -> None:
    # e is +0.9 % and -0.1 %
    result = measure((HUNDRED, chain([0.01, 0.0] * 50)), HUNDREDTH, risk_free=1.001**250 - 1)
    assert result["downside_deviation_inception"] == pytest.approx(
        100 * math.sqrt(0.5 * 0.001**2 * 250), rel=1e-9
    )


def test_nothing_below_the_risk_free_return_is_a_downside_deviation_of_zero() -> None:
    assert measure((HUNDRED, chain([0.0, 0.01] * 50)), HUNDREDTH)["downside_deviation_inception"] == 0


def test_best_and_worst_day_and_win_rate() -> None:
    # 30 days up, 20 down, 50 at zero, which are no wins
    returns = [0.01] * 29 + [0.035] + [-0.02] * 19 + [-0.045] + [0.0] * 50
    result = measure((HUNDRED, chain(returns)), HUNDREDTH)
    assert result["best_day_inception"] == pytest.approx(3.5, rel=1e-12)
    assert result["worst_day_inception"] == pytest.approx(-4.5, rel=1e-12)
    assert result["win_rate_inception"] == pytest.approx(30, rel=1e-12)


def test_skewness_and_kurtosis_are_the_sample_estimators() -> None:
    # 75 days of -1 %, 25 of +3 %: mean 0, moments in per cent 3, 6 and 0.75 + 0.25 * 81 = 21;
    # g1 = 6 / 3^1.5, g2 = 21/9 - 3 = -2/3; G1 = g1 * sqrt(100 * 99) / 98,
    # G2 = 99 / (98 * 97) * (101 * g2 + 6)
    result = measure((HUNDRED, chain(([-0.01] * 3 + [0.03]) * 25)), HUNDREDTH)
    assert result["skewness_inception"] == pytest.approx(6 / 3**1.5 * math.sqrt(9900) / 98, rel=1e-10)
    assert result["kurtosis_inception"] == pytest.approx(99 / (98 * 97) * (6 - 101 * 2 / 3), rel=1e-10)


def test_value_at_risk_and_its_tail() -> None:
    # the returns -0.19 %, -0.18 %, ... in any order, 251 of them: the quantile's place is 0.05 * 250 = 12.5,
    # between the 13th (-0.07 %) and the 14th (-0.06 %); the tail are the first 13, their middle -0.13 %
    returns = (np.random.default_rng(5).permutation(251) - 19) / 10_000
    dates = weekdays("2024-01-01", 252)
    result = measure((dates, chain(returns.tolist())), str(dates[-1]))
    assert result["var_95_inception"] == pytest.approx(-0.065, rel=1e-10)
    assert result["cvar_95_inception"] == pytest.approx(-0.13, rel=1e-10)


def test_value_at_risk_where_the_place_is_a_return_itself() -> None:
    # 261 returns: 0.05 * 260 = 13, the 14th smallest; returns from the largest to the smallest
    dates = weekdays("2024-01-01", 262)
    result = measure((dates, chain([(240 - row) / 10_000 for row in range(261)])), str(dates[-1]))
    assert result["var_95_inception"] == pytest.approx(-0.07, rel=1e-10)
    assert result["cvar_95_inception"] == pytest.approx(-0.135, rel=1e-10)


def test_two_hundred_and_fifty_returns_have_a_tail_and_one_fewer_has_none() -> None:
    dates, navs = weekdays("2024-01-01", 251), chain([0.02, -0.01] * 125)
    assert measure((dates, navs), str(dates[-1]))["var_95_inception"] == pytest.approx(-1, rel=1e-10)
    fewer = nulls(measure((dates[1:], navs[1:]), str(dates[-1])))
    assert {"var_95_inception", "cvar_95_inception"} <= fewer
    assert "worst_day_inception" not in fewer


def test_days_under_water() -> None:
    # 2025-01-28 (row 19) to 2025-02-12 (row 30)
    recovered = hill((10, 1.2), (20, 0.9), (25, 1.1), (30, 1.2), (50, 1.15))
    assert measure((HUNDRED, recovered), HUNDREDTH)["days_under_water_inception"] == 15
    # 2025-03-25 (row 59) to the last NAV, 2025-05-21
    drowned = hill((5, 1.5), (10, 1.2), (15, 2.0), (60, 1.5), (70, 1.9))
    assert measure((HUNDRED, drowned), HUNDREDTH)["days_under_water_inception"] == 57
    assert measure((HUNDRED, drowned), "2025-05-25")["days_under_water_inception"] == 57
    assert measure((HUNDRED, chain([0.0, 0.01] * 50)), HUNDREDTH)["days_under_water_inception"] == 0


@pytest.mark.parametrize("returns", [[0.0] * 1000, [0.00005] * 1000, [0.00005, 0.00006] * 500])
def test_constant_and_money_like_series_have_no_shape(returns: list[float]) -> None:
    dates = weekdays("2021-01-04", 1001)
    closes = (dates, np.array(chain([0.01, -0.01] * 500)))
    result = metrics.calculate(
        *(dates, np.array(chain(returns))[:, None], dates[-1], dates), risk_free=0.015, benchmark=closes
    )
    for window in metrics.WINDOWS:
        for name in ("skewness", "kurtosis", "beta", "alpha", "r_squared", "information_ratio", "up_capture"):
            assert np.isnan(result[f"{name}_{window}"][0]), (name, window)
        assert result[f"tracking_error_{window}"][0] == pytest.approx(100 * 0.01 * math.sqrt(250), rel=0.01)
        assert result[f"var_95_{window}"][0] == pytest.approx(100 * min(returns), abs=1e-9)


# --- against a benchmark ---------------------------------------------------------------------------


def test_figures_against_a_benchmark() -> None:
    # b is +-1 % in turn, r = 2b + 0.1 %: r - b = b + 0.1 %
    result = against(2 * SIGNS / 100 + 0.001, chain(list(SIGNS / 100), 3000.0))
    error = 0.01 * math.sqrt(100 / 99) * math.sqrt(250)
    wanted = {
        "beta": 2.0,
        "alpha": 25.0,  # 250 days of 0.1 %
        "r_squared": 1.0,
        "tracking_error": 100 * error,
        "information_ratio": 0.001 * 250 / error,
        "up_capture": 100 * (1.021**250 - 1) / (1.01**250 - 1),
        "down_capture": 100 * (0.981**250 - 1) / (0.99**250 - 1),
    }
    assert {name: result[name] for name in wanted} == pytest.approx(wanted, rel=1e-9)


def test_r_squared_is_the_share_that_the_benchmark_explains() -> None:
    # in per cent b is 1, 1, -1, -1 and r 2, 0, 0, -2: covariance 1, variances 1 and 2
    result = against([0.02, 0.0, 0.0, -0.02] * 25, chain([0.01, 0.01, -0.01, -0.01] * 25))
    assert result["beta"] == pytest.approx(1, rel=1e-10)
    assert result["r_squared"] == pytest.approx(0.5, rel=1e-10)


def test_alpha_is_over_the_risk_free_return() -> None:
    # 0.1 % a day risk-free, b on average 0.2 % and r 0.6 %: 250 * (0.5 % - 2 * 0.1 %) = 75 %
    result = against(2 * SIGNS / 100 + 0.006, chain(list(SIGNS / 100 + 0.002)), risk_free=1.001**250 - 1)
    assert result["beta"] == pytest.approx(2, rel=1e-10)
    assert result["alpha"] == pytest.approx(75, rel=1e-9)
    assert result["information_ratio"] == pytest.approx(
        0.004 * 250 / (0.01 * math.sqrt(100 / 99 * 250)), rel=1e-9
    )


def test_a_step_of_two_days_is_paired_with_the_same_two_days_of_the_benchmark() -> None:
    steps = [0.02, -0.01, 0.005, -0.015] * 25
    result = against(steps, chain(steps, 4000.0), without=(3, 4, 50))
    assert result["beta"] == pytest.approx(1, rel=1e-10)
    assert result["tracking_error"] == pytest.approx(0, abs=1e-10)


def test_a_step_without_a_close_at_both_ends_is_no_pair() -> None:
    # the fund goes wild on rows 30 and 31; the benchmark has no close on row 30, elsewhere they are one
    steps = [0.02, -0.01, 0.005, -0.015] * 25
    closes = np.array(chain(steps))
    wild = list(steps)
    wild[29], wild[30] = 0.5, -0.4
    result = against(wild, np.delete(closes, 30).tolist(), np.delete(HUNDRED, 30))
    assert result["beta"] == pytest.approx(1, rel=1e-10)
    assert result["tracking_error"] == pytest.approx(0, abs=1e-10)
    missing = closes.copy()
    missing[30] = np.nan
    assert against(wild, missing.tolist())["up_capture"] == result["up_capture"] > 0


def test_sixty_pairs_are_enough_and_fifty_nine_are_not() -> None:
    closes = np.array(chain(list(SIGNS / 100)))
    returns = 2 * SIGNS / 100 + 0.001
    assert null(against(returns, closes[40:].tolist(), HUNDRED[40:])) == set()
    assert null(against(returns, closes[41:].tolist(), HUNDRED[41:])) == set(metrics.BENCHMARK_METRICS)


def test_without_a_benchmark_its_figures_are_null_and_no_others_are() -> None:
    dates = weekdays("2018-01-01", 1800)
    navs = (dates, chain([0.02, -0.011] * 899 + [0.02]))
    result = measure(navs, str(dates[-1]))
    assert nulls(result) == benchmark_columns()
    none = metrics.calculate(
        *(dates, np.array(navs[1])[:, None], dates[-1], dates),
        risk_free=0.0,
        benchmark=(dates[:0], np.zeros(0)),
    )
    assert {name for name, values in none.items() if values != values} == benchmark_columns()


def test_a_benchmark_that_never_rises_has_no_up_capture() -> None:
    result = against(2 * SIGNS / 100, chain([-0.01, -0.02] * 50))
    assert null(result) == {"up_capture"}


def test_a_constant_benchmark_has_no_beta() -> None:
    result = against(2 * SIGNS / 100 + 0.001, [5.0] * 101)
    assert null(result) == {"beta", "alpha", "r_squared", "up_capture", "down_capture"}
    assert result["tracking_error"] == result["volatility"]


def test_tracking_as_close_as_rounding_has_no_information_ratio() -> None:
    steps = np.array([0.02, -0.01, 0.005, -0.015] * 25)
    assert null(against(steps + SIGNS * 1e-5, chain(list(steps)))) == {"information_ratio"}


# --- the risk-free rate by date --------------------------------------------------------------------


def test_a_rate_is_valid_from_its_day_on() -> None:
    # nothing for the returns of rows 1 to 50, 0.1 % a day for those of rows 51 to 100: mean 0.5 % - 0.05 %
    rates = (HUNDRED[[0, 51]], np.array([0.0, 1.001**250 - 1]))
    result = against([0.02, -0.01] * 50, [1.0] * 101, risk_free=rates)
    std = math.sqrt(100 * 0.015**2 / 99)
    assert result["sharpe"] == pytest.approx(0.0045 / std * math.sqrt(250), rel=1e-10)
    # 25 falls of 1 % and 25 of 1.1 %
    assert result["downside_deviation"] == pytest.approx(
        100 * math.sqrt((25 * 0.01**2 + 25 * 0.011**2) / 100 * 250), rel=1e-10
    )


def test_before_the_first_rate_the_first_one_is_taken() -> None:
    late = (np.array([day("2030-01-01")]), np.array([0.03]))
    one, other = (against([0.02, -0.01] * 50, [1.0] * 101, risk_free=rate) for rate in (late, 0.03))
    assert one == pytest.approx(other, nan_ok=True, rel=0, abs=0)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((HUNDRED[[1, 0]], np.array([0.01, 0.02])), "order"),
        ((HUNDRED[:2], np.array([0.01])), "one length"),
        ((HUNDRED[:0], np.zeros(0)), "one length"),
        ((HUNDRED[:1], np.array([np.nan])), "above -1"),
        (-1.0, "above -1"),
    ],
)
def test_rates_that_mean_nothing_are_refused(rates: metrics.RiskFree, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        against([0.02, -0.01] * 50, [1.0] * 101, risk_free=rates)


# --- ragged arrays ---------------------------------------------------------------------------------


def ragged(*funds: tuple[NDArray[np.datetime64], Sequence[float]]) -> tuple[Any, Any, Any]:
    offsets = np.cumsum([0, *(len(dates) for dates, _ in funds)])
    return offsets, numbers(np.concatenate([d for d, _ in funds])), np.concatenate([n for _, n in funds])


EXPLOSIVE = {
    "return_inception": 0.0,
    "volatility_inception": math.nan,
    "best_day_inception": math.nan,  # a number no float holds
    "worst_day_inception": -100.0,
    "win_rate_inception": 50.0,
    "tracking_error_inception": math.nan,
}


def test_one_bad_fund_never_costs_the_others() -> None:
    good = (HUNDRED, chain([0.02, -0.01] * 50))
    backwards = (HUNDRED[::-1], chain([0.02, -0.01] * 50))
    twice = (np.concatenate([HUNDRED, HUNDRED[-1:]]), chain([0.01] * 101))
    rubbish = (HUNDRED, [math.nan, math.inf, -math.inf, 0.0, -1.0] * 20 + [5e-324])
    explosive = (HUNDRED, [1e-300, 1e300] * 50 + [1e-300])
    born_yesterday = (HUNDRED[-2:], [1.0, 1.1])
    empty = (HUNDRED[:0], np.zeros(0).tolist())
    arrays = ragged(good, backwards, twice, rubbish, explosive, born_yesterday, empty, good)
    result = metrics.measure(
        *arrays, day(HUNDREDTH), numbers(HUNDRED), risk_free=0.0, benchmark=(HUNDRED, np.array(good[1]))
    )
    alone = metrics.measure(
        *ragged(good), day(HUNDREDTH), HUNDRED, risk_free=0.0, benchmark=(HUNDRED, np.array(good[1]))
    )
    for name, values in result.items():
        assert values.shape == (8,)
        np.testing.assert_array_equal(values[[0, 7]], np.repeat(alone[name], 2), err_msg=name)
        assert nulls({"": values[1]}) == nulls({"": values[2]}) == nulls({"": values[3]}) == {""}
        assert values.dtype.kind != "f" or not np.isinf(values).any(), name
        assert name == "return_inception" or nulls({"": values[5]}) == {""}, name
    assert result["return_inception"][5] == pytest.approx(10)
    assert result["sharpe_inception"][0] > 0
    explosive_figures = {name: float(values[4]) for name, values in result.items() if name in EXPLOSIVE}
    assert explosive_figures == pytest.approx(EXPLOSIVE, nan_ok=True)


def test_mapped_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    offsets, days, navs = ragged((HUNDRED, chain([0.02, -0.01] * 50)), (HUNDRED, chain([0.01, -0.02] * 50)))
    mapped = []
    for name, array in (("offsets", offsets), ("days", days), ("navs", navs)):
        np.save(tmp_path / f"{name}.npy", array)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    found = metrics.measure(*mapped, day(HUNDREDTH), HUNDRED, risk_free=0.0)
    assert found["win_rate_inception"].tolist() == pytest.approx([50, 50])
    assert found["best_day_inception"].tolist() == pytest.approx([2, 1], rel=1e-10)


def test_the_number_of_threads_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    funds = [
        (HUNDRED[row % 30 :], np.exp(rng.normal(0, 0.01, 101 - row % 30).cumsum())) for row in range(2600)
    ]
    arrays = ragged(*[(dates, navs.tolist()) for dates, navs in funds])
    one, three = (
        metrics.measure(*arrays, day(HUNDREDTH), HUNDRED, risk_free=0.01, threads=threads)
        for threads in (1, 3)
    )
    assert np.isfinite(one["sharpe_inception"]).all()
    for name in metrics.COLUMNS:
        np.testing.assert_array_equal(one[name], three[name], err_msg=name)


@pytest.mark.parametrize(
    ("offsets", "days", "navs"),
    [
        ([0, 4], [1, 2, 3], [1.0, 1.0, 1.0]),
        ([-1, 3], [1, 2, 3], [1.0, 1.0, 1.0]),
        ([0, 2, 1], [1, 2, 3], [1.0, 1.0, 1.0]),
        ([0, 3], [1, 2, 3], [1.0, 1.0]),
        ([], [1, 2, 3], [1.0, 1.0, 1.0]),
    ],
)
def test_offsets_that_do_not_fit_are_refused(offsets: list[int], days: list[int], navs: list[float]) -> None:
    arrays = (np.array(offsets, dtype=np.int64), np.array(days, dtype=np.int32), np.array(navs))
    with pytest.raises(ValueError, match="offsets"):
        metrics.measure(*arrays, day("2025-01-01"), HUNDRED, risk_free=0.0)
    with pytest.raises(ValueError, match="offsets"):
        metrics.measure_money(*arrays, day("2025-01-01"))


# --- money funds -----------------------------------------------------------------------------------


def money(rows: dict[str, float], calc_date: str) -> dict[str, Any]:
    days = np.array(list(rows), dtype="datetime64[D]")
    result = metrics.measure_money(
        np.array([0, len(rows)]), numbers(days), np.array(list(rows.values())), day(calc_date)
    )
    assert tuple(result) == metrics.COLUMNS
    return {name: values[0] for name, values in result.items()}


def test_income_is_compounded_and_a_monday_holds_the_weekend() -> None:
    # Monday 2025-03-10 pays for three days; the base of the week is Friday 03-07, whose income is past
    rows = {"2025-03-06": 9.0, "2025-03-07": 9.0, "2025-03-10": 3.0, "2025-03-11": 1.0, "2025-03-14": 2.0}
    result = money(rows | {"2025-03-17": 9.0}, "2025-03-14")
    week = 1.0003 * 1.0001 * 1.0002 - 1
    assert result["return_1w"] == pytest.approx(100 * week, rel=1e-10)
    assert result["return_inception"] == pytest.approx(100 * (1.0009 * (1 + week) - 1), rel=1e-10)
    assert nulls(result) == set(metrics.COLUMNS) - {"return_1w", "return_inception"}


def daily(first: str, last: str, income: float) -> dict[str, float]:
    days = np.arange(day(first), day(last) + 1, dtype="datetime64[D]")
    return dict.fromkeys(days.astype(str).tolist(), income)


def test_a_year_of_income_is_365_days() -> None:
    # 0.5 a day for 730 days after the first row, 365 after the anchor of the year
    result = money(daily("2023-05-22", "2025-05-21", 0.5), "2025-05-21")
    year = 100 * (1.00005**365 - 1)
    for name in ("return_1y", "cagr_1y", "cagr_inception"):
        assert result[name] == pytest.approx(year, rel=1e-10), name
    assert math.isnan(result["return_2y"])  # its anchor is the day before the first row
    known = {name for name in metrics.COLUMNS if name not in nulls(result)}
    assert known - {name for name in metrics.COLUMNS if name.startswith("return_")} == {
        "cagr_1y",
        "cagr_inception",
    }


def test_growth_a_year_needs_a_year() -> None:
    assert math.isnan(money(daily("2024-05-22", "2025-05-21", 0.5), "2025-05-21")["cagr_inception"])
    assert not math.isnan(money(daily("2024-05-21", "2025-05-21", 0.5), "2025-05-21")["cagr_inception"])


def test_income_missing_for_over_ten_days_makes_the_return_unknown() -> None:
    rows = daily("2025-01-01", "2025-05-21", 0.5)
    ten = {text: math.nan if "2025-02-01" <= text <= "2025-02-09" else x for text, x in rows.items()}
    assert not math.isnan(money(ten, "2025-05-21")["return_inception"])
    eleven = ten | {"2025-02-10": math.inf}
    result = money(eleven, "2025-05-21")
    assert math.isnan(result["return_inception"])
    assert result["return_3m"] == pytest.approx(100 * (1.00005**89 - 1), rel=1e-10)  # from 2025-02-21


def test_money_funds_that_stopped_and_rubbish_have_nothing() -> None:
    everything = set(metrics.COLUMNS)
    rows = daily("2025-01-01", "2025-05-21", 0.5)
    assert "return_1m" not in nulls(money(rows, "2025-05-31"))
    assert nulls(money(rows, "2025-06-01")) == everything
    assert nulls(money(dict.fromkeys(rows, math.nan), "2025-05-21")) == everything
    assert nulls(money(dict.fromkeys(rows, -10_000.0), "2025-05-21")) == everything
    assert nulls(money({"2025-05-21": 0.5}, "2025-05-21")) == everything
    assert nulls(money(dict(reversed(rows.items())), "2025-05-21")) == everything
    # a day of loss is real, and a dividend of nothing too
    assert money(rows | {"2025-05-21": -0.5, "2025-05-20": 0.0}, "2025-05-21")["return_1w"] == pytest.approx(
        100 * (1.00005**5 * 0.99995 - 1), rel=1e-10
    )


# --- the compiled code -----------------------------------------------------------------------------


def child(code: str) -> str:
    environment = dict(os.environ)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def test_the_formulas_are_imported_without_the_compiler() -> None:
    assert child("import sys, core.metrics; print('numba' in sys.modules)") == "False"


def test_a_second_process_does_not_compile_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code = (
        "from core import metrics; stats = metrics.load_kernels().measure_funds.stats;"
        "print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))"
    )
    assert child(code) == "0 1"
    assert list(tmp_path.rglob("*.nbc"))
    assert child(code) == "1 0"
