"""Orders, plans, positions and their rate of return: by hand, and against pyxirr."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st
from pyxirr import xirr as reference_xirr, xnpv
from scipy.optimize import brentq
from sqlalchemy import Connection, Engine, insert, select

from core import db
from core.errors import UsageError
from core.holdings import ledger
from core.holdings.orders import Fill, Plan, bought, confirm_date_of, due_sessions, nav_date_of, sold
from core.holdings.positions import Event, Position, Trade, position
from core.holdings.tables import (
    holdings_choice,
    holdings_order,
    holdings_plan,
    holdings_position,
    metadata,
)
from core.holdings.xirr import xirr
from core.schema import fund_event, fund_info, fund_nav, money_fund_yield
from core.trading_calendar import TradingCalendar, library_sessions, store_calendar
from tests.example_night import at

MONDAY = date(2025, 12, 1)
D = Decimal


@pytest.fixture(scope="module")
def calendar() -> TradingCalendar:
    return TradingCalendar(library_sessions())


@pytest.mark.parametrize(
    ("placed", "nav_date", "confirmed"),
    [
        ("2025-12-01 14:59", date(2025, 12, 1), date(2025, 12, 2)),
        ("2025-12-01 15:00", date(2025, 12, 2), date(2025, 12, 3)),
        ("2025-12-05 16:00", date(2025, 12, 8), date(2025, 12, 9)),  # Friday evening
        ("2025-12-06 10:00", date(2025, 12, 8), date(2025, 12, 9)),  # Saturday
        ("2025-09-30 15:30", date(2025, 10, 9), date(2025, 10, 10)),  # before the Golden Week
    ],
)
def test_the_day_whose_nav_an_order_gets(
    calendar: TradingCalendar, placed: str, nav_date: date, confirmed: date
) -> None:
    found = nav_date_of(at(placed), calendar)
    assert (found, confirm_date_of(found, calendar)) == (nav_date, confirmed)


def test_an_order_abroad_is_confirmed_a_session_later(calendar: TradingCalendar) -> None:
    assert confirm_date_of(date(2025, 12, 5), calendar, 2) == date(2025, 12, 9)


def test_what_is_bought_and_sold_by_hand() -> None:
    # 1,000 / 1.015 = 985.2217: 985.22 net, 14.78 fee; 985.22 / 1.2345 = 798.0721 shares.
    assert bought(D("1000.00"), D("1.2345"), D("1.5")) == Fill(D("798.07"), D("1000.00"), D("14.78"))
    assert bought(D("100"), D("1.6"), D("0")) == Fill(D("62.50"), D("100"), D("0.00"))
    # 500.55 x 1.3 = 650.715, half up 650.72; 0.5 % of it 3.2536.
    assert sold(D("500.55"), D("1.3"), D("0.5")) == Fill(D("500.55"), D("647.47"), D("3.25"))


@pytest.mark.parametrize(
    ("plan", "since", "until", "days"),
    [
        # 1 October to 8 October and 1 to 4 January are holidays, 1 November is a Saturday.
        (
            Plan("month", 1, date(2025, 9, 1)),
            date(2025, 9, 1),
            date(2026, 1, 31),
            ["2025-09-01", "2025-10-09", "2025-11-03", "2025-12-01", "2026-01-05"],
        ),
        # The first Thursday is the 11th; New Year's Day goes to the 5th of January, Monday.
        (
            Plan("two_weeks", 4, date(2025, 12, 5)),
            date(2025, 12, 5),
            date(2026, 1, 10),
            ["2025-12-11", "2025-12-25", "2026-01-08"],
        ),
        (
            Plan("week", 3, date(2025, 9, 24), date(2025, 10, 15)),
            date(2025, 9, 24),
            date(2025, 12, 31),
            ["2025-09-24", "2025-10-09", "2025-10-15"],  # those of the 1st and the 8th are one
        ),
        (
            Plan("session", 1, date(2025, 12, 4)),
            date(2025, 12, 5),
            date(2025, 12, 9),
            ["2025-12-05", "2025-12-08", "2025-12-09"],
        ),
        (Plan("month", 28, date(2025, 12, 1)), date(2025, 12, 1), date(2025, 12, 28), []),  # a Sunday
    ],
)
def test_when_a_plan_invests(
    calendar: TradingCalendar, plan: Plan, since: date, until: date, days: list[str]
) -> None:
    assert [str(day) for day in due_sessions(plan, since, until, calendar)] == days


def test_the_example_of_the_spreadsheet() -> None:
    """The documented example of Excel's XIRR."""
    flows = [
        (date(2008, 1, 1), -10_000.0),
        (date(2008, 3, 1), 2_750.0),
        (date(2008, 10, 30), 4_250.0),
        (date(2009, 2, 15), 3_250.0),
        (date(2009, 4, 1), 2_750.0),
    ]
    assert xirr(flows) == pytest.approx(0.373362535, abs=5e-9)


