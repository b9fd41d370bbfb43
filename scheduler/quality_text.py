"""The evidence of a night in words: the sections that the terminal and the HTML report show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from config.translation import N_
from scheduler.sections import Cell, Section
from scheduler.wording import (
    CATEGORIES,
    STYLES,
    WORDS,
    Translate,
    clock_time,
    day,
    error_text,
    job_cell,
    number,
    one_line,
    percent,
)

if TYPE_CHECKING:
    from scheduler.quality import Record

LANGUAGE = N_("en")  # translated, the language of the catalogue
OUTCOMES = {"UNFINISHED": N_("not finished")}
SEVERITIES = {"error": N_("holds"), "warning": N_("counts")}
KINDS = {
    "latest": N_("night"),
    "sweep": N_("sweep"),
    "second": N_("second source"),
    "history": N_("history"),
    "release": N_("release"),
}
CHANGES = {
    "filled": N_("a blank was published later"),
    "precision": N_("more decimals were published"),
    "small": N_("a small correction"),
    "large": N_("a large correction"),
    "changed": N_("a correction"),
    "dividend": N_("a dividend was booked"),
    "split": N_("a split was booked"),
}
NUMBERS = {
    "unit_nav": N_("unit NAV"),
    "accum_nav": N_("accumulated NAV"),
    "daily_return": N_("return %"),
    "dividend": N_("dividend"),
    "split_ratio": N_("split ratio"),
    "income_per_10k": N_("income per 10,000"),
    "yield_7d": N_("7-day yield %"),
}
# core/gates.py
GATES = {
    "coverage": N_("coverage"),
    "quarantined_share": N_("share quarantined"),
    "page_cap": N_("page cap"),
    "unchanged_share": N_("NAVs unchanged"),
    "repeated_share": N_("returns repeated"),
    "blank_share": N_("returns blank"),
}
FUNDS_NAMED = 3
DECIMALS = 12  # as the tables keep them


def sections(night: Record, _: Translate, *, held: int, example: int) -> list[Section]:
    """All of a night; `held` rows of the quarantine at most, `example` samples of each rule at most."""
    return [
        _headline(night, _),
        *steps_and_batches(night, _),
        *judgement(night, _, example),
        _quarantine(night, _, held),
        changes(night, _),
        _late(night, _),
    ]


def steps_and_batches(night: Record, _: Translate) -> list[Section]:
    return [_steps(night, _), _batches(night, _)]


def judgement(night: Record, _: Translate, example: int) -> list[Section]:
    """Gates, rules and at most `example` rows that failed each."""
    return [_gates(night, _), rules_section(night, _), *examples(night, _, example)]


def title(night: Record, _: Translate) -> str:
    return _("Data quality of the night of {date}").format(date=night["business_date"])


def outcome_word(night: Record, _: Translate) -> Cell:
    state = night["outcome"]
    return Cell(_(OUTCOMES.get(state) or WORDS[state]), state)


def _headline(night: Record, _: Translate) -> Section:
    marks = f"  {_('[SIMULATED data]')}" if night["simulated"] else ""
    summary = _("{merged} rows believed, {held} quarantined, {corrected} corrected, {late} funds late")
    figures = {
        "merged": number(night["believed"]),
        "held": number(night["quarantine"]["rows"]),
        "corrected": number(sum(night["revisions"].values())),
        "late": number(sum(record["late"] for record in night["late"])),
    }
    row = (outcome_word(night, _), f"{summary.format(**figures)}{marks}")
    return Section(title(night, _), ("", ""), [row])


def _steps(night: Record, _: Translate) -> Section:
    headers = (_("job"), _("status"), _("started"), _("run"), _("records"), _("reason"))
    rows = [
        (
            job_cell(step["job"], _),
            Cell(_(WORDS.get(step["status"], step["status"])), step["status"]),
            clock_time(step["started_at"]),
            str(step["run"]),
            number(step["records"]),
            error_text(step["reason"], _),
        )
        for step in night["steps"]
    ]
    return Section(_("Steps"), headers, rows, right=(3, 4), note="" if rows else _("no run is on record"))


def _batches(night: Record, _: Translate) -> Section:
    headers = (_("batch"), _("kind"), _("status"), _("rows"), _("believed"), _("decided"), _("source"))
    rows = [
        (
            str(batch["batch"]),
            kind_name(batch["kind"], _),
            Cell(_(WORDS.get(batch["status"], batch["status"])), batch["status"]),
            number(batch["rows"]),
            number(batch["merged"]),
            clock_time(batch["decided_at"]),
            one_line(batch["source"]),
        )
        for batch in night["batches"]
    ]
    return Section(
        _("Batches"), headers, rows, right=(0, 3, 4), note="" if rows else _("no batch was collected")
    )


def kind_name(kind: str, _: Translate) -> str:
    """What a batch was collected for."""
    return _(KINDS[kind]) if kind in KINDS else kind


def _gates(night: Record, _: Translate) -> Section:
    headers = (_("gate"), _("verdict"), _("figures"))
    rows = [(_gate_name(gate, _), _verdict(gate, _), gate_text(gate, _)) for gate in night["gates"]]
    return Section(_("Gates"), headers, rows, note="" if rows else _("no gate judged this night"))


def _gate_name(gate: Record, _: Translate) -> str:
    name, _dot, category = gate["gate"].partition(".")
    said = _(GATES[name]) if name in GATES else ""
    if category:
        said = f"{said} {category_name(category, _)}"
    return f"{said} {gate['gate']}".strip()


def _verdict(gate: Record, _: Translate) -> Cell:
    if gate["failed"]:
        refused = gate["severity"] == "gate"
        return Cell(_(WORDS["REFUSED"] if refused else WORDS["PARTIAL"]), "FAILURE" if refused else "PARTIAL")
    return Cell(_("passed"), "SUCCESS") if gate["checked"] else Cell(_("not judged"), "SKIPPED")


def gate_text(gate: Record, _: Translate) -> str:
    """The figures by which a gate judged; in the words it was stored with where they are not known here."""
    figures = gate["figures"]
    if isinstance(figures, Mapping):
        known = {name: value for name, value in figures.items() if isinstance(value, (int, float))}
        if {"count", "total", "allowed"} <= known.keys():
            text = _("{count} of {total} rows ({share}); at most {allowed} allowed")
            share = percent(known["count"] / known["total"] if known["total"] else None)
            return text.format(
                count=figure_text(known["count"]),
                total=figure_text(known["total"]),
                share=share,
                allowed=percent(known["allowed"]),
            )
        if {"count", "usual", "needed"} <= known.keys():
            return _against_usual(known, _)
        if {"all", "nav", "money"} <= known.keys():
            counted = {name: figure_text(known[name]) for name in ("all", "nav", "money")}
            return _("{all} rows: {nav} with NAVs, {money} of money funds").format(**counted)
        counts = figures.get("counts")
        if isinstance(counts, Sequence) and len(counts) > 1:
            text = _("{count} of {total} funds are up to date; too few nights to compare with")
            return text.format(count=figure_text(counts[0]), total=figure_text(counts[-1]))
    return one_line("; ".join(map(str, gate["said"])))


def _against_usual(figures: Mapping[str, Any], _: Translate) -> str:
    usual = figures["usual"]
    text = _("{count}, usually {usual} ({share}); at least {needed} needed").format(
        count=figure_text(figures["count"]),
        usual=figure_text(usual),
        share=percent(figures["count"] / usual if usual else None),
        needed=percent(figures["needed"]),
    )
    if figures.get("lag"):
        lag = _("counted with funds up to {n} trading day(s) behind").format(n=figure_text(figures["lag"]))
        text = f"{text}; {lag}"
    return text


def category_name(category: str, _: Translate) -> str:
    return _(CATEGORIES[category]) if category in CATEGORIES else one_line(category)


def figure_text(value: Any) -> str:
    """A figure as people write it: NAVs with the decimals they have, counts in thousands."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "-" if value is None else one_line(str(value))
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    text = f"{value:.{DECIMALS}f}".rstrip("0")
    return text.removesuffix(".") if abs(value) < 1e15 else f"{value:g}"


