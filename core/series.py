"""Rows of many funds in date order, and what explains the change from one row to the next.

A published daily return is a total return: dividends and splits are in it. It is also rounded, and
so are the NAVs. So each change is held against every basis on which a publisher may have computed
it, within the tolerance that the rounding allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Days = NDArray[np.datetime64]

HALF_CENT = 0.005  # returns are published in percent with two decimals
SLACK = 1e-9
TELLING = 16  # half digits; a smaller move says nothing of the basis of the accumulated NAV
ACCUM_FOLLOWS = 0.002  # of the NAV; rounding alone
SMALLEST_BASIS = 0.1  # so many units at least does the accumulated NAV move with one of the unit NAV
SMALL_CHANGE = (
    0.3  # of the largest credible one: such a row goes on from the one before, whatever was published
)
MOVES = 0.05  # percent; a smaller day is no sign of a fund that follows a market
# Of the NAV before. A point that slipped in the NAV alone looks like a dividend of nine tenths of it.
LARGEST_IMPLIED_DIVIDEND = 0.25
# What DECIMAL(20,12) holds with six digits to spare; no fund ever stood above 10,000.
SMALLEST, LARGEST = 1e-6, 1e8
COLUMNS = ("unit_nav", "accum_nav", "daily_return", "known_dividend", "known_split")
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Series:
    """Arrays of the frame's length. NaN where there is no previous row or no value."""

    judged: Bools  # rows of the batch with a usable NAV and a previous row
    change: Floats  # percent, dividends and splits undone
    return_checked: Bools
    return_explained: Bools
    sessions_since: Ints  # trading days since the previous row
    accum_misfit: Floats  # by how much accumulated NAV left the unit NAV, as a share of the latter
    accum_digits: Floats  # how much of that rounding explains
    has_event: Bools
    dividend: Floats  # per pre-event share, to be booked on this row's date; NaN if none
    split_ratio: Floats
    implied: Bools  # the dividend follows from the accumulated NAV; nobody announced it
    announced: Bools  # the row's event is not in its NAV, and no row after it is known
    moved: Bools  # the event was announced on the row before
    dropped: Bools  # the row's event is not in its NAV: it is in the next row's or in none
    previous: Ints  # position of the row before in the frame, -1 for none
    unchanged: Bools  # the NAV of the row before again
    was_moving: Bools  # the row before differed from its own, and said so
    confirmed: Bools  # the NAVs of the two rows after it follow from it
    accum_confirmed: Bools  # so do their accumulated NAVs


@dataclass(frozen=True)
class _Step:
    """From a previous row to this one."""

    nav: Floats
    previous: Floats
    digit: Floats  # half a unit of the NAV's last digit
    limit: Floats  # the largest credible change, percent


def published_decimals(values: Floats) -> Ints:
    """Decimals after trailing zeros, 2 to 12; 0 for NaN. `1.2340` was read as 1.234: it shows three."""
    found = np.zeros(len(values), dtype=np.int64)
    known = np.isfinite(values)
    open_ = known.copy()
    for decimals in range(2, 13):
        scaled = values[open_] * 10.0**decimals
        exact = np.abs(scaled - np.rint(scaled)) <= np.maximum(1e-9, np.abs(scaled) * 2e-15)
        places = np.flatnonzero(open_)
        found[places[exact]] = decimals
        open_[places[exact]] = False
        if not open_.any():
            break
    found[open_] = 12
    return found


def explain(frame: pd.DataFrame, usable: Bools, lost: Bools, sessions: Days) -> Series:
    """Hold every row of `frame` (sorted by fund and date) against the one before.

    `usable` marks the rows whose NAV may be calculated with; the others are passed over. `lost` marks
    those of the others that stood for a NAV (a repeat of a usable row does not): behind them there is
    a hole. `frame.fund` numbers the funds, `frame.limit` is the largest credible change of a day in percent,
    `frame.known_dividend` and `frame.known_split` are the events given for a row's date. `sessions` are the
    trading days, sorted.
    """
    at = np.flatnonzero(usable)
    part = _explain_usable(frame.iloc[at], np.cumsum(lost, dtype=np.int64)[at], sessions)
    part = replace(part, previous=_taken(at, part.previous, -1))
    return Series(**{name: _spread(value, at, len(frame)) for name, value in vars(part).items()})


