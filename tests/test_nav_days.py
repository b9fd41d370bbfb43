"""Rows by date: counted as they are merged, whatever way they came in."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Engine, insert, select

from core import db, nav_days
from core.schema import fund_nav, money_fund_yield, nav_day

MON, TUE, WED = date(2025, 12, 1), date(2025, 12, 2), date(2025, 12, 3)


def test_dates_are_added_up_by_table(engine: Engine) -> None:
    with db.write(engine) as connection:
        assert nav_days.newest_date(connection, fund_nav) is None
        assert nav_days.row_count(connection, fund_nav) == 0
        nav_days.add_rows(connection, fund_nav, {})
        nav_days.add_rows(connection, fund_nav, {MON: 3, WED: 1})
        nav_days.add_rows(connection, fund_nav, {TUE: 4, WED: 2})
        nav_days.add_rows(connection, money_fund_yield, {TUE: 9})
        assert [nav_days.row_count(connection, fund_nav, day) for day in (MON, TUE, WED)] == [3, 4, 3]
        assert nav_days.row_count(connection, fund_nav) == 10
        assert nav_days.newest_date(connection, fund_nav) == WED
        assert nav_days.newest_date(connection, fund_nav, before=WED) == TUE
        assert nav_days.newest_date(connection, fund_nav, before=MON) is None
        assert nav_days.newest_date(connection, money_fund_yield) == TUE


def test_what_other_hands_changed_is_counted_anew(engine: Engine) -> None:
    with db.write(engine) as connection:
        nav_days.add_rows(connection, fund_nav, {MON: 2, TUE: 7})
        rows = [("000001", MON), ("000002", MON), ("000001", WED)]
        records = [{"fund_code": code, "nav_date": day, "unit_nav": 1, "batch_id": 1} for code, day in rows]
        connection.execute(insert(fund_nav), records)
        assert nav_days.recount(connection) == {"fund_nav": 2, "money_fund_yield": 0}
        assert connection.execute(select(nav_day)).all() == [("fund_nav", MON, 2), ("fund_nav", WED, 1)]
        assert nav_days.recount(connection) == {"fund_nav": 0, "money_fund_yield": 0}
