"""Rules that hold a row against others: its category on that day, the other share classes, another source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.fund_category import CATEGORIES
from core.series import MOVES, Series, published_decimals

if TYPE_CHECKING:
    from core.rules import Context, Outcome

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
FEWEST_PEERS = 10  # of a category and date, for a median to mean anything
TO_SIGMA = 1.4826  # makes the median absolute deviation of a normal distribution its standard deviation
MOVING = ("stock", "mixed", "index", "qdii", "fof", "commodity")  # whose NAVs follow a market every day
ALIKE = 0.5  # percentage points between two changes of the same theme
LARGEST_CHANGE = 1e4  # percent
CURRENCIES = 10  # more than there are
FEWEST_DECIMALS = 3  # that any fund publishes
RETURNS = ("category", "nav_date", "median", "spread", "fund_count")


def category_returns(frame: pd.DataFrame, series: Series, stored: pd.DataFrame | None) -> pd.DataFrame:
    """RETURNS of every category and date with enough peers: of this batch or, where that has more, `stored`.

    The changes of one session, percent, dividends and splits undone; robust, so a few wrong rows do not matter.
    """
    mine = series.judged & (series.sessions_since == 1) & ~np.isnan(series.change)
    part = pd.DataFrame(
        {
            "kind": frame["category"].cat.codes.to_numpy()[mine],
            "nav_date": frame["nav_date"].to_numpy()[mine],
            "change": series.change[mine],
        }
    )
    # Spelled out on codes: grouping by texts costs more than the medians.
    days, dates = pd.factorize(part["nav_date"])
    group = part["kind"].to_numpy(dtype=np.int64) * max(len(dates), 1) + days
    found = pd.Series(part["change"].to_numpy()).groupby(group)
    median, count = found.median(), found.count()
    enough = count.index[count >= FEWEST_PEERS].to_numpy()
    deviation = np.abs(part["change"].to_numpy() - median.reindex(group).to_numpy())
    spread = TO_SIGMA * pd.Series(deviation).groupby(group).median()
    own = pd.DataFrame(
        {
            "category": np.array(CATEGORIES, dtype=object)[enough // max(len(dates), 1)],
            "nav_date": dates[enough % len(dates)] if len(enough) else np.array([], "datetime64[s]"),
            "median": median.reindex(enough).to_numpy(),
            "spread": spread.reindex(enough).to_numpy(),
            "fund_count": count.reindex(enough).to_numpy(),
        }
    )
    if stored is None or stored.empty:
        return own
    both = pd.concat([own, stored[list(RETURNS)]], ignore_index=True)
    both = both.sort_values("fund_count", ascending=False, kind="stable")
    return both.drop_duplicates(["category", "nav_date"], ignore_index=True)


def _of_peers(frame: pd.DataFrame, context: Context) -> tuple[Floats, Floats]:
    """Median and spread of each row's category and date, percent; NaN where unknown."""
    returns = context.returns
    if returns.empty:
        nothing = np.full(len(frame), np.nan)
        return nothing, nothing
    kinds = pd.Index(CATEGORIES).get_indexer(pd.Index(returns["category"]))
    keys = _days(returns) * len(CATEGORIES) + kinds
    order = np.argsort(keys)
    wanted = _days(frame) * len(CATEGORIES) + frame["category"].cat.codes.to_numpy()
    at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    found = keys[order][at] == wanted
    median, spread = (returns[name].to_numpy(dtype=float)[order][at] for name in ("median", "spread"))
    return np.where(found, median, np.nan), np.where(found, spread, np.nan)


def _days(frame: pd.DataFrame) -> Ints:
    """Days since 1970 of each row's date; the smallest number there is for none."""
    return frame["nav_date"].to_numpy().astype("datetime64[D]").astype(np.int64)


def is_moving(frame: pd.DataFrame) -> Bools:
    """Rows of funds whose NAVs follow a market every day."""
    moving = np.array([category in MOVING for category in CATEGORIES])
    return moving[frame["category"].cat.codes.to_numpy()]


