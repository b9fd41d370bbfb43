"""Supervisor: claims queued runs, starts each in a child process, watches it, and records what the child cannot."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row

from core import db
from core.crash_points import reached
from scheduler import run_alerts, run_store
from scheduler.firing import require_calendar
from scheduler.job import Job, RunStatus
from scheduler.leadership import Leadership, Stillness
from scheduler.plan import work_for
from scheduler.plugin_limits import LOG_BYTES, LONGEST_WRITE, PRINTED_TOO_MUCH, WROTE_TOO_LONG
from scheduler.process_identity import Process, is_daemon, peak_memory_kb, process_of
from scheduler.run_family import environment_of, kill_escaped
from scheduler.run_store import End
from scheduler.runner import ASKED_TO_END, GRACE_SECONDS
from scheduler.task_catalogue import is_foreign, table_of

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
READY_LOOKED_AT = 100
REMOTE_SILENCE = 60.0  # a run's process on another host beats every 10 s
OTHER_TIMEOUT_MINUTES = 240.0  # of jobs no longer in the file
FOREIGN_RUNS = 2  # of plugins, at once
PRINTED = End(RunStatus.FAILED, 0, f"printed over {LOG_BYTES // 1_000_000} MB")
OWN_LIMITS = {  # by exit code
    PRINTED_TOO_MUCH: PRINTED,
    WROTE_TOO_LONG: End(
        RunStatus.FAILED,
        0,
        f"held the database for {LONGEST_WRITE:g} s in one transaction; write in smaller parts, read before",
    ),
}


@dataclass
class Child:
    run_id: int
    attempt: int
    claim: str
    process: subprocess.Popen[bytes]
    deadline: float  # time.monotonic(): a jump of the clock neither ends a run nor spares it
    log_file: Path
    foreign: bool  # of a plugin
    peak_kb: int = 0
    end: End | None = None  # why we are ending it
    kill_at: float | None = None  # time.monotonic()


class Supervisor:
    """Owns the child processes of the leading daemon, and looks after those that an earlier one left."""

    def __init__(self, leader: Leadership, jobs: Mapping[str, Job], logs: Path, limit: int) -> None:
        self.leader = leader
        self.jobs = jobs
        self.logs = logs / "runs"
        self.limit = limit
        self.children: dict[int, Child] = {}
        self.adopted = Counter[
            bool
        ]()  # children of earlier daemons, still at work; by whether they are foreign
        self.ending: dict[int, End] = {}  # adopted runs that were asked to end, and why
        self.abandoned: list[subprocess.Popen[bytes]] = []  # of the time when we led, to be buried
        self.stillness = Stillness()
        self.silent: set[int] = set()  # runs that have said nothing for too long

    def start_queued(self, now: datetime) -> None:
        """Claim and start the runs that are ready, oldest business date first, while there is room.

        Those of plugins have places of their own: none of them ever keeps a fund run waiting.
        """
        for foreign in (False, True):
            if self._room(foreign=foreign):
                self._start_queued(now, foreign=foreign)

    def _start_queued(self, now: datetime, *, foreign: bool) -> None:
        with db.read(self.leader.engine) as connection:
            slots = {job.id: job.max_parallel for job in self.jobs.values() if job.max_parallel > 1}
            ready = run_store.ready_runs(connection, now, READY_LOOKED_AT, slots, foreign=foreign)
        for run in ready:
            if not self._room(foreign=foreign):
                return
            if run.id in self.children:  # its last attempt's process has not quite ended
                continue
            log_file = self.logs / f"{run.id}.{run.attempt + 1}.log"
            with self.leader.write() as connection:
                work = self._work(connection, run, now)
                claim = run_store.claim_run(
                    connection,
                    run,
                    self.leader.process,
                    now,
                    str(log_file),
                    slots.get(run.job_id, 1),
                    **work,
                )
                reached("claim.written")
            if claim is not None:
                reached("claim.committed")
                self._start(run, claim, log_file, now)

    def _work(self, connection: Connection, run: Row[Any], now: datetime) -> dict[str, str]:
        """What changes in a run because of the time since it was queued: see plan.work_for."""
        job = self.jobs.get(run.job_id)
        if job is None or not job.latest_only or run.task != job.task:
            return {}
        calendar = require_calendar(connection)
        task, params = work_for(job, json.loads(run.params), run.business_date, calendar, now)
        return {"task": task, "params": json.dumps(params)}

    def _room(self, *, foreign: bool) -> bool:
        mine = sum(1 for child in self.children.values() if child.foreign == foreign)
        limit = FOREIGN_RUNS if foreign else self.limit
        return mine + self.adopted[foreign] < limit

    def _start(self, run: Row[Any], claim: str, log_file: Path, now: datetime) -> None:
        try:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            with log_file.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "scheduler.runner", str(run.id), claim],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment_of(claim),
                    start_new_session=True,
                )
        except OSError as error:  # no process, no disk: the claim must not outlive this attempt
            log.error("run %d could not be started: %s", run.id, error)
            end = End(RunStatus.FAILED, 0, f"could not be started: {error}", retry=True)
            with self.leader.write() as connection:
                end_for_dead(connection, run, end, now, claim)
            return
        deadline = time.monotonic() + self._timeout_minutes(run) * 60
        self.children[run.id] = Child(
            run.id, run.attempt + 1, claim, process, deadline, log_file, foreign=is_foreign(run.task)
        )
        log.info("run %d: %s for %s started, pid %d", run.id, run.job_id, run.business_date, process.pid)
        reached("child.started")

    def _timeout_minutes(self, run: Row[Any]) -> float:
        job = self.jobs.get(run.job_id)
        return job.timeout_minutes if job else OTHER_TIMEOUT_MINUTES

    def watch(self, now: datetime) -> None:
        """Collect ended children; end those over their time."""
        self.bury()
        for child in list(self.children.values()):
            child.peak_kb = max(child.peak_kb, peak_memory_kb(child.process.pid))
            if child.process.returncode is None and not _has_ended(child.process.pid):
                self._hurry(child)
                continue
            self.reap(child)
            reached("child.reaped")
            self._record(child, child.process.returncode, now)
            del self.children[child.run_id]

    def bury(self) -> None:
        self.abandoned = [process for process in self.abandoned if process.poll() is None]

    def reap(self, child: Child) -> None:
        """Grandchildren do not outlive the run: they go before the child is reaped, while its pid is still its own."""
        if child.process.returncode is None:
            kill_group(child.process.pid, signal.SIGKILL)
            child.process.wait()
            kill_escaped(child.claim)

    def any_alive(self) -> bool:
        return any(
            child.process.returncode is None and not _has_ended(child.process.pid)
            for child in self.children.values()
        )

    def _hurry(self, child: Child) -> None:
        if child.end is None and time.monotonic() >= child.deadline:
            self.terminate(child, End(RunStatus.TIMED_OUT, 0, "over its time limit", retry=True))
        elif child.end is None and _size(child.log_file) > LOG_BYTES:
            child.end = PRINTED
            kill_group(child.process.pid, signal.SIGKILL)  # at once: it fills the disk
        elif child.kill_at is not None and time.monotonic() >= child.kill_at:
            kill_group(child.process.pid, signal.SIGKILL)

    def terminate(self, child: Child, end: End) -> None:
        """Ask the run's process group to end; it is killed after a grace period."""
        if child.end is None:
            child.end = end
            child.kill_at = time.monotonic() + GRACE_SECONDS
            kill_group(child.process.pid, signal.SIGTERM)

    def terminate_all(self, reason: str) -> None:
        for child in self.children.values():
            self.terminate(child, End(RunStatus.INTERRUPTED, 0, reason, retry=True))

    def abandon(self) -> None:
        """We lead no more: the children go on, for the next leader to see to; here they are only buried."""
        self.abandoned += [child.process for child in self.children.values()]
        self.children.clear()
        self.ending.clear()

    def _record(self, child: Child, code: int, now: datetime) -> None:
        """Write the end of a run whose process did not write it itself, and what only its parent knows."""
        with self.leader.write() as connection:
            run = run_store.get_run(connection, child.run_id)
            if run is not None and run.status == RunStatus.RUNNING.value:
                end_for_dead(connection, run, child.end or _verdict(code), now, child.claim)
            peak_kb = max(child.peak_kb, run.peak_memory_kb or 0 if run is not None else 0)
            run_store.note_process_end(connection, child.run_id, child.attempt, code, peak_kb)
            reached("end.recorded")
        if _size(child.log_file) > LOG_BYTES:
            os.truncate(child.log_file, LOG_BYTES)
        log.info("run %d: process ended with %d", child.run_id, code)

    def recover(self, now: datetime) -> None:
        """Look at every run under way: those whose process is gone are INTERRUPTED, unwanted ones are ended."""
        with db.read(self.leader.engine) as connection:
            running = run_store.runs_in(connection, RunStatus.RUNNING)
        at_work = [run for run in running if self._look_at(run, now)]
        adopted = {run.id for run in at_work} - self.children.keys()
        self.adopted = Counter(
            is_foreign(run.task) for run in at_work if run.id in adopted and run.log_file is not None
        )
        self.ending = {run_id: end for run_id, end in self.ending.items() if run_id in adopted}
        self.stillness.keep_only(
            {(what, run.id, run.attempt) for run in running for what in ("beat", "work")}
        )
        self.silent &= {run.id for run in running}

    def _look_at(self, run: Row[Any], now: datetime) -> bool:
        """Whether the run goes on."""
        if run.id in self.children:
            if run.cancelled_by:
                self.cancel(run.id)
        elif not self._adopt(run, now):
            return False
        self._notice_silence(run, now)
        return True

    def _adopt(self, run: Row[Any], now: datetime) -> bool:
        """A run that is no child of ours: end it if its process is gone, or if it should not go on."""
        process = Process(run.host or "", run.pid or 0, run.pid_started or "")
        here = process.host == self.leader.process.host
        # Until its child takes over, a run is its daemon's, and no signal is meant for that one.
        daemons = here and is_daemon(process.pid)
        if here and not daemons and process.is_alive():
            end = self._unwanted(run, process.age_seconds())
            if end is not None:
                kill_group(process.pid, signal.SIGKILL if run.id in self.ending else signal.SIGTERM)
                self.ending[run.id] = end
            return True
        end = self.ending.get(run.id, run_store.GONE)
        elsewhere = not here or (process.is_alive() and process != self.leader.process)
        if elsewhere and self.leader.engine.dialect.name != "sqlite":  # an SQLite file has one host
            still = self.stillness.seconds(("beat", run.id, run.attempt), run.beat_at)
            unwanted = self._unwanted(run, (now - run.started_at).total_seconds())
            if still < REMOTE_SILENCE and unwanted is None:
                return True
            # Its process, if it lives after all, finds its claim gone at its next sign of life, and ends.
            end = unwanted or End(RunStatus.INTERRUPTED, 0, f"no sign of life from {run.host}", retry=True)
        elif here and run.log_file is not None and process.boot == self.leader.process.boot:
            _kill_leftovers(process.pid)
            kill_escaped(run.claim)
        with self.leader.write() as connection:
            end_for_dead(connection, run, end, now)
            reached("recover.ended")
        log.warning("run %d is over: %s", run.id, end.reason)
        return False

    def _unwanted(self, run: Row[Any], age: float | None) -> End | None:
        """Why a run of nobody's should end. What somebody runs by hand has no time limit."""
        if run.cancelled_by:
            return End(RunStatus.CANCELLED)
        if run.log_file is not None and age is not None and age >= self._timeout_minutes(run) * 60:
            return End(RunStatus.TIMED_OUT, 0, "over its time limit", retry=True)
        return self.ending.get(run.id)

    def cancel(self, run_id: int) -> None:
        """End a run of ours if it has been marked as cancelled."""
        with db.read(self.leader.engine) as connection:
            run = run_store.get_run(connection, run_id)
        if run is not None and run.cancelled_by and run_id in self.children:
            self.terminate(self.children[run_id], End(RunStatus.CANCELLED))

    def _notice_silence(self, run: Row[Any], now: datetime) -> None:
        """Note once per attempt that a run's work says nothing; end it if its job says so."""
        job = self.jobs.get(run.job_id)
        still = self.stillness.seconds(("work", run.id, run.attempt), run.progress_at)
        if job is None or still < job.silent_minutes * 60:
            if run.id in self.silent:
                self.silent.discard(run.id)
                with self.leader.write() as connection:
                    run_alerts.note_sound(connection, run.id, now)
            return
        reason = f"{run.job_id} has said nothing for {job.silent_minutes:g} minutes"
        with self.leader.write() as connection:
            news = run_store.note_alert(
                connection, run, "silent", f"silent:{run.id}:{run.attempt}", reason, now
            )
            if news:
                run_alerts.note_silence(connection, run, job.silent_minutes, now)
        self.silent.add(run.id)
        if news:
            log.warning("run %d: %s", run.id, reason)
        if job.kill_silent:
            end = End(RunStatus.INTERRUPTED, 0, reason, retry=True)
            if run.id in self.children:
                self.terminate(self.children[run.id], end)
            elif run.id not in self.ending:
                process = Process(run.host, run.pid, run.pid_started)
                if run.host == self.leader.process.host and not is_daemon(run.pid) and process.is_alive():
                    kill_group(run.pid, signal.SIGTERM)
                self.ending[run.id] = end


