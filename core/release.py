"""Second looks at what is held: judged again among what was published since, and merged where it is explained.

A held row is believed when an event that arrived later explains it, when the two rows after it follow from it, when
another source says the same, or when somebody vouches for it; never before the held row it follows from. A held
correction of a believed value, and a row that two sources disagree about, are for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, and_, insert, or_, select, update

from core import adjustment, db, merge, nav_frames, nav_store
from core.background import Background, Days
from core.background_store import STORED, fund_facts, returns_between, second_units
from core.errors import UsageError
from core.judging import Verdicts, events_of, judge
from core.quarantine import ACTOR, CORRECTED, LEVEL, NOTE, REJECTED, RELEASED, require_held
from core.rules import SMALL_STEP
from core.schema import fund_nav, money_fund_yield, nav_batch, quarantine, tmp_fund_nav
from core.series import Series
from core.sources.base import NavRow
from core.thresholds import Thresholds
from core.trading_calendar import SHANGHAI

# What no table holds, or nobody can tell apart; and what no later row can mend.
UNSTORABLE = frozenset({"key_fields", "code_format", "future_date", "nav_positive", "conflict"})
HOPELESS = UNSTORABLE | {"clone", "money_limit"}
FOR_PEOPLE = frozenset({"revision", "rejected"})
MENDED_BY_TIME = frozenset({"unknown_fund", "before_inception", "money_yield"})
MOST_AT_ONCE = 5_000  # the newest; a night that held more than that has a cause of its own
LOOK_BACK = timedelta(days=45)  # held rows older than that wait for somebody
CONTEXT = timedelta(days=14)  # of believed rows before the first held one, and always ROWS_BEFORE of them
ROWS_BEFORE = 3
VALUES = tuple(name for name in NavRow._fields if name not in ("fund_code", "nav_date"))


@dataclass(frozen=True)
class Voucher:
    """Somebody's word for rows in quarantine."""

    ids: frozenset[int] = frozenset()
    actor: str = ""
    note: str | None = None
    book_proposal: bool = True


@dataclass(frozen=True)
class Released:
    """What came of a second look."""

    released: list[int] = field(default_factory=list)  # quarantine ids
    merged: int = 0
    revised: int = 0
    events: int = 0
    still_held: list[int] = field(default_factory=list)
    batch_id: int | None = None  # the batch the released rows were merged as
    funds: list[str] = field(default_factory=list)


def vouch(
    connection: Connection, voucher: Voucher, thresholds: Thresholds, sessions: Days, now: datetime
) -> Released:
    """Merge these rows, and those held of the same funds that follow from them.

    Raises UsageError for an unknown row, one decided already and one that no table could hold.
    """
    nav_store.lock_merges(connection)
    rows = require_held(connection, sorted(voucher.ids))
    hopeless = [f"{row.id} ({row.reasons})" for row in rows if set(row.reasons.split(",")) & UNSTORABLE]
    if hopeless:
        raise UsageError(f"row {', '.join(hopeless)} cannot be merged as it is; nothing was done")
    twice = pd.Series([(row.fund_code, row.nav_date) for row in rows]).duplicated()
    if twice.any():
        raise UsageError("two of these rows are of the same fund and date; nothing was done")
    mine = quarantine.c.fund_code.in_({row.fund_code for row in rows})
    since = min(row.nav_date for row in rows)  # what is older follows from none of them
    open_rows = _open_rows(connection, and_(mine, quarantine.c.nav_date >= since))
    return _look_again(connection, open_rows, voucher, thresholds, sessions, now)


def reconsider(
    connection: Connection, thresholds: Thresholds, sessions: Days, now: datetime, night: date | None = None
) -> Released:
    """Look again at everything held of the last weeks; in the transaction of the merge of a `night`."""
    since = now.astimezone(SHANGHAI).date() - LOOK_BACK
    lately = and_(quarantine.c.resolution.is_(None), quarantine.c.nav_date >= since)
    newest = select(quarantine.c.fund_code).where(lately).order_by(quarantine.c.id.desc()).limit(MOST_AT_ONCE)
    codes = sorted(set(connection.execute(newest).scalars()))
    open_rows: list[
        Row[Any]
    ] = []  # of these funds all, however old: what follows from one must not come before it
    for start in range(0, len(codes), merge.CHUNK):
        open_rows += _open_rows(connection, quarantine.c.fund_code.in_(codes[start : start + merge.CHUNK]))
    return _look_again(connection, open_rows, Voucher(), thresholds, sessions, now, night)


def _open_rows(connection: Connection, which: Any) -> Sequence[Row[Any]]:
    held = quarantine.c
    usable = or_(held.unit_nav.is_not(None), held.income_per_10k.is_not(None), held.yield_7d.is_not(None))
    query = select(quarantine).where(which, held.resolution.is_(None), held.nav_date.is_not(None), usable)
    return connection.execute(query.order_by(held.id)).all()


