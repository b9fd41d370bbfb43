"""A small database as it looks at 22:10 in Shanghai on Wednesday 2026-01-28, all written by hand."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, insert

from core.db import write
from core.nav_days import add_rows
from core.schema import (
    daemon,
    data_update_log,
    fund_info,
    fund_metrics,
    fund_nav,
    job_run,
    money_fund_yield,
    nav_batch,
    quarantine,
    rule_result,
    tmp_fund_nav,
)
from core.trading_calendar import SHANGHAI, store_calendar
from scheduler.jobs_file import load_jobs

ROOT = Path(__file__).resolve().parents[1]
JOBS = load_jobs(ROOT / "config" / "jobs.toml")
CLOSED = {date(2026, 1, 1), date(2026, 1, 2), *(date(2026, 2, day) for day in (16, 17, 18, 19, 20, 23))}
NIGHT = date(2026, 1, 28)
FUNDS, FUNDS_TONIGHT, MONEY = 100, 98, 7


def at(text: str) -> datetime:
    """An instant from Shanghai's wall clock: "2026-01-28 22:10"."""
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


NOW = at("2026-01-28 22:10:05")


def add_calendar(connection: Connection) -> None:
    """December 2025 to February 2026 as the exchange announced them."""
    days = (date(2025, 12, 1) + timedelta(days=n) for n in range(90))
    store_calendar(connection, [day for day in days if day.weekday() < 5 and day not in CLOSED], [])


def add_navs(connection: Connection, day: date, funds: int, batch: int = 1) -> None:
    rows = [
        {"fund_code": f"{n:06d}", "nav_date": day, "unit_nav": 1.0 + n / 1000, "batch_id": batch}
        for n in range(1, funds + 1)
    ]
    connection.execute(insert(fund_nav), rows)
    add_rows(connection, fund_nav, {day: funds})


def add_money(connection: Connection, day: date) -> None:
    rows = [
        {"fund_code": f"9{n:05d}", "nav_date": day, "income_per_10k": 0.5, "yield_7d": 1.4, "batch_id": 1}
        for n in range(MONEY)
    ]
    connection.execute(insert(money_fund_yield), rows)
    add_rows(connection, money_fund_yield, {day: MONEY})


def add_metrics(connection: Connection, day: date, funds: int) -> None:
    rows = [
        {
            "fund_code": f"{n:06d}",
            "calc_date": day,
            "definition_version": "1",
            "nav_date": day,
            "nav_count": 3,
        }
        for n in range(1, funds + 1)
    ]
    connection.execute(insert(fund_metrics), rows)


def add_batch(
    connection: Connection, day: date, *, status: str = "MERGED", provenance: str = "https://fund.example"
) -> int:
    result = connection.execute(
        insert(nav_batch).values(
            kind="latest",
            business_date=day,
            source="eastmoney",
            provenance=provenance,
            collected_at=at(f"{day} 19:01"),
            row_count=105,
            status=status,
            decided_at=at(f"{day} 19:31"),
        )
    )
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def add_run(
    connection: Connection,
    job: str,
    day: date,
    status: str,
    start: str,
    seconds: float | None = 60,
    records: int | None = None,
    reason: str | None = None,
) -> None:
    """A scheduled run; `seconds` None leaves it unfinished, and one that never began is not started."""
    begun = at(f"{day} {start}")
    never = status in ("WAITING", "BLOCKED", "QUEUED", "SKIPPED")
    connection.execute(
        insert(job_run).values(
            job_id=job,
            task=JOBS[job].task,
            business_date=day,
            scheduled_for=begun,
            params="{}",
            status=status,
            active_key=job if status == "RUNNING" else None,
            reason=reason,
            requested_by="schedule",
            queued_at=begun,
            started_at=None if never else begun,
            finished_at=None if seconds is None or never else begun + timedelta(seconds=seconds),
            record_count=records,
        )
    )


def add_log(connection: Connection, table: str, day: date, status: str, end: str, count: int) -> None:
    finish = at(f"{day} {end}")
    connection.execute(
        insert(data_update_log).values(
            table_name=table,
            update_date=day,
            record_count=count,
            status=status,
            start_time=finish - timedelta(seconds=30),
            end_time=finish,
            duration_seconds=30.0,
        )
    )


def add_daemon(connection: Connection, heartbeat: datetime, stopped: datetime | None = None) -> None:
    """A daemon of another host, so that nobody looks for its process here."""
    connection.execute(
        insert(daemon).values(
            id=1,
            host="night",
            pid=4321,
            started_at=at("2026-01-05 08:00"),
            heartbeat_at=heartbeat,
            stopped_at=stopped,
        )
    )


def add_quarantined(connection: Connection, batch: int, code: str) -> None:
    connection.execute(
        insert(quarantine).values(
            row_hash=code * 10,
            batch_id=batch,
            source="eastmoney",
            fund_code=code,
            reasons="nav_positive",
            held_at=at("2026-01-28 19:31"),
        )
    )


def add_staged(connection: Connection, batch: int, held: list[int]) -> None:
    """As many staged rows as `held` has marks: 0 good, 1 quarantined, 2 a repeat."""
    rows = [
        {"batch_id": batch, "row_no": n, "fund_code": f"{n:06d}", "held": mark}
        for n, mark in enumerate(held, 1)
    ]
    connection.execute(insert(tmp_fund_nav), rows)


def add_gate(connection: Connection, batch: int, failed: int) -> None:
    connection.execute(
        insert(rule_result).values(
            batch_id=batch,
            rule_id="coverage",
            severity="gate",
            checked=100,
            failed=failed,
            detail='["bond: 3 of 40"]',
        )
    )


def fill(engine: Engine, *, provenance: str = "http://127.0.0.1:8600 SIMULATED market, seed 7") -> None:
    """A good night after a good night, a refused batch the day before, a daemon 3 s ago."""
    tuesday = date(2026, 1, 27)
    with write(engine) as connection:
        add_calendar(connection)
        connection.execute(
            insert(fund_info),
            [
                {
                    "fund_code": f"{n:06d}",
                    "fund_name": f"基金{n}",
                    "fund_type": "混合型-灵活",
                    "category": "mixed",
                    "updated_at": NOW,
                }
                for n in range(1, FUNDS + 1)
            ],
        )
        refused = add_batch(connection, tuesday, status="REJECTED")
        add_gate(connection, refused, 37)
        for day, funds in ((date(2026, 1, 26), FUNDS), (tuesday, FUNDS), (NIGHT, FUNDS_TONIGHT)):
            batch = add_batch(connection, day, provenance=provenance)
            add_gate(connection, batch, 0)
            add_navs(connection, day, funds, batch)
            add_money(connection, day)
            add_metrics(connection, day, funds)
            add_log(connection, "tmp_fund_nav", day, "SUCCESS", "19:01", 105)
            add_log(connection, "fund_nav", day, "SUCCESS", "19:31", funds)
            add_log(connection, "fund_metrics", day, "SUCCESS", "20:31", funds)
            add_run(connection, "collect", day, "SUCCESS", "19:00", 41.5, 105)
            add_run(connection, "validate", day, "SUCCESS", "19:30", 2, funds)
            add_run(connection, "metrics", day, "SUCCESS", "20:30", 75, funds)
        add_run(connection, "collect", date(2026, 1, 23), "FAILED", "19:00", 9, None, "no answer in 10 s")
        add_quarantined(connection, refused, "000001")
        add_quarantined(connection, refused, "000002")
        add_quarantined(connection, batch, "000003")
        add_daemon(connection, NOW - timedelta(seconds=3))