def nav_text(value: float | None) -> str:
    """A NAV with its own decimals, four at least."""
    if value is None:
        return "-"
    if abs(value) >= 1e12:
        return f"{value:g}"
    whole, _point, decimals = f"{value:.{DECIMALS}f}".rstrip("0").partition(".")
    return f"{whole}.{decimals:<04}"


def percent_text(value: float | None) -> str:
    """A percentage as published: two decimals at least."""
    if value is None:
        return "-"
    whole, _point, decimals = f"{value:.8f}".rstrip("0").partition(".")
    return f"{whole}.{decimals:<02}"


def rule_sentence(rule_id: str, _: Translate) -> str:
    """What the rule demands, in the operator's language; "" for one that is no longer in force."""
    from core.rules import RULES

    return next((str(getattr(rule, _(LANGUAGE))) for rule in RULES if rule.id == rule_id), "")


def rules_section(night: Record, _: Translate) -> Section:
    """Every rule of `night["rules"]`: how many rows it checked, how many failed."""
    headers = (_("rule"), _("v."), _("checked"), _("failed"), _("effect"), _("what it demands"))
    rows = [
        (
            rule["rule"],
            str(rule["version"]),
            number(rule["checked"]),
            Cell(number(rule["failed"]), "PARTIAL" if rule["failed"] else ""),
            _(SEVERITIES.get(rule["severity"], rule["severity"])),
            rule_sentence(rule["rule"], _),
        )
        for rule in night["rules"]
    ]
    return Section(
        _("Rules"), headers, rows, right=(1, 2, 3), note="" if rows else _("no rule judged this night")
    )


