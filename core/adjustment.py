"""Adjustment factors: what turns a unit NAV into an adjusted one (复权净值).

On an ex-date a share worth U held through a split s and a dividend D stands for (s*U + D)/U shares of
before; the product of these factors up to a date is adjusted NAV over unit NAV. One row an ex-date is
all there is to keep, and only funds whose events or ex-date NAVs changed are reckoned again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TypeVar

from sqlalchemy import Connection, and_, delete, insert, select

from core.fund_series import note_rewritten
from core.nav_store import plain
from core.schema import fund_adjustment, fund_event, fund_nav, fund_nav_revision

FUNDS_AT_ONCE = 500
Day = TypeVar("Day")


def recompute(connection: Connection, batch_id: int, dropped: Iterable[str] = ()) -> int:
    """Reckon anew the funds whose events this batch booked or whose ex-date NAVs it revised; how many.

    `dropped`: funds that lost an event.
    """
    booked = select(fund_event.c.fund_code).where(fund_event.c.batch_id == batch_id)
    revised = (
        select(fund_event.c.fund_code)
        .join(
            fund_nav_revision,
            and_(
                fund_nav_revision.c.fund_code == fund_event.c.fund_code,
                fund_nav_revision.c.nav_date == fund_event.c.ex_date,
            ),
        )
        .where(fund_nav_revision.c.new_batch_id == batch_id)
    )
    codes = {*connection.execute(booked).scalars(), *connection.execute(revised).scalars(), *dropped}
    recompute_funds(connection, sorted(codes))
    return len(codes)


def recompute_funds(connection: Connection, codes: list[str]) -> None:
    """Replace the factors of these funds. An event whose ex-date has no NAV yet waits for it."""
    note_rewritten(connection, codes)
    for start in range(0, len(codes), FUNDS_AT_ONCE):
        part = codes[start : start + FUNDS_AT_ONCE]
        connection.execute(delete(fund_adjustment).where(fund_adjustment.c.fund_code.in_(part)))
        event, nav = fund_event.c, fund_nav.c
        rows = connection.execute(
            select(event.fund_code, event.ex_date, event.kind, plain(event.value), plain(nav.unit_nav))
            .join(fund_nav, and_(nav.fund_code == event.fund_code, nav.nav_date == event.ex_date))
            .where(event.fund_code.in_(part), event.evidence != "announced")
            .order_by(event.fund_code, event.ex_date)
        ).all()
        found = []
        for code, events in groupby(rows, key=lambda row: row.fund_code):
            for day, factor, cumulative in factors(row[1:] for row in events):
                found.append({"fund_code": code, "ex_date": day, "factor": factor, "cumulative": cumulative})
        if found:
            connection.execute(insert(fund_adjustment), found)


def factors(events: Iterable[tuple[Day, str, float, float]]) -> Iterator[tuple[Day, float, float]]:
    """By ex-date its factor and the product of all up to it, out of one fund's events.

    `events`: ex-date, kind, value and the unit NAV of that date, ordered by date.
    """
    cumulative = 1.0
    for day, same in groupby(events, key=lambda event: event[0]):
        split, dividend, unit = 1.0, 0.0, 1.0
        for _day, kind, value, nav in same:
            unit = nav
            if kind == "split":
                split = value
            else:
                dividend = value
        factor = (split * unit + dividend) / unit
        cumulative *= factor
        yield day, factor, cumulative
