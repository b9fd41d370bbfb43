"""Eastmoney's formats, against recorded pages and replies written down by hand."""

from __future__ import annotations

import json
import re
import time
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from core.errors import SourceChanged, SourceUnavailable
from core.sources.base import FundInfo, NavRow
from core.sources.eastmoney_formats import (
    parse_fund_list,
    parse_history_page,
    parse_lsjz,
    parse_money_rank,
    parse_rank,
)
from core.sources.event_text import parse_event_text
from core.sources.text_values import FieldError, parse_date, parse_number

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
recorded = pytest.mark.skipif(not DATA.is_dir(), reason="no recorded fund data beside the checkout")

OPEN_ROW = (
    "000001,华夏成长混合,HXCZHH,2026-03-27,1.2340,3.5670,0.56,1.1,2.2,3.3,4.4,5.5,6.6,7.7,8.8,9.9,"
    "2001-12-18,1,9.9,1.50%,0.15%,1,0.15%,1,"
)
TRADED_ROW = (
    "510300,沪深300ETF,HSSBETF,2026-03-27,4.7010,1.9010,1.1,2.2,3.3,4.4,5.5,6.6,7.7,8.8,9.9,2012-05-04,,,,,,,"
)
HTML = "<!DOCTYPE html><html><body>网站维护</body></html>".encode()


def rank_reply(rows: list[str], total: int | None = None) -> bytes:
    total = len(rows) if total is None else total
    datas = json.dumps(rows, ensure_ascii=False)
    return (
        f"var rankData = {{datas:{datas},allRecords:{total},pageIndex:1,pageNum:30000,allPages:1}};".encode()
    )


def lsjz_row(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "FSRQ": "2026-01-30", "DWJZ": "3.3480", "LJJZ": "3.4480", "SDATE": None, "ACTUALSYI": "",
        "NAVTYPE": "1", "JZZZL": "-2.11", "SGZT": "开放申购", "SHZT": "开放赎回", "FHFCZ": "",
        "FHFCZ10": None, "FHFCBZ": "", "DTYPE": None, "FHSP": "",
    }  # fmt: skip
    return row | changes


def lsjz_reply(rows: list[dict[str, object]], money: str | None = None, total: int | None = None) -> bytes:
    data = {"LSJZList": rows, "FundType": "001", "SYType": money, "isNewType": False, "Feature": None}
    reply = {"Data": data, "ErrCode": 0, "ErrMsg": None, "TotalCount": len(rows) if total is None else total}
    return json.dumps(
        reply | {"Expansion": None, "PageSize": 20, "PageIndex": 1}, ensure_ascii=False
    ).encode()


def history_page(code: str, navs: str, accums: str) -> bytes:
    return (
        f'var ishb=false;var fS_name = "某基金";var fS_code = "{code}";'
        f"var Data_netWorthTrend = {navs};var Data_ACWorthTrend = {accums};"
    ).encode()


# --- recorded pages -----------------------------------------------------------------------------------


def series_of(text: str, name: str) -> list[object]:
    """The series of a recorded page, cut out by another way than the parser's."""
    after = text.split(f"var {name} = ", 1)[1]
    return json.loads(after.split(";", 1)[0])


def beijing(ms: int) -> date:
    return datetime.fromtimestamp(ms / 1000, ZoneInfo("Asia/Shanghai")).date()


