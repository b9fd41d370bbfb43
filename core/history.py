"""Histories of whole funds: from parsed rows to the believed tables, without staging them first.

Judged by the same rules as a staged batch and merged in the caller's transaction, with the same quarantine,
revisions and events. What is stored of these funds is read only where there is anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Numeric, Table, insert

from core import adjustment, db, merge, nav_days, nav_frames, nav_store
from core.background import Background
from core.background_store import fund_facts, rejected_values, returns_between
from core.crash_points import reached
from core.data_pipeline import Checked, NavResult, believed_result, store_results
from core.fund_series import Added, note_changes
from core.history_store import (
    DAY_RANGE,
    VALUES,
    Believed,
    Keys,
    Stored,
    beside,
    found_in,
    held_before,
    keys_of,
    merges_of_others,
    read_anchors,
    read_events,
    read_stored,
    stored_beside,
)
from core.judging import Verdicts, dropped_events, events_of, judge
from core.merge import KEY, Merged
from core.proposal import with_proposals
from core.release import reconsider
from core.schema import fund_nav, nav_batch
from core.sources.base import NavRow
from core.thresholds import Thresholds
from core.trading_calendar import SHANGHAI, TradingCalendar


@dataclass(frozen=True)
class CheckedHistory:
    """A portion of history with every rule's verdict; nothing written yet."""

    checked: Checked
    rows: Sequence[NavRow]
    believed: dict[str, Believed]  # by table
    codes: list[str]  # well-formed codes of the funds in it
    span: tuple[date, date] | None  # first and last date
    stored: dict[str, Stored]  # by table
    merges_before: int  # by others, when `stored` was read


class HistoryMerger:
    """Judges and merges histories of whole funds, a portion at a time."""

    def __init__(
        self,
        engine: Engine,
        thresholds: Thresholds,
        calendar: TradingCalendar,
        source: str,
        run_id: int | None = None,
    ) -> None:
        self.engine = engine
        self.thresholds = thresholds
        self.sessions = np.array(calendar.sessions, dtype="datetime64[D]")
        self.source = source
        self.run_id = run_id
        with db.read(engine) as connection:
            self.facts = fund_facts(connection)

    def check(self, rows: Sequence[NavRow], now: datetime) -> CheckedHistory:
        """Apply every row rule, against what is stored of these funds. Reads only."""
        staged = nav_frames.frame_of_rows(rows)
        codes = [code for code in staged["fund_code"].unique() if code.isascii() and code.isdigit()]
        codes = sorted(code for code in codes if len(code) == 6)
        days = staged["nav_date"].dropna()
        span = (days.min().date(), days.max().date()) if len(days) else None
        keys = keys_of(staged["fund_code"], staged["nav_date"])
        with db.read(self.engine) as connection:
            merges_before = merges_of_others(connection, self.run_id)
            stored = read_stored(connection, codes, span)
            events = read_events(connection, codes)
            anchors = read_anchors(connection, staged, codes, events)
            returns = returns_between(connection, *(span or (None, None)))
            rejected = rejected_values(connection)
            held = held_before(connection, staged, keys, codes)
        background = Background(
            today=now.astimezone(SHANGHAI).date(),
            thresholds=self.thresholds,
            sessions=self.sessions,
            funds=self.facts,
            events=beside(staged, keys, events),
            stored=stored_beside(staged, keys, stored[fund_nav.name]),
            returns=returns,
            rejected=rejected,
            held=held,
        )
        found = judge(staged, anchors, background)
        checked = _verdict(found, self.source, len(rows))
        believed = _believed(found, staged, keys)
        return CheckedHistory(checked, rows, believed, codes, span, stored, merges_before)

    def merge(
        self, connection: Connection, history: CheckedHistory, provenance: str, now: datetime
    ) -> NavResult:
        """Write the verdict and the believed rows, as one batch, in the caller's transaction."""
        nav_store.lock_merges(connection)
        stored = history.stored
        if merges_of_others(connection, self.run_id) != history.merges_before:
            stored = read_stored(connection, history.codes, history.span)
        batch_id = self._open_batch(connection, len(history.rows), provenance, now)
        checked = replace(history.checked, batch_id=batch_id)
        store_results(connection, checked)
        merge.hold(connection, batch_id, self.source, checked.held, now)
        reached("merge.held")
        merged = Merged(0, 0, 0)
        for table, _values in VALUES:
            believed, known = history.believed[table.name], stored[table.name]
            merged += _merge_rows(
                connection, table, history.rows, believed, known, batch_id, now, self.thresholds
            )
            reached("merge.navs")
        reached("merge.merged")
        merge.drop_events(connection, checked.dropped_events)
        events = merge.save_events(connection, batch_id, checked.events)
        adjustment.recompute(connection, batch_id, checked.dropped_events["fund_code"])
        nav_store.decide_batch(connection, batch_id, "MERGED", now, merged.rows)
        again = reconsider(connection, self.thresholds, self.sessions, now)
        return replace(believed_result(checked, merged, events), second_look=again)

    def _open_batch(self, connection: Connection, rows: int, provenance: str, now: datetime) -> int:
        return db.new_id(
            connection.execute(
                insert(nav_batch).values(
                    kind="history",
                    source=self.source,
                    provenance=provenance[:500],
                    collected_at=now,
                    row_count=rows,
                    status="STAGED",
                    run_id=self.run_id,
                )
            )
        )