def _look_again(
    connection: Connection,
    rows: Sequence[Row[Any]],
    voucher: Voucher,
    thresholds: Thresholds,
    sessions: Days,
    now: datetime,
    night: date | None = None,
) -> Released:
    believed = _believed(connection, rows)
    rows = _undecided(connection, rows, believed, voucher, now)
    rows = [row for row in rows if row.id in voucher.ids or not set(row.reasons.split(",")) & HOPELESS]
    if not rows:
        return Released()
    staged = _staged(rows, voucher)
    keys = {(row.fund_code, row.nav_date) for row in rows}
    anchors = _context(connection, rows, keys)
    found = judge(
        staged, anchors, _background(connection, rows, believed, voucher, thresholds, sessions, now)
    )
    why = _accepted(found, rows, voucher)
    accepted = [row for row in rows if row.id in why]
    still = [row.id for row in rows if row.id not in why]
    if not accepted:
        return Released(still_held=still)
    batch_id = _stage(connection, accepted, now, night)
    merged = merge.merge(connection, batch_id, now, thresholds.revision_large)
    mask = found.frame["row_no"].isin(list(why)).to_numpy(dtype=bool)
    events = merge.save_events(connection, batch_id, _events(found, mask, voucher))
    adjustment.recompute(connection, batch_id)
    nav_store.decide_batch(connection, batch_id, "MERGED", now, merged.rows)
    for row in accepted:
        mine = row.id in voucher.ids
        _decide(
            connection,
            row.id,
            RELEASED,
            voucher.actor if mine else why[row.id],
            now,
            voucher.note if mine else None,
        )
    return Released(
        [row.id for row in accepted],
        merged.rows,
        merged.revised,
        events,
        still,
        batch_id,
        sorted({row.fund_code for row in accepted}),
    )


def _believed(connection: Connection, rows: Sequence[Row[Any]]) -> dict[tuple[str, date], Row[Any]]:
    """What we hold for the funds and dates of these rows."""
    held = quarantine.c
    found: dict[tuple[str, date], Row[Any]] = {}
    ids = [row.id for row in rows]
    for table in (money_fund_yield, fund_nav):
        same = and_(table.c.fund_code == held.fund_code, table.c.nav_date == held.nav_date)
        for start in range(0, len(ids), merge.CHUNK):
            part = held.id.in_(ids[start : start + merge.CHUNK])
            query = select(table).join(quarantine, same).where(part)
            found |= {(row.fund_code, row.nav_date): row for row in connection.execute(query)}
    return found


def _undecided(
    connection: Connection,
    rows: Sequence[Row[Any]],
    believed: Mapping[tuple[str, date], Row[Any]],
    voucher: Voucher,
    now: datetime,
) -> list[Row[Any]]:
    """One row a fund and date, the newest; those that time has decided are marked so.

    A value that was believed since, by way of a history page, is released; one in whose place another was since,
    rejected. A correction of what was believed before it is neither: it waits.
    """
    newest: dict[tuple[str, date], Row[Any]] = {}
    for row in rows:
        key = row.fund_code, row.nav_date
        known = believed.get(key)
        if row.id not in voucher.ids and known is not None:
            if _same(row, known):
                _decide(connection, row.id, RELEASED, "history", now, None)
            elif known.batch_id > row.batch_id:
                _decide(connection, row.id, REJECTED, CORRECTED, now, None)
            continue
        if key not in newest or newest[key].id not in voucher.ids:
            newest[key] = row
    return list(newest.values())


def _same(row: Row[Any], known: Row[Any]) -> bool:
    """Whether we hold what the row says, and it says no more."""
    return all(
        getattr(row, name) is None or getattr(row, name) == known._mapping.get(name)
        for name in (*merge.NAV_VALUES, *merge.YIELD_VALUES)
    )


def _decide(
    connection: Connection, row_id: int, resolution: str, actor: str, now: datetime, note: str | None
) -> None:
    values = {"resolution": resolution, "resolved_by": actor[:ACTOR], "resolved_at": now}
    still_open = and_(quarantine.c.id == row_id, quarantine.c.resolution.is_(None))
    connection.execute(update(quarantine).where(still_open).values(**values, note=note and note[:NOTE]))


def _staged(rows: Sequence[Row[Any]], voucher: Voucher) -> pd.DataFrame:
    """The rows as a batch: `row_no` is their number in quarantine; vouched ones with the event proposed for them."""
    given = []
    for row in rows:
        values = [getattr(row, name) for name in VALUES]
        proposal = json.loads(row.proposal) if row.proposal and row.id in voucher.ids else None
        if proposal and voucher.book_proposal and row.dividend is None and row.split_ratio is None:
            name = "dividend" if proposal["kind"] == "dividend" else "split_ratio"
            values[VALUES.index(name)] = proposal["value"]
        given.append((row.id, row.fund_code, row.nav_date, *values))
    return nav_frames.frame_of(("row_no", "fund_code", "nav_date", *VALUES), given)


def _context(connection: Connection, rows: Sequence[Row[Any]], keys: set[tuple[str, date]]) -> pd.DataFrame:
    """What we believe of these funds before, between and after the held rows, without the dates of those."""
    codes = sorted({row.fund_code for row in rows})
    since = min(row.nav_date for row in rows) - CONTEXT
    anchors = nav_frames.read_around(connection, codes, since, ROWS_BEFORE)
    pairs = zip(anchors["fund_code"], anchors["nav_date"], strict=True)
    mine = np.array([(code, day.date()) in keys for code, day in pairs], dtype=bool)
    return anchors[~mine | anchors["unit_nav"].isna()]


