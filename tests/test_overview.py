"""The overview of databases written by hand: what it says is worked out in the test, not by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, event, insert, update
from sqlalchemy.engine import URL

from core import nav_days
from core.db import connect, write
from core.errors import DatabaseUnavailable, SchemaOutdated
from core.schema import (
    daemon,
    fund_metrics,
    fund_nav,
    metadata,
    money_fund_yield,
    nav_batch,
    nav_day,
    trade_calendar,
)
from core.trading_calendar import store_calendar
from scheduler.overview import Overview, collect_overview, observer_engine
from scheduler.process_identity import process_of, this_process
from tests import example_night as night
from tests.example_night import JOBS, NOW, at


@pytest.fixture
def bare(sqlite_url: URL) -> Iterator[Engine]:
    """Tables and nothing in them, not even a calendar."""
    yield from _with_tables(sqlite_url)


@pytest.fixture
def filled(bare: Engine) -> Engine:
    night.fill(bare)
    return bare


@pytest.fixture
def filled_of_each_kind(url: URL) -> Iterator[Engine]:
    for engine in _with_tables(url):
        night.fill(engine)
        yield engine


def _with_tables(url: URL) -> Iterator[Engine]:
    engine = connect(url)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def look(engine: Engine, now: datetime = NOW) -> Overview:
    return collect_overview(engine, JOBS, now)


def codes(overview: Overview) -> list[str]:
    return [reason.code for reason in overview.verdict.reasons]


def beat(engine: Engine, now: datetime) -> None:
    with write(engine) as connection:
        connection.execute(update(daemon).values(heartbeat_at=now))


def test_a_good_night(filled_of_each_kind: Engine) -> None:
    overview = look(filled_of_each_kind)
    assert (overview.verdict.state, codes(overview)) == ("OK", ["fresh"])
    assert overview.expected_date == date(2026, 1, 28)
    nav = overview.table("fund_nav")
    assert (nav.newest_date, nav.rows, nav.previous_date, nav.previous_rows) == (
        date(2026, 1, 28),
        98,
        date(2026, 1, 27),
        100,
    )
    assert (nav.sessions_behind, nav.coverage) == (0, 0.98)
    assert nav.last_update is not None
    assert (nav.last_update.status, nav.last_update.records) == ("SUCCESS", 98)
    assert overview.table("money_fund_yield").rows == 7
    assert overview.table("tmp_fund_nav").rows == 105
    chain = [(step.job, step.run and step.run.status) for step in overview.chain]
    beside = [("sweep", None), ("reference", None), ("repair", None)]
    assert chain == [("collect", "SUCCESS"), ("validate", "SUCCESS"), ("metrics", "SUCCESS"), *beside]
    assert [run.job for run in overview.runs_24h] == ["metrics", "validate", "collect"]
    assert overview.runs_24h[2].seconds == 41.5
    assert overview.next_command == "python main.py monitor --watch"


def test_provenance_quarantine_and_gate(filled_of_each_kind: Engine) -> None:
    overview = look(filled_of_each_kind)
    assert overview.simulated
    assert overview.last_batch is not None
    assert overview.last_batch.provenance.startswith("http://127.0.0.1:8600 SIMULATED")
    assert (overview.quarantine.total, overview.quarantine.new_in_last_batch) == (3, 1)
    gate = overview.last_failed_gate
    assert gate is not None
    assert (gate.business_date, gate.rule, gate.failed, gate.detail) == (
        date(2026, 1, 27),
        "coverage",
        37,
        ["bond: 3 of 40"],
    )


def test_live_data_is_not_called_simulated(bare: Engine) -> None:
    night.fill(bare, provenance="https://fund.example")
    assert not look(bare).simulated
    with write(bare) as connection:
        night.add_batch(connection, night.NIGHT, status="REJECTED", provenance="SIMULATED")
    assert look(bare).simulated  # the newest batch, whatever became of it
    with write(bare) as connection:
        night.add_batch(connection, night.NIGHT, status="STAGED", provenance="https://fund.example")
    assert not look(bare).simulated  # none of the refused rows is in the tables


def test_success_rates_count_finished_runs_only(filled_of_each_kind: Engine) -> None:
    with write(filled_of_each_kind) as connection:
        night.add_run(connection, "validate", night.NIGHT, "TIMED_OUT", "21:30", 3600)
        night.add_run(connection, "validate", night.NIGHT, "SKIPPED", "21:31")
        night.add_run(connection, "validate", night.NIGHT, "BLOCKED", "21:32")
        night.add_run(connection, "validate", date(2026, 1, 20), "FAILED", "19:30")  # 8 days ago
    rates = {
        rate.job: (rate.succeeded, rate.finished, rate.rate) for rate in look(filled_of_each_kind).success_7d
    }
    assert rates == {
        "collect": (3, 4, 0.75),
        "validate": (3, 4, 0.75),
        "metrics": (3, 3, 1.0),
        **dict.fromkeys((job for job in JOBS if job not in ("collect", "validate", "metrics")), (0, 0, None)),
    }


@pytest.mark.parametrize(
    ("now", "expected", "behind"),
    [
        ("2026-01-28 21:59", date(2026, 1, 27), 0),  # tonight's chain may still run
        ("2026-01-28 22:00", date(2026, 1, 28), 0),
        ("2026-01-29 21:59", date(2026, 1, 28), 0),
        ("2026-01-29 22:00", date(2026, 1, 29), 1),
        ("2026-01-31 12:00", date(2026, 1, 30), 2),  # a Saturday: Thursday and Friday are missing
        ("2026-02-02 09:00", date(2026, 1, 30), 2),  # Monday morning asks for no more than Friday
    ],
)
def test_lateness_counts_trading_days(filled: Engine, now: str, expected: date, behind: int) -> None:
    beat(filled, at(now))
    overview = look(filled, at(now))
    assert overview.expected_date == expected
    assert overview.table("fund_nav").sessions_behind == behind
    assert overview.verdict.state == ("LATE" if behind else "OK")
    if behind:
        assert overview.next_command == f"python main.py all --date {expected}"


@pytest.mark.parametrize("now", ["2026-01-26 08:00", "2026-02-23 23:30", "2026-02-24 21:00"])
def test_no_false_delay_after_weekend_or_holiday(bare: Engine, now: str) -> None:
    last = date(2026, 1, 23) if now < "2026-02" else date(2026, 2, 13)  # Fridays
    with write(bare) as connection:
        night.add_calendar(connection)
        night.add_daemon(connection, at(now))
        night.add_navs(connection, last, 5)
        night.add_metrics(connection, last, 5)
    overview = look(bare, at(now))
    assert (overview.expected_date, overview.verdict.state) == (last, "OK")


def test_rows_of_closed_days_do_not_hide_a_missing_friday(bare: Engine) -> None:
    now = at("2026-02-01 10:00")  # Sunday
    with write(bare) as connection:
        night.add_calendar(connection)
        night.add_daemon(connection, now)
        night.add_navs(connection, date(2026, 1, 29), 5)
        night.add_navs(connection, date(2026, 1, 31), 1)  # Saturday
        night.add_navs(connection, date(2026, 2, 1), 1)
        night.add_metrics(connection, date(2026, 1, 29), 5)
    nav = look(bare, now).table("fund_nav")
    assert (nav.newest_date, nav.sessions_behind, nav.rows) == (date(2026, 1, 29), 1, 5)


def test_a_thin_night_and_a_gap_are_late(filled_of_each_kind: Engine) -> None:
    with write(filled_of_each_kind) as connection:
        nav_days.add_rows(connection, fund_nav, {night.NIGHT: 49 - night.FUNDS_TONIGHT})
    overview = look(filled_of_each_kind)  # 49 of 100 left
    assert (overview.verdict.state, codes(overview)) == ("LATE", ["thin"])
    with write(filled_of_each_kind) as connection:
        connection.execute(delete(nav_day).where(nav_day.c.nav_date == date(2026, 1, 27)))
    overview = look(filled_of_each_kind)
    assert codes(overview) == ["gap"]
    assert overview.next_command == "python main.py nav --from 2026-01-27 --to 2026-01-27"


def test_a_thin_night_of_money_funds_is_late(filled: Engine) -> None:
    """3 of 7 of them, while all the others are there."""
    with write(filled) as connection:
        nav_days.add_rows(connection, money_fund_yield, {night.NIGHT: 3 - night.MONEY})
    overview = look(filled)
    assert (overview.verdict.state, codes(overview)) == ("LATE", ["thin"])
    assert overview.verdict.reasons[0].figures == {
        "table": "money_fund_yield",
        "date": night.NIGHT,
        "rows": 3,
        "previous": date(2026, 1, 27),
        "previous_rows": 7,
    }
    assert overview.next_command == "python main.py all --date 2026-01-28"


@pytest.mark.parametrize(("job", "action"), [("validate", "all"), ("metrics", "metrics")])
def test_a_partial_step_of_the_night_is_incomplete(filled: Engine, job: str, action: str) -> None:
    with write(filled) as connection:
        night.add_run(connection, job, date(2026, 1, 27), "PARTIAL", "21:00", 5, 60, "the night before")
    assert look(filled).verdict.state == "OK"
    with write(filled) as connection:
        night.add_run(connection, job, night.NIGHT, "PARTIAL", "21:00", 5, 60, "60 of 105")
    overview = look(filled)
    assert (overview.verdict.state, codes(overview)) == ("INCOMPLETE", ["partial"])
    assert overview.verdict.reasons[0].figures["reason"] == "60 of 105"
    assert overview.next_command == f"python main.py {action} --date 2026-01-28"
    with write(filled) as connection:
        night.add_run(connection, job, night.NIGHT, "SUCCESS", "21:30", 5, 105)
    assert look(filled).verdict.state == "OK"


def test_rows_that_failed_count_although_known_to_be_bad(filled_of_each_kind: Engine) -> None:
    """105 rows of which the quarantine, keeping each bad row once, says 1; staging knows that 2 failed."""
    with write(filled_of_each_kind) as connection:
        batch = look(filled_of_each_kind).last_batch
        assert batch is not None
        assert batch.held == 1  # without staged rows: the rows that it brought first
        night.add_staged(connection, batch.id, [0] * 100 + [2, 2, 2, 1, 1])
    overview = look(filled_of_each_kind)
    assert (overview.quarantine.total, overview.quarantine.new_in_last_batch) == (3, 2)
    assert (overview.verdict.state, codes(overview)) == ("INCOMPLETE", ["quarantined"])  # 2 of 105: 1.9 %
    assert overview.verdict.reasons[0].figures == {"date": night.NIGHT, "held": 2, "rows": 105}
    assert overview.next_command == "python main.py all --date 2026-01-28"
    with write(filled_of_each_kind) as connection:
        night.add_run(connection, "validate", night.NIGHT, "PARTIAL", "21:00", 5, 60, "2 of 105 quarantined")
    assert codes(look(filled_of_each_kind)) == ["partial"]  # the same thing is said once


def test_a_few_bad_rows_are_a_healthy_night(filled: Engine) -> None:
    with write(filled) as connection:
        batch = look(filled).last_batch
        assert batch is not None
        night.add_staged(connection, batch.id, [0] * 104 + [1])  # 1 of 105: under 1 %
        history = night.add_batch(connection, night.NIGHT)
        connection.execute(
            update(nav_batch).where(nav_batch.c.id == history).values(kind="history", business_date=None)
        )
        night.add_staged(connection, history, [1] * 50)  # a back-fill is not the night
    overview = look(filled)
    assert (overview.verdict.state, overview.quarantine.new_in_last_batch) == ("OK", 50)


def test_missing_metrics_are_late(filled: Engine) -> None:
    with write(filled) as connection:
        connection.execute(delete(fund_metrics).where(fund_metrics.c.calc_date == night.NIGHT))
    overview = look(filled)
    assert (codes(overview), overview.next_command) == (
        ["behind"],
        "python main.py metrics --date 2026-01-28",
    )
    assert overview.verdict.reasons[0].figures["table"] == "fund_metrics"
    with write(filled) as connection:
        connection.execute(delete(fund_metrics))
    assert codes(look(filled)) == ["not_calculated"]


def test_a_failed_job_comes_first_and_is_named(filled_of_each_kind: Engine) -> None:
    with write(filled_of_each_kind) as connection:
        night.add_run(connection, "collect", night.NIGHT, "FAILED", "21:00", 5, None, "no answer in 10 s")
        night.add_run(connection, "validate", night.NIGHT, "BLOCKED", "21:30", None, None, "needs collect")
        connection.execute(delete(daemon))
    overview = look(filled_of_each_kind)
    assert overview.verdict.state == "FAILED"
    assert codes(overview) == ["job_failed", "job_blocked", "daemon_absent"]
    assert overview.verdict.reasons[0].figures["reason"] == "no answer in 10 s"
    assert overview.next_command == "python main.py nav --date 2026-01-28"


def test_a_later_good_run_heals_a_failure(filled: Engine) -> None:
    with write(filled) as connection:
        night.add_run(connection, "collect", night.NIGHT, "FAILED", "21:00", 5)
        night.add_run(connection, "collect", night.NIGHT, "SUCCESS", "21:20", 5)
    assert look(filled).verdict.state == "OK"


def test_a_failed_weekly_job_counts_until_its_next_success(filled: Engine) -> None:
    with write(filled) as connection:
        night.add_run(connection, "weekly", date(2026, 1, 23), "FAILED", "02:00", 5)
    overview = look(filled)
    assert (codes(overview), overview.next_command) == (
        ["job_failed"],
        "python main.py weekly --date 2026-01-23",
    )


def test_a_refused_batch_is_a_failure_until_the_next_one(filled: Engine) -> None:
    with write(filled) as connection:
        batch = night.add_batch(connection, night.NIGHT, status="REJECTED")
        night.add_gate(connection, batch, 60)
    overview = look(filled)
    assert (overview.verdict.state, codes(overview)) == ("FAILED", ["batch_rejected"])
    assert overview.verdict.reasons[0].figures == {"date": night.NIGHT, "gate": "coverage"}
    with write(filled) as connection:
        night.add_batch(connection, night.NIGHT)
    assert look(filled).verdict.state == "OK"


def test_a_running_job_shows_how_long(filled: Engine) -> None:
    with write(filled) as connection:
        night.add_run(connection, "metrics", night.NIGHT, "RUNNING", "22:05", None)
    overview = look(filled)
    assert (overview.verdict.state, codes(overview)) == ("RUNNING", ["job_running"])
    assert overview.verdict.reasons[0].figures["seconds"] == 305  # 22:05:00 to 22:10:05


@pytest.mark.parametrize(
    ("heartbeat", "stopped", "code"),
    [
        (NOW - timedelta(seconds=60), None, None),
        (NOW - timedelta(seconds=61), None, "heartbeat_old"),
        (NOW + timedelta(seconds=61), None, "heartbeat_old"),
        (NOW - timedelta(seconds=1), NOW, "daemon_stopped"),
    ],
)
def test_the_daemon_is_alive_by_its_heartbeat(
    filled: Engine, heartbeat: datetime, stopped: datetime | None, code: str | None
) -> None:
    with write(filled) as connection:
        connection.execute(update(daemon).values(heartbeat_at=heartbeat, stopped_at=stopped))
    overview = look(filled)
    assert overview.daemon.running == (code is None)
    assert overview.verdict.state == ("OK" if code is None else "STOPPED")
    assert codes(overview) == [code or "fresh"]
    if code:
        assert overview.next_command == "python main.py scheduler"


def test_a_daemon_of_this_host_whose_process_is_gone_is_stopped_at_once(filled_of_each_kind: Engine) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = process_of(child.pid)
    with write(filled_of_each_kind) as connection:  # its heartbeat is 3 s old
        connection.execute(
            update(daemon).values(host=process.host, pid=process.pid, pid_started=process.started)
        )
    assert look(filled_of_each_kind).daemon.state == "running"
    child.communicate()
    overview = look(filled_of_each_kind)
    assert (overview.daemon.running, overview.daemon.state) == (False, "daemon_gone")
    assert (overview.verdict.state, codes(overview)) == ("STOPPED", ["daemon_gone"])


def test_a_reused_pid_is_another_process(filled: Engine) -> None:
    def say(**values: object) -> str:
        with write(filled) as connection:
            connection.execute(update(daemon).values(values))
        return look(filled).daemon.state

    mine = this_process()
    assert say(host=mine.host, pid=os.getpid(), pid_started="another boot:1") == "daemon_gone"
    assert say(pid_started="") == "running"  # written by an older version: only its heartbeat counts
    assert say(host="elsewhere", pid_started="another boot:1") == "running"  # cannot be seen from here


def test_next_runs_leave_out_the_holiday(filled: Engine) -> None:
    now = at("2026-02-13 21:00")  # the Friday before Spring Festival
    fires = {run.job: (run.at, run.business_date, run.in_seconds) for run in look(filled, now).next_runs}
    assert fires["collect"] == (
        at("2026-02-24 19:00"),
        date(2026, 2, 24),
        10 * 86400 + 22 * 3600,
    )
    assert fires["weekly"] == (at("2026-02-15 02:00"), date(2026, 2, 13), 29 * 3600)


def test_holiday_runs_do_not_become_the_night_shown(filled: Engine) -> None:
    now = at("2026-02-16 20:00")
    with write(filled) as connection:
        night.add_run(connection, "collect", date(2026, 2, 16), "SKIPPED", "19:00", None, None, "closed")
    assert look(filled, now).chain_date == date(2026, 2, 13)


def test_fresh_databases(bare: Engine) -> None:
    overview = look(bare)
    assert (overview.verdict.state, overview.next_command) == ("EMPTY", "python main.py init")
    assert (overview.expected_date, overview.chain_date, overview.last_batch) == (None, None, None)
    assert len(overview.next_runs) == len(JOBS)
    with write(bare) as connection:
        night.add_calendar(connection)
    overview = look(bare)
    assert codes(overview) == ["no_data", "daemon_absent"]
    assert overview.next_command == "python main.py all"


def test_calendars_that_cannot_say(filled: Engine) -> None:
    late = at("2026-03-09 12:00")
    beat(filled, late)
    overview = look(filled, late)  # the calendar of the example ends on 2026-02-28
    assert "calendar_ends" in codes(overview)
    assert overview.next_command == "python main.py init"
    assert {run.job for run in overview.next_runs} == {"weekly", "cleanup", "backup", "size_watch", "monthly"}
    with write(filled) as connection:
        connection.execute(delete(trade_calendar))
    overview = look(filled, late)
    assert (overview.verdict.state, codes(overview)) == ("LATE", ["no_calendar"])
    assert overview.table("fund_nav").sessions_behind is None


def test_a_provisional_expectation_is_marked(filled: Engine) -> None:
    with write(filled) as connection:
        store_calendar(connection, [date(2026, 1, 26), date(2026, 1, 27)], [date(2026, 1, 28)])
    overview = look(filled)
    assert overview.expected_is_provisional
    assert overview.verdict.state == "OK"


def test_as_json_is_plain_and_carries_offsets(filled_of_each_kind: Engine) -> None:
    document = json.loads(json.dumps(look(filled_of_each_kind).as_json()))
    assert document["now"] == "2026-01-28T22:10:05+08:00"
    assert document["verdict"]["reasons"] == [
        {"state": "OK", "code": "fresh", "figures": {"date": "2026-01-28", "rows": 98}}
    ]
    jobs = (
        *("sweep", "backup", "size_watch", "sweep_morning", "reference", "collect", "validate", "metrics"),
        *("repair", "weekly", "cleanup", "monthly"),
    )
    assert tuple(run["job"] for run in document["next_runs"]) == jobs
    assert document["next_runs"][5] == {
        "job": "collect",
        "at": "2026-01-29T19:00:00+08:00",
        "business_date": "2026-01-29",
        "in_seconds": 74995,  # 20 h 49 min 55 s
    }


def test_a_look_costs_the_same_however_many_rows_there_are(filled: Engine) -> None:
    statements: list[str] = []

    def keep(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(filled, "before_cursor_execute", keep)
    look(filled)
    event.remove(filled, "before_cursor_execute", keep)
    assert [text for text in statements if "FROM nav_day" in text]
    assert not [text for text in statements if "FROM fund_nav" in text or "FROM money_fund_yield" in text]


def test_missing_tables_say_what_to_type(tmp_path: Path) -> None:
    path = tmp_path / "bare.db"
    path.touch()
    with pytest.raises(SchemaOutdated, match=r"run: python main\.py init"):
        look(observer_engine(URL.create("sqlite", database=str(path))))


def test_looking_creates_no_database(tmp_path: Path) -> None:
    path = tmp_path / "mistyped.db"
    engine = observer_engine(URL.create("sqlite", database=str(path)))
    with pytest.raises(DatabaseUnavailable, match="no such file"):
        look(engine)
    assert not path.exists()


def test_looking_while_another_writes_does_not_wait(filled_of_each_kind: Engine) -> None:
    engine = observer_engine(filled_of_each_kind.url)
    with write(filled_of_each_kind) as connection:
        connection.execute(insert(nav_batch).values(**_staged()))
        batch = look(engine).last_batch
        assert batch is not None
        assert batch.status == "MERGED"  # the other's rows are not there before it commits


def _staged() -> dict[str, object]:
    return {
        "kind": "latest",
        "source": "x",
        "provenance": "x",
        "collected_at": NOW,
        "row_count": 0,
        "status": "STAGED",
    }