def examples(night: Record, _: Translate, limit: int) -> Iterator[Section]:
    """Some rows that failed, by rule."""
    rows = [(rule["rule"], one_line(sample)) for rule in night["rules"] for sample in rule["samples"][:limit]]
    if rows:
        yield Section(_("Rows that failed"), (_("rule"), _("such as")), rows)


def _quarantine(night: Record, _: Translate, limit: int) -> Section:
    held = night["quarantine"]
    summary = _("{new} rows are new in quarantine: {open} held, {released} released, {rejected} rejected")
    note = summary.format(**{name: number(held[name]) for name in ("new", "open", "released", "rejected")})
    if held["rows"] > held["new"]:
        again = _("{n} more were there before")
        note = f"{note}\n{again.format(n=number(held['rows'] - held['new']))}"
    listed = held["listed"][:limit]
    if len(listed) < held["new"]:
        more = _("the newest {n} are listed; all: python main.py quarantine list --all")
        note = f"{note}\n{more.format(n=len(listed))}"
    return Section(
        _("Quarantine"),
        held_headers(_),
        [held_row(row, _) for row in listed],
        right=(0,),
        wrapped=HELD_WRAPPED,
        note=note,
    )


HELD_WRAPPED = (4,)


def held_headers(_: Translate) -> tuple[str, ...]:
    return (_("no."), _("fund"), _("date"), _("status"), _("values"), _("rules that failed"))


def held_row(row: Record, _: Translate) -> tuple[str | Cell, ...]:
    state = row["resolution"] or "HELD"
    return (
        str(row["id"]),
        one_line(row["fund_code"]),
        day(row["nav_date"]),
        Cell(_(WORDS[state]), state),
        values_text(row, _),
        ", ".join(row["reasons"]),
    )


def values_text(row: Mapping[str, Any], _: Translate) -> str:
    """The figures a row has, such as: unit NAV 1.2340, return % 0.56."""
    shown = [
        f"{_(text)} {percent_text(row[name]) if text.endswith('%') else nav_text(row[name])}"
        for name, text in NUMBERS.items()
        if row.get(name) is not None
    ]
    if row.get("defect"):
        shown.append(one_line(row["defect"]))
    return ", ".join(shown)


def changes(night: Record, _: Translate) -> Section:
    counts = [*night["revisions"].items(), *night["events"].items()]
    rows = [(_(CHANGES.get(name, name)), number(count)) for name, count in counts]
    return Section(
        _("Corrections and events"),
        (_("what"), _("how many")),
        rows,
        right=(1,),
        note="" if rows else _("nothing was corrected, no dividend and no split was booked"),
    )


def _late(night: Record, _: Translate) -> Section:
    headers = (_("type"), _("expected"), _("late"), _("longest"), _("funds"))
    rows = [
        (
            category_name(record["category"], _),
            number(record["expected"]),
            Cell(number(record["late"]), "PARTIAL" if record["late"] else ""),
            day(record["oldest"]) if record["late"] else "-",
            _named(record["funds"], record["late"]),
        )
        for record in night["late"]
    ]
    note = _("of the funds that published in the last ten trading days, those without a row of this date")
    return Section(_("Not yet published"), headers, rows, right=(1, 2), note=note if rows else "-")


def _named(funds: Sequence[Mapping[str, Any]], total: int) -> str:
    named = ", ".join(fund["fund_code"] for fund in funds[:FUNDS_NAMED])
    return f"{named} …" if total > FUNDS_NAMED else named


def style_of(state: str) -> str:
    """green, yellow, red, cyan or dim: the colour of a state."""
    return STYLES.get(state, "").removeprefix("bold ")
