"""How many injected bad rows the rules and gates catch, per kind of fault, over recorded nights.

A bad row (see bench.faults) is caught if it is quarantined, if a gate stops the batch it is in, or, for a
missing or wrong dividend or split, if the event that is booked is the true one all the same. A missing row is
caught if a gate stops the batch or makes the night PARTIAL: nothing wrong is merged, and the gap is on record.
Prints JSON, with --markdown the table of docs/faults.md; ends with 0 only if every kind is caught to 99 %, those of
fault_kinds.LIMITS apart.

    python -m bench.recall [--seed 1] [--nights 20] [--data ../shared/data] [--fault stuck] [--markdown]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.fault_kinds import FAULTS, LIMITS, MONEY_FAULTS
from bench.faults import Fault, Injected, inject
from bench.nights import Night, Ruling, Setting, event_days, pick_days, setting
from bench.recording import read_recording
from config.settings import ROOT

BAR = 0.99
EVENT_NIGHTS = 4  # times as many as others: most nights have one or two events
WIDE = 5_300  # rows of a night that a page of 5,000 cuts by less than the coverage gate sees
MONEY_SINCE = np.datetime64("2022-08-15")  # the recorded series of a money fund begins in August 2022


@dataclass
class Tally:
    """Of one kind of fault."""

    nights: int = 0
    bad: int = 0
    held: int = 0
    repaired: int = 0
    stopped: int = 0  # bad rows of batches that a gate stopped, beyond those held
    nights_stopped: int = 0
    partial: int = 0  # missing rows of nights that a gate makes PARTIAL
    left_out: int = 0
    collateral: int = 0  # sound rows that are held with the fault and not without
    sound: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    @property
    def caught(self) -> float:
        """Share of the bad rows."""
        return (
            (self.held + self.repaired + self.stopped + self.partial) / self.bad if self.bad else float("nan")
        )


def count(tally: Tally, injected: Injected, night: Night, ruling: Ruling) -> None:
    held = ruling.held
    bad, twins = set(injected.bad.tolist()), set(injected.twins.tolist())
    if not bad and not injected.lost:
        tally.left_out += injected.left_out
        return
    loose = bad - held.keys()
    repaired = {row for row in loose if _repaired(row, injected.frame, night, ruling)} if loose else set()
    tally.nights += 1
    tally.left_out += injected.left_out
    tally.bad += len(bad) + injected.lost
    tally.held += len(bad) - len(loose)
    tally.repaired += len(repaired)
    tally.sound += len(injected.frame) - len(bad)
    tally.collateral += len(held.keys() - bad - twins - night.clean.held.keys())
    tally.reasons.update(reason for row in bad & held.keys() for reason in held[row].split(","))
    if (
        injected.lost and not ruling.stopped and ruling.partial
    ):  # nothing is wrong, and the night says what is missing
        tally.partial += injected.lost
        tally.reasons.update(ruling.partial)
    if ruling.stopped:
        tally.nights_stopped += 1
        tally.stopped += len(loose - repaired) + injected.lost
        tally.reasons.update(ruling.stopped)
    else:
        tally.missed += [_said(row, injected.frame, night) for row in sorted(loose - repaired)[:5]]


def _repaired(row: int, frame: pd.DataFrame, night: Night, ruling: Ruling) -> bool:
    """Whether the row is right but for its event, and what will be booked is what the recording announces."""
    true = night.staged.iloc[row - 1]
    mine = frame[frame["row_no"] == row].iloc[0]
    if mine["fund_code"] != true["fund_code"] or mine["unit_nav"] != true["unit_nav"]:
        return False
    found = ruling.verdicts
    at = int(np.flatnonzero(found.frame["row_no"].to_numpy() == row)[0])
    for seen, name, none in (
        (found.series.dividend[at], "dividend", 0.0),
        (found.series.split_ratio[at], "split_ratio", 1.0),
    ):
        booked = none if np.isnan(seen) else float(seen)
        told = none if pd.isna(true[name]) else float(true[name])
        if abs(booked - told) > (0.0002 if name == "dividend" else 0.0002 / true["unit_nav"]):
            return False
    return True


def _said(row: int, frame: pd.DataFrame, night: Night) -> str:
    mine = frame[frame["row_no"] == row].iloc[0]
    before = night.before.iloc[row - 1]["unit_nav"] if row <= len(night.before) else float("nan")
    true = night.staged.iloc[row - 1] if row <= len(night.staged) else mine
    names = ("unit_nav", "accum_nav", "daily_return", "dividend", "split_ratio", "income_per_10k", "yield_7d")
    values = " ".join(f"{name}={mine[name]:g}" for name in names if not pd.isna(mine[name]))
    truth = " ".join(f"{name}={true[name]:g}" for name in names if not pd.isna(true[name]))
    category = night.category[row - 1] if row <= len(night.category) else ""
    day = f"{mine['nav_date']:%Y-%m-%d}" if not pd.isna(mine["nav_date"]) else "-"
    return f"{mine['fund_code']} {category} {day} {values} | true {truth} | before unit_nav={before:g}"


def run(
    where: Setting, faults: tuple[Fault, ...], seed: int, nights: int, say: Any = None
) -> dict[str, Tally]:
    """Every fault on its own nights, all drawn from the seed."""
    rng = np.random.default_rng(seed)
    days = pick_days(where, nights, rng)
    money = [day for day in pick_days(where, 5 * nights, rng) if np.datetime64(day) > MONEY_SINCE][:nights]
    splits = event_days(where, "split_ratio", EVENT_NIGHTS * nights, rng)
    dividends = event_days(where, "dividend", EVENT_NIGHTS * nights, rng)
    tallies = {fault.id: Tally() for fault in faults}
    wanted: dict[tuple[date, int | None], list[Fault]] = {}
    for fault in faults:
        mine = days
        if fault.on_events:
            mine = splits if fault.id.startswith("split") else dividends
        elif fault in MONEY_FAULTS:
            mine = sorted(money)
        for day in mine:
            wanted.setdefault((day, WIDE if fault.id == "page_cap" else None), []).append(fault)
    for (day, rows), here in sorted(wanted.items(), key=lambda item: (item[0][0], item[0][1] or 0)):
        night = Night(where, day, rows)
        for fault in here:
            own = np.random.default_rng([seed, day.toordinal(), *fault.id.encode()])
            for _ in range(fault.draws):
                injected = inject(fault, night, own)
                if injected is not None:
                    count(tallies[fault.id], injected, night, night.ruling(injected.frame, injected.stuck))
        if say:
            say(f"{day} {len(night.staged)} rows, {len(here)} faults")
    return tallies


def report(faults: tuple[Fault, ...], tallies: dict[str, Tally]) -> list[dict[str, Any]]:
    rows = []
    for fault in faults:
        tally = tallies[fault.id]
        rows.append(
            {
                "id": fault.id,
                "zh": fault.zh,
                "en": fault.en,
                "batch": fault.batch,
                "nights": tally.nights,
                "bad": tally.bad,
                "caught": round(tally.caught, 5),
                "held": tally.held,
                "repaired": tally.repaired,
                "stopped": tally.stopped,
                "nights_stopped": tally.nights_stopped,
                "partial": tally.partial,
                "left_out": tally.left_out,
                "collateral": tally.collateral,
                "sound": tally.sound,
                "by": dict(tally.reasons.most_common(4)),
                "missed": tally.missed[:8],
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| fault | 故障 | nights | bad rows | caught | by | left out | sound rows held |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in rows:
        repaired = [f"the true event booked ({row['repaired']:,})"] if row["repaired"] else []
        by = ", ".join([*row["by"], *repaired])
        lines.append(
            f"| `{row['id']}` {row['en']} | {row['zh']} | {row['nights']} | {row['bad']:,} | {row['caught']:.2%} "
            f"| {by} | {row['left_out']:,} | {row['collateral']:,} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nights", type=int, default=20)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--fault", action="append", help="only this kind, by id; may be given more than once")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    faults = tuple(fault for fault in (*FAULTS, *LIMITS) if not options.fault or fault.id in options.fault)
    started = time.perf_counter()
    where = setting(read_recording(options.data))
    tallies = run(where, faults, options.seed, options.nights, lambda text: print(text, file=sys.stderr))
    rows = report(faults, tallies)
    beyond = {fault.id for fault in LIMITS}
    short = [row["id"] for row in rows if not row["caught"] >= BAR and row["id"] not in beyond]
    if options.markdown:
        print(markdown(rows))
    else:
        seconds = round(time.perf_counter() - started, 1)
        figures = {"seed": options.seed, "nights": options.nights, "seconds": seconds, "below_bar": short}
        print(json.dumps(figures | {"faults": rows}, ensure_ascii=False, indent=1))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
