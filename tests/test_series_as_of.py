"""What was known at an instant gives what was calculated then, on both databases."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Connection, Engine, Table, func, select

import core.series_as_of
from core import adjustment, benchmark, db, merge, nav_mirror, nav_store
from core.data_pipeline import NavResult
from core.errors import UsageError
from core.nav_as_of import nav_as_of, yields_as_of
from core.nav_mirror import stored_series
from core.ragged import Series, no_series, with_rows
from core.schema import (
    fund_adjustment,
    fund_event,
    fund_metrics,
    fund_nav,
    fund_nav_revision,
    fund_rank,
    fund_score,
    money_fund_yield,
    quarantine,
)
from core.series_as_of import series_as_of
from core.sources.base import FundInfo, IndexClose, NavRow
from core.standin import Market, StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler.job import RunStatus
from scheduler.task_catalogue import require_known
from scheduler.tasks import MetricsParams
from tests.daemon import DaemonProcess, at
from tests.nights import Nights
from tests.test_command_line import in_english, lines, refused
from tests.test_pipeline import dump, pipeline

DAY, NEXT = date(2025, 11, 27), date(2025, 11, 28)
MISSED = date(2025, 11, 25), date(2025, 11, 26)  # that the back-fill of DAY's night leaves out
NIGHT, LATER = at(DAY, 23, 30), at(NEXT, 23, 30)
MEASURED = fund_metrics, fund_rank, fund_score
START = at(date(2026, 1, 5), 20)
FIRST = date(2025, 1, 1)
CODES = ["000001", "000002", "000070", "159915", "999999"]


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(40, date(2025, 6, 2), date(2025, 12, 5), 7, library_sessions())


@pytest.fixture
def nights(engine: Engine, market: Market, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    with StandinServer(market, now=at(DAY, 12)) as server:
        for host in ("FUND", "API", "QUOTE"):
            monkeypatch.setenv(f"NAVKEEPER_EASTMONEY_{host}_URL", server.url)
        monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", "1000")
        yield Nights(engine, server, at(DAY, 12))


@pytest.fixture
def shell(sqlite_engine: Engine, tmp_path: Path) -> DaemonProcess:
    return in_english(DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", START))


def staged(connection: Connection, rows: list[NavRow], now: datetime) -> int:
    values = {"kind": "history", "business_date": None, "source": "test", "provenance": "by hand"}
    return nav_store.open_batch(connection, **values, now=now, rows=rows, run_id=None)


def process(engine: Engine, rows: list[NavRow], now: datetime) -> NavResult:
    with db.write(engine) as connection:
        number = staged(connection, rows, now)
    return pipeline(engine).process_nav_data(number, now)


def closes(engine: Engine, days: list[date], now: datetime) -> None:
    with db.write(engine) as connection:
        rows = [IndexClose("000300", day, 4000 + 7.0 * (day.toordinal() % 31)) for day in days]
        benchmark.save_closes(connection, rows, now, "test")


def night_of(nights: Nights) -> None:
    """Half a year but for MISSED, an index, one row held back, and DAY's own evening with its metrics."""
    ended = nights.do("backfill", DAY, 17, start="2025-06-02", end="2025-11-24")
    assert ended.status in (RunStatus.SUCCESS, RunStatus.PARTIAL), ended
    gaps = [day for n, day in enumerate(library_days(date(2025, 6, 2), DAY)) if n % 7]
    closes(nights.engine, gaps, at(DAY, 18))
    row = nights.rows(fund_nav)[0]
    wrong = NavRow(row.fund_code, MISSED[0], row.unit_nav * 3)
    assert process(nights.engine, [wrong], at(DAY, 18)).quarantined == 1
    nights.night(DAY, published_at=23)


def library_days(start: date, end: date) -> list[date]:
    return [day for day in library_sessions() if start <= day <= end]


