"""What people ask of the daemon: each command, its refusals, its end, and who asked for it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, Row, event, insert, select, update

from core import db
from core.errors import NoDaemon, UsageError
from core.schema import daemon, job_command, job_pause, job_run, run_event
from core.trading_calendar import TradingCalendar, library_sessions
from scheduler import commands, run_store
from scheduler.commands import Answered, Case, Outcome
from scheduler.job import Job, RunStatus
from scheduler.jobs_file import JOBS_FILE, load_jobs
from scheduler.process_identity import this_process
from scheduler.run_store import End
from tests.daemon import at

DAY = date(2025, 11, 27)  # a Thursday; no holiday near
NOW = at(DAY, 23, 30)
JOBS = load_jobs(JOBS_FILE)
S = RunStatus


@pytest.fixture(scope="module")
def calendar() -> TradingCalendar:
    return TradingCalendar(library_sessions())


class Desk:
    """Asks, and answers as the daemon does, on one database."""

    def __init__(self, engine: Engine, calendar: TradingCalendar) -> None:
        self.engine = engine
        self.calendar = calendar
        self.jobs: dict[str, Job] = dict(JOBS)

    def ask(self, action: str, now: datetime = NOW, by: str = "cli:ann", **what: Any) -> int:
        with db.write(self.engine) as connection:
            return commands.ask(connection, action=action, requested_by=by, now=now, **what)

    def answer(self, now: datetime = NOW) -> list[Answered]:
        with db.write(self.engine) as connection:
            return commands.answer_pending(connection, self.jobs, self.calendar, now)

    def say(self, action: str, now: datetime = NOW, by: str = "cli:ann", **what: Any) -> tuple[str, str]:
        """Status and answer of one command; the row kept says the same as what the daemon is told."""
        command_id = self.ask(action, now, by, **what)
        [answered] = self.answer(now)
        row = self.command(command_id)
        assert (row.id, row.status, row.answer) == (answered.id, answered.status, answered.answer)
        assert (row.requested_by, row.answered_at) == (by, now)
        return answered.status, answered.answer

    def command(self, command_id: int) -> Row[Any]:
        with db.read(self.engine) as connection:
            return connection.execute(select(job_command).where(job_command.c.id == command_id)).one()

    def add_run(self, status: RunStatus, job: str = "metrics", day: date = DAY, **values: Any) -> int:
        """A scheduled run in any state."""
        values |= {"job_id": job, "task": JOBS[job].task, "business_date": day, "status": status.value}
        values = {"params": "{}", "requested_by": "schedule", "queued_at": NOW} | values
        with db.write(self.engine) as connection:
            return db.new_id(connection.execute(insert(job_run).values(values)))

    def runs(self) -> list[Row[Any]]:
        with db.read(self.engine) as connection:
            return list(connection.execute(select(job_run).order_by(job_run.c.id)))

    def ready(self) -> list[int]:
        with db.read(self.engine) as connection:
            return [run.id for run in run_store.ready_runs(connection, NOW, 10)]


@pytest.fixture
def desk(engine: Engine, calendar: TradingCalendar) -> Desk:
    return Desk(engine, calendar)


# Pause and resume


def test_pause_holds_the_schedule_and_not_what_is_asked_for(desk: Desk) -> None:
    scheduled = desk.add_run(S.QUEUED)
    assert desk.ready() == [scheduled]
    status, answer = desk.say("pause", job_id="metrics")
    assert (status, answer.partition(";")[0]) == ("DONE", "metrics is paused")
    assert desk.ready() == []
    assert desk.say("trigger", job_id="metrics", business_date=date(2025, 11, 26))[0] == "DONE"
    by_hand = desk.runs()[-1].id
    assert desk.ready() == [by_hand]
    again = desk.say("pause", NOW + timedelta(minutes=5), by="cli:bob", job_id="metrics")
    assert again == ("DONE", "metrics is paused already, since 2025-11-27 23:30 by cli:ann")
    assert desk.say("resume", job_id="metrics")[0] == "DONE"
    assert desk.ready() == [by_hand, scheduled]  # the older date first
    assert desk.say("resume", job_id="metrics") == ("DONE", "metrics is not paused")


@pytest.mark.parametrize("action", ["pause", "resume", "trigger"])
def test_an_unknown_job_is_refused_and_the_known_ones_are_named(desk: Desk, action: str) -> None:
    status, answer = desk.say(action, job_id="colect")
    assert status == "REFUSED"
    assert answer.startswith("there is no job 'colect'; there are collect, validate, ")
    assert desk.runs() == []


def test_a_paused_job_that_left_the_file_can_be_resumed(desk: Desk) -> None:
    assert desk.say("pause", job_id="weekly")[0] == "DONE"
    del desk.jobs["weekly"]
    assert desk.say("pause", job_id="weekly")[0] == "REFUSED"
    assert desk.say("resume", job_id="weekly")[0] == "DONE"
    with db.read(desk.engine) as connection:
        assert connection.execute(select(job_pause)).all() == []


# Trigger


def test_trigger_queues_a_run_of_the_newest_date(desk: Desk) -> None:
    desk.jobs["metrics"] = replace(JOBS["metrics"], params={"fund_codes": ["000009"]})
    command_id = desk.ask("trigger", job_id="metrics", params={"fund_codes": ["000001"]})
    [answered] = desk.answer()
    [run] = desk.runs()
    assert answered.answer == f"run {run.id} queued: metrics for 2025-11-27"
    assert answered.run_id == desk.command(command_id).run_id == run.id
    assert (run.status, run.task, run.business_date) == ("QUEUED", "calculate_metrics", DAY)
    assert (run.scheduled_for, run.requested_by) == (None, "cli:ann")
    assert json.loads(run.params) == {"fund_codes": ["000001"]}  # over the job's own
    assert json.loads(run.retry_policy)["attempts"] == JOBS["metrics"].retry.attempts
    assert desk.say("trigger", job_id="metrics")[0] == "DONE"
    assert json.loads(desk.runs()[-1].params) == {"fund_codes": ["000009"]}


def test_a_second_trigger_says_whom_it_waits_for(desk: Desk) -> None:
    running = desk.add_run(S.RUNNING, active_key="metrics")
    _status, answer = desk.say("trigger", job_id="metrics")
    assert answer == f"run {running + 1} queued: metrics for 2025-11-27; it starts after run {running}"


@pytest.mark.parametrize(
    ("job", "day", "wanted"),
    [
        ("metrics", date(2025, 11, 20), date(2025, 11, 20)),
        ("metrics", date(1998, 4, 7), date(1998, 4, 7)),
        ("weekly", date(2025, 11, 23), date(2025, 11, 21)),  # a Sunday's week ends on Friday
        ("weekly", DAY, DAY),
    ],
)
def test_any_business_date_can_be_asked_for(desk: Desk, job: str, day: date, wanted: date) -> None:
    assert desk.say("trigger", job_id=job, business_date=day)[0] == "DONE"
    assert [run.business_date for run in desk.runs()] == [wanted]


@pytest.mark.parametrize(
    ("job", "day", "why"),
    [
        ("metrics", date(2025, 11, 22), "2025-11-22 is not a trading day; the one before is 2025-11-21"),
        (
            "metrics",
            date(2025, 11, 28),
            "2025-11-28 has no NAVs yet; the newest date that can have is 2025-11-27",
        ),
        (
            "weekly",
            date(2025, 11, 30),
            "2025-11-28 has no NAVs yet; the newest date that can have is 2025-11-27",
        ),
        ("weekly", date(1990, 1, 1), "1990-01-01 is before the first trading day known, 1998-01-05"),
    ],
)
def test_a_date_that_cannot_be_is_refused(desk: Desk, job: str, day: date, why: str) -> None:
    assert desk.say("trigger", job_id=job, business_date=day) == ("REFUSED", why)
    assert desk.runs() == []


def test_the_newest_pages_never_stand_for_an_older_date(desk: Desk) -> None:
    status, answer = desk.say(
        "trigger", job_id="collect", business_date=date(2025, 11, 25), params={"source": "x"}
    )
    [run] = desk.runs()
    assert (status, answer) == ("DONE", f"run {run.id} queued: collect for 2025-11-25, filled from history")
    assert (run.job_id, run.task) == ("collect", "backfill_nav")
    dates = {
        "start": "2025-11-25",
        "end": "2025-11-26",
        "unless_stored": True,
    }  # to the day before the newest
    assert json.loads(run.params) == dates | {"source": "x"}


@pytest.mark.parametrize(
    ("job", "params", "why"),
    [
        ("metrics", {"funds": 1}, ("calculate_metrics cannot take", "funds: ", "It has: fund_codes")),
        ("metrics", {"fund_codes": "000001"}, ("fund_codes: ",)),
        ("validate", {"force": "perhaps"}, ("force: ", "It has: force")),
        ("weekly", {"x": None}, ("x: ", "It has: none")),
        ("collect", {"start": "2025-11-20"}, ("start: ", "It has: source")),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    desk: Desk, job: str, params: dict[str, Any], why: tuple[str, ...]
) -> None:
    status, answer = desk.say("trigger", job_id=job, params=params)
    assert status == "REFUSED"
    assert all(part in answer for part in why), answer
    assert desk.runs() == []


# Cancel


@pytest.mark.parametrize("status", [S.QUEUED, S.WAITING, S.BLOCKED])
def test_what_has_not_started_is_cancelled_at_once(desk: Desk, status: RunStatus) -> None:
    run_id = desk.add_run(status)
    assert desk.say("cancel", run_id=run_id) == ("DONE", f"run {run_id} is cancelled")
    [run] = desk.runs()
    assert (run.status, run.reason, run.finished_at) == ("CANCELLED", "cancelled by cli:ann", NOW)
    assert desk.ready() == []


def test_what_runs_is_marked_and_ends_as_cancelled(desk: Desk) -> None:
    run_id = desk.add_run(S.QUEUED, retry_policy=json.dumps({"attempts": 9}))
    with db.write(desk.engine) as connection:
        row = run_store.get_run(connection, run_id)
        assert row is not None
        claim = run_store.claim_run(connection, row, this_process(), NOW)
    assert desk.say("cancel", run_id=run_id) == ("DONE", f"run {run_id} is being ended")
    assert desk.say("cancel", by="cli:bob", run_id=run_id) == (
        "DONE",
        f"run {run_id} is being ended already, asked for by cli:ann",
    )
    [run] = desk.runs()
    assert (run.status, run.cancelled_by) == ("RUNNING", "cli:ann")
    with db.write(desk.engine) as connection:  # as the supervisor does when the child is gone
        end = End(S.INTERRUPTED, 0, "killed", retry=True)
        assert run_store.end_run(connection, run, end, NOW, claim=claim, table_name="fund_metrics")
    [run] = desk.runs()
    assert (run.status, run.reason, run.active_key) == ("CANCELLED", "cancelled by cli:ann", None)
    status, answer = desk.say("cancel", run_id=run_id)
    assert (status, answer) == ("REFUSED", f"run {run_id} is over: CANCELLED; there is nothing to cancel")


@pytest.mark.parametrize("status", [S.SUCCESS, S.PARTIAL, S.FAILED, S.SKIPPED, S.MISSED])
def test_what_is_over_is_not_cancelled(desk: Desk, status: RunStatus) -> None:
    run_id = desk.add_run(status)
    answer = f"run {run_id} is over: {status.value}; there is nothing to cancel"
    assert desk.say("cancel", run_id=run_id) == ("REFUSED", answer)
    assert desk.runs()[0].status == status.value


@pytest.mark.parametrize("action", ["cancel", "retry"])
@pytest.mark.parametrize("run_id", [None, 4711])
def test_an_unknown_run_is_refused(desk: Desk, action: str, run_id: int | None) -> None:
    assert desk.say(action, run_id=run_id) == (
        "REFUSED",
        f"there is no run {run_id}; main.py runs lists them",
    )


# Retry


@pytest.mark.parametrize("status", [S.FAILED, S.TIMED_OUT, S.INTERRUPTED, S.CANCELLED])
def test_what_ended_badly_is_queued_again_though_its_job_is_paused(desk: Desk, status: RunStatus) -> None:
    assert desk.say("pause", job_id="metrics")[0] == "DONE"
    run_id = desk.add_run(
        status, attempt=4, first_started_at=NOW, finished_at=NOW, cancelled_by="x", scheduled_for=NOW
    )
    assert desk.say("retry", run_id=run_id) == ("DONE", f"run {run_id} queued again: metrics for 2025-11-27")
    [run] = desk.runs()
    assert (run.status, run.reason) == ("QUEUED", "asked for again by cli:ann")
    assert (run.first_started_at, run.finished_at, run.cancelled_by) == (None, None, None)
    assert (run.task, run.scheduled_for, run.requested_by) == ("calculate_metrics", NOW, "cli:ann")
    assert desk.ready() == [run_id]
    with db.read(desk.engine) as connection:
        [moved] = connection.execute(select(run_event)).all()
    assert (moved.from_status, moved.to_status, moved.reason) == (status.value, "QUEUED", run.reason)


@pytest.mark.parametrize(
    ("status", "instead"),
    [
        (S.SUCCESS, "main.py jobs trigger metrics --date 2025-11-27"),
        (S.PARTIAL, "main.py jobs trigger metrics --date 2025-11-27"),
        (S.SKIPPED, "main.py jobs trigger metrics --date 2025-11-27"),
        (S.MISSED, "main.py jobs trigger metrics --date 2025-11-27"),
        (S.RUNNING, "cancel it first"),
        (S.QUEUED, "it will start by itself"),
        (S.WAITING, "it will start when what it needs is done (a {reason})"),
        (S.BLOCKED, "retry what it needs (a {reason})"),
    ],
)
def test_what_cannot_be_retried_says_what_can_be_done(desk: Desk, status: RunStatus, instead: str) -> None:
    run_id = desk.add_run(status, reason="a {reason}")
    answered, answer = desk.say("retry", run_id=run_id)
    assert answered == "REFUSED"
    assert answer.startswith(f"run {run_id} is {status.value}; ")
    assert instead in answer
    assert desk.runs()[0].status == status.value


def test_an_old_run_of_the_newest_pages_is_retried_from_history(desk: Desk) -> None:
    old = desk.add_run(S.FAILED, "collect", date(2025, 11, 24), params='{"source": "eastmoney"}')
    tonight = desk.add_run(S.FAILED, "collect", DAY)
    assert desk.say("retry", run_id=old)[1].endswith("collect for 2025-11-24, filled from history")
    assert desk.say("retry", run_id=tonight)[1].endswith("collect for 2025-11-27")
    first, second = desk.runs()
    assert (first.task, second.task) == ("backfill_nav", "collect_nav")
    dates = {"start": "2025-11-24", "end": "2025-11-26", "unless_stored": True}
    assert json.loads(first.params) == {"source": "eastmoney"} | dates
    with db.write(desk.engine) as connection:
        connection.execute(update(job_run).where(job_run.c.id == old).values(status="FAILED"))
    assert desk.say("retry", NOW + timedelta(days=1), run_id=old)[0] == "DONE"
    assert desk.runs()[0].params == first.params  # it knows what it fills


def test_a_run_of_a_job_that_left_the_file_can_be_retried(desk: Desk) -> None:
    run_id = desk.add_run(S.FAILED)
    del desk.jobs["metrics"]
    assert desk.say("retry", run_id=run_id)[0] == "DONE"


# In time or never


@pytest.mark.parametrize(
    ("later", "status"),
    [
        (timedelta(seconds=29), "DONE"),
        (timedelta(seconds=30), "EXPIRED"),
        (timedelta(days=3), "EXPIRED"),
        (timedelta(seconds=-20), "DONE"),  # clocks differ
        (timedelta(hours=-2), "EXPIRED"),  # the clock was set back since
    ],
)
def test_a_command_is_carried_out_in_time_or_never(desk: Desk, later: timedelta, status: str) -> None:
    command_id = desk.ask("trigger", job_id="metrics")
    running = desk.add_run(S.RUNNING)
    desk.ask("cancel", run_id=running)
    found = desk.answer(NOW + later)
    assert [answered.status for answered in found] == [status, status]
    assert len(desk.runs()) == (2 if status == "DONE" else 1)
    assert (desk.runs()[0].cancelled_by is not None) == (status == "DONE")
    assert (found[1].run_id is not None) == (status == "DONE")  # nothing for the supervisor to end
    assert desk.command(command_id).answered_at == NOW + later
    assert desk.answer(NOW) == []


def test_commands_are_answered_in_order_and_a_refused_one_leaves_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(case: Case) -> Outcome:
        case.connection.execute(insert(job_pause).values(job_id="half", paused_at=NOW, paused_by="x"))
        raise UsageError("on second thoughts, no")

    monkeypatch.setitem(commands.ACTIONS, "half", half)
    asked = [
        desk.ask("pause", job_id="collect"),
        desk.ask("half"),
        desk.ask("explode"),
        desk.ask("resume", job_id="collect"),
        desk.ask("pause", job_id="validate"),
    ]
    found = desk.answer()
    assert [answered.id for answered in found] == asked
    assert [answered.status for answered in found] == ["DONE", "REFUSED", "REFUSED", "DONE", "DONE"]
    assert found[2].answer.startswith(
        "unknown command 'explode'; there are pause, resume, trigger, run task, cancel, retry"
    )
    with db.read(desk.engine) as connection:
        assert connection.execute(select(job_pause.c.job_id)).scalars().all() == ["validate"]
        kept = commands.history(connection, 3)
    assert [row.id for row in kept] == asked[:1:-1]


def test_who_waited_in_vain_takes_the_command_back(desk: Desk) -> None:
    command_id = desk.ask("pause", job_id="collect")
    with pytest.raises(NoDaemon, match=r"did not answer within 0\.2 s"):
        commands.wait_for_answer(desk.engine, command_id, lambda: NOW, timeout=0.2)
    assert desk.command(command_id).status == "EXPIRED"
    assert desk.answer() == []


def test_an_answer_of_the_last_moment_counts(desk: Desk) -> None:
    command_id = desk.ask("pause", job_id="collect")
    found: list[Row[Any]] = []
    waiter = threading.Thread(
        target=lambda: found.append(commands.wait_for_answer(desk.engine, command_id, lambda: NOW, timeout=0))
    )
    with db.write(desk.engine) as connection:
        assert len(commands.answer_pending(connection, JOBS, desk.calendar, NOW)) == 1
        waiter.start()  # gives up at once, but has to wait for this transaction to know that it is too late
    waiter.join(timeout=30)
    assert [row.status for row in found] == ["DONE"]
    assert desk.answer() == []


@pytest.mark.parametrize("url", ["mariadb"], indirect=True)  # SQLite has one writer at a time
def test_a_command_taken_back_this_moment_is_not_carried_out(desk: Desk) -> None:
    command_id = desk.ask("pause", job_id="collect")
    waiter = db.connect(desk.engine.url)

    def take_back(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("UPDATE job_command"):  # the daemon has read it already
            with pytest.raises(NoDaemon):
                commands.wait_for_answer(waiter, command_id, lambda: NOW, timeout=0)

    event.listen(desk.engine, "before_cursor_execute", take_back)
    assert desk.answer() == []
    event.remove(desk.engine, "before_cursor_execute", take_back)
    waiter.dispose()
    assert desk.command(command_id).status == "EXPIRED"
    with db.read(desk.engine) as connection:
        assert commands.pauses(connection) == {}


@pytest.mark.parametrize(
    "heart",
    [
        None,
        {"host": "elsewhere", "pid": 1, "stopped_at": NOW},
        {"host": this_process().host, "pid": 2**22 + 1, "pid_started": "gone"},
    ],
)
def test_without_a_daemon_it_is_refused_at_once_and_on_record(
    desk: Desk, heart: dict[str, object] | None
) -> None:
    if heart is not None:
        with db.write(desk.engine) as connection:
            connection.execute(insert(daemon).values(id=1, started_at=NOW, heartbeat_at=NOW, **heart))
    with pytest.raises(NoDaemon, match=r"start one: python scheduler/run_scheduler\.py"):
        commands.request(desk.engine, lambda: NOW, action="pause", requested_by="cli:ann", job_id="collect")
    with db.read(desk.engine) as connection:
        [row] = commands.history(connection, 10)
    assert (row.status, row.answer) == ("REFUSED", commands.NO_DAEMON)
    assert desk.answer() == []


def test_looking_for_commands_is_one_look_into_an_index(sqlite_engine: Engine) -> None:
    said: list[str] = []

    def keep(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        said.append(statement)

    with db.read(sqlite_engine) as connection:
        event.listen(sqlite_engine, "before_cursor_execute", keep)
        assert not commands.any_pending(connection)
        event.remove(sqlite_engine, "before_cursor_execute", keep)
        [statement] = said
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", ("PENDING", 1, 0)).all()
    assert "USING COVERING INDEX ix_job_command_status (status=?)" in str(plan)
