"""A night's evidence, what the rules found over the last nights, and the quarantine, whose rows are decided here."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import g, request
from werkzeug.utils import redirect

from core.errors import NotReady, UsageError
from scheduler import held_rows, quality
from scheduler.held_rows import proposal_text, show_sections
from scheduler.quality_text import (
    changes,
    judgement,
    outcome_word,
    rule_sentence,
    steps_and_batches,
    values_text,
)
from scheduler.web import params
from scheduler.web.problems import Problem

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from scheduler.listing import Record
    from scheduler.web.site import Site

NIGHTS = 10
EXAMPLES = 3
ROWS = 20


def show_quality(site: Site) -> str:
    asked, _ = site.asked(params.AskedHeld), site.translate
    try:
        night = quality.quality(site.api.engine, asked.date, late=False)
    except NotReady:
        night = None
    except UsageError:
        raise Problem("not_stored") from None
    values: dict[str, Any] = {"night": night, "findings": None, "evidence": [], "steps": []}
    if night is not None:
        values["outcome"] = outcome_word(night, _)
        values["evidence"] = [*judgement(night, _, EXAMPLES), changes(night, _)]
        values["steps"] = steps_and_batches(night, _)
        values["findings"] = _findings(site, night["business_date"])
    return site.render(
        "quality.html", asked=asked, **values, **_quarantine(site, asked), **_decided(site, asked)
    )


def _findings(site: Site, night: date) -> Record:
    """Of the newest nights, or of those up to this one where it is none of them."""
    found = quality.findings(site.api.engine, date.max, NIGHTS)
    return found if night in found["nights"] else quality.findings(site.api.engine, night, NIGHTS)


def _quarantine(site: Site, asked: params.AskedHeld) -> Record:
    rows, total = held_rows.list_rows(
        site.api.engine,
        fund=asked.fund,
        day=None,
        reason=asked.rule,
        decided=asked.which == "all",
        before=asked.before,
        limit=ROWS + 1,
    )
    kept = asked.model_dump(mode="json", include={"date", "fund", "rule", "which"}, exclude_none=True)
    older = kept | {"before": rows[ROWS - 1]["id"]} if len(rows) > ROWS else None
    return {
        "held": [_shown(site, row) for row in rows[:ROWS]],
        "held_total": total,
        "older": f"/quality?{urlencode(older)}#quarantine" if older else None,
    }


def _shown(site: Site, row: Record) -> Record:
    _ = site.translate
    return row | {
        "state": row["resolution"] or "HELD",
        "values": values_text(row, _),
        "rules": [(rule, rule_sentence(rule, _)) for rule in row["reasons"]],
        "proposed": proposal_text(row["proposal"], _),
        "is_fund": row["fund_code"].isdecimal() and len(row["fund_code"]) == 6,
    }


def _decided(site: Site, asked: params.AskedHeld) -> Record:
    """What became of the row that a form was sent for, as it is on record now."""
    if asked.decided is None:
        return {"decided": None}
    return {"decided": _shown(site, _row(site, asked.decided)), "decided_run": asked.run}


def show_held(site: Site, row: str) -> str:
    asked, _ = site.asked(params.RowPath, row=row), site.translate
    found = _row(site, asked.row)
    return site.render("held.html", row=_shown(site, found), sections=show_sections(found, _))


def _row(site: Site, number: int) -> Record:
    try:
        return held_rows.show_row(site.api.engine, number)
    except UsageError:
        raise Problem("unknown_row") from None


def release(site: Site, row: str) -> Response:
    return _decide(site, row, "release")


def reject(site: Site, row: str) -> Response:
    return _decide(site, row, "reject")


def _decide(site: Site, row: str, word: str) -> Response:
    """As main.py quarantine does, and then the list of the rows that are left. Raises Problem."""
    number = site.asked(params.RowPath, row=row).row
    _row(site, number)
    writer, note = site.api.writer(), request.form.get("note", "").strip() or None
    who = f"web:{g.role.name.lower()}@{request.remote_addr}"
    given = (writer, [number], who, note, site.clock())
    try:
        if word == "reject":
            done = held_rows.reject_rows(*given)
        else:
            book = request.form.get("without_event") != "true"
            done = held_rows.release_rows(*given, book_proposal=book)
    except UsageError as error:
        raise Problem("not_decided", detail=str(error)) from None
    led_to = {"run": done["metrics_run"]} if done.get("metrics_run") else {}
    return redirect(f"/quality?{urlencode({'decided': number} | led_to)}#decided", 303)
