"""Which series changed when: one row a fund, kept by every merge in its own transaction.

Each change of stored NAVs, yields or adjustment factors has a number, the version, and a token that no other
database gives it. Who has read the series as of one version finds here what to read again: all of a fund that was
rewritten since, the later rows of one that only grew, nothing of the others.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from core.db import bulk_insert, new_id
from core.nav_store import lock_merges, plain
from core.schema import fund_nav, fund_series, money_fund_yield, nav_version

FUNDS_A_STATEMENT = 500
COLUMNS = ("table_name", "fund_code", "row_count", "first_date", "last_date", "changed", "rewritten")


class Added(NamedTuple):
    """Rows that one fund's series got."""

    fund_code: str
    row_count: int
    first_date: date
    last_date: date


def note_changes(
    connection: Connection, table: Table, added: Sequence[Added], revised: Iterable[str] = ()
) -> None:
    """Remember the rows that this transaction adds, and the funds whose rows it changes."""
    changed_codes = set(revised)
    if not added and not changed_codes:
        return
    version = next_version(connection)
    known = _known(connection, table, [each.fund_code for each in added])
    records = []
    for each in added:
        old = known.get(each.fund_code)
        if old is None:
            counted, first, last, rewritten = each.row_count, each.first_date, each.last_date, version
        else:
            counted = old.row_count + each.row_count
            first, last = min(old.first_date, each.first_date), max(old.last_date, each.last_date)
            rewritten = old.rewritten if each.first_date > old.last_date else version
        days = first.isoformat(), last.isoformat()
        records.append((table.name, each.fund_code, counted, *days, version, rewritten))
    for start in range(0, len(records), FUNDS_A_STATEMENT):
        codes = [record[1] for record in records[start : start + FUNDS_A_STATEMENT]]
        mine = fund_series.c.table_name == table.name, fund_series.c.fund_code.in_(codes)
        connection.execute(delete(fund_series).where(*mine))
    bulk_insert(connection, fund_series, COLUMNS, records)
    _mark(connection, table, sorted(changed_codes), version)


def note_rewritten(connection: Connection, fund_codes: Sequence[str]) -> None:
    """Remember the funds whose adjustment factors this transaction replaces."""
    if fund_codes:
        _mark(connection, fund_nav, fund_codes, next_version(connection))


def next_version(connection: Connection) -> int:
    """A new version, newer than any that is committed. Waits for other merges."""
    lock_merges(connection)
    return new_id(connection.execute(insert(nav_version).values(token=secrets.token_hex(8))))


def newest_version(connection: Connection) -> tuple[int, str]:
    """The version of what is stored, and its token; 0 and nothing before the first merge."""
    row = connection.execute(select(nav_version).order_by(nav_version.c.id.desc()).limit(1)).first()
    return (0, "") if row is None else (row.id, row.token)


def is_known(connection: Connection, version: int, token: str) -> bool:
    """Whether this database has had that version."""
    query = select(nav_version.c.id).where(nav_version.c.id == version, nav_version.c.token == token)
    return connection.execute(query).first() is not None


def recount(connection: Connection) -> dict[str, int]:
    """Count all rows anew, in case they were changed by other hands; returns by table of how many funds.

    Reads every row. Rows whose number and dates are as they were are not looked at.
    """
    lock_merges(connection)
    differing = {}
    names = ("row_count", "first_date", "last_date")
    for table in (fund_nav, money_fund_yield):
        days = func.min(table.c.nav_date), func.max(table.c.nav_date)
        counted = select(table.c.fund_code, func.count(), *days).group_by(table.c.fund_code)
        found = {row[0]: Added(*row) for row in connection.execute(counted)}
        columns = (fund_series.c[name] for name in ("fund_code", *names))
        kept = select(*columns).where(fund_series.c.table_name == table.name)
        known = {row[0]: Added(*row) for row in connection.execute(kept)}
        wrong = sorted(code for code in found | known if found.get(code) != known.get(code))
        differing[table.name] = len(wrong)
        for start in range(0, len(wrong), FUNDS_A_STATEMENT):
            part = fund_series.c.fund_code.in_(wrong[start : start + FUNDS_A_STATEMENT])
            connection.execute(delete(fund_series).where(fund_series.c.table_name == table.name, part))
        note_changes(connection, table, [found[code] for code in wrong if code in found])
        if wrong:
            next_version(connection)  # a fund may be gone, and nothing else
    return differing


def _known(connection: Connection, table: Table, codes: Sequence[str]) -> dict[str, Any]:
    mine = fund_series.c.table_name == table.name
    query = select(fund_series).where(mine)
    if len(codes) > FUNDS_A_STATEMENT:
        return {row.fund_code: row for row in connection.execute(query)}
    return {row.fund_code: row for row in connection.execute(query.where(fund_series.c.fund_code.in_(codes)))}


def _mark(connection: Connection, table: Table, codes: Sequence[str], version: int) -> None:
    for start in range(0, len(codes), FUNDS_A_STATEMENT):
        mine = fund_series.c.fund_code.in_(codes[start : start + FUNDS_A_STATEMENT])
        connection.execute(
            update(fund_series)
            .where(fund_series.c.table_name == table.name, mine)
            .values(changed=version, rewritten=version)
        )


def changed_since(connection: Connection, table: Table, span: tuple[str, str], version: int) -> list[str]:
    """The funds, of those from the first code to the last one, whose series changed after that version."""
    series = fund_series.c
    mine = (series.table_name == table.name, series.fund_code.between(*span), series.changed > version)
    return list(connection.execute(select(series.fund_code).where(*mine)).scalars())


def read_series(connection: Connection, table: Table, codes: tuple[str, str] | None = None) -> list[Any]:
    """fund_code, row_count, first_date, last_date (ISO text), changed, rewritten of every fund, by code.

    `codes`: only of funds from the first to the last.
    """
    columns = [plain(fund_series.c[name]) for name in COLUMNS[1:]]
    query = select(*columns).where(fund_series.c.table_name == table.name)
    if codes is not None:
        query = query.where(fund_series.c.fund_code.between(*codes))
    return list(connection.execute(query.order_by(fund_series.c.fund_code)).all())
