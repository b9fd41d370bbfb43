"""The holdings plugin: orders, regular investment plans and positions, on paper. What they are is in core/holdings."""

from __future__ import annotations

import csv
import json
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from sqlalchemy import delete, insert

from core.errors import UsageError
from core.holdings import ledger
from core.holdings.migrations import MIGRATIONS
from core.holdings.tables import holdings_choice, holdings_plan, metadata
from scheduler.job import RunStatus
from scheduler.plugin import Params, Plugin, Task, TaskResult
from scheduler.task_params import InstantText
from scheduler.task_parts import calendar_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from scheduler.run_context import RunContext

MOST_TOLD = 40  # portfolios
Portfolio = Annotated[str, Field(min_length=1, max_length=64)]
FundCode = Annotated[str, Field(pattern=r"^\d{6}$")]
Yuan = Annotated[Decimal, Field(gt=0, max_digits=16, decimal_places=2)]
Percent = Annotated[Decimal, Field(ge=0, le=10, decimal_places=5)]


class OrderParams(Params):
    fund_code: FundCode
    kind: Literal["buy", "sell"]
    quantity: Yuan  # yuan to buy for, fee included; shares to sell
    placed_at: InstantText  # without an offset by Shanghai's clock
    fee_rate: Percent = Decimal(0)
    reference: Annotated[str, Field(min_length=1, max_length=64)]  # the same is stored once


class RecordParams(Params):
    portfolio: Portfolio
    orders: tuple[OrderParams, ...] = ()
    file: str | None = None  # CSV with the names of the fields above as its first line

    @model_validator(mode="after")
    def _one_of_them(self) -> RecordParams:
        if bool(self.orders) == bool(self.file):
            raise ValueError("give orders or a file of them")
        return self


class PlanParams(Params):
    portfolio: Portfolio
    name: Annotated[str, Field(pattern=r"^[\w-]{1,32}$")]
    fund_code: FundCode
    amount: Yuan
    fee_rate: Percent = Decimal(0)
    every: Literal["session", "week", "two_weeks", "month"]
    day: Annotated[int, Field(ge=1, le=28)] = 1  # of the week, Monday 1; of the month
    start: date
    end: date | None = None

    @model_validator(mode="after")
    def _days_in_their_order(self) -> PlanParams:
        if self.every in ("week", "two_weeks") and self.day > 7:
            raise ValueError("the day of a week is 1 (Monday) to 7")
        if self.end is not None and self.end < self.start:
            raise ValueError("the plan ends before it starts")
        return self


class ChooseParams(Params):
    portfolio: Portfolio
    fund_code: FundCode
    dividends: Literal["cash", "reinvest"]


def record(context: RunContext, params: RecordParams) -> None:
    """Orders as they were placed. `settle` gives them their NAVs."""
    wanted = params.orders or _read(Path(params.file or ""))
    orders = [ledger.Order(**order.model_dump()) for order in wanted]
    calendar = calendar_of(context)
    with context.commit() as commit:
        added = ledger.add_orders(commit.connection, calendar, params.portfolio, orders)
        known = len(orders) - added
        commit.end(RunStatus.SUCCESS, added, f"{known} were known already" if known else None)


def _read(path: Path) -> tuple[OrderParams, ...]:
    """Raises UsageError naming the line and what is wrong with it."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 2):
        try:
            found.append(OrderParams.model_validate({key: value for key, value in line.items() if value}))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise UsageError(f"{path}, line {number}: {wrong}; nothing was stored") from None
    return tuple(found)


def plan(_context: RunContext, params: PlanParams) -> TaskResult:
    """A regular investment from `start` on; one of the same name takes its place, what was placed stays."""
    values = params.model_dump(exclude={"start", "end"})
    values |= {"start_date": params.start, "end_date": params.end}
    key = {"portfolio": params.portfolio, "name": params.name}
    return TaskResult(1, write=partial(_replace, table=holdings_plan, key=key, values=values))


def choose(_context: RunContext, params: ChooseParams) -> TaskResult:
    """Whether a fund's dividends are paid in cash or reinvested; at once, and for the past as well."""
    key = {"portfolio": params.portfolio, "fund_code": params.fund_code}
    return TaskResult(1, write=partial(_replace, table=holdings_choice, key=key, values=params.model_dump()))


def _replace(connection: Connection, *, table: Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    connection.execute(delete(table).where(*(table.c[name] == value for name, value in key.items())))
    connection.execute(insert(table), [values])


class SettleParams(Params):
    since: date | None = None  # value every position anew from here on, after NAVs or events were mended


def settle(context: RunContext, params: SettleParams) -> None:
    """Up to the business date: plans place their orders, orders get their NAVs, positions are valued."""
    calendar, until = calendar_of(context), context.business_date
    with context.commit() as commit:
        connection = commit.connection
        placed = ledger.place_planned(connection, calendar, until)
        changed = ledger.fill_orders(connection, until)
        if params.since is not None:
            since = params.since
            changed |= {
                holding: min(since, changed.get(holding, since)) for holding in ledger.holdings(connection)
            }
        ledger.value_positions(connection, calendar, changed, until)
        told = _told(ledger.totals(connection, until))
        waiting = ledger.waiting(connection, until)
        context.publish(connection, "holdings.settled", {"business_date": until.isoformat()} | told)
        reason = f"{placed} orders placed by plans, {waiting} wait for their NAV"
        commit.end(RunStatus.SUCCESS, len(changed), reason, json.dumps(told))


def _told(totals: dict[str, dict[str, float]]) -> dict[str, Any]:
    """By portfolio, those worth most; an event has 16 kB."""
    names = sorted(totals, key=lambda name: -totals[name]["value"])
    left_out = {"left_out": len(names) - MOST_TOLD} if len(names) > MOST_TOLD else {}
    return {"portfolios": {name: totals[name] for name in names[:MOST_TOLD]}} | left_out


PLUGIN = Plugin(
    id="holdings",
    version="1.0",
    name="Holdings",
    description="Orders of funds, regular investment plans and positions, on paper.",
    tasks=(
        Task("holdings.record", "Record orders", "Stores orders as they were placed.", RecordParams, record),
        Task("holdings.plan", "Plan", "Invests an amount regularly.", PlanParams, plan),
        Task("holdings.choose", "Choose dividends", "In cash, or reinvested.", ChooseParams, choose),
        Task(
            "holdings.settle",
            "Settle",
            "Orders get their NAVs, positions are valued.",
            SettleParams,
            settle,
            "holdings_position",
        ),
    ),
    tables=metadata,
    migrations=MIGRATIONS,
)
