"""`main.py doctor`: what could be wrong on this machine, and what to do about it."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, func, select

from config.settings import Settings
from core import db
from core.errors import ConfigurationError, NavKeeperError, UsageError
from core.schema import fund_info
from core.thresholds import load_thresholds
from core.trading_calendar import SHANGHAI, load_calendar
from scheduler import plugin_store
from scheduler.alert_channels import check_channels
from scheduler.alert_rules import FREE_BYTES
from scheduler.exit_codes import FAILED, OK
from scheduler.jobs_file import load_jobs
from scheduler.overview import HEARTBEAT_SECONDS, daemon_state
from scheduler.run_scheduler import pid_file
from scheduler.sources import make_source
from scheduler.task_catalogue import require_known
from scheduler.task_parts import RULES_FILE

OK_, WARNING, FAILURE = "ok", "warning", "failure"
SHOWN = {OK_: "ok  ", WARNING: "warn", FAILURE: "BAD "}
CONFIRMED_DAYS = 45
NIGHTS = 60  # free space for fewer is too little
BYTES_A_FUND = 2_500  # of a night: NAV, metrics, ranks, score, staged row, with their indexes
MARKET = 26_000  # funds, where none are listed yet
SKEW_SECONDS, SKEW_LIMIT = 5, HEARTBEAT_SECONDS  # worth a word; signs of life are not believed any more
LOCKS = Path("/proc/locks")


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is (`ok`, `warning`, `failure`), and in words, with what to do."""

    name: str
    level: str
    text: str


Examine = Callable[[Engine, Settings, datetime], Check]


def doctor(
    engine: Engine, settings: Settings, now: datetime, *, as_json: bool, only: str | None = None
) -> int:
    """Print one line per check, or that of the only one wanted; exit code 1 if something needs action.

    Raises UsageError for a check that there is not.
    """
    if only is not None and only not in CHECKS:
        raise UsageError(f"there is no check {only!r}; there are {', '.join(CHECKS)}")
    checks = list(_examined(engine, settings, now, [only] if only else list(CHECKS)))
    if as_json:
        records = [asdict(check) | {"ok": check.level != FAILURE} for check in checks]
        print(json.dumps(records, ensure_ascii=False))
    else:
        for check in checks:
            print(f"{SHOWN[check.level]} {check.name}: {check.text}")
    return FAILED if any(check.level == FAILURE for check in checks) else OK


def _examined(engine: Engine, settings: Settings, now: datetime, names: list[str]) -> Iterator[Check]:
    """What needs a database is left out where there is none; what is asked for alone then says why."""
    database = _database(engine, settings, now)
    usable = database.level != FAILURE
    for name in names:
        if name == database.name or (name in NEEDS_DATABASE and not usable and len(names) == 1):
            yield database
        elif usable or name not in NEEDS_DATABASE:
            yield CHECKS[name](engine, settings, now)


def _configuration(_engine: Engine, settings: Settings, _now: datetime) -> Check:
    try:
        jobs = load_jobs(settings.jobs_file)
        load_thresholds(RULES_FILE)
    except ConfigurationError as error:
        return Check("configuration", FAILURE, str(error))
    for job in jobs.values():
        try:
            require_known(job.task, job.params)
        except UsageError as error:
            return Check("configuration", FAILURE, f"{settings.jobs_file.name}: [{job.id}] {error}")
    return Check("configuration", OK_, f"{len(jobs)} jobs: {', '.join(jobs)}")


def _home(_engine: Engine, settings: Settings, _now: datetime) -> Check:
    """Whether logs, pid file and database can be written where they belong."""
    try:
        settings.logs.mkdir(parents=True, exist_ok=True)
        for folder in (settings.home, settings.logs):
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        text = f"NAVKEEPER_HOME = {settings.home} cannot be written: {error.strerror}"
        return Check("home", FAILURE, f"{text}; name a folder that can")
    return Check("home", OK_, str(settings.home))


