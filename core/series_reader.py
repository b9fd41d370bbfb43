"""Series out of the database as fast as it goes: fund, day and value of many rows as arrays."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import PIPE, Popen
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
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

from core.db import BUSY_TIMEOUT_MS, shown
from core.errors import DatabaseUnavailable
from core.schema import fund_nav, money_fund_yield

VALUE = {fund_nav.name: "unit_nav", money_fund_yield.name: "income_per_10k"}
FUNDS_A_QUERY = 500
FEW_ROWS = 200_000  # fewer are not worth another driver
UNIX_EPOCH = date(1970, 1, 1)
UNIX_EPOCH_JULIAN = 2440587.5
UNIX_EPOCH_DAYS = 719528  # as TO_DAYS counts
T = TypeVar("T")
SQLITE_ROWS = str(Path(__file__).with_name("sqlite_rows.py"))


class Rows(NamedTuple):
    """One entry a row, ordered by fund and day."""

    codes: NDArray[np.int32]
    days: NDArray[np.int32]  # since 1970-01-01
    values: NDArray[np.float64]  # NaN for null


class SpanReader:
    """Reads much at once, from several threads, through Arrow: no Python object for each value.

    For an engine that `has_fast_driver`. SQLite's rows come from processes of their own: see core.sqlite_rows.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.idle: SimpleQueue[Popen[bytes]] = SimpleQueue()
        self.started: list[Popen[bytes]] = []

    def read(self, table: Table, span: tuple[str, str], only: ColumnElement[bool] | None = None) -> Rows:
        """Every row of the funds from the first code to the last one, or `only` some. Raises DatabaseUnavailable."""
        query = _query(table, self.engine.dialect.name, only).where(table.c.fund_code.between(*span))
        text = str(query.compile(self.engine, compile_kwargs={"literal_binds": True}))
        return self._of_file(text) if self.engine.dialect.name == "sqlite" else self._of_server(text)

    def close(self) -> None:
        for process in self.started:
            with process:  # closes its pipes, and waits
                process.kill()

    def _of_file(self, text: str) -> Rows:
        try:
            process = self.idle.get_nowait()
        except Empty:
            process = self._start()
        asked, given = process.stdin, process.stdout
        if asked is None or given is None:
            raise TypeError("a process without pipes")
        try:
            asked.write(json.dumps(text).encode() + b"\n")
            asked.flush()
            count = int.from_bytes(_exactly(given, 8), "little", signed=True)
            if count < 0:
                raise DatabaseUnavailable(
                    f"database {shown(self.engine.url)}: {json.loads(given.readline())}"
                )
            codes, days = (np.frombuffer(_exactly(given, 4 * count), np.int32) for _ in range(2))
            values = np.frombuffer(_exactly(given, 8 * count), np.float64)
        except OSError as error:
            raise DatabaseUnavailable(
                f"database {shown(self.engine.url)}: its reader ended: {error}"
            ) from None
        self.idle.put(process)
        return Rows(codes, days, values)

    def _start(self) -> Popen[bytes]:
        command = [sys.executable, "-P", SQLITE_ROWS, str(self.engine.url.database), str(BUSY_TIMEOUT_MS)]
        process = Popen(command, stdin=PIPE, stdout=PIPE)
        self.started.append(process)
        return process

    def _of_server(self, text: str) -> Rows:
        import connectorx

        url = self.engine.url
        address = url.set(drivername="mysql").render_as_string(hide_password=False)
        try:
            found: Any = connectorx.read_sql(address, text, return_type="arrow")
        except RuntimeError:  # its text may hold the address with the password
            raise DatabaseUnavailable(f"database {shown(url)}: its series could not be read") from None
        codes, days, values = (found.column(name).to_numpy() for name in Rows._fields)
        return Rows(codes.astype(np.int32), days.astype(np.int32), values.astype(np.float64))


def _exactly(source: IO[bytes], size: int) -> bytearray:
    """The next bytes, writable. Raises OSError where there are fewer."""
    found = bytearray(size)
    view, place = memoryview(found), 0
    while place < size:
        count = source.readinto(view[place:])  # type: ignore[attr-defined]
        if not count:
            raise OSError("no more of an answer")
        place += count
    return found


def has_fast_driver(engine: Engine) -> bool:
    """Whether the address says nothing that only our usual driver understands."""
    url = engine.url
    return bool(url.database) and url.database != ":memory:" and not url.query


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
    wanted = {int(code): (day - UNIX_EPOCH).days for code, day in since}
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
    return Rows(*(np.concatenate(column) for column in zip(*parts, arrays([]), strict=True)))
