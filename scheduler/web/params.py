"""What may be asked: path, query and body of each address as models. Unknown parameters are refused.

Stricter than pydantic where it would take a number for a date or "yes" for true: what the API describes, and no more.
"""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from core.metric_columns import COLUMNS
from scheduler.command_line import LARGEST_ID
from scheduler.job import RunStatus
from scheduler.metrics_listing import SCORE
from scheduler.task_params import InstantText, Params

LONGEST_SILENCE = 366 * 24 * 60  # minutes
LONGEST_PARAMS = 8000  # characters as JSON
RANKED_BY = (SCORE, *COLUMNS)


def _whole(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise ValueError("a whole number")
    return int(value)


def _day(value: object) -> date:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("a date such as 2025-12-01")
    return date.fromisoformat(value)


def _flag(value: object) -> bool:
    if value not in ("true", "false"):
        raise ValueError("true or false")
    return value == "true"


def _metric(value: object) -> object:
    if value not in RANKED_BY:
        raise ValueError("score, or a metric such as return_1y")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID), BeforeValidator(_whole)]
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Flag = Annotated[bool, BeforeValidator(_flag), WithJsonSchema({"type": "boolean"})]
Metric = Annotated[str, BeforeValidator(_metric), WithJsonSchema({"type": "string", "enum": [*RANKED_BY]})]
Fund = Annotated[str, Field(pattern=r"^[0-9]{6}$")]
Job = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Text = Annotated[str, Field(min_length=1, max_length=50)]
Form = Literal["json", "csv", "parquet"]


def limit_of(most: int) -> Any:
    return Field(min(100, most), ge=1, le=most, description="rows at most; `next` leads to the rest")


class NoParams(Params):
    pass


class JobPath(Params):
    job: Job


