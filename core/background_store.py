"""SQL that reads what is known beside a batch, and keeps what the next nights are held against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, or_, select

from core import nav_frames
from core.background import Background, Days, FundFacts, Rejected
from core.gates import BLANK, Nights
from core.nav_store import plain
from core.peer_rules import RETURNS
from core.quarantine import AUTOMATIC, REJECTED, holds_level
from core.schema import category_return, fund_info, fund_nav, nav_batch, quarantine, rule_result, tmp_fund_nav
from core.thresholds import Thresholds
from core.trading_calendar import SHANGHAI

RECENT_NIGHTS = 20
STORED = {"unit_nav": "stored_unit", "accum_nav": "stored_accum", "daily_return": "stored_return"}
EPOCH = date(1970, 1, 1)
HELD_LATELY = timedelta(days=60)
ROWS_A_QUERY = 500


def read_background(
    connection: Connection, now: datetime, batch_id: int, thresholds: Thresholds, sessions: Days
) -> Background:
    """What is known beside the rows of a staged batch."""
    return Background(
        today=now.astimezone(SHANGHAI).date(),
        thresholds=thresholds,
        sessions=sessions,
        funds=fund_facts(connection),
        events=nav_frames.read_events(connection, batch_id),
        stored=_stored(connection, batch_id),
        returns=_returns(connection, batch_id),
        second=_second(connection, batch_id),
        held=_held(connection, batch_id),
        rejected=rejected_values(connection),
    )


def fund_facts(connection: Connection) -> dict[str, FundFacts]:
    """What the rules know of each fund."""
    columns = (fund_info.c.fund_code, fund_info.c.category, fund_info.c.fund_name, fund_info.c.inception_date)
    return {code: FundFacts(*facts) for code, *facts in connection.execute(select(*columns))}


def _stored(connection: Connection, batch_id: int) -> pd.DataFrame:
    """row_no, stored_unit, stored_accum, stored_return of the staged rows whose fund and date we hold already."""
    staged = tmp_fund_nav.c
    same = and_(fund_nav.c.fund_code == staged.fund_code, fund_nav.c.nav_date == staged.nav_date)
    rows = connection.execute(
        select(staged.row_no, *(plain(fund_nav.c[name]) for name in STORED))
        .join(fund_nav, same)
        .where(staged.batch_id == batch_id)
    ).all()
    return nav_frames.frame_of(("row_no", *STORED), rows).rename(columns=STORED)


def _held(connection: Connection, batch_id: int) -> pd.DataFrame:
    """row_no, held_unit, held_day (days since 1970), held_level: the newest row held before each staged row.

    Held, or called wrong by somebody, whose word what follows does not undo.
    """
    staged, kept = tmp_fund_nav.c, quarantine.c
    first = connection.execute(select(func.min(staged.nav_date)).where(staged.batch_id == batch_id)).scalar()
    # A code with blanks equals one without on some databases.
    mine = (staged.batch_id == batch_id, kept.unit_nav > 0, kept.reasons.not_like("%code_format%"))
    lately = kept.nav_date >= (first or EPOCH) - HELD_LATELY
    rows = connection.execute(
        select(staged.row_no, kept.unit_nav, kept.nav_date, kept.reasons)
        .join(quarantine, and_(kept.fund_code == staged.fund_code, kept.nav_date < staged.nav_date))
        .where(*mine, lately, or_(kept.resolution.is_(None), by_hand()))
        .order_by(kept.nav_date, kept.id)
    )
    newest = {row.row_no: row for row in rows}
    found = [
        (number, row.unit_nav, (row.nav_date - EPOCH).days, int(holds_level(row.reasons)))
        for number, row in newest.items()
    ]
    return pd.DataFrame(found, columns=["row_no", "held_unit", "held_day", "held_level"])


def by_hand() -> ColumnElement[bool]:
    """Rows in quarantine that somebody, and not the course of time, has rejected."""
    return and_(quarantine.c.resolution == REJECTED, quarantine.c.resolved_by.not_in(AUTOMATIC))


def rejected_values(connection: Connection) -> frozenset[Rejected]:
    """Every value that somebody has called wrong."""
    kept = quarantine.c
    rows = connection.execute(
        select(kept.fund_code, kept.nav_date, kept.unit_nav, kept.accum_nav).where(
            by_hand(), kept.nav_date.is_not(None), kept.unit_nav.is_not(None)
        )
    )
    return frozenset(tuple(row) for row in rows)


def _second(connection: Connection, batch_id: int) -> pd.DataFrame:
    """row_no and second_unit of the staged rows whose fund and date another source gave as well.

    Of several batches of other sources the newest counts.
    """
    staged, other, mine = tmp_fund_nav.alias().c, tmp_fund_nav.alias().c, nav_batch.alias().c
    newest = (
        select(func.max(nav_batch.c.id))
        .where(nav_batch.c.kind == "second", nav_batch.c.source != mine.source)
        .where(nav_batch.c.business_date == mine.business_date)
        .correlate(mine.id.table)
        .scalar_subquery()
    )
    found = connection.execute(select(newest).select_from(mine.id.table).where(mine.id == batch_id)).scalar()
    if found is None:
        return nav_frames.frame_of(("row_no", "unit_nav"), []).rename(columns={"unit_nav": "second_unit"})
    same = and_(other.fund_code == staged.fund_code, other.nav_date == staged.nav_date)
    rows = connection.execute(
        select(staged.row_no, other.unit_nav)
        .join(other.unit_nav.table, same)
        .where(staged.batch_id == batch_id, other.batch_id == found, other.unit_nav.is_not(None))
    ).all()
    return nav_frames.frame_of(("row_no", "unit_nav"), rows).rename(columns={"unit_nav": "second_unit"})


def second_opinions(connection: Connection, batch_id: int) -> pd.DataFrame:
    """fund_code, nav_date, unit_nav and second_unit of the funds and dates that this batch and fund_nav have."""
    staged = tmp_fund_nav.c
    same = and_(fund_nav.c.fund_code == staged.fund_code, fund_nav.c.nav_date == staged.nav_date)
    key = (plain(fund_nav.c.fund_code), plain(fund_nav.c.nav_date), plain(fund_nav.c.unit_nav))
    rows = connection.execute(
        select(*key, staged.unit_nav.label("second"))
        .join(tmp_fund_nav, same)
        .where(staged.batch_id == batch_id, staged.unit_nav.is_not(None))
        .order_by(fund_nav.c.fund_code)
    ).all()
    frame = nav_frames.frame_of(("fund_code", "nav_date", "unit_nav"), [row[:3] for row in rows])
    return frame.assign(second_unit=np.array([row.second for row in rows], dtype=float))


def second_units(connection: Connection, rows: Sequence[Row[Any]]) -> pd.DataFrame:
    """row_no (number in quarantine) and second_unit of held rows whose fund and date another source gave.

    Of several answers the newest counts.
    """
    found: dict[int, float] = {}
    staged, held = tmp_fund_nav.c, quarantine.c
    same = and_(staged.fund_code == held.fund_code, staged.nav_date == held.nav_date)
    ids = [row.id for row in rows]
    for start in range(0, len(ids), ROWS_A_QUERY):
        part = connection.execute(
            select(held.id, staged.unit_nav)
            .join(tmp_fund_nav, same)
            .join(nav_batch, nav_batch.c.id == staged.batch_id)
            .where(held.id.in_(ids[start : start + ROWS_A_QUERY]), staged.unit_nav.is_not(None))
            .where(nav_batch.c.kind == "second", nav_batch.c.source != held.source)
            .order_by(nav_batch.c.id)
        )
        found |= dict(part.all())
    return pd.DataFrame(found.items(), columns=["row_no", "second_unit"])


def _returns(connection: Connection, batch_id: int) -> pd.DataFrame:
    """What the categories did on the dates of a batch, as far as it is kept."""
    first, last = connection.execute(
        select(func.min(tmp_fund_nav.c.nav_date), func.max(tmp_fund_nav.c.nav_date)).where(
            tmp_fund_nav.c.batch_id == batch_id
        )
    ).one()
    return returns_between(connection, first, last)


def returns_between(connection: Connection, first: date | None, last: date | None) -> pd.DataFrame:
    """peer_rules.RETURNS of the dates from `first` to `last`."""
    kept = category_return.c
    rows: Sequence[Any] = []
    if first is not None:
        columns = (kept.category, plain(kept.nav_date), kept.median, kept.spread, kept.fund_count)
        rows = connection.execute(select(*columns).where(kept.nav_date.between(first, last))).all()
    return pd.DataFrame(rows, columns=list(RETURNS)).astype(
        {"nav_date": "datetime64[s]", "median": float, "spread": float, "fund_count": "int64"}
    )


def nights_before(connection: Connection, source: str) -> Nights:
    """What the newest merged latest batches of a source brought, newest first."""
    batches = connection.execute(
        select(nav_batch.c.id, nav_batch.c.merged_count)
        .where(
            nav_batch.c.kind == "latest",
            nav_batch.c.status == "MERGED",
            nav_batch.c.source == source,
            nav_batch.c.merged_count.is_not(None),
        )
        .order_by(nav_batch.c.id.desc())
        .limit(RECENT_NIGHTS)
    ).all()
    rows = connection.execute(
        select(rule_result.c.figures)
        .where(
            rule_result.c.batch_id.in_([batch.id for batch in batches]),
            rule_result.c.severity == "partial",
            rule_result.c.figures.is_not(None),
        )
        .order_by(rule_result.c.batch_id.desc())
    )
    blank = connection.execute(
        select(rule_result.c.figures).where(
            rule_result.c.batch_id.in_([batch.id for batch in batches]),
            rule_result.c.rule_id == BLANK,
            rule_result.c.figures.is_not(None),
        )
    )
    shares = [figures["count"] / max(figures["total"], 1) for figures in map(json.loads, blank.scalars())]
    by_category: dict[str, list[list[int]]] = {}
    for text in rows.scalars():
        figures = json.loads(text)
        by_category.setdefault(figures["category"], []).append(figures["counts"])
    return Nights([int(batch.merged_count) for batch in batches], by_category, shares)


def save_returns(connection: Connection, returns: pd.DataFrame) -> None:
    """What each category did on each date; of two batches the one with more funds counts."""
    known = {
        (row.category, row.nav_date): row.fund_count
        for row in connection.execute(
            select(category_return).where(
                category_return.c.nav_date.in_({day.date() for day in returns["nav_date"]})
            )
        )
    }
    rows: list[dict[str, Any]] = [
        dict(zip(RETURNS, (category, day.date(), *figures), strict=True))
        for category, day, *figures in returns[list(RETURNS)].itertuples(index=False)
    ]
    fresh = [row for row in rows if row["fund_count"] > known.get((row["category"], row["nav_date"]), 0)]
    for row in fresh:
        key = (category_return.c.category == row["category"], category_return.c.nav_date == row["nav_date"])
        connection.execute(delete(category_return).where(*key))
    if fresh:
        connection.execute(insert(category_return), fresh)