def proved(series: Series) -> Bools:
    """Rows whose change the published return states and from which the two rows after them follow.

    So a real jump, after a large redemption, is held for two nights and believed then; in history at once.
    """
    return series.return_checked & series.return_explained & series.confirmed


def cross_section(frame: pd.DataFrame, context: Context) -> Outcome:
    """The day's change is no outlier among the funds of its category: robust z-score, and company.

    A moderate outlier is believed where others stand beside it, as the funds of one theme do.
    """
    median, spread = _of_peers(frame, context)
    series, thresholds = context.series, context.background.thresholds
    checked = series.judged & (series.sessions_since == 1) & ~np.isnan(median)
    floor = frame["limit"].to_numpy(dtype=float) * thresholds.cross_section_floor
    off = np.abs(series.change - median)
    far = off > np.maximum(thresholds.cross_section_z * spread, floor)
    apart = checked & (off > np.maximum(thresholds.company_z * spread, thresholds.company_floor))
    lone = np.zeros(len(frame), dtype=bool)
    lone[apart] = _company(frame, series, checked, apart) <= thresholds.company
    return checked, (far | lone) & ~proved(series)


def _company(frame: pd.DataFrame, series: Series, among: Bools, asked: Bools) -> Ints:
    """For each row of `asked`: rows of `among` with its category, date and nearly its change, itself included."""
    group = _days(frame) * len(CATEGORIES) + frame["category"].cat.codes.to_numpy()
    numbers = np.unique(group[asked])  # only the days that are asked about
    mine = np.flatnonzero(among & np.isin(group, numbers))
    width = 4 * LARGEST_CHANGE
    place = np.searchsorted(numbers, group) * width + np.clip(series.change, -LARGEST_CHANGE, LARGEST_CHANGE)
    sorted_ = np.sort(place[mine])
    first = np.searchsorted(sorted_, place[asked] - ALIKE, side="left")
    return np.asarray(np.searchsorted(sorted_, place[asked] + ALIKE, side="right") - first)


def stale(frame: pd.DataFrame, context: Context) -> Outcome:
    """A fund that moved every day stands still while its category moved far, or for the third night: an old value."""
    median, spread = _of_peers(frame, context)
    series, thresholds = context.series, context.background.thresholds
    mine = series.judged & (series.sessions_since == 1) & is_moving(frame)
    moved = np.abs(median) > np.maximum(thresholds.stale_median, thresholds.stale_spread * spread)
    once = series.unchanged & moved & series.was_moving
    return mine & ~np.isnan(median), (once | _stuck(frame, series)) & ~series.confirmed


def _stuck(frame: pd.DataFrame, series: Series) -> Bools:
    """Rows that repeat the NAV of the two rows before, the older of which repeats the one before it, which moved."""
    published = frame["daily_return"].to_numpy(dtype=float)
    one = series.previous
    two, three = (_before(series.previous, rows) for rows in (2, 3))
    nav = frame["unit_nav"].to_numpy(dtype=float)
    known = three >= 0
    same = (nav == nav[one]) & (nav == nav[two]) & (nav == nav[three])
    return np.asarray(
        known
        & same
        & ~(np.abs(published[one]) > 0)
        & ~(np.abs(published[two]) > 0)
        & (np.abs(published[three]) >= MOVES)
    )


def _before(previous: Ints, rows: int) -> Ints:
    """Position of the row so many rows before, -1 for none."""
    at = previous
    for _ in range(rows - 1):
        at = np.where(at >= 0, previous[at], -1)
    return at


