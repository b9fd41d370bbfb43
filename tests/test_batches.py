"""Batches among each other on both databases: which one counts, who waits, what a gate lets through."""

from __future__ import annotations

import logging
import threading
from datetime import date

import pytest
from sqlalchemy import Engine, func, select, update

from core import db, nav_store
from core.background_store import nights_before
from core.collector import Fetched, coverage
from core.errors import NotReady
from core.schema import fund_event, fund_info, fund_nav, nav_batch, rule_result
from core.sources.base import FundInfo, NavRow
from core.trading_calendar import TradingCalendar
from tests.example_batch import MON, SESSIONS, THU, TUE, WED, nav
from tests.test_pipeline import (
    NOW,
    dump,
    events,
    held,
    market,
    navs,
    pipeline,
    process,
    stage,
    statuses,
)

BAD = nav(TUE, -1.0, code="999999")


def test_a_new_batch_of_a_night_takes_the_place_of_the_one_not_judged(engine: Engine) -> None:
    other_night = stage(engine, market(MON, 4), "latest", MON)
    first = stage(engine, market(TUE, 4), "latest", TUE)
    line = pipeline(engine)
    checked = line.check(first, NOW)
    second = stage(engine, market(TUE, 4), "latest", TUE)
    stage(engine, market(MON, 4))
    assert statuses(engine) == ["STAGED", "SUPERSEDED", "STAGED", "STAGED"]
    with pytest.raises(NotReady, match=f"batch {first} is SUPERSEDED"):
        line.check(first, NOW)
    with pytest.raises(NotReady, match=f"batch {first} is SUPERSEDED"), db.write(engine) as connection:
        line.merge(connection, checked, NOW)
    assert navs(engine) == []
    assert line.process_nav_data(second, NOW).merged == 4
    assert line.process_nav_data(other_night, NOW).merged == 4


def test_a_batch_older_than_the_merged_one_of_its_night_is_refused(engine: Engine) -> None:
    older, newer = (stage(engine, market(TUE, 3), "latest", TUE) for _ in range(2))
    with db.write(engine) as connection:  # two collectors at once: neither saw the other's batch
        connection.execute(update(nav_batch).values(status="STAGED"))
    line = pipeline(engine)
    checked = line.check(older, NOW)
    line.process_nav_data(newer, NOW)
    with pytest.raises(NotReady, match=f"batch {older} is older than batch {newer}"):
        line.check(older, NOW)
    with pytest.raises(NotReady, match=f"batch {older} is older"), db.write(engine) as connection:
        line.merge(connection, checked, NOW)


def test_two_merges_at_once_come_one_after_the_other(engine: Engine) -> None:
    rows = market(MON, 50)
    first, second = stage(engine, rows), stage(engine, rows)
    line = pipeline(engine)
    found = [line.check(batch_id, NOW) for batch_id in (first, second)]
    later = []

    def merge_second() -> None:
        with db.write(engine) as connection:
            later.append(line.merge(connection, found[1], NOW))

    other = threading.Thread(target=merge_second)
    with db.write(engine) as connection:
        assert line.merge(connection, found[0], NOW).inserted == 50
        other.start()
        other.join(0.5)
        assert other.is_alive()
    other.join(30)
    assert [(result.inserted, result.unchanged) for result in later] == [(0, 50)]


def test_coverage_does_not_creep_down_and_takes_no_bad_file_as_measure(engine: Engine) -> None:
    for day in (MON, TUE, WED):
        assert process(engine, market(day, 100), "latest", day).is_valid
    assert process(engine, market(THU, 91), "latest", THU).is_valid
    assert not process(engine, market(THU, 89), "latest", THU).is_valid  # 98 % of the last one
    batch_id = stage(engine, market(THU, 10), "latest", THU)
    assert pipeline(engine).process_nav_data(batch_id, NOW, force=True).is_valid
    result = process(engine, market(THU, 50), "latest", THU)
    assert result.reason == "50 sound rows, 50.0% of the usual 100; at least 90% needed"


