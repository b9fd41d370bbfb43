"""A range of dates cut out of one fund's rows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from core.sources.base import NavRow


def in_range(row: NavRow, start: date | None, end: date | None) -> bool:
    """Whether `start` <= date <= `end` (None is open); a row whose date cannot be read always is."""
    if row.nav_date is None:
        return True
    return (start is None or row.nav_date >= start) and (end is None or row.nav_date <= end)


def selected(rows: Iterable[NavRow], start: date | None, end: date | None) -> list[NavRow]:
    """The rows in range, oldest first, those without a readable date before all others."""
    kept = [row for row in rows if in_range(row, start, end)]
    return sorted(kept, key=lambda row: row.nav_date or date.min)
