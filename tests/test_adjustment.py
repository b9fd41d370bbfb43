"""Adjustment factors on both databases, by hand and against the formula that the metrics use."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, Row, insert, select, update

from core import adjustment, db, merge
from core.metrics import adjusted_nav
from core.nav_frames import frame_of
from core.schema import fund_adjustment, fund_event, fund_nav
from tests.example_batch import MON, SESSIONS, THU, TUE, WED, nav
from tests.test_pipeline import process

CODE, OTHER = "000001", "000002"
BATCH = 7


def book(
    engine: Engine,
    navs: Sequence[tuple[str, date, float]],
    events: Sequence[tuple[str, date, str, float, str]],
) -> None:
    """Believed NAVs, and events that BATCH booked."""
    rows: list[dict[str, Any]] = [
        {"fund_code": code, "nav_date": day, "unit_nav": value, "batch_id": BATCH}
        for code, day, value in navs
    ]
    booked: list[dict[str, Any]] = [
        {"fund_code": code, "ex_date": day, "kind": kind, "value": value, "evidence": evidence}
        | {"batch_id": BATCH}
        for code, day, kind, value, evidence in events
    ]
    with db.write(engine) as connection:
        if rows:
            connection.execute(insert(fund_nav), rows)
        if booked:
            connection.execute(insert(fund_event), booked)


def recompute(engine: Engine, batch_id: int = BATCH, dropped: Sequence[str] = ()) -> int:
    with db.write(engine) as connection:
        return adjustment.recompute(connection, batch_id, dropped)


def factors(engine: Engine) -> list[Row[Any]]:
    with db.read(engine) as connection:
        keys = (fund_adjustment.c.fund_code, fund_adjustment.c.ex_date)
        return list(connection.execute(select(fund_adjustment).order_by(*keys)))


def test_a_dividend_a_split_and_both_on_one_day(engine: Engine) -> None:
    book(
        engine,
        [(CODE, MON, 1.2001), (CODE, TUE, 1.1521), (CODE, WED, 0.58), (CODE, THU, 0.28)],
        [
            (CODE, TUE, "dividend", 0.05, "published"),
            (CODE, WED, "split", 2.0, "confirmed"),
            (CODE, THU, "dividend", 0.028, "implied"),
            (CODE, THU, "split", 2.0, "published"),
        ],
    )
    assert recompute(engine) == 1
    found = factors(engine)
    assert [row.ex_date for row in found] == [TUE, WED, THU]
    # (1.1521 + 0.05) / 1.1521; (2 * 0.58) / 0.58; (2 * 0.28 + 0.028) / 0.28
    assert [row.factor for row in found] == pytest.approx([1.0433990105, 2.0, 2.1], rel=1e-10)
    # one factor after the other
    assert [row.cumulative for row in found] == pytest.approx([1.0433990105, 2.086798021, 4.3822758441])


def test_what_was_only_announced_does_not_count(engine: Engine) -> None:
    book(
        engine,
        [(CODE, MON, 1.0), (CODE, TUE, 0.5)],
        [(CODE, TUE, "dividend", 0.05, "announced"), (CODE, MON, "split", 2.0, "announced")],
    )
    assert recompute(engine) == 1
    assert factors(engine) == []


def test_an_event_waits_for_the_nav_of_its_day(engine: Engine) -> None:
    book(engine, [(CODE, MON, 1.0)], [(CODE, TUE, "split", 2.0, "published")])
    recompute(engine)
    assert factors(engine) == []
    book(engine, [(CODE, TUE, 0.5)], [])
    with db.write(engine) as connection:
        adjustment.recompute_funds(connection, [CODE])
    assert [tuple(row) for row in factors(engine)] == [(CODE, TUE, 2.0, 2.0)]


def test_a_revised_nav_of_an_ex_date_changes_its_factor(engine: Engine) -> None:
    # (1.1521 + 0.05) / 1.2001 - 1 = 0.16665 %, (1.1522 + 0.05) / 1.2001 - 1 = 0.1750 %
    rows = [nav(MON, 1.2001), nav(TUE, 1.1521, 0.17, dividend=0.05)]
    process(engine, rows)
    assert [row.factor for row in factors(engine)] == pytest.approx([1 + 0.05 / 1.1521])
    assert process(engine, [nav(TUE, 1.1522, 0.17)]).revised == 1
    assert [row.factor for row in factors(engine)] == pytest.approx([1 + 0.05 / 1.1522])


def test_a_dropped_event_takes_its_factor_with_it(engine: Engine) -> None:
    book(
        engine,
        [(CODE, MON, 1.0), (CODE, TUE, 1.0), (CODE, WED, 0.5)],
        [(CODE, TUE, "dividend", 0.1, "published"), (CODE, WED, "split", 2.0, "published")],
    )
    recompute(engine)
    assert [row.cumulative for row in factors(engine)] == pytest.approx([1.1, 2.2])
    with db.write(engine) as connection:
        merge.drop_events(connection, frame_of(("fund_code", "ex_date"), [(CODE, TUE)]))
    assert recompute(engine, BATCH + 1, [CODE]) == 1
    assert [tuple(row) for row in factors(engine)] == [(CODE, WED, 2.0, 2.0)]


def test_an_event_that_its_nav_belies_leaves_no_factor(engine: Engine) -> None:
    rows = [nav(MON, 1.2001), nav(TUE, 1.1521, 0.17, dividend=0.05)]
    process(engine, rows)
    assert len(factors(engine)) == 1
    # published anew: it was no dividend but a loss, -3.9997 % and then +0.8680 %
    small = [nav(TUE, 1.1521, -4.0, dividend=0.05), nav(WED, 1.1621, 0.87)]
    assert process(engine, small).quarantined == 0
    assert factors(engine) == []


def test_only_funds_with_news_are_reckoned_again(engine: Engine) -> None:
    both = [(code, day, value) for code in (CODE, OTHER) for day, value in ((MON, 1.0), (TUE, 0.5))]
    book(engine, both, [(code, TUE, "split", 2.0, "published") for code in (CODE, OTHER)])
    assert recompute(engine) == 2
    with db.write(engine) as connection:
        connection.execute(update(fund_adjustment).values(factor=-7.0))  # of whom nobody reckons again
        connection.execute(
            update(fund_event).where(fund_event.c.fund_code == OTHER).values(batch_id=BATCH + 1)
        )
    assert recompute(engine, BATCH + 1) == 1
    assert [row.factor for row in factors(engine)] == [-7.0, 2.0]
    assert recompute(engine, BATCH + 2) == 0


def test_more_funds_than_one_statement_takes(engine: Engine) -> None:
    codes = [f"{n:06d}" for n in range(1, adjustment.FUNDS_AT_ONCE + 3)]
    book(
        engine,
        [(code, TUE, 0.5) for code in codes],
        [(code, TUE, "split", 2.0, "published") for code in codes],
    )
    assert recompute(engine) == len(codes)
    assert [(row.fund_code, row.cumulative) for row in factors(engine)] == [(code, 2.0) for code in codes]


def test_unit_nav_times_factor_is_the_adjusted_nav_of_the_metrics(engine: Engine) -> None:
    chance = random.Random(4)
    days = SESSIONS[:40]
    values = [round(chance.uniform(0.6, 3.0), 4) for _ in days]
    cash, ratio = np.full(len(days), np.nan), np.full(len(days), np.nan)
    cash[[5, 9, 20]] = 0.05, 0.1234, 0.3
    ratio[[9, 14, 30]] = 2.0, 0.5, 1.0123
    events = [
        (CODE, day, kind, float(value), "published")
        for kind, column in (("dividend", cash), ("split", ratio))
        for day, value in zip(days, column, strict=True)
        if value == value
    ]
    book(engine, [(CODE, day, value) for day, value in zip(days, values, strict=True)], events)
    recompute(engine)
    found = factors(engine)
    since = [max((row for row in found if row.ex_date <= day), default=None, key=_day) for day in days]
    mine = [
        value * (1.0 if row is None else row.cumulative) for value, row in zip(values, since, strict=True)
    ]
    assert mine == pytest.approx(adjusted_nav(np.array(values), cash, ratio).tolist(), rel=1e-12)
    assert [row.ex_date for row in found] == [days[at] for at in (5, 9, 14, 20, 30)]


def _day(row: Row[Any]) -> date:
    found: date = row.ex_date
    return found
