"""Late sweeps on both databases: what is new is merged and measured, and that alone; a stale run writes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from core import collector, db, nav_store
from core.schema import (
    data_update_log,
    fund_info,
    fund_metrics,
    fund_nav,
    fund_nav_revision,
    job_run,
    money_fund_yield,
    nav_batch,
    quarantine,
    rule_result,
    tmp_fund_nav,
)
from core.standin import Market, StandinServer, simulated_market
from core.standin.market import View, iso_dates
from core.trading_calendar import library_sessions
from scheduler import run_store, tasks
from scheduler.job import RunStatus
from scheduler.tasks import sweep_obstacle
from tests.daemon import DaemonProcess, at, until
from tests.example_batch import THRESHOLDS, TUE, nav
from tests.nights import Nights
from tests.stored_days import require_counted
from tests.test_pipeline import dump, process, stage

EVE, DAY, AFTER = date(2025, 11, 26), date(2025, 11, 27), date(2025, 11, 28)  # Wednesday to Friday
FUNDS = 120
SMALL = THRESHOLDS.revision_small / 100  # a correction that needs no proof
NAV_TABLES = (fund_nav, money_fund_yield, fund_nav_revision, quarantine, rule_result, nav_batch, tmp_fund_nav)
SENTINEL = -7  # in nav_count of metrics that nobody calculated again


@pytest.fixture(scope="module")
def market() -> Market:
    return simulated_market(FUNDS, date(2025, 8, 1), DAY + timedelta(days=7), 7, library_sessions())


@pytest.fixture
def standin(market: Market) -> Iterator[StandinServer]:
    with StandinServer(market, now=at(EVE, 23, 30)) as server:
        yield server


@pytest.fixture
def nights(engine: Engine, standin: StandinServer, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """The evening of EVE is stored to the last fund."""
    for host in ("FUND", "API", "QUOTE"):
        monkeypatch.setenv(f"NAVKEEPER_EASTMONEY_{host}_URL", standin.url)
    monkeypatch.setenv("NAVKEEPER_REQUESTS_PER_SECOND", "1000")
    found = Nights(engine, standin, at(EVE, 12))
    for job in ("collect", "validate"):
        assert found.do(job, EVE, 23).status is RunStatus.SUCCESS
    return found


def everything(night: Nights) -> dict[str, list[tuple[Any, ...]]]:
    require_counted(night.engine)
    return dump(night.engine, *NAV_TABLES, fund_info, fund_metrics)


def shown(market: Market, now: datetime) -> dict[str, tuple[str, float]]:
    """The newest date and value of each fund on the market's pages at that instant."""
    view = View(market, now)
    rows = [
        (fund.code, row) for fund, row in zip(market.funds, view.latest.tolist(), strict=True) if row >= 0
    ]
    return {code: (iso_dates(market.dates[[row]])[0], float(market.unit_nav[row])) for code, row in rows}


def navs_of(market: Market) -> set[str]:
    return {fund.code for fund in market.funds if not fund.money}


def mark_metrics(night: Nights, day: date) -> None:
    with db.write(night.engine) as connection:
        connection.execute(
            update(fund_metrics).where(fund_metrics.c.calc_date == day).values(nav_count=SENTINEL)
        )


def recalculated(night: Nights, day: date) -> set[str]:
    rows = night.rows(fund_metrics, fund_metrics.c.calc_date == day, fund_metrics.c.nav_count != SENTINEL)
    return {row.fund_code for row in rows}


def waiting_metrics(night: Nights) -> list[Any]:
    return night.rows(job_run, job_run.c.job_id == "metrics", job_run.c.status == "QUEUED")


