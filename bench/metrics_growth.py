"""How time and memory grow with the market: 2,600 to 104,000 funds of 756 sessions, and 26,000 funds of 5,000.

Every size is a process of its own: the same synthetic market as bench.metrics_speed, adjusted NAVs as ragged arrays
in memory, then core.metrics.measure of every metric five times; the fastest counts, which others disturbed least.
Memory is the peak above what the process held before it had a market, the market itself included. A size that needs
more than the machine has free is left out and named.

Prints a table on stderr and JSON on stdout. A size of n times the rows of the next smaller one
(as many funds, or as many days) may take at most 1.15 n times its time and memory; 0 only if all do. `exponent`: the
slope on a doubly logarithmic scale; 1 is linear.

    python -m bench.metrics_growth [--size 2600x756 --size 26000x756] [--database]

With `--database` sizes of up to 26,000 x 756 are also put into SQLite and run cold and warm as `main.py metrics`; those
figures, with the start of a process in them, are shown and not judged.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import URL

from bench.metrics_speed import (
    LAST_DAY,
    Home,
    child,
    fill,
    index_closes,
    market_run,
    middle,
    rounded,
    sessions_of,
    slabs,
)
from bench.rivals import PERIODS_PER_YEAR, RISK_FREE, peak_mb
from core.metrics import measure
from core.trading_calendar import library_sessions

SIZES = ("2600x756", "26000x756", "104000x756", "26000x5000")
DATABASE_ROWS = 26_000 * 756
TOLERANCE = 1.15
BYTES_A_ROW = 8 + 4  # an adjusted NAV and its day
ROOM = 2.0  # free memory wanted, in times of the market's own
ROUNDS = 5
DATABASE_ROUNDS = 3


def size_of(text: str) -> tuple[int, int]:
    funds, _, days = text.partition("x")
    return int(funds), int(days)


def free_mb() -> float:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))


def grown(funds: int, days: int) -> dict[str, Any]:
    """One size, in this process."""
    day_numbers, closes = sessions_of(days), index_closes(days)
    sessions = np.array(library_sessions(), dtype="datetime64[D]")

    def measured(offsets: NDArray[np.int64], numbers: NDArray[np.int32], nav: NDArray[np.float64]) -> float:
        began = time.perf_counter()
        measure(
            offsets,
            numbers,
            nav,
            LAST_DAY,
            sessions,
            risk_free=RISK_FREE,
            periods_per_year=PERIODS_PER_YEAR,
            benchmark=(day_numbers, closes),
        )
        return time.perf_counter() - began

    few = next(slabs(10, days)).adjusted
    measured(np.arange(11) * days, np.tile(day_numbers, 10), few.reshape(-1))  # loads the compiled code
    before, rows = peak_mb(), funds * days
    nav, numbers, row = np.empty(rows), np.empty(rows, dtype=np.int32), 0
    for slab in slabs(funds, days):
        part = slice(row, row + slab.adjusted.size)
        nav[part], numbers[part] = slab.adjusted.reshape(-1), np.tile(day_numbers, len(slab.adjusted))
        row += slab.adjusted.size
        del slab
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak of making it is not meant
    seconds = [measured(np.arange(funds + 1) * days, numbers, nav) for _ in range(ROUNDS)]
    return {
        "funds": funds,
        "days": days,
        "rows": rows,
        "seconds": min(seconds),
        "all_seconds": sorted(seconds),
        "data_mb": rows * BYTES_A_ROW / 2**20,
        "memory_mb": peak_mb() - before,
    }


def growth(smaller: dict[str, Any], larger: dict[str, Any]) -> dict[str, Any]:
    """Between two sizes: exponents of growth, and whether it is no worse than linear."""
    ratio = larger["rows"] / smaller["rows"]
    found: dict[str, Any] = {"from": name_of(smaller), "to": name_of(larger), "rows_ratio": ratio}
    for figure in ("seconds", "memory_mb"):
        times = larger[figure] / smaller[figure]
        found[f"{figure}_ratio"] = times
        found[f"{figure}_exponent"] = math.log(times) / math.log(ratio)
    found["holds"] = all(found[f"{figure}_ratio"] <= TOLERANCE * ratio for figure in ("seconds", "memory_mb"))
    return found


def name_of(size: dict[str, Any]) -> str:
    return f"{size['funds']}x{size['days']}"


def neighbours(sizes: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Sizes that differ in one thing only, and the next larger one in it."""
    found = []
    for same, other in (("days", "funds"), ("funds", "days")):
        ordered = sorted(sizes, key=lambda size: (size[same], size[other]))
        found += [(one, next_one) for one, next_one in pairwise(ordered) if one[same] == next_one[same]]
    return found


def in_database(funds: int, days: int) -> dict[str, Any]:
    """Cold and warm market runs on SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), URL.create("sqlite", database=f"{folder}/navkeeper.db"))
        fill(home.url, funds, days)
        market_run(home)  # may compile
        runs: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
        for _ in range(DATABASE_ROUNDS):
            home.forget()
            for found in runs.values():
                found.append(market_run(home))
    return {name: middle(found, "seconds") for name, found in runs.items()}


def table(sizes: list[dict[str, Any]]) -> str:
    heads = (
        "funds",
        "days",
        "rows",
        "seconds",
        "ns a row",
        "data MB",
        "memory MB",
        "cold s, MB",
        "warm s, MB",
    )
    lines = []
    for size in sizes:
        runs = [size.get("sqlite", {}).get(run) for run in ("cold", "warm")]
        cells = [f"{size['funds']:,}", f"{size['days']:,}", f"{size['rows']:,}", f"{size['seconds']:.3f}"]
        cells += [f"{1e9 * size['seconds'] / size['rows']:.1f}"]
        cells += [f"{size['data_mb']:.0f}", f"{size['memory_mb']:.0f}"]
        cells += [f"{run['seconds']:.1f}, {run['peak_mb']}" if run else "-" for run in runs]
        lines.append(cells)
    widths = [max(len(cell) for cell in column) for column in zip(heads, *lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for cells in (list(heads), *lines)
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=size_of, action="append", metavar="FUNDSxDAYS")
    parser.add_argument("--database", action="store_true")
    parser.add_argument("--one", type=size_of, help="for the children of this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(grown(*options.one)))
        return 0
    sizes, left_out = [], []
    for funds, days in options.size or map(size_of, SIZES):
        needed = ROOM * funds * days * BYTES_A_ROW / 2**20
        if needed > free_mb():
            left_out.append(f"{funds}x{days} needs {needed:,.0f} MB")
            continue
        size = child(sys.executable, "bench.metrics_growth", "--one", f"{funds}x{days}")
        if options.database and size["rows"] <= DATABASE_ROWS:
            size["sqlite"] = in_database(funds, days)
        sizes.append(size)
    pairs = [growth(*pair) for pair in neighbours(sizes)]
    print(table(sizes), file=sys.stderr)
    report = {"sizes": sizes, "left_out": left_out, "growth": pairs}
    print(json.dumps(rounded(report), indent=2))
    return 0 if pairs and all(pair["holds"] for pair in pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