def the_next_night(nights: Nights) -> None:
    """Its own rows; a correction, a dividend nobody had told of, a released row, missed days, another fund."""
    engine = nights.engine
    nights.night(NEXT, published_at=23)
    history = nights.rows(fund_nav, fund_nav.c.nav_date < MISSED[0])
    by_fund = {row.fund_code: row for row in history}  # the newest of each
    codes = [code for code in sorted(by_fund) if sum(row.fund_code == code for row in history) > 80]
    corrected, paying = by_fund[codes[1]], by_fund[codes[2]]
    with db.write(engine) as connection:
        nav_store.save_funds(connection, [FundInfo("987654", "新来", "股票型")], LATER)
    rows = [
        NavRow(corrected.fund_code, corrected.nav_date, round(corrected.unit_nav * 1.001, 4)),
        NavRow("987654", DAY, 1.5),
    ]
    result = process(engine, rows, LATER)
    assert (result.inserted, result.revised) == (1, 1), result
    with db.write(engine) as connection:
        number = staged(connection, [], LATER)
        event = {"fund_code": paying.fund_code, "ex_date": pd.Timestamp(paying.nav_date), "kind": "dividend"}
        booked = pd.DataFrame([event | {"value": 0.05, "evidence": "confirmed"}])
        assert merge.save_events(connection, number, booked) == 1
        adjustment.recompute(connection, number)
        nav_store.decide_batch(connection, number, "MERGED", LATER, 0)
    held = nights.rows(quarantine, quarantine.c.source == "test")
    assert len(pipeline(engine).release([held[0].id], "cli:test", None, LATER).released) == 1
    missed = {name: day.isoformat() for name, day in zip(("start", "end"), MISSED, strict=True)}
    assert nights.do("backfill", NEXT, 23, 40, **missed).status in (RunStatus.SUCCESS, RunStatus.PARTIAL)
    closes(engine, library_days(date(2025, 6, 2), NEXT), LATER)


def test_a_past_night_gives_what_it_gave_then(nights: Nights, tmp_path: Path) -> None:
    night_of(nights)
    then = dump(nights.engine, *MEASURED)
    with db.read(nights.engine) as connection:
        known = func.count(fund_metrics.c.sharpe_inception), func.count(fund_metrics.c.beta_inception)
        assert min(connection.execute(select(*known)).one()) > 5
        assert connection.scalar(select(func.count(fund_rank.c.rank_return_1m))) > 0
    the_next_night(nights)
    assert nights.do("metrics", DAY, 12, later=2).status is RunStatus.SUCCESS
    today = dump(nights.engine, *MEASURED)
    of_day = {name: [row for row in rows if row[1] == DAY] for name, rows in today.items()}
    assert all(of_day[name] != then[name] for name in then)
    shell = in_english(
        DaemonProcess(nights.engine, tmp_path, "http://127.0.0.1:9", at(date(2025, 12, 1), 12))
    )
    funds = len(then["fund_metrics"])
    words = ("metrics", "--date", str(DAY), "--as-of", "2025-11-27T23:30")
    [dry] = lines(shell.main(*words, "--dry-run", "--json"))
    assert dry == {"business_date": str(DAY), "funds": funds}
    done = shell.main(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"metrics {DAY}: SUCCESS, {funds} records - as known at 2025-11-27T23:30:00+08:00\n"
    )
    again = {
        name: [row for row in rows if row[1] == DAY] for name, rows in dump(nights.engine, *MEASURED).items()
    }
    assert again == then
    [record] = lines(
        shell.main("metrics", "show", then["fund_metrics"][0][0], "--as-of", "2025-11-27T15:30:00Z", "--json")
    )
    assert (record["calc_date"], record["as_of"][:19]) == (str(DAY), "2025-11-27T23:30:00")
    columns = dict(zip(fund_metrics.c.keys(), then["fund_metrics"][0], strict=True))
    for name, metric in record["metrics"].items():
        expected = columns[name].isoformat() if isinstance(columns[name], date) else columns[name]
        assert metric["value"] == expected, name
    assert dump(nights.engine, *MEASURED)["fund_metrics"][0] == then["fund_metrics"][0]  # nothing was stored
    said = refused(
        shell.main("metrics", "show", "987654", "--date", str(DAY), "--as-of", "2025-11-27T23:30"), 1
    )
    assert said.startswith(
        f"metrics show: no NAV of 987654 up to {DAY} was known at 2025-11-27T23:30:00+08:00"
    )
    text = shell.main("metrics", "show", then["fund_metrics"][0][0], "--as-of", "2025-11-27T23:30").stdout
    assert "as known at 2025-11-27 23:30:00 in Shanghai" in text
    assert "no ranks and no score: they are of the whole market" in text


