"""What is read beside a batch and kept for the next, on both databases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, insert, update

from core import db, nav_store
from core.background import Background, FundFacts
from core.background_store import (
    RECENT_NIGHTS,
    fund_facts,
    nights_before,
    read_background,
    returns_between,
    save_returns,
)
from core.gates import Nights
from core.peer_rules import RETURNS
from core.schema import fund_event, nav_batch, quarantine, rule_result
from core.sources.base import FundInfo, NavRow
from tests.example_batch import MON, SESSIONS, THRESHOLDS, THU, TUE, WED, nav
from tests.test_pipeline import NOW, process, stage

DAYS = np.array(SESSIONS, dtype="datetime64[D]")


def read(engine: Engine, batch_id: int, now: datetime = NOW) -> Background:
    with db.read(engine) as connection:
        return read_background(connection, now, batch_id, THRESHOLDS, DAYS)


def rows_of(frame: pd.DataFrame | None, *columns: str) -> list[tuple[Any, ...]]:
    assert frame is not None
    return sorted(frame[list(columns)].itertuples(index=False, name=None))


def test_today_is_the_date_in_shanghai(engine: Engine) -> None:
    batch_id = stage(engine, [nav(MON, 1.0)])
    assert read(engine, batch_id, datetime(2025, 12, 4, 15, 59, tzinfo=UTC)).today == THU
    assert read(engine, batch_id, datetime(2025, 12, 4, 16, 0, tzinfo=UTC)).today == date(2025, 12, 5)


def test_a_database_that_knows_nothing_says_nothing(engine: Engine) -> None:
    found = read(engine, stage(engine, [nav(MON, 1.0)]))
    assert found.funds == {}
    for frame in (found.events, found.stored, found.returns, found.second, found.held):
        assert frame is not None
        assert frame.empty
    empty = read(engine, stage(engine, []))
    assert rows_of(empty.returns, *RETURNS) == []


def test_facts_of_the_fund_list(engine: Engine) -> None:
    with db.write(engine) as connection:
        listed = [
            FundInfo("000001", "华夏成长混合", "混合型-灵活", inception=date(2001, 12, 18)),
            FundInfo("000009", "易方达天天理财A", "货币型-普通货币"),
        ]
        nav_store.save_funds(connection, listed, NOW)
        assert fund_facts(connection) == {
            "000001": FundFacts("mixed", "华夏成长混合", date(2001, 12, 18)),
            "000009": FundFacts("money", "易方达天天理财A", None),
        }


def test_values_believed_until_now_stand_beside_the_rows(engine: Engine) -> None:
    process(engine, [nav(MON, 1.0001, None, 1.5), nav(TUE, 1.0101, 1.0), nav(TUE, 2.0, code="000002")])
    batch_id = stage(engine, [nav(WED, 1.0202, 1.0), nav(TUE, 1.0102, 1.01), nav(MON, 1.0001)])
    # row 2 is Tuesday's, row 3 Monday's; of Wednesday nothing is known
    assert rows_of(read(engine, batch_id).stored, "row_no", "stored_unit") == [(2, 1.0101), (3, 1.0001)]
    beside = rows_of(read(engine, batch_id).stored, "row_no", "stored_accum", "stored_return")
    assert [tuple(None if value != value else value for value in row) for row in beside] == [
        (2, None, 1.0),
        (3, 1.5, None),
    ]


def test_events_on_record_stand_beside_the_rows_unless_they_were_only_guessed(engine: Engine) -> None:
    events = [
        ("000001", MON, "dividend", 0.05, "published"),
        ("000001", MON, "split", 2.0, "announced"),
        ("000001", TUE, "dividend", 0.06, "confirmed"),
        ("000001", WED, "dividend", 0.07, "implied"),
        ("000002", MON, "dividend", 0.08, "published"),
    ]
    with db.write(engine) as connection:
        names = ("fund_code", "ex_date", "kind", "value", "evidence")
        connection.execute(
            insert(fund_event),
            [dict(zip(names, event, strict=True)) | {"batch_id": 1} for event in events],
        )
    batch_id = stage(engine, [nav(day, 1.0) for day in (MON, TUE, WED, THU)])
    assert [
        tuple(None if value != value else value for value in row)
        for row in rows_of(read(engine, batch_id).events, "row_no", "dividend", "split_ratio")
    ] == [(1, 0.05, 2.0), (2, 0.06, None)]


def hold(
    engine: Engine,
    number: int,
    row: NavRow,
    decided: tuple[str, str] | None = None,
    reasons: str = "return_limit",
) -> None:
    """A row in quarantine; `decided`: how and by whom."""
    with db.write(engine) as connection:
        connection.execute(
            insert(quarantine).values(
                row_hash=f"{number:064d}",
                batch_id=1,
                source="test",
                fund_code=row.fund_code,
                nav_date=row.nav_date,
                unit_nav=row.unit_nav,
                reasons=reasons,
                held_at=NOW,
                resolution=decided and decided[0],
                resolved_by=decided and decided[1],
            )
        )


DAY_NUMBER = {day: (day - date(1970, 1, 1)).days for day in (MON, TUE, WED)}


def test_the_newest_row_held_before_stands_beside_the_rows(engine: Engine) -> None:
    hold(engine, 1, nav(MON, 1.1))
    hold(engine, 2, nav(TUE, 1.2))
    hold(engine, 3, nav(WED, 1.3), ("RELEASED", "followers"))
    hold(engine, 4, nav(WED, 1.35), ("REJECTED", "history"))
    hold(engine, 5, nav(WED, -1.0))
    hold(engine, 6, nav(WED, 1.4, code="000002"))
    hold(engine, 7, nav(date(2025, 9, 1), 1.5, code="000003"))
    batch_id = stage(engine, [nav(MON, 1.0), nav(TUE, 1.0), nav(THU, 1.0), nav(THU, 1.0, code="000003")])
    # nothing before Monday's row; Monday's before Tuesday's; Tuesday's is the newest open one before Thursday's;
    # what was held in September is forgotten
    assert rows_of(read(engine, batch_id).held, "row_no", "held_unit", "held_day") == [
        (2, 1.1, DAY_NUMBER[MON]),
        (3, 1.2, DAY_NUMBER[TUE]),
    ]


def test_what_somebody_rejected_stays_wrong(engine: Engine) -> None:
    hold(engine, 1, nav(MON, 1.1))
    hold(engine, 2, nav(TUE, 1.2), ("REJECTED", "cli:li"))
    hold(engine, 3, nav(TUE, 1.3, code="000002"), ("REJECTED", "corrected"))
    hold(engine, 4, nav(WED, 1.4, code="000002"), reasons="accum_vs_unit")
    batch_id = stage(engine, [nav(WED, 1.0), nav(THU, 1.0, code="000002")])
    found = read(engine, batch_id)
    assert found.rejected == {("000001", TUE, 1.2, None)}
    # its level is as bad as that of a held row; a row held for its accumulated NAV stands at no level
    assert rows_of(found.held, "row_no", "held_unit", "held_day", "held_level") == [
        (1, 1.2, DAY_NUMBER[TUE], 1),
        (2, 1.4, DAY_NUMBER[WED], 0),
    ]


def stage_as(engine: Engine, source: str, kind: str, night: date, rows: Sequence[NavRow]) -> int:
    batch_id = stage(engine, rows, kind, night)
    with db.write(engine) as connection:
        connection.execute(update(nav_batch).where(nav_batch.c.id == batch_id).values(source=source))
    return batch_id


def test_the_newest_word_of_another_source_stands_beside_the_rows(engine: Engine) -> None:
    mine = stage(engine, [nav(WED, 1.0), nav(WED, 2.0, code="000002"), nav(TUE, 1.0)], "latest", WED)
    assert rows_of(read(engine, mine).second, "row_no", "second_unit") == []
    stage_as(engine, "other", "second", WED, [nav(WED, 1.5), nav(WED, 2.5, code="000002")])
    stage_as(engine, "test", "second", WED, [nav(WED, 9.0)])  # a source does not speak for itself
    stage_as(engine, "other", "second", TUE, [nav(WED, 8.0)])  # of another night
    stage_as(engine, "other", "history", WED, [nav(WED, 7.0)])
    assert rows_of(read(engine, mine).second, "row_no", "second_unit") == [(1, 1.5), (2, 2.5)]
    newest = [nav(WED, 1.6), nav(WED, None, code="000002"), nav(MON, 1.0), nav(TUE, 1.1)]
    stage_as(engine, "other", "second", WED, newest)
    # the newest batch alone counts, by fund and date
    assert rows_of(read(engine, mine).second, "row_no", "second_unit") == [(1, 1.6), (3, 1.1)]


def kept(*rows: tuple[str, date, float, float, int]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(RETURNS))
    return frame.assign(nav_date=frame["nav_date"].to_numpy(dtype="datetime64[s]"))


def between(engine: Engine, first: date, last: date) -> list[tuple[Any, ...]]:
    with db.read(engine) as connection:
        found = returns_between(connection, first, last)
    return [(kind, day.date(), *rest) for kind, day, *rest in rows_of(found, *RETURNS)]


def test_of_what_a_category_did_the_word_of_more_funds_is_kept(engine: Engine) -> None:
    monday = ("mixed", MON, 0.5, 0.1, 100)
    with db.write(engine) as connection:
        save_returns(connection, kept(monday, ("bond", MON, 0.01, 0.02, 50), ("mixed", TUE, 1.0, 0.2, 90)))
    with db.write(engine) as connection:
        fewer = [("mixed", MON, 9.0, 9.0, 99), ("bond", MON, 9.0, 9.0, 50)]
        save_returns(connection, kept(*fewer, ("mixed", TUE, 1.5, 0.25, 91)))
        save_returns(connection, kept())
    assert between(engine, MON, TUE) == [
        ("bond", MON, 0.01, 0.02, 50),
        monday,
        ("mixed", TUE, 1.5, 0.25, 91),
    ]
    assert between(engine, TUE, WED) == [("mixed", TUE, 1.5, 0.25, 91)]
    # a batch is given what is kept of its own dates
    batch_id = stage(engine, [nav(TUE, 1.0), nav(WED, 1.0)])
    assert rows_of(read(engine, batch_id).returns, "median") == [(1.5,)]


def night(
    engine: Engine, merged: int | None, counts: Sequence[int], source: str = "test", status: str = "MERGED"
) -> int:
    """A latest batch as it is left behind."""
    batch_id = stage_as(engine, source, "latest", WED, [])
    figures = json.dumps({"category": "mixed", "counts": list(counts)})
    blank = json.dumps({"count": counts[0], "total": 200, "allowed": 0.2})
    with db.write(engine) as connection:
        at = nav_batch.c.id == batch_id
        connection.execute(update(nav_batch).where(at).values(status=status, merged_count=merged))
        results = (
            ("coverage.mixed", "partial", figures),
            ("page_cap", "gate", json.dumps({"all": 5})),
            ("blank_share", "gate", blank),
        )
        connection.execute(
            insert(rule_result),
            [
                {"batch_id": batch_id, "rule_id": name, "severity": severity, "version": 1}
                | {"checked": 1, "failed": 0, "detail": "[]", "figures": text}
                for name, severity, text in results
            ],
        )
    return batch_id


def test_the_nights_before_are_the_merged_ones_of_the_source(engine: Engine) -> None:
    night(engine, 100, [10, 20])
    night(engine, 50, [1, 2], source="other")
    night(engine, None, [3, 4], status="REJECTED")
    night(engine, 110, [11, 21])
    process(engine, [nav(MON, 1.0)])  # a history is no night
    with db.read(engine) as connection:
        found = nights_before(connection, "test")
        assert (list(found.believed), found.by_category) == ([110, 100], {"mixed": [[11, 21], [10, 20]]})
        assert sorted(found.blank) == [10 / 200, 11 / 200]
        assert nights_before(connection, "third") == Nights([], {}, [])


@pytest.mark.parametrize("more", [0, 2])
def test_only_the_newest_nights_are_a_yardstick(engine: Engine, more: int) -> None:
    for n in range(RECENT_NIGHTS + more):
        night(engine, n, [n])
    with db.read(engine) as connection:
        found = nights_before(connection, "test")
    newest = list(range(RECENT_NIGHTS + more))[::-1][:RECENT_NIGHTS]
    assert list(found.believed) == newest
    assert found.by_category == {"mixed": [[n] for n in newest]}
