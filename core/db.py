"""Engine, transactions, bulk inserts and schema versions: the same on SQLite and MySQL/MariaDB."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Table, create_engine, event, insert, inspect
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, ProgrammingError

from core.errors import DatabaseUnavailable, SchemaOutdated

log = logging.getLogger(__name__)
MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 60_000
SUPERVISING_BUSY_MS = 20_000
ROWS_A_STATEMENT = 20_000

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
    return create_engine(
        url,
        paramstyle="format",  # positional, as bulk_insert needs
        pool_pre_ping=True,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        connect_args={
            "connect_timeout": 10,
            "charset": "utf8mb4",
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
def write(engine: Engine) -> Iterator[Connection]:
    """One transaction: all of it or nothing. Raises DatabaseUnavailable, SchemaOutdated."""
    with _translated(engine), engine.connect() as connection:
        connection = connection.execution_options(write=True)
        with connection.begin():
            yield connection


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
    """Insert plain tuples (values as the driver takes them) at the driver's full speed; returns their number.

    The statement is SQLAlchemy's; only its per-row type processing is left out, which would cost
    three quarters of the time.
    """
    empty = dict.fromkeys(columns)
    compiled = insert(table).values(empty).compile(dialect=connection.dialect, column_keys=list(columns))
    order = compiled.positiontup or list(columns)
    if list(order) != list(columns):
        raise ValueError(f"columns of {table.name} must come in table order: {order}")
    total = 0
    source = iter(rows)
    while chunk := list(islice(source, ROWS_A_STATEMENT)):
        connection.exec_driver_sql(str(compiled), chunk)
        total += len(chunk)
    return total


def _alembic(engine: Engine) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def is_current(engine: Engine) -> bool:
    """Whether the schema is the one this version needs."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    return found == ScriptDirectory.from_config(_alembic(engine)).get_current_head()


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
