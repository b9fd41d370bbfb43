"""100,000 events by several processes at once, while subscribers are killed: each delivered, in order per topic.

The daemon's own part starts the subscribers; every five seconds or so one of their processes is killed by SIGKILL. One
subscriber keeps what it gets in a table (there once), another in a file (there at least once). Prints JSON with the
rates for SQLite and for MariaDB where it is installed; 0 only if nothing is missing, out of order or parked.

    python -m bench.events [--events 100000] [--publishers 4] [--each 1]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from bench.cache import places
from config.settings import ROOT, environment_with, load_settings
from core import db
from core.schema import event_parked, run_event
from scheduler import subscriptions
from scheduler.event_dispatch import EventDispatch
from scheduler.leadership import Leadership
from scheduler.process_identity import this_process
from scheduler.subscriptions import Subscriber
from tests import subscribers

TOPICS = ("example.one", "example.two", "other.one", "other.two")
KEEP = Subscriber("example.keep", "tests.subscribers:keep", TOPICS)
WRITE = Subscriber("example.write", "tests.subscribers:write_down", ("example.*", "other.*"))
KILL_EVERY = 5.0  # seconds, on average
LIMIT = 3600.0


def left(engine: Engine) -> int:
    with db.read(engine) as connection:
        return sum(
            subscriptions.lag(connection, row.topic, row.position)
            for row in subscriptions.cursors(connection)
        )


def play(
    engine: Engine, file: Path, words: argparse.Namespace, environment: dict[str, str]
) -> dict[str, Any]:
    """Publish and deliver at once, until nothing is left."""
    leader = Leadership(engine, this_process())
    assert leader.acquire(datetime.now(UTC))
    dispatch = EventDispatch(leader, lambda _engine: {KEEP.name: KEEP, WRITE.name: WRITE})
    dispatch.tend(datetime.now(UTC))
    begun, chance, kills = time.perf_counter(), random.Random(7), 0
    share = str(words.events // words.publishers)
    options = ["--each", str(words.each), "--rolled-back", "0.02", "--file", str(file)]
    publishers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.publishers", share, str(n), *TOPICS, *options],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for n in range(words.publishers)
    ]
    next_kill, next_look, published = begun + KILL_EVERY, 0.0, 0.0
    while True:
        dispatch.tend(datetime.now(UTC))
        working = any(child.poll() is None for child in publishers)
        now = time.perf_counter()
        if not working and not published:
            published = now - begun
        if now >= next_kill and dispatch.children:
            chance.choice(list(dispatch.children.values())).process.kill()
            next_kill, kills = now + chance.random() * 2 * KILL_EVERY, kills + 1
        if not working and now >= next_look:
            if left(engine) == 0:
                break
            next_look = time.perf_counter() + 1
        assert now - begun < LIMIT, f"{left(engine)} deliveries are left"
        time.sleep(0.05)
    seconds = time.perf_counter() - begun
    dispatch.stop()
    leader.close()
    wrong = [child.returncode for child in publishers if child.returncode != 0]
    return {"published_s": published, "seconds": seconds, "kills": kills, "failed_publishers": len(wrong)}


def judge(engine: Engine, file: Path) -> dict[str, Any]:
    """Against what is in run_event, in the order of its positions."""
    event, taken = run_event.c, subscribers.taken.c
    with db.read(engine) as connection:
        said: dict[str, list[tuple[int, int]]] = defaultdict(list)
        payloads = connection.execute(select(event.id, event.topic, event.payload).order_by(event.position))
        for row in payloads:
            made = json.loads(row.payload)
            said[row.topic].append((row.id, made["number"]))
        kept: dict[str, list[int]] = defaultdict(list)
        for row in connection.execute(select(taken.topic, taken.event_id).order_by(taken.id)):
            kept[row.topic].append(row.event_id)
        parked = len(connection.execute(select(event_parked)).all())
    lines: dict[str, list[int]] = defaultdict(list)
    for line in file.read_text(encoding="utf-8").splitlines():
        topic, number = line.split()
        lines[topic].append(int(number))
    published = sum(map(len, said.values()))
    return {
        "events": published,
        "parked": parked,
        "table_equal_in_order": {topic: [n for n, _number in found] for topic, found in said.items()} == kept,
        "file_at_least_once": all(
            sorted(number for _id, number in found) == sorted_without(lines[topic], found)
            for topic, found in said.items()
        ),
        "file_lines": sum(map(len, lines.values())),
    }


def sorted_without(lines: list[int], found: list[tuple[int, int]]) -> list[int]:
    """The lines without what came more often than it was published; the order kept but for such repeats."""
    wanted: dict[int, int] = defaultdict(int)
    for _id, number in found:
        wanted[number] += 1
    kept = []
    for number in lines:
        if wanted[number]:
            wanted[number] -= 1
            kept.append(number)
    return sorted(kept)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--each", type=int, default=1, help="events in a transaction")
    words = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, places(Path(folder)) as known:
        for name in sorted(known.keys() - {"redis"}):
            os.environ.update(environment_with(**known[name]))
            engine = db.connect(load_settings().database_url())
            subscribers.metadata.create_all(engine)
            file = Path(folder) / f"{name}.lines"
            file.touch()
            figures = play(engine, file, words, dict(os.environ)) | judge(engine, file)
            figures["published_per_second"] = round(figures["events"] / figures["published_s"])
            figures["delivered_per_second"] = round(2 * figures["events"] / figures["seconds"])
            found[name] = {
                key: round(value, 1) if isinstance(value, float) else value for key, value in figures.items()
            }
            engine.dispose()
    print(json.dumps(found, indent=2))
    good = all(
        place["table_equal_in_order"]
        and place["file_at_least_once"]
        and place["events"] == words.events
        and not place["parked"] + place["failed_publishers"]
        for place in found.values()
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
