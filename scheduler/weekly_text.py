"""A week in words: the sections of its report, which page and chat share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from config.translation import N_
from scheduler.charts import signed
from scheduler.quality_text import CHANGES, OUTCOMES, category_name, nav_text, rule_sentence
from scheduler.sections import Cell, Section
from scheduler.weekly_market import DRAWDOWN, MOVED
from scheduler.wording import WORDS, Translate, clock_time, cut, day, number, one_line, percent

if TYPE_CHECKING:
    from scheduler.weekly import Record

Rows = list[list[str | Cell]]
NAME_LENGTH = 40
FUNDS_NAMED = 3
REASONS_SHOWN = 10
STEPS = {"collect": N_("collect"), "validate": N_("validate"), "metrics": N_("metrics")}


OF_SPAN = {
    "week": {
        "title": N_("Weekly report, {start} to {end}"),
        "histograms": N_("Returns of 7 days, percent"),
        "boxes": N_("returns of 7 days, percent"),
        "best": N_("Best and worst of the week"),
        "late": N_("Late at the end of the week"),
        "nothing": N_("no metrics were calculated in this week; calculate them: python main.py metrics"),
        "market": N_(
            "returns of 7 days and maximum drawdowns of one year as of {date}, of the funds with a NAV in the week; "
            "of a fund's share classes one counts; money funds have no drawdown"
        ),
    },
    "month": {
        "title": N_("Monthly report, {start} to {end}"),
        "histograms": N_("Returns of one month, percent"),
        "boxes": N_("returns of one month, percent"),
        "best": N_("Best and worst of the month"),
        "late": N_("Late at the end of the month"),
        "nothing": N_("no metrics were calculated in this month; calculate them: python main.py metrics"),
        "market": N_(
            "returns of one month and maximum drawdowns of one year as of {date}, of the funds with a NAV in the "
            "month; of a fund's share classes one counts; money funds have no drawdown"
        ),
    },
}


def of_span(text: str, week: Record, _: Translate) -> str:
    return _(OF_SPAN[week["span"]][text])


def title(week: Record, _: Translate) -> str:
    return of_span("title", week, _).format(start=day(week["week_start"]), end=_end(week))


def _end(week: Record) -> str:
    return day(week["business_date"])


def headline(week: Record, _: Translate) -> str:
    """The week in one line."""
    whole = sum(record["outcome"] == "SUCCESS" for record in week["days"])
    text = _(
        "{whole} of {days} nights succeeded; {share} of the funds expected have a NAV of {date}; "
        "rows held {held}, values corrected {revised}, funds new {fresh}, liquidated {gone}"
    )
    return text.format(
        whole=whole,
        days=len(week["days"]),
        share=percent(share_of(week["days"][-1])) if week["days"] else "-",
        date=_end(week),
        held=number(week["held"]["total"]),
        revised=number(week["revisions"]["total"]),
        fresh=number(week["new"]["total"]),
        gone=number(week["liquidated"]["total"]),
    )


def share_of(record: Mapping[str, Any]) -> float | None:
    """Published of expected; None where nothing is expected."""
    return record["published"] / record["expected"] if record["expected"] else None


def state_cell(state: str | None, _: Translate) -> Cell:
    return Cell("-") if state is None else Cell(_(OUTCOMES.get(state) or WORDS.get(state, state)), state)


def nights(week: Record, _: Translate) -> Section:
    """One row a trading day."""
    headers = [_("date"), _("outcome"), *(_(text) for text in STEPS.values())]
    headers += [_("published"), _("expected"), _("coverage"), _("held"), _("released"), _("corrected")]
    rows: Rows = [
        [
            day(record["date"]),
            *(state_cell(record[step], _) for step in ("outcome", *STEPS)),
            *(number(record[name]) for name in ("published", "expected")),
            percent(share_of(record)),
            *(number(record[name]) for name in ("held", "released", "revisions")),
        ]
        for record in week["days"]
    ]
    note = _(
        "expected: funds from their first NAV until ten trading days after their newest; "
        "held: rows of that date that failed a rule; corrected: values of any date that the night changed"
    )
    return Section(_("Coverage and quality"), headers, rows, right=range(5, 11), note=note)


def coverage(week: Record, _: Translate) -> Section:
    """Types by trading day."""
    headers = [_("type"), *(f"{record['date']:%m-%d}" for record in week["days"])]
    rows: Rows = [
        [category_name(record["category"], _), *(_coverage_cell(each) for each in record["days"])]
        for record in week["coverage"]
    ]
    note = "" if rows else _("no NAV is stored up to this week")
    return Section(_("Coverage by type"), headers, rows, right=range(1, len(headers)), note=note)


def _coverage_cell(record: Mapping[str, Any]) -> str:
    share = share_of(record)
    return (
        "-"
        if share is None
        else f"{percent(share)}  {number(record['published'])}/{number(record['expected'])}"
    )


def reasons(week: Record, _: Translate) -> Section:
    """The rules that held most."""
    held = week["held"]
    shown = list(held["by_reason"].items())[:REASONS_SHOWN]
    rows = [[reason, number(count), rule_sentence(reason, _)] for reason, count in shown]
    note = _("{total} rows: {open} held, {released} released, {rejected} rejected")
    said = note.format(**{name: number(held[name]) for name in ("total", "open", "released", "rejected")})
    headers = [_("rule"), _("rows"), _("what it demands")]
    return Section(_("Held rows"), headers, rows, right=(1,), note=said)


def market(week: Record, _: Translate) -> Section:
    """Returns and drawdowns by type."""
    headers = [_("type"), _("funds"), _("up"), _("down")]
    headers += [_("median"), "25 %", "75 %", "5 %", "95 %", _("lowest"), _("highest")]
    headers += [_("drawdown: median"), "25 %", _("deepest")]
    keys = ("median", "q1", "q3", "p5", "p95", "min", "max")
    rows: Rows = []
    for record in week["types"]:
        spread, falls = record[week["metric"]], record[DRAWDOWN]
        if spread is None:
            continue
        rows.append(
            [
                category_name(record["category"], _),
                *(number(spread[name]) for name in ("count", "up", "down")),
                *(change_cell(spread[key]) for key in keys),
                *(signed(falls[key]) if falls else "-" for key in ("median", "q1", "min")),
            ]
        )
    said = market_note(week, _)
    return Section(_("Market by type, percent"), headers, rows, right=range(1, len(headers)), note=said)


def market_note(week: Record, _: Translate) -> str:
    if week["calc_date"] is None:
        return of_span("nothing", week, _)
    return of_span("market", week, _).format(date=day(week["calc_date"]))


def legend(_: Translate) -> str:
    return _("Red with + is up, green with - is down, as usual in China. Of states green is good.")


def box_title(label: str, spread: Mapping[str, Any], _: Translate) -> str:
    """A distribution in a sentence."""
    text = _("{label}: {count} funds, median {median} %, middle half {q1} to {q3}, nine tenths {p5} to {p95}")
    figures = {name: signed(spread[name]) for name in ("median", "q1", "q3", "p5", "p95")}
    return text.format(label=label, count=number(spread["count"]), **figures)


def change_cell(value: float | None) -> Cell:
    text = signed(value)
    return Cell(text, {"+": "UP", "-": "DOWN"}.get(text[:1], "") if len(text) > 1 else "")


def fund_cell(fund: Mapping[str, Any]) -> Cell:
    code = one_line(fund["fund_code"])
    return Cell(f"{code} {name_of(fund)}".strip(), fund=code)


def name_of(fund: Mapping[str, Any]) -> str:
    """A fund's name on one line, without what would steer a terminal or turn the direction of reading."""
    return cut(" ".join(one_line(fund["fund_name"]).split()), NAME_LENGTH)