def test_what_came_late_is_merged_and_only_its_metrics_are_calculated_again(
    nights: Nights, market: Market
) -> None:
    nights.night(DAY)
    mark_metrics(nights, DAY)
    early, late = shown(market, at(DAY, 19)), shown(market, at(DAY, 21))
    came = {code: late[code] for code in late if late[code] != early.get(code)}
    assert {day for day, _value in came.values()} > {str(EVE), str(DAY)}  # QDII and funds of funds are behind
    assert FUNDS / 10 < len(came) < FUNDS / 2
    before = nights.rows(fund_nav)
    end = nights.do("sweep", DAY, 21)
    assert (end.status, end.record_count, end.reason) == (RunStatus.SUCCESS, len(came), None)
    fresh = set(nights.rows(fund_nav)) - set(before)
    assert {row.fund_code: (str(row.nav_date), row.unit_nav) for row in fresh} == {
        code: found for code, found in came.items() if code in navs_of(market)
    }
    assert set(before) < set(nights.rows(fund_nav))  # nothing else was touched
    batch = nights.rows(nav_batch)[-1]
    assert (batch.kind, batch.business_date, batch.status) == ("sweep", DAY, "MERGED")
    assert batch.row_count == batch.merged_count == len(came)
    [metrics] = waiting_metrics(nights)
    changed = sorted(came.keys() & navs_of(market))
    assert (json.loads(metrics.params), metrics.requested_by) == ({"fund_codes": changed}, "sweep")
    assert nights.execute(metrics.id).status is RunStatus.SUCCESS
    assert recalculated(nights, DAY) == set(changed)
    newest = {
        row.fund_code: str(row.nav_date) for row in nights.rows(fund_metrics, fund_metrics.c.calc_date == DAY)
    }
    assert {code: newest[code] for code in changed} == {code: came[code][0] for code in changed}


def test_a_sweep_without_news_reads_and_writes_nothing_else(nights: Nights, standin: StandinServer) -> None:
    nights.night(DAY)
    before, runs = everything(nights), len(nights.rows(job_run))
    standin.requests.clear()
    end = nights.do("sweep", DAY, 19)
    assert (end.status, end.record_count, end.reason) == (RunStatus.SUCCESS, 0, "nothing new")
    assert everything(nights) == before
    assert len(nights.rows(job_run)) == runs + 1
    # the open-end and the exchange-traded rank, the money funds', the fund list
    asked = {path.rpartition("/")[2]: count for path, count in standin.requests.items()}
    lists = {"GetHbRankList": 1, "fundcode_search.js": 1, "Fund_JJJZ_Data.aspx": 1}
    assert asked == {"rankhandler.aspx": 2, **lists}


def test_a_sweep_knows_what_the_sweeps_before_it_have_brought(nights: Nights, market: Market) -> None:
    nights.night(DAY)
    assert nights.do("sweep", DAY, 21).record_count > 0
    assert nights.do("sweep", DAY, 21).reason == "nothing new"
    second, third = shown(market, at(DAY, 21)), shown(market, at(DAY, 23))
    assert nights.do("sweep", DAY, 23).record_count == len(third.items() - second.items())
    assert nights.do("sweep_morning", DAY, 8, later=1).reason == "nothing new"
    assert [row.kind for row in nights.rows(nav_batch, nav_batch.c.business_date == DAY)] == [
        "latest",
        "sweep",
        "sweep",
    ]


def a_correction(market: Market, day: date, share: float) -> tuple[str, float, dict[str, float]]:
    """A fund, its NAV of the day, and what is published when that was too low by this share of it."""
    for fund, code in enumerate(fund.code for fund in market.funds if not fund.money):
        rows = range(int(market.offsets[fund]), int(market.offsets[fund + 1]))
        [row] = [row for row in rows if iso_dates(market.dates[[row]])[0] == str(day)] or [rows[0]]
        published = market.daily_return[row] == market.daily_return[row]
        if row > rows[0] and row not in market.events and published:
            old = float(market.unit_nav[row])
            new = round(old * (1 + share), 4)
            percent = round((new / float(market.unit_nav[row - 1]) - 1) * 100, 2)
            accum = round(float(market.accum_nav[row]) + new - old, 4)
            return code, old, {"unit_nav": new, "accum_nav": accum, "daily_return": percent}
    raise AssertionError("no such fund")


