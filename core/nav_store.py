"""SQL on the NAV tables: funds, batches, staging. What is judged is read by nav_frames.py."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Double,
    Numeric,
    Select,
    String,
    Table,
    and_,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    union,
    update,
)

from core.db import bulk_insert, new_id
from core.fund_category import fund_category
from core.fund_status import fund_status
from core.schema import (
    fund_event,
    fund_info,
    fund_nav,
    merge_lock,
    money_fund_yield,
    nav_batch,
    tmp_fund_nav,
)
from core.sources.base import FundInfo, NavRow
from core.trading_calendar import SHANGHAI

log = logging.getLogger(__name__)
STAGED_COLUMNS = ("batch_id", "row_no", *NavRow._fields)
NUMBERS = (
    "unit_nav",
    "accum_nav",
    "daily_return",
    "dividend",
    "split_ratio",
    "income_per_10k",
    "yield_7d",
)
_numbers = attrgetter(*NUMBERS)
TEXT_LIMITS = {"fund_code": 32, "origin": 300, "defect": 200, "raw": 4000}
FUND_LIMITS = {"fund_name": 200, "fund_type": 50, "pinyin": 100, "purchase": 20, "redemption": 20}
FUND_COLUMNS = (  # of fund_info, in the order of FundInfo
    "fund_code",
    "fund_name",
    "fund_type",
    "pinyin",
    "inception_date",
    "purchase_status",
    "redemption_status",
)
DESCRIBED = (*FUND_COLUMNS, "category", "status")
LISTING_GRACE = timedelta(days=7)  # a list that was thin for a few nights takes no fund's life
PUBLISHED = ("fund_code", "nav_date", *NUMBERS, "raw")  # of a row; where in a file it stands is not published


def save_funds(
    connection: Connection, funds: Iterable[FundInfo], now: datetime, listed_on: date | None = None
) -> int:
    """Add or update fund descriptions; returns how many were new or changed, their status included.

    `listed_on` is the business date on which a list named them. Texts are cut to what the table holds. Of
    a fund named twice the last description counts. A blank never takes the place of what is known. Funds
    that are not named keep their row; only their status is judged anew.
    """
    lock_merges(connection)
    known = {row.fund_code: row._asdict() for row in connection.execute(select(fund_info))}
    named = _named_once(funds)
    day = listed_on or now.astimezone(SHANGHAI).date()
    records = {code: _described(fund, known.get(code), day, listed_on) for code, fund in named.items()}
    missed = {
        code: row
        for code, row in known.items()
        if code not in named and row["last_listed"] is not None and row["last_listed"] < day - LISTING_GRACE
    }
    newest = _newest_days(connection, list(missed))
    for code, row in known.items():
        if code not in named:
            records[code] = row | {"status": _status(row, day, code not in missed, newest.get(code))}
    changed = [
        record | {"updated_at": now}
        for code, record in records.items()
        if code not in known or any(record[name] != known[code][name] for name in DESCRIBED)
    ]
    old = [row["fund_code"] for row in changed if row["fund_code"] in known]
    for start in range(0, len(old), 500):
        connection.execute(delete(fund_info).where(fund_info.c.fund_code.in_(old[start : start + 500])))
    if changed:
        connection.execute(insert(fund_info), changed)
    if listed_on is not None:
        _note_listed(connection, list(named), listed_on)
    return len(changed)


def _named_once(funds: Iterable[FundInfo]) -> dict[str, FundInfo]:
    """By code, with texts that fit; a fund named twice is logged and has its last description."""
    named: dict[str, FundInfo] = {}
    for fund in funds:
        texts: dict[str, Any] = {
            name: cut(text, size)
            for name, size in FUND_LIMITS.items()
            if (text := getattr(fund, name)) is not None
        }
        fitting = fund._replace(**texts)
        if named.setdefault(fund.fund_code, fitting) != fitting:
            log.warning(
                "the fund list names %s twice: %s, %s", fund.fund_code, named[fund.fund_code], fitting
            )
            named[fund.fund_code] = fitting
    return named


def _described(
    fund: FundInfo, known: dict[str, Any] | None, day: date, listed_on: date | None
) -> dict[str, Any]:
    """The row of a fund that a list named, over what is `known` of it."""
    old = known or {}
    found = {name: value for name, value in zip(FUND_COLUMNS, fund, strict=True) if value not in (None, "")}
    blank: dict[str, Any] = dict.fromkeys(FUND_COLUMNS) | dict.fromkeys(
        ("fund_name", "fund_type", "pinyin"), ""
    )
    row = blank | old | found
    listed = [when for when in (old.get("last_listed"), listed_on) if when is not None]
    return row | {
        "category": fund_category(row["fund_type"]),
        "status": _status(row, day, True, None),
        "last_listed": max(listed, default=None),
    }


def _status(row: dict[str, Any], day: date, listed: bool, newest_nav: date | None) -> str:
    return fund_status(
        row["purchase_status"],
        row["redemption_status"],
        row["inception_date"],
        listed=listed,
        business_date=day,
        newest_nav=newest_nav,
    )


def _newest_days(connection: Connection, codes: Sequence[str]) -> dict[str, date]:
    """The newest date with a NAV or a yield of each of these funds that has any."""
    newest: dict[str, date] = {}
    for table in (fund_nav, money_fund_yield):
        for start in range(0, len(codes), 500):
            part = table.c.fund_code.in_(codes[start : start + 500])
            found = select(table.c.fund_code, func.max(table.c.nav_date)).where(part)
            for code, day in connection.execute(found.group_by(table.c.fund_code)):
                newest[code] = max(day, newest.get(code, day))
    return newest


def _note_listed(connection: Connection, codes: Sequence[str], day: date) -> None:
    earlier = or_(fund_info.c.last_listed.is_(None), fund_info.c.last_listed < day)
    for start in range(0, len(codes), 500):
        part = fund_info.c.fund_code.in_(codes[start : start + 500])
        connection.execute(update(fund_info).where(part, earlier).values(last_listed=day))


def cut(text: str, length: int) -> str:
    """At most `length` characters of it, and none that UTF-8 cannot write (half a surrogate pair)."""
    return text[:length].encode("utf-8", "replace").decode("utf-8")


def lock_merges(connection: Connection) -> None:
    """Wait until no other transaction merges; held until this one ends.

    On SQLite BEGIN IMMEDIATE has done that already.
    """
    connection.execute(select(merge_lock.c.id).where(merge_lock.c.id == 1).with_for_update()).scalar_one()


def fund_types(connection: Connection) -> dict[str, str]:
    """The publisher's type of every fund, by code."""
    return dict(connection.execute(select(fund_info.c.fund_code, fund_info.c.fund_type)).all())


