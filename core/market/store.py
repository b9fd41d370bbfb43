"""What the refreshes write: rows by their key, the same again changing nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, and_, bindparam, insert, select, tuple_, update

Record = dict[str, Any]
KEYS_A_QUERY = 400


def save(connection: Connection, table: Table, rows: Sequence[Record], stamp: str) -> int:
    """Insert new rows and put changed ones in the place of the old; how many were. `stamp` is no change by itself.

    Of a key given twice the last row counts.
    """
    key = list(table.primary_key.columns)
    given = {tuple(row[column.name] for column in key): row for row in rows}
    known: dict[tuple[Any, ...], Any] = {}
    keys = list(given)
    for start in range(0, len(keys), KEYS_A_QUERY):
        part = tuple_(*key).in_(keys[start : start + KEYS_A_QUERY])
        for row in connection.execute(select(table).where(part)):
            found = row._asdict()
            known[tuple(found[column.name] for column in key)] = found
    fresh = [row for at, row in given.items() if at not in known]
    changed = [row for at, row in given.items() if at in known and _differ(known[at], row, stamp)]
    if fresh:
        connection.execute(insert(table), fresh)
    if changed:
        where = and_(*(column == bindparam(f"key_{column.name}") for column in key))
        names = {column.name for column in key}
        values: Record = {name: bindparam(f"new_{name}") for name in changed[0] if name not in names}
        given_values = [
            {f"key_{name}" if name in names else f"new_{name}": value for name, value in row.items()}
            for row in changed
        ]
        connection.execute(update(table).where(where).values(values), given_values)
    return len(fresh) + len(changed)


def _differ(old: Record, new: Record, stamp: str) -> bool:
    return any(old[name] != value for name, value in new.items() if name != stamp)
