"""`main.py jobs` and `main.py runs` as an operator types them, with the real daemon and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from config.settings import ROOT
from core import db
from core.schema import job_command, job_pause, job_run
from core.standin import Market, StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler import commands
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until

DAY = date(2025, 11, 27)  # a Thursday; no holiday near
FUNDS = 40


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(FUNDS, date(2025, 9, 1), DAY + timedelta(days=7), 7, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(DAY, 23, 30)) as server:
        yield server


@pytest.fixture
def shell(sqlite_engine: Engine, tmp_path: Path) -> DaemonProcess:
    """main.py in the evening of DAY; no daemon runs."""
    found = DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at(DAY, 18))
    return in_english(found)


@pytest.fixture
def night(engine: Engine, standin: StandinServer, tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon started in the afternoon of DAY."""
    jobs = jobs_file(tmp_path, without=SWEEPS)
    with DaemonProcess(engine, tmp_path, standin.url, at(DAY, 18), jobs) as process:
        yield in_english(process)


def in_english(process: DaemonProcess) -> DaemonProcess:
    process.environment["NAVKEEPER_LANGUAGE"] = "en"
    process.environment.pop("COLUMNS", None)  # nothing is cut or wrapped
    return process


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line on stderr of a command that ended with `code`."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
    return done.stderr


def asked(engine: Engine) -> list[tuple[str, str]]:
    with db.read(engine) as connection:
        rows = connection.execute(select(job_command).order_by(job_command.c.id)).all()
    return [(row.action, row.status) for row in rows]


# With the daemon


def test_every_command_is_answered_and_kept(night: DaemonProcess, standin: StandinServer) -> None:
    standin.add_fault("missing_column", path="rankhandler", times=None)
    paused = night.main("jobs", "pause", "collect")
    assert (paused.returncode, paused.stdout.partition(";")[0]) == (0, "collect is paused"), paused.stderr
    [run] = lines(night.main("jobs", "trigger", "collect", "--json"))
    assert (run["status"], run["answer"]) == ("DONE", f"run {run['run_id']} queued: collect for {DAY}")
    night.reach(DAY, {"collect": "FAILED"})
    standin.clear_faults()
    again = night.main("runs", "retry", str(run["run_id"]))
    assert again.stdout == f"run {run['run_id']} queued again: collect for {DAY}\n"
    night.reach(DAY, {"collect": "SUCCESS"})
    over = refused(night.main("runs", "cancel", str(run["run_id"])), 2)
    assert over == f"runs: run {run['run_id']} is over: SUCCESS; there is nothing to cancel\n"
    wrong = night.main("jobs", "trigger", "metrics", "--param", "funds=1", "--json")
    assert (wrong.returncode, json.loads(wrong.stdout)["status"]) == (2, "REFUSED")
    assert "It has: fund_codes" in wrong.stderr
    assert night.main("jobs", "resume", "collect").returncode == 0
    who = [(item["action"], item["status"]) for item in lines(night.main("jobs", "history", "--json"))]
    assert who == asked(night.engine)[::-1]
    assert [status for _action, status in who[::-1]] == ["DONE", "DONE", "DONE", "REFUSED", "REFUSED", "DONE"]
    [scheduled] = [run for run in night.runs(DAY) if run.job_id == "collect"]
    assert scheduled.requested_by.startswith("cli:")  # the schedule has not been touched


def test_parameters_reach_the_task(night: DaemonProcess) -> None:
    assert night.main("jobs", "trigger", "collect").returncode == 0
    night.reach(DAY, {"collect": "SUCCESS"})
    assert night.main("jobs", "trigger", "validate", "--param", "force=true").returncode == 0
    night.reach(DAY, {"validate": "SUCCESS"})
    words = ["jobs", "trigger", "metrics", "--date", "2025-11-26", "--param", 'fund_codes=["999999"]']
    assert night.main(*words).returncode == 0
    day = date(2025, 11, 26)
    night.reach(day, {"metrics": "FAILED"})  # there is no such fund
    [run] = night.runs(day)
    assert (run.params, run.scheduled_for) == ('{"fund_codes": ["999999"]}', None)


def test_pause_survives_a_restart(night: DaemonProcess) -> None:
    assert night.main("jobs", "pause", "collect").returncode == 0
    night.start()
    night.set_clock(at(DAY, 19, 31))
    night.reach(DAY, {"validate": "WAITING"})
    assert "collect" not in night.states(DAY)
    night.set_clock(at(DAY, 20, 31))
    night.reach(DAY, {"metrics": "WAITING"})
    assert "collect" not in night.states(DAY)
    assert night.main("jobs", "resume", "collect").returncode == 0
    night.reach(DAY, {"collect": "SUCCESS", "validate": "SUCCESS", "metrics": "SUCCESS"})