def test_a_small_correction_is_a_revision_and_so_is_taking_it_back(
    nights: Nights, market: Market, standin: StandinServer
) -> None:
    nights.night(DAY, published_at=23)
    code, old, values = a_correction(market, DAY, SMALL * 0.8)
    standin.add_fault("revised", fund_code=code, date=str(DAY), **values)
    assert nights.do("sweep", DAY, 23, 10).record_count == 1
    [revision] = nights.rows(fund_nav_revision)
    assert (revision.fund_code, revision.nav_date, revision.reason) == (code, DAY, "small")
    assert (revision.old_unit_nav, revision.new_unit_nav) == (old, values["unit_nav"])
    [metrics] = waiting_metrics(nights)
    assert json.loads(metrics.params) == {"fund_codes": [code]}
    assert nights.do("sweep", DAY, 23, 20).reason == "nothing new"
    standin.clear_faults()
    assert nights.do("sweep_morning", DAY, 0, 30, later=1).record_count == 1
    [stored] = nights.rows(fund_nav, fund_nav.c.fund_code == code, fund_nav.c.nav_date == DAY)
    assert (stored.unit_nav, len(nights.rows(fund_nav_revision))) == (old, 2)


def test_a_large_correction_waits_where_the_old_value_was_proved(
    nights: Nights, market: Market, standin: StandinServer
) -> None:
    nights.night(DAY, published_at=23)
    code, old, values = a_correction(market, DAY, SMALL * 1.5)
    standin.add_fault("revised", fund_code=code, date=str(DAY), **values)
    assert nights.do("sweep", DAY, 23, 10).reason == "1 of 1 new rows quarantined"
    [held] = nights.rows(quarantine)
    assert (held.fund_code, held.unit_nav, held.reasons) == (code, values["unit_nav"], "revision")
    [stored] = nights.rows(fund_nav, fund_nav.c.fund_code == code, fund_nav.c.nav_date == DAY)
    assert (stored.unit_nav, nights.rows(fund_nav_revision)) == (old, [])


def test_a_bad_row_is_quarantined_once_and_changes_no_metrics(
    nights: Nights, market: Market, standin: StandinServer
) -> None:
    nights.night(DAY, published_at=23)
    code, old, _values = a_correction(market, DAY, SMALL)
    standin.add_fault("revised", fund_code=code, date=str(DAY), unit_nav=round(old * 10, 4))
    end = nights.do("sweep", DAY, 23, 10)
    assert (end.status, end.record_count, end.reason) == (RunStatus.SUCCESS, 0, "1 of 1 new rows quarantined")
    [held] = nights.rows(quarantine)
    assert (held.fund_code, held.unit_nav) == (code, round(old * 10, 4))
    assert nights.do("sweep", DAY, 23, 20).reason == "nothing new"
    assert waiting_metrics(nights) == []


def test_before_the_nights_own_calculation_none_is_queued(nights: Nights) -> None:
    for job in ("collect", "validate"):
        nights.do(job, DAY, 19)
    with db.write(nights.engine) as connection:
        run_store.add_run(
            connection,
            job_id="metrics",
            task="calculate_metrics",
            business_date=DAY,
            status=RunStatus.WAITING,
            now=nights.now,
        )
    assert nights.do("sweep", DAY, 21).record_count > 0
    assert [
        run.status
        for run in nights.rows(job_run, job_run.c.job_id == "metrics", job_run.c.business_date == DAY)
    ] == ["WAITING"]


def test_a_calculation_at_work_has_read_too_early_and_one_follows(nights: Nights) -> None:
    for job in ("collect", "validate"):
        nights.do(job, DAY, 19)
    nights.claim(nights.queue("metrics", DAY))
    nights.do("sweep", DAY, 21)
    assert len(waiting_metrics(nights)) == 1


