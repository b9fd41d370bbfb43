"""Laws of the tail, shape, days, benchmark and money figures, tried on generated markets."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from core import metrics
from tests.test_metrics_laws import Market, assert_same, laws, make_market, markets, with_rows

Closes = tuple[NDArray[np.datetime64], NDArray[np.float64]]


def closes_of(market: Market, seed: int) -> Closes:
    """An index over the market's dates and some before, with days on which it has no close."""
    rng = np.random.default_rng(seed)
    dates = np.concatenate([market.dates[0] + np.arange(-30, 0), market.dates])
    dates = dates[rng.random(dates.size) > 0.03]
    return dates, 3000 * np.exp(np.cumsum(rng.normal(0, 0.012, dates.size)))


def measured(market: Market, benchmark: Closes | None, **given: Any) -> dict[str, NDArray[Any]]:
    return metrics.calculate(
        *(market.dates, market.navs, market.calc_date, market.sessions),
        risk_free=given.pop("risk_free", 0.015),
        benchmark=benchmark,
        **given,
    )


def ragged(market: Market) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """The market without its gaps, one fund after the other."""
    present = ~np.isnan(market.navs.T)
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    days = np.broadcast_to(market.dates.astype(np.int64).astype(np.int32), present.shape)[present]
    return offsets, days, market.navs.T[present]


def measured_ragged(market: Market, arrays: Any, benchmark: Closes | None) -> dict[str, NDArray[Any]]:
    return metrics.measure(*arrays, market.calc_date, market.sessions, risk_free=0.015, benchmark=benchmark)


def test_generated_markets_have_funds_with_every_figure_against_a_benchmark() -> None:
    """Otherwise the laws below would hold for nothing but nulls."""
    market = make_market(seed=1, days=1400, funds=20, gaps=0.02, swing=0.015, lag=0)
    found = measured(market, closes_of(market, 1))
    known = {name: int((values == values).sum()) for name, values in found.items()}
    assert min(known.values()) >= 3, known


@laws
@given(markets, st.integers(0, 99))
def test_ranges_and_orders(market: Market, seed: int) -> None:
    found = measured(market, closes_of(market, seed))
    for name, values in found.items():
        assert values.dtype.kind == "M" or not np.isinf(values).any(), name
    for window in metrics.WINDOWS:
        get = {metric: found[f"{metric}_{window}"] for metric in metrics.PERCENT_METRICS}
        tail = ~np.isnan(get["var_95"])
        slack = 1e-9
        assert np.all(get["worst_day"][tail] <= get["cvar_95"][tail] + slack)
        assert np.all(get["cvar_95"][tail] <= get["var_95"][tail] + slack)
        assert np.all(get["var_95"][tail] <= get["best_day"][tail] + slack)
        assert not np.any((get["win_rate"] < 0) | (get["win_rate"] > 100))
        assert not np.any((get["win_rate"] > 0) & (get["best_day"] <= 0))
        assert not np.any((get["downside_deviation"] < 0) | (get["tracking_error"] < 0))
        explained = found[f"r_squared_{window}"]
        assert not np.any((explained < 0) | (explained > 1))


@laws
@given(markets)
def test_days_under_water_are_those_from_the_peak(market: Market) -> None:
    found = measured(market, None)
    for window in metrics.WINDOWS:
        days, depth = found[f"days_under_water_{window}"], found[f"max_drawdown_{window}"]
        peak, recovery = (found[f"max_drawdown_{what}_{window}"] for what in ("peak", "recovery"))
        np.testing.assert_array_equal(np.isnan(days), np.isnan(depth))
        np.testing.assert_array_equal(days == 0, depth == 0)
        for fund in np.flatnonzero(depth < 0):
            last = market.dates[~np.isnan(market.navs[:, fund]) & (market.dates <= market.calc_date)][-1]
            end = last if np.isnat(recovery[fund]) else recovery[fund]
            assert peak[fund] + np.timedelta64(int(days[fund]), "D") == end


