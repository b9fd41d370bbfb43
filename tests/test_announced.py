"""An event that is announced after its NAV was believed is booked as soon as the NAV is asked again."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import Engine, insert, select

from core import db
from core.announced import book_announced
from core.schema import fund_adjustment, fund_event
from tests.example_batch import MON, SESSIONS, THRESHOLDS, THU, TUE, WED, nav
from tests.test_pipeline import NOW, process

DAYS = np.array(SESSIONS, dtype="datetime64[D]")


def announce(engine: Engine, value: float, kind: str = "dividend") -> list[str]:
    """The list of events names one for Tuesday; the funds whose adjustment changes."""
    row = {"fund_code": "000001", "ex_date": TUE, "kind": kind, "value": value, "listed_value": value}
    with db.write(engine) as connection:
        connection.execute(insert(fund_event).values(**row, evidence="announced", batch_id=1))
    with db.write(engine) as connection:
        return book_announced(connection, THRESHOLDS, DAYS, NOW)


def booked(engine: Engine) -> tuple[str, list[float]]:
    with db.read(engine) as connection:
        evidence = connection.execute(select(fund_event.c.evidence)).scalar_one()
        return evidence, list(connection.execute(select(fund_adjustment.c.factor)).scalars())


# 2.0002 -> 1.9902 with 0.0100 paid out: (1.9902 + 0.01)/2.0002 - 1 = 0.000 %
ROWS = [nav(MON, 2.0002), nav(TUE, 1.9902), nav(WED, 1.9912, 0.05), nav(THU, 1.9922, 0.05)]


def test_a_dividend_that_the_believed_nav_shows_is_booked(engine: Engine) -> None:
    assert process(engine, ROWS).quarantined == 0
    assert announce(engine, 0.01) == ["000001"]
    evidence, factors = booked(engine)
    assert evidence == "published"
    assert factors == [pytest.approx(2.0002 / 1.9902)]
    with db.write(engine) as connection:
        assert book_announced(connection, THRESHOLDS, DAYS, NOW) == []


def test_one_that_the_nav_does_not_show_stays_announced(engine: Engine) -> None:
    # published -0.50 %, which is the change of the NAV alone: 1.9902/2.0002 - 1 = -0.49995 %
    process(engine, [nav(MON, 2.0002), nav(TUE, 1.9902, -0.5), *ROWS[2:]])
    assert announce(engine, 2.0, "split") == []
    assert booked(engine) == ("announced", [])
