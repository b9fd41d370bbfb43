"""What the process of a plugin may use up: memory, processor time, and how long it may hold the database."""

from __future__ import annotations

import os
import resource
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event

LEAST_MEMORY = 2_000_000_000  # bytes; libraries reserve more than they use
PROBE_CPU = 30  # seconds
NICENESS = 10
LOG_BYTES = 50_000_000  # of one attempt
LOOK_SECONDS = 0.05
PRINTED_TOO_MUCH, WROTE_TOO_LONG = 120, 121  # exit codes of runs that were ended for it
LONGEST_WRITE = 15.0  # seconds; a daemon waits for 20 where the database is a file


def limit_task() -> int:
    """Half of the machine's memory, and the night goes first. The bytes allowed."""
    os.nice(NICENESS)
    return _limit_memory(_memory() // 2)


def limit_probe() -> None:
    _limit_memory(LEAST_MEMORY)
    resource.setrlimit(resource.RLIMIT_CPU, (PROBE_CPU, PROBE_CPU))


def _limit_memory(wanted: int) -> int:
    allowed = max(LEAST_MEMORY, wanted)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return allowed


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def watch_log(too_long: Callable[[], None]) -> None:
    """`too_long` is called, in a thread, once what this process prints to has LOG_BYTES, if that is a file."""
    if not stat.S_ISREG(os.fstat(1).st_mode):
        return

    def watch() -> None:
        while os.fstat(1).st_size <= LOG_BYTES:
            time.sleep(LOOK_SECONDS)
        too_long()

    threading.Thread(target=watch, name="log-size", daemon=True).start()


def limit_writing(engine: Engine, too_long: Callable[[], None]) -> None:
    """`too_long` is called, in a thread, once a transaction that writes has been open for LONGEST_WRITE."""

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("write", False):
            timer = threading.Timer(LONGEST_WRITE, too_long)
            timer.daemon = True
            timer.start()
            connection.info["plugin_write"] = timer

    def over(connection: Connection) -> None:
        timer: Any = connection.info.pop("plugin_write", None)
        if timer is not None:
            timer.cancel()

    event.listen(engine, "begin", begin)
    event.listen(engine, "commit", over)
    event.listen(engine, "rollback", over)
