"""All processes of a run's attempt, wherever they went: they inherit its mark, though they leave its group by setsid.

Only one that was started with an environment made from nothing is not found. Linux; elsewhere nothing is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from config.settings import environment_marked

MARK = "NIGHTWATCH_RUN"
ROUNDS = 20  # who is killed may have had a child meanwhile


def environment_of(claim: str) -> dict[str, str]:
    return environment_marked(MARK, claim)


def kill_escaped(claim: str | None) -> int:
    """Kill what is left of an attempt whose own process is gone; returns how many there were."""
    killed: set[int] = set()
    for _ in range(ROUNDS if claim else 0):
        found = set(_marked(f"{MARK}={claim}".encode("ascii")))
        if not found - killed:
            break
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
    return len(killed)


def _marked(mark: bytes) -> Iterator[int]:
    """Processes with the mark in the environment that they were started with; a dead one has none."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or over
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
