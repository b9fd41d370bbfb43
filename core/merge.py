"""From staging to the believed tables, in the caller's transaction: quarantine, merge, revisions, events.

Doing it again changes nothing. A published blank never overwrites a known value; a changed value is
kept in fund_nav_revision with both its versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from core import nav_days
from core.crash_points import reached
from core.fund_series import Added, note_changes
from core.nav_store import NUMBERS
from core.quarantine import CORRECTED
from core.schema import (
    fund_event,
    fund_nav,
    fund_nav_revision,
    money_fund_yield,
    quarantine,
    tmp_fund_nav,
)

HELD, REPEATED = 1, 2
KEY = ("fund_code", "nav_date")
NAV_VALUES = ("unit_nav", "accum_nav", "daily_return")
YIELD_VALUES = ("income_per_10k", "yield_7d")
CHUNK = 500
REPLACES = {  # evidence on record: what may take its place
    "implied": ("published", "confirmed"),
    "announced": ("published", "announced", "confirmed", "implied"),
    "published": ("published", "announced", "confirmed"),
    "confirmed": (),
}
EVENT_DECIMALS = 12  # as MySQL keeps them, so that the same event again is no news


@dataclass(frozen=True)
class Merged:
    """Rows of fund_nav and money_fund_yield together."""

    inserted: int
    revised: int
    unchanged: int

    @property
    def rows(self) -> int:
        return self.inserted + self.revised + self.unchanged

    def __add__(self, other: Merged) -> Merged:
        return Merged(
            self.inserted + other.inserted, self.revised + other.revised, self.unchanged + other.unchanged
        )


def hold(connection: Connection, batch_id: int, source: str, rows: pd.DataFrame, now: datetime) -> int:
    """Quarantine `rows` (staged columns and `reasons`); returns how many were not there already."""
    if rows.empty:
        return 0
    _mark(connection, batch_id, rows["row_no"].tolist(), HELD)
    names = [*KEY, *NUMBERS, "origin", "defect", "raw"]
    records: dict[str, dict[str, Any]] = {}
    for row in rows[[*names, "reasons", "proposal"]].to_dict("records"):
        record: dict[str, Any] = {str(name): None if pd.isna(value) else value for name, value in row.items()}
        if record["nav_date"] is not None:
            record["nav_date"] = record["nav_date"].date()
        # Where in a file a row stands makes it no other row, unless nothing else tells it from its neighbours.
        told = [
            name for name in names if name != "origin" or not (record["fund_code"] and record["nav_date"])
        ]
        text = repr([source, *(record[name] for name in told)])
        row_hash = hashlib.sha256(text.encode()).hexdigest()
        records[row_hash] = record | {
            "row_hash": row_hash,
            "batch_id": batch_id,
            "source": source,
            "held_at": now,
        }
    known: set[str] = set()
    hashes = list(records)
    for start in range(0, len(hashes), CHUNK):
        mine = quarantine.c.row_hash.in_(hashes[start : start + CHUNK])
        known |= set(connection.execute(select(quarantine.c.row_hash).where(mine)).scalars())
        # What was set aside for another value has come back: somebody has to look.
        connection.execute(
            update(quarantine)
            .where(mine, quarantine.c.resolved_by == CORRECTED)
            .values(resolution=None, resolved_at=None, resolved_by=None, batch_id=batch_id, held_at=now)
        )
    fresh = [record for row_hash, record in records.items() if row_hash not in known]
    if fresh:
        connection.execute(insert(quarantine), fresh)
    return len(fresh)


def drop_repeats(connection: Connection, batch_id: int, row_nos: Sequence[int]) -> None:
    """Mark rows that repeat another row of the batch, so that only one of them is merged."""
    _mark(connection, batch_id, row_nos, REPEATED)


def _mark(connection: Connection, batch_id: int, row_nos: Sequence[int], mark: int) -> None:
    if row_nos:
        statement = (
            update(tmp_fund_nav)
            .where(tmp_fund_nav.c.batch_id == batch_id, tmp_fund_nav.c.row_no == bindparam("no"))
            .values(held=mark)
        )
        connection.execute(statement, [{"no": int(no)} for no in row_nos])


def merge(connection: Connection, batch_id: int, now: datetime, large: float) -> Merged:
    """Merge the batch's rows that are neither held nor repeats. `large`: as `revise` takes it."""
    navs = _merge_into(connection, fund_nav, NAV_VALUES, batch_id, now, large)
    reached("merge.navs")
    return navs + _merge_into(connection, money_fund_yield, YIELD_VALUES, batch_id, now, large)


def _merge_into(
    connection: Connection, table: Table, values: tuple[str, ...], batch_id: int, now: datetime, large: float
) -> Merged:
    staged = tmp_fund_nav.c
    mine = and_(
        staged.batch_id == batch_id, staged.held == 0, or_(*(staged[name].is_not(None) for name in values))
    )
    same_key = and_(table.c.fund_code == staged.fund_code, table.c.nav_date == staged.nav_date)
    changed = connection.execute(
        select(
            *(table.c[name] for name in KEY),
            table.c.batch_id.label("old_batch_id"),
            *(table.c[name].label(f"old_{name}") for name in values),
            *(staged[name].label(f"new_{name}") for name in values),
        )
        .join(tmp_fund_nav, same_key)
        .where(mine, or_(*(_differs(staged[name], table.c[name]) for name in values)))
    ).all()
    if changed:
        revise(connection, table, values, [row._asdict() for row in changed], batch_id, now, large)
    columns = [*KEY, *values]
    absent = and_(mine, table.c.fund_code.is_(None))
    by_day = select(staged.nav_date, func.count()).outerjoin(table, same_key).where(absent)
    nav_days.add_rows(connection, table, dict(connection.execute(by_day.group_by(staged.nav_date)).all()))
    span = func.min(staged.nav_date), func.max(staged.nav_date)
    by_fund = select(staged.fund_code, func.count(), *span).outerjoin(table, same_key).where(absent)
    added = [Added(*row) for row in connection.execute(by_fund.group_by(staged.fund_code))]
    note_changes(connection, table, added, {row.fund_code for row in changed})
    fresh = (
        select(*(staged[name] for name in columns), staged.batch_id)
        .outerjoin(table, same_key)
        .where(absent)
        .order_by(staged.fund_code, staged.nav_date)
    )
    inserted = connection.execute(insert(table).from_select([*columns, "batch_id"], fresh)).rowcount
    total = connection.execute(select(func.count()).select_from(tmp_fund_nav).where(mine)).scalar_one()
    return Merged(inserted, len(changed), total - inserted - len(changed))


