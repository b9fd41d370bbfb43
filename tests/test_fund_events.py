"""Lists of dividends and splits beside what came with the NAVs, on both databases."""

from __future__ import annotations

from datetime import date, time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from core import db
from core.fund_events import NoticeResult, agree, save_notices
from core.schema import fund_event, nav_batch
from core.sources.base import EventNotice
from core.sources.eastmoney import EastmoneySource
from core.standin import StandinServer, recorded_market
from tests.conftest import NOW
from tests.daemon import at
from tests.recorded import part_of
from tests.test_pipeline import process

DAY = date(2025, 12, 1)


def save(engine: Engine, notices: list[EventNotice], **about: Any) -> NoticeResult:
    with db.write(engine) as connection:
        return save_notices(connection, notices, NOW, source="test", provenance="by hand", **about)


def events_of(engine: Engine) -> dict[tuple[str, date, str], tuple[float, str, float | None]]:
    with db.read(engine) as connection:
        return {
            (row.fund_code, row.ex_date, row.kind): (row.value, row.evidence, row.listed_value)
            for row in connection.execute(select(fund_event))
        }


def book(engine: Engine, code: str, kind: str, value: float, evidence: str = "published") -> None:
    record = {"fund_code": code, "ex_date": DAY, "kind": kind, "value": value, "evidence": evidence}
    with db.write(engine) as connection:
        connection.execute(fund_event.insert().values(batch_id=1, **record))


def test_an_unknown_event_is_announced_in_a_batch_of_its_own(engine: Engine) -> None:
    notice = EventNotice("000001", DAY, "dividend", 0.05)
    assert save(engine, [notice, notice]) == NoticeResult(1, 0)
    assert events_of(engine) == {("000001", DAY, "dividend"): (0.05, "announced", 0.05)}
    with db.read(engine) as connection:
        batch = connection.execute(select(nav_batch)).one()
        assert connection.execute(select(fund_event.c.batch_id)).scalar_one() == batch.id
    assert (batch.kind, batch.status, batch.row_count, batch.source) == ("history", "MERGED", 0, "test")
    assert batch.provenance == "list of dividends and splits: by hand"
    assert save(engine, [notice]) == NoticeResult(0, 1)
    with db.read(engine) as connection:
        assert len(connection.execute(select(nav_batch)).all()) == 1  # nothing new, no batch


def test_a_booked_value_is_never_changed_and_a_difference_is_named(engine: Engine) -> None:
    book(engine, "000001", "dividend", 0.0501)
    book(engine, "000002", "split", 1.01363421)
    book(engine, "000003", "dividend", 0.05)
    listed = [
        EventNotice("000001", DAY, "dividend", 0.5),
        EventNotice("000002", DAY, "split", 1.0136342),  # one digit less
    ]
    result = save(engine, listed, since=DAY, until=DAY)
    assert (result.new, result.known) == (0, 2)
    assert result.differing == ["000001 2025-12-01 dividend: booked 0.0501, listed 0.5"]
    assert result.unlisted == ["000003 2025-12-01 dividend"]
    assert events_of(engine) == {
        ("000001", DAY, "dividend"): (0.0501, "published", 0.5),
        ("000002", DAY, "split"): (1.01363421, "published", 1.0136342),
        ("000003", DAY, "dividend"): (0.05, "published", None),
    }


def test_an_announcement_follows_its_list(engine: Engine) -> None:
    save(engine, [EventNotice("000001", DAY, "dividend", 0.05)])
    assert save(engine, [EventNotice("000001", DAY, "dividend", 0.06)]) == NoticeResult(0, 1)
    assert events_of(engine) == {("000001", DAY, "dividend"): (0.06, "announced", 0.06)}


def test_several_payments_of_one_day_are_one_event(engine: Engine) -> None:
    twice = [EventNotice("000001", DAY, "dividend", value) for value in (0.05, 0.02, 0.05)]
    splits = [EventNotice("000001", DAY, "split", value) for value in (2.0, 1.5)]
    assert save(engine, twice + splits) == NoticeResult(2, 0)
    assert events_of(engine) == {
        ("000001", DAY, "dividend"): (0.07, "announced", 0.07),
        ("000001", DAY, "split"): (3.0, "announced", 3.0),
    }
    book(engine, "000002", "dividend", 0.02)
    other = [notice._replace(fund_code="000002") for notice in twice]
    assert save(engine, other).differing == []  # one of them is what was paid


@pytest.mark.parametrize(
    ("booked", "listed", "same"),
    [
        (0.05, 0.05, True),
        (0.05, 0.0500004, True),
        (0.05, 0.0501, False),
        (2.0, 2.000001, True),
        (2.0, 2.1, False),
    ],
)
def test_figures_agree_to_the_digits_they_are_published_with(
    booked: float, listed: float, same: bool
) -> None:
    assert agree(booked, listed) is same


def test_recorded_events_of_both_pages_are_the_same(
    sqlite_engine: Engine, data: Path, tmp_path: Path
) -> None:
    """The words on the funds' own pages (unitMoney) and the two lists, over real sockets."""
    part = part_of(data, tmp_path / "part.parquet", funds=150)
    market = recorded_market(part, time(18), data / "fund_list.csv")
    with StandinServer(market, now=at(date(2026, 1, 30), 20)) as standin:
        source = EastmoneySource(standin.url, standin.url, standin.url, requests_per_second=1e6)
        rows = [row for _code, found in source.histories(list(market.index_of)) for row in found]
        notices = source.events(date(2005, 1, 1), date(2026, 1, 30))
        source.close()
    process(sqlite_engine, rows, now=NOW)
    booked = events_of(sqlite_engine)
    published = {key: value for key, value in booked.items() if value[1] == "published"}
    result = save(sqlite_engine, notices, since=date(2005, 1, 1), until=date(2026, 1, 30))
    assert result.differing == []
    # A return of 2.16 % stands in the recording a day after the dividend it contains.
    assert set(result.unlisted) <= {"511880 2021-12-31 dividend"}
    assert len(published) > 50
    # What only the list has is what the rules did not believe of the funds' own pages.
    assert result.known + result.new == len({notice[:3] for notice in notices})
    assert result.new < 0.05 * len(notices)
