"""The mirror never gives a value that the database does not hold, whatever is merged, revised, killed or damaged."""

from __future__ import annotations

import contextlib
import random
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Double, Engine, String, cast, delete, insert, select, update

from core import adjustment, db, fund_series, nav_days, nav_mirror, series_reader
from core.fund_series import Added, note_changes
from core.mirror_file import opened
from core.nav_mirror import FILE, stored_series
from core.ragged import Series
from core.schema import fund_event, fund_nav, money_fund_yield

FIRST = date(2025, 1, 1)
FUNDS = [f"{n:06d}" for n in (1, 2, 3, 70, 159915, 999999)]
STEPS = 10_000
Shown = dict[str, tuple[list[str], list[float]]]  # by fund its days, in ISO text, and values
Held = dict[tuple[str, str], dict[date, float]]
LOOKS = 0.05  # of the transactions, after which the mirror is opened


class Book:
    """Merges of any kind, by the functions that merges use, and what the database should give after them."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.rng = engine, random.Random(seed)
        self.held: Held = {}
        self.batch = 1

    def transaction(self) -> int:
        """Some changes, at times rolled back as by a crash; returns how many."""
        changes = self.rng.choice((1, 1, 2, 5, 20))
        crash = self.rng.random() < 0.1
        before = {key: dict(rows) for key, rows in self.held.items()} if crash else {}
        try:
            with db.write(self.engine) as connection:
                for _ in range(changes):
                    change = self.rng.choice((self._add, self._add, self._add, self._revise, self._event))
                    change(connection)
                if crash:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.held = before
        return changes

    def _add(self, connection: Any) -> None:
        """Later rows of some funds, or rows anywhere in one."""
        table = self.rng.choice((fund_nav, fund_nav, money_fund_yield))
        added, records = [], []
        for code in self.rng.sample(FUNDS, self.rng.choice((1, 2, len(FUNDS)))):
            known = self.held.setdefault((table.name, code), {})
            newest = max(known, default=FIRST)
            span = range(1, 4) if self.rng.random() < 0.8 else range(-20, 20)
            days = {newest + timedelta(days=self.rng.choice(span)) for _ in range(self.rng.choice((1, 1, 4)))}
            fresh = sorted(days - set(known))
            if not fresh:
                continue
            added.append(Added(code, len(fresh), fresh[0], fresh[-1]))
            for day in fresh:
                known[day] = value = round(self.rng.uniform(0.5, 3), 4)
                value_column = "unit_nav" if table is fund_nav else "income_per_10k"
                records.append(
                    {"fund_code": code, "nav_date": day, value_column: value, "batch_id": self.batch}
                )
        if records:
            connection.execute(insert(table), records)
            note_changes(connection, table, added)
            counted = dict.fromkeys({record["nav_date"] for record in records}, 0)
            for record in records:
                counted[record["nav_date"]] += 1
            nav_days.add_rows(connection, table, counted)

    def _revise(self, connection: Any) -> None:
        place = self._place(self.held)
        if place is None:
            return
        name, code, day = place
        table = fund_nav if name == fund_nav.name else money_fund_yield
        value = round(self.rng.uniform(0.5, 3), 4)
        column = "unit_nav" if table is fund_nav else "income_per_10k"
        mine = (table.c.fund_code == code, table.c.nav_date == day)
        connection.execute(update(table).where(*mine).values({column: value}))
        note_changes(connection, table, [], {code})
        if table is fund_nav:  # as merges do, should it be an ex-date
            adjustment.recompute_funds(connection, [code])
        self.held[name, code][day] = value

    def _event(self, connection: Any) -> None:
        """A dividend comes, changes or goes."""
        navs = {key: rows for key, rows in self.held.items() if key[0] == fund_nav.name}
        place = self._place(navs)
        if place is None:
            return
        _name, code, day = place
        mine = (fund_event.c.fund_code == code, fund_event.c.ex_date == day)
        connection.execute(delete(fund_event).where(*mine))
        if self.rng.random() < 0.7:
            event = {"kind": "dividend", "value": 0.1, "evidence": "published", "batch_id": self.batch}
            connection.execute(insert(fund_event).values(fund_code=code, ex_date=day, **event))
        adjustment.recompute_funds(connection, [code])

    def _place(self, held: Held) -> tuple[str, str, date] | None:
        """Table, code and day of any row that is held."""
        at = self.rng.randrange(total) if (total := sum(map(len, held.values()))) else 0
        for (name, code), rows in held.items():
            if at < len(rows):
                return name, code, next(islice(rows, at, None))
            at -= len(rows)
        return None

    def expected(self, table: Any) -> Shown:
        """Straight from the tables, one row after the other: NAV times the product of its factors."""
        column = table.c.unit_nav if table is fund_nav else table.c.income_per_10k
        found: Shown = {}
        with db.read(self.engine) as connection:
            events = {
                (row.fund_code, row.ex_date.isoformat()): row.value
                for row in connection.execute(select(fund_event))
            }
            rows = select(table.c.fund_code, cast(table.c.nav_date, String(10)), cast(column, Double))
            for code, day, value in connection.execute(rows.order_by(table.c.fund_code, table.c.nav_date)):
                if code not in found:
                    found[code], factor = ([], []), 1.0
                days, values = found[code]
                dividend = events.get((code, day), 0.0) if table is fund_nav else 0.0
                factor *= (value + dividend) / value
                days.append(day)
                values.append(value * factor)
        return found


def shown(series: Series) -> Shown:
    found = {}
    for place, code in enumerate(series.codes.tolist()):
        mine = slice(series.offsets[place], series.offsets[place + 1])
        days = series.days[mine].astype("datetime64[D]").astype(str).tolist()
        found[f"{code:06d}"] = (days, series.values[mine].tolist())
    return found


def read(engine: Engine, folder: Path | None) -> dict[str, Shown]:
    """By table."""
    found: dict[str, Shown] = {fund_nav.name: {}, money_fund_yield.name: {}}
    for table, series in stored_series(engine, folder):
        block = shown(series)
        assert list(block) == sorted(block)
        assert not block.keys() & found[table.name].keys()
        found[table.name] |= block
    return found


def require_same(book: Book, found: dict[str, Shown]) -> None:
    require_equal(found, {table.name: book.expected(table) for table in (fund_nav, money_fund_yield)})


def require_equal(found: dict[str, Shown], expected: dict[str, Shown]) -> None:
    for name, series in expected.items():
        assert {code: days for code, (days, _values) in found[name].items()} == {
            code: days for code, (days, _values) in series.items()
        }
        for code, (_days, values) in series.items():
            np.testing.assert_allclose(found[name][code][1], values, rtol=1e-12)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nav_mirror, "ROWS_A_BLOCK", 300)


@pytest.mark.timeout(900)
def test_whatever_is_merged_revised_or_rolled_back_it_shows_what_is_stored(
    sqlite_engine: Engine, tmp_path: Path
) -> None:
    _play(sqlite_engine, tmp_path, 1, STEPS)


def test_the_same_where_much_is_read_by_the_fast_driver(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nav_mirror, "FEW_ROWS", 100)
    _play(engine, tmp_path, 3, 500)


def _play(engine: Engine, folder: Path, seed: int, steps: int) -> None:
    book, looks, kept, blocks, done = Book(engine, seed), 0, 0, 0, 0
    while done < steps:
        done += book.transaction()
        if book.rng.random() < LOOKS:
            if book.rng.random() < 0.1:
                _damage(folder / FILE, book.rng)
            with opened(folder / FILE) as file:
                kept += file is not None
                blocks = max(blocks, 0 if file is None else len(file.blocks))
            require_same(book, read(engine, folder))
            with db.read(engine) as connection, opened(folder / FILE) as file:
                assert file is not None
                assert (file.version, file.token) == fund_series.newest_version(connection)
            looks += 1
    assert looks > steps / 200
    assert kept > looks / 2
    assert blocks > (3 if steps == STEPS else 1)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_merged_while_it_reads_is_not_shown(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Every block comes by the fast driver, which sees merges that the reader's own view does not."""
    book, other = Book(engine, seed), Book(engine, seed + 100)
    for _ in range(60):
        book.transaction()
    other.held = book.held
    before = {table.name: book.expected(table) for table in (fund_nav, money_fund_yield)}
    monkeypatch.setattr(nav_mirror, "ROWS_A_BLOCK", 20)
    monkeypatch.setattr(nav_mirror, "FEW_ROWS", 1)
    merged = []

    plain_read = series_reader.SpanReader.read

    def merge_first(*arguments: Any) -> Any:
        if len(merged) < 20:
            merged.append(other.transaction())
        return plain_read(*arguments)

    monkeypatch.setattr(nav_mirror, "READ_AHEAD", 1)
    monkeypatch.setattr(series_reader.SpanReader, "read", merge_first)
    require_equal(read(engine, tmp_path), before)
    assert len(merged) > 3
    merged += [0] * 20
    require_same(book, read(engine, tmp_path))


