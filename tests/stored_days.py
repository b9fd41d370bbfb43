"""What is counted by date held against what is stored."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from core import db
from core.nav_days import COUNTED
from core.schema import fund_series, nav_day


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
            mine = fund_series.c.table_name == table.name
            names = ("fund_code", "row_count", "first_date", "last_date")
            kept = select(*(fund_series.c[name] for name in names)).where(mine)
            days = func.min(table.c.nav_date), func.max(table.c.nav_date)
            by_fund = select(table.c.fund_code, func.count(), *days).group_by(table.c.fund_code)
            found = connection.execute(kept.order_by(fund_series.c.fund_code)).all()
            assert found == connection.execute(by_fund.order_by(table.c.fund_code)).all()
