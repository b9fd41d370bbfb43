"""Records of scheduler.listing as tables in the operator's language."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from scheduler.monitor import UNLIMITED
from scheduler.wording import (
    STYLES,
    WORDS,
    Translate,
    clock_time,
    day,
    duration,
    error_text,
    job_cell,
    number,
    one_line,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from scheduler.listing import Record

Draw = Callable[[Sequence["Record"], Translate], Iterable["RenderableType"]]
TIME = "%Y-%m-%d %H:%M:%S"


def drawn(parts: Iterable[RenderableType]) -> str:
    """Tables as wide as the screen, into a pipe uncut and without colour; plain lines as they are."""
    from rich.console import Console

    width = shutil.get_terminal_size((UNLIMITED, 24)).columns
    screen = sys.stdout.isatty() or None  # None: rich asks the environment
    found = []
    for part in parts:
        if isinstance(part, str):
            found.append(f"{part}\n")
            continue
        page = io.StringIO()
        console = Console(
            file=page, width=width, force_terminal=screen, highlight=False, markup=False, emoji=False
        )
        console.print(part, crop=False)
        lines = page.getvalue().split("\n")
        found.append("\n".join(lines if console.is_terminal else (line.rstrip() for line in lines)))
    return "".join(found)


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    right: Sequence[int] = (),
    wrapped: Sequence[int] = (),
) -> RenderableType:
    """Columns side by side; where the screen is too narrow the last one, and those `wrapped`, take several lines."""
    from rich.table import Table
    from rich.text import Text

    found = Table(
        box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, show_header=any(headers)
    )
    for at, header in enumerate(headers):
        wraps = at == len(headers) - 1 or at in wrapped
        found.add_column(
            Text(header),
            justify="right" if at in right else "left",
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
        )
    for row in rows:
        found.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return found


def _word(status: str | None, _: Translate) -> Text:
    from rich.text import Text

    return Text("-" if status is None else _(WORDS.get(status, status)), style=STYLES.get(status or "", ""))


def jobs(records: Sequence[Record], _: Translate) -> Iterator[RenderableType]:
    if not all(record["daemon_running"] for record in records):
        yield _("no daemon is running")
    headers = [_("job"), _("schedule"), _("next run"), _("last run"), _("for"), _("status"), _("reason")]
    yield table(headers, [_job_row(record, _) for record in records])


def _job_row(record: Record, _: Translate) -> list[str | Text]:
    from rich.text import Text

    schedule = Text(_("in force"))
    if record["paused_since"] is not None:
        paused = _("paused since {time} by {who}")
        who = one_line(record["paused_by"])
        schedule = Text(paused.format(time=clock_time(record["paused_since"]), who=who), style="yellow")
    if record["wrong"] is not None:
        schedule = Text(_("not run"), style="red")
    fire = clock_time(record["next_fire"], "%Y-%m-%d %H:%M")
    name, run = job_cell(record["job"], _, record["name"]), record["last_run"]
    if run is None or record["wrong"] is not None:
        return [name, schedule, fire, "-", "-", _word(None, _), one_line(record["wrong"])]
    return [
        name,
        schedule,
        fire,
        str(run["run"]),
        day(run["business_date"]),
        _word(run["status"], _),
        _why(run, _),
    ]


def plan(records: Sequence[Record], _: Translate) -> Iterator[RenderableType]:
    headers = [_("time"), _("job"), _("for"), _("status"), _("reason")]
    yield table(headers, [_plan_row(record, _) for record in records])


def _plan_row(record: Record, _: Translate) -> list[str | Text]:
    guessed = _(" (not yet confirmed by the exchange)") if record["provisional"] else ""
    return [
        clock_time(record["at"], "%Y-%m-%d %H:%M"),
        job_cell(record["job"], _, record["name"]),
        day(record["business_date"]),
        _word(record["status"], _),
        f"{record['reason'] or ''}{guessed}".strip(),
    ]


def history(records: Sequence[Record], _: Translate) -> Iterator[RenderableType]:
    headers = [_("time"), _("asked by"), _("command"), _("status"), _("answer")]
    yield table(headers, [_command_row(record, _) for record in records])


def _command_row(record: Record, _: Translate) -> list[str | Text]:
    return [
        clock_time(record["requested_at"], TIME),
        one_line(record["requested_by"]),
        _typed(record),
        _word(record["status"], _),
        one_line(record["answer"]),
    ]


def _typed(record: Record) -> str:
    """A command as it could be typed."""
    words = [record["action"]]
    if record["job_id"] is not None:
        words.append(record["job_id"])
    elif record["run_id"] is not None:
        words.append(str(record["run_id"]))
    if record["business_date"] is not None:
        words.append(f"--date {record['business_date']}")
    words += [f"--param {key}={json.dumps(value)}" for key, value in record["params"].items()]
    return one_line(" ".join(words))


def runs(records: Sequence[Record], _: Translate) -> Iterator[RenderableType]:
    headers = [
        _("run"),
        _("job"),
        _("for"),
        _("status"),
        _("started"),
        _("took"),
        _("records"),
        _("asked by"),
        _("reason"),
    ]
    yield table(headers, [_run_row(record, _) for record in records], right=(0, 5, 6))


def _run_row(record: Record, _: Translate) -> list[str | Text]:
    return [
        str(record["run"]),
        job_cell(record["job"], _),
        day(record["business_date"]),
        _word(record["status"], _),
        clock_time(record["started_at"]),
        duration(record["seconds"], _),
        number(record["records"]),
        one_line(record["requested_by"]),
        _why(record, _),
    ]


def _why(record: Record, _: Translate) -> str:
    """Why the run is in its state; of one at work how far it is."""
    return _far(record["progress"]) if record["status"] == "RUNNING" else error_text(record["reason"], _)


def _far(progress: Record) -> str:
    """Such as 45.0 % 900/2000 funds 000123."""
    percent = None if progress["percent"] is None else f"{progress['percent']:g} %"
    figures = None if progress["processed"] is None else str(progress["processed"])
    if figures is not None and progress["total"] is not None:
        figures += f"/{progress['total']}"
    parts = (percent, figures, progress["message"], progress["item"])
    return " ".join(one_line(part) for part in parts if part)


def run(records: Sequence[Record], _: Translate) -> Iterator[RenderableType]:
    for record in records:
        facts = [(name, fact) for name, fact in _facts(record, _) if fact not in ("", "-", None)]
        yield table(["", ""], facts)
        if record["attempts"]:
            yield ""
            headers = [
                _("attempt"),
                _("status"),
                _("started"),
                _("took"),
                _("memory"),
                _("log file"),
                _("reason"),
            ]
            yield table(headers, [_attempt_row(item, _) for item in record["attempts"]], right=(0, 3, 4))
        if record["events"]:
            yield ""
            headers = [_("time"), _("status"), _("reason")]
            yield table(headers, [_event_row(item, _) for item in record["events"]])


def _facts(record: Record, _: Translate) -> list[tuple[str, str | Text]]:
    params = json.dumps(record["params"], ensure_ascii=False) if record["params"] else ""
    asked = record["requested_by"]
    if record["scheduled_for"] is not None:
        asked = f"{asked}, {clock_time(record['scheduled_for'], '%Y-%m-%d %H:%M')}"
    process = f"pid {record['pid']}, {record['host']}" if record["status"] == "RUNNING" else ""
    code = record["exit_code"]
    return [
        (_("run"), str(record["run"])),
        (_("job"), job_cell(record["job"], _)),
        (_("for"), day(record["business_date"])),
        (_("status"), _word(record["status"], _)),
        (_("reason"), error_text(record["reason"], _)),
        (_("asked by"), one_line(asked)),
        (_("to be ended for"), one_line(record["cancelled_by"]) if record["status"] == "RUNNING" else ""),
        (_("task"), one_line(record["task"])),
        (_("parameters"), one_line(params)),
        (_("queued"), clock_time(record["queued_at"], TIME)),
        (_("started"), clock_time(record["started_at"], TIME)),
        (_("finished"), clock_time(record["finished_at"], TIME)),
        (_("took"), duration(record["seconds"], _)),
        (_("next attempt"), clock_time(record["next_attempt_at"], TIME)),
        (_("progress"), _far(record["progress"])),
        (_("records"), number(record["records"])),
        (_("result"), one_line(json.dumps(record["result"], ensure_ascii=False)) if record["result"] else ""),
        (_("process"), one_line(process)),
        (_("exit code"), "" if code is None else str(code)),
        (_("memory"), _memory(record["peak_memory_kb"])),
        (_("log file"), one_line(record["log_file"])),
    ]


def _memory(kilobytes: int | None) -> str:
    return "-" if kilobytes is None else f"{kilobytes / 1024:.0f} MB"


def _attempt_row(item: Record, _: Translate) -> list[str | Text]:
    return [
        str(item["attempt"]),
        _word(item["status"], _),
        clock_time(item["started_at"], TIME),
        duration(item["seconds"], _),
        _memory(item["peak_memory_kb"]),
        one_line(item["log_file"]) or "-",
        error_text(item["reason"], _),
    ]


def _event_row(item: Record, _: Translate) -> list[str | Text]:
    what = _word(item["to_status"], _) if item["kind"] == "state" else item["kind"]
    return [clock_time(item["at"], TIME), what, error_text(item["reason"], _)]


def log(records: Sequence[Record], _: Translate) -> Iterator[RenderableType]:
    for record in records:
        yield from (one_line(line) for line in record["text"].removesuffix("\n").split("\n"))
