"""What is counted by date held against what is stored."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from core import db
from core.nav_days import COUNTED
from core.schema import nav_day


def require_counted(engine: Engine) -> None:
    """What is counted by date is what is stored."""
    with db.read(engine) as connection:
        for table in COUNTED:
            stored = connection.execute(
                select(table.c.nav_date, func.count()).group_by(table.c.nav_date).order_by(table.c.nav_date)
            )
            counted = select(nav_day.c.nav_date, nav_day.c.row_count).where(
                nav_day.c.table_name == table.name
            )
            assert stored.all() == connection.execute(counted.order_by(nav_day.c.nav_date)).all()
