"""Laws that hold for the metrics of any funds, tried on generated markets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import example, given, settings, strategies as st
from numpy.typing import NDArray

from core import metrics

BENCHMARK = {f"{metric}_{window}" for metric in metrics.BENCHMARK_METRICS for window in metrics.WINDOWS}


@dataclass(frozen=True)
class Market:
    """Funds with gaps, late births, early ends, weekly publishers and constant stretches."""

    dates: NDArray[np.datetime64]
    navs: NDArray[np.float64]  # (T, N), four decimals as published
    calc_date: np.datetime64
    sessions: NDArray[np.datetime64]

    def measure(self, risk_free: float = 0.015) -> dict[str, NDArray[Any]]:
        return metrics.calculate(self.dates, self.navs, self.calc_date, self.sessions, risk_free=risk_free)


def make_market(seed: int, days: int, funds: int, gaps: float, swing: float, lag: int) -> Market:
    rng = np.random.default_rng(seed)
    every_day = np.arange("2015-01-01", "2023-01-01", dtype="datetime64[D]")
    sessions = every_day[np.is_busday(every_day)]
    first = int(rng.integers(0, sessions.size - days + 1))
    dates = sessions[first : first + days]
    steps = rng.normal(0, swing, (days, funds)) * (rng.random((days, funds)) < 0.9)
    navs = np.maximum(np.round(np.exp(np.cumsum(steps, axis=0)), 4), 1e-4)
    navs[rng.random((days, funds)) < gaps] = np.nan
    for fund in range(funds):
        navs[: rng.integers(0, days // 2 + 1), fund] = np.nan
        if rng.random() < 0.2:
            navs[days - rng.integers(0, 15) :, fund] = np.nan
    return Market(dates, navs, dates[-1] + np.timedelta64(lag, "D"), sessions)


markets = st.builds(
    make_market,
    seed=st.integers(0, 2**32 - 1),
    days=st.sampled_from([1, 2, 61, 140, 300, 820, 1400]),
    funds=st.integers(1, 5),
    gaps=st.sampled_from([0.0, 0.02, 0.09, 0.8]),
    swing=st.sampled_from([0.0, 1e-5, 0.001, 0.015, 0.1]),
    lag=st.integers(-4, 12),
)
laws = settings(max_examples=60, deadline=None)


def assert_same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]], *, exact: bool = False) -> None:
    for name in metrics.COLUMNS:
        if exact or one[name].dtype.kind == "M":
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        else:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-9, atol=1e-9, err_msg=name)


def with_rows(market: Market, dates: NDArray[np.datetime64], rows: NDArray[np.float64]) -> Market:
    every, navs = np.concatenate([market.dates, dates]), np.concatenate([market.navs, rows])
    order = np.argsort(every)
    return Market(every[order], navs[order], market.calc_date, market.sessions)


def test_generated_markets_have_funds_with_every_metric() -> None:
    """Otherwise the laws below would hold for nothing but nulls."""
    found = make_market(seed=1, days=1400, funds=20, gaps=0.02, swing=0.015, lag=0).measure()
    known = {name: int((values == values).sum()) for name, values in found.items() if name not in BENCHMARK}
    assert min(known.values()) >= 3, known


@laws
@given(markets)
def test_ranges(market: Market) -> None:
    found = market.measure()
    for name, values in found.items():
        if values.dtype.kind == "f":
            assert not np.isinf(values).any(), name
    for window in metrics.WINDOWS:
        depth = found[f"max_drawdown_{window}"]
        assert np.all((depth <= 0) | np.isnan(depth))
        assert np.all((depth > -100) | np.isnan(depth))
        assert np.all(~(found[f"volatility_{window}"] < 0))
        assert np.all(~(found[f"cagr_{window}"] <= -100))
        fell = depth < 0
        peak, trough, recovery = (
            found[f"max_drawdown_{what}_{window}"] for what in ("peak", "trough", "recovery")
        )
        assert np.array_equal(~np.isnat(peak), fell)
        assert np.array_equal(~np.isnat(trough), fell)
        assert np.all(peak[fell] < trough[fell])
        recovered = ~np.isnat(recovery)
        assert np.all(fell[recovered])
        assert np.all(trough[recovered] < recovery[recovered])
        assert np.all(recovery[recovered] <= market.calc_date)


@laws
@given(markets)
def test_drawdown_is_the_fall_between_its_own_dates(market: Market) -> None:
    found = market.measure()
    for window in metrics.WINDOWS:
        depth = found[f"max_drawdown_{window}"]
        for fund in np.flatnonzero(depth < 0):
            peak, trough, recovery = (
                found[f"max_drawdown_{what}_{window}"][fund] for what in ("peak", "trough", "recovery")
            )
            navs = dict(zip(market.dates, market.navs[:, fund], strict=True))
            np.testing.assert_allclose(navs[trough] / navs[peak] - 1, depth[fund] / 100, rtol=1e-12)
            below = [
                nav
                for day, nav in navs.items()
                if peak < day and not day >= recovery and day <= market.calc_date
            ]
            assert not np.any(np.array(below) >= navs[peak])
            assert np.isnat(recovery) or navs[recovery] >= navs[peak]


@laws
@given(markets, st.sampled_from([2.0, 1024.0, 0.125, 3.7, 0.0123]))
def test_scaling_the_navs_changes_nothing(market: Market, scale: float) -> None:
    scaled = Market(market.dates, market.navs * scale, market.calc_date, market.sessions)
    power_of_two = np.frexp(scale)[0] == 0.5
    assert_same(market.measure(), scaled.measure(), exact=bool(power_of_two))


@laws
@given(markets, st.randoms(use_true_random=False))
def test_permuting_the_funds_permutes_the_results(market: Market, random: Any) -> None:
    order = list(range(market.navs.shape[1]))
    random.shuffle(order)
    shuffled = Market(market.dates, market.navs[:, order], market.calc_date, market.sessions)
    found = {name: values[order] for name, values in market.measure().items()}
    assert_same(found, shuffled.measure(), exact=True)


@laws
@given(markets)
def test_a_fund_alone_has_the_metrics_it_has_among_others(market: Market) -> None:
    found = market.measure()
    for fund in range(market.navs.shape[1]):
        alone = Market(market.dates, market.navs[:, [fund]], market.calc_date, market.sessions)
        assert_same({name: values[[fund]] for name, values in found.items()}, alone.measure())


@laws
@given(markets, st.integers(1, 30))
def test_rows_after_the_calculation_date_change_nothing(market: Market, count: int) -> None:
    future = max(market.calc_date, market.dates[-1]) + np.arange(1, count + 1)
    rows = np.full((count, market.navs.shape[1]), 77.0)
    assert_same(market.measure(), with_rows(market, future, rows).measure(), exact=True)


@laws
@given(markets)
def test_a_date_on_which_no_fund_has_a_nav_changes_nothing(market: Market) -> None:
    around = np.arange(market.dates[0] - 20, market.dates[-1] + 20)
    empty = around[~np.isin(around, market.dates)]
    rows = np.full((empty.size, market.navs.shape[1]), np.nan)
    assert_same(market.measure(), with_rows(market, empty, rows).measure())


@laws
@given(markets, st.sampled_from([0.0, 0.01, 0.05]))
def test_only_the_ratios_and_the_downside_know_the_risk_free_return(market: Market, higher: float) -> None:
    low, high = market.measure(-0.01), market.measure(higher)
    for name in metrics.COLUMNS:
        if name.startswith("downside_deviation"):
            assert np.all((high[name] >= low[name] - 1e-12) | np.isnan(low[name]))
        elif name.startswith(("sharpe", "sortino")):
            both = ~np.isnan(low[name]) & ~np.isnan(high[name])
            assert np.all(high[name][both] < low[name][both] + 1e-12)
        elif low[name].dtype.kind == "M":
            np.testing.assert_array_equal(low[name], high[name])
        else:  # the standard deviation of returns less a constant may differ in the last bit
            np.testing.assert_allclose(low[name], high[name], rtol=1e-9, atol=1e-12)


@laws
@given(markets)
def test_calmar_and_sortino_have_the_sign_of_what_they_divide(market: Market) -> None:
    found = market.measure()
    for window in metrics.WINDOWS:
        cagr, depth, calmar = (found[f"{what}_{window}"] for what in ("cagr", "max_drawdown", "calmar"))
        known = ~np.isnan(calmar)
        np.testing.assert_allclose(calmar[known] * -depth[known], cagr[known], rtol=1e-9, atol=1e-9)
        sharpe, sortino = found[f"sharpe_{window}"], found[f"sortino_{window}"]
        both = ~np.isnan(sharpe) & ~np.isnan(sortino)
        np.testing.assert_array_equal(np.sign(sharpe[both]), np.sign(sortino[both]))


events = st.lists(
    st.tuples(
        st.floats(0.5, 3.0), st.sampled_from([0.0, 0.0, 0.01, 0.4]), st.sampled_from([1.0, 1.0, 2.0, 0.1])
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(events)
@example([(1.5, 0.0, 1.0), (1.4, 0.1, 1.0)])
def test_adjusted_nav_is_the_worth_of_a_holder_who_reinvests(rows: list[tuple[float, float, float]]) -> None:
    """A ledger kept share by share: the split multiplies shares, the cash buys shares at the day's NAV."""
    shares, worth = 1.0, []
    for row, (nav, cash, split) in enumerate(rows):
        if row:
            shares = shares * split + shares * cash / nav
        worth.append(shares * nav)
    unit, dividend, ratio = np.array(rows).T
    np.testing.assert_allclose(metrics.adjusted_nav(unit, dividend, ratio), worth, rtol=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.dates(), st.sampled_from([period for period in metrics.PERIODS if period != "inception"]))
def test_an_anchor_lies_before_its_date_and_never_moves_backwards(calc_date: Any, period: str) -> None:
    day = np.datetime64(calc_date, "D")
    assert metrics.anchor(day, period) < day
    assert metrics.anchor(day, period) <= metrics.anchor(day + np.timedelta64(1, "D"), period)