def known_funds(connection: Connection) -> dict[str, str]:
    """Category by fund code."""
    return dict(connection.execute(select(fund_info.c.fund_code, fund_info.c.category)).all())


def open_batch(
    connection: Connection,
    *,
    kind: str,
    business_date: date | None,
    source: str,
    provenance: str,
    now: datetime,
    rows: Sequence[NavRow],
    run_id: int | None,
) -> int:
    """Stage `rows` as one batch; returns its id. `kind`: latest, sweep (what is new since then) or history.

    A batch of a night takes the place of the latest ones of that night that nobody has judged yet.
    """
    if business_date is not None and kind != "second":
        connection.execute(
            update(nav_batch)
            .where(
                nav_batch.c.kind == "latest",
                nav_batch.c.business_date == business_date,
                nav_batch.c.status == "STAGED",
            )
            .values(status="SUPERSEDED", decided_at=now)
        )
    found = connection.execute(
        insert(nav_batch).values(
            kind=kind,
            business_date=business_date,
            source=source,
            provenance=provenance[:500],
            collected_at=now,
            row_count=len(rows),
            status="STAGED",
            run_id=run_id,
        )
    )
    batch_id = new_id(found)
    bulk_insert(
        connection,
        tmp_fund_nav,
        STAGED_COLUMNS,
        (_staged(batch_id, no, row) for no, row in enumerate(rows, 1)),
    )
    return batch_id


