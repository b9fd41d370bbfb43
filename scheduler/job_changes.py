"""Making, changing and deleting jobs at run time: what is refused, and what is written.

No daemon is needed: the leading one sees the change at its next look, within a second. What is checked here is
checked in the transaction that writes, and one change waits for another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row

from core import db
from core.errors import JobChanged, JobRefused, UnknownJob, UsageError
from core.exchange_days import ensure_exchanges
from scheduler import commands, job_store, subscriptions, task_catalogue
from scheduler.job import Job
from scheduler.job_definition import HOME, TRIGGERS, job_of, refusal
from scheduler.jobs import table_of
from scheduler.schedule import Never, Once

ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
LARGEST = 16_000  # characters of a definition as JSON
# What decides when a job is due: another of these, and fires count from the change on.
TIMES = (*TRIGGERS, "anchor", "timezone", "calendar", "business_date")


class Asked(NamedTuple):
    """Who changes a job, and when."""

    by: str
    now: datetime
    reason: str | None = None
    version: int | None = None  # that was looked at; another in the database refuses the change


def create_job(
    engine: Engine, of_file: Mapping[str, Job], job_id: str, table: dict[str, Any], asked: Asked
) -> int:
    """Store a new job; its version. Raises JobRefused naming the key and why, and then nothing is stored."""
    return create_jobs(engine, of_file, {job_id: table}, asked)[job_id]


def create_jobs(
    engine: Engine, of_file: Mapping[str, Job], tables: Mapping[str, Mapping[str, Any]], asked: Asked
) -> dict[str, int]:
    """Store all of these new jobs, which may need each other, or none; their versions.

    Raises JobRefused naming job, key and why.
    """
    given = {job_id: _given(table, asked.now) for job_id, table in tables.items()}
    jobs: dict[str, Job] = {}
    versions: dict[str, int] = {}
    for job_id, table in given.items():
        with _of_job(job_id):
            _check_name(of_file, job_id)
            jobs[job_id] = job_of(job_id, table)
            _fill_exchange(engine, jobs[job_id], asked.now)
    needs = {job_id: [need for need in job.needs if need in jobs] for job_id, job in jobs.items()}
    try:
        ordered = [*TopologicalSorter(needs).static_order()]
    except CycleError as error:
        circle = error.args[1]
        with _of_job(circle[0]):
            raise refusal(
                "needs", [*needs[circle[0]]], f"a cycle: {' needs '.join(reversed(circle))}"
            ) from None
    with db.write(engine) as connection:
        job_store.begin_change(connection)
        for job_id in ordered:
            with _of_job(job_id):
                table = given[job_id]
                _check(connection, of_file, job_id, table, {}, asked.now)
                version = job_store.add_job(connection, job_id, table, asked.by, asked.now, asked.reason)
            _listen(connection, job_id, table, asked.now)
            _audit(connection, "create", job_id, version, asked)
            versions[job_id] = version
    return versions


@contextmanager
def _of_job(job_id: str) -> Iterator[None]:
    """Whose definition it is that is refused."""
    try:
        yield
    except JobRefused as error:
        error.job = job_id
        raise


def _check_name(of_file: Mapping[str, Job], job_id: str) -> None:
    if not ID.fullmatch(job_id):
        allowed = "lower-case letters, digits, _ . and -, 64 at most, a letter or digit first"
        raise JobRefused("job", f"job = {job_id!r} is not allowed: {allowed}")
    if job_id in {name.lower() for name in of_file}:
        raise JobRefused(
            "job", f"the jobs file has a job {job_id!r}; take another name", conflict="job_exists"
        )


def change_job(
    engine: Engine,
    of_file: Mapping[str, Job],
    job_id: str,
    table: Mapping[str, Any],
    asked: Asked,
    *,
    whole: bool = False,
) -> int:
    """Change the keys given, None takes one away; `whole`: the table replaces all keys. Its version.

    Raises JobRefused, UnknownJob, JobChanged where `asked.version` is not the one stored.
    """
    with db.read(engine) as connection:
        row = _row(connection, of_file, job_id, asked)
    changed = _changed(row, table, asked.now, whole=whole)
    _fill_exchange(engine, job_of(job_id, changed), asked.now)
    with db.write(engine) as connection:
        job_store.begin_change(connection)
        row = _row(connection, of_file, job_id, asked)
        changed, old = _changed(row, table, asked.now, whole=whole), _old(row)
        _check(connection, of_file, job_id, changed, old, asked.now)
        if changed == old:
            return int(row.version)
        other = any(changed.get(key) != old.get(key) for key in TIMES)
        version = job_store.change_job(
            connection,
            row,
            changed,
            asked.by,
            asked.now,
            asked.reason,
            counts_from=asked.now if other else row.counts_from,
        )
        _listen(connection, job_id, changed, asked.now)
        _audit(connection, "change", job_id, version, asked)
    return version


def delete_job(engine: Engine, of_file: Mapping[str, Job], job_id: str, asked: Asked) -> int:
    """Its last version: its runs stay, those that wait are SKIPPED. Raises as `change_job`, or where others need it."""
    with db.write(engine) as connection:
        job_store.begin_change(connection)
        row = _row(connection, of_file, job_id, asked)
        needing = sorted(
            name for name, job in _others(connection, of_file, job_id).items() if job_id in job.needs
        )
        if needing:
            raise JobRefused(
                "job",
                f"{', '.join(needing)} need {job_id}; change or delete them first",
                conflict="job_needed",
            )
        version = job_store.change_job(
            connection, row, None, asked.by, asked.now, asked.reason, counts_from=row.counts_from
        )
        _listen(connection, job_id, None, asked.now)
        _audit(connection, "delete", job_id, version, asked)
    return version


def _listen(connection: Connection, job_id: str, table: Mapping[str, Any] | None, now: datetime) -> None:
    """From here on it waits for its events, and for no other: what was published before passes it by."""
    topics = job_of(job_id, table).on_event if table is not None else ()
    subscriptions.register(connection, subscriptions.BY_JOB + job_id, topics, now)


def _row(connection: Connection, of_file: Mapping[str, Job], job_id: str, asked: Asked) -> Row[Any]:
    if job_id in of_file:
        raise JobRefused(
            "job",
            f"{job_id} comes from the jobs file: change it there, and restart the daemon",
            conflict="job_in_file",
        )
    row = job_store.find_job(connection, job_id)
    if row is None:
        raise UnknownJob(f"there is no job {job_id!r}; main.py jobs lists them")
    if asked.version not in (None, row.version):
        raise JobChanged(job_store.CHANGED.format(job=job_id))
    return row


def _old(row: Row[Any]) -> dict[str, Any]:
    try:
        return table_of(row)
    except JobRefused:  # somebody else's; a change makes it good
        return {}


def _changed(row: Row[Any], table: Mapping[str, Any], now: datetime, *, whole: bool) -> dict[str, Any]:
    old = _old(row)
    given = dict(table) if whole else old | dict(table)
    kept = {"anchor": old["anchor"]} if whole and "anchor" in old and given.get("every") else {}
    if not whole and (
        new := [key for key in TRIGGERS if table.get(key)]
    ):  # one trigger takes the other's place
        given |= dict.fromkeys(key for key in TRIGGERS if key not in new and key not in table)
    return _given(kept | given, now)


def _given(table: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What is said, of what may be: None says nothing. An interval counts from the minute in which it was made."""
    given = {key: value for key, value in table.items() if value is not None}
    if given.get("every"):
        given.setdefault("anchor", now.astimezone(UTC).replace(second=0, microsecond=0).isoformat())
    else:
        given.pop("anchor", None)
    return given


