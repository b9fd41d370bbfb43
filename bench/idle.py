"""An idle daemon: CPU time and resident memory while nothing is due, on the real clock. Prints JSON.

The claim: under 1 % of one core and under 120 MB.

    python -m bench.idle [--seconds 300] [--db sqlite --db mariadb]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.daemons import (
    Node,
    cpu_seconds,
    database,
    leader,
    machine,
    say,
    wait_for,
    work_folder,
)
from config.settings import ROOT

CPU_PERCENT, MEMORY_MB = 1.0, 120.0
SETTLE_SECONDS = 10.0  # what starting costs is not idling
JOBS = (
    (ROOT / "config" / "jobs.toml").read_text(encoding="utf-8").replace("cron = {", "cron = { year = 2199,")
)


def resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024


def idle_daemon(stack: ExitStack, kind: str, folder: Path) -> Node:
    """A daemon with the shipped jobs, none of them due in this century."""
    engine = stack.enter_context(database(kind, folder, datetime.now(UTC)))
    jobs = folder / "idle.toml"
    jobs.write_text(JOBS, encoding="utf-8")
    node = Node(engine, folder, jobs)
    node.launch()
    stack.callback(node.kill)
    if wait_for(lambda: leader(engine), lambda row: row is not None, 60) is None:
        raise SystemExit(f"the daemon on {kind} did not start; see {folder}")
    return node


def measure(nodes: dict[str, Node], seconds: float) -> dict[str, dict[str, Any]]:
    time.sleep(SETTLE_SECONDS)
    began = time.monotonic()
    before = {kind: cpu_seconds(node.pid) for kind, node in nodes.items()}
    memory = dict.fromkeys(nodes, 0.0)
    while (passed := time.monotonic() - began) < seconds:
        for kind, node in nodes.items():
            memory[kind] = max(memory[kind], resident_mb(node.pid))
        time.sleep(min(1.0, seconds - passed))
    took = time.monotonic() - began
    return {
        kind: {
            "cpu_percent_of_a_core": round(100 * (cpu_seconds(node.pid) - before[kind]) / took, 2),
            "most_resident_mb": round(memory[kind], 1),
        }
        for kind, node in nodes.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--db", choices=("sqlite", "mariadb"), action="append")
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for database and logs, to look at afterwards"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(work_folder(options.keep))
        nodes = {}
        for kind in options.db or ["sqlite", "mariadb"]:
            (folder / kind).mkdir()
            nodes[kind] = idle_daemon(stack, kind, folder / kind)
        say(f"measuring for {options.seconds:g} s")
        found = measure(nodes, options.seconds)
    print(json.dumps({"machine": machine(), "seconds": options.seconds} | found, indent=2))
    fine = all(
        one["cpu_percent_of_a_core"] < CPU_PERCENT and one["most_resident_mb"] < MEMORY_MB
        for one in found.values()
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
