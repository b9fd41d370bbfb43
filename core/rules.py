"""The checks on a batch of staged rows: pure functions on a frame, no database and no clock.

A frame here has one row per staged row, sorted by fund_code and nav_date, preceded for each fund by
its newest believed rows from before the batch (`anchor` is True: context, never judged). A rule
returns which rows it looked at and which of those failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.series import LARGEST, SMALLEST, Series
from core.thresholds import MONEY_FIELDS, Thresholds

Bools = NDArray[np.bool_]
Outcome = tuple[Bools, Bools]  # (checked, failed)

NAV_FIELDS = ["unit_nav", "accum_nav", "daily_return"]
EVENT_FIELDS = ["dividend", "split_ratio"]
VALUES = [*NAV_FIELDS, *EVENT_FIELDS, *MONEY_FIELDS]
MONEY_NAV_FLOOR = 10.0  # exchange-traded money funds stand near 100; their yields stay below this


@dataclass(frozen=True)
class Context:
    """What the rules need beside the rows."""

    today: date  # Shanghai date of the moment the batch is judged
    thresholds: Thresholds
    series: Series  # the rows in date order, with what explains each change


@dataclass(frozen=True)
class Rule:
    id: str
    severity: str  # error: the row is quarantined; warning: it is only counted
    zh: str
    en: str
    check: Callable[[pd.DataFrame, Context], Outcome]


def _everything(frame: pd.DataFrame) -> Bools:
    return ~frame["anchor"].to_numpy(dtype=bool)


def key_fields(frame: pd.DataFrame, _context: Context) -> Outcome:
    """Code, date and a NAV, or a money fund's income or yield and no field of a NAV, were readable."""
    income = frame["income_per_10k"].notna() | frame["yield_7d"].notna()
    clear = frame[NAV_FIELDS].notna().any(axis=1) ^ income
    whole = frame["nav_date"].notna() & (frame["fund_code"] != "") & frame["defect"].isna()
    whole &= clear & (frame["unit_nav"].notna() | income)
    return _everything(frame), (~whole).to_numpy(dtype=bool)


def code_format(frame: pd.DataFrame, _context: Context) -> Outcome:
    """Six digits."""
    return _everything(frame), (~frame["fund_code"].str.fullmatch(r"[0-9]{6}")).to_numpy(dtype=bool)


def future_date(frame: pd.DataFrame, context: Context) -> Outcome:
    dated = frame["nav_date"].notna().to_numpy(dtype=bool)
    return _everything(frame) & dated, (frame["nav_date"] > pd.Timestamp(context.today)).to_numpy(dtype=bool)


def nav_positive(frame: pd.DataFrame, _context: Context) -> Outcome:
    """NAVs are above zero, dividends and splits not below; no value is beyond what the tables hold."""
    failed = np.zeros(len(frame), dtype=bool)
    checked = np.zeros(len(frame), dtype=bool)
    for name in VALUES:
        value = frame[name].to_numpy(dtype=float)
        known = ~np.isnan(value)
        checked |= known
        failed |= known & ~(np.abs(value) < LARGEST)
        if name in ("unit_nav", "accum_nav"):
            failed |= known & ~(value >= SMALLEST)
        if name in EVENT_FIELDS:  # zero is some publishers' word for none
            failed |= known & (value != 0) & ~(value >= SMALLEST)
    return _everything(frame) & checked, failed


def _shared_key(frame: pd.DataFrame) -> tuple[Bools, Bools]:
    """Rows of the batch with a date; and those of them whose fund and date stand in another row too."""
    keyed = _everything(frame) & frame["nav_date"].notna().to_numpy(dtype=bool)
    code, day = pd.factorize(frame["fund_code"])[0], frame["nav_date"].to_numpy()
    same = (code[1:] == code[:-1]) & (day[1:] == day[:-1]) & keyed[1:] & keyed[:-1]
    shared = np.zeros(len(frame), dtype=bool)
    shared[1:] |= same
    shared[:-1] |= same
    return keyed, shared


def duplicate(frame: pd.DataFrame, _context: Context | None) -> Outcome:
    """The same row again, value for value: dropped, counted."""
    keyed, failed = _shared_key(frame)
    failed[failed] = frame[failed].duplicated(["fund_code", "nav_date", *VALUES]).to_numpy(dtype=bool)
    return keyed, failed


