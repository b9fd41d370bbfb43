"""Recorded history and recorded nights through the real client, the real daemon and both databases."""

from __future__ import annotations

import json
from datetime import date, time, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from core import db
from core.schema import data_update_log, fund_event, fund_metrics, fund_nav_revision
from core.standin import StandinServer, recorded_market
from tests.daemon import DaemonProcess, at
from tests.recorded import merged_rows, part_of, quarantined_rows, recorded_rows
from tests.stored_days import require_counted

NIGHTS = [date(2025, 12, 15) + timedelta(days=n) for n in range(5)]  # Monday to Friday
# The recording of 760 index funds ends on 10 December. When they are more sessions behind than they ever were,
# the night says so.
MISSED_FROM = date(2025, 12, 18)
FULL_FROM = "1998-01-01"


def test_recorded_history_is_merged_or_quarantined_row_for_row(
    engine: Engine, data: Path, tmp_path: Path
) -> None:
    part = part_of(data, tmp_path / "part.parquet", funds=100)
    expected = set(recorded_rows(part))
    assert len(expected) > 80_000
    market = recorded_market(part, time(18), data / "fund_list.csv")
    with StandinServer(market) as standin:
        process = DaemonProcess(engine, tmp_path, standin.url, at(date(2026, 1, 29), 12))
        first = process.main("nav", "--from", FULL_FROM, "--json")
        assert first.returncode == 0, first.stderr
        merged, held = merged_rows(engine), quarantined_rows(engine)
        assert merged | held == expected
        assert not merged & held
        assert 0 < len(held) < len(expected) / 2000
        report = json.loads(first.stdout)
        assert (report["inserted"], report["quarantined"]) == (len(merged), len(held))
        with db.read(engine) as connection:
            events = connection.execute(select(fund_event)).all()
        second = process.main("nav", "--from", FULL_FROM, "--json")
        again = json.loads(second.stdout)
        assert (again["inserted"], again["revised"], again["unchanged"]) == (0, 0, len(merged))
    assert (merged_rows(engine), quarantined_rows(engine)) == (merged, held)
    with db.read(engine) as connection:
        assert connection.execute(select(fund_event)).all() == events
        assert connection.execute(select(func.count()).select_from(fund_nav_revision)).scalar_one() == 0


@pytest.mark.timeout(900)
def test_five_recorded_nights_played_through_the_daemon(engine: Engine, data: Path, tmp_path: Path) -> None:
    part = part_of(
        data, tmp_path / "part.parquet", since=date(2025, 10, 9), until=NIGHTS[-1] + timedelta(days=5)
    )
    market = recorded_market(part, time(18), data / "fund_list.csv")
    eve = date(2025, 12, 12)
    with StandinServer(market, now=at(eve, 23)) as standin:
        process = DaemonProcess(engine, tmp_path, standin.url, at(eve, 23))
        assert process.main("nav", "--from", "2025-10-09").returncode == 0
        before = len(merged_rows(engine))
        assert before > 100_000
        standin.requests.clear()
        process.set_clock(at(NIGHTS[0], 12))
        with process:
            for night in NIGHTS:
                standin.set_now(at(night, 18, 59))
                play(process, night)
                held = quarantined_rows(engine)
                assert merged_rows(engine) == set(recorded_rows(part, night)) - held
            # The clock passed over the sweeps: caught up when the pages had moved on, they found the night stored.
            slept = [run for run in process.runs() if run.task == "sweep_nav" and run.business_date != eve]
            assert {(run.status, run.reason) for run in slept} >= {("SUCCESS", "filled already")}
            assert {run.status for run in slept} <= {"SUCCESS", "SKIPPED", "MISSED"}
            assert {path for path in standin.requests if "pingzhongdata" in path or "lsjz" in path} == set()
        assert len(merged_rows(engine)) > before + 5 * 1500
        require_counted(engine)
        # 159970 was split 1:6 on the last night. Not the whole-market page says so, but the list of splits at 18:30.
        assert ("159970", "2025-12-19", "0.9796", "1.2865") in merged_rows(engine)
        split = (fund_event.c.fund_code == "159970", fund_event.c.ex_date == NIGHTS[-1])
        with db.read(engine) as connection:
            found = connection.execute(select(fund_event).where(*split)).one()
        assert (found.kind, found.value, found.evidence) == ("split", 6.0, "published")


def play(process: DaemonProcess, night: date) -> None:
    """One evening, step by step; every step leaves exactly one row."""
    process.set_clock(at(night, 19))
    process.reach(night, {"collect": "SUCCESS"})
    process.set_clock(at(night, 19, 30))
    validated = "PARTIAL" if night >= MISSED_FROM else "SUCCESS"
    process.reach(night, {"validate": validated})
    process.set_clock(at(night, 20, 30))
    process.reach(night, {"metrics": "SUCCESS"})
    steps = ["tmp_fund_nav", "fund_nav", "fund_metrics"]
    chain = [row for row in process.update_log(night) if row[0] in steps]
    assert chain == list(zip(steps, ("SUCCESS", validated, "SUCCESS"), strict=True))
    with db.read(process.engine) as connection:
        mine = (data_update_log.c.update_date == night, data_update_log.c.table_name.in_(steps))
        log = connection.execute(select(data_update_log).where(*mine)).all()
        measured = connection.execute(
            select(func.count()).select_from(fund_metrics).where(fund_metrics.c.calc_date == night)
        ).scalar_one()
    assert all(row.record_count > 3000 and row.duration_seconds >= 0 for row in log)
    assert measured > 3000