def _spread(values: Any, at: Ints, size: int) -> Any:
    empty = np.full(size, np.nan) if values.dtype == np.float64 else np.zeros(size, dtype=values.dtype)
    empty[at] = values
    return empty


def _explain_usable(frame: pd.DataFrame, lost_before: Ints, sessions: Days) -> Series:
    nav, accum, published, dividend, split = (frame[name].to_numpy(dtype=float) for name in COLUMNS)
    anchor = frame["anchor"].to_numpy(dtype=bool)
    days = frame["nav_date"].to_numpy().astype("datetime64[D]")
    codes = frame["fund"].to_numpy(dtype=np.int64)
    first, second = _back(codes, 1), _back(codes, 2)
    digit = _half_digit(nav, first, second)
    since = _sessions_since(days, first, sessions)
    limit = frame["limit"].to_numpy(dtype=float) * np.sqrt(since.clip(1, 5))
    step = _Step(nav, _taken(nav, first, np.nan), digit, limit)
    earlier = _Step(nav, _taken(nav, second, np.nan), digit, limit)
    wordless, silent = _silence(nav, published, first, since)
    extra = (accum - _taken(accum, first, np.nan)) - (nav - step.previous)
    events = _events(step, earlier, np.where(silent, np.nan, published), dividend, split, extra, first)
    events = _with_quiet_dividends(events, step, extra, np.isnan(published), first)
    direct, followed = events.explained, _followed(first)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = events.ratio * nav + events.cash
        change, change_earlier = 100 * (whole / step.previous - 1), 100 * (whole / earlier.previous - 1)
    near = _accum_misfit(step, accum, whole, first)
    known, small = ~np.isnan(step.previous), np.abs(change) <= SMALL_CHANGE * limit
    # The row before may be wrong itself, or a valuation without trading: then the one before it counts.
    doubtful = _taken(known & ((~direct & ~silent) | (np.abs(change) > limit)), first, False)
    doubtful |= _taken(~np.isin(days, sessions), first, False)
    explained = direct | (doubtful & _over_two_steps(earlier, published, first))
    change = np.where(doubtful & (np.abs(change_earlier) < np.abs(change)), change_earlier, change)
    # Across a hole in what we hold, the published return is of another step.
    hole = (_taken(anchor, first, False) & (since > 1)) | (lost_before > _taken(lost_before, first, 0))
    hole |= _taken(np.abs(change) > limit, first, False) & ~explained
    return Series(
        judged=known & ~anchor,
        change=change,
        return_checked=known & ~hole & ~anchor & ~silent,
        return_explained=explained,
        sessions_since=since,
        accum_misfit=np.fmin(near, _accum_misfit(earlier, accum, whole, second)),
        accum_digits=4 * step.digit / step.previous,
        has_event=events.given | events.implied,
        dividend=np.where(events.cash > 0, events.cash, np.nan),
        split_ratio=np.where(events.ratio != 1, events.ratio, np.nan),
        implied=events.implied,
        announced=events.unseen & ~followed,
        moved=events.carried,
        dropped=events.gone | (events.unseen & followed),
        previous=first,
        unchanged=nav == step.previous,
        accum_confirmed=_confirmed(near <= ACCUM_FOLLOWS, first),
        confirmed=_confirmed(known & ~hole & np.where(wordless, small, direct), first),
        was_moving=_taken(known & (nav != step.previous) & (np.abs(published) >= MOVES), first, False),
    )


def _silence(nav: Floats, published: Floats, first: Ints, since: Ints) -> tuple[Bools, Bools]:
    """Rows without a return or with 0.00, and those of them that say nothing by it.

    0.00 stands for none in closed periods and valuations, but not after a row that said how it moved.
    """
    moved = nav != _taken(nav, first, np.nan)
    wordless = np.isnan(published) | (published == 0)
    said = _taken(~np.isnan(published) & ((published != 0) | ~moved), first, False) & (since == 1)
    return wordless, np.isnan(published) | ((published == 0) & ~said)


@dataclass(frozen=True)
class _Events:
    """What happened to a share between the previous row and this one."""

    given: Bools  # announced on this row, or on the one before and showing here
    carried: Bools  # announced on the row before and showing here
    gone: Bools  # announced on this row and showing on the next
    unseen: Bools  # announced on this row and showing nowhere
    implied: Bools
    explained: Bools  # with it (or without any) the published return follows
    ratio: Floats  # 1 for none
    cash: Floats  # 0 for none


