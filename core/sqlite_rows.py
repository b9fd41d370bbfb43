"""Rows of a SQLite file through Arrow, by a process of its own: python -P sqlite_rows.py FILE BUSY_MS.

The fast driver brings its own SQLite. Two copies of SQLite in one process take away each other's file locks as
soon as one closes the file (sqlite.org/howtocorrupt.html, 2.2.1), and then the write-ahead log is not safe. So this
file is run, never imported, and imports nothing of ours.

Each line of stdin is a query of three columns, as JSON; each answer the number of rows as eight bytes, then all
codes and days (int32) and values (float64). After -1 comes a line that says what went wrong.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def answer(connection: Any, query: str) -> list[Any]:
    import numpy as np

    with connection.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetch_arrow_table()
    kinds = (np.int32, np.int32, np.float64)
    return [column.to_numpy().astype(kind) for column, kind in zip(found.itercolumns(), kinds, strict=True)]


def main() -> None:
    from adbc_driver_sqlite import dbapi

    out = sys.stdout.buffer
    with dbapi.connect(sys.argv[1], autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(sys.argv[2])}")
        for line in sys.stdin:
            try:
                columns = answer(connection, json.loads(line))
            except dbapi.Error as error:
                out.write((-1).to_bytes(8, "little", signed=True) + json.dumps(str(error)).encode() + b"\n")
            else:
                out.write(len(columns[0]).to_bytes(8, "little", signed=True))
                for column in columns:
                    out.write(column.data)
            out.flush()


if __name__ == "__main__":
    main()
