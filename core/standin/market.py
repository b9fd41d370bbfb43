"""The market the stand-in serves: every published row in columns, and which of them are visible when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

SHANGHAI = ZoneInfo("Asia/Shanghai")
SHANGHAI_OFFSET_MINUTES = 480  # no daylight saving since 1991
MINUTES_PER_DAY = 1440

Rows = NDArray[np.int64]
Days = NDArray[np.int32]
Minutes = NDArray[np.int32]
Floats = NDArray[np.float64]


class Fund(NamedTuple):
    """One fund as the upstream's lists describe it."""

    code: str
    name: str
    fund_type: str
    pinyin: str
    pinyin_full: str
    exchange: bool  # traded on an exchange: dt=fb, else dt=kf
    money: bool  # publishes income and yield instead of NAVs


class Event(NamedTuple):
    """A dividend (cash per pre-event share) or a split (shares after for one before), in words too."""

    dividend: float | None
    split_ratio: float | None
    text: str


class Index(NamedTuple):
    """An index: its closes in points, known from `INDEX_MINUTE` (Shanghai) of each day on."""

    name: str
    dates: Days
    closes: Floats


INDEX_MINUTE = 15 * 60 + 30


@dataclass(frozen=True, eq=False)
class Market:
    """Rows of all funds, one after the other; the rows of fund i are `offsets[i]:offsets[i + 1]`.

    Within a fund rows are in date order; every fund has at least one. `dates` are days since
    1970-01-01, `visible_at` minutes since 1970-01-01 UTC at which the row was published.
    `daily_return` is percent with two decimals. NaN means not published. Money funds keep income
    per 10,000 shares in `unit_nav` and the 7-day yield (percent) in `accum_nav`, as upstream does.
    """

    kind: str  # SIMULATED or RECORDED
    funds: list[Fund]
    offsets: Rows
    dates: Days
    unit_nav: Floats
    accum_nav: Floats
    daily_return: NDArray[np.float32]
    visible_at: Minutes
    events: dict[int, Event] = field(default_factory=dict)  # row -> event
    span_starts: dict[int, int] = field(default_factory=dict)  # row -> first day its income sums
    opens: dict[int, int] = field(default_factory=dict)  # fund -> the first day after its closed period
    indices: dict[str, Index] = field(default_factory=dict)  # by code

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Fund code to its position."""
        return {fund.code: i for i, fund in enumerate(self.funds)}

    @cached_property
    def by_code(self) -> list[int]:
        """Positions of the funds in order of their codes."""
        return sorted(range(len(self.funds)), key=lambda i: self.funds[i].code)

    @cached_property
    def event_rows(self) -> Rows:
        """Rows with an event, ascending."""
        return np.array(sorted(self.events), dtype=np.int64)

    @property
    def end(self) -> datetime:
        """The instant at which everything is published."""
        return datetime.fromtimestamp(int(self.visible_at.max()) * 60, tz=UTC).astimezone(SHANGHAI)


Revision = Mapping[str, float]  # column -> value published instead


@dataclass(frozen=True)
class Altered:
    """What the market faults have changed, by fund code or row."""

    late: Mapping[str, int] = field(default_factory=dict)  # minutes
    revised: Mapping[int, Revision] = field(default_factory=dict)
    statuses: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # purchase and redemption
    delisted: frozenset[str] = frozenset()  # in no list any more; the fund's own pages remain
    without_accum: frozenset[str] = frozenset()


UNALTERED = Altered()


class View:
    """What of a market is visible at `now`, as far as it is not `altered`.

    Immutable; whole-market replies are rendered once per view and kept in it.
    """

    def __init__(self, market: Market, now: datetime, altered: Altered = UNALTERED) -> None:
        if now.tzinfo is None:
            raise ValueError(f"now must carry a time zone, got {now.isoformat()}")
        self.market = market
        self.now = now
        self.altered = altered
        self.revised = dict(altered.revised)
        self._minute = int(now.timestamp() // 60)
        self._late = {market.index_of[code]: minutes for code, minutes in altered.late.items()}
        self._without_accum = np.array(
            [market.index_of[code] for code in altered.without_accum], dtype=np.int64
        )
        self._rendered: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def rows(self, fund: int) -> Rows:
        """Visible rows of one fund, oldest first."""
        low, high = int(self.market.offsets[fund]), int(self.market.offsets[fund + 1])
        minute = self._minute - self._late.get(fund, 0)
        return low + np.flatnonzero(self.market.visible_at[low:high] <= minute)

    def visible(self, funds: Rows, rows: Rows) -> NDArray[np.bool_]:
        """Whether each row, belonging to the fund beside it, is visible."""
        minutes = np.full(len(self.market.funds), self._minute)
        for fund, delay in self._late.items():
            minutes[fund] -= delay
        shown: NDArray[np.bool_] = self.market.visible_at[rows] <= minutes[funds]
        return shown

    @cached_property
    def latest(self) -> Rows:
        """Every fund's newest visible row, -1 where nothing of it is visible yet."""
        market = self.market
        seen = np.where(market.visible_at <= self._minute, np.arange(market.dates.size), -1)
        newest: Rows = np.maximum.reduceat(seen, market.offsets[:-1])
        for fund in self._late:
            rows = self.rows(fund)
            newest[fund] = rows[-1] if rows.size else -1
        return newest

    def index_closes(self, code: str) -> tuple[Days, Floats] | None:
        """Days and closes of an index as far as they are known; None for a code there is none of."""
        index = self.market.indices.get(code)
        if index is None:
            return None
        minutes = index.dates.astype(np.int64) * MINUTES_PER_DAY - SHANGHAI_OFFSET_MINUTES + INDEX_MINUTE
        shown = minutes <= self._minute
        return index.dates[shown], index.closes[shown]

    def known(self, code: str) -> int | None:
        """Position of a fund with anything visible, None for other codes."""
        fund = self.market.index_of.get(code)
        return fund if fund is not None and self.latest[fund] >= 0 else None

    def values(self, column: str, rows: Rows) -> list[float]:
        """Values of `unit_nav`, `accum_nav` or `daily_return` at rows, revisions applied; NaN unpublished."""
        found = getattr(self.market, column)[rows]
        if column == "daily_return":  # kept as float32: back to the two decimals it was published with
            found = np.round(found.astype(np.float64), 2)
        if column == "accum_nav" and self._without_accum.size:
            owners = np.searchsorted(self.market.offsets, rows, side="right") - 1
            found = np.where(np.isin(owners, self._without_accum), np.nan, found)
        values: list[float] = found.tolist()
        if self.revised:
            for at, row in enumerate(rows.tolist()):
                values[at] = self.revised.get(row, {}).get(column, values[at])
        return values

    def rendered(self, name: str, build: Callable[[View], list[str]]) -> list[str]:
        """The rows of a whole-market reply, built on first use."""
        with self._lock:
            if name not in self._rendered:
                self._rendered[name] = build(self)
            return self._rendered[name]


def iso_dates(days: Days) -> list[str]:
    """Days since 1970-01-01 as YYYY-MM-DD."""
    texts: list[str] = np.datetime_as_string(days.astype("datetime64[D]")).tolist()
    return texts


def beijing_midnights(days: Days) -> list[int]:
    """Milliseconds since 1970-01-01 UTC of each day's midnight in Beijing: the upstream's `x`."""
    minutes = days.astype(np.int64) * MINUTES_PER_DAY - SHANGHAI_OFFSET_MINUTES
    millis: list[int] = (minutes * 60_000).tolist()
    return millis