def end_for_dead(
    connection: Connection, run: Row[Any], end: End, now: datetime, claim: str | None = None
) -> None:
    """End a run in the name of its dead process."""
    run_store.end_run(
        connection, run, end, now, claim=claim or run.claim, table_name=table_of(connection, run.task)
    )


def _verdict(code: int) -> End:
    if code in OWN_LIMITS:
        return OWN_LIMITS[code]
    if code < 0 or code == ASKED_TO_END:
        number = -code if code < 0 else signal.SIGTERM
        names = {known.value: known.name for known in signal.Signals}
        reason = f"its process was killed by {names.get(number, f'signal {number}')}"
        return End(RunStatus.INTERRUPTED, 0, reason, retry=True)
    reason = f"its process ended with exit code {code} before it could record why; see its log"
    return End(RunStatus.FAILED, 0, reason, retry=True)


def _size(log_file: Path) -> int:
    try:
        return log_file.stat().st_size
    except OSError:
        return 0


def _has_ended(pid: int) -> bool:
    """Whether a child of ours has ended, without reaping it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill_leftovers(pid: int) -> None:
    """Grandchildren of a run whose own process is gone. Nobody has its pid again while its group lives."""
    if process_of(pid).started:
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def kill_group(pid: int, number: signal.Signals) -> None:
    """Signal a process and its whole group, or the process alone if it leads no group."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:  # started by hand, from a script: the group is the script's
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
