"""Backup and restore: of a night half done, beside writers, of what is damaged, too new or in use."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, func, insert, select, text

from config.settings import ROOT
from core import backup, db, mysql_backup
from core.backup_file import Manifest, add_manifest, name_of, read_manifest
from core.column_types import Instant
from core.errors import BackupUnusable
from core.initialise import initialise
from core.schema import fund_nav, metadata, money_fund_yield
from core.standin import StandinServer, simulated_market
from core.trading_calendar import library_sessions
from tests.conftest import NOW, _new_database
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until

DAY = date(2025, 11, 27)  # a Thursday; no holiday near
OF_RUNS = (
    "job_run",
    "run_attempt",
    "run_event",
    "event_order",
    "data_update_log",
    "daemon",
    "nav_version",
    "alert",
    "alert_delivery",
)


def silent(_done: int, _text: str) -> None:
    """For backups nobody watches."""


def elsewhere(engine: Engine, tmp_path: Path) -> URL:
    """An empty place for a database of the same kind."""
    if engine.dialect.name == "sqlite":
        return URL.create("sqlite", database=str(tmp_path / "elsewhere" / "navkeeper.db"))
    return _new_database(engine.url.set(database=None))


def spelled(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def main(engine: Engine, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NAVKEEPER_DB_URL": spelled(engine.url), "NAVKEEPER_LANGUAGE": "en"}
    command = [sys.executable, str(ROOT / "main.py"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def contents(engine: Engine) -> dict[str, list[Any]]:
    """Every row of what nights make, without instants."""
    found = {}
    with db.read(engine) as connection:
        for table in metadata.sorted_tables:
            if table.name not in OF_RUNS:
                columns = [column for column in table.columns if not isinstance(column.type, Instant)]
                rows = connection.execute(select(*columns).order_by(*table.primary_key.columns))
                found[table.name] = [tuple(row) for row in rows]
    return found


@pytest.fixture
def standin() -> Iterator[StandinServer]:
    market = simulated_market(40, date(2025, 8, 1), DAY + timedelta(days=7), 7, library_sessions())
    with StandinServer(market, now=at(DAY, 23, 30)) as server:
        yield server


def finish(process: DaemonProcess) -> None:
    process.set_clock(at(DAY, 21))
    process.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})


def test_a_night_backed_up_half_done_and_restored_elsewhere_ends_like_any_other(
    engine: Engine, standin: StandinServer, tmp_path: Path
) -> None:
    jobs = jobs_file(tmp_path, without=SWEEPS)
    undisturbed = db.connect(elsewhere(engine, tmp_path))
    if undisturbed.dialect.name == "sqlite":
        Path(str(undisturbed.url.database)).parent.mkdir()
    initialise(undisturbed, NOW)
    (tmp_path / "a").mkdir()
    with DaemonProcess(undisturbed, tmp_path / "a", standin.url, at(DAY, 18), jobs) as process:
        finish(process)
    standin.add_fault("stall", path="rankhandler", times=1)
    with DaemonProcess(engine, tmp_path, standin.url, at(DAY, 18), jobs) as process:
        process.set_clock(at(DAY, 19))
        standin.requests.clear()
        until(lambda: standin.requests.total(), bool, "the collection's request")
        process.reach(DAY, {"collect": "RUNNING"})
        done = process.main("backup", "--json")
        assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["what"], made["tried"]) == ("made", True)
    restored_url = (
        URL.create("sqlite", database=str(tmp_path / "third" / "navkeeper.db"))
        if engine.dialect.name == "sqlite"
        else elsewhere(engine, tmp_path)
    )
    done = main(engine, "restore", made["path"], "--to", spelled(restored_url))
    assert done.returncode == 0, done.stderr
    restored = db.connect(restored_url)
    (tmp_path / "b").mkdir()
    with DaemonProcess(restored, tmp_path / "b", standin.url, at(DAY, 19, 5), jobs) as process:
        [run] = [run for run in process.runs(DAY) if run.job_id == "collect"]
        assert run.reason == "it was at work when the backup was made"
        finish(process)
    assert contents(restored) == contents(undisturbed)
    assert len(contents(restored)["fund_nav"]) > 20
    undisturbed.dispose()
    restored.dispose()


def test_a_backup_beside_a_writer_is_of_one_moment(engine: Engine, tmp_path: Path) -> None:
    """Each transaction adds a row to two tables: a backup has as many of one as of the other, and none waits long."""
    stop, written = threading.Event(), 0
    longest = timedelta()

    def write() -> None:
        nonlocal written, longest
        while not stop.is_set():
            began = datetime.now(UTC)
            code = f"{written:06d}"
            with db.write(engine) as connection:
                connection.execute(
                    insert(fund_nav).values(fund_code=code, nav_date=DAY, unit_nav=1.5, batch_id=1)
                )
                connection.execute(
                    insert(money_fund_yield).values(fund_code=code, nav_date=DAY, yield_7d=1.5, batch_id=1)
                )
            written += 1
            longest = max(longest, datetime.now(UTC) - began)

    with db.write(engine) as connection:  # enough that a copy takes many steps
        rows = [(f"{n % 2000:06d}", f"19{n // 2000 + 10:02d}-01-01", 1.5, 1) for n in range(160_000)]
        db.bulk_insert(connection, fund_nav, ("fund_code", "nav_date", "unit_nav", "batch_id"), rows)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        until(lambda: written, lambda found: found > 10, "the writer's first rows")
        before = written
        made = backup.make(engine, tmp_path / "backups", NOW, silent)
        after = written
    finally:
        stop.set()
        thread.join()
    counts = made.manifest.counts
    assert counts["fund_nav"] - 160_000 == counts["money_fund_yield"]
    assert before <= counts["money_fund_yield"] <= after
    assert after > before  # it went on meanwhile
    assert longest < timedelta(seconds=5)
    assert [path.name for path in (tmp_path / "backups").iterdir()] == [made.path.name]


def test_restore_asks_before_it_overwrites(engine: Engine, tmp_path: Path) -> None:
    made = backup.make(engine, tmp_path / "backups", NOW, silent)
    with db.write(engine) as connection:
        connection.execute(insert(fund_nav).values(fund_code="000001", nav_date=DAY, unit_nav=1, batch_id=1))
    engine.dispose()
    done = main(engine, "restore", str(made.path))
    assert (done.returncode, "has tables; all in them would be lost: say --yes" in done.stderr) == (2, True)
    with db.read(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(fund_nav)) == 1
    engine.dispose()
    done = main(engine, "restore", str(made.path), "--yes")
    assert (done.returncode, done.stdout.startswith("restored: ")) == (0, True), done.stderr
    with db.read(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(fund_nav)) == 0
        assert db.revision(connection) == db.newest_revision()


def test_restore_leaves_a_database_alone_that_a_daemon_leads_on(
    engine: Engine, standin: StandinServer, tmp_path: Path
) -> None:
    made = backup.make(engine, tmp_path / "backups", NOW, silent)
    now = datetime.now(UTC)  # as the restoring process has it
    with DaemonProcess(engine, tmp_path, standin.url, now, jobs_file(tmp_path, without=SWEEPS)):
        done = main(engine, "restore", str(made.path), "--yes")
    assert done.returncode == 3, done.stderr
    assert "stop it first" in done.stderr


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9, 1.0])
def test_a_damaged_backup_is_named_and_overwrites_nothing(
    engine: Engine, tmp_path: Path, where: float
) -> None:
    made = backup.make(engine, tmp_path / "backups", NOW, silent)
    whole = made.path.read_bytes()
    damaged = tmp_path / made.path.name
    at_byte = int((len(whole) - 1) * where)
    for content in (whole[:at_byte], whole[:at_byte] + bytes([whole[at_byte] ^ 0xFF]) + whole[at_byte + 1 :]):
        damaged.write_bytes(content)
        engine.dispose()
        done = main(engine, "restore", str(damaged), "--yes")
        assert done.returncode in (1, 2), (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        with db.read(engine) as connection:
            assert db.revision(connection) == db.newest_revision()


def test_a_backup_that_lacks_rows_is_no_backup(engine: Engine, tmp_path: Path) -> None:
    """Sound as a file, and still not what its manifest says."""
    made = backup.make(engine, tmp_path / "backups", NOW, silent)
    known = read_manifest(made.path)
    counts = known.counts | {"fund_nav": 1}
    add_manifest(made.path, Manifest(known.kind, known.schema, known.made_at, known.size, counts))
    with pytest.raises(BackupUnusable, match="fund_nav has 0 rows, and should have 1"):
        backup.check(made.path, engine, tmp_path, silent)


def test_a_backup_of_a_newer_schema_or_of_another_kind_is_refused(engine: Engine, tmp_path: Path) -> None:
    made = backup.make(engine, tmp_path / "backups", NOW, silent)
    known = read_manifest(made.path)
    for kind, schema, why in (
        (known.kind, "9999", "install a newer NavKeeper"),
        ("mysql" if known.kind == "sqlite" else "sqlite", known.schema, "a database of its kind"),
    ):
        add_manifest(made.path, Manifest(kind, schema, known.made_at, known.size, known.counts))
        done = main(engine, "restore", str(made.path), "--yes")
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr


def test_backups_are_listed_and_checked(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for _ in range(1):
        assert main(engine, "backup", "--out", str(folder)).returncode == 0
    (folder / name_of("sqlite", "0001", NOW)).write_bytes(b"no backup")
    done = main(engine, "backup", "--out", str(folder), "--list")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert "is no backup of NavKeeper" in done.stdout.splitlines()[1]
    path = done.stdout.split("  ")[0]
    done = main(engine, "backup", "--check", path)
    assert (done.returncode, done.stdout.startswith(f"sound: {path}")) == (0, True), done.stderr


def test_a_process_killed_while_it_restores_leaves_the_old_database(
    sqlite_engine: Engine, tmp_path: Path
) -> None:
    with db.write(sqlite_engine) as connection:
        rows = [(f"{n % 2000:06d}", f"19{n // 2000 + 10:02d}-01-01", 1.5, 1) for n in range(160_000)]
        db.bulk_insert(connection, fund_nav, ("fund_code", "nav_date", "unit_nav", "batch_id"), rows)
    made = backup.make(sqlite_engine, tmp_path / "backups", NOW, silent)
    with db.write(sqlite_engine) as connection:
        connection.execute(insert(fund_nav).values(fund_code="1", nav_date=DAY, unit_nav=1, batch_id=1))
    sqlite_engine.dispose()
    fresh = tmp_path / ".navkeeper.db.restored"
    command = [sys.executable, str(ROOT / "main.py"), "restore", str(made.path), "--yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(fresh.exists, bool, "the file beside the database")
        process.send_signal(signal.SIGKILL)
    with db.read(sqlite_engine) as connection:
        assert connection.scalar(select(func.count()).select_from(fund_nav)) == 160_001
    sqlite_engine.dispose()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    with db.read(sqlite_engine) as connection:
        assert connection.scalar(select(func.count()).select_from(fund_nav)) == 160_000


def test_a_broken_sqlite_file_is_kept_beside_what_is_restored(sqlite_engine: Engine, tmp_path: Path) -> None:
    made = backup.make(sqlite_engine, tmp_path / "backups", NOW, silent)
    sqlite_engine.dispose()
    database = Path(str(sqlite_engine.url.database))
    database.write_bytes(b"broken " * 1000)
    assert main(sqlite_engine, "restore", str(made.path)).returncode == 2
    assert main(sqlite_engine, "restore", str(made.path), "--yes").returncode == 0
    assert Path(f"{database}.broken").read_bytes().startswith(b"broken ")
    with db.read(sqlite_engine) as connection:
        assert db.revision(connection) == db.newest_revision()


def test_who_reads_the_old_file_keeps_it_from_being_replaced(sqlite_engine: Engine, tmp_path: Path) -> None:
    made = backup.make(sqlite_engine, tmp_path / "backups", NOW, silent)
    with closing(sqlite3.connect(str(sqlite_engine.url.database))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM fund_nav").fetchone()
        done = main(sqlite_engine, "restore", str(made.path), "--yes")
    assert (done.returncode, "another process has" in done.stderr) == (3, True), done.stderr


def test_without_the_right_to_a_trial_the_text_is_checked(mariadb_engine: Engine, tmp_path: Path) -> None:
    """And a password may hold what option files give a meaning."""
    name, secret = mariadb_engine.url.database, "a'b\"c\\d#e ;"
    with mariadb_engine.connect() as connection:
        connection.execute(
            text(f"CREATE OR REPLACE USER keeper@localhost IDENTIFIED BY {json.dumps(secret)}")
        )
        connection.execute(text(f"GRANT ALL ON {name}.* TO keeper@localhost"))
    engine = db.connect(mariadb_engine.url.set(username="keeper", password=secret))
    made = backup.make(engine, tmp_path / "backups", NOW, silent)
    assert not made.tried
    with engine.connect() as connection:
        assert made.manifest.counts["trade_calendar"] == connection.scalar(
            text("SELECT count(*) FROM trade_calendar")
        )
    engine.dispose()


def test_without_the_tools_it_says_which(mariadb_engine: Engine, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = main(mariadb_engine, "backup")
    assert done.returncode == 1
    assert "neither mariadb-dump nor mysqldump is installed" in done.stderr


def test_rows_are_counted_in_both_ways_that_dumps_are_written() -> None:
    lines = [
        b"INSERT INTO `a` VALUES\n",
        b"(1,'x'),\n",
        b"(2,'(3),(4)');\n",
        b"INSERT INTO `b` VALUES (1,'it''s),(\\'),('),(2,NULL),(3,'');\n",
        b"INSERT INTO `c` (`x`, `y`) VALUES\n",
        b"(1,2);\n",
        b"(no row)\n",
    ]
    found = [(name, rows) for _line, name, rows in mysql_backup.counted(lines) if name]
    assert found == [("a", 1), ("a", 1), ("b", 3), ("c", 1)]


def test_the_newest_of_seven_days_four_weeks_and_six_months_are_kept() -> None:
    """By hand: a backup at 05:30 Shanghai on each day from 1 January to 30 June 2026, a Tuesday."""
    first = datetime(2025, 12, 31, 21, 30, tzinfo=UTC)
    paths = [Path(name_of("sqlite", "0008", first + timedelta(days=n))) for n in range(181)]
    gone = backup.dispensable([*paths, Path("notes.txt")])
    kept = sorted(
        f"{backup.backup_file.made_at(path).astimezone(at(DAY, 1).tzinfo):%m-%d}"
        for path in set(paths) - set(gone)
    )
    assert kept == sorted(
        [
            *("06-24", "06-25", "06-26", "06-27", "06-28", "06-29", "06-30"),
            *("06-21", "06-14"),  # Sundays, before 06-28 and 06-30
            *("01-31", "02-28", "03-31", "04-30", "05-31"),
        ]
    )