@given(
    paid=st.lists(st.tuples(st.integers(0, 3000), st.floats(1, 1e6)), min_size=1, max_size=60),
    grown=st.floats(0.05, 20),
)
def test_the_rate_is_that_of_the_reference_library(paid: list[tuple[int, float]], grown: float) -> None:
    """Many payments and what they are worth at last: one root."""
    flows = [(MONDAY + timedelta(days=day), -amount) for day, amount in paid]
    flows.append((MONDAY + timedelta(days=3400), grown * sum(amount for _, amount in paid)))
    ours, theirs = xirr(flows), reference_xirr(flows)
    # Its own search stops at about 1e-9 of the rate; its present value is exact, and so is the root of that.
    exact = brentq(lambda growth: xnpv(math.expm1(growth), flows), -8, 60, xtol=1e-15)
    assert ours is not None
    assert theirs is not None
    assert 1 + ours == pytest.approx(1 + theirs, rel=1e-7)
    assert math.log1p(ours) == pytest.approx(exact, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "flows",
    [
        [],
        [(MONDAY, -5.0)],
        [(MONDAY, -5.0), (MONDAY + timedelta(days=9), -1.0)],
        [(MONDAY, -5.0), (MONDAY, 6.0)],
        [(MONDAY, 0.0), (MONDAY + timedelta(days=9), 0.0)],
        # 1, -2, 2 a year apart: its present value is never 0.
        [(MONDAY, 1.0), (MONDAY + timedelta(days=365), -2.0), (MONDAY + timedelta(days=730), 2.0)],
    ],
)
def test_without_a_rate_there_is_none(flows: list[tuple[date, float]]) -> None:
    assert xirr(flows) is None


def test_a_rate_of_a_few_days_does_not_overflow() -> None:
    found = xirr([(MONDAY, -100.0), (MONDAY + timedelta(days=1), 101.0)])
    assert found == pytest.approx(1.01**365 - 1, rel=1e-9)


BUY = Trade(date(2025, 12, 2), date(2025, 12, 3), "buy", D("1000.00"), D("1500.00"))
LATER = Trade(date(2025, 12, 9), date(2025, 12, 10), "buy", D("500.00"), D("900.00"))
SALE = Trade(date(2025, 12, 9), date(2025, 12, 10), "sell", D("400.00"), D("700.00"))
DIVIDEND = Event(date(2025, 12, 9), "dividend", D("0.05"), D("1.60"))


def test_who_buys_on_the_ex_date_has_no_right_to_the_dividend_who_sells_has() -> None:
    held = position([LATER, BUY, SALE], [DIVIDEND], date(2025, 12, 9))
    assert held.returned == D("50.00") + D("700.00")  # of 1,000 shares
    assert (held.shares, held.unconfirmed_shares) == (D("1100.00"), D("500.00"))
    # In order of arrival: 1,500 and 900 for 1,500 shares; 1,100 of them are left.
    assert (held.invested, held.cost) == (D("2400.00"), D("1760.00"))
    # The flows of the day they were: paid 1,500; got 50; paid 900; got 700.
    assert [amount for _, amount in held.flows] == [-1500.0, 50.0, -900.0, 700.0]
    nav = D("1.65")
    assert held.value(nav) == D("1815.00")
    assert held.profit(nav) == D("1815.00") + 750 - 2400


def test_a_dividend_can_be_reinvested_and_a_split_multiplies() -> None:
    split = Event(date(2025, 12, 10), "split", D("2.5"))
    held = position([BUY], [split, DIVIDEND], date(2025, 12, 31), reinvest=True)
    # 50 / 1.60 = 31.25 more, then 2.5 for one.
    assert (held.shares, held.returned, held.cost) == (D("2578.13"), D("0"), D("1500.00"))
    assert position([BUY], [split, DIVIDEND], date(2025, 12, 8)).shares == D("1000.00")


def test_money_earns_from_the_day_it_is_confirmed() -> None:
    money = Trade(date(2025, 12, 2), date(2025, 12, 3), "buy", D("20000.00"), D("20000.00"))
    incomes = [Event(date(2025, 12, day), "income", D("0.00005")) for day in (2, 3, 4)]
    held = position([money], incomes, date(2025, 12, 4))
    assert held.shares == D("20002.00")  # 1.00 on the 3rd, 1.00 on the 4th
    assert held.profit(D(1)) == D("2.00")


