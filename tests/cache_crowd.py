"""Many processes that ask for one cold key at once: `python -m tests.cache_crowd FOLDER PROCESSES [kill]`.

Forked once everything is imported, each with connections of its own. The value is made only after all have found
nothing, and every making leaves a line in FOLDER/made; with `kill` the first maker is killed by SIGKILL instead.
Prints JSON: what each got, and the seconds from the start signal until the last had it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from config.settings import load_settings
from scheduler.cache import open_cache
from scheduler.cache_store import Asked, Found
from scheduler.overview import observer_engine
from tests.daemon import until

KIND, KEY = "summaries", "the one"


def note(path: Path, text: str) -> None:
    """One whole line, whoever else writes one."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def make(folder: Path, processes: int, *, kill: bool) -> dict[str, int]:
    note(folder / "made", str(os.getpid()))
    if kill:
        try:
            (folder / "killed").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            pass
    until(lambda: len(set(lines(folder / "looked"))), lambda looked: looked == processes, "everybody's look")
    return {"maker": os.getpid()}


def ask(folder: Path, processes: int, start: int, *, kill: bool) -> None:
    settings = load_settings()
    cache = open_cache(settings, observer_engine(settings.database_url()))
    looks = cache.store.find

    def find(asked: Asked, now: datetime) -> Found:
        found = looks(asked, now)
        note(folder / "looked", str(os.getpid()))
        return found

    cache.store.find = find  # type: ignore[method-assign]
    cache.store.epoch()  # connected, one after the other: a hundred at once may be more than a busy server takes in
    note(folder / "ready", str(os.getpid()))
    os.read(start, 1)  # returns when the writing end is closed
    found = cache.get(KIND, KEY, partial(make, folder, processes, kill=kill), now=datetime.now(UTC))
    note(folder / "got", str(found["maker"]))
    cache.close()


def main(folder: Path, processes: int, *, kill: bool) -> None:
    start, starting = os.pipe()
    children = []
    for _ in range(processes):
        child = os.fork()
        if child == 0:
            os.close(starting)
            ask(folder, processes, start, kill=kill)
            os._exit(0)
        children.append(child)
        until(
            lambda: len(lines(folder / "ready")), lambda ready: ready == len(children), "another to be ready"
        )
    begun = time.perf_counter()
    os.close(starting)
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    seconds = round(time.perf_counter() - begun, 3)
    got, made = lines(folder / "got"), lines(folder / "made")
    print(json.dumps({"got": got, "made": made, "failed": failed, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), kill=sys.argv[3:] == ["kill"])
