"""NAVs as they were known at an instant: every version written by hand, on both databases."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert

from core import db
from core.nav_as_of import adjustments, nav_as_of, yields_as_of
from core.schema import (
    fund_adjustment,
    fund_nav,
    fund_nav_revision,
    money_fund_yield,
    nav_batch,
)
from core.trading_calendar import SHANGHAI

CODE = "000001"
MONDAY, TUESDAY, WEDNESDAY = date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)


def at(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=SHANGHAI)


def add_batch(connection: Connection, number: int, decided: datetime | None) -> None:
    collected = (decided or at(MONDAY, 19)) - timedelta(minutes=30)
    connection.execute(
        insert(nav_batch).values(
            id=number,
            kind="latest",
            business_date=MONDAY,
            source="eastmoney",
            provenance="",
            collected_at=collected,
            row_count=1,
            status="MERGED",
            decided_at=decided,
        )
    )


def add_nav(
    connection: Connection, day: date, values: tuple[float, float | None, float | None], batch: int
) -> None:
    unit, accum, change = values
    connection.execute(
        insert(fund_nav).values(
            fund_code=CODE, nav_date=day, unit_nav=unit, accum_nav=accum, daily_return=change, batch_id=batch
        )
    )


def add_revision(
    connection: Connection,
    old: tuple[float, float | None, float | None],
    new: tuple[float, float | None, float | None],
    batches: tuple[int, int],
    known_at: datetime,
) -> None:
    values: dict[str, Any] = {}
    for name, before, after in zip(("unit_nav", "accum_nav", "daily_return"), old, new, strict=True):
        values |= {f"old_{name}": before, f"new_{name}": after}
    connection.execute(
        insert(fund_nav_revision).values(
            fund_code=CODE,
            nav_date=MONDAY,
            old_batch_id=batches[0],
            new_batch_id=batches[1],
            known_at=known_at,
            reason="changed",
            **values,
        )
    )


@pytest.fixture
def revised(engine: Engine) -> Engine:
    """Monday's NAV came at 19:31, its blanks were filled at 21:00, and on Wednesday it was corrected.

    Tuesday's came on time; Friday's before, in a back-fill of Wednesday night.
    """
    first, filled, corrected = (1.1, None, None), (1.1, 2.1, 0.5), (1.2, 2.2, 0.6)
    with db.write(engine) as connection:
        add_batch(connection, 1, at(MONDAY, 19, 31))
        add_batch(connection, 2, at(MONDAY, 21))
        add_batch(connection, 3, at(TUESDAY, 19, 31))
        add_batch(connection, 4, at(WEDNESDAY, 19, 31))
        add_batch(connection, 5, at(WEDNESDAY, 22))
        # Written newest first: what counts is when they became known.
        add_revision(connection, filled, corrected, (2, 4), at(WEDNESDAY, 19, 31))
        add_revision(connection, first, filled, (1, 2), at(MONDAY, 21))
        add_nav(connection, date(2026, 1, 2), (1.0, 2.0, 0.1), 5)
        add_nav(connection, MONDAY, corrected, 4)
        add_nav(connection, TUESDAY, (1.3, 2.3, 8.3), 3)
    return engine


def known(engine: Engine, instant: datetime | None, *dates: date) -> list[tuple[Any, ...]]:
    with db.read(engine) as connection:
        found = nav_as_of(connection, CODE, instant, *dates)
    return [(row.nav_date.day, row.unit_nav, row.accum_nav, row.daily_return, row.revisions) for row in found]


def test_every_version_at_its_time(revised: Engine) -> None:
    first, filled, corrected = (5, 1.1, None, None, 0), (5, 1.1, 2.1, 0.5, 1), (5, 1.2, 2.2, 0.6, 2)
    tuesday, friday = (6, 1.3, 2.3, 8.3, 0), (2, 1.0, 2.0, 0.1, 0)
    assert known(revised, at(MONDAY, 19, 30)) == []
    assert known(revised, at(MONDAY, 19, 31)) == [first]  # known from that very instant on
    assert known(revised, at(MONDAY, 20, 59)) == [first]
    assert known(revised, at(MONDAY, 21)) == [filled]
    assert known(revised, at(WEDNESDAY, 19, 30)) == [filled, tuesday]
    assert known(revised, at(WEDNESDAY, 19, 31)) == [corrected, tuesday]
    assert known(revised, at(WEDNESDAY, 22)) == known(revised, None) == [friday, corrected, tuesday]
    assert known(revised, None, MONDAY, MONDAY) == [corrected]


def test_it_tells_since_when_and_until_when(revised: Engine) -> None:
    with db.read(revised) as connection:
        [row] = nav_as_of(connection, CODE, at(MONDAY, 22))
        assert (row.known_at, row.changed_at) == (at(MONDAY, 21), at(WEDNESDAY, 19, 31))
        stored = {row.nav_date: (row.known_at, row.changed_at) for row in nav_as_of(connection, CODE)}
    assert stored[MONDAY] == (at(WEDNESDAY, 19, 31), None)
    assert stored[TUESDAY] == (at(TUESDAY, 19, 31), None)


def test_a_released_row_is_known_since_its_release(revised: Engine) -> None:
    with db.write(revised) as connection:
        add_batch(connection, 6, at(WEDNESDAY, 23))  # of the row that was held in batch 4
        add_nav(connection, WEDNESDAY, (2.2, None, 69.2), 6)
    assert WEDNESDAY.day not in [row[0] for row in known(revised, at(WEDNESDAY, 22, 59))]
    assert known(revised, at(WEDNESDAY, 23))[-1] == (7, 2.2, None, 69.2, 0)


def test_batches_that_were_never_decided_or_are_gone(engine: Engine) -> None:
    with db.write(engine) as connection:
        add_batch(connection, 1, None)  # collected on Monday at 18:30
        add_nav(connection, MONDAY, (1.0, None, None), 1)
        add_nav(connection, TUESDAY, (1.0, None, None), 77)
    assert [row[0] for row in known(engine, at(MONDAY, 18, 29))] == [6]
    assert [row[0] for row in known(engine, at(MONDAY, 18, 30))] == [5, 6]


def test_yields_have_one_version(engine: Engine) -> None:
    with db.write(engine) as connection:
        add_batch(connection, 1, at(MONDAY, 19, 31))
        connection.execute(
            insert(money_fund_yield).values(
                fund_code=CODE, nav_date=MONDAY, income_per_10k=0.5, yield_7d=1.75, batch_id=1
            )
        )
    with db.read(engine) as connection:
        assert yields_as_of(connection, CODE, at(MONDAY, 19, 30)) == []
        [row] = yields_as_of(connection, CODE, at(MONDAY, 20))
        assert (row.nav_date, row.income_per_10k, row.yield_7d) == (MONDAY, 0.5, 1.75)
        assert row.known_at == at(MONDAY, 19, 31)
        assert yields_as_of(connection, CODE, None, TUESDAY) == []


def test_adjustments_by_date(engine: Engine) -> None:
    rows = [
        {"fund_code": CODE, "ex_date": TUESDAY, "factor": 2.0, "cumulative": 2.1},
        {"fund_code": CODE, "ex_date": MONDAY, "factor": 1.05, "cumulative": 1.05},
        {"fund_code": "000002", "ex_date": MONDAY, "factor": 9.0, "cumulative": 9.0},
    ]
    with db.write(engine) as connection:
        connection.execute(insert(fund_adjustment), rows)
    with db.read(engine) as connection:
        assert adjustments(connection, CODE) == [(MONDAY, 1.05), (TUESDAY, 2.1)]


def test_a_naive_instant_is_refused(sqlite_engine: Engine) -> None:
    naive = datetime(2026, 1, 5, tzinfo=UTC).replace(tzinfo=None)
    with db.read(sqlite_engine) as connection:
        for read in (nav_as_of, yields_as_of):
            with pytest.raises(ValueError, match="naive"):
                read(connection, CODE, naive)
