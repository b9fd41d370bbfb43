"""The weekly report as Markdown for a chat: lists, no tables, short enough for one message of any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scheduler import weekly_text
from scheduler.charts import signed
from scheduler.quality_page import FUND_CODE
from scheduler.quality_text import CHANGES, category_name, nav_text
from scheduler.weekly_market import DRAWDOWN, MOVED
from scheduler.weekly_text import share_of, state_cell
from scheduler.wording import Translate, cut, day, number, one_line, percent

if TYPE_CHECKING:
    from scheduler.weekly import Record

BYTES = 4096  # what a WeCom robot takes as one Markdown message, in UTF-8; DingTalk and Feishu take more
FUNDS = (5, 3, 2, 1, 0)  # named in each list: as many as there is room for
NAME_LENGTH = 24
# What Markdown, HTML or a chat could read as more than a letter. A backslash before it is shown by some chats.
HARMLESS = str.maketrans("\\`*_[]<>|#~@!", "＼｀＊＿［］＜＞｜＃～＠！")


def markdown(week: Record, translate: Translate) -> str:
    """The report of at most BYTES bytes; where there is too much to name, fewer funds are named."""
    text = ""
    for most in FUNDS:
        text = "\n".join(_lines(week, most, translate)) + "\n"
        if len(text.encode()) <= BYTES:
            return text
    return text.encode()[: BYTES - 4].decode(errors="ignore").rstrip() + "…\n"


def _lines(week: Record, most: int, _: Translate) -> Iterator[str]:
    yield f"# {weekly_text.title(week, _)}"
    yield from (weekly_text.headline(week, _), *([_("[SIMULATED data]")] if week["simulated"] else []))
    if week["span"] == "week":  # of a month there is no room for every night
        yield f"\n**{_('Coverage and quality')}**"
        yield from (_night(record, _) for record in week["days"])
    yield f"\n**{_('Market by type, percent')}**"
    if week["calc_date"] is None:
        yield weekly_text.market_note(week, _)
    yield from (_type(record, week["metric"], _) for record in week["types"] if record[week["metric"]])
    for name, title in (("best", _("best")), ("worst", _("worst"))):
        if week[name][:most]:
            yield f"\n**{title}**"
            yield from (_fund(fund, f"{signed(fund[week['metric']])} %") for fund in week[name][:most])
    yield from _movers(week, most, _)
    yield from _news(week, most, _)
    yield from _revisions(week, most, _)


def _night(record: Record, _: Translate) -> str:
    text = _("- {date} {outcome} {share}, held {held}, corrected {revised}")
    return text.format(
        date=f"{record['date']:%m-%d}",
        outcome=plain(state_cell(record["outcome"], _).text),
        share=percent(share_of(record)),
        held=number(record["held"]),
        revised=number(record["revisions"]),
    )


def _type(record: Record, metric: str, _: Translate) -> str:
    spread, falls = record[metric], record[DRAWDOWN]
    text = _("- {label} {count}: median {median}, middle half {q1} to {q3}")
    said = text.format(
        label=plain(category_name(record["category"], _)),
        count=number(spread["count"]),
        **{name: signed(spread[name]) for name in ("median", "q1", "q3")},
    )
    if falls is None:
        return said
    return said + _(", drawdown {median}").format(median=signed(falls["median"]))


def _fund(fund: Mapping[str, Any], said: str) -> str:
    """A line of a list, the fund linked to its page."""
    code, name = plain(fund["fund_code"]), cut(plain(weekly_text.name_of(fund)), NAME_LENGTH)
    shown = f"{code} {name}".strip()
    if FUND_CODE.fullmatch(code):
        shown = f"[{shown}](https://fund.eastmoney.com/{code}.html)"
    return f"- {shown} {said}"


def _movers(week: Record, most: int, _: Translate) -> Iterator[str]:
    found = week["movers"]
    listed = [*found["up"][:most], *found["down"][:most]] if found else []
    if listed:
        from scheduler.metrics_listing import metric_name

        yield f"\n**{_('Rank movers')}** ({metric_name(MOVED, _)}, {_('percentile')})"
        for fund in listed:
            change = f"{fund['percentile_before']:.0f} → {fund['percentile']:.0f}"
            yield _fund(fund, change)


def _news(week: Record, most: int, _: Translate) -> Iterator[str]:
    for key, title in (("new", _("New funds")), ("liquidated", _("Liquidated funds"))):
        part = week[key]
        if part["total"]:
            yield f"\n**{title}** {number(part['total'])}"
            yield from (
                _fund(fund, plain(category_name(fund["category"], _))) for fund in part["listed"][:most]
            )


def _revisions(week: Record, most: int, _: Translate) -> Iterator[str]:
    part = week["revisions"]
    if not part["total"]:
        return
    yield f"\n**{_('Corrections, the largest first')}** {number(part['total'])}"
    for record in part["listed"][:most]:
        values = f"{nav_text(record['old_unit_nav'])} → {nav_text(record['new_unit_nav'])}"
        what = _(CHANGES.get(record["reason"], record["reason"]))
        yield _fund(
            record, f"{day(record['nav_date'])} {values} ({signed(record['change'])} %) {plain(what)}"
        )


def plain(text: str) -> str:
    """A text from elsewhere on one line, without a letter that Markdown or HTML gives a meaning."""
    return one_line(text).translate(HARMLESS)
