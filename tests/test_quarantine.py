"""What is held in quarantine: found, seen among its neighbours, rejected; on both databases."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select

from config.translation import translator
from core import db
from core.errors import UsageError
from core.quarantine import (
    count_held,
    find_row,
    held_rows,
    neighbours,
    reject,
    require_held,
    same_date_elsewhere,
)
from core.rules import RULES
from core.schema import fund_nav, money_fund_yield, nav_batch, quarantine, tmp_fund_nav
from scheduler.held_rows import decided_text, list_rows, list_sections, proposal_text, show_row, show_sections
from scheduler.listing_text import drawn as terminal
from scheduler.sections import drawn
from tests.example_night import at

SENTENCES = {rule.id: rule for rule in RULES}
CODE, MONEY = "000001", "000009"
MONDAY = date(2026, 1, 5)
HELD_AT = at("2026-01-05 19:31")
SPLIT = '{"kind": "split", "value": 2.0, "why": "NAV 1.0000 after 2.0000"}'


def add_row(connection: Connection, number: int, **values: Any) -> None:
    row = {
        "id": number,
        "row_hash": f"{number:064d}",
        "batch_id": 2,
        "source": "eastmoney",
        "fund_code": CODE,
        "nav_date": MONDAY,
        "unit_nav": 1.0,
        "reasons": "return_limit",
        "held_at": HELD_AT,
    }
    connection.execute(insert(quarantine).values(row | values))


def add_batch(connection: Connection, number: int, kind: str, source: str, day: date) -> None:
    connection.execute(
        insert(nav_batch).values(
            id=number,
            kind=kind,
            business_date=day,
            source=source,
            provenance="",
            collected_at=HELD_AT,
            row_count=1,
            status="MERGED",
        )
    )


@pytest.fixture
def held(engine: Engine) -> Engine:
    """Four rows: a jump of a fund with eight NAVs around it, a money fund's, an unreadable one, a decided one."""
    with db.write(engine) as connection:
        add_row(connection, 1, daily_return=-50.0, reasons="return_limit,accum_vs_unit", proposal=SPLIT)
        add_row(
            connection,
            2,
            fund_code=MONEY,
            unit_nav=None,
            income_per_10k=90.0,
            yield_7d=1.5,
            reasons="money_limit",
        )
        add_row(
            connection,
            3,
            fund_code="not a code at all",
            nav_date=None,
            unit_nav=None,
            defect="no date",
            reasons="key_fields",
        )
        add_row(
            connection, 4, resolution="REJECTED", resolved_by="cli:other", resolved_at=HELD_AT, note="typo"
        )
        days = [MONDAY + timedelta(days=n) for n in (-10, -9, -8, -7, -6, -5, -4, 0, 1, 2)]
        connection.execute(
            insert(fund_nav),
            [{"fund_code": CODE, "nav_date": day, "unit_nav": 2.0, "batch_id": 1} for day in days],
        )
        connection.execute(
            insert(money_fund_yield),
            {
                "fund_code": MONEY,
                "nav_date": MONDAY - timedelta(days=1),
                "income_per_10k": 0.5,
                "yield_7d": 1.4,
                "batch_id": 1,
            },
        )
        add_batch(connection, 2, "latest", "eastmoney", MONDAY)
        add_batch(connection, 3, "second", "tushare", MONDAY)
        add_batch(connection, 4, "latest", "eastmoney", MONDAY + timedelta(days=40))
        connection.execute(
            insert(tmp_fund_nav),
            [
                {
                    "batch_id": batch,
                    "row_no": 1,
                    "fund_code": CODE,
                    "nav_date": MONDAY,
                    "unit_nav": nav,
                    "held": 0,
                }
                for batch, nav in ((2, 1.0), (3, 1.01), (4, 1.02))
            ],
        )
    return engine


def ids(engine: Engine, **asked: Any) -> list[int]:
    with db.read(engine) as connection:
        rows = held_rows(connection, **asked)
        assert count_held(
            connection, **{name: value for name, value in asked.items() if name != "limit"}
        ) >= len(rows)
    return [row.id for row in rows]


def test_finding_rows(held: Engine) -> None:
    assert ids(held) == [3, 2, 1]
    assert ids(held, limit=1) == [3]
    assert ids(held, decided=True) == [4, 3, 2, 1]
    assert ids(held, fund=CODE) == [1]
    assert ids(held, day=MONDAY, decided=True) == [4, 2, 1]
    assert ids(held, reason="accum_vs_unit") == [1]
    assert ids(held, reason="return_limit", decided=True) == [4, 1]
    assert ids(held, reason="accum_vs") == []  # no part of a rule's name
    assert ids(held, reason="%") == ids(held, reason="return_limi_") == []
    assert ids(held, batches=[3]) == ids(held, batches=[]) == []


