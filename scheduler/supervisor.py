"""Supervisor: claims queued runs, starts each in a child process, watches it, and records what the child cannot."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row

from core import db
from scheduler import run_store
from scheduler.job import Job, RunStatus
from scheduler.process_identity import Process, peak_memory_kb, this_process
from scheduler.run_store import End
from scheduler.tasks import table_of

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
MAX_CHILDREN = 2
GRACE_SECONDS = 10.0


@dataclass
class Child:
    run_id: int
    attempt: int
    claim: str
    process: subprocess.Popen[bytes]
    deadline: datetime
    peak_kb: int = 0
    end: End | None = None  # why we are ending it
    kill_at: float | None = None  # time.monotonic()


class Supervisor:
    """Owns the child processes of one daemon."""

    def __init__(self, engine: Engine, jobs: dict[str, Job], logs: Path) -> None:
        self.engine = engine
        self.jobs = jobs
        self.logs = logs / "runs"
        self.children: dict[int, Child] = {}
        self.hurried: set[int] = set()  # runs of an earlier daemon that were asked to end

    def start_queued(self, now: datetime) -> None:
        """Claim and start the runs that are ready, oldest business date first, while there is room."""
        with db.read(self.engine) as connection:
            ready = run_store.ready_runs(connection, now)
        for run in ready:
            if len(self.children) >= MAX_CHILDREN:
                return
            if run.id in self.children:  # its last attempt's process has not quite ended
                continue
            log_file = self.logs / f"{run.id}.{run.attempt + 1}.log"
            with db.write(self.engine) as connection:
                claim = run_store.claim_run(connection, run, this_process(), now, str(log_file))
            if claim is not None:
                self._start(run, claim, log_file, now)

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
                    start_new_session=True,
                )
        except OSError as error:  # no process, no disk: the claim must not outlive this attempt
            log.error("run %d could not be started: %s", run.id, error)
            end = End(RunStatus.FAILED, 0, f"could not be started: {error}", retry=True)
            with db.write(self.engine) as connection:
                end_for_dead(connection, run, end, now, claim)
            return
        minutes = self.jobs[run.job_id].timeout_minutes if run.job_id in self.jobs else 240
        deadline = now + timedelta(minutes=minutes)
        self.children[run.id] = Child(run.id, run.attempt + 1, claim, process, deadline)
        log.info("run %d: %s for %s started, pid %d", run.id, run.job_id, run.business_date, process.pid)

    def watch(self, now: datetime) -> None:
        """Collect ended children; end those over their time."""
        for child in list(self.children.values()):
            child.peak_kb = max(child.peak_kb, peak_memory_kb(child.process.pid))
            if child.process.returncode is None and not _has_ended(child.process.pid):
                self._hurry(child, now)
                continue
            if child.process.returncode is None:
                # Grandchildren do not outlive the run. Before the child is reaped, while its pid is still its own.
                _kill_group(child.process.pid, signal.SIGKILL)
                child.process.wait()
            self._record(child, child.process.returncode, now)
            del self.children[child.run_id]

    def any_alive(self) -> bool:
        return any(
            child.process.returncode is None and not _has_ended(child.process.pid)
            for child in self.children.values()
        )

    def _hurry(self, child: Child, now: datetime) -> None:
        if child.end is None and now >= child.deadline:
            self.terminate(child, End(RunStatus.TIMED_OUT, 0, "over its time limit", retry=True))
        elif child.kill_at is not None and time.monotonic() >= child.kill_at:
            _kill_group(child.process.pid, signal.SIGKILL)

    def terminate(self, child: Child, end: End) -> None:
        """Ask the run's process group to end; it is killed after a grace period."""
        child.end = end
        child.kill_at = time.monotonic() + GRACE_SECONDS
        _kill_group(child.process.pid, signal.SIGTERM)

    def terminate_all(self, reason: str) -> None:
        for child in self.children.values():
            if child.end is None:
                self.terminate(child, End(RunStatus.INTERRUPTED, 0, reason, retry=True))

    def _record(self, child: Child, code: int, now: datetime) -> None:
        """Write the end of a run whose process did not write it itself, and what only its parent knows."""
        with db.write(self.engine) as connection:
            run = run_store.get_run(connection, child.run_id)
            if run is not None and run.status == RunStatus.RUNNING.value:
                end_for_dead(connection, run, child.end or _verdict(code), now, child.claim)
            run_store.note_process_end(connection, child.run_id, child.attempt, code, child.peak_kb)
        log.info("run %d: process ended with %d", child.run_id, code)

    def recover(self, now: datetime) -> None:
        """Runs that are no children of ours: gone ones are INTERRUPTED, over-long ones are ended."""
        with db.read(self.engine) as connection:
            running = run_store.runs_in(connection, RunStatus.RUNNING)
        here = this_process().host
        for run in running:
            if run.id in self.children:
                continue
            process = Process(run.host or "", run.pid or 0, run.pid_started or "")
            local = process.host == here or self.engine.dialect.name == "sqlite"  # a file has one host
            if local and not (process.host == here and process.is_alive()):
                with db.write(self.engine) as connection:
                    end_for_dead(connection, run, run_store.GONE, now)
                log.warning("run %d was interrupted: its process is gone", run.id)
            elif local and run.requested_by == run_store.BY_SCHEDULE and now >= self._deadline(run):
                again = run.id in self.hurried
                _kill_group(process.pid, signal.SIGKILL if again else signal.SIGTERM)
                self.hurried.add(run.id)

    def _deadline(self, run: Row[Any]) -> datetime:
        minutes = self.jobs[run.job_id].timeout_minutes if run.job_id in self.jobs else 240
        return run.started_at + timedelta(minutes=minutes)  # type: ignore[no-any-return]


def end_for_dead(
    connection: Connection, run: Row[Any], end: End, now: datetime, claim: str | None = None
) -> None:
    """End a run in the name of its dead process."""
    run_store.end_run(connection, run, end, now, claim=claim or run.claim, table_name=table_of(run.task))


def _verdict(code: int) -> End:
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        reason = f"its process was killed by {names.get(-code, f'signal {-code}')}"
        return End(RunStatus.INTERRUPTED, 0, reason, retry=True)
    reason = f"its process ended with exit code {code} before it could record why; see its log"
    return End(RunStatus.FAILED, 0, reason, retry=True)


def _has_ended(pid: int) -> bool:
    """Whether a child of ours has ended, without reaping it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return
