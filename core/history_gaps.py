"""Holes in stored NAV series: sessions on which a fund's peers have NAVs and it, before and after, has them too.

What is a hole is judged by the fund's own habit: who published on nine of the ten common sessions before and of
the ten after it. So weekly NAVs, closed periods and foreign holidays are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from core.nav_frames import EPOCH
from core.nav_store import known_funds, plain
from core.schema import fund_nav, trade_calendar

SHARE_OF_PEERS = 0.9  # with a NAV: then the session is one on which such funds publish
FEWEST_PEERS = 10
HABIT_SESSIONS = 10  # looked at before a hole, and after it
HABIT_SHARE = 0.9
FEWEST_HABIT = 3  # sessions that must be there to look at
CODES_A_QUERY = 500
Days = NDArray[np.int64]  # days since 1970-01-01, ascending
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Gap:
    """The sessions that one fund lacks, oldest first."""

    fund_code: str
    days: list[date]


def find_gaps(connection: Connection, sessions: Sequence[date]) -> list[Gap]:
    """Holes on these consecutive sessions, those with the newest first.

    Two passes over fund_nav at most: one counts rows by fund, the other reads the dates of the funds that lack
    any.
    """
    if not sessions:
        return []
    days = np.array([day.toordinal() - EPOCH for day in sessions], dtype=np.int64)
    known = known_funds(connection)
    counts = _counts(connection, sessions[0], sessions[-1])
    spans = {code: np.searchsorted(days, (first, last)) for code, (_rows, first, last) in counts.items()}
    lacking = sorted(code for code, (first, last) in spans.items() if last - first + 1 > counts[code][0])
    complete = {
        code: (int(first), int(last)) for code, (first, last) in spans.items() if code not in set(lacking)
    }
    present = _present(connection, lacking, sessions, days)
    common = common_sessions(complete, present, known, len(days))
    gaps = []
    for code, mine in present.items():
        missing = holes(mine, common[known.get(code, "other")])
        if len(missing):
            gaps.append(Gap(code, [sessions[at] for at in missing.tolist()]))
    return sorted(gaps, key=lambda gap: (gap.days[-1], gap.fund_code), reverse=True)


def still_missing(connection: Connection, gaps: Sequence[Gap]) -> list[Gap]:
    """What of these holes is not filled yet."""
    nav = fund_nav.c
    stored: set[tuple[str, date]] = set()
    for start in range(0, len(gaps), CODES_A_QUERY):
        part = gaps[start : start + CODES_A_QUERY]
        days = {day for gap in part for day in gap.days}
        query = select(nav.fund_code, nav.nav_date).where(
            nav.fund_code.in_([gap.fund_code for gap in part]), nav.nav_date.between(min(days), max(days))
        )
        stored |= {(code, day) for code, day in connection.execute(query)}
    left = (
        Gap(gap.fund_code, [day for day in gap.days if (gap.fund_code, day) not in stored]) for gap in gaps
    )
    return [gap for gap in left if gap.days]


def common_sessions(
    complete: Mapping[str, tuple[int, int]],
    present: Mapping[str, Bools],
    categories: Mapping[str, str],
    sessions: int,
) -> dict[str, Bools]:
    """By category the sessions on which nine in ten of its funds that publish daily then have a NAV.

    `complete`: first and last session of the funds that lack none; `present`: of the others, by session.
    """
    steps: dict[str, NDArray[np.int64]] = {}  # of how many are there: from one session to the next
    have: dict[str, NDArray[np.int64]] = {}
    there: dict[str, NDArray[np.int64]] = {}
    for code, (first, last) in complete.items():
        step = steps.setdefault(categories.get(code, "other"), np.zeros(sessions + 1, dtype=np.int64))
        step[first] += 1
        step[last + 1] -= 1
    for category, step in steps.items():
        have[category] = np.cumsum(step[:-1])
        there[category] = have[category].copy()
    for code, mine in present.items():
        category = categories.get(code, "other")
        empty = np.zeros(sessions, dtype=np.int64)
        daily = publishes_daily(mine)
        have[category] = have.get(category, empty) + (mine & daily)
        there[category] = there.get(category, empty) + daily
    return {
        category: (there[category] >= FEWEST_PEERS) & (have[category] >= SHARE_OF_PEERS * there[category])
        for category in have
    }


def publishes_daily(present: Bools) -> Bools:
    """The sessions around which a fund has NAVs on most: not those of a weekly one, nor the middle of a long hole."""
    at = np.flatnonzero(present)
    daily = np.zeros(len(present), dtype=bool)
    if len(at):
        first, last = int(at[0]), int(at[-1]) + 1
        seen = np.concatenate(([0], np.cumsum(present[first:last])))
        day = np.arange(last - first)
        low, high = np.maximum(day - HABIT_SESSIONS, 0), np.minimum(day + HABIT_SESSIONS + 1, last - first)
        daily[first:last] = 2 * (seen[high] - seen[low]) > high - low
    return daily


def holes(present: Bools, common: Bools) -> NDArray[np.int64]:
    """Positions of the sessions that a fund lacks against its habit.

    `present` and `common` by session: where the fund has a NAV, and where funds like it have.
    """
    have = np.flatnonzero(present)
    if len(have) < 2:
        return np.zeros(0, dtype=np.int64)
    within = np.flatnonzero(common)
    within = within[(within >= have[0]) & (within <= have[-1])]
    mine = present[within]
    starts = np.flatnonzero(np.diff(np.concatenate(([True], mine)).astype(np.int8)) == -1)
    ends = np.flatnonzero(np.diff(np.concatenate((mine, [True])).astype(np.int8)) == 1) + 1
    found: list[NDArray[np.int64]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        before, after = mine[max(0, start - HABIT_SESSIONS) : start], mine[end : end + HABIT_SESSIONS]
        if all(len(side) >= FEWEST_HABIT and side.mean() >= HABIT_SHARE for side in (before, after)):
            found.append(within[start:end])
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _counts(connection: Connection, first: date, last: date) -> dict[str, tuple[int, int, int]]:
    """By fund: rows on trading days between these dates, and the first and last of them."""
    nav = fund_nav.c
    query = (
        select(nav.fund_code, func.count(), func.min(nav.nav_date), func.max(nav.nav_date))
        .join(trade_calendar, trade_calendar.c.cal_date == nav.nav_date)
        .where(nav.nav_date.between(first, last))
        .group_by(nav.fund_code)
    )
    return {
        code: (rows, oldest.toordinal() - EPOCH, newest.toordinal() - EPOCH)
        for code, rows, oldest, newest in connection.execute(query)
    }


def _present(
    connection: Connection, codes: Sequence[str], sessions: Sequence[date], days: Days
) -> dict[str, Bools]:
    """Of each fund on which of the sessions it has a NAV."""
    nav = fund_nav.c
    found = {code: np.zeros(len(days), dtype=bool) for code in codes}
    for start in range(0, len(codes), CODES_A_QUERY):
        part = codes[start : start + CODES_A_QUERY]
        between = nav.nav_date.between(sessions[0], sessions[-1])
        query = select(nav.fund_code, plain(nav.nav_date)).where(nav.fund_code.in_(part), between)
        rows: Sequence[Any] = connection.execute(query.order_by(nav.fund_code, nav.nav_date)).all()
        published = np.array([row[1] for row in rows], dtype="datetime64[D]").astype(np.int64)
        at = np.searchsorted(days, published)
        is_session = (at < len(days)) & (days[at.clip(max=len(days) - 1)] == published)
        for (code, _day), place, known in zip(rows, at.tolist(), is_session.tolist(), strict=True):
            if known:
                found[code][place] = True
    return found
