"""Engine, transactions, bulk inserts and schema versions: the same on SQLite and MySQL/MariaDB."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import (
    Column,
    Connection,
    CursorResult,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, ProgrammingError

from core.errors import DatabaseUnavailable, SchemaOutdated

log = logging.getLogger(__name__)
MIGRATIONS = Path(__file__).parent / "migrations"
ALEMBIC = Table("alembic_version", MetaData(), Column("version_num", String(32)))
BUSY_TIMEOUT_MS = 60_000
SUPERVISING_BUSY_MS = 20_000
VARIABLES_A_STATEMENT = 32_766  # SQLite's limit since 2020
VALUES_A_STATEMENT = 100_000  # about 2 MB; a server takes 16 MB or more in one packet
LONGEST_LITERALS = 12_000_000  # bytes

# SQLite's primary result codes that mean the file, not the statement: PERM, BUSY, LOCKED, NOMEM, READONLY,
# IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOLFS, AUTH, NOTADB.
SQLITE_TROUBLE = frozenset({3, 5, 6, 7, 8, 10, 11, 13, 14, 15, 22, 23, 26})
SQLITE_HELD, SQLITE_FULL = frozenset({5, 6}), frozenset({10, 13})
# The server's codes that mean the server or our rights; 2000 to 2999 are the client's own: no connection.
# PyMySQL calls every code it does not know an OperationalError, a violated CHECK (4025) included.
MYSQL_TROUBLE = frozenset(
    {
        *(1016, 1017, 1021, 1030, 1037, 1038, 1040, 1041, 1042, 1043, 1044, 1045, 1049, 1053, 1077, 1079),
        *(1114, 1129, 1130, 1142, 1143, 1158, 1159, 1160, 1161, 1180, 1184, 1203, 1205, 1206, 1213, 1226),
        *(1227, 1290, 1317, 1524, 1698, 1792, 1820, 1836, 1862, 1927, 1969, 3024, 3159, 4031, 4151),
    }
)
# The server drops a stopped daemon's open transaction, locks and all, before a leader's lease is over
# (scheduler.leadership); a lock held by a run's long transaction, or a dead network, is met again later.
SUPERVISING: dict[str, Any] = {
    "init_command": "SET time_zone = '+00:00', SESSION wait_timeout = 10, innodb_lock_wait_timeout = 5",
    "read_timeout": 30,
    "write_timeout": 30,
}
MYSQL_NO_DATABASE, MYSQL_NO_TABLE, MYSQL_NO_COLUMN = 1049, 1146, 1054


def connect(url: URL, *, supervising: bool = False) -> Engine:
    """An engine for `url`; nothing is opened yet. SQLite: WAL, foreign keys on, writers queue up.

    Who supervises must neither wait long nor keep others waiting: see SUPERVISING.
    """
    if url.get_backend_name() == "sqlite":
        wait = SUPERVISING_BUSY_MS if supervising else BUSY_TIMEOUT_MS
        engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": wait / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    from pymysql.converters import conversions

    return create_engine(
        url,
        paramstyle="format",  # positional, as bulk_insert needs
        pool_pre_ping=True,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        connect_args={
            "connect_timeout": 10,
            "charset": "utf8mb4",
            "conv": {**conversions, Literals: lambda literals, _mapping: literals.text},
            "init_command": "SET time_zone = '+00:00'",
            **(SUPERVISING if supervising else {}),
        },
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: see _begin_sqlite
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
        "cache_size = -65536",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A reader that later writes can meet "database is locked" whatever the time-out: writers say so at once.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A consistent view of the database. Raises DatabaseUnavailable, SchemaOutdated."""
    with _translated(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """As `read`, where several statements must see one state though others write meanwhile."""
    with _translated(engine), engine.connect() as connection:
        if engine.dialect.name != "sqlite":  # whose reads see one state anyway
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """One transaction: all of it or nothing. Raises DatabaseUnavailable, SchemaOutdated."""
    with _translated(engine), engine.connect() as connection:
        connection = connection.execution_options(write=True)
        with connection.begin():
            yield connection


@contextmanager
def write_when_used(engine: Engine) -> Iterator[Connection]:
    """As `write`, but begun by the first statement: who computes before it holds no lock meanwhile."""
    with _translated(engine), engine.connect() as connection:
        connection = connection.execution_options(write=True)
        yield connection
        connection.commit()


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        why = str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__
        if _is_trouble(engine.url, error):
            raise DatabaseUnavailable(
                f"database {shown(engine.url)}: {why}{_advice(engine.url, error)}"
            ) from None
        missing = _code(error) in (MYSQL_NO_TABLE, MYSQL_NO_COLUMN)
        if (
            missing
            or isinstance(error, ProgrammingError)
            or why.startswith(("no such table", "no such column"))
        ):
            try:
                current = is_current(engine)
            except DBAPIError:
                current = False
            if not current:
                raise SchemaOutdated(outdated_message(engine)) from None
        raise


def _code(error: DBAPIError) -> int:
    """SQLite's primary result code or MySQL's error number; 0 where the driver gave none."""
    found = getattr(error.orig, "sqlite_errorcode", None)
    if found is not None:
        return int(found) & 0xFF
    first = error.orig.args[0] if error.orig is not None and error.orig.args else 0
    return first if isinstance(first, int) else 0


def _is_trouble(url: URL, error: DBAPIError) -> bool:
    """Whether the database is to blame, not what we asked of it."""
    if url.get_backend_name() == "sqlite":
        return _code(error) in SQLITE_TROUBLE
    lost = error.connection_invalidated or isinstance(error, InterfaceError)
    return lost or _code(error) in MYSQL_TROUBLE or 2000 <= _code(error) < 3000


def _advice(url: URL, error: DBAPIError) -> str:
    code = _code(error)
    if url.get_backend_name() == "sqlite":
        if code in SQLITE_FULL:
            folder = Path(url.database or ".").absolute().parent
            return f"; is the disk full? free space at {folder}"
        return "; another process holds it: end that one or try again later" if code in SQLITE_HELD else ""
    if code == MYSQL_NO_DATABASE:
        return f"; create it: CREATE DATABASE {url.database} CHARACTER SET utf8mb4"
    return ""


def shown(url: URL) -> str:
    """The address for messages: without the password, a file by its path as it is."""
    return (url.database or ":memory:") if url.get_backend_name() == "sqlite" else url.render_as_string()


def new_id(result: CursorResult[Any]) -> int:
    """The primary key an INSERT was given."""
    key = result.inserted_primary_key
    if key is None:
        raise TypeError("no row was inserted")
    return int(key[0])


def bulk_insert(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> int:
    """Insert plain tuples (texts and finite numbers, dates as ISO text) as fast as it goes; returns their number.

    Thousands of rows a statement, which is SQLAlchemy's; only its processing of each value is left out, which would
    cost three quarters of the time. While the database works on one statement a thread prepares the next.
    """
    in_file = connection.dialect.name == "sqlite"
    single = _insert(in_file, table, tuple(columns))
    size = (VARIABLES_A_STATEMENT if in_file else VALUES_A_STATEMENT) // len(columns)
    many = _values_of(single, size) if in_file else single.rpartition(" VALUES ")[0] + " VALUES %s"
    total = 0
    for part, ready in _prepared_ahead(rows, size, _flat if in_file else _literals):
        if isinstance(ready, Literals):
            connection.exec_driver_sql(many, (ready,))
        elif ready is not None and len(part) == size:
            connection.exec_driver_sql(many, ready)
        else:
            connection.exec_driver_sql(single, part)
        total += len(part)
    return total


@cache
def _insert(in_file: bool, table: Table, names: tuple[str, ...]) -> str:
    """INSERT of one row, its parameters in the order of `names`."""
    values: dict[str, Any] = dict.fromkeys(names)
    dialect = sqlite.dialect() if in_file else mysql.dialect(paramstyle="format")
    compiled = insert(table).values(values).compile(dialect=dialect, column_keys=[*names])
    if tuple(compiled.positiontup or names) != names:
        raise ValueError(f"columns of {table.name} must come in table order: {compiled.positiontup}")
    return str(compiled)


def _values_of(single: str, rows: int) -> str:
    head, values, row = single.rpartition(" VALUES ")
    return head + values + ", ".join([row] * rows)


def _prepared_ahead(
    rows: Iterable[tuple[Any, ...]], size: int, prepare: Callable[[list[tuple[Any, ...]]], Any]
) -> Iterator[tuple[list[tuple[Any, ...]], Any]]:
    """Parts of `size` rows and what `prepare` makes of them, each made ready while the one before is inserted."""
    source = iter(rows)

    def next_part() -> tuple[list[tuple[Any, ...]], Any]:
        part = list(islice(source, size))
        return part, prepare(part)

    found = next_part()
    if len(found[0]) < size:  # no thread for what one statement takes
        yield from [found] if found[0] else ()
        return
    with ThreadPoolExecutor(1, thread_name_prefix="bulk_insert") as pool:
        while found[0]:
            coming = pool.submit(next_part)
            yield found
            found = coming.result()


def _flat(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(rows))


class Literals:
    """Rows as the driver would write them into a statement, for one bound parameter: (1.5,'a',null),(…)."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:  # SQLAlchemy shows parameters where a statement fails
        return f"{self.text[:200]}…"


def _literals(rows: list[tuple[Any, ...]]) -> Literals | None:
    """Many times faster than the driver, value for value; None where a text needs its escapes.

    JSON writes numbers, null and texts without quotation marks, backslashes or control characters as SQL does. What is
    no number is null, as in SQLite.
    """
    text = orjson.dumps(rows)[2:-2]
    ends = text.count(b"],[")  # of rows, and perhaps in a text
    if ends >= len(rows) or b"\\" in text or b"'" in text or len(text) > LONGEST_LITERALS:
        return None
    text = text.replace(b"],[", b"),(").replace(b'"', b"'")
    return Literals(f"({text.decode()})")


def _alembic(engine: Engine) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def is_current(engine: Engine) -> bool:
    """Whether the schema is the one this version needs. Without alembic, which takes time to import."""
    with engine.connect() as connection:
        return revision(connection) == newest_revision()


def revision(connection: Connection) -> str | None:
    """The version of the schema, None where there is none."""
    if not inspect(connection).has_table(ALEMBIC.name):
        return None
    found: str | None = connection.scalar(select(ALEMBIC.c.version_num))
    return found


def newest_revision() -> str:
    """The version of the schema that this code needs."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")).partition("_")[0]


def outdated_message(engine: Engine) -> str:
    return f"the tables of {shown(engine.url)} are missing or of another version; run: python main.py init"


def upgrade(engine: Engine) -> None:
    """Create the tables or bring them up to date. Harmless when they are. Raises DatabaseUnavailable."""
    from alembic import command

    with _translated(engine):
        command.upgrade(_alembic(engine), "head")


def is_empty(engine: Engine) -> bool:
    """Whether the database has no table at all (a fresh file, a fresh MySQL schema)."""
    with read(engine) as connection:
        return not inspect(connection).get_table_names()
