"""The daemon's eye on plugins: a cheap look every ten seconds; what changed is looked at by a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

from core import db
from scheduler import plugin_store
from scheduler.leadership import Leadership
from scheduler.plugin_check import stamp_of

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
LOOK_SECONDS = 10.0


class PluginWatch:
    def __init__(self, leader: Leadership, names: tuple[str, ...]) -> None:
        self.leader = leader
        self.names = names
        self._looked = float("-inf")
        self._asked: dict[str, str] | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Start a check where something changed since the last one. Never waits for it, nor imports anything."""
        if self._child is not None and self._child.poll() is None:
            return
        if self._child is not None and self._child.returncode != 0:
            self._asked = None
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._child, self._looked = None, time.monotonic()
        with db.read(self.leader.engine) as connection:
            known = plugin_store.stamps(connection)
            behind = plugin_store.behind(connection)
        found = {name: stamp_of(name) for name in self.names}
        if (
            found in (known, self._asked) and not behind
        ):  # asked for once: a child may see another path than we do
            return
        self._asked = found
        log.info("plugins changed: looking at them")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "scheduler.plugin_check"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()