def test_a_young_position_has_no_yearly_rate() -> None:
    held = position([BUY], [], date(2026, 12, 31))
    assert held.rate(date(2025, 12, 31), D("1.6")) is None
    assert held.rate(date(2026, 12, 2), D("1.65")) == pytest.approx(10.0)  # 1,500 to 1,650 in 365 days
    assert Position().rate(date(2026, 12, 2), D(1)) is None


FUNDS = (("000001", "mixed"), ("000002", "qdii"), ("000009", "money"))
NAVS = {1: 1.0, 2: 1.1, 3: 1.2, 4: 1.25, 5: 1.25, 8: 1.2}


@pytest.fixture
def ledger_engine(engine: Engine, calendar: TradingCalendar) -> Engine:
    """Fund 1: a NAV each day, a dividend on the 4th. Fund 2, abroad: not on the 3rd. Fund 9: money."""
    metadata.create_all(engine)
    with db.write(engine) as connection:
        store_calendar(connection, calendar.between(date(2025, 1, 1), date(2026, 12, 31)), [])
        for code, category in FUNDS:
            named = {"fund_code": code, "fund_name": code, "fund_type": category, "category": category}
            connection.execute(insert(fund_info).values(**named, updated_at=at("2025-12-01 20:00")))
        for day, nav in NAVS.items():
            when = date(2025, 12, day)
            for code in ("000001", "000002"):
                if (code, day) != ("000002", 3):
                    row = {"fund_code": code, "nav_date": when, "unit_nav": nav, "batch_id": 1}
                    connection.execute(insert(fund_nav).values(row))
            income = {"fund_code": "000009", "nav_date": when, "income_per_10k": 0.5, "batch_id": 1}
            connection.execute(insert(money_fund_yield).values(income))
        event = {"fund_code": "000001", "ex_date": date(2025, 12, 4), "kind": "dividend", "value": 0.02}
        connection.execute(insert(fund_event).values(**event, evidence="published", batch_id=1))
        announced = event | {"ex_date": date(2025, 12, 5), "evidence": "announced"}
        connection.execute(insert(fund_event).values(**announced, batch_id=1))
    return engine


def order(code: str, kind: str, quantity: str, placed: str, reference: str, fee: str = "0") -> ledger.Order:
    assert kind in ("buy", "sell")
    word = "buy" if kind == "buy" else "sell"
    return ledger.Order(code, word, D(quantity), at(placed), D(fee), reference)


def settle(connection: Connection, calendar: TradingCalendar, until: date) -> None:
    ledger.place_planned(connection, calendar, until)
    changed = ledger.fill_orders(connection, until)
    ledger.value_positions(connection, calendar, changed, until)


def positions(engine: Engine) -> dict[tuple[str, int], tuple[D, D, D]]:
    with db.read(engine) as connection:
        return {
            (row.fund_code, row.position_date.day): (row.shares, row.value, row.profit)
            for row in connection.execute(select(holdings_position))
        }


def test_orders_are_stored_once_and_settled_when_their_nav_is_there(
    ledger_engine: Engine, calendar: TradingCalendar
) -> None:
    orders = [
        order("000001", "buy", "1100.00", "2025-12-01 15:01", "a"),  # the NAV of the 2nd: 1.1
        order("000002", "buy", "240.00", "2025-12-03 09:00", "b"),  # which has none of the 3rd
        order("000001", "sell", "500.00", "2025-12-04 09:00", "c", "0.5"),
        order("000001", "sell", "501.00", "2025-12-05 09:00", "d"),
        order("000009", "buy", "10000.00", "2025-12-01 09:00", "e"),
    ]
    with db.write(ledger_engine) as connection:
        assert ledger.add_orders(connection, calendar, "mine", orders) == 5
        assert ledger.add_orders(connection, calendar, "mine", orders) == 0
        assert ledger.add_orders(connection, calendar, "yours", orders[:1]) == 1
        for day in (2, 3, 4, 5, 8):
            settle(connection, calendar, date(2025, 12, day))
        rows = {
            row.reference: row
            for row in connection.execute(select(holdings_order).where(holdings_order.c.portfolio == "mine"))
        }
        assert ledger.waiting(connection, date(2025, 12, 8)) == 1
        totals = ledger.totals(connection, date(2025, 12, 8))
    assert {key: row.status for key, row in rows.items()} == {
        "a": "FILLED",
        "b": "PENDING",
        "c": "FILLED",
        "d": "REFUSED",
        "e": "FILLED",
    }
    assert (rows["a"].shares, rows["a"].unit_nav) == (D("1000.00"), 1.1)
    assert rows["b"].confirm_date == date(2025, 12, 5)
    assert (rows["c"].amount, rows["c"].fee) == (D("621.87"), D("3.13"))  # 625 less 0.5 %, 3.125
    assert rows["d"].reason == (
        "501.00 shares cannot be sold: 500.00 shares are held, 0.00 of them not confirmed yet"
    )
    with db.read(ledger_engine) as connection:
        mine = holdings_position.c.portfolio == "mine"
        last = {
            row.fund_code: row
            for row in connection.execute(
                select(holdings_position).where(mine, holdings_position.c.position_date == date(2025, 12, 8))
            )
        }
    first = last["000001"]
    # 20.00 of dividend of 1,000 shares and 621.87; 500 shares at 1.2; half of what was paid.
    assert (first.shares, first.value, first.returned, first.cost) == (
        D("500.00"),
        D("600.00"),
        D("641.87"),
        D("550.00"),
    )
    assert first.profit == D("600.00") + D("641.87") - D("1100.00")
    # Confirmed on the 2nd: 0.50 on the 2nd, 3rd, 4th, 5th and 8th.
    assert last["000009"].shares == D("10002.50")
    assert totals["mine"]["profit"] == float(first.profit + D("2.50"))