def test_the_believed_rows_around(held: Engine) -> None:
    with db.read(held) as connection:
        around = neighbours(connection, find_row(connection, 1))
        money = neighbours(connection, find_row(connection, 2))
        unreadable = neighbours(connection, find_row(connection, 3))
    assert [(row.nav_date - MONDAY).days for row in around.before] == [-8, -7, -6, -5, -4]
    assert around.same_date is not None
    assert [(row.nav_date - MONDAY).days for row in around.after] == [1, 2]
    assert [row.yield_7d for row in money.before] == [1.4]
    assert unreadable == ((), None, ())


def test_what_other_batches_say_of_the_date(held: Engine) -> None:
    with db.read(held) as connection:
        found = same_date_elsewhere(connection, find_row(connection, 1))
        assert same_date_elsewhere(connection, find_row(connection, 3)) == ()
    assert [(row.source, row.unit_nav) for row in found] == [("tushare", 1.01)]


def test_rejecting(held: Engine) -> None:
    with db.write(held) as connection:
        assert (
            reject(connection, [1, 2, 1], "cli:me", "wrong by a factor of two", at("2026-01-06 09:00")) == 2
        )
    assert ids(held) == [3]
    with db.read(held) as connection:
        row = find_row(connection, 1)
        stored = connection.execute(select(fund_nav.c.unit_nav).distinct()).scalars().all()
    assert (row.resolution, row.resolved_by, row.note) == ("REJECTED", "cli:me", "wrong by a factor of two")
    assert row.resolved_at == at("2026-01-06 09:00")
    assert stored == [2.0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([1, 99, 98], "there is no row 99, 98 in quarantine; nothing was done"),
        ([1, 4], "4 was REJECTED by cli:other; nothing was done"),
        ([77, 4, 1], "there is no row 77 in quarantine; 4 was REJECTED by cli:other; nothing was done"),
    ],
)
def test_nothing_is_half_done(held: Engine, asked: list[int], said: str) -> None:
    with pytest.raises(UsageError) as error, db.write(held) as connection:
        reject(connection, asked, "cli:me", None, HELD_AT)
    assert str(error.value) == said
    assert ids(held) == [3, 2, 1]


def test_long_notes_and_names_are_cut(held: Engine) -> None:
    with db.write(held) as connection:
        reject(connection, [1], "cli:" + "n" * 100, "字" * 600, HELD_AT)
        row = find_row(connection, 1)
        assert (len(row.resolved_by), len(row.note)) == (64, 500)


def test_the_order_asked_for_is_kept(held: Engine) -> None:
    with db.read(held) as connection:
        assert [row.id for row in require_held(connection, [2, 1, 2])] == [2, 1]


def text(parts: list[Any]) -> str:
    return terminal(drawn(parts))


def test_rows_in_words(held: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10000")
    records, total = list_rows(held, fund=None, day=None, reason=None, decided=False, limit=2)
    assert ([record["id"] for record in records], total) == ([3, 2], 3)
    chinese = text(list_sections(records, total, translator("zh")))
    assert "万份收益 90.0000, 7日年化% 1.50" in chinese
    assert "共 3 行，只列最新 2 行" in chinese
    assert SENTENCES["key_fields"].zh in chinese
    shown = text(show_sections(show_row(held, 1), translator("en")))
    for words in (
        "unit NAV 1.0000, return % -50.00",
        "a split of 2.0000 shares for one: NAV 1.0000 after 2.0000",
        "this row",
        "stored",
        "tushare",
        SENTENCES["return_limit"].en,
        SENTENCES["accum_vs_unit"].en,
    ):
        assert words in shown
    assert text(list_sections([], 0, translator("en"))) == "nothing is held\n"
    money = text(show_sections(show_row(held, 2), translator("en")))
    assert "7-day yield %" in money
    decided = text(show_sections(show_row(held, 4), translator("en")))
    assert "2026-01-05 19:31:00, cli:other" in decided
    assert "typo" in decided
    assert "no date" in text(show_sections(show_row(held, 3), translator("en")))


def test_proposals_in_words() -> None:
    english = translator("en")
    assert proposal_text(None, english) == ""
    assert proposal_text({"kind": "dividend", "value": 0.035}, english) == "a dividend of 0.0350 a share"
    assert proposal_text({"kind": "merger", "value": 3}, english) == "merger 3"


def test_decisions_in_words() -> None:
    done = {"released": [1, 2], "merged": 1, "revised": 1, "events": 0, "still_held": [3], "funds": [CODE]}
    said = decided_text(done | {"metrics_run": None}, translator("en"))
    assert said.splitlines() == [
        "rows released and merged: 2; stored values corrected: 1, events booked: 0",
        "of the same funds still held: 3",
        "their metrics are those of before until: python main.py metrics --fund 000001",
    ]
    assert decided_text(done | {"metrics_run": 7}, translator("zh")).splitlines()[-1] == "运行 7 将重算其指标"
    assert decided_text({"rejected": [1]}, translator("zh")) == "已拒收 1 行；记录保留"
