"""Histories merged without staging: exactly what the staged way makes of them, on both databases."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.engine import URL

from core import db, history_store
from core.data_pipeline import NavResult
from core.history import HistoryMerger
from core.initialise import initialise
from core.schema import (
    backfilled_fund,
    fund_adjustment,
    fund_nav,
    fund_nav_revision,
    nav_batch,
    rule_result,
    tmp_fund_nav,
)
from core.sources.base import NavRow
from core.trading_calendar import TradingCalendar
from tests.example_batch import FRI, MON, SESSIONS, THRESHOLDS, THU, TUE, WED, nav
from tests.stored_days import require_counted
from tests.test_pipeline import BAD, GOOD, KEPT, MONEY, NOW, dump, process

PROVENANCE = "written by hand"


@pytest.fixture
def twin(engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    """A second empty database of the same kind."""
    url = URL.create("sqlite", database=str(tmp_path / "twin.db"))
    if engine.dialect.name != "sqlite":
        name = f"{engine.url.database}_twin"
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        url = engine.url.set(database=name)
    found = db.connect(url)
    initialise(found, NOW)
    yield found
    found.dispose()


def merger(engine: Engine, run_id: int | None = None) -> HistoryMerger:
    return HistoryMerger(engine, THRESHOLDS, TradingCalendar(SESSIONS), "test", run_id)


def merge(engine: Engine, rows: Sequence[NavRow], run_id: int | None = None) -> NavResult:
    line = merger(engine, run_id)
    checked = line.check(rows, NOW)
    with db.write(engine) as connection:
        return line.merge(connection, checked, PROVENANCE, NOW)


def everything(engine: Engine) -> dict[str, list[Any]]:
    """All that a merge writes; revisions and held rows without their own numbers."""
    require_counted(engine)
    found: dict[str, list[Any]] = dict(dump(engine, *KEPT, nav_batch, rule_result, fund_adjustment))
    for name in ("fund_nav_revision", "quarantine"):
        found[name] = sorted((row[1:] for row in found[name]), key=repr)
    return found


GARBAGE = [
    nav(None, 1.0, code="000003", defect="date 'x' is no date", raw="x", origin="navs.csv:3"),
    nav(MON, 1e300, code="000003"),
    nav(TUE, -1.0, code="000003"),
    nav(MON, 1.0, code="x" * 99),
    nav(MON, 1.0, code="00000٣"),
    NavRow("000007", MON, income_per_10k=1e15, yield_7d=-1e15),
]
SPLIT = [nav(MON, 2.0001, code="000005"), nav(TUE, 1.0101, 1.0, code="000005", split_ratio=2.0)]
PORTIONS: list[list[NavRow]] = [
    [
        *GOOD,
        BAD,
        *MONEY,
        *GARBAGE,
        *SPLIT,
        GOOD[1],
        nav(TUE, 1.5, code="000004"),
        nav(TUE, 1.6, code="000004"),
    ],
    [*GOOD, BAD, *MONEY, *GARBAGE, *SPLIT],  # again: nothing changes
    [  # corrections: small, of more decimals, filled, blank, large; of a yield; more decimals than a table keeps
        GOOD[0]._replace(unit_nav=1.0002, accum_nav=None),
        GOOD[1]._replace(unit_nav=1.0101 + 1e-14),
        GOOD[2]._replace(unit_nav=1.02021),
        MONEY[0]._replace(yield_7d=1.85),
        MONEY[1]._replace(income_per_10k=None),
        SPLIT[0]._replace(accum_nav=2.0001, daily_return=0.5),
    ],
    # later rows alone: judged against what is stored before them, and with the events on record
    [
        nav(THU, 1.0304, 1.0),
        nav(FRI, 1.0407, 1.0),
        SPLIT[1]._replace(split_ratio=None),
        nav(WED, 1.02, 0.98, code="000005"),
    ],
    [nav(THU, 1.2304, 1.0), nav(FRI, 1.3407, None), nav(THU, 1.0304, 1.0, code="000002")],
    [nav(THU, 1.3, 1.0, code="000002")],
    [],
]


def test_both_ways_write_the_same(engine: Engine, twin: Engine) -> None:
    for rows in PORTIONS:
        staged, direct = process(engine, rows, in_memory=True), merge(twin, rows)
        assert direct == staged
        assert everything(twin) == everything(engine)
    assert dump(twin, tmp_fund_nav) == {"tmp_fund_nav": []}
    kinds = {row[-1] for row in everything(twin)["fund_nav_revision"]}
    assert kinds >= {"filled", "small", "precision"}


def random_rows(rng: random.Random, funds: int) -> list[NavRow]:
    """A few funds with most of their dates, some values missing, wrong, repeated or with an event."""
    rows = []
    for number in range(funds):
        unit = 1.0
        for day in SESSIONS[-rng.randint(5, 40) :]:
            change = rng.choice((0.5, -0.5, 0.0, 3.0, 40.0 if rng.random() < 0.1 else 0.1))
            unit = round(unit * (1 + change / 100), 4)
            published = None if rng.random() < 0.1 else round(change + rng.choice((0, 0, 0, 0.5)), 2)
            accum = None if rng.random() < 0.2 else round(unit + 0.3, 4)
            row = nav(day, unit, published, accum, code=f"{number % 97 + 1:06d}")
            if rng.random() < 0.03:
                row = row._replace(dividend=0.05)
            rows += [row] * (2 if rng.random() < 0.02 else 1) if rng.random() < 0.9 else []
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_both_ways_write_the_same_of_anything(engine: Engine, twin: Engine, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(4):
        rows = random_rows(rng, 8)
        staged, direct = process(engine, rows, in_memory=True), merge(twin, rows)
        assert direct == staged
        assert everything(twin) == everything(engine)


def test_what_others_merged_meanwhile_is_seen(engine: Engine) -> None:
    line = merger(engine, 7)
    checked = line.check(GOOD, NOW)
    process(engine, [GOOD[0], GOOD[1]._replace(accum_nav=None)])
    with db.write(engine) as connection:
        result = line.merge(connection, checked, PROVENANCE, NOW)
    assert (result.inserted, result.revised, result.unchanged) == (1, 1, 1)
    with db.read(engine) as connection:
        assert connection.execute(select(fund_nav_revision.c.reason)).scalars().all() == ["filled"]


def test_a_failure_in_the_middle_leaves_nothing(engine: Engine) -> None:
    line = merger(engine)
    checked = line.check([*GOOD, BAD], NOW)

    def merge_half() -> None:
        with db.write(engine) as connection:
            line.merge(connection, checked, PROVENANCE, NOW)
            history_store.mark_done(connection, 7, {"000001": 4}, NOW)
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        merge_half()
    assert all(rows == [] for rows in everything(engine).values())
    assert dump(engine, backfilled_fund) == {"backfilled_fund": []}


def test_more_rows_than_a_statement_takes(engine: Engine) -> None:
    """Seven funds of 3,001 days: some statements full, the last one not; every value as it was given."""
    days = [date(2010, 1, 1) + timedelta(days=n) for n in range(3001)]
    rows = [
        NavRow(f"{fund:06d}", day, round(1 + at / 10_000, 4), None if at % 7 else round(2 + at / 1000, 3))
        for fund in range(1, 8)
        for at, day in enumerate(days)
    ]
    columns = ("fund_code", "nav_date", "unit_nav", "accum_nav", "batch_id")
    with db.write(engine) as connection:
        given = ((row[0], row[1].isoformat(), row[2], row[3], 1) for row in rows if row[1])
        assert db.bulk_insert(connection, fund_nav, columns, given) == 21_007
        found = connection.execute(
            select(*(fund_nav.c[name] for name in columns[:4])).order_by("fund_code", "nav_date")
        )
        assert [tuple(row) for row in found] == [row[:4] for row in rows]


def test_texts_of_any_kind_reach_staging_unchanged(engine: Engine) -> None:
    rows = [
        nav(MON, None, code=f"{n:06d}", defect="坏", raw=text * times)
        for n, (text, times) in enumerate(
            [("引号\"'\\", 1), ("%s\n\t\0", 1), ("汉", 4000), ("🀄", 4000), ("", 1)]
        )
    ]
    process(engine, rows * 300)
    [found] = dump(engine, tmp_fund_nav).values()
    assert [row[-2] for row in found] == [row.raw for row in rows * 300]
