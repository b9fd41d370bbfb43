"""`main.py jobs create|import|change|delete|show|export`: what may be typed, and what is done then."""

from __future__ import annotations

import argparse
import getpass
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Engine

    from config.settings import Settings
    from scheduler.clock import Clock
    from scheduler.listing import Record

WORDS = ("create", "import", "change", "delete", "show", "export")
# Options that are keys of a definition, with what they take.
KEYS: dict[str, tuple[str, str]] = {
    "task": ("TASK", "what it does"),
    "crontab": ("LINE", "when, as five fields: '0 19 * * 1-5' (weekdays as crontab counts them)"),
    "every": ("TIME", "how often: 10m, 2h, 1d"),
    "at": ("INSTANT", "once: 2026-03-01T09:30, by the clock of its timezone"),
    "on_event": ("TOPIC", "at each event of this topic, such as data.nav.merged or run.*"),
    "params": ("JSON", 'of its task, such as \'{"source": "eastmoney"}\''),
    "needs": ("A,B", "jobs that must have succeeded for the same date; or JSON with conditions"),
    "fresh": ("TABLE", "wait until this table has been updated for the date"),
    "timezone": ("ZONE", "of its times (Asia/Shanghai)"),
    "calendar": ("CODE", "only on trading days: XSHG, XHKG, XNYS, ...; '' for every day"),
    "business_date": ("WHICH", "session, last_session or previous_session"),
    "timeout_minutes": ("N", "its time limit (60)"),
    "max_parallel": ("N", "runs of it at once (1)"),
    "name": ("TEXT", "shown to people"),
    "description": ("TEXT", "shown to people"),
}
FLAGS = {"crontab": "--cron", "on_event": "--on"}
AS_JSON = ("params",)
NUMBERS = ("timeout_minutes", "max_parallel")


def add_words(words: Any, word_of: Any, name_of: Any) -> None:
    """The words among those of `jobs`."""
    for name, text in (
        ("create", "a new job, kept in the database; the daemon has it within two seconds"),
        ("change", "only what is given; an empty text takes a key away"),
    ):
        word = word_of(words, name, text)
        word.add_argument("job", type=name_of, metavar="NAME")
        for key, (metavar, about) in KEYS.items():
            flag = FLAGS.get(key, f"--{key.replace('_', '-')}")
            word.add_argument(flag, dest=f"key_{key}", metavar=metavar, help=about)
        word.add_argument("--attempts", metavar="N", help="how often it is tried (1)")
        word.add_argument("--catch-up", metavar="POLICY", help="fires missed: all, last or none")
        word.add_argument(
            "--file", type=Path, metavar="PATH", help="the keys as TOML, as jobs export writes them"
        )
        word.add_argument("--reason", metavar="TEXT", help="why; kept with the version")
    word = word_of(words, "import", "every job of a file, such as config/market_jobs.toml, or none of them")
    word.add_argument(
        "file", type=Path, metavar="FILE", help="TOML, a table for each job, as jobs export writes them"
    )
    word.add_argument("--reason", metavar="TEXT", help="why; kept with the versions")
    word = word_of(words, "delete", "its runs stay; those that wait are skipped")
    word.add_argument("job", type=name_of, metavar="NAME")
    word.add_argument("--reason", metavar="TEXT", help="why; kept with the version")
    for name, text in (
        ("show", "its definition, when it is due next, who changed it when"),
        ("export", "its definition as TOML, for jobs create --file or config/jobs.toml"),
    ):
        word_of(words, name, text).add_argument("job", type=name_of, metavar="NAME")


def table_from(options: argparse.Namespace) -> dict[str, Any]:
    """The keys given, as a definition has them; what was given empty is None. Raises UsageError."""
    from core.errors import JobRefused

    table: dict[str, Any] = _from_file(options.file) if options.file else {}
    for key in KEYS:
        text = getattr(options, f"key_{key}")
        if text is None:
            continue
        value: Any = text or None
        if text and key in AS_JSON:
            value = json_of(key, text)
        elif text and key == "needs":
            value = needs_of(text)
        elif text and key in NUMBERS:
            value = number_of(text)
        table[key] = value
    if options.attempts is not None:
        table["retry"] = {**(table.get("retry") or {}), "attempts": number_of(options.attempts)}
    if options.catch_up is not None:
        table["catch_up"] = {"policy": options.catch_up}
    if not table:
        raise JobRefused("task", f"nothing is given; see main.py jobs {options.word} --help")
    return table