@laws
@given(markets)
def test_sharpe_and_sortino_share_their_mean(market: Market) -> None:
    found = measured(market, None)
    for window in metrics.WINDOWS:
        sharpe, volatility, sortino, downside = (
            found[f"{name}_{window}"] for name in ("sharpe", "volatility", "sortino", "downside_deviation")
        )
        known = ~np.isnan(sortino)
        np.testing.assert_allclose(
            (sharpe * volatility)[known], (sortino * downside)[known], rtol=1e-9, atol=1e-9
        )


@laws
@given(markets, st.sampled_from([1.0, 0.25, 3.7]))
def test_the_benchmark_against_itself(market: Market, scale: float) -> None:
    navs = market.navs[:, 0]
    known = ~np.isnan(navs)
    found = measured(market, (market.dates[known], scale * navs[known]))
    for window in metrics.WINDOWS:
        beta, alpha, explained, error, ratio, up, down = (
            found[f"{name}_{window}"][0] for name in metrics.BENCHMARK_METRICS
        )
        assert np.isnan(error) or abs(error) < 1e-9
        assert np.isnan(ratio)
        if not np.isnan(beta):
            np.testing.assert_allclose([beta, explained], 1, rtol=1e-9)
            assert abs(alpha) < 1e-7
            np.testing.assert_allclose([one for one in (up, down) if not np.isnan(one)], 100, rtol=1e-7)


@laws
@given(markets, st.integers(0, 99), st.integers(1, 30))
def test_what_comes_after_the_calculation_date_changes_nothing(market: Market, seed: int, count: int) -> None:
    dates, closes = closes_of(market, seed)
    future = max(market.calc_date, market.dates[-1]) + np.arange(1, count + 1)
    rows = np.full((count, market.navs.shape[1]), 77.0)
    longer = (np.concatenate([dates, future]), np.concatenate([closes, np.full(count, 9.0)]))
    later = measured(with_rows(market, future, rows), longer)
    assert_same(measured(market, (dates, closes)), later, exact=True)


@laws
@given(markets, st.integers(0, 99), st.sampled_from([0.125, 1024.0]))
def test_scaling_navs_and_closes_changes_nothing(market: Market, seed: int, scale: float) -> None:
    dates, closes = closes_of(market, seed)
    scaled = Market(market.dates, market.navs * scale, market.calc_date, market.sessions)
    assert_same(measured(market, (dates, closes)), measured(scaled, (dates, closes / scale)), exact=True)


@laws
@given(markets, st.integers(0, 99), st.randoms(use_true_random=False))
def test_ragged_funds_in_any_order_have_the_figures_of_the_dense_array(
    market: Market, seed: int, random: Any
) -> None:
    order = list(range(market.navs.shape[1]))
    random.shuffle(order)
    shuffled = Market(market.dates, market.navs[:, order], market.calc_date, market.sessions)
    benchmark = closes_of(market, seed)
    found = {name: values[order] for name, values in measured(market, benchmark).items()}
    assert_same(found, measured_ragged(market, ragged(shuffled), benchmark), exact=True)


@laws
@given(markets, st.integers(0, 99), st.lists(st.floats(), min_size=1, max_size=200))
def test_rubbish_beside_a_fund_changes_nothing(market: Market, seed: int, rubbish: list[float]) -> None:
    offsets, days, navs = ragged(market)
    benchmark = closes_of(market, seed)
    clean = measured_ragged(market, (offsets, days, navs), benchmark)
    wild = np.random.default_rng(seed).integers(-(2**31), 2**31, len(rubbish)).astype(np.int32)
    dirty = (
        np.concatenate([[0], offsets + len(rubbish)]),
        np.concatenate([wild if seed % 2 else np.sort(wild), days]),
        np.concatenate([rubbish, navs]),
    )
    found = measured_ragged(market, dirty, benchmark)
    assert_same(clean, {name: values[1:] for name, values in found.items()}, exact=True)


