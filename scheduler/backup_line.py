"""`main.py backup` and `main.py restore`: what may be typed, and what is done then.

Neither is a run: both must work where the tables are of another version, or gone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scheduler.command_line import printed

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.settings import Settings
    from core.backup_file import Manifest
    from scheduler.listing import Record
    from scheduler.wording import Translate

EXIT_CODES = "exit codes: 0 ok, 1 failed, 2 usage, or refused, 3 the database is in use"
ALIVE = timedelta(minutes=1)
MB = 1_000_000


def parse(action: str, words: list[str]) -> argparse.Namespace:
    """The options of `backup` or `restore`. Ends the program as argparse does."""
    parser = argparse.ArgumentParser(f"main.py {action}", allow_abbrev=False, epilog=EXIT_CODES)
    if action == "backup":
        parser.description = (
            "A compressed copy of the database, made beside the work and checked by a trial restore."
        )
        parser.add_argument(
            "--out", type=Path, metavar="FOLDER", help="write it there (default: NAVKEEPER_BACKUP_FOLDER)"
        )
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--list", action="store_true", help="list the backups of the folder, the newest first"
        )
        what.add_argument(
            "--check", type=Path, metavar="FILE", help="restore this one on trial, and compare its rows"
        )
    else:
        parser.description = "Let a backup take the place of the database."
        parser.add_argument("file", type=Path, metavar="FILE", help="as main.py backup --list names it")
        parser.add_argument("--to", metavar="URL", help="this database (default: that of the settings)")
        parser.add_argument("--yes", action="store_true", help="though it has tables: all in them is lost")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    return parser.parse_args(words)


def do(action: str, options: argparse.Namespace, settings: Settings) -> int:
    """Do what was typed. Raises NavKeeperError."""
    from config.translation import translator
    from scheduler.clock import clock_from
    from scheduler.exit_codes import OK
    from scheduler.listing import as_json
    from scheduler.monitor import readable
    from scheduler.progress import shown_progress

    _, now = translator(readable(settings.language)), clock_from(settings)()
    with shown_progress(action) as progress:
        if action == "restore":
            found = [_restore(options, settings, now, progress)]
        elif options.list:
            found = _listed(options.out or settings.backups)
        elif options.check:
            found = [_check(options.check, settings, progress)]
        else:
            found = [_make(options.out or settings.backups, settings, now, progress)]
    if options.json:
        printed("".join(f"{as_json(record)}\n" for record in found))
    else:
        printed("".join(f"{line}\n" for record in found for line in _lines(record, _)))
    return OK


def _record(what: str, path: Path, manifest: Manifest, **more: Any) -> Record:
    known = asdict(manifest)
    counts = known.pop("counts")
    size = {"compressed": path.stat().st_size, "rows": sum(counts.values()), "tables": len(counts)}
    return {"what": what, "path": str(path), **known, **size, **more}


def _make(folder: Path, settings: Settings, now: datetime, progress: Callable[..., None]) -> Record:
    from core import backup, db
    from scheduler.backup_task import copy_elsewhere, in_megabytes
    from scheduler.overview import observer_engine

    with db.read(
        observer_engine(settings.database_url())
    ):  # a database that is not there is refused, not made
        pass
    made = backup.make(db.connect(settings.database_url()), folder, now, in_megabytes(progress))
    return _record(
        "made", made.path, made.manifest, tried=made.tried, copied=copy_elsewhere(made.path, settings)
    )


def _listed(folder: Path) -> list[Record]:
    from core import backup
    from core.backup_file import read_manifest
    from core.errors import BackupUnusable

    found: list[Record] = []
    for path in backup.found(folder):
        try:
            found.append(_record("listed", path, read_manifest(path)))
        except BackupUnusable as error:
            found.append({"what": "unusable", "path": str(path), "error": str(error)})
    return found


def _check(path: Path, settings: Settings, progress: Callable[..., None]) -> Record:
    from core import backup, db
    from scheduler.backup_task import in_megabytes

    engine = db.connect(settings.database_url())
    manifest, tried = backup.check(path, engine, path.parent, in_megabytes(progress))
    return _record("checked", path, manifest, tried=tried)


def _restore(
    options: argparse.Namespace, settings: Settings, now: datetime, progress: Callable[..., None]
) -> Record:
    from config.settings import database_address
    from core import backup, db
    from core.backup_file import read_manifest
    from core.errors import UsageError
    from scheduler.backup_task import in_megabytes

    try:
        url = database_address(options.to) if options.to else settings.database_url()
    except ValueError as error:
        raise UsageError(f"--to: {error}") from None
    backup.require_fitting(read_manifest(options.file), options.file, url)
    engine = db.connect(url)
    with _unused(engine, now):
        if not options.yes and _has_tables(engine):
            raise UsageError(
                f"{db.shown(url)} has tables; all in them would be lost: say --yes if that is meant"
            )
        manifest = backup.restore(options.file, engine, in_megabytes(progress))
        outdated = manifest.schema < db.newest_revision()
        if not outdated:
            _settle(engine, now)
    return _record("restored", options.file, manifest, to=db.shown(url), outdated=outdated)


def _has_tables(engine: Engine) -> bool:
    """Also of a file that cannot be read: what it holds is somebody's."""
    from core import db
    from core.errors import DatabaseUnavailable

    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        if not path.exists() or not path.stat().st_size:
            return False
    try:
        return not db.is_empty(engine)
    except DatabaseUnavailable:
        if engine.dialect.name == "sqlite":
            return True
        raise


