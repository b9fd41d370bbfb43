"""Funds: found by name or by rank, and one fund: its history drawn, its metrics and ranks, what happened to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from config.translation import N_
from core.errors import NotReady, UsageError
from core.fund_category import CATEGORIES
from core.rank_columns import RANKED
from scheduler import fund_history, held_rows, metrics_listing
from scheduler.metrics_listing import (
    SCORE,
    metric_name,
    score_section,
    unit,
    value_text,
    window_section,
)
from scheduler.quality_text import CHANGES, category_name, nav_text, percent_text, values_text
from scheduler.sections import Section
from scheduler.web import market, params
from scheduler.web.fund_charts import nav_charts, yield_charts
from scheduler.web.params import RANKED_BY
from scheduler.web.problems import Problem
from scheduler.weekly_text import name_of
from scheduler.wording import clock_time, day, number

if TYPE_CHECKING:
    from scheduler.listing import Record
    from scheduler.web.site import Site
    from scheduler.wording import Translate

ROWS = 50
LISTED = 50  # corrections of one fund
HELD = 20
NEAR = 8
QUARTILES = (N_("best quarter"), N_("second quarter"), N_("third quarter"), N_("last quarter"))
STATUSES = {  # core/fund_status.py
    "active": N_("open"),
    "new": N_("on its first offer"),
    "closed": N_("in a closed period"),
    "suspended": N_("suspended"),
    "liquidated": N_("liquidated"),
}
EVENTS = {"dividend": N_("dividend, a share"), "split": N_("split, shares for one")}
EVIDENCE = {
    "published": N_("published with the NAV"),
    "confirmed": N_("confirmed by somebody"),
    "implied": N_("implied by the NAVs"),
    "announced": N_("announced, not in the NAV yet"),
}


def list_funds(site: Site) -> str:
    asked = site.asked(params.AskedSearch)
    if not asked.q and not asked.type:
        asked = asked.model_copy(update={"type": CATEGORIES[0]})
    found = _search(site, asked) if asked.q else _ranking(site, asked)
    return site.render("funds.html", asked=asked, **_choices(site), **found)


def _choices(site: Site) -> Record:
    """What the form offers."""
    _ = site.translate
    return {
        "types": {name: category_name(name, _) for name in CATEGORIES},
        "metrics": {
            name: metric_name(name, _) for name in RANKED_BY if name == SCORE or unit(name) != "date"
        },
        "status": lambda name: _(STATUSES.get(name, "")) if name else "-",
        "name_of": name_of,
    }


def _search(site: Site, asked: params.AskedSearch) -> Record:
    engine = site.api.engine
    try:
        found = market.find_funds(engine, asked.q, asked.type, asked.after, ROWS + 1)
    except UsageError:
        raise Problem("not_stored") from None
    funds = found[:ROWS]
    kept = asked.model_dump(include={"q", "type"}, exclude_none=True)
    after = f"/funds?{urlencode(kept | {'after': funds[-1]['fund_code']})}" if len(found) > ROWS else None
    return {"funds": funds, "ranked": None, "after": after}


def _ranking(site: Site, asked: params.AskedSearch) -> Record:
    """The best or worst of a type."""
    try:
        found, total = metrics_listing.ranked_page(
            site.api.engine,
            asked.by,
            asked.type,
            bottom=asked.order == "worst",
            offset=asked.offset,
            limit=ROWS,
        )
    except NotReady:
        return {"funds": None, "ranked": None, "after": None}
    except UsageError:
        raise Problem("not_stored") from None
    kept = asked.model_dump(include={"type", "by", "order"})

    def at(offset: int) -> str | None:
        inside = 0 <= offset < total
        return f"/funds?{urlencode(kept | {'offset': offset})}" if inside else None

    _ = site.translate
    ranked = {
        "total": total,
        "metric": metric_name(asked.by, _),
        "value": lambda record: value_text(record["value"], unit(asked.by)),
        "percent": unit(asked.by) == "percent",
        "date": found[0]["calc_date"] if found else None,
        "rows": found,
        "before": at(asked.offset - ROWS),
        "after": at(asked.offset + ROWS),
    }
    return {"funds": None, "ranked": ranked, "after": None}


def show_fund(site: Site, code: str) -> Any:
    api, _ = site.api, site.translate
    if not market.is_known(api.engine, code):
        return _unknown(site, code), 404
    fund = api.show_fund(site.asked(params.FundPath, fund=code))
    money = all(series["kind"] == "yield" for series in fund["series"]) and bool(fund["series"])
    history = (fund_history.yield_history if money else fund_history.nav_history)(api.engine, code)
    held, held_total = held_rows.list_rows(
        api.engine, fund=code, day=None, reason=None, decided=True, limit=HELD
    )
    return site.render(
        "fund.html",
        fund=fund,
        name=name_of(fund),
        category=category_name(fund["category"], _) if fund["category"] else "-",
        status=_(STATUSES[fund["status"]]) if fund["status"] in STATUSES else "-",
        charts=(yield_charts if money else nav_charts)(history, _) if history["dates"] else [],
        events=_events(market.fund_events(api.engine, code), _),
        revisions=_revisions(fund_history.fund_revisions(api.engine, code, LISTED), _),
        held=[row | {"state": row["resolution"] or "HELD", "values": values_text(row, _)} for row in held],
        held_total=held_total,
        **_measured(site, code),
    )


def _unknown(site: Site, code: str) -> str:
    """The code may be a slip, or a name typed into the address."""
    near = fund_history.near_funds(site.api.engine, code, NEAR)
    named = market.find_funds(site.api.engine, code[:50], None, None, NEAR)
    found = {fund["fund_code"]: fund for fund in (*named, *near)}
    return site.render("no_fund.html", code=code[:50], near=list(found.values()), name_of=name_of)


def _measured(site: Site, code: str) -> Record:
    try:
        found = metrics_listing.fund_metrics_of(site.api.engine, code, None)
    except NotReady:
        return {"measured": None}
    _, metrics = site.translate, found["metrics"]
    windows = window_section(metrics, _)
    known = [row for row in windows.rows if set(row[2:]) != {"-"}]  # money funds have few
    return {
        "measured": found,
        "score": score_section(found, _),
        "windows": replace(windows, rows=known),
        "ranks": [_rank(name, metrics[name], _) for name in RANKED if metrics[name]["value"] is not None],
    }


def _rank(name: str, metric: Record, _: Translate) -> Record:
    """A metric and where the fund stands with it, in words and as a part of 1."""
    of = unit(name)
    shown = f"{value_text(metric['value'], of)} %" if of == "percent" else value_text(metric["value"], of)
    label = metric_name(name, _)
    if metric["rank"] is None:
        return {"name": label, "value": shown, "rank": None}
    return {
        "name": label,
        "value": shown,
        "rank": _("{rank} of {peers}").format(rank=number(metric["rank"]), peers=number(metric["peers"])),
        "quartile": _(QUARTILES[metric["quartile"] - 1]),
        "part": metric["percentile"] / 100,
    }


def _events(found: list[Record], _: Translate) -> Section:
    headers = (_("ex-date"), _("what"), _("value"), _("evidence"), _("on the list"))
    rows = [
        (
            day(event["ex_date"]),
            _(EVENTS.get(event["kind"], str(event["kind"]))),
            nav_text(event["value"]),
            _(EVIDENCE.get(event["evidence"], str(event["evidence"]))),
            nav_text(event["listed_value"]),
        )
        for event in found
    ]
    return Section(
        "", headers, rows, right=(2, 4), note="" if rows else _("no dividend and no split is known")
    )


def _revisions(found: list[Record], _: Translate) -> Section:
    headers = (_("date"), _("old NAV"), _("new NAV"), _("return %"), _("what"), _("known at"))
    rows = [
        (
            day(record["nav_date"]),
            nav_text(record["old_unit_nav"]),
            nav_text(record["new_unit_nav"]),
            percent_text(record["new_daily_return"]),
            _(CHANGES.get(record["reason"], str(record["reason"]))),
            clock_time(record["known_at"], "%Y-%m-%d %H:%M"),
        )
        for record in found
    ]
    note = _("the newest {n}").format(n=LISTED) if len(rows) == LISTED else ""
    return Section("", headers, rows, right=(1, 2, 3), note=note if rows else _("none was corrected"))
