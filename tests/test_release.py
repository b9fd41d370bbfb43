"""Held and then released, on both databases: by followers, events, a second source, or somebody's word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date

import pytest
from sqlalchemy import Engine, insert, select

from core import db
from core.data_pipeline import compare
from core.errors import UsageError
from core.schema import fund_adjustment, fund_event, fund_nav, nav_batch, quarantine
from core.sources.base import NavRow
from tests.example_batch import FRI, MON, THU, TUE, WED, nav
from tests.test_pipeline import NOW, dump, pipeline, process, stage

NEXT_MON, NEXT_TUE = date(2025, 12, 8), date(2025, 12, 9)


def night(engine: Engine, *rows: NavRow) -> list[int]:
    """Judge and merge a night's rows; the ids of what was released on the way."""
    return process(engine, rows, kind="sweep").second_look.released


def navs(engine: Engine) -> dict[date, float]:
    with db.read(engine) as connection:
        return dict(connection.execute(select(fund_nav.c.nav_date, fund_nav.c.unit_nav)).all())


def held(engine: Engine) -> list[tuple[date, str, str | None, str | None]]:
    """Date, reasons, resolution and who decided, by number."""
    columns = (
        quarantine.c.nav_date,
        quarantine.c.reasons,
        quarantine.c.resolution,
        quarantine.c.resolved_by,
    )
    with db.read(engine) as connection:
        return [tuple(row) for row in connection.execute(select(*columns).order_by(quarantine.c.id))]


def events(engine: Engine) -> list[tuple[date, str, float, str]]:
    columns = (fund_event.c.ex_date, fund_event.c.kind, fund_event.c.value, fund_event.c.evidence)
    with db.read(engine) as connection:
        return [tuple(row) for row in connection.execute(select(*columns))]


# 1.6802/1.0001 - 1 = 68.0032 %, 1.6886/1.6802 - 1 = 0.49994 %, 1.697/1.6886 - 1 = 0.49745 %
JUMP = [nav(MON, 1.0001), nav(TUE, 1.6802, 68.0), nav(WED, 1.6886, 0.5), nav(THU, 1.697, 0.5)]


def test_a_real_jump_after_a_large_redemption_is_held_and_released_when_two_rows_follow(
    engine: Engine,
) -> None:
    for row in JUMP[:3]:
        assert night(engine, row) == []
    assert navs(engine) == {MON: 1.0001}
    assert [(day, resolution) for day, _why, resolution, _who in held(engine)] == [(TUE, None), (WED, None)]
    assert len(night(engine, JUMP[3])) == 3
    assert navs(engine) == {MON: 1.0001, TUE: 1.6802, WED: 1.6886, THU: 1.697}
    assert {(resolution, who) for *_rest, resolution, who in held(engine)} == {("RELEASED", "followers")}
    # 1.7055/1.697 - 1 = 0.5009 %: from now on the fund is as any other
    assert night(engine, nav(FRI, 1.7055, 0.5)) == []
    assert navs(engine)[FRI] == 1.7055


def test_in_history_the_same_jump_is_believed_at_once(engine: Engine) -> None:
    assert process(engine, JUMP).quarantined == 0
    assert len(navs(engine)) == 4


def test_a_slip_that_lasts_is_not_released(engine: Engine) -> None:
    for row in (nav(MON, 1.0001), nav(TUE, 10.05, 0.5), nav(WED, 10.1, 0.5), nav(THU, 10.15, 0.5)):
        assert night(engine, row) == []
    assert navs(engine) == {MON: 1.0001}


SPLIT = [nav(MON, 2.0002), nav(TUE, 1.0051, 0.5), nav(WED, 1.0101, 0.5), nav(THU, 1.0152, 0.5)]


def proposal(engine: Engine) -> dict[str, object]:
    with db.read(engine) as connection:
        text = connection.execute(select(quarantine.c.proposal).order_by(quarantine.c.id)).scalars().first()
    found: dict[str, object] = json.loads(text or "{}")
    return found


