"""Return and risk formulas of funds, on arrays: definitions version "1".

Pure functions of their arguments: no SQL, no clock. Returns inside the formulas are fractions; the
published columns `return_*`, `cagr_*`, `volatility_*` and `max_drawdown_*` are in percent, the ratios
are plain numbers. What cannot be said is NaN (dates: NaT), never infinite.

Every metric has a base (its starting point) and an end, and both are real NAVs of the fund:

- the anchor of a period is counted back from the calculation date T, the same one for every fund;
- the base is the fund's last NAV on or before the anchor, and at most 10 days older than it;
- the end is the fund's last NAV on or before T. Where it is over 10 days older than T the fund is
  dead or far behind, and all its metrics are null: its "last month" would be a lie;
- base and end must differ: a fund without a new NAV since the anchor has no return, not one of zero.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.metric_columns import COLUMNS as COLUMNS
from core.metric_columns import DATE_METRICS, PERIOD_MONTHS
from core.metric_columns import PERIODS as PERIODS
from core.metric_columns import WINDOWS as WINDOWS

DEFINITION_VERSION = "1"

MAX_AGE_DAYS = 10  # the longest closure of the market is 10 days between anchor and last session
MIN_RETURNS = 60
MIN_COVERAGE_TENTHS = 9  # of the window's trading days
MIN_CAGR_DAYS = 365
MIN_RATIO_VOLATILITY = 0.001  # a year; below it a ratio measures rounding of the NAV, not risk
MIN_FALL = 1e-12  # a smaller fall is rounding (a dividend that equals the drop), not a drawdown

_BLOCK_VALUES = 300_000  # funds x days calculated at a time: arrays of 2.4 MB, near the caches' size

Floats = NDArray[np.float64]
Days = NDArray[np.datetime64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Column = Floats | Days


def adjusted_nav(unit_nav: Floats, dividend: Floats, split_ratio: Floats) -> Floats:
    """Adjusted NAV 复权净值 of one fund: dividends reinvested, splits undone.

    `A_0 = U_0`, `A_t = A_{t-1} * (s_t*U_t + D_t) / U_{t-1}`, where a holder of one share before the
    ex-date t holds s_t shares and D_t in cash after it. An event on the first NAV has no effect.

    All three are 1-D, of one length, in date order; `dividend` in currency per pre-event share (NaN or
    0: none), `split_ratio` in shares after for one before (NaN or 1: none). Where `unit_nav` is
    missing (NaN, infinite, zero or negative) the result is NaN and the recursion goes on from the last
    NAV there was; an event of such a row takes effect with the next NAV. From an impossible event on
    (negative or infinite dividend, ratio not above zero) the result is NaN: unknown, not wrong.
    Raises ValueError if the shapes differ.
    """
    nav = np.asarray(unit_nav, dtype=np.float64)
    cash = np.asarray(dividend, dtype=np.float64)
    ratio = np.asarray(split_ratio, dtype=np.float64)
    if nav.ndim != 1 or cash.shape != nav.shape or ratio.shape != nav.shape:
        raise ValueError(f"need three 1-D arrays of one length, got {nav.shape}, {cash.shape}, {ratio.shape}")
    cash, ratio = np.where(np.isnan(cash), 0.0, cash), np.where(np.isnan(ratio), 1.0, ratio)
    possible = np.isfinite(cash) & (cash >= 0) & np.isfinite(ratio) & (ratio > 0)
    cash[~possible] = ratio[~possible] = np.nan

    present = _usable(nav)
    for row in np.flatnonzero(~present[:-1]):  # one share became ratio[row] shares and cash[row]
        cash[row + 1] = cash[row] + ratio[row] * cash[row + 1]
        ratio[row + 1] *= ratio[row]
    adjusted = np.full(nav.shape, np.nan)
    known = nav[present]
    if known.size:
        # the recursion as A_t = U_t * product(s_i + D_i/U_i): without events A is U to the last bit,
        # so that a NAV seen before is a high (or a constant) seen before
        shares = ratio[present] + cash[present] / known
        shares[0] = 1.0
        adjusted[present] = known * np.cumprod(shares)
    return adjusted


def anchor(calc_date: date | np.datetime64, period: str) -> np.datetime64:
    """The day from which `period` (a member of PERIODS except "inception") counts, as datetime64[D].

    "1w" is 7 days before `calc_date`, "ytd" 31 December of the year before, the others whole calendar
    months back, on the last day of the month where the month has no such day (31 March - 1m = 28 or
    29 February). Raises KeyError for any other period.
    """
    today = _day(calc_date)
    if period == "1w":
        return today - np.timedelta64(7, "D")
    if period == "ytd":
        return _day(today.astype("datetime64[Y]")) - np.timedelta64(1, "D")
    this_month = today.astype("datetime64[M]")
    month = this_month - np.timedelta64(PERIOD_MONTHS[period], "M")
    month_end = _day(month + np.timedelta64(1, "M")) - np.timedelta64(1, "D")
    same_day = _day(month) + (today - _day(this_month))
    return min(same_day, month_end)


def calculate(
    dates: Days,
    adjusted: Floats,
    calc_date: date | np.datetime64,
    sessions: Days,
    *,
    risk_free: float,
    periods_per_year: float = 250.0,
) -> dict[str, Column]:
    """All metrics of many funds as of `calc_date`: one array (N,) for each name in COLUMNS.

    `dates` (T,) ascending without repeats; `adjusted` (T, N) adjusted NAVs, NaN where a fund has none
    (infinite, zero and negative values count as missing: validation lets none through to here). Rows
    after `calc_date` are ignored; "since inception" starts at the first NAV given. `sessions`: trading
    days, ascending, covering the windows. `risk_free` is a fraction a year, `periods_per_year` the k of
    the formulas.

    With r the returns between consecutive NAVs a fund has (gaps are skipped, never filled) after the
    base and e = r - rf_d, `rf_d = (1 + risk_free)^(1/k) - 1`:

    - `return = A_end/A_base - 1`; needs no minimum of data beyond its two NAVs;
    - `cagr = (A_end/A_base)^(365/days) - 1`, days from base to end; null where T is under 365 days
      after the base (T, not end: a fund that publishes two days late still has a year behind it);
    - `volatility = std(r, ddof=1) * sqrt(k)`;
    - `sharpe = mean(e) / std(e, ddof=1) * sqrt(k)`;
    - `sortino = mean(e)*k / (sqrt(mean(min(e, 0)^2)) * sqrt(k))`, all days in the mean;
    - `max_drawdown = min(A/running peak - 1)`, the base point included; the trough is the first day of
      the minimum, the peak the last day at the high before it, the recovery the first NAV at or above
      that high again (NaT while there is none; all three NaT where there was no drawdown);
    - `calmar = cagr / abs(max_drawdown)`; null without a drawdown.

    Each metric of a window is null under 60 returns or under 90 % of the sessions after the base up
    to the end. Both ratios are null where annual volatility is under 0.1 % (constant and money-like
    series), Sortino also where nothing fell below the risk-free return.

    Formulas: empyrical-reloaded, whose daily factor is k = 252; drawdown dates as in pyfolio.
    Raises ValueError on arrays that do not fit together or dates out of order.
    """
    dates = np.asarray(dates, dtype="datetime64[D]")
    sessions = np.asarray(sessions, dtype="datetime64[D]")
    if dates.ndim != 1 or adjusted.ndim != 2 or adjusted.shape[0] != dates.size:
        raise ValueError(f"need dates (T,) and NAVs (T, N), got {dates.shape} and {adjusted.shape}")
    for name, days in (("dates", dates), ("sessions", sessions)):
        if not np.all(days[1:] > days[:-1]):
            raise ValueError(f"{name} must be in ascending order without repeats")
    today = _day(calc_date)
    rows = int(np.searchsorted(dates, today, side="right"))
    funds = adjusted.shape[1]
    result = {name: _nulls(name, funds) for name in COLUMNS}
    if rows == 0:
        return result
    step = max(1, _BLOCK_VALUES // rows)
    for start in range(0, funds, step):
        some = slice(start, start + step)
        block = _prepare(dates[:rows], adjusted[:rows, some], today)
        for name, values in _measure(block, sessions, risk_free, periods_per_year).items():
            result[name][some] = values
    return result


class _Block(NamedTuple):
    """Some funds, one a row so that a fund's NAVs lie together; positions are columns, -1 for none."""

    today: np.datetime64
    dates: Days  # (T,)
    nav: Floats  # (F, T), NaN where the fund has none
    returns: Floats  # (F, T), NaN where there is no NAV or none before it
    latest: Ints  # (F, T), position of the last NAV up to and including each column
    first: Ints  # (F,)
    end: Ints  # (F,), -1 also where the last NAV is too old


