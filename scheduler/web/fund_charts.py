"""A fund's history as figures for plotly, each with a table of its months beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from scheduler.quality_text import nav_text, percent_text
from scheduler.sections import Section

if TYPE_CHECKING:
    from scheduler.listing import Record
    from scheduler.wording import Translate

MONTHS = 120  # in the table
# Dates in figures, so that they are read in any language.
DATES: dict[str, Any] = {
    "type": "date",
    "hoverformat": "%Y-%m-%d",
    "tickformatstops": [
        {"dtickrange": [None, "M1"], "value": "%m-%d"},
        {"dtickrange": ["M1", "M12"], "value": "%Y-%m"},
        {"dtickrange": ["M12", None], "value": "%Y"},
    ],
}


class Line(NamedTuple):
    key: str  # in the history
    name: str
    colour: str
    filled: bool = False


class Chart(NamedTuple):
    id: str
    caption: str
    figure: Record
    table: Section


def nav_charts(history: Record, _: Translate) -> list[Chart]:
    """NAVs, and how far the adjusted one stands below its highest until then."""
    navs = [
        Line("unit", _("unit NAV"), "var(--yellow)"),
        Line("adjusted", _("adjusted NAV"), "var(--cyan)"),
    ]
    fall = [Line("drawdown", _("drawdown %"), "var(--cyan)", filled=True)]
    caption = _("drawdown: how far the adjusted NAV stands below its highest until then, percent")
    return [
        _chart("nav", _("unit NAV, and adjusted NAV: dividends reinvested, splits undone"), history, navs, _),
        _chart("drawdown", caption, history, fall, _),
    ]


def yield_charts(history: Record, _: Translate) -> list[Chart]:
    incomes = [Line("income", _("income per 10,000"), "var(--cyan)")]
    yields = [Line("yield", _("7-day yield %"), "var(--cyan)")]
    return [
        _chart("yield", _("yield of the last seven days, percent a year"), history, yields, _),
        _chart("income", _("income per 10,000 shares, yuan"), history, incomes, _),
    ]


def _chart(chart_id: str, caption: str, history: Record, lines: Sequence[Line], _: Translate) -> Chart:
    data = [
        {
            "type": "scatter",
            "mode": "lines" if len(history["dates"]) > 1 else "markers",
            "name": line.name,
            "x": history["dates"],
            "y": history[line.key],
            "line": {"color": line.colour, "width": 1.5},
            **({"fill": "tozeroy"} if line.filled else {}),
        }
        for line in lines
    ]
    layout: dict[str, Any] = {"xaxis": DATES, "showlegend": len(lines) > 1}
    return Chart(chart_id, caption, {"data": data, "layout": layout}, _months(history, lines, _))


def _months(history: Record, lines: Sequence[Line], _: Translate) -> Section:
    """The last row of each month, the newest first."""
    dates = history["dates"]
    last = {text[:7]: at for at, text in enumerate(dates)}  # the last of a month stands
    rows = [
        [dates[at], *(_text(line, history[line.key][at]) for line in lines)]
        for at in list(reversed(last.values()))[:MONTHS]
    ]
    headers = [_("date"), *(line.name for line in lines)]
    note = _("the last day of each month")
    return Section("", headers, rows, right=tuple(range(1, len(headers))), note=note)


def _text(line: Line, value: float | None) -> str:
    return percent_text(value) if "%" in line.name else nav_text(value)
