"""A simulated market: seeded, of any size, with the habits of the real one. Its names begin with 模拟."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.standin.fund_types import FUND_TYPES, MONEY_PREFIX, FundType, type_counts
from core.standin.market import (
    MINUTES_PER_DAY,
    SHANGHAI_OFFSET_MINUTES,
    Days,
    Event,
    Floats,
    Fund,
    Index,
    Market,
    Minutes,
)
from core.standin.money import money_columns
from core.standin.periods import EPOCH

BLOCK = 512  # funds simulated at once: bounds memory
FACTOR_DRIFT, FACTOR_NOISE = 0.0002, 0.011
BORN_LATER = 0.3  # share of funds that did not exist at the start
CLOSED_SESSIONS = (20, 60)
SPLITS_A_YEAR = 0.05  # of exchange-traded index funds
SESSIONS_A_YEAR = 243
FIRST_MINUTE, LAST_MINUTE = 17 * 60 + 30, 22 * 60 + 30  # of publication, Shanghai
LATE_PUBLISHERS, LATE_SHARE, LATE_ELSEWHERE = 0.02, 0.15, 0.001
NEXT_MORNING = (9 * 60, 11 * 60 + 30)

V = TypeVar("V")


class Columns(NamedTuple):
    """Rows of some funds, fund after fund, as a Market keeps them; `sizes` counts each fund's rows."""

    sizes: NDArray[np.int64]
    dates: Days
    unit_nav: Floats
    accum_nav: Floats
    daily_return: NDArray[np.float32]
    visible_at: Minutes
    events: dict[int, Event]
    span_starts: dict[int, int]
    opens: dict[int, int]  # fund of the block -> the first day after its closed period


def simulated_market(funds: int, start: date, end: date, seed: int, sessions: Sequence[date]) -> Market:
    """A market of `funds` funds with NAVs on the `sessions` (trading dates) from `start` to `end`.

    Sessions after `end` are used for the publication dates of the last NAVs; weekdays stand in
    where they are missing. The same arguments give the same market. Raises ValueError without a
    session between `start` and `end` or without a fund.
    """
    first, last = start.toordinal() - EPOCH, end.toordinal() - EPOCH
    everything = np.unique(np.array([d.toordinal() - EPOCH for d in sessions], dtype=np.int32))
    days = everything[(everything >= first) & (everything <= last)]
    if funds < 1 or not days.size:
        raise ValueError(f"a market needs a fund and a session: {funds} funds, {start} to {end}")
    calendar = _with_weekdays(everything[everything >= days[0]])
    rng = np.random.default_rng(seed)
    listed, types = _fund_list(rng, funds)
    factor = FACTOR_DRIFT + FACTOR_NOISE * rng.standard_normal(days.size)
    parts: list[Columns] = []
    for money in (False, True):
        chosen = [i for i, fund in enumerate(listed) if fund.money is money]
        for low in range(0, len(chosen), BLOCK):
            block = chosen[low : low + BLOCK]
            if money:
                parts.append(Columns(*money_columns(rng, len(block), days, calendar, last), {}))
            else:
                kinds, traded = [types[i] for i in block], [listed[i].exchange for i in block]
                parts.append(_nav_columns(rng, kinds, traded, days, calendar, factor))
    listed.sort(key=lambda fund: fund.money)  # the order in which the parts were made
    return _joined(listed, parts, _indices(seed, days, factor))


def _indices(seed: int, days: Days, factor: Floats) -> dict[str, Index]:
    """The indices of a market: the factor all its funds follow, and a broader one with noise of its own."""
    rng = np.random.default_rng([seed, 300])
    broad = 0.9 * factor + 0.003 * rng.standard_normal(days.size)
    return {
        "000300": Index("模拟300", days, np.round(4000 * np.cumprod(1 + factor), 2)),
        "000985": Index("模拟全指", days, np.round(5000 * np.cumprod(1 + broad), 2)),
    }


def _with_weekdays(calendar: Days) -> Days:
    """A calendar long enough to publish the NAVs of its own last day."""
    more = [day for day in range(int(calendar[-1]) + 1, int(calendar[-1]) + 15) if (day + 3) % 7 < 5]
    return np.append(calendar, np.array(more, dtype=np.int32))


