"""Ranks by hand, against pandas, and of a market in a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Engine, func, insert, select, update

from core import db
from core.fund_category import CATEGORIES
from core.rank_columns import COMPONENTS, RANKED, lower_is_better
from core.rank_store import rank_stored
from core.ranking import FEWEST_PEERS, Standing, peers_of, rank_market, representatives, standing
from core.schema import fund_info, fund_metrics, fund_rank, fund_score
from tests.example_night import NOW

DAY = date(2026, 1, 28)
NULL = float("nan")


def singles(count: int, category: str = "stock", first: int = 1) -> list[tuple[str, str, str, int]]:
    """Code, name, category and NAVs of funds with one share class each."""
    return [(f"{n:06d}", f"{category}基金{n}混合", category, 500) for n in range(first, first + count)]


def ranks(funds: Sequence[tuple[str, str, str, int]], values: Sequence[float], **how: bool) -> Standing:
    codes, names, categories, counts = zip(*funds, strict=True)
    peers = peers_of(codes, names, categories, np.array(counts))
    return standing(np.array(values, dtype=float), peers, **how)


def test_ten_funds_by_hand() -> None:
    found = ranks(singles(10), [5, 9, 9, 1, 7, 7, 7, 2, 3, 4])
    assert found.rank.tolist() == [6, 1, 1, 10, 3, 3, 3, 9, 8, 7]  # equal ones share the best, then a gap
    assert found.peers.tolist() == [10] * 10
    # (10 - rank)/9 of the others are not better
    assert found.percentile == pytest.approx(
        [400 / 9, 100, 100, 0, *[700 / 9] * 3, 100 / 9, 200 / 9, 100 / 3]
    )
    assert found.quartile.tolist() == [3, 1, 1, 4, 2, 2, 2, 4, 4, 3]  # ceil(4*6/10) = 3, ceil(4*3/10) = 2


def test_the_lower_volatility_and_the_smaller_fall_are_better() -> None:
    rising = [float(n) for n in range(10)]
    assert ranks(singles(10), rising, lower_better=True).rank.tolist() == list(range(1, 11))
    assert lower_is_better("volatility_1y")
    assert not lower_is_better("max_drawdown_3y")
    falls = np.array([-50.0, -10, -30, -1, -2, -3, -4, -5, -6, -7])
    codes, names, categories, counts = zip(*singles(10), strict=True)
    peers = peers_of(codes, names, categories, np.array(counts))
    found = rank_market({"max_drawdown_1y": falls}, peers, ["max_drawdown_1y"])["max_drawdown_1y"]
    assert found.rank.tolist() == [10, 8, 9, 1, 2, 3, 4, 5, 6, 7]


def test_fewer_than_ten_peers_have_no_rank() -> None:
    assert FEWEST_PEERS == 10
    nine = ranks(singles(9), range(9))
    assert all(np.isnan(part).all() for part in nine)
    with_a_null = ranks(singles(10), [*range(9), NULL])
    assert all(np.isnan(part).all() for part in with_a_null)
    with_infinity = ranks(singles(11), [*range(9), NULL, np.inf])
    assert all(np.isnan(part).all() for part in with_infinity)
    two_types = ranks([*singles(9), *singles(10, "bond", 50)], range(19))
    assert np.isnan(two_types.rank[:9]).all()
    assert two_types.rank[9:].tolist() == list(range(10, 0, -1))


def test_a_market_without_funds() -> None:
    peers = peers_of((), (), (), np.array([], dtype=np.int64))
    assert all(len(part) == 0 for part in standing(np.array([]), peers))


def test_share_classes_count_once_and_stand_in_each_others_place() -> None:
    """Ten other funds at 10, 20, … 100; the classes A, C and E of one more at 55, 45 and 200."""
    classes = [
        ("000901", "华夏成长混合A", "stock", 900),
        ("000902", "华夏成长混合C", "stock", 400),
        ("000903", "华夏成长混合E", "stock", 10),
    ]
    found = ranks([*singles(10), *classes], [*range(10, 101, 10), 55, 45, 200])
    assert set(found.peers.tolist()) == {11}
    assert found.rank[:10].tolist() == [
        11,
        10,
        9,
        8,
        7,
        5,
        4,
        3,
        2,
        1,
    ]  # A, the oldest, stands between 60 and 50
    assert found.rank[10:].tolist() == [6, 7, 1]  # C below 60 and 50: A does not count against it
    assert found.percentile[10:] == pytest.approx([50, 40, 100])


def test_the_class_with_the_most_navs_that_has_a_value_stands_for_its_fund() -> None:
    classes = [
        ("000903", "华夏成长混合A", "stock", 900),
        ("000902", "华夏成长混合C", "stock", 400),
        ("000901", "华夏成长混合(后端)", "stock", 400),
        ("000904", "华夏成长混合A美元现汇", "qdii", 400),  # of another type: another fund
        ("000905", "", "stock", 1),  # without a name: funds of their own
        ("000906", "", "stock", 1),
    ]
    codes, names, categories, counts = zip(*classes, strict=True)
    peers = peers_of(codes, names, categories, np.array(counts))
    known = np.array([1.0, 1, 1, 1, 1, 1])
    assert representatives(known, peers).tolist() == [True, False, False, True, True, True]
    known[0] = NULL  # of two with as many NAVs the lower code
    assert representatives(known, peers).tolist() == [False, False, True, True, True, True]


def test_as_pandas_ranks_them() -> None:
    """3,000 funds of all types, with ties and nulls: groupby.rank(method="min")."""
    rng = np.random.default_rng(7)
    categories = rng.choice(CATEGORIES, 3000, p=[0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.002, 0.028, 0.02])
    funds = [(f"{n:06d}", f"基金{n}混合", category, 100) for n, category in enumerate(categories.tolist())]
    values = np.where(rng.random(3000) < 0.1, NULL, rng.integers(-300, 300, 3000) / 10)
    for lower_better in (False, True):
        found = ranks(funds, values.tolist(), lower_better=lower_better)
        groups = pd.Series(values).groupby(categories)
        count = groups.transform("count")
        rank = groups.rank(method="min", ascending=lower_better).where(count >= 10)
        assert rank.notna().sum() > 2500
        np.testing.assert_array_equal(found.rank, rank)
        np.testing.assert_array_equal(found.peers, count.where(rank.notna()))
        np.testing.assert_array_equal(found.percentile, 100 * (count - rank) / (count - 1))
        assert set(found.quartile[~np.isnan(found.quartile)].tolist()) == {1, 2, 3, 4}
        np.testing.assert_array_equal(found.quartile, np.ceil(4 * rank / count))


@given(st.lists(st.integers(-5, 5), min_size=10, max_size=30), st.data())
def test_a_second_class_moves_nobody_and_ranks_as_if_it_were_the_first(values: list[int], data: Any) -> None:
    funds = singles(len(values))
    alone = ranks(funds, values)
    at, other = data.draw(st.integers(0, len(values) - 1)), data.draw(st.integers(-6, 6))
    _code, name, category, _count = funds[at]
    found = ranks([*funds, ("900000", f"{name}C", category, 7)], [*values, other])
    np.testing.assert_array_equal(found.rank[:-1], alone.rank)
    np.testing.assert_array_equal(found.peers[:-1], alone.peers)
    instead = pd.Series([*values[:at], other, *values[at + 1 :]]).rank(method="min", ascending=False)
    assert found.rank[-1] == instead[at]
    assert found.peers[-1] == len(values)


# In a database


def fill(engine: Engine, funds: int = 12) -> None:
    """Stock funds whose every metric is their number, one more share class of the best, a money fund."""
    best = f"基金{funds}混合"
    rows = [(f"{n:06d}", f"基金{n}混合", "stock", 500, n) for n in range(1, funds + 1)]
    rows += [("100001", f"{best}C", "stock", 20, 6.5), ("200001", "货币基金A", "money", 700, None)]
    with db.write(engine) as connection:
        connection.execute(
            insert(fund_info),
            [
                {"fund_code": code, "fund_name": name, "fund_type": "", "category": kind, "updated_at": NOW}
                for code, name, kind, *_ in rows
            ],
        )
        names = {*RANKED, *COMPONENTS}
        connection.execute(
            insert(fund_metrics),
            [
                {
                    "fund_code": code,
                    "calc_date": DAY,
                    "definition_version": "1",
                    "nav_date": DAY,
                    "nav_count": count,
                    **dict.fromkeys(names, value),
                }
                for code, _name, _kind, count, value in rows
            ],
        )


def everything(engine: Engine) -> tuple[list[Any], list[Any]]:
    with db.read(engine) as connection:
        return tuple(  # type: ignore[return-value]
            connection.execute(select(table).order_by(table.c.fund_code)).all()
            for table in (fund_rank, fund_score)
        )


def test_the_stored_market_is_ranked_and_scored(engine: Engine) -> None:
    fill(engine)
    for _twice in range(2):
        with db.write(engine) as connection:
            assert rank_stored(connection, DAY) == 14
        stored, scores = everything(engine)
        assert [row.fund_code for row in stored][-3:] == ["000012", "100001", "200001"]
        assert [row.rank_sharpe_3y for row in stored] == [
            *range(12, 0, -1),
            6,
            None,
        ]  # C: after 12 - 7 others
        assert [row.peers_return_1w for row in stored] == [*[12] * 13, None]
        assert [row.quartile_calmar_inception for row in stored] == [
            *[4] * 3,
            *[3] * 3,
            *[2] * 3,
            *[1] * 3,
            2,
            None,
        ]
        assert stored[1].percentile_return_ytd == 9.0909  # one of eleven others, four decimals
        assert (stored[0].calc_date, stored[0].definition_version) == (DAY, "1")
        assert [row.fund_code for row in scores] == [row.fund_code for row in stored][:-1]  # money has none
        # Of fund 12 all are the best but volatility, where the least is: 90 % of 100.
        assert (scores[11].score, scores[11].level, scores[11].known_count) == (90.0, "S", len(COMPONENTS))
        assert (scores[11].points_return_1y, scores[11].points_volatility_1y) == (100.0, 0.0)
        assert (scores[0].score, scores[0].level) == (10.0, "D")


def test_one_fund_recalculated_moves_its_peers(engine: Engine) -> None:
    fill(engine)
    other = date(2026, 1, 27)
    with db.write(engine) as connection:
        rank_stored(connection, DAY)
        connection.execute(
            insert(fund_rank).values(fund_code="000001", calc_date=other, definition_version="1")
        )
        connection.execute(
            insert(fund_rank).values(
                fund_code="000001", calc_date=DAY, definition_version="0", rank_return_1y=7
            )
        )
    with db.write(engine) as connection:
        one = fund_metrics.c.fund_code == "000001"
        connection.execute(update(fund_metrics).where(one).values(return_1y=99.0))
        rank_stored(connection, DAY)
    with db.read(engine) as connection:
        query = select(fund_rank.c.rank_return_1y).where(
            fund_rank.c.calc_date == DAY, fund_rank.c.definition_version == "1"
        )
        found = connection.execute(query.order_by(fund_rank.c.fund_code)).scalars().all()
        assert connection.scalar(select(func.count()).select_from(fund_rank)) == 14 + 2  # the others stay
    assert found == [1, *range(12, 1, -1), 7, None]


def test_ranks_stand_and_fall_with_the_callers_transaction(engine: Engine) -> None:
    fill(engine)

    def half_done() -> None:
        with db.write(engine) as connection:
            rank_stored(connection, DAY)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        half_done()
    assert everything(engine) == ([], [])


def test_a_date_without_metrics_has_no_ranks(sqlite_engine: Engine) -> None:
    fill(sqlite_engine)
    with db.write(sqlite_engine) as connection:
        assert rank_stored(connection, date(2026, 1, 27)) == 0
    assert everything(sqlite_engine) == ([], [])


def test_the_database_works_out_what_the_formulas_give(engine: Engine) -> None:
    """Percentile and quartile follow from rank and peers when they are read: every rank of 10 to 40 peers."""
    places = [(rank, peers) for peers in range(10, 41) for rank in range(1, peers + 1)]
    with db.write(engine) as connection:
        names = ("fund_code", "calc_date", "definition_version", "rank_calmar_3y", "peers_calmar_3y")
        rows = [(f"{n:06d}", "2026-01-28", "1", *place) for n, place in enumerate(places)]
        db.bulk_insert(connection, fund_rank, names, rows)
    with db.read(engine) as connection:
        query = select(fund_rank.c.percentile_calmar_3y, fund_rank.c.quartile_calmar_3y)
        found = connection.execute(query.order_by(fund_rank.c.fund_code)).all()
    for (rank, peers), (percentile, quartile) in zip(places, found, strict=True):
        assert percentile == pytest.approx(100 * (peers - rank) / (peers - 1), abs=1e-4)
        assert quartile == -(-4 * rank // peers)
