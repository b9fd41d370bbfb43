"""Back-fill and recalculation on a Dask cluster of real processes: the tables of a run without it, whoever dies."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import Engine, select

from config.settings import ROOT, load_settings
from core import collector, db, fund_series
from core.errors import ClusterMismatch, ClusterUnavailable, ConfigurationError
from core.initialise import initialise
from core.schema import backfilled_fund, fund_metrics, fund_nav, metadata, quarantine
from core.sources.base import NavRow
from core.standin import StandinServer
from core.standin.market import Market
from core.standin.simulated import simulated_market
from core.trading_calendar import library_sessions
from scheduler import cluster
from scheduler.cluster_work import packed, unpacked
from scheduler.job import RunStatus
from tests.conftest import NOW
from tests.daemon import at
from tests.dask_cluster import DaskCluster
from tests.nights import Nights

FUNDS = 160
SINCE, DAY = date(2025, 3, 3), date(2025, 11, 28)
A_SECOND = 100  # requests
PORTION = 50  # funds: two and a half shards
ATTEMPTS = 4  # of a request
BY_THE_RUN = {
    "nav_version",
    "data_update_log",
    "job_run",
    "run_attempt",
    "run_event",
    "job_command",
    "daemon",
}


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(FUNDS, SINCE, DAY + timedelta(days=7), 5, library_sessions())


@pytest.fixture
def standin(market: Market, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(DAY, 23, 30)) as server:
        for name in ("FUND", "API", "QUOTE"):
            monkeypatch.setenv(f"NAVKEEPER_EASTMONEY_{name}_URL", server.url)
        monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", "1000")
        monkeypatch.setattr(collector, "HISTORY_BATCH_FUNDS", PORTION)
        yield server


@pytest.fixture
def dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path / "dask") as found:
        monkeypatch.setenv("NAVKEEPER_CLUSTER", found.address)
        yield found


@pytest.fixture
def twin(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Another database of the same kind."""
    if engine.dialect.name != "sqlite":
        yield request.getfixturevalue("mariadb_engine")
        return
    found = db.connect(engine.url.set(database=str(tmp_path / "twin.db")))
    initialise(found, NOW)
    yield found
    found.dispose()


def tables(engine: Engine) -> dict[str, list[Any]]:
    """All rows of all tables but those that say how the runs went."""
    with db.read(engine) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
            if table.name not in BY_THE_RUN
        }


def pages(standin: StandinServer) -> dict[str, int]:
    return {
        path: times for path, times in standin.requests.copy().items() if path.startswith("/pingzhongdata/")
    }


def nights(engine: Engine, standin: StandinServer, address: str | None) -> Nights:
    found = Nights(engine, standin, at(DAY, 23, 30))
    found.settings = load_settings(cluster=address)
    return found


def once(action: Callable[[], None]) -> Callable[..., None]:
    """For progress: as soon as there is some."""
    left = [action]
    return lambda *_progress: left.pop()() if left else None


def kill(*processes: subprocess.Popen[bytes] | None) -> None:
    for process in processes:
        assert process is not None
        process.kill()
        process.wait()