def _background(
    connection: Connection,
    rows: Sequence[Row[Any]],
    believed: Mapping[tuple[str, date], Row[Any]],
    voucher: Voucher,
    thresholds: Thresholds,
    sessions: Days,
    now: datetime,
) -> Background:
    stored = []
    for row in rows:
        known = believed.get((row.fund_code, row.nav_date))
        if known is not None and "unit_nav" in known._mapping:
            stored.append((row.id, known.unit_nav, known.accum_nav, known.daily_return))
    days = [row.nav_date for row in rows]
    return Background(
        today=now.astimezone(SHANGHAI).date(),
        thresholds=thresholds,
        sessions=sessions,
        funds=fund_facts(connection),
        events=nav_frames.read_held_events(connection, [row.id for row in rows]),
        stored=pd.DataFrame(stored, columns=["row_no", *STORED.values()]),
        returns=returns_between(connection, min(days), max(days)),
        second=second_units(connection, rows),
        released=voucher.ids,
    )


def _accepted(found: Verdicts, rows: Sequence[Row[Any]], voucher: Voucher) -> dict[int, str]:
    """Numbers of the rows that can be believed now, and what speaks for each.

    That no rule objects any more proves nothing: there may be less to hold the row against than on its night.
    """
    frame, series = found.frame, found.series
    number = frame["row_no"].to_numpy()
    anchor = frame["anchor"].to_numpy(dtype=bool)
    second = frame["second_unit"].to_numpy(dtype=float)
    unit = frame["unit_nav"].to_numpy(dtype=float)
    held_for = {row.id: frozenset(row.reasons.split(",")) for row in rows}
    why: dict[int, str] = {}
    for at in np.flatnonzero(~anchor).tolist():
        row, before = int(number[at]), int(series.previous[at])
        said = {*found.reasons[at].split(",")} - {""}
        follows = before >= 0 and not anchor[before]  # a row that is held as well
        accepted = follows and int(number[before]) in why
        waits = follows and not accepted and _is_level(held_for[int(number[before])], unit, before, series)
        proved = bool(series.return_checked[at] and series.return_explained[at])
        if unit[at] != unit[at]:  # a money fund's: no row of it proves another
            waits = _held_lately(rows, row)
        if row in voucher.ids:
            why[row] = voucher.actor
        elif waits or held_for[row] & FOR_PEOPLE:
            continue
        elif second[at] == second[at] and "sources_agree" not in said:
            why[row] = "source"
        elif said or "sources_agree" in held_for[row]:
            continue
        elif before >= 0 and series.has_event[at]:
            why[row] = "event"
        elif series.confirmed[at] or (accepted and proved):
            why[row] = "followers"
        elif held_for[row] <= MENDED_BY_TIME:
            why[row] = "time"
    return why


def _held_lately(rows: Sequence[Row[Any]], number: int) -> bool:
    """Whether another row of the fund is held in the two weeks before this one."""
    mine = next(row for row in rows if row.id == number)
    return any(
        row.fund_code == mine.fund_code and mine.nav_date - CONTEXT <= row.nav_date < mine.nav_date
        for row in rows
    )


def _is_level(reasons: frozenset[str], unit: NDArray[np.float64], at: int, series: Series) -> bool:
    """Whether a held row is held for its level: by its rules, or because it is far from the row before it."""
    before = int(series.previous[at])
    far = before >= 0 and abs(100 * (unit[at] / unit[before] - 1)) >= SMALL_STEP
    return bool(reasons & LEVEL) or far


def _events(found: Verdicts, mask: NDArray[np.bool_], voucher: Voucher) -> pd.DataFrame:
    events = events_of(found, mask)
    vouched = found.frame[found.frame["row_no"].isin(list(voucher.ids))]
    keys = set(zip(vouched["fund_code"], vouched["nav_date"], strict=True))
    mine = [key in keys for key in zip(events["fund_code"], events["ex_date"], strict=True)]
    return events.assign(evidence=np.where(np.array(mine, dtype=bool), "confirmed", events["evidence"]))


def _stage(connection: Connection, rows: Sequence[Row[Any]], now: datetime, night: date | None) -> int:
    batch = {
        "kind": "release",
        "business_date": night,
        "source": "quarantine",
        "row_count": len(rows),
        "status": "STAGED",
    }
    where = f"rows {', '.join(str(row.id) for row in rows)} of quarantine"
    batch_id = db.new_id(
        connection.execute(insert(nav_batch).values(**batch, provenance=where[:500], collected_at=now))
    )
    db.bulk_insert(
        connection,
        tmp_fund_nav,
        nav_store.STAGED_COLUMNS,
        (
            (
                batch_id,
                number,
                row.fund_code,
                row.nav_date.isoformat(),
                *(getattr(row, name) for name in VALUES),
            )
            for number, row in enumerate(rows, 1)
        ),
    )
    return batch_id