def test_instants_are_read_as_nav_show_reads_them(shell: DaemonProcess) -> None:
    said = refused(shell.main("nav", "--as-of", "2026-01-05T20:00"), 2)
    assert said == "nav: --as-of means nothing to nav\n"
    done = shell.main("metrics", "--as-of", "2026-01-05")
    assert done.returncode == 2
    assert "'2026-01-05' is no instant; write it as 2026-01-05T20:00" in done.stderr
    naive, aware = (
        MetricsParams.model_validate_json(json.dumps({"as_of": text}))
        for text in ("2026-01-05T20:00", "2026-01-05T12:00:00+00:00")
    )
    assert naive.as_of == aware.as_of == at(date(2026, 1, 5), 20)
    with pytest.raises(UsageError, match=r"as_of.*'2026-01-05' is no instant"):
        require_known("calculate_metrics", {"as_of": "2026-01-05"})


class Merges:
    """Random batches, merged as the pipeline merges what it believes; the series as each of them left it."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.rng, self.now = engine, random.Random(seed), START
        self.units: dict[tuple[str, date], float] = {}
        self.incomes: set[tuple[str, date]] = set()
        self.booked: set[tuple[str, date]] = set()
        self.left: list[tuple[datetime, tuple[Series, Series]]] = []

    def step(self) -> None:
        self.now += timedelta(seconds=self.rng.choice((1, 60, 3600)))
        rows = [*self._corrections(), *self._fresh()]
        with db.write(self.engine) as connection:
            number = staged(connection, rows, self.now - timedelta(microseconds=1))
            merge.merge(connection, number, self.now, 2.0)
            merge.save_events(connection, number, self._events())
            adjustment.recompute(connection, number)
            nav_store.decide_batch(connection, number, "MERGED", self.now, len(rows))
        self.left.append((self.now, whole(stored_series(self.engine))))

    def _fresh(self) -> list[NavRow]:
        found = []
        for code in self.rng.sample(CODES, self.rng.randint(0, len(CODES))):
            for day in {
                FIRST + timedelta(days=self.rng.randrange(60)) for _ in range(self.rng.choice((1, 3)))
            }:
                if self.rng.random() < 0.3 and (code, day) not in self.incomes:
                    self.incomes.add((code, day))
                    found.append(NavRow(code, day, income_per_10k=round(self.rng.uniform(0, 2), 4)))
                elif (code, day) not in self.units:
                    self.units[code, day] = unit = round(
                        self.rng.uniform(0.5, 3), self.rng.choice((3, 4, 12))
                    )
                    found.append(NavRow(code, day, unit, self.rng.choice((None, unit))))
        return found

    def _corrections(self) -> list[NavRow]:
        """Another NAV, or the same with a blank filled."""
        places = self.rng.sample(sorted(self.units), min(len(self.units), self.rng.choice((0, 1, 1, 4))))
        found = []
        for code, day in places:
            if self.rng.random() < 0.7:
                self.units[code, day] = round(self.rng.uniform(0.5, 3), 4)
            found.append(NavRow(code, day, self.units[code, day], 2.5, self.rng.choice((None, 0.1))))
        given = {(row.fund_code, row.nav_date): row for row in found}
        return list(given.values())

    def _events(self) -> pd.DataFrame:
        """Of days with a NAV, each booked once: what a changed event was before is not on record."""
        rows = []
        for code, day in self.rng.sample(
            sorted(self.units), min(len(self.units), self.rng.choice((0, 0, 1, 2)))
        ):
            kind, value = self.rng.choice((("dividend", 0.1), ("split", 1.5), ("dividend", 0.0123)))
            if (code, day) not in self.booked:
                self.booked.add((code, day))
                evidence = self.rng.choice(("published", "implied", "confirmed", "announced"))
                rows.append((code, pd.Timestamp(day), kind, value, evidence))
        return pd.DataFrame(rows, columns=["fund_code", "ex_date", "kind", "value", "evidence"])


def whole(blocks: Iterable[tuple[Table, Series]]) -> tuple[Series, Series]:
    """NAVs and incomes."""
    found: dict[str, list[Series]] = {fund_nav.name: [], money_fund_yield.name: []}
    for table, series in blocks:
        found[table.name].append(series)
    navs, incomes = (with_rows(no_series(), *each) for each in found.values())
    return navs, incomes


def require_same(found: tuple[Series, Series], expected: tuple[Series, Series], about: object) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in ("codes", "offsets", "days", "values"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=str(about))


@pytest.mark.parametrize("seed", [1, 2])
def test_every_instant_gives_the_series_of_then(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    merges = Merges(engine, seed)
    for _ in range(60):
        merges.step()
    with db.read(engine) as connection:
        counts = [
            connection.scalar(select(func.count()).select_from(table))
            for table in (fund_nav_revision, fund_event, fund_adjustment)
        ]
    assert min(counts) > 10, counts
    first = merges.left[0][0]
    empty = whole(series_as_of(engine, first - timedelta(microseconds=1)))
    assert [len(series.days) for series in empty] == [0, 0]
    for place, (instant, left) in enumerate(merges.left):
        require_same(whole(series_as_of(engine, instant)), left, instant)
        until = (merges.left[place + 1][0] if place + 1 < len(merges.left) else instant) - timedelta(
            microseconds=1
        )
        require_same(whole(series_as_of(engine, max(until, instant))), left, instant)
    instant, (navs, incomes) = merges.left[30]
    some = whole(series_as_of(engine, instant, ["999999", "000002", "123456"]))
    for found, every in zip(some, (navs, incomes), strict=True):
        rows = np.isin(np.repeat(every.codes, np.diff(every.offsets)), [2, 999999])
        np.testing.assert_array_equal(found.values, every.values[rows])
        np.testing.assert_array_equal(found.days, every.days[rows])
    monkeypatch.setattr(core.series_as_of, "FEW_ROWS", 1)  # by the other driver
    monkeypatch.setattr(nav_mirror, "ROWS_A_BLOCK", 30)
    for instant, left in merges.left[::10]:
        require_same(whole(series_as_of(engine, instant)), left, instant)


def test_of_one_fund_both_ways_say_the_same(sqlite_engine: Engine) -> None:
    merges = Merges(sqlite_engine, 3)
    merges._events = lambda: pd.DataFrame(columns=["fund_code", "ex_date", "kind"])  # type: ignore[method-assign]
    for _ in range(30):
        merges.step()
    for instant, _left in merges.left[::3]:
        navs, incomes = whole(series_as_of(sqlite_engine, instant, ["000001"]))
        with db.read(sqlite_engine) as connection:
            units = [row.unit_nav for row in nav_as_of(connection, "000001", instant)]
            yields = [row.income_per_10k for row in yields_as_of(connection, "000001", instant)]
        assert (navs.values.tolist(), incomes.values.tolist()) == (units, yields)
    assert len(units) > 10


def test_what_keeps_no_earlier_version_counts_as_known_since_its_change(engine: Engine) -> None:
    monday, tuesday = FIRST, FIRST + timedelta(days=1)
    rows = [NavRow("000009", day, income_per_10k=0.5) for day in (monday, tuesday)]
    for now, given in ((START, rows), (START + timedelta(days=1), [rows[0]._replace(income_per_10k=0.6)])):
        with db.write(engine) as connection:
            number = staged(connection, given, now)
            merge.merge(connection, number, now, 2.0)
            nav_store.decide_batch(connection, number, "MERGED", now, 1)
    assert whole(series_as_of(engine, START))[1].values.tolist() == [0.5]
    assert whole(series_as_of(engine, START + timedelta(days=1)))[1].values.tolist() == [0.6, 0.5]


def test_a_naive_instant_is_refused(sqlite_engine: Engine) -> None:
    with pytest.raises(ValueError, match="naive"):
        whole(series_as_of(sqlite_engine, START.replace(tzinfo=None)))
