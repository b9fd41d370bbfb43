"""The checks on a batch of staged rows: pure functions on a frame, no database and no clock.

A frame here has one row per staged row, sorted by fund_code and nav_date, among each fund's newest
believed rows (`anchor` is True: context, never judged); core.judging puts it together. A rule
returns which rows it looked at and which of those failed. docs/rules.md explains each finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core import money_rules, peer_rules
from core.background import Background
from core.series import LARGEST, SMALLEST, Series, published_decimals
from core.thresholds import MONEY_FIELDS

Bools = NDArray[np.bool_]
Outcome = tuple[Bools, Bools]  # (checked, failed)

NAV_FIELDS = ["unit_nav", "accum_nav", "daily_return"]
EVENT_FIELDS = ["dividend", "split_ratio"]
VALUES = [*NAV_FIELDS, *EVENT_FIELDS, *MONEY_FIELDS]
CODE = re.compile(r"[0-9]{6}")
FIRST_FUND = date(1998, 3, 1)  # no Chinese public fund is older than that spring
VALUATION_DAYS = ("06-30", "12-31")  # half-year valuations are published whatever the weekday
COMPANY = 3  # so many funds of a batch make a day without trading credible
USUAL_DECIMALS = 4
SMALL_STEP = (
    5.0  # percent: what goes on from a level where no return was published, and what is no other level
)
PROVED_WITHIN = 0.02  # percentage points that four decimals and a return of two leave open


@dataclass(frozen=True)
class Context:
    """What the rules need beside the rows."""

    background: Background
    series: Series  # the rows in date order, with what explains each change
    returns: pd.DataFrame  # what peers did; see peer_rules.category_returns


@dataclass(frozen=True)
class Rule:
    id: str
    severity: str  # error: the row is quarantined; warning: it is only counted
    zh: str
    en: str
    check: Callable[[pd.DataFrame, Context], Outcome]
    version: int = 1


def _everything(frame: pd.DataFrame) -> Bools:
    return ~frame["anchor"].to_numpy(dtype=bool)


def key_fields(frame: pd.DataFrame, _context: Context) -> Outcome:
    """Code, date and a NAV, or a money fund's income or yield and no field of a NAV, were readable."""
    income = frame["income_per_10k"].notna() | frame["yield_7d"].notna()
    clear = frame[NAV_FIELDS].notna().any(axis=1) ^ income
    whole = frame["nav_date"].notna() & frame["defect"].isna()
    whole &= clear & (frame["unit_nav"].notna() | income)
    return _everything(frame), (~whole).to_numpy(dtype=bool)


def code_format(frame: pd.DataFrame, _context: Context) -> Outcome:
    """Six digits."""
    codes = frame["fund"].to_numpy(dtype=np.int64)
    distinct = frame["fund_code"].to_numpy()[np.flatnonzero(np.diff(codes, prepend=-1))]
    wrong = np.array([CODE.fullmatch(code) is None for code in distinct], dtype=bool)
    return _everything(frame), wrong[codes]


def unknown_fund(frame: pd.DataFrame, _context: Context) -> Outcome:
    """The fund list names the fund, or we hold rows of it already."""
    fund, anchor = frame["fund"].to_numpy(dtype=np.int64), frame["anchor"].to_numpy(dtype=bool)
    held = np.zeros(int(fund.max()) + 1 if len(fund) else 0, dtype=bool)
    held[fund[anchor]] = True
    return _everything(frame), ~frame["listed"].to_numpy(dtype=bool) & ~held[fund]


def future_date(frame: pd.DataFrame, context: Context) -> Outcome:
    dated = frame["nav_date"].notna().to_numpy(dtype=bool)
    today = pd.Timestamp(context.background.today)
    return _everything(frame) & dated, (frame["nav_date"] > today).to_numpy(dtype=bool)


def before_inception(frame: pd.DataFrame, _context: Context) -> Outcome:
    """No NAV from before the fund, unless we hold older ones (a converted fund keeps its history)."""
    day, inception = frame["nav_date"].to_numpy(), frame["inception"].to_numpy()
    fund, anchor = frame["fund"].to_numpy(dtype=np.int64), frame["anchor"].to_numpy(dtype=bool)
    early = (day < inception) & ~np.isnat(day) & ~np.isnat(inception)
    older = np.zeros(int(fund.max()) + 1 if len(fund) else 0, dtype=bool)
    older[fund[early & anchor]] = True
    too_old = day < np.datetime64(FIRST_FUND)
    return _everything(frame) & ~np.isnat(day), too_old | (early & ~older[fund])


