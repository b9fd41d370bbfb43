"""Holes in stored history: what is one, what is none, and a night that mends them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, delete, func, insert, select

from core import db
from core.history_gaps import Gap, common_sessions, find_gaps, holes
from core.schema import backfilled_fund, fund_info, fund_nav
from core.standin import StandinServer
from core.standin.simulated import simulated_market
from core.trading_calendar import library_sessions
from tests.daemon import at
from tests.example_batch import SESSIONS
from tests.nights import Nights

LAST_60 = SESSIONS[-60:]
ALL = np.ones(60, dtype=bool)


def without(*missing: int, days: int = 60) -> Any:
    present = np.ones(days, dtype=bool)
    present[list(missing)] = False
    return present


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (ALL, []),
        (without(30), [30]),
        (without(30, 31, 45), [30, 31, 45]),
        (without(*range(20, 40)), list(range(20, 40))),  # long, with the habit kept before and after
        (without(0, 1, 59), []),  # before its first and after its last row nobody can tell
        (without(*(day for day in range(60) if day % 5)), []),  # weekly
        (without(*(day for day in range(40) if day % 5)), []),  # a closed period, then daily
        (without(30, 32, 34, 36, 38), []),  # it does not publish on nine of ten days there
        (without(1), []),  # one session before it shows no habit
        (np.zeros(60, dtype=bool), []),
    ],
)
def test_a_hole_is_what_breaks_the_fund_s_own_habit(present: Any, expected: list[int]) -> None:
    assert holes(present, ALL).tolist() == expected


def test_sessions_without_the_peers_are_no_holes() -> None:
    assert holes(without(30, 31), without(30)).tolist() == [31]


def test_nine_in_ten_of_the_peers_that_were_there_make_a_session() -> None:
    categories = {f"{n:06d}": "bond" for n in range(30)} | {"900001": "qdii"}
    complete = {f"{n:06d}": (0, 9) for n in range(18)} | {"000018": (5, 9)}
    present = {"000019": without(3, days=10), "000020": without(3, 4, days=10), "900001": without(1, days=10)}
    found = common_sessions(complete, present, categories, 10)
    # on session 3 there are 18 of 20; with two of 20 away it is still nine in ten, with three it were not
    assert found["bond"].tolist() == [True] * 10
    assert found["qdii"].tolist() == [False] * 10  # too few to say
    present["000021"] = without(3, days=10)
    assert common_sessions(complete, present, categories, 10)["bond"].tolist() == [
        day != 3 for day in range(10)
    ]


def test_holes_are_found_in_the_database_newest_first(engine: Engine) -> None:
    days = [day for day in library_sessions() if date(2025, 9, 1) <= day <= date(2025, 11, 28)]
    lacking = {"000003": {days[20]}, "000005": {days[30], days[31]}, "000007": set(days[10:15])}
    weekly = {day for day in days if day.weekday() != 4}
    rows = [
        {"fund_code": f"{n:06d}", "nav_date": day, "unit_nav": 1.0, "batch_id": 1}
        for n in range(1, 41)
        for day in days
        if day not in lacking.get(f"{n:06d}", set()) and (n != 9 or day not in weekly)
    ]
    rows.append(
        {"fund_code": "000003", "nav_date": date(2025, 11, 30), "unit_nav": 1.0, "batch_id": 1}
    )  # a Sunday
    about = {"fund_name": "", "fund_type": "", "category": "mixed", "updated_at": at(days[0], 12)}
    with db.write(engine) as connection:
        connection.execute(insert(fund_nav), rows)
        connection.execute(insert(fund_info), [about | {"fund_code": f"{n:06d}"} for n in range(1, 41)])
    with db.read(engine) as connection:
        assert find_gaps(connection, days) == [
            Gap("000005", days[30:32]),
            Gap("000003", [days[20]]),
            Gap("000007", days[10:15]),
        ]
        assert find_gaps(connection, days[25:]) == [Gap("000005", days[30:32])]
        assert find_gaps(connection, []) == []


DAY = date(2025, 11, 28)


@pytest.fixture
def night(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    """Two hundred funds with three months of history."""
    market = simulated_market(200, date(2025, 9, 1), DAY + timedelta(days=7), 5, library_sessions())
    with StandinServer(market, now=at(DAY, 22)) as server:
        for name in ("FUND", "API", "QUOTE"):
            monkeypatch.setenv(f"NAVKEEPER_EASTMONEY_{name}_URL", server.url)
        monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", "1000")
        found = Nights(sqlite_engine, server, at(DAY, 22))
        assert found.execute(found.queue("backfill", DAY)).status == "SUCCESS"
        yield found


def remove(engine: Engine, codes: list[str], days: list[date]) -> None:
    with db.write(engine) as connection:
        gone = delete(fund_nav).where(fund_nav.c.fund_code.in_(codes), fund_nav.c.nav_date.in_(days))
        assert connection.execute(gone).rowcount == len(codes) * len(days)


def regular(night: Nights) -> list[str]:
    """Funds with a NAV on every session, of the largest category."""
    days = [day for day in library_sessions() if date(2025, 9, 1) <= day <= DAY]
    with db.read(night.engine) as connection:
        query = (
            select(fund_nav.c.fund_code)
            .join(fund_info, fund_info.c.fund_code == fund_nav.c.fund_code)
            .where(fund_info.c.category == "mixed", fund_nav.c.nav_date <= DAY)
            .group_by(fund_nav.c.fund_code)
            .having(func.count() == len(days))
        )
        return sorted(connection.execute(query).scalars())


def test_a_night_mends_what_the_source_has_and_remembers_what_it_has_not(night: Nights) -> None:
    mended, broken, later = regular(night)[:3]
    holes_of = [date(2025, 10, 15), date(2025, 10, 16)]
    before = len(night.rows(fund_nav))
    end = night.execute(night.queue("repair", DAY))
    assert (end.status, end.record_count) == ("SUCCESS", 0)
    remove(night.engine, [mended, later], holes_of)
    remove(night.engine, [broken], [date(2025, 11, 20)])
    night.standin.add_fault("empty_frame", path=f"{broken}.js", times=None)
    night.standin.requests.clear()
    end = night.execute(night.queue("repair", DAY, max_funds=2))
    assert end.status == "SUCCESS"
    assert end.reason == "2 of 3 missing sessions of 2 funds filled; 1 funds wait for the next night"
    end = night.execute(night.queue("repair", DAY, max_funds=2))
    assert (end.status, end.record_count) == ("SUCCESS", 2)
    assert end.reason == "2 of 2 missing sessions of 1 funds filled"
    assert len(night.rows(fund_nav)) == before - 1
    asked = {path: times for path, times in night.standin.requests.items() if path.endswith(f"{broken}.js")}
    end = night.execute(night.queue("repair", DAY))
    assert end.reason == "1 funds have holes, all asked for lately"
    assert [(row.fund_code, row.row_count) for row in night.rows(backfilled_fund)] == [(broken, 1)]
    assert sum(asked.values()) == 1
    remove(night.engine, [broken], [date(2025, 10, 21)])  # one more: worth another try
    end = night.execute(night.queue("repair", DAY))
    assert end.reason == "0 of 2 missing sessions of 1 funds filled"
    night.standin.clear_faults()
    night.now += timedelta(days=31)
    end = night.execute(night.queue("repair", DAY))
    assert (end.reason, end.record_count) == ("2 of 2 missing sessions of 1 funds filled", 2)
    assert len(night.rows(fund_nav)) == before
    assert night.rows(backfilled_fund) == []


def test_a_source_that_is_away_makes_it_partial(night: Nights) -> None:
    mended, lost = regular(night)[:2]
    remove(night.engine, [mended, lost], [date(2025, 10, 15), date(2025, 11, 20)])
    night.standin.add_fault("html_error", path=f"{lost}.js", times=None)
    end = night.execute(night.queue("repair", DAY))
    assert end.status == "PARTIAL"
    assert end.reason == f"2 of 4 missing sessions of 2 funds filled; 1 could not be had: {lost}"
    assert night.rows(backfilled_fund) == []
