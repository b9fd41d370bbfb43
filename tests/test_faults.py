"""The fault injector itself, and a short run of the proofs that bench/ makes in full."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine

from bench import adjusted_returns, false_alarms, recall
from bench.fault_kinds import FAULTS, LIMITS
from bench.faults import Fault, inject, is_material
from bench.nights import Night, Setting, setting
from bench.recording import fund_rows, read_recording, recording_of
from core import db, nav_store
from core.data_pipeline import DataPipeline
from core.rules import RULES
from core.sources.base import FundInfo, NavRow
from core.trading_calendar import TradingCalendar

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
DAYS = np.array(["2025-12-01", "2025-12-02", "2025-12-03", "2025-12-04", "2025-12-05"], dtype="datetime64[D]")
NIGHT = date(2025, 12, 5)
TYPES = {  # a published type of each category
    "stock": "股票型",
    "mixed": "混合型-灵活",
    "bond": "债券型-长债",
    "index": "指数型-股票",
    "qdii": "QDII-普通股票",
    "fof": "FOF-稳健型",
    "money": "货币型-普通货币",
    "reit": "Reits",
    "commodity": "商品",
    "other": "",
}
BY_ID = {fault.id: fault for fault in FAULTS}
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded data (../shared/data) is not here")


@pytest.fixture(scope="module")
def example() -> Setting:
    """Two share classes and a third fund, five days; NAVs and returns written by hand."""
    navs = {
        "000001": ([1.0000, 1.0100, 1.0201, 1.0099, 1.0200], [np.nan, 1.00, 1.00, -1.00, 1.00]),
        "000002": ([2.0000, 2.0200, 2.0402, 2.0198, 2.0400], [np.nan, 1.00, 1.00, -1.00, 1.00]),
        "000003": ([5.0000, 5.0000, 5.0500, 5.0500, 5.0500], [np.nan, 0.00, 1.00, 0.00, 0.00]),
    }
    names = {"000001": "华夏成长混合A", "000002": "华夏成长混合C", "000003": "中海可转债债券"}
    frame = pd.concat(
        [
            fund_rows(
                code,
                DAYS,
                unit_nav=np.array(nav),
                accum_nav=np.array(nav) + 0.5,
                daily_return=np.array(change),
            )
            for code, (nav, change) in navs.items()
        ],
        ignore_index=True,
    )
    return setting(recording_of(frame, {code: ("mixed", name) for code, name in names.items()}))


def test_a_night_is_the_newest_row_of_each_fund_with_what_stands_before_it(example: Setting) -> None:
    night = Night(example, date(2025, 12, 4))
    assert night.staged["unit_nav"].tolist() == [1.0099, 2.0198, 5.05]
    assert night.before["unit_nav"].tolist() == [1.0201, 2.0402, 5.05]
    assert night.sibling.tolist() == [-1, 0, -1]
    anchors = night.anchors(night.staged)
    assert sorted(anchors["unit_nav"].tolist())[:3] == [1.0, 1.01, 1.0201]
    assert len(anchors) == 9


def test_a_night_can_be_repeated_under_unused_codes(example: Setting) -> None:
    night = Night(example, NIGHT, 7)
    assert night.staged["fund_code"].is_unique
    assert night.staged["unit_nav"].tolist() == [1.02, 2.04, 5.05, 1.02, 2.04, 5.05, 1.02]
    assert not is_material(night.staged, night).any()
    assert len(night.anchors(night.staged)) == 21


@pytest.mark.parametrize(
    ("column", "value", "wrong"),
    [
        # d = 0.00005, NAV before 1.0099: off by more than 2 * (0.0001 + 0.00005 * 1.0099) = 0.000301
        ("unit_nav", 1.0203, False),
        ("unit_nav", 1.0204, True),
        ("unit_nav", np.nan, True),
        ("accum_nav", 1.5202, False),  # 4 d = 0.0002
        ("accum_nav", 1.5203, True),
        ("accum_nav", np.nan, False),  # a blank says nothing wrong
        # 2 * (100 * 0.00005 * (1 + 1.02 / 1.0099) / 1.0099 + 0.005) = 0.0299
        ("daily_return", 1.02, False),
        ("daily_return", 1.03, True),
        ("dividend", 0.0001, False),
        ("dividend", 0.001, True),
        ("split_ratio", 1.0, False),
        ("split_ratio", 2.0, True),
        ("income_per_10k", 0.5, True),
        ("fund_code", "999999", True),
        ("nav_date", pd.Timestamp("2025-12-06"), True),
        ("nav_date", pd.NaT, True),
        ("defect", "unit_nav '--' is no number", True),
    ],
)
def test_what_counts_as_wrong(example: Setting, column: str, value: object, wrong: bool) -> None:
    night = Night(example, NIGHT)
    frame = night.staged.copy()
    frame.loc[0, column] = value
    assert is_material(frame, night).tolist() == [wrong, False, False]


def test_the_row_of_another_day_is_wrong_if_that_day_was_different(example: Setting) -> None:
    night = Night(example, NIGHT)
    frame = night.staged.copy()
    frame["nav_date"] = pd.Timestamp("2025-12-04").as_unit("s")
    assert is_material(frame, night).tolist() == [True, True, False]  # the third stood still


@pytest.mark.parametrize(
    ("fault", "values", "bad", "left_out"),
    [
        ("decimal_x10", [10.2, 20.4, 50.5], 3, 0),
        ("sign_flipped", [1.02, 2.04, 5.05], 2, 0),  # the third has 0.00
        ("stale_with_return", [1.0099, 2.0198, 5.05], 2, 0),
        ("share_class", [1.02, 1.02, 5.05], 1, 0),
        ("precision_lost", [1.02, 2.04, 5.05], 0, 2),
        ("negative", [-1.02, -2.04, -5.05], 3, 0),
    ],
)
def test_faults_by_hand(example: Setting, fault: str, values: list[float], bad: int, left_out: int) -> None:
    night = Night(example, NIGHT)
    injected = inject(BY_ID[fault], night, np.random.default_rng(1))
    assert injected is not None
    assert injected.frame["unit_nav"].tolist() == pytest.approx(values)
    assert (len(injected.bad), injected.left_out) == (bad, left_out)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_faults_depend_on_the_seed_alone_and_leave_the_night_alone(example: Setting, fault: Fault) -> None:
    night = Night(example, NIGHT)
    before = night.staged.copy()
    once, again = (inject(fault, night, np.random.default_rng(7)) for _ in range(2))
    assert (once is None) == (again is None)
    if once is not None and again is not None:
        pd.testing.assert_frame_equal(once.frame, again.frame)
        assert set(once.bad) <= set(once.frame["row_no"])
    pd.testing.assert_frame_equal(night.staged, before)


def test_a_stuck_fund_stood_still_the_two_nights_before() -> None:
    navs = np.array([1.0000, 1.0100, 1.0201, 1.0303, 1.0406])
    frame = fund_rows("000001", DAYS, unit_nav=navs, daily_return=np.array([np.nan, 1, 1, 1, 1]))
    night = Night(setting(recording_of(frame, {"000001": ("mixed", "华夏成长混合A")})), NIGHT)
    injected = inject(BY_ID["stuck"], night, np.random.default_rng(1))
    assert injected is not None
    assert injected.stuck == ("000001",)
    assert injected.frame[["unit_nav", "daily_return"]].to_numpy().tolist() == [[1.01, 0.0]]
    anchors = night.anchors(injected.frame, injected.stuck)[["unit_nav", "daily_return"]]
    assert anchors.to_numpy().tolist() == [[1.01, 0.0], [1.01, 0.0], [1.01, 1.0]]


def test_there_are_faults_enough_and_each_is_named_in_both_languages() -> None:
    assert len(FAULTS) >= 30
    assert len(BY_ID) == len(FAULTS)
    assert all(fault.en.isascii() and not fault.zh.isascii() for fault in FAULTS)


@pytest.fixture(scope="module")
def recorded() -> Setting:
    return setting(read_recording(DATA, every=4))


@needs_data
def test_faults_in_recorded_nights_are_caught(recorded: Setting) -> None:
    """One night, without the kinds that need dividends and splits; `python -m bench.recall` runs many."""
    faults = tuple(fault for fault in FAULTS if not fault.on_events)
    tallies = recall.run(recorded, faults, seed=5, nights=1)
    caught = sum(tally.caught * tally.bad for tally in tallies.values() if tally.bad)
    assert caught / sum(tally.bad for tally in tallies.values()) >= 0.99
    garbage = (
        "decimal_x100",
        "negative",
        "zero",
        "blank",
        "unreadable",
        "zeros_lost",
        "unknown_code",
        "future",
    )
    assert {name: tallies[name].caught for name in garbage} == dict.fromkeys(garbage, 1.0)
    whole = (
        "half_the_batch",
        "batch_stale",
        "batch_late",
        "one_row_for_all",
        "batch_x10",
        "returns_fraction",
    )
    assert {name: tallies[name].nights_stopped for name in whole} == dict.fromkeys(whole, 1)


@needs_data
def test_the_pipeline_on_a_database_holds_what_the_benches_say(sqlite_engine: Engine) -> None:
    """The benches judge in memory. Here the rows before the night are merged, and the night is staged with faults."""
    where = setting(read_recording(DATA, every=40))
    night = Night(where, date(2025, 6, 20))
    frame = where.recording.frame
    tonight = np.isin(np.arange(len(frame)), night.at)
    day = frame["nav_date"]
    recent = frame[(day >= "2025-05-06") & (day <= "2025-06-20") & ~tonight]
    now = datetime(2025, 6, 20, 12, 0, tzinfo=UTC)
    funds = [FundInfo(code, fact.name, TYPES[fact.category]) for code, fact in night.funds.items()]
    pipeline = DataPipeline(sqlite_engine, where.thresholds, TradingCalendar(where.sessions.tolist()))

    def stage(rows: pd.DataFrame, kind: str) -> int:
        with db.write(sqlite_engine) as connection:
            nav_store.save_funds(connection, funds, now, night.day)
            return nav_store.open_batch(
                connection,
                kind=kind,
                business_date=night.day if kind == "latest" else None,
                source="test",
                provenance="recorded",
                now=now,
                rows=nav_rows(rows),
                run_id=None,
            )

    assert pipeline.process_nav_data(stage(recent, "history"), now).quarantined < 5
    for fault in (
        "decimal_x10",
        "stale_with_return",
        "codes_swapped",
        "one_day_early",
        "given_twice",
        "income_x10",
    ):
        injected = inject(BY_ID[fault], night, np.random.default_rng(3))
        assert injected is not None
        checked = pipeline.check(stage(injected.frame, "latest"), now)
        found = dict(zip(checked.held["row_no"].tolist(), checked.held["reasons"].tolist(), strict=True))
        assert found == night.ruling(renumbered(injected.frame)).held, fault
        assert len(found) >= 0.9 * len(injected.bad)


def renumbered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(row_no=np.arange(1, len(frame) + 1, dtype=np.int64))


def nav_rows(frame: pd.DataFrame) -> list[NavRow]:
    plain = frame[list(NavRow._fields)].astype(object).where(frame[list(NavRow._fields)].notna(), None)
    return [
        NavRow(*row)._replace(nav_date=None if row.nav_date is None else row.nav_date.date())
        for row in plain.itertuples(index=False)
    ]


def test_the_documents_name_every_rule_and_every_fault() -> None:
    rules = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"| `{rule.id}` | {rule.version} | {rule.severity} |" in rules
        assert rule.zh in rules
    faults = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    for fault in (*FAULTS, *LIMITS):
        assert f"| `{fault.id}` {fault.en} | {fault.zh} |" in faults


@needs_data
def test_what_was_published_is_believed(recorded: Setting) -> None:
    """A quarter of the recorded funds; `python -m bench.false_alarms` judges all."""
    verdicts = false_alarms.judge_all(recorded)
    found = false_alarms.findings(verdicts, recorded.recording)
    assert found["rows"] > 800_000
    assert found["share"] <= false_alarms.BAR
    figures, _ = adjusted_returns.agreement(verdicts, set(recorded.sessions.tolist()))
    assert figures["rows"] > 100_000
    assert figures["share"] >= adjusted_returns.BAR