def best_and_worst(week: Record, _: Translate) -> Section:
    """Side by side, the whole market."""
    headers = ["", _("best"), _("type"), "%", _("worst"), _("type"), "%"]
    pairs = zip_longest(week["best"], week["worst"])
    rows: Rows = [
        [str(at), *(_placed(best, week["metric"], _)), *(_placed(worst, week["metric"], _))]
        for at, (best, worst) in enumerate(pairs, 1)
    ]
    return Section(of_span("best", week, _), headers, rows, right=(0, 3, 6), note=_none(rows, _))


def _placed(fund: Record | None, metric: str, _: Translate) -> list[str | Cell]:
    if fund is None:
        return ["", "", ""]
    return [fund_cell(fund), category_name(fund["category"], _), change_cell(fund[metric])]


def extremes_by_type(week: Record, _: Translate) -> Section:
    headers = [_("type"), _("best"), "%", _("worst"), "%"]
    rows: Rows = []
    for record in week["extremes"]:
        for at, pair in enumerate(zip_longest(record["best"], record["worst"])):
            row: list[str | Cell] = ["" if at else category_name(record["category"], _)]
            for fund in pair:
                row += [fund_cell(fund), change_cell(fund[week["metric"]])] if fund else ["", ""]
            rows.append(row)
    return Section(_("Best and worst by type"), headers, rows, right=(2, 4), note=_none(rows, _))