def test_of_many_changed_funds_the_whole_market_is_calculated(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "FUNDS_NAMED", 3)
    nights.night(DAY)
    mark_metrics(nights, DAY)
    nights.do("sweep", DAY, 21)
    [metrics] = waiting_metrics(nights)
    assert (metrics.params, nights.execute(metrics.id).status) == ("{}", RunStatus.SUCCESS)
    assert len(recalculated(nights, DAY)) == len(nights.rows(fund_metrics, fund_metrics.c.calc_date == DAY))


def test_a_failed_collection_is_tried_again_and_the_chain_with_it(
    nights: Nights, standin: StandinServer
) -> None:
    standin.add_fault("missing_column", path="rankhandler", times=None)
    assert nights.do("collect", DAY, 19).status is RunStatus.FAILED
    standin.clear_faults()
    logged = nights.rows(data_update_log)
    end = nights.do("sweep", DAY, 21)
    assert (end.status, end.reason) == (RunStatus.SKIPPED, "collect was FAILED; it is tried again")
    assert nights.rows(data_update_log) == logged  # fund_nav was not written, and nothing says so
    [collect] = nights.rows(job_run, job_run.c.job_id == "collect", job_run.c.business_date == DAY)
    assert collect.status == "QUEUED"
    assert nights.do("sweep", DAY, 21, 1).reason == "collect is QUEUED"
    assert nights.execute(collect.id).status in (RunStatus.SUCCESS, RunStatus.PARTIAL)


def test_a_refused_night_is_collected_and_judged_anew(nights: Nights, standin: StandinServer) -> None:
    standin.add_fault("thin", path="rankhandler", times=2)
    nights.do("collect", DAY, 19)
    assert nights.do("validate", DAY, 19, 30).status is RunStatus.FAILED
    end = nights.do("sweep", DAY, 21)
    assert end.status is RunStatus.SUCCESS
    assert (
        end.reason
        == f"validate was FAILED; {len(shown(standin.market, at(DAY, 21)))} rows were collected anew"
    )
    states = [(row.kind, row.status) for row in nights.rows(nav_batch, nav_batch.c.business_date == DAY)]
    assert states == [("latest", "REJECTED"), ("latest", "STAGED")]
    [validate] = nights.rows(job_run, job_run.c.job_id == "validate", job_run.c.business_date == DAY)
    assert validate.status == "QUEUED"
    assert nights.do("sweep", DAY, 21, 1).reason == "validate is QUEUED"
    assert nights.execute(validate.id).status is RunStatus.SUCCESS
    assert {row.fund_code for row in nights.rows(fund_nav, fund_nav.c.nav_date == DAY)}


def test_a_batch_that_nobody_has_judged_gives_way_to_a_sweep(nights: Nights) -> None:
    nights.night(DAY)
    nights.do("collect", DAY, 20)  # by hand, say
    nights.do("sweep", DAY, 21)
    states = [(row.kind, row.status) for row in nights.rows(nav_batch, nav_batch.c.business_date == DAY)]
    assert states == [("latest", "MERGED"), ("latest", "SUPERSEDED"), ("sweep", "MERGED")]
    assert nights.do("validate", DAY, 21, 10).reason == "nothing new since batch 2"


def test_two_sweeps_of_a_date_do_not_work_at_once(nights: Nights) -> None:
    nights.night(DAY)
    nights.claim(nights.queue("sweep", DAY))
    end = nights.do("sweep_morning", DAY, 8, later=1)
    assert (end.status, end.reason) == (RunStatus.SKIPPED, "another sweep of this date is at work")


def test_a_date_that_the_pages_have_left_is_filled_from_history_if_it_is_thin(
    nights: Nights, standin: StandinServer
) -> None:
    nights.night(DAY)  # a good quarter of the market, and no sweep that evening
    assert nights.do("sweep", DAY, 20, later=1).status is RunStatus.SUCCESS
    stored = len(nights.rows(fund_nav, fund_nav.c.nav_date == DAY))
    assert stored > 0.9 * len(nights.rows(fund_nav, fund_nav.c.nav_date == EVE))
    assert max(row.nav_date for row in nights.rows(fund_nav)) == DAY  # what is newer is not its business
    standin.requests.clear()
    assert nights.do("sweep_morning", DAY, 20, 1, later=1).reason == "filled already"
    assert standin.requests == Counter()


