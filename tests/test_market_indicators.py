"""Indicators against TA-Lib on recorded prices, by hand on small ones, and their laws."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from core.market import indicators

talib = pytest.importorskip("talib")
NEAR = 1e-9
FLOATS = st.floats(0.1, 10_000, allow_nan=False)
PRICES = arrays(np.float64, st.integers(60, 120), elements=FLOATS)


@pytest.fixture(scope="module")
def bars(data: Path) -> Any:
    """High, low and close of the CSI 300, of the days that traded."""
    with (data / "index" / "000300.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["date"] > "2015-01-01"]
    return tuple(np.array([float(row[name]) for row in rows]) for name in ("high", "low", "close"))


@pytest.fixture(scope="module")
def navs(data: Path) -> dict[str, Any]:
    """Unit NAVs of twenty recorded funds with three years of them at the least."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(data / "nav_history.parquet", columns=["fund_code", "nav_date", "unit_nav"])
    codes = sorted(set(table["fund_code"].to_pylist()))[::90]
    found = {}
    for code in codes:
        part = table.filter(pc.equal(table["fund_code"], code)).sort_by("nav_date")
        values = [float(text) for text in part["unit_nav"].to_pylist() if text]
        if len(values) >= 750:
            found[code] = np.array(values)
    assert len(found) >= 15
    return found


def same(ours: Any, theirs: Any, scale: float = 1.0) -> None:
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    assert np.nanmax(np.abs(ours - theirs)) <= NEAR * scale


def test_recorded_navs_as_talib_has_them(navs: dict[str, Any]) -> None:
    for values in navs.values():
        high = values.max()
        same(indicators.sma(values, 20), talib.SMA(values, 20), high)
        same(indicators.sma(values, 60), talib.SMA(values, 60), high)
        same(indicators.ema(values, 12), talib.EMA(values, 12), high)
        same(indicators.ema(values, 26), talib.EMA(values, 26), high)
        ours, theirs = indicators.rsi(values, 14), talib.RSI(values, 14)
        still = np.isnan(ours) & (theirs == 0)  # nothing moved for 15 values, as before a fund opens
        same(np.where(still, 0.0, ours), theirs)
        line = talib.EMA(values, 12) - talib.EMA(values, 26)
        found = indicators.macd(values)
        same(found.line, line, high)
        signal = np.concatenate([np.full(25, np.nan), talib.EMA(line[25:], 9)])
        same(found.signal, signal, high)
        same(found.histogram, line - signal, high)


def test_recorded_index_as_talib_has_it(bars: Any) -> None:
    high, low, close = bars
    same(indicators.atr(high, low, close, 14), talib.ATR(high, low, close, 14))
    same(indicators.rsi(close), talib.RSI(close, 14))
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2, 0)
    found = indicators.bollinger(close)
    for ours, theirs in zip(found, (lower, middle, upper), strict=True):
        same(ours, theirs, close.max())


def test_talibs_own_macd_is_ours_once_its_late_start_is_forgotten(bars: Any) -> None:
    close = bars[2]
    for ours, theirs in zip(indicators.macd(close), talib.MACD(close, 12, 26, 9), strict=True):
        assert np.array_equal(np.isnan(ours[40:]), np.isnan(theirs[40:]))
        assert np.abs(ours[40:] - theirs[40:]).max() > NEAR
        assert np.abs(ours[300:] - theirs[300:]).max() <= NEAR * close.max()


def test_bands_of_recorded_navs(navs: dict[str, Any]) -> None:
    for values in navs.values():
        upper, middle, lower = talib.BBANDS(values, 20, 2, 2, 0)
        found = indicators.bollinger(values)
        # TA-Lib subtracts two sums of squares: at no spread it keeps the rounding of those, 1e-8 of the values.
        loose = 1e-7 * values.max()
        assert np.nanmax(np.abs(found.upper - upper)) <= loose
        assert np.nanmax(np.abs(found.lower - lower)) <= loose
        same(found.middle, middle, values.max())
        wide = (found.upper - found.lower) > 1e-3 * values.max()
        assert np.abs(found.upper - upper)[wide].max() <= NEAR * values.max()