def _prepare(dates: Days, adjusted: Floats, today: np.datetime64) -> _Block:
    nav = np.array(adjusted.T, dtype=np.float64, order="C")
    present = _usable(nav)
    nav[~present] = np.nan
    latest = np.maximum.accumulate(np.where(present, np.arange(dates.size), -1), axis=1)
    returns = np.full_like(nav, np.nan)
    # before a fund's first NAV `latest` is -1 and column 0 holds NaN, so clipping to 0 gives NaN
    previous = np.take_along_axis(nav, np.maximum(latest[:, :-1], 0), axis=1)
    with np.errstate(over="ignore"):
        returns[:, 1:] = nav[:, 1:] / previous - 1
    end = latest[:, -1]
    end = np.where((end >= 0) & (_days_between(dates[end], today) <= MAX_AGE_DAYS), end, -1)
    return _Block(today, dates, nav, returns, latest, np.argmax(present, axis=1), end)


def _measure(block: _Block, sessions: Days, risk_free: float, k: float) -> dict[str, Column]:
    result: dict[str, Column] = {}
    bases = {period: _base(block, period) for period in PERIODS}
    with np.errstate(all="ignore"):  # every quotient without a meaning is made null below
        for period, base in bases.items():
            result[f"return_{period}"] = _or_null(100 * (_growth(block, base) - 1), base >= 0)
        for window in WINDOWS:
            base = bases[window]
            if not (base >= 0).any():
                continue
            for metric, values in _window(block, base, sessions, risk_free, k).items():
                result[f"{metric}_{window}"] = values
    return result


