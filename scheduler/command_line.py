"""`main.py jobs …` and `main.py runs …`: what may be typed, and what is done then.

What does it is imported then: --help is there at once.
"""

from __future__ import annotations

import argparse
import getpass
import io
import json
import os
import sys
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any

from scheduler import job_line

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.settings import Settings
    from scheduler.clock import Clock
    from scheduler.listing import Record

COMMANDS = ("pause", "resume", "trigger", "cancel", "retry")
LONGEST_PLAN = 3660
LARGEST_ID = 2**63 - 1
EXIT_CODES = "exit codes: 0 ok, 1 no daemon answered, or failed, 2 usage, or refused by the daemon"


def as_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as 2025-12-01") from None


def as_number(largest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= largest:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {largest}")

    return read


def _name(text: str) -> str:
    if not text.isprintable():  # bytes that are no text, for one: no database takes them
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a job")
    return text


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not written as key=value")
    try:
        return name, json.loads(value, parse_constant=lambda _constant: value)
    except ValueError:
        return name, value


def parse(action: str, words: list[str]) -> argparse.Namespace:
    """The options of `jobs` or `runs`; `word` is what to do, None to list. Ends the program as argparse does."""
    parser = argparse.ArgumentParser(f"main.py {action}", allow_abbrev=False, epilog=EXIT_CODES)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    found = parser.add_subparsers(dest="word", metavar="WORD", title="what to do; without a word: list them")
    (_jobs if action == "jobs" else _runs)(parser, found)
    options = parser.parse_args(words)
    if action == "runs" and options.word is None:
        options.limit = options.limit or 20
    elif action == "runs":
        for name in ("job", "status", "date", "limit"):
            if getattr(options, name, None) is not None:
                parser.error(f"--{name} means nothing to runs {options.word}")
    return options


def _jobs(parser: argparse.ArgumentParser, words: Any) -> None:
    parser.description = "The jobs: when they run next, and commands to the daemon."
    for name, text in (
        ("pause", "it is not started by its schedule until it is resumed; what runs goes on"),
        ("resume", "it goes on, and catches up what it missed"),
        ("trigger", "run it now, whatever its schedule says"),
    ):
        word = _word(words, name, text)
        word.add_argument("job", type=_name, metavar="JOB")
    add_what_to_run(word)
    job_line.add_words(words, _word, _name)
    word = _word(words, "plan", "every run that falls due, and why some will be skipped")
    word.add_argument(
        "--days", type=as_number(LONGEST_PLAN), default=30, metavar="N", help="how far ahead (30)"
    )
    word.add_argument("--job", type=_name, metavar="JOB", help="only this job")
    word = _word(words, "history", "who asked the daemon for what, and its answers")
    word.add_argument(
        "--limit", type=as_number(LARGEST_ID), default=20, metavar="N", help="the newest N (20)"
    )


def _runs(parser: argparse.ArgumentParser, words: Any) -> None:
    parser.description = "The runs of the jobs, newest first, and commands to the daemon."
    parser.add_argument("--job", type=_name, metavar="JOB", help="only of this job")
    parser.add_argument("--status", metavar="STATUS", help="only in this state, such as FAILED")
    parser.add_argument("--date", type=as_date, metavar="YYYY-MM-DD", help="only for this business date")
    parser.add_argument("--limit", type=as_number(LARGEST_ID), metavar="N", help="the newest N (20)")
    for name, text in (
        ("show", "everything known of a run"),
        ("cancel", "end it, or do not start it"),
        ("retry", "queue a run again that failed, was cancelled or interrupted"),
        ("log", "print the log of its last attempt"),
    ):
        word = _word(words, name, text)
        word.add_argument("run", type=as_number(LARGEST_ID), metavar="ID")
    word.add_argument("--attempt", type=as_number(LARGEST_ID), metavar="N", help="of this attempt")


def add_what_to_run(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "--date", type=as_date, metavar="YYYY-MM-DD", help="business date (default: the newest)"
    )
    word.add_argument(
        "--param",
        action="append",
        default=[],
        type=_param,
        metavar="KEY=VALUE",
        help="a parameter of its task, as JSON or text (again for more), such as fund_codes='[\"000001\"]'",
    )


def _word(words: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = words.add_parser(
        name, help=text, description=text, allow_abbrev=False, epilog=EXIT_CODES
    )
    # Said before the word or after it; only where it is said does it set anything.
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    return parser


def do(action: str, options: argparse.Namespace, settings: Settings) -> int:
    """Do what was typed. Raises NavKeeperError."""
    from scheduler.clock import clock_from
    from scheduler.exit_codes import OK
    from scheduler.overview import observer_engine

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    clock = clock_from(settings)
    observer = observer_engine(settings.database_url())
    if action == "jobs" and options.word in job_line.WORDS:
        does = job_line.look if options.word in ("show", "export") else job_line.change
        does(options, settings, observer, clock)
    elif options.word in COMMANDS:
        _command(options, settings, observer, clock)
    else:
        _look(action, options, settings, observer, clock)
    return OK


def _command(options: argparse.Namespace, settings: Settings, observer: Engine, clock: Clock) -> None:
    what = {"job_id": getattr(options, "job", None), "run_id": getattr(options, "run", None)}
    ask_daemon(options.word, what, options, settings, observer, clock)


def ask_daemon(
    action: str,
    what: dict[str, Any],
    options: argparse.Namespace,
    settings: Settings,
    observer: Engine,
    clock: Clock,
) -> None:
    """Ask the daemon, and say what it answered. Raises UsageError where it refused, NoDaemon."""
    from core import db
    from core.errors import NoDaemon, UsageError
    from scheduler import commands
    from scheduler.listing import as_json, command_record

    with db.read(observer):  # a database that is not there is refused here, not made
        pass
    row = commands.request(
        db.connect(settings.database_url()),
        clock,
        action=action,
        requested_by=f"cli:{getpass.getuser()}",
        business_date=getattr(options, "date", None),
        params=dict(getattr(options, "param", [])),
        **what,
    )
    if options.json:
        printed(f"{as_json(command_record(row))}\n")
    if row.status == commands.REFUSED:
        raise UsageError(row.answer)
    if row.status == commands.EXPIRED:
        raise NoDaemon(row.answer)
    if not options.json:
        printed(f"{row.answer}\n")


def _look(
    action: str, options: argparse.Namespace, settings: Settings, observer: Engine, clock: Clock
) -> None:
    from config.translation import translator
    from scheduler import listing, listing_text
    from scheduler.jobs import all_jobs
    from scheduler.monitor import readable

    def jobs() -> list[Record]:
        known = all_jobs(settings.jobs_file, observer)
        return listing.list_jobs(observer, known, clock(), known.wrong)

    def plan() -> list[Record]:
        known = all_jobs(settings.jobs_file, observer)
        return listing.list_plan(observer, known, clock(), options.days, options.job)

    looks: dict[tuple[str, str | None], tuple[Callable[[], list[Record]], listing_text.Draw]] = {
        ("jobs", None): (jobs, listing_text.jobs),
        ("jobs", "plan"): (plan, listing_text.plan),
        ("jobs", "history"): (
            lambda: listing.list_commands(observer, options.limit),
            listing_text.history,
        ),
        ("runs", None): (
            lambda: listing.list_runs(
                observer,
                clock(),
                job_id=options.job,
                status=options.status,
                business_date=options.date,
                limit=options.limit,
            ),
            listing_text.runs,
        ),
        ("runs", "show"): (lambda: [listing.show_run(observer, options.run, clock())], listing_text.run),
        ("runs", "log"): (
            lambda: [listing.read_log(observer, options.run, options.attempt)],
            listing_text.log,
        ),
    }
    read, draw = looks[action, options.word]
    records = read()
    if options.json:
        printed("".join(f"{listing.as_json(record)}\n" for record in records))
    else:
        printed(listing_text.drawn(draw(records, translator(readable(settings.language)))))


def printed(text: str) -> None:
    """Print. Who reads no further (`| head`) is no error. Raises NavKeeperError where stdout is full."""
    from core.errors import NavKeeperError

    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in its buffer
        if not isinstance(error, BrokenPipeError):
            raise NavKeeperError(f"stdout: {error.strerror}") from None
