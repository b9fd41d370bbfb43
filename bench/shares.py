"""What the main thread of a process is at, looked at every two milliseconds."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 0.002
PARTS = (  # what the main thread is at: the innermost frame of these files, and functions if named
    ("other imports", "<frozen importlib", ()),
    ("load compiled code", "/numba/", ()),
    ("formulas", "core/metric_kernels.py", ()),
    ("formulas", "core/metrics.py", ()),
    ("ranks", "core/ranking.py", ()),
    ("ranks", "core/scoring.py", ()),
    ("ranks", "core/rank_store.py", ()),
    ("write", "core/db.py", ("bulk_insert", "write")),
    ("write", "core/metrics_store.py", ()),
    ("write", "core/metrics_calculator.py", ("rows", "_nullable")),
    ("write", "scheduler/run_context.py", ()),
    ("read", "core/series_reader.py", ()),
    ("mirror", "core/nav_mirror.py", ()),
    ("mirror", "core/mirror_file.py", ()),
    ("mirror", "core/ragged.py", ()),
    ("prepare", "core/metrics_calculator.py", ()),
)
DRIVERS = ("/sqlalchemy/", "/pymysql/", "/connectorx/", "/adbc_driver")  # reading, unless PARTS know better


def shares_of(action: Callable[[], int]) -> dict[str, Any]:
    """Seconds the main thread spent in each of PARTS while it did `action`."""
    watched, done = threading.get_ident(), threading.Event()
    spent: dict[str, float] = defaultdict(float)

    def watch() -> None:
        last = time.perf_counter()
        while not done.wait(LOOK_SECONDS):
            part = part_of(sys._current_frames()[watched])
            now = time.perf_counter()  # a long call that lets nobody look counts for where it was
            spent[part] += now - last
            last = now

    watcher = threading.Thread(target=watch, daemon=True)
    began = time.perf_counter()
    watcher.start()
    code = action()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return {"exit_code": code, "seconds": seconds, **dict(sorted(spent.items(), key=lambda item: -item[1]))}


def part_of(frame: Any) -> str:
    otherwise = "other"
    while frame is not None:
        code = frame.f_code
        for part, where, functions in PARTS:
            if where in code.co_filename and (not functions or code.co_name in functions):
                return otherwise if part == "prepare" and otherwise != "other" else part
        if any(driver in code.co_filename for driver in DRIVERS):
            otherwise = "read"
        frame = frame.f_back
    return otherwise
