"""`main.py alert …`: what may be typed, and what is done then.

What does it is imported then: --help is there at once.
"""

from __future__ import annotations

import argparse
import getpass
import io
import re
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from scheduler.command_line import LARGEST_ID, as_number, printed
from scheduler.evidence_words import as_instant

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Engine

    from config.settings import Settings
    from scheduler.clock import Clock
    from scheduler.listing import Record

EXIT_CODES = "exit codes: 0 ok, 1 failed (test: a channel did not take it), 2 usage, 78 configuration"
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
LONGEST_DAYS = 366


def as_span(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9]\d{0,3})([mhd])", text.strip(), re.ASCII)
    span = timedelta(**{UNITS[found[2]]: int(found[1])}) if found else None
    if span is None or span > timedelta(days=LONGEST_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not written as 30m, 8h or 3d, at most {LONGEST_DAYS}d")
    return span


def parse(words: list[str]) -> argparse.Namespace:
    """The options; `word` is what to do. Ends the program as argparse does."""
    parser = argparse.ArgumentParser("main.py alert", allow_abbrev=False, epilog=EXIT_CODES)
    parser.description = "What is the matter, and who is told of it (docs/alerts.md)."
    found = parser.add_subparsers(dest="word", metavar="WORD", title="what to do", required=True)
    texts = {
        "list": "the open alerts, and the newest that are over",
        "show": "everything known of an alert, and what was sent of it",
        "silence": "say nothing of it for a while",
        "unsilence": "say it again",
        "test": "send a message through every channel, and say what came of it",
    }
    of = {
        name: found.add_parser(
            name, help=text, description=text, allow_abbrev=False, epilog=EXIT_CODES, parents=[_json()]
        )
        for name, text in texts.items()
    }
    of["list"].add_argument(
        "--limit", type=as_number(LARGEST_ID), default=20, metavar="N", help="at most (20)"
    )
    of["list"].add_argument("--open", action="store_true", help="only those that are not over")
    for name in ("show", "silence", "unsilence"):
        of[name].add_argument("alert", type=as_number(LARGEST_ID), metavar="ID")
    until = of["silence"].add_mutually_exclusive_group(required=True)
    until.add_argument("--for", dest="span", type=as_span, metavar="8h", help="30m, 8h, 3d")
    until.add_argument(
        "--until",
        dest="instant",
        type=as_instant,
        metavar="INSTANT",
        help="2026-01-05T20:00, by Shanghai's clock",
    )
    of["test"].add_argument(
        "--channel", type=as_number(LARGEST_ID), metavar="N", help="only the Nth of NAVKEEPER_ALERT_CHANNELS"
    )
    return parser.parse_args(words)


def _json() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    return parser


def do(_action: str, options: argparse.Namespace, settings: Settings) -> int:
    """Do what was typed. Raises NavKeeperError."""
    from scheduler.clock import clock_from
    from scheduler.exit_codes import FAILED, OK
    from scheduler.overview import observer_engine

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    clock = clock_from(settings)
    if options.word == "test":
        return OK if _test(options, settings, clock) else FAILED
    observer = observer_engine(settings.database_url())
    if options.word in ("silence", "unsilence"):
        _silence(options, settings, observer, clock)
    else:
        _look(options, settings, observer, clock)
    return OK


def _look(options: argparse.Namespace, settings: Settings, observer: Engine, clock: Clock) -> None:
    from scheduler import alert_listing as listing

    if options.word == "show":
        _print([listing.show_alert(observer, options.alert, clock())], options, settings, one=True)
    else:
        found = listing.list_alerts(observer, clock(), only_open=options.open, limit=options.limit)
        _print(found, options, settings, one=False)


def _silence(options: argparse.Namespace, settings: Settings, observer: Engine, clock: Clock) -> None:
    from core import db
    from scheduler import alert_listing as listing

    with db.read(observer):  # a database that is not there is refused here, not made
        pass
    engine, now = db.connect(settings.database_url()), clock()
    if options.word == "silence":
        until: datetime = options.instant or now + options.span
        record = listing.silence(engine, options.alert, until, f"cli:{getpass.getuser()}", now)
    else:
        record = listing.unsilence(engine, options.alert, now)
    _print([record], options, settings, one=True)


def _print(records: list[Record], options: argparse.Namespace, settings: Settings, *, one: bool) -> None:
    from config.translation import translator
    from scheduler import alert_listing as listing
    from scheduler.listing import as_json
    from scheduler.listing_text import drawn as as_text
    from scheduler.monitor import readable
    from scheduler.sections import drawn

    if options.json:
        printed("".join(f"{as_json(record)}\n" for record in records))
        return
    _ = translator(readable(settings.language))
    shown = listing.alert_sections(records[0], _) if one else [listing.alerts_section(records, _)]
    printed(as_text(drawn(shown)))


def _test(options: argparse.Namespace, settings: Settings, clock: Clock) -> bool:
    """Whether every channel took the message; one line each."""
    import json

    from core.errors import UsageError
    from scheduler.alert_delivery import Post
    from scheduler.alert_rules import TEST
    from scheduler.alert_store import OPENED
    from scheduler.alert_text import Told, message

    post = Post(settings, clock)
    channels = post.channels
    if not channels:
        raise UsageError("no channel is set; name some in NAVKEEPER_ALERT_CHANNELS: docs/alerts.md")
    if options.channel is not None:
        if options.channel > len(channels):
            raise UsageError(f"there is no channel {options.channel}; there are {len(channels)}")
        channels = channels[options.channel - 1 : options.channel]
    content = message([Told(OPENED, TEST, clock(), {})], post.translate, clock())
    well = True
    for channel in channels:
        error = post.tried(channel, content)
        well &= error is None
        why = None if error is None else error.removeprefix(f"{channel.name}: ")
        line = {"channel": channel.name, "ok": error is None, "error": why}
        printed(f"{json.dumps(line)}\n" if options.json else f"{channel.name}: {why or 'ok'}\n")
    return well
