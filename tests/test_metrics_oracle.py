"""Metrics of 500 recorded funds against empyrical-reloaded, scipy, numpy's least squares and plain pandas.

The other side shares nothing with core.metrics: events are read by a parser of its own, total returns
are `(s*U + D) / U_previous - 1` day by day, windows are cut with pandas and the figures are empyrical's;
where it has none, or annualises in another way, scipy's, pandas', or those of the regression itself. The
benchmark is the recorded CSI 300, its closes laid beside the days of each fund.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import empyrical  # type: ignore[import-untyped]
import exchange_calendars
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from core import metric_columns, metrics

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RECORDING = DATA / "nav_history.parquet"
pytestmark = pytest.mark.skipif(not RECORDING.exists(), reason=f"no recorded NAVs: {RECORDING} is missing")

CALC_DATE = pd.Timestamp("2025-12-03")  # a Wednesday; many recordings go on after it
RISK_FREE = 0.015
DAYS_A_YEAR = 252  # empyrical's daily factor
DAILY_RISK_FREE = (1 + RISK_FREE) ** (1 / DAYS_A_YEAR) - 1
EVENT = re.compile(r"每份(派现金|基金份额折算|基金份额分拆|基金)([\d.]+)(元|份)")
DATES = metric_columns.DATE_METRICS
OFFSETS = {
    "1w": pd.DateOffset(days=7),
    "1m": pd.DateOffset(months=1),
    "3m": pd.DateOffset(months=3),
    "6m": pd.DateOffset(months=6),
    "1y": pd.DateOffset(years=1),
    "2y": pd.DateOffset(years=2),
    "3y": pd.DateOffset(years=3),
    "5y": pd.DateOffset(years=5),
}


class Recorded(NamedTuple):
    funds: dict[str, pd.DataFrame]  # by date: unit, dividend, split; up to the recording's end
    ours: Any  # frame by fund, columns of metrics.COLUMNS
    sessions: pd.DatetimeIndex
    closes: Any  # of the benchmark, by date


def choose(recording: Path) -> list[str]:
    """500 funds alive at CALC_DATE, evenly by code: 400 with three years, 100 with fewer."""
    rows = pd.read_parquet(recording, columns=["fund_code", "nav_date"])
    spans = rows.groupby("fund_code")["nav_date"].agg(["min", "max"])
    alive = spans[spans["max"] >= "2025-11-28"]
    old = alive.index[alive["min"] < "2022-12-01"].sort_values()
    young = alive.index[alive["min"] >= "2022-12-01"].sort_values()
    return [*old[:: len(old) // 400][:400], *young[:: len(young) // 100][:100]]


def read_events(text: str | None) -> tuple[float, float]:
    """Cash per share and split ratio of one recorded dividend text."""
    if not text:
        return 0.0, 1.0
    match = EVENT.fullmatch(text)
    assert match, text
    amount = float(match[2])
    return (amount, 1.0) if match[3] == "元" else (0.0, amount)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    codes = choose(RECORDING)
    columns = ["fund_code", "nav_date", "unit_nav", "dividend_text"]
    rows = pd.read_parquet(RECORDING, columns=columns, filters=[("fund_code", "in", codes)])
    rows["nav_date"] = pd.to_datetime(rows["nav_date"])
    rows["unit"] = pd.to_numeric(rows["unit_nav"])
    texts = rows["dividend_text"].astype(object).where(rows["dividend_text"].notna(), None)
    rows["dividend"], rows["split"] = zip(*[read_events(text) for text in texts], strict=True)
    rows = rows.dropna(subset=["unit"]).sort_values("nav_date")
    funds = {str(code): frame.set_index("nav_date") for code, frame in rows.groupby("fund_code")}

    adjusted = pd.DataFrame(
        {
            code: pd.Series(
                metrics.adjusted_nav(f["unit"].to_numpy(), f["dividend"].to_numpy(), f["split"].to_numpy()),
                index=f.index,
            )
            for code, f in funds.items()
        }
    ).sort_index()
    closes = pd.read_csv(DATA / "index" / "000300.csv", index_col="date", parse_dates=True)["close"].iloc[1:]
    sessions = exchange_calendars.get_calendar("XSHG", start="2006-11-22", end="2025-12-31").sessions
    result = metrics.calculate(
        adjusted.index.to_numpy().astype("datetime64[D]"),
        adjusted.to_numpy(),
        CALC_DATE.date(),
        sessions.to_numpy().astype("datetime64[D]"),
        risk_free=RISK_FREE,
        periods_per_year=DAYS_A_YEAR,
        benchmark=(closes.index.to_numpy().astype("datetime64[D]"), closes.to_numpy()),
    )
    return Recorded(funds, pd.DataFrame(result, index=adjusted.columns), sessions, closes)


def total_returns(fund: pd.DataFrame) -> Any:
    known = fund.loc[:CALC_DATE]
    return (known["split"] * known["unit"] + known["dividend"]) / known["unit"].shift(1) - 1


def base_day(days: Any, period: str) -> Any:
    if period == "inception":
        return days[0]
    day = pd.Timestamp("2024-12-31") if period == "ytd" else CALC_DATE - OFFSETS[period]
    before = days[days <= day]
    return before[-1] if len(before) and day - before[-1] <= pd.Timedelta(days=10) else None


def expected_window(returns: Any, base: pd.Timestamp, bench: Any) -> dict[str, Any]:
    """Fractions and ratios of the returns after `base`, by empyrical; nulls where definitions say so."""
    days = (returns.index[-1] - base).days
    # empyrical counts years as observations / annualisation: this makes them days / 365
    by_calendar = len(returns) * 365 / days
    figures: dict[str, Any] = {
        "cagr": empyrical.cagr(returns, annualization=by_calendar),
        "volatility": empyrical.annual_volatility(returns, annualization=DAYS_A_YEAR),
        "sharpe": empyrical.sharpe_ratio(returns, DAILY_RISK_FREE, annualization=DAYS_A_YEAR),
        "sortino": empyrical.sortino_ratio(returns, DAILY_RISK_FREE, annualization=DAYS_A_YEAR),
        "max_drawdown": empyrical.max_drawdown(returns),
        "calmar": empyrical.calmar_ratio(returns, annualization=by_calendar),
        "downside_deviation": empyrical.downside_risk(returns, DAILY_RISK_FREE, annualization=DAYS_A_YEAR),
        "skewness": scipy.stats.skew(returns, bias=False),
        "kurtosis": scipy.stats.kurtosis(returns, bias=False),
        "best_day": returns.max(),
        "worst_day": returns.min(),
        "win_rate": (returns > 0).mean(),
        "var_95": empyrical.value_at_risk(returns) if len(returns) >= 250 else np.nan,
        "cvar_95": empyrical.conditional_value_at_risk(returns) if len(returns) >= 250 else np.nan,
    }
    if (CALC_DATE - base).days < 365:
        figures["cagr"] = figures["calmar"] = np.nan
    if figures["volatility"] < 0.001:
        figures |= dict.fromkeys(("sharpe", "sortino", "skewness", "kurtosis"), np.nan)
    return figures | expected_against(returns, bench) | expected_drawdown_days(returns, base)


def expected_against(returns: Any, bench: Any) -> dict[str, Any]:
    """Regression by least squares, captures by empyrical, the rest by pandas; nulls under 60 pairs."""
    both = returns.notna() & bench.notna()
    r, b = returns[both], bench[both]
    nothing = dict.fromkeys(metrics.BENCHMARK_METRICS, np.nan)
    if len(r) < 60:
        return nothing
    yearly = np.sqrt(DAYS_A_YEAR)
    error = (r - b).std() * yearly
    if (r - DAILY_RISK_FREE).std() * yearly < 0.001:
        return nothing | {"tracking_error": error}
    excess, factor = (r - DAILY_RISK_FREE).to_numpy(), (b - DAILY_RISK_FREE).to_numpy()
    line = np.column_stack([np.ones_like(factor), factor])
    (alpha, beta), (left,), *_ = np.linalg.lstsq(line, excess)
    ratio = empyrical.excess_sharpe(r, b) * yearly  # empyrical's is a day's
    return {
        "beta": beta,
        "alpha": DAYS_A_YEAR * alpha,
        "r_squared": 1 - left / np.square(excess - excess.mean()).sum(),
        "tracking_error": error,
        "information_ratio": ratio if error >= 0.001 else np.nan,
        "up_capture": empyrical.up_capture(r, b),
        "down_capture": empyrical.down_capture(r, b),
    }


def expected_drawdown_days(returns: Any, base: pd.Timestamp) -> dict[str, Any]:
    worth = pd.concat([pd.Series([1.0], index=[base]), (1 + returns).cumprod()])
    under = (worth / worth.cummax() - 1).round(11)  # the product of returns is exact to about 1e-13
    trough = under.idxmin()
    if under[trough] == 0:
        dates = ("max_drawdown_peak", "max_drawdown_trough", "max_drawdown_recovery")
        return dict.fromkeys(dates, pd.NaT) | {"days_under_water": 0}
    peak = under[:trough][under[:trough] == 0].index[-1]
    again = under[trough:][under[trough:] == 0].index
    return {
        "max_drawdown_peak": peak,
        "max_drawdown_trough": trough,
        "max_drawdown_recovery": again[0] if len(again) else pd.NaT,
        "days_under_water": ((again[0] if len(again) else under.index[-1]) - peak).days,
    }


def test_five_hundred_funds_were_chosen(recorded: Recorded) -> None:
    assert len(recorded.funds) == len(recorded.ours) == 500
    assert sum((fund["dividend"] > 0).any() for fund in recorded.funds.values()) >= 50
    assert sum((fund["split"] != 1).any() for fund in recorded.funds.values()) >= 25


def test_period_returns_equal_plain_pandas(recorded: Recorded) -> None:
    compared = nulls = 0
    for code, fund in recorded.funds.items():
        worth = (1 + total_returns(fund).fillna(0)).cumprod()
        for period in metrics.PERIODS:
            base = base_day(worth.index, period)
            got = recorded.ours.loc[code, f"return_{period}"]
            if base is None or base == worth.index[-1]:
                assert np.isnan(got), (code, period)
                nulls += 1
            else:
                wanted = 100 * (worth.iloc[-1] / worth[base] - 1)
                assert got == pytest.approx(wanted, rel=1e-10, abs=1e-10), (code, period)
                compared += 1
    assert compared > 4250
    assert nulls > 125


@pytest.mark.parametrize("window", metrics.WINDOWS)
def test_windows_equal_empyrical(recorded: Recorded, window: str) -> None:
    compared = dict.fromkeys([name for name in metric_columns.WINDOW_METRICS if name not in DATES], 0)
    dates = nulls = 0
    for code, fund in recorded.funds.items():
        every = total_returns(fund)
        base = base_day(every.index, window)
        ours = recorded.ours.loc[code, [name for name in metrics.COLUMNS if name.endswith(f"_{window}")]]
        returns = every[every.index > (base or CALC_DATE)]
        sessions = recorded.sessions[recorded.sessions <= every.index[-1]]
        if base is None or len(returns) < max(60, 0.9 * (sessions > base).sum()):
            assert ours.drop(f"return_{window}").isna().all(), (code, window)
            nulls += 1
            continue
        steps = recorded.closes.reindex(every.index)
        bench = (steps / steps.shift(1) - 1)[returns.index]
        for metric, wanted in expected_window(returns, base, bench).items():
            got = ours[f"{metric}_{window}"]
            if pd.isna(wanted) or isinstance(wanted, pd.Timestamp):
                assert got == wanted or (pd.isna(got) and pd.isna(wanted)), (code, metric, got, wanted)
                dates += not pd.isna(wanted)
            else:
                wanted *= 100 if metric in metrics.PERCENT_METRICS else 1
                assert got == pytest.approx(wanted, rel=1e-10, abs=1e-12), (code, metric)
                compared[metric] += 1
    if window == "1y":  # a year has some 243 sessions, and a tail needs 250 returns
        assert (compared.pop("var_95"), compared.pop("cvar_95")) == (0, 0)
    least = {"1y": 450, "3y": 395, "inception": 450}[window]
    assert min(compared.values()) >= least, compared
    assert dates >= 2 * least  # a peak and a trough each
    assert nulls >= {"1y": 40, "3y": 100, "inception": 5}[window]
