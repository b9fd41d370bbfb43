"""The mirror: adjusted NAVs of every fund as arrays in a file, derived from the database and disposable.

It says as of which version of the stored series (core.fund_series) it is. Whoever reads it gets what the database
holds: funds that were rewritten since are read again, later rows of the others added, and the number of rows
and the newest date of each fund must be what the database counts. What is missing, damaged, of another form, or
of another database is not used but read. A file that cannot be written is done without.

Series come in blocks of some 1 M rows, so that memory does not grow with the market.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Table, select

from core import db
from core.fund_series import changed_since, is_known, newest_version, read_series
from core.mirror_file import Block, MirrorFile, Writer, opened
from core.nav_store import plain
from core.ragged import Series, multiplied, of_funds, ordered, with_rows
from core.schema import fund_adjustment, fund_nav, money_fund_yield
from core.series_reader import FEW_ROWS, UNIX_EPOCH, SpanReader, has_fast_driver, read_funds, read_later

log = logging.getLogger(__name__)
FILE = "series.bin"
TABLES = (fund_nav, money_fund_yield)
ROWS_A_BLOCK = 1_000_000
READ_AHEAD = 2  # blocks; with a processor for each


class Span(NamedTuple):
    """Neighbouring funds that are read together: fund_series' rows of them, and the block that held them."""

    table: Table
    last: int  # as in Block
    state: list[Any]
    block: Block | None


@dataclass(frozen=True)
class Factors:
    """Adjustment factors of all funds: of each, by ex-date."""

    codes: NDArray[np.int32]
    days: NDArray[np.int32]
    cumulative: NDArray[np.float64]


def stored_series(
    engine: Engine, folder: Path | None = None, codes: tuple[str, str] | None = None
) -> Iterator[tuple[Table, Series]]:
    """All series of one version of the database, by table and code: adjusted NAVs, then money funds' incomes.

    From the file in `folder` as far as it is right, and keeps that in step; without a folder from the database
    alone, then also only of funds from the first to the last of two codes. Raises DatabaseUnavailable.
    """
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(opened(folder / FILE)) if folder is not None else None
        connection = stack.enter_context(db.snapshot(engine))
        version, token = newest_version(connection)
        if kept is not None and not is_known(connection, kept.version, kept.token):
            log.info("the mirror is of another database: everything is read")
            kept = None
        fresh = None
        if folder is not None and (kept is None or (kept.version, kept.token) != (version, token)):
            fresh = stack.enter_context(contextlib.closing(Writer(folder / FILE, version, token)))
        spans = [
            span for table in TABLES for span in _spans(table, read_series(connection, table, codes), kept)
        ]
        factors = _read_factors(connection)
        for span, found, many in _read_ahead(engine, spans, kept):
            if many and found is not None:
                with db.read(engine) as now:
                    newer = changed_since(now, span.table, _ends(span), version)
                series = _verified(connection, span, factors, _adjusted(factors, span.table, found), newer)
            else:
                series = _caught_up(connection, span, found, kept.version if kept else 0, factors)
            if fresh is not None:
                fresh.add(span.table.name, span.last, series)
            if len(series.codes):
                yield span.table, series
        if fresh is not None:
            fresh.finish()


def read_series_of(engine: Engine, fund_codes: Sequence[str]) -> tuple[Series, Series]:
    """Adjusted NAVs and incomes of these funds, from the database. Raises DatabaseUnavailable."""
    codes = sorted(fund_codes)
    with db.snapshot(engine) as connection:
        factors = _read_factors(connection)
        navs, incomes = (_read(connection, table, factors, codes) for table in TABLES)
    return navs, incomes


def _spans(table: Table, state: list[Any], kept: MirrorFile | None) -> Iterator[Span]:
    """The funds of a table as the file has them together; where it has none, about ROWS_A_BLOCK rows together."""
    blocks = [block for block in kept.blocks if block.table == table.name] if kept is not None else []
    if not blocks or max(block.lengths["days"] for block in blocks) > 2 * ROWS_A_BLOCK:
        yield from cut(table, state)
        return
    codes = [int(row.fund_code) for row in state]
    ends = [*np.searchsorted(codes, [block.last for block in blocks[:-1]], side="right").tolist(), len(codes)]
    start = 0
    for block, end in zip(blocks, ends, strict=True):
        last = max(block.last, codes[-1]) if end == len(codes) and codes else block.last
        yield Span(table, last, state[start:end], block)
        start = end


def cut(table: Table, state: list[Any]) -> Iterator[Span]:
    """Spans of about ROWS_A_BLOCK rows."""
    start = rows = 0
    for at, row in enumerate(state):
        rows += row.row_count
        if rows >= ROWS_A_BLOCK or at == len(state) - 1:
            yield Span(table, int(row.fund_code), state[start : at + 1], None)
            start, rows = at + 1, 0


def _read_ahead(
    engine: Engine, spans: Sequence[Span], kept: MirrorFile | None
) -> Iterator[tuple[Span, Series | None, bool]]:
    """The spans, with what the file has of them, None if nothing.

    Or, and then True, with their rows, where so many must be read that the fast driver is worth it. Those are of the
    moment, not of the version: what was merged since must be read again.
    """
    fast = has_fast_driver(engine)

    def fetch(span: Span, many: bool) -> Series | None:
        if many:
            return ordered(reader.read(span.table, _ends(span)))
        return kept.read(span.block) if kept is not None and span.block is not None else None

    with (
        contextlib.closing(SpanReader(engine)) as reader,
        ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="read") as pool,
    ):
        coming: deque[tuple[Span, Future[Series | None], bool]] = deque()
        try:
            for span in spans:
                many = fast and _rows_to_read(span, kept) >= FEW_ROWS
                coming.append((span, pool.submit(fetch, span, many), many))
                if len(coming) > READ_AHEAD:
                    yield _arrived(coming)
            while coming:
                yield _arrived(coming)
        finally:
            for _span, future, _many in coming:
                future.cancel()


