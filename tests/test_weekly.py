"""The weekly report: a week by hand, a recorded week against pandas, its page, its Markdown, its command."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Engine, insert

from config.translation import translator
from core import db, rank_store
from core.distribution import distribution, round_step
from core.errors import NavKeeperError, NotReady
from core.nav_days import add_rows
from core.schema import fund_info, fund_nav
from core.standin.recorded import DIVIDEND, SPLIT
from core.trading_calendar import TradingCalendar
from scheduler.charts import Bar, bars, boxes, histogram, signed
from scheduler.weekly import newest_day, weekly
from scheduler.weekly_markdown import BYTES, HARMLESS, markdown
from scheduler.weekly_page import page, write_weekly
from tests.daemon import DaemonProcess
from tests.example_batch import SESSIONS
from tests.example_night import NOW, at
from tests.example_week import FRIDAY, MONDAY, TUESDAY, WEDNESDAY, fill
from tests.html_reader import read_page
from tests.recorded import part_of
from tests.test_command_line import in_english
from tests.test_metrics_calculator import calculator, fill as fill_navs

LANGUAGES = ("zh", "en")


@pytest.fixture
def week(engine: Engine) -> dict[str, Any]:
    return weekly(engine, fill(engine), WEDNESDAY)


def codes(funds: Sequence[dict[str, Any]]) -> list[str]:
    return [fund["fund_code"] for fund in funds]


# --- the record of a week by hand -------------------------------------------------------------------


def test_nights_and_coverage(week: dict[str, Any]) -> None:
    assert (week["week_start"], week["business_date"], week["simulated"]) == (MONDAY, WEDNESDAY, True)
    steps = ("date", "outcome", "collect", "validate", "metrics")
    assert [tuple(day[name] for name in steps) for day in week["days"]] == [
        (MONDAY, "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS"),
        (TUESDAY, "PARTIAL", "SUCCESS", "PARTIAL", "FAILED"),
        (WEDNESDAY, None, None, None, None),
    ]
    # Fund 4, silent since the 13th, is expected until Tuesday; three funds begin on Wednesday, 3 is late.
    assert [(day["expected"], day["published"]) for day in week["days"]] == [(14, 13), (14, 13), (16, 15)]
    assert [(day["held"], day["released"], day["revisions"]) for day in week["days"]] == [
        (1, 0, 0),
        (1, 0, 1),
        (1, 1, 2),
    ]
    counts = {
        record["category"]: [(day["expected"], day["published"]) for day in record["days"]]
        for record in week["coverage"]
    }
    assert counts == {
        "stock": [(13, 12), (13, 12), (12, 11)],
        "mixed": [(0, 0), (0, 0), (3, 3)],
        "money": [(1, 1), (1, 1), (1, 1)],
    }
    assert list(counts) == ["stock", "mixed", "money"]
    [late] = week["late"]
    assert (late["category"], late["expected"], late["late"]) == ("stock", 12, 1)
    assert late["funds"] == [{"fund_code": "000003", "fund_name": "第3股票", "newest": TUESDAY}]


def test_held_rows_and_corrections(week: dict[str, Any]) -> None:
    assert week["held"] == {
        "total": 3,
        "open": 1,
        "released": 1,
        "rejected": 1,
        "by_reason": {"stale": 2, "conflict": 1, "key_fields": 1},
    }
    revised = week["revisions"]
    assert (revised["total"], revised["by_reason"]) == (3, {"filled": 1, "large": 1, "small": 1})
    assert [(row["fund_code"], row["old_unit_nav"], row["new_unit_nav"]) for row in revised["listed"]] == [
        ("000002", 2.0, 1.0),
        ("000001", 1.0, 1.1),
        ("000004", 1.0, 1.0),
    ]
    assert [row["change"] for row in revised["listed"]] == pytest.approx([-50, 10, 0])


def test_the_market_by_type(week: dict[str, Any]) -> None:
    assert week["calc_date"] == WEDNESDAY
    stock, _mixed, money = week["types"]
    # -5 to 6 without fund 4's -2: one class of 12 and 13 counts, fund 4 has no NAV of the week.
    spread = stock["return_1w"]
    assert [spread[name] for name in ("count", "up", "down", "flat")] == [11, 6, 4, 1]
    figures = [spread[name] for name in ("min", "p5", "q1", "median", "q3", "p95", "max")]
    assert figures == [-5, -4.5, -2, 1, 3.5, 5.5, 6]
    assert (stock["max_drawdown_1y"]["median"], stock["max_drawdown_1y"]["min"]) == (-7, -12)
    assert (money["return_1w"]["count"], money["max_drawdown_1y"]) == (1, None)
    assert _mixed["return_1w"] is None
    assert codes(week["best"]) == ["000012", "000011", "000010", "000009", "000008", "000007"]
    assert codes(week["worst"]) == ["000001", "000002", "000003", "000005", "000006", "000050"]
    assert [fund["return_1w"] for fund in week["worst"]] == [-5, -4, -3, -1, 0, 0.03]
    extremes = {record["category"]: record for record in week["extremes"]}
    assert codes(extremes["stock"]["best"]) == ["000012", "000011", "000010"]
    assert codes(extremes["stock"]["worst"]) == ["000001", "000002", "000003"]
    assert (codes(extremes["money"]["best"]), extremes["money"]["worst"]) == (["000050"], [])


def test_rank_movers(week: dict[str, Any]) -> None:
    movers = week["movers"]
    assert (movers["metric"], movers["since"], movers["count"]) == ("return_1y", FRIDAY, 4)
    # Of eleven: the last became the first, the sixth the fifth; the other class of 12 is not counted.
    found = [
        (fund["fund_code"], fund["rank_before"], fund["rank"], fund["change"])
        for fund in movers["up"] + movers["down"]
    ]
    assert found == [("000001", 11, 1, 100), ("000012", 6, 5, 10), ("000002", 1, 11, -100)]
    assert (movers["up"][1]["percentile_before"], movers["up"][1]["percentile"]) == (50, 60)


def test_new_and_liquidated_funds(week: dict[str, Any]) -> None:
    fresh = [(fund["fund_code"], fund["inception_date"], fund["first_nav"]) for fund in week["new"]["listed"]]
    assert fresh == [("000060", TUESDAY, WEDNESDAY), ("000061", None, WEDNESDAY)]
    assert (week["new"]["total"], week["new"]["by_category"]) == (2, {"mixed": 2})
    assert [(fund["fund_code"], fund["last_nav"]) for fund in week["liquidated"]["listed"]] == [
        ("000070", date(2026, 1, 5))
    ]


def test_a_week_of_which_nothing_is_known(sqlite_engine: Engine, tmp_path: Path) -> None:
    calendar = fill(sqlite_engine)
    week = weekly(sqlite_engine, calendar, date(2026, 2, 24))  # the Monday was a holiday
    assert [day["date"] for day in week["days"]] == [date(2026, 2, 24)]
    assert (week["days"][0]["expected"], week["calc_date"], week["types"], week["movers"]) == (
        0,
        None,
        [],
        None,
    )
    for language in LANGUAGES:
        assert "python main.py metrics" in read_page(page(week, translator(language))).text
        assert "python main.py metrics" in markdown(week, translator(language))
    # The last days of the year: three sessions, and the metrics of no week before.
    assert [day["date"].day for day in weekly(sqlite_engine, calendar, date(2025, 12, 31))["days"]] == [
        29,
        30,
        31,
    ]
    assert weekly(sqlite_engine, calendar, FRIDAY)["movers"] is None


def test_a_database_that_is_empty_or_young(sqlite_engine: Engine) -> None:
    calendar = TradingCalendar(SESSIONS)
    with pytest.raises(NotReady, match="no NAV is stored yet"):
        newest_day(sqlite_engine, calendar)
    assert weekly(sqlite_engine, calendar, date(2025, 12, 5))["coverage"] == []
    fill_navs(sqlite_engine, {"000001": [(date(2025, 12, 4), 1.0)]}, {})
    with db.write(sqlite_engine) as connection:
        add_rows(connection, fund_nav, {date(2025, 12, 4): 1})
    week = weekly(sqlite_engine, calendar, date(2025, 12, 5))
    assert week["new"]["total"] == 0  # every first NAV of a young database is of this week
    assert newest_day(sqlite_engine, calendar) == date(2025, 12, 4)


# --- a recorded week ---------------------------------------------------------------------------------

RECORDED = [date(2025, 12, day) for day in range(15, 20)]
NIGHT_BEFORE = date(2025, 12, 12)


def recorded_part(data: Path, tmp_path: Path) -> pd.DataFrame:
    path = part_of(data, tmp_path / "part.parquet", funds=400, since=date(2025, 11, 24), until=RECORDED[-1])
    rows = pd.read_parquet(path)
    rows["unit"] = rows["unit_nav"].astype(float)
    rows["day"] = pd.to_datetime(rows["nav_date"]).dt.date
    text = rows["dividend_text"].fillna("")
    rows["paid"] = text.str.extract(DIVIDEND, expand=False).astype(float).fillna(0.0)
    rows["split"] = text.str.extract(SPLIT, expand=False).astype(float).fillna(1.0)
    return rows.sort_values(["fund_code", "day"]).reset_index(drop=True)


def store(engine: Engine, data: Path, rows: pd.DataFrame) -> None:
    """NAVs, events, names and metrics of the recording, as the nights leave them."""
    navs = {
        code: list(zip(group["day"], group["unit"].tolist(), strict=True))
        for code, group in rows.groupby("fund_code")
    }
    events: dict[str, list[tuple[date, str, float]]] = {}
    for row in rows[(rows["paid"] > 0) | (rows["split"] != 1)].itertuples():
        found = [("dividend", row.paid)] if row.paid > 0 else []
        found += [("split", row.split)] if row.split != 1 else []
        events.setdefault(row.fund_code, []).extend((row.day, kind, value) for kind, value in found)
    fill_navs(engine, navs, events)
    listed = pd.read_csv(data / "fund_list.csv", dtype=str, encoding="utf-8-sig").set_index("fund_code")
    with db.write(engine) as connection:
        add_rows(connection, fund_nav, Counter(rows["day"]))
        known = listed.reindex(sorted(navs)).fillna("")
        connection.execute(
            insert(fund_info),
            [
                {
                    "fund_code": code,
                    "fund_name": row.fund_name,
                    "fund_type": row.fund_type,
                    "category": "qdii" if "海外" in row.fund_type else "index",
                    "updated_at": NOW,
                }
                for code, row in zip(known.index, known.itertuples(), strict=True)
            ],
        )
    for day in (NIGHT_BEFORE, RECORDED[-1]):
        found = calculator(engine).calculate_market(day, fresh=True)
        with db.write(engine) as connection:
            rank_store.save_market(connection, found)


def returned(group: pd.DataFrame) -> float:
    """Percent from the last NAV of the week before to the last one of this week, events undone; NaN without both."""
    before, within = group[group["day"] <= NIGHT_BEFORE], group[group["day"] >= RECORDED[0]]
    if before.empty or within.empty or (NIGHT_BEFORE - before["day"].iloc[-1]).days > 10:
        return float("nan")
    units = np.array([before["unit"].iloc[-1], *within["unit"]])
    steps = (within["split"] * within["unit"] + within["paid"]).to_numpy() / units[:-1]
    return float(100 * (np.prod(steps) - 1))


def test_a_recorded_week_against_pandas(sqlite_engine: Engine, data: Path, tmp_path: Path) -> None:
    rows = recorded_part(data, tmp_path)
    store(sqlite_engine, data, rows)
    sessions = sorted(day for day in set(rows["day"]) if day.weekday() < 5)
    week = weekly(sqlite_engine, TradingCalendar(sessions), RECORDED[-1])
    spans = rows.groupby("fund_code")["day"].agg(["min", "max"])
    for day, record in zip(RECORDED, week["days"], strict=True):
        published = set(rows.loc[rows["day"] == day, "fund_code"])
        since = sessions[sessions.index(day) - 10]
        expected = set(spans.index[(spans["min"] <= day) & (spans["max"] >= since)])
        assert (record["expected"], record["published"]) == (len(expected), len(published & expected))
        assert len(expected) > 200
    returns = {code: returned(group) for code, group in rows.groupby("fund_code")}
    listed = pd.read_csv(data / "fund_list.csv", dtype=str, encoding="utf-8-sig").set_index("fund_code")
    frame = pd.DataFrame({"returned": pd.Series(returns).dropna()}).join(listed)
    frame["kind"] = np.where(frame["fund_type"].fillna("").str.contains("海外"), "qdii", "index")
    frame["count"] = rows.groupby("fund_code").size()
    # The classes of one fund: its name without a last letter; the one with the most NAVs, then the lowest code.
    frame["family"] = (
        frame["fund_name"]
        .fillna(pd.Series(frame.index, frame.index))
        .str.replace(r"(?<=[^\x00-\x7f)）])[A-Z]$|[A-Z]类$|\(后端\)$|人民币$", "", regex=True)
    )
    frame = frame.sort_values(["count"], ascending=False, kind="stable").drop_duplicates(["kind", "family"])
    assert [record["category"] for record in week["types"]] == ["index", "qdii"]
    for record in week["types"]:
        mine = frame.loc[frame["kind"] == record["category"], "returned"]
        spread = record["return_1w"]
        assert spread["count"] == len(mine)
        found = [spread[name] for name in ("min", "p5", "q1", "median", "q3", "p95", "max")]
        assert found == pytest.approx(mine.quantile([0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]).tolist(), abs=1e-5)
        assert sum(spread["histogram"]["counts"]) == len(mine)
    best = frame["returned"].nlargest(10)
    assert [fund["return_1w"] for fund in week["best"]] == pytest.approx(best.tolist())
    assert codes(week["best"])[:3] == list(best.index[:3])
    assert [fund["return_1w"] for fund in week["worst"]] == pytest.approx(
        frame["returned"].nsmallest(10).tolist()
    )
    reader = read_page(page(week, translator("zh")))
    assert f"{signed(best.iloc[0])}" in reader.text


# --- distributions and charts ------------------------------------------------------------------------


def test_a_histogram_by_hand() -> None:
    found = distribution(np.array([*range(10), np.nan, np.inf]))
    assert found is not None
    # 7 bins for ten values: (8.91 - 0.09) / 7 = 1.26, so steps of 2
    assert found["histogram"] == {"edges": [0, 2, 4, 6, 8, 10], "counts": [2, 2, 2, 2, 2]}
    assert (found["count"], found["median"], found["up"], found["flat"]) == (10, 4.5, 9, 1)
    same = distribution(np.array([-0.3, -0.3]))
    assert same is not None
    assert sum(same["histogram"]["counts"]) == 2
    assert distribution(np.array([np.nan])) is None
    assert [round_step(x) for x in (1, 1.1, 2.1, 5.1, 0.03)] == [1, 2, 5, 10, 0.05]


@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 4)), min_size=1, max_size=60))
def test_every_value_is_in_a_bin_of_its_sign(values: list[float]) -> None:
    found = distribution(np.array(values))
    assert found is not None
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    assert (sum(counts), len(edges)) == (len(values), len(counts) + 1)
    assert all(low < high for low, high in pairwise(edges))
    assert not any(low < 0 < high for low, high in pairwise(edges))
    assert len(counts) <= 60


def test_charts_say_what_they_show() -> None:
    chart = bars("name <&>", [Bar("a<b", 0.5, "50.0%", "1/2"), Bar("none", None, "-", "0/0")])
    assert "<script" not in chart
    assert 'aria-label="name &lt;&amp;&gt;"' in chart
    assert "a&lt;b" in chart
    assert 'width="105.0"' in chart  # half of 360 - 92 - 58
    assert boxes("nothing", []).startswith("<svg")
    spread = distribution(np.array([-1.0, -1.0, 2.0]))
    assert spread is not None
    columns = histogram("x", spread, "{low}…{high}: {count}")
    assert 'class="of down"' in columns
    assert 'class="of up"' in columns
    assert [signed(value) for value in (1.234, -0.004, -5, None)] == ["+1.23", "0.00", "-5.00", "-"]


# --- page and Markdown -------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page(language: str, sqlite_engine: Engine, tmp_path: Path) -> None:
    calendar = fill(sqlite_engine)
    path = write_weekly(sqlite_engine, calendar, WEDNESDAY, tmp_path / "weekly", translator(language))
    assert sorted(tmp_path.joinpath("weekly").iterdir()) == [path, path.with_suffix(".md")]
    text = path.read_text(encoding="utf-8")
    reader = read_page(text)
    assert f'<html lang="{language}">' in text
    assert "default-src 'none'" in text
    assert reader.tags.isdisjoint({"script", "img", "link", "iframe", "object"})
    assert reader.attributes.isdisjoint({"src", "style", "onclick"})
    assert "url(" not in text
    assert {link["href"] for link in reader.links} >= {"https://fund.eastmoney.com/000012.html"}
    for link in reader.links:
        assert re.fullmatch(r"https://fund\.eastmoney\.com/[0-9]{6}\.html", str(link["href"]))
        assert str(link["rel"]).startswith("noopener")
    assert "<script>alert(1)</script>" in reader.text
    assert "\u202e" not in text
    assert text.count("<svg") == 2 + 2 + 2 + 1  # coverage, boxes, returns of two types, drawdowns of one
    assert "SIMULATED" in reader.text
    for figure in ("16", "15", "93.8%", "-50.00", "+6.00", "-4.50", "2026-01-27", "+100.00"):
        assert figure in reader.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_markdown(language: str, week: dict[str, Any]) -> None:
    text = markdown(week, translator(language))
    assert len(text.encode()) <= BYTES
    assert "](https://fund.eastmoney.com/000012.html) +6.00 %" in text
    assert "93.8%" in text
    assert "＜script＞" in text
    links = re.findall(r"\[([^\[\]]*)\]\(https://fund\.eastmoney\.com/[0-9]{6}\.html\)", text)
    assert text.count("[") == len(links) + text.count("[SIMULATED")
    meant = re.sub(r"^# |\*\*|\[SIMULATED[^\]]*\]", "", text)
    for shown in links:
        meant = meant.replace(f"[{shown}]", "")
    assert not set("\\`*_[]<>|#~@!\u202e") & set(meant)
    assert len(HARMLESS) == 13


def test_markdown_of_long_names_still_fits_one_message(week: dict[str, Any]) -> None:
    long = {"fund_code": "123456", "fund_name": "名" * 200, "category": "stock"}
    week["best"] = week["worst"] = [long | {"return_1w": 1.0}] * 10
    week["new"] = {"total": 9000, "listed": [long] * 20}
    text = markdown(week, translator("zh"))
    assert BYTES // 2 < len(text.encode()) <= BYTES
    assert "9,000" in text
    week["days"] = week["days"] * 200  # nothing to leave out any more: it is cut
    text = markdown(week, translator("zh"))
    assert (len(text.encode()) <= BYTES, text[-2:]) == (True, "…\n")


def test_a_page_that_cannot_be_written(sqlite_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "weekly").write_text("a file where the folder should be")
    with pytest.raises(NavKeeperError, match="cannot be written"):
        write_weekly(sqlite_engine, fill(sqlite_engine), WEDNESDAY, tmp_path / "weekly", translator("en"))


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def shell(sqlite_engine: Engine, tmp_path: Path) -> DaemonProcess:
    fill(sqlite_engine)
    return in_english(DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at("2026-01-28 22:10")))


def test_the_command(shell: DaemonProcess, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "weekly" / "2026-01-28.html"
    done = shell.main("report")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")
    assert "Weekly report, 2026-01-26 to 2026-01-28" in path.read_text(encoding="utf-8")
    chinese = shell.main("--action", "report", "--lang", "zh")
    assert chinese.stdout == f"{path.with_suffix('.zh.html')}\n"
    assert "周报 2026-01-26 至 2026-01-28" in path.with_suffix(".zh.html").read_text(encoding="utf-8")
    chat = shell.main("report", "--markdown")
    assert chat.stdout.startswith("# Weekly report, 2026-01-26 to 2026-01-28\n")
    out = tmp_path / "elsewhere" / "week.json"
    assert shell.main("report", "--date", "2026-01-27", "--json", "--out", str(out)).stdout == f"{out}\n"
    week = json.loads(out.read_text(encoding="utf-8"))
    assert (week["business_date"], len(week["days"]), week["calc_date"]) == ("2026-01-27", 2, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--date", "2026-01-25"], "2026-01-25 is not a trading day; the one before is 2026-01-23"),
        (["--date", "2026-01-29"], "2026-01-29 has no NAVs yet"),
        (["--json", "--markdown"], "not allowed with"),
    ],
)
def test_what_the_command_refuses(shell: DaemonProcess, words: list[str], said: str) -> None:
    done = shell.main("report", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
