"""What operators read of states, reasons, instants and figures, in their language. Pure text, no terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from functools import cache
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
    "ENABLED": "green",
    "DISABLED": "dim",
    "NOT ALLOWED": "dim",
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
    "ENABLED": N_("ENABLED"),
    "DISABLED": N_("DISABLED"),
    "UNKNOWN": N_("UNKNOWN"),
    "NOT ALLOWED": N_("NOT ALLOWED"),
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
    "backup_unusable": N_("backup_unusable"),
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
    "cleanup": N_("cleanup"),
    "backup": N_("backup"),
    "size_watch": N_("size_watch"),
    "monthly": N_("monthly"),
}
# The codes with which the text of a typed error begins (core/errors.py, scheduler/runner.py).
CODES = {
    "already_running": N_("already_running"),
    "backup_unusable": N_("backup_unusable"),
    "bad_result": N_("bad_result"),
    "batch_rejected": N_("batch_rejected"),
    "claim_lost": N_("claim_lost"),
    "cluster_mismatch": N_("cluster_mismatch"),
    "cluster_unavailable": N_("cluster_unavailable"),
    "configuration": N_("configuration"),
    "database_unavailable": N_("database_unavailable"),
    "plugin_disabled": N_("plugin_disabled"),
    "plugin_unavailable": N_("plugin_unavailable"),
    "cache_unavailable": N_("cache_unavailable"),
    "error": N_("error"),
    "event_refused": N_("event_refused"),
    "internal_error": N_("internal_error"),
    "job_changed": N_("job_changed"),
    "job_refused": N_("job_refused"),
    "leadership_lost": N_("leadership_lost"),
    "no_daemon": N_("no_daemon"),
    "not_published": N_("not_published"),
    "not_ready": N_("not_ready"),
    "schema_outdated": N_("schema_outdated"),
    "source_changed": N_("source_changed"),
    "source_refused": N_("source_refused"),
    "source_error": N_("source_error"),
    "source_unavailable": N_("source_unavailable"),
    "store_unavailable": N_("store_unavailable"),
    "tool_missing": N_("tool_missing"),
    "unknown_fund": N_("unknown_fund"),
    "unknown_job": N_("unknown_job"),
    "usage": N_("usage"),
}
# What runs give as their reason without an error: written in English, kept so in the database and in JSON.
SENTENCES = (
    N_("{held} of {total} rows quarantined"),
    N_("{held} of {total} new rows quarantined"),
    N_("rows released from quarantine: {n}"),
    N_("collect is {status}"),
    N_("validate is {status}"),
    N_("there is no run of collect for this date"),
    N_("there is no run of validate for this date"),
    N_("collect was {status}"),
    N_("it is tried again"),
    N_("a sweep tries it again"),
    N_("another sweep of this date is at work"),
    N_("nothing ran at its time, and the job does not catch up further"),
    N_("missed"),
    N_("filled from history"),
    N_("the job is paused"),
    N_("event {number}, {topic}"),
    N_("{date} is not a trading day"),
    N_("cancelled by {who}"),
    N_("asked for again by {who}"),
    N_("{filled} of {missing} missing sessions of {funds} funds filled"),
    N_("{n} funds changed"),
    N_("{n} of {total} funds gave no rows"),
    N_("there was nothing to merge"),
    N_("nothing new"),
    N_("nothing new since batch {id}"),
)
ATTEMPT = re.compile(r"attempt (\d+) was ([A-Z_]+): ")
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
    """A run's reason as one line, its error code and what we say ourselves in the operator's language.

    The detail of an error stays as it is.
    """
    line, before = one_line(text), ""
    if (found := ATTEMPT.match(line)) and found[2] in WORDS:
        before = _("attempt {n} was {status}: ").format(n=found[1], status=_(WORDS[found[2]]))
        line = line[found.end() :]
    code, colon, detail = line.partition(": ")
    if colon and code in CODES:
        return f"{before}{_(CODES[code])}: {detail}"
    return before + "; ".join(_sentence(part, _) for part in line.split("; "))


def _sentence(text: str, _: Translate) -> str:
    """One of SENTENCES in the operator's language, with its figures; another text as it is."""
    for message, pattern in _patterns():
        if found := pattern.fullmatch(text):
            figures = {name: _(WORDS.get(value, value)) for name, value in found.groupdict().items()}
            return _(message).format(**figures)
    return text


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((message, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>\\S+)", message))) for message in SENTENCES)


def job_name(job: str, _: Translate, given: str = "") -> str:
    """`given`: the name that its definition gives it for people."""
    return given or (_(JOBS[job]) if job in JOBS else job)


def job_cell(job: str, _: Translate, given: str = "") -> str:
    """The job in the operator's language, with the name it has in jobs.toml, JSON and logs beside it."""
    name = job_name(job, _, given)
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
