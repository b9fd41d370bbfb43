"""Faults as they happen to a night's batch, injected on purpose: pure functions, the seed decides everything.

A fault gets the night's staged rows and what stands around them (`bench.nights.Night`) and gives back the
changed rows. Which of them are bad is not the fault's to say: `inject` holds every row of the changed batch
against the recording. A row is bad if what it says of its fund and date is wrong by more than twice what
rounding allows (see `is_material`), or if the recording knows no such fund or date. Rows that a fault touched
without making them wrong (a flipped sign of 0.00 %) are left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.nights import Night
from core.peer_rules import MOVING
from core.series import published_decimals
from core.sources.base import NavRow

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Spoil = Callable[[pd.DataFrame, Ints, Night, np.random.Generator], pd.DataFrame]
Wanted = Callable[[Night], Bools]

NAVS = ["unit_nav", "accum_nav", "daily_return"]
MONEY = ["income_per_10k", "yield_7d"]
PAGE_CAPS = (20, 200, 500, 1000, 2000, 5000, 10_000)
SHARE, FEWEST = 0.01, 20  # of a night's rows, for faults of single rows


@dataclass(frozen=True)
class Fault:
    id: str
    zh: str
    en: str
    spoil: Spoil
    wanted: Wanted  # rows of a night that it can happen to
    batch: bool = False  # it happens to all wanted rows at once
    on_events: bool = False  # it needs nights with dividends or splits, and happens to all of theirs
    rows: int | None = None  # how many rows of a night, instead of a share of them
    draws: int = 1  # so many times a night, each time into the recorded rows
    stuck: bool = False  # the two nights before, the fund showed the same NAV and 0.00 already


@dataclass(frozen=True)
class Injected:
    frame: pd.DataFrame  # the batch after the fault
    bad: Ints  # row_no of rows that are materially wrong
    twins: Ints  # row_no of sound rows that share fund and date with a bad one: holding them is right
    lost: int  # rows of the night that are not in the batch any more
    left_out: int  # rows touched that are not materially wrong
    stuck: tuple[str, ...] = ()  # codes of funds that stood still the two nights before


def inject(fault: Fault, night: Night, rng: np.random.Generator) -> Injected | None:
    """One night with one fault in it; None where the night has no row it could happen to."""
    may = np.flatnonzero(fault.wanted(night))
    if not len(may):
        return None
    if not fault.batch and not fault.on_events:
        wanted = fault.rows or max(FEWEST, int(SHARE * len(night.staged)))
        may = np.sort(rng.choice(may, size=min(wanted, len(may)), replace=False))
    frame = fault.spoil(night.staged.copy(), may, night, rng).reset_index(drop=True)
    changed = _changed(frame, night.staged)
    bad = changed & is_material(frame, night)
    key = pd.MultiIndex.from_frame(frame[["fund_code", "nav_date"]])
    twins = ~bad & key.isin(key[bad])
    row_no = frame["row_no"].to_numpy(dtype=np.int64)
    lost = int((~night.staged["row_no"].isin(row_no)).sum())
    left_out = (0 if fault.batch else len(may)) and int((~changed | ~bad)[np.isin(row_no, may + 1)].sum())
    stuck = tuple(night.staged["fund_code"].to_numpy()[may].tolist()) if fault.stuck else ()
    return Injected(frame, row_no[bad], row_no[twins], lost, left_out, stuck)


def _changed(frame: pd.DataFrame, staged: pd.DataFrame) -> Bools:
    """Rows that differ from the night's, or are not among them."""
    before = staged.set_index("row_no").reindex(frame["row_no"]).reset_index()
    same = np.ones(len(frame), dtype=bool)
    for name in NavRow._fields:
        mine, theirs = frame[name], before[name]
        same &= ((mine == theirs) | (mine.isna() & theirs.isna())).to_numpy(dtype=bool)
    return ~same


