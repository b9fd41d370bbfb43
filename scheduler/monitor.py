"""The dashboard on a terminal: `python scheduler/monitor.py`, or `python main.py monitor`.

Only symbols that a GBK console has, and none whose width differs between consoles.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if __name__ == "__main__":  # started as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.translation import N_, translator

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
    from sqlalchemy import Engine

    from scheduler.clock import Clock
    from scheduler.job import Job
    from scheduler.overview import Overview
    from scheduler.verdict import Freshness, Reason, RunLine

Translate = Callable[[str], str]
REFRESH_SECONDS = 2.0
UNLIMITED = 10_000  # the width of a pipe: nothing is cut
RUNS_ON_SCREEN = 8
GUTTER = 2  # columns of space between two columns of a table
NARROWEST = 8  # a text cut shorter says nothing

STYLES = {
    "OK": "bold green",
    "RUNNING": "bold cyan",
    "LATE": "bold yellow",
    "STOPPED": "bold yellow",
    "EMPTY": "bold yellow",
    "FAILED": "bold red",
    "SUCCESS": "green",
    "PARTIAL": "yellow",
    "FAILURE": "red",
    "TIMED_OUT": "red",
    "INTERRUPTED": "red",
    "BLOCKED": "red",
    "SKIPPED": "dim",
}
WORDS = {
    "OK": N_("OK"),
    "RUNNING": N_("RUNNING"),
    "LATE": N_("LATE"),
    "STOPPED": N_("STOPPED"),
    "EMPTY": N_("EMPTY"),
    "FAILED": N_("FAILED"),
    "SUCCESS": N_("SUCCESS"),
    "PARTIAL": N_("PARTIAL"),
    "FAILURE": N_("FAILURE"),
    "TIMED_OUT": N_("TIMED OUT"),
    "INTERRUPTED": N_("INTERRUPTED"),
    "BLOCKED": N_("BLOCKED"),
    "SKIPPED": N_("SKIPPED"),
    "WAITING": N_("WAITING"),
    "QUEUED": N_("QUEUED"),
    "STAGED": N_("STAGED"),
    "MERGED": N_("MERGED"),
    "REJECTED": N_("REJECTED"),
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
    "heartbeat_old": N_("the daemon (pid {pid} on {host}) has given no sign of life for {age}"),
    "behind": N_("{table} reaches {newest}, expected {expected}: {sessions} trading day(s) behind"),
    "not_calculated": N_("{table} is empty: no metrics were calculated yet"),
    "thin": N_("{table} has only {rows} funds for {date}, {previous_rows} on the trading day before"),
    "gap": N_("{table} has nothing for {date}, but for the trading days around it"),
    "job_running": N_("{job} for {date} has been running for {seconds}"),
    "fresh": N_("NAVs reach {date}, {rows} funds"),
}


class _Column(NamedTuple):
    """A column of a section, left out on screens narrower than `from_width`."""

    header: str
    from_width: int = 0
    right: bool = False
    cut: bool = False


class JobMonitor:
    """The dashboard of one database in one language ("zh" or "en")."""

    def __init__(self, engine: Engine, jobs: Mapping[str, Job], clock: Clock, language: str = "zh") -> None:
        self.engine = engine
        self.jobs = jobs
        self.clock = clock
        self.translate = translator(language)

    def overview(self) -> Overview:
        """The present state. Raises DatabaseUnavailable, SchemaOutdated."""
        from scheduler.overview import collect_overview

        return collect_overview(self.engine, self.jobs, self.clock())

    def render(self, overview: Overview, width: int, runs: int | None = None) -> RenderableType:
        """The whole dashboard for a screen of `width` columns, with at most `runs` of the last 24 hours."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [
            *_headline(overview, self.translate),
            Text(),
            *_freshness(overview, self.translate, width),
            Text(),
            *_chain(overview, self.translate, width),
            Text(),
            *_recent(overview, self.translate, width, runs),
            Text(),
            *_jobs(overview, self.translate, width),
            Text(),
            *_origin(overview, self.translate),
        ]
        return Group(*parts)

    def show(self) -> None:
        """Print it once on stdout: as wide as the screen, or uncut and without colour into a pipe."""
        width = shutil.get_terminal_size((UNLIMITED, 24)).columns  # COLUMNS, or the terminal's, or a pipe
        runs = None if width == UNLIMITED else RUNS_ON_SCREEN
        _console(width).print(self.render(self.overview(), width, runs))

    def watch(self, console: Console) -> None:
        """Refresh until interrupted. A database that goes away is shown as such until it is back."""
        from rich.live import Live
        from rich.text import Text

        from core.errors import NavKeeperError

        shown = self.render(self.overview(), console.width, RUNS_ON_SCREEN)
        with Live(shown, console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(shown, refresh=True)
                time.sleep(REFRESH_SECONDS)
                try:
                    shown = self.render(self.overview(), console.width, RUNS_ON_SCREEN)
                except NavKeeperError as error:
                    shown = Text(f"{error.code}: {error}", style="bold red")


def _say(reason: Reason, _: Translate) -> str:
    """A reason as a sentence in the operator's language."""
    figures = {name: _figure(name, value, _) for name, value in reason.figures.items()}
    return _(REASONS[reason.code]).format(**figures)


def _figure(name: str, value: Any, _: Translate) -> str:
    if value is None:
        return "-"
    if name in ("age", "seconds"):
        return _duration(value, _)
    if name == "status":
        return _(WORDS[value])
    if isinstance(value, int) and name != "pid":
        return f"{value:,}"
    return _line(str(value))


def _line(text: str | None) -> str:
    """A text from elsewhere as one line that cannot steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in text or "")


def _duration(seconds: float | None, _: Translate) -> str:
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


def _clock_time(instant: datetime | None, form: str = "%m-%d %H:%M") -> str:
    from core.trading_calendar import SHANGHAI

    return "-" if instant is None else instant.astimezone(SHANGHAI).strftime(form)


def _day(day: date | None) -> str:
    return "-" if day is None else day.isoformat()


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _word(status: str | None, _: Translate) -> Text:
    from rich.text import Text

    return Text("-" if status is None else _(WORDS.get(status, status)), style=STYLES.get(status or "", ""))


def verdict_line(overview: Overview, _: Translate) -> Text:
    """The first line of the dashboard: one word, and why."""
    from rich.text import Text

    line = _word(overview.verdict.state, _) + Text(f"  {_say(overview.verdict.reasons[0], _)}", style="bold")
    if overview.simulated:
        line += Text("  ") + Text(_("[SIMULATED data]"), style="bold magenta")
    return line


def _headline(overview: Overview, _: Translate) -> Iterator[RenderableType]:
    from rich.text import Text

    _worst, *others = overview.verdict.reasons
    yield verdict_line(overview, _)
    for reason in others:
        yield Text("  ") + _word(reason.state, _) + Text(f"  {_say(reason, _)}")
    heart = overview.daemon
    if heart.running:
        alive = _("daemon pid {pid} on {host}, heartbeat {age} ago")
        about = alive.format(pid=heart.pid, host=heart.host, age=_duration(heart.heartbeat_age_seconds, _))
    else:
        about = _("no daemon is running")
    now = _clock_time(overview.now, "%Y-%m-%d %H:%M:%S")
    yield Text(_("{time} in Shanghai, {about}").format(time=now, about=about), style="dim")
    yield Text(_("Type next: ")) + Text(overview.next_command, style="bold")


def _section(
    title: str, columns: Sequence[_Column], rows: Sequence[Sequence[str | Text]], width: int
) -> Iterator[RenderableType]:
    """A titled table. The columns to cut share out what the others, always whole, leave of `width`."""
    from rich.table import Table
    from rich.text import Text

    yield Text(title, style="bold")
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    shown = [at for at, column in enumerate(columns) if width >= column.from_width]
    need = {
        at: max([Text(columns[at].header).cell_len, *(row[at].cell_len for row in cells)]) for at in shown
    }
    left = width - sum(need[at] + GUTTER for at in shown if not columns[at].cut)
    table = Table(box=None, padding=(0, GUTTER, 0, 0), header_style="dim", pad_edge=False)
    for at in list(shown):
        column = columns[at]
        if column.cut and left < NARROWEST:
            shown.remove(at)
            continue
        table.add_column(
            Text(column.header),
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=min(left, need[at]) if column.cut else need[at],
        )
    for row in cells:
        table.add_row(*(row[at] for at in shown))
    yield table


def _freshness(overview: Overview, _: Translate, width: int) -> Iterator[RenderableType]:
    columns = [
        _Column(_("table")),
        _Column(_("newest")),
        _Column(_("days behind"), right=True),
        _Column(_("funds"), right=True),
        _Column(_("of the day before"), 70, right=True),
        _Column(_("last written"), 90),
        _Column(_("what failed"), 110, cut=True),
    ]
    title = _("Freshness, expected {date}").format(date=_day(overview.expected_date))
    if overview.expected_is_provisional:
        title += _(" (not yet confirmed by the exchange)")
    yield from _section(title, columns, [_table_row(item, _) for item in overview.freshness], width)


def _table_row(item: Freshness, _: Translate) -> list[str | Text]:
    from rich.text import Text

    behind = Text(_number(item.sessions_behind), style="bold yellow" if item.sessions_behind else "")
    written: str | Text = "-"
    failed = ""
    if item.last_update is not None:
        written = Text(f"{_clock_time(item.last_update.end_time)} ") + _word(item.last_update.status, _)
        failed = _line(item.last_update.error)
    name = _("staging (last night)") if item.table == "tmp_fund_nav" else item.table
    return [
        name,
        _day(item.newest_date),
        behind,
        _number(item.rows),
        _percent(item.coverage),
        written,
        failed,
    ]


def _chain(overview: Overview, _: Translate, width: int) -> Iterator[RenderableType]:
    rows = [[step.job, *_run_cells(step.run, _)] for step in overview.chain]
    columns = [_Column(_("job")), *_run_columns(_)]
    yield from _section(_("The night of {date}").format(date=_day(overview.chain_date)), columns, rows, width)


def _recent(overview: Overview, _: Translate, width: int, limit: int | None) -> Iterator[RenderableType]:
    from rich.text import Text

    runs = overview.runs_24h[:limit]
    if not runs:
        yield Text(_("Last 24 hours: no runs"), style="bold")
        return
    rows = [[run.job, _day(run.business_date), *_run_cells(run, _)] for run in runs]
    columns = [_Column(_("job")), _Column(_("for")), *_run_columns(_)]
    title = _("Last 24 hours: {n} runs").format(n=len(overview.runs_24h))
    if len(runs) < len(overview.runs_24h):
        title += _(", the newest {n}").format(n=len(runs))
    yield from _section(title, columns, rows, width)


def _run_columns(_: Translate) -> list[_Column]:
    return [
        _Column(_("status")),
        _Column(_("started")),
        _Column(_("took"), right=True),
        _Column(_("records"), 70, right=True),
        _Column(_("reason"), 80, cut=True),
    ]


def _run_cells(run: RunLine | None, _: Translate) -> list[str | Text]:
    if run is None:
        return [_word(None, _), "-", "-", "-", ""]
    return [
        _word(run.status, _),
        _clock_time(run.started_at),
        _duration(run.seconds, _),
        _number(run.records),
        _line(run.reason),
    ]


def _jobs(overview: Overview, _: Translate, width: int) -> Iterator[RenderableType]:
    coming = {run.job: run for run in overview.next_runs}
    columns = [
        _Column(_("job")),
        _Column(_("7 days"), right=True),
        _Column(_("succeeded"), 70, right=True),
        _Column(_("next run")),
        _Column(_("in"), right=True),
    ]
    rows = []
    for rate in overview.success_7d:
        run = coming.get(rate.job)
        rows.append(
            [
                rate.job,
                _percent(rate.rate),
                f"{rate.succeeded}/{rate.finished}",
                _clock_time(run.at if run else None, "%Y-%m-%d %H:%M"),
                _duration(run.in_seconds, _) if run else "-",
            ]
        )
    yield from _section(_("Jobs"), columns, rows, width)


def _origin(overview: Overview, _: Translate) -> Iterator[RenderableType]:
    from rich.text import Text

    batch = overview.last_batch
    if batch is not None:
        text = _("Last batch: no. {id}, {rows} rows, {status}, collected {time}, from {where}")
        figures = {"rows": _number(batch.rows), "status": _(WORDS.get(batch.status, batch.status))}
        figures |= {"time": _clock_time(batch.collected_at), "where": _line(batch.provenance)}
        yield Text(text.format(id=batch.id, **figures))
    held = overview.quarantine
    text = _("Quarantine: {total} rows, {new} of them from the last batch")
    yield Text(text.format(total=_number(held.total), new=_number(held.new_in_last_batch)))
    gate = overview.last_failed_gate
    if gate is not None:
        text = _("Last refusal: batch {id} for {date}, gate {rule}, {failed} of {checked}")
        figures = {"failed": _number(gate.failed), "checked": _number(gate.checked)}
        yield Text(text.format(id=gate.batch_id, date=_day(gate.business_date), rule=gate.rule, **figures))


def _console(width: int | None = None) -> Console:
    from rich.console import Console

    return Console(width=width, highlight=False, markup=False, emoji=False)


def _readable(language: str) -> str:
    """`language`, or English where the console cannot show Chinese at all."""
    try:
        "净值".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "en"
    return language


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "monitor", description="The dashboard: how fresh the data are and what ran."
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--watch", action="store_true", help="refresh every 2 seconds until Ctrl-C")
    form.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--lang", choices=("zh", "en"), help="language (default: NAVKEEPER_LANGUAGE, else zh)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 without a usable database; 2 usage; 78 wrong configuration."""
    options = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    from core.errors import ConfigurationError, NavKeeperError

    try:
        return _run(options)
    except NavKeeperError as error:
        print(f"monitor: {error}", file=sys.stderr)
        return 78 if isinstance(error, ConfigurationError) else 1


def _run(options: argparse.Namespace) -> int:
    from config.settings import ROOT, load_settings
    from scheduler.clock import clock_from
    from scheduler.jobs_file import load_jobs
    from scheduler.overview import observer_engine

    settings = load_settings()
    jobs = load_jobs(ROOT / "config" / "jobs.toml")
    engine = observer_engine(settings.database_url())
    monitor = JobMonitor(engine, jobs, clock_from(settings), _readable(options.lang or settings.language))
    if options.json:
        print(json.dumps(monitor.overview().as_json(), indent=2))  # ASCII: safe on every console
    elif options.watch and sys.stdout.isatty():
        try:
            monitor.watch(_console())
        except KeyboardInterrupt:
            return 0
    elif options.watch:
        return _print_for_ever(monitor)
    else:
        monitor.show()
    return 0


def _print_for_ever(monitor: JobMonitor) -> int:
    """--watch into a pipe: one dashboard after the other."""
    try:
        while True:
            monitor.show()
            print(flush=True)
            time.sleep(REFRESH_SECONDS)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
