"""Closes of benchmark indices: kept as published, a corrected one in the place of the old."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from core.errors import SourceChanged, UsageError
from core.schema import benchmark_index
from core.sources.base import IndexClose
from core.sources.text_values import FieldError, is_fund_code, parse_date, parse_number

DECIMALS = 12  # as MySQL keeps them
DAY_HEADERS = ("date", "trade_date", "日期", "交易日期")
CLOSE_HEADERS = ("close", "收盘", "收盘价", "收盘点位")


@dataclass(frozen=True)
class ClosesResult:
    inserted: int
    changed: int
    unchanged: int


def save_closes(
    connection: Connection, closes: Iterable[IndexClose], now: datetime, source: str
) -> ClosesResult:
    """Add closes, and put changed ones in the place of the old; doing it again changes nothing.

    Of a day given twice the last close counts.
    """
    given = {(row.index_code, row.trade_date): round(row.close, DECIMALS) for row in closes}
    table = benchmark_index.c
    known: dict[tuple[str, date], float] = {}
    for code in sorted({code for code, _ in given}):
        rows = select(table.trade_date, table.close).where(table.index_code == code)
        known |= {(code, day): close for day, close in connection.execute(rows)}
    fresh = [key for key in given if key not in known]
    changed = [key for key in given if key in known and known[key] != given[key]]
    if fresh:
        connection.execute(
            insert(benchmark_index),
            [
                {
                    "index_code": code,
                    "trade_date": day,
                    "close": given[code, day],
                    "source": source,
                    "known_at": now,
                }
                for code, day in fresh
            ],
        )
    if changed:
        at = and_(table.index_code == bindparam("code"), table.trade_date == bindparam("day"))
        statement = (
            update(benchmark_index).where(at).values(close=bindparam("new"), source=source, known_at=now)
        )
        connection.execute(
            statement, [{"code": code, "day": day, "new": given[code, day]} for code, day in changed]
        )
    return ClosesResult(len(fresh), len(changed), len(given) - len(fresh) - len(changed))


def newest_close(connection: Connection, index_code: str) -> date | None:
    """The newest day with a close of this index."""
    newest = select(func.max(benchmark_index.c.trade_date)).where(benchmark_index.c.index_code == index_code)
    return connection.execute(newest).scalar()


def read_closes(path: Path) -> list[IndexClose]:
    """The closes in a CSV file named after its index (000300.csv), with a column `date` and a column `close`.

    Raises `UsageError` for a file that cannot be read or is named otherwise, `SourceChanged` for missing
    columns and for a row that is no date and close.
    """
    if not is_fund_code(path.stem):
        raise UsageError(f"{path.name} is not named after an index, such as 000300.csv")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    day_at = next((header.index(name) for name in DAY_HEADERS if name in header), None)
    close_at = next((header.index(name) for name in CLOSE_HEADERS if name in header), None)
    if day_at is None or close_at is None:
        raise SourceChanged(f"{path.name} needs the columns date and close; its header has {header}"[:300])
    closes = []
    for number, cells in enumerate(rows[1:], 2):
        if not any(cells):
            continue
        try:
            day, close = parse_date("date", cells[day_at]), parse_number("close", cells[close_at])
        except (FieldError, IndexError) as error:
            raise SourceChanged(f"{path.name}:{number}: {error}") from None
        if day is None or close is None or close <= 0:
            raise SourceChanged(f"{path.name}:{number}: no date and close above zero")
        closes.append(IndexClose(path.stem, day, close))
    return closes
