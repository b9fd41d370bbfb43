"""The figures of /metrics, and how Prometheus wants them written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, func, select

from core.db import read
from core.schema import daemon, data_update_log, fund_info, fund_nav, job_run, nav_batch, quarantine
from core.trading_calendar import SHANGHAI, load_calendar
from scheduler.job import DONE_WELL
from scheduler.overview import DATED, newest_trading_day, rows_of

COUNT_SECONDS = 60  # a count is made anew at most this often,
COUNT_HOURS = 1  # and at least this often, in case rows were changed by other hands


class Figures(NamedTuple):
    """What /metrics says."""

    nav_records: int
    counted_at: datetime
    fund_count: int
    quarantined: int
    newest: dict[str, date]  # table -> newest trading day
    rows_newest: int
    heartbeat_at: datetime | None
    last_success: dict[str, datetime]  # job -> end of its newest good run


class NavCount:
    """The exact number of rows in `fund_nav`, counted only when it can have changed.

    Counting 20 million rows takes from half a second to several. Rows change by merges alone, and every merge
    leaves a mark (its log row, its batch's decision): while the newest mark stands, the last count is
    exact. During a back-fill the count may be COUNT_SECONDS old; `at` says when it was made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0
        self._mark: object = None
        self._at: datetime | None = None

    def read(self, connection: Connection, now: datetime) -> tuple[int, datetime]:
        """Rows, and when they were counted. While one thread counts, the others get the last figure."""
        if not self._lock.acquire(blocking=self._at is None):
            assert self._at is not None  # noqa: S101 - for the type checker
            return self._value, self._at
        try:
            mark = connection.execute(
                select(
                    select(func.max(data_update_log.c.id)).scalar_subquery(),
                    select(func.max(nav_batch.c.decided_at)).scalar_subquery(),
                )
            ).one()
            if self._at is None or self._is_old(mark, abs(now - self._at)):
                self._value, self._mark, self._at = _count_navs(connection), mark, now
            return self._value, self._at
        finally:
            self._lock.release()

    def _is_old(self, mark: object, age: timedelta) -> bool:
        limit = timedelta(hours=COUNT_HOURS) if mark == self._mark else timedelta(seconds=COUNT_SECONDS)
        return age >= limit


def _count_navs(connection: Connection) -> int:
    """Year by year through the index on nav_date: no statement is long enough to be timed out."""
    day = fund_nav.c.nav_date
    first = connection.scalar(select(func.min(day)))  # asked for together, SQLite would read the whole index
    last = connection.scalar(select(func.max(day)))
    if first is None or last is None:
        return 0
    total = 0
    for year in range(first.year, last.year + 1):
        within = day.between(date(year, 1, 1), date(year, 12, 31))
        total += connection.scalar(select(func.count()).select_from(fund_nav).where(within)) or 0
    return total


def read_figures(engine: Engine, count: NavCount, now: datetime) -> Figures:
    """Everything of one scrape. Raises DatabaseUnavailable, SchemaOutdated."""
    with read(engine) as connection:
        calendar = load_calendar(connection)
        newest = {table: newest_trading_day(connection, day, calendar) for table, day in DATED.items()}
        successes = connection.execute(
            select(job_run.c.job_id, func.max(job_run.c.finished_at).label("at"))
            .where(job_run.c.status.in_(DONE_WELL))
            .group_by(job_run.c.job_id)
        )
        records, counted_at = count.read(connection, now)
        return Figures(
            nav_records=records,
            counted_at=counted_at,
            fund_count=connection.scalar(select(func.count()).select_from(fund_info)) or 0,
            quarantined=connection.scalar(select(func.count()).select_from(quarantine)) or 0,
            newest={table: day for table, day in newest.items() if day is not None},
            rows_newest=rows_of(connection, DATED["fund_nav"], newest["fund_nav"]),
            heartbeat_at=connection.scalar(select(daemon.c.heartbeat_at)),
            last_success={row.job_id: row.at for row in successes if row.at is not None},
        )


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), SHANGHAI).timestamp()


class FiguresCollector(Collector):
    """The figures of one scrape. Instants, not ages: the reader subtracts them from its own clock."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        figures = self.figures
        for name, help_text, value in (
            ("nav_records", "Rows of fund_nav.", figures.nav_records),
            (
                "nav_records_counted_timestamp_seconds",
                "When they were counted.",
                figures.counted_at.timestamp(),
            ),
            ("fund_count", "Funds in the fund list.", figures.fund_count),
            ("newest_nav_rows", "Rows of fund_nav on its newest trading day.", figures.rows_newest),
            ("quarantined_rows", "Rows kept out of fund_nav for their faults.", figures.quarantined),
        ):
            yield GaugeMetricFamily(f"navkeeper_{name}", help_text, value=value)
        nav = figures.newest.get("fund_nav")
        if nav is not None:
            name = "navkeeper_newest_nav_date_timestamp_seconds"
            yield GaugeMetricFamily(
                name, "Newest trading day in fund_nav, its midnight.", value=_midnight(nav)
            )
        if figures.heartbeat_at is not None:
            name = "navkeeper_daemon_heartbeat_timestamp_seconds"
            heartbeat = figures.heartbeat_at.timestamp()
            yield GaugeMetricFamily(name, "When the daemon last gave a sign of life.", value=heartbeat)
        dates = GaugeMetricFamily(
            "navkeeper_newest_date_timestamp_seconds", "Newest trading day of a table.", labels=["table"]
        )
        for table, day in figures.newest.items():
            dates.add_metric([table], _midnight(day))
        yield dates
        steps = GaugeMetricFamily(
            "navkeeper_last_success_timestamp_seconds", "End of a step's newest good run.", labels=["step"]
        )
        for job, at in figures.last_success.items():
            steps.add_metric([job], at.timestamp())
        yield steps


def exposition(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The text and its content type: OpenMetrics where `accept` (the request's header) asks for it."""
    registry = CollectorRegistry()
    registry.register(FiguresCollector(figures))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