def _database(engine: Engine, _settings: Settings, _now: datetime) -> Check:
    try:
        if db.is_empty(engine) or not db.is_current(engine):
            return Check("database", FAILURE, db.outdated_message(engine))
    except NavKeeperError as error:
        return Check("database", FAILURE, str(error))
    return Check("database", OK_, f"{db.shown(engine.url)}, tables of version {db.newest_revision()}")


def _calendar(engine: Engine, _settings: Settings, now: datetime) -> Check:
    with db.read(engine) as connection:
        calendar = load_calendar(connection)
    if calendar is None:
        return Check("calendar", FAILURE, "the trading calendar is empty; run: python main.py init")
    today = now.astimezone(SHANGHAI).date()
    confirmed = max(day for day in calendar.sessions if day not in calendar.provisional)
    left = (confirmed - today).days
    text = f"confirmed to {confirmed}, {left} days ahead"
    if left >= CONFIRMED_DAYS:
        return Check("calendar", OK_, text)
    advice = "the exchange announces the next year in December; then upgrade exchange-calendars and run: main.py init"
    return Check("calendar", WARNING if left > 0 else FAILURE, f"{text}; {advice}")


def _daemon(engine: Engine, _settings: Settings, now: datetime) -> Check:
    """One that was never started is no fault of this machine; one that died or was stopped is."""
    with db.read(engine) as connection:
        found = daemon_state(connection, now)
    start = "start it: nohup python scheduler/run_scheduler.py &"
    if found.heartbeat_at is None:
        return Check("daemon", WARNING, f"not started yet on this database; {start}")
    who = f"pid {found.pid} on {found.host}"
    last = f"{found.heartbeat_at.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}"
    texts = {
        "running": f"{who}, last beat {found.heartbeat_age_seconds} s ago",
        "daemon_stopped": f"{who} was stopped at {last}; {start}",
        "daemon_gone": f"{who} died, its last beat was at {last}; see logs/daemon.log, then {start}",
        "heartbeat_old": f"{who}, last beat {found.heartbeat_age_seconds} s ago, at {last}: it hangs, "
        f"its host is gone or its clock is off; end it if it is there, then {start}",
    }
    return Check("daemon", OK_ if found.running else FAILURE, texts[found.state])


def _lock(engine: Engine, settings: Settings, now: datetime) -> Check:
    """Whether who holds the daemon's lock on this machine is who gives the signs of life."""
    path = pid_file(settings)
    try:
        inode = path.stat().st_ino
        holders = [line.split() for line in LOCKS.read_text(encoding="ascii").splitlines() if "FLOCK" in line]
    except OSError as error:  # never started here, or not Linux
        return Check("lock", OK_, f"{path}: {error.strerror}")
    pid = next((int(words[4]) for words in holders if words[5].endswith(f":{inode}")), None)
    with db.read(engine) as connection:
        found = daemon_state(connection, now)
    if pid is None:
        return Check("lock", OK_, f"{path}: nobody holds it")
    if (
        found.running or engine.dialect.name != "sqlite"
    ):  # with a server it may stand by while another host's leads
        return Check("lock", OK_, f"{path}: held by pid {pid}")
    text = f"{path}: held by pid {pid}, yet no daemon gives a sign of life; see logs/daemon.log"
    return Check("lock", FAILURE, f"{text}, and if it hangs: kill {pid}")


def _clock(engine: Engine, settings: Settings, _now: datetime) -> Check:
    """This machine's clock beside the file system's and the database server's, whatever time the daemon is told."""
    skews = {}
    if engine.dialect.name != "sqlite":
        with db.read(engine) as connection:
            before = time.time()
            server = connection.execute(select(func.unix_timestamp(func.now(6)))).scalar_one()
            skews["the database server's"] = float(server) - (before + time.time()) / 2
    try:
        with tempfile.TemporaryFile(dir=settings.home) as file:
            skews["the file system's"] = os.fstat(file.fileno()).st_mtime - time.time()
    except OSError:  # said by _home
        pass
    worst = max((abs(skew) for skew in skews.values()), default=0.0)
    text = ", ".join(f"{skew:+.1f} s to {name}" for name, skew in skews.items())
    if worst < SKEW_SECONDS:
        return Check("clock", OK_, text)
    advice = "set this machine's and the server's clock by NTP: timedatectl set-ntp true"
    return Check("clock", WARNING if worst < SKEW_LIMIT else FAILURE, f"{text}; {advice}")


