"""The daemon: `python scheduler/run_scheduler.py`, under nohup or systemd."""

from __future__ import annotations

import fcntl
import os
import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import load_settings
from core import db
from core.crash_points import arm
from core.errors import AlreadyRunning, NavKeeperError
from scheduler.clock import clock_from
from scheduler.exit_codes import FAILED, OK, STOPPED, exit_code
from scheduler.log_file import log_to

if TYPE_CHECKING:
    from config.settings import Settings


def pid_file(settings: Settings) -> Path:
    """Beside an SQLite file, else in the home folder: two daemons on one database meet at it."""
    url = settings.database_url()
    if url.get_backend_name() == "sqlite":
        return Path(f"{url.database}.pid")
    return settings.home / "navkeeper.pid"


@contextmanager
def only_daemon(path: Path) -> Iterator[None]:
    """Hold the lock on the pid file.

    Raises AlreadyRunning naming the pid of who holds it, NavKeeperError where the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+", encoding="ascii")
    except OSError as error:
        raise _unwritable(path, error) from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise AlreadyRunning(
                f"the daemon runs already, pid {file.read().strip() or 'unknown'} ({path})"
            ) from None
        file.truncate(0)
        try:
            os.write(file.fileno(), f"{os.getpid()}\n".encode("ascii"))
        except OSError as error:
            raise _unwritable(path, error) from None
        try:
            yield
        finally:
            file.truncate(0)


def _unwritable(path: Path, error: OSError) -> NavKeeperError:
    return NavKeeperError(
        f"cannot write {path}: {error.strerror}; is the disk full, or is the folder another user's? see: main.py doctor"
    )


def prepare(settings: Settings, now: datetime, exchanges: Collection[str] = ()) -> int:
    """Make the database ready in a process of its own; its exit code, why it failed is said.

    Near the end of the year that means the calendar's library, whose 90 MB would stay with the daemon. An exchange
    of the jobs whose days are not to be had is said, and stops only those jobs.
    """
    from core.initialise import ensure_ready
    from scheduler.jobs import fill_exchanges

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = FAILED
    try:
        engine = db.connect(settings.database_url())
        ensure_ready(engine, now, look_for_years=True)
        fill_exchanges(engine, exchanges, now)
        code = OK
    except NavKeeperError as error:
        print(error, file=sys.stderr, flush=True)
        code = exit_code(error)
    except KeyboardInterrupt:
        code = STOPPED
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        os._exit(code)  # nothing of the daemon's own end is this process's


def run() -> int:
    """Set up and block until stopped. Raises NavKeeperError."""
    from scheduler.alert_channels import channels_of, heartbeat_of
    from scheduler.alert_dispatch import Outlets
    from scheduler.job_scheduler import FundJobScheduler
    from scheduler.jobs_file import load_jobs
    from scheduler.service_manager import notify
    from scheduler.task_catalogue import require_known

    settings = load_settings()
    log_to(settings, "daemon.log")
    jobs = load_jobs(settings.jobs_file)
    for job in jobs.values():
        require_known(job.task, job.params)
    outlets = Outlets(channels=bool(channels_of(settings)), switch=heartbeat_of(settings) is not None)
    clock = clock_from(settings)
    with only_daemon(pid_file(settings)):
        code = prepare(settings, clock(), {job.calendar for job in jobs.values() if job.calendar})
        if code != OK:
            return code
        arm(settings.crash_at)
        FundJobScheduler(
            db.connect(settings.database_url(), supervising=True),
            jobs,
            clock,
            settings.logs,
            drain=timedelta(seconds=settings.drain_seconds),
            limit=settings.max_running,
            notify=partial(notify, settings.notify_socket),
            outlets=outlets,
            plugins=settings.plugins,
        ).start()
    return 0


def main() -> int:
    try:
        return run()
    except NavKeeperError as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:  # before the daemon took the signals over
        return OK


if __name__ == "__main__":
    sys.exit(main())