def _events(
    step: _Step,
    earlier: _Step,
    published: Floats,
    dividend: Floats,
    split: Floats,
    extra: Floats,
    first: Ints,
) -> _Events:
    """`published` is NaN where nothing was; `extra`: by how much accumulated NAV outgrew the unit NAV."""
    silent = np.isnan(published)
    cash = np.where(_bookable(dividend), dividend, 0.0)
    ratio = np.where(_bookable(split), split, 1.0)
    event = (cash > 0) | (ratio != 1)
    plain = _agrees(step, published, 1.0, 0.0)
    stated = _agrees(step, published, ratio, cash) | _agrees(earlier, published, ratio, cash)
    # Some publishers print the change of the NAV alone: then the accumulated NAV tells of the dividend.
    stated |= plain & (ratio == 1) & (np.abs(extra - cash) <= 4 * step.digit)
    late_ratio, late_cash = _taken(ratio, first, 1.0), _taken(cash, first, 0.0)
    stated_late = _taken(event, first, False) & _agrees(step, published, late_ratio, late_cash)
    own = event & np.where(silent, _nearer(step, ratio, cash), stated)
    # The first row we see cannot tell whether its event is in its NAV; who booked it there knew, unless the next does.
    own |= event & np.isnan(step.previous) & ~_next_carried(stated_late & ~plain, first)
    # An event may be announced on the row before the one it shows on.
    late = _taken(event & ~own, first, False)
    carried = late & np.where(silent, _nearer(step, late_ratio, late_cash), stated_late)
    implied = ~own & ~carried & ~plain & (extra > 4 * step.digit)
    implied &= extra <= LARGEST_IMPLIED_DIVIDEND * step.previous
    implied &= _agrees(step, published, 1.0, extra, 2.0)
    gone = event & ~own & _next_carried(carried, first)
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = 100 * np.abs((ratio * step.nav + cash) / step.previous - 1) > step.limit
    unseen = event & ~own & ~gone & (plain | (silent & beyond))
    none = gone | unseen
    return _Events(
        given=event | carried,
        carried=carried,
        gone=gone,
        unseen=unseen,
        implied=implied,
        explained=own
        | carried
        | plain
        | implied
        | stated_late,  # the return may be late where the NAV is not
        ratio=np.where(carried, late_ratio, np.where(none, 1.0, ratio)),
        cash=np.where(carried, late_cash, np.where(none, 0.0, np.where(implied, extra, cash))),
    )


