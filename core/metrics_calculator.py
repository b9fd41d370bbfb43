"""FundMetricsCalculator: series out of the database, one row of metrics per fund back into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, select

from core import db, nav_store
from core.metrics import (
    COLUMNS,
    DEFINITION_VERSION,
    Closes,
    Column,
    RiskFree,
    adjusted_nav,
    load_kernels,
    measure,
    measure_money,
)
from core.nav_mirror import read_series_of, stored_series
from core.ragged import Series, no_series, of_funds, up_to
from core.risk_free import rates_for_metrics
from core.schema import benchmark_index, fund_nav, money_fund_yield
from core.series_as_of import series_as_of
from core.thresholds import Thresholds
from core.trading_calendar import TradingCalendar

if TYPE_CHECKING:
    import pandas as pd

BENCHMARK = "000300"  # CSI 300 沪深300
ROWS_MADE = 2_000
DIGITS = 12  # of a metric; the formulas agree with other libraries to ten
ROW_COLUMNS = ("fund_code", "calc_date", "definition_version", "nav_date", "nav_count", *COLUMNS)
MetricsRow = tuple[Any, ...]  # in the order of ROW_COLUMNS, null as None


@dataclass(frozen=True)
class Measured:
    """Metrics of many funds as of one date; every array (F,)."""

    calc_date: date
    codes: list[str]
    nav_dates: NDArray[np.datetime64]  # of the newest row used
    nav_counts: NDArray[np.int64]
    columns: dict[str, Column]  # of COLUMNS, NaN and NaT for null

    def rows(self) -> Iterator[MetricsRow]:
        """As save_metrics takes them; not all at once, because they are many times the size of the arrays."""
        days, counts = self.nav_dates.astype("datetime64[D]").astype(str), self.nav_counts
        day = self.calc_date.isoformat()
        for start in range(0, len(self.codes), ROWS_MADE):
            part = slice(start, start + ROWS_MADE)
            values = zip(*(_nullable(self.columns[name][part]) for name in COLUMNS), strict=True)
            heads = zip(self.codes[part], days[part].tolist(), counts[part].tolist(), strict=True)
            for (code, newest, count), rest in zip(heads, values, strict=True):
                yield (code, day, DEFINITION_VERSION, newest, count, *rest)


@dataclass(frozen=True)
class Market:
    """What the metrics of a fund need beside its own series."""

    categories: Mapping[str, str]  # by fund code
    risk_free: RiskFree
    benchmark: Closes | None


class FundMetricsCalculator:
    """Metrics of definition version core.metrics.DEFINITION_VERSION, from adjusted NAVs and money funds' incomes.

    `risk_free` is a fraction a year, for days before the first rate of core.risk_free. `mirror` is the folder of
    core.nav_mirror. A step between two NAVs that no event explains and that no fund of its category can
    make (config/rules.toml, return_limit) breaks a series: what lies before it is on another basis and left out.
    """

    def __init__(
        self,
        engine: Engine,
        calendar: TradingCalendar,
        thresholds: Thresholds,
        *,
        risk_free: float,
        periods_per_year: float,
        mirror: Path,
    ) -> None:
        self.engine = engine
        self.sessions = np.array(calendar.sessions, dtype="datetime64[D]")
        self.thresholds = thresholds
        self.risk_free = risk_free
        self.periods_per_year = periods_per_year
        self.mirror = mirror

    def calculate_all_metrics(
        self, fund_code: str, nav_data: pd.DataFrame, calc_date: date, category: str = "other"
    ) -> dict[str, Any]:
        """The columns of COLUMNS for one fund; null as None.

        `nav_data`: nav_date and unit_nav in any order, optionally dividend and split_ratio; rows after
        `calc_date` are ignored. Raises ValueError naming fund and date on a repeated date or a NAV that
        is not above zero, DatabaseUnavailable.
        """
        data = nav_data.sort_values("nav_date")
        wrong = data[~(data["unit_nav"] > 0) | data["nav_date"].duplicated()]
        if len(wrong):
            day = np.datetime64(wrong["nav_date"].iloc[0], "D")
            raise ValueError(f"fund {fund_code}: unusable NAV on {day}")
        empty = np.full(len(data), np.nan)
        events = (np.asarray(data.get(name, empty), dtype=float) for name in ("dividend", "split_ratio"))
        series = Series(
            np.array([0], dtype=np.int32),
            np.array([0, len(data)], dtype=np.int64),
            data["nav_date"].to_numpy().astype("datetime64[D]").astype(np.int32),
            adjusted_nav(data["unit_nav"].to_numpy(dtype=float), *events),
        )
        with db.read(self.engine) as connection:
            market = self._market(connection)
        found = self._measure(replace(market, categories={"000000": category}), series, calc_date)
        if not found.codes:
            return dict.fromkeys(COLUMNS)
        return {name: _nullable(found.columns[name])[0] for name in COLUMNS}

    def calculate_market(
        self,
        calc_date: date,
        fund_codes: Sequence[str] | None = None,
        *,
        fresh: bool = False,
        span: tuple[str, str] | None = None,
        as_of: datetime | None = None,
    ) -> Measured:
        """Metrics as of `calc_date` of the funds named, or of all; `fresh`: all is read from the database itself.

        `span`, with `fresh`: only funds from the first to the last of two codes. `as_of`: from what was known at that
        instant, as far as core.series_as_of can tell. Raises ValueError for a naive instant, DatabaseUnavailable.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="compiled") as pool:
            pool.submit(load_kernels)  # takes as long as reading
            with db.read(self.engine) as connection:
                market = self._market(connection, as_of)
            if as_of is not None:
                blocks = series_as_of(self.engine, as_of, fund_codes)
            elif fund_codes is None:
                blocks = stored_series(self.engine, None if fresh else self.mirror, span)
            else:
                blocks = iter(
                    zip((fund_nav, money_fund_yield), read_series_of(self.engine, fund_codes), strict=True)
                )
            parts, known = [], np.zeros(0, dtype=np.int32)
            for table, series in blocks:
                if table is fund_nav:
                    parts.append(self._measure(market, series, calc_date))
                    known = np.append(known, series.codes)
                else:
                    money = of_funds(series, ~np.isin(series.codes, known))
                    parts.append(_measure_money(money, calc_date))
        return together(calc_date, parts)

    def _market(self, connection: Connection, as_of: datetime | None = None) -> Market:
        return Market(
            nav_store.known_funds(connection),
            rates_for_metrics(connection, self.risk_free),
            _benchmark(connection, as_of),
        )

    def _measure(self, market: Market, series: Series, calc_date: date) -> Measured:
        series = up_to(series, _day_number(calc_date))
        codes = [f"{code:06d}" for code in series.codes.tolist()]
        limits = self.thresholds.return_limit
        limit = np.array(
            [limits.get(market.categories.get(code, "other"), limits["other"]) for code in codes]
        )
        columns = measure(
            series.offsets,
            series.days,
            self._unbroken(series, limit),
            calc_date,
            self.sessions,
            risk_free=market.risk_free,
            periods_per_year=self.periods_per_year,
            benchmark=market.benchmark,
        )
        return _measured(calc_date, codes, series, columns)

    def _unbroken(self, series: Series, limit: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values, NaN before the last break of a fund's series. Writes into them (not into a mapped file)."""
        if not len(limit):
            return series.values
        sessions = self.sessions.astype(np.int64)
        first = int(series.days.min())
        ordinal = np.searchsorted(sessions, np.arange(first, int(series.days.max()) + 1), side="right")
        starts, values = series.offsets[:-1], series.values
        with np.errstate(invalid="ignore", divide="ignore"):
            change = 100 * np.abs(values[1:] / values[:-1] - 1)
        at = 1 + np.flatnonzero(change > limit.min())
        fund = np.searchsorted(series.offsets, at, side="right") - 1
        gap = ordinal[series.days[at] - first] - ordinal[series.days[at - 1] - first]
        broken = change[at - 1] > limit[fund] * np.sqrt(np.clip(gap, 1, 5))
        broken &= at > starts[fund]
        for row, mine in zip(at[broken].tolist(), fund[broken].tolist(), strict=True):
            values[starts[mine] : row] = np.nan
        return values


def _day_number(day: date) -> int:
    return int(np.datetime64(day, "D").astype(np.int64))


def _measured(calc_date: date, codes: list[str], series: Series, columns: dict[str, Column]) -> Measured:
    newest = series.days[series.offsets[1:] - 1].astype("datetime64[D]")
    kept = {name: _significant(column) for name, column in columns.items()}
    return Measured(calc_date, codes, newest, np.diff(series.offsets), kept)


def _significant(column: Column) -> Column:
    """The column with DIGITS significant digits, dates as they are: a server parses short numbers faster."""
    if column.dtype.kind == "M":
        return column
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        values = np.asarray(column, dtype=np.float64)
        scale = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.abs(values))))
        found = np.round(values * scale) / scale
    return np.where(np.isfinite(scale), found, values)


