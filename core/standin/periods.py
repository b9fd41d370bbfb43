"""Period returns for the ranking replies: adjusted for dividends and splits, in percent."""

from __future__ import annotations

import calendar
from datetime import date, timedelta

import numpy as np

from core.standin.market import Days, Floats, Rows, View

EPOCH = date(1970, 1, 1).toordinal()
MONTHS_BACK = (1, 3, 6, 12, 24, 36)
COLUMNS = ("1w", "1m", "3m", "6m", "1y", "2y", "3y", "ytd", "since")


def months_before(day: date, months: int) -> date:
    """The same day of an earlier month, clipped to that month's end."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def anchors(day: int) -> Days:
    """Anchor days of 1w, 1m, 3m, 6m, 1y, 2y, 3y and year-to-date for a day since 1970-01-01."""
    last = date.fromordinal(day + EPOCH)
    found = [last - timedelta(days=7), *(months_before(last, n) for n in MONTHS_BACK)]
    found.append(date(last.year - 1, 12, 31))
    return np.array([d.toordinal() - EPOCH for d in found], dtype=np.int32)


def period_returns(view: View, funds: list[int]) -> Floats:
    """Percent returns, one row per fund and one column per name in COLUMNS; NaN before inception.

    The base is the last row on or before the anchor; `U_t/U_b * prod(s_e + D_e/U_e)` over the
    events between, which is the adjusted NAV of the project's definitions.
    """
    market = view.market
    last = view.latest[np.array(funds, dtype=np.int64)]
    bases = np.empty((len(funds), len(COLUMNS)), dtype=np.int64)
    known: dict[int, Days] = {}
    for at, (fund, row) in enumerate(zip(funds, last.tolist(), strict=True)):
        low, day = int(market.offsets[fund]), int(market.dates[row])
        if day not in known:
            known[day] = anchors(day)
        found = np.searchsorted(market.dates[low : row + 1], known[day], side="right") - 1
        bases[at, :-1] = np.where(found >= 0, low + found, -1)
        bases[at, -1] = low
    growth = market.unit_nav[last][:, None] / market.unit_nav[bases] * _event_growth(view, last, bases)
    return np.where(bases >= 0, (growth - 1) * 100, np.nan)


def _event_growth(view: View, last: Rows, bases: Rows) -> Floats:
    """What dividends and splits after each base and up to the last row multiply the return by."""
    market = view.market
    rows = market.event_rows
    factors = [
        (event.split_ratio or 1.0) + (event.dividend or 0.0) / market.unit_nav[row]
        for row, event in ((row, market.events[row]) for row in rows.tolist())
    ]
    # A row may carry a dividend and no NAV; then there is no factor to apply.
    logs = np.concatenate([[0.0], np.cumsum(np.nan_to_num(np.log(np.array(factors, dtype=np.float64))))])
    upto = logs[np.searchsorted(rows, last, side="right")][:, None]
    growth: Floats = np.exp(upto - logs[np.searchsorted(rows, bases, side="right")])
    return growth