def _disk(engine: Engine, settings: Settings, _now: datetime) -> Check:
    """Free space where database and logs grow, in bytes and in nights. A server's own disk is not seen from here."""
    night = BYTES_A_FUND * _funds(engine)
    url = settings.database_url()
    in_file = url.get_backend_name() == "sqlite"
    folders = {settings.logs, Path(str(url.database)).absolute().parent if in_file else settings.home}
    worst, texts = OK_, []
    for folder in sorted(folders):
        try:
            while not folder.exists():
                folder = folder.parent
            free = shutil.disk_usage(folder).free
        except OSError as error:
            return Check("disk", FAILURE, f"{folder} cannot be looked at: {error.strerror}")
        texts.append(f"{free / 1e9:.1f} GB free at {folder}")
        level = FAILURE if free < FREE_BYTES else WARNING if free < NIGHTS * night else OK_
        worst = max(worst, level, key=[OK_, WARNING, FAILURE].index)
    wanted = f"at least {FREE_BYTES / 1e9:.0f} GB needed, a night takes some {night / 1e6:.0f} MB"
    more = "" if in_file else "; the database server's own disk is not seen from here"
    advice = "" if worst == OK_ else "; make room, or move NAVKEEPER_HOME to a larger disk"
    return Check("disk", worst, f"{', '.join(dict.fromkeys(texts))}; {wanted}{more}{advice}")


def _funds(engine: Engine) -> int:
    try:
        with db.read(engine) as connection:
            return connection.scalar(select(func.count()).select_from(fund_info)) or MARKET
    except NavKeeperError:
        return MARKET


def _source(_engine: Engine, settings: Settings, _now: datetime) -> Check:
    try:
        source = make_source(settings)
        try:
            funds = len(source.fund_list())
        finally:
            source.close()
    except UsageError as error:
        near = difflib.get_close_matches(settings.source.lower(), ["eastmoney"], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return Check("source", FAILURE, f"NAVKEEPER_SOURCE = {settings.source!r}: {error}{hint}")
    except NavKeeperError as error:
        return Check("source", FAILURE, str(error))
    return Check("source", OK_, f"{source.provenance}: {funds} funds listed")


def _alerts(_engine: Engine, settings: Settings, _now: datetime) -> Check:
    found = check_channels(settings)
    if not found:
        return Check(
            "alerts", WARNING, "nobody is told of trouble: set NAVKEEPER_ALERT_CHANNELS, docs/alerts.md"
        )
    level = OK_ if all(channel.ok for channel in found) else FAILURE
    return Check("alerts", level, "; ".join(f"{channel.name}: {channel.text}" for channel in found))


def _plugins(engine: Engine, settings: Settings, _now: datetime) -> Check:
    """As they were when last looked at."""
    if not settings.plugins:
        return Check("plugins", OK_, "none are allowed (NAVKEEPER_PLUGINS)")
    with db.read(engine) as connection:
        found = {item.name: item for item in plugin_store.plugins(connection)}
    broken = [f"{item.id}: {item.reason}" for item in found.values() if item.state == plugin_store.FAILED]
    unseen = [name for name in settings.plugins if name not in found]
    if broken:
        return Check("plugins", WARNING, f"{'; '.join(broken)}; the fund tasks do not need them")
    if unseen:
        return Check(
            "plugins", WARNING, f"{', '.join(unseen)}: not looked at yet; run: main.py plugins check"
        )
    states = ", ".join(f"{item.id} {item.version} {item.state}" for item in found.values())
    return Check("plugins", OK_, states)


CHECKS: dict[str, Examine] = {
    "configuration": _configuration,
    "home": _home,
    "database": _database,
    "calendar": _calendar,
    "daemon": _daemon,
    "lock": _lock,
    "clock": _clock,
    "disk": _disk,
    "source": _source,
    "alerts": _alerts,
    "plugins": _plugins,
}
NEEDS_DATABASE = ("calendar", "daemon", "lock", "clock", "plugins")