@recorded
@pytest.mark.parametrize(
    ("code", "count", "unpublished", "first", "last"),
    [
        ("161725", 2616, 5, (date(2015, 5, 27), 1.0, 1.0), (date(2026, 2, 26), 0.6867, 2.4028)),
        ("000004", 1793, 1, (date(2013, 3, 20), 1.0, 1.0), (date(2020, 8, 24), 0.952, 1.162)),
    ],
)
def test_recorded_page_parses_completely(
    code: str,
    count: int,
    unpublished: int,
    first: tuple[date, float, float],
    last: tuple[date, float, float],
) -> None:
    body = (DATA / "pingzhongdata" / f"{code}.js").read_bytes()
    rows = parse_history_page(body, code)
    assert len(rows) == count
    assert (rows[0].nav_date, rows[0].unit_nav, rows[0].accum_nav) == first
    assert (rows[-1].nav_date, rows[-1].unit_nav, rows[-1].accum_nav) == last
    assert all(row.fund_code == code and row.defect is None for row in rows)
    text = body.decode("utf-8-sig")
    navs = series_of(text, "Data_netWorthTrend")
    accums = {beijing(x): y for x, y in series_of(text, "Data_ACWorthTrend")}  # type: ignore[misc]
    expected = [(beijing(p["x"]), p["y"], accums[beijing(p["x"])]) for p in navs]  # type: ignore[index,call-overload]
    assert [(r.nav_date, r.unit_nav, r.accum_nav) for r in rows] == expected
    returns = [(r.daily_return, p["equityReturn"]) for r, p in zip(rows, navs, strict=True)]  # type: ignore[index,call-overload]
    assert {theirs for ours, theirs in returns if ours != theirs} == {0}
    assert sum(ours is None for ours, _ in returns) == unpublished


@recorded
def test_recorded_dividends_and_splits() -> None:
    rows = parse_history_page((DATA / "pingzhongdata" / "161725.js").read_bytes(), "161725")
    assert {r.nav_date: r.dividend for r in rows if r.dividend is not None} == {
        date(2021, 9, 7): 0.012,
        date(2021, 12, 9): 0.028,
        date(2021, 12, 31): 0.045,
    }
    assert {r.nav_date: r.split_ratio for r in rows if r.split_ratio is not None} == {
        date(2015, 12, 15): 1.018012713,
        date(2016, 12, 15): 1.023002965,
        date(2017, 9, 26): 1.494202845,
        date(2017, 12, 15): 1.004453908,
        date(2018, 12, 17): 1.025470475,
        date(2019, 7, 2): 1.55686213,
        date(2019, 12, 16): 1.010668946,
        date(2020, 8, 26): 1.498173314,
        date(2020, 12, 15): 1.005444122,
    }
    other = parse_history_page((DATA / "pingzhongdata" / "000004.js").read_bytes(), "000004")
    assert [r.dividend for r in other if r.dividend is not None] == [0.21]
    assert not [r for r in other if r.split_ratio is not None]


@recorded
def test_recorded_history_shaped_into_lsjz_equals_another_recording() -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    days = json.loads((DATA / "nav_json" / "009052.json").read_text("utf-8"))
    reply = [
        lsjz_row(
            FSRQ=datetime.strptime(str(day["date"]), "%Y%m%d").date().isoformat(),  # noqa: DTZ007
            DWJZ=day["nav"], LJJZ=day["cnav"], JZZZL=day["rate_change"], FHSP=day["dividend_distribution"],
        )
        for day in days
    ]  # fmt: skip
    page = parse_lsjz(lsjz_reply(reply), "009052")
    assert (page.received, page.total, len(page.rows)) == (1230, 1230, 1230)
    table = pq.read_table(DATA / "nav_history.parquet", filters=[("fund_code", "=", "009052")])
    other = {r["nav_date"]: r for r in table.to_pylist()}
    both = [(row, other[str(row.nav_date)]) for row in page.rows if str(row.nav_date) in other]
    assert len(both) > 1200
    for row, theirs in both:
        assert (row.unit_nav, row.accum_nav) == (float(theirs["unit_nav"]), float(theirs["accum_nav"]))
    assert {str(r.nav_date): r.dividend for r in page.rows if r.dividend} == {
        "2024-10-17": 0.057,
        "2023-10-17": 0.056,
        "2022-10-18": 0.04,
        "2021-10-19": 0.047,
    }


