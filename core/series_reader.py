"""Series out of the database as fast as it goes: fund, day and value of many rows as arrays."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Integer,
    Select,
    Table,
    and_,
    cast,
    func,
    select,
)

from core import db
from core.db import BUSY_TIMEOUT_MS, shown
from core.errors import DatabaseUnavailable
from core.nav_frames import EPOCH
from core.schema import fund_nav, fund_series, money_fund_yield

VALUE = {fund_nav.name: "unit_nav", money_fund_yield.name: "income_per_10k"}
FUNDS_A_QUERY = 500
FEW_ROWS = 200_000  # fewer are not worth another driver
ROWS_A_PART = 1_000_000
UNIX_EPOCH_JULIAN = 2440587.5
UNIX_EPOCH_DAYS = 719528  # as TO_DAYS counts
T = TypeVar("T")
_one_opens = threading.Lock()  # two that open a file at once find it locked


class Rows(NamedTuple):
    """One entry a row, ordered by fund and day."""

    codes: NDArray[np.int32]
    days: NDArray[np.int32]  # since 1970-01-01
    values: NDArray[np.float64]  # NaN for null


def read_all(engine: Engine, table: Table, only: ColumnElement[bool] | None = None) -> Rows:
    """Every row of the table (`only` some), two parts at once; not one consistent view where others merge meanwhile.

    Raises DatabaseUnavailable.
    """
    with db.read(engine) as connection:
        series = fund_series.c
        counts = select(series.fund_code, series.row_count).where(series.table_name == table.name)
        funds = connection.execute(counts.order_by(series.fund_code)).all()
        query = _query(table, engine.dialect.name, only)
        if sum(count for _code, count in funds) < FEW_ROWS or not _has_fast_driver(engine):
            return _joined([arrays(connection.execute(query).all())])
    queries = [query.where(table.c.fund_code.between(*span)) for span in _spans(funds)]
    with ThreadPoolExecutor(2, thread_name_prefix="read") as pool:
        return _joined(list(pool.map(lambda part: _fetch(engine, part), queries)))


def _spans(funds: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """First and last code of parts of about ROWS_A_PART rows: what the drivers hand over is twice our arrays."""
    first, rows = funds[0][0], 0
    for code, count in funds:
        rows += count
        if rows >= ROWS_A_PART:
            yield first, code
            first, rows = f"{int(code) + 1:06d}", 0
    if rows:
        yield first, funds[-1][0]


def read_funds(
    connection: Connection, table: Table, codes: Sequence[str], only: ColumnElement[bool] | None = None
) -> Rows:
    """Every row of these funds (sorted codes), or `only` some of them."""
    query = _query(table, connection.dialect.name, only)
    return _joined(
        [arrays(connection.execute(query.where(_any_of(table, part))).all()) for part in parts(codes)]
    )


def read_later(connection: Connection, table: Table, since: Sequence[tuple[str, date]]) -> Rows:
    """The rows of each fund that are later than its date."""
    wanted = {int(code): day.toordinal() - EPOCH for code, day in since}
    found = []
    # Funds with dates alike are asked for together, so that a dormant fund drags in no history of the others.
    for part in parts(sorted(since, key=lambda item: (item[1], item[0]))):
        later = and_(_any_of(table, [code for code, _day in part]), table.c.nav_date > part[0][1])
        rows = connection.execute(_query(table, connection.dialect.name).where(later)).all()
        found.append(arrays([row for row in rows if row[1] > wanted[row[0]]]))
    rows_found = _joined(found)
    order = np.lexsort((rows_found.days, rows_found.codes))
    return Rows(rows_found.codes[order], rows_found.days[order], rows_found.values[order])


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many as one query may name."""
    for start in range(0, len(items), FUNDS_A_QUERY):
        yield items[start : start + FUNDS_A_QUERY]


def _any_of(table: Table, codes: Sequence[str]) -> ColumnElement[bool]:
    return table.c.fund_code.in_(codes)


def _query(table: Table, dialect: str, only: ColumnElement[bool] | None = None) -> Select[Any]:
    code, day = table.c.fund_code, table.c.nav_date
    columns = *as_numbers(code, day, dialect), cast(table.c[VALUE[table.name]], Double)
    query = select(*(column.label(name) for column, name in zip(columns, Rows._fields, strict=True)))
    return (query if only is None else query.where(only)).order_by(code, day)


def as_numbers(code: Column[Any], day: Column[Any], dialect: str) -> tuple[ColumnElement[int], ...]:
    """Code and day as numbers, which the drivers hand over many times faster than texts and dates."""
    number: ColumnElement[int] = (
        cast(func.julianday(day) - UNIX_EPOCH_JULIAN, Integer)
        if dialect == "sqlite"
        else func.to_days(day) - UNIX_EPOCH_DAYS
    )
    return cast(code, Integer), number


def arrays(rows: Sequence[Any]) -> Rows:
    """Code, day and value of each row."""
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return Rows(
        np.array(columns[0], dtype=np.int32),
        np.array(columns[1], dtype=np.int32),
        np.array(columns[2], dtype=np.float64),
    )


def _joined(parts: list[Rows]) -> Rows:
    """One after the other; each part is let go as it is copied, so that no two copies of all are there at once."""
    total = sum(len(part.codes) for part in parts)
    whole = Rows(np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float64))
    place = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        mine = slice(place, place + len(part.codes))
        whole.codes[mine], whole.days[mine], whole.values[mine] = part
        place = mine.stop
    return whole


def _has_fast_driver(engine: Engine) -> bool:
    """Whether the address says nothing that only our usual driver understands."""
    url = engine.url
    return bool(url.database) and url.database != ":memory:" and not url.query


def _fetch(engine: Engine, query: Select[Any]) -> Rows:
    """The rows through Arrow, without a Python object for each value."""
    text = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
    sqlite = engine.dialect.name == "sqlite"
    table = _fetch_sqlite(engine.url, text) if sqlite else _fetch_mysql(engine.url, text)
    codes, days, values = (table.column(name).to_numpy() for name in Rows._fields)
    return Rows(codes.astype(np.int32), days.astype(np.int32), values.astype(np.float64))


def _fetch_sqlite(url: URL, text: str) -> Any:
    from adbc_driver_sqlite import dbapi

    try:
        with _one_opens:
            connection = dbapi.connect(url.database, autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            cursor.execute(text)
            return cursor.fetch_arrow_table()
    except dbapi.Error as error:
        raise DatabaseUnavailable(f"database {shown(url)}: {error}") from None


def _fetch_mysql(url: URL, text: str) -> Any:
    import connectorx

    address = url.set(drivername="mysql").render_as_string(hide_password=False)
    try:
        return connectorx.read_sql(address, text, return_type="arrow")
    except RuntimeError:  # its text may hold the address with the password
        raise DatabaseUnavailable(f"database {shown(url)}: its series could not be read") from None
