"""History judged again: what today's rules would say of everything that is believed already. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Engine, select, union

from core import db, nav_frames
from core.background import Background
from core.background_store import fund_facts
from core.judging import SAMPLES, RuleResult, judge
from core.schema import fund_nav, money_fund_yield
from core.thresholds import Thresholds
from core.trading_calendar import TradingCalendar

FUNDS_AT_ONCE = 1000  # enough peers on every date, and few enough rows for half a gigabyte
FIRST = date(1990, 1, 1)


def revalidate(frames: Iterable[pd.DataFrame], background: Background) -> list[RuleResult]:
    """Every rule over frames of whole funds (columns of NavRow and row_no), added up; no anchors, all are judged."""
    totals: dict[str, RuleResult] = {}
    for frame in frames:
        for found in judge(frame, pd.DataFrame(), background).results:
            known = totals.get(found.rule_id)
            totals[found.rule_id] = found if known is None else _sum(known, found)
    return list(totals.values())


def _sum(one: RuleResult, other: RuleResult) -> RuleResult:
    samples = [*one.samples, *other.samples][:SAMPLES]
    return replace(
        one, checked=one.checked + other.checked, failed=one.failed + other.failed, samples=samples
    )


def revalidate_stored(
    engine: Engine, thresholds: Thresholds, calendar: TradingCalendar, today: date
) -> list[RuleResult]:
    """Judge everything in fund_nav and money_fund_yield again, with the events on record."""
    with db.read(engine) as connection:
        background = Background(
            today=today,
            thresholds=thresholds,
            sessions=np.array(calendar.sessions, dtype="datetime64[D]"),
            funds=fund_facts(connection),
        )
        return revalidate(_stored(connection), background)


def _stored(connection: Connection) -> Iterator[pd.DataFrame]:
    """What is believed as if it were staged, so many funds at a time."""
    both = union(select(fund_nav.c.fund_code), select(money_fund_yield.c.fund_code))
    codes = sorted(connection.execute(both).scalars())
    for start in range(0, len(codes), FUNDS_AT_ONCE):
        rows = nav_frames.read_around(connection, codes[start : start + FUNDS_AT_ONCE], FIRST)
        yield nav_frames.as_staged(rows)
