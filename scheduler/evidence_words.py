"""The options of `main.py quality`, `report`, `quarantine`, `nav show`, `metrics show`, `rank`, `export`, `risk-free`.

Without anything that takes time to import: --help is there at once.
"""

from __future__ import annotations

import argparse
import re
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

from scheduler.command_line import LARGEST_ID, as_date, as_number

EXIT_CODES = "exit codes: 0 ok, 1 failed, 2 usage"
FUNDS_ON_SCREEN = 20


def as_code(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no fund code")
    return text.strip()


def as_instant(text: str) -> datetime:
    """An instant; without an offset by Shanghai's clock."""
    from scheduler.task_params import instant_of

    try:
        return instant_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def as_rate(text: str) -> float:
    """A fraction a year, out of a fraction or a percentage."""
    number = text.strip().replace("\N{FULLWIDTH PERCENT SIGN}", "%")
    try:
        found = Decimal(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ArithmeticError:
        found = Decimal("NaN")
    if not found.is_finite():
        raise argparse.ArgumentTypeError(f"{text.strip()!r} is no rate; write it as 1.5% or 0.015")
    return float(found)


def parse(action: str, words: list[str]) -> argparse.Namespace:
    """The options of one of these actions. Ends the program as argparse does."""
    parser = argparse.ArgumentParser(f"main.py {action}", allow_abbrev=False, epilog=EXIT_CODES)
    {
        "quality": _quality,
        "report": _report,
        "quarantine": _quarantine,
        "nav show": _nav_show,
        "metrics show": _metrics_show,
        "rank": _rank,
        "export": _export,
        "risk-free": _risk_free,
    }[action](parser)
    if action == "risk-free":  # argparse takes -0.5% for an option, unless there is a space in it
        words = [f" {word}" if re.match(r"-\.?\d", word) else word for word in words]
    options = parser.parse_args(words)
    if action == "quality" and options.json and options.html:
        parser.error("give either --json or --html")
    if action == "quality" and options.history and (options.html or options.date):
        parser.error("--history looks at every date, and on the screen or as --json only")
    if action == "report" and options.date and options.month:
        parser.error("give either --date or --month")
    if action == "quarantine" and options.word is None:
        parser.error("say what to do: list, show, release or reject")
    if action == "export":
        _check_export(parser, options)
    return options


def _quality(parser: argparse.ArgumentParser) -> None:
    parser.description = "What was checked, held back, corrected and missing in one night."
    parser.add_argument(
        "--date", type=as_date, metavar="YYYY-MM-DD", help="business date (default: the newest collected)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", action="store_true", help="write the report file, print its path")
    parser.add_argument(
        "--history",
        action="store_true",
        help="judge everything stored again, by today's rules; writes nothing",
    )


def _report(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The week up to a date: coverage and quality, the market by type, best and worst, new and liquidated "
        "funds, corrections, rank movers. Writes an HTML file under logs/weekly and prints its path."
    )
    parser.add_argument(
        "--date",
        type=as_date,
        metavar="YYYY-MM-DD",
        help="the last trading day (default: the newest with NAVs)",
    )
    parser.add_argument(
        "--month", type=_as_month, metavar="YYYY-MM", help="this month instead, under logs/monthly"
    )
    parser.add_argument("--lang", choices=("zh", "en"), help="(default: NAVKEEPER_LANGUAGE)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead")
    form.add_argument("--markdown", action="store_true", help="print Markdown for a chat instead")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there, print the path")


def _as_month(text: str) -> date:
    """The first of a month."""
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no month; write it as 2025-12") from None


def _quarantine(parser: argparse.ArgumentParser) -> None:
    parser.description = "The rows that failed a rule: kept with their reasons, merged only when released."
    words = parser.add_subparsers(dest="word", metavar="WORD", title="what to do")

    def word(name: str, text: str) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = words.add_parser(
            name, help=text, description=text, allow_abbrev=False, epilog=EXIT_CODES
        )
        found.add_argument("--json", action="store_true", help="print JSON, one object a line")
        return found

    listed = word("list", "the rows that are held, newest first")
    listed.add_argument("--fund", type=as_code, metavar="CODE", help="only of this fund")
    listed.add_argument("--date", type=as_date, metavar="YYYY-MM-DD", help="only of this NAV date")
    listed.add_argument("--reason", type=as_code, metavar="RULE", help="only those that failed this rule")
    listed.add_argument("--all", action="store_true", help="those released or rejected as well")
    listed.add_argument(
        "--limit", type=as_number(LARGEST_ID), default=20, metavar="N", help="the newest N (20)"
    )
    shown = word("show", "everything known of a row: reasons, neighbours, what other batches say")
    shown.add_argument("ids", type=as_number(LARGEST_ID), nargs=1, metavar="ID")
    for name, text in (
        ("release", "believe these rows after all: they are merged"),
        ("reject", "these rows are wrong for good: they are never merged, and no longer listed"),
    ):
        deciding = word(name, text)
        deciding.add_argument("ids", type=as_number(LARGEST_ID), nargs="+", metavar="ID")
        deciding.add_argument("--note", metavar="TEXT", help="why, for the record")
        if name == "release":
            deciding.add_argument(
                "--without-event",
                action="store_true",
                help="do not book the dividend or split that is proposed for a row",
            )


def _nav_show(parser: argparse.ArgumentParser) -> None:
    parser.description = "A fund's NAVs as they are stored, or as they were known at a moment."
    parser.add_argument("code", type=as_code, metavar="CODE")
    parser.add_argument("--from", dest="start", type=as_date, metavar="YYYY-MM-DD", help="first date")
    parser.add_argument("--to", dest="end", type=as_date, metavar="YYYY-MM-DD", help="last date")
    _as_of(parser)
    parser.add_argument("--adjusted", action="store_true", help="with dividends reinvested, splits undone")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def _metrics_show(parser: argparse.ArgumentParser) -> None:
    parser.description = "A fund's metrics by period and window, its ranks within its type and its score."
    parser.add_argument("code", type=as_code, metavar="CODE")
    parser.add_argument(
        "--date", type=as_date, metavar="YYYY-MM-DD", help="calculated for this date (default: the newest)"
    )
    _as_of(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _risk_free(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The risk-free rates, each from a day until the next one; before the first the setting holds."
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    words = parser.add_subparsers(dest="word", metavar="WORD", title="what to do; without a word: list them")
    for name, text in (
        ("set", "let a rate hold from a day on"),
        ("remove", "forget the rate of a day: the one before it holds on"),
    ):
        word = words.add_parser(name, help=text, description=text, allow_abbrev=False, epilog=EXIT_CODES)
        word.add_argument("day", type=as_date, metavar="YYYY-MM-DD")
        if name == "set":
            word.add_argument("rate", type=as_rate, metavar="RATE", help="a year, as 1.5%% or 0.015")
            word.add_argument("--note", metavar="TEXT", help="where it is from, for the record")
        word.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def _as_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of",
        dest="instant",
        type=as_instant,
        metavar="INSTANT",
        help="as known then, such as 2026-01-05T20:00 (Shanghai, unless an offset is given)",
    )


def _rank(parser: argparse.ArgumentParser) -> None:
    parser.description = "The best or the worst funds of a type; of each fund one share class."
    parser.add_argument(
        "--type", type=as_code, metavar="TYPE", help="only funds of this type, such as 股票型, 股票 or stock"
    )
    parser.add_argument(
        "--by", type=as_code, default="score", metavar="METRIC", help="a metric, such as sharpe_1y (score)"
    )
    many = parser.add_mutually_exclusive_group()
    many.add_argument(
        "--top", type=as_number(LARGEST_ID), metavar="N", help=f"the best N ({FUNDS_ON_SCREEN})"
    )
    many.add_argument("--bottom", type=as_number(LARGEST_ID), metavar="N", help="the worst N instead")
    parser.add_argument("--classes", action="store_true", help="every share class of a fund")
    parser.add_argument(
        "--date", type=as_date, metavar="YYYY-MM-DD", help="calculated for this date (default: the newest)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write NAVs (with the incomes of money funds), metrics, or ranks with scores into one file. "
        "CSV: UTF-8 without BOM, a line of headers, nulls empty. Percent columns hold percent."
    )
    parser.add_argument("kind", choices=("nav", "metrics", "rank"))
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="the file to write")
    parser.add_argument("--format", choices=("parquet", "csv"), help="(default: by the file's ending)")
    parser.add_argument(
        "--date",
        type=as_date,
        metavar="YYYY-MM-DD",
        help="only of this NAV date, or calculated for it (default: all NAVs, the newest metrics and ranks)",
    )
    parser.add_argument("--from", dest="start", type=as_date, metavar="YYYY-MM-DD", help="first date")
    parser.add_argument("--to", dest="end", type=as_date, metavar="YYYY-MM-DD", help="last date")
    parser.add_argument(
        "--fund",
        action="append",
        default=[],
        type=as_code,
        metavar="CODE",
        help="only this fund (again for more)",
    )
    parser.add_argument("--adjusted", action="store_true", help="nav: with adjusted NAVs as well")
    parser.add_argument("--force", action="store_true", help="replace the file that is there")


def _check_export(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program where the options contradict each other; afterwards they are whole."""
    if options.adjusted and options.kind != "nav":
        parser.error("--adjusted is for export nav")
    if options.date is not None:
        if options.start or options.end:
            parser.error("give either --date or --from/--to")
        options.start = options.end = options.date
    if options.start and options.end and options.start > options.end:
        parser.error(f"--from {options.start} is after --to {options.end}")
    options.format = options.format or options.out.suffix.removeprefix(".").lower()
    if options.format not in ("parquet", "csv"):
        parser.error(f"--out {options.out}: name it .parquet or .csv, or give --format")