def share_class(frame: pd.DataFrame, context: Context) -> Outcome:
    """The share classes of one fund move together: they hold the same portfolio.

    Of two that differ the one is blamed that is farther from the median of their category.
    """
    series = context.series
    market, _spread = _of_peers(frame, context)
    mine = series.judged & (series.sessions_since == 1) & ~np.isnan(series.change)
    at = np.flatnonzero(mine)
    day = _days(frame)[at]
    family = (frame["family"] * CURRENCIES + frame["currency"]).to_numpy(dtype=np.int64)[at]
    order = np.lexsort((day, family))
    same = (np.diff(family[order]) == 0) & (np.diff(day[order]) == 0)
    group = np.concatenate(([0], np.cumsum(~same))) if len(at) else np.array([], np.int64)
    change = series.change[at][order]
    sizes = np.bincount(group) if len(group) else np.array([], np.int64)
    checked, failed = np.zeros(len(frame), dtype=bool), np.zeros(len(frame), dtype=bool)
    several = np.flatnonzero(sizes[group] > 1) if len(group) else np.array([], np.int64)
    if not len(several):
        return checked, failed
    groups = pd.Series(change[several]).groupby(group[several])
    middle = groups.median().reindex(group[several]).to_numpy()
    rows = at[order][several]
    size = sizes[group[several]]
    # The middle of two is between them: each is off by half of what parts them.
    off = np.abs(change[several] - middle) * np.where(size == 2, 2, 1)
    far = np.abs(change[several] - market[rows])
    nearest = pd.Series(far).groupby(group[several]).transform("min").to_numpy()
    blamed = (size > 2) | np.isnan(far) | (far > nearest)
    # Where the returns of some classes belie their NAVs and those of others do not, the latter are right.
    belied = series.return_checked[rows] & ~series.return_explained[rows]
    blamed &= belied | ~pd.Series(belied).groupby(group[several]).transform("any").to_numpy()
    checked[rows] = True
    failed[rows] = (off > context.background.thresholds.share_class) & blamed
    return checked, failed & ~proved(series)


def sources_agree(frame: pd.DataFrame, context: Context) -> Outcome:
    """Another source gives the same NAV for the date, as far as both show digits; an older date there is lag."""
    del context
    unit, second = (frame[name].to_numpy(dtype=float) for name in ("unit_nav", "second_unit"))
    known = ~np.isnan(unit) & ~np.isnan(second)
    checked = known & ~frame["anchor"].to_numpy(dtype=bool)
    failed = np.zeros(len(frame), dtype=bool)
    at = np.flatnonzero(checked)
    failed[at] = ~alike(unit[at], second[at])
    return checked, failed


def alike(one: Floats, other: Floats) -> Bools:
    """Whether two publishers' NAVs are the same as far as both show digits, three if their zeros are lost."""
    digits = np.minimum(published_decimals(one), published_decimals(other)).clip(FEWEST_DECIMALS)
    return np.asarray(np.abs(one - other) <= 0.5 * 10.0 ** -digits.astype(float) + 1e-9)


def clone(frame: pd.DataFrame, context: Context) -> Outcome:
    """No fund shows, row for row, the history of an unrelated one: a server's cache once answered so."""
    staged = ~frame["anchor"].to_numpy(dtype=bool) & frame["unit_nav"].notna().to_numpy(dtype=bool)
    fund = frame["fund"].to_numpy(dtype=np.int64)
    counts = np.bincount(fund[staged], minlength=int(fund.max()) + 1 if len(fund) else 0)
    long = staged & (counts[fund] >= context.background.thresholds.clone_rows)
    checked, failed = long.copy(), np.zeros(len(frame), dtype=bool)
    at = np.flatnonzero(long)
    if not len(at):
        return checked, failed
    day = _days(frame)[at]
    row = pd.util.hash_pandas_object(
        pd.DataFrame({"day": day, "unit": frame["unit_nav"].to_numpy()[at]}), index=False
    ).to_numpy()
    whole = pd.Series(row).groupby(fund[at]).sum()  # order-free, wraps around: the rows are in order anyway
    moves = pd.Series(frame["unit_nav"].to_numpy()[at]).groupby(fund[at]).nunique()
    family = pd.Series(frame["family"].to_numpy()[at]).groupby(fund[at]).first()
    found = pd.DataFrame({"whole": whole, "family": family, "moves": moves})
    found = found[found["moves"] >= context.background.thresholds.clone_rows // 2]
    families = found.groupby("whole")["family"].nunique()
    guilty = found.index[found["whole"].isin(families.index[families > 1])]
    failed[at] = np.isin(fund[at], guilty.to_numpy())
    return checked, failed
