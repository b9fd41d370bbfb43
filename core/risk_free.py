"""Risk-free rates: fractions a year, each from a date until the next one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, delete, insert, select

from core.errors import UsageError
from core.metrics import RiskFree
from core.nav_store import lock_merges
from core.schema import risk_free_rate

LOWEST, HIGHEST = -0.05, 0.5  # as the setting
NOTE = 200  # characters the table holds
BEFORE_ALL_DATES = np.datetime64("0001-01-01") - 1


def rates_on_record(connection: Connection) -> Sequence[Row[Any]]:
    """effective_from, rate and note, oldest first."""
    return connection.execute(select(risk_free_rate).order_by(risk_free_rate.c.effective_from)).all()


def rates_for_metrics(connection: Connection, otherwise: float) -> RiskFree:
    """As core.metrics.measure takes them; `otherwise` before the first rate on record, or where there is none."""
    rows = rates_on_record(connection)
    if not rows:
        return otherwise
    days = [BEFORE_ALL_DATES, *(row.effective_from for row in rows)]
    return np.array(days, dtype="datetime64[D]"), np.array([otherwise, *(row.rate for row in rows)])


def set_rate(connection: Connection, day: date, rate: float, note: str | None = None) -> float | None:
    """Let `rate` hold from `day` on; returns the one that stood for that day before, if any.

    Raises UsageError for a rate outside of LOWEST to HIGHEST.
    """
    if not LOWEST <= rate <= HIGHEST:
        raise UsageError(
            f"a risk-free rate of {rate:.2%} a year is outside of {LOWEST:.0%} to {HIGHEST:.0%}; "
            "write 1.5% or 0.015"
        )
    lock_merges(connection)
    old = connection.scalar(select(risk_free_rate.c.rate).where(risk_free_rate.c.effective_from == day))
    connection.execute(delete(risk_free_rate).where(risk_free_rate.c.effective_from == day))
    connection.execute(
        insert(risk_free_rate).values(effective_from=day, rate=rate, note=note and note[:NOTE])
    )
    return old


def remove_rate(connection: Connection, day: date) -> float:
    """Forget the rate that holds from `day` on: the one before it holds on. Returns it.

    Raises UsageError naming the days there are.
    """
    lock_merges(connection)
    rates = {row.effective_from: float(row.rate) for row in rates_on_record(connection)}
    if day not in rates:
        known = ", ".join(map(str, rates)) or "none"
        raise UsageError(f"there is no risk-free rate from {day} on; there are {known}")
    connection.execute(delete(risk_free_rate).where(risk_free_rate.c.effective_from == day))
    return rates[day]
