"""Every published fund type has the category that a reader of its words would give it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from core.fund_category import CATEGORIES, fund_category

# By hand, from the words alone.
BY_HAND = {
    "股票型": "stock",
    "混合型": "mixed",
    "混合型-偏股": "mixed",
    "混合型-灵活": "mixed",
    "混合型-偏债": "mixed",
    "混合型-平衡": "mixed",
    "混合型-绝对收益": "mixed",
    "债券型": "bond",
    "债券型-长债": "bond",
    "债券型-中短债": "bond",
    "债券型-混合一级": "bond",
    "债券型-混合二级": "bond",
    "指数型-股票": "index",
    "指数型-固收": "index",
    "指数型-其他": "index",
    "指数型-海外股票": "qdii",
    "QDII-混合偏股": "qdii",
    "QDII-混合灵活": "qdii",
    "QDII-混合平衡": "qdii",
    "QDII-混合债": "qdii",
    "QDII-普通股票": "qdii",
    "QDII-纯债": "qdii",
    "QDII-商品": "qdii",
    "QDII-FOF": "qdii",
    "QDII-REITs": "qdii",
    "FOF-稳健型": "fof",
    "FOF-均衡型": "fof",
    "FOF-进取型": "fof",
    "货币型": "money",
    "货币型-普通货币": "money",
    "理财型": "money",
    "货币型-浮动净值": "bond",  # publishes NAVs near 100
    "Reits": "reit",
    "REITs": "reit",
    "商品": "commodity",
    "": "other",
    "从未见过": "other",
}


@pytest.mark.parametrize(("published", "category"), BY_HAND.items())
def test_category_of_a_published_type(published: str, category: str) -> None:
    assert fund_category(published) == category
    assert category in CATEGORIES


def test_every_type_of_the_recorded_list_is_in_the_table(data: Path) -> None:
    with (data / "fund_list.csv").open(encoding="utf-8-sig", newline="") as file:
        found = {row["fund_type"] for row in csv.DictReader(file)}
    assert len(found) > 25
    assert found <= set(BY_HAND)