def _arrived(coming: deque[tuple[Span, Future[Series | None], bool]]) -> tuple[Span, Series | None, bool]:
    span, future, many = coming.popleft()
    return span, future.result(), many


def _ends(span: Span) -> tuple[str, str]:
    return span.state[0].fund_code, span.state[-1].fund_code


def _rows_to_read(span: Span, kept: MirrorFile | None) -> int:
    rows: int = sum(row.row_count for row in span.state)
    if kept is None or span.block is None:
        return rows
    rewritten: int = sum(row.row_count for row in span.state if row.rewritten > kept.version)
    return max(rewritten, rows - span.block.lengths["days"])


def _caught_up(
    connection: Connection, span: Span, old: Series | None, version: int, factors: Factors
) -> Series:
    """The span's series in the connection's view of the database. `old`: those of another version."""
    if old is None:
        everything = [row.fund_code for row in span.state]
        return _verified(connection, span, factors, _read(connection, span.table, factors, everything))
    whole, grown = _to_read(span.state, old, version)
    if not whole and not grown and len(span.state) == len(old.codes):
        return old
    later = _adjusted(factors, span.table, ordered(read_later(connection, span.table, grown)))
    anew = _read(connection, span.table, factors, whole)
    keep = np.isin(old.codes, _numbers([row.fund_code for row in span.state]))
    found = with_rows(of_funds(old, keep & ~np.isin(old.codes, _numbers(whole))), later, anew)
    return _verified(connection, span, factors, found)


def _verified(
    connection: Connection, span: Span, factors: Factors, found: Series, newer: Collection[str] = ()
) -> Series:
    """The series; those that are not what the database counts, or `newer` than the connection's view, read again."""
    wrong = sorted({*_differing(span.state, found), *newer})
    if wrong and not newer:  # somebody has changed rows by hand
        log.warning(
            "%s: %d funds are not what the merges left, %s first", span.table.name, len(wrong), wrong[0]
        )
    known = _numbers([row.fund_code for row in span.state])
    right = of_funds(found, np.isin(found.codes, known) & ~np.isin(found.codes, _numbers(wrong)))
    return with_rows(right, _read(connection, span.table, factors, wrong)) if wrong else right


def _numbers(codes: Sequence[str]) -> NDArray[np.int32]:
    return np.array([int(code) for code in codes], dtype=np.int32)


def _to_read(state: list[Any], old: Series, version: int) -> tuple[list[str], list[tuple[str, date]]]:
    """Funds to read whole, and funds with the date after which to read them."""
    at = {code: place for place, code in enumerate(old.codes.tolist())}
    ends = (old.offsets[1:] - 1).tolist()
    whole, grown = [], []
    for code, rows, _first, last, changed, rewritten in state:
        place = at.get(int(code))
        if place is None or rewritten > version:
            whole.append(code)
            continue
        newest = UNIX_EPOCH + timedelta(days=int(old.days[ends[place]]))
        if changed > version:
            grown.append((code, newest))
        elif (rows, last) != (ends[place] + 1 - int(old.offsets[place]), newest.isoformat()):
            whole.append(code)
    return whole, grown


def _differing(state: list[Any], found: Series) -> list[str]:
    """Funds whose number of rows or newest date is not what the database counts."""
    if not state or not len(found.codes):
        return [row.fund_code for row in state]
    counts = np.array([row.row_count for row in state], dtype=np.int64)
    newest = np.array([row.last_date for row in state], dtype="datetime64[D]").astype(np.int64)
    codes = _numbers([row.fund_code for row in state])
    at = np.searchsorted(found.codes, codes).clip(max=len(found.codes) - 1)
    ends = found.offsets[at + 1]
    same = (found.codes[at] == codes) & (ends - found.offsets[at] == counts)
    same &= found.days[ends - 1] == newest
    return [state[place].fund_code for place in np.flatnonzero(~same).tolist()]


def _read(connection: Connection, table: Table, factors: Factors, codes: Sequence[str]) -> Series:
    """The series of these funds (sorted codes) in the connection's view of the database."""
    return _adjusted(factors, table, ordered(read_funds(connection, table, codes)))


def _read_factors(connection: Connection) -> Factors:
    factor = fund_adjustment.c
    columns = (factor.fund_code, plain(factor.ex_date), factor.cumulative)
    rows = connection.execute(select(*columns).order_by(factor.fund_code, factor.ex_date)).all()
    return Factors(
        _numbers([row[0] for row in rows]),
        np.array([row[1] for row in rows], dtype="datetime64[D]").astype(np.int32),
        np.array([row[2] for row in rows], dtype=np.float64),
    )


def _adjusted(factors: Factors, table: Table, series: Series) -> Series:
    """Unit NAVs times the cumulative factor of the newest ex-date up to each day (core.adjustment), in their place."""
    if table is not fund_nav or not len(series.codes):
        return series
    span = slice(*np.searchsorted(factors.codes, [series.codes[0], series.codes[-1] + 1]).tolist())
    return multiplied(series, factors.codes[span], factors.days[span], factors.cumulative[span])
