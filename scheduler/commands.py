"""What people ask of the daemon: rows of job_command, answered once and kept as the audit trail.

Who asks inserts a row and waits; the daemon answers it in the transaction that does what was asked. A
command that nobody answered in time is never carried out later.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from core import db
from core.errors import NoDaemon, UsageError
from core.schema import job_command, job_pause
from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler import run_store
from scheduler.clock import Clock
from scheduler.job import ENDED_BADLY, PENDING, Job, RunStatus
from scheduler.overview import daemon_state
from scheduler.plan import asked_date, work_for
from scheduler.task_catalogue import check_params

WAITS, DONE, REFUSED, EXPIRED = "PENDING", "DONE", "REFUSED", "EXPIRED"
LIFE = timedelta(seconds=30)
PATIENCE = 10.0  # seconds; a daemon looks every second
POLL_SECONDS = 0.1
TEXT, NAME = 1000, 64  # the columns' lengths
GONE = ("daemon_absent", "daemon_stopped", "daemon_gone")  # an old heartbeat alone may be a clock that jumped
NO_DAEMON = "no daemon is running; start one: python scheduler/run_scheduler.py"
TOO_LATE = "nobody answered in time; it is not carried out any more"


@dataclass(frozen=True)
class Answered:
    """A command that this call has settled. `run_id`: what was done to, or made; None where nothing was done."""

    id: int
    action: str
    status: str  # DONE, REFUSED or EXPIRED
    answer: str
    job_id: str | None
    run_id: int | None


@dataclass(frozen=True)
class Case:
    """One command and what is needed to carry it out."""

    connection: Connection
    command: Row[Any]
    jobs: Mapping[str, Job]
    calendar: TradingCalendar
    now: datetime


Outcome = tuple[str, int | None]  # the answer; the run it is about


def ask(
    connection: Connection,
    *,
    action: str,
    requested_by: str,
    now: datetime,
    job_id: str | None = None,
    run_id: int | None = None,
    business_date: date | None = None,
    params: dict[str, Any] | None = None,
    status: str = WAITS,
) -> int:
    """Put a command before the daemon; its id."""
    values = {
        "action": action,
        "job_id": job_id and job_id[:NAME],
        "run_id": run_id,
        "business_date": business_date,
        "params": json.dumps(params or {}),
        "requested_by": requested_by[:NAME],
        "requested_at": now,
        "expires_at": now + LIFE,
        "status": status,
    }
    return db.new_id(connection.execute(insert(job_command).values(values)))


def note_done(
    connection: Connection,
    action: str,
    job_id: str,
    by: str,
    now: datetime,
    answer: str,
    params: dict[str, Any] | None = None,
) -> None:
    """What somebody did without the daemon, for the audit trail."""
    command_id = ask(
        connection, action=action, requested_by=by, now=now, job_id=job_id, params=params, status=DONE
    )
    values = {"answer": answer[:TEXT], "answered_at": now}
    connection.execute(update(job_command).where(job_command.c.id == command_id).values(values))


def request(engine: Engine, clock: Clock, *, action: str, requested_by: str, **what: Any) -> Row[Any]:
    """Ask, and wait for the answer: the command's row, DONE, REFUSED or EXPIRED by the daemon. Raises NoDaemon."""
    now = clock()
    with db.write(engine) as connection:
        command_id = ask(connection, action=action, requested_by=requested_by, now=now, **what)
        nobody = daemon_state(connection, now).state in GONE
        if nobody:
            _settle(connection, command_id, REFUSED, NO_DAEMON, now)
    if nobody:
        raise NoDaemon(NO_DAEMON)
    return wait_for_answer(engine, command_id, clock)


def wait_for_answer(engine: Engine, command_id: int, clock: Clock, timeout: float = PATIENCE) -> Row[Any]:
    """The command's row once it is answered. Raises NoDaemon after `timeout` seconds, and then it never is."""
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            command = _command(engine, command_id)
            if command.status != WAITS:
                return command
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:  # nobody waits for it any more
        _give_up(engine, command_id, clock())
        raise
    if not _give_up(engine, command_id, clock()):
        return _command(engine, command_id)  # answered this moment
    raise NoDaemon(
        f"the daemon did not answer within {timeout:g} s, and will not carry this out any more; "
        "is it alive? look at python main.py monitor and logs/daemon.log"
    )


