"""What operators read of states, reasons, instants and figures, in their language. Pure text, no terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from config.translation import N_

if TYPE_CHECKING:
    from scheduler.verdict import Reason

Translate = Callable[[str], str]
ERROR_LENGTH = 100  # characters of an error's text where a line should stay readable

STYLES = {
    "OK": "bold green",
    "RUNNING": "bold cyan",
    "LATE": "bold yellow",
    "INCOMPLETE": "bold yellow",
    "STOPPED": "bold yellow",
    "EMPTY": "bold yellow",
    "FAILED": "bold red",
    "SUCCESS": "green",
    "PARTIAL": "yellow",
    "FAILURE": "red",
    "TIMED_OUT": "red",
    "INTERRUPTED": "red",
    "CANCELLED": "yellow",
    "BLOCKED": "red",
    "SKIPPED": "dim",
    "MISSED": "yellow",
    "DONE": "green",
    "REFUSED": "red",
    "HELD": "yellow",
    "RELEASED": "green",
    "UP": "red",  # as everywhere in China
    "DOWN": "green",
}
WORDS = {
    "OK": N_("OK"),
    "RUNNING": N_("RUNNING"),
    "LATE": N_("LATE"),
    "INCOMPLETE": N_("INCOMPLETE"),
    "STOPPED": N_("STOPPED"),
    "EMPTY": N_("EMPTY"),
    "FAILED": N_("FAILED"),
    "SUCCESS": N_("SUCCESS"),
    "PARTIAL": N_("PARTIAL"),
    "FAILURE": N_("FAILURE"),
    "TIMED_OUT": N_("TIMED OUT"),
    "INTERRUPTED": N_("INTERRUPTED"),
    "CANCELLED": N_("CANCELLED"),
    "BLOCKED": N_("BLOCKED"),
    "SKIPPED": N_("SKIPPED"),
    "MISSED": N_("MISSED"),
    "WAITING": N_("WAITING"),
    "QUEUED": N_("QUEUED"),
    "STAGED": N_("STAGED"),
    "MERGED": N_("MERGED"),
    "REJECTED": N_("REJECTED"),
    "SUPERSEDED": N_("SUPERSEDED"),
    "EXPIRED": N_("EXPIRED"),
    "PENDING": N_("PENDING"),
    "DONE": N_("DONE"),
    "REFUSED": N_("REFUSED"),
    "COMPARED": N_("COMPARED"),
    "HELD": N_("HELD"),
    "RELEASED": N_("RELEASED"),
}
# core/fund_category.py
CATEGORIES = {
    "stock": N_("stock"),
    "mixed": N_("mixed"),
    "bond": N_("bond"),
    "index": N_("index"),
    "qdii": N_("QDII"),
    "fof": N_("fund of funds"),
    "money": N_("money market"),
    "reit": N_("REIT"),
    "commodity": N_("commodity"),
    "other": N_("other"),
}
REASONS = {
    "batch_rejected": N_("the batch of {date} was refused by the gate {gate}"),
    "job_failed": N_("{job} for {date} ended {status}: {reason}"),
    "job_blocked": N_("{job} for {date} is {status}: {reason}"),
    "no_data": N_("no NAV is stored yet"),
    "no_calendar": N_("the trading calendar is empty"),
    "calendar_ends": N_("the trading calendar ends on {date}"),
    "daemon_absent": N_("no daemon has run on this database yet"),
    "daemon_stopped": N_("the daemon (pid {pid} on {host}) was stopped"),
    "daemon_gone": N_("the daemon (pid {pid} on {host}) died: its process is gone"),
    "heartbeat_old": N_("the daemon (pid {pid} on {host}) has given no sign of life for {age}"),
    "behind": N_("{table} reaches {newest}, expected {expected}: {sessions} trading day(s) behind"),
    "not_calculated": N_("{table} is empty: no metrics were calculated yet"),
    "thin": N_("{table} has only {rows} funds for {date}, {previous_rows} on the trading day before"),
    "gap": N_("{table} has nothing for {date}, but for the trading days around it"),
    "partial": N_("{job} for {date} was only partial: {reason}"),
    "quarantined": N_("{held} of {rows} rows of the batch of {date} failed the rules"),
    "job_running": N_("{job} for {date} has been running for {seconds}"),
    "fresh": N_("NAVs reach {date}, {rows} funds"),
}
# The jobs of config/jobs.toml and of the command line; one that an operator adds keeps its own name.
JOBS = {
    "collect": N_("collect"),
    "validate": N_("validate"),
    "metrics": N_("metrics"),
    "sweep": N_("sweep"),
    "sweep_morning": N_("sweep_morning"),
    "reference": N_("reference"),
    "weekly": N_("weekly"),
    "backfill": N_("backfill"),
    "repair": N_("repair"),
}
# The codes with which the text of a typed error begins (core/errors.py, scheduler/runner.py).
CODES = {
    "already_running": N_("already_running"),
    "batch_rejected": N_("batch_rejected"),
    "claim_lost": N_("claim_lost"),
    "cluster_mismatch": N_("cluster_mismatch"),
    "cluster_unavailable": N_("cluster_unavailable"),
    "configuration": N_("configuration"),
    "database_unavailable": N_("database_unavailable"),
    "cache_unavailable": N_("cache_unavailable"),
    "error": N_("error"),
    "internal_error": N_("internal_error"),
    "leadership_lost": N_("leadership_lost"),
    "no_daemon": N_("no_daemon"),
    "not_published": N_("not_published"),
    "not_ready": N_("not_ready"),
    "schema_outdated": N_("schema_outdated"),
    "source_changed": N_("source_changed"),
    "source_refused": N_("source_refused"),
    "source_error": N_("source_error"),
    "source_unavailable": N_("source_unavailable"),
    "unknown_fund": N_("unknown_fund"),
    "usage": N_("usage"),
}
ATTEMPT = re.compile(r"(attempt \d+ was [A-Z_]+: )?(\w+)(?=: )")
REPEATED_ADDRESS = re.compile(r"(\bhttps?://\S+)(?: \1(?!\S))+")
NESTED_BRACKETS = re.compile(r"\(([^()]+) \(([^()]*)\)\)")


def say(reason: Reason, _: Translate, limit: int | None = None) -> str:
    """A reason as a sentence in the operator's language; an error's text cut to `limit` characters."""
    figures = {name: _figure(name, value, _) for name, value in reason.figures.items()}
    if limit is not None and "reason" in figures:
        figures["reason"] = cut(figures["reason"], limit)
    return _(REASONS[reason.code]).format(**figures)


def _figure(name: str, value: Any, _: Translate) -> str:
    if value is None:
        return "-"
    if name in ("age", "seconds"):
        return duration(value, _)
    if name == "status":
        return _(WORDS[value])
    if name == "job":
        return job_name(value, _)
    if name == "reason":
        return error_text(value, _)
    if isinstance(value, int) and name != "pid":
        return f"{value:,}"
    return one_line(str(value))


def one_line(text: str | None) -> str:
    """A text from elsewhere as one line that cannot steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text or "")


