"""What a fund is doing, and how lists of funds are kept."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from core import db, nav_store
from core.fund_status import STATUSES, fund_status
from core.schema import fund_info
from core.sources.base import FundInfo, NavRow
from tests.conftest import NOW
from tests.test_pipeline import process

DAY = date(2026, 1, 30)
OPEN = ("开放申购", "开放赎回")


@pytest.mark.parametrize(
    ("purchase", "redemption", "inception", "status"),
    [
        (*OPEN, date(2001, 12, 18), "active"),
        ("限大额", "开放赎回", None, "active"),
        ("暂停申购", "开放赎回", None, "active"),  # who holds it can sell
        ("开放申购", "暂停赎回", None, "active"),
        ("暂停申购", "暂停赎回", None, "suspended"),
        ("场内交易", "场内交易", None, "active"),
        ("认购期", "", None, "new"),
        (None, None, date(2026, 2, 3), "new"),
        (*OPEN, DAY, "active"),
        ("封闭期", "封闭期", None, "closed"),
        ("暂停申购", "封闭期", None, "closed"),
        ("终止上市", "", None, "liquidated"),
        ("暂停申购", "基金清盘", None, "liquidated"),
        (None, None, None, "active"),
    ],
)
def test_the_words_decide(
    purchase: str | None, redemption: str | None, inception: date | None, status: str
) -> None:
    found = fund_status(purchase, redemption, inception, listed=True, business_date=DAY, newest_nav=None)
    assert found == status
    assert found in STATUSES


@pytest.mark.parametrize(
    ("days_silent", "listed", "status"),
    [(31, False, "liquidated"), (30, False, "active"), (400, True, "active"), (None, False, "liquidated")],
)
def test_a_fund_is_gone_when_no_list_names_it_and_it_is_silent(
    days_silent: int | None, listed: bool, status: str
) -> None:
    newest = None if days_silent is None else DAY - timedelta(days=days_silent)
    found = fund_status(*OPEN, None, listed=listed, business_date=DAY, newest_nav=newest)
    assert found == status


def funds_of(engine: Engine) -> dict[str, Any]:
    with db.read(engine) as connection:
        return {row.fund_code: row for row in connection.execute(select(fund_info))}


def save(engine: Engine, funds: list[FundInfo], day: date | None) -> int:
    with db.write(engine) as connection:
        return nav_store.save_funds(connection, funds, NOW, day)


def test_what_the_lists_say_is_kept_and_blanks_take_nothing_away(engine: Engine) -> None:
    full = FundInfo("000001", "甲", "混合型-灵活", "J", date(2001, 12, 18), *OPEN)
    assert save(engine, [full, FundInfo("000002", "乙", "债券型-长债")], DAY) == 2
    bare = FundInfo("000001", "", "")
    assert save(engine, [bare], DAY + timedelta(days=3)) == 0
    row = funds_of(engine)["000001"]
    assert (row.fund_name, row.fund_type, row.category, row.pinyin) == ("甲", "混合型-灵活", "mixed", "J")
    assert (row.inception_date, row.purchase_status, row.redemption_status) == (date(2001, 12, 18), *OPEN)
    assert (row.status, row.last_listed) == ("active", DAY + timedelta(days=3))
    assert funds_of(engine)["000002"].last_listed == DAY
    # an older list that comes later does not set the day back, words do
    assert save(engine, [full._replace(purchase="封闭期", redemption="封闭期")], DAY) == 1
    row = funds_of(engine)["000001"]
    assert (row.status, row.last_listed) == ("closed", DAY + timedelta(days=3))
    assert save(engine, [full], None) == 1
    assert funds_of(engine)["000001"].last_listed == DAY + timedelta(days=3)


def test_a_fund_that_is_listed_no_more_keeps_its_row(engine: Engine) -> None:
    funds = [FundInfo(f"00000{n}", "甲", "混合型-灵活", "", None, *OPEN) for n in (1, 2, 3)]
    process(engine, [NavRow("000002", DAY, 1.5, 1.5)], now=NOW)
    save(engine, funds, DAY)
    week, month = DAY + timedelta(days=7), DAY + timedelta(days=31)
    assert save(engine, funds[:1], week) == 0  # one thin list is no end
    assert save(engine, funds[:1], week + timedelta(days=1)) == 1
    assert {code: row.status for code, row in funds_of(engine).items()} == {
        "000001": "active",
        "000002": "active",  # it has a NAV of eight days ago
        "000003": "liquidated",
    }
    assert save(engine, funds[:1], month) == 1
    assert funds_of(engine)["000002"].status == "liquidated"
    assert save(engine, funds, month) == 2  # back again
    assert {row.status for row in funds_of(engine).values()} == {"active"}
