"""The figures of /metrics, and how Prometheus wants them written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy import Engine, func, select

from core.db import read
from core.nav_days import row_count
from core.schema import daemon, fund_info, fund_nav, job_run, quarantine
from core.trading_calendar import SHANGHAI, load_calendar
from scheduler.job import DONE_WELL
from scheduler.overview import DATED, newest_trading_day, rows_of


class Figures(NamedTuple):
    """What /metrics says."""

    nav_records: int
    fund_count: int
    quarantined: int
    newest: dict[str, date]  # table -> newest trading day
    rows_newest: int
    heartbeat_at: datetime | None
    last_success: dict[str, datetime]  # job -> end of its newest good run


def read_figures(engine: Engine) -> Figures:
    """Everything of one scrape. Raises DatabaseUnavailable, SchemaOutdated."""
    with read(engine) as connection:
        calendar = load_calendar(connection)
        newest = {table.name: newest_trading_day(connection, table, calendar) for table in DATED}
        successes = connection.execute(
            select(job_run.c.job_id, func.max(job_run.c.finished_at).label("at"))
            .where(job_run.c.status.in_(DONE_WELL))
            .group_by(job_run.c.job_id)
        )
        return Figures(
            nav_records=row_count(connection, fund_nav),
            fund_count=connection.scalar(select(func.count()).select_from(fund_info)) or 0,
            quarantined=connection.scalar(select(func.count()).select_from(quarantine)) or 0,
            newest={table: day for table, day in newest.items() if day is not None},
            rows_newest=rows_of(connection, fund_nav, newest["fund_nav"]),
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
