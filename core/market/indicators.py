"""Technical indicators: pure functions of prices, oldest first.

Arrays are 1-d, or dates x series (axis 0 is time); results have the shape of what was given. NaN where there is no
history yet, and for every window with a NaN in it. What is smoothed without end (EMA, RSI, MACD, ATR) begins anew
once its window is full of values again.

Conventions are those of TA-Lib, where it and the textbooks agree: an EMA starts with the mean of its first values,
Wilder's smoothing likewise, bands are of the population (ddof 0). Where they do not, it is said below.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Macd(NamedTuple):
    """The line, its signal, and the line less the signal; in the unit of the prices."""

    line: Floats
    signal: Floats
    histogram: Floats


class Bands(NamedTuple):
    """In the unit of the prices."""

    lower: Floats
    middle: Floats
    upper: Floats


def sma(values: Floats, periods: int) -> Floats:
    """Simple moving average: the mean of the newest `periods` values. NaN for the first `periods` - 1."""
    return _windowed(values, periods, "mean")


def ema(values: Floats, periods: int) -> Floats:
    """Exponential moving average with factor 2 / (`periods` + 1), begun with the mean of the first `periods` values.

    E_t = E_{t-1} + 2/(n+1) * (x_t - E_{t-1}). NaN for the first `periods` - 1. (Murphy, Technical Analysis of the
    Financial Markets, 1999. Others, pandas' ewm(adjust=False) among them, begin with the first value alone.)
    """
    return _smoothed(values, periods, 2 / (periods + 1))


def rsi(values: Floats, periods: int = 14) -> Floats:
    """Relative strength index, 0 to 100: 100 * U / (U + D), U and D Wilder's averages of rises and falls.

    NaN for the first `periods` values, and where prices neither rose nor fell (TA-Lib says 0 there, which would
    read as oversold). (Wilder, New Concepts in Technical Trading Systems, 1978.)
    """
    change = _changes(values)
    rises = _smoothed(np.maximum(change, 0.0), periods, 1 / periods)
    falls = _smoothed(np.maximum(-change, 0.0), periods, 1 / periods)
    total = rises + falls
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, 100 * (rises / total), np.nan)


def macd(values: Floats, fast: int = 12, slow: int = 26, signal: int = 9) -> Macd:
    """Moving average convergence/divergence: EMA(`fast`) - EMA(`slow`), and the EMA(`signal`) of that.

    NaN for the first `slow` - 1 values, for signal and histogram `signal` - 1 more. (Appel, 1979. TA-Lib begins
    the fast EMA late, so that both begin on one day; the difference is halved every four days.)
    """
    line = ema(values, fast) - ema(values, slow)
    smooth = ema(line, signal)
    return Macd(line, smooth, line - smooth)


def bollinger(values: Floats, periods: int = 20, width: float = 2.0) -> Bands:
    """SMA(`periods`) and `width` standard deviations of the population (ddof 0) of the same values around it.

    NaN for the first `periods` - 1 values. (Bollinger on Bollinger Bands, 2001.)
    """
    middle = sma(values, periods)
    spread = width * _windowed(values, periods, "std")
    return Bands(middle - spread, middle, middle + spread)


def atr(high: Floats, low: Floats, close: Floats, periods: int = 14) -> Floats:
    """Average true range: Wilder's average of max(high - low, |high - close before|, |low - close before|).

    For what is quoted with a high and a low; a fund has a NAV alone, and no true range. In the unit of the prices.
    NaN for the first `periods` values: the first day has no close before it. (Wilder, 1978.)
    """
    before = np.full_like(close, np.nan)
    before[1:] = close[:-1]
    parts = high - low, np.abs(high - before), np.abs(low - before)
    return _smoothed(np.maximum(np.maximum(parts[0], parts[1]), parts[2]), periods, 1 / periods)


def _windowed(values: Floats, periods: int, what: str) -> Floats:
    if periods < 1:
        raise ValueError(f"{periods} periods: at least 1 is needed")
    found = np.full(values.shape, np.nan)
    if len(values) >= periods:
        windows = sliding_window_view(values, periods, axis=0)
        found[periods - 1 :] = windows.mean(axis=-1) if what == "mean" else windows.std(axis=-1)
    return found


def _smoothed(values: Floats, periods: int, factor: float) -> Floats:
    """x_t of weight `factor`, all before it of the rest; begun with the mean of `periods` values."""
    begun = sma(values, periods)
    found = np.full(values.shape, np.nan)
    state = np.full(values.shape[1:], np.nan)
    for at in range(periods - 1, len(values)):
        state = np.where(np.isnan(state), begun[at], state + factor * (values[at] - state))
        found[at] = state
    return found


def _changes(values: Floats) -> Floats:
    found = np.full(values.shape, np.nan)
    found[1:] = values[1:] - values[:-1]
    return found
