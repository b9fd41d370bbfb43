"""The macro risk score: by hand on small series, from recorded figures, and that it never looks ahead."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy.stats import percentileofscore
from sqlalchemy import Engine, delete

from core import db
from core.benchmark import save_closes
from core.errors import NotReady
from core.market.risk_score import COMPONENTS, WEIGHTS, Component, drawdown, percentile, place, volatility
from core.market.tables import market_macro, market_risk
from core.sources.base import IndexClose
from tests.market_run import Market
from tests.market_site import MarketSite, running

DAY = date(2026, 7, 31)
NOW = datetime(2026, 8, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def site(data: Path) -> Iterator[MarketSite]:
    with running(data) as found:
        yield found


@pytest.fixture
def market(engine: Engine) -> Market:
    return Market(engine)


@pytest.fixture
def filled(market: Market, site: MarketSite, data: Path) -> Market:
    market.do("macro", DAY, datacenter_url=site.url, requests_per_second=1000)
    closes = [
        IndexClose("000300", date.fromisoformat(row["date"]), float(row["close"]))
        for row in csi300(data)
        if row["date"] > "2015-01-01"
    ]
    with db.write(market.engine) as connection:
        save_closes(connection, closes, NOW, "files")
    return market


def csi300(data: Path) -> list[dict[str, str]]:
    with (data / "index" / "000300.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_percentiles_by_hand() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0]) == 87.5  # three below, itself half: 3.5 of 4
    assert percentile([4.0, 3.0, 2.0, 1.0]) == 12.5
    assert percentile([5.0, 5.0]) == 50.0
    assert percentile([0.1 + 0.2, 0.3]) == 50.0  # as published they are equal


def test_sides_by_hand() -> None:
    points = [(date(2024, 1, 1) + timedelta(days=31 * n), float(n % 12)) for n in range(25)]
    as_of = points[-1][0]  # its value is 0, as are two others of the 25
    high = place(Component("growth", "x", "high", 10), points, as_of)
    low = place(Component("growth", "x", "low", 10), points, as_of)
    far = place(Component("growth", "x", 11.0, 10), points, as_of)
    assert high is not None
    assert low is not None
    assert far is not None
    assert (high.percentile, high.observations, high.value, high.period) == (6.0, 25, 0.0, as_of)
    assert (low.percentile, far.percentile) == (94.0, 94.0)
    assert place(Component("growth", "x", "high", 10), points, as_of + timedelta(days=11)) is None
    assert place(Component("growth", "x", "high", 10), points[-23:], as_of) is None


def test_the_index_as_pandas_has_it(data: Path) -> None:
    import numpy as np

    rows = csi300(data)[1:]
    closes = [(date.fromisoformat(row["date"]), float(row["close"])) for row in rows]
    series = pd.Series([close for _day, close in closes])
    deviation = np.log(series).diff().rolling(60).std() * 250**0.5 * 100
    assert [value for _day, value in volatility(closes, 60)] == pytest.approx(
        deviation.dropna().tolist(), rel=1e-9
    )
    below = 100 * (1 - series / series.rolling(250).max())
    assert [value for _day, value in drawdown(closes, 250)] == pytest.approx(
        below.dropna().tolist(), abs=1e-9
    )
    assert volatility(closes, 60)[-1][0] == drawdown(closes, 250)[-1][0] == closes[-1][0]
    assert volatility(closes[:60], 60) == drawdown(closes[:249], 250) == []


def test_recorded_figures_against_scipy(filled: Market, data: Path) -> None:
    result = filled.do("risk", DAY)
    assert (result.status, result.reason, result.records) == ("SUCCESS", None, 1)
    (row,) = filled.rows(market_risk)
    parts = {part["what"]: part for part in json.loads(row.components)}
    assert set(parts) == {component.what for component in COMPONENTS}
    # The PMI: of June, since July's is out by the 7th of August; low is strained. Ten years, 2016-08 to 2026-06.
    with (data / "macro" / "pmi.csv").open(encoding="utf-8-sig") as file:
        pmi = {row["月份"]: float(row["制造业-指数"]) for row in csv.DictReader(file)}
    months = [f"{year}年{month:02}月份" for year in range(2016, 2027) for month in range(1, 13)]
    window = [-pmi[name] for name in months if "2016年08月份" <= name <= "2026年06月份"]
    assert (parts["pmi"]["value"], parts["pmi"]["period"]) == (50.3, "2026-06-01")
    assert parts["pmi"]["observations"] == len(window) == 119
    assert parts["pmi"]["percentile"] == pytest.approx(percentileofscore(window, -50.3, "mean"), abs=1e-9)
    assert parts["shibor_3m-shibor_on"]["value"] == pytest.approx(1.43 - 1.41)
    assert parts["m1_yoy-m2_yoy"]["value"] == 4.0 - 8.0
    for dimension in WEIGHTS:
        own = [part["percentile"] for part in parts.values() if part["dimension"] == dimension]
        assert getattr(row, dimension) == pytest.approx(sum(own) / len(own))
    hand = 0.25 * row.growth + 0.15 * row.inflation + 0.2 * (row.liquidity + row.credit + row.volatility)
    assert row.score == pytest.approx(hand)
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    ((topic, payload),) = filled.events
    assert (topic, payload["as_of"], payload["score"]) == ("market.risk", "2026-07-31", row.score)


def test_again_is_the_same_and_tells_nobody(filled: Market) -> None:
    filled.do("risk", DAY, days=5)
    rows = filled.rows(market_risk)
    assert [row.as_of for row in rows] == [DAY - timedelta(days=back) for back in range(4, -1, -1)]
    assert len(filled.events) == 5
    filled.do("risk", DAY, hour=23, days=5)
    assert filled.rows(market_risk) == rows
    assert len(filled.events) == 5


def test_what_came_out_later_changes_nothing(filled: Market) -> None:
    """The score of a past day is what it was on that day, though all that followed is known by now."""
    past = date(2025, 3, 14)
    whole = filled.do("risk", past).data
    with db.write(filled.engine) as connection:
        later = market_macro.c.period > past
        connection.execute(delete(market_macro).where(later))
    assert filled.do("risk", past).data == whole
    (row,) = filled.rows(market_risk)
    periods = {part["what"]: part["period"] for part in json.loads(row.components)}
    assert periods["cpi_yoy"] == "2025-01-01"  # February's is out by the 16th
    assert periods["pmi"] == "2025-02-01"
    assert periods["shibor_on"] == "2025-03-14"


def test_a_dimension_without_figures_shares_its_weight(filled: Market) -> None:
    with db.write(filled.engine) as connection:
        connection.execute(delete(market_macro).where(market_macro.c.series.in_(["cpi_yoy", "ppi_yoy"])))
    result = filled.do("risk", DAY)
    assert (result.status, result.reason) == ("PARTIAL", "without cpi_yoy, ppi_yoy")
    (row,) = filled.rows(market_risk)
    assert row.inflation is None
    hand = 0.25 * row.growth + 0.2 * (row.liquidity + row.credit + row.volatility)
    assert row.score == pytest.approx(hand / 0.85)


def test_nothing_known_is_no_score(market: Market) -> None:
    with pytest.raises(NotReady, match="pmi"):
        market.do("risk", DAY)
    assert market.rows(market_risk) == []


def test_two_dimensions_are_no_score(filled: Market) -> None:
    kept: Any = market_macro.c.series.in_(["pmi", "pmi_services"])
    with db.write(filled.engine) as connection:
        connection.execute(delete(market_macro).where(~kept))
    with pytest.raises(NotReady):
        filled.do("risk", DAY)
