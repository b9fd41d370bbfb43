"""`main.py doctor`: what could be wrong on this machine, and what to do about it."""

from __future__ import annotations

import difflib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from core import db
from core.errors import ConfigurationError, NavKeeperError, UsageError
from core.thresholds import load_thresholds
from core.trading_calendar import SHANGHAI, load_calendar
from scheduler.alert_channels import check_channels
from scheduler.alert_rules import FREE_BYTES
from scheduler.exit_codes import FAILED, OK
from scheduler.jobs_file import load_jobs
from scheduler.overview import daemon_state
from scheduler.sources import make_source
from scheduler.task_parts import RULES_FILE
from scheduler.tasks import TASKS

if TYPE_CHECKING:
    from config.settings import Settings

CONFIRMED_DAYS = 45


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    text: str


def doctor(engine: Engine, settings: Settings, now: datetime, *, as_json: bool) -> int:
    """Print one line per check; exit code 1 if one failed."""
    checks = [_configuration(settings), _home(settings), _database(engine)]
    if checks[-1].ok:
        checks += [_calendar(engine, now), _daemon(engine, now)]
    checks += [_disk(settings), _source(settings)]
    checks += [Check(f"alerts, {found.name}", found.ok, found.text) for found in check_channels(settings)]
    if as_json:
        print(json.dumps([asdict(check) for check in checks], ensure_ascii=False))
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'BAD '} {check.name}: {check.text}")
    return OK if all(check.ok for check in checks) else FAILED


def _configuration(settings: Settings) -> Check:
    try:
        jobs = load_jobs(settings.jobs_file)
        load_thresholds(RULES_FILE)
    except ConfigurationError as error:
        return Check("configuration", False, str(error))
    unknown = [job.task for job in jobs.values() if job.task not in TASKS]
    if unknown:
        return Check("configuration", False, f"{settings.jobs_file.name}: unknown task {unknown[0]}")
    return Check("configuration", True, f"{len(jobs)} jobs: {', '.join(jobs)}")


def _home(settings: Settings) -> Check:
    """Whether logs, pid file and database can be written where they belong."""
    try:
        settings.logs.mkdir(parents=True, exist_ok=True)
        for folder in (settings.home, settings.logs):
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        text = f"NAVKEEPER_HOME = {settings.home} cannot be written: {error.strerror}"
        return Check("home", False, f"{text}; name a folder that can")
    return Check("home", True, str(settings.home))


def _database(engine: Engine) -> Check:
    try:
        if db.is_empty(engine) or not db.is_current(engine):
            return Check("database", False, db.outdated_message(engine))
    except NavKeeperError as error:
        return Check("database", False, str(error))
    return Check("database", True, db.shown(engine.url))


def _calendar(engine: Engine, now: datetime) -> Check:
    with db.read(engine) as connection:
        calendar = load_calendar(connection)
    if calendar is None:
        return Check("calendar", False, "the trading calendar is empty; run: python main.py init")
    today = now.astimezone(SHANGHAI).date()
    confirmed = max(day for day in calendar.sessions if day not in calendar.provisional)
    left = (confirmed - today).days
    text = f"confirmed to {confirmed}, {left} days ahead"
    if left >= CONFIRMED_DAYS:
        return Check("calendar", True, text)
    advice = "the exchange announces the next year in December; then upgrade exchange-calendars and run: main.py init"
    return Check("calendar", left > 0, f"{text}; {advice}")


def _daemon(engine: Engine, now: datetime) -> Check:
    """One that was never started is no fault of this machine; one that died or was stopped is."""
    with db.read(engine) as connection:
        found = daemon_state(connection, now)
    start = "start it: nohup python scheduler/run_scheduler.py &"
    if found.heartbeat_at is None:
        return Check("daemon", True, f"not started yet on this database; {start}")
    who = f"pid {found.pid} on {found.host}"
    last = f"{found.heartbeat_at.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"
    texts = {
        "running": f"{who}, last beat {found.heartbeat_age_seconds} s ago",
        "daemon_stopped": f"{who} was stopped at {last}; {start}",
        "daemon_gone": f"{who} died, its last beat was at {last}; see logs/daemon.log, then {start}",
        "heartbeat_old": f"{who}, last beat {found.heartbeat_age_seconds} s ago, at {last}: it hangs, "
        f"its host is gone or its clock is off; end it if it is there, then {start}",
    }
    return Check("daemon", found.running, texts[found.state])


def _disk(settings: Settings) -> Check:
    url = settings.database_url()
    folder = settings.home
    if url.get_backend_name() == "sqlite":
        folder = Path(str(url.database)).absolute().parent
    try:
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", False, f"{folder} cannot be looked at: {error.strerror}")
    text = f"{free / 1e9:.1f} GB free at {folder}; at least {FREE_BYTES / 1e9:.0f} needed"
    return Check("disk", free >= FREE_BYTES, text)


def _source(settings: Settings) -> Check:
    try:
        source = make_source(settings)
        try:
            funds = len(source.fund_list())
        finally:
            source.close()
    except UsageError as error:
        near = difflib.get_close_matches(settings.source.lower(), ["eastmoney"], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return Check("source", False, f"NAVKEEPER_SOURCE = {settings.source!r}: {error}{hint}")
    except NavKeeperError as error:
        return Check("source", False, str(error))
    return Check("source", True, f"{source.provenance}: {funds} funds listed")
