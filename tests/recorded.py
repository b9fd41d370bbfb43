"""Parts of the recorded market, and what a database should hold of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import ColumnElement, Engine, Table, select

from bench.backfill import Key, plain
from core import db
from core.schema import fund_nav, quarantine

COLUMNS = ["fund_code", "nav_date", "unit_nav", "accum_nav"]


def part_of(
    data: Path,
    target: Path,
    *,
    funds: int | None = None,
    since: date | None = None,
    until: date | None = None,
) -> Path:
    """A parquet file with some of the recording: every n-th fund, or some dates of all."""
    table = pq.read_table(data / "nav_history.parquet")
    if funds is not None:
        codes = sorted(set(table["fund_code"].to_pylist()))
        table = table.filter(pc.is_in(table["fund_code"], pa.array(codes[:: len(codes) // funds])))
    if since is not None:
        table = table.filter(pc.greater_equal(table["nav_date"], since.isoformat()))
    if until is not None:
        table = table.filter(pc.less_equal(table["nav_date"], until.isoformat()))
    pq.write_table(table, target)
    return target


def recorded_rows(path: Path, until: date | None = None) -> Iterator[Key]:
    rows = pq.read_table(path, columns=COLUMNS).to_pydict()
    for code, day, unit, accum in zip(*(rows[name] for name in COLUMNS), strict=True):
        if until is None or day <= until.isoformat():
            yield code, day, plain(unit), plain(accum)


def merged_rows(engine: Engine) -> set[Key]:
    return _rows(engine, fund_nav)


def quarantined_rows(engine: Engine) -> set[Key]:
    """Rows that are held still: what was released since is merged."""
    return _rows(engine, quarantine, quarantine.c.resolution.is_distinct_from("RELEASED"))


def _rows(engine: Engine, table: Table, *where: ColumnElement[bool]) -> set[Key]:
    columns = (table.c[name] for name in COLUMNS)
    with db.read(engine) as connection:
        return {
            (code, day.isoformat(), plain(unit), plain(accum))
            for code, day, unit, accum in connection.execute(select(*columns).where(*where))
        }
