"""Backups: made beside the work, checked by a trial restore, thinned out, put back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL, Engine

from core import backup_file, db, mysql_backup, sqlite_backup
from core.backup_file import Manifest
from core.errors import BackupUnusable, NavKeeperError, UsageError
from core.trading_calendar import SHANGHAI

DAYS, WEEKS, MONTHS = 7, 4, 6  # of which the newest backup is kept
ABANDONED = timedelta(days=1)
Tell = Callable[[int, str], None]  # bytes so far, of what; may raise, and then all stops


class Backup(NamedTuple):
    path: Path
    manifest: Manifest
    tried: bool  # restored on trial; else only its text was looked at


def make(engine: Engine, folder: Path, now: datetime, tell: Tell) -> Backup:
    """A checked backup in `folder`; one that fails its check is no backup and leaves nothing.

    Raises NavKeeperError: DatabaseUnavailable, BackupUnusable, ToolMissing.
    """
    with db.read(engine) as connection:
        schema = db.revision(connection) or "none"
    path = folder / backup_file.name_of(_kind(engine.url), schema, now)
    with backup_file.named_when_whole(path) as part:
        if _kind(engine.url) == "sqlite":
            database = Path(str(engine.url.database))
            sqlite_backup.back_up(database, part, now.isoformat(), lambda n: tell(n, "bytes copied"))
        else:
            mysql_backup.back_up(engine, part, now.isoformat(), lambda n: tell(n, "bytes copied"))
        manifest, tried = check(part, engine, folder, tell)
    return Backup(path, manifest, tried)


def check(path: Path, engine: Engine, folder: Path, tell: Tell) -> tuple[Manifest, bool]:
    """What a backup holds, by a trial restore beside it or, of MySQL, on the server of `engine`.

    The second value is False where the server does not let us. Raises BackupUnusable, ToolMissing.
    """
    manifest = backup_file.read_manifest(path)
    if manifest.kind == "sqlite":
        trial = folder / f".{path.name.lstrip('.')}.trial"
        try:
            sqlite_backup.check(path, trial, lambda n: tell(n, "bytes checked"))
        finally:
            trial.unlink(missing_ok=True)
        return manifest, True
    if _kind(engine.url) != "mysql":
        raise UsageError(
            f"{path} is of MySQL or MariaDB, and can only be checked where such a server is the database"
        )
    return mysql_backup.check(path, engine, lambda n: tell(n, "bytes checked"))


def found(folder: Path) -> list[Path]:
    """The backups in a folder, the newest first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        (path for path in paths if backup_file.made_at(path)), key=lambda path: path.name, reverse=True
    )


def dispensable(paths: Iterable[Path]) -> list[Path]:
    """Those that are not the newest of one of the last days, weeks and months that have any (Shanghai's)."""
    made = {
        path: instant.astimezone(SHANGHAI).date() for path in paths if (instant := backup_file.made_at(path))
    }
    newest_first = sorted(made, key=lambda path: path.name, reverse=True)
    kept: set[Path] = set()
    for many, period in ((DAYS, "%Y-%m-%d"), (WEEKS, "%G-%V"), (MONTHS, "%Y-%m")):
        first: dict[str, Path] = {}
        for path in newest_first:
            first.setdefault(made[path].strftime(period), path)
        kept |= set(list(first.values())[:many])
    return [path for path in newest_first if path not in kept]


def thin_out(folder: Path, now: datetime) -> list[Path]:
    """Remove the dispensable backups of a folder, and what one that died a day ago left; which backups they were."""
    gone = dispensable(found(folder))
    left = [
        path for path in folder.glob(".navkeeper-*") if path.stat().st_mtime < (now - ABANDONED).timestamp()
    ]
    for path in (*gone, *left):
        path.unlink(missing_ok=True)
    return gone


def require_fitting(manifest: Manifest, path: Path, url: URL) -> None:
    """Raises UsageError for a backup that this database or this program cannot take."""
    if manifest.kind != _kind(url):
        names = {"sqlite": "SQLite", "mysql": "MySQL or MariaDB"}
        raise UsageError(
            f"{path} is of {names[manifest.kind]}, {db.shown(url)} is {names[_kind(url)]}: "
            "give --to a database of its kind"
        )
    newest = db.newest_revision()
    if manifest.schema > newest:
        raise UsageError(
            f"{path} has schema {manifest.schema}, this program knows {newest} at most: install a newer NavKeeper"
        )


def restore(path: Path, engine: Engine, tell: Tell) -> Manifest:
    """Let a backup take the place of all that the database holds. Raises BackupUnusable, AlreadyRunning.

    SQLite: at one stroke; who dies before has the old database, who dies after the new one. A server's tables are
    filled one by one, after a trial where it lets us; until all are there the database counts as outdated.
    """
    if _kind(engine.url) == "sqlite":
        database = Path(str(engine.url.database))
        fresh = database.with_name(f".{database.name}.restored")
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
            manifest = sqlite_backup.check(path, fresh, lambda n: tell(n, "bytes restored"))
            engine.dispose()
            sqlite_backup.put_back(fresh, database)
        except OSError as error:
            raise NavKeeperError(f"{database} cannot be written: {error.strerror}") from None
        finally:
            fresh.unlink(missing_ok=True)
        return manifest
    manifest, _tried = mysql_backup.check(path, engine, lambda n: tell(n, "bytes checked"))
    mysql_backup.clear(engine)
    try:
        mysql_backup.load(path, engine.url, manifest, lambda n: tell(n, "bytes restored"))
    except BackupUnusable as error:
        raise BackupUnusable(
            f"{error}; {db.shown(engine.url)} is not whole: restore another backup"
        ) from None
    return manifest


def _kind(url: URL) -> str:
    return "sqlite" if url.get_backend_name() == "sqlite" else "mysql"