def _base(block: _Block, period: str) -> Ints:
    """Position of each fund's base for `period`, (F,); -1 where the period is null."""
    if period == "inception":
        base, fresh = block.first, np.ones(block.first.shape, dtype=np.bool_)
    else:
        day = anchor(block.today, period)
        column = int(np.searchsorted(block.dates, day, side="right")) - 1
        if column < 0:
            return np.full(block.first.shape, -1)
        base = block.latest[:, column]
        fresh = _days_between(block.dates[base], day) <= MAX_AGE_DAYS
    return np.where(fresh & (base >= 0) & (base < block.end), base, -1)


def _window(block: _Block, base: Ints, sessions: Days, risk_free: float, k: float) -> dict[str, Column]:
    from_day, to_day = block.dates[base], block.dates[block.end]
    left = int(base[base >= 0].min())  # columns before the earliest base belong to no fund's window
    position = np.arange(left, block.dates.size)
    count, volatility, sharpe, sortino = _risk(
        np.where(position > base[:, None], block.returns[:, left:], np.nan), (1 + risk_free) ** (1 / k) - 1, k
    )
    drawdown, *days = _drawdown(
        np.where(position >= base[:, None], block.nav[:, left:], np.nan), block.dates[left:]
    )
    cagr = _growth(block, base) ** (365 / _days_between(from_day, to_day)) - 1

    trading_days = np.searchsorted(sessions, to_day, "right") - np.searchsorted(sessions, from_day, "right")
    enough = (base >= 0) & (count >= MIN_RETURNS) & (10 * count >= MIN_COVERAGE_TENTHS * trading_days)
    a_year = enough & (_days_between(from_day, block.today) >= MIN_CAGR_DAYS)
    risky = enough & (volatility >= MIN_RATIO_VOLATILITY)
    fell = enough & (drawdown < 0)
    values: dict[str, Column] = {
        "cagr": _or_null(100 * cagr, a_year),
        "volatility": _or_null(100 * volatility, enough),
        "sharpe": _or_null(sharpe, risky),
        "sortino": _or_null(sortino, risky),
        "max_drawdown": _or_null(100 * drawdown, enough),
        "calmar": _or_null(cagr / np.abs(drawdown), a_year & fell),
    }
    for name, day in zip(DATE_METRICS, days, strict=True):
        values[name] = np.where(fell, day, np.datetime64("NaT", "D"))
    return values


