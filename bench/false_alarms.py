"""How many rows of the recorded history the rules hold: every one of them was published.

All rules over all rows of both files at once, so that the rules that compare funds see every night whole.
Some rows are held on their own night and believed two nights later, when others follow from them; --nights K
also judges K recorded nights, drawn from --seed, as they would have been judged that evening. Prints JSON; ends
with 0 only if error findings are on at most 0.05 % of the rows. --samples N lists N rows of each rule with the
rows around them, for looking at by hand; --rule RULE those of one rule alone.

    python -m bench.false_alarms [--data ../shared/data] [--nights 0] [--seed 1] [--samples 5] [--rule stale]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.nights import Night, Setting, pick_days, setting
from bench.recording import FILES, NUMBERS, Recording, read_recording
from config.settings import ROOT
from core.background import Background
from core.judging import Verdicts, judge

BAR = 0.0005
ROWS_AROUND = 3
JUDGED_ON = date(2026, 6, 1)  # after the newest recorded row


def judge_all(where: Setting) -> Verdicts:
    """The verdict on the whole recording as one history."""
    recording = where.recording
    known = Background(JUDGED_ON, where.thresholds, where.sessions, recording.facts)
    return judge(recording.frame, recording.frame.iloc[:0][["fund_code", "nav_date", *NUMBERS]], known)


def findings(verdicts: Verdicts, recording: Recording) -> dict[str, Any]:
    """Rows held, in all, by rule, by combination of rules and by file."""
    row_no = verdicts.frame["row_no"].to_numpy()
    reasons = verdicts.reasons
    held = np.flatnonzero(reasons != "")
    kinds = recording.kinds[row_no[held] - 1]
    by_file = {}
    for name in (*FILES, *sorted(set(recording.kinds) - set(FILES))):
        rows, count = int((recording.kinds == name).sum()), int((kinds == name).sum())
        by_file[name] = {"rows": rows, "held": count, "share": round(count / max(rows, 1), 7)}
    events = verdicts.series
    return {
        "rows": len(row_no),
        "held": len(held),
        "share": round(len(held) / len(row_no), 7),
        "by_file": by_file,
        "rules": {
            result.rule_id: {
                "severity": result.severity,
                "checked": result.checked,
                "failed": result.failed,
                "share": round(result.failed / len(row_no), 7),
            }
            for result in verdicts.results
        },
        "together": dict(Counter(reasons[held].tolist()).most_common()),
        "implied_dividends": int(events.implied.sum()),
    }


def on_the_night(where: Setting, nights: int, seed: int) -> dict[str, Any]:
    """Rows that would have been held on their own evening, and nights that a gate would have stopped."""
    rows, reasons, stopped, partial = 0, Counter[str](), [], []
    days = pick_days(where, nights, np.random.default_rng(seed))
    for day in days:
        night = Night(where, day)
        rows += len(night.staged)
        reasons.update(night.clean.held.values())
        stopped += [f"{day} {gate}" for gate in night.clean.stopped]
        partial += [f"{day} {gate}" for gate in night.clean.partial]
    held = sum(reasons.values())
    share = round(held / max(rows, 1), 7)
    figures = {
        "nights": len(days),
        "rows": rows,
        "held": held,
        "share": share,
        "together": dict(reasons.most_common()),
    }
    return figures | {"stopped": stopped, "partial": partial}


def around(verdicts: Verdicts, at: int) -> list[str]:
    """The rows of the fund around one, with what they were explained by."""
    frame, series = verdicts.frame, verdicts.series
    code = frame["fund_code"].iat[at]
    lines = []
    for row in range(max(0, at - ROWS_AROUND), min(len(frame), at + ROWS_AROUND + 1)):
        if frame["fund_code"].iat[row] != code:
            continue
        values = " ".join(
            f"{name}={frame[name].iat[row]:.10g}" for name in NUMBERS if pd.notna(frame[name].iat[row])
        )
        mark = ">" if row == at else " "
        day = f"{frame['nav_date'].iat[row]:%Y-%m-%d}"
        change = f"change={series.change[row]:.3f} since={series.sessions_since[row]}"
        lines.append(
            f"{mark} {code} {frame['category'].iat[row]} {day} {values} [{change}] {verdicts.reasons[row]}"
        )
    return lines


def samples(verdicts: Verdicts, rule: str, count: int, seed: int = 1) -> list[list[str]]:
    """Rows that this rule holds, drawn at random, each with those around it."""
    at = np.array(
        [i for i in np.flatnonzero(verdicts.reasons != "") if rule in verdicts.reasons[i].split(",")]
    )
    chosen = np.random.default_rng(seed).permutation(at)[:count] if len(at) else at
    return [around(verdicts, int(i)) for i in sorted(chosen)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--rule")
    parser.add_argument("--nights", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    recording = read_recording(options.data)
    where = setting(recording)
    started = time.perf_counter()
    verdicts = judge_all(where)
    found = findings(verdicts, recording) | {"seconds": round(time.perf_counter() - started, 1)}
    if options.nights:
        found["on_the_night"] = on_the_night(where, options.nights, options.seed)
    print(json.dumps(found, ensure_ascii=False, indent=1))
    for rule in (result.rule_id for result in verdicts.results if options.samples):
        if options.rule in (None, rule):
            for lines in samples(verdicts, rule, options.samples):
                print(f"-- {rule}", *lines, sep="\n")
    return 0 if found["share"] <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
