"""`main.py export`: NAVs, metrics or ranks as a CSV or Parquet file.

Rows come from the database and go into the file a portion at a time: the whole market takes no more memory
than one fund. The file appears whole, in the place of an older one, or not at all.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Date,
    Double,
    Engine,
    FromClause,
    Integer,
    Numeric,
    Select,
    String,
    Table,
    and_,
    cast,
    func,
    null,
    select,
)
from sqlalchemy.engine import URL

from core import db
from core.errors import NavKeeperError, NotReady, UsageError
from core.metric_columns import COLUMNS
from core.metrics_store import calc_dates
from core.rank_columns import COMPONENT_COLUMNS, RANK_COLUMNS
from core.schema import (
    fund_adjustment,
    fund_info,
    fund_metrics,
    fund_nav,
    fund_rank,
    fund_score,
    money_fund_yield,
)
from scheduler.nav_listing import fund_named

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("nav", "metrics", "rank")
VALUES_A_PORTION = 400_000
KEY = ("fund_code", "calc_date", "definition_version")
NAV_COLUMNS = (  # as `main.py nav --source FILE` reads them
    *("fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return"),
    *("income_per_10k", "yield_7d"),
)
ADJUSTED = "adjusted_nav"
Columns = list[Column[Any]]
Factors = dict[str, tuple["NDArray[np.datetime64]", "NDArray[np.float64]"]]


@dataclass(frozen=True)
class Export:
    """What is asked for. `start` and `end` are NAV dates, or the dates that metrics were calculated for."""

    kind: str
    path: Path
    form: str
    start: date | None = None
    end: date | None = None
    funds: tuple[str, ...] = ()
    adjusted: bool = False
    force: bool = False


def reader(url: URL) -> Engine:
    """An engine for long reading: one view for all statements, and no limit to how long a portion takes."""
    engine = db.connect(url)
    sqlite = url.get_backend_name() == "sqlite"  # there every transaction is one view
    return engine if sqlite else engine.execution_options(isolation_level="REPEATABLE READ")


def export(engine: Engine, wanted: Export) -> int:
    """Write the file; returns its number of rows.

    Metrics and ranks without a date: of the newest. Raises UsageError for a fund that is not known, a path
    that is no place for a file or is taken (unless `force`), NotReady where there is no row, NavKeeperError
    where it cannot be written.
    """
    _refuse_path(wanted)
    with db.read(engine) as connection:
        for code in wanted.funds:
            fund_named(connection, code)
        columns, queries = _navs(wanted) if wanted.kind == "nav" else _measured(connection, wanted)
        factors = _factors(connection, wanted) if wanted.adjusted else None
        with _appearing(wanted) as file:
            count = _write(connection, columns, queries, factors, wanted.form, file)
            if not count:
                raise NotReady(f"nothing is stored of what was asked for; {wanted.path} was not written")
    return count


def _refuse_path(wanted: Export) -> None:
    path = wanted.path
    if path.exists() and not path.is_file():
        raise UsageError(f"--out {path} is no file")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}")
    if path.exists() and not wanted.force:
        raise UsageError(f"--out {path} is there already; --force replaces it")


@contextmanager
def _appearing(wanted: Export) -> Iterator[IO[bytes]]:
    """A file beside the path that takes its place at the end; of a failure nothing is left."""
    path = wanted.path
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _refuse_path(wanted)  # somebody else may have been faster
        fresh.replace(path)
    except OSError as error:
        raise NavKeeperError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        fresh.unlink(missing_ok=True)


def _navs(wanted: Export) -> tuple[Columns, list[Select[Any]]]:
    """NAVs by fund and date, then the incomes of money funds, in the same columns."""
    both = {column.name: column for column in (*money_fund_yield.c, *fund_nav.c)}
    found = []
    for table in (fund_nav, money_fund_yield):
        chosen = [_read(table.c[name]) if name in table.c else null().label(name) for name in NAV_COLUMNS]
        mine = _within(wanted, table.c.fund_code, table.c.nav_date)
        found.append(select(*chosen).where(*mine).order_by(table.c.fund_code, table.c.nav_date))
    return [both[name] for name in NAV_COLUMNS], found


def _within(wanted: Export, code: Column[Any], day: Column[Any]) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.funds:
        found.append(code.in_(wanted.funds))
    if wanted.start is not None:
        found.append(day >= wanted.start)
    if wanted.end is not None:
        found.append(day <= wanted.end)
    return found


def measured(kind: str) -> tuple[Table, FromClause, Columns]:
    """fund_metrics, or fund_rank with fund_score, each fund's name and type beside its row; and what is given out."""
    table = fund_metrics if kind == "metrics" else fund_rank
    joined = table.outerjoin(fund_info, fund_info.c.fund_code == table.c.fund_code)
    columns = [table.c.fund_code, fund_info.c.fund_name, fund_info.c.fund_type]
    columns += [table.c[name] for name in KEY[1:]]
    if kind == "metrics":
        columns += [table.c[name] for name in ("nav_date", "nav_count", *COLUMNS)]
    else:
        joined = joined.outerjoin(fund_score, and_(*(fund_score.c[name] == table.c[name] for name in KEY)))
        columns += [table.c[name] for name in RANK_COLUMNS]
        columns += [fund_score.c[name] for name in ("score", "level", *COMPONENT_COLUMNS)]
    return table, joined, columns