def test_quarantined_rows_are_no_coverage(engine: Engine) -> None:
    wrong = [BAD._replace(fund_code=f"9{n:05d}") for n in range(20)]
    first = process(engine, [*market(TUE, 80), *wrong], "latest", TUE)
    assert (first.is_valid, first.merged, first.quarantined) == (True, 80, 20)
    with db.read(engine) as connection:
        assert nights_before(connection, "test").believed == [80]
        assert nights_before(connection, "another source").believed == []
    result = process(engine, [*market(WED, 71), *wrong[:9]], "latest", WED)
    assert result.reason == "71 sound rows, 88.8% of the usual 80; at least 90% needed"


def test_a_first_night_that_is_mostly_wrong_is_refused_unless_forced(engine: Engine) -> None:
    rows = [*market(TUE, 15), *(BAD._replace(fund_code=f"9{n:05d}") for n in range(5))]
    result = process(engine, rows, "latest", TUE)
    assert (result.is_valid, result.merged, held(engine)) == (False, 0, [])
    assert result.reason == "5 of 20 rows quarantined; at most 20% allowed"
    assert result.failed_rules == ["nav_positive", "quarantined_share"]
    batch_id = stage(engine, rows, "latest", TUE)
    forced = pipeline(engine).process_nav_data(batch_id, NOW, force=True)
    assert (forced.is_valid, forced.merged, forced.quarantined) == (True, 15, 5)
    assert forced.failed_rules == ["nav_positive", "quarantined_share"]
    with db.read(engine) as connection:
        gate = select(rule_result.c.failed).where(
            rule_result.c.batch_id == batch_id, rule_result.c.rule_id == "quarantined_share"
        )
        assert connection.execute(gate).scalar_one() == 1
    assert process(engine, [BAD]).is_valid  # a history has no gate


MONEY = NavRow("000900", TUE, income_per_10k=0.5)


def fetched(day: date, funds: int) -> Fetched:
    return Fetched(day, [], [*market(day, funds), MONEY._replace(nav_date=day), nav(MON, 1.0, code="000999")])


def test_coverage_of_a_night_counts_navs_against_the_newest_night_there_is(engine: Engine) -> None:
    calendar = TradingCalendar(SESSIONS)
    with db.read(engine) as connection:
        assert coverage(connection, fetched(TUE, 8), calendar) == (8, 0, 1.0)
    process(engine, [*market(MON, 10), *[MONEY._replace(fund_code=f"0008{n:02d}") for n in range(5)]])
    with db.read(engine) as connection:
        assert coverage(connection, fetched(TUE, 8), calendar) == (8, 10, 0.8)
        assert coverage(connection, fetched(THU, 5), calendar) == (5, 10, 0.5)  # two nights are missing
        assert coverage(connection, Fetched(TUE, [], [MONEY]), calendar) == (0, 10, 0.0)
    assert Fetched(TUE, [], [MONEY]).advanced == 1


def test_a_valuation_on_a_sunday_is_no_measure_of_a_night(sqlite_engine: Engine) -> None:
    process(sqlite_engine, [*market(date(2024, 6, 28), 10), *market(date(2024, 6, 30), 2)])
    with db.read(sqlite_engine) as connection:
        found = coverage(connection, fetched(date(2024, 7, 1), 9), TradingCalendar(SESSIONS))
    assert found == (9, 10, 0.9)


