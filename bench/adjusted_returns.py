"""Adjusted NAVs against what was published: of every recorded fund with events, the return of every row.

The events are those the pipeline books when it judges the recording; rows it holds are not in the series.
The daily return of the adjusted NAV must be the published one within
`100*d*(s + (s*U + D)/U_prev)/U_prev + 0.005` percent, d half a unit of the NAV's last digit. Rows without a
published return are not compared, nor is 0.00 where the NAV moved: publishers write it for "none".
Prints JSON with the rest by reason; ends with 0 only if at least 99.5 % of the rows agree.

    python -m bench.adjusted_returns [--data ../shared/data] [--list 20]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.false_alarms import judge_all
from bench.nights import setting
from bench.recording import read_recording
from config.settings import ROOT
from core.judging import Verdicts, events_of
from core.metrics import adjusted_nav

BAR = 0.995
HALF_CENT = 0.005


def decimals(value: float) -> int:
    """Digits after the point as the shortest decimal text has them, 2 at least."""
    return max(2, -int(Decimal(repr(value)).as_tuple().exponent)) if value == value else 2


def series_of_funds(verdicts: Verdicts) -> list[pd.DataFrame]:
    """Believed rows with the events booked on them, of each fund that has any event, booked or announced."""
    frame = verdicts.frame
    held = verdicts.reasons != ""
    events = events_of(verdicts, ~held)
    booked = events[events["evidence"] != "announced"].pivot_table(
        index=["fund_code", "ex_date"], columns="kind", values="value"
    )
    key = pd.MultiIndex.from_frame(frame[["fund_code", "nav_date"]])
    values = booked.reindex(columns=["dividend", "split"]).reindex(key)
    rows = frame[
        ["fund_code", "nav_date", "unit_nav", "daily_return", "known_dividend", "known_split"]
    ].assign(dividend=values["dividend"].to_numpy(), split=values["split"].to_numpy(), held=held)
    eventful = rows[["known_dividend", "known_split", "dividend", "split"]].notna().any(axis=1)
    mine = rows["fund_code"].isin(set(rows.loc[eventful, "fund_code"])) & frame["income_per_10k"].isna()
    return [part for _, part in rows[mine].groupby("fund_code", sort=True)]


def compare(part: pd.DataFrame) -> pd.DataFrame:
    """The rows of one fund that can be compared, with `off`: percent beyond the tolerance (0 and less: agrees)."""
    held_before = part["held"].shift(1, fill_value=False)
    kept = part[~part["held"]].assign(after_hole=held_before)
    unit, cash = kept["unit_nav"].to_numpy(), kept["dividend"].fillna(0).to_numpy()
    ratio = kept["split"].fillna(1).to_numpy()
    adjusted = adjusted_nav(unit, cash, ratio)
    if len(kept) < 2:
        return kept.iloc[:0].assign(off=0.0, change=0.0)
    places = np.array([decimals(value) for value in unit.tolist()])
    half = 0.5 * 10.0 ** -np.maximum(places[1:], places[:-1]).astype(float)
    before = unit[:-1]
    change = 100 * (adjusted[1:] / adjusted[:-1] - 1)
    growth = (ratio[1:] * unit[1:] + cash[1:]) / before
    allowed = 100 * half * (ratio[1:] + growth) / before + HALF_CENT + 1e-9
    published = kept["daily_return"].to_numpy()[1:]
    found = kept.iloc[1:].assign(
        change=change,
        off=np.abs(change - published) - allowed,
        before=before,
        before_day=kept["nav_date"].to_numpy()[:-1],
    )
    return found[~np.isnan(published) & ~((published == 0) & (unit[1:] != before))]


def reason(row: Any, neighbours: tuple[float, float], sessions: set[date]) -> str:
    """Why a row disagrees; `neighbours` are the `off` of the rows around it."""
    if row.after_hole:
        return "the row before is held: the return is of another step"
    if row.before_day.date() not in sessions:
        return "the row before is a valuation without trading: the return is from the session before"
    event = not (np.isnan(row.known_dividend) and np.isnan(row.known_split))
    if event or not (np.isnan(row.dividend) and np.isnan(row.split)):
        return "event: its date or value differs from what the NAV shows"
    if min(neighbours) > 0:
        return "a run of rows whose published returns are on another basis"
    if abs(row.off) < 0.02:
        return "off by at most 0.02 percentage points: the publisher rounded in steps"
    return "the published return contradicts the NAVs"


def said(row: Any) -> str:
    return (
        f"{row.fund_code} {row.nav_date:%Y-%m-%d} {row.before:.10g} -> {row.unit_nav:.10g}, "
        f"published {row.daily_return:.2f}, adjusted {row.change:.3f}, "
        f"dividend {row.dividend:g} ({row.known_dividend:g}), split {row.split:g} ({row.known_split:g})"
    )


def agreement(verdicts: Verdicts, sessions: set[date]) -> tuple[dict[str, Any], list[str]]:
    """Figures over all funds with events, and the rows that disagree with their reasons."""
    rows, funds, rest = 0, 0, []
    for part in series_of_funds(verdicts):
        found = compare(part)
        rows, funds = rows + len(found), funds + 1
        off = found["off"].to_numpy()
        around = np.concatenate(([0.0], off, [0.0]))
        for at, row in zip(np.flatnonzero(off > 0), found[off > 0].itertuples(), strict=True):
            rest.append((row, reason(row, (float(around[at]), float(around[at + 2])), sessions)))
    reasons = dict(Counter(why for _, why in rest).most_common())
    share = round(1 - len(rest) / max(rows, 1), 6)
    figures = {"funds": funds, "rows": rows, "disagree": len(rest), "share": share, "reasons": reasons}
    return figures, [f"{said(row)}: {why}" for row, why in rest]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--list", type=int, default=20, help="how many of the rest to list")
    options = parser.parse_args()
    where = setting(read_recording(options.data, money=False))
    figures, rest = agreement(judge_all(where), set(where.sessions.tolist()))
    chosen = np.random.default_rng(1).permutation(len(rest))[: options.list]
    print(json.dumps(figures | {"rest": [rest[i] for i in sorted(chosen)]}, ensure_ascii=False, indent=1))
    return 0 if figures["share"] >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
