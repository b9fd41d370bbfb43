"""The quarantine as an operator deals with it: rows as records and in words, released, rejected."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Row

from config.translation import N_
from core import db, quarantine as held_back
from scheduler.quality import held_record
from scheduler.quality_text import (
    HELD_WRAPPED,
    NUMBERS,
    held_headers,
    held_row,
    kind_name,
    nav_text,
    percent_text,
    rule_sentence,
    values_text,
)
from scheduler.sections import Cell, Section
from scheduler.wording import WORDS, Translate, clock_time, day, number, one_line

if TYPE_CHECKING:
    from scheduler.quality import Record

TIME = "%Y-%m-%d %H:%M:%S"
PROPOSALS = {
    "dividend": N_("a dividend of {value} a share"),
    "split": N_("a split of {value} shares for one"),
}
DECIDERS = {  # core/release.py; others are people
    "event": N_("an event that was published later explains it"),
    "followers": N_("the rows after it follow from it"),
    "source": N_("another source says the same"),
    "history": N_("a history page brought the same value"),
    "corrected": N_("another value was believed in its place"),
}
NAVS = ("unit_nav", "accum_nav", "daily_return")
YIELDS = ("income_per_10k", "yield_7d")


def list_rows(
    engine: Engine,
    *,
    fund: str | None,
    day: date | None,
    reason: str | None,
    decided: bool,
    limit: int,
    before: int | None = None,
) -> tuple[list[Record], int]:
    """The newest rows asked for, `before` a number, and how many there are."""
    asked: dict[str, Any] = {"fund": fund, "day": day, "reason": reason, "decided": decided}
    with db.read(engine) as connection:
        rows = held_back.held_rows(connection, **asked, before=before, limit=limit)
        return [held_record(row) for row in rows], held_back.count_held(connection, **asked)


def show_row(engine: Engine, row_id: int) -> Record:
    """Everything known of a row. Raises UsageError where there is none."""
    with db.read(engine) as connection:
        row = held_back.find_row(connection, row_id)
        near = held_back.neighbours(connection, row)
        others = held_back.same_date_elsewhere(connection, row)
    return held_record(row) | {
        "raw": row.raw,
        "before": [_believed(item) for item in near.before],
        "stored": None if near.same_date is None else _believed(near.same_date),
        "after": [_believed(item) for item in near.after],
        "elsewhere": [_staged(item) for item in others],
    }


def _believed(row: Row[Any]) -> Record:
    names = [name for name in (*NAVS, *YIELDS) if name in row._fields]
    return {"nav_date": row.nav_date} | {name: getattr(row, name) for name in names} | {"batch": row.batch_id}


def _staged(row: Row[Any]) -> Record:
    names = (*NAVS, "dividend", "split_ratio", *YIELDS, "source", "kind", "collected_at")
    return {"batch": row.batch_id, "held": row.held == 1} | {name: getattr(row, name) for name in names}


def reject_rows(engine: Engine, ids: Sequence[int], actor: str, note: str | None, now: datetime) -> Record:
    """Raises UsageError for an unknown row and a decided one; then nothing is done."""
    with db.write(engine) as connection:
        held_back.reject(connection, ids, actor, note, now)
    return {"rejected": list(dict.fromkeys(ids))}


def release_rows(
    engine: Engine,
    ids: Sequence[int],
    actor: str,
    note: str | None,
    now: datetime,
    *,
    book_proposal: bool,
) -> Record:
    """Merge the rows after all and queue the metrics of their funds. Raises UsageError as `reject_rows`."""
    from scheduler.events import publish
    from scheduler.firing import require_calendar
    from scheduler.tasks import pipeline_for, recalculate_newest

    with db.read(engine) as connection:
        calendar = require_calendar(connection)
    pipeline = pipeline_for(engine, calendar)
    found = pipeline.release(list(dict.fromkeys(ids)), actor, note, now, book_proposal=book_proposal)
    with db.write(engine) as connection:
        run = recalculate_newest(connection, now, found.funds, actor)
        if found.released:
            day = calendar.newest_business_date(now).isoformat()
            publish(connection, "quality.released", {"business_date": day, "rows": len(found.released)}, now)
    return {
        "released": found.released,
        "merged": found.merged,
        "revised": found.revised,
        "events": found.events,
        "still_held": found.still_held,
        "funds": found.funds,
        "metrics_run": run,
    }


def decided_text(record: Record, _: Translate) -> str:
    if "rejected" in record:
        return _("rows rejected: {n}; they stay on record").format(n=number(len(record["rejected"])))
    said = _("rows released and merged: {n}; stored values corrected: {revised}, events booked: {events}")
    counts = {name: number(record[name]) for name in ("revised", "events")}
    lines = [said.format(n=number(len(record["released"])), **counts)]
    if record["still_held"]:
        ids = ", ".join(map(str, record["still_held"]))
        lines.append(_("of the same funds still held: {ids}").format(ids=ids))
    if record["metrics_run"] is not None:
        lines.append(_("run {run} calculates their metrics anew").format(run=record["metrics_run"]))
    elif record["funds"]:
        words = " ".join(f"--fund {code}" for code in record["funds"])
        lines.append(
            _("their metrics are those of before until: {command}").format(
                command=f"python main.py metrics {words}"
            )
        )
    return "\n".join(lines)


def list_sections(records: Sequence[Record], total: int, _: Translate) -> list[Section]:
    """The rows, and what the rules they failed demand."""
    if not records:
        return [Section("", note=_("nothing is held"))]
    note = ""
    if total > len(records):
        note = _("the newest {n} of {total}; more with --limit").format(n=len(records), total=number(total))
    rules = dict.fromkeys(reason for record in records for reason in record["reasons"])
    rows = [held_row(record, _) for record in records]
    return [
        Section("", held_headers(_), rows, right=(0,), wrapped=HELD_WRAPPED, note=note),
        Section("", ("", ""), [(rule, rule_sentence(rule, _)) for rule in rules]),
    ]


def show_sections(record: Record, _: Translate) -> list[Section]:
    """Everything of one row."""
    facts = [(name, fact) for name, fact in _facts(record, _) if fact]
    rules = [(rule, rule_sentence(rule, _)) for rule in record["reasons"]]
    found = [
        Section("", ("", ""), facts),
        Section(_("Rules that it failed"), (_("rule"), _("what it demands")), rules),
    ]
    if record["nav_date"] is not None:
        found.append(_neighbours(record, _))
    if record["elsewhere"]:
        found.append(_elsewhere(record["elsewhere"], _))
    return found


def _facts(record: Record, _: Translate) -> list[tuple[str, str]]:
    state = record["resolution"] or "HELD"
    decided = ""
    if record["resolution"] is not None:
        by = str(record["resolved_by"])
        by = _(DECIDERS[by]) if by in DECIDERS else one_line(by)
        decided = f"{clock_time(record['resolved_at'], TIME)}, {by}"
    return [
        (_("no."), str(record["id"])),
        (_("fund"), one_line(record["fund_code"])),
        (_("date"), day(record["nav_date"])),
        (_("values"), values_text(record, _)),
        (_("status"), _(WORDS[state])),
        (_("decided"), decided),
        (_("note"), one_line(record["note"])),
        (_("held since"), clock_time(record["held_at"], TIME)),
        (_("batch"), f"{record['batch']}, {one_line(record['source'])}"),
        (_("place"), one_line(record["origin"])),
        (_("as it came"), one_line(record["raw"])),
        (_("proposal"), proposal_text(record["proposal"], _)),
    ]


def proposal_text(proposal: Record | None, _: Translate) -> str:
    """The dividend or split that would explain the row, and why it is thought so."""
    if proposal is None:
        return ""
    kind, value = str(proposal.get("kind")), proposal.get("value")
    text = _(PROPOSALS[kind]).format(value=nav_text(value)) if kind in PROPOSALS else f"{kind} {value}"
    why = proposal.get("why")
    return one_line(f"{text}: {why}" if why else text)


def _neighbours(record: Record, _: Translate) -> Section:
    """Believed rows around the held one, which stands among them marked."""
    around = [*record["before"], *record["after"]]
    money = any("yield_7d" in item for item in around) or (
        record["unit_nav"] is None and record["yield_7d"] is not None
    )
    names = YIELDS if money else NAVS
    headers = (_("date"), *(_(NUMBERS[name]) for name in names), "")
    listed: list[tuple[Record, str | Cell]] = [(item, "") for item in record["before"]]
    listed.append((record, Cell(_("this row"), "HELD")))
    if record["stored"] is not None:
        listed.append((record["stored"], _("stored")))
    listed += [(item, "") for item in record["after"]]
    rows: list[list[str | Cell]] = [
        [day(item["nav_date"]), *_values(item, names), mark] for item, mark in listed
    ]
    right = tuple(range(1, len(names) + 1))
    return Section(_("Among the NAVs that are believed"), headers, rows, right=right)


def _values(item: Record, names: Sequence[str]) -> list[str]:
    percent = ("daily_return", "yield_7d")
    return [percent_text(item.get(name)) if name in percent else nav_text(item.get(name)) for name in names]


def _elsewhere(items: Sequence[Record], _: Translate) -> Section:
    headers = (_("batch"), _("kind"), _("source"), _("collected"), _("values"))
    rows = [
        (
            str(item["batch"]),
            kind_name(item["kind"], _),
            one_line(item["source"]),
            clock_time(item["collected_at"]),
            values_text(item, _),
        )
        for item in items
    ]
    return Section(_("The same date in other batches"), headers, rows, right=(0,))