def is_material(frame: pd.DataFrame, night: Night) -> Bools:
    """Whether a row is wrong about its fund and date by more than twice what rounding allows.

    d is half a unit of the last digit of the NAV (the finer of this row's and the one before, as recorded).
    NAV: off by more than twice 2d + 0.005 % of the NAV before. Accumulated NAV and dividend: by more than
    4d. Return: by more than twice 100*d*(1 + U/U_prev)/U_prev + 0.005. Split: by more than 4d of the NAV.
    Income: 0.0002. Yield: 0.002. Blank where the recording has a NAV or an income, unreadable, or of a
    fund or date that the recording does not know: always.
    """
    truth = night.truth_of(frame)
    unit, before = truth["unit_nav"].to_numpy(dtype=float), truth["unit_before"].to_numpy(dtype=float)
    finest = np.maximum(published_decimals(unit), published_decimals(before)).clip(2)
    half = 0.5 * 10.0 ** -finest.astype(float)
    base = np.where(np.isnan(before), unit, before)
    with np.errstate(invalid="ignore", divide="ignore"):
        allowed = {
            "unit_nav": 2 * (2 * half + 0.00005 * base),
            "accum_nav": 4 * half,
            "daily_return": 2 * (100 * half * (1 + unit / base) / base + 0.005),
            "dividend": 4 * half,
            "split_ratio": 4 * half / unit,
            "income_per_10k": np.full(len(frame), 0.0002),
            "yield_7d": np.full(len(frame), 0.002),
        }
    none = {"dividend": 0.0, "split_ratio": 1.0}
    wrong = truth["unknown"].to_numpy(dtype=bool) | frame["defect"].notna().to_numpy(dtype=bool)
    for name, most in allowed.items():
        said = frame[name].fillna(none.get(name, np.nan)).to_numpy(dtype=float)
        true = truth[name].fillna(none.get(name, np.nan)).to_numpy(dtype=float)
        with np.errstate(invalid="ignore"):
            wrong |= np.abs(said - true) > np.nan_to_num(most, nan=0.0)
        none_said = np.isnan(said) | ((said == 0) & (name == "daily_return"))  # 0.00 is a word for none
        wrong |= ~none_said & np.isnan(true)
        if name in ("unit_nav", "income_per_10k"):
            wrong |= np.isnan(said) & ~np.isnan(true)
    return wrong


# Which rows. -------------------------------------------------------------------------------------------


def any_nav(night: Night) -> Bools:
    return night.staged["unit_nav"].notna().to_numpy(dtype=bool) & night.before["unit_nav"].notna().to_numpy()


def with_return(night: Night) -> Bools:
    return any_nav(night) & ~night.staged["daily_return"].fillna(0).eq(0).to_numpy()


def daily(night: Night) -> Bools:
    """Rows with a published return, of funds whose last four rows are of consecutive sessions."""
    sessions = night.setting.sessions
    days = [frame["nav_date"].to_numpy().astype("datetime64[D]") for frame in (night.staged, night.back(3))]
    now, then = (np.searchsorted(sessions, day, side="right") for day in days)
    return with_return(night) & (now - then == 3) & ~np.isnat(days[1])


def wordless(night: Night) -> Bools:
    """Rows that publish no return: of new and of closed funds, most of them once a week."""
    return any_nav(night) & night.staged["daily_return"].fillna(0).eq(0).to_numpy()


def with_return_before(night: Night) -> Bools:
    """Rows after one whose return is beyond what rounding makes of 0.00: else its copy is one with 0.00."""
    nav = night.before["unit_nav"].to_numpy()
    places = [published_decimals(frame["unit_nav"].to_numpy()) for frame in (night.staged, night.before)]
    half = 0.5 * 10.0 ** -np.maximum(*places).clip(2).astype(float)
    moved = night.before["daily_return"].abs().to_numpy() > 200 * half / nav + 0.005
    return with_return(night) & moved


def with_accum(night: Night) -> Bools:
    accum = night.staged["accum_nav"].notna() & night.before["accum_nav"].notna()
    return any_nav(night) & accum.to_numpy(dtype=bool)


def with_sibling(night: Night) -> Bools:
    return daily(night) & (night.sibling >= 0)


def moving(night: Night) -> Bools:
    """Funds that follow a market and moved by at least 0.05 % three nights ago."""
    moved = night.back(3)["daily_return"].abs().to_numpy() >= 0.05
    return daily(night) & np.isin(night.category.astype(str), MOVING) & moved


def money(night: Night) -> Bools:
    return night.staged["income_per_10k"].notna().to_numpy(dtype=bool)


def everything(night: Night) -> Bools:
    return np.ones(len(night.staged), dtype=bool)


def one_category(night: Night) -> Bools:
    """The rows of the category with the most funds after index funds; of all rows, where there is none."""
    kinds = pd.Series(night.category[any_nav(night) & (night.category != "index")])
    return any_nav(night) & (night.category == (kinds.mode().iloc[0] if len(kinds) else "index"))


