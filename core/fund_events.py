"""Dividends and splits as the lists name them, beside those that came with the NAVs.

A list says what is to happen, the NAV's own row what did. So the list never changes a booked value: it stands
beside it as `listed_value`, and where the two differ somebody is told. What only the list knows is booked as
`announced`, not believed before a NAV shows it. The rows so booked belong to a batch of their own (kind history,
MERGED, no staged rows), opened only where there are any: its provenance says which list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, select, update

from core.db import new_id
from core.nav_store import lock_merges
from core.schema import fund_event, nav_batch
from core.sources.base import EventNotice

CHUNK = 500
DECIMALS = 12  # as MySQL keeps them
# Lists name an amount with fewer digits than a text beside the NAV does; dividends are paid to 0.0001 yuan.
RELATIVE, ABSOLUTE = 1e-6, 5e-7
ANNOUNCED = "announced"
Key = tuple[str, date, str]


@dataclass(frozen=True)
class NoticeResult:
    """What a list of events came to: counts of events, and those whose booked value it contradicts."""

    new: int
    known: int
    differing: list[str] = field(
        default_factory=list
    )  # "000001 2025-12-01 dividend: booked 0.05, listed 0.5"
    unlisted: list[str] = field(default_factory=list)  # booked as published, but the list is silent


def save_notices(
    connection: Connection,
    notices: Iterable[EventNotice],
    now: datetime,
    *,
    source: str,
    provenance: str,
    run_id: int | None = None,
    since: date | None = None,
    until: date | None = None,
) -> NoticeResult:
    """Book what a list names; doing it again changes nothing.

    An unknown event is inserted with evidence announced; of a known one only `listed_value` is set, an
    announced one takes the list's new value too. Several values of one fund, day and kind are one event if
    one of them is booked already, else their sum (splits: product). With `since` and `until` events booked
    as published between them that the list lacks are named as `unlisted`.
    """
    lock_merges(connection)
    listed = _by_key(notices)
    booked = _booked(connection, sorted({key[0] for key in listed}))
    fresh, beside, differing = [], [], []
    for key, values in sorted(listed.items()):
        old = booked.get(key)
        value = _one_value(key[2], values, None if old is None else old["value"])
        record = dict(zip(("fund_code", "ex_date", "kind"), key, strict=True)) | {"listed_value": value}
        if old is None:
            fresh.append(record | {"value": value, "evidence": ANNOUNCED})
            continue
        revised = value if old["evidence"] == ANNOUNCED else old["value"]
        if old["listed_value"] != value or old["value"] != revised:
            beside.append(record | {"value": revised})
        if not agree(revised, value):
            differing.append(f"{key[0]} {key[1]} {key[2]}: booked {revised:g}, listed {value:g}")
    if fresh:
        batch_id = _open_batch(connection, source, provenance, now, run_id)
        connection.execute(insert(fund_event), [record | {"batch_id": batch_id} for record in fresh])
    if beside:
        _set_listed(connection, beside)
    unlisted = _unlisted(connection, listed, since, until) if since and until else []
    return NoticeResult(len(fresh), len(listed) - len(fresh), differing, unlisted)


def agree(booked: float, listed: float) -> bool:
    """Whether two figures of one event are the same but for the digits they are published with."""
    return abs(booked - listed) <= max(RELATIVE * abs(booked), ABSOLUTE)


def _by_key(notices: Iterable[EventNotice]) -> dict[Key, list[float]]:
    """The different values that a list names for each fund, day and kind."""
    found: dict[Key, list[float]] = {}
    for notice in notices:
        values = found.setdefault((notice.fund_code, notice.ex_date, notice.kind), [])
        value = round(notice.value, DECIMALS)
        if value > 0 and value not in values:
            values.append(value)
    return {key: values for key, values in found.items() if values}


def _one_value(kind: str, values: Sequence[float], booked: float | None) -> float:
    same = next((value for value in values if booked is not None and agree(booked, value)), None)
    if same is not None:
        return same
    total = 1.0 if kind == "split" else 0.0
    for value in values:
        total = total * value if kind == "split" else total + value
    return round(total, DECIMALS)


def _booked(connection: Connection, codes: Sequence[str]) -> dict[Key, dict[str, Any]]:
    found: dict[Key, dict[str, Any]] = {}
    for start in range(0, len(codes), CHUNK):
        part = fund_event.c.fund_code.in_(codes[start : start + CHUNK])
        for row in connection.execute(select(fund_event).where(part)):
            found[row.fund_code, row.ex_date, row.kind] = row._asdict()
    return found


def _open_batch(
    connection: Connection, source: str, provenance: str, now: datetime, run_id: int | None
) -> int:
    batch = insert(nav_batch).values(
        kind="history",
        business_date=None,
        source=source,
        provenance=f"list of dividends and splits: {provenance}"[:500],
        collected_at=now,
        row_count=0,
        status="MERGED",
        merged_count=0,
        decided_at=now,
        run_id=run_id,
    )
    return new_id(connection.execute(batch))


def _set_listed(connection: Connection, records: Sequence[dict[str, Any]]) -> None:
    at = and_(
        fund_event.c.fund_code == bindparam("code"),
        fund_event.c.ex_date == bindparam("day"),
        fund_event.c.kind == bindparam("what"),
    )
    statement = (
        update(fund_event).where(at).values(listed_value=bindparam("listed"), value=bindparam("booked"))
    )
    connection.execute(
        statement,
        [
            {
                "code": record["fund_code"],
                "day": record["ex_date"],
                "what": record["kind"],
                "listed": record["listed_value"],
                "booked": record["value"],
            }
            for record in records
        ],
    )


def _unlisted(connection: Connection, listed: dict[Key, list[float]], since: date, until: date) -> list[str]:
    event = fund_event.c
    published = select(event.fund_code, event.ex_date, event.kind).where(
        event.evidence == "published", event.ex_date >= since, event.ex_date <= until
    )
    rows = connection.execute(published.order_by(event.ex_date, event.fund_code, event.kind))
    return [f"{code} {day} {kind}" for code, day, kind in rows if (code, day, kind) not in listed]
