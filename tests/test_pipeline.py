"""Staging to belief on both databases: what is merged, what is held, what is kept of the past."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select

from core import db, nav_store, retention
from core.background_store import nights_before
from core.collector import FundCollector
from core.data_pipeline import DataPipeline, NavResult
from core.errors import NotReady
from core.rules import RULES
from core.schema import (
    fund_event,
    fund_nav,
    fund_nav_revision,
    money_fund_yield,
    nav_batch,
    quarantine,
    rule_result,
    tmp_fund_nav,
)
from core.sources.base import FundInfo, NavRow
from core.sources.files import FilesSource
from core.trading_calendar import TradingCalendar
from tests.example_batch import FRI, MON, SESSIONS, THRESHOLDS, THU, TUE, WED, nav

NOW = datetime(2025, 12, 5, 11, 30, tzinfo=UTC)  # Friday, 19:30 in Shanghai
KEPT = (fund_nav, fund_nav_revision, fund_event, money_fund_yield, quarantine)
MONEY = [NavRow("000009", day, income_per_10k=0.5 + n / 10, yield_7d=1.8) for n, day in enumerate((MON, TUE))]
GOOD = [nav(MON, 1.0001, None, 1.5001), nav(TUE, 1.0101, 1.0, 1.5101), nav(WED, 1.0202, 1.0, 1.5202)]
BAD = nav(THU, -1.0, 1.0, 1.5304)


def stage(engine: Engine, rows: Sequence[NavRow], kind: str = "history", night: date | None = None) -> int:
    with db.write(engine) as connection:
        return nav_store.open_batch(
            connection,
            kind=kind,
            business_date=night,
            source="test",
            provenance="written by hand",
            now=NOW,
            rows=rows,
            run_id=None,
        )


def pipeline(engine: Engine) -> DataPipeline:
    return DataPipeline(engine, THRESHOLDS, TradingCalendar(SESSIONS))


def process(
    engine: Engine,
    rows: Sequence[NavRow],
    kind: str = "history",
    night: date | None = None,
    now: datetime = NOW,
    in_memory: bool = False,
) -> NavResult:
    batch_id = stage(engine, rows, kind, night)
    return pipeline(engine).process_nav_data(batch_id, now, rows if in_memory else None)


def dump(engine: Engine, *tables: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of these tables (the believed and kept ones by default), sorted by key."""
    with db.read(engine) as connection:
        return {
            table.name: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables or KEPT
        }


def navs(engine: Engine) -> list[tuple[Any, ...]]:
    with db.read(engine) as connection:
        columns = (fund_nav.c[name] for name in NavRow._fields[:5])
        order = (fund_nav.c.fund_code, fund_nav.c.nav_date)
        return [tuple(row) for row in connection.execute(select(*columns).order_by(*order))]


def held(engine: Engine) -> list[Any]:
    with db.read(engine) as connection:
        return list(connection.execute(select(quarantine).order_by(quarantine.c.id)))


def events(engine: Engine) -> list[tuple[Any, ...]]:
    with db.read(engine) as connection:
        columns = (fund_event.c[name] for name in ("ex_date", "kind", "value", "evidence"))
        return [
            (day, kind, round(value, 10), evidence)
            for day, kind, value, evidence in connection.execute(select(*columns).order_by("ex_date", "kind"))
        ]


def test_a_batch_becomes_navs_and_a_result_that_says_so(engine: Engine) -> None:
    result = process(engine, [*GOOD, GOOD[0], BAD, *MONEY])
    assert result.is_valid
    assert result.failed_rules == ["nav_positive", "duplicate"]
    assert result.passed_rules == [r.id for r in RULES if r.id not in result.failed_rules]
    assert (result.total, result.inserted, result.revised, result.unchanged) == (7, 5, 0, 0)
    assert (result.quarantined, result.repeated, result.events, result.reason) == (1, 1, 0, None)
    assert navs(engine) == [
        ("000001", MON, 1.0001, 1.5001, None),
        ("000001", TUE, 1.0101, 1.5101, 1.0),
        ("000001", WED, 1.0202, 1.5202, 1.0),
    ]
    with db.read(engine) as connection:
        batch = nav_store.find_batch(connection, result.batch_id)
        verdicts = {row.rule_id: row for row in connection.execute(select(rule_result))}
    assert (batch.status, batch.row_count, batch.decided_at) == ("MERGED", 7, NOW)
    assert {rule_id for rule_id, row in verdicts.items() if row.failed} == set(result.failed_rules)
    assert (verdicts["nav_positive"].checked, verdicts["nav_positive"].severity) == (7, "error")
    assert "unit_nav=-1" in verdicts["nav_positive"].detail


