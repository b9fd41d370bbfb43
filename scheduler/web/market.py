"""Funds and the market's metrics as the API gives them out, by fund code so that a page goes on where one ended."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Select, or_, select

from core import db
from core.schema import fund_event, fund_info, fund_series
from scheduler.export import measured
from scheduler.metrics_listing import measured_date, type_filter
from scheduler.nav_listing import fund_named

if TYPE_CHECKING:
    from scheduler.quality import Record

FIELDS = (
    *("fund_code", "fund_name", "fund_type", "category", "status"),
    *("inception_date", "purchase_status", "redemption_status", "last_listed"),
)
KINDS = {"fund_nav": "nav", "money_fund_yield": "yield"}


def find_funds(
    engine: Engine, text: str | None, wanted: str | None, after: str | None, limit: int
) -> list[Record]:
    """Funds by code: those whose code or pinyin begins with `text` or whose name holds it.

    Raises UsageError for a type that is not known.
    """
    info = fund_info.c
    query = select(*(info[name] for name in FIELDS)).order_by(info.fund_code).limit(limit)
    if text is not None:
        begins = (column.startswith(text, autoescape=True) for column in (info.fund_code, info.pinyin))
        query = query.where(or_(info.fund_name.contains(text, autoescape=True), *begins))
    if after is not None:
        query = query.where(info.fund_code > after)
    with db.read(engine) as connection:
        of_type = type_filter(connection, wanted)
        return _records(connection, query if of_type is None else query.where(of_type))


def is_known(engine: Engine, code: str) -> bool:
    """Whether a fund of this code is listed or has a series."""
    series = fund_series.c
    with db.read(engine) as connection:
        listed = select(fund_info.c.fund_code).where(fund_info.c.fund_code == code)
        stored = select(series.fund_code).where(series.table_name.in_(KINDS), series.fund_code == code)
        return any(connection.execute(query.limit(1)).first() for query in (listed, stored))


def show_fund(engine: Engine, code: str) -> Record:
    """What is known of a fund, and from when to when it has NAVs or yields. Raises UsageError."""
    series = fund_series.c
    with db.read(engine) as connection:
        named = fund_named(connection, code)
        listed = _records(
            connection, select(*(fund_info.c[name] for name in FIELDS)).where(fund_info.c.fund_code == code)
        )
        rows = connection.execute(
            select(fund_series).where(series.fund_code == code).order_by(series.table_name)
        )
        kept = [
            {
                "kind": KINDS[row.table_name],
                "rows": row.row_count,
                "first_date": row.first_date,
                "last_date": row.last_date,
            }
            for row in rows
        ]
    unlisted = dict.fromkeys(FIELDS) | {name: named[name] for name in FIELDS if name in named}
    return (listed[0] if listed else unlisted) | {"series": kept}


def fund_events(engine: Engine, code: str) -> list[Record]:
    """Dividends and splits of a fund, newest first. Raises UsageError."""
    names = ("ex_date", "kind", "value", "evidence", "listed_value")
    mine = select(*(fund_event.c[name] for name in names)).where(fund_event.c.fund_code == code)
    with db.read(engine) as connection:
        fund_named(connection, code)
        return _records(connection, mine.order_by(fund_event.c.ex_date.desc(), fund_event.c.kind))


def market_rows(
    engine: Engine, kind: str, calc_date: date | None, after: str | None, limit: int
) -> list[Record]:
    """The rows of `main.py export metrics` or `rank` of one date, by code, those after a code.

    Raises UsageError for a date without metrics, NotReady before the first.
    """
    table, joined, columns = measured(kind)
    with db.read(engine) as connection:
        day, version = measured_date(connection, calc_date)
        of_date = (table.c.calc_date == day, table.c.definition_version == version)
        query = select(*columns).select_from(joined).where(*of_date).order_by(table.c.fund_code)
        return _records(
            connection, (query if after is None else query.where(table.c.fund_code > after)).limit(limit)
        )


def _records(connection: Connection, query: Select[Any]) -> list[Record]:
    return [row._asdict() for row in connection.execute(query)]
