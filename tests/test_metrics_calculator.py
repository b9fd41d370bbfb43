"""From NAVs and events in the database to rows of metrics and back."""

from __future__ import annotations

import math
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, insert, select, update

from core import adjustment, db, nav_store
from core.fund_series import Added, note_changes
from core.metrics import COLUMNS, DEFINITION_VERSION
from core.metrics_calculator import ROW_COLUMNS, FundMetricsCalculator
from core.metrics_store import save_metrics
from core.schema import fund_event, fund_metrics, fund_nav
from core.sources.base import FundInfo
from core.trading_calendar import TradingCalendar
from tests.example_batch import SESSIONS, THRESHOLDS

CALC = date(2025, 12, 5)
NOW = datetime(2025, 12, 5, 12, 30, tzinfo=UTC)
DAYS = [day for day in SESSIONS if day <= CALC]
Event = tuple[date, str, float]


def calculator(engine: Engine) -> FundMetricsCalculator:
    calendar = TradingCalendar(SESSIONS)
    mirror = Path(os.environ["NAVKEEPER_HOME"]) / "mirror"
    return FundMetricsCalculator(
        engine, calendar, THRESHOLDS, risk_free=0.015, periods_per_year=250, mirror=mirror
    )


def fill(engine: Engine, navs: dict[str, list[tuple[date, float]]], events: dict[str, list[Event]]) -> None:
    """Believed NAVs and events, as the pipeline leaves them."""
    columns = ("fund_code", "nav_date", "unit_nav", "batch_id")
    rows = [(code, day.isoformat(), value, 1) for code, series in navs.items() for day, value in series]
    booked = [
        {
            "fund_code": code,
            "ex_date": day,
            "kind": kind,
            "value": value,
            "evidence": "published",
            "batch_id": 1,
        }
        for code, found in events.items()
        for day, kind, value in found
    ]
    with db.write(engine) as connection:
        db.bulk_insert(connection, fund_nav, columns, rows)
        if booked:
            connection.execute(insert(fund_event), booked)
        added = [
            Added(code, len(series), min(series)[0], max(series)[0])
            for code, series in navs.items()
            if series
        ]
        note_changes(connection, fund_nav, added)
        adjustment.recompute_funds(connection, sorted(events))


def frame(series: list[tuple[date, float]], events: list[Event] = ()) -> pd.DataFrame:  # type: ignore[assignment]
    """`series` and `events` as calculate_all_metrics takes them."""
    found = {(day, kind): value for day, kind, value in events}
    return pd.DataFrame(
        {
            "nav_date": [day for day, _ in series],
            "unit_nav": [value for _, value in series],
            "dividend": [found.get((day, "dividend"), np.nan) for day, _ in series],
            "split_ratio": [found.get((day, "split"), np.nan) for day, _ in series],
        }
    )


def walk(seed: int, days: list[date]) -> list[tuple[date, float]]:
    steps = np.random.default_rng(seed).normal(0.0003, 0.01, len(days))
    return list(zip(days, np.round(np.exp(np.cumsum(steps)), 4).tolist(), strict=True))


def market(engine: Engine, codes: list[str] | None = None, day: date = CALC) -> dict[str, dict[str, Any]]:
    """Rows of the whole market by fund code."""
    rows = list(calculator(engine).calculate_market(day, codes).rows())
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: dict(zip(ROW_COLUMNS, row, strict=True)) for row in rows}


def stored(engine: Engine) -> list[tuple[Any, ...]]:
    with db.read(engine) as connection:
        key = (fund_metrics.c.definition_version, fund_metrics.c.calc_date, fund_metrics.c.fund_code)
        return [tuple(row) for row in connection.execute(select(fund_metrics).order_by(*key))]


