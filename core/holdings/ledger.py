"""SQL of the holdings: orders get their NAVs, plans place theirs, positions are valued."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from operator import itemgetter
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from core.errors import UsageError
from core.holdings.orders import (
    CONFIRMED_AFTER,
    CONFIRMED_AFTER_ABROAD,
    Plan,
    bought,
    confirm_date_of,
    due_sessions,
    nav_date_of,
    sold,
)
from core.holdings.positions import Event, Position, Trade, position
from core.holdings.tables import holdings_choice, holdings_order, holdings_plan, holdings_position
from core.schema import fund_event, fund_info, fund_nav, money_fund_yield
from core.trading_calendar import SHANGHAI, TradingCalendar

PENDING, FILLED, REFUSED = "PENDING", "FILLED", "REFUSED"
PLACED_AT = time(10)  # a plan's orders, Shanghai
ONE = Decimal(1)
Holding = tuple[str, str]  # portfolio, fund code


@dataclass(frozen=True)
class Order:
    """What somebody wants: `amount` yuan to buy for, or `shares` to sell."""

    fund_code: str
    kind: Literal["buy", "sell"]
    quantity: Decimal
    placed_at: datetime
    fee_rate: Decimal  # percent
    reference: str


def add_orders(
    connection: Connection, calendar: TradingCalendar, portfolio: str, orders: Sequence[Order]
) -> int:
    """How many are new: an order whose reference the portfolio knows is there already.

    Raises UsageError naming a fund that is not in the fund list, and an instant beyond the calendar.
    """
    codes = {order.fund_code for order in orders}
    categories = _categories(connection, codes)
    unknown = sorted(codes - categories.keys())
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: not in the fund list; see: python main.py funds")
    mine = holdings_order.c.portfolio == portfolio
    known = set(connection.scalars(select(holdings_order.c.reference).where(mine)))
    fresh: dict[str, Order] = {order.reference: order for order in orders if order.reference not in known}
    for order in fresh.values():
        try:
            nav_date = nav_date_of(order.placed_at, calendar)
            lag = CONFIRMED_AFTER_ABROAD if categories[order.fund_code] == "qdii" else CONFIRMED_AFTER
            confirmed = confirm_date_of(nav_date, calendar, lag)
        except ValueError as error:
            raise UsageError(f"{order.reference}: {error}") from None
        connection.execute(
            insert(holdings_order).values(
                portfolio=portfolio,
                fund_code=order.fund_code,
                kind=order.kind,
                amount=order.quantity if order.kind == "buy" else None,
                shares=order.quantity if order.kind == "sell" else None,
                placed_at=order.placed_at,
                fee_rate=order.fee_rate,
                reference=order.reference,
                nav_date=nav_date,
                confirm_date=confirmed,
                status=PENDING,
            )
        )
    return len(fresh)


def _categories(connection: Connection, codes: Iterable[str]) -> dict[str, str]:
    query = select(fund_info.c.fund_code, fund_info.c.category)
    return {
        row.fund_code: row.category
        for row in connection.execute(query.where(fund_info.c.fund_code.in_(codes)))
    }


def place_planned(connection: Connection, calendar: TradingCalendar, until: date) -> int:
    """The orders that plans want up to `until` and have not placed; how many are new."""
    placed = 0
    for plan in connection.execute(select(holdings_plan)).all():
        days = due_sessions(
            Plan(plan.every, plan.day, plan.start_date, plan.end_date), plan.start_date, until, calendar
        )
        orders = [
            Order(
                plan.fund_code,
                "buy",
                plan.amount,
                datetime.combine(day, PLACED_AT, SHANGHAI),
                plan.fee_rate,
                f"plan {plan.name} {day}",
            )
            for day in days
        ]
        placed += add_orders(connection, calendar, plan.portfolio, orders)
    return placed


def fill_orders(connection: Connection, until: date) -> dict[Holding, date]:
    """Give every pending order up to `until` its NAV; of each holding that changed, since which day.

    Without a NAV of its day an order waits. Shares that are not there cannot be sold: REFUSED, with the reason.
    """
    order = holdings_order.c
    waiting = select(holdings_order).where(order.status == PENDING, order.nav_date <= until)
    changed: dict[Holding, date] = {}
    for row in connection.execute(waiting.order_by(order.nav_date, order.id)).all():
        nav = _nav_on(connection, row.fund_code, row.nav_date)
        if nav is None:
            continue
        connection.execute(
            update(holdings_order).where(order.id == row.id).values(_filled(connection, row, nav))
        )
        key = (row.portfolio, row.fund_code)
        changed[key] = min(row.nav_date, changed.get(key, row.nav_date))
    return changed


def _filled(connection: Connection, row: Row[Any], nav: Decimal) -> dict[str, Any]:
    if row.kind == "buy":
        fill = bought(row.amount, nav, row.fee_rate)
    else:
        held = held_on(connection, (row.portfolio, row.fund_code), row.nav_date)
        if held.shares - held.unconfirmed_shares < row.shares:
            there = f"{held.shares} shares are held, {held.unconfirmed_shares} of them not confirmed yet"
            return {"status": REFUSED, "reason": f"{row.shares} shares cannot be sold: {there}"}
        fill = sold(row.shares, nav, row.fee_rate)
    return {
        "status": FILLED,
        "shares": fill.shares,
        "amount": fill.amount,
        "fee": fill.fee,
        "unit_nav": float(nav),
    }


def _nav_on(connection: Connection, code: str, day: date) -> Decimal | None:
    """A money fund's is 1 where it has a row."""
    nav = connection.scalar(
        select(fund_nav.c.unit_nav).where(fund_nav.c.fund_code == code, fund_nav.c.nav_date == day)
    )
    if nav is not None:
        return Decimal(repr(nav))
    income = money_fund_yield.c
    there = select(income.fund_code).where(income.fund_code == code, income.nav_date == day)
    return ONE if connection.execute(there).first() else None


