"""main.py as an operator types it: results, refusals, exit codes, a bad day."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.engine import URL

from config.settings import ROOT, environment_with
from core import db
from core.schema import (
    data_update_log,
    fund_metrics,
    fund_nav,
    fund_nav_revision,
    job_run,
    money_fund_yield,
    nav_batch,
    quarantine,
    tmp_fund_nav,
)
from core.standin import Market, StandinServer, simulated_market
from core.trading_calendar import library_sessions
from tests.daemon import DaemonProcess, at, until

DAY = date(2025, 11, 27)
FUNDS = 60  # simulated, two of them born after DAY
SHOWN = 58


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(FUNDS, date(2025, 9, 1), DAY + timedelta(days=7), 11, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(DAY, 23, 30)) as server:
        yield server


@pytest.fixture
def shell(sqlite_engine: Engine, standin: StandinServer, tmp_path: Path) -> DaemonProcess:
    """main.py on a ready database, late in the evening of DAY; no daemon runs."""
    return DaemonProcess(sqlite_engine, tmp_path, standin.url, at(DAY, 23, 30))


def main(*words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "main.py"), *words]
    environment = environment_with(**settings)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def count(engine: Engine, *tables: object) -> list[int]:
    with db.read(engine) as connection:
        return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]  # type: ignore[arg-type]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


# What it does


def test_the_steps_by_hand_and_by_both_spellings(shell: DaemonProcess) -> None:
    for words in (["nav"], ["--action", "validate"], ["--action=metrics"]):
        done = shell.main(*words)
        assert done.returncode == 0, done.stderr
        assert "SUCCESS" in done.stdout
        assert done.stderr == ""
    navs, yields, metrics = count(shell.engine, fund_nav, money_fund_yield, fund_metrics)
    assert navs + yields == SHOWN
    assert metrics == SHOWN
    assert shell.update_log(DAY) == [(t, "SUCCESS") for t in ("tmp_fund_nav", "fund_nav", "fund_metrics")]
    assert {run.requested_by.partition(":")[0] for run in shell.runs()} == {"cli"}


def test_all_does_the_three_and_again_changes_nothing(shell: DaemonProcess) -> None:
    assert shell.main("all").returncode == 0
    before = dump(shell.engine)
    assert shell.main("all").returncode == 0
    assert dump(shell.engine) == before
    assert count(shell.engine, fund_nav_revision) == [0]


def dump(engine: Engine) -> list[object]:
    with db.read(engine) as connection:
        return [
            connection.execute(select(table).order_by(*table.primary_key)).all()
            for table in (fund_nav, money_fund_yield, fund_metrics, quarantine)
        ]


def test_history_by_range_and_by_fund(shell: DaemonProcess) -> None:
    done = shell.main("nav", "--from", "2025-11-03", "--to", "2025-11-07", "--json")
    report = json.loads(done.stdout)
    assert (report["action"], report["status"], report["funds"]) == ("backfill", "SUCCESS", SHOWN)
    with db.read(shell.engine) as connection:
        days = (
            connection.execute(select(fund_nav.c.nav_date).distinct().order_by(fund_nav.c.nav_date))
            .scalars()
            .all()
        )
        code, held = connection.execute(
            select(fund_nav.c.fund_code, func.count())
            .group_by(fund_nav.c.fund_code)
            .order_by(func.count().desc())
        ).first()
    assert (days[0], days[-1]) == (date(2025, 11, 3), date(2025, 11, 7))
    [before] = count(shell.engine, fund_nav)
    one = json.loads(shell.main("nav", "--fund", code, "--json").stdout)
    assert one["funds"] == 1
    assert count(shell.engine, fund_nav) == [before + one["inserted"]]
    assert one["unchanged"] == held == 5


def test_an_older_date_is_filled_from_history(shell: DaemonProcess) -> None:
    done = shell.main("nav", "--date", "2025-11-20", "--json")
    assert json.loads(done.stdout)["action"] == "backfill"
    with db.read(shell.engine) as connection:
        assert connection.execute(select(fund_nav.c.nav_date).distinct()).scalars().all() == [
            date(2025, 11, 20)
        ]


def test_validating_twice_is_no_failure(shell: DaemonProcess) -> None:
    assert shell.main("nav").returncode == 0
    assert shell.main("validate").returncode == 0
    again = shell.main("validate")
    assert again.returncode == 0
    assert "nothing new" in again.stdout


@pytest.mark.parametrize("action", ["nav", "validate", "metrics"])
def test_a_dry_run_writes_nothing(shell: DaemonProcess, action: str) -> None:
    assert shell.main("nav").returncode == 0
    if action == "metrics":
        assert shell.main("validate").returncode == 0
    tables = (
        fund_nav,
        money_fund_yield,
        fund_metrics,
        quarantine,
        nav_batch,
        tmp_fund_nav,
        job_run,
        data_update_log,
    )
    before = count(shell.engine, *tables)
    done = shell.main(action, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert count(shell.engine, *tables) == before


def test_weekly_writes_its_report(shell: DaemonProcess) -> None:
    assert shell.main("all").returncode == 0
    assert count(shell.engine, tmp_fund_nav) == [SHOWN]
    shell.set_clock(at(DAY + timedelta(days=40), 12))
    folder = shell.home / "logs" / "weekly"
    folder.write_text("a file in the folder's place")  # what cannot be written costs no run
    done = shell.main("weekly", "--date", str(DAY))
    assert (done.returncode, done.stdout[:7]) == (0, "weekly "), done.stderr
    folder.unlink()
    done = shell.main("weekly", "--date", str(DAY))
    assert done.returncode == 0, done.stderr
    page, text = ((folder / f"{DAY}.{form}").read_text(encoding="utf-8") for form in ("html", "md"))
    assert f"至 {DAY}" in page
    assert f"至 {DAY}" in text


def test_files_are_a_source_and_a_broken_row_is_held_with_file_and_line(
    shell: DaemonProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    text = (
        "基金代码,净值日期,单位净值,累计净值\n000001,2025-11-26,1.2340,3.5670\n000001,2025-11-27,abc,3.5670\n"
    )
    (folder / "navs.csv").write_bytes(text.encode("gbk"))
    done = shell.main("nav", "--from", "2025-11-01", "--source", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    with db.read(shell.engine) as connection:
        [nav] = connection.execute(select(fund_nav)).all()
        [held] = connection.execute(select(quarantine)).all()
    assert (nav.fund_code, nav.nav_date, nav.unit_nav) == ("000001", date(2025, 11, 26), 1.234)
    assert held.origin == "navs.csv:3"
    assert held.reasons == "key_fields"
    assert "abc" in held.raw


def test_doctor_and_status_say_what_is_wrong(shell: DaemonProcess) -> None:
    doctor = shell.main("doctor", "--json")
    checks = {check["name"]: check["ok"] for check in json.loads(doctor.stdout)}
    assert checks.keys() >= {"configuration", "database", "calendar", "daemon", "disk", "source"}
    assert all(checks.values())
    assert doctor.returncode == 0
    status = shell.main("status", "--json")
    assert status.returncode == 1
    assert json.loads(status.stdout)["verdict"]["state"] == "EMPTY"


# What it refuses


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nav", "--date", "2025-11-29"], "2025-11-29 has no NAVs yet"),
        (["nav", "--date", "2025-11-22"], "2025-11-22 is not a trading day; the one before is 2025-11-21"),
        (["metrics", "--date", "yesterday"], "'yesterday' is no date"),
        (["nav", "--fund", "999999"], "--fund 999999: the source knows no such fund"),
        (["metrics", "--fund", "999999"], "--fund 999999 has no NAVs"),
        (["nav", "--from", "2025-11-05", "--to", "2025-11-04"], "--from 2025-11-05 is after --to 2025-11-04"),
        (["nav", "--date", "2025-11-20", "--from", "2025-11-04"], "either --date or --from/--to"),
        (["metrics", "--source", "x"], "--source means nothing to metrics"),
        (["nav", "--source", "/no/such/file.csv"], "/no/such/file.csv"),
    ],
)
def test_a_usage_error_is_named_and_leaves_no_trace(
    shell: DaemonProcess, words: list[str], message: str
) -> None:
    done = shell.main(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert count(shell.engine, job_run, data_update_log, fund_nav) == [0, 0, 0]


def test_a_mistyped_action_is_answered_with_the_right_one() -> None:
    done = main("mertics")
    assert done.returncode == 2
    assert "did you mean metrics?" in one_line(done.stderr)
    nothing = main()
    assert nothing.returncode == 2
    assert "name an action" in nothing.stderr


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "main.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    for action in (
        "init",
        "nav",
        "validate",
        "metrics",
        "weekly",
        "all",
        "scheduler",
        "monitor",
        "health",
        "jobs",
        "runs",
        "backup",
        "restore",
        "doctor",
    ):
        assert action in done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in loaded
    assert (
        loaded & {"pandas", "numpy", "sqlalchemy", "pydantic", "apscheduler", "flask", "rich", "core"}
        == set()
    )


def test_wrong_settings_stop_it_with_78(tmp_path: Path) -> None:
    done = main("status", health_port="http", language="fr")
    assert done.returncode == 78
    assert "NAVKEEPER_HEALTH_PORT = 'http' is not allowed: a whole number from 0 to 65535" in done.stderr
    assert "NAVKEEPER_LANGUAGE = 'fr' is not allowed: 'zh' or 'en'" in done.stderr


def test_a_source_that_is_not_there_is_one_line_with_the_address(shell: DaemonProcess) -> None:
    address = f"http://127.0.0.1:{closed_port()}"
    urls = ("NAVKEEPER_EASTMONEY_FUND_URL", "NAVKEEPER_EASTMONEY_API_URL", "NAVKEEPER_EASTMONEY_QUOTE_URL")
    shell.environment |= dict.fromkeys(urls, address)
    done = shell.main("nav")
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert address in line
    assert "source_unavailable" in line
    assert shell.update_log(DAY) == [("tmp_fund_nav", "FAILURE")]
    assert count(shell.engine, fund_nav, tmp_fund_nav, nav_batch) == [0, 0, 0]


def test_a_changed_format_names_the_field_and_stages_nothing(
    shell: DaemonProcess, standin: StandinServer
) -> None:
    standin.add_fault("missing_column", path="rankhandler", times=None)
    done = shell.main("nav")
    assert done.returncode == 1
    assert "source_changed" in one_line(done.stderr)
    assert count(shell.engine, fund_nav, tmp_fund_nav, nav_batch) == [0, 0, 0]


def test_nothing_published_yet_is_not_a_success(shell: DaemonProcess, standin: StandinServer) -> None:
    standin.set_now(at(DAY, 16))
    done = shell.main("nav")
    assert done.returncode == 1
    assert f"no fund has published for {DAY} yet" in one_line(done.stderr)
    assert count(shell.engine, nav_batch) == [0]


def test_a_thin_reply_is_rejected_whole(shell: DaemonProcess, standin: StandinServer) -> None:
    assert shell.main("all").returncode == 0
    before = dump(shell.engine)
    for path in ("rankhandler", "GetHbRankList"):
        standin.add_fault("thin", path=path, times=None)
    assert shell.main("nav").returncode == 0  # staged, with the doubt written down
    done = shell.main("validate")
    assert done.returncode == 1
    assert "batch_rejected" in done.stderr
    assert dump(shell.engine) == before


def test_a_database_that_is_down_is_one_clear_line(tmp_path: Path) -> None:
    url = URL.create("mysql+pymysql", "user", "p@ss#word", "127.0.0.1", closed_port(), "navkeeper")
    for action in ("nav", "scheduler", "status", "monitor", "init"):
        done = main(action, db_url=url.render_as_string(hide_password=False), home=tmp_path)
        assert done.returncode == 1, action
        assert "127.0.0.1" in one_line(done.stderr)
        assert "word" not in done.stderr


def test_an_outdated_database_says_what_to_run(sqlite_url: URL, tmp_path: Path) -> None:
    engine = db.connect(sqlite_url)
    with db.write(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE fund_nav (fund_code TEXT)")
    engine.dispose()
    done = main("nav", db_url=sqlite_url, home=tmp_path)
    assert done.returncode == 1
    assert "main.py init" in one_line(done.stderr)


def test_an_unwritable_home_is_a_setting_to_mend() -> None:
    done = main("status", home="/proc/nowhere")
    assert done.returncode == 78
    assert "NAVKEEPER_HOME = /proc/nowhere" in one_line(done.stderr)
    relative = main("status", home="somewhere")
    assert relative.returncode == 78
    assert "an absolute path" in one_line(relative.stderr)


def test_small_mistakes_are_named(shell: DaemonProcess) -> None:
    assert "unrecognized arguments: extra" in shell.main("nav", "extra").stderr
    assert "1990-01-01 is before the first trading day" in one_line(
        shell.main("nav", "--date", "1990-01-01").stderr
    )
    assert "--to 2025-01-01 needs --from" in one_line(shell.main("nav", "--to", "2025-01-01").stderr)
    assert main("help").returncode == 0
    assert main("--version").stdout.startswith("NavKeeper ")
    assert "did you mean MYSQL_PASSWORD?" in one_line(
        subprocess.run(
            [sys.executable, str(ROOT / "main.py"), "status"],
            env=environment_with() | {"MYSQL_PASWORD": "x"},
            capture_output=True,
            text=True,
            check=False,
        ).stderr
    )


def test_a_file_of_nothing_believable_is_a_failure(shell: DaemonProcess, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("code,date,nav\n000001,2025-11-26,-1\n000001,2025-11-27,-2\n", encoding="utf-8")
    done = shell.main("nav", "--from", "2025-11-01", "--source", str(file), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["reason"] == "2 of 2 rows quarantined"


def test_a_backfill_is_dated_by_its_end(shell: DaemonProcess) -> None:
    assert shell.main("nav", "--from", "2025-11-03", "--to", "2025-11-07").returncode == 0
    assert shell.update_log(date(2025, 11, 7)) == [("fund_nav", "SUCCESS")]


# A bad day


def test_ctrl_c_leaves_an_interrupted_run_and_frees_the_job(
    shell: DaemonProcess, standin: StandinServer
) -> None:
    standin.add_fault("stall", path="rankhandler", times=1)
    process = started_nav(shell, standin)
    process.send_signal(signal.SIGINT)
    _out, talk = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in talk
    assert shell.states(DAY) == {"collect": "INTERRUPTED"}
    standin.clear_faults()
    assert shell.main("nav").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_ends_it_like_ctrl_c(
    shell: DaemonProcess, standin: StandinServer, number: signal.Signals
) -> None:
    standin.add_fault("stall", path="rankhandler", times=1)
    process = started_nav(shell, standin)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert shell.states(DAY) == {"collect": "INTERRUPTED"}


def test_a_second_terminal_is_told_who_runs(shell: DaemonProcess, standin: StandinServer) -> None:
    standin.add_fault("stall", path="rankhandler", times=1)
    process = started_nav(shell, standin)
    second = shell.main("nav")
    assert second.returncode == 3
    assert f"pid {process.pid}" in one_line(second.stderr)
    standin.clear_faults()
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_killed_run_does_not_hold_the_job_for_ever(shell: DaemonProcess, standin: StandinServer) -> None:
    standin.add_fault("stall", path="rankhandler", times=1)
    process = started_nav(shell, standin)
    process.kill()
    process.communicate()
    standin.clear_faults()
    assert shell.main("nav").returncode == 0
    assert [run.status for run in shell.runs()] == ["INTERRUPTED", "SUCCESS"]


def started_nav(shell: DaemonProcess, standin: StandinServer) -> subprocess.Popen[str]:
    """`main.py nav`, waiting for its first answer."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), "nav"],
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: standin.requests.total(), bool, "the first request")
    return process
