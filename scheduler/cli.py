"""What main.py's actions do. Data on stdout, talk on stderr."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import signal
import sys
from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Any

from config.settings import load_settings
from core import db
from core.errors import AlreadyRunning, NavKeeperError, UsageError
from core.initialise import ensure_ready, initialise
from core.trading_calendar import TradingCalendar, load_calendar
from scheduler import run_store
from scheduler.clock import Clock, clock_from
from scheduler.exit_codes import FAILED, OK, STOPPED, exit_code
from scheduler.job import DONE_WELL, RunStatus
from scheduler.log_file import log_to
from scheduler.plan import asked_date
from scheduler.run_store import End

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.settings import Settings

TASK_OF = {
    "nav": ("collect", "collect_nav"),
    "backfill": ("backfill", "backfill_nav"),
    "validate": ("validate", "validate_nav"),
    "metrics": ("metrics", "calculate_metrics"),
    "weekly": ("weekly", "weekly_full_calc"),
}
ALLOWED = {
    "nav": {"date", "start", "end", "fund", "type", "source", "json", "dry_run"},
    "backfill": {"start", "end", "fund", "type", "source", "json"},
    "validate": {"date", "json", "dry_run", "force"},
    "metrics": {"date", "fund", "instant", "json", "dry_run"},
    "weekly": {"date", "json"},
    "all": {"date", "source", "json"},
    "status": {"json"},
    "token": {"json"},
    "doctor": {"json", "only"},
}
COMMANDS = ("jobs", "runs")
EVIDENCE = ("quality", "report", "quarantine", "nav show", "metrics show", "rank", "export", "risk-free")
# Where each is done that has a parser of its own, which lets through only what means something to it.
OWN_LINES = {
    "alert": "scheduler.alert_line",
    "cache": "scheduler.cache_line",
    **dict.fromkeys(("plugins", "tasks"), "scheduler.plugin_line"),
    "events": "scheduler.event_line",
    **dict.fromkeys(COMMANDS, "scheduler.command_line"),
    **dict.fromkeys(EVIDENCE, "scheduler.evidence_line"),
    **dict.fromkeys(("backup", "restore"), "scheduler.backup_line"),
}
KEYBOARD = "stopped from the keyboard"
OPTION = {"start": "--from", "end": "--to", "instant": "--as-of", "dry_run": "--dry-run"}


def run(action: str, options: argparse.Namespace, words: list[str]) -> int:
    """Do `action`; returns the exit code. The one place where typed errors become a line on stderr."""
    _stop_like_ctrl_c()
    try:
        for name, value in vars(options).items():
            if value and action not in OWN_LINES and name not in ALLOWED.get(action, set()):
                raise UsageError(f"{OPTION.get(name, '--' + name)} means nothing to {action}")
        return _dispatch(action, options, words)
    except NavKeeperError as error:
        print(f"{action}: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print(f"\n{action}: stopped", file=sys.stderr)
        return STOPPED


def _stop_like_ctrl_c() -> None:
    """A closed terminal and a polite kill end an action as Ctrl-C does: its run is marked, its job free."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
            signal.signal(number, signal.default_int_handler)


def _dispatch(action: str, options: argparse.Namespace, words: list[str]) -> int:
    if action == "scheduler":
        from scheduler.run_scheduler import run as run_daemon

        return run_daemon()
    if action == "monitor":
        from scheduler.monitor import main as monitor

        return monitor(words)
    if action == "health":
        from scheduler.health_check import main as health

        return health(words)
    settings = load_settings()
    if action != "doctor":  # it looks at the home folder itself
        log_to(settings, "cli.log", console=False)
    if action == "token":
        return _token(settings, as_json=options.json)
    if action == "demo":
        from scheduler.demo import demo

        return demo(settings)
    if action in OWN_LINES:
        code: int = import_module(OWN_LINES[action]).do(action, options, settings)
        return code
    return Command(settings, options).do(action)


def _token(settings: Settings, *, as_json: bool) -> int:
    """Print a token that is kept nowhere, and what to set so that it is known."""
    from config.translation import translator
    from scheduler.monitor import readable
    from scheduler.web.access import new_token, token_hash

    _, token = translator(readable(settings.language)), new_token()
    if as_json:
        print(json.dumps({"token": token, "hash": token_hash(token)}))
        return OK
    print(f"{_('token, shown this once and kept nowhere: {token}').format(token=token)}\n")
    print(_("set one of these where the server runs, in its environment or in .env, and restart it:"))
    print(f"NAVKEEPER_ADMIN_TOKEN_HASH={token_hash(token)}   # {_('may read and act')}")
    print(f"NAVKEEPER_VIEWER_TOKEN_HASH={token_hash(token)}  # {_('may read')}")
    return OK


