"""collect_reference: what NAVs are judged and measured against — funds, their events, the indices."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core import db
from core.errors import NavKeeperError, SourceError, UsageError
from scheduler.job import RunStatus
from scheduler.sources import make_source
from scheduler.task_params import SourceParams

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from core.fund_events import NoticeResult
    from core.sources.base import Source
    from scheduler.run_context import RunContext

EVENT_DAYS = 60  # lists are corrected, and events announced, some weeks around their day
SHOWN = 5
# Writes what a part has fetched; returns how many rows are new, and what is wrong all the same.
Write = Callable[["Connection"], tuple[int, str | None]]


class ReferenceParams(SourceParams):
    event_days: int = EVENT_DAYS  # how far back the lists of dividends and splits are read
    index_files: tuple[str, ...] = ()  # CSV files of closes (000300.csv) instead of asking the source


def collect_reference(context: RunContext, params: ReferenceParams) -> None:
    """Funds and their status, dividends and splits, index closes: each by itself, the others go on without it."""
    source = make_source(context.settings, params.source)
    parts: list[tuple[str, Callable[[], Write]]] = [
        ("funds", partial(_funds, context, source)),
        ("events", partial(_events, context, source, params.event_days)),
    ]
    parts += [(f"index {code}", partial(_index, context, source, code)) for code in _asked(context, params)]
    parts += [(Path(name).name, partial(_index_file, context, name)) for name in params.index_files]
    writes: list[Write] = []
    errors: list[NavKeeperError] = []
    reasons: list[str] = []
    try:
        for number, (name, fetch) in enumerate(parts, 1):
            try:
                writes.append(fetch())
            except (SourceError, UsageError) as error:
                context.log.warning("%s: %s: %s", name, error.code, error)
                errors.append(error)
                reasons.append(f"{name}: {error.code}: {error}")
            context.progress(number, len(parts), "lists", name)
        if len(errors) == len(parts):
            raise next((error for error in errors if error.retry), errors[0])
        with context.commit() as commit:
            saved = 0
            for write in writes:
                count, wrong = write(commit.connection)
                saved += count
                reasons += [wrong] if wrong else []
            status = RunStatus.PARTIAL if reasons else RunStatus.SUCCESS
            commit.end(status, saved, "; ".join(reasons)[:1000] or None)
            about = {"business_date": context.business_date.isoformat(), "rows": saved}
            context.publish(commit.connection, "data.reference.collected", about)
    finally:
        source.close()


def _asked(context: RunContext, params: ReferenceParams) -> tuple[str, ...]:
    """The indices to ask the source for: none where files are given."""
    return () if params.index_files else context.settings.benchmarks


def _funds(context: RunContext, source: Source) -> Write:
    from core import nav_store

    funds = source.fund_list()

    def write(connection: Connection) -> tuple[int, str | None]:
        return nav_store.save_funds(connection, funds, context.now(), context.business_date), None

    return write


def _events(context: RunContext, source: Source, days: int) -> Write:
    from core.fund_events import save_notices

    until = context.business_date
    since = until - timedelta(days=days)
    notices = source.events(since, until)

    def write(connection: Connection) -> tuple[int, str | None]:
        result = save_notices(
            connection,
            notices or (),
            context.now(),
            source=source.name,
            provenance=source.provenance,
            run_id=context.run_id,
            since=since,
            until=until,
        )
        context.details["events"] = result
        _book(context, connection)
        if result.unlisted:
            context.log.info(
                "%d events are not in the list: %s", len(result.unlisted), result.unlisted[:SHOWN]
            )
        return result.new, _contradictions(result, since)

    return write if notices is not None else _nothing


def _book(context: RunContext, connection: Connection) -> None:
    """Events whose NAV was there before the list named them; the metrics of their funds are queued."""
    from core.announced import book_announced
    from scheduler.task_parts import calendar_of
    from scheduler.tasks import pipeline_for, recalculate_newest

    pipeline = pipeline_for(context.engine, calendar_of(context))
    now = context.now()
    funds = book_announced(connection, pipeline.thresholds, pipeline.sessions, now)
    recalculate_newest(connection, now, funds, "reference")
    if funds:
        context.log.info("events of %d funds found in NAVs that were believed before", len(funds))


def _nothing(_connection: Connection) -> tuple[int, str | None]:
    """What is to be written of a list that the source does not have."""
    return 0, None


def _contradictions(result: NoticeResult, since: date) -> str | None:
    if not result.new + result.known and result.unlisted:
        return f"the list of events is empty, {len(result.unlisted)} are booked since {since}"
    if not result.differing:
        return None
    return f"{len(result.differing)} events differ from the list: {', '.join(result.differing[:SHOWN])}"


def _index(context: RunContext, source: Source, code: str) -> Write:
    from core.benchmark import newest_close, save_closes

    with db.read(context.engine) as connection:
        newest = newest_close(connection, code)
    closes = source.index_closes(code, newest, context.business_date)
    now = context.now()
    if closes is None:
        return _nothing
    last = max((row.trade_date for row in closes), default=newest)
    late = last is None or last < context.business_date
    wrong = f"index {code}: no close of {context.business_date}, the newest is {last}" if late else None
    return lambda connection: (save_closes(connection, closes, now, source.name).inserted, wrong)


def _index_file(context: RunContext, name: str) -> Write:
    from core.benchmark import read_closes, save_closes

    closes = read_closes(Path(name))
    now = context.now()
    return lambda connection: (save_closes(connection, closes, now, "files").inserted, None)
