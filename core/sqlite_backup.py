"""Backup of an SQLite database while others write, and its return."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import func, select, table
from sqlalchemy.dialects import sqlite

from core.backup_file import Manifest, add_manifest, compare, compressed_into, read_manifest, synced, unpack
from core.errors import AlreadyRunning, BackupUnusable, DatabaseUnavailable, NavKeeperError

PAGES_A_STEP = 4096
CHUNK = 1 << 20
LOGS = ("-wal", "-shm")
Tell = Callable[[int], None]  # bytes so far; may raise, and then all stops


def back_up(database: Path, part: Path, made_at: str, tell: Tell) -> Manifest:
    """Write the backup of a database to `part`. Raises DatabaseUnavailable; leaves no copy behind."""
    copy = part.with_name(f"{part.name}.db")
    try:
        _copy(database, copy, tell)
        with closing(_opened(copy)) as connection:
            schema, counts = _schema(connection), _counts(connection)
        manifest = Manifest("sqlite", schema, made_at, copy.stat().st_size, counts)
        with copy.open("rb") as file, compressed_into(part) as stream:
            done = 0
            while piece := file.read(CHUNK):
                stream.write(piece)
                done += len(piece)
                tell(done)
        add_manifest(part, manifest)
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"database {database}: {error}") from None
    finally:
        copy.unlink(missing_ok=True)
    return manifest


def _copy(database: Path, copy: Path, tell: Tell) -> None:
    """In steps, all of one state: a reader keeps no writer waiting, and what they write begins no copy anew."""
    with (
        closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        size = source.execute("PRAGMA page_size").fetchone()[0]
        source.isolation_level = None
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        target.execute("PRAGMA synchronous = OFF")  # it is thrown away
        source.backup(
            target,
            pages=PAGES_A_STEP,
            progress=lambda _status, left, pages: tell(size * (pages - left)),
            sleep=0,
        )
        source.execute("ROLLBACK")


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    ).fetchall()
    return {name: connection.execute(_count(name)).fetchone()[0] for (name,) in names}


def _count(name: str) -> str:
    return str(select(func.count()).select_from(table(name)).compile(dialect=sqlite.dialect()))


def _schema(connection: sqlite3.Connection) -> str:
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:
        found = None
    if found is None:
        raise NavKeeperError(
            "the database has no tables yet; there is nothing to back up: python main.py init"
        )
    return str(found[0])


def check(path: Path, into: Path, tell: Tell) -> Manifest:
    """A trial restore to the file `into`: whole, sound, and with the rows it should have. Raises BackupUnusable."""
    manifest = read_manifest(path)
    unpack(path, into, manifest, tell)
    try:
        with closing(_opened(into)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise BackupUnusable(f"{path} is damaged: {found}")
            compare(path, _counts(connection), manifest)
    except sqlite3.Error as error:
        raise BackupUnusable(f"{path} is damaged: {error}") from None
    return manifest


def put_back(fresh: Path, database: Path) -> None:
    """Let a checked file take the database's place; who dies here leaves the old one or the new one.

    Raises AlreadyRunning where another process has the old one open. One that is damaged is kept beside, *.broken.
    """
    try:
        if database.exists():
            _close_old(database)
        for suffix in LOGS:
            Path(f"{database}{suffix}").unlink(missing_ok=True)
        fresh.replace(database)
        synced(database.parent)
    except OSError as error:
        raise NavKeeperError(f"{database} cannot be replaced: {error.strerror}") from None


def _close_old(database: Path) -> None:
    """Nothing of the old database may lie beside the new one: its log would be played into it."""
    try:
        with closing(sqlite3.connect(database, timeout=1)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        raise AlreadyRunning(
            f"another process has {database} open ({error}): end the daemon, monitor and health first"
        ) from None
    except sqlite3.DatabaseError:
        for suffix in (*LOGS, ""):
            with suppress(FileNotFoundError):
                Path(f"{database}{suffix}").replace(f"{database}.broken{suffix}")
