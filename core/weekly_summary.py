"""The week in one Markdown page: what came in, what was held back, how the market did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from statistics import median
from typing import Any

from sqlalchemy import Connection, func, select

from core.metrics import DEFINITION_VERSION
from core.nav_days import row_count
from core.schema import data_update_log, fund_info, fund_metrics, fund_nav, quarantine

EXTREMES = 5


def weekly_summary(
    connection: Connection, sessions: Sequence[date], removed: int, translate: Callable[[str], str]
) -> str:
    """Markdown for the week of `sessions` (its last one is the metrics' date). `removed`: staged rows cleaned."""
    _ = translate
    lines = [f"# {_('NavKeeper: week to {day}').format(day=sessions[-1])}", ""]
    lines += _table((_("date"), _("funds with a NAV"), _("rows quarantined"), _("steps that succeeded")))
    for day in sessions:
        lines.append(
            _row((day, row_count(connection, fund_nav, day), _held(connection, day), _steps(connection, day)))
        )
    lines += ["", f"## {_('Returns of the week by type, percent')}", ""]
    lines += _table((_("type"), _("funds"), _("median"), _("lowest"), _("highest")))
    returns = _returns(connection, sessions[-1])
    for category in sorted({row.category for row in returns}):
        values = [row.return_1w for row in returns if row.category == category]
        figures = (median(values), min(values), max(values))
        lines.append(_row((category, len(values), *(f"{value:.2f}" for value in figures))))
    for title, part in ((_("Best"), returns[:EXTREMES]), (_("Worst"), returns[::-1][:EXTREMES])):
        lines += ["", f"## {title}", ""]
        lines += [f"- {row.fund_code} {row.fund_name}: {row.return_1w:+.2f} %" for row in part]
    lines += ["", _("{count} expired staging rows were removed.").format(count=removed), ""]
    return "\n".join(lines)


def _table(heads: Sequence[str]) -> list[str]:
    return [_row(heads), "|" + " --- |" * len(heads)]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _held(connection: Connection, day: date) -> int:
    return int(connection.execute(select(func.count()).where(quarantine.c.nav_date == day)).scalar_one())


def _steps(connection: Connection, day: date) -> str:
    log = data_update_log.c
    names = connection.execute(
        select(log.table_name)
        .where(log.update_date == day, log.status != "FAILURE")
        .distinct()
        .order_by(log.table_name)
    ).scalars()
    return ", ".join(names) or "-"


def _returns(connection: Connection, day: date) -> Sequence[Any]:
    """Funds with a return of the week, best first."""
    metrics = fund_metrics.c
    return connection.execute(
        select(
            metrics.fund_code,
            func.coalesce(fund_info.c.fund_name, "").label("fund_name"),
            func.coalesce(fund_info.c.category, "other").label("category"),
            metrics.return_1w,
        )
        .outerjoin(fund_info, fund_info.c.fund_code == metrics.fund_code)
        .where(
            metrics.calc_date == day,
            metrics.definition_version == DEFINITION_VERSION,
            metrics.return_1w.is_not(None),
        )
        .order_by(metrics.return_1w.desc(), metrics.fund_code)
    ).all()