def fitting(row: NavRow) -> NavRow:
    """The row with its texts cut to what the tables hold."""
    if row.origin is not None or row.defect is not None or len(row.fund_code) > TEXT_LIMITS["fund_code"]:
        fitting: dict[str, Any] = {
            name: cut(text, limit)
            for name, limit in TEXT_LIMITS.items()
            if (text := getattr(row, name)) is not None
        }
        return row._replace(**fitting)
    return row


def _staged(batch_id: int, row_no: int, row: NavRow) -> tuple[Any, ...]:
    row = fitting(row)
    day = row[1].isoformat() if row[1] is not None else None
    return (batch_id, row_no, row[0], day, *row[2:])


def plain(column: Column[Any]) -> ColumnElement[Any]:
    """The column as a float or ISO text: the drivers build those many times faster than Decimal or date."""
    if isinstance(column.type, Numeric):
        return cast(column, Double).label(column.name)
    if column.name.endswith("date"):
        return cast(column, String(10)).label(column.name)
    return column


def unseen_rows(connection: Connection, business_date: date, rows: Sequence[NavRow]) -> list[NavRow]:
    """Those of `rows` whose fund and date the merged batches of this night do not hold just so.

    What counts is the newest batch that gave that fund and date, merged or quarantined alike: a value that
    goes and comes back is news both times. Of a fund and date given twice all rows are news, or none.
    """
    columns = [plain(tmp_fund_nav.c[name]) for name in PUBLISHED]
    night = and_(
        nav_batch.c.kind.in_(("latest", "sweep")),
        nav_batch.c.business_date == business_date,
        nav_batch.c.status == "MERGED",
    )
    staged = connection.execute(
        select(nav_batch.c.id, *columns)
        .join(tmp_fund_nav, tmp_fund_nav.c.batch_id == nav_batch.c.id)
        .where(night)
        .order_by(nav_batch.c.id)
    )
    known: dict[tuple[str, str | None], tuple[int, set[Any]]] = {}
    for batch_id, *values in staged:
        key = values[0], values[1]
        if key not in known or known[key][0] != batch_id:
            known[key] = batch_id, set()
        known[key][1].add(tuple(values))
    given: dict[tuple[str, str | None], set[Any]] = {}
    published = [_published(row) for row in rows]
    for each in published:
        given.setdefault(each[:2], set()).add(each)
    news = {key for key, found in given.items() if key not in known or known[key][1] != found}
    return [row for row, each in zip(rows, published, strict=True) if each[:2] in news]


def _published(row: NavRow) -> tuple[Any, ...]:
    """The values of PUBLISHED as the staging table gives them back."""
    fits = fitting(row)
    day = row.nav_date.isoformat() if row.nav_date is not None else None
    return (fits.fund_code, day, *_numbers(fits), fits.raw)


def changed_funds(connection: Connection, batch_id: int) -> list[str]:
    """Funds that this batch gave a NAV or an event that was not there before, sorted."""
    staged = tmp_fund_nav.c

    def found(table: Table, day: Column[Any]) -> Select[Any]:
        same_row = and_(table.c.fund_code == staged.fund_code, day == staged.nav_date)
        return (
            select(table.c.fund_code)
            .join(tmp_fund_nav, same_row)
            .where(staged.batch_id == batch_id, table.c.batch_id == batch_id)
        )

    both = union(found(fund_nav, fund_nav.c.nav_date), found(fund_event, fund_event.c.ex_date))
    return sorted(connection.execute(both).scalars())


def find_batch(connection: Connection, batch_id: int) -> Any:
    """The nav_batch row, or None."""
    return connection.execute(select(nav_batch).where(nav_batch.c.id == batch_id)).one_or_none()


def newest_batch(connection: Connection, business_date: date, status: str) -> int | None:
    """The newest latest-batch of a night that is in this state."""
    return connection.execute(
        select(func.max(nav_batch.c.id)).where(
            nav_batch.c.kind == "latest",
            nav_batch.c.business_date == business_date,
            nav_batch.c.status == status,
        )
    ).scalar()


def decide_batch(
    connection: Connection, batch_id: int, status: str, now: datetime, merged_count: int | None = None
) -> None:
    connection.execute(
        update(nav_batch)
        .where(nav_batch.c.id == batch_id)
        .values(status=status, decided_at=now, merged_count=merged_count)
    )