def test_cancelling_a_run_leaves_no_process_and_frees_its_job(
    night: DaemonProcess, standin: StandinServer
) -> None:
    standin.add_fault("stall", path="rankhandler", times=1)
    assert night.main("jobs", "trigger", "collect").returncode == 0
    night.reach(DAY, {"collect": "RUNNING"})
    until(lambda: standin.requests.total(), bool, "the child's request")
    [run] = night.runs(DAY)
    cancelled = night.main("runs", "cancel", str(run.id))
    assert cancelled.stdout == f"run {run.id} is being ended\n"
    night.reach(DAY, {"collect": "CANCELLED"})
    assert not Path(f"/proc/{run.pid}").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
    [run] = night.runs(DAY)
    assert run.reason.startswith("cancelled by cli:")
    standin.clear_faults()
    assert night.main("jobs", "trigger", "collect").returncode == 0
    night.reach(DAY, {"collect": "SUCCESS"})


def test_what_was_asked_while_nobody_was_there_is_not_done_later(night: DaemonProcess) -> None:
    night.kill()
    with db.write(night.engine) as connection:  # as if the daemon had died this moment
        late = commands.ask(
            connection, action="trigger", requested_by="cli:ann", now=at(DAY, 18), job_id="collect"
        )
    night.set_clock(at(DAY, 18) + timedelta(seconds=31))
    night.start()
    until(
        lambda: asked(night.engine), lambda found: found == [("trigger", "EXPIRED")], f"command {late}'s end"
    )
    assert night.runs() == []


# Without