def _none(rows: Iterable[Any], _: Translate) -> str:
    return "" if rows else _("none")


def movers(week: Record, _: Translate) -> Section:
    """Up and down in one table."""
    found = week["movers"]
    headers = [_("fund"), _("type"), _("rank before"), _("rank"), _("percentile before"), _("percentile")]
    headers.append(_("change"))
    listed = [*found["up"], *found["down"]] if found else []
    rows: Rows = [
        [
            fund_cell(fund),
            category_name(fund["category"], _),
            f"{number(fund['rank_before'])}/{number(fund['peers_before'])}",
            f"{number(fund['rank'])}/{number(fund['peers'])}",
            f"{fund['percentile_before']:.1f}",
            f"{fund['percentile']:.1f}",
            change_cell(fund["change"]),
        ]
        for fund in listed
    ]
    return Section(_("Rank movers"), headers, rows, right=range(2, len(headers)), note=_movers_note(found, _))


def _movers_note(found: Record | None, _: Translate) -> str:
    if found is None:
        return _("no ranks of the week before are stored to compare with")
    text = _(
        "{metric} within the type, against {date}; percentile: 100 is the best; {count} funds are ranked on both dates"
    )
    from scheduler.metrics_listing import metric_name

    return text.format(metric=metric_name(MOVED, _), date=day(found["since"]), count=number(found["count"]))


def new_funds(week: Record, _: Translate) -> Section:
    headers = [_("fund"), _("type"), _("inception"), _("first NAV")]
    rows: Rows = [
        [
            fund_cell(fund),
            category_name(fund["category"], _),
            day(fund["inception_date"]),
            day(fund["first_nav"]),
        ]
        for fund in week["new"]["listed"]
    ]
    return Section(_("New funds"), headers, rows, note=_listed(week["new"], _))


def liquidated_funds(week: Record, _: Translate) -> Section:
    headers = [_("fund"), _("type"), _("last NAV")]
    rows: Rows = [
        [fund_cell(fund), category_name(fund["category"], _), day(fund["last_nav"])]
        for fund in week["liquidated"]["listed"]
    ]
    return Section(_("Liquidated funds"), headers, rows, note=_listed(week["liquidated"], _))


def _listed(part: Mapping[str, Any], _: Translate) -> str:
    if not part["total"]:
        return _("none")
    return _("{n} of {total} listed").format(n=len(part["listed"]), total=number(part["total"]))


def revisions(week: Record, _: Translate) -> Section:
    headers = [_("fund"), _("date"), _("old NAV"), _("new NAV"), _("change %"), _("what"), _("known at")]
    rows: Rows = [
        [
            fund_cell(record),
            day(record["nav_date"]),
            nav_text(record["old_unit_nav"]),
            nav_text(record["new_unit_nav"]),
            change_cell(record["change"]),
            _(CHANGES.get(record["reason"], record["reason"])),
            clock_time(record["known_at"]),
        ]
        for record in week["revisions"]["listed"]
    ]
    counts = (
        f"{_(CHANGES.get(reason, reason))} {number(count)}"
        for reason, count in week["revisions"]["by_reason"].items()
    )
    note = "; ".join([_listed(week["revisions"], _), *counts])
    return Section(_("Corrections, the largest first"), headers, rows, right=(2, 3, 4), note=note)


def late(week: Record, _: Translate) -> Section:
    headers = [_("type"), _("expected"), _("late"), _("such as")]
    rows: Rows = [
        [
            category_name(record["category"], _),
            number(record["expected"]),
            number(record["late"]),
            ", ".join(_late_fund(fund) for fund in record["funds"][:FUNDS_NAMED])
            + (" …" if record["late"] > FUNDS_NAMED else ""),
        ]
        for record in week["late"]
    ]
    note = _("funds expected that have no NAV of {date}, with their newest").format(date=_end(week))
    return Section(of_span("late", week, _), headers, rows, right=(1, 2), note=note)


def _late_fund(fund: Mapping[str, Any]) -> str:
    newest = fund["newest"]
    return f"{one_line(fund['fund_code'])} {name_of(fund)} {'-' if newest is None else f'{newest:%m-%d}'}"
