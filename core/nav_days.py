"""How many rows each date has in fund_nav and money_fund_yield, counted as they are merged.

Those tables are ordered by fund. An index of theirs by date would be half of what a merge costs, to answer
questions that one small table answers: the newest date, and how many funds have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update

from core.schema import fund_nav, money_fund_yield, nav_day

COUNTED = (fund_nav, money_fund_yield)


def add_rows(connection: Connection, table: Table, counts: Mapping[date, int]) -> None:
    """Count rows that this transaction inserts: how many of each date. The caller holds the merge lock."""
    if not counts:
        return
    mine = nav_day.c.table_name == table.name
    within = nav_day.c.nav_date.between(min(counts), max(counts))
    known = set(connection.execute(select(nav_day.c.nav_date).where(mine, within)).scalars())
    more = [{"day": day, "more": count} for day, count in counts.items() if day in known]
    if more:
        of_day = nav_day.c.nav_date == bindparam("day")
        total = {"row_count": nav_day.c.row_count + bindparam("more")}
        connection.execute(update(nav_day).where(mine, of_day).values(total), more)
    fresh = [
        {"table_name": table.name, "nav_date": day, "row_count": count}
        for day, count in counts.items()
        if day not in known
    ]
    if fresh:
        connection.execute(insert(nav_day), fresh)


def recount(connection: Connection) -> dict[str, int]:
    """Count all rows anew, in case they were changed by other hands; returns by table on how many dates.

    Reads every row. The caller holds the merge lock.
    """
    differing = {}
    for table in COUNTED:
        mine = nav_day.c.table_name == table.name
        counts = select(table.c.nav_date, func.count()).group_by(table.c.nav_date)
        found: dict[date, int] = dict(connection.execute(counts).all())
        known = dict(connection.execute(select(nav_day.c.nav_date, nav_day.c.row_count).where(mine)).all())
        wrong = {day for day in found | known if found.get(day) != known.get(day)}
        differing[table.name] = len(wrong)
        if wrong:
            connection.execute(delete(nav_day).where(mine))
            add_rows(connection, table, found)
    return differing


def row_count(connection: Connection, table: Table, day: date | None = None) -> int:
    """Rows of a date, one a fund; of all dates without one."""
    total = select(func.sum(nav_day.c.row_count)).where(nav_day.c.table_name == table.name)
    found = connection.scalar(total if day is None else total.where(nav_day.c.nav_date == day))
    return int(found or 0)


def newest_date(connection: Connection, table: Table, before: date | None = None) -> date | None:
    """The newest date that any fund has a row of, or the newest one before a date."""
    newest = select(func.max(nav_day.c.nav_date)).where(nav_day.c.table_name == table.name)
    found: date | None = connection.scalar(
        newest if before is None else newest.where(nav_day.c.nav_date < before)
    )
    return found