def test_a_split_nobody_announced_waits_with_a_proposal_until_somebody_vouches(engine: Engine) -> None:
    for row in SPLIT:
        assert night(engine, row) == []
    # 2.0002 * 1.005 / 1.0051 = 2.00000
    assert (proposal(engine)["kind"], proposal(engine)["value"]) == ("split", 2.0)
    first = held_ids(engine)[0]
    found = pipeline(engine).release([first], "cli:li", "announced on the fund's page", NOW)
    assert found.released == held_ids(engine)
    assert (found.merged, found.events, found.still_held) == (3, 1, [])
    assert len(navs(engine)) == 4
    assert events(engine) == [(TUE, "split", 2.0, "confirmed")]
    assert [who for *_rest, who in held(engine)] == ["cli:li", "followers", "followers"]
    with db.read(engine) as connection:
        factor = connection.execute(select(fund_adjustment)).one()
        note = connection.execute(select(quarantine.c.note).where(quarantine.c.id == first)).scalar_one()
    assert (factor.ex_date, factor.factor, factor.cumulative) == (TUE, 2.0, 2.0)
    assert note == "announced on the fund's page"


def held_ids(engine: Engine) -> list[int]:
    with db.read(engine) as connection:
        return list(connection.execute(select(quarantine.c.id).order_by(quarantine.c.id)).scalars())


def test_somebody_may_vouch_without_the_proposed_event(engine: Engine) -> None:
    night(engine, SPLIT[0])
    night(engine, SPLIT[1])
    found = pipeline(engine).release(held_ids(engine), "cli:li", None, NOW, book_proposal=False)
    assert (found.merged, found.events) == (1, 0)
    assert (navs(engine)[TUE], events(engine)) == (1.0051, [])


def test_an_event_that_arrives_later_releases_the_row(engine: Engine) -> None:
    night(engine, SPLIT[0])
    night(engine, SPLIT[1])
    with db.write(engine) as connection:
        connection.execute(
            insert(fund_event).values(
                fund_code="000001", ex_date=TUE, kind="split", value=2.0, evidence="announced", batch_id=1
            )
        )
    assert night(engine, SPLIT[2]) == held_ids(engine)
    assert [(resolution, who) for *_rest, resolution, who in held(engine)] == [
        ("RELEASED", "event"),
        ("RELEASED", "followers"),
    ]
    assert events(engine) == [(TUE, "split", 2.0, "published")]
    assert len(navs(engine)) == 3


def second(engine: Engine, rows: Sequence[NavRow], day: date) -> tuple[int, int, list[int]]:
    """What a second source's night compares, finds different and releases."""
    batch_id = stage(engine, rows, "second", day)
    with db.write(engine) as connection:
        connection.execute(nav_batch.update().where(nav_batch.c.id == batch_id).values(source="second"))
        found = compare(connection, pipeline(engine), batch_id, NOW)
    return found.checked, found.failed, found.second_look.released


def test_a_second_source_confirms_a_held_row_and_contradicts_a_believed_one(engine: Engine) -> None:
    night(engine, JUMP[0], nav(TUE, 1.5, code="000002"))
    night(engine, JUMP[1])
    # An older date is lag, not conflict: 000002's row of Monday is compared with nothing.
    rows = [nav(TUE, 1.68020), nav(MON, 1.4, code="000002")]
    assert second(engine, rows, TUE) == (0, 0, held_ids(engine))
    assert held(engine) == [(TUE, held(engine)[0][1], "RELEASED", "source")]
    assert second(engine, [nav(TUE, 1.6802), nav(TUE, 1.51, code="000002")], WED) == (2, 1, [])
    with db.read(engine) as connection:
        states = connection.execute(select(nav_batch.c.status).where(nav_batch.c.kind == "second")).scalars()
        assert set(states) == {"COMPARED"}


