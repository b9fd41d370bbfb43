"""Many funds' series as arrays, one fund after the other: no row is kept for a date on which a fund has none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.series_reader import Rows


@dataclass(frozen=True)
class Series:
    """Many funds' values, one fund after the other."""

    codes: NDArray[np.int32]  # (F,), ascending
    offsets: NDArray[np.int64]  # (F+1,), where each fund's rows begin
    days: NDArray[np.int32]  # (R,), since 1970-01-01, ascending within a fund
    values: NDArray[np.float64]  # (R,): adjusted NAVs, or a money fund's income per 10,000 shares


def no_series() -> Series:
    codes = np.zeros(0, dtype=np.int32)
    return Series(codes, np.zeros(1, dtype=np.int64), codes, np.zeros(0))


def ordered(rows: Rows) -> Series:
    """Rows ordered by fund and day as series."""
    starts = np.flatnonzero(np.diff(rows.codes, prepend=np.int32(-1)))
    return Series(rows.codes[starts], np.append(starts, len(rows.codes)), rows.days, rows.values)


def of_funds(series: Series, keep: NDArray[np.bool_]) -> Series:
    """The series of the funds to keep (F,)."""
    if keep.all():
        return series
    counts = np.diff(series.offsets)
    rows = np.repeat(keep, counts)
    offsets = np.concatenate(([0], np.cumsum(counts[keep])))
    return Series(series.codes[keep], offsets, series.days[rows], series.values[rows])


def up_to(series: Series, day: int) -> Series:
    """The rows up to a day (since 1970-01-01), and the funds that have any."""
    if not len(series.days) or int(series.days.max()) <= day:
        return series
    keep = series.days <= day
    counts = np.add.reduceat(keep, series.offsets[:-1], dtype=np.int64)
    some = counts > 0
    offsets = np.concatenate(([0], np.cumsum(counts[some])))
    return Series(series.codes[some], offsets, series.days[keep], series.values[keep])


def multiplied(
    series: Series, codes: NDArray[np.int32], days: NDArray[np.int32], cumulative: NDArray[np.float64]
) -> Series:
    """Values times the `cumulative` factor of the newest ex-date (`codes`, `days`, ordered) up to each day.

    In their place. Factors of other funds are passed over.
    """
    starts = np.flatnonzero(np.diff(codes, prepend=np.int32(-1)))
    for start, end in zip(starts.tolist(), np.append(starts, len(codes))[1:].tolist(), strict=True):
        at = int(np.searchsorted(series.codes, codes[start]))
        if at < len(series.codes) and series.codes[at] == codes[start]:
            mine = slice(series.offsets[at], series.offsets[at + 1])
            own = np.append(1.0, cumulative[start:end])
            series.values[mine] *= own[np.searchsorted(days[start:end], series.days[mine], side="right")]
    return series


def with_rows(series: Series, *more: Series) -> Series:
    """The series with the rows of others: at the end of a fund that is there, else as a fund of its own."""
    for added in more:
        if not len(added.codes):
            continue
        counts = np.diff(added.offsets)
        at = np.repeat(series.offsets[np.searchsorted(series.codes, added.codes, side="right")], counts)
        codes = np.union1d(series.codes, added.codes)
        total = np.zeros(len(codes), dtype=np.int64)
        total[np.searchsorted(codes, series.codes)] += np.diff(series.offsets)
        total[np.searchsorted(codes, added.codes)] += counts
        series = Series(
            codes,
            np.concatenate(([0], np.cumsum(total))),
            np.insert(series.days, at, added.days),
            np.insert(series.values, at, added.values),
        )
    return series