def _differs(new: ColumnElement[Any], old: ColumnElement[Any]) -> ColumnElement[bool]:
    # A value of more decimals than the table keeps is no new one.
    return and_(new.is_not(None), cast(new, old.type).is_distinct_from(old))


def revise(
    connection: Connection,
    table: Table,
    values: tuple[str, ...],
    rows: list[dict[str, Any]],
    batch_id: int,
    now: datetime,
    large: float,
) -> None:
    """Put new values in the place of old ones: rows with fund_code, nav_date, old_batch_id and old_ and new_ values.

    `large`: from how many percent of the unit NAV on a correction is called large.
    """
    for row in rows:
        for name in values:  # a blank is no news
            if row[f"new_{name}"] is None:
                row[f"new_{name}"] = row[f"old_{name}"]
    if table is fund_nav:
        noted = [
            row | {"new_batch_id": batch_id, "known_at": now, "reason": _reason(row, values, large)}
            for row in rows
        ]
        connection.execute(insert(fund_nav_revision), noted)
    statement = (
        update(table)
        .where(table.c.fund_code == bindparam("key_code"), table.c.nav_date == bindparam("key_date"))
        .values(batch_id=batch_id, **{name: bindparam(f"new_{name}") for name in values})
    )
    keep = [f"new_{name}" for name in values]
    connection.execute(
        statement,
        [
            {"key_code": row["fund_code"], "key_date": row["nav_date"]} | {name: row[name] for name in keep}
            for row in rows
        ],
    )


def _reason(row: dict[str, Any], values: tuple[str, ...], large: float) -> str:
    """filled: blanks alone; precision: the same values with more decimals; else small or large, by the unit NAV."""
    pairs = [(row[f"old_{name}"], row[f"new_{name}"]) for name in values]
    changed = [(old, new) for old, new in pairs if old is not None and old != new]
    if not changed:
        return "filled"
    if all(round(new, _decimals(old)) == old for old, new in changed):  # 1.234 was 1.2341 all the time
        return "precision"
    old, new = pairs[0]
    return "large" if abs(new - old) * 100 >= large * old else "small"


def _decimals(value: float) -> int:
    """As many as were published: at least three of a NAV, whatever trailing zeros were lost."""
    return max(3, -int(Decimal(repr(value)).normalize().as_tuple().exponent))


def save_events(connection: Connection, batch_id: int, events: pd.DataFrame) -> int:
    """Book dividends and splits (fund_code, ex_date, kind, value, evidence); returns new or changed ones.

    What was published replaces what was implied, never the other way round; what was only announced
    replaces what was published, since the NAV shows that it has not happened yet.
    """
    known: dict[tuple[str, date, str], tuple[float, str]] = {}
    codes = sorted(set(events["fund_code"]))
    for start in range(0, len(codes), CHUNK):
        part = codes[start : start + CHUNK]
        for row in connection.execute(select(fund_event).where(fund_event.c.fund_code.in_(part))):
            known[row.fund_code, row.ex_date, row.kind] = (row.value, row.evidence)
    fresh: list[dict[str, Any]] = []
    revised: list[dict[str, Any]] = []
    for event in events.to_dict("records"):
        event["value"] = round(event["value"], EVENT_DECIMALS)
        key = (event["fund_code"], event["ex_date"].date(), event["kind"])
        old = known.get(key)
        record = {
            "fund_code": key[0],
            "ex_date": key[1],
            "kind": key[2],
            "value": event["value"],
            "evidence": event["evidence"],
            "batch_id": batch_id,
        }
        if old is None:
            fresh.append(record)
        elif old != (event["value"], event["evidence"]) and event["evidence"] in REPLACES[old[1]]:
            revised.append(record)
    if fresh:
        connection.execute(insert(fund_event), fresh)
    for record in revised:
        key_is = and_(*(fund_event.c[name] == record[name] for name in ("fund_code", "ex_date", "kind")))
        connection.execute(update(fund_event).where(key_is).values(**record))
    return len(fresh) + len(revised)


def drop_events(connection: Connection, days: pd.DataFrame) -> None:
    """Take back the events that were published for these funds and dates (fund_code, ex_date)."""
    if len(days):
        at = (fund_event.c.fund_code == bindparam("code"), fund_event.c.ex_date == bindparam("day"))
        said = or_(fund_event.c.evidence == "published", fund_event.c.evidence == "announced")
        connection.execute(
            delete(fund_event).where(*at, said),
            [
                {"code": code, "day": day.date()}
                for code, day in zip(days["fund_code"], days["ex_date"], strict=True)
            ],
        )
