"""How runs end: with their row in data_update_log, or without one."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Engine

from core.schema import data_update_log, job_run, run_attempt
from core.standin import StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler.job import RunStatus
from tests.daemon import at
from tests.nights import Nights

DAY = date(2025, 11, 27)


def test_a_run_that_was_skipped_is_no_update(engine: Engine) -> None:
    market = simulated_market(2, date(2025, 11, 3), DAY, 7, library_sessions())
    with StandinServer(market, now=at(DAY, 22)) as standin:
        nights = Nights(engine, standin, at(DAY, 22))
        skipped = nights.do("sweep", DAY, 22)  # nothing was collected
        assert (skipped.status, skipped.reason) == (
            RunStatus.SKIPPED,
            "there is no run of collect for this date",
        )
        assert [(row.job_id, row.status) for row in nights.rows(job_run)] == [("sweep", "SKIPPED")]
        assert [row.status for row in nights.rows(run_attempt)] == ["SKIPPED"]
        assert nights.rows(data_update_log) == []
        assert nights.do("validate", DAY, 22).status is RunStatus.FAILED  # nothing is staged
        assert [(row.table_name, row.status) for row in nights.rows(data_update_log)] == [
            ("fund_nav", "FAILURE")
        ]