def test_money_funds_have_yields_and_never_navs(engine: Engine) -> None:
    result = process(engine, MONEY)
    assert (result.inserted, navs(engine)) == (2, [])
    assert [row[:4] for row in dump(engine)["money_fund_yield"]] == [
        ("000009", MON, 0.5, 1.8),
        ("000009", TUE, 0.6, 1.8),
    ]


@pytest.mark.parametrize(
    "mixed",
    [
        nav(MON, 1.0, income_per_10k=0.5),
        nav(MON, None, 0.0, income_per_10k=0.5),
        nav(MON, None, None, 1.8, income_per_10k=0.5),
    ],
)
def test_a_row_with_nav_and_income_is_held(engine: Engine, mixed: NavRow) -> None:
    result = process(engine, [mixed])
    assert (result.inserted, result.quarantined) == (0, 1)
    assert [row.reasons for row in held(engine)] == ["key_fields"]
    tables = dump(engine)
    assert tables["fund_nav"] == tables["money_fund_yield"] == []


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_second_time_changes_nothing_at_all(engine: Engine, in_memory: bool) -> None:
    split = [nav(MON, 2.0001, code="000002"), nav(TUE, 1.0101, 1.0, code="000002", split_ratio=2.0)]
    # a recorded ratio, longer than any column; 0.00999999996 * 102.0303 / 1.0101 - 1 = 1.0101 %
    split += [nav(WED, 102.0303, 1.01, code="000002", split_ratio=0.0099999999592286504)]
    long = nav(MON, 0.1234567890123456, 0.123456789012, 1.2345678901234567, code="000003")
    rows = [*GOOD, BAD, GOOD[2], *MONEY, *split, long, nav(WED, 9.9, code="xx")]
    first = process(engine, rows, in_memory=in_memory)
    before = dump(engine)
    second = process(engine, rows, now=NOW + timedelta(hours=1), in_memory=not in_memory)
    assert dump(engine) == before
    assert (first.inserted, first.events, first.quarantined) == (9, 2, 2)
    assert (second.inserted, second.revised, second.unchanged, second.events) == (0, 0, 9, 0)
    assert (second.quarantined, second.repeated) == (2, 1)


def test_a_changed_value_keeps_its_past(engine: Engine) -> None:
    first = process(engine, GOOD)
    later = NOW + timedelta(hours=2)
    changed = process(engine, [GOOD[2]._replace(unit_nav=1.0203, accum_nav=1.5203)], now=later)
    assert (changed.inserted, changed.revised, changed.unchanged) == (0, 1, 0)
    assert navs(engine)[2] == ("000001", WED, 1.0203, 1.5203, 1.0)
    (revision,) = dump(engine)["fund_nav_revision"]
    batches = (first.batch_id, changed.batch_id)
    assert revision[1:] == (
        "000001", WED, 1.0202, 1.0203, 1.5202, 1.5203, 1.0, 1.0, *batches, later, "small"
    )  # fmt: skip


def test_a_blank_filled_later_is_noted_as_such(engine: Engine) -> None:
    process(engine, [GOOD[0], GOOD[1]._replace(accum_nav=None, daily_return=None)])
    assert process(engine, GOOD[:2]).revised == 1
    assert navs(engine)[1] == ("000001", TUE, 1.0101, 1.5101, 1.0)
    (revision,) = dump(engine)["fund_nav_revision"]
    assert (revision[3:9], revision[-1]) == ((1.0101, 1.0101, None, 1.5101, None, 1.0), "filled")


def test_a_blank_overwrites_nothing(engine: Engine) -> None:
    process(engine, [*GOOD, *MONEY])
    before = dump(engine)
    blanks = [row._replace(accum_nav=None, daily_return=None) for row in GOOD]
    result = process(engine, [*blanks, MONEY[0]._replace(yield_7d=None)])
    assert (result.revised, result.unchanged) == (0, 4)
    assert dump(engine) == before


