"""Plugins beside each other, and a new version that comes while the daemon works."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, insert, inspect, select

from config.settings import ROOT
from core import backup, db
from core.errors import UsageError
from scheduler import plugin_store, subscriptions
from scheduler.job import PENDING
from scheduler.plugin import Plugin
from scheduler.plugin_probe import manifest_of
from scheduler.task_catalogue import find as find_task
from tests.conftest import NOW
from tests.daemon import DaemonProcess, at, until

DAY = date(2025, 11, 27)
SECRET = "s3cr3t-of-the-plugin"
VERSION = """
import sqlalchemy as sa
from scheduler.plugin import Plugin, Subscriber

METADATA = sa.MetaData()
HEARD = sa.Table("growing_heard", METADATA, sa.Column("id", sa.Integer, primary_key=True))


def hear(connection, event):
    connection.execute(sa.insert(HEARD).values(id=event.id))


def one(op):
    op.create_table("growing_heard", sa.Column("id", sa.Integer, primary_key=True))


def two(op):
    op.create_table("growing_more", sa.Column("id", sa.Integer, primary_key=True))


PLUGIN = Plugin(
    id="growing", version="MIGRATIONS", name="Growing", description="", tasks=(),
    tables=METADATA, migrations=(one, two)[:MIGRATIONS],
    subscribers=(Subscriber("growing.hear", ("growing.*",), hear),),
)
"""


def with_table(plugin: str, table: str) -> Plugin:
    tables = sa.MetaData()
    sa.Table(table, tables, sa.Column("id", sa.Integer, primary_key=True))
    return Plugin(plugin, "1.0", plugin, "", (), tables=tables, migrations=(print,))


def test_two_plugins_that_would_have_one_table_are_both_named_and_neither_is_loaded(
    sqlite_engine: Engine,
) -> None:
    offered = {
        "one": with_table("cash", "cash_flow_day"),
        "two": with_table("cash_flow", "cash_flow_day"),
        "three": with_table("cash_flows", "cash_flows_day"),
    }
    with db.write(sqlite_engine) as connection:
        for name, plugin in offered.items():
            plugin_store.save(connection, name, origin="", stamp="", now=NOW, manifest=manifest_of(plugin))
        found = {item.id: (item.state, item.reason or "") for item in plugin_store.plugins(connection)}
    assert found["cash_flows"] == ("DISABLED", "")
    for plugin in ("cash", "cash_flow"):
        state, reason = found[plugin]
        assert state == "FAILED"
        assert "have a table cash_flow_day" in reason
        assert "one" in reason
        assert "two" in reason


@pytest.mark.parametrize(
    "plugin", ["run", "data", "quality", "job", "funds", "fund", "event", "alert", "plugin"]
)
def test_what_would_be_taken_for_ours_is_refused(sqlite_engine: Engine, plugin: str) -> None:
    with db.write(sqlite_engine) as connection:
        manifest = manifest_of(Plugin(plugin, "1.0", "x", "", ()))
        plugin_store.save(connection, "x", origin="", stamp="", now=NOW, manifest=manifest)
        [found] = plugin_store.plugins(connection)
    assert (found.state, f"the id {plugin} is taken" in str(found.reason)) == ("FAILED", True)


@pytest.mark.parametrize(
    "wrong", ["", "a", "A1", "1a", "a-b", "a.b", "a b", "a\u200bb", "aа", "a;drop table job", "x" * 33, "a\n"]
)
def test_an_id_is_plain_letters(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        Plugin(wrong, "1.0", "x", "", ())


@pytest.mark.parametrize(
    "task", ["nobody.task", "nobody.'; DROP TABLE job; --", "no\u200bbody.task", "." * 200]
)
def test_a_task_of_a_plugin_that_is_not_there_is_said_to_be_that(sqlite_engine: Engine, task: str) -> None:
    with db.read(sqlite_engine) as connection, pytest.raises(UsageError, match="NAVKEEPER_PLUGINS"):
        find_task(connection, task)


def test_a_new_version_has_its_tables_before_its_subscriber_is_called(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("NAVKEEPER_PLUGINS", "growing_module")

    def install(migrations: int) -> None:
        (folder / "growing_module.py").write_text(
            VERSION.replace("MIGRATIONS", str(migrations)) + "#" * migrations, encoding="utf-8"
        )

    def look() -> None:
        subprocess.run([sys.executable, "-m", "scheduler.plugin_check"], cwd=ROOT, check=True, timeout=120)

    install(1)
    words = [sys.executable, str(ROOT / "main.py"), "plugins", "enable", "growing"]
    subprocess.run(words, check=True, timeout=120)
    assert subscriptions.subscribers(engine).keys() == {"growing.hear"}
    install(2)
    with db.write(engine) as connection:  # as far as a check comes that is killed in between
        known = next(iter(plugin_store.plugins(connection)))
        manifest = {**known.manifest, "migrations": 2}
        stamp = plugin_store.stamps(connection)["growing_module"]
        plugin_store.save(connection, "growing_module", origin="", stamp=stamp, now=NOW, manifest=manifest)
        assert [item.id for item in plugin_store.behind(connection)] == ["growing"]
    assert subscriptions.subscribers(engine) == {}
    look()
    assert subscriptions.subscribers(engine).keys() == {"growing.hear"}
    assert {"growing_heard", "growing_more"} <= set(inspect(engine).get_table_names())


@pytest.fixture
def house(sqlite_engine: Engine, tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon with a sound plugin that is on, and a secret."""
    jobs = tmp_path / "jobs.toml"
    jobs.write_text('[idle]\ntask = "size_watch"\ncron = { month = 6, day = 1 }\n', encoding="utf-8")
    process = DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:1", at(DAY, 10), jobs)
    process.environment |= {
        "NAVKEEPER_PLUGINS": "tests.zoo.sound",
        "NAVKEEPER_LANGUAGE": "en",
        "NAVKEEPER_SECRETS": json.dumps({"key": SECRET}),
        "PYTHONPATH": str(ROOT),
    }
    said = process.main("plugins", "enable", "sound")
    assert said.returncode == 0, said.stderr
    with process:
        yield process


