"""What the market's calculation reads beside NAVs, and how its rows are kept."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from sqlalchemy import Engine, delete, insert, select, update

from core import db, rank_store
from core.fund_series import Added, note_changes
from core.metrics import measure_money
from core.metrics_store import delete_metrics_before, differing, save_metrics
from core.schema import benchmark_index, fund_metrics, fund_nav, fund_rank, money_fund_yield, risk_free_rate
from tests.test_metrics_calculator import CALC, DAYS, NOW, calculator, fill, market, walk

YEAR = DAYS[-260:]


def closes(engine: Engine, series: list[tuple[date, float]]) -> None:
    with db.write(engine) as connection:
        connection.execute(
            insert(benchmark_index),
            [
                {"index_code": "000300", "trade_date": day, "close": close, "source": "test", "known_at": NOW}
                for day, close in series
            ],
        )


def test_a_fund_that_is_the_benchmark_has_beta_one(sqlite_engine: Engine) -> None:
    index = walk(7, YEAR)
    fill(sqlite_engine, {"000001": index}, {})
    assert market(sqlite_engine)["000001"]["beta_1y"] is None
    closes(sqlite_engine, index)
    row = market(sqlite_engine)["000001"]
    assert row["beta_1y"] == pytest.approx(1, abs=1e-12)
    assert row["r_squared_1y"] == pytest.approx(1, abs=1e-12)
    assert row["tracking_error_1y"] == 0


def test_rates_hold_from_their_dates_on_and_the_setting_where_there_are_none(sqlite_engine: Engine) -> None:
    fill(sqlite_engine, {"000001": walk(7, YEAR)}, {})
    plain = market(sqlite_engine)["000001"]
    with db.write(sqlite_engine) as connection:
        connection.execute(insert(risk_free_rate).values(effective_from=date(2000, 1, 1), rate=0.015))
    assert market(sqlite_engine)["000001"] == plain  # the rate of the setting
    with db.write(sqlite_engine) as connection:
        connection.execute(insert(risk_free_rate).values(effective_from=date(2025, 6, 2), rate=0.05))
    dearer = market(sqlite_engine)["000001"]
    assert dearer["sharpe_1y"] < plain["sharpe_1y"]
    assert dearer["return_1y"] == plain["return_1y"]


def test_a_money_fund_has_the_returns_of_its_incomes(engine: Engine) -> None:
    days = [CALC - timedelta(days=n) for n in range(30, -1, -1)]
    rows = [
        {"fund_code": "000009", "nav_date": day, "income_per_10k": 0.4 + n / 100, "batch_id": 1}
        for n, day in enumerate(days)
    ]
    fill(engine, {"000001": walk(1, DAYS[-30:])}, {})
    with db.write(engine) as connection:
        connection.execute(insert(money_fund_yield), rows)
        note_changes(connection, money_fund_yield, [Added("000009", len(days), days[0], days[-1])])
    found = market(engine)
    assert list(found) == ["000001", "000009"]
    growth = 1.0
    for n in range(24, 31):  # the seven days after the anchor
        growth *= 1 + (0.4 + n / 100) / 10_000
    assert found["000009"]["return_1w"] == pytest.approx(100 * (growth - 1), rel=1e-10)
    assert found["000009"]["max_drawdown_inception"] is None
    assert market(engine, ["000009"])["000009"] == found["000009"]
    direct = measure_money(
        np.array([0, len(days)]),
        np.array(days, dtype="datetime64[D]"),
        np.array([row["income_per_10k"] for row in rows], dtype=float),
        CALC,
    )
    kept = pytest.approx(direct["return_1w"][0], rel=1e-11)  # to 12 digits
    assert found["000009"]["return_1w"] == kept


def test_the_database_alone_says_what_the_mirror_says(engine: Engine) -> None:
    fill(
        engine,
        {f"{n:06d}": walk(n, DAYS[-300:]) for n in range(1, 30)},
        {"000003": [(DAYS[-9], "split", 1.0)]},
    )
    fresh = list(calculator(engine).calculate_market(CALC, fresh=True).rows())
    assert list(calculator(engine).calculate_market(CALC).rows()) == fresh  # makes the mirror
    assert list(calculator(engine).calculate_market(CALC).rows()) == fresh  # reads it


def test_a_stored_figure_that_is_not_what_the_navs_give_is_found(engine: Engine) -> None:
    fill(engine, {f"{n:06d}": walk(n, DAYS[-100:]) for n in range(1, 4)}, {})
    found = calculator(engine).calculate_market(CALC)
    with db.write(engine) as connection:
        save_metrics(connection, CALC, found.rows())
        assert differing(connection, found) == []
        where = fund_metrics.c.fund_code == "000002"
        connection.execute(
            update(fund_metrics).where(where).values(return_1m=fund_metrics.c.return_1m + 1e-5)
        )
        assert differing(connection, found) == ["000002"]
        connection.execute(delete(fund_metrics).where(where))
        assert differing(connection, found) == []  # a fund without a row is no difference


def test_of_old_months_the_last_date_stays(engine: Engine) -> None:
    days = [date(2025, 9, 29), date(2025, 9, 30), date(2025, 10, 9), date(2025, 10, 31), date(2025, 11, 3)]
    fill(engine, {"000001": walk(1, DAYS[-100:])}, {})
    with db.write(engine) as connection:
        for day in days:
            found = calculator(engine).calculate_market(day)
            rank_store.save_market(connection, found)
        assert delete_metrics_before(connection, date(2025, 11, 1)) > 0
        for table in (fund_metrics, fund_rank):
            kept = connection.execute(select(table.c.calc_date).order_by(table.c.calc_date)).scalars().all()
            assert kept == [date(2025, 9, 30), date(2025, 10, 31), date(2025, 11, 3)]
        assert delete_metrics_before(connection, date(2025, 11, 1)) == 0
        assert connection.execute(select(fund_nav.c.fund_code).limit(1)).first() is not None