def test_a_fund_named_twice_has_its_last_description(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    funds = [
        FundInfo("000001", "甲", "股票型"),
        FundInfo("000001", "乙", "债券型-长债"),
        FundInfo("000002", "丙", ""),
    ]
    with caplog.at_level(logging.WARNING), db.write(engine) as connection:
        assert nav_store.save_funds(connection, funds, NOW) == 2
    assert [record.levelname for record in caplog.records if "000001" in record.getMessage()] == ["WARNING"]
    with db.write(engine) as connection:
        assert nav_store.save_funds(connection, funds, NOW) == 0
        assert nav_store.known_funds(connection) == {"000001": "bond", "000002": "other"}


def test_descriptions_of_any_length_fit(engine: Engine) -> None:
    fund = FundInfo("000001", "名" * 900 + "\ud83d", "债券型" + "长" * 900, "p" * 900)
    half = fund._replace(fund_code="000002", fund_name="名\ud83d")
    with db.write(engine) as connection:
        assert nav_store.save_funds(connection, [fund, half], NOW) == 2
        assert nav_store.save_funds(connection, [fund, half], NOW) == 0
        rows = connection.execute(select(fund_info).order_by(fund_info.c.fund_code)).all()
    assert (rows[0].fund_name, len(rows[0].fund_type), rows[0].category) == ("名" * 200, 50, "bond")
    assert (rows[0].pinyin, rows[1].fund_name) == ("p" * 100, "名?")


# 2.0001 / 1.9901 - 1 = 0.50249 % on Tuesday, 2 * 1.0101 / 2.0001 - 1 = 1.00495 % on Wednesday
ANNOUNCED = [nav(MON, 1.9901), nav(TUE, 2.0001, 0.5, split_ratio=2.0)]
SHOWN = nav(WED, 1.0101, 1.0)


# (1.9601 + 0.05) / 2.0001 - 1 = 0.49998 %
PAYING = [ANNOUNCED[0], nav(TUE, 2.0001, None, dividend=0.05)]
PAID = nav(WED, 1.9601, 0.5)


@pytest.mark.parametrize("published", [None, 0.5])
def test_an_event_announced_in_one_batch_and_shown_in_the_next_is_booked_once(
    engine: Engine, published: float | None
) -> None:
    process(engine, [ANNOUNCED[0], ANNOUNCED[1]._replace(daily_return=published)])
    assert events(engine) == [(TUE, "split", 2.0, "announced")]
    assert process(engine, [SHOWN]).merged == 1
    assert events(engine) == [(WED, "split", 2.0, "published")]
    before = dump(engine)
    process(engine, [ANNOUNCED[0], ANNOUNCED[1]._replace(daily_return=published), SHOWN])
    process(engine, [SHOWN])
    assert dump(engine) == before


def test_a_dividend_booked_on_its_announcement_moves_to_the_row_that_shows_it(engine: Engine) -> None:
    process(engine, PAYING)
    assert events(engine) == [(TUE, "dividend", 0.05, "published")]
    assert process(engine, [PAID]).merged == 1
    assert events(engine) == [(WED, "dividend", 0.05, "published")]


def test_an_event_announced_and_never_shown_is_forgotten(engine: Engine) -> None:
    process(engine, ANNOUNCED)
    # 2.0101 / 2.0001 - 1 = 0.49998 %
    assert process(engine, [nav(WED, 2.0101, 0.5)]).quarantined == 0
    assert events(engine) == []


def test_an_event_stays_where_it_was_announced_while_the_row_after_it_is_held(engine: Engine) -> None:
    process(engine, PAYING)
    assert process(engine, [PAID._replace(accum_nav=-1.0)]).quarantined == 1
    assert events(engine) == [(TUE, "dividend", 0.05, "published")]


def test_a_row_collected_again_without_its_event_is_judged_with_it(engine: Engine) -> None:
    rows = [nav(MON, 2.0001), nav(TUE, 1.0101, 1.0, split_ratio=2.0)]
    process(engine, rows)
    before = dump(engine)
    silent = [rows[0], rows[1]._replace(split_ratio=None)]
    for batch in (silent, silent[1:]):
        result = process(engine, batch)
        assert (result.quarantined, result.unchanged) == (0, len(batch))
    assert dump(engine) == before
    # what the row says itself goes before: 2.02 * 1.0101 / 2.0001 - 1 = 2.015 %
    process(engine, [rows[0], rows[1]._replace(split_ratio=2.02, daily_return=2.02)])
    assert events(engine) == [(TUE, "split", 2.02, "published")]


def test_a_held_row_is_kept_as_it_came(engine: Engine) -> None:
    process(engine, [nav(MON, 2.0001), nav(TUE, 1.0101, 1.0, split_ratio=2.0)])
    assert process(engine, [nav(TUE, 1.0101, 9.0)]).quarantined == 1
    assert [row.split_ratio for row in held(engine)] == [None]
    with db.read(engine) as connection:
        assert connection.execute(select(func.count()).select_from(fund_nav)).scalar_one() == 2
        assert connection.execute(select(func.count()).select_from(fund_event)).scalar_one() == 1
