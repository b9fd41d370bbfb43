"""From orders and a fund's events to what is held and what it has earned. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple

from core.holdings.orders import cents
from core.holdings.xirr import Flow, xirr

NOTHING = Decimal("0.00")
YOUNGEST = 30  # days; a rate per year of less says nothing
RANK = {"dividend": 0, "split": 1, "income": 2, "order": 3}  # on one day


class Trade(NamedTuple):
    """An order that got its NAV. `amount`: paid with the fee, or received without it."""

    nav_date: date
    confirm_date: date
    kind: Literal["buy", "sell"]
    shares: Decimal
    amount: Decimal


class Event(NamedTuple):
    """`value`: cash per share before (dividend), shares after for one before (split), or yuan per share (income).

    `unit_nav`: of its day, at which a dividend is reinvested.
    """

    day: date
    kind: Literal["dividend", "split", "income"]
    value: Decimal
    unit_nav: Decimal | None = None


@dataclass(frozen=True)
class Position:
    """What is held of one fund, and what came and went. Yuan and shares, to the cent."""

    shares: Decimal = NOTHING
    unconfirmed_shares: Decimal = NOTHING
    cost: Decimal = NOTHING
    invested: Decimal = NOTHING
    returned: Decimal = NOTHING
    flows: tuple[Flow, ...] = ()

    def value(self, unit_nav: Decimal) -> Decimal:
        return cents(self.shares * unit_nav)

    def profit(self, unit_nav: Decimal) -> Decimal:
        return self.value(unit_nav) + self.returned - self.invested

    def rate(self, day: date, unit_nav: Decimal) -> float | None:
        """XIRR in percent with everything sold on `day`; None in the first 30 days, and where there is none."""
        if not self.flows or (day - self.flows[0][0]).days < YOUNGEST:
            return None
        found = xirr([*self.flows, (day, float(self.value(unit_nav)))])
        return None if found is None else found * 100


def position(
    trades: Iterable[Trade], events: Iterable[Event], day: date, *, reinvest: bool = False
) -> Position:
    """What is held at the end of `day`.

    Who bought on the ex-date has no right to the dividend, who sold on it has: so events come before orders. A
    money fund's income is of shares that were confirmed by then, and becomes shares.
    """
    entries: Sequence[Trade | Event] = [*events, *(trade for trade in trades)]
    held = Position()
    confirmed: list[tuple[date, Decimal]] = []
    for entry in sorted(entries, key=_order):
        if _day(entry) > day:
            break
        if isinstance(entry, Trade):
            held = _traded(held, entry)
            if entry.kind == "buy":
                confirmed.append((entry.confirm_date, entry.shares))
        else:
            coming = sum((shares for at, shares in confirmed if at > entry.day), NOTHING)
            held = _happened(held, entry, coming, reinvest=reinvest)
            if entry.kind == "split":
                confirmed = [(at, cents(shares * entry.value)) for at, shares in confirmed]
    coming = sum((shares for at, shares in confirmed if at > day), NOTHING)
    return replace(held, unconfirmed_shares=min(coming, held.shares))


def _day(entry: Trade | Event) -> date:
    return entry.nav_date if isinstance(entry, Trade) else entry.day


def _order(entry: Trade | Event) -> tuple[date, int]:
    return _day(entry), RANK["order" if isinstance(entry, Trade) else entry.kind]


def _traded(held: Position, trade: Trade) -> Position:
    if trade.kind == "buy":
        return replace(
            held,
            shares=held.shares + trade.shares,
            cost=held.cost + trade.amount,
            invested=held.invested + trade.amount,
            flows=(*held.flows, (trade.nav_date, -float(trade.amount))),
        )
    left = held.shares - trade.shares
    return replace(
        held,
        shares=left,
        cost=cents(held.cost * left / held.shares) if held.shares else NOTHING,
        returned=held.returned + trade.amount,
        flows=(*held.flows, (trade.nav_date, float(trade.amount))),
    )


def _happened(held: Position, event: Event, coming: Decimal, *, reinvest: bool) -> Position:
    if event.kind == "split":
        return replace(held, shares=cents(held.shares * event.value))
    if event.kind == "income":
        return replace(held, shares=held.shares + cents((held.shares - coming) * event.value))
    cash = cents(held.shares * event.value)
    if reinvest and event.unit_nav is not None:
        return replace(held, shares=held.shares + cents(cash / event.unit_nav))
    flows = (*held.flows, (event.day, float(cash))) if cash else held.flows
    return replace(held, returned=held.returned + cash, flows=flows)
