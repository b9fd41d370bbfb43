"""The dashboard on a terminal: `python scheduler/monitor.py`, or `python main.py monitor`.

Only symbols that a GBK console has, and none whose width differs between consoles.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if __name__ == "__main__":  # started as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.translation import translator
from core.errors import NavKeeperError
from scheduler.exit_codes import FAILED, OK, STOPPED, exit_code
from scheduler.wording import (
    ERROR_LENGTH,
    STYLES,
    WORDS,
    Translate,
    clock_time,
    cut,
    day,
    duration,
    error_text,
    job_cell,
    number,
    percent,
    place,
    say,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
    from sqlalchemy import Engine

    from config.settings import Settings
    from scheduler.clock import Clock
    from scheduler.job import Job
    from scheduler.overview import Overview
    from scheduler.verdict import Freshness, RunLine

REFRESH_SECONDS = 2.0
UNLIMITED = 10_000  # the width of a pipe: nothing is cut but long error texts
RUNS_ON_SCREEN = 8
GUTTER = 2  # columns of space between two columns of a table
NARROWEST = 8  # a text cut shorter says nothing


class _Column(NamedTuple):
    """A column of a section, left out on screens narrower than `from_width`."""

    header: str
    from_width: int = 0
    right: bool = False
    cut: bool = False


class JobMonitor:
    """The dashboard of one database in one language ("zh" or "en").

    `home` is the folder to name in the command it proposes: None where that command finds it by itself.
    """

    def __init__(
        self,
        engine: Engine,
        jobs: Mapping[str, Job],
        clock: Clock,
        language: str = "zh",
        home: Path | None = None,
    ) -> None:
        self.engine = engine
        self.jobs = jobs
        self.clock = clock
        self.translate = translator(language)
        self.home = home

    def overview(self) -> Overview:
        """The present state. Raises DatabaseUnavailable, SchemaOutdated."""
        from scheduler.jobs import Jobs
        from scheduler.overview import collect_overview

        if isinstance(self.jobs, Jobs):
            self.jobs.refresh(self.engine)
        return collect_overview(self.engine, self.jobs, self.clock())

    def render(self, overview: Overview, width: int, runs: int | None = None) -> RenderableType:
        """The whole dashboard for a screen of `width` columns, with at most `runs` of the last 24 hours."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [
            *_headline(overview, self.translate, width),
            *_proposal(overview, self.translate, width, self.home),
            *_alerts(overview, self.translate, width),
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
        """Print it once on stdout: as wide as the screen, or without colour and uncut into a pipe.

        Raises OSError where stdout is full or closed.
        """
        width = shutil.get_terminal_size((UNLIMITED, 24)).columns  # COLUMNS, or the terminal's, or a pipe
        runs = None if width == UNLIMITED else RUNS_ON_SCREEN
        console = _console(width)
        with console.capture() as captured:
            console.print(self.render(self.overview(), width, runs), crop=False)
        text = captured.get()
        if not console.is_terminal:
            text = "\n".join(line.rstrip() for line in text.split("\n"))
        _write(text)

    def watch(self, console: Console) -> None:
        """Refresh until interrupted. A database that goes away is shown as such until it is back."""
        from rich.live import Live
        from rich.text import Text

        shown = self.render(self.overview(), console.width, RUNS_ON_SCREEN)
        with Live(shown, console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(shown, refresh=True)
                time.sleep(REFRESH_SECONDS)
                try:
                    shown = self.render(self.overview(), console.width, RUNS_ON_SCREEN)
                except NavKeeperError as error:
                    shown = Text(f"{error.code}: {error}", style="bold red")


def _word(status: str | None, _: Translate) -> Text:
    from rich.text import Text

    return Text("-" if status is None else _(WORDS.get(status, status)), style=STYLES.get(status or "", ""))


def verdict_line(overview: Overview, _: Translate, limit: int | None = ERROR_LENGTH) -> Text:
    """The first line of the dashboard: one word, and why, an error's text cut to `limit` characters."""
    from rich.text import Text

    reason = say(overview.verdict.reasons[0], _, limit)
    line = _word(overview.verdict.state, _) + Text(f"  {reason}", style="bold")
    if overview.simulated:
        line += Text("  ") + Text(_("[SIMULATED data]"), style="bold magenta")
    return line


def _headline(overview: Overview, _: Translate, width: int) -> Iterator[RenderableType]:
    from rich.text import Text

    limit = ERROR_LENGTH if width == UNLIMITED else None  # on a screen a long text takes several lines
    yield verdict_line(overview, _, limit)
    for reason in overview.verdict.reasons[1:]:
        yield Text("  ") + _word(reason.state, _) + Text(f"  {say(reason, _, limit)}")
    heart = overview.daemon
    if heart.running:
        alive = _("daemon pid {pid} on {host}, heartbeat {age} ago")
        about = alive.format(pid=heart.pid, host=heart.host, age=duration(heart.heartbeat_age_seconds, _))
    else:
        about = _("no daemon is running")
    now = clock_time(overview.now, "%Y-%m-%d %H:%M:%S")
    yield Text(_("{time} in Shanghai, {about}").format(time=now, about=about), style="dim")


def _proposal(overview: Overview, _: Translate, width: int, home: Path | None) -> Iterator[RenderableType]:
    """The command to type next, on lines that a shell reads as one where it is too long for the screen."""
    from rich.text import Text

    label, command = Text(_("Type next: ")), Text(overview.next_command, style="bold")
    if home is None:
        yield label + command
        return
    setting = Text(f"NAVKEEPER_HOME={shlex.quote(str(home))}", style="bold")
    line = label + setting + Text(" ") + command
    if line.cell_len <= width:
        yield line
    else:
        yield label
        setting.no_wrap, setting.overflow = True, "ignore"  # the terminal may wrap it, a line break may not
        yield setting + Text(" \\", style="bold")
        yield command


def _section(
    title: str, columns: Sequence[_Column], rows: Sequence[Sequence[str | Text]], width: int
) -> Iterator[RenderableType]:
    """A titled table. The columns to cut share out what the others, always whole, leave of `width`."""
    from rich.table import Table
    from rich.text import Text

    yield Text(title, style="bold")
    longest = ERROR_LENGTH if width == UNLIMITED else width
    cells = [[Text(cut(cell, longest)) if isinstance(cell, str) else cell for cell in row] for row in rows]
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


def _alerts(overview: Overview, _: Translate, width: int) -> Iterator[RenderableType]:
    """What is the matter, if anything is."""
    from rich.text import Text

    from scheduler.alert_listing import summary

    if not overview.alerts:
        return
    columns = [
        _Column("ID", right=True),
        _Column(_("since")),
        _Column(_("for so long"), 70, right=True),
        _Column(_("silenced until"), 90),
        _Column(_("what"), cut=True),
    ]
    rows = [
        [
            str(record["alert"]),
            clock_time(record["opened_at"]),
            duration(record["seconds"], _),
            clock_time(record["silenced_until"]) if record["state"] == "SILENCED" else "-",
            summary(record, _),
        ]
        for record in overview.alerts
    ]
    yield Text()
    yield from _section(_("Open alerts"), columns, rows, width)


def _freshness(overview: Overview, _: Translate, width: int) -> Iterator[RenderableType]:
    columns = [
        _Column(_("table")),
        _Column(_("newest")),
        _Column(_("days behind"), right=True),
        _Column(_("funds"), right=True),
        _Column(_("of the day before"), 70, right=True),
        _Column(_("last written"), 90),
        _Column(_("reason"), 110, cut=True),
    ]
    title = _("Freshness, expected {date}").format(date=day(overview.expected_date))
    if overview.expected_is_provisional:
        title += _(" (not yet confirmed by the exchange)")
    yield from _section(title, columns, [_table_row(item, _) for item in overview.freshness], width)


def _table_row(item: Freshness, _: Translate) -> list[str | Text]:
    from rich.text import Text

    behind = Text(number(item.sessions_behind), style="bold yellow" if item.sessions_behind else "")
    written: str | Text = "-"
    failed = ""
    if item.last_update is not None:
        written = Text(f"{clock_time(item.last_update.end_time)} ") + _word(item.last_update.status, _)
        failed = error_text(item.last_update.error, _)
    name = _("staging (last night)") if item.table == "tmp_fund_nav" else item.table
    return [
        name,
        day(item.newest_date),
        behind,
        number(item.rows),
        percent(item.coverage),
        written,
        failed,
    ]


def _chain(overview: Overview, _: Translate, width: int) -> Iterator[RenderableType]:
    rows = [[job_cell(step.job, _), *_run_cells(step.run, _)] for step in overview.chain]
    columns = [_Column(_("job")), *_run_columns(_)]
    yield from _section(_("The night of {date}").format(date=day(overview.chain_date)), columns, rows, width)


def _recent(overview: Overview, _: Translate, width: int, limit: int | None) -> Iterator[RenderableType]:
    from rich.text import Text

    runs = overview.runs_24h[:limit]
    if not runs:
        yield Text(_("Last 24 hours: no runs"), style="bold")
        return
    rows = [[job_cell(run.job, _), day(run.business_date), *_run_cells(run, _)] for run in runs]
    columns = [_Column(_("job")), _Column(_("for")), *_run_columns(_)]
    known = len(overview.runs_24h)
    title = _("Last 24 hours: 1 run") if known == 1 else _("Last 24 hours: {n} runs").format(n=known)
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
        clock_time(run.started_at),
        duration(run.seconds, _),
        number(run.records),
        error_text(run.reason, _),
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
                job_cell(rate.job, _),
                percent(rate.rate),
                f"{rate.succeeded}/{rate.finished}",
                clock_time(run.at if run else None, "%Y-%m-%d %H:%M"),
                duration(run.in_seconds, _) if run else "-",
            ]
        )
    yield from _section(_("Jobs"), columns, rows, width)