@recorded
def test_recorded_money_fund_has_yields_and_no_nav() -> None:
    days = json.loads((DATA / "nav_json" / "015557.json").read_text("utf-8"))
    reply = []
    for day in days:
        written = re.sub(r"(....)(..)(..)", r"\1-\2-\3", str(day["date"]))
        reply.append(lsjz_row(FSRQ=written, DWJZ=day["nav"], LJJZ=day["cnav"]))
    rows = parse_lsjz(lsjz_reply(reply, money="每万份收益"), "015557").rows
    assert len(rows) == 972
    assert rows[1] == NavRow("015557", date(2025, 8, 17), income_per_10k=0.6659, yield_7d=1.312)


@recorded
def test_recorded_fund_list() -> None:
    body = (DATA / "fundcode_search.js").read_bytes()
    funds = parse_fund_list(body)
    assert len(funds) == body.count(b'["')
    assert funds[0] == FundInfo("000001", "华夏成长混合", "混合型", "HXCZHH")
    assert funds[-1] == FundInfo("980003", "太平洋六个月滚动持有债", "债券型", "TPYLGYGDCYZ")
    assert parse_fund_list(body.removeprefix(b"\xef\xbb\xbf")) == funds


# --- whole market -------------------------------------------------------------------------------------


def test_open_end_rank_row() -> None:
    page = parse_rank(rank_reply([OPEN_ROW, OPEN_ROW + "new,fields"], 20357), exchange_traded=False)
    assert page.rows[0] == NavRow("000001", date(2026, 3, 27), 1.234, 3.567, 0.56)
    assert page.rows[1] == page.rows[0]
    assert (page.received, page.total) == (2, 20357)


def test_exchange_traded_rank_has_no_day_change() -> None:
    page = parse_rank(rank_reply([TRADED_ROW]), exchange_traded=True)
    assert page.rows == [NavRow("510300", date(2026, 3, 27), 4.701, 1.901)]
    with_day = parse_rank(rank_reply([OPEN_ROW]), exchange_traded=True)
    assert with_day.rows[0].daily_return == 0.56


@pytest.mark.parametrize("published", ["", "---", "--"])
def test_rank_values_not_published_are_none(published: str) -> None:
    row = OPEN_ROW.replace("3.5670", published).replace("0.56", published)
    assert parse_rank(rank_reply([row]), exchange_traded=False).rows == [
        NavRow("000001", date(2026, 3, 27), 1.234, None, None)
    ]
    new_fund = OPEN_ROW.replace("2026-03-27,1.2340,3.5670", ",,")
    page = parse_rank(rank_reply([new_fund, OPEN_ROW]), exchange_traded=False)
    assert (len(page.rows), page.received) == (1, 2)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (OPEN_ROW.replace("HXCZHH,", ""), "at least 25"),
        (OPEN_ROW.replace("HXCZHH", "HXCZHH,new"), "'date'"),
        (OPEN_ROW.replace("HXCZHH,2026-03-27", "2026-03-27,HXCZHH"), "'date'"),
        (OPEN_ROW.replace("1.2340", "1.2340,9.9"), "inception date"),
        (OPEN_ROW.replace("1.2340", "n/a"), "unit NAV"),
        ("混合型," + OPEN_ROW, "'code'"),
    ],
)
def test_moved_or_missing_rank_field_is_a_changed_format(row: str, field: str) -> None:
    with pytest.raises(SourceChanged, match=field):
        parse_rank(rank_reply([row] * 100), exchange_traded=False)


def test_one_broken_row_among_many_is_kept_with_its_defect() -> None:
    broken = OPEN_ROW.replace("1.2340", "1.2.3")
    page = parse_rank(rank_reply([OPEN_ROW] * 199 + [broken]), exchange_traded=False)
    row = page.rows[-1]
    assert (row.fund_code, row.unit_nav, row.raw) == ("000001", None, broken)
    assert row.defect == "unit NAV '1.2.3' is no number"
    parse_rank(rank_reply([OPEN_ROW] * 198 + [broken] * 2), exchange_traded=False)  # 1 %
    with pytest.raises(SourceChanged, match="3 of 200"):
        parse_rank(rank_reply([OPEN_ROW] * 197 + [broken] * 3), exchange_traded=False)


