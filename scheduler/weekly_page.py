"""The weekly report as one HTML file that needs nothing beside itself: tables, and charts drawn as SVG within it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from scheduler import charts, weekly_text
from scheduler.quality_page import HEAD, SECTION, rendered, write_page
from scheduler.quality_text import category_name
from scheduler.sections import Section
from scheduler.weekly import weekly
from scheduler.weekly_markdown import markdown
from scheduler.weekly_market import DRAWDOWN
from scheduler.wording import Translate, day, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from core.trading_calendar import TradingCalendar
    from scheduler.weekly import Record


class Part(NamedTuple):
    """A section, and the charts above its table with what stands below each."""

    section: Section
    charts: list[tuple[Markup, str]]
    small: bool = False


STYLE = (
    """\
td { white-space: nowrap; } td:last-child { white-space: normal; min-width: 8rem; }
td.right:last-child { white-space: nowrap; overflow-wrap: normal; min-width: 0; }
.right:last-child { padding-right: .25rem; } .right + :not(.right) { padding-left: 1rem; }
header p { color: var(--text); font-size: 1.05rem; } header p + p { color: var(--dim); font-size: .95rem; }
"""
    + charts.STYLE
)
PAGE = f"""\
{HEAD}<body>
<header>
<h1>{{{{ title }}}}</h1>
{{% for line in lines %}}
<p>{{{{ line }}}}</p>
{{% endfor %}}
</header>
{{% for section, charts, small in parts %}}
<h2>{{{{ section.title }}}}</h2>
{{% if charts %}}
<div class="charts{{{{ ' small' if small else '' }}}}">
{{% for chart, said in charts %}}
<figure>{{{{ chart }}}}<figcaption>{{{{ said }}}}</figcaption></figure>
{{% endfor %}}
</div>
{{% endif %}}
{SECTION}{{% endfor %}}
</body>
</html>
"""


def page(week: Record, translate: Translate) -> str:
    """The report as HTML; every text in it is escaped."""
    _ = translate
    marks = [_("[SIMULATED data]")] if week["simulated"] else []
    return rendered(
        PAGE,
        _,
        style=STYLE,
        title=weekly_text.title(week, _),
        lines=[" ".join([weekly_text.headline(week, _), *marks]), weekly_text.legend(_)],
        parts=list(_parts(week, _)),
    )


def _parts(week: Record, _: Translate) -> Iterator[Part]:
    yield Part(weekly_text.nights(week, _), _coverage_charts(week, _))
    if week["span"] == "week":  # a month has too many columns
        yield Part(weekly_text.coverage(week, _), [])
    if week["held"]["total"]:
        yield Part(weekly_text.reasons(week, _), [])
    yield Part(weekly_text.market(week, _), _boxes(week, _))
    for metric, title in (
        (week["metric"], weekly_text.of_span("histograms", week, _)),
        (DRAWDOWN, _("Drawdowns, percent")),
    ):
        found = list(_histograms(week, metric, _))
        if found:
            yield Part(
                Section(title, note=_("height: number of funds; point at a column for its figures")),
                found,
                small=True,
            )
    yield Part(weekly_text.best_and_worst(week, _), [])
    if week["extremes"]:
        yield Part(weekly_text.extremes_by_type(week, _), [])
    yield Part(weekly_text.movers(week, _), [])
    yield Part(weekly_text.new_funds(week, _), [])
    yield Part(weekly_text.liquidated_funds(week, _), [])
    yield Part(weekly_text.revisions(week, _), [])
    if week["late"]:
        yield Part(weekly_text.late(week, _), [])


def _coverage_charts(week: Record, _: Translate) -> list[tuple[Markup, str]]:
    """By day, and by type on the last day of the week."""
    named = [(f"{record['date']:%m-%d}", record) for record in week["days"]]
    last = [(category_name(record["category"], _), record["days"][-1]) for record in week["coverage"]]
    captions = (
        _("funds with a NAV, of those expected, by day"),
        _("the same by type on {date}").format(date=day(week["business_date"])),
    )
    return [
        (charts.bars(said, [_bar(label, record) for label, record in rows]), said)
        for said, rows in zip(captions, (named, last), strict=True)
        if rows
    ]


def _bar(label: str, record: Record) -> charts.Bar:
    share = weekly_text.share_of(record)
    title = f"{label}: {number(record['published'])}/{number(record['expected'])}"
    return charts.Bar(label, share, percent(share), title)


def _boxes(week: Record, _: Translate) -> list[tuple[Markup, str]]:
    words = _("mark and figure: median; box: the middle half of the funds; line: from 5 % to 95 %")
    titles = {
        week["metric"]: weekly_text.of_span("boxes", week, _),
        DRAWDOWN: _("maximum drawdowns of one year, percent"),
    }
    found = []
    for metric, title in titles.items():
        rows = []
        for record in week["types"]:
            label, spread = category_name(record["category"], _), record[metric]
            if spread is not None:
                rows.append(charts.Box(label, spread, weekly_text.box_title(label, spread, _)))
        if rows:
            found.append((charts.boxes(title, rows), f"{title}; {words}"))
    return found


def _histograms(week: Record, metric: str, _: Translate) -> Iterator[tuple[Markup, str]]:
    said = _("{low} to {high} %: {count} funds")
    for record in week["types"]:
        spread = record[metric]
        if spread is not None:
            label = category_name(record["category"], _)
            caption = _("{label}: {count} funds, median {median} %").format(
                label=label, count=number(spread["count"]), median=charts.signed(spread["median"])
            )
            yield charts.histogram(caption, spread, said), caption


def write_weekly(
    engine: Engine,
    calendar: TradingCalendar,
    business_date: date,
    folder: Path,
    translate: Translate,
    span: str = "week",
) -> Path:
    """Write a page and its Markdown into `folder`, named by the business date or the month; the path of the page.

    Older ones are replaced. Raises StoreUnavailable where they cannot be written.
    """
    week = weekly(engine, calendar, business_date, span)
    path = folder / f"{business_date if span == 'week' else f'{business_date:%Y-%m}'}.html"
    write_page(path, page(week, translate))
    write_page(path.with_suffix(".md"), markdown(week, translate))
    return path
