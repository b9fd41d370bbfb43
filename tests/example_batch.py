"""Rows as tests write them down, and the rules' verdicts on them without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.background import Background, FundFacts
from core.judging import Verdicts, judge
from core.nav_frames import ANCHOR_COLUMNS, frame_of, frame_of_rows
from core.sources.base import NavRow
from core.thresholds import load_thresholds

ROOT = Path(__file__).resolve().parents[1]
THRESHOLDS = load_thresholds(ROOT / "config" / "rules.toml")
TODAY = date(2025, 12, 31)
MON, TUE, WED, THU, FRI = (date(2025, 12, day) for day in range(1, 6))
# Weekdays on which Shanghai was closed, as the exchange announced them.
CLOSED_2025 = {
    date(2025, 1, 1),
    *(date(2025, 1, day) for day in (28, 29, 30, 31)),
    *(date(2025, 2, day) for day in (3, 4)),
    date(2025, 4, 4),
    *(date(2025, 5, day) for day in (1, 2, 5)),
    date(2025, 6, 2),
    *(date(2025, 10, day) for day in (1, 2, 3, 6, 7, 8)),
}


def weekdays(start: date, end: date) -> list[date]:
    """Monday to Friday from `start` to `end`, closures left out where CLOSED_2025 knows them."""
    days = (start + timedelta(days=n) for n in range((end - start).days + 1))
    return [day for day in days if day.weekday() < 5 and day not in CLOSED_2025]


SESSIONS = weekdays(date(2024, 1, 1), date(2025, 12, 31))


def nav(
    day: date | None,
    unit: float | None,
    published: float | None = None,
    accum: float | None = None,
    *,
    code: str = "000001",
    **rest: Any,
) -> NavRow:
    """A row: date, unit NAV, published return in percent, accumulated NAV."""
    return NavRow(code, day, unit, accum, published, **rest)


def verdicts(
    rows: Sequence[NavRow], before: Sequence[NavRow] = (), category: str = "mixed", **known: Any
) -> Verdicts:
    """The rules' answer to `rows`, given the believed rows `before` them; every fund of one category.

    `known`: what else the background holds, by the names of core.background.Background.
    """
    anchors = frame_of(ANCHOR_COLUMNS, [row[: len(ANCHOR_COLUMNS)] for row in before])
    funds = {row.fund_code: FundFacts(category) for row in (*rows, *before)}
    background = Background(TODAY, THRESHOLDS, np.array(SESSIONS, dtype="datetime64[D]"), funds)
    return judge(frame_of_rows(rows), anchors, replace(background, **known))


def reasons(
    rows: Sequence[NavRow], before: Sequence[NavRow] = (), category: str = "mixed", **known: Any
) -> list[str]:
    """The rules each row failed, comma-separated, in the order of `rows`."""
    found = verdicts(rows, before, category, **known)
    mine = ~found.frame["anchor"].to_numpy(dtype=bool)
    by_number = dict(zip(found.frame["row_no"][mine], found.reasons[mine], strict=True))
    return [by_number[number] for number in range(1, len(rows) + 1)]


def counted(found: Verdicts, rule_id: str) -> tuple[int, int]:
    """Rows that a rule looked at, and those that failed it."""
    (result,) = (result for result in found.results if result.rule_id == rule_id)
    return result.checked, result.failed


def beside(**values: Sequence[float]) -> pd.DataFrame:
    """What is known of the rows of a batch, column by column, the first row's first."""
    length = len(next(iter(values.values())))
    return pd.DataFrame({"row_no": range(1, length + 1), **values})


def booked(rows: Sequence[NavRow], before: Sequence[NavRow] = ()) -> list[tuple[date, str, float, str]]:
    """Dividends and splits the rows show: date, kind, value to ten decimals, evidence."""
    found = verdicts(rows, before)
    events = []
    for at, day in enumerate(found.frame["nav_date"]):
        for kind, values in (("dividend", found.series.dividend), ("split", found.series.split_ratio)):
            if not np.isnan(values[at]):
                evidence = "implied" if found.series.implied[at] else "published"
                events.append((pd.Timestamp(day).date(), kind, round(float(values[at]), 10), evidence))
    return events