@contextmanager
def _unused(engine: Engine, now: datetime) -> Iterator[None]:
    """No daemon leads on the database, and on an SQLite file none can begin to. Raises AlreadyRunning."""
    from core.errors import AlreadyRunning
    from scheduler.run_scheduler import only_daemon

    with ExitStack() as stack:
        if engine.dialect.name == "sqlite":
            try:
                stack.enter_context(only_daemon(Path(f"{engine.url.database}.pid")))
            except AlreadyRunning as error:
                raise AlreadyRunning(f"{error}: stop it first") from None
        else:
            _refuse_leader(engine, now)
        yield


def _refuse_leader(engine: Engine, now: datetime) -> None:
    """Raises AlreadyRunning where a daemon gave a sign of life lately, or a run is at work on this host."""
    from sqlalchemy import inspect, select

    from core import db
    from core.errors import AlreadyRunning
    from core.schema import daemon, job_run
    from scheduler.process_identity import Process

    with db.read(engine) as connection:
        tables = set(inspect(connection).get_table_names())
        if not {"daemon", "job_run"} <= tables:
            return
        leads = daemon.c
        leader = connection.execute(
            select(leads.host, leads.pid, leads.heartbeat_at, leads.stopped_at)
        ).first()
        run = job_run.c
        query = select(run.id, run.job_id, run.host, run.pid, run.pid_started).where(run.status == "RUNNING")
        running = connection.execute(query).all()
    if leader is not None and leader.stopped_at is None and now - leader.heartbeat_at < ALIVE:
        raise AlreadyRunning(
            f"a daemon leads on {db.shown(engine.url)}: pid {leader.pid} on {leader.host}: stop it first"
        )
    for each in running:
        if Process(each.host or "", each.pid or 0, each.pid_started or "").is_alive():
            raise AlreadyRunning(f"{each.job_id} is at work: run {each.id}, pid {each.pid} on {each.host}")


def _settle(engine: Engine, now: datetime) -> None:
    """What ran when the backup was made does not run here: its processes may live on, and are another database's."""
    from sqlalchemy import update

    from core import db
    from core.schema import daemon
    from scheduler import run_store
    from scheduler.job import RunStatus
    from scheduler.run_store import End
    from scheduler.supervisor import end_for_dead

    why = "it was at work when the backup was made"
    with db.write(engine) as connection:
        for run in run_store.runs_in(connection, RunStatus.RUNNING):
            end_for_dead(connection, run, End(RunStatus.INTERRUPTED, 0, why), now)
            ended = run_store.get_run(connection, run.id)
            if (
                ended is not None and run.retry_policy is not None
            ):  # the daemon's, and however long ago that was
                run_store.try_again(connection, ended, why, now)
        left = update(daemon).where(daemon.c.stopped_at.is_(None)).values(stopped_at=daemon.c.heartbeat_at)
        connection.execute(left)


def _lines(record: Record, _: Translate) -> Iterator[str]:
    if record["what"] == "unusable":
        yield record["error"]
        return
    texts = {
        "made": _("made: {path}"),
        "listed": "{path}",
        "checked": _("sound: {path}"),
        "restored": _("restored: {to} from {path}"),
    }
    figures = _("{tables} tables, {rows} rows, schema {schema}, {compressed} MB of {size} MB")
    yield "  ".join(
        [
            texts[record["what"]].format(**record),
            figures.format(
                tables=record["tables"],
                rows=f"{record['rows']:,}",
                schema=record["schema"],
                compressed=f"{record['compressed'] / MB:,.1f}",
                size=f"{record['size'] / MB:,.1f}",
            ),
        ]
    )
    if record.get("tried") is False:
        yield _("only its text was checked: the server does not allow a trial restore")
    if record.get("copied"):
        yield _("copied to {copied}").format(**record)
    if record.get("outdated"):
        yield _("its tables are of an older version; now run: python main.py init")