def test_the_same_tables_though_a_worker_is_killed(
    engine: Engine, twin: Engine, standin: StandinServer, dask: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite: in the back-fill, where one fund cannot be had at first; MariaDB: in the recalculation."""
    in_backfill = engine.dialect.name == "sqlite"
    late = sorted(standin.market.index_of)[3]
    if in_backfill:
        standin.add_fault("html_error", path=f"{late}.js", times=ATTEMPTS)
    local = nights(twin, standin, None)
    ends = [local.execute(local.queue(job, DAY)) for job in ("backfill", "weekly")]
    assert [end.status for end in ends] == [RunStatus.SUCCESS] * 2, ends
    expected = tables(twin)

    victim, _other = dask.worker(engine.url), dask.worker(engine.url)
    standin.requests.clear()
    if in_backfill:
        standin.add_fault("html_error", path=f"{late}.js", times=2 * ATTEMPTS)
    monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", str(A_SECOND))
    spread = nights(engine, standin, dask.address)
    died = once(lambda: kill(victim))
    began = time.monotonic()
    first = spread.execute(spread.queue("backfill", DAY), *[died] * in_backfill)
    took = time.monotonic() - began
    asked = pages(standin)
    second = spread.execute(spread.queue("weekly", DAY), *[died] * (not in_backfill))
    assert victim.poll() is not None
    assert [replace(end, peak_memory_kb=None) for end in (first, second)] == [
        replace(end, peak_memory_kb=None) for end in ends
    ]
    found = tables(engine)
    assert len(found["fund_nav"]) > 20_000
    assert len({row[-1] for row in found["fund_nav"]}) >= 4  # portions
    assert len(found["fund_metrics"]) > 120
    for name in expected:
        assert found[name] == expected[name], name
    assert sum(asked.values()) / took <= A_SECOND  # of all workers together
    again = sum(asked.values()) - len(asked) - (2 * ATTEMPTS if in_backfill else 0)
    assert (again > 0) == in_backfill  # what the dead worker had fetched


@pytest.mark.parametrize("dies", ["scheduler", "workers"])
def test_the_run_fails_for_now_when_the_cluster_is_gone(
    dies: str,
    sqlite_engine: Engine,
    standin: StandinServer,
    dask: DaskCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 3.0)
    monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", str(A_SECOND))
    worker = dask.worker(sqlite_engine.url)
    spread = nights(sqlite_engine, standin, dask.address)
    victim = worker if dies == "workers" else dask.scheduler
    end = spread.execute(spread.queue("backfill", DAY), once(lambda: kill(victim)))
    assert (end.status, end.retry) == (RunStatus.FAILED, True)
    assert (end.reason or "").startswith(f"cluster_unavailable: cluster {dask.address}: ")
    done = len(spread.rows(backfilled_fund))
    assert done % PORTION == 0
    assert done < FUNDS - PORTION
    alone = nights(sqlite_engine, standin, None)
    end = alone.execute(alone.queue("backfill", DAY))
    assert end.status is RunStatus.SUCCESS
    visible = sum(standin.view.rows(fund).size for fund in range(FUNDS))
    kept = tables(sqlite_engine)
    assert sum(len(kept[name]) for name in ("fund_nav", "money_fund_yield", "quarantine")) == visible


def test_no_scheduler_there(
    sqlite_engine: Engine, standin: StandinServer, dask: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    spread = nights(sqlite_engine, standin, dask.address)
    end = spread.execute(spread.queue("weekly", DAY))  # a scheduler without workers
    assert (end.status, end.retry) == (RunStatus.FAILED, True)
    assert (end.reason or "").startswith(f"cluster_unavailable: cluster {dask.address}: ")
    kill(dask.scheduler)
    end = spread.execute(spread.queue("backfill", DAY))
    assert (end.status, end.retry) == (RunStatus.FAILED, True)
    assert (end.reason or "").startswith(f"cluster_unavailable: cluster {dask.address}: ")
    assert spread.rows(fund_nav) + spread.rows(quarantine) + spread.rows(fund_metrics) == []


def test_a_worker_of_another_version_or_database_is_refused(
    sqlite_engine: Engine, dask: DaskCluster, tmp_path: Path
) -> None:
    package, other = tmp_path / "package", tmp_path / "other.db"
    for room in ("config", "core", "scheduler"):
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    metrics = package / "core" / "metrics.py"
    text = metrics.read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if line.startswith("DEFINITION_VERSION = ")]
    metrics.write_text(text.replace(line, 'DEFINITION_VERSION = "old"'), encoding="utf-8")
    with db.write(sqlite_engine) as connection:
        fund_series.next_version(connection)
    stranger = db.connect(sqlite_engine.url.set(database=str(other)))
    initialise(stranger, NOW)
    with db.write(stranger) as connection:
        fund_series.next_version(connection)
    stranger.dispose()

    def refusal() -> str:
        with pytest.raises(ClusterMismatch) as caught, cluster.connected(dask.address, sqlite_engine):
            pass
        return str(caught.value)

    worker = dask.worker(sqlite_engine.url, package)
    assert "metrics definition old instead of " in refusal()
    kill(worker)
    worker = dask.worker(stranger.url)
    said = refusal()
    assert "database another instead of ours" in said
    assert "metrics definition" not in said
    kill(worker)
    dask.worker(sqlite_engine.url.set(database=str(tmp_path / "empty.db")))
    assert "schema_outdated: " in refusal()


def test_without_the_setting_nothing_of_dask_is_imported(
    sqlite_engine: Engine, standin: StandinServer
) -> None:
    code = """
import sys, main
codes = [main.main(["backfill", "--fund", "000001"]), main.main(["weekly"])]
print(codes, sorted({name.partition(".")[0] for name in sys.modules} & {"dask", "distributed"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.splitlines()[-1:] == ["[0, 0] []"], done.stdout + done.stderr


def test_without_dask_the_setting_is_refused(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    with (
        pytest.raises(ConfigurationError, match=r"not installed: pip install -r requirements-cluster\.in"),
        cluster.connected("tcp://127.0.0.1:1", sqlite_engine),
    ):
        pass


def test_a_few_funds_are_not_worth_a_cluster(sqlite_engine: Engine, standin: StandinServer) -> None:
    spread = nights(sqlite_engine, standin, "tcp://127.0.0.1:1")
    end = spread.execute(spread.queue("backfill", DAY, fund_codes=["000001"]))
    assert end.status is RunStatus.SUCCESS


def test_a_retry_may_help_where_a_cluster_is_away() -> None:
    assert (ClusterUnavailable.retry, ClusterMismatch.retry) == (True, False)


numbers = st.none() | st.floats(allow_nan=False)
rows = st.builds(
    NavRow,
    st.sampled_from(["000001", "00001x", ""]),
    st.none() | st.dates(),
    numbers,
    numbers,
    numbers,
    origin=st.none() | st.text(max_size=5),
)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["000001", ""]), st.lists(rows, max_size=5)), max_size=4))
def test_packed_rows_come_back_as_they_were(histories: list[tuple[str, list[NavRow]]]) -> None:
    assert repr(list(unpacked(packed(histories)))) == repr(histories)  # -0.0 is not 0.0, and 1 not 1.0


@given(st.dictionaries(st.integers(0, 999_999), st.integers(1, 5000), max_size=50), st.integers(1, 9))
def test_spans_are_every_code_once_and_none_has_too_many_rows(counts: dict[int, int], parts: int) -> None:
    by_code = {f"{code:06d}": count for code, count in counts.items()}
    found = cluster.spans(by_code, parts)
    assert len(found) <= parts
    assert (found[0][0], found[-1][1]) == ("000000", "999999")
    assert all(int(one[1]) + 1 == int(other[0]) for one, other in pairwise(found))
    rows_of = [sum(count for code, count in by_code.items() if low <= code <= high) for low, high in found]
    assert max(rows_of) <= sum(counts.values()) / parts + max(counts.values(), default=0)
