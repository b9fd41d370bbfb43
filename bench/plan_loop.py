"""The plan's loop over funds, for bench.metrics_speed: a query, pandas and a committed INSERT for each.

With the plan's six metrics, or with everything that ours calculates.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Column, Date, Double, MetaData, String, Table, create_engine, insert, text
from sqlalchemy.engine import URL

from bench.rivals import (
    DAILY_RISK_FREE,
    PERIODS_PER_YEAR,
    WINDOW_YEARS,
    each_timed,
    fund_code,
    read_market,
)

PLAN_METRICS = ("return", "volatility", "sharpe", "sortino", "max_drawdown", "calmar")
PERIODS = {
    "1w": pd.DateOffset(days=7),
    **{f"{months}m": pd.DateOffset(months=months) for months in (1, 3, 6)},
    **{f"{years}y": pd.DateOffset(years=years) for years in (1, 2, 3, 5)},
    "ytd": pd.offsets.YearEnd(1),
}
PLAN_MORE = (
    *("cagr", "downside_deviation", "skewness", "kurtosis", "best_day", "worst_day", "win_rate"),
    *("days_under_water", "var_95", "cvar_95", "beta", "alpha", "r_squared", "tracking_error"),
    *("information_ratio", "up_capture", "down_capture"),
)


def plan_metrics(frame: pd.DataFrame) -> dict[str, float | None]:
    """Six metrics of three windows, as one writes them with pandas. `frame`: nav_date, unit_nav, by date."""
    nav = frame.set_index("nav_date")["unit_nav"].astype(float)
    values: dict[str, Any] = {}
    for window, years in WINDOW_YEARS.items():
        since = nav.index[-1] - pd.DateOffset(years=years) if years else nav.index[0]
        older = nav[nav.index <= since]
        part = nav[nav.index >= (older.index[-1] if len(older) else nav.index[0])]
        returns = part.pct_change().dropna()
        excess = returns - DAILY_RISK_FREE
        total = part.iloc[-1] / part.iloc[0] - 1
        annual = (1 + total) ** (365 / (part.index[-1] - part.index[0]).days) - 1
        volatility = returns.std() * math.sqrt(PERIODS_PER_YEAR)
        downside = math.sqrt((excess.clip(upper=0) ** 2).mean()) * math.sqrt(PERIODS_PER_YEAR)
        drawdown = (part / part.cummax() - 1).min()
        values[f"return_{window}"] = 100 * total
        values[f"volatility_{window}"] = 100 * volatility
        values[f"sharpe_{window}"] = excess.mean() / returns.std() * math.sqrt(PERIODS_PER_YEAR)
        values[f"sortino_{window}"] = excess.mean() * PERIODS_PER_YEAR / downside
        values[f"max_drawdown_{window}"] = 100 * drawdown
        values[f"calmar_{window}"] = annual / abs(drawdown) if drawdown else None
    return {name: None if value is None else float(value) for name, value in values.items()}


def more_metrics(frame: pd.DataFrame, closes: pd.Series) -> dict[str, float | None]:
    """All else that ours has, in the same way: period returns, the tail, the shape, the days, the benchmark."""
    nav = frame.set_index("nav_date")["unit_nav"].astype(float)
    k, last = PERIODS_PER_YEAR, nav.index[-1]
    values: dict[str, Any] = {}
    for period, offset in PERIODS.items():
        older = nav[nav.index <= last - offset]
        values[f"return_{period}"] = 100 * (nav.iloc[-1] / older.iloc[-1] - 1) if len(older) else None
    for window, years in WINDOW_YEARS.items():
        since = last - pd.DateOffset(years=years) if years else nav.index[0]
        older = nav[nav.index <= since]
        part = nav[nav.index >= (older.index[-1] if len(older) else nav.index[0])]
        returns = part.pct_change().dropna()
        excess = returns - DAILY_RISK_FREE
        falls = part / part.cummax() - 1
        trough = falls.idxmin()
        peak = part[:trough].iloc[::-1].idxmax()
        recovered = part[trough:][part[trough:] >= part[peak]]
        low = returns.quantile(0.05)
        index = closes.reindex(part.index).pct_change().iloc[1:]
        market = index - DAILY_RISK_FREE
        beta = excess.cov(market) / market.var()
        active = returns - index
        up, down = index > 0, index < 0
        found = {
            "cagr": 100 * ((part.iloc[-1] / part.iloc[0]) ** (365 / (last - part.index[0]).days) - 1),
            "downside_deviation": 100 * math.sqrt((excess.clip(upper=0) ** 2).mean()) * math.sqrt(k),
            "skewness": returns.skew(),
            "kurtosis": returns.kurt(),
            "best_day": 100 * returns.max(),
            "worst_day": 100 * returns.min(),
            "win_rate": 100 * (returns > 0).mean(),
            "days_under_water": ((recovered.index[0] if len(recovered) else last) - peak).days,
            "var_95": 100 * low if len(returns) >= 250 else None,
            "cvar_95": 100 * returns[returns <= low].mean() if len(returns) >= 250 else None,
            "beta": beta,
            "alpha": 100 * k * (excess.mean() - beta * market.mean()),
            "r_squared": excess.corr(market) ** 2,
            "tracking_error": 100 * active.std() * math.sqrt(k),
            "information_ratio": active.mean() * k / (active.std() * math.sqrt(k)),
            "up_capture": _capture(returns[up], index[up]),
            "down_capture": _capture(returns[down], index[down]),
        }
        values |= {f"{name}_{window}": value for name, value in found.items()}
    return {name: None if value is None else float(value) for name, value in values.items()}


def _capture(returns: pd.Series, index: pd.Series) -> float:
    power = PERIODS_PER_YEAR / len(returns)
    return float(100 * ((1 + returns).prod() ** power - 1) / ((1 + index).prod() ** power - 1))


def plan_loop(folder: Path, url: URL, sample: int, *, everything: bool) -> dict[str, Any]:
    """One query, one calculation and one committed INSERT a fund; `values`: what it found, by fund.

    The plan's six metrics, or `everything` that ours has, but for three dates.
    """
    days, unit, _, index = read_market(folder)
    closes = pd.Series(index, days)
    engine = create_engine(url)
    columns = [f"{metric}_{window}" for window in WINDOW_YEARS for metric in PLAN_METRICS]
    if everything:
        columns += [f"return_{period}" for period in PERIODS if period not in WINDOW_YEARS]
        columns += [f"{metric}_{window}" for window in WINDOW_YEARS for metric in PLAN_MORE]
    table = Table(
        "plan_metrics",
        MetaData(),
        Column("fund_code", String(6), primary_key=True),
        Column("calc_date", Date, primary_key=True),
        *(Column(name, Double()) for name in columns),
    )
    query = text("SELECT nav_date, unit_nav FROM fund_nav WHERE fund_code = :code ORDER BY nav_date")
    values: dict[str, dict[str, float | None]] = {}
    table.drop(engine, checkfirst=True)
    table.create(engine)

    def one(number: int) -> None:
        code = fund_code(number)
        with engine.connect() as connection:
            frame = pd.read_sql(query, connection, params={"code": code}, parse_dates=["nav_date"])
        values[code] = plan_metrics(frame) | (more_metrics(frame, closes) if everything else {})
        with engine.begin() as connection:
            row = {"fund_code": code, "calc_date": days[-1].date(), **values[code]}
            connection.execute(insert(table), row)

    found = each_timed(len(unit), sample, one)
    table.drop(engine)
    engine.dispose()
    return found | {"values": values}
