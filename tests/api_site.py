"""The web application on a night written by hand, with tokens and without, and somebody who answers as the daemon."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
from flask import Flask
from sqlalchemy import Engine, insert, update
from waitress.server import create_server

from core import db
from core.rank_store import rank_stored
from core.schema import (
    fund_metrics,
    fund_series,
    job_run,
    money_fund_yield,
    nav_day,
    run_attempt,
    run_event,
    tmp_fund_nav,
)
from core.trading_calendar import load_calendar
from scheduler import commands, run_alerts, run_store
from scheduler.health_check import create_health_app
from scheduler.overview import observer_engine
from scheduler.web.access import LARGEST_BODY, LARGEST_HEAD, Access, token_hash
from tests import quality_night
from tests.example_night import JOBS, NIGHT, NOW, add_daemon, at

ADMIN, VIEWER = "nk_the-admin's-token", "nk_the-viewer's-token"
TOKENS = Access(token_hash(VIEWER), token_hash(ADMIN))
TUESDAY = date(2026, 1, 27)
LOG = "first line\nsecond line\nthird line\n"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def fill(engine: Engine, folder: Path) -> None:
    """The night of tests.quality_night, metrics of its funds, a money fund, a failed run with a log, a daemon."""
    quality_night.fill(engine)
    log = folder / "run.log"
    log.write_text(LOG, encoding="utf-8")
    report = folder / "logs" / "quality" / f"{NIGHT}.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("<!DOCTYPE html><title>report</title>", encoding="utf-8")
    with db.write(engine) as connection:
        connection.execute(tmp_fund_nav.delete())
        add_daemon(connection, NOW - timedelta(seconds=3))
        key = {"calc_date": NIGHT, "definition_version": "1", "nav_date": NIGHT, "nav_count": 300}
        for number in range(1, 6):
            values = {"return_1w": float(number), "return_1y": 10.0 - number, "sharpe_1y": 1.0}
            code = f"00000{number}"
            connection.execute(insert(fund_metrics).values(fund_code=code, **key, **values))
        rank_stored(connection, NIGHT)
        connection.execute(
            insert(money_fund_yield).values(
                fund_code="000009",
                nav_date=NIGHT,
                income_per_10k=0.5,
                yield_7d=1.4,
                batch_id=quality_night.OWN,
            )
        )
        for table, code, first, rows in (
            ("fund_nav", "000001", TUESDAY, 2),
            ("money_fund_yield", "000009", NIGHT, 1),
        ):
            connection.execute(
                insert(fund_series).values(
                    table_name=table,
                    fund_code=code,
                    row_count=rows,
                    first_date=first,
                    last_date=NIGHT,
                    changed=1,
                    rewritten=1,
                )
            )
            connection.execute(insert(nav_day).values(table_name=table, nav_date=NIGHT, row_count=rows))
        begun = at("2026-01-28 19:30")
        failed = {"status": "FAILED", "reason": "no answer in 10 s", "attempt": 1, "log_file": str(log)}
        connection.execute(update(job_run).where(job_run.c.id == 2).values(**failed))
        connection.execute(
            insert(run_attempt).values(
                run_id=2,
                attempt=1,
                status="FAILED",
                started_at=begun,
                finished_at=begun + timedelta(seconds=2),
                reason="no answer in 10 s",
                log_file=str(log),
            )
        )
        for number, (old, new) in enumerate((("QUEUED", "RUNNING"), ("RUNNING", "FAILED"))):
            when = begun + timedelta(seconds=2 * number)
            connection.execute(
                insert(run_event).values(
                    run_id=2, at=when, from_status=old, to_status=new, topic=f"run.{new.lower()}"
                )
            )
        run = run_store.get_run(connection, 2)
        assert run is not None
        run_alerts.note_blocked(connection, run, "what needs it waits", begun + timedelta(seconds=3))


def app_of(engine: Engine, access: Access | None = None) -> Flask:
    """Its reports are beside a SQLite database."""
    logs = Path(engine.url.database or "").parent / "logs"
    return create_health_app(observer_engine(engine.url), JOBS, lambda: NOW, access, logs=logs)


@contextlib.contextmanager
def answering(engine: Engine) -> Iterator[None]:
    """Commands are answered by the daemon's own code, in a thread on the stopped clock of the test."""
    done = threading.Event()
    calendar_engine = db.connect(engine.url)

    def answer() -> None:
        while not done.wait(0.02):
            with db.read(calendar_engine) as connection:
                if not commands.any_pending(connection):
                    continue
                calendar = load_calendar(connection)
            assert calendar is not None
            with db.write(calendar_engine) as connection:
                commands.answer_pending(connection, JOBS, calendar, NOW)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(30)
        calendar_engine.dispose()


@contextlib.contextmanager
def served(app: Flask) -> Iterator[httpx.Client]:
    """The application on a real socket, with the limits that main.py health sets."""
    limits: dict[str, Any] = {"max_request_body_size": LARGEST_BODY, "max_request_header_size": LARGEST_HEAD}
    server: Any = create_server(app, host="127.0.0.1", port=0, threads=4, **limits)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.effective_port}"
    try:
        with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
            yield client
    finally:
        with contextlib.suppress(OSError):
            server.trigger.pull_trigger(server.close)
        thread.join(5)
        server.task_dispatcher.shutdown()
