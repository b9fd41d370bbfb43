"""Macro series: what there is, where it is asked for, and how it is kept.

Kept is the newest value of each period; a value that was corrected leaves a row in market_macro_revision. None of
these sources says when a figure was published: `lag_days` says when it surely was, and a score as of a day uses
nothing that came out later.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from core.errors import SourceChanged
from core.market.datacenter import Record, report
from core.market.tables import market_macro, market_macro_revision
from core.sources.eastmoney_http import EastmoneyHttp
from core.sources.replies import UNREADABLE, judge_defects
from core.sources.text_values import FieldError, parse_date, parse_number, shown

log = logging.getLogger(__name__)
# Old figures are corrected too (seasonal factors, a census): so much is asked for again each time.
ASKED_AGAIN = timedelta(days=800)
SHIBOR_TERMS = {"on": "001", "1w": "101", "3m": "203", "1y": "301"}


class Series(NamedTuple):
    """A published series. `lag_days`: so long after the end of its period it is out, in every month of the past."""

    name: str
    unit: str
    column: str
    lag_days: int
    monthly: bool = True


class Report(NamedTuple):
    """A table of the data centre and the series read from it."""

    name: str
    by: str
    series: tuple[Series, ...]
    only: str = ""


class Figure(NamedTuple):
    """One value of a series. `period`: the first day of a month, or the day itself."""

    series: str
    period: date
    value: float
    unit: str


def _shibor(term: str, code: str) -> Report:
    only = f'(MARKET_CODE="001")(CURRENCY_CODE="CNY")(INDICATOR_ID="{code}")'
    series = Series(f"shibor_{term}", "percent a year", "IR_RATE", 0, monthly=False)
    return Report("RPT_IMP_INTRESTRATEN", "REPORT_DATE", (series,), only)


# Statistics are out by the 15th (CPI, PPI), money by the 18th of the next month at the latest; the PMI on the
# last day of its own month, in some Januaries and Octobers after the holiday. LPR and Shibor: the same day.
REPORTS = (
    Report(
        "RPT_ECONOMY_CPI",
        "REPORT_DATE",
        (
            Series("cpi_yoy", "percent", "NATIONAL_SAME", 16),
            Series("cpi_mom", "percent", "NATIONAL_SEQUENTIAL", 16),
        ),
    ),
    Report("RPT_ECONOMY_PPI", "REPORT_DATE", (Series("ppi_yoy", "percent", "BASE_SAME", 16),)),
    Report(
        "RPT_ECONOMY_PMI",
        "REPORT_DATE",
        (Series("pmi", "index", "MAKE_INDEX", 7), Series("pmi_services", "index", "NMAKE_INDEX", 7)),
    ),
    Report(
        "RPT_ECONOMY_CURRENCY_SUPPLY",
        "REPORT_DATE",
        (
            Series("m2_yoy", "percent", "BASIC_CURRENCY_SAME", 18),
            Series("m1_yoy", "percent", "CURRENCY_SAME", 18),
        ),
    ),
    Report(
        "RPTA_WEB_RATE",
        "TRADE_DATE",
        (
            Series("lpr_1y", "percent a year", "LPR1Y", 0, monthly=False),
            Series("lpr_5y", "percent a year", "LPR5Y", 0, monthly=False),
        ),
    ),
    *(_shibor(term, code) for term, code in SHIBOR_TERMS.items()),
)
SERIES = {series.name: series for each in REPORTS for series in each.series}


def fetch_report(http: EastmoneyHttp, base: str, asked: Report, since: date | None) -> list[Figure]:
    """The figures of one table, oldest first; with `since` from some while before it on.

    Raises `SourceError`: `SourceChanged` where more than a few rows cannot be read.
    """
    columns = (asked.by, *(series.column for series in asked.series))
    rows = report(http, base, asked.name, columns, asked.by, only=asked.only, since=since)
    figures: list[Figure] = []
    defects: list[FieldError] = []
    for row in rows:
        try:
            figures += _figures(row, asked)
        except FieldError as error:
            defects.append(error)
        except UNREADABLE:
            defects.append(FieldError("row", f"{shown(row, 60)!r} is of another shape"))
    judge_defects(defects, len(rows))
    for defect in defects:
        log.warning("%s: left out: %s", asked.name, defect)
    if rows and not figures:
        raise SourceChanged(f"{asked.name}: none of {len(rows)} rows has a value")
    return sorted(figures)


def _figures(row: Record, asked: Report) -> list[Figure]:
    day = parse_date(asked.by, row[asked.by])
    if day is None:
        raise FieldError(asked.by, "is empty")
    found = []
    for series in asked.series:
        value = parse_number(series.column, row[series.column])
        if value is not None:  # the LPR has days from before it was one
            period = day.replace(day=1) if series.monthly else day
            found.append(Figure(series.name, period, value, series.unit))
    return found


def newest_period(connection: Connection, names: Sequence[str]) -> date | None:
    """The newest period that all of these series have; None where one of them has nothing."""
    kept = market_macro.c
    query = select(func.max(kept.period)).where(kept.series.in_(names)).group_by(kept.series)
    found = connection.execute(query).scalars().all()
    return min(found) if len(found) == len(set(names)) else None


def save_figures(
    connection: Connection, figures: Iterable[Figure], now: datetime, source: str
) -> tuple[int, int]:
    """Keep new and corrected values, the latter with a trace; how many of each. Again changes nothing.

    Of a period given twice the last value counts.
    """
    given = {(figure.series, figure.period): figure for figure in figures}
    known: dict[tuple[str, date], float] = {}
    kept = market_macro.c
    for name in sorted({name for name, _period in given}):
        query = select(kept.series, kept.period, kept.value).where(kept.series == name)
        known |= {(row.series, row.period): row.value for row in connection.execute(query)}
    fresh = [figure for key, figure in given.items() if key not in known]
    changed = [figure for key, figure in given.items() if key in known and known[key] != figure.value]
    if fresh:
        rows = [figure._asdict() | {"source": source, "fetched_at": now} for figure in fresh]
        connection.execute(insert(market_macro), rows)
    if changed:
        trace = [
            {
                "series": figure.series,
                "period": figure.period,
                "old_value": known[figure.series, figure.period],
                "new_value": figure.value,
                "known_at": now,
            }
            for figure in changed
        ]
        connection.execute(insert(market_macro_revision), trace)
        at = (kept.series == bindparam("name")) & (kept.period == bindparam("day"))
        statement = (
            update(market_macro).where(at).values(value=bindparam("new"), source=source, fetched_at=now)
        )
        values = [{"name": figure.series, "day": figure.period, "new": figure.value} for figure in changed]
        connection.execute(statement, values)
    return len(fresh), len(changed)


def out_by(series: Series, period: date) -> date:
    """The day by which the figure of this period is out for certain."""
    if not series.monthly:
        return period + timedelta(days=series.lag_days)
    end = (period.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    return end + timedelta(days=series.lag_days)


def history(connection: Connection, name: str, as_of: date) -> list[tuple[date, float]]:
    """Period and value of a series of SERIES, oldest first: those that were out by the end of `as_of`."""
    kept = market_macro.c
    query = select(kept.period, kept.value).where(kept.series == name, kept.period <= as_of)
    rows = connection.execute(query.order_by(kept.period))
    return [(row.period, row.value) for row in rows if out_by(SERIES[name], row.period) <= as_of]
