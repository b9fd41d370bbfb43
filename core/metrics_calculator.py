"""FundMetricsCalculator: NAVs and events out of the database, one row of metrics per fund back into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, delete, select

from core import db, nav_frames, nav_store
from core.crash_points import reached
from core.metrics import COLUMNS, DEFINITION_VERSION, adjusted_nav, calculate
from core.schema import fund_event, fund_metrics
from core.thresholds import Thresholds
from core.trading_calendar import TradingCalendar

FUNDS_AT_ONCE = 400
ROW_COLUMNS = ("fund_code", "calc_date", "definition_version", "nav_date", "nav_count", *COLUMNS)
MetricsRow = tuple[Any, ...]  # in the order of ROW_COLUMNS, null as None


class FundMetricsCalculator:
    """Metrics of definition version core.metrics.DEFINITION_VERSION, from adjusted NAVs.

    `risk_free` is a fraction a year. A step between two NAVs that no event explains and that no fund
    of its category can make (config/rules.toml, return_limit) breaks a series: what lies before it
    is on another basis and is left out.
    """

    def __init__(
        self,
        engine: Engine,
        calendar: TradingCalendar,
        thresholds: Thresholds,
        *,
        risk_free: float,
        periods_per_year: float,
    ) -> None:
        self.engine = engine
        self.sessions = np.array(calendar.sessions, dtype="datetime64[D]")
        self.thresholds = thresholds
        self.risk_free = risk_free
        self.periods_per_year = periods_per_year

    def calculate_all_metrics(
        self, fund_code: str, nav_data: pd.DataFrame, calc_date: date, category: str = "other"
    ) -> dict[str, Any]:
        """The columns of COLUMNS for one fund; null as None.

        `nav_data`: nav_date and unit_nav in any order, optionally dividend and split_ratio; rows after
        `calc_date` are ignored. Raises ValueError naming fund and date on a repeated date or a NAV that
        is not above zero.
        """
        data = nav_data.sort_values("nav_date")
        wrong = data[~(data["unit_nav"] > 0) | data["nav_date"].duplicated()]
        if len(wrong):
            raise ValueError(
                f"fund {fund_code}: unusable NAV on {pd.Timestamp(wrong['nav_date'].iloc[0]).date()}"
            )
        frame = pd.DataFrame(
            {
                "fund_code": fund_code,
                "nav_date": data["nav_date"].to_numpy().astype("datetime64[s]"),
                "unit_nav": data["unit_nav"].to_numpy(dtype=float),
                "dividend": data.get("dividend", np.nan),
                "split_ratio": data.get("split_ratio", np.nan),
            }
        )
        frame = frame[frame["nav_date"] <= pd.Timestamp(calc_date)]
        rows = self._measure(frame, calc_date, {fund_code: category})
        values = rows[0] if rows else (None,) * len(ROW_COLUMNS)
        return dict(zip(ROW_COLUMNS[-len(COLUMNS) :], values[-len(COLUMNS) :], strict=True))

    def calculate_market(
        self, calc_date: date, fund_codes: Sequence[str] | None = None
    ) -> Iterator[list[MetricsRow]]:
        """Rows of metrics as of `calc_date` for the funds named, or all, a few hundred funds at a time."""
        with db.read(self.engine) as connection:
            categories = nav_store.known_funds(connection)
            codes = sorted(fund_codes) if fund_codes is not None else nav_store.funds_with_navs(connection)
            for start in range(0, len(codes), FUNDS_AT_ONCE):
                frame = _read_navs(connection, codes[start : start + FUNDS_AT_ONCE], calc_date)
                yield self._measure(frame, calc_date, categories)

    def _measure(self, frame: pd.DataFrame, calc_date: date, categories: dict[str, str]) -> list[MetricsRow]:
        """`frame`: fund_code, nav_date, unit_nav, dividend, split_ratio, sorted by the first two."""
        if frame.empty:
            return []
        column, codes = pd.factorize(frame["fund_code"])
        day = frame["nav_date"].to_numpy().astype("datetime64[D]")
        dates, row = np.unique(day, return_inverse=True)
        adjusted = np.full((len(dates), len(codes)), np.nan)
        adjusted[row, column] = self._adjusted(
            frame, column, day, [categories.get(c, "other") for c in codes]
        )
        columns = calculate(
            dates,
            adjusted,
            calc_date,
            self.sessions,
            risk_free=self.risk_free,
            periods_per_year=self.periods_per_year,
        )
        counts = np.bincount(column, minlength=len(codes))
        newest = day[np.cumsum(counts) - 1]
        values = [_nullable(columns[name]) for name in COLUMNS]
        heads = zip(codes, newest.astype(str).tolist(), counts.tolist(), strict=True)
        return [
            (code, calc_date.isoformat(), DEFINITION_VERSION, last, count, *rest)
            for (code, last, count), rest in zip(heads, zip(*values, strict=True), strict=True)
        ]

    def _adjusted(
        self,
        frame: pd.DataFrame,
        column: NDArray[np.int64],
        day: NDArray[np.datetime64],
        categories: list[str],
    ) -> NDArray[np.float64]:
        """Adjusted NAVs of the frame's rows; NaN before the last break of a fund's series."""
        values = frame["unit_nav"].to_numpy(dtype=float).copy()
        dividend, split = (frame[name].to_numpy(dtype=float) for name in ("dividend", "split_ratio"))
        starts = np.flatnonzero(np.diff(column, prepend=-1))
        with_events = np.unique(column[~np.isnan(dividend) | ~np.isnan(split)])
        ends = np.append(starts[1:], len(column))
        for fund in with_events:
            rows = slice(starts[fund], ends[fund])
            values[rows] = adjusted_nav(values[rows], dividend[rows], split[rows])
        limits = self.thresholds.return_limit
        limit = np.array([limits.get(name, limits["other"]) for name in categories])[column]
        at = np.searchsorted(self.sessions, day, side="right")
        gap = np.clip(np.diff(at, prepend=at[:1]), 1, 5)
        change = np.abs(values / np.concatenate((values[:1], values[:-1])) - 1)
        broken = 100 * change > limit * np.sqrt(gap)
        broken[starts] = False
        for at_row in np.flatnonzero(broken):
            values[starts[column[at_row]] : at_row] = np.nan
        return values


def _read_navs(connection: Connection, codes: Sequence[str], until: date) -> pd.DataFrame:
    """NAVs up to `until` of these funds (sorted codes), with their dividends and splits beside them."""
    nav = nav_frames.nav_rows(connection, codes, until)
    events = connection.execute(
        select(fund_event).where(
            fund_event.c.fund_code.in_(codes),
            fund_event.c.ex_date <= until,
            fund_event.c.evidence != "announced",
        )
    ).all()
    for kind, name in (("dividend", "dividend"), ("split", "split_ratio")):
        found = pd.DataFrame(
            [(e.fund_code, e.ex_date, e.value) for e in events if e.kind == kind],
            columns=["fund_code", "nav_date", name],
        )
        found["nav_date"] = found["nav_date"].to_numpy(dtype="datetime64[D]").astype("datetime64[s]")
        nav = nav.merge(found.astype({name: float}), on=["fund_code", "nav_date"], how="left")
    return nav


def _nullable(values: NDArray[Any]) -> list[Any]:
    """Python values for the driver: dates as ISO text, NaN and NaT as None."""
    if values.dtype.kind == "M":
        return [
            None if text == "NaT" else text for text in values.astype("datetime64[D]").astype(str).tolist()
        ]
    return [None if value != value else value for value in values.tolist()]


def save_metrics(
    connection: Connection,
    calc_date: date,
    rows: Sequence[MetricsRow],
    fund_codes: Sequence[str] | None = None,
) -> int:
    """Replace the metrics of this date (of these funds only, if named); returns the number of rows."""
    old = delete(fund_metrics).where(
        fund_metrics.c.calc_date == calc_date, fund_metrics.c.definition_version == DEFINITION_VERSION
    )
    if fund_codes is not None:
        old = old.where(fund_metrics.c.fund_code.in_(fund_codes))
    connection.execute(old)
    reached("metrics.cleared")
    return db.bulk_insert(connection, fund_metrics, ROW_COLUMNS, rows)
