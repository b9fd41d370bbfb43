"""How much room the database takes."""

from __future__ import annotations

from sqlalchemy import Connection, Integer, func, literal_column, select, table, text

SQLITE_SIZES = (text("PRAGMA page_size"), text("PRAGMA page_count"), text("PRAGMA freelist_count"))


def database_bytes(connection: Connection) -> int:
    """Bytes in use: of an SQLite file without its free pages, of a server as it estimates its tables."""
    if connection.dialect.name == "sqlite":
        size, pages, free = (int(connection.scalar(pragma) or 0) for pragma in SQLITE_SIZES)
        return size * (pages - free)
    tables = table("tables", schema="information_schema")
    mine = literal_column("table_schema") == func.database()
    length = literal_column("data_length + index_length", Integer)
    return int(connection.scalar(select(func.sum(length)).select_from(tables).where(mine)) or 0)