def _shows(night: Night, ratio: Floats, cash: Floats) -> Bools:
    """Events that are in the NAV of their night, by at least four half digits."""
    unit, before = night.staged["unit_nav"].to_numpy(), night.before["unit_nav"].to_numpy()
    published = night.staged["daily_return"].fillna(0).to_numpy()
    half = 0.5 * 10.0 ** -np.maximum(published_decimals(unit), published_decimals(before)).clip(2).astype(
        float
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = (ratio * unit + cash) / before
        agrees = np.abs(100 * (growth - 1) - published) <= 2 * (
            100 * half * (ratio + growth) / before + 0.005
        )
        return np.asarray(agrees & (np.abs((ratio - 1) * unit + cash) > 4 * half))


def _consecutive(night: Night) -> Bools:
    """Rows whose fund has one of the session before."""
    days = [frame["nav_date"].to_numpy().astype("datetime64[D]") for frame in (night.staged, night.before)]
    now, then = (np.searchsorted(night.setting.sessions, day, side="right") for day in days)
    return any_nav(night) & (now - then == 1)


def splits(night: Night) -> Bools:
    ratio = night.staged["split_ratio"].to_numpy(dtype=float)
    return _consecutive(night) & ~np.isnan(ratio) & _shows(night, ratio, np.zeros(len(ratio)))


def splits_after_gap(night: Night) -> Bools:
    ratio = night.staged["split_ratio"].to_numpy(dtype=float)
    return any_nav(night) & ~_consecutive(night) & ~np.isnan(ratio)


def dividends(night: Night) -> Bools:
    cash = night.staged["dividend"].to_numpy(dtype=float)
    return _consecutive(night) & ~np.isnan(cash) & _shows(night, np.ones(len(cash)), cash)


# What happens to them. ---------------------------------------------------------------------------------


def times(*names: str, by: float, digits: int = 12) -> Spoil:
    """These values multiplied, as a misplaced point or another currency would."""

    def spoil(frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator) -> pd.DataFrame:
        for name in names:
            frame.loc[at, name] = (frame.loc[at, name] * by).round(digits)
        return frame

    return spoil


def put(**values: object) -> Spoil:
    """These values instead."""

    def spoil(frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator) -> pd.DataFrame:
        for name, value in values.items():
            frame.loc[at, name] = value
        return frame

    return spoil


def swap(one: str, other: str) -> Spoil:
    def spoil(frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator) -> pd.DataFrame:
        frame.loc[at, [one, other]] = frame.loc[at, [other, one]].to_numpy()
        return frame

    return spoil


def then(*steps: Spoil) -> Spoil:
    def spoil(frame: pd.DataFrame, at: Ints, night: Night, rng: np.random.Generator) -> pd.DataFrame:
        for step in steps:
            frame = step(frame, at, night, rng)
        return frame

    return spoil


def moved_days(days: int) -> Spoil:
    def spoil(frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator) -> pd.DataFrame:
        frame.loc[at, "nav_date"] = frame.loc[at, "nav_date"] + pd.Timedelta(days=days)
        return frame

    return spoil


def from_before(*names: str) -> Spoil:
    """These values of the fund's row before."""

    def spoil(frame: pd.DataFrame, at: Ints, night: Night, _rng: np.random.Generator) -> pd.DataFrame:
        known = at[night.before["nav_date"].notna().to_numpy()[at]]
        for name in names:
            frame.loc[known, name] = night.before[name].to_numpy()[known]
        return frame

    return spoil


def as_three_nights_ago(
    frame: pd.DataFrame, at: Ints, night: Night, _rng: np.random.Generator
) -> pd.DataFrame:
    """The NAV of three rows before, once more, with return 0.00."""
    for name in ("unit_nav", "accum_nav"):
        frame.loc[at, name] = night.back(3)[name].to_numpy()[at]
    frame.loc[at, "daily_return"] = 0.0
    return frame


def rounded(name: str, decimals: int) -> Spoil:
    def spoil(frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator) -> pd.DataFrame:
        frame.loc[at, name] = frame.loc[at, name].round(decimals)
        return frame

    return spoil


def transposed(frame: pd.DataFrame, at: Ints, _night: Night, rng: np.random.Generator) -> pd.DataFrame:
    """Two neighbouring digits of the NAV that differ, exchanged: 1.2345 becomes 1.3245."""
    for row in at:
        text = f"{frame.at[row, 'unit_nav']:.4f}"
        pairs = [
            i
            for i in range(len(text) - 1)
            if text[i] != text[i + 1] and "." not in text[i : i + 2] and (i > 0 or text[1] != "0")
        ]
        if pairs:
            i = int(rng.choice(pairs))
            frame.loc[row, "unit_nav"] = float(text[:i] + text[i + 1] + text[i] + text[i + 2 :])
    return frame


def values_of_another(frame: pd.DataFrame, at: Ints, night: Night, rng: np.random.Generator) -> pd.DataFrame:
    others = rng.permutation(np.flatnonzero(with_return(night)))[: len(at)]
    frame.loc[at[: len(others)], NAVS] = night.staged.loc[others, NAVS].to_numpy()
    return frame


def values_of_sibling(frame: pd.DataFrame, at: Ints, night: Night, _rng: np.random.Generator) -> pd.DataFrame:
    frame.loc[at, NAVS] = night.staged.loc[night.sibling[at], NAVS].to_numpy()
    return frame


def codes_swapped(frame: pd.DataFrame, at: Ints, night: Night, rng: np.random.Generator) -> pd.DataFrame:
    at = rng.permutation(at)
    half = len(at) // 2
    one, other = at[:half], at[half : 2 * half]
    frame.loc[one, "fund_code"] = night.staged.loc[other, "fund_code"].to_numpy()
    frame.loc[other, "fund_code"] = night.staged.loc[one, "fund_code"].to_numpy()
    return frame


def again_with_other_values(
    frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator
) -> pd.DataFrame:
    copies = frame.loc[at].assign(row_no=len(frame) + 1 + np.arange(len(at)))
    copies["unit_nav"] = (copies["unit_nav"] * 1.01).round(4)
    return pd.concat([frame, copies], ignore_index=True)


def leading_zeros_lost(
    frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator
) -> pd.DataFrame:
    frame.loc[at, "fund_code"] = frame.loc[at, "fund_code"].str.lstrip("0")
    return frame


def unknown_codes(frame: pd.DataFrame, at: Ints, night: Night, _rng: np.random.Generator) -> pd.DataFrame:
    free = (code for code in (f"{n:06d}" for n in range(990_000, 1_000_000)) if code not in night.funds)
    frame.loc[at, "fund_code"] = [next(free) for _ in at]
    return frame


def before_inception(frame: pd.DataFrame, at: Ints, night: Night, rng: np.random.Generator) -> pd.DataFrame:
    first = [night.funds[code].inception for code in frame.loc[at, "fund_code"]]
    days = np.array(first, dtype="datetime64[D]") - rng.integers(30, 400, len(at)).astype("timedelta64[D]")
    frame.loc[at, "nav_date"] = days.astype("datetime64[s]")
    return frame


def at_another_level(low: float, high: float) -> Spoil:
    """NAV and accumulated NAV moved by a factor in the range or its reverse, the return made to agree."""

    def spoil(frame: pd.DataFrame, at: Ints, _night: Night, rng: np.random.Generator) -> pd.DataFrame:
        factor = rng.uniform(low, high, len(at))
        factor = np.where(rng.random(len(at)) < 0.5, factor, 1 / factor)
        unit = frame.loc[at, "unit_nav"].to_numpy()
        moved = (unit * factor).round(4)
        frame.loc[at, "unit_nav"] = moved
        frame.loc[at, "accum_nav"] = (frame.loc[at, "accum_nav"].to_numpy() + moved - unit).round(4)
        returns = frame.loc[at, "daily_return"].to_numpy()
        frame.loc[at, "daily_return"] = (((1 + returns / 100) * moved / unit - 1) * 100).round(2)
        return frame

    return spoil


def old_value_revised(frame: pd.DataFrame, at: Ints, night: Night, rng: np.random.Generator) -> pd.DataFrame:
    """The row before is published once more, 10 to 20 % off, its return made to agree."""
    frame = from_before("nav_date", *NAVS, "dividend", "split_ratio")(frame, at, night, rng)
    return at_another_level(1.1, 1.2)(frame, at, night, rng)


# The batch as a whole. ---------------------------------------------------------------------------------


def first_rows(share: float) -> Spoil:
    def spoil(frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator) -> pd.DataFrame:
        return frame.iloc[: int(share * len(at))]

    return spoil


def some_rows(share: float) -> Spoil:
    def spoil(frame: pd.DataFrame, at: Ints, _night: Night, rng: np.random.Generator) -> pd.DataFrame:
        return frame.iloc[np.sort(rng.choice(at, int(share * len(at)), replace=False))]

    return spoil


def page_cap(frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator) -> pd.DataFrame:
    return frame.iloc[: max((cap for cap in PAGE_CAPS if cap < len(at)), default=len(at))]


def without(frame: pd.DataFrame, at: Ints, _night: Night, _rng: np.random.Generator) -> pd.DataFrame:
    return frame.drop(index=at)


def one_row_for_all(frame: pd.DataFrame, at: Ints, _night: Night, rng: np.random.Generator) -> pd.DataFrame:
    frame.loc[at, NAVS] = frame.loc[[int(rng.choice(at))], NAVS].to_numpy()
    return frame


def half_of(step: Spoil) -> Spoil:
    def spoil(frame: pd.DataFrame, at: Ints, night: Night, rng: np.random.Generator) -> pd.DataFrame:
        return step(frame, np.sort(rng.choice(at, len(at) // 2, replace=False)), night, rng)

    return spoil
