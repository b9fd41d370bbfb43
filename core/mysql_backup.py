"""Backup of a MySQL or MariaDB database by its own tools, while others write, and its return."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sqlalchemy import URL, Engine, MetaData, func, inspect, select, table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema, DropSchema

from core import db
from core.backup_file import Manifest, add_manifest, compare, compressed_into, copy_out, read_manifest
from core.errors import BackupUnusable, DatabaseUnavailable, NavKeeperError, ToolMissing

DUMPERS, CLIENTS = ("mariadb-dump", "mysqldump"), ("mariadb", "mysql")
# One state of all tables without locking any; NAVs by the row, not all at once.
OPTIONS = (
    *("--single-transaction", "--quick", "--skip-lock-tables", "--skip-add-locks", "--no-tablespaces"),
    *("--hex-blob", "--skip-triggers", "--default-character-set=utf8mb4", "--skip-dump-date"),
)
OF_MYSQL = ("--set-gtid-purged=OFF", "--column-statistics=0")  # unknown to MariaDB's
INSERT = re.compile(rb"INSERT INTO `((?:[^`]|``)+)` (?:\([^)]*\) )?VALUES")
TEXT = re.compile(rb"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
COMPLETE = b"-- Dump completed"
TOLD_EVERY = 1 << 22
LAST = (
    db.ALEMBIC.name
)  # restored last: until it is there the database counts as outdated, so nothing uses half of it
Tell = Callable[[int], None]


def back_up(engine: Engine, part: Path, made_at: str, tell: Tell) -> Manifest:
    """Write the backup of a database to `part`. Raises DatabaseUnavailable, ToolMissing, NavKeeperError."""
    with db.read(engine) as connection:
        schema, names = db.revision(connection), inspect(connection).get_table_names()
    if schema is None:
        raise NavKeeperError(
            "the database has no tables yet; there is nothing to back up: python main.py init"
        )
    counts, size, last = dict.fromkeys(names, 0), 0, b""
    tables = [*sorted(name for name in names if name != LAST), LAST]
    with _tool(DUMPERS, engine.url) as command, compressed_into(part) as stream:
        extra = () if _is_mariadb(command[0]) else OF_MYSQL
        process = subprocess.Popen(
            [*command, *OPTIONS, *extra, str(engine.url.database), *tables],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process, _ended(process):
            told = 0
            for line, name, rows in counted(_pipe(process.stdout)):
                stream.write(line)
                size += len(line)
                if name:
                    counts[name] += rows
                last = line if line.strip() else last
                if size - told >= TOLD_EVERY:
                    tell(told := size)
            said = _pipe(process.stderr).read().decode(errors="replace").strip()
    if process.returncode != 0 or not last.startswith(COMPLETE):
        raise DatabaseUnavailable(f"{Path(command[0]).name} failed: {said[-500:] or 'its output has no end'}")
    manifest = Manifest("mysql", schema, made_at, size, counts)
    add_manifest(part, manifest)
    return manifest


def counted(lines: Iterator[bytes] | IO[bytes]) -> Iterator[tuple[bytes, str, int]]:
    """Each line of a dump, the table it inserts into ("" for none) and how many rows; both ways tools write them.

    MariaDB's has a row a line, MySQL's all rows of a statement in one.
    """
    name = ""
    for line in lines:
        found = INSERT.match(line)
        if found is not None:
            name = found[1].replace(b"``", b"`").decode()
            rest = line[found.end() :]
            rows = TEXT.sub(b"", rest).count(b"),(") + 1 if rest.strip() else 0
        else:
            rows = 1 if name and line.startswith(b"(") else 0
        yield line, name if rows else "", rows
        if line.endswith(b";\n"):
            name = ""


def check(path: Path, engine: Engine, tell: Tell) -> tuple[Manifest, bool]:
    """A trial restore into a schema that is dropped afterwards; where our rights do not allow that, the text alone
    is looked at, and the second value is False. Raises BackupUnusable, ToolMissing.
    """
    manifest = read_manifest(path)
    scratch = f"navkeeper_check_{uuid.uuid4().hex[:12]}"
    try:
        with engine.connect() as connection:
            connection.execute(CreateSchema(scratch))
    except DBAPIError:
        _check_text(path, manifest, tell)
        return manifest, False
    try:
        load(path, engine.url.set(database=scratch), manifest, tell)
    finally:
        with engine.connect() as connection:
            connection.execute(DropSchema(scratch))
    return manifest, True


def _check_text(path: Path, manifest: Manifest, tell: Tell) -> None:
    """Every line is there, with the rows of every table, and the last one says that it is."""
    counts, last = dict.fromkeys(manifest.counts, 0), b""
    with tempfile.TemporaryFile() as file:
        copy_out(path, file.write, tell)
        file.seek(0)
        for line, name, rows in counted(file):
            if name:
                counts[name] = counts.get(name, 0) + rows
            last = line if line.strip() else last
    if not last.startswith(COMPLETE):
        raise BackupUnusable(f"{path} has no end")
    compare(path, counts, manifest)


def load(path: Path, url: URL, manifest: Manifest, tell: Tell) -> None:
    """Fill a database from a backup, and count its rows. Raises BackupUnusable, DatabaseUnavailable, ToolMissing."""
    with _tool(CLIENTS, url) as command:
        process = subprocess.Popen(
            [*command, "--default-character-set=utf8mb4", str(url.database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        with process, _ended(process):
            with suppress(BrokenPipeError):  # it says why
                copy_out(path, _pipe(process.stdin).write, tell)
            with suppress(BrokenPipeError):
                _pipe(process.stdin).close()
            said = _pipe(process.stderr).read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise DatabaseUnavailable(f"{path} could not be loaded into {db.shown(url)}: {said[-500:]}")
    engine = db.connect(url)
    try:
        compare(path, _counts(engine), manifest)
    finally:
        engine.dispose()


def clear(engine: Engine) -> None:
    """Drop every table, the schema's version first: from then on nothing takes the database for whole."""
    with db.write(engine) as connection:
        connection.execute(text("SET foreign_key_checks = 0"))
        found = MetaData()
        found.reflect(connection)
        for each in sorted(found.tables.values(), key=lambda each: each.name != LAST):
            each.drop(connection)
        connection.execute(text("SET foreign_key_checks = 1"))