def cut(text: str, limit: int) -> str:
    """At most `limit` characters; an ellipsis stands for what was cut."""
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def error_text(text: str | None, _: Translate) -> str:
    """A run's reason as one line, its error code in the operator's language; the detail stays as it is."""
    line = one_line(text)
    found = ATTEMPT.match(line)
    if found is None or found[2] not in CODES:
        return line
    return f"{found[1] or ''}{_(CODES[found[2]])}{line[found.end() :]}"


def job_name(job: str, _: Translate) -> str:
    return _(JOBS[job]) if job in JOBS else job


def job_cell(job: str, _: Translate) -> str:
    """The job in the operator's language, with the name it has in jobs.toml, JSON and logs beside it."""
    name = job_name(job, _)
    return job if name == job else f"{name} {job}"


def place(provenance: str) -> str:
    """Where rows came from: an address said twice in a row once, and no brackets within brackets."""
    text = REPEATED_ADDRESS.sub(r"\1", one_line(provenance))
    return NESTED_BRACKETS.sub(r"(\1, \2)", text)


def duration(seconds: float | None, _: Translate) -> str:
    """Two units at most: 45 s, 12 min, 20 h 50 min, 3 d 4 h."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return _("{n} s").format(n=whole if whole >= 10 or seconds == whole else round(seconds, 1))
    minutes = whole // 60
    if minutes < 60:
        return _("{n} min").format(n=minutes)
    if minutes < 48 * 60:
        return _("{h} h {n} min").format(h=minutes // 60, n=minutes % 60)
    return _("{d} d {h} h").format(d=minutes // 1440, h=minutes % 1440 // 60)


def clock_time(instant: datetime | None, form: str = "%m-%d %H:%M") -> str:
    from core.trading_calendar import SHANGHAI

    return "-" if instant is None else instant.astimezone(SHANGHAI).strftime(form)


def day(value: date | None) -> str:
    return "-" if value is None else value.isoformat()


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