def _origin(overview: Overview, _: Translate) -> Iterator[RenderableType]:
    from rich.text import Text

    batch = overview.last_batch
    if batch is not None:
        text = _("Last batch: no. {id}, {rows} rows, {status}, collected {time}, from {where}")
        figures = {"rows": number(batch.rows), "status": _(WORDS.get(batch.status, batch.status))}
        figures |= {"time": clock_time(batch.collected_at), "where": place(batch.provenance)}
        yield Text(text.format(id=batch.id, **figures))
    held = overview.quarantine
    text = _("Rows in quarantine: {total}; failed in the last batch: {new}")
    yield Text(text.format(total=number(held.total), new=number(held.new_in_last_batch)))
    gate = overview.last_failed_gate
    if gate is not None:
        text = _("Last refusal: batch {id} for {date}, gate {rule}, {failed} of {checked}")
        figures = {"failed": number(gate.failed), "checked": number(gate.checked)}
        yield Text(text.format(id=gate.batch_id, date=day(gate.business_date), rule=gate.rule, **figures))


def _console(width: int | None = None) -> Console:
    from rich.console import Console

    return Console(width=width, highlight=False, markup=False, emoji=False)


def readable(language: str) -> str:
    """`language`, or English where the console cannot show Chinese at all."""
    try:
        "净值".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "en"
    return language


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "monitor",
        description="The dashboard: how fresh the data are and what ran.",
        epilog="exit codes: 0 shown, whatever the verdict is (main.py status tells it by its exit code); "
        "1 no usable database, or stdout is full; 2 usage; 78 configuration; 130 Ctrl-C (0 with --watch)",
        allow_abbrev=False,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--watch",
        action="store_true",
        help="refresh every 2 seconds until Ctrl-C; into a pipe: one plain screen after the other, "
        "an empty line after each",
    )
    form.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--lang", choices=("zh", "en"), help="language (default: NAVKEEPER_LANGUAGE, else zh)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 without a usable database or stdout; 2 usage; 78 wrong configuration; 130 Ctrl-C."""
    options = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        _run(options)
    except NavKeeperError as error:
        print(f"monitor: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return OK if options.watch else STOPPED
    except OSError as error:
        return _ended_early(error)
    return OK


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()  # here, where an error can still be caught, not when Python ends


def _ended_early(error: OSError) -> int:
    """Nobody reads stdout any more (`| head`), or it cannot be written: no traceback, now or at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in its buffer
    if isinstance(error, BrokenPipeError):
        return OK
    print(f"monitor: {error}", file=sys.stderr)
    return FAILED