@laws
@given(markets, st.integers(0, 99), st.sampled_from([-0.01, 0.0, 0.03]))
def test_a_rate_that_never_changes_is_one_number(market: Market, seed: int, rate: float) -> None:
    days = np.sort(np.random.default_rng(seed).choice(market.sessions, 5, replace=False))
    benchmark = closes_of(market, seed)
    one = measured(market, benchmark, risk_free=rate)
    assert_same(one, measured(market, benchmark, risk_free=(days, np.full(5, rate))), exact=True)


@laws
@given(markets, st.integers(0, 99))
def test_the_tracking_error_joins_beta_and_both_volatilities(market: Market, seed: int) -> None:
    """var(r - b) = var(r) + var(b) - 2 beta var(b), where every return has its pair."""
    dates, navs = market.dates, market.navs
    closes = np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.012, dates.size)))
    found = measured(market, (dates, closes), risk_free=0.0)
    beside = Market(
        dates, np.where(np.isnan(navs), np.nan, closes[:, None]), market.calc_date, market.sessions
    )
    index = measured(beside, None, risk_free=0.0)
    for window in metrics.WINDOWS:
        beta, error, own = (found[f"{name}_{window}"] for name in ("beta", "tracking_error", "volatility"))
        market_volatility = index[f"volatility_{window}"]
        known = ~np.isnan(beta)
        joined = own**2 + market_volatility**2 * (1 - 2 * beta)
        np.testing.assert_allclose(error[known] ** 2, joined[known], rtol=1e-8, atol=1e-8)


money = st.lists(st.tuples(st.sampled_from([1, 1, 1, 1, 3, 8]), st.floats(-1, 5)), min_size=2, max_size=500)


def money_arrays(rows: list[tuple[int, float]]) -> tuple[Any, Any, Any]:
    steps, incomes = zip(*rows, strict=True)
    days = np.datetime64("2019-01-01") + np.cumsum(steps)
    return days, days.astype(np.int64).astype(np.int32), np.array(incomes)


@settings(max_examples=100, deadline=None)
@given(money)
def test_income_returns_what_a_nav_that_keeps_it_returns(rows: list[tuple[int, float]]) -> None:
    dates, days, incomes = money_arrays(rows)
    offsets = np.array([0, days.size])
    found = metrics.measure_money(offsets, days, incomes, dates[-1])
    kept = metrics.measure(offsets, days, np.cumprod(1 + incomes / 10_000), dates[-1], dates, risk_free=0.0)
    for name in metrics.COLUMNS:
        if name.startswith("return_"):
            np.testing.assert_allclose(found[name], kept[name], rtol=1e-9, atol=1e-11, err_msg=name)
        elif not name.startswith("cagr_"):
            assert found[name] != found[name], name


@settings(max_examples=100, deadline=None)
@given(money)
def test_a_weekend_in_one_row_or_in_two_is_the_same(rows: list[tuple[int, float]]) -> None:
    """A row for two days and the two rows with the same growth: no figure knows the difference."""
    dates, days, incomes = money_arrays([*rows, (1, 1.0), (2, 3.0), (1, 1.0), (8, 2.0)])
    row = days.size - 3
    first = 1.5
    second = 10_000 * ((1 + incomes[row] / 10_000) / (1 + first / 10_000) - 1)
    whole = metrics.measure_money(np.array([0, days.size]), days, incomes, dates[-1])
    parts = metrics.measure_money(
        np.array([0, days.size + 1]),
        np.insert(days, row, days[row] - 1),
        np.concatenate([incomes[:row], [first, second], incomes[row + 1 :]]),
        dates[-1],
    )
    for name in ("return_1m", "return_inception", "cagr_1y", "cagr_inception"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-9, atol=1e-11, err_msg=name)