def _risk(returns: Floats, daily_risk_free: float, k: float) -> tuple[Ints, Floats, Floats, Floats]:
    """Number of returns, annual volatility, Sharpe and Sortino of each row; NaN marks no return."""
    present = ~np.isnan(returns)
    count = present.sum(axis=1)
    excess = np.where(present, returns - daily_risk_free, 0.0)
    mean = excess.sum(axis=1) / count
    downside = np.sqrt(np.square(np.minimum(excess, 0.0)).sum(axis=1) / count)
    deviation = np.where(present, excess - mean[:, None], 0.0)
    # a constant less than its returns: the standard deviation of the excess is that of the returns
    std = np.sqrt(np.square(deviation).sum(axis=1) / (count - 1))
    return count, std * np.sqrt(k), mean / std * np.sqrt(k), mean * k / (downside * np.sqrt(k))


def _drawdown(nav: Floats, dates: Days) -> tuple[Floats, Days, Days, Days]:
    """Maximum drawdown of each row (a fraction <= 0), its peak, trough and recovery day; NaN is skipped."""
    high = np.fmax.accumulate(nav, axis=1)
    fall = nav / high - 1
    fall[fall > -MIN_FALL] = 0.0
    fall[np.isnan(nav)] = np.inf
    trough = np.argmin(fall, axis=1)
    rows, column = np.arange(nav.shape[0]), np.arange(nav.shape[1])
    at_high = (fall == 0.0) & (column <= trough[:, None])
    peak = nav.shape[1] - 1 - np.argmax(at_high[:, ::-1], axis=1)
    to_recover = high[rows, trough] * (1 - MIN_FALL)
    recovered = (nav >= to_recover[:, None]) & (column > trough[:, None])
    recovery = np.argmax(recovered, axis=1)
    recovery_day = np.where(recovered[rows, recovery], dates[recovery], np.datetime64("NaT", "D"))
    return fall[rows, trough], dates[peak], dates[trough], recovery_day


def _growth(block: _Block, base: Ints) -> Floats:
    rows = np.arange(base.size)
    growth: Floats = block.nav[rows, block.end] / block.nav[rows, base]
    return growth


def _day(day: date | np.datetime64) -> np.datetime64:
    exact: np.datetime64 = np.array([day], dtype="datetime64[D]")[0]
    return exact


def _usable(nav: Floats) -> Bools:
    return np.isfinite(nav) & (nav > 0)


def _days_between(start: Days, end: Days | np.datetime64) -> Ints:
    days: Ints = (end - start).astype(np.int64)
    return days


def _or_null(values: Floats, known: Bools) -> Floats:
    return np.where(known & np.isfinite(values), values, np.nan)


def _nulls(name: str, funds: int) -> Column:
    if name.startswith(DATE_METRICS):
        return np.full(funds, np.datetime64("NaT", "D"))
    return np.full(funds, np.nan)