class Command:
    """One call of main.py on one database."""

    def __init__(self, settings: Settings, options: argparse.Namespace) -> None:
        self.settings = settings
        self.options = options
        self.clock: Clock = clock_from(settings)
        self.engine: Engine = db.connect(settings.database_url())

    def do(self, action: str) -> int:
        if action == "init":
            initialise(self.engine, self.clock())
            print(f"ready: {db.shown(self.engine.url)}", file=sys.stderr)
            return OK
        if action == "doctor":
            from scheduler.doctor import doctor

            return doctor(
                self.engine,
                self.settings,
                self.clock(),
                as_json=self.options.json,
                only=self.options.only,
            )
        if action == "status":
            return self.status()
        ensure_ready(self.engine, self.clock())
        if self.options.dry_run:
            return self.dry_run(action)
        if action == "all":
            for step in ("nav", "validate", "metrics"):
                code = self.run_step(step)
                if code != OK:
                    return code
            return OK
        return self.run_step(action)

    def calendar(self) -> TradingCalendar:
        with db.read(self.engine) as connection:
            calendar = load_calendar(connection)
        assert calendar is not None  # noqa: S101 - ensure_ready filled it
        return calendar

    def business_date(self) -> date:
        """--date, which must be a trading day that has come, or the newest one."""
        return asked_date(self.calendar(), self.options.date, self.clock())

    def run_step(self, step: str) -> int:
        """Do one step as a run of its own, in this process, seen by daemon and dashboard."""
        day = self.business_date()
        params: dict[str, Any] = {}
        if step in ("nav", "backfill"):
            step, params = self._collection(day, history=step == "backfill")
            day = date.fromisoformat(params.get("end", day.isoformat()))
        if step == "metrics":
            params = self._measured()
            if "as_of" in params:
                params["as_of"] = params["as_of"].isoformat()
        from config.translation import translator
        from scheduler.fund_plugin import TASKS
        from scheduler.heartbeat import signs_of_life
        from scheduler.progress import shown_progress
        from scheduler.run_context import RunContext
        from scheduler.runner import execute
        from scheduler.supervisor import end_for_dead

        if step == "validate" and self.options.force:
            params["force"] = True
        run_row, claim = self._claimed(*TASK_OF[step], day, params)
        try:
            with (
                shown_progress(step) as progress,
                signs_of_life(
                    self.engine, run_row.id, claim, self.clock, lambda: os.kill(os.getpid(), signal.SIGTERM)
                ),
            ):
                context = RunContext(
                    self.engine,
                    self.settings,
                    run_row,
                    claim,
                    self.clock,
                    table_name=TASKS[run_row.task].table_name,
                    translate=translator(self.settings.language),
                    progress=progress,
                )
                end = execute(context, run_row)
        except KeyboardInterrupt:
            with db.write(self.engine) as connection:
                end_for_dead(connection, run_row, End(RunStatus.INTERRUPTED, 0, KEYBOARD), self.clock())
            raise
        self._print_result(step, day, end, context.details)
        return OK if end.status in DONE_WELL or end.status is RunStatus.SKIPPED else FAILED

    def _collection(self, day: date, *, history: bool = False) -> tuple[str, dict[str, Any]]:
        """The newest rows of everything, or a back-fill when history is asked for."""
        options = self.options
        params: dict[str, Any] = {}
        if options.source:
            from scheduler.sources import make_source

            make_source(self.settings, options.source).close()  # a wrong path is refused before a run exists
            params["source"] = options.source
        start, end = options.start, options.end
        if options.date is not None:
            if start or end:
                raise UsageError("give either --date or --from/--to")
            if day != self.calendar().newest_business_date(self.clock()):
                start = end = day  # the whole-market pages show only the newest rows
        if start and end and start > end:
            raise UsageError(f"--from {start} is after --to {end}")
        chosen = options.fund or options.type
        if end and not (start or chosen or history):
            raise UsageError(f"--to {end} needs --from: since when?")
        if not (start or end or chosen or history):
            return "nav", params
        if options.fund:
            self._refuse_unknown(options.fund, options.source)
            params["fund_codes"] = tuple(options.fund)
        if options.type:
            self._refuse_unknown_type(options.type, options.source)
            params["fund_type"] = options.type
        return "backfill", params | {
            name: day.isoformat() for name, day in (("start", start), ("end", end)) if day
        }

    def _refuse_unknown_type(self, wanted: str, spec: str | None) -> None:
        """Raises UsageError for a type of no fund, whether we or the source know it."""
        from core.nav_store import fund_types
        from scheduler.backfill_task import of_type
        from scheduler.sources import make_source

        with db.read(self.engine) as connection:
            types = fund_types(connection)
        if not types:
            source = make_source(self.settings, spec)
            try:
                types = {fund.fund_code: fund.fund_type for fund in source.fund_list()}
            finally:
                source.close()
        of_type(types, types, wanted)

    def _refuse_unknown(self, codes: list[str], spec: str | None) -> None:
        """Raises UsageError for a code that neither we nor the source know."""
        from core.nav_store import known_funds
        from scheduler.sources import make_source

        with db.read(self.engine) as connection:
            unknown = set(codes) - set(known_funds(connection))
        if unknown:
            source = make_source(self.settings, spec)
            try:
                unknown -= {fund.fund_code for fund in source.fund_list()}
            finally:
                source.close()
        if unknown:
            raise UsageError(f"--fund {', '.join(sorted(unknown))}: the source knows no such fund")

    def _measured(self) -> dict[str, Any]:
        """What is to be measured, as calculate_metrics takes it."""
        found: dict[str, Any] = {"fund_codes": self._measured_funds()} if self.options.fund else {}
        return found | ({"as_of": self.options.instant} if self.options.instant else {})

    def _measured_funds(self) -> tuple[str, ...]:
        from core.nav_store import known_funds

        with db.read(self.engine) as connection:
            unknown = sorted(set(self.options.fund) - set(known_funds(connection)))
        if unknown:
            raise UsageError(
                f"--fund {', '.join(unknown)} has no NAVs; first run: main.py nav --fund {unknown[0]}"
            )
        return tuple(self.options.fund)

    def _claimed(self, job_id: str, task: str, day: date, params: dict[str, Any]) -> tuple[Any, str]:
        from scheduler.process_identity import Process, this_process
        from scheduler.supervisor import end_for_dead

        now = self.clock()
        with db.write(self.engine) as connection:
            busy = run_store.running_job(connection, job_id)
            if busy is not None:
                process = Process(busy.host, busy.pid, busy.pid_started)
                if process.host != this_process().host or process.is_alive():
                    raise AlreadyRunning(
                        f"{job_id} runs already: run {busy.id}, pid {busy.pid} on {busy.host}"
                    )
                end_for_dead(connection, busy, run_store.GONE, now)
            run_id = run_store.add_run(
                connection,
                job_id=job_id,
                task=task,
                business_date=day,
                status=RunStatus.QUEUED,
                now=now,
                params=params,
                requested_by=f"cli:{getpass.getuser()}",
            )
            assert run_id is not None  # noqa: S101 - only a scheduled fire can exist already
            row = run_store.get_run(connection, run_id)
            assert row is not None  # noqa: S101
            claim = run_store.claim_run(connection, row, this_process(), now)
            row = run_store.get_run(connection, run_id)
        if claim is None:
            raise AlreadyRunning(f"{job_id} was started by someone else this moment")
        return row, claim

    def _print_result(self, step: str, day: date, end: End, details: dict[str, Any]) -> None:
        status, count, reason = end.status, end.record_count, end.reason
        validation = details.get("validation")
        if self.options.json:
            result: dict[str, Any] = {
                "action": step,
                "business_date": day.isoformat(),
                "status": status.value,
                "record_count": count,
                "reason": reason,
            }
            result |= details.get("backfill", {})
            if validation is not None:
                result["validation"] = _jsonable(validation)
            print(json.dumps(result, ensure_ascii=False))
            return
        stream = sys.stdout if status in DONE_WELL else sys.stderr
        print(f"{step} {day}: {status.value}, {count} records{f' - {reason}' if reason else ''}", file=stream)
        if validation is not None:
            for rule in validation.details:
                if rule.failed:
                    print(
                        f"  {rule.rule_id}: {rule.failed} of {rule.checked}; e.g. {rule.samples[0]}",
                        file=stream,
                    )

    def dry_run(self, action: str) -> int:
        """Fetch and check, write nothing."""
        from scheduler.dry_run import DRY_RUNS

        day = self.business_date()
        params = self._collection(day)[1] if action == "nav" else {}
        if action == "metrics":
            params = self._measured()
        found = DRY_RUNS[action](self.engine, self.settings, self.calendar(), day, self.clock(), params)
        if self.options.json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            for key, value in found.items():
                print(f"{key}: {value}")
        return OK

    def status(self) -> int:
        """One line for scripts: the verdict, why, and what to type. 0 only if all is well."""
        from config.translation import translator
        from scheduler.jobs import all_jobs
        from scheduler.monitor import verdict_line
        from scheduler.overview import collect_overview, observer_engine

        engine = observer_engine(self.settings.database_url())
        overview = collect_overview(engine, all_jobs(self.settings.jobs_file, engine), self.clock())
        if self.options.json:
            print(json.dumps(overview.as_json(), ensure_ascii=False))
        else:
            print(verdict_line(overview, translator(self.settings.language)).plain)
        return OK if overview.verdict.state in ("OK", "RUNNING") else FAILED


def _jsonable(validation: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(validation)