def no_session(frame: pd.DataFrame, context: Context) -> Outcome:
    """A NAV of a day without trading stands beside others of that day, or is a half-year valuation.

    The calendar never decides alone: it may be stale.
    """
    day = frame["nav_date"].to_numpy().astype("datetime64[D]")
    sessions = context.background.sessions
    nav = frame["unit_nav"].notna().to_numpy(dtype=bool)
    # A fund's first row may be of the day it was founded, whatever the weekday.
    known = _everything(frame) & ~np.isnat(day) & nav & (context.series.previous >= 0)
    if len(sessions):
        known &= (day >= sessions[0]) & (day <= sessions[-1])
    at = np.flatnonzero(known & ~np.isin(day, sessions))
    checked, failed = known, np.zeros(len(frame), dtype=bool)
    if len(at):
        days, counts = np.unique(day[at], return_counts=True)
        alone = counts[np.searchsorted(days, day[at])] < COMPANY
        valuation = np.isin(np.array([text[5:] for text in day[at].astype(str)]), VALUATION_DAYS)
        failed[at] = alone & ~valuation
    return checked, failed


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


def decimals(frame: pd.DataFrame, context: Context) -> Outcome:
    """A NAV shows no more digits than the fund's NAVs before (large redemptions bring 8 or 12)."""
    places = published_decimals(frame["unit_nav"].to_numpy(dtype=float))
    before = np.where(context.series.previous >= 0, places[context.series.previous], 0)
    return context.series.judged, places > np.maximum(before, USUAL_DECIMALS)


def _shared_key(frame: pd.DataFrame) -> tuple[Bools, Bools]:
    """Rows of the batch with a date; and those of them whose fund and date stand in another row too."""
    keyed = _everything(frame) & frame["nav_date"].notna().to_numpy(dtype=bool)
    code, day = frame["fund"].to_numpy(dtype=np.int64), frame["nav_date"].to_numpy()
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


def _largest_change(frame: pd.DataFrame, context: Context) -> tuple[Bools, NDArray[np.float64]]:
    """The change or, if larger, the published return over the largest one credible between two rows."""
    sessions = np.sqrt(np.clip(context.series.sessions_since, 1, 5))
    limit = frame["limit"].to_numpy(dtype=float) * sessions
    change = np.abs(context.series.change)
    published = np.abs(frame["daily_return"].to_numpy(dtype=float))
    checked = _everything(frame) & ~(np.isnan(change) & np.isnan(published))
    return checked, np.fmax(change, published) / limit


def return_limit(frame: pd.DataFrame, context: Context) -> Outcome:
    """No larger change than this category of fund can show, after dividends and splits, unless proved."""
    checked, share = _largest_change(frame, context)
    return checked, (share > 1) & ~peer_rules.proved(context.series)


def rejected(frame: pd.DataFrame, _context: Context) -> Outcome:
    """Nobody has called this value wrong."""
    return _everything(frame), frame["rejected"].to_numpy(dtype=bool)


