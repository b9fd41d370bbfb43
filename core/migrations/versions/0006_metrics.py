"""fund_metrics: the tail, the shape, the days and the benchmark beside the figures there were"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ADDED = (
    "downside_deviation",
    "days_under_water",
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


def upgrade() -> None:
    with op.batch_alter_table("fund_metrics", schema=None) as batch_op:
        for window in ("1y", "3y", "inception"):
            for name in ADDED:
                batch_op.add_column(sa.Column(f"{name}_{window}", sa.Double(), nullable=True))