def _command(engine: Engine, command_id: int) -> Row[Any]:
    with db.read(engine) as connection:
        return connection.execute(select(job_command).where(job_command.c.id == command_id)).one()


def _give_up(engine: Engine, command_id: int, now: datetime) -> bool:
    with db.write(engine) as connection:
        return _settle(connection, command_id, EXPIRED, TOO_LATE, now)


def _settle(connection: Connection, command_id: int, status: str, answer: str, now: datetime) -> bool:
    """Answer a command unless it has been; whether it was us."""
    waits = (job_command.c.id == command_id) & (job_command.c.status == WAITS)
    values = {"status": status, "answer": answer[:TEXT], "answered_at": now}
    return connection.execute(update(job_command).where(waits).values(values)).rowcount == 1


def any_pending(connection: Connection) -> bool:
    """Whether somebody waits for an answer: one look into an index, every second."""
    query = select(job_command.c.id).where(job_command.c.status == WAITS).limit(1)
    return connection.execute(query).first() is not None


def answer_pending(
    connection: Connection, jobs: Mapping[str, Job], calendar: TradingCalendar, now: datetime
) -> list[Answered]:
    """Answer what has been asked, oldest first, in the caller's transaction: what a command did and its answer
    are committed together. What a refused command had begun is undone, the others stand."""
    query = select(job_command).where(job_command.c.status == WAITS).order_by(job_command.c.id)
    cases = [Case(connection, command, jobs, calendar, now) for command in connection.execute(query).all()]
    return [answered for case in cases if (answered := _answer(case)) is not None]


def _answer(case: Case) -> Answered | None:
    """None if who asked has given up this moment."""
    connection, command, now = case.connection, case.command, case.now
    # Settled first: from here to the end of the transaction nobody else can settle it.
    if not _settle(connection, command.id, EXPIRED, TOO_LATE, now):
        return None
    status, answer, run_id = EXPIRED, TOO_LATE, None
    # One that comes from a clock ahead of ours, or from before ours was set back, is nobody's any more either.
    if command.requested_at - LIFE <= now < command.expires_at:
        try:
            with connection.begin_nested():
                answer, run_id = _action(command.action)(case)
            status = DONE
        except UsageError as error:
            status, answer = REFUSED, str(error)
    values = {"status": status, "answer": answer[:TEXT], "run_id": run_id or command.run_id}
    connection.execute(update(job_command).where(job_command.c.id == command.id).values(values))
    return Answered(command.id, command.action, status, answer, command.job_id, run_id)


def _action(name: str) -> Callable[[Case], Outcome]:
    if name not in ACTIONS:
        raise UsageError(f"unknown command {name!r}; there are {', '.join(ACTIONS)}")
    return ACTIONS[name]


def _job(case: Case) -> Job:
    name = case.command.job_id
    if name not in case.jobs:
        raise UsageError(f"there is no job {name!r}; there are {', '.join(case.jobs)}")
    return case.jobs[name]


def _run(case: Case) -> Row[Any]:
    run = run_store.get_run(case.connection, case.command.run_id or 0)
    if run is None:
        raise UsageError(f"there is no run {case.command.run_id}; main.py runs lists them")
    return run


def _local(instant: datetime) -> str:
    return f"{instant.astimezone(SHANGHAI):%Y-%m-%d %H:%M}"


def pauses(connection: Connection) -> dict[str, Row[Any]]:
    """The paused jobs by id: since when, by whom."""
    return {row.job_id: row for row in connection.execute(select(job_pause)).all()}


def _pause(case: Case) -> Outcome:
    job, by = _job(case), case.command.requested_by
    paused = pauses(case.connection).get(job.id)
    if paused is not None:
        return f"{job.id} is paused already, since {_local(paused.paused_at)} by {paused.paused_by}", None
    case.connection.execute(insert(job_pause).values(job_id=job.id, paused_at=case.now, paused_by=by))
    return f"{job.id} is paused; what runs goes on, and what is asked for by hand runs", None


def _resume(case: Case) -> Outcome:
    name = case.command.job_id
    if name not in pauses(case.connection):  # one that is, may have left the file since
        return f"{_job(case).id} is not paused", None
    case.connection.execute(delete(job_pause).where(job_pause.c.job_id == name))
    return f"{name} goes on; what it missed is caught up as its policy says", None