def test_a_revised_yield_replaces_the_old_one(engine: Engine) -> None:
    process(engine, MONEY)
    result = process(engine, [MONEY[1]._replace(income_per_10k=0.61)])
    assert result.revised == 1
    assert [row[2] for row in dump(engine)["money_fund_yield"]] == [0.5, 0.61]


@pytest.mark.parametrize("in_memory", [False, True])
def test_quarantine_keeps_the_row_its_origin_and_every_reason(engine: Engine, in_memory: bool) -> None:
    rows = [
        GOOD[0],
        nav(TUE, 10.1001, 1.0, origin="a.csv:3"),
        NavRow("00001", None, None, origin="a.csv:4", defect="unit_nav 'x' is no number", raw="00001,?,x"),
        nav(date(2026, 1, 5), 0.0, 1.0, 0.5, dividend=0.1, origin="a.csv:5"),
    ]
    result = process(engine, rows, in_memory=in_memory)
    found = sorted(held(engine), key=lambda row: str(row.origin))
    assert [(row.origin, row.reasons) for row in found] == [
        ("a.csv:3", "return_matches_nav,return_limit"),
        ("a.csv:4", "key_fields,code_format"),
        ("a.csv:5", "future_date,nav_positive"),
    ]
    slip, broken, future = found
    assert (slip.fund_code, slip.nav_date, slip.unit_nav, slip.daily_return) == ("000001", TUE, 10.1001, 1.0)
    assert (broken.defect, broken.raw, broken.nav_date) == ("unit_nav 'x' is no number", "00001,?,x", None)
    assert (future.nav_date, future.accum_nav, future.dividend) == (date(2026, 1, 5), 0.5, 0.1)
    assert {(row.source, row.batch_id, row.held_at) for row in found} == {("test", result.batch_id, NOW)}
    assert len(navs(engine)) == 1


def test_conflicting_rows_are_both_held(engine: Engine) -> None:
    result = process(engine, [GOOD[0], GOOD[1], GOOD[1]._replace(unit_nav=1.0102)])
    assert (result.inserted, result.quarantined) == (1, 2)
    assert {row.unit_nav for row in held(engine)} == {1.0101, 1.0102}


@pytest.mark.parametrize("in_memory", [False, True])
def test_garbage_of_any_size_is_held_and_breaks_nothing(engine: Engine, in_memory: bool) -> None:
    garbage = [
        nav(MON, 1.0, code="<html>" * 20_000),
        nav(MON, 1.0, code="基金😀" * 50),
        nav(MON, 1.0, code="000002", origin="x" * 5000, defect="y" * 5000, raw="z😀" * 90_000),
        nav(MON, 1e9, code="000003"),
        nav(MON, 1e300, 1e300, 1e300, code="000004"),
        nav(MON, 1.0, 1e12, code="000005"),
        nav(MON, 1.0, code="000006", dividend=1e12),
        NavRow("000007", MON, income_per_10k=1e15, yield_7d=-1e15),
    ]
    result = process(engine, [*GOOD, *garbage], in_memory=in_memory)
    assert (result.inserted, result.quarantined) == (3, len(garbage))
    again = process(engine, [*GOOD, *garbage], in_memory=not in_memory)
    assert (again.unchanged, again.quarantined) == (3, len(garbage))
    found = held(engine)
    assert len(found) == len(garbage)
    assert {row.unit_nav for row in found} == {1.0, 1e9, 1e300, None}
    assert max(len(row.fund_code) for row in found) == 32


@pytest.mark.parametrize(("day", "origins"), [("2025-12-02", {4}), ("?", {3, 4})])
def test_equal_broken_lines_are_one_row_if_they_name_fund_and_date(
    engine: Engine, tmp_path: Path, day: str, origins: set[int]
) -> None:
    path = tmp_path / "navs.csv"
    path.write_text(
        f"fund_code,nav_date,unit_nav\n000001,2025-12-01,1.0001\n000001,{day},x\n000001,{day},x\n",
        encoding="utf-8",
    )
    collector = FundCollector(engine, FilesSource(path))
    (history,) = collector.collect_history(["000001"])
    result = process(engine, history.rows, in_memory=True)
    assert (result.total, result.inserted, result.quarantined, result.repeated) == (3, 1, 2, 0)
    assert {(row.origin, row.raw) for row in held(engine)} == {
        (f"navs.csv:{line}", f"000001,{day},x") for line in origins
    }


