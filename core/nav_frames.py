"""SQL that reads what is judged and measured, as pandas frames. Who only collects needs none of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
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

from core.nav_store import NUMBERS, fitting, plain
from core.schema import fund_event, fund_nav, tmp_fund_nav
from core.sources.base import NavRow

ANCHOR_COLUMNS = ("fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return", "dividend", "split_ratio")


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
    return frame_of(("row_no", *NavRow._fields), [(no, *fitting(row)) for no, row in enumerate(rows, 1)])


def frame_of(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """A frame with float64 numbers (NaN for null) and datetime64 dates (NaT for null)."""
    parts: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    data: dict[str, Any] = {}
    for name, values in zip(columns, parts, strict=True):
        if name in NUMBERS:
            data[name] = np.array(values, dtype=np.float64)
        elif name.endswith("date"):
            data[name] = np.array(values, dtype="datetime64[D]").astype("datetime64[s]")
        elif name.endswith(("_no", "_id")):
            data[name] = np.array(values, dtype=np.int64)
        else:
            data[name] = np.array(values, dtype=object)
    return pd.DataFrame(data)


def read_anchors(connection: Connection, batch_id: int) -> pd.DataFrame:
    """The two newest believed rows of each fund from before its first row in the batch, ANCHOR_COLUMNS."""
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

    rows = connection.execute(union_all(earlier(0), earlier(1))).all()
    return frame_of(ANCHOR_COLUMNS, rows)


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