def test_without_a_daemon_it_says_so_and_nothing_is_done_later(night: DaemonProcess) -> None:
    night.kill()
    for words in (["jobs", "pause", "collect"], ["jobs", "trigger", "collect"], ["runs", "cancel", "1"]):
        said = refused(night.main(*words), 1)
        assert said == f"{words[0]}: no daemon is running; start one: python scheduler/run_scheduler.py\n"
    assert asked(night.engine) == [("pause", "REFUSED"), ("trigger", "REFUSED"), ("cancel", "REFUSED")]
    night.start()
    assert night.main("jobs", "resume", "collect").stdout == "collect is not paused\n"
    assert night.runs() == []


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    environment = os.environ | {"NAVKEEPER_HOME": str(tmp_path / "empty")}
    for words in (["jobs"], ["jobs", "plan"], ["jobs", "pause", "collect"], ["runs"], ["runs", "show", "1"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "there is no such file; run: python main.py init" in refused(done, 1)
    assert not (tmp_path / "empty" / "navkeeper.db").exists()


# Looking


def add_run(engine: Engine, **values: Any) -> int:
    values = {"job_id": "collect", "task": "collect_nav", "business_date": DAY, "status": "SUCCESS"} | values
    values = {"params": "{}", "requested_by": "schedule", "queued_at": at(DAY, 17)} | values
    with db.write(engine) as connection:
        return db.new_id(connection.execute(insert(job_run).values(values)))


def test_jobs_lists_state_next_fire_and_last_run(shell: DaemonProcess) -> None:
    add_run(shell.engine, status="FAILED", reason="source_unavailable: no answer")
    newest = add_run(
        shell.engine, started_at=at(DAY, 17), progress_done=9, progress_total=40, status="RUNNING"
    )
    with db.write(shell.engine) as connection:
        pause = {"job_id": "metrics", "paused_at": at(DAY, 16), "paused_by": "cli:ann"}
        connection.execute(insert(job_pause).values(pause))
    found = {item["job"]: item for item in lines(shell.main("jobs", "--json"))}
    assert list(found)[:3] == ["collect", "validate", "metrics"]
    assert found["collect"]["next_fire"] == "2025-11-27T19:00:00+08:00"
    assert found["collect"]["last_run"]["run"] == newest
    assert found["weekly"]["next_business_date"] == "2025-11-28"
    assert found["metrics"]["paused_since"] == "2025-11-27T16:00:00+08:00"
    assert found["metrics"]["next_fire"] is None
    text = shell.main("jobs").stdout.splitlines()
    assert text[0] == "no daemon is running"
    collect, metrics = text[2].split(), text[4].split()
    assert collect == f"collect in force 2025-11-27 19:00 {newest} 2025-11-27 RUNNING 22.5 % 9/40".split()
    assert metrics[:7] == ["metrics", "paused", "since", "11-27", "16:00", "by", "cli:ann"]


def test_the_plan_says_what_is_skipped_and_why(shell: DaemonProcess) -> None:
    shell.set_clock(at(date(2025, 9, 30), 18))
    found = lines(shell.main("jobs", "plan", "--days", "9", "--job", "collect", "--json"))
    nights = [(item["business_date"], item["status"], item["reason"]) for item in found]
    closed = [f"2025-10-0{day}" for day in (1, 2, 3, 6, 7, 8)]
    assert nights == [
        ("2025-09-30", "QUEUED", None),
        *((day, "SKIPPED", f"{day} is not a trading day") for day in closed),
    ]
    assert found[0]["at"] == "2025-09-30T19:00:00+08:00"
    with db.write(shell.engine) as connection:
        connection.execute(insert(job_pause).values(job_id="weekly", paused_at=at(DAY, 16), paused_by="x"))
    weekly = lines(shell.main("jobs", "plan", "--json", "--job", "weekly"))
    assert [item["reason"] for item in weekly] == ["the job is paused"] * 4  # 5, 12, 19, 26 October
    text = shell.main("jobs", "plan", "--days", "1").stdout.splitlines()
    assert text[1].split() == ["2025-09-30", "18:30", "reference", "2025-09-30", "QUEUED"]
    assert text[2].split() == ["2025-09-30", "19:00", "collect", "2025-09-30", "QUEUED"]
    assert "there is no job 'x'; there are collect" in refused(shell.main("jobs", "plan", "--job", "x"), 2)


def test_the_plan_goes_on_beyond_what_the_exchange_has_announced(shell: DaemonProcess) -> None:
    found = lines(shell.main("jobs", "plan", "--days", "3660", "--job", "collect", "--json"))
    assert found[-1]["at"] == "2035-12-04T19:00:00+08:00"  # ten years are 3,652 days; a Tuesday
    guessed = [item for item in found if item["provisional"]]
    assert (guessed[-1]["status"], guessed[0]["business_date"][5:]) == ("QUEUED", "01-04")
    assert [item["at"] for item in found if item["business_date"] == "2030-01-01"] == [
        "2030-01-01T19:00:00+08:00"
    ]
    assert {item["status"] for item in found if item["business_date"] == "2030-01-01"} == {"SKIPPED"}


def test_runs_are_listed_newest_first_and_chosen(shell: DaemonProcess) -> None:
    first = add_run(shell.engine, status="FAILED")
    second = add_run(shell.engine, job_id="metrics", task="calculate_metrics")
    third = add_run(shell.engine, business_date=date(2025, 11, 26), requested_by="cli:ann")

    def listed(*words: str) -> list[int]:
        return [item["run"] for item in lines(shell.main("runs", "--json", *words))]

    assert listed() == [third, second, first]
    assert listed("--limit", "1") == [third]
    assert listed("--job", "collect") == [third, first]
    assert listed("--job", "collect", "--date", str(DAY)) == [first]
    assert listed("--status", "failed") == [first]
    text = shell.main("runs").stdout.splitlines()
    assert text[1].split() == f"{third} collect 2025-11-26 SUCCESS - - - cli:ann".split()
    assert "there is no status 'x'; there are WAITING, QUEUED" in refused(
        shell.main("runs", "--status", "x"), 2
    )


def test_a_run_is_shown_with_its_attempts_events_and_log(
    night: DaemonProcess, standin: StandinServer
) -> None:
    standin.add_fault("missing_column", path="rankhandler", times=1)
    run = lines(night.main("jobs", "trigger", "collect", "--json"))[0]["run_id"]
    night.reach(DAY, {"collect": "FAILED"})
    assert night.main("runs", "retry", str(run)).returncode == 0
    night.reach(DAY, {"collect": "SUCCESS"})
    until(lambda: night.runs(DAY)[0].exit_code, lambda code: code == 0, "the end of the child's process")
    [shown] = lines(night.main("runs", "show", str(run), "--json"))
    assert [(item["attempt"], item["status"]) for item in shown["attempts"]] == [
        (1, "FAILED"),
        (2, "SUCCESS"),
    ]
    moves = [item["to_status"] for item in shown["events"]]
    assert moves == ["QUEUED", "RUNNING", "FAILED", "QUEUED", "RUNNING", "SUCCESS"]
    assert (shown["scheduled_for"], shown["exit_code"]) == (None, 0)
    assert shown["peak_memory_kb"] > 30_000
    assert Path(shown["log_file"]).name == f"{run}.2.log"
    text = night.main("runs", "show", str(run)).stdout
    assert f"log file   {shown['log_file']}" in text
    assert "source_changed: " in text
    log = night.main("runs", "log", str(run))
    assert log.stdout == Path(shown["log_file"]).read_text(encoding="utf-8")
    assert "source_changed" in night.main("runs", "log", str(run), "--attempt", "1").stdout
    assert "has attempts 1, 2, not 3" in refused(night.main("runs", "log", str(run), "--attempt", "3"), 2)
    Path(shown["log_file"]).unlink()
    assert f"{shown['log_file']}: No such file" in refused(night.main("runs", "log", str(run)), 1)


def test_a_run_at_work_shows_how_far_it_is(shell: DaemonProcess) -> None:
    work = {"progress_done": 900, "progress_total": 2000, "progress_text": "funds", "progress_item": "000123"}
    run = add_run(
        shell.engine, status="RUNNING", started_at=at(DAY, 17, 50), attempt=1, pid=7, host="h", **work
    )
    [shown] = lines(shell.main("runs", "show", str(run), "--json"))
    wanted = {
        "percent": 45.0,
        "message": "funds",
        "item": "000123",
        "processed": 900,
        "total": 2000,
        "at": None,
    }
    assert (shown["progress"], shown["seconds"]) == (wanted, 600)
    text = [line.split(maxsplit=1) for line in shell.main("runs", "show", str(run)).stdout.splitlines()]
    assert ["progress", "45 % 900/2000 funds 000123"] in text
    assert ["took", "10 min"] in text
    assert "ran in a terminal, by schedule" in refused(shell.main("runs", "log", str(run)), 2)
    assert "has not started" in refused(shell.main("runs", "log", str(add_run(shell.engine))), 2)
    for words in (["show", "99"], ["log", "99"]):
        assert "there is no run 99; main.py runs lists them" in refused(shell.main("runs", *words), 2)


def test_texts_from_elsewhere_cannot_steer_the_terminal(shell: DaemonProcess, tmp_path: Path) -> None:
    file = tmp_path / "x.log"
    file.write_bytes(b"one\x1b[2Jtwo \xff\nthree\n")
    run = add_run(shell.engine, attempt=1, log_file=str(file), reason="\x1b[2Jgone", requested_by="\x1b[2Jx")
    with db.write(shell.engine) as connection:
        commands.ask(connection, action="\x1b[2J", requested_by="\x1b[2J", now=at(DAY, 18), job_id="\x1b[2J")
        connection.execute(update(job_command).values(answer="\x1b[2J"))
    for words in (
        ["runs"],
        ["runs", "show", str(run)],
        ["runs", "log", str(run)],
        ["jobs"],
        ["jobs", "history"],
    ):
        done = shell.main(*words)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout, words
    assert shell.main("runs", "log", str(run)).stdout == "one [2Jtwo \N{REPLACEMENT CHARACTER}\nthree\n"


# Typing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jobs", "plan", "--days", "0"], "'0' is not a whole number from 1 to 3660"),
        (["jobs", "plan", "--days", "3661"], "'3661' is not a whole number from 1 to 3660"),
        (["jobs", "trigger", "collect", "--param", "x"], "'x' is not written as key=value"),
        (["jobs", "trigger", "collect", "--date", "today"], "'today' is no date"),
        (["jobs", "trigger"], "required: JOB"),
        (["jobs", "pause", "\udcff"], "is no name of a job"),
        (["jobs", "start", "collect"], "invalid choice: 'start'"),
        (["runs", "retry", "9999999999999999999"], "is not a whole number from 1 to"),
        (["runs", "--job", "collect", "show", "1"], "--job means nothing to runs show"),
        (["--action", "runs", "--days=3"], "unrecognized arguments: --days=3"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(
    shell: DaemonProcess, words: list[str], message: str
) -> None:
    done = shell.main(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert asked(shell.engine) == []


@pytest.mark.parametrize("words", [["jobs", "--help"], ["runs", "show", "--help"], ["--action=jobs", "-h"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "main.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "exit codes: 0 ok" in done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in loaded
    assert loaded & {"sqlalchemy", "pydantic", "apscheduler", "rich", "core"} == set()


def test_nobody_reads_any_more_and_a_full_disk(shell: DaemonProcess) -> None:
    command = [sys.executable, str(ROOT / "main.py"), "jobs"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, env=shell.environment, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, env=shell.environment, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"jobs: stdout: No space left on device\n")


def test_a_cancelled_step_is_no_good_night(shell: DaemonProcess) -> None:
    add_run(shell.engine, status="CANCELLED", reason="cancelled by cli:ann")
    status = shell.main("status")
    assert status.returncode == 1
    assert "collect for 2025-11-27 ended CANCELLED: cancelled by cli:ann" in status.stdout
    rates = json.loads(shell.main("status", "--json").stdout)["success_7d"]
    [rate] = [rate for rate in rates if rate["job"] == "collect"]
    assert (rate["succeeded"], rate["finished"]) == (0, 1)


def test_chinese_is_the_default(shell: DaemonProcess) -> None:
    add_run(shell.engine, status="CANCELLED", reason="cancelled by cli:ann")
    del shell.environment["NAVKEEPER_LANGUAGE"]
    text = shell.main("runs").stdout
    assert "采集 collect" in text
    assert "已取消" in text
