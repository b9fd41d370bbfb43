"""Engine, transactions, bulk inserts and schema versions: the same on SQLite and MySQL/MariaDB."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Integer,
    String,
    Table,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    inspect,
    literal_column,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.exc import DBAPIError, InterfaceError, ProgrammingError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from core.errors import DatabaseUnavailable, SchemaOutdated

log = logging.getLogger(__name__)
MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 60_000
SUPERVISING_BUSY_MS = 20_000
VARIABLES_A_STATEMENT = 32_766  # SQLite's limit since 2020
ROWS_A_DOCUMENT = 20_000
DOCUMENT_LENGTH = 2_000_000  # characters: at most 8 MB; a server takes 16 MB or more in one packet

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
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Iterable[tuple[Any, ...]],
    *,
    numbered: Sequence[str] = (),
) -> int:
    """Insert plain tuples (texts and finite numbers, dates as ISO text) as fast as it goes; returns their number.

    SQLite takes thousands of rows a statement, MySQL and MariaDB one bound JSON document a statement. The
    statements are SQLAlchemy's; only its per-row type processing is left out, which would cost three quarters
    of the time. While the database works on one statement a thread prepares the next. `numbered`: columns of
    MySQL that come as whole numbers, dates as 20251201 and codes without leading zeros: without a quotation mark
    in it the document is escaped and read faster.
    """
    names = list(columns)
    if connection.dialect.name == "sqlite":
        single, many, rows_a_statement = _values_inserts(table, tuple(names))
    else:
        single, many, rows_a_statement = (
            _json_insert(connection.dialect, table, names, numbered),
            "",
            ROWS_A_DOCUMENT,
        )
    total = 0
    for count, chunk in _prepared_ahead(rows, rows_a_statement, flat=bool(many)):
        if not many:
            for document in chunk:
                connection.exec_driver_sql(single, (document,))
        elif count == rows_a_statement:
            connection.exec_driver_sql(many, chunk)
        else:
            connection.exec_driver_sql(single, list(zip(*[iter(chunk)] * len(names), strict=True)))
        total += count
    return total


@cache
def _values_inserts(table: Table, names: tuple[str, ...]) -> tuple[str, str, int]:
    """An insert of one row, one of as many rows as SQLite takes, and their number."""
    empty: dict[str, Any] = dict.fromkeys(names)
    compiled = insert(table).values(empty).compile(dialect=sqlite.dialect(), column_keys=list(names))
    _require_order(table, list(names), compiled.positiontup or names)
    single = str(compiled)
    rows = VARIABLES_A_STATEMENT // len(names)
    head, values, row = single.rpartition(" VALUES ")
    return single, head + values + ", ".join([row] * rows), rows


class rows_of_json(FunctionElement[Any]):  # noqa: N801 - named as in SQL
    """The rows of a JSON document [[value, …], …] as a table with the types of these columns."""

    inherit_cache = False

    def __init__(self, document: ColumnElement[str], columns: Sequence[Column[Any]]) -> None:
        self.columns_read = columns
        super().__init__(document)


@compiles(rows_of_json, "mysql")
@compiles(rows_of_json, "mariadb")
def _json_table(element: rows_of_json, compiler: Any, **kw: Any) -> str:
    types, quote = compiler.dialect.type_compiler_instance, compiler.preparer.format_column
    read = ", ".join(
        f"{quote(column)} {types.process(column.type)} PATH '$[{place}]' ERROR ON ERROR"
        for place, column in enumerate(element.columns_read)
    )
    return f"JSON_TABLE({compiler.process(element.clauses, **kw)}, '$[*]' COLUMNS ({read}))"


def _json_insert(dialect: Dialect, table: Table, names: list[str], numbered: Sequence[str]) -> str:
    """INSERT … SELECT … FROM JSON_TABLE of all rows of one bound JSON document."""
    read: list[Column[Any]] = [
        Column(name, Integer if name in numbered else table.c[name].type) for name in names
    ]
    given = rows_of_json(bindparam("rows", type_=String), read).table_valued(*names, name="given").c
    values = [_with_zeros(given[name], table.c[name]) if name in numbered else given[name] for name in names]
    return str(insert(table).from_select(names, select(*values)).compile(dialect=dialect))


def _with_zeros(number: ColumnElement[Any], column: Column[Any]) -> ColumnElement[Any]:
    """A number for a column of codes as a code; for any other as it is."""
    length = getattr(column.type, "length", None)
    return number if length is None else func.lpad(number, literal_column(str(length)), literal_column("'0'"))


def _require_order(table: Table, names: list[str], order: Sequence[str]) -> None:
    if list(order) != names:
        raise ValueError(f"columns of {table.name} must come in table order: {order}")


def _prepared_ahead(rows: Iterable[tuple[Any, ...]], size: int, *, flat: bool) -> Iterator[tuple[int, Any]]:
    """Chunks of `size` rows with their length, each made ready while the one before is being inserted.

    `flat`: the values of all its rows in one tuple; else JSON documents, few and none of them huge.
    """
    source = iter(rows)

    def next_chunk() -> tuple[int, Any]:
        chunk = list(islice(source, size))
        return len(chunk), tuple(chain.from_iterable(chunk)) if flat else list(_documents(chunk))

    found = next_chunk()
    if found[0] < size:  # no thread for what one statement takes
        yield from [found] if found[0] else ()
        return
    with ThreadPoolExecutor(1, thread_name_prefix="bulk_insert") as pool:
        while found[0]:
            coming = pool.submit(next_chunk)
            yield found
            found = coming.result()


def _documents(rows: list[tuple[Any, ...]]) -> Iterator[str]:
    """The rows as JSON, in as many texts as keep each within what a server takes as one packet."""
    if not rows:
        return
    text = json.dumps(rows, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if len(text) <= DOCUMENT_LENGTH or len(rows) == 1:
        yield text
        return
    middle = len(rows) // 2
    yield from _documents(rows[:middle])
    yield from _documents(rows[middle:])


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
