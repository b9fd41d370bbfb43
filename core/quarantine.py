"""What is held in quarantine: found, seen among its neighbours, rejected for good. Releasing is core/release.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, func, literal, or_, select, update

from core.errors import UsageError
from core.nav_store import lock_merges
from core.schema import fund_nav, money_fund_yield, nav_batch, quarantine, tmp_fund_nav

RELEASED, REJECTED = "RELEASED", "REJECTED"
CORRECTED = "corrected"  # another value was believed since
AUTOMATIC = ("followers", "event", "source", "time", "history", CORRECTED)  # who decided, if nobody did
LEVEL = frozenset({"return_limit", "cross_section", "share_class", "unannounced_dividend", "behind_held"})
NEIGHBOURS = 5
DAYS_TO_COMPARE = 15  # a date is still shown by the nights of the two weeks after it
BATCHES_TO_COMPARE = 40
NOTE, ACTOR = 500, 64  # characters the table holds


def holds_level(reasons: str) -> bool:
    """Whether a row is held for how high its NAV stands, so that what follows from it must wait as well."""
    return bool(LEVEL & set(reasons.split(",")))


class Neighbours(NamedTuple):
    """Believed rows of the fund around a held one, by date."""

    before: Sequence[Row[Any]]
    same_date: Row[Any] | None
    after: Sequence[Row[Any]]


def held_rows(
    connection: Connection,
    *,
    fund: str | None = None,
    day: date | None = None,
    reason: str | None = None,
    batches: Sequence[int] | None = None,
    decided: bool = False,
    before: int | None = None,
    limit: int | None = None,
) -> Sequence[Row[Any]]:
    """Rows in quarantine, newest first, `before` a number; those already decided only with `decided`."""
    query = select(quarantine).where(*_asked(fund, day, reason, batches, decided))
    if before is not None:
        query = query.where(quarantine.c.id < before)
    return connection.execute(query.order_by(quarantine.c.id.desc()).limit(limit)).all()


def count_held(
    connection: Connection,
    *,
    fund: str | None = None,
    day: date | None = None,
    reason: str | None = None,
    batches: Sequence[int] | None = None,
    decided: bool = False,
) -> int:
    """How many rows `held_rows` would give without its limit."""
    asked = _asked(fund, day, reason, batches, decided)
    return int(connection.execute(select(func.count()).select_from(quarantine).where(*asked)).scalar_one())


def _asked(
    fund: str | None, day: date | None, reason: str | None, batches: Sequence[int] | None, decided: bool
) -> list[ColumnElement[bool]]:
    held = quarantine.c
    asked: list[ColumnElement[bool]] = []
    if fund is not None:
        asked.append(held.fund_code == fund)
    if day is not None:
        asked.append(held.nav_date == day)
    if reason is not None:  # one of the ids between the commas, not a part of one
        asked.append((literal(",") + held.reasons + ",").contains(f",{reason},", autoescape=True))
    if batches is not None:
        asked.append(held.batch_id.in_(batches))
    if not decided:
        asked.append(held.resolution.is_(None))
    return asked


def require_held(connection: Connection, ids: Sequence[int]) -> list[Row[Any]]:
    """These rows, in this order, each still undecided. Raises UsageError naming every one that is not."""
    wanted = list(dict.fromkeys(ids))
    rows = {row.id: row for row in connection.execute(select(quarantine).where(quarantine.c.id.in_(wanted)))}
    unknown = [str(number) for number in wanted if number not in rows]
    decided = [
        f"{row.id} was {row.resolution} by {row.resolved_by}"
        for number in wanted
        if (row := rows.get(number)) is not None and row.resolution is not None
    ]
    wrong = [f"there is no row {', '.join(unknown)} in quarantine"] if unknown else []
    wrong += decided
    if wrong:
        raise UsageError(f"{'; '.join(wrong)}; nothing was done")
    return [rows[number] for number in wanted]


def reject(connection: Connection, ids: Sequence[int], actor: str, note: str | None, now: datetime) -> int:
    """Decide for good that these rows are wrong; returns how many. Raises UsageError, and then nothing is done.

    They stay on record: never merged, and no longer asked about.
    """
    lock_merges(connection)  # a merge that is at work may be releasing them
    rows = require_held(connection, ids)
    open_rows = and_(quarantine.c.id.in_([row.id for row in rows]), quarantine.c.resolution.is_(None))
    decided = {
        "resolution": REJECTED,
        "resolved_at": now,
        "resolved_by": actor[:ACTOR],
        "note": note and note[:NOTE],
    }
    done = connection.execute(update(quarantine).where(open_rows).values(decided)).rowcount
    if done != len(rows):  # somebody else decided meanwhile
        raise UsageError("some of these rows were decided this moment; nothing was done")
    return done


def find_row(connection: Connection, row_id: int) -> Row[Any]:
    """Raises UsageError where there is none."""
    row = connection.execute(select(quarantine).where(quarantine.c.id == row_id)).one_or_none()
    if row is None:
        raise UsageError(f"there is no row {row_id} in quarantine; main.py quarantine list --all shows them")
    return row


def neighbours(connection: Connection, row: Row[Any], count: int = NEIGHBOURS) -> Neighbours:
    """The believed rows of the held row's fund around its date: NAVs, or a money fund's incomes."""
    if row.nav_date is None or len(row.fund_code) > 6:
        return Neighbours((), None, ())
    money = row.unit_nav is None and (row.income_per_10k is not None or row.yield_7d is not None)
    table: Table = money_fund_yield if money else fund_nav
    mine, day = table.c.fund_code == row.fund_code, table.c.nav_date
    before = select(table).where(mine, day < row.nav_date).order_by(day.desc()).limit(count)
    after = select(table).where(mine, day > row.nav_date).order_by(day).limit(count)
    same = select(table).where(mine, day == row.nav_date)
    return Neighbours(
        connection.execute(before).all()[::-1],
        connection.execute(same).one_or_none(),
        connection.execute(after).all(),
    )


def same_date_elsewhere(connection: Connection, row: Row[Any]) -> Sequence[Row[Any]]:
    """What other batches that are still staged say of this fund and date, with their source, oldest first.

    Looked for in the batches of the nights from that date on (staging has no index on funds).
    """
    if row.nav_date is None:
        return ()
    batch, staged = nav_batch.c, tmp_fund_nav.c
    night = and_(
        batch.business_date >= row.nav_date,
        batch.business_date <= row.nav_date + timedelta(days=DAYS_TO_COMPARE),
    )
    near = select(batch.id).where(or_(night, batch.id == row.batch_id)).order_by(batch.id.desc())
    ids = list(connection.execute(near.limit(BATCHES_TO_COMPARE)).scalars())
    query = (
        select(tmp_fund_nav, batch.source, batch.kind, batch.status, batch.collected_at)
        .join(nav_batch, batch.id == staged.batch_id)
        .where(staged.batch_id.in_(ids), staged.fund_code == row.fund_code, staged.nav_date == row.nav_date)
        .order_by(staged.batch_id, staged.row_no)
    )
    return [found for found in connection.execute(query) if found.batch_id != row.batch_id]
