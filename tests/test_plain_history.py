"""The fast way through a history page gives what the careful one gives, or leaves the page to it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from core.sources import eastmoney_formats
from core.sources.base import NavRow
from core.sources.eastmoney_formats import parse_history_page
from core.sources.plain_history import plain_history

FIRST = 1_514_822_400_000  # 2018-01-02 00:00 in Beijing
DAY = 86_400_000


def page(entries: list[dict[str, Any]], points: list[Any]) -> bytes:
    return (
        f'var fS_code = "000001";var Data_netWorthTrend = {json.dumps(entries)};'
        f"var Data_ACWorthTrend = {json.dumps(points)};"
    ).encode()


def careful(body: bytes, monkeypatch: pytest.MonkeyPatch) -> list[NavRow]:
    with monkeypatch.context() as patch:
        patch.setattr(eastmoney_formats, "plain_history", lambda *_args: None)
        return parse_history_page(body, "000001")


def market(rng: random.Random, days: int) -> tuple[list[dict[str, Any]], list[Any]]:
    """A page with zero returns of both kinds, whole numbers, events and holes in the accumulated NAVs."""
    entries: list[dict[str, Any]] = []
    unit = 1.0
    for at in range(days):
        change = rng.choice((0, 0, 0.5, -0.31, 1))
        unit = round(unit * (1 + rng.choice((change, 0)) / 100), 4)
        words = rng.choice(("", "", "", "", "分红：每份派现金0.05元", "拆分：每份基金份额折算2.0份"))
        entry = {"x": FIRST + at * DAY, "y": unit, "equityReturn": change, "unitMoney": words}
        entries.append(entry | ({"y": 2} if rng.random() < 0.05 else {}))
    points = [[entry["x"], rng.choice((entry["y"], entry["y"] + 1, None))] for entry in entries]
    return entries, [point for point in points if rng.random() < 0.9]


@pytest.mark.parametrize("seed", range(20))
def test_both_ways_read_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    entries, points = market(random.Random(seed), 60)
    assert plain_history("000001", entries, points, eastmoney_formats._day) is not None
    body = page(entries, points)
    found = parse_history_page(body, "000001")
    assert found == careful(body, monkeypatch)
    assert all(type(row.unit_nav) is float and type(row) is NavRow for row in found)


ODD = [
    {"y": None},
    {"y": "1.5"},
    {"y": True},
    {"y": float("nan")},
    {"y": float("inf")},
    {"x": None},
    {"x": float(FIRST + 150 * DAY)},
    {"x": FIRST - 40 * DAY},  # out of order
    {"x": -(10**15)},
    {"equityReturn": "0.5"},
    {"unitMoney": "每份送一只鸡"},
    {"unitMoney": 5},
    {"unitMoney": None},
]


@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_is_left_to_the_careful_way(odd: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    entries, points = market(random.Random(1), 300)
    entries[150] |= odd
    if odd == {"unitMoney": None}:  # no words are no event, either way
        assert parse_history_page(page(entries, points), "000001") == careful(
            page(entries, points), monkeypatch
        )
        return
    assert plain_history("000001", entries, points, eastmoney_formats._day) is None
    body = page(entries, points)
    assert parse_history_page(body, "000001") == careful(body, monkeypatch)


@pytest.mark.parametrize(
    "point", [[FIRST, "1.5"], [FIRST], FIRST, [None, 1.0], [FIRST, float("nan")], [True, 1.0]]
)
def test_odd_accumulated_navs_too(point: Any) -> None:
    entries, points = market(random.Random(2), 300)
    points[0] = point
    entries[0]["x"] = FIRST
    assert plain_history("000001", entries, points, eastmoney_formats._day) is None


def test_a_page_without_a_row_has_none() -> None:
    assert parse_history_page(page([], []), "000001") == []
