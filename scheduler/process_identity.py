"""Which process is which: a pid alone is used again, a pid with its start time is not."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    host: str
    pid: int
    started: str  # boot id and start tick

    @property
    def boot(self) -> str:
        """The boot of the machine it belongs to."""
        return self.started.rpartition(":")[0]

    def is_alive(self) -> bool:
        """Whether this very process still runs. Only for processes of this host."""
        return _start_of(self.pid) == self.started

    def age_seconds(self) -> float | None:
        """For how long this very process has run, whatever became of the clock; None where nobody can say."""
        if not self.is_alive() or ":" not in self.started:
            return None
        up = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return up - int(self.started.rpartition(":")[2]) / os.sysconf("SC_CLK_TCK")


def this_process() -> Process:
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    return Process(socket.gethostname(), pid, _start_of(pid) or "")


def _start_of(pid: int) -> str | None:
    """Boot id and start tick of a live process; None if there is none. A zombie counts as gone.

    Where there is no /proc (macOS), a constant for any live pid: a reused pid goes unnoticed there.
    """
    if not Path("/proc/self/stat").exists():
        return _probe(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return None if fields[0] == "Z" else f"{boot}:{fields[19]}"


def _probe(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"


def peak_memory_kb(pid: int) -> int:
    """The largest resident size a live process has had; 0 where that is unknown."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")), 0)


def is_daemon(pid: int) -> bool:
    """Whether a process is a NavKeeper daemon; False where nobody can say."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    by_action = any(word.endswith(b"main.py") for word in words) and b"scheduler" in words
    return by_action or any(word.endswith(b"run_scheduler.py") for word in words)
