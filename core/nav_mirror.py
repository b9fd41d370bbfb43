"""The mirror: adjusted NAVs of every fund as arrays in one mapped file, derived from the database and disposable.

It says as of which version of the stored series (core.fund_series) it is. Whoever opens it gets what the database
holds: funds that were rewritten since are read again, later rows of the others added, and the number of rows
and the newest date of each fund must be what the database counts. A file that is missing, damaged, of another
form, or of another database is not used: then everything is read. A file that cannot be written is done without.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Table, select

from core import db
from core.fund_series import is_known, newest_version, read_series
from core.nav_store import plain
from core.schema import fund_adjustment, fund_nav, money_fund_yield
from core.series_reader import Rows, read_all, read_funds, read_later

log = logging.getLogger(__name__)
FILE = "series.bin"
FORM = "navkeeper-series-1"
TABLES = (fund_nav, money_fund_yield)
UNIX_EPOCH = date(1970, 1, 1)
ALIGNED = 64  # bytes: each array begins where a cache line does
Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Series:
    """Many funds' values, one fund after the other."""

    codes: Codes  # (F,), ascending
    offsets: NDArray[np.int64]  # (F+1,), where each fund's rows begin
    days: NDArray[np.int32]  # (R,), since 1970-01-01, ascending within a fund
    values: NDArray[np.float64]  # (R,): adjusted NAVs, or a money fund's income per 10,000 shares


@dataclass(frozen=True)
class Mirror:
    """All series as of one version of the database."""

    version: int
    token: str
    navs: Series
    incomes: Series


def open_mirror(engine: Engine, folder: Path) -> Mirror:
    """What the database holds now; from the file in `folder` as far as it is right. Keeps the file in step.

    Raises DatabaseUnavailable.
    """
    path = folder / FILE
    kept = load(path)
    with db.read(engine) as connection:
        if kept is not None and not is_known(connection, kept.version, kept.token):
            log.info("the mirror is of another database: everything is read")
            kept = None
        version = newest_version(connection)
    # What others merge while everything is read is newer than `version`, and caught up with below.
    begun = kept or Mirror(*version, *(ordered(read_all(engine, table)) for table in TABLES))
    with db.snapshot(engine) as connection:
        if kept is None:
            _adjusted(connection, begun.navs)
        mirror = _caught_up(connection, begun)
    if mirror is not kept:
        save(path, mirror)
    return mirror


def read_series_of(engine: Engine, fund_codes: Sequence[str] | None) -> tuple[Series, Series]:
    """Adjusted NAVs and incomes of these funds, or of all, from the database alone.

    Raises DatabaseUnavailable.
    """
    with db.snapshot(engine) as connection:
        found = []
        for table in TABLES:
            codes = sorted(fund_codes) if fund_codes is not None else None
            rows = read_all(engine, table) if codes is None else read_funds(connection, table, codes)
            found.append(_rows_of(rows, connection, table))
    return found[0], found[1]


def _caught_up(connection: Connection, old: Mirror) -> Mirror:
    """The mirror as of the newest version, in a consistent view of the database."""
    version, token = newest_version(connection)
    navs, incomes = (
        _series_caught_up(connection, table, series, old.version)
        for table, series in zip(TABLES, (old.navs, old.incomes), strict=True)
    )
    if (version, token) == (old.version, old.token) and navs is old.navs and incomes is old.incomes:
        return old
    return Mirror(version, token, navs, incomes)


def _series_caught_up(connection: Connection, table: Table, old: Series, version: int) -> Series:
    state = read_series(connection, table)
    whole, grown = _to_read(state, old, version)
    if not whole and not grown and len(state) == len(old.codes):
        return old
    later = _rows_of(read_later(connection, table, grown), connection, table)
    anew = _rows_of(read_funds(connection, table, whole), connection, table)
    gone = np.array([int(code) for code in whole], dtype=np.int32)
    keep = np.isin(old.codes, np.array([int(row.fund_code) for row in state], dtype=np.int32))
    found = _with_rows(_without(old, keep & ~np.isin(old.codes, gone)), later, anew)
    wrong = _differing(state, found)
    if wrong:  # somebody has changed rows by hand
        log.warning("%s: %d funds are not what the merges left, %s first", table.name, len(wrong), wrong[0])
        keep = ~np.isin(found.codes, np.array([int(code) for code in wrong], dtype=np.int32))
        anew = _rows_of(read_funds(connection, table, wrong), connection, table)
        found = _with_rows(_without(found, keep), anew)
    return found


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
    codes = np.array([int(row.fund_code) for row in state], dtype=np.int32)
    counts = np.array([row.row_count for row in state], dtype=np.int64)
    newest = np.array([row.last_date for row in state], dtype="datetime64[D]").astype(np.int64)
    at = np.searchsorted(found.codes, codes).clip(max=max(len(found.codes) - 1, 0))
    if not len(found.codes):
        return [row.fund_code for row in state]
    ends = found.offsets[at + 1]
    same = (found.codes[at] == codes) & (ends - found.offsets[at] == counts)
    same &= found.days[ends - 1] == newest
    return [state[place].fund_code for place in np.flatnonzero(~same).tolist()]