def _fund_list(rng: np.random.Generator, funds: int) -> tuple[list[Fund], list[FundType]]:
    """Funds by code: open-end ones in mixed order, then the exchange-traded."""
    bag = [kind for kind, count in zip(FUND_TYPES, type_counts(funds), strict=True) for _ in range(count)]
    traded = rng.random(len(bag)) < np.array([kind.traded for kind in bag])
    listed, types = [], []
    order = rng.permutation(len(bag)).tolist()
    otc = [i for i in order if not traded[i]]
    for number, i in enumerate(otc + [i for i in order if traded[i]]):
        kind = bag[i]
        code = f"{number + 1:06d}"
        if traded[i]:
            code = f"{(508_000 if kind.name == 'Reits' else 510_000) + number - len(otc):06d}"
        suffix = "ETF" if traded[i] and kind.name != "Reits" else ""
        listed.append(
            Fund(
                code=code,
                name=f"模拟{kind.noun}{code}{suffix}",
                fund_type=kind.name,
                pinyin=f"MN{kind.initials}{code}",
                pinyin_full=f"MONI{kind.sound}{code}",
                exchange=bool(traded[i]),
                money=kind.name.startswith(MONEY_PREFIX),
            )
        )
        types.append(kind)
    return listed, types


def _nav_columns(
    rng: np.random.Generator,
    kinds: list[FundType],
    traded: list[bool],
    days: Days,
    calendar: Days,
    factor: Floats,
) -> Columns:
    """NAV rows of a block of funds."""
    count, sessions = len(kinds), days.size
    born = np.where(rng.random(count) < BORN_LATER, rng.integers(0, sessions, count), 0)
    opened = np.where(born > 0, born + rng.integers(*CLOSED_SESSIONS, count), 0)
    own = rng.standard_normal((count, sessions)) * np.array([k.noise for k in kinds])[:, None]
    beta, drift = (np.array([getattr(k, name) for k in kinds])[:, None] for name in ("beta", "drift"))
    growth = np.cumprod(1 + np.clip(drift + beta * factor + own, -0.2, 0.2), axis=1)
    level = np.where(born > 0, 1.0, np.exp(rng.normal(0.15, 0.3, count)))
    nav = level[:, None] * growth / growth[np.arange(count), born.clip(max=sessions - 1)][:, None]

    at = np.arange(sessions)
    week_ends = np.append(np.diff((days + 3) // 7) != 0, True)
    published = at >= born[:, None]
    published &= (at >= opened[:, None]) | week_ends | (at == born[:, None])
    paid = np.where((born == 0) & (rng.random(count) < 0.4), np.round(rng.random(count) * 0.8, 4), 0.0)
    shares = np.ones_like(nav)
    cash = np.repeat(paid[:, None], sessions, axis=1)
    events = _apply_events(rng, kinds, traded, opened, nav, shares, cash)

    unit = np.round(nav, 4)
    accum = np.round(shares * unit + cash, 4)
    flat_at = np.cumsum(published.ravel()) - 1
    flat_events = {
        int(flat_at[fund * sessions + k]): event for (fund, k), event in events.items() if published[fund, k]
    }
    sizes = published.sum(axis=1)
    rows = unit[published]
    quiet = (at < opened[:, None])[published]
    return Columns(
        sizes=sizes,
        dates=np.broadcast_to(days, nav.shape)[published],
        unit_nav=rows,
        accum_nav=accum[published],
        daily_return=_published_returns(rows, sizes, quiet, flat_events),
        visible_at=_publication(rng, kinds, sessions, calendar)[published],
        events=flat_events,
        span_starts={},
        opens={fund: int(days[k]) for fund, k in enumerate(opened.tolist()) if 0 < k < sessions},
    )


def _apply_events(
    rng: np.random.Generator,
    kinds: list[FundType],
    traded: list[bool],
    opened: NDArray[np.int64],
    nav: Floats,
    shares: Floats,
    cash: Floats,
) -> dict[tuple[int, int], Event]:
    """Pay dividends out of `nav` and split it, in place; (fund, session) -> event.

    `shares` becomes the shares one original share has grown to, `cash` what it was paid: the
    accumulated NAV is `shares * unit + cash`.
    """
    sessions = nav.shape[1]
    events: dict[tuple[int, int], Event] = {}
    years = sessions / SESSIONS_A_YEAR
    for fund, kind in enumerate(kinds):
        dividends = rng.poisson(kind.dividends * years)
        splits = rng.poisson(SPLITS_A_YEAR * years) if traded[fund] and kind.name.startswith("指数型") else 0
        first = int(opened[fund]) + 1
        if first >= sessions or not dividends + splits:
            continue
        chosen = np.unique(rng.integers(first, sessions, dividends + splits))
        for number, k in enumerate(rng.permutation(chosen).tolist()):
            split = number >= chosen.size - splits
            events[fund, k] = _split(rng) if split else _dividend(rng, kind)
        for k in chosen.tolist():
            events[fund, k] = _execute(events[fund, k], k, nav[fund], shares[fund], cash[fund])
    return events


def _dividend(rng: np.random.Generator, kind: FundType) -> Event:
    """A dividend as a share of the NAV of its day; bonds pay less at a time."""
    return Event(
        float(rng.uniform(0.002, 0.01) if kind.dividends > 0.3 else rng.uniform(0.01, 0.06)), None, ""
    )


def _split(rng: np.random.Generator) -> Event:
    if rng.random() < 0.5:
        ratio = float(rng.integers(2, 5))
        return Event(None, ratio, f"每份基金份额分拆{ratio}份")
    ratio = round(float(rng.uniform(0.25, 1.6)), 8)
    return Event(None, ratio, f"每份基金份额折算{ratio}份")


def _execute(event: Event, k: int, nav: Floats, shares: Floats, cash: Floats) -> Event:
    """Take one event of session k out of one fund's rows; the event as published."""
    if event.split_ratio is not None:
        nav[k:] /= event.split_ratio
        shares[k:] *= event.split_ratio
        return event
    paid = max(0.0001, round(float(nav[k]) * (event.dividend or 0.0), 4))
    nav[k:] *= (nav[k] - paid) / nav[k]
    cash[k:] += shares[k] * paid
    return Event(paid, None, f"每份派现金{paid:.4f}元")


def _published_returns(
    unit: Floats, sizes: NDArray[np.int64], quiet: NDArray[np.bool_], events: dict[int, Event]
) -> NDArray[np.float32]:
    """Total returns in percent from the published NAVs, two decimals, halves away from zero.

    `(s*U_t + D) / U_{t-1} - 1`; NaN on a fund's first row and while it is closed (`quiet`).
    """
    value = unit.copy()
    for row, event in events.items():
        value[row] = (event.split_ratio or 1.0) * unit[row] + (event.dividend or 0.0)
    before = np.concatenate([[np.nan], unit[:-1]])
    before[np.concatenate([[0], np.cumsum(sizes)[:-1]])] = np.nan
    before[quiet] = np.nan
    hundredths = (value / before - 1) * 1e4
    percent = np.copysign(np.floor(np.abs(hundredths) + 0.5 + 1e-9), hundredths) / 100 + 0.0
    published: NDArray[np.float32] = percent.astype(np.float32)
    return published


def _publication(rng: np.random.Generator, kinds: list[FundType], sessions: int, calendar: Days) -> Minutes:
    """When each fund publishes the NAV of each session, in minutes since 1970-01-01 UTC.

    A fund has its own hour in the evening, `lag` sessions later; now and then, and more often with
    a few late publishers, it is the morning of one session more.
    """
    count = len(kinds)
    hour = rng.integers(FIRST_MINUTE + 25, LAST_MINUTE - 25, count)[:, None]
    minute = hour + rng.integers(-25, 26, (count, sessions))
    habit = np.where(rng.random(count) < LATE_PUBLISHERS, LATE_SHARE, LATE_ELSEWHERE)[:, None]
    late = rng.random((count, sessions)) < habit
    minute = np.where(late, rng.integers(*NEXT_MORNING, (count, sessions)), minute)
    lag = np.array([k.lag for k in kinds])[:, None]
    day = calendar[np.arange(sessions) + lag + late]
    instants: Minutes = (day * MINUTES_PER_DAY - SHANGHAI_OFFSET_MINUTES + minute).astype(np.int32)
    return instants


def _joined(funds: list[Fund], parts: list[Columns], indices: dict[str, Index]) -> Market:
    """One market of all parts."""
    sizes = np.concatenate([part.sizes for part in parts])
    starts = np.cumsum([0] + [part.dates.size for part in parts])
    first_funds = np.cumsum([0] + [part.sizes.size for part in parts])
    return Market(
        kind="SIMULATED",
        funds=funds,
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        dates=np.concatenate([part.dates for part in parts]),
        unit_nav=np.concatenate([part.unit_nav for part in parts]),
        accum_nav=np.concatenate([part.accum_nav for part in parts]),
        daily_return=np.concatenate([part.daily_return for part in parts]),
        visible_at=np.concatenate([part.visible_at for part in parts]),
        events=_shifted([part.events for part in parts], starts.tolist()),
        span_starts=_shifted([part.span_starts for part in parts], starts.tolist()),
        opens=_shifted([part.opens for part in parts], first_funds.tolist()),
        indices=indices,
    )


def _shifted(tables: list[dict[int, V]], starts: list[int]) -> dict[int, V]:
    return {
        start + row: value
        for table, start in zip(tables, starts, strict=False)
        for row, value in table.items()
    }