def _verdict(found: Verdicts, source: str, total: int) -> Checked:
    """The verdict of a batch that has no number yet."""
    frame, held = found.frame, found.reasons != ""
    return Checked(
        batch_id=0,
        source=source,
        total=total,
        results=found.results,
        held=with_proposals(found, held),
        repeats=frame.loc[found.repeats & ~held, "row_no"].tolist(),
        events=events_of(found, ~held),
        dropped_events=dropped_events(frame, found.series, ~held),
        returns=found.returns.iloc[:0],
    )


def _believed(found: Verdicts, staged: pd.DataFrame, keys: Keys) -> dict[str, Believed]:
    frame = found.frame
    mine = (found.reasons == "") & ~found.repeats & ~frame["anchor"].to_numpy(dtype=bool)
    rows = frame["row_no"].to_numpy()[mine] - 1
    believed = {}
    for table, names in VALUES:
        numbers = {name: staged[name].to_numpy()[rows] for name in names}
        here = ~np.logical_and.reduce([np.isnan(values) for values in numbers.values()])
        values = {name: numbers[name][here] for name in names}
        believed[table.name] = Believed(rows[here], keys[rows[here]], values)
    return believed


def _merge_rows(
    connection: Connection,
    table: Table,
    rows: Sequence[NavRow],
    believed: Believed,
    stored: Stored,
    batch_id: int,
    now: datetime,
    thresholds: Thresholds,
) -> Merged:
    """Insert the believed rows that are new to the table, revise those that changed."""
    at, known = found_in(believed.keys, stored)
    news = _news(connection, table, rows, believed, stored, at, known)
    if news:
        names = tuple(believed.values)
        merge.revise(connection, table, names, news, batch_id, now, thresholds.revision_large)
    fresh = [rows[position] for position in believed.positions[~known].tolist()]
    insert_rows(connection, table, tuple(believed.values), fresh, batch_id)
    count_rows(connection, table, believed.keys[~known], {row["fund_code"] for row in news})
    return Merged(len(fresh), len(news), len(known) - len(fresh) - len(news))


def count_rows(connection: Connection, table: Table, keys: Keys, revised: set[str]) -> None:
    """Note what was inserted, by date and by fund (`keys` as keys_of gives them), and whose rows were revised."""
    days, counts = np.unique(keys % DAY_RANGE, return_counts=True)
    by_day = zip((date.fromordinal(day) for day in days.tolist()), counts.tolist(), strict=True)
    nav_days.add_rows(connection, table, dict(by_day))
    ordered = np.sort(keys)
    numbers, starts, counts = np.unique(ordered // DAY_RANGE, return_index=True, return_counts=True)
    first, last = ordered[starts] % DAY_RANGE, ordered[starts + counts - 1] % DAY_RANGE
    of_funds = zip(numbers.tolist(), counts.tolist(), first.tolist(), last.tolist(), strict=True)
    added = [
        Added(f"{number:06d}", count, date.fromordinal(oldest), date.fromordinal(newest))
        for number, count, oldest, newest in of_funds
    ]
    note_changes(connection, table, added, revised)


def _news(
    connection: Connection,
    table: Table,
    rows: Sequence[NavRow],
    believed: Believed,
    stored: Stored,
    at: Keys,
    known: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """Old and new values of the rows that the table holds otherwise; `at`: where in `stored`.

    A blank is no news, and neither is a value of more decimals than the table keeps.
    """
    here = np.flatnonzero(known)
    differs = np.zeros(len(here), dtype=bool)
    for name, values in believed.values.items():
        new, old = values[here], stored.values[name][at[here]]
        differs |= ~np.isnan(new) & (np.isnan(old) | (new != old))
    news = []
    for position in here[differs].tolist():
        row = rows[believed.positions[position]]
        record: dict[str, Any] = {"fund_code": row.fund_code, "nav_date": row.nav_date}
        record["old_batch_id"] = int(stored.batch_ids[at[position]])
        changed = False
        for name in believed.values:
            old_value, new_value = float(stored.values[name][at[position]]), getattr(row, name)
            record[f"old_{name}"] = None if old_value != old_value else old_value
            record[f"new_{name}"] = new_value
            changed |= new_value is not None and _kept(connection, table, name, new_value) != old_value
        if changed:
            news.append(record)
    return news


def _kept(connection: Connection, table: Table, name: str, value: float) -> float:
    """The value as the table would keep it."""
    kind = table.c[name].type.dialect_impl(connection.dialect)
    return round(value, kind.scale) if isinstance(kind, Numeric) and kind.scale is not None else value


def insert_rows(
    connection: Connection, table: Table, values: Sequence[str], rows: Sequence[NavRow], batch_id: int
) -> None:
    """Rows that the table does not hold; `values` stand side by side in a NavRow."""
    if not rows:
        return
    first = NavRow._fields.index(values[0])
    last = first + len(values)
    days: dict[Any, str] = {day: str(day) for day in {row.nav_date for row in rows}}
    # No list of all of them: who keeps millions of tuples alive pays the garbage collector for each.
    given = ((row[0], days[row[1]], *row[first:last], batch_id) for row in rows)
    db.bulk_insert(connection, table, (*KEY, *values, "batch_id"), given)
