"""What is answered: the records of the listings as models, for the description of the API and the types of columns.

The records are sent as the listings give them; that they fit these models is what the tests check.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, create_model
from sqlalchemy import Date, Double, Integer, Numeric

from scheduler.export import measured
from scheduler.verdict import ChainStep


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


T = TypeVar("T")


class Page(Record, Generic[T]):
    items: list[T]
    next: str | None  # the address of the next page


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable."""

    type: str
    title: str
    status: int
    code: str


class Progress(Record):
    percent: float | None
    message: str | None
    item: str | None
    processed: int | None
    total: int | None
    at: datetime | None


class Run(Record):
    run: int
    job: str
    business_date: date
    status: str
    reason: str | None
    requested_by: str
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    records: int | None
    progress: Progress


class Attempt(Record):
    attempt: int
    status: str
    started_at: datetime
    finished_at: datetime
    reason: str | None
    exit_code: int | None
    log_file: str | None
    peak_memory_kb: int | None
    seconds: float | None


class Change(Record):
    at: datetime
    kind: str
    from_status: str | None
    to_status: str | None
    reason: str | None


class Event(Change):
    event: int
    topic: str
    run: int | None
    job: str | None
    business_date: date | None
    payload: dict[str, Any]


class Parked(Record):
    parked: int
    subscriber: str
    event: int
    topic: str
    at: datetime
    attempts: int
    error: str
    parked_at: datetime
    retry_by: str | None


class Subscriber(Record):
    subscriber: str
    topic: str
    position: int
    lag: int
    working: bool
    attempts: int
    next_try_at: datetime | None
    last_error: str | None
    parked: int
    seen_at: datetime


class RunDetail(Run):
    task: str
    params: dict[str, Any]
    scheduled_for: datetime | None
    attempt: int
    first_started_at: datetime | None
    next_attempt_at: datetime | None
    cancelled_by: str | None
    host: str | None
    pid: int | None
    beat_at: datetime | None
    exit_code: int | None
    peak_memory_kb: int | None
    log_file: str | None
    result: dict[str, Any] | None
    attempts: list[Attempt]
    events: list[Change]


class Log(Record):
    run: int
    attempt: int
    log_file: str
    text: str


class Plugin(Record):
    plugin: str
    source: str
    version: str | None
    name: str
    description: str
    state: str
    reason: str | None
    origin: str
    tasks: list[str]
    requires: list[str]
    tables: list[str]
    schema_version: int
    changed_by: str | None
    changed_at: datetime | None
    probed_at: datetime | None


class Task(Record):
    task: str
    plugin: str
    state: str
    name: str
    description: str
    table: str
    params: dict[str, Any]


class Job(Record):
    job: str
    name: str  # for people
    task: str
    wrong: str | None  # why it is not run
    paused_since: datetime | None
    paused_by: str | None
    next_fire: datetime | None
    next_business_date: date | None
    last_run: Run | None
    daemon_running: bool


class JobVersion(Record):
    version: int
    changed_by: str
    changed_at: datetime
    reason: str | None
    definition: dict[str, Any] | None  # None: deleted


class JobDetail(Job):
    kept_in: str  # file or database
    version: int | None
    next_fires: list[datetime]
    definition: dict[str, Any]
    versions: list[JobVersion]


class JobGone(Record):
    job: str
    version: int


class Command(Record):
    command: int
    action: str
    job_id: str | None
    run_id: int | None
    business_date: date | None
    requested_by: str
    requested_at: datetime
    status: str
    answer: str | None
    answered_at: datetime | None
    params: dict[str, Any]


class Alert(Record):
    alert: int
    state: str
    kind: str
    fingerprint: str
    job: str | None
    task: str | None
    business_date: date | None
    run: int | None
    opened_at: datetime
    last_seen_at: datetime
    recovered_at: datetime | None
    seconds: int
    seen: int
    silenced_until: datetime | None
    silenced_by: str | None
    figures: dict[str, Any]
    command: str


class Delivery(Record):
    notice: str
    status: str
    created_at: datetime
    sent_at: datetime | None
    channel: str | None
    attempts: int
    last_error: str | None


class AlertDetail(Alert):
    deliveries: list[Delivery]


class Chain(Record):
    business_date: date | None
    steps: list[ChainStep]


class Table(Record):
    table: str
    newest_date: date | None
    sessions_behind: int | None
    rows: int
    coverage: float | None


class EtlStatus(Chain):
    status: str
    reasons: list[str]
    expected_date: date | None
    simulated: bool
    daemon: str
    tables: list[Table]
    next_command: str
    timestamp: datetime


class Fund(Record):
    fund_code: str
    fund_name: str
    fund_type: str
    category: str | None
    status: str | None
    inception_date: date | None
    purchase_status: str | None
    redemption_status: str | None
    last_listed: date | None


class Series(Record):
    kind: str  # nav or yield
    rows: int
    first_date: date
    last_date: date


class FundDetail(Fund):
    series: list[Series]


class Nav(Record):
    fund_code: str
    nav_date: date
    unit_nav: float
    accum_nav: float | None
    daily_return: float | None
    known_at: datetime | None
    revisions: int
    changed_at: datetime | None
    adjusted_nav: float | None = None


class Yield(Record):
    fund_code: str
    nav_date: date
    income_per_10k: float | None
    yield_7d: float | None
    known_at: datetime | None


class FundEvent(Record):
    ex_date: date
    kind: str
    value: float
    evidence: str
    listed_value: float | None


class Metric(Record):
    value: float | date | None
    unit: str
    rank: int | None = None
    peers: int | None = None
    quartile: int | None = None
    percentile: float | None = None


class FundMetrics(Record):
    fund_code: str
    fund_name: str
    fund_type: str
    calc_date: date
    definition_version: str
    nav_date: date
    nav_count: int
    score: float | None
    level: str | None
    points: dict[str, float | None]
    metrics: dict[str, Metric]


class Ranked(Record):
    fund_code: str
    fund_name: str
    fund_type: str
    category: str
    calc_date: date
    definition_version: str
    nav_date: date
    nav_count: int
    metric: str
    value: float | date
    rank: int | None = None
    peers: int | None = None
    quartile: int | None = None
    percentile: float | None = None
    score: float | None
    level: str | None


class Quality(Record):
    business_date: date
    outcome: str
    simulated: bool
    steps: list[dict[str, Any]]
    batches: list[dict[str, Any]]
    believed: int
    gates: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    quarantine: dict[str, Any]
    revisions: dict[str, int]
    events: dict[str, int]
    late: list[dict[str, Any]]


PLAIN = ((Date, date), (Integer, int), ((Numeric, Double), float))


def _of_table(name: str, kind: str) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for column in measured(kind)[2]:
        kind_of: Any = next((plain for kinds, plain in PLAIN if isinstance(column.type, kinds)), str)
        fields[column.name] = (kind_of if column.primary_key else kind_of | None, ...)
    return create_model(name, __base__=Record, **fields)


MarketMetrics = _of_table("MarketMetrics", "metrics")
MarketRanks = _of_table("MarketRanks", "rank")


class Document(BaseModel):
    """The description of the API itself."""

    openapi: str