def test_a_plan_places_its_orders_once(ledger_engine: Engine, calendar: TradingCalendar) -> None:
    plan = {"portfolio": "mine", "name": "weekly", "fund_code": "000001", "amount": D("110.00")}
    more = {"fee_rate": D(0), "every": "session", "day": 1, "start_date": date(2025, 12, 2)}
    with db.write(ledger_engine) as connection:
        connection.execute(insert(holdings_plan).values(**plan, **more))
        settle(connection, calendar, date(2025, 12, 3))
        settle(connection, calendar, date(2025, 12, 3))
    assert positions(ledger_engine) == {
        ("000001", 2): (D("100.00"), D("110.00"), D("0.00")),
        ("000001", 3): (D("191.67"), D("230.00"), D("10.00")),  # 110 / 1.2 = 91.67
    }


def test_a_mended_past_is_valued_anew(ledger_engine: Engine, calendar: TradingCalendar) -> None:
    """An order that comes late, and a choice for reinvestment, change what was valued since."""
    with db.write(ledger_engine) as connection:
        first = order("000001", "buy", "1100.00", "2025-12-02 09:00", "a")
        ledger.add_orders(connection, calendar, "mine", [first])
        settle(connection, calendar, date(2025, 12, 8))
        before = positions_of(connection)
        late = order("000001", "buy", "120.00", "2025-12-03 09:00", "late")
        ledger.add_orders(connection, calendar, "mine", [late])
        settle(connection, calendar, date(2025, 12, 8))
        after = positions_of(connection)
        choice = {"portfolio": "mine", "fund_code": "000001", "dividends": "reinvest"}
        connection.execute(insert(holdings_choice).values(choice))
        since = dict.fromkeys(ledger.holdings(connection), date(2025, 12, 2))
        ledger.value_positions(connection, calendar, since, date(2025, 12, 8))
        reinvested = positions_of(connection)
    assert [before[day] for day in (2, 3, 8)] == [D("1000.00"), D("1000.00"), D("1000.00")]
    assert [after[day] for day in (2, 3, 8)] == [D("1000.00"), D("1100.00"), D("1100.00")]
    assert reinvested[8] == D("1117.60")  # 22.00 at 1.25


def positions_of(connection: Connection) -> dict[int, D]:
    query = select(holdings_position.c.position_date, holdings_position.c.shares)
    return {row.position_date.day: row.shares for row in connection.execute(query)}


def test_what_cannot_be_ordered_is_named(ledger_engine: Engine, calendar: TradingCalendar) -> None:
    with db.write(ledger_engine) as connection:
        with pytest.raises(UsageError, match="999999: not in the fund list"):
            ledger.add_orders(
                connection, calendar, "mine", [order("999999", "buy", "1", "2025-12-01 09:00", "x")]
            )
        far = datetime(2099, 1, 5, 10, tzinfo=at("2025-12-01 09:00").tzinfo)
        with pytest.raises(UsageError, match="x: 2099-01-05 is after the last trading day known"):
            ledger.add_orders(
                connection, calendar, "mine", [ledger.Order("000001", "buy", D(1), far, D(0), "x")]
            )
        assert connection.execute(select(holdings_order)).all() == []
