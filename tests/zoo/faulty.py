"""Imports well; each of its tasks does something terrible."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time

from sqlalchemy import select

from scheduler.plugin import Params, Plugin, Subscriber, Task, TaskResult


def crash(_context, _params):
    ctypes.string_at(0)


def loop(_context, _params):
    while True:
        pass


def hog(_context, _params):
    import numpy as np

    kept = []
    while True:
        kept.append(np.zeros(1_000_000_000, np.uint8))  # asked for, and not touched


def chatter(_context, _params):
    line = "x" * 10_000
    for _ in range(100_000):
        print(line)
    return TaskResult()


def forks(_context, _params):
    """Grandchildren leave their group and their session, and their parents die."""
    code = (
        "import os, time\n"
        "for n in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(600)\n"
        "        os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return TaskResult(3)


def unserialisable(_context, _params):
    return TaskResult(1, data={"what": object()})


def not_a_number(_context, _params):
    return TaskResult(1, data={"what": float("nan")})


def huge(_context, _params):
    return TaskResult(1, data={"what": "x" * 70_000})


def negative(_context, _params):
    return TaskResult(-1)


def nothing(_context, _params):
    return None


def a_word(_context, _params):
    return "done"


def exits(_context, _params):
    os._exit(0)


def leaves(_context, _params):
    sys.exit(0)


def holds(context, _params):
    with context.transaction():
        time.sleep(600)


def raises(_context, _params):
    raise RuntimeError("on purpose")


def refuse(_connection, _event):
    raise RuntimeError("on purpose")


def fall(_connection, _event):
    ctypes.string_at(0)


def spin(connection, _event):
    """For ever, and where the database is a file with its only lock."""
    connection.execute(select(1))
    while True:
        pass


FAULTS = (
    *(crash, loop, hog, chatter, forks, unserialisable, not_a_number, huge, negative, nothing, a_word),
    *(exits, leaves, holds, raises),
)
PLUGIN = Plugin(
    id="faulty",
    version="1.0",
    name="Faulty",
    description="Everything that can go wrong in a task.",
    tasks=tuple(
        Task(f"faulty.{fault.__name__}", fault.__name__, fault.__doc__ or "", Params, fault)
        for fault in FAULTS
    ),
    subscribers=tuple(
        Subscriber(f"faulty.{deaf.__name__}", ("data.nav.merged",), deaf) for deaf in (refuse, fall, spin)
    ),
)
