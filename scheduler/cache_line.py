"""`main.py cache …`: what may be typed, and what is done then.

What does it is imported then: --help is there at once.
"""

from __future__ import annotations

import argparse
import io
import sys
from typing import TYPE_CHECKING

from scheduler.command_line import printed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from config.settings import Settings
    from scheduler.cache_counts import Counted
    from scheduler.listing import Record
    from scheduler.sections import Section
    from scheduler.wording import Translate

EXIT_CODES = "exit codes: 0 ok, 1 failed, 2 usage, 78 configuration"


def parse(words: list[str]) -> argparse.Namespace:
    """The options; `word` is what to do, None to list. Ends the program as argparse does."""
    parser = argparse.ArgumentParser("main.py cache", allow_abbrev=False, epilog=EXIT_CODES)
    parser.description = "What is kept because it is dear to make (config/cache.toml), by all processes."
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    found = parser.add_subparsers(
        dest="word", metavar="WORD", title="what to do; without a word: list the kinds"
    )
    text = "forget everything, or what is named; every process asks anew within a second"
    clear = found.add_parser("clear", help=text, description=text, allow_abbrev=False, epilog=EXIT_CODES)
    what = clear.add_mutually_exclusive_group()
    what.add_argument("--kind", metavar="KIND", help="only this kind, such as summaries")
    what.add_argument("--tag", metavar="TAG", help="only what has this tag, such as fund_metrics")
    clear.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    return parser.parse_args(words)


def do(_action: str, options: argparse.Namespace, settings: Settings) -> int:
    """Do what was typed. Raises NavKeeperError."""
    from config.translation import translator
    from core import db
    from scheduler.cache import open_cache
    from scheduler.cache_counts import cache_figures
    from scheduler.exit_codes import OK
    from scheduler.listing import as_json
    from scheduler.listing_text import drawn as as_text
    from scheduler.monitor import readable
    from scheduler.overview import observer_engine
    from scheduler.sections import drawn

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    _ = translator(readable(settings.language))
    engine = observer_engine(settings.database_url())
    cache = open_cache(settings, engine)
    if options.word == "clear":
        removed = cache.invalidate_tag(options.tag) if options.tag else cache.clear(options.kind)
        text = _("forgotten: {n} entries").format(n=f"{removed:,}")
        printed(f"{as_json({'removed': removed}) if options.json else text}\n")
        return OK
    with db.read(engine) as connection:
        counts = cache_figures(connection)
    records = [record | _figures(record["kind"], counts) for record in cache.stats()]
    if options.json:
        printed("".join(f"{as_json(record)}\n" for record in records))
    else:
        printed(as_text(drawn([_section(records, _)])))
    return OK


def _figures(kind: str, counts: Mapping[Counted, int]) -> Record:
    """`hit_rate`: the share of what was asked for that nobody had to wait for; None before anything was."""
    memory = _sum(counts, kind, "memory", "hit")
    found: Record = {"memory_hits": memory, "shared_hits": _sum(counts, kind, None, "hit") - memory}
    found |= {
        "stale": _sum(counts, kind, None, "stale"),
        "misses": _sum(counts, kind, None, "miss") - _sum(counts, kind, "memory", "miss"),
        "computed": _sum(counts, kind, None, "computed"),
    }
    asked = sum(found[name] for name in ("memory_hits", "shared_hits", "stale", "misses"))
    return found | {"hit_rate": round(1 - found["misses"] / asked, 4) if asked else None}


def _sum(counts: Mapping[Counted, int], kind: str, layer: str | None, outcome: str) -> int:
    return sum(
        number
        for counted, number in counts.items()
        if counted.kind == kind and counted.outcome == outcome and layer in (None, counted.layer)
    )


def _section(records: list[Record], _: Translate) -> Section:
    from scheduler.sections import Section
    from scheduler.wording import duration, number, percent

    headers = [_("kind"), _("fresh for"), _("entries"), "KB", _("hits, memory"), _("hits, shared")]
    headers += [_("stale"), _("misses"), _("computed"), _("hit rate")]
    rows = [
        (
            record["kind"],
            duration(record["fresh_seconds"], _),
            number(record["entries"]),
            number(round(record["bytes"] / 1000)),
            *(number(record[name]) for name in ("memory_hits", "shared_hits", "stale", "misses", "computed")),
            percent(record["hit_rate"]),
        )
        for record in records
    ]
    return Section("", headers, rows, right=range(1, len(headers)))