def test_a_sweep_that_was_declared_dead_writes_nothing_and_the_next_one_does_its_work(nights: Nights) -> None:
    nights.night(DAY)
    nights.standin.set_now(at(DAY, 21))
    run_id = nights.queue("sweep", DAY)
    claim = nights.claim(run_id)
    nights.lose(run_id)
    before = everything(nights)
    end = nights.work_on(run_id, claim)
    assert end.reason is not None
    assert end.reason.startswith("claim_lost: ")
    assert (everything(nights), nights.run(run_id).status, waiting_metrics(nights)) == (
        before,
        "INTERRUPTED",
        [],
    )
    assert nights.do("sweep", DAY, 21).record_count > 0


def test_a_back_fill_that_was_declared_dead_writes_no_more(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "HISTORY_BATCH_FUNDS", 20)
    run_id = nights.queue("backfill", DAY, start="2025-11-03", end=str(EVE))
    states: list[dict[str, list[tuple[Any, ...]]]] = []

    def die_in_the_second_batch(done: int, _total: int | None, _unit: str) -> None:
        if done == 25:
            nights.lose(run_id)
            states.append(everything(nights))

    end = nights.execute(run_id, die_in_the_second_batch)
    assert end.reason is not None
    assert end.reason.startswith("claim_lost: ")
    assert [everything(nights)] == states
    assert [(row.kind, row.status) for row in nights.rows(nav_batch)][1:] == [("history", "MERGED")]
    assert nights.run(run_id).status == "INTERRUPTED"


def test_a_back_fill_that_dies_between_judging_and_merging_merges_nothing(nights: Nights) -> None:
    run_id = nights.queue("backfill", DAY, start="2025-11-03", end=str(EVE))
    claim, before = nights.claim(run_id), everything(nights)
    fetched: list[bool] = []

    def clock() -> datetime:
        if True in fetched and nights.run(run_id).status == "RUNNING":
            nights.lose(run_id)
        return nights.now

    nights.clock = clock
    end = nights.work_on(run_id, claim, lambda done, total, *_rest: fetched.append(done == total))
    assert (end.status, str(end.reason)[:12]) == (RunStatus.FAILED, "claim_lost: ")
    assert everything(nights) == before
    assert nights.run(run_id).status == "INTERRUPTED"


W, Q, R, S, P = RunStatus.WAITING, RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.SUCCESS, RunStatus.PARTIAL
F, T, X, C, K = (
    RunStatus.FAILED,
    RunStatus.TIMED_OUT,
    RunStatus.INTERRUPTED,
    RunStatus.CANCELLED,
    RunStatus.SKIPPED,
)


@pytest.mark.parametrize(
    ("collect", "validate", "merged", "reason"),
    [
        (S, S, True, None),
        (P, P, True, None),
        (S, F, True, None),  # a second batch was refused; the first one counts
        (S, None, True, None),
        # the night is at work
        (Q, None, False, "collect is QUEUED"),
        (R, W, False, "collect is RUNNING"),
        (R, S, True, "collect is RUNNING"),
        (S, W, False, "validate is WAITING"),
        (S, R, True, "validate is RUNNING"),
        # what failed is tried again
        (F, W, False, None),
        (T, None, False, None),
        (X, RunStatus.BLOCKED, False, None),
        (S, F, False, None),
        (P, X, False, None),
        # what is wanted so is left so
        (C, W, False, "collect is CANCELLED"),
        (K, K, False, "collect is SKIPPED"),
        (S, C, False, "validate is CANCELLED"),
        (S, S, False, "validate is SUCCESS"),  # filled from history
        (None, None, False, "there is no run of collect for this date"),
        (S, None, False, "there is no run of validate for this date"),
    ],
)
def test_when_a_night_can_be_swept(
    collect: RunStatus | None, validate: RunStatus | None, merged: bool, reason: str | None
) -> None:
    assert sweep_obstacle(collect, validate, merged=merged) == reason