def _measured(connection: Connection, wanted: Export) -> tuple[Columns, list[Select[Any]]]:
    table, joined, columns = measured(wanted.kind)
    mine = _within(wanted, table.c.fund_code, table.c.calc_date)
    if wanted.start is None and wanted.end is None:
        mine.append(table.c.calc_date == connection.scalar(select(func.max(table.c.calc_date))))
    elif wanted.funds:  # the tables are ordered by date first: all dates named, it is a look for each
        mine.append(table.c.calc_date.in_([*calc_dates(connection, table)]))
    query = select(*map(_read, columns)).select_from(joined).where(*mine)
    return columns, [query.order_by(*(table.c[name] for name in KEY))]


def _read(column: Column[Any]) -> ColumnElement[Any]:
    """Dates as ISO text, decimals as floats: the drivers build those many times faster."""
    if isinstance(column.type, Date):
        return cast(column, String(10)).label(column.name)
    return cast(column, Double).label(column.name) if isinstance(column.type, Numeric) else column


def _factors(connection: Connection, wanted: Export) -> Factors:
    """By fund: its ex-dates, and what its unit NAV is multiplied with from each on."""
    row = fund_adjustment.c
    query = select(row.fund_code, cast(row.ex_date, String(10)), row.cumulative)
    if wanted.funds:
        query = query.where(row.fund_code.in_(wanted.funds))
    by_fund: dict[str, tuple[list[str], list[float]]] = {}
    for code, ex_date, cumulative in connection.execute(query.order_by(row.fund_code, row.ex_date)):
        dates, values = by_fund.setdefault(code, ([], []))
        dates.append(ex_date)
        values.append(cumulative)
    return {
        code: (np.array(dates, dtype="datetime64[D]"), np.array([1.0, *values]))
        for code, (dates, values) in by_fund.items()
    }


def _write(
    connection: Connection,
    columns: Columns,
    queries: Sequence[Select[Any]],
    factors: Factors | None,
    form: str,
    file: IO[bytes],
) -> int:
    """The rows of these queries, which all have `columns`, one after the other; how many they are."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    fields = [(column.name, _arrow_type(column)) for column in columns]
    schema = pa.schema([*fields, *([(ADJUSTED, pa.float64())] if factors is not None else [])])
    size = VALUES_A_PORTION // len(schema)
    count = 0
    if form == "parquet":
        writer: Any = parquet.ParquetWriter(file, schema)
    else:
        writer = csv.CSVWriter(file, schema)
    with writer:
        for query in queries:
            for part in connection.execute(query, execution_options={"yield_per": size}).partitions():
                values: list[Any] = list(zip(*part, strict=True))
                if factors is not None:
                    values.append(_adjusted(values, factors))
                arrays = [_array(column, field.type) for column, field in zip(values, schema, strict=True)]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
                count += len(part)
    return count


def _arrow_type(column: Column[Any]) -> Any:
    import pyarrow as pa

    if isinstance(column.type, Date):
        return pa.date32()
    if isinstance(column.type, Integer):
        return pa.int32()
    return pa.float64() if isinstance(column.type, Numeric | Double) else pa.string()


def _array(values: Sequence[Any], kind: Any) -> Any:
    """Values as `_read` gives them."""
    import pyarrow as pa

    return pa.array(values, pa.string()).cast(kind) if kind == pa.date32() else pa.array(values, kind)


def _adjusted(values: Sequence[Sequence[Any]], factors: Mapping[str, Any]) -> list[float | None]:
    """Adjusted NAVs of rows in the order of NAV_COLUMNS, sorted by fund; None where there is no NAV."""
    codes, days, units = values[:3]
    adjusted = list(units)
    for code in dict.fromkeys(codes):
        if code not in factors:
            continue
        rows = slice(bisect_left(codes, code), bisect_right(codes, code))
        ex_dates, cumulative = factors[code]
        at = np.searchsorted(ex_dates, np.array(days[rows], dtype="datetime64[D]"), side="right")
        known = zip(units[rows], cumulative[at].tolist(), strict=True)
        adjusted[rows] = [None if unit is None else unit * factor for unit, factor in known]
    return adjusted
