"""`main.py quality`, `report`, `quarantine`, `nav show`, `metrics show`, `rank`, `export`, `risk-free`: done.

What does it is imported then.
"""

from __future__ import annotations

import argparse
import getpass
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from scheduler.command_line import printed
from scheduler.evidence_words import FUNDS_ON_SCREEN

if TYPE_CHECKING:
    from rich.console import RenderableType
    from sqlalchemy import Engine

    from config.settings import Settings
    from scheduler.clock import Clock
    from scheduler.listing import Record

RULE_KEYS = ("rule", "version", "severity", "checked", "failed", "samples")
DECIDING = ("release", "reject")
HELD_ON_SCREEN = 10
SAMPLES_ON_SCREEN = 1
NAVS_ON_SCREEN = 20  # where neither --from nor --to is given


def do(action: str, options: argparse.Namespace, settings: Settings) -> int:
    """Do what was typed. Raises NavKeeperError."""
    from scheduler.clock import clock_from
    from scheduler.exit_codes import OK
    from scheduler.overview import observer_engine

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    observer = observer_engine(settings.database_url())
    if action == "quality":
        _show_quality(options, settings, observer)
    elif action == "report":
        _write_week(options, settings, observer, clock_from(settings))
    elif action == "nav show":
        _show_navs(options, settings, observer)
    elif action == "metrics show":
        _show_metrics(options, settings, observer)
    elif action == "rank":
        _show_ranks(options, settings, observer)
    elif action == "export":
        _write_export(options, settings, observer)
    elif action == "risk-free":
        _risk_free_rates(options, settings, observer)
    elif options.word in DECIDING:
        _decide(options, settings, observer, clock_from(settings))
    else:
        _show_quarantine(options, settings, observer)
    return OK


def _print(records: Sequence[Record], parts: Iterable[RenderableType], *, as_json: bool) -> None:
    from scheduler.listing import as_json as line
    from scheduler.listing_text import drawn

    printed("".join(f"{line(record)}\n" for record in records) if as_json else drawn(parts))


def _show_quality(options: argparse.Namespace, settings: Settings, observer: Engine) -> None:
    from config.translation import translator
    from scheduler.monitor import readable
    from scheduler.quality import quality

    if options.history:
        _show_history(options, settings, observer)
        return
    if options.html:
        from scheduler.quality_page import write_report

        night = options.date or quality(observer)["business_date"]
        path = write_report(observer, night, settings.logs / "quality", translator(settings.language))
        printed(f"{path}\n")
        return
    from scheduler.quality_text import sections
    from scheduler.sections import drawn

    night = quality(observer, options.date)
    _ = translator(readable(settings.language))
    shown = sections(night, _, held=HELD_ON_SCREEN, example=SAMPLES_ON_SCREEN)
    _print([night], drawn(shown), as_json=options.json)


def _write_week(options: argparse.Namespace, settings: Settings, observer: Engine, clock: Clock) -> None:
    """The week or month as a file whose path is printed, or on the screen."""
    from config.translation import translator
    from core import db
    from scheduler.firing import require_calendar
    from scheduler.listing import as_json
    from scheduler.plan import asked_date
    from scheduler.quality_page import write_page
    from scheduler.weekly import last_day, newest_day, weekly
    from scheduler.weekly_markdown import markdown
    from scheduler.weekly_page import page

    with db.read(observer) as connection:
        calendar = require_calendar(connection)
    span = "month" if options.month else "week"
    day = asked_date(calendar, options.date, clock()) if options.date else newest_day(observer, calendar)
    day = last_day(calendar, options.month, day) if options.month else day
    week, language = weekly(observer, calendar, day, span), options.lang or settings.language
    _ = translator(language)
    other = "" if language == settings.language else f".{language}"
    name = f"monthly/{day:%Y-%m}" if options.month else f"weekly/{day}"
    path = options.out or settings.logs / f"{name}{other}.html"
    if options.json or options.markdown:
        text = f"{as_json(week)}\n" if options.json else markdown(week, _)
        if options.out is None:
            printed(text)
            return
    else:
        text = page(week, _)
    write_page(path, text)
    printed(f"{path}\n")


def _show_history(options: argparse.Namespace, settings: Settings, observer: Engine) -> None:
    """What today's rules would say of everything that is believed."""
    from config.translation import translator
    from core import db
    from core.revalidation import revalidate_stored
    from core.thresholds import load_thresholds
    from core.trading_calendar import SHANGHAI
    from scheduler.clock import clock_from
    from scheduler.firing import require_calendar
    from scheduler.monitor import readable
    from scheduler.quality_text import examples, rules_section
    from scheduler.sections import drawn
    from scheduler.task_parts import RULES_FILE

    with db.read(observer) as connection:
        calendar = require_calendar(connection)
    today = clock_from(settings)().astimezone(SHANGHAI).date()
    found = revalidate_stored(observer, load_thresholds(RULES_FILE), calendar, today)
    rules = [asdict(result) | {"rule": result.rule_id} for result in found]
    record = {"rules": [{key: rule[key] for key in RULE_KEYS} for rule in rules]}
    _ = translator(readable(settings.language))
    shown = [rules_section(record, _), *examples(record, _, SAMPLES_ON_SCREEN)]
    _print([record], drawn(shown), as_json=options.json)