# A_t = A_{t-1} * (s*U_t + D) / U_{t-1}, from Friday 2025-11-28:
# 1.00 | 1.10 | 1.05 + 0.05 paid: 1.10 | 2 * 0.55: 1.10 * 1.10/1.05 = 1.152381 | same | * 1.1 = 1.267619
WEEK = list(zip(DAYS[-6:], (1.0, 1.1, 1.05, 0.55, 0.55, 0.605), strict=True))
WEEK_EVENTS: list[Event] = [(date(2025, 12, 2), "dividend", 0.05), (date(2025, 12, 3), "split", 2.0)]


def test_a_week_with_dividend_and_split_by_hand(engine: Engine) -> None:
    fill(engine, {"000001": WEEK}, {"000001": WEEK_EVENTS})
    row = market(engine)["000001"]
    assert row["return_1w"] == pytest.approx(100 * (1.1 * 1.1 * 1.1 / 1.05 - 1), abs=1e-10)
    assert row["return_1w"] == row["return_inception"]
    assert (row["calc_date"], row["nav_date"], row["nav_count"]) == ("2025-12-05", "2025-12-05", 6)
    assert row["definition_version"] == DEFINITION_VERSION
    assert row["return_1m"] is None  # younger than a month
    assert row["volatility_inception"] is None  # five returns


def test_an_event_that_is_only_announced_changes_no_return(engine: Engine) -> None:
    fill(engine, {"000001": WEEK}, {"000001": [*WEEK_EVENTS, (date(2025, 12, 5), "split", 2.0)]})
    with db.write(engine) as connection:
        connection.execute(
            update(fund_event).where(fund_event.c.ex_date == date(2025, 12, 5)).values(evidence="announced")
        )
        adjustment.recompute_funds(connection, ["000001"])
    found = market(engine)["000001"]["return_inception"]
    assert found == pytest.approx(100 * (1.1 * 1.1 * 1.1 / 1.05 - 1), abs=1e-10)


def test_up_and_down_by_hand(engine: Engine) -> None:
    # 1.0 and 1.1 in turn, 61 NAVs: thirty returns of 0.1, thirty of -1/11, all off their mean by 21/220
    series = [(day, 1.1 if n % 2 else 1.0) for n, day in enumerate(DAYS[-61:])]
    fill(engine, {"000001": series}, {})
    row = market(engine)["000001"]
    volatility = 21 / 220 * math.sqrt(60 / 59) * math.sqrt(250)
    excess = 1 / 220 - (1.015 ** (1 / 250) - 1)
    assert row["volatility_inception"] == pytest.approx(100 * volatility, rel=1e-11)
    assert row["sharpe_inception"] == pytest.approx(excess * 250 / volatility, rel=1e-11)
    assert row["max_drawdown_inception"] == pytest.approx(-100 / 11, rel=1e-11)
    days = [series[n][0].isoformat() for n in (1, 2, 3)]
    found = [row[f"max_drawdown_{day}_inception"] for day in ("peak", "trough", "recovery")]
    assert found == days
    assert row["return_inception"] == pytest.approx(0.0, abs=1e-12)


def test_the_market_is_its_funds_one_by_one(engine: Engine) -> None:
    navs = {
        "000001": walk(1, DAYS[-300:]),
        "000002": walk(2, DAYS),
        "000003": walk(3, DAYS[-300::5]),  # weekly
        "000004": walk(4, DAYS[:-30]),  # stopped in October
        "000005": [(DAYS[-1], 1.0)],
        "000006": WEEK,
        "159001": [(day, 1.0) for day in DAYS[-100:]],
    }
    events: dict[str, list[Event]] = {
        "000001": [(DAYS[-100], "dividend", 0.02), (DAYS[-50], "dividend", 0.01)],
        "000006": WEEK_EVENTS,
    }
    fill(engine, navs, events)
    with db.write(engine) as connection:
        nav_store.save_funds(connection, [FundInfo("000002", "乙", "QDII-混合偏股")], NOW)
    found = market(engine)
    assert list(found) == sorted(navs)
    categories = {"000002": "qdii"}
    for code, series in navs.items():
        alone = calculator(engine).calculate_all_metrics(
            code, frame(series, events.get(code, [])), CALC, categories.get(code, "other")
        )
        # sums of many funds beside each other may round their last bit differently
        for name in COLUMNS:
            exact = (
                alone[name] if not isinstance(alone[name], float) else pytest.approx(alone[name], rel=1e-12)
            )
            assert found[code][name] == exact, (code, name)
    assert found["000001"]["sharpe_1y"] is not None
    assert found["000004"]["return_1w"] is None