def _with_quiet_dividends(
    events: _Events, step: _Step, extra: Floats, unpublished: Bools, first: Ints
) -> _Events:
    """Also the dividends of rows without a published return, where the accumulated NAV can be trusted.

    The step before shows that accumulated and unit NAV move alike: on another basis (after a split) they
    would not, and every loss would look like a dividend.
    """
    move = step.nav - step.previous
    digit = np.fmax(step.digit, _taken(step.digit, first, np.nan))
    before, extra_before = _taken(move, first, np.nan), _taken(extra, first, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        other_basis = np.abs(extra / move * before)  # what the step before would show on another basis
        quiet = unpublished & ~events.given & (extra > 4 * digit)
        quiet &= extra <= LARGEST_IMPLIED_DIVIDEND * step.previous
        quiet &= (np.abs(extra_before) <= 4 * digit) & (other_basis > 8 * digit)
    return replace(events, implied=events.implied | quiet, cash=np.where(quiet, extra, events.cash))


def _bookable(values: Floats) -> Bools:
    """Values that the tables hold; NaN is none."""
    with np.errstate(invalid="ignore"):
        return np.asarray((values >= SMALLEST) & (values < LARGEST))


def _agrees(
    step: _Step,
    published: Floats,
    ratio: Floats | float,
    cash: Floats | float,
    more: float = 0.0,
    returns: float = 1.0,
) -> Bools:
    """Whether (s*U_t + D)/U_prev - 1 is the published return, as far as its rounding lets one tell.

    Tolerance in percent: 100*d*(s + (s*U_t + D)/U_prev)/U_prev, d half a unit of the NAV's last digit,
    and half a unit of the return's last digit; `more` half units where D itself is a difference,
    `returns` where the return is put together from more than one.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = (ratio * step.nav + cash) / step.previous
        tolerance = 100 * step.digit * (ratio + growth + 2 * more) / step.previous
        tolerance += HALF_CENT * returns * np.maximum(1, growth) ** (returns - 1) + SLACK
        return np.asarray(np.abs(100 * (growth - 1) - published) <= tolerance)


def _accum_misfit(step: _Step, accum: Floats, whole: Floats, back: Ints) -> Floats:
    """Accumulated NAV beyond what the step explains, over the smaller unit NAV; NaN where one is missing.

    After a split some publishers keep it on the basis of the old shares: then it grows by the same share as
    the unit NAV instead of the same amount, or by a multiple of it, as it did in the step before.
    """
    before = _taken(accum, back, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        grown, move = accum - before, whole - step.previous
        amount = np.abs(grown - move)
        share = np.abs(grown - before * (whole / step.previous - 1))
        multiple = np.where(np.abs(move) > TELLING * step.digit, grown / move, np.nan)
        # Where the unit NAV slips alone the multiple is next to nothing, and is so again on its way back.
        multiple[np.abs(multiple) < SMALLEST_BASIS] = np.nan
        unsure = 2 * step.digit * (1 + np.abs(multiple)) / np.abs(move)  # two NAVs and two sums were rounded
        again = np.abs(grown - _taken(multiple, back, np.nan) * move)
        again = np.maximum(again - _taken(unsure, back, np.nan) * np.abs(move), 0)
        # By the same amount the step before: then it has no other basis, and a small dividend shows.
        alike = (amount <= 4 * step.digit) & (np.abs(move) > TELLING * step.digit)
        again[_taken(alike, back, False)] = np.nan
        return np.asarray(np.fmin(np.fmin(amount, share), again) / np.minimum(step.previous, whole))


def _over_two_steps(earlier: _Step, published: Floats, first: Ints) -> Bools:
    """Whether the return is over the row before the previous one, or over the NAV that ought to follow it."""
    both = 100 * ((1 + published / 100) * (1 + _taken(published, first, np.nan) / 100) - 1)
    return _agrees(earlier, published, 1.0, 0.0) | _agrees(earlier, both, 1.0, 0.0, 0, 2)


def _nearer(step: _Step, ratio: Floats, cash: Floats) -> Bools:
    """Whether the event makes the change smaller: all one can ask where no return was published."""
    with np.errstate(invalid="ignore", divide="ignore"):
        with_event = np.abs((ratio * step.nav + cash) / step.previous - 1)
        without = np.abs(step.nav / step.previous - 1)
        return np.asarray(with_event <= without)


def _half_digit(nav: Floats, first: Ints, second: Ints) -> Floats:
    """Half a unit of the last digit that this NAV or one of the two before shows: zeros at the end were lost."""
    own = published_decimals(nav)
    decimals = np.maximum(own, np.maximum(_taken(own, first, 0), _taken(own, second, 0)))
    return np.asarray(0.5 * 10.0 ** -decimals.clip(2))


def _sessions_since(days: Days, first: Ints, sessions: Days) -> Ints:
    """Trading days from the previous row to this one; for a fund's first row all there were."""
    ordinal = np.searchsorted(sessions, days, side="right")
    return ordinal - _taken(ordinal, first, 0)


def _back(codes: Ints, rows: int) -> Ints:
    """Position of the row `rows` earlier of the same fund, or -1."""
    at = np.arange(len(codes)) - rows
    known = at >= 0
    known[known] = codes[at[known]] == codes[known]
    return np.where(known, at, -1)


def _taken(values: NDArray[T], at: Ints, missing: Any) -> NDArray[T]:
    out = values[at]
    out[at < 0] = missing
    return out


def _followed(first: Ints) -> Bools:
    """Rows that another row of the fund follows."""
    out = np.zeros(len(first), dtype=bool)
    out[first[first >= 0]] = True
    return out


def _confirmed(follows: Bools, first: Ints) -> Bools:
    """Rows that are followed by two rows of which each follows from the one before."""
    after = np.full(len(first), -1, dtype=np.int64)
    after[first[first >= 0]] = np.flatnonzero(first >= 0)
    next_follows = _taken(follows, after, False)
    return next_follows & _taken(next_follows, after, False)


def _next_carried(carried: Bools, first: Ints) -> Bools:
    """Rows whose event was booked on the row after them."""
    out = np.zeros(len(carried), dtype=bool)
    out[first[carried]] = True
    return out
