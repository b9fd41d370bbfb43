"""SQL that reads what is judged and measured, as pandas frames. Who only collects needs none of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Select,
    and_,
    cast,
    func,
    select,
    union_all,
)

from core.nav_store import NUMBERS, TEXT_LIMITS, fitting, plain
from core.schema import fund_event, fund_nav, money_fund_yield, quarantine, tmp_fund_nav
from core.sources.base import NavRow

EPOCH = date(1970, 1, 1).toordinal()
CODES_A_QUERY = 500
TWO_WEEKS = timedelta(days=14)
ANCHORS = 3  # rows before a batch: the rules look back so far
MONEY_ANCHOR_COLUMNS = ("fund_code", "nav_date", "income_per_10k", "yield_7d")
ANCHOR_COLUMNS = ("fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return", "dividend", "split_ratio")


def as_staged(believed: pd.DataFrame) -> pd.DataFrame:
    """Believed rows as `read_batch` would give them."""
    texts = {name: pd.Series([None] * len(believed), dtype=object) for name in ("origin", "defect", "raw")}
    numbers = {name: np.nan for name in NUMBERS if name not in believed}
    rows = believed.reset_index(drop=True)
    return rows.assign(row_no=np.arange(1, len(rows) + 1), **numbers, **texts)


def read_batch(connection: Connection, batch_id: int) -> pd.DataFrame:
    """The staged rows of a batch as a frame (columns of NavRow and row_no)."""
    wanted = ("row_no", *NavRow._fields)
    columns = [plain(tmp_fund_nav.c[name]) for name in wanted]
    rows = connection.execute(
        select(*columns).where(tmp_fund_nav.c.batch_id == batch_id).order_by(tmp_fund_nav.c.row_no)
    ).all()
    return frame_of(wanted, rows)


def frame_of_rows(rows: Sequence[NavRow]) -> pd.DataFrame:
    """What `read_batch` would give for freshly staged rows."""
    parts: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(NavRow._fields)
    plain_texts = all(
        parts[at].count(None) == len(rows) for at in map(NavRow._fields.index, TEXT_LIMITS) if at
    )
    if not plain_texts or max(map(len, parts[0]), default=0) > TEXT_LIMITS["fund_code"]:
        parts = list(zip(*map(fitting, rows), strict=True))
    data: dict[str, Any] = {"row_no": np.arange(1, len(rows) + 1)}
    return pd.DataFrame(data | {name: _column(name, parts[at]) for at, name in enumerate(NavRow._fields)})


def _column(name: str, values: Sequence[Any]) -> NDArray[Any] | pd.Series[Any]:
    """Float64 for numbers (NaN for None), datetime64 for dates (NaT), integers for numbers and ids, else objects."""
    if name in NUMBERS:
        unknown = values.count(None) == len(values)  # most columns of most histories: said in no time
        return np.full(len(values), np.nan) if unknown else np.array(values, dtype=np.float64)
    if name.endswith("date"):
        if values and None not in values and isinstance(values[0], date):  # ten times as fast as numpy's own
            ordinals = np.fromiter(map(date.toordinal, values), np.int64, len(values))
            return (ordinals - EPOCH).astype("datetime64[D]").astype("datetime64[s]")
        return np.array(values, dtype="datetime64[D]").astype("datetime64[s]")
    if name.endswith(("_no", "_id")):
        return np.array(values, dtype=np.int64)
    return pd.Series(values, dtype=object)  # as texts of its own kind pandas would copy them at every turn


def frame_of(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """A frame with float64 numbers (NaN for null) and datetime64 dates (NaT for null)."""
    parts: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return pd.DataFrame({name: _column(name, values) for name, values in zip(columns, parts, strict=True)})


def read_anchors(connection: Connection, batch_id: int) -> pd.DataFrame:
    """The ANCHORS newest believed rows of each fund from before its first row in the batch, ANCHOR_COLUMNS.

    Of money funds two weeks, with income_per_10k and yield_7d.
    """
    first = (
        select(tmp_fund_nav.c.fund_code, func.min(tmp_fund_nav.c.nav_date).label("first_date"))
        .where(tmp_fund_nav.c.batch_id == batch_id, tmp_fund_nav.c.unit_nav.is_not(None))
        .group_by(tmp_fund_nav.c.fund_code)
        .subquery()
    )

    def earlier(rows_back: int) -> Select[Any]:
        nav = fund_nav.alias()
        newest = (
            select(nav.c.nav_date)
            .where(nav.c.fund_code == first.c.fund_code, nav.c.nav_date < first.c.first_date)
            .order_by(nav.c.nav_date.desc())
            .limit(1)
            .offset(rows_back)
            .scalar_subquery()
        )
        at = select(first.c.fund_code, newest.label("nav_date")).subquery()
        joined = and_(fund_nav.c.fund_code == at.c.fund_code, fund_nav.c.nav_date == at.c.nav_date)
        chosen = (plain(fund_nav.c[name]) for name in ANCHOR_COLUMNS[:5])
        given = (_stored("dividend", "dividend", fund_nav.c), _stored("split", "split_ratio", fund_nav.c))
        return select(*chosen, *given).join(at, joined)

    rows = connection.execute(union_all(*(earlier(rows) for rows in range(ANCHORS)))).all()
    return both_kinds(rows, read_money_anchors(connection, batch_id))


def _stored(kind: str, label: str, at: Any) -> ColumnElement[Any]:
    """The event somebody published for the fund and date of a row, as a column beside it."""
    event = fund_event.alias().c
    value = select(cast(event.value, Double)).where(
        event.fund_code == at.fund_code,
        event.ex_date == at.nav_date,
        event.kind == kind,
        event.evidence != "implied",
    )
    return value.scalar_subquery().label(label)


def read_around(connection: Connection, codes: Sequence[str], since: date, before: int = 0) -> pd.DataFrame:
    """Believed rows of these funds from `since` on, and the newest `before` of each from earlier.

    ANCHOR_COLUMNS, and money funds' income_per_10k and yield_7d.
    """
    navs: list[Any] = []
    yields: list[Any] = []
    given = (_stored("dividend", "dividend", fund_nav.c), _stored("split", "split_ratio", fund_nav.c))
    columns = (*(plain(fund_nav.c[name]) for name in ANCHOR_COLUMNS[:5]), *given)
    of_money = tuple(plain(money_fund_yield.c[name]) for name in MONEY_ANCHOR_COLUMNS)
    for code in codes if before else ():
        earlier = select(*columns).where(fund_nav.c.fund_code == code, fund_nav.c.nav_date < since)
        navs += connection.execute(earlier.order_by(fund_nav.c.nav_date.desc()).limit(before)).all()
    for start in range(0, len(codes), CODES_A_QUERY):
        part = codes[start : start + CODES_A_QUERY]
        mine = (fund_nav.c.fund_code.in_(part), fund_nav.c.nav_date >= since)
        navs += connection.execute(select(*columns).where(*mine)).all()
        mine = (money_fund_yield.c.fund_code.in_(part), money_fund_yield.c.nav_date >= since)
        yields += connection.execute(select(*of_money).where(*mine)).all()
    return both_kinds(navs, yields)


def read_money_anchors(connection: Connection, batch_id: int) -> Sequence[Any]:
    """Two weeks of incomes and yields of the money funds in a batch, before its first date."""
    staged = tmp_fund_nav.c
    first = (
        select(staged.fund_code, func.min(staged.nav_date).label("first_date"))
        .where(staged.batch_id == batch_id, staged.income_per_10k.is_not(None))
        .group_by(staged.fund_code)
        .subquery()
    )
    earliest = connection.execute(select(func.min(first.c.first_date))).scalar()
    if earliest is None:
        return []
    kept = money_fund_yield.c
    return connection.execute(
        select(*(plain(kept[name]) for name in MONEY_ANCHOR_COLUMNS))
        .join(first, first.c.fund_code == kept.fund_code)
        .where(kept.nav_date >= earliest - TWO_WEEKS, kept.nav_date < first.c.first_date)
    ).all()


def both_kinds(navs: Sequence[Any], yields: Sequence[Any]) -> pd.DataFrame:
    """NAV rows and money rows in one frame of anchors; what one kind has not is NaN."""
    anchors = frame_of(ANCHOR_COLUMNS, navs)
    if not yields:
        return anchors
    blank = (None,) * (len(ANCHOR_COLUMNS) - 2)
    wide = [(*row[:2], *blank, *row[2:]) for row in yields]
    money = frame_of((*ANCHOR_COLUMNS, *MONEY_ANCHOR_COLUMNS[2:]), wide)
    return pd.concat([anchors, money], ignore_index=True) if len(anchors) else money


def read_held_events(connection: Connection, ids: Sequence[int]) -> pd.DataFrame:
    """row_no, dividend and split_ratio of the rows in quarantine for whose fund and date an event was published.

    `row_no` is the row's number in quarantine.
    """
    held = quarantine.c
    rows: list[Any] = []
    same = and_(fund_event.c.fund_code == held.fund_code, fund_event.c.ex_date == held.nav_date)
    for start in range(0, len(ids), CODES_A_QUERY):
        columns = (held.id, _stored("dividend", "dividend", held), _stored("split", "split_ratio", held))
        mine = (held.id.in_(ids[start : start + CODES_A_QUERY]), fund_event.c.evidence != "implied")
        rows += connection.execute(select(*columns).join(fund_event, same).where(*mine).distinct()).all()
    return frame_of(("row_no", "dividend", "split_ratio"), rows)


def read_events(connection: Connection, batch_id: int) -> pd.DataFrame:
    """row_no, dividend and split_ratio of the staged rows for whose fund and date an event was published."""
    staged = tmp_fund_nav.c
    known = (
        select(
            staged.row_no,
            _stored("dividend", "dividend", staged),
            _stored("split", "split_ratio", staged),
        )
        .join(
            fund_event,
            and_(fund_event.c.fund_code == staged.fund_code, fund_event.c.ex_date == staged.nav_date),
        )
        .where(staged.batch_id == batch_id, fund_event.c.evidence != "implied")
        .distinct()
    )
    return frame_of(("row_no", "dividend", "split_ratio"), connection.execute(known).all())


def nav_rows(connection: Connection, fund_codes: Sequence[str], until: date) -> pd.DataFrame:
    """fund_code, nav_date, unit_nav of these funds (sorted codes) up to `until`, sorted."""
    wanted = ("fund_code", "nav_date", "unit_nav")
    rows = connection.execute(
        select(*(plain(fund_nav.c[name]) for name in wanted))
        .where(fund_nav.c.fund_code.in_(fund_codes), fund_nav.c.nav_date <= until)
        .order_by(fund_nav.c.fund_code, fund_nav.c.nav_date)
    ).all()
    return frame_of(wanted, rows)