def test_a_damaged_block_costs_only_itself(sqlite_engine: Engine, tmp_path: Path, caplog: Any) -> None:
    book = Book(sqlite_engine, 7)
    for _ in range(100):
        book.transaction()
    require_same(book, read(sqlite_engine, tmp_path))
    path = tmp_path / FILE
    for at in range(0, path.stat().st_size, 97):
        content = bytearray(path.read_bytes())
        content[at] ^= 0x10
        path.write_bytes(content)
        caplog.clear()
        require_same(book, read(sqlite_engine, tmp_path))
        assert "damaged" in caplog.text or "cannot be used" in caplog.text
        path.unlink()
        read(sqlite_engine, tmp_path)


def _damage(path: Path, rng: random.Random) -> None:
    """Another byte, a shorter file, or none."""
    if not path.exists():
        return
    content = bytearray(path.read_bytes())
    kind = rng.choice(("byte", "short", "gone", "empty"))
    if kind == "byte":
        at = rng.choice([place for place, byte in enumerate(content) if byte])
        content[at] ^= 1 << rng.randrange(8)
    path.unlink()
    if kind != "gone":
        path.write_bytes({"byte": content, "short": content[: len(content) // 2], "empty": b""}[kind])


def test_what_another_driver_reads_is_what_ours_reads(engine: Engine) -> None:
    codes = [f"{n:06d}" for n in (1, 2, 3, 9, 500, 777777, 999999)]
    days = [FIRST + timedelta(days=n) for n in range(40)]
    records = [
        {
            "fund_code": code,
            "nav_date": day,
            "unit_nav": round(1 + at / 1000 + int(code) / 10**7, 7),
            "batch_id": 1,
        }
        for code in codes
        for at, day in enumerate(days)
    ]
    with db.write(engine) as connection:
        connection.execute(insert(fund_nav), records)
        note_changes(connection, fund_nav, [Added(code, 40, days[0], days[-1]) for code in codes])
    for first, last in ((0, 6), (1, 4), (5, 5)):
        span = slice(first, last + 1)
        with contextlib.closing(series_reader.SpanReader(engine)) as reader:
            found = reader.read(fund_nav, (codes[first], codes[last]))
        with db.read(engine) as connection:
            plain = series_reader.read_funds(connection, fund_nav, codes[span])
        assert len(plain.values) == 40 * len(codes[span])
        for ours, theirs in zip(plain, found, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    with db.read(engine) as connection:
        some = series_reader.read_funds(connection, fund_nav, ["000002", "777777"])
    assert some.values.tolist() == [
        row["unit_nav"] for row in records if row["fund_code"] in ("000002", "777777")
    ]
