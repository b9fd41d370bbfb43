"""metrics, ranks and scores by date first: a night's rows lie together, however many nights there are"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = ("fund_metrics", "fund_rank", "fund_score")
KEY = ("calc_date", "fund_code", "definition_version")


def upgrade() -> None:
    for table in TABLES:
        op.drop_index(op.f(f"ix_{table}_calc_date"), table)
        if op.get_bind().dialect.name == "sqlite":
            _rebuild(table)
        else:
            op.drop_constraint(op.f(f"pk_{table}"), table, type_="primary")
            op.create_primary_key(op.f(f"pk_{table}"), table, list(KEY))


def _rebuild(table: str) -> None:
    """The rows go over in the order of the new key."""
    bind = op.get_bind()
    old = sa.Table(table, sa.MetaData(), autoload_with=bind, resolve_fks=False)
    columns = [
        sa.Column(
            column.name,
            column.type,
            *([sa.Computed(column.computed.sqltext, persisted=False)] if column.computed is not None else []),
            nullable=column.nullable,
        )
        for column in old.columns
    ]
    key = sa.PrimaryKeyConstraint(*KEY, name=op.f(f"pk_{table}"))
    fresh = op.create_table(f"{table}_by_date", *columns, key, sqlite_with_rowid=False)
    given = [column.name for column in columns if column.computed is None]
    rows = sa.select(*(old.c[name] for name in given)).order_by(*(old.c[name] for name in KEY))
    bind.execute(sa.insert(fresh).from_select(given, rows))
    op.drop_table(table)
    op.rename_table(f"{table}_by_date", table)
