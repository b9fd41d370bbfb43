"""Replies made to hurt: the parsers answer with SourceChanged or a row with its defect, never with another error."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from core.errors import SourceChanged
from core.sources.base import NavRow
from core.sources.eastmoney_formats import (
    parse_fund_list,
    parse_history_page,
    parse_lsjz,
    parse_money_rank,
    parse_rank,
)
from core.sources.event_text import parse_event_text
from core.sources.text_values import FieldError, parse_number

DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000  # beyond what int() reads
PARSERS: list[tuple[Callable[[bytes], Any], str]] = [
    (parse_fund_list, "var r = [%s];"),
    (lambda body: parse_rank(body, exchange_traded=False), "var rankData = {datas:[%s],allRecords:1};"),
    (parse_money_rank, '{"Data":[%s],"ErrCode":0,"TotalCount":1}'),
    (
        lambda body: parse_lsjz(body, "000001"),
        '{"Data":{"LSJZList":[%s],"SYType":null},"ErrCode":0,"TotalCount":1}',
    ),
    (
        lambda body: parse_history_page(body, "000001"),
        'var fS_code = "000001";var Data_netWorthTrend = [%s];var Data_ACWorthTrend = [];',
    ),
    (
        lambda body: parse_history_page(body, "000001"),
        'var fS_code = "000001";var Data_netWorthTrend = [];var Data_ACWorthTrend = [%s];',
    ),
]


@pytest.mark.parametrize(
    "value", [DEEP, LONG, "1e999", "-1e999", "[" * 400 + "]" * 400, '{"a":' * 400 + "1" + "}" * 400]
)
@pytest.mark.parametrize(("parse", "reply"), PARSERS)
def test_a_hostile_entry_is_a_changed_format(parse: Callable[[bytes], Any], reply: str, value: str) -> None:
    with pytest.raises(SourceChanged):
        parse((reply % value).encode())


def test_a_dividend_without_a_nav_on_the_history_page_is_not_lost() -> None:
    event = '{"x":1536076800000,"y":null,"equityReturn":0,"unitMoney":"分红：每份派现金0.9079元"}'
    page = f'var fS_code = "508001";var Data_netWorthTrend = [{event}];var Data_ACWorthTrend = [];'
    assert parse_history_page(page.encode(), "508001") == [
        NavRow("508001", date(2018, 9, 5), dividend=0.9079)
    ]


def test_an_endless_count_is_a_changed_format() -> None:
    with pytest.raises(SourceChanged, match="allRecords"):
        parse_rank(f"var rankData = {{datas:[],allRecords:{LONG}}};".encode(), exchange_traded=False)


@pytest.mark.parametrize("nav", ["1" + "0" * 400, "1e400", "-1e400"])
def test_a_number_beyond_every_float_is_a_defect_of_its_row(nav: str) -> None:
    good = [
        f'{{"x":{1536076800000 + day * 86400000},"y":1.5,"equityReturn":0,"unitMoney":""}}'
        for day in range(200)
    ]
    bad = f'{{"x":1535990400000,"y":{nav},"equityReturn":0,"unitMoney":""}}'
    page = f'var fS_code = "000001";var Data_netWorthTrend = [{",".join([bad, *good])}];var Data_ACWorthTrend = [];'
    rows = parse_history_page(page.encode(), "000001")
    assert [(row.nav_date, row.unit_nav) for row in rows if row.defect] == [(date(2018, 9, 4), None)]
    assert "no finite number" in str(rows[0].defect)
    assert len(rows) == 201


@pytest.mark.parametrize(
    "text",
    [
        f"每份派现金{LONG}元",
        f"每{'0' * 5000}份派现金1元",
        f"每份基金份额折算{LONG}份",
        "每份基金份额折算" + "9" * 200 + "份，每份基金份额折算" + "9" * 200 + "份",
    ],
)
def test_an_event_beyond_every_float_is_no_event(text: str) -> None:
    with pytest.raises(FieldError, match="event"):
        parse_event_text(text)


def test_an_integer_of_any_size_is_no_crash() -> None:
    with pytest.raises(FieldError, match="a int that cannot be shown"):
        parse_number("y", 10**6000)
    with pytest.raises(FieldError, match="no finite number"):
        parse_number("y", 10**400)
