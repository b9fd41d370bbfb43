"""The recorded history as the frames that the rules judge.

Money funds are few in the recording: one real series of income and yield is spread over thirty real codes,
each at its own level.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.background import FundFacts
from core.fund_category import fund_category
from core.sources.base import NavRow
from core.sources.event_text import parse_event_text
from core.standin.market import Market
from core.standin.recorded import recorded_market

Ints = NDArray[np.int64]
Days = NDArray[np.datetime64]

FILES = ("nav_history.parquet", "nav_history_active.parquet")
MONEY_FILE = "nav_json/015557.json"
MONEY_CODES = 30
STRIDE = 100_000  # days; more than there are between two funds
NUMBERS = ("unit_nav", "accum_nav", "daily_return", "dividend", "split_ratio", "income_per_10k", "yield_7d")


@dataclass(frozen=True)
class Recording:
    """All rows by fund and date. `frame` has the columns of NavRow and row_no; `start[i]:start[i + 1]` is fund i."""

    frame: pd.DataFrame
    codes: list[str]
    start: Ints
    facts: dict[str, FundFacts]
    kinds: NDArray[np.str_]  # of each row: the file it is from

    @cached_property
    def key(self) -> Ints:
        """Fund and day of every row in one ascending number; see `key_of`."""
        return key_of(np.repeat(np.arange(len(self.codes)), np.diff(self.start)), self.frame["nav_date"])

    @cached_property
    def number(self) -> dict[str, int]:
        """Position of each fund."""
        return {code: i for i, code in enumerate(self.codes)}


def read_recording(folder: Path, *, money: bool = True, every: int = 1) -> Recording:
    """Both files and the money funds; of each file every n-th fund."""
    listed = fund_list(folder)
    parts, kinds = [], []
    for name in FILES:
        frame = _frame_of_market(recorded_market(folder / name), every)
        parts.append(frame)
        kinds.append(np.full(len(frame), name))
    if money:
        parts.append(_money_rows(folder / MONEY_FILE, listed))
        kinds.append(np.full(len(parts[-1]), MONEY_FILE))
    return recording_of(pd.concat(parts, ignore_index=True), listed, np.concatenate(kinds))


def recording_of(
    frame: pd.DataFrame, listed: dict[str, tuple[str, str]], kinds: NDArray[np.str_] | None = None
) -> Recording:
    """The recording of some rows (as `fund_rows`); `listed`: category and name of each fund."""
    order = np.lexsort((frame["nav_date"], pd.factorize(frame["fund_code"], sort=True)[0]))
    frame = frame.iloc[order].reset_index(drop=True)
    frame["row_no"] = np.arange(1, len(frame) + 1, dtype=np.int64)
    fund, codes = pd.factorize(frame["fund_code"])
    start = np.concatenate([[0], np.flatnonzero(np.diff(fund)) + 1, [len(frame)]]).astype(np.int64)
    first = frame["nav_date"].to_numpy()[start[:-1]].astype("datetime64[D]").tolist()
    facts = {
        code: FundFacts(*listed.get(code, ("other", "")), inception=day)
        for code, day in zip(codes, first, strict=True)
    }
    kinds = np.full(len(frame), "") if kinds is None else kinds[order]
    return Recording(frame, list(codes), start, facts, kinds)


def key_of(fund: Ints, day: pd.Series[pd.Timestamp]) -> Ints:
    """Fund and day in one number; -1 for no fund or no day."""
    days = day.to_numpy().astype("datetime64[D]")
    return np.where(np.isnat(days) | (fund < 0), -1, fund * STRIDE + days.astype(np.int64))


def fund_list(folder: Path) -> dict[str, tuple[str, str]]:
    """Category and name by code."""
    with (folder / "fund_list.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["fund_code"]: (fund_category(row["fund_type"]), row["fund_name"]) for row in rows}


def _frame_of_market(market: Market, every: int) -> pd.DataFrame:
    size = len(market.dates)
    fund = np.repeat(np.arange(len(market.funds)), np.diff(market.offsets))
    dividend, split = np.full(size, np.nan), np.full(size, np.nan)
    for row, event in market.events.items():
        cash, ratio = parse_event_text(event.text)
        dividend[row] = np.nan if cash is None else cash
        split[row] = np.nan if ratio is None else ratio
    frame = _frame(
        np.array([about.code for about in market.funds], dtype=object)[fund],
        market.dates.astype("datetime64[D]"),
        unit_nav=market.unit_nav,
        accum_nav=market.accum_nav,
        daily_return=market.daily_return.astype(np.float64).round(2),
        dividend=dividend,
        split_ratio=split,
    )
    return frame if every == 1 else frame[fund % every == 0].reset_index(drop=True)


def fund_rows(code: str, days: Days, **numbers: NDArray[np.float64]) -> pd.DataFrame:
    """Rows of one fund; what is not given is NaN."""
    return _frame(np.full(len(days), code, dtype=object), days, **numbers)


def _frame(codes: NDArray[np.object_], days: Days, **numbers: NDArray[np.float64]) -> pd.DataFrame:
    size = len(codes)
    columns: dict[str, object] = {"row_no": np.arange(1, size + 1, dtype=np.int64)}
    for name in NavRow._fields:
        columns[name] = pd.Series(np.full(size, None), dtype=object)
    columns |= {"fund_code": pd.Series(codes, dtype=object), "nav_date": days.astype("datetime64[s]")}
    columns |= {name: numbers.get(name, np.full(size, np.nan)) for name in NUMBERS}
    return pd.DataFrame(columns)


def _money_rows(path: Path, listed: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """The recorded series under thirty codes, at 85 to 115 % of its level."""
    rows = sorted(json.loads(path.read_text(encoding="utf-8")), key=lambda row: row["date"])
    rows = [row for row in rows if float(row["cnav"]) != 0]  # before the first income
    days = np.array([f"{row['date']}" for row in rows])
    dates = np.array([f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in days], dtype="datetime64[D]")
    income = np.array([float(row["nav"]) for row in rows])
    yields = np.array([float(row["cnav"]) for row in rows])
    codes = [code for code, (category, _) in listed.items() if category == "money"]
    codes = codes[:: len(codes) // MONEY_CODES][:MONEY_CODES]
    level = np.linspace(0.85, 1.15, len(codes))
    return _frame(
        np.repeat(np.array(codes, dtype=object), len(rows)),
        np.tile(dates, len(codes)),
        income_per_10k=np.outer(level, income).round(4).ravel(),
        yield_7d=np.outer(level, yields).round(3).ravel(),
    )