class JobKeys(Params):
    """The keys of a definition, as in config/jobs.toml. None takes one away."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task: str | None = None
    name: str | None = None
    description: str | None = None
    cron: dict[str, int | str] | None = None
    crontab: str | None = Field(None, description="five fields, weekdays as crontab counts them")
    every: str | None = Field(None, description="10m, 2h, 1d")
    anchor: str | None = None
    at: str | None = None
    on_event: str | list[str] | None = None
    timezone: str | None = None
    calendar: str | None = None
    business_date: str | None = None
    needs: list[str | dict[str, str]] | None = None
    fresh: str | None = None
    wait_hours: int | float | None = None
    timeout_minutes: int | float | None = None
    max_parallel: int | None = None
    params: dict[str, Any] | None = None
    retry: dict[str, int | float] | None = None
    catch_up: dict[str, int | float | str] | None = None
    latest_only: bool | None = None
    eager: bool | None = None
    silent_minutes: int | float | None = None
    kill_silent: bool | None = None
    reason: str | None = Field(None, max_length=200, description="why; kept with the version")

    def table(self) -> dict[str, Any]:
        """What was given of the definition."""
        return self.model_dump(exclude_unset=True, exclude={"reason", "version", "job"})


class NewJob(JobKeys):
    job: str


class ChangedJob(JobKeys):
    version: int | None = Field(
        None, description="that was looked at; another there refuses, as If-Match does"
    )


class RunPath(Params):
    run: Id


class FundPath(Params):
    fund: Fund


class AskedRuns(Params):
    job: Job | None = None
    status: RunStatus | None = None
    date: Day | None = Field(None, description="business date")
    before: Id | None = Field(None, description="only runs with a smaller number")
    limit: Whole = limit_of(500)


class AskedLog(RunPath):
    attempt: Id | None = Field(None, description="by default the last")
    bytes: Whole = Field(65536, ge=1, le=1048576, description="of its end, whole lines")


class AskedFunds(Params):
    q: Text | None = Field(None, description="what the code or pinyin begins with, or the name holds")
    type: Text | None = Field(None, description="a category, or what the publisher's type begins with")
    after: Fund | None = None
    limit: Whole = limit_of(1000)


class AskedNavs(FundPath):
    first: Day | None = Field(None, alias="from")
    last: Day | None = Field(None, alias="to")
    as_of: InstantText | None = Field(
        None, description="as known then: 2026-01-05T20:00, by Shanghai's clock or with an offset"
    )
    adjusted: Flag = False
    limit: Whole = limit_of(5000)
    format: Form | None = None

    @field_validator("as_of")
    @classmethod
    def _within_databases(cls, value: Any) -> Any:
        if value is not None and not 1970 <= value.year < 2200:
            raise ValueError("an instant from 1970 to 2199")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> AskedNavs:
        if self.first is not None and self.last is not None and self.first > self.last:
            raise ValueError("from is after to")
        return self


class AskedFundMetrics(FundPath):
    date: Day | None = Field(None, description="calculated for; by default the newest")


class AskedMetrics(Params):
    date: Day | None = Field(None, description="calculated for; by default the newest")
    after: Fund | None = None
    limit: Whole = limit_of(5000)
    format: Form | None = None


class AskedRanking(Params):
    by: Metric = SCORE
    type: Text | None = Field(None, description="a category, or what the publisher's type begins with")
    date: Day | None = Field(None, description="calculated for; by default the newest")
    order: Literal["best", "worst"] = "best"
    every_class: Flag = Field(False, description="not only the share class of a fund that is ranked")
    offset: Whole = Field(0, ge=0, le=1_000_000)
    limit: Whole = limit_of(5000)
    format: Form | None = None


class AskedQuality(Params):
    date: Day | None = Field(
        None, description="business date; by default the newest night that was collected"
    )


class AskedHeld(AskedQuality):
    """The page of a night, and which rows of the quarantine it lists."""

    fund: Annotated[str, Field(pattern=r"^[!-~]{1,32}$")] | None = None
    rule: Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,40}$")] | None = None
    which: Literal["open", "all"] = "open"
    before: Id | None = None
    decided: Id | None = Field(None, description="the row that was decided last")
    run: Id | None = Field(None, description="the run that it led to")


class RowPath(Params):
    row: Id
    run: Id | None = None


class AskedLate(Params):
    type: Text | None = None
    reason: Annotated[str, Field(pattern=r"^[a-z_]{1,20}$")] | None = None
    offset: Whole = Field(0, ge=0, le=1_000_000)


class AskedSearch(Params):
    """Funds by what they are called, or without that the best of a type."""

    q: Text | None = None
    type: Text | None = None
    by: Metric = SCORE
    order: Literal["best", "worst"] = "best"
    after: Fund | None = None
    offset: Whole = Field(0, ge=0, le=1_000_000)


class AskedEvents(Params):
    run: Id | None = None
    topic: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,62}\*?$")] | None = Field(
        None, description="a topic, or all that begin alike, such as quality.*"
    )
    kind: Literal["state", "chain_blocked", "silent", "event"] | None = None
    since: InstantText | None = None
    before: Id | None = Field(None, description="only events with a smaller number")
    limit: Whole = limit_of(500)


class AskedParked(Params):
    before: Id | None = Field(None, description="only those with a smaller number")
    limit: Whole = limit_of(500)


class AlertPath(Params):
    alert: Id


class AskedAlerts(Params):
    open: Flag = Field(False, description="only those that are not over")
    before: Id | None = Field(None, description="only alerts with a smaller number")
    limit: Whole = limit_of(500)


class AskedCommands(Params):
    before: Id | None = Field(None, description="only commands with a smaller number")
    limit: Whole = limit_of(500)


class Silence(Params):
    """The body that may come with a silence."""

    minutes: Annotated[int, Field(ge=1, le=LONGEST_SILENCE, strict=True, description="from now on")] = 480


class Trigger(Params):
    """The body that may come with a trigger."""

    business_date: Annotated[date | None, Field(description="by default the newest")] = None
    params: Annotated[dict[str, Any], Field(description="of the job's task", default_factory=dict)]

    @field_validator("business_date", mode="before")
    @classmethod
    def _a_day(cls, value: object) -> object:
        return None if value is None else _day(value)

    @field_validator("params")
    @classmethod
    def _not_too_long(cls, value: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(value)) > LONGEST_PARAMS:
            raise ValueError(f"at most {LONGEST_PARAMS} characters")
        return value
