"""Rules on money funds, which publish incomes and yields instead of NAVs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from core.rules import Context, Outcome

MONEY_NAV_FLOOR = 10.0  # exchange-traded money funds stand near 100; their yields stay below this
PERCENT_OF_DAY = 365 / 100  # a day's income per 10,000 shares as a percentage a year
WEEK = 7
LONGEST_SPAN = 12  # days that one row's income may stand for: the longest holiday and its week-ends


def money_limit(frame: pd.DataFrame, context: Context) -> Outcome:
    """Incomes and yields are credible, and no yield of a money fund stands where a NAV belongs."""
    checked = np.zeros(len(frame), dtype=bool)
    failed = np.zeros(len(frame), dtype=bool)
    for name, limit in context.background.thresholds.money_limit.items():
        value = np.abs(frame[name].to_numpy(dtype=float))
        checked |= ~np.isnan(value)
        failed |= value > limit
    nav = frame["unit_nav"].to_numpy(dtype=float)
    kind = frame["category"]
    money = (kind == "money").to_numpy(dtype=bool) & ~np.isnan(nav)
    income = ~np.isnan(frame["income_per_10k"].to_numpy(dtype=float))
    # What has a NAV on record publishes no income, whatever its type is called.
    fund, anchor = frame["fund"].to_numpy(dtype=np.int64), frame["anchor"].to_numpy(dtype=bool)
    with_navs = np.zeros(int(fund.max()) + 1 if len(fund) else 0, dtype=bool)
    with_navs[fund[anchor & ~np.isnan(nav)]] = True
    income &= ~kind.isin(["money", "other"]).to_numpy(dtype=bool) | with_navs[fund]
    everything = ~frame["anchor"].to_numpy(dtype=bool)
    return everything & (checked | money), failed | (money & (nav < MONEY_NAV_FLOOR)) | income


def money_yield(frame: pd.DataFrame, context: Context) -> Outcome:
    """The 7-day yield follows from the incomes of the seven calendar days, as far as we hold them.

    A row's income is that of all days since the row before, at most a week of them, so it is spread over
    those; publishers compound or not. The yield must lie between `yield_low` times what the known days bring
    and `yield_high` times what they would bring for seven, with `yield_slack` percent a year either way.
    """
    thresholds = context.background.thresholds
    income, published = (frame[name].to_numpy(dtype=float) for name in ("income_per_10k", "yield_7d"))
    at = np.flatnonzero(~np.isnan(income) & frame["nav_date"].notna().to_numpy(dtype=bool))
    checked, failed = np.zeros(len(frame), dtype=bool), np.zeros(len(frame), dtype=bool)
    if not len(at):
        return checked, failed
    fund = frame["fund"].to_numpy(dtype=np.int64)[at]
    day = frame["nav_date"].to_numpy()[at].astype("datetime64[D]").astype(np.int64)
    step = np.diff(day, prepend=day[0] - 1)
    same = np.diff(fund, prepend=-1) == 0
    span = np.where(same & (step >= 1) & (step <= LONGEST_SPAN), step, 1)
    known, days = np.zeros(len(at)), np.zeros(len(at))
    for back in range(WEEK):  # the row `back` rows earlier: its part in the seven days up to this one's date
        row = np.maximum(np.arange(len(at)) - back, -1)
        mine = (row >= 0) & (fund[row] == fund)
        part = np.clip(np.minimum(day[row], day) - np.maximum(day[row] - span[row], day - WEEK), 0, None)
        part = np.where(mine, part, 0)
        known += income[at][row] * part / span[row]
        days += part
    annual = known * PERCENT_OF_DAY / WEEK
    least = thresholds.yield_low * annual
    most = thresholds.yield_high * annual * WEEK / np.maximum(days, 1)
    low = np.minimum(least, most) - thresholds.yield_slack  # a week of losses: the most is below the least
    high = np.maximum(least, most) + thresholds.yield_slack
    value = published[at]
    mine = ~frame["anchor"].to_numpy(dtype=bool)[at] & ~np.isnan(value)
    checked[at] = mine
    failed[at] = mine & ((value < low) | (value > high))
    return checked, failed