def _rows_of(rows: Rows, connection: Connection, table: Table) -> Series:
    series = ordered(rows)
    return _adjusted(connection, series) if table is fund_nav else series


def ordered(rows: Rows) -> Series:
    """Rows ordered by fund and day as series of their values as they are."""
    starts = np.flatnonzero(np.diff(rows.codes, prepend=np.int32(-1)))
    return Series(rows.codes[starts], np.append(starts, len(rows.codes)), rows.days, rows.values)


def _adjusted(connection: Connection, series: Series) -> Series:
    """Unit NAVs times the cumulative factor of the newest ex-date up to each day (core.adjustment), in their place."""
    factor = fund_adjustment.c
    columns = (factor.fund_code, plain(factor.ex_date), factor.cumulative)
    rows = connection.execute(select(*columns).order_by(factor.fund_code, factor.ex_date)).all()
    codes = np.array([int(row[0]) for row in rows], dtype=np.int32)
    days = np.array([row[1] for row in rows], dtype="datetime64[D]").astype(np.int32)
    cumulative = np.array([row[2] for row in rows], dtype=np.float64)
    return multiplied(series, codes, days, cumulative)


def multiplied(series: Series, codes: Codes, days: Codes, cumulative: NDArray[np.float64]) -> Series:
    """Values times the `cumulative` factor of the newest ex-date (`codes`, `days`, ordered) up to each day.

    In their place.
    """
    starts = np.flatnonzero(np.diff(codes, prepend=np.int32(-1)))
    for start, end in zip(starts.tolist(), np.append(starts, len(codes))[1:].tolist(), strict=True):
        at = int(np.searchsorted(series.codes, codes[start]))
        if at < len(series.codes) and series.codes[at] == codes[start]:
            mine = slice(series.offsets[at], series.offsets[at + 1])
            factors = np.append(1.0, cumulative[start:end])
            series.values[mine] *= factors[np.searchsorted(days[start:end], series.days[mine], side="right")]
    return series


def _without(series: Series, keep: NDArray[np.bool_]) -> Series:
    """The series of the funds to keep."""
    if keep.all():
        return series
    counts = np.diff(series.offsets)
    rows = np.repeat(keep, counts)
    offsets = np.concatenate(([0], np.cumsum(counts[keep])))
    return Series(series.codes[keep], offsets, series.days[rows], series.values[rows])


def _with_rows(series: Series, *more: Series) -> Series:
    """The series with the rows of others: at the end of a fund that is there, else as a fund of its own."""
    for added in more:
        if not len(added.codes):
            continue
        counts = np.diff(added.offsets)
        at = np.repeat(series.offsets[np.searchsorted(series.codes, added.codes, side="right")], counts)
        codes = np.union1d(series.codes, added.codes)
        total = np.zeros(len(codes), dtype=np.int64)
        total[np.searchsorted(codes, series.codes)] += np.diff(series.offsets)
        total[np.searchsorted(codes, added.codes)] += counts
        series = Series(
            codes,
            np.concatenate(([0], np.cumsum(total))),
            np.insert(series.days, at, added.days),
            np.insert(series.values, at, added.values),
        )
    return series


def _arrays(mirror: Mirror) -> list[NDArray[Any]]:
    both = (mirror.navs, mirror.incomes)
    return [array for one in both for array in (one.codes, one.offsets, one.days, one.values)]


def save(path: Path, mirror: Mirror) -> None:
    """Write the file whole or not at all; what goes wrong is logged and no more: the mirror is disposable."""
    arrays = [np.ascontiguousarray(array) for array in _arrays(mirror)]
    head = {
        "form": FORM,
        "version": mirror.version,
        "token": mirror.token,
        "arrays": [[array.dtype.str, len(array), _checksum(array)] for array in arrays],
    }
    text = json.dumps(head).encode()
    text += b" " * (-(len(text) + 1) % ALIGNED) + b"\n"
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(text)
            for array in arrays:
                array.tofile(file)
                file.write(b"\0" * (-array.nbytes % ALIGNED))
        fresh.replace(path)
    except OSError as error:
        log.warning("the mirror %s could not be written: %s; the next run reads everything", path, error)
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def load(path: Path) -> Mirror | None:
    """The file's contents, mapped into memory, or None where there is none to rely on."""
    try:
        with path.open("rb") as file:
            text = file.readline()
            head = json.loads(text)
        if head["form"] != FORM:
            raise ValueError(f"it is {head['form']}")
        place, arrays = len(text), []
        for kind, count, checksum in head["arrays"]:
            array = _mapped(path, np.dtype(kind), count, place)
            if _checksum(array) != checksum:
                raise ValueError("its checksum is wrong")
            arrays.append(array)
            place += array.nbytes + -array.nbytes % ALIGNED
        return Mirror(head["version"], head["token"], Series(*arrays[:4]), Series(*arrays[4:]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the mirror %s cannot be used: %s; everything is read", path, error)
        return None


def _mapped(path: Path, kind: np.dtype[Any], count: int, place: int) -> NDArray[Any]:
    """Copy on write: who changes a value changes it for himself."""
    if count == 0:
        return np.zeros(0, dtype=kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="c", offset=place, shape=(count,)))


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(array.view(np.uint8).data)
