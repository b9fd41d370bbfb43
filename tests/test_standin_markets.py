"""Simulated markets hold what they promise; recorded ones are served value for value."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from core.standin import Market, StandinServer, recorded_market, simulated_market
from core.standin.fund_types import FUND_TYPES
from core.standin.market import View
from core.standin.recorded import parse_event

SHANGHAI = ZoneInfo("Asia/Shanghai")
EPOCH = date(1970, 1, 1)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NAVS = DATA / "nav_history.parquet"
HOLIDAYS = {date(2025, 10, n) for n in range(1, 9)}  # National Day 2025: 1 to 8 October
START, END = date(2024, 1, 1), date(2025, 12, 5)
SESSIONS = [
    day
    for day in (START + timedelta(days=n) for n in range(720))
    if day.weekday() < 5 and day not in HOLIDAYS
]


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(400, START, END, 7, SESSIONS)


def test_the_seed_decides(market: Market) -> None:
    again = simulated_market(400, START, END, 7, SESSIONS)
    other = simulated_market(400, START, END, 8, SESSIONS)
    for name in ("dates", "unit_nav", "accum_nav", "daily_return", "visible_at", "offsets"):
        assert np.array_equal(getattr(market, name), getattr(again, name), equal_nan=name == "daily_return")
    assert (market.events, market.funds, market.span_starts) == (again.events, again.funds, again.span_starts)
    assert not np.array_equal(market.unit_nav[:100], other.unit_nav[:100])


def test_all_types_with_the_common_ones_common(market: Market) -> None:
    counts = Counter(fund.fund_type for fund in market.funds)
    assert set(counts) == {kind.name for kind in FUND_TYPES}
    assert sum(counts.values()) == 400
    assert len({fund.code for fund in market.funds}) == 400
    assert 60 < counts["混合型-偏股"] < 90  # 5,572 of 27,003 real ones: 20.6 %
    assert all(fund.name.startswith("模拟") for fund in market.funds)
    assert {fund.fund_type for fund in market.funds if fund.exchange} >= {"Reits", "指数型-股票"}


def test_published_returns_follow_from_the_published_navs(market: Market) -> None:
    """By Decimal, from the four-decimal NAVs and the words of the event: independent of the simulator."""
    checked = 0
    for number, fund in enumerate(market.funds):
        if fund.money:
            continue
        low, high = int(market.offsets[number]), int(market.offsets[number + 1])
        for row in range(low + 1, high):
            if np.isnan(market.daily_return[row]):
                continue
            now, before = (Decimal(f"{market.unit_nav[r]:.4f}") for r in (row, row - 1))
            if event := market.events.get(row):
                number_text = re.search(r"([\d.]+)[份元]", event.text)
                assert number_text
                amount = Decimal(number_text[1])
                now = now * amount if "份额" in event.text else now + amount
            percent = ((now / before - 1) * 100).quantize(Decimal("0.01"), ROUND_HALF_UP)
            assert f"{market.daily_return[row]:.2f}" == f"{percent + 0:.2f}", (fund.code, row)
            checked += 1
    assert checked > 100_000


def test_dividends_and_splits_leave_no_false_losses(market: Market) -> None:
    kinds = Counter("dividend" if event.dividend else "split" for event in market.events.values())
    assert kinds["dividend"] > 100
    assert kinds["split"] >= 1
    for row, event in market.events.items():
        assert abs(market.daily_return[row]) < 15
        if event.dividend is not None:  # cash goes from the unit NAV into the accumulated one
            fund = int(np.searchsorted(market.offsets, row, side="right")) - 1
            low = int(market.offsets[fund])
            shares = np.prod([e.split_ratio or 1 for r, e in market.events.items() if low <= r < row])
            moved = market.accum_nav[row] - market.accum_nav[row - 1]
            change = market.unit_nav[row] + event.dividend - market.unit_nav[row - 1]
            assert moved == pytest.approx(shares * change, abs=0.0003 * max(1.0, float(shares)))


def test_new_funds_publish_weekly_before_they_open(market: Market) -> None:
    newcomers = 0
    for number, fund in enumerate(market.funds):
        days = market.dates[market.offsets[number] : market.offsets[number + 1]]
        if fund.money or days[0] == (SESSIONS[0] - EPOCH).days or days.size < 3:
            continue
        newcomers += 1
        assert market.unit_nav[market.offsets[number]] == 1.0
        assert days[2] - days[1] >= 4  # week ends apart, at least four days even around a holiday
    assert newcomers > 50


def test_navs_only_on_sessions_but_income_at_weekends(market: Market) -> None:
    sessions = {(day - EPOCH).days for day in SESSIONS}
    daily, summed = 0, 0
    for number, fund in enumerate(market.funds):
        low, high = int(market.offsets[number]), int(market.offsets[number + 1])
        days = market.dates[low:high].tolist()
        assert all(a < b for a, b in pairwise(days))
        if not fund.money:
            assert set(days) <= sessions
        elif any(row in market.span_starts for row in range(low, high)):
            summed += 1
            sunday = low + days.index((date(2025, 10, 26) - EPOCH).days)
            assert market.span_starts[sunday] == (date(2025, 10, 25) - EPOCH).days
            golden_week = low + days.index((date(2025, 10, 8) - EPOCH).days)
            assert market.span_starts[golden_week] == (date(2025, 10, 1) - EPOCH).days
            assert market.unit_nav[golden_week] > 5 * market.unit_nav[golden_week - 1]  # eight days' income
        else:
            daily += 1
            assert len(days) == (END - date(2024, 1, 1)).days + 1
    assert daily > 0
    assert summed > 0


def test_publication_by_type(market: Market) -> None:
    sessions = np.array([(day - EPOCH).days for day in SESSIONS])
    late = {0: 0, 1: 0, 2: 0}
    rows = dict(late)
    lag_of = {kind.name: kind.lag for kind in FUND_TYPES}
    for number, fund in enumerate(market.funds):
        if fund.money:
            continue
        part = slice(int(market.offsets[number]), int(market.offsets[number + 1]))
        shanghai = market.visible_at[part] + 480
        published, minute = shanghai // 1440, shanghai % 1440
        lag = lag_of[fund.fund_type]
        due = sessions[np.searchsorted(sessions, market.dates[part]) + lag]
        on_time = published == due
        assert ((minute[on_time] >= 17 * 60 + 30) & (minute[on_time] <= 22 * 60 + 30)).all()
        assert (published >= due).all()
        assert ((minute[~on_time] >= 9 * 60) & (minute[~on_time] <= 11 * 60 + 30)).all()
        late[lag] += int((~on_time).sum())
        rows[lag] += on_time.size
    assert lag_of["QDII-普通股票"] == 1
    assert lag_of["FOF-稳健型"] == 2
    assert all(count > 0 for count in rows.values())
    assert 0.001 < sum(late.values()) / sum(rows.values()) < 0.02


def test_a_monday_night_shows_each_type_its_own_date(market: Market) -> None:
    view = View(market, datetime(2025, 12, 1, 23, 0, tzinfo=SHANGHAI))
    newest: dict[str, Counter[date]] = {}
    for number, fund in enumerate(market.funds):
        row = int(view.latest[number])
        shown = EPOCH + timedelta(days=int(market.dates[row]))
        newest.setdefault(fund.fund_type, Counter())[shown] += 1
    assert newest["混合型-偏股"].most_common(1)[0][0] == date(2025, 12, 1)
    assert newest["QDII-普通股票"].most_common(1)[0][0] == date(2025, 11, 28)
    assert newest["FOF-稳健型"].most_common(1)[0][0] == date(2025, 11, 27)


def test_a_market_without_sessions_is_refused() -> None:
    with pytest.raises(ValueError, match="session"):
        simulated_market(10, date(2025, 10, 1), date(2025, 10, 8), 1, SESSIONS)


def test_a_market_of_one_day() -> None:
    one = simulated_market(40, END, END, 1, SESSIONS)
    assert set(one.dates.tolist()) == {(END - EPOCH).days}
    assert len(one.funds) == one.dates.size


def test_thin_replies_hold_ten_rows_and_say_so(market: Market) -> None:
    headers = {"Referer": "https://fund.eastmoney.com/"}
    with (
        StandinServer(market) as server,
        httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client,
    ):
        server.add_fault("thin", times=3)
        rank = client.get("/data/rankhandler.aspx", params={"dt": "kf", "pn": "30000"}).text
        assert rank.count('","') == 9
        assert "allRecords:10,pageIndex:1" in rank
        listed = client.get("/f10/lsjz", params={"fundCode": market.funds[0].code}).json()
        assert (listed["TotalCount"], len(listed["Data"]["LSJZList"])) == (10, 10)
        page = client.get(f"/pingzhongdata/{market.funds[0].code}.js").text
        assert page.count('"equityReturn"') == 10
        whole = client.get("/data/rankhandler.aspx", params={"dt": "kf", "pn": "30000"}).text
        assert whole.count('","') > 300


def test_status_pages_are_cut_at_10000_rows() -> None:
    market = simulated_market(10_500, END, END, 1, SESSIONS)
    with StandinServer(market) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        seen: list[str] = []
        for page in (1, 2):
            query = {"t": "8", "page": f"{page},50000", "js": "reData"}
            text = client.get("/Data/Fund_JJJZ_Data.aspx", params=query).text
            rows = json.loads(text[text.index("[[") : text.index(",record:")])
            assert f'record:"10500",pages:"2",curpage:"{page}"' in text
            seen += [row[0] for row in rows]
            assert len(rows) == (10_000 if page == 1 else 500)
        assert seen == sorted(fund.code for fund in market.funds)


# --- recorded --------------------------------------------------------------------------------------


def write(path: Path, rows: list[dict[str, str | None]]) -> Path:
    names = ["fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return_pct", "purchase_status"]
    names += ["redemption_status", "dividend_text", "board"]
    columns = {name: pa.array([row.get(name) for row in rows], pa.large_string()) for name in names}
    pq.write_table(pa.table(columns), path)
    return path


def row_of(day: str, unit: str | None, change: str, **more: str | None) -> dict[str, str | None]:
    row = {"fund_code": "000001", "nav_date": day, "unit_nav": unit, "accum_nav": unit, "board": "otc"}
    return row | {"daily_return_pct": change} | more


def test_recorded_texts_become_published_numbers(tmp_path: Path) -> None:
    rows = [
        row_of("2025-12-03", "1.0", "0.0", purchase_status="封闭期"),
        row_of("2025-12-01", "1.23456789", "0.0"),
        row_of("2025-12-02", None, "0.0040999999999999", accum_nav=None, dividend_text="每份派现金0.0073元"),
        row_of("2025-12-04", "1.1", "-0.00125", dividend_text="每份基金份额折算0.98份"),
        row_of("2025-12-05", "1.1", "0.01245", dividend_text="每份基金6份"),
    ]
    market = recorded_market(write(tmp_path / "navs.parquet", rows), time(19, 30))
    assert [f"{value:.2f}" for value in market.daily_return] == ["0.00", "0.41", "nan", "-0.13", "1.25"]
    assert market.unit_nav.tolist()[::4] == [1.23456789, 1.1]
    assert np.isnan(market.unit_nav[1])
    assert np.isnan(market.accum_nav[1])
    assert {row: event[:2] for row, event in market.events.items()} == {
        1: (0.0073, None),
        3: (None, 0.98),
        4: (None, 6.0),
    }
    assert market.end == datetime(2025, 12, 5, 19, 30, tzinfo=SHANGHAI)
    assert market.funds[0][:3] == ("000001", "基金000001", "混合型-灵活")


def test_event_texts() -> None:
    assert parse_event("每份基金份额分拆2.0份")[:2] == (None, 2.0)
    assert parse_event("每份派现金0.9079元")[:2] == (0.9079, None)
    assert parse_event("不明")[:2] == (None, None)


def test_recording_without_optional_columns(tmp_path: Path) -> None:
    table = pa.table({"fund_code": ["000001"], "nav_date": ["2025-12-01"], "unit_nav": ["1.5"]})
    pq.write_table(table, tmp_path / "navs.parquet")
    market = recorded_market(tmp_path / "navs.parquet")
    assert market.unit_nav.tolist() == [1.5]
    assert np.isnan(market.accum_nav[0])
    assert np.isnan(market.daily_return[0])


@pytest.fixture(scope="module")
def recording() -> pa.Table:
    if not NAVS.exists():
        pytest.skip(f"no recorded NAVs at {NAVS}")
    return pq.read_table(NAVS)


# closed period; missing NAVs with a dividend; the odd split text; many splits; from 2004; money ETF
SAMPLE = ["000313", "508001", "508006", "159970", "161725", "180003", "511880"]


def test_every_recorded_row_of_some_funds_is_served(recording: pa.Table, tmp_path: Path) -> None:
    part = recording.filter(pc.is_in(recording["fund_code"], pa.array(SAMPLE, pa.large_string())))
    pq.write_table(part, tmp_path / "part.parquet")
    market = recorded_market(tmp_path / "part.parquet", fund_list=DATA / "fund_list.csv")
    codes = set(part["fund_code"].to_pylist())
    assert len(codes) >= 5
    with (
        StandinServer(market) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        for code in codes:
            text = client.get(f"/pingzhongdata/{code}.js").text
            mine = part.filter(pc.equal(part["fund_code"], code)).to_pylist()
            assert_page_is_recording(text, mine)
        assert client.get("/js/fundcode_search.js").headers["Server"] == "NavKeeper-standin (RECORDED market)"


def assert_page_is_recording(text: str, recorded: list[dict[str, str | None]]) -> None:
    def series(name: str) -> list:
        start = text.index(f"var {name} = ") + len(f"var {name} = ")
        return json.loads(text[start : text.index(";", start)], parse_float=Decimal)

    trend, accum = series("Data_netWorthTrend"), series("Data_ACWorthTrend")
    assert len(trend) == len(accum) == len(recorded)
    for point, (x, accumulated), row in zip(trend, accum, recorded, strict=True):
        where = (row["fund_code"], row["nav_date"])
        assert datetime.fromtimestamp(x / 1000, SHANGHAI).isoformat() == f"{row['nav_date']}T00:00:00+08:00"
        assert point["x"] == x
        assert point["y"] == (None if row["unit_nav"] is None else Decimal(row["unit_nav"])), where
        assert accumulated == (None if row["accum_nav"] is None else Decimal(row["accum_nav"])), where
        assert point["unitMoney"].partition("：")[2] == (row["dividend_text"] or ""), where
        fraction = Decimal(row["daily_return_pct"] or "nan")
        if isinstance(point["equityReturn"], int):  # upstream's sign for "not published"
            assert fraction == 0, where
            assert "封闭期" in (row["purchase_status"], row["redemption_status"]), where
        else:
            assert point["equityReturn"] == (fraction * 100).quantize(Decimal("0.01"), ROUND_HALF_UP), where


def test_the_whole_recording_loads(recording: pa.Table) -> None:
    market = recorded_market(NAVS)
    assert (market.dates.size, len(market.funds), len(market.events)) == (2_783_346, 3_099, 1_916)
    assert sum(fund.exchange for fund in market.funds) == 1_514
    night = View(market, datetime(2025, 12, 1, 18, 0, tzinfo=SHANGHAI))
    expected = pc.sum(pc.less_equal(recording["nav_date"], "2025-12-01")).as_py()
    assert sum(night.rows(i).size for i in range(len(market.funds))) == expected
