"""Back-fills of many funds: killed and gone on with, incomplete ones, by type, with a guess of the time left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from config.settings import ROOT
from core import db
from core.collector import HISTORY_BATCH_FUNDS
from core.errors import UsageError
from core.schema import backfilled_fund, fund_info, fund_nav, job_run, money_fund_yield, quarantine
from core.standin import StandinServer
from core.standin.market import Market
from core.standin.simulated import simulated_market
from core.trading_calendar import library_sessions
from scheduler.backfill_task import of_type
from scheduler.pace import Pace
from tests.daemon import DaemonProcess, at, until
from tests.nights import Nights

FUNDS = 1800
DAY = date(2025, 11, 28)
SINCE = date(2025, 11, 17)
PAGES = "/pingzhongdata/"


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(FUNDS, SINCE, DAY + timedelta(days=7), 5, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(DAY, 23, 30)) as server:
        yield server


@pytest.fixture
def shell(engine: Engine, standin: StandinServer, tmp_path: Path) -> DaemonProcess:
    return DaemonProcess(engine, tmp_path, standin.url, at(DAY, 23, 30))


def listed(standin: StandinServer) -> int:
    """Funds that have published anything by now: the others are in no list."""
    return int((standin.view.latest >= 0).sum())


def pages(standin: StandinServer) -> Counter[str]:
    return Counter({path: times for path, times in standin.requests.copy().items() if path.startswith(PAGES)})


def count(engine: Engine, *tables: Any) -> int:
    with db.read(engine) as connection:
        return sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables
        )


def test_killed_three_times_it_goes_on_where_it_was(shell: DaemonProcess, standin: StandinServer) -> None:
    words = [sys.executable, str(ROOT / "main.py"), "backfill", "--json"]
    funds = listed(standin)
    for times in range(1, 4):
        before = sum(pages(standin).values())
        process = subprocess.Popen(words, env=shell.environment, stdout=subprocess.DEVNULL)
        until(
            lambda: sum(pages(standin).values()),
            lambda seen, enough=before + HISTORY_BATCH_FUNDS + 60: seen >= enough,
            f"a portion of back-fill {times}",
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert count(shell.engine, backfilled_fund) == times * HISTORY_BATCH_FUNDS
    last = shell.main("backfill", "--json")
    report = json.loads(last.stdout)
    assert report["status"] == "SUCCESS", report
    assert report["reason"].startswith(f"continued run 1: 1,500 of {funds:,} funds are done")
    assert (report["funds"], report["funds_done_before"], report["funds_missing"]) == (funds - 1500, 1500, 0)
    asked = pages(standin)
    assert len(asked) == funds
    # Begun anew each time it would ask for 500, 1,000 and 1,500 of them again; a slow answer is asked for again too.
    assert sum(asked.values()) - funds < 3 * HISTORY_BATCH_FUNDS
    assert sum(asked.values()) <= funds + 3 * 400  # what was fetched and not yet merged when it was killed
    visible = sum(standin.view.rows(fund).size for fund in range(FUNDS))
    assert count(shell.engine, fund_nav, money_fund_yield, quarantine) == visible
    assert count(shell.engine, backfilled_fund) == 0
    again = json.loads(shell.main("backfill", "--fund", "000001", "--json").stdout)
    assert (again["funds"], again["inserted"], again["revised"]) == (1, 0, 0)
    with db.read(shell.engine) as connection:
        statuses = connection.execute(select(job_run.c.status).order_by(job_run.c.id)).scalars().all()
    assert statuses == [*["INTERRUPTED"] * 3, "SUCCESS", "SUCCESS"]


@pytest.fixture
def small(sqlite_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    """Forty funds, and runs in this process."""
    market = simulated_market(40, SINCE, DAY + timedelta(days=7), 5, library_sessions())
    with StandinServer(market, now=at(DAY, 23, 30)) as server:
        for name in ("FUND", "API", "QUOTE"):
            monkeypatch.setenv(f"NAVKEEPER_EASTMONEY_{name}_URL", server.url)
        monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", "1000")
        yield Nights(sqlite_engine, server, at(DAY, 23, 30))


def test_a_fund_that_could_not_be_had_makes_it_partial_and_is_asked_for_next_time(small: Nights) -> None:
    [lost, *_rest] = sorted(small.standin.market.index_of)
    funds = listed(small.standin)
    small.standin.add_fault("html_error", path=f"{lost}.js", times=None)
    end = small.execute(small.queue("backfill", DAY))
    assert (end.status, end.reason) == (
        "PARTIAL",
        f"1 of {funds} funds could not be had: {lost}; run it again for those",
    )
    assert count(small.engine, backfilled_fund) == funds - 1
    small.standin.clear_faults()
    small.standin.requests.clear()
    end = small.execute(small.queue("backfill", DAY))
    assert (end.status, end.reason) == ("SUCCESS", f"continued run 1: {funds - 1} of {funds} funds are done")
    assert pages(small.standin) == {f"{PAGES}{lost}.js": 1}
    assert count(small.engine, backfilled_fund) == 0


@pytest.mark.parametrize(
    ("status", "finished", "start"),
    [("SUCCESS", 0, None), ("INTERRUPTED", 8, None), ("INTERRUPTED", 0, "2025-11-20")],
    ids=["it ended well", "it is too long ago", "it was of other dates"],
)
def test_a_run_is_not_continued(small: Nights, status: str, finished: int, start: str | None) -> None:
    before = small.queue("backfill", DAY, **({"start": start} if start else {}))
    claim = small.claim(before)
    assert claim
    ended = small.now - timedelta(days=finished)
    with db.write(small.engine) as connection:
        values = {"status": status, "finished_at": ended, "active_key": None}
        connection.execute(update(job_run).where(job_run.c.id == before).values(values))
        done = {"run_id": before, "fund_code": "000001", "row_count": 1, "merged_at": ended}
        connection.execute(backfilled_fund.insert().values(done))
    end = small.execute(small.queue("backfill", DAY))
    assert (end.status, end.reason) == ("SUCCESS", None)
    assert len(pages(small.standin)) == listed(small.standin)


def test_a_further_attempt_asks_only_for_the_rest(small: Nights) -> None:
    run = small.queue("backfill", DAY)
    with db.write(small.engine) as connection:
        done = {"run_id": run, "fund_code": "000001", "row_count": 1, "merged_at": small.now}
        connection.execute(backfilled_fund.insert().values(done))
    end = small.execute(run)
    assert (end.status, end.reason) == ("SUCCESS", None)
    assert len(pages(small.standin)) == listed(small.standin) - 1
    assert count(small.engine, backfilled_fund) == 0


def test_only_funds_of_a_type(small: Nights) -> None:
    end = small.execute(small.queue("backfill", DAY, fund_type="债券型"))
    assert end.status == "SUCCESS"
    with db.read(small.engine) as connection:
        query = select(fund_info.c.fund_type).join(fund_nav, fund_nav.c.fund_code == fund_info.c.fund_code)
        kinds = set(connection.execute(query).scalars())
    assert kinds
    assert all(kind.startswith("债券型") for kind in kinds)
    end = small.execute(small.queue("backfill", DAY, fund_type="money"))
    assert end.status == "SUCCESS"
    assert count(small.engine, money_fund_yield) > 0
    end = small.execute(small.queue("backfill", DAY, fund_type="债权型"))
    assert end.status == "FAILED"
    assert (end.reason or "").startswith("usage: there is no fund type '债权型'; there are ")


def test_types_are_prefixes_of_what_is_published_or_categories() -> None:
    types = {
        "000001": "债券型-长债",
        "000002": "混合型-偏债",
        "000003": "债券型-中短债",
        "000004": "QDII-债券",
    }
    assert of_type(types, types, "债券型") == ["000001", "000003"]
    assert of_type(types, types, "bond") == ["000001", "000003"]
    assert of_type(types, ["000003"], "债券型-长债") == []
    with pytest.raises(
        UsageError, match="there are QDII-债券, 债券型-中短债, 债券型-长债, 混合型-偏债; and the categories"
    ):
        of_type(types, types, "股票型")


def test_the_time_left_follows_the_last_minutes() -> None:
    def instant(seconds: float) -> datetime:
        return at(DAY, 12) + timedelta(seconds=seconds)

    pace = Pace()
    assert pace.seconds_left(instant(0), 0, 1000) is None
    assert pace.seconds_left(instant(9), 90, 1000) is None  # too early to tell
    assert pace.seconds_left(instant(10), 100, 1000) == 90
    assert pace.seconds_left(instant(310), 400, 1000) == 600  # a hundred in 100 s, long ago, counts no more
    assert pace.seconds_left(instant(320), 400, 1000) is None  # nothing moves
    assert pace.seconds_left(instant(200), 400, 1000) is None  # the clock was set back
    assert pace.seconds_left(instant(260), 460, 1000) == 540
