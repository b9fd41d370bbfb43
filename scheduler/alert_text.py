"""Alerts in words: what, since when, how many funds, expected and actual, last success, what to type, which run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from config.translation import N_
from scheduler.alert_rules import FAILED, LATE, PARTIAL, SILENT
from scheduler.alert_store import OPENED, OVER, RECOVERED, REPEATED
from scheduler.verdict import ACTIONS
from scheduler.wording import (
    WORDS,
    Translate,
    clock_time,
    cut,
    duration,
    error_text,
    job_name,
    number,
    one_line,
)

SHOWN = 10  # alerts of one message that are told in full
REASON = 200
TIME = "%Y-%m-%d %H:%M"
HEADLINES = {
    "failed": N_("{job} for {date} ended {status}"),
    "partial": N_("{job} for {date} was only partial"),
    "silent": N_("{job} for {date} has said nothing for {minutes} minutes"),
    "late": N_("the night of {date} is not done"),
    "absent": N_("no daemon was there for {duration}"),
    "calendar": N_("the exchange's calendar is known only until {until}"),
    "disk": N_("the disk is nearly full: {free} GB left at {folder}"),
    "plugin": N_("plugin {plugin} cannot be used"),
    "database": N_("the database cannot be reached"),
    "test": N_("a test: nothing is the matter"),
}
NOTICES = {
    OPENED: N_("ALERT"),
    REPEATED: N_("STILL"),
    RECOVERED: N_("RECOVERED"),
    OVER: N_("PASSED"),
}


@dataclass(frozen=True)
class Told:
    """One alert as it is to be told."""

    notice: str
    kind: str
    opened_at: datetime
    figures: Mapping[str, Any]
    job_id: str | None = None
    task: str | None = None
    business_date: str | None = None
    run_id: int | None = None
    recovered_at: datetime | None = None

    @classmethod
    def of(cls, row: Any, notice: str) -> Told:
        day = row.business_date and row.business_date.isoformat()
        figures = json.loads(row.figures)
        at = (row.opened_at, figures, row.job_id, row.task, day, row.run_id, row.recovered_at)
        return cls(notice, row.kind, *at)


@dataclass(frozen=True)
class Message:
    """A title of one line and the text below it, plain."""

    title: str
    text: str


def message(told: Sequence[Told], _: Translate, now: datetime) -> Message:
    """One message of everything; of many alerts the first ones in full, the others counted."""
    parts = ["\n".join(_paragraph(item, _, now)) for item in told[:SHOWN]]
    if len(told) > SHOWN:
        more = _("and {n} more: python main.py alert list")
        parts.append(more.format(n=len(told) - SHOWN))
    first = told[0]
    title = f"NavKeeper {_(NOTICES[first.notice])}: {headline(first, _)}"
    if len(told) > 1:
        title += _(" (and {n} more)").format(n=len(told) - 1)
    return Message(cut(title, 120), "\n\n".join(parts))


def headline(item: Told, _: Translate) -> str:
    """What is the matter, in one line."""
    figures = dict(item.figures)
    figures["job"] = job_name(item.job_id, _) if item.job_id else "-"
    figures["date"] = item.business_date or "-"
    figures["status"] = _(WORDS.get(str(figures.get("status")), str(figures.get("status"))))
    figures["duration"] = duration(figures.get("seconds"), _)
    figures["minutes"] = f"{figures.get('minutes', 0):g}"
    figures["free"] = f"{figures.get('free', 0) / 1e9:.1f}"
    return one_line(_(HEADLINES[item.kind]).format(**figures))


def _paragraph(item: Told, _: Translate, now: datetime) -> list[str]:
    figures = item.figures
    lines = [f"[{_(NOTICES[item.notice])}] {headline(item, _)}"]
    lines.append(_("since: {time}").format(time=clock_time(item.opened_at, TIME)))
    if item.notice in (RECOVERED, OVER) and item.recovered_at is not None:
        took = duration((item.recovered_at - item.opened_at).total_seconds(), _)
        over = _("over at: {time}, after {duration}")
        lines.append(over.format(time=clock_time(item.recovered_at, TIME), duration=took))
        return [*lines, *_run_line(item, _)]
    if item.notice == REPEATED:
        lines[-1] += _(", for {duration}").format(
            duration=duration((now - item.opened_at).total_seconds(), _)
        )
    for job, status in figures.get("steps", []):
        state = _(WORDS[status]) if status else _("no run")
        lines.append(f"{job_name(job, _)}: {state}")
    if figures.get("reason"):
        lines.append(_("why: {reason}").format(reason=cut(error_text(figures["reason"], _), REASON)))
    if figures.get("records") is not None:
        funds = _("funds: {records}, expected about {expected}")
        lines.append(
            funds.format(records=number(figures["records"]), expected=number(figures.get("expected")))
        )
    if figures.get("last_success"):
        last = _("last success: {time}, for {date}")
        when = datetime.fromisoformat(figures["last_success"])
        lines.append(last.format(time=clock_time(when, TIME), date=figures["last_date"]))
    lines.append(_("type: {command}").format(command=command(item)))
    return [*lines, *_run_line(item, _)]


def _run_line(item: Told, _: Translate) -> list[str]:
    return [_("run: {id}").format(id=item.run_id)] if item.run_id is not None else []


def command(item: Told) -> str:
    """What to type, as it stands."""
    main = "python main.py"
    if item.kind == FAILED and item.run_id is not None and item.figures.get("status") in RETRIED:
        return f"{main} runs retry {item.run_id}"
    if item.kind in (FAILED, PARTIAL):
        action = ACTIONS.get(item.task or "")
        return (
            f"{main} {action} --date {item.business_date}"
            if action
            else f"{main} jobs trigger {item.job_id} --date {item.business_date}"
        )
    if item.kind == SILENT:
        return f"{main} runs log {item.run_id}"
    if item.kind == LATE:
        return f"{main} all --date {item.business_date}"
    return {
        "calendar": "pip install --upgrade exchange-calendars && python main.py init",
        "test": f"{main} alert list",
        "absent": f"{main} monitor",
        "plugin": f"{main} plugins check",
    }.get(item.kind, f"{main} doctor")


RETRIED = ("FAILED", "TIMED_OUT", "INTERRUPTED", "CANCELLED")
