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
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from core.errors import DatabaseUnavailable, SchemaOutdated

log = logging.getLogger(__name__)
MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 60_000
ROWS_A_STATEMENT = 20_000


def connect(url: URL) -> Engine:
    """An engine for `url`; nothing is opened yet. SQLite: WAL, foreign keys on, writers queue up."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url, connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000}
        )
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
        },
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: see _begin_sqlite
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
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
    except IntegrityError:
        raise
    except DBAPIError as error:
        why = str(error.orig).splitlines()[0] if str(error.orig) else type(error.orig).__name__
        if isinstance(error, ProgrammingError) or "no such table" in why or "no such column" in why:
            try:
                current = is_current(engine)
            except DBAPIError:
                current = False
            if not current:
                raise SchemaOutdated(outdated_message(engine)) from None
            raise
        raise DatabaseUnavailable(f"database {engine.url.render_as_string()}: {why}") from None


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
    return f"the tables of {engine.url.render_as_string()} are missing or of another version; run: python main.py init"


def upgrade(engine: Engine) -> None:
    """Create the tables or bring them up to date. Harmless when they are. Raises DatabaseUnavailable."""
    from alembic import command

    with _translated(engine):
        command.upgrade(_alembic(engine), "head")


def is_empty(engine: Engine) -> bool:
    """Whether the database has no table at all (a fresh file, a fresh MySQL schema)."""
    with read(engine) as connection:
        return not inspect(connection).get_table_names()
