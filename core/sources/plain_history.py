"""The usual history page, read column by column: ten times as fast as row by row, and only where nothing is odd."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from itertools import repeat
from math import isfinite
from operator import itemgetter
from typing import Any

from core.sources.base import NavRow
from core.sources.event_text import parse_event_text

NUMBERS = {int, float}
_REST = len(NavRow._fields) - 5
# NavRow(…) without a call of Python's own for each row.
_make: Callable[[type[NavRow], tuple[Any, ...]], NavRow] = tuple.__new__


def plain_history(
    fund_code: str, entries: list[Any], points: list[Any], day_of: Callable[[int], date]
) -> list[NavRow] | None:
    """The rows of `entries` (x, y, equityReturn, unitMoney) with the accumulated NAVs of `points` ([x, value]).

    None where anything has to be looked at one by one: a value missing or of another kind, dates out of order,
    an event in words nobody knows. `day_of` raises ValueError for what is no day of a fund's life.
    """
    try:
        times, units, returns, events = (
            list(map(itemgetter(name), entries)) for name in ("x", "y", "equityReturn", "unitMoney")
        )
        accumulated = dict(map(itemgetter(0, 1), points))
        if set(map(type, times)) != {int} or times != sorted(times):
            return None
        if not set(map(type, (*units, *returns))) <= NUMBERS or set(map(type, accumulated)) - {int}:
            return None
        if set(map(type, accumulated.values())) - NUMBERS - {type(None)}:
            return None
        accums = [None if value is None else float(value) for value in map(accumulated.get, times)]
        if not isfinite(sum(units) + sum(returns) + sum(value for value in accums if value is not None)):
            return None
        days = list(map(day_of, times))
        happened = {at: parse_event_text(text) for at, text in enumerate(events) if text}
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    units = list(map(float, units))
    before: list[Any] = [None, *units]
    # A return of 0 beside a NAV that moved stands for none: see eastmoney_formats._without_placeholders.
    changes = [
        float(change) if change or units[at] == before[at] or at in happened else None
        for at, change in enumerate(returns)
    ]
    columns = zip(repeat(fund_code), days, units, accums, changes, *[repeat(None)] * _REST, strict=False)
    rows = list(map(_make, repeat(NavRow), columns))
    for at, (dividend, ratio) in happened.items():
        moved = units[at] != before[at] and dividend is None and ratio is None
        change = None if moved and not returns[at] else rows[at].daily_return
        rows[at] = rows[at]._replace(dividend=dividend, split_ratio=ratio, daily_return=change)
    return rows
