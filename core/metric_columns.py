"""The names of the metrics: what the formulas give and the table holds. Formulas: metrics.py."""

from __future__ import annotations

PERIOD_MONTHS = {"1m": 1, "3m": 3, "6m": 6, "1y": 12, "2y": 24, "3y": 36, "5y": 60}
PERIODS = ("1w", *PERIOD_MONTHS, "ytd", "inception")
WINDOWS = ("1y", "3y", "inception")
WINDOW_METRICS = (
    "cagr",
    "volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "max_drawdown_peak",
    "max_drawdown_trough",
    "max_drawdown_recovery",
    "calmar",
)
DATE_METRICS = ("max_drawdown_peak", "max_drawdown_trough", "max_drawdown_recovery")
COLUMNS: tuple[str, ...] = (
    *(f"return_{period}" for period in PERIODS),
    *(f"{metric}_{window}" for window in WINDOWS for metric in WINDOW_METRICS),
)
