"""What is stored of the funds of a history: read by code and date, not by joining what was staged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, false, func, insert, not_, or_, select

from core import nav_frames
from core.background_store import by_hand
from core.merge import KEY, NAV_VALUES, YIELD_VALUES
from core.nav_store import plain
from core.quarantine import holds_level
from core.schema import backfilled_fund, fund_event, fund_nav, money_fund_yield, nav_batch, quarantine

CODES_A_QUERY = 500
DAY_RANGE = 10_000_000  # more than any date's ordinal: code and date make one number
VALUES: tuple[tuple[Table, tuple[str, ...]], ...] = (
    (fund_nav, NAV_VALUES),
    (money_fund_yield, YIELD_VALUES),
)
Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Stored:
    """What one table holds of some funds between two dates."""

    keys: Keys  # of fund and date, ascending
    values: dict[str, NDArray[np.float64]]  # NaN for null
    batch_ids: NDArray[np.int64]


@dataclass(frozen=True)
class Believed:
    """The believed rows of a history that belong in one table, by fund and date."""

    positions: Keys  # in the history
    keys: Keys
    values: dict[str, NDArray[np.float64]]


def merges_of_others(connection: Connection, run_id: int | None) -> int:
    """How many batches others have merged: what is stored has not changed while this number has not."""
    mine = nav_batch.c.run_id == run_id if run_id is not None else false()
    others = or_(nav_batch.c.run_id.is_(None), not_(mine))
    query = select(func.count()).where(nav_batch.c.status == "MERGED", others)
    return int(connection.execute(query).scalar_one())


def keys_of(codes: Any, days: Any) -> Keys:
    """Code and date as one number, in their order; -1 where either is none."""
    place, distinct = pd.factorize(codes)
    numbers = [int(code) if len(code) == 6 and code.isascii() and code.isdigit() else -1 for code in distinct]
    number = np.array(numbers, dtype=np.int64)[place] if len(place) else np.zeros(0, dtype=np.int64)
    day = np.asarray(days, dtype="datetime64[D]")
    known = (number >= 0) & ~np.isnat(day)
    return np.where(known, number * DAY_RANGE + day.astype(np.int64) + nav_frames.EPOCH, -1)


def read_stored(
    connection: Connection, codes: Sequence[str], span: tuple[date, date] | None
) -> dict[str, Stored]:
    """By table what is stored of these funds (sorted codes) from the first to the last date."""
    found = {}
    days = span or (date.max, date.min)
    for table, values in VALUES:
        rows: list[Any] = []
        columns = [plain(table.c[name]) for name in (*KEY, *values, "batch_id")]
        for part in _parts(codes):
            query = select(*columns).where(table.c.fund_code.in_(part), table.c.nav_date.between(*days))
            rows += connection.execute(query.order_by(*(table.c[name] for name in KEY))).all()
        frame = nav_frames.frame_of((*KEY, *values, "batch_id"), rows)
        found[table.name] = Stored(
            keys_of(frame["fund_code"], frame["nav_date"]),
            {name: frame[name].to_numpy() for name in values},
            frame["batch_id"].to_numpy(),
        )
    return found


def _parts(codes: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(codes), CODES_A_QUERY):
        yield codes[start : start + CODES_A_QUERY]


def read_events(connection: Connection, codes: Sequence[str]) -> pd.DataFrame:
    """Events on record that somebody published: `key` (as `_keys`), dividend, split_ratio."""
    rows: list[Any] = []
    event = fund_event.c
    for part in _parts(codes):
        columns = (event.fund_code, plain(event.ex_date), event.kind, plain(event.value))
        query = select(*columns).where(event.fund_code.in_(part), event.evidence != "implied")
        rows += connection.execute(query).all()
    frame = pd.DataFrame(rows, columns=["fund_code", "ex_date", "kind", "value"])
    days = np.array(frame["ex_date"], dtype="datetime64[D]")
    frame = frame.assign(key=keys_of(frame["fund_code"], days))
    wide = {
        name: frame[frame["kind"] == kind].set_index("key")["value"].astype(float)
        for kind, name in (("dividend", "dividend"), ("split", "split_ratio"))
    }
    return pd.DataFrame(wide).rename_axis("key").reset_index()


def beside(staged: pd.DataFrame, keys: Keys, events: pd.DataFrame) -> pd.DataFrame:
    """row_no, dividend and split_ratio of the rows for whose fund and date an event was published."""
    known = np.flatnonzero(np.isin(keys, events["key"].to_numpy(dtype=np.int64)))
    values = events.set_index("key").reindex(keys[known])
    return values.assign(row_no=staged["row_no"].to_numpy()[known]).reset_index(drop=True)


def stored_beside(staged: pd.DataFrame, keys: Keys, stored: Stored) -> pd.DataFrame:
    """row_no, stored_unit, stored_accum, stored_return of the rows whose fund and date we hold already."""
    at, known = found_in(keys, stored)
    return pd.DataFrame(
        {
            "row_no": staged["row_no"].to_numpy()[known],
            "stored_unit": stored.values["unit_nav"][at[known]],
            "stored_accum": stored.values["accum_nav"][at[known]],
            "stored_return": stored.values["daily_return"][at[known]],
        }
    )


def held_before(
    connection: Connection, staged: pd.DataFrame, keys: Keys, codes: Sequence[str]
) -> pd.DataFrame:
    """row_no, held_unit, held_day (days since 1970), held_level: the newest row of its fund held before each row.

    As background_store reads it for staged rows.
    """
    held = quarantine.c
    rows: list[Any] = []
    for part in _parts(codes):
        open_rows = (held.fund_code.in_(part), or_(held.resolution.is_(None), by_hand()), held.unit_nav > 0)
        columns = (held.fund_code, plain(held.nav_date), held.unit_nav, held.reasons)
        query = select(*columns).where(*open_rows, held.reasons.not_like("%code_format%"))
        rows += connection.execute(query.where(held.nav_date.is_not(None)).order_by(held.id)).all()
    newest = {(row[0], row[1]): (row[2], int(holds_level(row[3]))) for row in rows}
    values = [(*key, *newest[key]) for key in sorted(newest)]
    frame = pd.DataFrame(values, columns=["code", "day", "unit", "level"])
    days = np.array(frame["day"], dtype="datetime64[D]")
    known = keys_of(frame["code"].to_numpy(dtype=object), days)
    at = np.searchsorted(known, keys) - 1
    after = (at >= 0) & (keys >= 0)
    after[after] = known[at[after]] // DAY_RANGE == keys[after] // DAY_RANGE
    return pd.DataFrame(
        {
            "row_no": staged["row_no"].to_numpy()[after],
            "held_unit": frame["unit"].to_numpy(dtype=float)[at[after]],
            "held_day": days.astype(np.int64)[at[after]],
            "held_level": frame["level"].to_numpy(dtype=float)[at[after]],
        }
    )


def found_in(keys: Keys, stored: Stored) -> tuple[Keys, NDArray[np.bool_]]:
    """Where in `stored` the keys stand, and which of them stand there at all."""
    at = np.searchsorted(stored.keys, keys)
    known = at < len(stored.keys)
    known[known] = stored.keys[at[known]] == keys[known]
    return at, known


def read_anchors(
    connection: Connection, staged: pd.DataFrame, codes: Sequence[str], events: pd.DataFrame
) -> pd.DataFrame:
    """What nav_frames.read_anchors would give, had the rows been staged.

    The newest believed rows of each fund from before its first row here; of money funds two weeks.
    """
    first = _first_dates(staged, "unit_nav")
    nav = fund_nav.c
    earliest: dict[str, date] = {}
    for part in _parts(codes):
        query = select(nav.fund_code, func.min(nav.nav_date)).where(nav.fund_code.in_(part))
        earliest |= dict(connection.execute(query.group_by(nav.fund_code)).all())
    rows: list[Any] = []
    columns = [plain(nav[name]) for name in nav_frames.ANCHOR_COLUMNS[:5]]
    for code, day in first.items():
        if code in earliest and earliest[code] < day:
            before = select(*columns).where(nav.fund_code == code, nav.nav_date < day)
            rows += connection.execute(before.order_by(nav.nav_date.desc()).limit(nav_frames.ANCHORS)).all()
    known = events.set_index("key")
    keys = keys_of(
        np.array([row[0] for row in rows], dtype=object),
        np.array([row[1] for row in rows], dtype="datetime64[D]"),
    )
    given = known.reindex(keys)[["dividend", "split_ratio"]].to_numpy(dtype=float).tolist()
    navs = [(*row, *event) for row, event in zip(rows, given, strict=True)]
    return nav_frames.both_kinds(navs, _money_rows(connection, staged, codes))


def _first_dates(staged: pd.DataFrame, value: str) -> dict[str, date]:
    """By fund the first date with this value."""
    first = staged[staged[value].notna()].groupby("fund_code")["nav_date"].min().dropna()
    return {str(code): day.date() for code, day in first.items()}


def _money_rows(connection: Connection, staged: pd.DataFrame, codes: Sequence[str]) -> list[Any]:
    first = _first_dates(staged, "income_per_10k")
    if not first:
        return []
    kept = money_fund_yield.c
    since, until = min(first.values()) - nav_frames.TWO_WEEKS, max(first.values())
    rows: list[Any] = []
    for part in _parts([code for code in codes if code in first]):
        columns = (plain(kept[name]) for name in nav_frames.MONEY_ANCHOR_COLUMNS)
        query = select(*columns).where(kept.fund_code.in_(part), kept.nav_date.between(since, until))
        rows += [row for row in connection.execute(query) if row[1] < first[row[0]].isoformat()]
    return rows


def funds_done(connection: Connection, run_id: int) -> set[str]:
    """Funds that the back-fill which began with this run has merged already."""
    query = select(backfilled_fund.c.fund_code).where(backfilled_fund.c.run_id == run_id)
    return set(connection.execute(query).scalars())


def mark_done(connection: Connection, run_id: int, row_counts: Mapping[str, int], now: datetime) -> None:
    """Remember, in the transaction that merged them, that these funds need not be asked for again."""
    records = [
        {"run_id": run_id, "fund_code": code, "row_count": count, "merged_at": now}
        for code, count in row_counts.items()
    ]
    if records:
        connection.execute(insert(backfilled_fund), records)
