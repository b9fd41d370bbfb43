"""`main.py plugins …` and `main.py tasks …`: what may be typed, and what is done then.

What does it is imported then: --help is there at once.
"""

from __future__ import annotations

import argparse
import getpass
import io
import json
import sys
from typing import TYPE_CHECKING

from scheduler.command_line import add_what_to_run, ask_daemon, printed

if TYPE_CHECKING:
    from config.settings import Settings
    from scheduler.listing import Record
    from scheduler.sections import Section
    from scheduler.wording import Translate

EXIT_CODES = "exit codes: 0 ok, 1 failed, 2 usage, or refused, 78 configuration"


def parse(action: str, words: list[str]) -> argparse.Namespace:
    """The options; `word` is what to do, None to list. Ends the program as argparse does."""
    parser = argparse.ArgumentParser(f"main.py {action}", allow_abbrev=False, epilog=EXIT_CODES)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    found = parser.add_subparsers(dest="word", metavar="WORD", title="what to do; without a word: list them")
    if action == "tasks":
        parser.description = "What jobs can run: NavKeeper's own tasks, and those of plugins."
        known = [
            ("show", "a task and its parameters", "TASK"),
            ("run", "have the daemon run a task now, without a job", "TASK"),
        ]
    else:
        parser.description = "What is installed beside NavKeeper's own tasks: docs/plugins.md."
        known = [
            ("check", "look at every allowed plugin now; the daemon does when one changes", ""),
            ("enable", "its tasks may run; its tables are made", "ID"),
            ("disable", "its tasks run no more; its tables stay", "ID"),
        ]
    for name, text, what in known:
        word = found.add_parser(name, help=text, description=text, allow_abbrev=False, epilog=EXIT_CODES)
        word.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        if what:
            word.add_argument("name", metavar=what)
        if name == "run":
            add_what_to_run(word)
    return parser.parse_args(words)


def do(action: str, options: argparse.Namespace, settings: Settings) -> int:
    """Do what was typed. Raises NavKeeperError."""
    from config.translation import translator
    from scheduler.clock import clock_from
    from scheduler.exit_codes import OK
    from scheduler.listing import as_json
    from scheduler.listing_text import drawn as as_text
    from scheduler.monitor import readable
    from scheduler.overview import observer_engine
    from scheduler.sections import drawn

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if (action, options.word) == ("tasks", "run"):
        observer = observer_engine(settings.database_url())
        ask_daemon("run task", {"job_id": options.name}, options, settings, observer, clock_from(settings))
        return OK
    _ = translator(readable(settings.language))
    if action == "tasks":
        records = _tasks(settings, options)
        section = _task_section if options.word is None else _parameter_section
    else:
        records = _plugins(settings, options)
        section = _plugin_section
    if options.json:
        printed("".join(f"{as_json(record)}\n" for record in records))
    else:
        printed(as_text(drawn([section(records, _)])))
    return OK


def _tasks(settings: Settings, options: argparse.Namespace) -> list[Record]:
    from scheduler.overview import observer_engine
    from scheduler.plugin_listing import list_tasks, show_task

    engine = observer_engine(settings.database_url())
    return list_tasks(engine) if options.word is None else [show_task(engine, options.name)]


def _plugins(settings: Settings, options: argparse.Namespace) -> list[Record]:
    """All of them, or the one that was switched."""
    from core import db
    from scheduler.clock import clock_from
    from scheduler.overview import observer_engine
    from scheduler.plugin_check import check
    from scheduler.plugin_listing import list_plugins, missing
    from scheduler.plugin_sources import offered_names
    from scheduler.plugin_switch import disable, enable

    observer = observer_engine(settings.database_url())
    with db.read(observer):  # a database that is not there is refused here, not made
        pass
    if options.word is not None:
        engine, now, by = (
            db.connect(settings.database_url()),
            clock_from(settings)(),
            f"cli:{getpass.getuser()}",
        )
        if options.word == "check":
            check(engine, settings, now)
        elif options.word == "enable":
            enable(engine, settings, options.name, by, now)
        else:
            for name in disable(engine, options.name, by, now):
                print(f"{name} requires it, and cannot run any more", file=sys.stderr)
    records = list_plugins(observer)
    if options.word in ("enable", "disable"):
        return [record for record in records if record["plugin"] == options.name]
    return [*records, *missing(records, settings.plugins, offered_names())]


def _plugin_section(records: list[Record], _: Translate) -> Section:
    from scheduler.sections import Cell, Section
    from scheduler.wording import WORDS, one_line

    headers = [_("plugin"), _("version"), _("state"), _("origin"), _("tasks"), _("reason")]
    rows = [
        (
            one_line(record["plugin"]),
            one_line(record["version"]) or "-",
            Cell(_(WORDS[record["state"]]), record["state"]),
            one_line(record["origin"]),
            ", ".join(record["tasks"]) or "-",
            one_line(record["reason"]),
        )
        for record in records
    ]
    return Section("", headers, rows, wrapped=(4,))


def _task_section(records: list[Record], _: Translate) -> Section:
    from scheduler.plugin_listing import parameters
    from scheduler.sections import Cell, Section
    from scheduler.wording import WORDS, one_line

    headers = [_("task"), _("plugin"), _("state"), _("parameters"), _("what it does")]
    rows = [
        (
            record["task"],
            record["plugin"],
            Cell(_(WORDS[record["state"]]), record["state"]),
            ", ".join(item["name"] for item in parameters(record["params"])) or "-",
            one_line(record["description"]),
        )
        for record in records
    ]
    return Section("", headers, rows, wrapped=(3,))


def _parameter_section(records: list[Record], _: Translate) -> Section:
    from scheduler.plugin_listing import parameters
    from scheduler.sections import Section
    from scheduler.wording import one_line

    task = records[0]
    headers = [_("parameter"), _("type"), _("default"), _("what it is")]
    rows = [
        (
            item["name"],
            one_line(item["type"]),
            _("needed") if item["required"] else json.dumps(item["default"], ensure_ascii=False),
            one_line(item["description"]),
        )
        for item in parameters(task["params"])
    ]
    title = f"{task['task']}: {one_line(task['name'])}. {one_line(task['description'])}"
    return Section(title, headers, rows, note="" if rows else _("it has no parameters"))