def _counts(engine: Engine) -> dict[str, int]:
    with db.read(engine) as connection:
        return {
            name: int(connection.scalar(select(func.count()).select_from(table(name))) or 0)
            for name in inspect(connection).get_table_names()
        }


@contextmanager
def _tool(names: tuple[str, ...], url: URL) -> Iterator[list[str]]:
    """A program and how it reaches the server; the password stands in a file of our own, never on a command line."""
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        raise ToolMissing(
            f"neither {' nor '.join(names)} is installed, which a backup of {db.shown(url)} needs: "
            "install the client programs of MariaDB or MySQL (mariadb-client, default-mysql-client)"
        )
    options = {"user": url.username, "password": url.password, "host": url.host, "port": url.port}
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="navkeeper-", suffix=".cnf") as file:
        file.write("[client]\n")
        for name, value in options.items():
            if value is not None:
                written = str(value).replace("\\", "\\\\").replace('"', '\\"')
                file.write(f'{name}="{written}"\n')
        file.flush()
        yield [program, f"--defaults-file={file.name}", *_over_tcp(url)]


def _over_tcp(url: URL) -> list[str]:
    """As PyMySQL reaches it: `localhost` would mean a socket file to the tools."""
    return ["--protocol=tcp"] if "unix_socket" not in url.query else [f"--socket={url.query['unix_socket']}"]


def _is_mariadb(program: str) -> bool:
    said = subprocess.run([program, "--version"], capture_output=True, check=False).stdout
    return b"MariaDB" in said


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Whatever stops us stops the program as well."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            process.kill()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise TypeError("the process was started without this pipe")
    return pipe