def statuses(engine: Engine) -> list[str]:
    with db.read(engine) as connection:
        return list(connection.execute(select(nav_batch.c.status).order_by(nav_batch.c.id)).scalars())


def market(day: date, funds: int) -> list[NavRow]:
    return [nav(day, 1.0001 + n / 1000, code=f"{n:06d}") for n in range(1, funds + 1)]


def test_a_thin_night_is_rejected_and_touches_nothing(engine: Engine) -> None:
    assert process(engine, market(MON, 100), "latest", MON).is_valid
    before = dump(engine)
    result = process(engine, [*market(TUE, 88), BAD], "latest", TUE)
    assert not result.is_valid
    assert (result.failed_rules[-1], result.merged, result.quarantined) == ("coverage", 0, 0)
    assert result.reason == "88 sound rows, 88.0% of the usual 100; at least 90% needed"
    assert dump(engine) == before
    with db.read(engine) as connection:
        assert nav_store.find_batch(connection, result.batch_id).status == "REJECTED"
        assert nights_before(connection, "test").believed == [100]


def test_nine_tenths_of_the_last_good_night_are_enough(engine: Engine) -> None:
    process(engine, market(MON, 100), "latest", MON)
    process(engine, market(MON, 3))  # a history is no measure of a night
    assert not process(engine, market(TUE, 50), "latest", TUE).is_valid  # neither is a rejected batch
    result = process(engine, market(TUE, 90), "latest", TUE)
    assert (result.is_valid, result.inserted) == (True, 90)
    assert "coverage" in result.passed_rules


def test_a_history_has_no_coverage(engine: Engine) -> None:
    process(engine, market(MON, 100), "latest", MON)
    assert "coverage" not in [*(r := process(engine, market(TUE, 2))).passed_rules, *r.failed_rules]


def test_a_batch_is_judged_once(engine: Engine) -> None:
    result = process(engine, GOOD)
    with pytest.raises(NotReady, match=f"batch {result.batch_id} is MERGED"):
        pipeline(engine).process_nav_data(result.batch_id, NOW)
    with pytest.raises(NotReady, match="batch 999 does not exist"):
        pipeline(engine).process_nav_data(999, NOW)


def test_dividends_and_splits_are_booked_on_the_day_they_show(engine: Engine) -> None:
    # announced on Monday with the split showing on Tuesday: 2*1.0101/2.0001 - 1 = 1.00495 %
    rows = [
        nav(MON, 2.0001, None, split_ratio=2.0),
        nav(TUE, 1.0101, 1.0),
        # (0.9700 + 0.05) / 1.0101 - 1 = 0.9801 %
        nav(WED, 0.9700, 0.98, dividend=0.05),
    ]
    assert process(engine, rows).events == 2
    assert events(engine) == [(TUE, "split", 2.0, "published"), (WED, "dividend", 0.05, "published")]


def test_a_held_row_books_nothing(engine: Engine) -> None:
    result = process(engine, [nav(MON, 1.2001), nav(TUE, 1.1521, 3.0, dividend=0.05)])
    assert (result.quarantined, result.events, events(engine)) == (1, 0, [])


def test_what_is_published_replaces_what_was_implied_and_never_the_other_way(engine: Engine) -> None:
    # accumulated NAV outgrew the unit NAV by 0.0500: (1.1521 + 0.05) / 1.2001 - 1 = 0.16665 %; two rows
    # follow from it: 1.1621 / 1.1521 - 1 = 0.86798 %, 1.1737 / 1.1621 - 1 = 0.99819 %
    after = [nav(WED, 1.1621, 0.87, 1.5121), nav(THU, 1.1737, 1.0, 1.5237)]
    silent = [nav(MON, 1.2001, None, 1.5001), nav(TUE, 1.1521, 0.17, 1.5021), *after]
    assert process(engine, silent[:2]).quarantined == 1
    assert events(engine) == []
    assert process(engine, silent).events == 1
    assert events(engine) == [(TUE, "dividend", 0.05, "implied")]
    announced = [silent[0], silent[1]._replace(dividend=0.0501)]
    assert process(engine, announced).events == 1
    assert events(engine) == [(TUE, "dividend", 0.0501, "published")]
    assert process(engine, silent).events == 0
    assert events(engine) == [(TUE, "dividend", 0.0501, "published")]


