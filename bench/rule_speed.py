"""How long the rules take: one night of 26,000 rows, and 20 million rows of history again.

The night is a recorded one, repeated under unused codes, with the believed rows before it. The history is every
sixth recorded fund, repeated under unused codes, a frame of whole funds after the other, through the product's
own re-validation (`core.revalidation.revalidate`; reading the rows from a database comes on top). Prints JSON;
ends with 0 if the night took under 1 s, the history under 60 s, and the process never held 2 GB.

    python -m bench.rule_speed [--rows 20000000] [--night-rows 26000] [--data ../shared/data] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from bench.nights import Night, Setting, setting
from bench.recording import read_recording
from config.settings import ROOT
from core import gates
from core.background import Background
from core.judging import judge
from core.revalidation import revalidate

NIGHT = date(2025, 11, 20)
TIMES = 5
SOME_FUNDS = 6  # every sixth
NIGHT_SECONDS, HISTORY_SECONDS, MEGABYTES = 1.0, 60.0, 2048.0


def night_figures(where: Setting, rows: int, profile: bool) -> dict[str, Any]:
    """Seconds of all rules and gates on one night, by the clock and of the processor; what was known is read before."""
    night = Night(where, NIGHT, rows)
    frame, anchors = night.staged, night.anchors(night.staged)
    background, history = night.background(frame), night.history

    def whole() -> tuple[float, float]:
        started, worked = time.perf_counter(), time.process_time()
        gates.gates(judge(frame, anchors, background), background, night.day, history)
        return time.perf_counter() - started, time.process_time() - worked

    whole()
    seconds = [whole() for _ in range(TIMES)]
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(whole)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(30)
    return {
        "rows": len(frame),
        "anchors": len(anchors),
        "seconds": round(median(clock for clock, _ in seconds), 3),
        "slowest_s": round(max(clock for clock, _ in seconds), 3),
        "processor_s": round(median(worked for _, worked in seconds), 3),
    }


class History:
    """The recording again and again, each time under other codes, until there are so many rows."""

    def __init__(self, where: Setting, rows: int) -> None:
        frame, facts = where.recording.frame, where.recording.facts
        self.frame = frame
        self.copies = -(-rows // len(frame))
        self.number, codes = pd.factorize(frame["fund_code"])
        self.codes = [
            [f"{copy * len(codes) + n:06d}" for n in range(len(codes))] for copy in range(self.copies)
        ]
        self.facts = {new: facts[old] for part in self.codes for new, old in zip(part, codes, strict=True)}

    def frames(self) -> Iterator[pd.DataFrame]:
        for part in self.codes:
            yield self.frame.assign(
                fund_code=pd.Series(np.array(part, dtype=object)[self.number], dtype=object)
            )


def history_figures(where: Setting, rows: int) -> dict[str, Any]:
    """Seconds of all rules on so many rows, by the clock and of the processor."""
    history = History(where, rows)
    background = Background(date(2026, 6, 1), where.thresholds, where.sessions, history.facts)
    started, worked = time.perf_counter(), time.process_time()
    results = revalidate(history.frames(), background)
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    return {
        "rows": len(history.frame) * history.copies,
        "funds": len(history.facts),
        "seconds": round(seconds, 1),
        "processor_s": round(processor, 1),
        "findings": sum(result.failed for result in results if result.severity == "error"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--night-rows", type=int, default=26_000)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    where = setting(read_recording(options.data, every=SOME_FUNDS))
    night = night_figures(where, options.night_rows, options.profile)
    history = history_figures(where, options.rows)
    megabytes = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    busy = round(os.getloadavg()[0], 1)
    print(json.dumps({"night": night, "history": history, "peak_mb": megabytes, "load": busy}, indent=1))
    good = night["slowest_s"] < NIGHT_SECONDS and history["seconds"] < HISTORY_SECONDS
    return 0 if good and megabytes < MEGABYTES else 1


if __name__ == "__main__":
    sys.exit(main())
