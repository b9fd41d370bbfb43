"""Events announced after their NAV was believed: the NAV is asked again whether it shows them."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
from sqlalchemy import Connection, and_, insert, select

from core import adjustment, db, merge, nav_frames
from core.background import Background, Days
from core.background_store import fund_facts, returns_between
from core.judging import events_of, judge
from core.schema import fund_event, fund_nav, nav_batch
from core.thresholds import Thresholds
from core.trading_calendar import SHANGHAI

LOOK_BACK = timedelta(days=60)
ROWS_BEFORE = 3
AROUND = timedelta(days=14)


def book_announced(
    connection: Connection, thresholds: Thresholds, sessions: Days, now: datetime
) -> list[str]:
    """Book the announced events of the last weeks that the believed NAV of their date, or the next, shows.

    In the caller's transaction; the funds whose adjustment changed, sorted.
    """
    event, nav = fund_event.c, fund_nav.c
    today = now.astimezone(SHANGHAI).date()
    due = connection.execute(
        select(event.fund_code, event.ex_date, event.kind, event.value)
        .join(fund_nav, and_(nav.fund_code == event.fund_code, nav.nav_date == event.ex_date))
        .where(event.evidence == "announced", event.ex_date.between(today - LOOK_BACK, today))
    ).all()
    if not due:
        return []
    given: dict[tuple[str, date], dict[str, float]] = {}
    for row in due:
        name = "dividend" if row.kind == "dividend" else "split_ratio"
        given.setdefault((row.fund_code, row.ex_date), {})[name] = row.value
    first = min(row.ex_date for row in due)
    believed = nav_frames.read_around(
        connection, sorted({row.fund_code for row in due}), first - AROUND, ROWS_BEFORE
    )
    keys = zip(believed["fund_code"], believed["nav_date"], strict=True)
    asked = np.array([(code, day.date()) in given for code, day in keys], dtype=bool)
    staged = _as_staged(believed[asked], given)
    background = Background(
        today=today,
        thresholds=thresholds,
        sessions=sessions,
        funds=fund_facts(connection),
        returns=returns_between(connection, first, today),
    )
    found = judge(staged, believed[~asked], background)
    events = events_of(found, found.frame["row_no"].to_numpy() > 0)
    events = events[events["evidence"] == "published"]
    if events.empty:
        return []
    batch_id = _batch(connection, now)
    merge.save_events(connection, batch_id, events)
    adjustment.recompute(connection, batch_id)
    return sorted(set(events["fund_code"]))


def _as_staged(believed: pd.DataFrame, given: dict[tuple[str, date], dict[str, float]]) -> pd.DataFrame:
    """Believed rows as a batch, each with what was announced for it."""
    keys = [(code, day.date()) for code, day in zip(believed["fund_code"], believed["nav_date"], strict=True)]
    named = {name: [given[key].get(name, np.nan) for key in keys] for name in ("dividend", "split_ratio")}
    return nav_frames.as_staged(believed.assign(**named))


def _batch(connection: Connection, now: datetime) -> int:
    """Events belong to a batch; these came of no new rows."""
    values = {
        "kind": "release",
        "source": "fund_event",
        "provenance": "announced events, found in believed NAVs",
    }
    values |= {"status": "MERGED"}
    return db.new_id(
        connection.execute(
            insert(nav_batch).values(**values, collected_at=now, decided_at=now, row_count=0, merged_count=0)
        )
    )