def test_order_and_later_rows_do_not_matter(sqlite_engine: Engine) -> None:
    one = calculator(sqlite_engine)
    whole = frame([*WEEK, (date(2025, 12, 8), 9.0)], WEEK_EVENTS)
    expected = one.calculate_all_metrics("000001", frame(WEEK, WEEK_EVENTS), CALC)
    assert expected["return_1w"] is not None
    shuffled = whole.sample(frac=1, random_state=3)
    assert not shuffled["nav_date"].is_monotonic_increasing
    assert one.calculate_all_metrics("000001", shuffled, CALC) == expected
    assert one.calculate_all_metrics("000001", shuffled.reset_index(drop=True), CALC) == expected


def test_a_fund_without_navs_yet_has_nulls(sqlite_engine: Engine) -> None:
    found = calculator(sqlite_engine).calculate_all_metrics("000001", frame(WEEK), date(2025, 1, 2))
    assert found == dict.fromkeys(COLUMNS)


@pytest.mark.parametrize(
    ("wrong", "day"),
    [
        ([(DAYS[-3], 0.0)], "2025-12-03"),
        ([(DAYS[-3], -1.0)], "2025-12-03"),
        ([(DAYS[-3], math.nan)], "2025-12-03"),
        ([(DAYS[-3], 1.0), (DAYS[-3], 1.0)], "2025-12-03"),
    ],
)
def test_unusable_navs_are_refused_naming_fund_and_date(
    sqlite_engine: Engine, wrong: list[tuple[date, float]], day: str
) -> None:
    with pytest.raises(ValueError, match=f"fund 000001: unusable NAV on {day}"):
        calculator(sqlite_engine).calculate_all_metrics("000001", frame([(DAYS[-4], 1.0), *wrong]), CALC)


def test_a_series_starts_after_the_last_step_nothing_explains(engine: Engine) -> None:
    # 1.0, 1.0, then 3.0 and 3.3: +200 % in a day is another basis, +10 % is what is left
    values = [1.0] * 60 + [3.0] * 3 + [3.3]
    series = list(zip(DAYS[-64:], values, strict=True))
    jump = series[60][0]
    fill(engine, dict.fromkeys(("000001", "000002"), series), {"000002": [(jump, "split", 1 / 3)]})
    found = market(engine)
    assert found["000001"]["return_inception"] == pytest.approx(10.0, abs=1e-9)
    assert found["000001"]["return_1m"] is None
    assert found["000001"]["nav_count"] == 64
    # with the reverse split booked nothing is broken: 1.0 to 3.3 / 3
    assert found["000002"]["return_inception"] == pytest.approx(10.0, abs=1e-9)
    assert found["000002"]["return_1m"] == pytest.approx(10.0, abs=1e-9)


@pytest.mark.parametrize(("fund_type", "whole"), [("债券型-长债", False), ("QDII-商品", True)])
def test_what_breaks_a_series_depends_on_the_category(
    sqlite_engine: Engine, fund_type: str, whole: bool
) -> None:
    # +20 % in a day: more than a bond fund can (15 %), less than a QDII fund can (40 %)
    fill(sqlite_engine, {"000001": [(DAYS[-3], 1.0), (DAYS[-2], 1.2), (DAYS[-1], 1.2)]}, {})
    with db.write(sqlite_engine) as connection:
        nav_store.save_funds(connection, [FundInfo("000001", "甲", fund_type)], NOW)
    expected = 20.0 if whole else 0.0
    assert market(sqlite_engine)["000001"]["return_inception"] == pytest.approx(expected, abs=1e-9)