def _show_quarantine(options: argparse.Namespace, settings: Settings, observer: Engine) -> None:
    from config.translation import translator
    from scheduler.held_rows import list_rows, list_sections, show_row, show_sections
    from scheduler.monitor import readable
    from scheduler.sections import drawn

    _ = translator(readable(settings.language))
    if options.word == "show":
        record = show_row(observer, options.ids[0])
        _print([record], drawn(show_sections(record, _)), as_json=options.json)
        return
    records, total = list_rows(
        observer,
        fund=options.fund,
        day=options.date,
        reason=options.reason,
        decided=options.all,
        limit=options.limit,
    )
    _print(records, drawn(list_sections(records, total, _)), as_json=options.json)


def _decide(options: argparse.Namespace, settings: Settings, observer: Engine, clock: Clock) -> None:
    """Release or reject rows, and say what came of it."""
    from config.translation import translator
    from core import db
    from scheduler import held_rows
    from scheduler.monitor import readable

    with db.read(observer):  # a database that is not there is refused here, not made
        pass
    engine = db.connect(settings.database_url())
    actor = f"cli:{getpass.getuser()}"
    if options.word == "reject":
        record = held_rows.reject_rows(engine, options.ids, actor, options.note, clock())
    else:
        record = held_rows.release_rows(
            engine, options.ids, actor, options.note, clock(), book_proposal=not options.without_event
        )
    _ = translator(readable(settings.language))
    _print([record], [f"{held_rows.decided_text(record, _)}"], as_json=options.json)


def _show_navs(options: argparse.Namespace, settings: Settings, observer: Engine) -> None:
    from config.translation import translator
    from scheduler.monitor import readable
    from scheduler.nav_listing import known_navs, nav_sections
    from scheduler.sections import drawn

    bounded = options.start is not None or options.end is not None
    fund, records = known_navs(
        observer, options.code, options.instant, options.start, options.end, adjusted=options.adjusted
    )
    _ = translator(readable(settings.language))
    limit = None if bounded else NAVS_ON_SCREEN
    shown = nav_sections(fund, records, _, limit=limit, instant=options.instant)
    _print(records, drawn(shown), as_json=options.json)


def _show_metrics(options: argparse.Namespace, settings: Settings, observer: Engine) -> None:
    from config.translation import translator
    from scheduler.metrics_listing import fund_metrics_as_of, fund_metrics_of, metric_sections
    from scheduler.monitor import readable
    from scheduler.sections import drawn

    record = (
        fund_metrics_of(observer, options.code, options.date)
        if options.instant is None
        else fund_metrics_as_of(observer, settings, options.code, options.date, options.instant)
    )
    shown = metric_sections(record, translator(readable(settings.language)))
    _print([record], drawn(shown), as_json=options.json)


def _risk_free_rates(options: argparse.Namespace, settings: Settings, observer: Engine) -> None:
    """List the rates, or change one and say what that means."""
    from config.translation import translator
    from core import db
    from scheduler import risk_free_listing as listing
    from scheduler.monitor import readable
    from scheduler.sections import drawn

    _ = translator(readable(settings.language))
    if options.word is None:
        records = listing.list_rates(observer, settings.risk_free_rate)
        _print(records, drawn(listing.rate_sections(records, _)), as_json=options.json)
        return
    with db.read(observer):  # a database that is not there is refused here, not made
        pass
    engine = db.connect(settings.database_url())
    if options.word == "set":
        record = listing.set_one(engine, options.day, options.rate, options.note)
    else:
        record = listing.remove_one(engine, options.day)
    _print([record], [listing.changed_text(record, _)], as_json=options.json)


def _show_ranks(options: argparse.Namespace, settings: Settings, observer: Engine) -> None:
    from config.translation import translator
    from scheduler.metrics_listing import rank_sections, ranked_funds
    from scheduler.monitor import readable
    from scheduler.sections import drawn

    bottom = options.bottom is not None
    found = ranked_funds(
        observer, options.by, options.type, options.date, bottom=bottom, every_class=options.classes
    )
    records = found[: options.bottom or options.top or FUNDS_ON_SCREEN]
    _ = translator(readable(settings.language))
    shown = rank_sections(records, len(found), options.by, _, bottom=bottom)
    _print(records, drawn(shown), as_json=options.json)


def _write_export(options: argparse.Namespace, settings: Settings, observer: Engine) -> None:
    from config.translation import translator
    from core import db
    from scheduler.export import Export, export, reader
    from scheduler.monitor import readable
    from scheduler.wording import number

    with db.read(observer):  # a database that is not there is refused here, not made
        pass
    wanted = Export(
        options.kind,
        options.out,
        options.format,
        options.start,
        options.end,
        tuple(dict.fromkeys(options.fund)),
        options.adjusted,
        options.force,
    )
    count = export(reader(settings.database_url()), wanted)
    _ = translator(readable(settings.language))
    printed(_("{path}: {count} rows").format(path=options.out, count=number(count)) + "\n")
