"""The market: how much of it has arrived, who is late and why, who is new or gone, how returns are spread."""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Response
from pydantic import BaseModel
from sqlalchemy import Connection, Engine, func, select

from core import db
from core.schema import data_update_log, fund_metrics, fund_nav
from core.trading_calendar import load_calendar
from scheduler.charts import Box, boxes
from scheduler.coverage import coverage_by_day, coverage_by_type
from scheduler.fund_changes import ended_funds, new_funds
from scheduler.late_funds import REASONS, late_funds
from scheduler.overview import expected_date, newest_trading_day
from scheduler.quality_text import category_name
from scheduler.sections import Section
from scheduler.web import params
from scheduler.web.files import MEDIA_TYPES, encoded
from scheduler.web.fund_charts import DATES
from scheduler.web.problems import Problem
from scheduler.weekly_market import spreads
from scheduler.weekly_text import box_title, liquidated_funds, market, name_of, new_funds as new_section
from scheduler.wording import day as day_text, number, percent

if TYPE_CHECKING:
    from core.trading_calendar import TradingCalendar
    from scheduler.listing import Record
    from scheduler.web.site import Site

DAYS = 90  # trading days of the chart
NEWS = 30  # days within which a fund is new or gone
ROWS = 50
REPORTS = 8


class LateFund(BaseModel):
    """A line of late.csv."""

    fund_code: str
    fund_name: str
    fund_type: str
    category: str
    newest: date | None
    sessions_behind: int | None
    reason: str
    reason_text: str


def show_market(site: Site) -> str:
    asked, _ = site.asked(params.AskedLate), site.translate
    found = _read(site)
    if found is None:
        return site.render("market.html", day=None)
    late = [
        record
        for record in found["late"]
        if asked.type in (None, record["category"]) and asked.reason in (None, record["reason"])
    ]
    counts: dict[str, int] = {}
    for record in found["late"]:
        counts[record["reason"]] = counts.get(record["reason"], 0) + 1
    return site.render(
        "market.html",
        asked=asked,
        day=found["day"],
        expected=found["expected"],
        types=[record | {"name": category_name(record["category"], _)} for record in found["types"]],
        chart=_coverage_chart(found["days"], site),
        days=_coverage_table(found["days"], site),
        late=late[asked.offset : asked.offset + ROWS],
        late_total=len(late),
        reasons={name: counts[name] for name in REASONS if name in counts},
        reason_text=lambda name: _(REASONS[name]),
        category=lambda name: category_name(name, _),
        more=_more(asked, len(late)),
        csv=f"/market/late.csv?{urlencode({'lang': site.language})}",
        new=new_section({"new": found["new"]}, _),
        gone=liquidated_funds({"liquidated": found["gone"]}, _),
        spread=market(found["spreads"], _),
        spread_chart=_boxes(found["spreads"], site),
        reports={kind: site.reports(kind, REPORTS) for kind in ("weekly", "quality")},
        name_of=name_of,
    )


def _newest(connection: Connection) -> tuple[TradingCalendar, date] | None:
    """The newest trading day that any fund has a NAV of; None before the first."""
    calendar = load_calendar(connection)
    day = newest_trading_day(connection, fund_nav, calendar)
    return None if calendar is None or day is None or not calendar.is_session(day) else (calendar, day)


def _read(site: Site) -> Record | None:
    """Everything of the newest day."""
    with db.read(site.api.engine) as connection:
        newest = _newest(connection)
        if newest is None:
            return None
        calendar, day = newest
        first = calendar.sessions[max(0, calendar.sessions.index(day) - DAYS + 1)]
        since = day - timedelta(days=NEWS)
        written: int = connection.scalar(select(func.max(data_update_log.c.id))) or 0
        found = {
            "day": day,
            "expected": expected_date(calendar, site.clock()),
            "types": coverage_by_type(connection, calendar, day),
            "days": coverage_by_day(connection, calendar, first, day),
            "late": late_funds(connection, calendar, day),
            "new": new_funds(connection, since, day),
            "gone": ended_funds(connection, since, day + timedelta(days=1)),
        }
    # It reads the metrics of every fund; by another key as soon as anything is written.
    make = partial(_spreads, site.api.engine, day - timedelta(days=day.weekday()), day)
    key, tags = f"spreads/{day}/{written}", (fund_metrics.name,)
    spread: Record = site.cache.get("summaries", key, make, tags=tags, now=site.clock())
    calc_date = spread["calc_date"] and date.fromisoformat(spread["calc_date"])
    return found | {"spreads": spread | {"calc_date": calc_date}}


def _spreads(engine: Engine, monday: date, day: date) -> Record:
    with db.read(engine) as connection:
        return spreads(connection, monday, day)


def _coverage_chart(days: list[Record], site: Site) -> Record:
    _ = site.translate
    dates = [record["date"].isoformat() for record in days]
    lines = (("expected", _("expected"), "var(--dim)"), ("published", _("published"), "var(--cyan)"))
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": dates,
                "y": [record[key] for record in days],
                "line": {"color": colour, "width": 2, "dash": "dot" if key == "expected" else "solid"},
            }
            for key, name, colour in lines
        ],
        "layout": {"yaxis": {"rangemode": "tozero", "tickformat": ",d"}, "xaxis": DATES},
    }


def _coverage_table(days: list[Record], site: Site) -> Section:
    _ = site.translate
    headers = (_("date"), _("published"), _("expected"), _("coverage"))
    rows = [
        (
            day_text(record["date"]),
            number(record["published"]),
            number(record["expected"]),
            percent(record["published"] / record["expected"] if record["expected"] else None),
        )
        for record in reversed(days)
    ]
    return Section("", headers, rows, right=(1, 2, 3))


def _boxes(found: Record, site: Site) -> Any:
    """Returns of a week by type, as the weekly report draws them."""
    _ = site.translate
    named = [(category_name(record["category"], _), record[found["metric"]]) for record in found["types"]]
    rows = [Box(label, spread, box_title(label, spread, _)) for label, spread in named if spread]
    return boxes(_("returns of 7 days, percent"), rows) if rows else None


def _more(asked: params.AskedLate, total: int) -> Record:
    """The addresses of the pages before and after this one."""
    kept = asked.model_dump(mode="json", include={"type", "reason"}, exclude_none=True)

    def at(offset: int) -> str | None:
        inside = 0 <= offset < total
        return f"/market?{urlencode(kept | {'offset': offset})}#late" if inside else None

    return {"before": at(asked.offset - ROWS), "after": at(asked.offset + ROWS)}


def late_csv(site: Site) -> Response:
    """Every late and missing fund. Raises Problem before the first NAV."""
    site.asked(params.NoParams)
    with db.read(site.api.engine) as connection:
        newest = _newest(connection)
        if newest is None:
            raise Problem("not_ready")
        calendar, day = newest
        late = late_funds(connection, calendar, day)
    _ = site.translate
    records = [record | {"reason_text": _(REASONS[record["reason"]])} for record in late]
    reply = Response(encoded(records, LateFund, "csv"), content_type=MEDIA_TYPES["csv"])
    reply.headers["Content-Disposition"] = f'attachment; filename="late-{day}.csv"'
    return reply
