"""The jobs there are: those of the file and those made at run time, as of the last look at the database."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row

from core import db
from core.errors import DatabaseUnavailable, JobRefused, NavKeeperError, SchemaOutdated, UsageError
from core.exchange_days import ensure_exchanges, load_exchange
from scheduler import job_store
from scheduler.job import Job
from scheduler.job_definition import HOME, in_order, job_of
from scheduler.jobs_file import load_jobs
from scheduler.task_catalogue import require_known

log = logging.getLogger(__name__)
Mark = tuple[int, date | None]  # the version, and where the days of its exchange end


class Jobs(Mapping[str, Job]):
    """By id, those needed before those that need them. A stored job that cannot be run is in `wrong`, with the reason,
    and touches no other."""

    def __init__(self, of_file: Mapping[str, Job]) -> None:
        self.of_file = dict(of_file)
        self.wrong: Mapping[str, str] = {}
        self.seen: int | None = None  # the number of changes of the last look
        self._jobs: Mapping[str, Job] = self.of_file
        self._marks: dict[str, Mark] = dict.fromkeys(self.of_file, (0, None))  # who has another is news

    def __getitem__(self, job_id: str) -> Job:
        return self._jobs[job_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def look(self, connection: Connection) -> set[str]:
        """Read them again if anything has changed; the jobs that are new, other than they were, or gone."""
        number = job_store.number_of_changes(connection)
        if number == self.seen:
            return set()
        wrong: dict[str, str] = {}
        rows = {row.id: row for row in job_store.stored_jobs(connection)}
        jobs = {job.id: job for job in (*self.of_file.values(), *self._readable(rows, wrong))}
        jobs = _with_exchanges(connection, jobs, wrong)
        jobs = _without_lost(jobs, wrong)
        marks = {
            name: (
                rows[name].version if name in rows else 0,
                job.exchange.sessions[-1] if job.exchange else None,
            )
            for name, job in jobs.items()
        }
        news = {job_id for job_id in marks | self._marks if marks.get(job_id) != self._marks.get(job_id)}
        for job_id, why in wrong.items():
            if self.wrong.get(job_id) != why:
                log.error("job %s is not run: %s", job_id, why)
        self._jobs, self._marks, self.wrong, self.seen = jobs, marks, wrong, number
        return news

    def refresh(self, engine: Engine) -> None:
        """Look, for who only shows them: while the database is away they are what they were."""
        with suppress(DatabaseUnavailable, SchemaOutdated), db.read(engine) as connection:
            self.look(connection)

    def _readable(self, rows: Mapping[str, Row[Any]], wrong: dict[str, str]) -> Iterator[Job]:
        names = {name.lower() for name in self.of_file}
        for row in rows.values():
            try:
                if row.id in names:
                    raise JobRefused("job", "the jobs file has a job of this name, and that one counts")
                job = job_of(row.id, table_of(row))
                require_known(job.task, job.params)
            except UsageError as error:
                wrong[row.id] = str(error)
            else:
                yield replace(job, since=row.counts_from)


def all_jobs(path: Path, engine: Engine) -> Jobs:
    """Of the file and of the database, where that can be read. Raises ConfigurationError."""
    jobs = Jobs(load_jobs(path))
    jobs.refresh(engine)
    return jobs


def fill_exchanges(engine: Engine, exchanges: Collection[str], now: datetime) -> None:
    """The trading days of these exchanges and of those of stored jobs, as far as they are to be had."""
    with db.read(engine) as connection:
        rows = job_store.stored_jobs(connection)
    codes = set(exchanges)
    for row in rows:
        with suppress(JobRefused):
            codes.add(str(job_of(row.id, table_of(row)).calendar))
    for code in sorted(codes - {"None", HOME}):
        try:
            ensure_exchanges(engine, [code], now)
        except NavKeeperError as error:
            log.error("%s", error)


def table_of(row: Row[Any]) -> dict[str, Any]:
    """The definition of a stored job. Raises JobRefused where somebody has put something else there."""
    try:
        table = json.loads(row.definition)
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise JobRefused("definition", "its definition in the database is no table of keys")
    return table


def _with_exchanges(connection: Connection, jobs: dict[str, Job], wrong: dict[str, str]) -> dict[str, Job]:
    """Each with the trading days it goes by; one of an exchange whose days are not stored is wrong."""
    codes = {job.calendar for job in jobs.values() if job.calendar not in (None, HOME)}
    days = {code: load_exchange(connection, str(code)) for code in codes}
    found = {}
    for name, job in jobs.items():
        if job.calendar in days and days[job.calendar] is None:
            wrong[name] = f"the trading days of {job.calendar} are not known; restart the daemon to have them"
        else:
            found[name] = replace(job, exchange=days.get(job.calendar or HOME))
    return found


def _without_lost(jobs: dict[str, Job], wrong: dict[str, str]) -> dict[str, Job]:
    """In order; those that need what is not there, or each other in a circle, are wrong."""
    while True:
        try:
            return in_order(jobs)
        except JobRefused as error:
            job_id = str(error.job)
            wrong[job_id] = str(error)
            jobs = {name: job for name, job in jobs.items() if name != job_id}
