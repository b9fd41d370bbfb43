"""The figures of /metrics, and how Prometheus wants them written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, func, select

from core.db import read
from core.nav_days import row_count
from core.schema import fund_info, fund_nav, job_run, trade_calendar
from core.trading_calendar import SHANGHAI
from scheduler import plugin_store
from scheduler.cache_counts import Counted, cache_figures
from scheduler.event_listing import EventFigures, event_figures
from scheduler.health import REASONS
from scheduler.job import DONE_WELL
from scheduler.overview import Overview
from scheduler.verdict import STATES

Labelled = Iterable[tuple[str, float]]


@dataclass(frozen=True, eq=False)
class Figures:
    """What /metrics says."""

    seen: Overview
    nav_records: int
    fund_count: int
    calendar_end: date | None  # the last trading day that the exchange has confirmed
    last_success: dict[str, datetime]  # job -> end of its good run of the newest business date
    cache: Mapping[Counted, int]
    plugins: Mapping[str, str]  # id -> state
    events: EventFigures


def read_figures(engine: Engine, seen: Overview) -> Figures:
    """What `seen` does not have. Raises DatabaseUnavailable, SchemaOutdated."""
    days = trade_calendar.c
    with read(engine) as connection:
        ends = {rate.job: _last_success(connection, rate.job) for rate in seen.success_7d}
        return Figures(
            seen=seen,
            nav_records=row_count(connection, fund_nav),
            fund_count=connection.scalar(select(func.count()).select_from(fund_info)) or 0,
            calendar_end=connection.scalar(
                select(days.cal_date)
                .where(days.provisional.is_(False))
                .order_by(days.cal_date.desc())
                .limit(1)
            ),
            last_success={job: at for job, at in ends.items() if at is not None},
            cache=cache_figures(connection),
            plugins={found.id: found.state for found in plugin_store.plugins(connection)},
            events=event_figures(connection),
        )


def _last_success(connection: Connection, job: str) -> datetime | None:
    """Backwards through the index by job and date until one is met."""
    run = job_run.c
    good = select(run.finished_at).where(run.job_id == job, run.status.in_(DONE_WELL))
    found: datetime | None = connection.scalar(
        good.order_by(run.business_date.desc(), run.id.desc()).limit(1)
    )
    return found


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), SHANGHAI).timestamp()


# Name, what it is, its value where there is one. Instants, not ages: the reader subtracts them from its own clock.
PLAIN: tuple[tuple[str, str, Callable[[Figures], float | None]], ...] = (
    ("nav_records", "Rows of fund_nav.", lambda found: found.nav_records),
    ("funds", "Funds in the fund list.", lambda found: found.fund_count),
    (
        "newest_nav_rows",
        "Rows of fund_nav on its newest trading day.",
        lambda found: found.seen.table("fund_nav").rows,
    ),
    (
        "newest_nav_date_timestamp_seconds",
        "Newest trading day in fund_nav, its midnight in Shanghai.",
        lambda found: _of_day(found.seen.table("fund_nav").newest_date),
    ),
    (
        "expected_date_timestamp_seconds",
        "The trading day that every table should have reached by now, its midnight in Shanghai.",
        lambda found: _of_day(found.seen.expected_date),
    ),
    (
        "calendar_end_timestamp_seconds",
        "Last trading day that the exchange has confirmed, its midnight in Shanghai.",
        lambda found: _of_day(found.calendar_end),
    ),
    (
        "quarantined_rows",
        "Rows kept out of fund_nav for their faults.",
        lambda found: found.seen.quarantine.total,
    ),
    ("batch_rows", "Rows of the newest collection.", lambda found: _of_batch(found).rows),
    (
        "batch_held_rows",
        "Rows of the newest collection that failed a rule.",
        lambda found: _of_batch(found).held,
    ),
    (
        "daemon_running",
        "1 while the daemon gives signs of life.",
        lambda found: found.seen.daemon.running,
    ),
    (
        "daemon_heartbeat_timestamp_seconds",
        "When the daemon last gave a sign of life.",
        lambda found: _of_instant(found.seen.daemon.heartbeat_at),
    ),
)


def _of_day(day: date | None) -> float | None:
    return None if day is None else _midnight(day)


def _of_instant(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


class _Batch(NamedTuple):
    rows: int
    held: int


def _of_batch(found: Figures) -> _Batch:
    last = found.seen.last_batch
    return _Batch(0, 0) if last is None else _Batch(last.rows, last.held)


def _newest(found: Figures) -> Labelled:
    dated = [item for item in found.seen.freshness if item.newest_date is not None]
    return [(item.table, _midnight(item.newest_date)) for item in dated if item.newest_date]


def _behind(found: Figures) -> Labelled:
    tables = [item for item in found.seen.freshness if item.table != "tmp_fund_nav"]
    return [(item.table, item.sessions_behind) for item in tables if item.sessions_behind is not None]


def _reasons(found: Figures) -> Labelled:
    counts = Counter(reason.code for reason in found.seen.verdict.reasons)
    return [(code, counts[code]) for code in REASONS]


# Name, what it is, its label, a value of the label with each figure. No label is called `job`, which Prometheus sets.
LABELLED: tuple[tuple[str, str, str, Callable[[Figures], Labelled]], ...] = (
    ("newest_date_timestamp_seconds", "Newest trading day of a table, its midnight.", "table", _newest),
    ("sessions_behind", "Trading days that a table lacks up to the expected date.", "table", _behind),
    (
        "verdict",
        "1 for the word on the whole, 0 for the others.",
        "state",
        lambda found: [(state, state == found.seen.verdict.state) for state in STATES],
    ),
    ("reasons", "How often something is the matter, by its code.", "code", _reasons),
    (
        "last_success_timestamp_seconds",
        "End of a step's good run of the newest business date.",
        "step",
        lambda found: [(job, at.timestamp()) for job, at in found.last_success.items()],
    ),
    (
        "next_run_timestamp_seconds",
        "When a step is due next.",
        "step",
        lambda found: [(run.job, run.at.timestamp()) for run in found.seen.next_runs],
    ),
    (
        "runs_finished_7d",
        "Runs of a step of the last seven days that are over.",
        "step",
        lambda found: [(rate.job, rate.finished) for rate in found.seen.success_7d],
    ),
    (
        "runs_succeeded_7d",
        "Those of them that ended well.",
        "step",
        lambda found: [(rate.job, rate.succeeded) for rate in found.seen.success_7d],
    ),
    (
        "event_lag",
        "Events that a subscriber has still to take.",
        "subscriber",
        lambda found: sorted(found.events.lag.items()),
    ),
    (
        "events_parked",
        "Events that a subscriber could not take.",
        "subscriber",
        lambda found: sorted(found.events.parked.items()),
    ),
)


def _plugin_states(found: Figures) -> Iterator[tuple[list[str], float]]:
    for name, state in found.plugins.items():
        for known in plugin_store.STATES:
            yield [name, known], known == state


class FiguresCollector(Collector):
    """The figures of one scrape."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def collect(self) -> Iterator[Metric]:
        for name, help_text, value_of in PLAIN:
            value = value_of(self.figures)
            if value is not None:
                yield GaugeMetricFamily(f"navkeeper_{name}", help_text, value=value)
        for name, help_text, label, values_of in LABELLED:
            family = GaugeMetricFamily(f"navkeeper_{name}", help_text, labels=[label])
            for key, value in values_of(self.figures):
                family.add_metric([key], value)
            yield family
        plugins = GaugeMetricFamily(
            "navkeeper_plugin_state",
            "1 for the state of a plugin, 0 for the others.",
            labels=["plugin", "state"],
        )
        for labels, value in _plugin_states(self.figures):
            plugins.add_metric(labels, value)
        yield plugins
        requests = CounterMetricFamily(
            "navkeeper_cache_requests", "What the cache was asked for.", labels=Counted._fields
        )
        for counted, number in sorted(self.figures.cache.items()):
            requests.add_metric(counted, number)
        yield requests
        yield CounterMetricFamily(
            "navkeeper_events",
            "Events published, since the tables were made.",
            value=self.figures.events.published,
        )


def exposition(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The text and its content type: OpenMetrics where `accept` (the request's header) asks for it."""
    content_type = choose_encoder(accept)[1]
    return _text(figures, content_type), content_type


@lru_cache(maxsize=4)
def _text(figures: Figures, content_type: str) -> bytes:
    """Written once for all who were given these figures."""
    registry = CollectorRegistry()
    registry.register(FiguresCollector(figures))
    return choose_encoder(content_type)[0](registry)