def test_whole_market_parses_in_time() -> None:
    rows = [OPEN_ROW.replace("000001", f"{n:06d}", 1) for n in range(20_357)]
    body = rank_reply(rows)
    started = time.process_time()
    page = parse_rank(body, exchange_traded=False)
    assert len(page.rows) == 20_357
    assert time.process_time() - started < 5.0  # 0.2 s measured; JavaScript-object parsers need 40


def money_reply(rows: list[dict[str, str]]) -> bytes:
    return json.dumps({"Data": rows, "ErrCode": 0, "ErrMsg": None, "TotalCount": len(rows)}).encode()


def test_money_rank() -> None:
    row = {"FCODE": "000009", "SHORTNAME": "易方达天天理财货币A", "FSRQ": "2026-03-27", "DWJZ": "0.3012",
           "LJJZ": "1.1230", "FTYI": "1.1", "TEYI": "1.2"}  # fmt: skip
    page = parse_money_rank(money_reply([row, row | {"DWJZ": "", "LJJZ": ""}]))
    assert page.rows == [NavRow("000009", date(2026, 3, 27), income_per_10k=0.3012, yield_7d=1.123)]
    assert (page.received, page.total) == (2, 2)
    renamed = {"CODE" if key == "FCODE" else key: value for key, value in row.items()}
    with pytest.raises(SourceChanged, match="FCODE"):
        parse_money_rank(money_reply([renamed]))


# --- one fund -----------------------------------------------------------------------------------------


def test_lsjz_row_with_new_field_and_events() -> None:
    rows = [
        lsjz_row(NEWFIELD="1", FHSP="每份派现金0.0073元"),
        lsjz_row(FHSP="每份基金份额分拆2.0份", JZZZL=""),
    ]
    assert parse_lsjz(lsjz_reply(rows), "000216").rows == [
        NavRow("000216", date(2026, 1, 30), 3.348, 3.448, -2.11, dividend=0.0073),
        NavRow("000216", date(2026, 1, 30), 3.348, 3.448, None, split_ratio=2.0),
    ]


def test_lsjz_without_the_money_mark_is_changed() -> None:
    reply = json.loads(lsjz_reply([lsjz_row()]))
    del reply["Data"]["SYType"]
    with pytest.raises(SourceChanged, match="SYType"):
        parse_lsjz(json.dumps(reply).encode(), "000216")


@pytest.mark.parametrize("field", ["FSRQ", "DWJZ", "LJJZ", "JZZZL", "FHSP"])
def test_lsjz_missing_field_is_named(field: str) -> None:
    row = lsjz_row()
    del row[field]
    with pytest.raises(SourceChanged, match=field):
        parse_lsjz(lsjz_reply([row] * 20), "000216")


def test_lsjz_unknown_event_is_a_defect_not_silence() -> None:
    page = parse_lsjz(lsjz_reply([lsjz_row()] * 19 + [lsjz_row(FHSP="每份送股票1张")]), "000216")
    assert page.rows[-1].defect is not None
    assert "每份送股票1张" in page.rows[-1].defect
    assert page.rows[-1].nav_date == date(2026, 1, 30)


# 1536076800000 is 2018-09-05 in Beijing and 2018-09-04 16:00 in UTC.
NAVS = (
    '[{"x":1536076800000,"y":1.0,"equityReturn":0,"unitMoney":""},'
    '{"x":1536163200000,"y":1.1,"equityReturn":10.0,"unitMoney":"拆分：每份基金份额折算1.5份"},'
    '{"x":1536249600000,"y":null,"equityReturn":0,"unitMoney":""},'
    '{"x":1536508800000,"y":1.2,"equityReturn":9.09,"unitMoney":"分红：每份派现金0.02元"}]'
)


def test_history_joins_accumulated_nav_on_date() -> None:
    rows = parse_history_page(
        history_page("000001", NAVS, "[[1536508800000,1.22],[1536076800000,null]]"), "000001"
    )
    assert rows == [
        NavRow("000001", date(2018, 9, 5), 1.0),
        NavRow("000001", date(2018, 9, 6), 1.1, None, 10.0, split_ratio=1.5),
        NavRow("000001", date(2018, 9, 10), 1.2, 1.22, 9.09, dividend=0.02),
    ]