def behind_held(frame: pd.DataFrame, context: Context) -> Outcome:
    """A row that goes on from a level we hold waits with it; otherwise time alone would let the level in.

    After a slip of one day the next row goes on from the last believed one and is believed. A row that is held
    for its return or its accumulated NAV alone (`held_level` 0) keeps nobody waiting unless its NAV is far off.
    """
    series = context.series
    names = ("unit_nav", "held_unit", "held_day", "held_level", "daily_return")
    unit, held, held_day, level, published = (frame[name].to_numpy(dtype=float) for name in names)
    day = frame["nav_date"].to_numpy().astype("datetime64[D]").astype(np.int64)
    at = series.previous
    known = (at >= 0) & ~np.isnan(unit) & ~np.isnan(held)
    checked = _everything(frame) & known & (held_day > np.where(at >= 0, day[at], 0))
    before = np.where(at >= 0, unit[at], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = 100 * (unit / held - 1)
        silent = np.isnan(published) | (published == 0)
        follows = np.where(silent, np.abs(growth) < SMALL_STEP, np.abs(growth - published) <= PROVED_WITHIN)
        nearer = np.abs(np.log(unit / held)) < np.abs(np.log(unit / before))
        far = (level > 0) | (np.abs(100 * (held / before - 1)) >= SMALL_STEP)
    return checked, follows & nearer & far


def unannounced_dividend(_frame: pd.DataFrame, context: Context) -> Outcome:
    """A dividend that only the accumulated NAV tells of: a slip in the unit NAV looks the same."""
    series = context.series
    return series.judged, series.implied & ~series.confirmed


def return_unusual(frame: pd.DataFrame, context: Context) -> Outcome:
    """A change near the largest credible one: believed, and counted."""
    checked, share = _largest_change(frame, context)
    return checked, (share > context.background.thresholds.return_warning) & (share <= 1)


def accum_vs_unit(frame: pd.DataFrame, context: Context) -> Outcome:
    """Accumulated NAV moves with the unit NAV: by the same amount, or by the same share after a split.

    A new basis that the two rows after it keep is believed.
    """
    series = context.series
    published = frame["daily_return"].to_numpy(dtype=float)
    silent = np.isnan(published) | (published == 0)  # then nothing else tells of a dividend
    allowed = np.where(silent, series.accum_digits, context.background.thresholds.accum_tolerance)
    far = (series.accum_misfit > allowed) & ~series.has_event & ~series.accum_confirmed
    return ~np.isnan(series.accum_misfit) & series.judged, far


def revision(frame: pd.DataFrame, context: Context) -> Outcome:
    """A value believed until now changes by little, or its published return proves the new one, not the old.

    More digits of the same value are welcome.
    """
    thresholds, series = context.background.thresholds, context.series
    names = ("unit_nav", "stored_unit", "stored_return")
    unit, stored, stored_return = (frame[name].to_numpy(dtype=float) for name in names)
    checked = _everything(frame) & ~np.isnan(unit) & ~np.isnan(stored)
    before = np.where(series.previous >= 0, unit[series.previous], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.abs(unit / stored - 1) * 100
        old_proved = np.abs(100 * (stored / before - 1) - stored_return) <= PROVED_WITHIN
        new_proved = series.return_checked & series.return_explained
    return checked, (change > thresholds.revision_small) & (old_proved | ~new_proved)


RULES: tuple[Rule, ...] = (
    Rule(
        "key_fields",
        "error",
        "代码、日期、净值齐全可读",
        "code, date and NAV are present and readable",
        key_fields,
    ),
    Rule("code_format", "error", "基金代码为六位数字", "the fund code is six digits", code_format),
    Rule("unknown_fund", "error", "基金在基金列表中", "the fund list names the fund", unknown_fund),
    Rule("future_date", "error", "净值日期不在未来", "the NAV date is not in the future", future_date),
    Rule(
        "before_inception", "error", "净值日期不早于基金成立", "no NAV from before the fund", before_inception
    ),
    Rule(
        "no_session",
        "error",
        "非交易日的净值不是孤例",
        "a NAV of a day without trading does not stand alone",
        no_session,
    ),
    Rule("nav_positive", "error", "净值大于零", "NAVs are above zero", nav_positive),
    Rule("decimals", "warning", "小数位数不多于往日", "no more decimals than before", decimals),
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
    Rule("rejected", "error", "未被人工否决", "nobody has called this value wrong", rejected),
    Rule(
        "behind_held",
        "error",
        "不沿用已被扣留的净值水平",
        "the row does not go on from a level that is held",
        behind_held,
    ),
    Rule(
        "unannounced_dividend",
        "error",
        "分红有公告或被后续净值证实",
        "a dividend is announced or confirmed by the NAVs after it",
        unannounced_dividend,
    ),
    Rule(
        "return_unusual",
        "warning",
        "涨跌幅远离该类基金的极限",
        "the change is far from the largest credible one",
        return_unusual,
    ),
    Rule(
        "cross_section",
        "error",
        "涨跌幅在同类基金中不离群",
        "the change is no outlier among its peers",
        peer_rules.cross_section,
    ),
    Rule(
        "share_class",
        "error",
        "同一基金各份额涨跌一致",
        "the share classes of one fund move together",
        peer_rules.share_class,
    ),
    Rule(
        "stale",
        "error",
        "同类基金大动时净值没有停滞",
        "the NAV does not stand still while its peers move",
        peer_rules.stale,
    ),
    Rule(
        "clone",
        "error",
        "历史净值不与无关基金雷同",
        "no history equals that of an unrelated fund",
        peer_rules.clone,
    ),
    Rule(
        "accum_vs_unit",
        "error",
        "累计净值与单位净值变动一致",
        "accumulated NAV moves with unit NAV",
        accum_vs_unit,
        version=2,
    ),
    Rule(
        "money_limit",
        "error",
        "货币基金的收益可信，且未当作净值",
        "a money fund's income is credible and stands for no NAV",
        money_rules.money_limit,
    ),
    Rule(
        "money_yield",
        "error",
        "七日年化与近七日万份收益相符",
        "the 7-day yield agrees with the income of seven days",
        money_rules.money_yield,
    ),
    Rule(
        "revision",
        "error",
        "更正幅度不大或有据可依",
        "a correction is small or proved",
        revision,
    ),
    Rule(
        "sources_agree",
        "error",
        "与第二来源一致",
        "another source says the same",
        peer_rules.sources_agree,
    ),
)
