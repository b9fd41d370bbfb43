"""Everything stored, judged again: the same rules find nothing in what they believed, and what was forced in."""

from __future__ import annotations

from sqlalchemy import Engine, insert

from core.db import write
from core.revalidation import revalidate_stored
from core.schema import fund_nav, money_fund_yield
from core.trading_calendar import TradingCalendar
from tests.example_batch import FRI, MON, SESSIONS, THRESHOLDS, THU, TODAY, TUE, WED, nav
from tests.test_pipeline import MONEY, process

# 1.0101/1.0001 - 1 = 0.9999 %, 1.0202/1.0101 - 1 = 0.9999 %, 1.0304/1.0202 - 1 = 0.9998 %
ROWS = [nav(MON, 1.0001), nav(TUE, 1.0101, 1.0), nav(WED, 1.0202, 1.0), nav(THU, 1.0304, 1.0)]


def failed(engine: Engine) -> dict[str, tuple[int, int]]:
    """Checked and failed of the rules that have anything to say."""
    found = revalidate_stored(engine, THRESHOLDS, TradingCalendar(SESSIONS), TODAY)
    return {result.rule_id: (result.checked, result.failed) for result in found if result.failed}


def test_what_was_believed_passes_again_and_what_was_forced_in_does_not(engine: Engine) -> None:
    assert process(engine, [*ROWS, *MONEY]).quarantined == 0
    assert failed(engine) == {}
    with write(engine) as connection:
        row = {
            "fund_code": "000001",
            "nav_date": FRI,
            "unit_nav": 1.0407,
            "daily_return": -1.0,
            "batch_id": 1,
        }
        connection.execute(insert(fund_nav).values(row))
        income = {"fund_code": "000009", "nav_date": WED, "income_per_10k": 99.0, "yield_7d": 1.8}
        connection.execute(insert(money_fund_yield).values(**income, batch_id=1))
    found = failed(engine)
    assert found["return_matches_nav"] == (4, 1)
    assert found["money_limit"][1] == 1