def _run(options: argparse.Namespace) -> None:
    from config.settings import load_settings
    from scheduler.clock import clock_from
    from scheduler.jobs import all_jobs
    from scheduler.overview import observer_engine

    settings = load_settings()
    engine = observer_engine(settings.database_url())
    jobs = all_jobs(settings.jobs_file, engine)
    language = readable(options.lang or settings.language)
    monitor = JobMonitor(engine, jobs, clock_from(settings), language, home_to_name(settings))
    if options.json:
        _write(json.dumps(monitor.overview().as_json(), indent=2) + "\n")  # ASCII: safe on every console
    elif options.watch and sys.stdout.isatty():
        monitor.watch(_console())
    elif options.watch:
        while True:
            monitor.show()
            _write("\n")
            time.sleep(REFRESH_SECONDS)
    else:
        monitor.show()


def home_to_name(settings: Settings) -> Path | None:
    """The home that a command must be told of to find this database; None if it needs no telling.

    A database that other settings select is not named: their values may hold a password.
    """
    from config.settings import ROOT

    own = settings.model_copy(update={"db_url": None, "mysql_host": None, "mysql_db": None}).database_url()
    return settings.home if settings.home != ROOT and settings.database_url() == own else None


if __name__ == "__main__":
    sys.exit(main())
