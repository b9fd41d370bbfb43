"""`main.py events …`: what may be typed, and what is done then.

What does it is imported then: --help is there at once.
"""

from __future__ import annotations

import argparse
import getpass
import io
import sys
from typing import TYPE_CHECKING

from scheduler.command_line import printed

if TYPE_CHECKING:
    from datetime import datetime

    from config.settings import Settings

EXIT_CODES = "exit codes: 0 ok, 1 failed, 2 usage, 78 configuration"


def parse(words: list[str]) -> argparse.Namespace:
    """The options; `word` is what to do, None to list. Ends the program as argparse does."""
    parser = argparse.ArgumentParser("main.py events", allow_abbrev=False, epilog=EXIT_CODES)
    parser.description = "What happened, newest first: runs, data, quality, and what plugins say."
    parser.add_argument(
        "--topic", metavar="TOPIC", help="only this, or all that begin alike, such as 'quality.*'"
    )
    parser.add_argument("--run", type=int, metavar="ID", help="only of this run")
    parser.add_argument(
        "--since",
        type=_instant,
        metavar="INSTANT",
        help="such as 2026-01-05T20:00 (Shanghai, unless an offset is given)",
    )
    parser.add_argument(
        "--limit", type=_limit, default=50, metavar="N", help="at most this many (default 50)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    found = parser.add_subparsers(
        dest="word", metavar="WORD", title="what to do; without a word: list events"
    )
    for word, text in (
        ("parked", "events that a subscriber could not take"),
        ("subscribers", "who listens to what, and how much each has still to take"),
        ("retry", "have a parked event tried again"),
    ):
        added = found.add_parser(word, help=text, description=text, allow_abbrev=False, epilog=EXIT_CODES)
        if word == "retry":
            added.add_argument("id", type=int, metavar="NUMBER", help="as `main.py events parked` shows it")
        if word == "parked":
            added.add_argument("--limit", type=_limit, default=argparse.SUPPRESS, metavar="N", help="at most")
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    return parser.parse_args(words)


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 10000")
    return int(text)


def _instant(text: str) -> datetime:
    from scheduler.evidence_words import as_instant

    return as_instant(text)


def do(_action: str, options: argparse.Namespace, settings: Settings) -> int:
    """Do what was typed. Raises NavKeeperError."""
    from config.translation import translator
    from core import db
    from scheduler import event_listing, subscriptions
    from scheduler.exit_codes import OK
    from scheduler.listing import as_json
    from scheduler.listing_text import drawn as as_text
    from scheduler.monitor import readable
    from scheduler.overview import observer_engine
    from scheduler.sections import drawn

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    _ = translator(readable(settings.language))
    if options.word == "retry":
        with db.write(db.connect(settings.database_url())) as connection:
            row = subscriptions.retry(connection, options.id, f"cli:{getpass.getuser()}")
        record = {"parked": row.id, "subscriber": row.subscriber, "event": row.event_id}
        said = _("event {event} will be tried again for {name}, by the daemon").format(
            event=row.event_id, name=row.subscriber
        )
        printed(f"{as_json(record) if options.json else said}\n")
        return OK
    engine = observer_engine(settings.database_url())
    if options.word == "parked":
        records = event_listing.list_parked(engine, options.limit)
        section = event_listing.parked_section(records, _)
    elif options.word == "subscribers":
        records = event_listing.list_subscribers(engine)
        section = event_listing.subscribers_section(records, _)
    else:
        wanted = {"topic": options.topic, "run_id": options.run, "since": options.since}
        records = event_listing.list_events(engine, **wanted, limit=options.limit)
        section = event_listing.events_section(records, _)
    if options.json:
        printed("".join(f"{as_json(record)}\n" for record in records))
    else:
        printed(as_text(drawn([section])) if records else f"{_('nothing')}\n")
    return OK
