"""ranks within the fund's type, scores, the risk-free rate by date"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

RANKED = (
    "return_1w",
    "return_1m",
    "return_3m",
    "return_6m",
    "return_1y",
    "return_2y",
    "return_3y",
    "return_5y",
    "return_ytd",
    "return_inception",
    "sharpe_1y",
    "sharpe_3y",
    "sharpe_inception",
    "max_drawdown_1y",
    "max_drawdown_3y",
    "max_drawdown_inception",
    "calmar_1y",
    "calmar_3y",
    "calmar_inception",
)
COMPONENTS = (
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
TABLE: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB", "sqlite_with_rowid": False}


def key() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("fund_code", sa.CHAR(length=6), nullable=False),
        sa.Column("calc_date", sa.Date(), nullable=False),
        sa.Column("definition_version", sa.String(length=8), nullable=False),
    )


def ranks(metric: str) -> tuple[sa.Column[Any], ...]:
    rank, peers = f"rank_{metric}", f"peers_{metric}"
    percentile = f"round(1e2 * ({peers} - {rank}) / ({peers} - 1), 4)"
    quartile = f"1 + (4 * {rank} > {peers}) + (2 * {rank} > {peers}) + (4 * {rank} > 3 * {peers})"
    return (
        sa.Column(rank, sa.Integer(), nullable=True),
        sa.Column(peers, sa.Integer(), nullable=True),
        sa.Column(
            f"percentile_{metric}", sa.Double(), sa.Computed(percentile, persisted=False), nullable=True
        ),
        sa.Column(f"quartile_{metric}", sa.Integer(), sa.Computed(quartile, persisted=False), nullable=True),
    )


def components() -> tuple[sa.Column[Any], ...]:
    comment = "percentile among its type"
    return tuple(
        sa.Column(f"points_{metric}", sa.Double(), nullable=True, comment=comment) for metric in COMPONENTS
    )


def upgrade() -> None:
    names = ("fund_code", "calc_date", "definition_version")
    op.create_table(
        "fund_rank",
        *key(),
        *(column for metric in RANKED for column in ranks(metric)),
        sa.PrimaryKeyConstraint(*names, name=op.f("pk_fund_rank")),
        **TABLE,
    )
    op.create_index(op.f("ix_fund_rank_calc_date"), "fund_rank", ["calc_date"], unique=False)
    op.create_table(
        "fund_score",
        *key(),
        sa.Column("score", sa.Double(), nullable=True, comment="0 to 100; null where too little is known"),
        sa.Column("level", sa.String(length=1), nullable=True, comment="S, A, B, C or D"),
        sa.Column("known_count", sa.SmallInteger(), nullable=False, comment="components that are known"),
        *components(),
        sa.PrimaryKeyConstraint(*names, name=op.f("pk_fund_score")),
        **TABLE,
    )
    op.create_index(op.f("ix_fund_score_calc_date"), "fund_score", ["calc_date"], unique=False)
    op.create_table(
        "risk_free_rate",
        sa.Column("effective_from", sa.Date(), nullable=False, comment="the first day it holds for"),
        sa.Column("rate", sa.Double(), nullable=False, comment="a year, as a fraction"),
        sa.Column("note", sa.String(length=200), nullable=True),
        sa.CheckConstraint("rate > -1", name=op.f("ck_risk_free_rate_possible")),
        sa.PrimaryKeyConstraint("effective_from", name=op.f("pk_risk_free_rate")),
        **TABLE,
    )