def test_small_cases_by_hand() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0, 5.0])
    nan = np.nan
    np.testing.assert_allclose(indicators.sma(values, 3), [nan, nan, 7 / 3, 13 / 3, 16 / 3], rtol=1e-15)
    # 7/3, then half way to 7, then half way to 5
    np.testing.assert_allclose(indicators.ema(values, 3), [nan, nan, 7 / 3, 14 / 3, 29 / 6], rtol=1e-15)
    # changes +1 +2 +3 -2; of 2: rises 1.5, 2.25, 1.125; falls 0, 0, 1
    np.testing.assert_allclose(
        indicators.rsi(values, 2), [nan, nan, 100, 100, 100 * 1.125 / 2.125], rtol=1e-15
    )
    bands = indicators.bollinger(np.array([2.0, 4.0]), 2)
    np.testing.assert_allclose([band[1] for band in bands], [1.0, 3.0, 5.0])  # 3 -+ 2 * 1: ddof 0
    # true ranges: none, max(2, |12-9|, |10-9|) = 3, max(1, |11-11|, |10-11|) = 1
    found = indicators.atr(np.array([10.0, 12, 11]), np.array([8.0, 10, 10]), np.array([9.0, 11, 10]), 2)
    np.testing.assert_allclose(found, [nan, nan, 2.0])


def test_the_index_moved_by_a_constant_has_the_same_range(bars: Any) -> None:
    high, low, close = bars
    np.testing.assert_allclose(
        indicators.atr(high + 100, low + 100, close + 100)[14:], indicators.atr(high, low, close)[14:]
    )


@given(PRICES)
def test_laws(values: Any) -> None:
    strength = indicators.rsi(values)
    known = strength[~np.isnan(strength)]
    assert ((known >= 0) & (known <= 100)).all()
    flipped = indicators.rsi(20_000 - values)
    np.testing.assert_allclose(strength + flipped, 100 * np.where(np.isnan(strength), np.nan, 1), atol=1e-6)
    bands = indicators.bollinger(values)
    at = slice(19, None)
    assert (bands.lower[at] <= bands.middle[at]).all()
    assert (bands.middle[at] <= bands.upper[at]).all()
    for ours in (indicators.sma(values, 20), indicators.ema(values, 20)):
        assert (ours[at] <= values.max() * (1 + 1e-12)).all()
        assert (ours[at] >= values.min() * (1 - 1e-12)).all()
    np.testing.assert_allclose(indicators.macd(values * 8).line, indicators.macd(values).line * 8, rtol=1e-12)


@given(PRICES, st.integers(1, 40))
def test_what_comes_later_changes_nothing_before(values: Any, cut: int) -> None:
    """No indicator looks ahead."""
    at = len(values) - cut
    for of in (lambda v: indicators.sma(v, 20), lambda v: indicators.ema(v, 12), indicators.rsi):
        np.testing.assert_array_equal(of(values)[:at], of(values[:at]))
    for whole, part in zip(indicators.macd(values), indicators.macd(values[:at]), strict=True):
        np.testing.assert_array_equal(whole[:at], part)


@given(arrays(np.float64, (80, 3), elements=FLOATS))
def test_series_side_by_side_are_as_each_alone(table: Any) -> None:
    table = table.copy()
    table[:7, 1] = np.nan  # a younger one
    for of in (lambda v: indicators.sma(v, 20), lambda v: indicators.ema(v, 12), indicators.rsi):
        found = of(table)
        for column in range(3):
            np.testing.assert_allclose(found[:, column], of(table[:, column]), rtol=1e-9)
    np.testing.assert_allclose(indicators.ema(table, 12)[7:, 1], indicators.ema(table[7:, 1], 12), rtol=1e-9)


def test_too_little_is_nan_and_a_hole_begins_anew() -> None:
    short = np.array([1.0, 2.0])
    for of in (lambda v: indicators.sma(v, 20), lambda v: indicators.ema(v, 12), indicators.rsi):
        assert np.isnan(of(short)).all()
    assert np.isnan(indicators.rsi(np.ones(40))).all()
    values = np.array([1.0, 2.0, np.nan, 3.0, 5.0, 8.0])
    np.testing.assert_allclose(indicators.ema(values, 2), [np.nan, 1.5, np.nan, np.nan, 4.0, 4 + 4 * 2 / 3])
    with pytest.raises(ValueError, match="at least 1"):
        indicators.sma(values, 0)