def conflict(frame: pd.DataFrame, _context: Context | None) -> Outcome:
    """Rows of one fund and date that differ: none of them is believed."""
    keyed, failed = _shared_key(frame)
    rows = frame.loc[failed, ["fund_code", "nav_date", *VALUES]]
    different = rows.drop_duplicates().duplicated(["fund_code", "nav_date"], keep=False)
    failed[failed] = rows.index.isin(different.index[different])
    return keyed, failed


def return_matches_nav(_frame: pd.DataFrame, context: Context) -> Outcome:
    """The published return follows from the NAVs, dividends and splits, as far as rounding lets one tell."""
    return context.series.return_checked, ~context.series.return_explained


def return_limits(category: pd.Series[str], thresholds: Thresholds) -> pd.Series[float]:
    """The largest credible change of one trading day for funds of these categories, percent."""
    limits = thresholds.return_limit
    return category.map(limits).fillna(limits["other"]).astype(float)


def return_limit(frame: pd.DataFrame, context: Context) -> Outcome:
    """No larger change than this category of fund can show, after dividends and splits."""
    limit = frame["limit"].to_numpy(dtype=float) * np.sqrt(np.clip(context.series.sessions_since, 1, 5))
    change = np.abs(context.series.change)
    published = np.abs(frame["daily_return"].to_numpy(dtype=float))
    checked = _everything(frame) & ~(np.isnan(change) & np.isnan(published))
    return checked, np.fmax(change, published) > limit


def accum_vs_unit(_frame: pd.DataFrame, context: Context) -> Outcome:
    """Accumulated over unit NAV moves only by dividends and splits."""
    series = context.series
    limit = np.log(context.thresholds.accum_factor)
    with np.errstate(divide="ignore", invalid="ignore"):
        jump = np.abs(np.log(series.accum_over_unit / series.previous_accum_over_unit))
        # The row before may be the wrong one.
        back = np.abs(np.log(series.accum_over_unit / series.earlier_accum_over_unit)) <= limit
    return ~np.isnan(jump) & series.judged, (jump > limit) & ~back & ~series.has_event


def money_limit(frame: pd.DataFrame, context: Context) -> Outcome:
    """Incomes and yields are credible, and no yield of a money fund stands where a NAV belongs."""
    checked = np.zeros(len(frame), dtype=bool)
    failed = np.zeros(len(frame), dtype=bool)
    for name, limit in context.thresholds.money_limit.items():
        value = np.abs(frame[name].to_numpy(dtype=float))
        checked |= ~np.isnan(value)
        failed |= value > limit
    nav = frame["unit_nav"].to_numpy(dtype=float)
    money = (frame["category"] == "money").to_numpy(dtype=bool) & ~np.isnan(nav)
    return _everything(frame) & (checked | money), failed | (money & (nav < MONEY_NAV_FLOOR))


RULES: tuple[Rule, ...] = (
    Rule(
        "key_fields",
        "error",
        "代码、日期、净值齐全可读",
        "code, date and NAV are present and readable",
        key_fields,
    ),
    Rule("code_format", "error", "基金代码为六位数字", "the fund code is six digits", code_format),
    Rule("future_date", "error", "净值日期不在未来", "the NAV date is not in the future", future_date),
    Rule("nav_positive", "error", "净值大于零", "NAVs are above zero", nav_positive),
    Rule("duplicate", "warning", "同一行没有重复", "no row is given twice", duplicate),
    Rule("conflict", "error", "同一基金同一天只有一个值", "one fund has one value a date", conflict),
    Rule(
        "return_matches_nav",
        "error",
        "公布的涨跌幅与净值变动相符",
        "the published return agrees with the NAVs",
        return_matches_nav,
    ),
    Rule(
        "return_limit",
        "error",
        "涨跌幅在该类基金的可信范围内",
        "the change is credible for its type",
        return_limit,
    ),
    Rule(
        "accum_vs_unit",
        "error",
        "累计净值与单位净值变动一致",
        "accumulated NAV moves with unit NAV",
        accum_vs_unit,
    ),
    Rule(
        "money_limit",
        "error",
        "货币基金的收益可信，且未当作净值",
        "a money fund's income is credible and stands for no NAV",
        money_limit,
    ),
)
GATE, HELD_GATE = "coverage", "quarantined_share"  # on the batch, not on its rows; see data_pipeline
