"""What the doctor finds: a fresh install is well, and each trouble is a line that says what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert
from sqlalchemy.engine import URL

from config.settings import Settings, load_settings
from core import db
from core.schema import daemon
from scheduler.doctor import doctor
from scheduler.process_identity import Process, this_process

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)  # 20:00 in Shanghai
Checks = dict[str, tuple[bool, str]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home of its own, and a source that answers without a network."""
    navs = tmp_path / "navs.csv"
    navs.write_text("基金代码,净值日期,单位净值\n000001,2026-01-30,1.5\n", encoding="utf-8")
    return load_settings(tmp_path / "none.env", home=tmp_path / "home", source=str(navs))


def examined(engine: Engine, settings: Settings, capsys: pytest.CaptureFixture[str]) -> tuple[int, Checks]:
    """Exit code, and what each check says."""
    code = doctor(engine, settings, NOW, as_json=True)
    found = json.loads(capsys.readouterr().out)
    return code, {check["name"]: (check["ok"], check["text"]) for check in found}


def add_daemon(
    engine: Engine, process: Process, *, seconds_ago: int = 3, stopped: datetime | None = None
) -> None:
    with db.write(engine) as connection:
        connection.execute(
            insert(daemon).values(
                id=1,
                host=process.host,
                pid=process.pid,
                pid_started=process.started,
                started_at=NOW - timedelta(hours=1),
                heartbeat_at=NOW - timedelta(seconds=seconds_ago),
                stopped_at=stopped,
            )
        )


def test_a_fresh_install_is_well(
    sqlite_engine: Engine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    code, checks = examined(sqlite_engine, settings, capsys)
    assert [name for name, (ok, _text) in checks.items() if not ok] == []
    assert code == 0
    assert checks["daemon"][1].startswith("not started yet on this database; start it: nohup python")
    assert checks["home"][1] == str(settings.home)
    assert checks["source"][1].endswith("1 funds listed")


def test_a_line_per_check(
    sqlite_engine: Engine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(sqlite_engine, settings, NOW, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"{level} {name}"
        for name, level in {
            "configuration": "ok  ",
            "home": "ok  ",
            "database": "ok  ",
            "calendar": "ok  ",
            "daemon": "warn",
            "lock": "ok  ",
            "clock": "ok  ",
            "disk": "ok  ",
            "source": "ok  ",
            "alerts": "warn",
            "plugins": "ok  ",
        }.items()
    ]


def test_a_running_daemon_is_well(
    sqlite_engine: Engine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = this_process()
    add_daemon(sqlite_engine, mine)
    code, checks = examined(sqlite_engine, settings, capsys)
    assert (code, checks["daemon"]) == (0, (True, f"pid {mine.pid} on {mine.host}, last beat 3 s ago"))


def test_a_daemon_that_died_is_bad_at_once(
    sqlite_engine: Engine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = this_process()
    add_daemon(sqlite_engine, Process(mine.host, mine.pid, "another boot:1"))
    code, checks = examined(sqlite_engine, settings, capsys)
    ok, text = checks["daemon"]
    assert (code, ok) == (1, False)
    assert text.startswith(f"pid {mine.pid} on {mine.host} died, its last beat was at 2026-01-31 19:59:57; ")
    assert "nohup python scheduler/run_scheduler.py &" in text


@pytest.mark.parametrize(
    ("seconds_ago", "stopped", "says"),
    [
        (3, NOW, "was stopped at 2026-01-31 19:59:57"),
        (61, None, "last beat 61 s ago"),
        (-61, None, "its clock is off"),
    ],
)
def test_a_daemon_that_is_stopped_or_silent_is_bad(
    sqlite_engine: Engine,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    seconds_ago: int,
    stopped: datetime | None,
    says: str,
) -> None:
    add_daemon(sqlite_engine, Process("elsewhere", 4321, "x"), seconds_ago=seconds_ago, stopped=stopped)
    code, checks = examined(sqlite_engine, settings, capsys)
    assert (code, checks["daemon"][0]) == (1, False)
    assert says in checks["daemon"][1]


@pytest.mark.parametrize("home", ["/proc/nowhere", "{file}/home", "{file}", "/" + 300 * "x"])
def test_an_impossible_home_is_named(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], home: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    wrong = settings.model_copy(update={"home": Path(home.format(file=file)), "db_url": None})
    code, checks = examined(db.connect(wrong.database_url()), wrong, capsys)
    assert code == 1
    ok, text = checks["home"]
    assert not ok
    assert text.startswith(f"NAVKEEPER_HOME = {wrong.home} cannot be written: ")
    assert not checks["database"][0]
    assert checks["source"][0]  # the rest is looked at all the same


def test_an_empty_database_says_what_to_run(
    settings: Settings, sqlite_url: URL, capsys: pytest.CaptureFixture[str]
) -> None:
    code, checks = examined(db.connect(sqlite_url), settings, capsys)
    assert (code, checks["database"][0]) == (1, False)
    assert "run: python main.py init" in checks["database"][1]
    assert "daemon" not in checks


@pytest.mark.parametrize(
    ("source", "hint"),
    [("eastmony", True), ("EastMoney", True), ("eastmoney.com", True), ("/data/navs.csv", False)],
)
def test_a_mistyped_source_is_guessed(
    sqlite_engine: Engine, settings: Settings, capsys: pytest.CaptureFixture[str], source: str, hint: bool
) -> None:
    code, checks = examined(sqlite_engine, settings.model_copy(update={"source": source}), capsys)
    ok, text = checks["source"]
    assert (code, ok) == (1, False)
    assert text.startswith(f"NAVKEEPER_SOURCE = {source!r}: ")
    assert text.endswith("; did you mean eastmoney?") == hint
