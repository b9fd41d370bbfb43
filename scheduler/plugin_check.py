"""Look at the allowed plugins, each in a child process of its own, and keep what it said.

The daemon starts `python -m scheduler.plugin_check` in the background; `main.py plugins` calls it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core import db
from core.errors import PluginUnavailable
from scheduler import plugin_store
from scheduler.plugin_sources import find

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 30.0
LONGEST_ANSWER = 500_000  # bytes
AT_ONCE = 2
MIGRATION_SECONDS = 600
log = logging.getLogger(__name__)


class Answer(NamedTuple):
    manifest: dict[str, Any] | None
    error: str | None


def check(engine: Engine, settings: Settings, now: datetime, *, only: Iterable[str] | None = None) -> None:
    """Look at all that is allowed, or at some of it, and forget what is not allowed any more."""
    names = [name for name in settings.plugins if only is None or name in only]
    with db.write(engine) as connection:
        plugin_store.forget_others(connection, settings.plugins)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(_check_one, engine, settings, name, now) for name in names]:
            done.result()


def stamp_of(name: str) -> str:
    """What changes when the plugin does; empty where there is none to find."""
    try:
        return find(name).stamp
    except PluginUnavailable:
        return ""


def _check_one(engine: Engine, settings: Settings, name: str, now: datetime) -> None:
    try:
        source = find(name)
        found, origin, stamp = ask(name), source.origin, source.stamp
    except PluginUnavailable as error:
        found, origin, stamp = Answer(None, str(error)), "", ""
    said = found.error
    for secret in settings.secrets():
        said = said and said.replace(secret, "***")
    with db.write(engine) as connection:
        plugin_store.save(
            connection, name, origin=origin, stamp=stamp, now=now, manifest=found.manifest, error=said
        )


def ask(name: str, limit: float = LIMIT_SECONDS) -> Answer:
    """What the plugin says of itself, or in plain words why it could not."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0):
        child = subprocess.Popen(
            [sys.executable, "-m", "scheduler.plugin_probe", name, str(writing)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(writing,),
        )
        os.close(writing)
        deadline = time.monotonic() + limit
        try:
            line = _line(reading, deadline)
            while line is None and not _over(child) and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            hung = not _over(child)
            os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
    if line is not None:
        return _answer(line)
    if hung:
        return Answer(None, f"was not imported within {limit:g} s")
    return Answer(None, _died(code))


def _over(child: subprocess.Popen[bytes]) -> bool:
    """Whether it ended by itself; it stays unreaped, so that its group can be killed."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _line(reading: int, deadline: float) -> bytes | None:
    """The first line; None if it does not come, or is too long."""
    found = b""
    while b"\n" not in found and len(found) <= LONGEST_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return None
        part = os.read(reading, 65_536)
        if not part:
            return None
        found += part
    return found.partition(b"\n")[0] if b"\n" in found else b"too long"


def _answer(line: bytes) -> Answer:
    try:
        said = json.loads(line)
    except ValueError:
        return Answer(None, f"describes itself in no JSON of at most {LONGEST_ANSWER // 1000} kB")
    return Answer(said.get("manifest"), said.get("error"))


def _died(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code} while it was imported"
    names = {known.value: known.name for known in signal.Signals}
    return f"its process was killed by {names.get(-code, f'signal {-code}')} while it was imported"


def migrated(name: str) -> str | None:
    """Bring its tables up to date, in a process of its own. Why they could not be, None where they are."""
    words = [sys.executable, "-m", "scheduler.plugin_loading", name]
    try:
        done = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, timeout=MIGRATION_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"its migrations took over {MIGRATION_SECONDS} s"
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return last[0] if done.returncode else None


def main() -> None:
    from config.logging_config import configure_logging
    from config.settings import load_settings
    from scheduler.clock import clock_from

    settings = load_settings()
    configure_logging(settings.log_level, settings.secrets())
    engine = db.connect(settings.database_url())
    with db.read(engine) as connection:
        known = plugin_store.stamps(connection)
    changed = [name for name in settings.plugins if known.get(name) != stamp_of(name)]
    check(engine, settings, clock_from(settings)(), only=changed)
    with db.read(engine) as connection:
        behind = [item.name for item in plugin_store.behind(connection)]
    for name in behind:  # a subscriber of the new version waits for it, and no run may come that did it
        if (why := migrated(name)) is not None:
            log.error("the tables of %s are not up to date: %s", name, why)


if __name__ == "__main__":
    main()
