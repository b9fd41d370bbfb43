"""The names of the metrics: what the formulas give and the table holds. Formulas: metrics.py."""

from __future__ import annotations

PERIOD_MONTHS = {"1m": 1, "3m": 3, "6m": 6, "1y": 12, "2y": 24, "3y": 36, "5y": 60}
PERIODS = ("1w", *PERIOD_MONTHS, "ytd", "inception")
WINDOWS = ("1y", "3y", "inception")
WINDOW_METRICS = (
    "cagr",
    "volatility",
    "downside_deviation",
    "sharpe",
    "sortino",
    "max_drawdown",
    "max_drawdown_peak",
    "max_drawdown_trough",
    "max_drawdown_recovery",
    "days_under_water",
    "calmar",
    "var_95",
    "cvar_95",
    "skewness",
    "kurtosis",
    "best_day",
    "worst_day",
    "win_rate",
    "beta",
    "alpha",
    "r_squared",
    "tracking_error",
    "information_ratio",
    "up_capture",
    "down_capture",
)
DATE_METRICS = ("max_drawdown_peak", "max_drawdown_trough", "max_drawdown_recovery")
DAY_METRICS = ("days_under_water",)
# The other metrics are plain numbers; the returns of PERIODS are in percent too.
PERCENT_METRICS = (
    "cagr",
    "volatility",
    "downside_deviation",
    "max_drawdown",
    "var_95",
    "cvar_95",
    "best_day",
    "worst_day",
    "win_rate",
    "alpha",
    "tracking_error",
    "up_capture",
    "down_capture",
)
# Null without a benchmark.
BENCHMARK_METRICS = (
    "beta",
    "alpha",
    "r_squared",
    "tracking_error",
    "information_ratio",
    "up_capture",
    "down_capture",
)
COLUMNS: tuple[str, ...] = (
    *(f"return_{period}" for period in PERIODS),
    *(f"{metric}_{window}" for window in WINDOWS for metric in WINDOW_METRICS),
)