def test_a_zero_return_beside_a_moved_nav_was_not_published() -> None:
    rows = parse_history_page(
        history_page(
            "000001",
            '[{"x":1536076800000,"y":1.0,"equityReturn":0,"unitMoney":""},'
            '{"x":1536163200000,"y":1.1,"equityReturn":0,"unitMoney":""},'
            '{"x":1536249600000,"y":1.1,"equityReturn":0,"unitMoney":""},'
            '{"x":1536336000000,"y":1.0,"equityReturn":0,"unitMoney":"分红：每份派现金0.1元"}]',
            "[]",
        ),
        "000001",
    )
    assert [row.daily_return for row in rows] == [None, None, 0.0, 0.0]


def test_money_history() -> None:
    body = (
        'var ishb=true;var fS_name = "某货币";var fS_code = "000009";'
        "var Data_millionCopiesIncome=[[1536076800000,0.81],[1536163200000,0.82]];"
        "var Data_sevenDaysYearIncome=[[1536163200000,3.02]];"
    ).encode()
    assert parse_history_page(body, "000009") == [
        NavRow("000009", date(2018, 9, 5), income_per_10k=0.81),
        NavRow("000009", date(2018, 9, 6), income_per_10k=0.82, yield_7d=3.02),
    ]


def test_another_funds_page_is_refused() -> None:
    with pytest.raises(SourceChanged, match=r"000001.*fS_code is '000002'"):
        parse_history_page(history_page("000002", NAVS, "[]"), "000001")


def test_time_in_seconds_is_a_changed_format() -> None:
    navs = NAVS.replace("000,", ",")
    with pytest.raises(SourceChanged, match="'x'"):
        parse_history_page(history_page("000001", navs, "[]"), "000001")


def outcome(body: bytes) -> object:
    try:
        return parse_history_page(body, "000001")
    except (SourceUnavailable, SourceChanged) as exc:
        return type(exc)


def test_every_cut_of_a_page_is_an_error_or_the_whole() -> None:
    body = history_page("000001", NAVS, "[[1536076800000,1.0],[1536508800000,1.22]]")
    whole = parse_history_page(body, "000001")
    outcomes = {end: outcome(body[:end]) for end in range(len(body))}
    assert [end for end, found in outcomes.items() if found == whole] == [len(body) - 1]  # the last ";"
    # A cut exactly behind a statement or a bracket looks like a page that lacks the next one.
    changed = [end for end, found in outcomes.items() if found is SourceChanged]
    assert all(body[:end].endswith((b";", b"]")) for end in changed)
    assert len(changed) <= 5
    assert sum(found is SourceUnavailable for found in outcomes.values()) == len(body) - 1 - len(changed)


def test_every_cut_of_a_json_reply_is_unavailable() -> None:
    body = lsjz_reply([lsjz_row(), lsjz_row(FHSP="每份派现金0.0073元")])
    for end in range(len(body)):
        with pytest.raises(SourceUnavailable):
            parse_lsjz(body[:end], "000216")


# --- replies that are none ----------------------------------------------------------------------------

PARSERS = [
    parse_fund_list,
    lambda body: parse_rank(body, exchange_traded=False),
    parse_money_rank,
    lambda body: parse_lsjz(body, "000001"),
    lambda body: parse_history_page(body, "000001"),
]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("body", [b"", b"\xef\xbb\xbf \r\n", HTML, "<html>乱".encode("gb2312")])
def test_empty_and_html_replies_are_unavailable(parse, body: bytes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SourceUnavailable, match=r"empty|HTML"):
        parse(body)


def test_refusals_name_the_code() -> None:
    with pytest.raises(SourceUnavailable, match="-999"):
        parse_rank('var rankData ={ErrCode:-999,Data:"无访问权限"}'.encode(), exchange_traded=False)
    with pytest.raises(SourceUnavailable, match="-999"):
        parse_lsjz(b'{"Data":"","ErrCode":-999,"ErrMsg":"","TotalCount":0}', "000001")