def test_a_second_source_that_says_otherwise_holds_the_row(engine: Engine) -> None:
    night(engine, JUMP[0])
    stage(engine, [nav(TUE, 1.0151)], "second", TUE)
    with db.write(engine) as connection:
        connection.execute(nav_batch.update().where(nav_batch.c.kind == "second").values(source="second"))
    result = process(engine, [nav(TUE, 1.0051, 0.5)], kind="sweep", night=TUE)
    assert (result.quarantined, navs(engine)) == (1, {MON: 1.0001})
    assert [why for _day, why, *_rest in held(engine)] == ["sources_agree"]


def test_what_was_corrected_since_is_rejected_and_what_a_history_brought_is_released(engine: Engine) -> None:
    night(engine, JUMP[0])
    night(engine, nav(TUE, 10.051, 0.5))
    night(engine, nav(TUE, 1.0051, 0.5))
    assert [(resolution, who) for *_rest, resolution, who in held(engine)] == [("REJECTED", "corrected")]
    other = [row._replace(fund_code="000002") for row in JUMP]
    night(engine, other[0])
    night(engine, other[1])
    process(engine, other)  # its whole history, in which two rows follow
    night(engine, nav(WED, 1.0101, 0.5))
    assert [(resolution, who) for *_rest, resolution, who in held(engine)][1] == ("RELEASED", "history")


def test_a_held_correction_is_believed_on_somebodys_word_alone(engine: Engine) -> None:
    process(engine, [nav(MON, 1.0001), nav(TUE, 1.0051, 0.5), nav(WED, 1.0101, 0.5)])
    assert process(engine, [nav(TUE, 1.5051, 0.5)], kind="sweep").quarantined == 1
    night(engine, nav(THU, 1.0152, 0.5))
    assert [resolution for *_rest, resolution, _who in held(engine)] == [None]
    found = pipeline(engine).release(held_ids(engine), "cli:li", None, NOW)
    assert (found.revised, navs(engine)[TUE]) == (1, 1.5051)


@pytest.mark.parametrize("decided", ["unknown", "hopeless", "released", "twice"])
def test_what_cannot_be_released_changes_nothing(engine: Engine, decided: str) -> None:
    night(engine, JUMP[0])
    night(engine, JUMP[1])
    night(engine, nav(TUE, -1.0, code="000002"))
    ids = held_ids(engine)
    line = pipeline(engine)
    wanted = {"unknown": [ids[0], 999], "hopeless": ids, "released": [ids[0]], "twice": [ids[0]]}[decided]
    if decided == "released":
        line.release(wanted, "cli:li", None, NOW)
    if decided == "twice":
        night(engine, nav(TUE, 1.7, 70.0))
        wanted = [ids[0], held_ids(engine)[-1]]
    before = dump(engine)
    with pytest.raises(UsageError, match="nothing was done"):
        line.release(wanted, "cli:li", None, NOW)
    assert dump(engine) == before


def test_a_row_held_with_little_around_it_is_not_believed_for_lack_of_objections(engine: Engine) -> None:
    # 65 days after the last believed row, beyond anything a second look needs from before
    night(engine, nav(date(2025, 9, 30), 1.001))
    assert night(engine, nav(FRI, 10.02)) == []
    # one QDII fund far from its category, in a batch that keeps no figures of it
    peers = [f"{n:06d}" for n in range(100, 130)]
    night(engine, *(nav(MON, 1.0001, code=code) for code in peers))
    rows = [nav(TUE, 1.0051, 0.5, code=code) for code in peers[:-1]]
    assert night(engine, *rows, nav(TUE, 1.2001, 20.0, code=peers[-1])) == []
    assert [(why, resolution) for _day, why, resolution, _who in held(engine)] == [
        ("return_limit", None),
        ("cross_section", None),
    ]


def test_what_follows_from_a_jump_at_the_end_of_a_history_waits_with_it(engine: Engine) -> None:
    assert process(engine, JUMP[:3]).quarantined == 2
    assert navs(engine) == {MON: 1.0001}
    assert [why for _day, why, *_rest in held(engine)] == ["return_limit", "behind_held"]
    assert len(night(engine, JUMP[3])) == 3
    assert len(navs(engine)) == 4
