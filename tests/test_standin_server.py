"""The stand-in over real sockets: every endpoint against the upstream's documented bytes, and every fault."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pytest

from core.standin import Event, Fund, Market, StandinServer

SHANGHAI = ZoneInfo("Asia/Shanghai")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REFERER = {"Referer": "https://fund.eastmoney.com/"}
NAN = float("nan")
RANK = {"op": "ph", "dt": "kf", "ft": "all", "sc": "1nzf", "st": "desc", "pi": "1", "pn": "30000"}
JJJZ = {"t": "8", "page": "1,10000", "js": "reData", "sort": "fcode,asc"}
REFUSED = '{"Data":"","ErrCode":-999,"ErrMsg":"","TotalCount":0,"Expansion":null,"PageSize":0,"PageIndex":0}'


def at(text: str) -> datetime:
    """2025-12-04 20:00 in Shanghai."""
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


def day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def midnight_ms(text: str) -> int:
    """The upstream's x, by the time zone database rather than by arithmetic."""
    return int(at(text).timestamp() * 1000)


def hand_made() -> Market:
    """Three funds: an open-end one with a dividend, an ETF with a split, a money fund with a weekend."""
    table = [  # date, unit, accumulated, percent, published
        ("2025-12-01", 1.0, 1.5, NAN, "2025-12-01 18:00"),
        ("2025-12-02", 1.0123, 1.5123, 1.23, "2025-12-02 18:00"),
        ("2025-12-03", 0.9623, NAN, 0.0, "2025-12-03 18:00"),
        ("2025-12-04", 0.96234567, 1.51234567, NAN, "2025-12-05 09:00"),
        ("2025-12-05", 0.95, 1.5, -1.28, "2025-12-05 18:00"),
        ("2025-12-01", 2.0, 2.0, NAN, "2025-12-01 18:00"),
        ("2025-12-02", 1.01, 2.02, 1.0, "2025-12-02 18:00"),
        ("2025-12-05", 0.3352, 1.21, NAN, "2025-12-05 18:00"),
        ("2025-12-07", 0.6659, 1.312, NAN, "2025-12-07 18:00"),
    ]
    return Market(
        kind="SIMULATED",
        funds=[
            Fund("000001", "手工混合", "混合型-灵活", "SGHH", "SHOUGONGHUNHE", False, False),
            Fund("510300", "手工ETF", "指数型-股票", "SGETF", "SHOUGONGETF", True, False),
            Fund("000009", "手工货币", "货币型-普通货币", "SGHB", "SHOUGONGHUOBI", False, True),
        ],
        offsets=np.array([0, 5, 7, 9], dtype=np.int64),
        dates=np.array([day(row[0]) for row in table], dtype=np.int32),
        unit_nav=np.array([row[1] for row in table]),
        accum_nav=np.array([row[2] for row in table]),
        daily_return=np.array([row[3] for row in table], dtype=np.float32),
        visible_at=np.array([at(row[4]).timestamp() // 60 for row in table], dtype=np.int32),
        events={
            2: Event(0.05, None, "每份派现金0.0500元"),
            6: Event(None, 2.0, "每份基金份额分拆2.0份"),
        },
        span_starts={8: day("2025-12-06")},
    )


@pytest.fixture
def server() -> Iterator[StandinServer]:
    with StandinServer(hand_made(), at("2025-12-04 20:00")) as standin:
        yield standin


@pytest.fixture
def client(server: StandinServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=REFERER, timeout=5, trust_env=False) as http:
        yield http


def rank_rows(text: str) -> list[list[str]]:
    found = re.fullmatch(r"var rankData = \{datas:(\[.*\]),allRecords:(\d+),pageIndex:.*\};", text)
    assert found, text
    return [row.split(",") for row in json.loads(found[1])]


def jjjz_rows(text: str) -> list[list[str]]:
    body, _ = json.JSONDecoder().raw_decode(text, text.index("datas:") + len("datas:"))
    return body


def trend(text: str, name: str = "Data_netWorthTrend") -> list:
    body, _ = json.JSONDecoder().raw_decode(text, text.index(f"var {name} = ") + len(f"var {name} = "))
    return body


def test_rank_of_open_end_funds(client: httpx.Client) -> None:
    reply = client.get("/data/rankhandler.aspx", params=RANK)
    row = "000001,手工混合,SGHH,2025-12-03,0.9623,,0.00,,,,,,,,,1.23,2025-12-01,1,,1.50%,0.15%,1,0.15%,1,"
    assert row.count(",") == 24  # 25 fields
    assert reply.text.startswith(f'var rankData = {{datas:["{row}"],allRecords:1,pageIndex:1,pageNum:30000,')
    assert reply.text.endswith("hhNum:1,zqNum:0,zsNum:0,qdiiNum:0,fofNum:0};")
    assert reply.headers["Server"] == "NavKeeper-standin (SIMULATED market)"
    assert reply.http_version == "HTTP/1.1"


def test_rank_of_traded_funds_has_no_daily_return(client: httpx.Client) -> None:
    reply = client.get("/data/rankhandler.aspx", params=RANK | {"dt": "fb", "ft": "ct"})
    (row,) = rank_rows(reply.text)
    assert len(row) == 23
    assert row[:6] == ["510300", "手工ETF", "SGETF", "2025-12-02", "1.0100", "2.0200"]
    assert row[14:16] == ["1.00", "2025-12-01"]  # since inception, the split undone: 2 * 1.01 / 2.00
    assert row[21] == "指数型-股票"


def test_rank_filters_by_kind_and_pages(client: httpx.Client) -> None:
    bonds = client.get("/data/rankhandler.aspx", params=RANK | {"ft": "zq"}).text
    assert rank_rows(bonds) == []
    assert "allRecords:0" in bonds
    second = client.get("/data/rankhandler.aspx", params=RANK | {"pi": "2", "pn": "1"}).text
    assert rank_rows(second) == []
    assert "allRecords:1,pageIndex:2,pageNum:1,allPages:1" in second


def test_status_list_carries_all_funds_in_13_fields(server: StandinServer, client: httpx.Client) -> None:
    server.set_now(at("2025-12-07 20:00"))
    text = client.get("/Data/Fund_JJJZ_Data.aspx", params=JJJZ).text
    assert text.startswith('var reData={datas:[["000001",')
    assert text.endswith('],record:"3",pages:"1",curpage:"1",showday:["2025-12-07","2025-12-05"]}')
    fund, money, etf = jjjz_rows(text)
    limits = ["", "10.0", "100000000000", "1.0", "1", "0.15%"]
    assert fund == ["000001", "手工混合", "混合型-灵活", "0.9500", "12-05", "开放申购", "开放赎回", *limits]
    assert money[2:5] == ["货币型-普通货币", "0.6659", "12-07"]
    assert etf[5:7] == ["场内交易", "场内交易"]


def test_money_rank(server: StandinServer, client: httpx.Client) -> None:
    server.set_now(at("2025-12-05 20:00"))
    reply = client.get("/FundRank/GetHbRankList", params={"pageIndex": "1", "pageSize": "10000"}).json()
    assert (reply["ErrCode"], reply["TotalCount"], reply["PageSize"]) == (0, 1, 10000)
    (row,) = reply["Data"]
    assert {k: row[k] for k in ("FCODE", "SHORTNAME", "FSRQ", "DWJZ", "LJJZ")} == {
        "FCODE": "000009",
        "SHORTNAME": "手工货币",
        "FSRQ": "2025-12-05",
        "DWJZ": "0.3352",
        "LJJZ": "1.2100",
    }
    assert len(row) == 27


def test_lsjz_is_the_documented_reply(client: httpx.Client) -> None:
    query = {
        "fundCode": "000001",
        "pageIndex": "1",
        "pageSize": "20",
        "startDate": "",
        "endDate": "2025-12-03",
    }
    text = client.get("/f10/lsjz", params=query).text
    newest = (
        '{"FSRQ":"2025-12-03","DWJZ":"0.9623","LJJZ":"","SDATE":null,"ACTUALSYI":"","NAVTYPE":"1",'
        '"JZZZL":"0.00","SGZT":"开放申购","SHZT":"开放赎回","FHFCZ":"0.05","FHFCZ10":null,"FHFCBZ":"",'
        '"DTYPE":null,"FHSP":"每份派现金0.0500元"}'
    )
    assert text.startswith(f'{{"Data":{{"LSJZList":[{newest},')
    assert text.endswith(
        '"FundType":"002","SYType":null,"isNewType":false,"Feature":null},"ErrCode":0,"ErrMsg":null,'
        '"TotalCount":3,"Expansion":null,"PageSize":20,"PageIndex":1}'
    )
    oldest = json.loads(text)["Data"]["LSJZList"][-1]
    assert (oldest["FSRQ"], oldest["DWJZ"], oldest["JZZZL"]) == ("2025-12-01", "1.0000", "")


def test_lsjz_of_a_money_fund_sums_the_weekend(server: StandinServer, client: httpx.Client) -> None:
    server.set_now(at("2025-12-08 08:00"))
    data = client.get("/f10/lsjz", params={"fundCode": "000009"}).json()["Data"]
    assert (data["FundType"], data["SYType"]) == ("005", "每万份收益")
    sunday, friday = data["LSJZList"]
    assert (sunday["NAVTYPE"], sunday["SDATE"], sunday["FSRQ"]) == ("0", "2025-12-06", "2025-12-07")
    assert (sunday["DWJZ"], sunday["LJJZ"]) == ("0.6659", "1.3120")
    assert (friday["NAVTYPE"], friday["SDATE"]) == ("1", None)


def test_lsjz_jsonp_unknown_code_and_page_caps(client: httpx.Client) -> None:
    text = client.get("/f10/lsjz", params={"fundCode": "000001", "callback": "jQuery1_2"}).text
    assert text.startswith('jQuery1_2({"Data":')
    assert text.endswith("})")
    unknown = client.get("/f10/lsjz", params={"fundCode": "999999"}).json()
    assert (unknown["ErrCode"], unknown["TotalCount"], unknown["Data"]["LSJZList"]) == (0, 0, [])
    assert client.get("/f10/lsjz", params={"fundCode": "000001", "pageSize": "200"}).json()["PageSize"] == 20
    assert client.get("/f10/lsjz", params={"fundCode": "000001", "pageSize": "365"}).json()["Data"] is None


def test_fund_page_bytes(server: StandinServer, client: httpx.Client) -> None:
    server.set_now(at("2025-12-05 12:00"))
    reply = client.get("/pingzhongdata/000001.js", params={"v": "20251205120000"})
    assert reply.content.startswith(b"\xef\xbb\xbf/** * ")
    text = reply.content.decode("utf-8-sig")
    x = [midnight_ms(f"2025-12-0{n}") for n in (1, 2, 3, 4)]
    assert x[0] % 86_400_000 == 16 * 3_600_000  # midnight in Beijing is 16:00 UTC the day before
    assert (
        f'var Data_netWorthTrend = [{{"x":{x[0]},"y":1.0,"equityReturn":0,"unitMoney":""}},'
        f'{{"x":{x[1]},"y":1.0123,"equityReturn":1.23,"unitMoney":""}},'
        f'{{"x":{x[2]},"y":0.9623,"equityReturn":0.0,"unitMoney":"分红：每份派现金0.0500元"}},'
        f'{{"x":{x[3]},"y":0.96234567,"equityReturn":0,"unitMoney":""}}];' in text
    )
    pairs = f"[[{x[0]},1.5],[{x[1]},1.5123],[{x[2]},null],[{x[3]},1.51234567]]"
    assert f"var Data_ACWorthTrend = {pairs};" in text
    assert 'var ishb=false;/*基金或股票信息*/var fS_name = "手工混合";var fS_code = "000001";' in text
    split = client.get("/pingzhongdata/510300.js").text
    assert '"unitMoney":"拆分：每份基金份额分拆2.0份"' in split


def test_fund_page_of_a_money_fund(server: StandinServer, client: httpx.Client) -> None:
    server.set_now(at("2025-12-07 20:00"))
    text = client.get("/pingzhongdata/000009.js").text
    x = midnight_ms("2025-12-05"), midnight_ms("2025-12-07")
    assert f"var Data_millionCopiesIncome = [[{x[0]},0.3352],[{x[1]},0.6659]];" in text
    assert f"var Data_sevenDaysYearIncome = [[{x[0]},1.21],[{x[1]},1.312]];" in text
    assert "var ishb=true;" in text
    assert "Data_netWorthTrend" not in text


def test_fund_page_syntax_is_the_recorded_one(client: httpx.Client) -> None:
    recorded = DATA / "pingzhongdata" / "161725.js"
    if not recorded.exists():
        pytest.skip(f"no recorded page at {recorded}")
    theirs = recorded.read_text(encoding="utf-8")
    ours = client.get("/pingzhongdata/000001.js").content.decode()
    declaration = re.compile(r"(?:/\*[^*]+\*/)+var \w+ ?=")
    known = {re.sub(r" ?=$", "", found) for found in declaration.findall(theirs)}
    for found in declaration.findall(ours):
        assert re.sub(r" ?=$", "", found).split("*/var ")[-1] in {k.split("*/var ")[-1] for k in known}
    shape = re.compile(r'\{"x":\d+,"y":[\d.]+,"equityReturn":-?[\d.]+,"unitMoney":"[^"]*"\}')
    for text in (theirs, ours):
        start = text.index(
            "/*单位净值走势 equityReturn-净值回报 unitMoney-每份派送金*/var Data_netWorthTrend = [{"
        )
        assert shape.match(text, text.index("{", start))
        assert re.search(r"\];/\*累计净值走势\*/var Data_ACWorthTrend = \[\[\d+,[\d.]+\],\[", text)


def test_unknown_fund_is_an_html_404(client: httpx.Client) -> None:
    reply = client.get("/pingzhongdata/999999.js")
    assert reply.status_code == 404
    assert reply.headers["Content-Type"].startswith("text/html")


def test_fund_list(client: httpx.Client) -> None:
    reply = client.get("/js/fundcode_search.js")
    assert reply.content.startswith(b"\xef\xbb\xbfvar r = [[")
    text = reply.content.decode("utf-8-sig")
    # The money fund has published nothing yet on 4 December.
    assert text == (
        'var r = [["000001","SGHH","手工混合","混合型-灵活","SHOUGONGHUNHE"],'
        '["510300","SGETF","手工ETF","指数型-股票","SHOUGONGETF"]];'
    )


def test_dividends_and_splits(client: httpx.Client) -> None:
    path = "/Data/funddataIndex_Interface.aspx"
    dividends = client.get(path, params={"dt": "8", "page": "1", "year": "2025"}).text
    assert dividends == (
        'var pageinfo=[1,100,1]; var jjfh_data=[["000001","手工混合","2025-12-03","2025-12-03","0.05",'
        '"2025-12-05","1"]];var jjfh_jjgs=[];'
    )
    splits = client.get(path, params={"dt": "9", "page": "1", "year": ""}).text
    assert 'var jjcf_data=[["510300","手工ETF","2025-12-02","份额分拆","2.0",""]];' in splits
    assert "jjfh_data=[];" in client.get(path, params={"dt": "8", "year": "2024"}).text


def test_without_referer_upstream_refuses(server: StandinServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as stranger:
        rank = stranger.get("/data/rankhandler.aspx", params=RANK)
        assert (rank.status_code, rank.text) == (200, 'var rankData ={ErrCode:-999,Data:"无访问权限"}')
        assert stranger.get("/f10/lsjz", params={"fundCode": "000001"}).text == REFUSED
        assert stranger.get("/FundRank/GetHbRankList").text == REFUSED


@pytest.mark.parametrize(
    ("now", "dates"),
    [
        ("2025-12-03 17:59", ["2025-12-01", "2025-12-02"]),
        ("2025-12-03 18:00", ["2025-12-01", "2025-12-02", "2025-12-03"]),
        ("2025-12-05 08:59", ["2025-12-01", "2025-12-02", "2025-12-03"]),
        ("2025-12-05 09:00", ["2025-12-01", "2025-12-02", "2025-12-03", "2025-12-04"]),
    ],
)
def test_only_published_rows_show_anywhere(
    server: StandinServer, client: httpx.Client, now: str, dates: list[str]
) -> None:
    reply = client.post("/_standin/now", json={"now": at(now).isoformat()})
    assert reply.json()["now"] == at(now).isoformat()
    text = client.get("/pingzhongdata/000001.js").text
    assert [row["x"] for row in trend(text)] == [midnight_ms(d) for d in dates]
    listed = client.get("/f10/lsjz", params={"fundCode": "000001"}).json()
    assert [row["FSRQ"] for row in listed["Data"]["LSJZList"]] == dates[::-1]
    assert listed["TotalCount"] == len(dates)
    assert rank_rows(client.get("/data/rankhandler.aspx", params=RANK).text)[0][3] == dates[-1]
    assert jjjz_rows(client.get("/Data/Fund_JJJZ_Data.aspx", params=JJJZ).text)[0][4] == dates[-1][5:]
    dividends = client.get("/Data/funddataIndex_Interface.aspx", params={"dt": "8"}).text
    assert ("2025-12-03" in dividends) is ("2025-12-03" in dates)


def test_before_anything_was_published(server: StandinServer, client: httpx.Client) -> None:
    server.set_now(at("2025-11-30 20:00"))
    assert rank_rows(client.get("/data/rankhandler.aspx", params=RANK).text) == []
    assert client.get("/pingzhongdata/000001.js").status_code == 404
    assert client.get("/js/fundcode_search.js").text == "\ufeffvar r = [];"


def test_default_now_is_the_end_of_the_data() -> None:
    with StandinServer(hand_made()) as standin:
        assert standin.view.now == at("2025-12-07 18:00")


def test_late_publication(server: StandinServer, client: httpx.Client) -> None:
    server.add_fault("late", fund_codes=["000001"], hours=26.5)
    rows = rank_rows(client.get("/data/rankhandler.aspx", params=RANK).text)
    assert rows[0][3] == "2025-12-02"  # the row of the 3rd comes on the 4th at 20:30
    server.set_now(at("2025-12-04 20:30"))
    assert rank_rows(client.get("/data/rankhandler.aspx", params=RANK).text)[0][3] == "2025-12-03"
    client.delete("/_standin/faults")
    assert client.get("/_standin/state").json()["late"] == {}


def test_revised_nav(server: StandinServer, client: httpx.Client) -> None:
    change = {"kind": "revised", "fund_code": "000001", "date": "2025-12-03", "unit_nav": 0.9731}
    assert client.post("/_standin/faults", json=change).status_code == 200
    assert rank_rows(client.get("/data/rankhandler.aspx", params=RANK).text)[0][4] == "0.9731"
    assert trend(client.get("/pingzhongdata/000001.js").text)[-1]["y"] == 0.9731
    rows = client.get("/f10/lsjz", params={"fundCode": "000001"}).json()["Data"]["LSJZList"]
    assert [row["DWJZ"] for row in rows] == ["0.9731", "1.0123", "1.0000"]
    server.clear_faults()
    assert rank_rows(client.get("/data/rankhandler.aspx", params=RANK).text)[0][4] == "0.9623"


def test_a_fault_hits_its_path_and_wears_off(server: StandinServer, client: httpx.Client) -> None:
    server.add_fault("http_500", path="rankhandler", times=2)
    assert client.get("/js/fundcode_search.js").status_code == 200
    codes = [client.get("/data/rankhandler.aspx", params=RANK).status_code for _ in range(3)]
    assert codes == [500, 500, 200]
    assert server.requests == {"/js/fundcode_search.js": 1, "/data/rankhandler.aspx": 3}


def test_a_fault_for_ever_until_deleted(server: StandinServer, client: httpx.Client) -> None:
    client.post("/_standin/faults", json={"kind": "refused", "path": "lsjz", "times": None})
    for _ in range(3):
        assert client.get("/f10/lsjz", params={"fundCode": "000001"}).text == REFUSED
    client.delete("/_standin/faults")
    assert client.get("/f10/lsjz", params={"fundCode": "000001"}).json()["ErrCode"] == 0


def test_reset_is_a_reset(server: StandinServer) -> None:
    server.add_fault("reset")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(b"GET /f10/lsjz HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            line.recv(1)


def test_stall_answers_nothing_until_released(server: StandinServer, client: httpx.Client) -> None:
    server.add_fault("stall", times=2)
    with pytest.raises(httpx.ReadTimeout):
        client.get("/f10/lsjz", params={"fundCode": "000001"}, timeout=0.2)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            httpx.get(f"{server.url}/f10/lsjz", timeout=10, trust_env=False)
        except httpx.HTTPError as error:
            ended.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    while server.faults.describe():  # until the request has arrived
        waiting.join(0.01)
    server.clear_faults()
    waiting.join(5)
    assert [type(error) for error in ended] == [httpx.RemoteProtocolError]


def test_truncated_body(server: StandinServer, client: httpx.Client) -> None:
    server.add_fault("truncated")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        client.get("/data/rankhandler.aspx", params=RANK)


def test_truncated_page_keeps_the_total(server: StandinServer, client: httpx.Client) -> None:
    server.add_fault("truncated_page", times=2)
    text = client.get("/data/rankhandler.aspx", params=RANK).text
    assert rank_rows(text) == []
    assert "allRecords:1," in text
    listed = client.get("/f10/lsjz", params={"fundCode": "000001"}).json()
    assert (listed["TotalCount"], len(listed["Data"]["LSJZList"])) == (3, 2)


def test_extra_and_missing_columns(server: StandinServer, client: httpx.Client) -> None:
    server.add_fault("extra_column", path="rankhandler")
    server.add_fault("missing_column", path="rankhandler")
    server.add_fault("extra_column", path="rankhandler", at=3)
    assert [len(rank_rows(client.get("/data/rankhandler.aspx", params=RANK).text)[0]) for _ in "abc"] == [
        26,
        24,
        26,
    ]
    server.add_fault("missing_column", path="lsjz")
    (row, *_) = client.get("/f10/lsjz", params={"fundCode": "000001"}).json()["Data"]["LSJZList"]
    assert "DWJZ" not in row
    assert len(row) == 13
    server.add_fault("missing_column", path="pingzhongdata", field="x")
    assert set(trend(client.get("/pingzhongdata/000001.js").text)[0]) == {"y", "equityReturn", "unitMoney"}
    server.add_fault("extra_column", path="JJJZ")
    assert len(jjjz_rows(client.get("/Data/Fund_JJJZ_Data.aspx", params=JJJZ).text)[0]) == 14


def test_html_gb2312_bom_and_empty_frame(server: StandinServer, client: httpx.Client) -> None:
    for kind in ("html_error", "gb2312", "bom", "empty_frame"):
        server.add_fault(kind)
    html, chinese, marked, empty = (client.get("/data/rankhandler.aspx", params=RANK) for _ in range(4))
    assert (html.status_code, html.text[:15]) == (200, "<!DOCTYPE html>")
    assert "手工混合" in chinese.content.decode("gb2312")
    with pytest.raises(UnicodeDecodeError):
        chinese.content.decode("utf-8")
    assert marked.content.startswith(b"\xef\xbb\xbfvar rankData")
    assert rank_rows(empty.text) == []
    assert "allRecords:0" in empty.text


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"kind": "nonsense"}, "nonsense"),
        ({"kind": "late", "fund_codes": ["999999"], "hours": 1}, "fund_codes"),
        ({"kind": "revised", "fund_code": "000001", "date": "2025-12-06", "unit_nav": 1.0}, "2025-12-06"),
        ({"kind": "reset", "times": 0}, "times"),
    ],
)
def test_wrong_control_requests_say_what_is_wrong(
    client: httpx.Client, body: dict[str, object], complaint: str
) -> None:
    reply = client.post("/_standin/faults", json=body)
    assert reply.status_code == 400
    assert complaint in reply.json()["error"]