def held_on(connection: Connection, holding: Holding, day: date) -> Position:
    trades, events = _trades(connection, holding), _events(connection, holding[1])
    return position(trades, events, day, reinvest=_reinvests(connection, holding))


def _trades(connection: Connection, holding: Holding) -> list[Trade]:
    order = holdings_order.c
    query = select(holdings_order).where(
        order.portfolio == holding[0], order.fund_code == holding[1], order.status == FILLED
    )
    return [
        Trade(row.nav_date, row.confirm_date, row.kind, row.shares, row.amount)
        for row in connection.execute(query.order_by(order.nav_date, order.id))
    ]


def _events(connection: Connection, code: str) -> list[Event]:
    """Dividends and splits that are in the NAVs, and a money fund's incomes."""
    event, nav, income = fund_event.c, fund_nav.c, money_fund_yield.c
    query = (
        select(event.ex_date, event.kind, event.value, nav.unit_nav)
        .outerjoin(fund_nav, (nav.fund_code == event.fund_code) & (nav.nav_date == event.ex_date))
        .where(event.fund_code == code, event.evidence != "announced")
    )
    found = [
        Event(row.ex_date, row.kind, Decimal(repr(row.value)), row.unit_nav and Decimal(repr(row.unit_nav)))
        for row in connection.execute(query)
    ]
    incomes = select(income.nav_date, income.income_per_10k).where(
        income.fund_code == code, income.income_per_10k.is_not(None)
    )
    return found + [
        Event(row.nav_date, "income", Decimal(repr(row.income_per_10k)) / 10_000)
        for row in connection.execute(incomes)
    ]


def _reinvests(connection: Connection, holding: Holding) -> bool:
    choice = holdings_choice.c
    mine = (choice.portfolio == holding[0], choice.fund_code == holding[1])
    return connection.scalar(select(choice.dividends).where(*mine)) == "reinvest"


def value_positions(
    connection: Connection, calendar: TradingCalendar, changed: dict[Holding, date], until: date
) -> int:
    """Positions of every session from the first that changed, or that has none yet, up to `until`; their number."""
    table = holdings_position.c
    newest = {
        (row.portfolio, row.fund_code): row.newest
        for row in connection.execute(
            select(table.portfolio, table.fund_code, func.max(table.position_date).label("newest")).group_by(
                table.portfolio, table.fund_code
            )
        )
    }
    saved = 0
    for holding in sorted(changed.keys() | newest.keys()):
        since = changed.get(holding, until)
        if holding in newest:
            since = min(since, newest[holding])
        mine = (table.portfolio == holding[0], table.fund_code == holding[1], table.position_date >= since)
        rows = _valued(connection, calendar, holding, since, until)
        connection.execute(delete(holdings_position).where(*mine))
        if rows:
            connection.execute(insert(holdings_position), rows)
        saved += len(rows)
    return saved


def _valued(
    connection: Connection, calendar: TradingCalendar, holding: Holding, since: date, until: date
) -> list[dict[str, Any]]:
    trades, events = _trades(connection, holding), _events(connection, holding[1])
    reinvest, navs = _reinvests(connection, holding), _navs(connection, holding[1], until)
    rows = []
    for day in calendar.between(since, until):
        held = position(trades, events, day, reinvest=reinvest)
        at = bisect_right(navs, day, key=itemgetter(0))
        if not held.flows or at == 0:
            continue
        nav_date, nav = navs[at - 1]
        rows.append(
            {
                "portfolio": holding[0],
                "fund_code": holding[1],
                "position_date": day,
                "nav_date": nav_date,
                "shares": held.shares,
                "unconfirmed_shares": held.unconfirmed_shares,
                "value": held.value(nav),
                "cost": held.cost,
                "invested": held.invested,
                "returned": held.returned,
                "profit": held.profit(nav),
                "xirr": held.rate(day, nav),
            }
        )
    return rows


def _navs(connection: Connection, code: str, until: date) -> list[tuple[date, Decimal]]:
    """By date; 1 on each day of a money fund."""
    nav, income = fund_nav.c, money_fund_yield.c
    own = select(nav.nav_date, nav.unit_nav).where(nav.fund_code == code, nav.nav_date <= until)
    found = [
        (row.nav_date, Decimal(repr(row.unit_nav))) for row in connection.execute(own.order_by(nav.nav_date))
    ]
    if found:
        return found
    days = select(income.nav_date).where(income.fund_code == code, income.nav_date <= until)
    return [(day, ONE) for day in connection.scalars(days.order_by(income.nav_date))]


def holdings(connection: Connection) -> list[Holding]:
    """Every portfolio and fund of which an order got its NAV."""
    order = holdings_order.c
    query = select(order.portfolio, order.fund_code).where(order.status == FILLED).distinct()
    return [(row.portfolio, row.fund_code) for row in connection.execute(query)]


def totals(connection: Connection, day: date) -> dict[str, dict[str, float]]:
    """By portfolio: value, cost, invested, returned and profit of all funds, in yuan."""
    table = holdings_position.c
    names = ("value", "cost", "invested", "returned", "profit")
    sums = [func.sum(table[name]).label(name) for name in names]
    query = select(table.portfolio, *sums).where(table.position_date == day).group_by(table.portfolio)
    return {
        row.portfolio: {name: float(getattr(row, name)) for name in names}
        for row in connection.execute(query)
    }


def waiting(connection: Connection, until: date) -> int:
    """Orders whose day has come and whose NAV has not."""
    order = holdings_order.c
    due = select(func.count()).where(order.status == PENDING, order.nav_date <= until)
    return connection.scalar(due) or 0