def test_complete_replies_without_the_known_fields_are_changed() -> None:
    with pytest.raises(SourceChanged, match="datas"):
        parse_rank(b"var rankData = {list:[],allRecords:0};", exchange_traded=False)
    with pytest.raises(SourceChanged, match="allRecords"):
        parse_rank(b"var rankData = {datas:[],pageIndex:1};", exchange_traded=False)
    with pytest.raises(SourceChanged, match="LSJZList"):
        parse_lsjz(b'{"Data":null,"ErrCode":0,"TotalCount":0}', "000001")
    with pytest.raises(SourceChanged, match="Data_netWorthTrend"):
        parse_history_page(b'var fS_code = "000001";var Data_grandTotal = [];', "000001")


def test_nothing_published_yet_is_an_empty_page() -> None:
    page = parse_rank(rank_reply([]), exchange_traded=False)
    assert (page.rows, page.total) == ([], 0)
    assert parse_history_page(history_page("000001", "[]", "[]"), "000001") == []


def test_empty_fund_list_is_unavailable() -> None:
    with pytest.raises(SourceUnavailable, match="empty"):
        parse_fund_list(b"var r = [];")


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "dividend", "ratio"),
    [
        ("每份派现金0.0073元", 0.0073, None),
        ("分红：每份派现金0.045元", 0.045, None),
        ("每10份派现金1.2元", 0.12, None),
        ("每份基金份额折算1.0568份", None, 1.0568),
        ("拆分：每份基金份额折算1.498173314份", None, 1.498173314),
        ("每份基金份额分拆2.0份", None, 2.0),
        ("每份基金6份", None, 6.0),
        ("每份派现金0.1元，每份基金份额分拆2份", 0.1, 2.0),
        ("分红：每份派现金0.25元;分红：每份派现金0.5元", 0.75, None),
        ("", None, None),
        ("--", None, None),
        (None, None, None),
    ],
)
def test_event_texts(text: str | None, dividend: float | None, ratio: float | None) -> None:
    assert parse_event_text(text) == (dividend, ratio)


@pytest.mark.parametrize(
    "text", ["每份派现金元", "每份基金份额折算0份", "每份派现金0.1元及权证1份", "分红：", "0.5"]
)
def test_event_text_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(FieldError, match="event"):
        parse_event_text(text)


@recorded
def test_every_recorded_event_text_is_understood() -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    texts = pq.read_table(DATA / "nav_history.parquet", columns=["dividend_text"])[
        "dividend_text"
    ].to_pylist()
    events = [parse_event_text(text) for text in texts if text]
    assert len(events) == 1569 + 266 + 80 + 1
    assert sum(dividend is not None for dividend, _ in events) == 1569


@pytest.mark.parametrize("text", ["1_000", "inf", "１.2", "1,234.5", "1.2.3", "0x1", True, [1]])
def test_odd_numbers_are_refused(text: object) -> None:
    with pytest.raises(FieldError, match="nav"):
        parse_number("nav", text)


@pytest.mark.parametrize(
    ("text", "value"), [("2025-12-01", 1), ("20251201", 1), ("2025/12/1", 1), (" 2025.12.31 ", 31)]
)
def test_dates(text: str, value: int) -> None:
    assert parse_date("day", text) == date(2025, 12, value)


@pytest.mark.parametrize("text", ["2025-02-30", "2025121", "01-12-2025", "2025-12/01", "12-01", "2025-W01-1"])
def test_odd_dates_are_refused(text: str) -> None:
    with pytest.raises(FieldError, match="day"):
        parse_date("day", text)


def test_a_dividend_without_a_nav_is_not_lost() -> None:
    # as recorded of REIT 508001 on 2024-06-27
    row = lsjz_row(DWJZ="", LJJZ="", JZZZL="", FHSP="每份派现金0.9079元")
    [found] = parse_lsjz(lsjz_reply([row]), "508001").rows
    assert found == NavRow("508001", date(2026, 1, 30), dividend=0.9079)