def unseen(engine: Engine, rows: list[Any]) -> list[Any]:
    with db.read(engine) as connection:
        return nav_store.unseen_rows(connection, TUE, rows)


def test_rows_are_compared_value_by_value_with_the_newest_that_were_given(engine: Engine) -> None:
    long = nav(TUE, 0.1234567890123456, 0.123456789012, 1.2345678901234567, code="000003")
    bad, unread = (
        nav(TUE, -1.0, 1.0, code="000004"),
        nav(None, None, code="00005", defect="no date", raw="x,?" * 3000),
    )
    twice = [nav(TUE, 1.1, code="000006"), nav(TUE, 1.2, code="000006")]  # both are held
    rows = [
        nav(TUE, 1.0001, None, 1.5001),
        nav(TUE, 2.0, code="000002", dividend=0.1),
        long,
        bad,
        unread,
        *twice,
    ]
    assert process(engine, rows * 3, "latest", TUE).is_valid is False  # a refused batch tells nothing
    assert unseen(engine, rows) == rows
    stage(engine, rows, "latest", TUE)  # nor does one that nobody has judged
    assert unseen(engine, rows) == rows
    assert process(engine, rows, "sweep", TUE).is_valid
    assert unseen(engine, rows) == []
    elsewhere = [row._replace(origin="navs.csv:7") for row in rows]
    assert unseen(engine, elsewhere) == []
    others = [
        rows[0]._replace(accum_nav=None),
        rows[1]._replace(dividend=0.2),
        unread._replace(raw="y"),
        rows[0]._replace(fund_code="000007"),
    ]
    assert unseen(engine, others) == others
    assert unseen(engine, twice[:1]) == twice[:1]  # alone it contradicts nobody
    third = [twice[0], nav(TUE, 1.3, code="000006")]
    assert unseen(engine, [*rows[:5], *third]) == third  # judged together again
    process(engine, [rows[0]._replace(unit_nav=1.0002)], "sweep", TUE)
    assert unseen(engine, rows[:2]) == rows[:1]  # what was taken back is news


def test_an_evening_and_a_morning_of_the_daemon(
    sqlite_engine: Engine, standin: StandinServer, tmp_path: Path
) -> None:
    standin.set_now(at(DAY, 19))
    with DaemonProcess(sqlite_engine, tmp_path, standin.url, at(DAY, 18)) as process:
        process.set_clock(at(DAY, 20, 31))
        process.reach(DAY, {"metrics": "SUCCESS"})
        stored = count(sqlite_engine)
        standin.set_now(at(DAY, 21))
        process.set_clock(at(DAY, 21))
        process.reach(DAY, {"sweep": "SUCCESS"})
        assert count(sqlite_engine) > stored
        until(
            lambda: [(run.requested_by, run.status) for run in process.runs(DAY) if run.job_id == "metrics"],
            lambda found: found == [("schedule", "SUCCESS"), ("sweep", "SUCCESS")],
            "the metrics of the late funds",
        )
        process.set_clock(
            at(AFTER, 8)
        )  # 23:00 is caught up, and whoever of the two comes first does the work
        until(
            lambda: [(run.job_id, run.status) for run in process.runs(DAY) if run.task == "sweep_nav"],
            lambda found: (
                len(found) == 3 and found[1][1] == "SUCCESS" and found[2][1] in ("SUCCESS", "SKIPPED")
            ),
            "the sweeps of 23:00 and of the morning",
        )


def count(engine: Engine) -> int:
    with db.read(engine) as connection:
        return connection.execute(select(func.count()).select_from(fund_nav)).scalar_one()
