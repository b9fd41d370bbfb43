"""A fund's whole history as the charts need it: columns of values by date."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from sqlalchemy import Engine, select

from core import db
from core.nav_as_of import adjustments
from core.nav_store import plain
from core.schema import fund_info, fund_nav, fund_nav_revision, money_fund_yield

Record = dict[str, Any]
FEWEST_DIGITS, MOST_DIGITS = 3, 6  # that a near code begins with
REVISION_FIELDS = (
    *("nav_date", "old_unit_nav", "new_unit_nav", "old_accum_nav", "new_accum_nav"),
    *("old_daily_return", "new_daily_return", "reason", "known_at"),
)


def nav_history(engine: Engine, code: str) -> Record:
    """Lists of one length by date: `dates` (ISO text), `unit`, `adjusted` (NAVs), `drawdown` (percent, at most 0)."""
    nav = fund_nav.c
    query = select(plain(nav.nav_date), plain(nav.unit_nav)).where(nav.fund_code == code)
    with db.read(engine) as connection:
        rows = connection.execute(query.order_by(nav.nav_date)).all()
        steps = adjustments(connection, code)
    ex_dates = [day.isoformat() for day, _factor in steps]
    factors = [1.0, *(factor for _day, factor in steps)]
    dates = [row[0] for row in rows]
    unit = np.array([row[1] for row in rows], dtype=np.float64)
    adjusted = unit * [factors[bisect_right(ex_dates, day)] for day in dates]
    drawdown = 100 * (adjusted / np.maximum.accumulate(adjusted) - 1)
    return {
        "dates": dates,
        "unit": unit.tolist(),
        "adjusted": np.round(adjusted, 6).tolist(),
        "drawdown": np.round(drawdown, 4).tolist(),
    }


def yield_history(engine: Engine, code: str) -> Record:
    """Lists of one length by date: `dates` (ISO text), `income` (yuan per 10,000 shares), `yield` (percent a year)."""
    own = money_fund_yield.c
    columns = (plain(own.nav_date), plain(own.income_per_10k), plain(own.yield_7d))
    with db.read(engine) as connection:
        query = select(*columns).where(own.fund_code == code).order_by(own.nav_date)
        rows = connection.execute(query).all()
    dates, incomes, yields = ([row[at] for row in rows] for at in range(3))
    return {"dates": dates, "income": incomes, "yield": yields}


def fund_revisions(engine: Engine, code: str, limit: int) -> list[Record]:
    """The newest corrections of a fund's NAVs, newest first."""
    revision = fund_nav_revision.c
    query = select(*(revision[name] for name in REVISION_FIELDS)).where(revision.fund_code == code)
    with db.read(engine) as connection:
        newest = query.order_by(revision.known_at.desc(), revision.id.desc()).limit(limit)
        return [row._asdict() for row in connection.execute(newest)]


def near_funds(engine: Engine, code: str, limit: int) -> list[Record]:
    """Funds whose codes begin as this one does, for as many digits as there are any."""
    info = fund_info.c
    query = select(info.fund_code, info.fund_name, info.fund_type).order_by(info.fund_code).limit(limit)
    with db.read(engine) as connection:
        for length in range(min(len(code), MOST_DIGITS), FEWEST_DIGITS - 1, -1):
            begins = info.fund_code.startswith(code[:length], autoescape=True)
            if found := connection.execute(query.where(begins)).all():
                return [row._asdict() for row in found]
    return []