def _measure_money(incomes: Series, calc_date: date) -> Measured:
    mine = up_to(incomes, _day_number(calc_date))
    columns = measure_money(mine.offsets, mine.days, mine.values, calc_date)
    return _measured(calc_date, [f"{code:06d}" for code in mine.codes.tolist()], mine, columns)


def together(calc_date: date, parts: Sequence[Measured]) -> Measured:
    """Several as one, ordered by code."""
    if not parts:
        parts = [_measure_money(no_series(), calc_date)]
    codes = [code for part in parts for code in part.codes]
    order = np.argsort(np.array(codes, dtype=str), kind="stable")
    return Measured(
        calc_date,
        [codes[at] for at in order.tolist()],
        np.concatenate([part.nav_dates for part in parts])[order],
        np.concatenate([part.nav_counts for part in parts])[order],
        {name: np.concatenate([part.columns[name] for part in parts])[order] for name in COLUMNS},
    )


def _benchmark(connection: Connection, as_of: datetime | None) -> Closes | None:
    close = benchmark_index.c
    query = select(close.trade_date, close.close).where(close.index_code == BENCHMARK)
    if as_of is not None:
        query = query.where(close.known_at <= as_of)
    rows = connection.execute(query.order_by(close.trade_date)).all()
    if not rows:
        return None
    return np.array([row[0] for row in rows], dtype="datetime64[D]"), np.array(
        [float(row[1]) for row in rows]
    )


def _nullable(values: NDArray[Any]) -> list[Any]:
    """Python values for the driver: dates as ISO text, NaN and NaT as None."""
    if values.dtype.kind == "M":
        texts = values.astype("datetime64[D]").astype(object)
        return [None if day is None else day.isoformat() for day in texts.tolist()]
    found = values.astype(object)
    found[np.isnan(values)] = None
    return list(found.tolist())
