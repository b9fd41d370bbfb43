"""A recorded market: parquet files of published NAVs, every value as text, as recorded."""

from __future__ import annotations

import csv
import re
from datetime import time
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.standin.market import (
    MINUTES_PER_DAY,
    SHANGHAI_OFFSET_MINUTES,
    Days,
    Event,
    Floats,
    Fund,
    Index,
    Market,
)

DIVIDEND = re.compile(r"每份派现金([\d.]+)元")
SPLIT = re.compile(r"每份基金(?:份额)?(?:折算|分拆)?([\d.]+)份")
CLOSED = "封闭期"
TYPES = {"exchange": "指数型-股票", "otc": "混合型-灵活"}  # where no fund list names the type
REQUIRED = ("fund_code", "nav_date", "unit_nav")
OPTIONAL = (
    "accum_nav",
    "daily_return_pct",
    "purchase_status",
    "redemption_status",
    "dividend_text",
    "board",
)


def recorded_market(
    path: Path,
    publish_time: time = time(18, 0),
    fund_list: Path | None = None,
    index_folder: Path | None = None,
) -> Market:
    """The market of a parquet file; each row is published on its own date at `publish_time` (Shanghai).

    Columns fund_code, nav_date (YYYY-MM-DD), unit_nav and, where there, accum_nav,
    daily_return_pct (a fraction), purchase_status, redemption_status, dividend_text and board
    (exchange or otc). `fund_list` is a CSV with fund_code, pinyin_abbr, fund_name, fund_type,
    pinyin_full; `index_folder` holds CSVs named after an index code, with date and close. Raises KeyError
    for a missing column and OSError for a missing file.
    """
    columns = _columns(path)
    codes, dates = columns["fund_code"], _days(columns["nav_date"])
    order = np.lexsort((dates, codes.at))
    columns = {name: Texts(column.distinct, column.at[order]) for name, column in columns.items()}
    codes, dates = columns["fund_code"], dates[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes.at)) + 1]).astype(np.int64)
    publish_minute = publish_time.hour * 60 + publish_time.minute - SHANGHAI_OFFSET_MINUTES
    return Market(
        kind="RECORDED",
        funds=_funds(codes.of(starts), columns["board"].of(starts), fund_list),
        offsets=np.append(starts, dates.size).astype(np.int64),
        dates=dates,
        unit_nav=_floats(columns["unit_nav"]),
        accum_nav=_floats(columns["accum_nav"]),
        daily_return=_daily_returns(columns),
        visible_at=(dates * MINUTES_PER_DAY + publish_minute).astype(np.int32),
        events=_events(columns["dividend_text"]),
        indices=_indices(index_folder) if index_folder is not None else {},
    )


def _indices(folder: Path) -> dict[str, Index]:
    found = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["date"], float(row["close"])) for row in csv.DictReader(file)]
        days = np.array([day for day, _ in rows], dtype="datetime64[D]").astype(np.int32)
        found[path.stem] = Index(f"指数{path.stem}", days, np.array([close for _, close in rows]))
    return found


class Texts(NamedTuple):
    """A column of texts: the distinct ones, and which of them each row holds (-1: none)."""

    distinct: list[str]
    at: NDArray[np.int32]

    def of(self, rows: NDArray[np.int64]) -> list[str | None]:
        """The texts of some rows."""
        return [self.distinct[i] if i >= 0 else None for i in self.at[rows].tolist()]

    def equal(self, text: str) -> NDArray[np.bool_]:
        """Which rows hold this text."""
        held: NDArray[np.bool_] = self.at == (self.distinct.index(text) if text in self.distinct else -2)
        return held


def _columns(path: Path) -> dict[str, Texts]:
    """The columns of a file; those it lacks, if they may be lacking, hold nothing.

    Read one by one and as dictionaries: 2.8 million rows have some 30,000 different NAVs.
    """
    names = [name for name in (*REQUIRED, *OPTIONAL) if name in pq.read_schema(path).names]
    if missing := set(REQUIRED) - set(names):
        raise KeyError(f"{path} has no column {', '.join(sorted(missing))}")
    columns = {name: _column(path, name) for name in names}
    nothing = Texts([], np.full(columns["fund_code"].at.size, -1, dtype=np.int32))
    return dict.fromkeys(OPTIONAL, nothing) | columns


def _column(path: Path, name: str) -> Texts:
    table = pq.read_table(path, columns=[name], read_dictionary=[name], use_threads=False)
    chunks = table.unify_dictionaries()[name].chunks
    indices = [chunk.indices.fill_null(-1).to_numpy() for chunk in chunks]
    texts = Texts(chunks[0].dictionary.to_pylist(), np.concatenate(indices))
    del table, chunks, indices
    pa.default_memory_pool().release_unused()  # else the next columns come on top of it
    return texts


def _days(column: Texts) -> Days:
    """Days since 1970-01-01 of a column of dates."""
    days: Days = np.array(column.distinct, dtype="datetime64[D]").astype(np.int32)[column.at]
    return days


def _floats(column: Texts) -> Floats:
    """A column of numbers, NaN where there is none."""
    values: Floats = np.array([*map(float, column.distinct), np.nan])[column.at]
    return values


def _hundredths(text: str) -> float:
    """A fraction in hundredths of a percent, rounded half away from zero as its digits say."""
    return float((Decimal(text) * 10_000).quantize(Decimal(1), ROUND_HALF_UP)) + 0.0  # no minus zero


def _daily_returns(columns: dict[str, Texts]) -> NDArray[np.float32]:
    """Percent with two decimals from fractions; NaN where missing or 0.0 while the fund was closed."""
    column = columns["daily_return_pct"]
    hundredths = np.array([*map(_hundredths, column.distinct), np.nan])[column.at]
    nothing = np.array([float(text) == 0 for text in column.distinct] + [False])[column.at]
    closed = columns["purchase_status"].equal(CLOSED) | columns["redemption_status"].equal(CLOSED)
    hundredths[closed & nothing] = np.nan
    percent: NDArray[np.float32] = (hundredths / 100).astype(np.float32)
    return percent


def parse_event(text: str) -> Event:
    """The dividend or the split of a published text; a text without a known number keeps its words."""
    if cash := DIVIDEND.search(text):
        return Event(float(cash[1]), None, text)
    if ratio := SPLIT.search(text):
        return Event(None, float(ratio[1]), text)
    return Event(None, None, text)


def _events(column: Texts) -> dict[int, Event]:
    parsed = [parse_event(text) for text in column.distinct]
    rows = np.flatnonzero(column.at >= 0).tolist()
    return {row: parsed[at] for row, at in zip(rows, column.at[rows].tolist(), strict=True)}


def _funds(codes: list[str | None], boards: list[str | None], fund_list: Path | None) -> list[Fund]:
    listed: dict[str, dict[str, str]] = {}
    if fund_list is not None:
        with fund_list.open(encoding="utf-8-sig", newline="") as file:
            listed = {row["fund_code"]: row for row in csv.DictReader(file)}
    funds = []
    for code, board in zip(codes, boards, strict=True):
        if code is None:
            raise ValueError("a recorded row has no fund_code")
        about = listed.get(code, {})
        funds.append(
            Fund(
                code=code,
                # Rows of the ranking reply are separated by commas.
                name=about.get("fund_name", f"基金{code}").replace(",", "，"),
                fund_type=about.get("fund_type") or TYPES[board or "otc"],
                pinyin=about.get("pinyin_abbr", f"JJ{code}"),
                pinyin_full=about.get("pinyin_full", f"JIJIN{code}"),
                exchange=board == "exchange",
                money=False,
            )
        )
    return funds