def _fill_exchange(engine: Engine, job: Job, now: datetime) -> None:
    if job.calendar not in (None, HOME):
        ensure_exchanges(engine, [str(job.calendar)], now)


def _check(
    connection: Connection,
    of_file: Mapping[str, Job],
    job_id: str,
    table: dict[str, Any],
    old: Mapping[str, Any],
    now: datetime,
) -> None:
    """Raises JobRefused."""
    job = job_of(job_id, table)
    try:
        if len(json.dumps(table, allow_nan=False)) > LARGEST:
            raise JobRefused("params", f"the definition is too long: at most {LARGEST} characters as JSON")
    except ValueError:
        raise refusal("params", table.get("params"), "NaN and infinity are no JSON") from None
    _check_task(connection, job)
    _check_times(job, table, old, now)
    others = _others(connection, of_file, job_id)
    for need in job.needs:
        if need != job_id and need not in others:
            raise refusal("needs", table["needs"], f"unknown job {need!r}")
    circle = _circle(job, others)
    if circle:
        raise refusal("needs", table["needs"], f"a cycle: {' needs '.join(circle)}")


def _check_task(connection: Connection, job: Job) -> None:
    field = "task"
    try:
        task_catalogue.find(connection, job.task)
        field = "params"
        task_catalogue.check_params(connection, job.task, job.params)
    except UsageError as error:
        raise JobRefused(field, str(error)) from None


def _check_times(job: Job, table: Mapping[str, Any], old: Mapping[str, Any], now: datetime) -> None:
    if isinstance(job.schedule, Never) or all(table.get(key) == old.get(key) for key in TIMES):
        return
    if job.schedule.next_fire(now) is None:
        key = next(key for key in TRIGGERS if table.get(key))
        past = isinstance(job.schedule, Once)
        here = f"{now.astimezone(job.schedule.zone):%Y-%m-%d %H:%M} ({job.schedule.zone.key})"
        raise refusal(key, table[key], f"it has passed; it is {here}" if past else "that time never comes")


def _others(connection: Connection, of_file: Mapping[str, Job], job_id: str) -> dict[str, Job]:
    """Every other job that can be read, of the file and stored."""
    found = dict(of_file)
    for row in job_store.stored_jobs(connection):
        try:
            found.setdefault(row.id, job_of(row.id, table_of(row)))
        except JobRefused:  # one that another hand has broken stands in nobody's way
            continue
    found.pop(job_id, None)
    return found


def _circle(job: Job, others: Mapping[str, Job]) -> list[str]:
    """The way by which the job needs itself; empty where it does not."""
    ways, seen = [[job.id, need] for need in job.needs], set[str]()
    while ways:
        way = ways.pop()
        if way[-1] == job.id:
            return way
        if way[-1] not in seen and way[-1] in others:
            seen.add(way[-1])
            ways += [[*way, need] for need in others[way[-1]].needs]
    return []


def _audit(connection: Connection, action: str, job_id: str, version: int, asked: Asked) -> None:
    done = {"create": "made", "change": "changed", "delete": "deleted"}[action]
    answer = f"{job_id} is {done}: version {version}" + (f"; {asked.reason}" if asked.reason else "")
    commands.note_done(connection, action, job_id, asked.by, asked.now, answer, {"version": version})
