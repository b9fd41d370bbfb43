"""The series of all funds as they were known at an instant: what the metrics of a past night were made of.

Known is what core/nav_as_of.py says: a row with the decision on its first batch, a correction with its own, a
dividend or split with that on the batch that booked it. Between a decision and its commit lie seconds; who asks for
an instant between two nights need not mind.

Not on record, and so taken as it is today: events that were dropped since (they are missing), names and types of
funds, risk-free rates, the trading calendar, settings and thresholds. Of incomes, events and closes only the last
change has its time: one that was corrected since counts as known since the correction, and is left out before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, Select, Table, select

from core import db
from core.adjustment import factors
from core.fund_series import read_series
from core.nav_as_of import decided_later
from core.nav_mirror import TABLES, cut
from core.nav_store import plain
from core.ragged import Series, multiplied, ordered
from core.schema import fund_event, fund_nav, fund_nav_revision
from core.series_reader import (
    FEW_ROWS,
    Rows,
    SpanReader,
    arrays,
    as_numbers,
    has_fast_driver,
    parts,
    read_funds,
)


def series_as_of(
    engine: Engine, instant: datetime, fund_codes: Sequence[str] | None = None
) -> Iterator[tuple[Table, Series]]:
    """Adjusted NAVs, then incomes, of these funds or of all, as known at `instant`; some 1 M rows at a time.

    What became known at that very instant was known. Adjusted by the dividends and splits known then, at the ex-date's
    NAV of then. Raises ValueError for a naive instant, DatabaseUnavailable.
    """
    known = decided_later(instant)
    with closing(SpanReader(engine)) as reader:
        for table in TABLES:
            only = table.c.batch_id.not_in(known)  # of those: the newest version was known
            for codes, many in _portions(engine, table, fund_codes):
                if many:
                    rows = reader.read(table, (codes[0], codes[-1]), only)
                else:
                    with db.snapshot(engine) as connection:
                        rows = read_funds(connection, table, codes, only)
                if table is not fund_nav:
                    yield table, ordered(rows)
                    continue
                # Corrections are read after the rows: what is merged meanwhile has its old value among them.
                with db.snapshot(engine) as connection:
                    navs = ordered(_put_back(rows, _replaced_later(connection, instant, codes)))
                    _adjust(connection, navs, instant, codes)
                yield table, navs


def _portions(
    engine: Engine, table: Table, fund_codes: Sequence[str] | None
) -> Iterator[tuple[Sequence[str], bool]]:
    """Sorted codes, and whether they are so many rows that the fast driver is worth it."""
    if fund_codes is not None:
        yield sorted(set(fund_codes)), False
        return
    with db.read(engine) as connection:
        state = read_series(connection, table)
    for span in cut(table, state):
        rows = sum(row.row_count for row in span.state)
        yield [row.fund_code for row in span.state], has_fast_driver(engine) and rows >= FEW_ROWS


def _replaced_later(connection: Connection, instant: datetime, codes: Sequence[str]) -> Rows:
    """The NAVs that were known and corrected since, as they were before the first of those corrections."""
    revision = fund_nav_revision.c
    dialect = connection.dialect.name
    known = revision.old_batch_id.not_in(decided_later(instant))
    key = as_numbers(revision.fund_code, revision.nav_date, dialect)
    query = select(*key, plain(revision.old_unit_nav), known.label("known")).where(
        revision.known_at > instant
    )
    order = revision.fund_code, revision.nav_date, revision.known_at, revision.id
    rows = _rows(connection, query.order_by(*order), revision.fund_code, codes)
    first = [next(same) for _key, same in groupby(rows, key=itemgetter(0, 1))]
    return arrays([row[:3] for row in first if row.known])


def _rows(
    connection: Connection, query: Select[*tuple[Any, ...]], code: ColumnElement[str], codes: Sequence[str]
) -> list[Any]:
    return [row for part in parts(codes) for row in connection.execute(query.where(code.in_(part)))]


def _put_back(rows: Rows, old: Rows) -> Rows:
    """`rows` with these values in their place, or beside them where there is none; all ordered by fund and day."""
    at = np.zeros(len(old.codes), dtype=np.int64)
    for code in np.unique(old.codes).tolist():
        first, last = np.searchsorted(rows.codes, np.array([code, code + 1], dtype=np.int32)).tolist()
        mine = slice(*np.searchsorted(old.codes, np.array([code, code + 1], dtype=np.int32)).tolist())
        at[mine] = first + np.searchsorted(rows.days[first:last], old.days[mine])
    there = at < len(rows.codes)
    there[there] = rows.codes[at[there]] == old.codes[there]
    there[there] = rows.days[at[there]] == old.days[there]
    rows.values[at[there]] = old.values[there]
    if there.all():
        return rows
    place, fresh = at[~there], [column[~there] for column in old]
    return Rows(
        np.insert(rows.codes, place, fresh[0]),
        np.insert(rows.days, place, fresh[1]),
        np.insert(rows.values, place, fresh[2]),
    )


def _adjust(connection: Connection, navs: Series, instant: datetime, codes: Sequence[str]) -> None:
    """Unit NAVs times the factors of the events known then, in their place."""
    event = fund_event.c
    key = as_numbers(event.fund_code, event.ex_date, connection.dialect.name)
    query = select(*key, event.kind, plain(event.value)).where(
        event.evidence != "announced", event.batch_id.not_in(decided_later(instant))
    )
    events = _rows(connection, query.order_by(event.fund_code, event.ex_date), event.fund_code, codes)
    found: list[tuple[int, int, float]] = []
    for code, same in groupby(events, key=itemgetter(0)):
        at = int(np.searchsorted(navs.codes, code))
        if at == len(navs.codes) or navs.codes[at] != code:
            continue
        mine = slice(navs.offsets[at], navs.offsets[at + 1])
        days, booked = navs.days[mine], list(same)
        ex_dates = np.array([row[1] for row in booked], dtype=np.int32)
        place = np.searchsorted(days, ex_dates).clip(max=len(days) - 1)
        units, shown = navs.values[mine][place].tolist(), (days[place] == ex_dates).tolist()
        told = [
            (row[1], row[2], row[3], unit)
            for row, unit, is_shown in zip(booked, units, shown, strict=True)
            if is_shown
        ]
        found += [(code, each[0], each[2]) for each in factors(told)]
    if found:
        columns = zip(*found, strict=True)
        multiplied(
            navs, *(np.array(each, kind) for each, kind in zip(columns, ("i4", "i4", "f8"), strict=True))
        )