def test_every_fund_is_measured_listed_or_not(sqlite_engine: Engine) -> None:
    count = 450
    codes = [f"{n:06d}" for n in range(1, count + 1)]
    series = {
        code: list(zip(DAYS[-6:], [1.0] * 5 + [1 + n / 10000], strict=True)) for n, code in enumerate(codes)
    }
    fill(sqlite_engine, series, {})
    with db.write(sqlite_engine) as connection:
        funds = [FundInfo(code, "基金", "混合型-偏股") for code in codes[: count - 7]]
        nav_store.save_funds(connection, [*funds, FundInfo("999999", "没有净值", "股票型")], NOW)
    found = market(sqlite_engine)
    assert list(found) == codes
    for n, code in enumerate(codes):
        assert found[code]["return_1w"] == pytest.approx(n / 100, abs=1e-9)


def test_a_subset_is_the_same_as_in_the_market(sqlite_engine: Engine) -> None:
    fill(sqlite_engine, {f"{n:06d}": walk(n, DAYS[-100:]) for n in range(1, 6)}, {})
    whole = market(sqlite_engine)
    assert market(sqlite_engine, ["000004", "000002", "999999"]) == {
        c: whole[c] for c in ("000002", "000004")
    }


def test_an_earlier_date_sees_only_what_was_known_then(sqlite_engine: Engine) -> None:
    fill(sqlite_engine, {"000001": WEEK, "000002": WEEK[-1:]}, {"000001": WEEK_EVENTS})
    found = market(sqlite_engine, day=date(2025, 12, 1))
    assert list(found) == ["000001"]
    assert found["000001"]["return_inception"] == pytest.approx(10.0, abs=1e-9)
    assert found["000001"]["nav_count"] == 2
    # the dividend of the date itself counts: 1.05 + 0.05 over 1.00
    assert market(sqlite_engine, day=date(2025, 12, 2))["000001"]["return_inception"] == pytest.approx(10.0)


def test_saving_twice_is_saving_once(engine: Engine) -> None:
    fill(engine, {f"{n:06d}": walk(n, DAYS[-100:]) for n in range(1, 6)}, {})
    rows = list(calculator(engine).calculate_market(CALC).rows())
    dumps = []
    for _ in range(2):
        with db.write(engine) as connection:
            assert save_metrics(connection, CALC, rows) == 5
        dumps.append(stored(engine))
    assert dumps[0] == dumps[1]
    assert len(dumps[0]) == 5
    # what comes back is what was calculated, to the last bit and with real dates
    names = [column.name for column in fund_metrics.columns]
    back = dict(zip(names, dumps[0][0], strict=True))
    for name, value in zip(ROW_COLUMNS, rows[0], strict=True):
        shown = back[name].isoformat() if isinstance(back[name], date) else back[name]
        assert shown == value, name


def test_saving_some_funds_leaves_the_others_and_other_dates_alone(engine: Engine) -> None:
    fill(engine, {f"{n:06d}": walk(n, DAYS[-100:]) for n in range(1, 4)}, {})
    with db.write(engine) as connection:
        for day in (date(2025, 12, 4), CALC):
            save_metrics(connection, day, list(calculator(engine).calculate_market(day).rows()))
        connection.execute(
            update(fund_metrics)
            .where(fund_metrics.c.calc_date == date(2025, 12, 4))
            .values(definition_version="0")
        )
    before = stored(engine)
    with db.write(engine) as connection:
        connection.execute(
            update(fund_nav)
            .where(fund_nav.c.fund_code == "000002", fund_nav.c.nav_date == CALC)
            .values(unit_nav=1.2345)
        )
    part = list(calculator(engine).calculate_market(CALC, ["000002"]).rows())
    with db.write(engine) as connection:
        assert save_metrics(connection, CALC, part, ["000002"]) == 1
    after = stored(engine)
    assert len(after) == len(before) == 6
    changed = [old[:3] for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [("000002", CALC, DEFINITION_VERSION)]
