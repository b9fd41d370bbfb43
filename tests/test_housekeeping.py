"""Cleanup on both databases, by hand-made rows; the watch over the disk; the copy elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select

from config.settings import load_settings
from core import db, retention
from core.errors import ConfigurationError
from core.schema import (
    backfilled_fund,
    data_update_log,
    job_command,
    job_run,
    nav_batch,
    quarantine,
    rule_result,
    run_attempt,
    run_event,
    tmp_fund_nav,
)
from core.standin import StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler.housekeeping import Space, size_verdict
from scheduler.job import RunStatus
from tests.daemon import at
from tests.mariadb import missing
from tests.nights import Nights

DAY = date(2025, 11, 28)  # a Friday
NOW = at(DAY + timedelta(days=2), 4)
MB = 1_000_000


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


@pytest.fixture(scope="module")
def standin() -> Iterator[StandinServer]:
    with StandinServer(simulated_market(10, date(2025, 11, 3), DAY, 7, library_sessions())) as server:
        yield server


@pytest.fixture
def nights(engine: Engine, standin: StandinServer) -> Nights:
    return Nights(engine, standin, NOW)


def batch(engine: Engine, age: float, rows: int, status: str = "MERGED") -> int:
    with db.write(engine) as connection:
        number = db.new_id(
            connection.execute(
                insert(nav_batch).values(
                    kind="latest",
                    business_date=ago(age).date(),
                    source="x",
                    provenance="x",
                    collected_at=ago(age),
                    row_count=rows,
                    status=status,
                )
            )
        )
        staged = [(number, n, f"{n:06d}") for n in range(1, rows + 1)]
        db.bulk_insert(connection, tmp_fund_nav, ("batch_id", "row_no", "fund_code"), staged)
        rule = {"batch_id": number, "rule_id": "x", "severity": "error", "checked": 1, "failed": 0}
        connection.execute(insert(rule_result).values(**rule, detail="[]"))
    return number


def run(engine: Engine, job: str, age: float, status: str = "SUCCESS", **values: Any) -> int:
    """A run with an attempt and an event."""
    with db.write(engine) as connection:
        made = {"task": "x", "business_date": ago(age).date(), "params": "{}", "requested_by": "x"}
        made |= {"queued_at": ago(age), "status": status} | values
        number = db.new_id(connection.execute(insert(job_run).values(job_id=job, **made)))
        connection.execute(
            insert(run_event).values(run_id=number, at=ago(age), to_status=status, topic="run.x")
        )
        ended = {"started_at": ago(age), "finished_at": ago(age)}
        connection.execute(insert(run_attempt).values(run_id=number, attempt=1, status=status, **ended))
    return number


def clean(nights: Nights) -> Any:
    nights.now = NOW
    return nights.execute(nights.queue("cleanup", DAY))


def ids(nights: Nights, table: Any, column: str = "id") -> list[Any]:
    return sorted(getattr(row, column) for row in nights.rows(table))


def test_staged_rows_go_after_thirty_days_and_their_batches_stay(nights: Nights) -> None:
    """More rows than a step takes, so that steps begin and end within batches."""
    old = [batch(nights.engine, 40, 1700), batch(nights.engine, 31, 2, "STAGED")]
    young = batch(nights.engine, 29, 3, "STAGED")
    ancient = batch(nights.engine, 366, 1)  # of an id behind a younger one: it waits until that may go
    end = clean(nights)
    assert (end.status, end.record_count) == (RunStatus.SUCCESS, 1702)
    assert end.reason == "removed: staging 1,702"
    assert {row.batch_id for row in nights.rows(tmp_fund_nav)} == {young, ancient}
    assert {row.id: row.status for row in nights.rows(nav_batch)} == {
        old[0]: "MERGED",
        old[1]: "EXPIRED",
        young: "STAGED",
        ancient: "MERGED",
    }
    with db.read(nights.engine) as connection:
        [log] = connection.execute(
            select(data_update_log).where(data_update_log.c.table_name == "expired")
        ).all()
    assert (log.record_count, log.status) == (1702, "SUCCESS")


def test_a_job_keeps_its_newest_hundred_runs_its_last_fire_and_what_others_wait_for(nights: Nights) -> None:
    engine = nights.engine
    waited_for = ago(250).date()
    gone = run(engine, "collect", 300)
    needed = run(engine, "collect", 250)
    fire = run(engine, "collect", 240, scheduled_for=ago(240))
    stuck = run(engine, "validate", 250, "WAITING", business_date=waited_for)
    kept = [run(engine, "collect", 200) for _ in range(100)]
    rare = run(engine, "weekly", 1000)
    end = clean(nights)
    left = ids(nights, job_run)
    assert gone not in left
    assert {needed, fire, stuck, rare, *kept} <= set(left)
    assert gone not in ids(nights, run_attempt, "run_id")
    assert {needed, rare} <= set(ids(nights, run_attempt, "run_id"))
    # Events go after 30 days, but for those of runs under way; the cleanup has two of its own.
    events = [row.run_id for row in nights.rows(run_event)]
    assert stuck in events
    assert not {needed, fire, rare} & set(events)
    assert end.reason == "removed: events 104, runs 1"  # the run's own event was gone before


def test_what_is_kept_for_its_own_time(nights: Nights) -> None:
    engine = nights.engine
    log = {"update_date": DAY, "record_count": 1, "status": "SUCCESS", "duration_seconds": 1.0}
    held = {"batch_id": 1, "source": "x", "fund_code": "1", "reasons": "x"}
    command = {"action": "pause", "params": "{}", "requested_by": "x", "expires_at": NOW}
    with db.write(engine) as connection:
        for name, age in (("a", 100), ("a", 91), ("a", 89), ("b", 500)):
            times = {"start_time": ago(age), "end_time": ago(age)}
            connection.execute(insert(data_update_log).values(table_name=name, **log, **times))
        for n, (age, resolution) in enumerate(((400, "REJECTED"), (300, "RELEASED"), (4000, None))):
            decided = {"resolution": resolution, "resolved_at": ago(age) if resolution else None}
            connection.execute(
                insert(quarantine).values(row_hash=f"{n:064d}", held_at=ago(4000), **held, **decided)
            )
        for age, status in ((181, "DONE"), (179, "DONE"), (181, "PENDING")):
            connection.execute(insert(job_command).values(requested_at=ago(age), status=status, **command))
        for age in (61, 59):
            filled = {"run_id": age, "fund_code": "1", "row_count": 1, "merged_at": ago(age)}
            connection.execute(insert(backfilled_fund).values(**filled))
    old, young = batch(engine, 366, 0), batch(engine, 364, 0)
    end = clean(nights)
    # The newest log row of a table stays, however old.
    assert [(row.table_name, row.end_time) for row in nights.rows(data_update_log)][:2] == [
        ("a", ago(89)),
        ("b", ago(500)),
    ]
    assert [row.resolution for row in nights.rows(quarantine)] == ["RELEASED", None]
    assert [row.status for row in nights.rows(job_command)] == ["DONE", "PENDING"]
    assert ids(nights, backfilled_fund, "run_id") == [59]
    assert (old, [row.batch_id for row in nights.rows(rule_result)]) == (old, [young])
    assert end.record_count == 2 + 1 + 1 + 1 + 1


def test_files_go_with_their_time_and_settings_change_it(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAVKEEPER_RETENTION_DAYS", "staging=10, logs=20")
    nights.settings = load_settings()
    batch(nights.engine, 11, 4)
    logs = nights.settings.logs
    for name, age in (
        ("runs/1.1.log", 21),
        ("runs/2.1.log", 19),
        ("weekly/a.html", 366),
        ("weekly/b.html", 364),
    ):
        path = logs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (ago(age).timestamp(),) * 2)
    assert clean(nights).reason == "removed: staging 4, files 2"
    assert sorted(path.name for path in logs.rglob("*") if path.is_file()) == ["2.1.log", "b.html"]


@pytest.mark.parametrize("value", ["staging", "staging=0", "staging=30,x=1", "staging=1.5", "=3"])
def test_a_wrong_retention_is_refused_with_what_is_allowed(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAVKEEPER_RETENTION_DAYS", value)
    with pytest.raises(ConfigurationError, match=r"NAVKEEPER_RETENTION_DAYS = .* is not allowed: "):
        load_settings()


def test_a_cleanup_that_is_taken_away_keeps_what_it_has_removed(nights: Nights) -> None:
    batch(nights.engine, 40, 3000)
    run_id = nights.queue("cleanup", DAY)
    claim, seen = nights.claim(run_id), []

    def lose(done: int, _total: int | None, _text: str) -> None:
        seen.append(done)
        if done >= 500 and len(seen) == 1:
            nights.lose(run_id)

    end = nights.work_on(run_id, claim, lose)
    assert (end.status, seen[0]) == (RunStatus.FAILED, 500)
    assert nights.run(run_id).status == "INTERRUPTED"
    with db.read(nights.engine) as connection:
        assert connection.scalar(select(func.count()).select_from(tmp_fund_nav)) == 2500
    assert clean(nights).record_count == 2500


def test_every_retention_is_found_by_its_name() -> None:
    assert retention.kept_days({"runs": 7}) == {
        "staging": 30,
        "backfills": 60,
        "events": 30,
        "logs": 90,
        "runs": 7,
        "commands": 180,
        "quarantine": 365,
        "rules": 365,
        "technical": 90,
        "fundamental": 180,
        "news": 30,
        "risk": 90,
    }


def test_the_watch_says_when_the_disk_will_be_full() -> None:
    """1,000 MB used; a disk of 10,000 MB."""
    here = Path("/data")
    quiet = size_verdict(Space(1000 * MB, 5000 * MB, 10_000 * MB, None), here)
    assert quiet == (RunStatus.SUCCESS, 1000, "1,000 MB; 5,000 MB free at /data, 50%")
    steady = size_verdict(Space(1000 * MB, 3100 * MB, 10_000 * MB, 100.0 * MB), here)
    assert steady[0] is RunStatus.SUCCESS
    fast = size_verdict(Space(1000 * MB, 2900 * MB, 10_000 * MB, 100.0 * MB), here)
    assert (fast[0], fast[2][:30]) == (RunStatus.PARTIAL, "the disk is full in 29 days: 1")
    full = size_verdict(Space(1000 * MB, 999 * MB, 10_000 * MB, -5.0 * MB), here)
    assert (full[0], full[2][:31]) == (RunStatus.PARTIAL, "the disk is under 10% free: 1,0")


def test_the_watch_measures_growth_since_a_week_ago(nights: Nights) -> None:
    log = {"update_date": DAY, "status": "SUCCESS", "duration_seconds": 1.0, "table_name": "database"}
    with db.write(nights.engine) as connection:
        for age, size in ((15, 999_999), (8, 200_000), (1, 999_999)):
            times = {"start_time": ago(age), "end_time": ago(age)}
            connection.execute(insert(data_update_log).values(record_count=size, **log, **times))
    end = nights.execute(nights.queue("size_watch", DAY))
    assert end.status is RunStatus.SUCCESS
    assert 0 <= end.record_count < 50  # MB of an empty database
    assert end.reason is not None
    said = re.search(r"; (-[0-9,.]+) MB a day", end.reason)
    assert said is not None
    grown = (end.record_count - 200_000) / 8
    assert float(said[1].replace(",", "")) == pytest.approx(grown, abs=0.2)  # the size is told in whole MB


def test_the_backup_job_copies_elsewhere_and_says_where_it_could_not(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a real server of S3's interface."""
    try:
        import boto3
        from moto.server import ThreadedMotoServer
    except ModuleNotFoundError as error:
        missing("s3", f"{error.name} is not installed")
    bucket = (
        f"vault-{nights.engine.dialect.name}"  # what one server stores, the next one of the process has too
    )
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("S3", f"s3://{bucket}/fund/navs"),
            ("S3_ENDPOINT", f"http://{host}:{port}"),
            ("S3_KEY", "a-key"),
            ("S3_SECRET", "a-secret"),
        ):
            monkeypatch.setenv(f"NAVKEEPER_BACKUP_{name}", value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client(
            "s3", endpoint_url=f"http://{host}:{port}", aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.create_bucket(Bucket=bucket)
        elsewhere = load_settings()
        assert "a-secret" in elsewhere.secrets()
        monkeypatch.setenv("NAVKEEPER_BACKUP_S3_ENDPOINT", "http://127.0.0.1:9")
        nights.settings = load_settings()
        end = nights.execute(nights.queue("backup", DAY))
        assert end.status is RunStatus.PARTIAL
        assert str(end.reason).startswith("store_unavailable: ")
        nights.settings = elsewhere
        nights.now += timedelta(seconds=1)
        end = nights.execute(nights.queue("backup", DAY))
        [stored] = client.list_objects_v2(Bucket=bucket)["Contents"]
        assert (end.status, stored["Key"].startswith("fund/navs/navkeeper-20251129T200001Z-")) == (
            RunStatus.SUCCESS,
            True,
        )
        [made] = nights.settings.backups.iterdir()  # the first one of the day is gone
        assert client.get_object(Bucket=bucket, Key=stored["Key"])["Body"].read() == made.read_bytes()
    finally:
        server.stop()


def test_the_backup_job_thins_out_what_is_there(nights: Nights) -> None:
    for n in range(10):
        nights.now = NOW + timedelta(days=n)
        end = nights.execute(nights.queue("backup", DAY))
        assert (end.status, "restored on trial" in str(end.reason)) == (RunStatus.SUCCESS, True)
    # Sunday 30 November to Tuesday 9 December: seven days, and the end of November.
    days = sorted(path.name[10:18] for path in nights.settings.backups.iterdir())
    assert days == ["20251129", *(f"2025120{n}" for n in range(2, 9))]
