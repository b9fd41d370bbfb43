"""NavKeeper's command line: parse, call, print. `python main.py --help` lists the actions."""

from __future__ import annotations

import argparse
import difflib
import sys
from datetime import date, datetime

ACTIONS = {
    "init": "create or upgrade the tables, fill the trading calendar",
    "nav": "collect tonight's NAVs; with --from/--to, --fund or --type: back-fill history",
    "backfill": "history of all funds, or of --fund or --type; goes on where the last one was stopped",
    "nav show": "a fund's NAVs, as stored or as known at a moment (--as-of)",
    "validate": "check the night's batch and merge what can be believed",
    "metrics": "calculate the metrics of all funds, for a past --date also from what was known --as-of then",
    "metrics show": "a fund's metrics, ranks within its type and score, or as known at a moment (--as-of)",
    "rank": "the best or worst funds of a type by a metric or by score",
    "export": "NAVs, metrics or ranks as a CSV or Parquet file",
    "risk-free": "the risk-free rates that ratios are measured against: list, set, remove",
    "weekly": "recalculate everything, clean up, write the weekly report",
    "all": "nav, validate and metrics, one after the other",
    "scheduler": "run the daemon in the foreground",
    "monitor": "show the dashboard",
    "health": "serve the web pages, /health, /metrics and the REST API",
    "token": "a new token for the REST API, and its hash for the settings",
    "status": "one line: is the data complete?",
    "jobs": "the jobs: list, create, change, delete, show, pause, trigger; what is planned; who asked for what",
    "runs": "the runs: list, show, log, cancel, retry",
    "quality": "the evidence of a night: gates, rules, quarantine, corrections, what is late",
    "report": "the week as a page, as JSON or as Markdown for a chat",
    "quarantine": "rows that failed a rule: list, show, release, reject",
    "backup": "a checked copy of the database; list the copies, check one",
    "restore": "let a backup take the place of the database",
    "alert": "what is the matter: list, show, silence, unsilence; test: a message through every channel",
    "events": "what happened: list; parked, retry, subscribers: what plugins could not take, and who listens",
    "cache": "what is kept because it is dear to make, and how often it was of use; clear: forget it",
    "plugins": "what is installed beside the fund tasks: list, check, enable, disable",
    "tasks": "what jobs can run, with the parameters of each",
    "doctor": "what could be wrong on this machine, and what to do",
    "demo": "a night on a simulated market, start to end",
}
TWO_WORDS = ("nav show", "metrics show")  # one action each
EVIDENCE = ("quality", "report", "quarantine", "rank", "export", "risk-free", *TWO_WORDS)
BACKUPS = ("backup", "restore")
PLUGINS = ("plugins", "tasks")
OWN_OPTIONS = (
    "monitor",
    "health",
    "jobs",
    "runs",
    "alert",
    "cache",
    *PLUGINS,
    "events",
    *EVIDENCE,
    *BACKUPS,
)  # main.py monitor --help
VERSION = "0.1.0"


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="main.py",
        description="NavKeeper 净值守夜人: a correct, complete and fresh copy of China's public-fund NAVs",
        epilog="exit codes: 0 ok, 1 failed, 2 usage, 3 already running, 78 configuration, 130 stopped",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    listed = "\n".join(f"  {name:<13} {text}" for name, text in ACTIONS.items())
    found.usage = f"main.py ACTION [options]   (or --action ACTION)\n\nactions:\n{listed}\n"
    found.add_argument("--action", metavar="ACTION", help="the same as the plain first word")
    found.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help="business date (default: the newest)")
    found.add_argument(
        "--from", dest="start", type=_date, metavar="YYYY-MM-DD", help="nav, backfill: first date"
    )
    found.add_argument("--to", dest="end", type=_date, metavar="YYYY-MM-DD", help="nav, backfill: last date")
    found.add_argument("--fund", action="append", metavar="CODE", help="only this fund (again for more)")
    found.add_argument(
        "--type", metavar="TYPE", help="backfill: only funds of this type, such as 债券型 or bond"
    )
    found.add_argument(
        "--source", metavar="NAME|PATH", help="nav, backfill: 'eastmoney', or a CSV/Parquet file or folder"
    )
    found.add_argument(
        "--as-of",
        dest="instant",
        type=_instant,
        metavar="INSTANT",
        help="metrics: from what was known then, such as 2026-01-05T20:00 (Shanghai, unless an offset is given)",
    )
    found.add_argument("--json", action="store_true", help="print the result as JSON")
    found.add_argument("--dry-run", action="store_true", help="do everything but write")
    found.add_argument(
        "--force", action="store_true", help="validate: merge although a gate refuses the batch"
    )
    found.add_argument("--only", metavar="CHECK", help="doctor: only this check, such as daemon or disk")
    found.add_argument("--version", action="version", version=f"NavKeeper {VERSION}")
    return found


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as 2025-12-01") from None


def _instant(text: str) -> datetime:
    from scheduler.evidence_words import as_instant

    return as_instant(text)


def action_of(words: list[str]) -> tuple[str | None, list[str]]:
    """The action named, as first word or by --action, and the other words."""
    for at, word in enumerate(words):
        if word == "--action" and at + 1 < len(words):
            return words[at + 1], words[:at] + words[at + 2 :]
        if word.startswith("--action="):
            return word.partition("=")[2], words[:at] + words[at + 1 :]
    if words and not words[0].startswith("-"):
        return words[0], words[1:]
    return None, words


def two_words(action: str | None, rest: list[str]) -> tuple[str | None, list[str]]:
    """`nav show` is another action than `nav`."""
    both = f"{action} {rest[0]}" if rest else ""
    return (both, rest[1:]) if both in TWO_WORDS else (action, rest)


def options_of(action: str, rest: list[str]) -> argparse.Namespace:
    if action in ("jobs", "runs"):
        from scheduler.command_line import parse

        return parse(action, rest)
    if action == "alert":
        from scheduler.alert_line import parse as parse_alert

        return parse_alert(rest)
    if action == "cache":
        from scheduler.cache_line import parse as parse_cache

        return parse_cache(rest)
    if action in PLUGINS:
        from scheduler.plugin_line import parse as parse_plugins

        return parse_plugins(action, rest)
    if action == "events":
        from scheduler.event_line import parse as parse_events

        return parse_events(rest)
    if action in EVIDENCE:
        from scheduler.evidence_words import parse as parse_evidence

        return parse_evidence(action, rest)
    if action in BACKUPS:
        from scheduler.backup_line import parse as parse_backup

        return parse_backup(action, rest)
    return argparse.Namespace() if action in OWN_OPTIONS else parser().parse_args(rest)


def main(words: list[str]) -> int:
    action, rest = two_words(*action_of(words))
    if action == "help" or (action in ACTIONS and action not in OWN_OPTIONS and {"-h", "--help"} & set(rest)):
        parser().print_help()
        return 0
    if action is None:
        parser().parse_args(rest)  # --help, --version and wrong options end here
        parser().error(f"name an action: {', '.join(ACTIONS)}")
    if action not in ACTIONS:
        near = difflib.get_close_matches(action, ACTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ACTIONS)}"
        print(f"main.py: unknown action {action!r}; {hint}", file=sys.stderr)
        return 2
    options = options_of(action, rest)
    try:
        from scheduler.cli import run
    except ModuleNotFoundError as error:
        print(
            f"main.py: {error.name} is not installed here; use .venv/bin/python (make run builds it)",
            file=sys.stderr,
        )
        return 1
    return run(action, options, rest)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
