"""How long rows are kept, and the removal of those kept long enough: a little at a time, by primary key.

What is believed (NAVs, events, revisions, batches) is kept for good, and so are rows that quarantine still holds.
Metrics have a rule of their own: core.metrics_store.delete_metrics_before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    func,
    inspect,
    or_,
    select,
    update,
)

from core.market.tables import market_fundamental, market_news, market_risk, market_technical
from core.schema import (
    backfilled_fund,
    data_update_log,
    event_cursor,
    job_command,
    job_run,
    nav_batch,
    quarantine,
    rule_result,
    run_event,
    tmp_fund_nav,
)
from core.trading_calendar import SHANGHAI

RUNS_KEPT = 100  # of each job, however old
PENDING = ("WAITING", "BLOCKED", "QUEUED", "RUNNING")  # as scheduler.job has them
Key = tuple[Any, ...]


class Retention(NamedTuple):
    """Rows of `table` go `days` after the instant that `expired` looks at. `name`: what a setting calls it."""

    name: str
    table: Table
    days: int
    expired: Callable[[Connection, datetime], ColumnElement[bool]]


def _staged(connection: Connection, before: datetime) -> ColumnElement[bool]:
    return tmp_fund_nav.c.batch_id + 0 <= _last_batch(connection, before)  # + 0: see _beyond


def _judged(connection: Connection, before: datetime) -> ColumnElement[bool]:
    return rule_result.c.batch_id + 0 <= _last_batch(connection, before)


def _last_batch(connection: Connection, before: datetime) -> int:
    """The last batch such that it and every batch before it were collected before `before`; 0 for none."""
    batch = nav_batch.c
    younger = connection.scalar(select(func.min(batch.id)).where(batch.collected_at >= before))
    newest = connection.scalar(select(func.max(batch.id)))
    return int(newest or 0) if younger is None else int(younger) - 1


def _logged(connection: Connection, before: datetime) -> ColumnElement[bool]:
    """All but the newest of each table, which is what the dashboard shows."""
    log = data_update_log.c
    newest = connection.execute(select(func.max(log.id)).group_by(log.table_name)).scalars().all()
    return and_(log.end_time < before, log.id.not_in(newest))


def _runs(connection: Connection, before: datetime) -> ColumnElement[bool]:
    """Neither the newest of a job nor its last fire, from which missed ones are counted, nor what others wait for."""
    run = job_run.c
    waited_for = connection.execute(
        select(run.business_date).where(run.status.in_(PENDING)).distinct()
    ).scalars()
    place = func.row_number().over(partition_by=run.job_id, order_by=run.id.desc())
    fire = func.row_number().over(partition_by=run.job_id, order_by=run.scheduled_for.desc())
    placed = select(run.id, place.label("place"), fire.label("fire")).subquery()
    dispensable = select(placed.c.id).where(placed.c.place > RUNS_KEPT, placed.c.fire > 1)
    return and_(
        run.queued_at < before,
        run.status.not_in(PENDING),
        run.business_date.not_in(waited_for.all()),
        run.id.in_(dispensable),
    )


def _events(connection: Connection, before: datetime) -> ColumnElement[bool]:
    """Those of runs under way stay: an alert's fingerprint keeps it from being given twice.

    So do those that a subscriber has still to take, as long as it is there: who has not been seen for as long loses
    them. What is parked goes with its event.
    """
    event, cursor = run_event.c, event_cursor.c
    under_way = connection.execute(select(job_run.c.id).where(job_run.c.status.in_(PENDING))).scalars().all()
    taken = connection.scalar(select(func.min(cursor.position)).where(cursor.seen_at >= before))
    needed = [event.position <= taken] if taken is not None else []
    return and_(event.at < before, or_(event.run_id.is_(None), event.run_id.not_in(under_way)), *needed)


def _commands(_connection: Connection, before: datetime) -> ColumnElement[bool]:
    return and_(job_command.c.requested_at < before, job_command.c.status != "PENDING")


def _decided(_connection: Connection, before: datetime) -> ColumnElement[bool]:
    return and_(quarantine.c.resolution.is_not(None), quarantine.c.resolved_at < before)


def _backfilled(_connection: Connection, before: datetime) -> ColumnElement[bool]:
    return backfilled_fund.c.merged_at < before


def _of_days(day: Column[Any]) -> Callable[[Connection, datetime], ColumnElement[bool]]:
    return lambda _connection, before: day < before.astimezone(SHANGHAI).date()


def _news(_connection: Connection, before: datetime) -> ColumnElement[bool]:
    return market_news.c.published_at < before


# A table to come adds its line here. Those of a plugin that was never turned on are not there: see `present`.
RETENTIONS = (
    Retention("staging", tmp_fund_nav, 30, _staged),
    Retention("backfills", backfilled_fund, 60, _backfilled),  # holes are asked for again after 30
    Retention("events", run_event, 30, _events),
    Retention("logs", data_update_log, 90, _logged),
    Retention("runs", job_run, 180, _runs),  # with their attempts and events
    Retention("commands", job_command, 180, _commands),
    Retention("quarantine", quarantine, 365, _decided),
    Retention("rules", rule_result, 365, _judged),
    Retention("technical", market_technical, 90, _of_days(market_technical.c.date)),
    Retention("fundamental", market_fundamental, 180, _of_days(market_fundamental.c.as_of)),
    Retention("news", market_news, 30, _news),
    Retention("risk", market_risk, 90, _of_days(market_risk.c.as_of)),
)


def present(connection: Connection) -> list[Retention]:
    """The retentions whose table this database has."""
    tables = set(inspect(connection).get_table_names())
    return [kept for kept in RETENTIONS if kept.table.name in tables]


def kept_days(changed: Mapping[str, int]) -> dict[str, int]:
    """The days of each retention by its name, those of `changed` instead of the default."""
    return {kept.name: changed.get(kept.name, kept.days) for kept in RETENTIONS}


def expire_batches(connection: Connection, before: datetime) -> None:
    """Batches never judged whose rows are about to go; the batches themselves stay on record."""
    unjudged = and_(nav_batch.c.collected_at < before, nav_batch.c.status == "STAGED")
    connection.execute(update(nav_batch).where(unjudged).values(status="EXPIRED"))


def expired(connection: Connection, kept: Retention, now: datetime, days: int) -> ColumnElement[bool]:
    """Which rows of the table are `days` old and needed by nobody, as of now."""
    return kept.expired(connection, now - timedelta(days=days))


def next_key(
    connection: Connection, table: Table, wanted: ColumnElement[bool], after: Key | None, rows: int
) -> Key | None:
    """The key of the `rows`-th such row after `after`, None where fewer are left. Reads only."""
    key = list(table.primary_key.columns)
    query = select(*key).where(wanted, *_beyond(key, after)).order_by(*key)
    found = connection.execute(query.offset(rows - 1).limit(1)).one_or_none()
    return None if found is None else tuple(found)


def remove(
    connection: Connection, table: Table, wanted: ColumnElement[bool], after: Key | None, until: Key | None
) -> int:
    """Remove such rows with keys in (after, until]; without `until` all that are left. Returns their number."""
    key = list(table.primary_key.columns)
    gone = connection.execute(delete(table).where(wanted, *_beyond(key, after), *_up_to(key, until)))
    return gone.rowcount


def _beyond(key: list[Any], after: Key | None) -> list[ColumnElement[bool]]:
    """Keys after `after`. The bound on the first column alone is what every planner finds its range by.

    It must be the only one there: of two upper bounds SQLite may take the wider, and read the whole table each time.
    """
    if after is None:
        return []
    if len(key) == 1:
        return [key[0] > after[0]]
    return [key[0] >= after[0], or_(key[0] > after[0], key[1] > after[1])]


def _up_to(key: list[Any], until: Key | None) -> list[ColumnElement[bool]]:
    if until is None:
        return []
    if len(key) == 1:
        return [key[0] <= until[0]]
    return [key[0] <= until[0], or_(key[0] < until[0], key[1] <= until[1])]
