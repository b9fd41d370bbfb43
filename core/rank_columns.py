"""The names of ranks and scores: what is ranked, which way, and what the tables hold."""

from __future__ import annotations

from core.metric_columns import PERIODS, WINDOWS

RANKED: tuple[str, ...] = (
    *(f"return_{period}" for period in PERIODS),
    *(f"{metric}_{window}" for metric in ("sharpe", "max_drawdown", "calmar") for window in WINDOWS),
)
# A fall is a negative percentage, so the greater one is the smaller fall.
LOWER_IS_BETTER = frozenset(
    {"volatility", "downside_deviation", "days_under_water", "tracking_error", "down_capture"}
)
PARTS = ("rank", "peers", "percentile", "quartile")  # of each metric that is ranked
RANK_COLUMNS: tuple[str, ...] = tuple(f"{part}_{metric}" for metric in RANKED for part in PARTS)
# What the database works out of rank and peers when they are read, as core.ranking does; the others it keeps.
WORKED_OUT = {
    "percentile": "round(1e2 * ({peers} - {rank}) / ({peers} - 1), 4)",
    "quartile": "1 + (4 * {rank} > {peers}) + (2 * {rank} > {peers}) + (4 * {rank} > 3 * {peers})",
}
KEPT_COLUMNS: tuple[str, ...] = tuple(
    f"{part}_{metric}" for metric in RANKED for part in PARTS if part not in WORKED_OUT
)
COMPONENTS = (  # of the score: metrics
    "return_1y",
    "return_3y",
    "sharpe_1y",
    "sharpe_3y",
    "max_drawdown_1y",
    "max_drawdown_3y",
    "calmar_3y",
    "volatility_1y",
    "win_rate_1y",
)
COMPONENT_COLUMNS: tuple[str, ...] = tuple(f"points_{metric}" for metric in COMPONENTS)
LEVELS = ("S", "A", "B", "C", "D")  # best first


def lower_is_better(metric: str) -> bool:
    """Whether the smaller value of a column of core.metric_columns is the better one."""
    return metric.rpartition("_")[0] in LOWER_IS_BETTER


def worked_out(column: str) -> str | None:
    """The SQL, of every dialect, by which one of RANK_COLUMNS follows from two others; None for one that is kept."""
    part, _, metric = column.partition("_")
    if part not in WORKED_OUT:
        return None
    return WORKED_OUT[part].format(rank=f"rank_{metric}", peers=f"peers_{metric}")