def _trigger(case: Case) -> Outcome:
    job, calendar, wanted = _job(case), case.calendar, case.command.business_date
    if job.business_date == "last_session" and wanted is not None and wanted >= calendar.sessions[0]:
        wanted = calendar.last_session(wanted)
    day = asked_date(calendar, wanted, case.now)
    asked = job.params | json.loads(case.command.params)
    check_params(case.connection, job.task, asked)
    task, params = work_for(job, asked, day, calendar, case.now)
    check_params(case.connection, task, params)
    busy = run_store.running_job(case.connection, job.id)
    run_id = run_store.add_run(
        case.connection,
        job_id=job.id,
        task=task,
        business_date=day,
        status=RunStatus.QUEUED,
        now=case.now,
        params=params,
        requested_by=case.command.requested_by,
        retry=job.retry,
    )
    how = ", filled from history" if task != job.task else ""
    after = f"; it starts after run {busy.id}" if busy is not None else ""
    return f"run {run_id} queued: {job.id} for {day}{how}{after}", run_id


def _run_task(case: Case) -> Outcome:
    """A task that no job has to exist for; its runs go under the task's own name."""
    task, params = case.command.job_id, json.loads(case.command.params)
    day = asked_date(case.calendar, case.command.business_date, case.now)
    check_params(case.connection, task, params)
    run_id = run_store.add_run(
        case.connection,
        job_id=task,
        task=task,
        business_date=day,
        status=RunStatus.QUEUED,
        now=case.now,
        params=params,
        requested_by=case.command.requested_by,
    )
    return f"run {run_id} queued: {task} for {day}", run_id


def _cancel(case: Case) -> Outcome:
    run, by = _run(case), case.command.requested_by
    status = RunStatus(run.status)
    if status not in PENDING:
        raise UsageError(f"run {run.id} is over: {status}; there is nothing to cancel")
    if run.cancelled_by is not None:
        return f"run {run.id} is being ended already, asked for by {run.cancelled_by}", run.id
    if not run_store.cancel(case.connection, run, by, case.now):
        raise UsageError(f"run {run.id} has changed this moment; look again: main.py runs show {run.id}")
    return f"run {run.id} is {'being ended' if status is RunStatus.RUNNING else 'cancelled'}", run.id


AGAIN = "to do it again: main.py jobs trigger {job} --date {day}"
# What to do with a run that cannot be retried, by its state.
INSTEAD = {
    RunStatus.SUCCESS: AGAIN,
    RunStatus.PARTIAL: AGAIN,
    RunStatus.SKIPPED: AGAIN,
    RunStatus.MISSED: AGAIN,
    RunStatus.RUNNING: "let it end, or cancel it first",
    RunStatus.QUEUED: "it will start by itself; to have a delayed attempt now, cancel it, then retry",
    RunStatus.WAITING: "it will start when what it needs is done ({reason})",
    RunStatus.BLOCKED: "retry what it needs ({reason}), and it follows",
}


def _retry(case: Case) -> Outcome:
    run, by = _run(case), case.command.requested_by
    status = RunStatus(run.status)
    if status not in ENDED_BADLY:
        instead = INSTEAD[status].format(job=run.job_id, day=run.business_date, reason=run.reason or "-")
        raise UsageError(f"run {run.id} is {status}; {instead}")
    job, task, changes = case.jobs.get(run.job_id), run.task, {}
    if job is not None and job.task == run.task:
        task, params = work_for(job, json.loads(run.params), run.business_date, case.calendar, case.now)
        changes = {"task": task, "params": json.dumps(params)}
    # Whoever asks for it is who it runs for: so it starts though its job's schedule is paused.
    reason = f"asked for again by {by}"
    if not run_store.try_again(case.connection, run, reason, case.now, requested_by=by, **changes):
        raise UsageError(f"run {run.id} has changed this moment; look again: main.py runs show {run.id}")
    how = ", filled from history" if task != run.task else ""
    return f"run {run.id} queued again: {run.job_id} for {run.business_date}{how}", run.id


ACTIONS: dict[str, Callable[[Case], Outcome]] = {
    "pause": _pause,
    "resume": _resume,
    "trigger": _trigger,
    "run task": _run_task,
    "cancel": _cancel,
    "retry": _retry,
}


def history(connection: Connection, limit: int, before: int | None = None) -> Sequence[Row[Any]]:
    """The newest commands, or those before one, newest first: who asked for what, and what came of it."""
    query = select(job_command).order_by(job_command.c.id.desc()).limit(limit)
    return connection.execute(query if before is None else query.where(job_command.c.id < before)).all()