def test_a_night_is_judged_against_what_is_believed(engine: Engine) -> None:
    process(engine, GOOD)
    # Thursday is 1.0304 / 1.0202 - 1 = 0.9998 %
    assert process(engine, [nav(THU, 1.0304, 1.0)], "latest", THU).inserted == 1
    assert process(engine, [nav(FRI, 1.0407, 2.0), *market(FRI, 9)[1:]], "latest", FRI).quarantined == 1
    assert [row.reasons for row in held(engine)] == ["return_matches_nav"]


def test_the_category_of_the_fund_list_sets_the_limit(engine: Engine) -> None:
    with db.write(engine) as connection:
        funds = [FundInfo("000001", "甲", "债券型-长债"), FundInfo("000002", "乙", "QDII-混合偏股")]
        nav_store.save_funds(connection, funds, NOW)
    rows = [
        nav(day, value, code=code) for code in ("000001", "000002") for day, value in ((MON, 1), (TUE, 1.2))
    ]
    process(engine, rows)
    assert [(row.fund_code, row.reasons) for row in held(engine)] == [("000001", "return_limit")]


def test_a_failure_in_the_middle_leaves_nothing(engine: Engine) -> None:
    process(engine, GOOD)
    batch_id = stage(engine, [nav(THU, 1.0304, 1.0, dividend=0.01), BAD._replace(nav_date=FRI), *MONEY])
    everything = (*KEPT, rule_result, nav_batch, tmp_fund_nav)
    before = dump(engine, *everything)
    line = pipeline(engine)
    checked = line.check(batch_id, NOW)

    def died() -> None:
        with db.write(engine) as connection:
            assert line.merge(connection, checked, NOW).quarantined == 1
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        died()
    assert dump(engine, *everything) == before
    assert line.process_nav_data(batch_id, NOW).inserted == 3


def test_checking_writes_nothing(engine: Engine) -> None:
    batch_id = stage(engine, [*GOOD, BAD])
    everything = (*KEPT, rule_result, nav_batch, tmp_fund_nav)
    before = dump(engine, *everything)
    checked = pipeline(engine).check(batch_id, NOW)
    assert (checked.is_valid, checked.total, len(checked.held)) == (True, 4, 1)
    assert dump(engine, *everything) == before


def test_expired_staging_goes_and_its_batches_stay(engine: Engine) -> None:
    process(engine, GOOD)
    waiting = stage(engine, [nav(THU, 1.0304, 1.0)])
    with db.write(engine) as connection:
        retention.expire_batches(connection, NOW)
    assert statuses(engine) == ["MERGED", "STAGED"]
    with db.write(engine) as connection:
        retention.expire_batches(connection, NOW + timedelta(seconds=1))
        connection.execute(delete(tmp_fund_nav))
    assert dump(engine, tmp_fund_nav)["tmp_fund_nav"] == []
    assert statuses(engine) == ["MERGED", "EXPIRED"]
    with pytest.raises(NotReady, match=f"batch {waiting} is EXPIRED"):
        pipeline(engine).check(waiting, NOW)


def test_a_night_without_news_is_not_staged(sqlite_engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "navs.csv"
    path.write_text("fund_code,nav_date,unit_nav\n000001,2025-12-04,1.0304\n", encoding="utf-8")
    collector = FundCollector(sqlite_engine, FilesSource(path))
    with pytest.raises(NotReady, match=r"no fund has published for 2025-12-05 yet.*2025-12-04"):
        collector.collect_daily_nav(FRI, NOW)
    assert dump(sqlite_engine, nav_batch)["nav_batch"] == []
    batch_id = collector.collect_daily_nav(THU, NOW)
    result = pipeline(sqlite_engine).process_nav_data(batch_id, NOW)
    assert (result.inserted, navs(sqlite_engine)) == (1, [("000001", THU, 1.0304, None, None)])
