"""What the cache costs: a hit in memory, in the database (both kinds) and in Redis, and 100 processes on one cold key.

The value is a summary as the market page has it, 10 kB of JSON. Prints JSON, latencies in milliseconds; 0 only if each
place made the cold key once for all, and a hit in memory stays under 0.5 ms at p95. A place that is not installed here
is left out.

    python -m bench.cache [--processes 100] [--hits 2000]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from config.settings import ROOT, environment_with, load_settings
from core import db
from core.initialise import initialise
from scheduler.cache import open_cache
from scheduler.overview import observer_engine
from tests.mariadb import MariaServer
from tests.redis_server import RedisServer

MEMORY_BAR = 0.5  # milliseconds at p95
VALUE = {"types": [{"category": f"type {n}", "values": [n / 7 + m for m in range(40)]} for n in range(14)]}


@contextlib.contextmanager
def places(folder: Path) -> Iterator[dict[str, dict[str, str]]]:
    """Of each place the settings by which a process finds it, its database ready for work."""
    sqlite = URL.create("sqlite", database=str(folder / "navkeeper.db"))
    found = {"sqlite": {"db_url": str(sqlite), "home": str(folder)}}
    with contextlib.ExitStack() as stack:
        if shutil.which("redis-server"):
            server = stack.enter_context(RedisServer(folder / "redis"))
            found["redis"] = found["sqlite"] | {"cache_url": server.url}
        if shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            maria = stack.enter_context(MariaServer(folder / "mariadb"))
            with create_engine(maria.url).begin() as connection:
                connection.execute(text("CREATE DATABASE bench CHARACTER SET utf8mb4"))
            url = maria.url.set(database="bench").render_as_string(hide_password=False)
            found["mariadb"] = {"db_url": url, "home": str(folder)}
        for name in found.keys() - {"redis"}:
            engine = db.connect(load_settings(**found[name]).database_url())
            initialise(engine, datetime.now(UTC))
            engine.dispose()
        yield found


def latencies(seconds: list[float]) -> dict[str, float]:
    cut = statistics.quantiles(seconds, n=100)
    return {name: round(cut[at] * 1000, 3) for name, at in (("p50", 49), ("p95", 94), ("p99", 98))}


def hits(settings: dict[str, Any], count: int) -> dict[str, Any]:
    """Of the memory, and of what lies under it."""
    found = load_settings(**settings)
    cache = open_cache(found, observer_engine(found.database_url()))
    timed: dict[str, list[float]] = {"memory": [], "shared": []}
    cache.get("summaries", "hit", lambda: VALUE, now=datetime.now(UTC))
    for name, seconds in timed.items():
        for _ in range(count):
            if name == "shared":
                cache._memory.clear()
            begun = time.perf_counter()
            cache.get("summaries", "hit", dict, now=datetime.now(UTC))
            seconds.append(time.perf_counter() - begun)
    cache.close()
    return {name: latencies(seconds) for name, seconds in timed.items()}


def crowd(folder: Path, settings: dict[str, str], processes: int) -> dict[str, Any]:
    folder.mkdir()
    words = [sys.executable, "-m", "tests.cache_crowd", str(folder), str(processes)]
    environment = environment_with(**settings)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    served = found["got"].count(found["made"][0])
    return {"makings": len(found["made"]), "served": served, "seconds": found["seconds"]}


def main() -> int:
    parser = argparse.ArgumentParser("bench.cache")
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--hits", type=int, default=2000)
    options = parser.parse_args()
    result: dict[str, Any] = {"bytes": len(json.dumps(VALUE)), "processes": options.processes}
    with tempfile.TemporaryDirectory() as folder, places(Path(folder)) as found:
        for name, settings in found.items():
            at_once = crowd(Path(folder) / f"crowd-{name}", settings, options.processes)
            result[name] = {"crowd": at_once, **hits(settings, options.hits)}
    print(json.dumps(result, indent=2))
    well = all(
        result[name]["crowd"]["makings"] == 1
        and result[name]["crowd"]["served"] == options.processes
        and result[name]["memory"]["p95"] < MEMORY_BAR
        for name in found
    )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