def test_now_needs_a_time_zone(client: httpx.Client) -> None:
    reply = client.post("/_standin/now", json={"now": "2025-12-01T20:00"})
    assert reply.status_code == 400
    assert "time zone" in reply.json()["error"]


def test_state_names_the_market(client: httpx.Client) -> None:
    client.get("/js/fundcode_search.js")
    state = client.get("/_standin/state").json()
    assert (state["market"], state["funds"], state["rows"]) == ("SIMULATED", 3, 9)
    assert (state["first_date"], state["last_date"]) == ("2025-12-01", "2025-12-07")
    assert state["requests"] == {"/js/fundcode_search.js": 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_prints_its_address_and_stops_on_a_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "core.standin", "--funds", "60", "--seed", "3"]
    command += ["--start", "2025-09-01", "--end", "2025-12-05", "--now", "2025-12-01T20:00+08:00"]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert (ready["market"], ready["funds"]) == ("SIMULATED", 60)
            reply = httpx.get(
                f"{ready['url']}/data/rankhandler.aspx", params=RANK, headers=REFERER, trust_env=False
            )
            rows = rank_rows(reply.text)
            assert max(row[3] for row in rows) == "2025-12-01"
            assert all(row[1].startswith("模拟") for row in rows)
        finally:
            process.send_signal(number)
            assert process.wait(10) == 0