def _from_file(path: Path) -> dict[str, Any]:
    """Its keys, or those of the one table in it. Raises UsageError."""
    table = _read(path)
    inner = list(table.values())
    return inner[0] if len(inner) == 1 and isinstance(inner[0], dict) and "task" in inner[0] else table


def _tables_from(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a file, each a job. Raises UsageError."""
    from core.errors import UsageError

    tables = _read(path)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} must be a table such as [{name}]; nothing is stored")
    if not tables:
        raise UsageError(f"{path} has no jobs")
    return tables


def _read(path: Path) -> dict[str, Any]:
    from core.errors import UsageError

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def needs_of(text: str) -> Any:
    """Names with commas, or a list as JSON. Raises JobRefused."""
    return json_of("needs", text) if text.startswith("[") else [part.strip() for part in text.split(",")]


def json_of(key: str, text: str) -> Any:
    """Raises JobRefused."""
    from scheduler.job_definition import refusal

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refusal(key, text, f"no JSON: {error}") from None


def number_of(text: str) -> int | float | str:
    """A text that is no number stays what it is: it is refused where all keys are."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def change(options: argparse.Namespace, settings: Settings, observer: Engine, clock: Clock) -> None:
    """Do what was typed, without a daemon. Raises UsageError."""
    from core import db
    from scheduler.command_line import printed
    from scheduler.job_changes import Asked, change_job, create_job, create_jobs, delete_job
    from scheduler.jobs_file import load_jobs
    from scheduler.listing import as_json

    with db.read(observer):  # a database that is not there is refused here, not made
        pass
    engine, of_file = db.connect(settings.database_url()), load_jobs(settings.jobs_file)
    asked = Asked(f"cli:{getpass.getuser()}", clock(), options.reason)
    if options.word == "import":
        versions = _imported(options.file, lambda tables: create_jobs(engine, of_file, tables, asked))
    elif options.word == "delete":
        versions = {options.job: delete_job(engine, of_file, options.job, asked)}
    elif options.word == "create":
        versions = {options.job: create_job(engine, of_file, options.job, table_from(options), asked)}
    else:
        versions = {options.job: change_job(engine, of_file, options.job, table_from(options), asked)}
    done = {"create": "made", "import": "made", "change": "changed", "delete": "deleted"}[options.word]
    for job, version in versions.items():
        record = {"job": job, "action": options.word, "version": version}
        printed(f"{as_json(record) if options.json else f'{job} is {done}: version {version}'}\n")


def _imported(path: Path, store: Callable[[dict[str, dict[str, Any]]], dict[str, int]]) -> dict[str, int]:
    from core.errors import JobRefused

    try:
        return store(_tables_from(path))
    except JobRefused as error:
        text = f"{path}: [{error.job}] {error}; nothing is stored"
        raise JobRefused(error.field, text, error.job, conflict=error.conflict) from None


def look(options: argparse.Namespace, settings: Settings, observer: Engine, clock: Clock) -> None:
    """Print the definition. Raises UsageError."""
    from scheduler.command_line import printed
    from scheduler.job_listing import show_job
    from scheduler.jobs import all_jobs
    from scheduler.listing import as_json

    record = show_job(observer, all_jobs(settings.jobs_file, observer), options.job, clock())
    if options.word == "export":
        printed(toml_of(options.job, record["definition"]))
    elif options.json:
        printed(f"{as_json(record)}\n")
    else:
        printed(_words(record))


def _words(record: Record) -> str:
    lines = [
        f"{key}: {', '.join(value) if isinstance(value, list) else value}"
        for key, value in record.items()
        if key not in ("definition", "versions") and value
    ]
    lines += [
        "definition:",
        *(f"  {line}" for line in toml_of(record["job"], record["definition"]).splitlines()),
    ]
    for item in record["versions"]:
        what = "deleted" if item["definition"] is None else "changed" if item["version"] > 1 else "made"
        why = f": {item['reason']}" if item["reason"] else ""
        lines.append(f"version {item['version']} {what} by {item['changed_by']} at {item['changed_at']}{why}")
    return "\n".join(lines) + "\n"


def toml_of(name: str, table: Mapping[str, Any]) -> str:
    """The table as TOML. JSON's texts, numbers, lists are TOML's."""
    return "\n".join([f"[{_key(name)}]", *(f"{key} = {_value(value)}" for key, value in table.items()), ""])


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_value(part)}" for key, part in value.items() if part is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_value(part) for part in value)}]"
    # DEL is the one sign that JSON leaves as it is and TOML does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