def ended(process: DaemonProcess, job: str) -> Any:
    def newest() -> Any:
        return next((row for row in reversed(process.runs()) if row.job_id == job), None)

    return until(newest, lambda row: row is not None and row.status not in PENDING, f"the end of {job}")


def test_what_runs_goes_on_while_its_job_is_deleted_and_its_plugin_switched_off(
    house: DaemonProcess, tmp_path: Path
) -> None:
    params = json.dumps({"text": "x", "count": 3, "until": str(tmp_path / "go")})
    made = house.main(
        "jobs", "create", "marks", "--task", "sound.mark", "--on", "sound.never", "--params", params
    )
    assert made.returncode == 0, made.stderr
    until(lambda: house.main("jobs", "trigger", "marks"), lambda done: done.returncode == 0, "the trigger")
    until(house.runs, lambda rows: bool(rows) and rows[-1].status == "RUNNING", "the run")
    assert house.main("jobs", "delete", "marks").returncode == 0
    assert house.main("plugins", "disable", "sound").returncode == 0
    (tmp_path / "go").touch()
    run = ended(house, "marks")
    with db.read(house.engine) as connection:
        marks = connection.scalar(sa.select(sa.func.count()).select_from(sa.table("sound_mark")))
    assert (run.status, marks) == ("SUCCESS", 3)
    refused = house.main("tasks", "run", "sound.mark", "--param", "text=y")
    assert (refused.returncode, "main.py plugins enable sound" in refused.stderr) == (2, True)
    assert house.main("jobs", "trigger", "marks").returncode == 2


def test_no_secret_is_left_anywhere(house: DaemonProcess, tmp_path: Path) -> None:
    assert house.main("tasks", "run", "sound.secret").returncode == 0
    run = ended(house, "sound.secret")
    assert (run.status, run.reason) == ("PARTIAL", "could not ask with ***")
    replies = [
        house.main(*words).stdout
        for words in (
            ("runs", "show", str(run.id)),
            ("runs", "log", str(run.id)),
            ("events", "--json"),
            ("plugins",),
        )
    ]
    assert "the secret is ***" in replies[1]
    assert all(reply and SECRET not in reply for reply in replies)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_a_backup_holds_the_tables_of_plugins(engine: Engine, tmp_path: Path) -> None:
    tables = with_table("cash", "cash_day").tables
    assert tables is not None
    tables.create_all(engine)
    table = tables.tables["cash_day"]
    with db.write(engine) as connection:
        connection.execute(insert(table), [{"id": number} for number in range(1, 6)])
    made = backup.make(engine, tmp_path / "backups", NOW, lambda _done, _what: None)
    assert made.manifest.counts["cash_day"] == 5
    with db.write(engine) as connection:
        connection.execute(table.delete())
    backup.restore(made.path, engine, lambda _done, _what: None)
    with db.read(engine) as connection:
        assert connection.scalars(select(table.c.id).order_by(table.c.id)).all() == [1, 2, 3, 4, 5]
