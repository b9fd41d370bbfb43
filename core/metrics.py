"""Return and risk formulas of funds, on arrays: definitions version "1".

Pure functions of their arguments: no SQL, no clock. Returns inside the formulas are fractions; the
published columns `return_*` and those of PERCENT_METRICS are in percent, `days_under_water_*` in calendar
days, all others plain numbers. What cannot be said is NaN (dates: NaT), never infinite.

Every metric has a base (its starting point) and an end, and both are real NAVs of the fund:

- the anchor of a period is counted back from the calculation date T, the same one for every fund;
- the base is the fund's last NAV on or before the anchor, and at most 10 days older than it;
- the end is the fund's last NAV on or before T. Where it is over 10 days older than T the fund is
  dead or far behind, and all its metrics are null: its "last month" would be a lie;
- base and end must differ: a fund without a new NAV since the anchor has no return, not one of zero.

The loops are in metric_kernels.py, compiled by numba, which is imported when something is measured.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.metric_columns import (
    BENCHMARK_METRICS as BENCHMARK_METRICS,
    COLUMNS as COLUMNS,
    DATE_METRICS,
    DAY_METRICS as DAY_METRICS,
    PERCENT_METRICS as PERCENT_METRICS,
    PERIOD_MONTHS,
    PERIODS as PERIODS,
    WINDOWS as WINDOWS,
)

DEFINITION_VERSION = "1"

_ROWS_AT_ONCE = 4_000_000  # of a dense array made ragged: copies of 50 MB
_ROWS_FOR_THREADS = 200_000  # below it a thread costs more than it saves
_MAX_AGE = np.timedelta64(10, "D")
_YEAR = np.timedelta64(365, "D")

Floats = NDArray[np.float64]
Days = NDArray[np.datetime64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Column = Floats | Days
DayNumbers = NDArray[np.int32] | Days  # days since 1970-01-01, or dates
RiskFree = float | tuple[DayNumbers, Floats]
Closes = tuple[DayNumbers, Floats]


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


def measure(
    offsets: Ints,
    days: DayNumbers,
    adjusted: Floats,
    calc_date: date | np.datetime64,
    sessions: DayNumbers,
    *,
    risk_free: RiskFree,
    periods_per_year: float = 250.0,
    benchmark: Closes | None = None,
    threads: int | None = None,
) -> dict[str, Column]:
    """All metrics of many funds as of `calc_date`: one array (F,) for each name in COLUMNS.

    Fund f has the rows `offsets[f]` to `offsets[f + 1]`, `offsets` (F + 1,), of `days` (R,), ascending
    without repeats within a fund, and `adjusted` (R,), its adjusted NAVs; NaN, infinite, zero and negative
    ones count as missing (validation lets none through to here). Rows after `calc_date` are ignored;
    "since inception" starts at the first NAV given. A fund whose days are out of order has no metrics;
    the others are as if it were not there. `sessions`: trading days, ascending, covering the windows.
    `risk_free`: a fraction a year, or days, ascending, and the fractions valid from each of them on (the
    first one before it too). `periods_per_year` is the k of the formulas. `benchmark`: days, ascending,
    and closes; missing closes as missing NAVs. Days are datetime64 or integers since 1970-01-01.
    `threads`: as many as there are processors unless given; the results do not depend on it.

    With r the returns between consecutive NAVs a fund has (gaps are skipped, never filled) after the base,
    `rf_d = (1 + risk_free)^(1/k) - 1` of the day on which a return ends, and e = r - rf_d:

    - `return = A_end/A_base - 1`; needs no minimum of data beyond its two NAVs;
    - `cagr = (A_end/A_base)^(365/days) - 1`, days from base to end; null where T is under 365 days
      after the base (T, not end: a fund that publishes two days late still has a year behind it);
    - `volatility = std(r, ddof=1) * sqrt(k)`;
    - `downside_deviation = sqrt(mean(min(e, 0)^2)) * sqrt(k)`, all days in the mean;
    - `sharpe = mean(e) / std(r, ddof=1) * sqrt(k)`;
    - `sortino = mean(e)*k / downside_deviation`;
    - `max_drawdown = min(A/running peak - 1)`, the base point included; the trough is the first day of
      the minimum, the peak the last day at the high before it, the recovery the first NAV at or above
      that high again (NaT while there is none; all three NaT where there was no drawdown);
    - `days_under_water`: calendar days from that peak to that recovery, to the end while there is none;
      0 without a drawdown;
    - `calmar = cagr / abs(max_drawdown)`; null without a drawdown;
    - `var_95`: the 5 % quantile of r, linear between neighbours, a loss being negative; `cvar_95`: the
      mean of the floor(0.05*(n - 1)) + 1 smallest r; null under 250 returns, of which a year of the
      Shanghai calendar has some 243: over 1y only a fund with more NAVs than trading days has them;
    - `skewness`, `kurtosis` (excess): the sample estimators G1 and G2, as of pandas and of scipy.stats
      with bias=False;
    - `best_day`, `worst_day`: largest and smallest r; `win_rate`: share of r > 0 among all;
    - against the benchmark's returns b, over the pairs, the r between two dates that both have a close,
      b being the benchmark's change between them: `beta = cov(e, b - rf_d) / var(b - rf_d)`,
      `alpha = k*(mean(e) - beta*mean(b - rf_d))`, `r_squared` the squared correlation of e and b - rf_d;
      `tracking_error = std(r - b, ddof=1) * sqrt(k)`, `information_ratio = mean(r - b)*k /
      tracking_error`; `up_capture` (`down_capture`): over the pairs with b > 0 (b < 0), of which there
      are n, `(product(1 + r)^(k/n) - 1) / (product(1 + b)^(k/n) - 1)`; all null under 60 pairs.

    Each metric of a window is null under 60 returns or under 90 % of the sessions after the base up
    to the end. Where annual volatility is under 0.1 % (constant and money-like series) these are null:
    Sharpe, Sortino, skewness, kurtosis, and against the benchmark (volatility of the pairs' e) all but
    the tracking error; where the benchmark's is: beta, alpha, R squared and captures; where the tracking
    error is: the information ratio. Sortino is null too where nothing fell below the risk-free return.

    Formulas: empyrical-reloaded, whose daily factor is k = 252 and whose information ratio and alpha are
    annualised in other ways; drawdown dates as in pyfolio; alpha: Jensen 1968.
    Raises ValueError on arrays that do not fit together, sessions, rates or closes out of order, and
    rates that are no number above -1.
    """
    starts, numbers, navs = _ragged(offsets, days, adjusted)
    kernels = load_kernels()
    today = int(_day(calc_date).astype(np.int64))
    rate_days, rates = _daily_rates(risk_free, periods_per_year)
    close_days, closes = _closes(benchmark)
    anchors = [
        kernels.SINCE_INCEPTION if period == "inception" else int(anchor(calc_date, period).astype(np.int64))
        for period in PERIODS
    ]
    bases = (np.array(anchors), np.array([PERIODS.index(window) for window in WINDOWS]))
    days_due = _ascending("sessions", sessions)
    out = np.full((len(PERIODS) + len(WINDOWS) * len(kernels.FIGURES), starts.size - 1), np.nan)

    def fill(first: int, last: int) -> None:
        kernels.measure_funds(
            *(starts, numbers, navs, first, last, today, *bases, days_due, rate_days, rates),
            *(close_days, closes, float(periods_per_year), out),
        )

    _in_shares(fill, starts, threads or os.cpu_count() or 1)
    return _columns(out, kernels.FIGURES)


def calculate(
    dates: Days,
    adjusted: Floats,
    calc_date: date | np.datetime64,
    sessions: Days,
    *,
    risk_free: RiskFree,
    periods_per_year: float = 250.0,
    benchmark: Closes | None = None,
) -> dict[str, Column]:
    """The metrics of `measure` for funds that share their dates: one array (N,) for each name in COLUMNS.

    `dates` (T,) ascending without repeats; `adjusted` (T, N) adjusted NAVs, NaN where a fund has none.
    All else as in `measure`. Raises ValueError as it does, and on dates out of order.
    """
    dates = np.asarray(dates, dtype="datetime64[D]")
    if dates.ndim != 1 or adjusted.ndim != 2 or adjusted.shape[0] != dates.size:
        raise ValueError(f"need dates (T,) and NAVs (T, N), got {dates.shape} and {adjusted.shape}")
    numbers = _ascending("dates", dates)
    funds = adjusted.shape[1]
    step = max(1, _ROWS_AT_ONCE // max(1, dates.size))
    parts = []
    for start in range(0, max(1, funds), step):
        block = adjusted[:, start : start + step]
        count = block.shape[1]
        parts.append(
            measure(
                np.arange(count + 1) * dates.size,
                np.tile(numbers, count),
                np.ravel(block, order="F"),
                calc_date,
                sessions,
                risk_free=risk_free,
                periods_per_year=periods_per_year,
                benchmark=benchmark,
            )
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def measure_money(
    offsets: Ints, days: DayNumbers, income_per_10k: Floats, calc_date: date | np.datetime64
) -> dict[str, Column]:
    """The metrics of money funds, from income instead of NAVs: one array (F,) for each name in COLUMNS.

    `offsets`, `days` and `calc_date` as in `measure`; `income_per_10k` (R,) in currency per 10,000 shares,
    missing where not finite or not above -10,000. A row stands for the days since the fund's row before
    it, so that a Monday's may hold the weekend's income, or Saturday and Sunday have their own. With base,
    anchor and end as for NAVs, a base row's own income being earned before it:

    - `return = product(1 + income/10000) - 1` over the rows after the base up to the end;
    - `cagr = (1 + return)^(365/days) - 1`, days from base to end; null where T is under 365 days after
      the base.

    Both in percent, and null where two neighbouring rows between base and end are over 10 days apart: the
    income between them is not known. All other columns are null: the shares of a money fund have no
    NAV to fall. A fund whose days are out of order has nothing but nulls. Raises ValueError on arrays
    that do not fit together.
    """
    starts, numbers, incomes = _ragged(offsets, days, income_per_10k)
    today = _day(calc_date)
    result = {name: _nulls(name, starts.size - 1) for name in COLUMNS}
    for fund in range(starts.size - 1):
        rows = slice(starts[fund], starts[fund + 1])
        day, income = numbers[rows].astype("datetime64[D]"), incomes[rows]
        if not np.all(day[1:] > day[:-1]):
            continue
        usable = (day <= today) & np.isfinite(income) & (income > -10_000)
        for name, value in _compounded(day[usable], income[usable], today).items():
            result[name][fund] = value
    return result


def load_kernels() -> ModuleType:
    """The compiled loops; the first import on a machine compiles them (ten seconds) and keeps the code.

    It is kept where NUMBA_CACHE_DIR says, or beside the source, or, where that cannot be written to, in the
    user's cache folder; where there is none either, each process compiles for itself.
    """
    from core import metric_kernels

    return metric_kernels


def _ragged(offsets: Ints, days: DayNumbers, values: Floats) -> tuple[Ints, NDArray[np.int32], Floats]:
    """The arguments as the loops take them; a mapped file is not copied. They read without checks."""
    starts = np.require(offsets, np.int64, ["C", "A"])
    numbers = _day_numbers(days)
    floats = np.require(values, np.float64, ["C", "A"])
    if starts.ndim != 1 or numbers.ndim != 1 or floats.shape != numbers.shape or starts.size == 0:
        shapes = f"{starts.shape}, {numbers.shape} and {floats.shape}"
        raise ValueError(f"need offsets (F + 1,), days (R,) and values (R,), got {shapes}")
    if starts[0] < 0 or starts[-1] > numbers.size or np.any(starts[1:] < starts[:-1]):
        raise ValueError(f"offsets must rise from 0 to at most {numbers.size}")
    return starts, numbers, floats


def _day_numbers(days: NDArray[Any]) -> NDArray[np.int32]:
    whole = days.astype("datetime64[D]").astype(np.int64) if days.dtype.kind == "M" else days
    return np.require(whole, np.int32, ["C", "A"])


def _ascending(name: str, days: DayNumbers) -> NDArray[np.int32]:
    numbers = _day_numbers(np.asarray(days))
    if numbers.ndim != 1 or not np.all(numbers[1:] > numbers[:-1]):
        raise ValueError(f"{name} must be in ascending order without repeats")
    return numbers


def _daily_rates(risk_free: RiskFree, k: float) -> tuple[NDArray[np.int32], Floats]:
    """Days and the daily rates valid from them on."""
    days, yearly = risk_free if isinstance(risk_free, tuple) else (np.zeros(1, np.int32), risk_free)
    numbers, rates = _ascending("days of rates", days), np.atleast_1d(np.asarray(yearly, np.float64))
    if rates.shape != numbers.shape or rates.size == 0:
        raise ValueError(f"need days and rates of one length, got {numbers.shape} and {rates.shape}")
    if not np.all(np.isfinite(rates) & (rates > -1)):
        raise ValueError(f"a risk-free rate is a fraction above -1, got {rates.tolist()}")
    return numbers, (1 + rates) ** (1 / k) - 1


def _closes(benchmark: Closes | None) -> tuple[NDArray[np.int32], Floats]:
    if benchmark is None:
        return np.zeros(0, np.int32), np.zeros(0)
    days, closes = _ascending("days of closes", benchmark[0]), np.asarray(benchmark[1], np.float64)
    if closes.shape != days.shape:
        raise ValueError(f"need days and closes of one length, got {days.shape} and {closes.shape}")
    known = _usable(closes)
    return np.ascontiguousarray(days[known]), np.ascontiguousarray(closes[known])


def _in_shares(fill: Any, starts: Ints, threads: int) -> None:
    """Calls `fill(first, last)` for all funds, in several threads if that pays; the loops hold no lock."""
    funds = starts.size - 1
    if threads == 1 or starts[-1] - starts[0] < _ROWS_FOR_THREADS:
        fill(0, funds)
        return
    goals = np.linspace(starts[0], starts[-1], 8 * threads + 1)[1:-1]
    cuts = np.unique([0, *np.searchsorted(starts, goals), funds]).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(fill, *share) for share in pairwise(cuts)]:
            done.result()


def _columns(out: Floats, figures: tuple[str, ...]) -> dict[str, Column]:
    """The rows of the loops' result by name, in percent where meant, dates as dates, never infinite."""
    out[~np.isfinite(out)] = np.nan
    found = {f"return_{period}": 100 * row for period, row in zip(PERIODS, out, strict=False)}
    result: dict[str, Column] = {**found}
    names = [(figure, window) for window in WINDOWS for figure in figures]
    for (figure, window), row in zip(names, out[len(PERIODS) :], strict=True):
        column: Column = row
        if figure in DATE_METRICS:
            known = ~np.isnan(row)
            column = np.full(row.shape, np.datetime64("NaT", "D"))
            column[known] = row[known].astype(np.int64).astype("datetime64[D]")
        elif figure in PERCENT_METRICS:
            column = 100 * row
        result[f"{figure}_{window}"] = column
    return {name: result[name] for name in COLUMNS}


def _compounded(day: Days, income: Floats, today: np.datetime64) -> dict[str, float]:
    """Returns and growth a year, percent, of one money fund from its usable rows up to `today`."""
    end = day.size - 1
    if end < 1 or today - day[end] > _MAX_AGE:
        return {}
    growth = np.cumsum(np.log1p(income / 10_000))
    gaps = np.cumsum(np.diff(day, prepend=day[:1]) > _MAX_AGE)
    result: dict[str, float] = {}
    for period in PERIODS:
        since = day[0] if period == "inception" else anchor(today, period)
        base = int(np.searchsorted(day, since, side="right")) - 1
        if base < 0 or base == end or since - day[base] > _MAX_AGE or gaps[end] > gaps[base]:
            continue
        logarithm = growth[end] - growth[base]
        result[f"return_{period}"] = 100 * np.expm1(logarithm)
        if period in WINDOWS and today - day[base] >= _YEAR:
            years = (day[end] - day[base]) / _YEAR
            result[f"cagr_{period}"] = 100 * np.expm1(logarithm / years)
    return {name: float(value) for name, value in result.items() if np.isfinite(value)}


def _day(day: date | np.datetime64) -> np.datetime64:
    exact: np.datetime64 = np.array([day], dtype="datetime64[D]")[0]
    return exact


def _usable(nav: Floats) -> Bools:
    return np.isfinite(nav) & (nav > 0)


def _nulls(name: str, funds: int) -> Column:
    if name.startswith(DATE_METRICS):
        return np.full(funds, np.datetime64("NaT", "D"))
    return np.full(funds, np.nan)
