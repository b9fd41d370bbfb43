"""DataPipeline: staging -> rules -> quarantine and merge. The only way into fund_nav."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Engine, delete, insert

from core import adjustment, db, merge, nav_frames, nav_store
from core.background_store import nights_before, read_background, save_returns, second_opinions
from core.crash_points import reached
from core.errors import NotReady
from core.gates import Nights, gates
from core.judging import SAMPLES, RuleResult, dropped_events, events_of, judge
from core.peer_rules import alike
from core.proposal import with_proposals
from core.release import Released, Voucher, reconsider, vouch
from core.schema import rule_result
from core.sources.base import NavRow
from core.thresholds import Thresholds
from core.trading_calendar import TradingCalendar


@dataclass(frozen=True)
class Checked:
    """A batch with every rule's verdict; nothing written yet."""

    batch_id: int
    source: str
    total: int
    results: list[RuleResult]
    held: pd.DataFrame  # staged rows that failed an error rule, with `reasons`
    repeats: list[int]  # row_no of rows given twice
    events: pd.DataFrame
    dropped_events: pd.DataFrame  # fund_code, ex_date of events booked earlier that their NAVs belie
    returns: pd.DataFrame  # what each category did on each date
    night: date | None = None  # the business date of a latest batch or a sweep
    forced: bool = False

    @property
    def refusals(self) -> list[str]:
        """What the gates have against the batch."""
        failed = (result for result in self.results if result.severity == "gate" and result.failed)
        return [text for result in failed for text in result.samples]

    @property
    def is_valid(self) -> bool:
        """Whether the batch as a whole may be merged (its held rows aside)."""
        return self.forced or not self.refusals

    @property
    def shortfalls(self) -> list[str]:
        """What makes the night PARTIAL though its rows are believed."""
        thin = (result for result in self.results if result.severity == "partial" and result.failed)
        return [text for result in thin for text in result.samples]


@dataclass(frozen=True)
class NavResult:
    """What came of one batch."""

    batch_id: int
    is_valid: bool
    passed_rules: list[str]
    failed_rules: list[str]
    total: int
    inserted: int = 0
    revised: int = 0
    unchanged: int = 0
    quarantined: int = 0
    repeated: int = 0
    events: int = 0
    reason: str | None = None
    second_look: Released = field(default_factory=Released)  # what was held before and is believed now
    shortfalls: list[str] = field(default_factory=list)  # by category: what makes the night PARTIAL
    details: list[RuleResult] = field(default_factory=list)

    @property
    def merged(self) -> int:
        """Rows that were believed."""
        return self.inserted + self.revised + self.unchanged


class DataPipeline:
    """Judges staged batches and merges what can be believed."""

    def __init__(self, engine: Engine, thresholds: Thresholds, calendar: TradingCalendar) -> None:
        self.engine = engine
        self.thresholds = thresholds
        self.sessions = np.array(calendar.sessions, dtype="datetime64[D]")

    def process_nav_data(
        self, batch_id: int, now: datetime, rows: Sequence[NavRow] | None = None, *, force: bool = False
    ) -> NavResult:
        """Check and merge one batch in a transaction of its own. `rows`: the staged rows, if at hand."""
        checked = self.check(batch_id, now, rows, force=force)
        with db.write(self.engine) as connection:
            return self.merge(connection, checked, now)

    def check(
        self,
        batch_id: int,
        now: datetime,
        rows: Sequence[NavRow] | None = None,
        *,
        force: bool = False,
        within: Connection | None = None,
    ) -> Checked:
        """Apply every rule. Reads only. With `force` a gate that fails is on record but refuses nothing.

        `within`: the transaction that staged the batch, where it is not committed yet.
        Raises NotReady for an unknown batch, one already judged, and one that a newer one of its night
        was merged before.
        """
        with db.read(self.engine) if within is None else nullcontext(within) as connection:
            batch = _require_staged(connection, batch_id)
            staged = (
                nav_frames.read_batch(connection, batch_id)
                if rows is None
                else nav_frames.frame_of_rows(rows)
            )
            anchors = nav_frames.read_anchors(connection, batch_id)
            background = read_background(connection, now, batch_id, self.thresholds, self.sessions)
            nights = nights_before(connection, batch.source) if batch.kind == "latest" else Nights()
        found = judge(staged, anchors, background)
        results = found.results
        if batch.kind == "latest":
            results = results + gates(found, background, batch.business_date, nights)
        frame, held = found.frame, found.reasons != ""
        return Checked(
            batch_id=batch_id,
            source=batch.source,
            total=len(staged),
            results=results,
            held=with_proposals(found, held),
            repeats=frame.loc[found.repeats & ~held, "row_no"].tolist(),
            events=events_of(found, ~held),
            dropped_events=dropped_events(frame, found.series, ~held),
            returns=found.returns if batch.kind == "latest" else found.returns.iloc[:0],
            night=batch.business_date,
            forced=force,
        )

    def merge(self, connection: Connection, checked: Checked, now: datetime) -> NavResult:
        """Write the verdict and, unless a gate failed, merge; in the caller's transaction.

        Waits for other merges. Raises NotReady, as `check`, for what happened to the batch meanwhile.
        """
        batch_id = checked.batch_id
        nav_store.lock_merges(connection)
        _require_staged(connection, batch_id)
        store_results(connection, checked)
        if not checked.is_valid:
            nav_store.decide_batch(connection, batch_id, "REJECTED", now)
            return NavResult(
                batch_id,
                False,
                *_passed_and_failed(checked.results),
                checked.total,
                reason="; ".join(checked.refusals),
                details=checked.results,
            )
        merge.hold(connection, batch_id, checked.source, checked.held, now)
        reached("merge.held")
        merge.drop_repeats(connection, batch_id, checked.repeats)
        merged = merge.merge(connection, batch_id, now, self.thresholds.revision_large)
        reached("merge.merged")
        merge.drop_events(connection, checked.dropped_events)
        events = merge.save_events(connection, batch_id, checked.events)
        adjustment.recompute(connection, batch_id, checked.dropped_events["fund_code"])
        save_returns(connection, checked.returns)
        nav_store.decide_batch(connection, batch_id, "MERGED", now, merged.rows)
        again = reconsider(connection, self.thresholds, self.sessions, now, checked.night)
        return replace(believed_result(checked, merged, events), second_look=again)

    def release(
        self, ids: Sequence[int], actor: str, note: str | None, now: datetime, *, book_proposal: bool = True
    ) -> Released:
        """Merge rows out of quarantine on somebody's word, with the event proposed for them.

        Raises UsageError for an unknown row, one decided already and one that no table could hold; then nothing is
        done.
        """
        voucher = Voucher(frozenset(ids), actor, note, book_proposal)
        with db.write(self.engine) as connection:
            return vouch(connection, voucher, self.thresholds, self.sessions, now)


@dataclass(frozen=True)
class Compared:
    """What a second source said of what we believe."""

    checked: int
    failed: int
    second_look: Released


def compare(connection: Connection, pipeline: DataPipeline, batch_id: int, now: datetime) -> Compared:
    """Hold a second source's staged batch against fund_nav, keep what differs, release what it confirms.

    In the caller's transaction; the batch is COMPARED then, never merged.
    """
    nav_store.lock_merges(connection)
    rows = second_opinions(connection, batch_id)
    differing = rows[~alike(rows["unit_nav"].to_numpy(), rows["second_unit"].to_numpy())]
    samples = [
        f"{code} {day.date()} unit_nav={unit:g} there {second:g}"
        for code, day, unit, second in differing.head(SAMPLES).itertuples(index=False)
    ]
    result = RuleResult("sources_agree", "warning", len(rows), len(differing), samples)
    _store(connection, batch_id, [result])
    nav_store.decide_batch(connection, batch_id, "COMPARED", now)
    again = reconsider(connection, pipeline.thresholds, pipeline.sessions, now)
    return Compared(len(rows), len(differing), again)


def believed_result(checked: Checked, merged: merge.Merged, events: int) -> NavResult:
    """What came of a batch whose rows were merged, the held ones aside."""
    return NavResult(
        checked.batch_id,
        True,
        *_passed_and_failed(checked.results),
        checked.total,
        merged.inserted,
        merged.revised,
        merged.unchanged,
        len(checked.held),
        len(checked.repeats),
        events,
        reason="; ".join(["merged although:", *checked.refusals]) if checked.refusals else None,
        shortfalls=checked.shortfalls,
        details=checked.results,
    )


def _passed_and_failed(results: Sequence[RuleResult]) -> tuple[list[str], list[str]]:
    """The rules that no row failed, and the others."""
    passed = [result.rule_id for result in results if not result.failed]
    return passed, [result.rule_id for result in results if result.failed]


def _require_staged(connection: Connection, batch_id: int) -> Any:
    """The batch, if it may still be merged. Raises NotReady."""
    batch = nav_store.find_batch(connection, batch_id)
    if batch is None or batch.status != "STAGED":
        state = "does not exist" if batch is None else f"is {batch.status} already"
        raise NotReady(f"batch {batch_id} {state}")
    if batch.kind == "latest":
        newest = nav_store.newest_batch(connection, batch.business_date, "MERGED")
        if newest is not None and newest > batch_id:
            raise NotReady(f"batch {batch_id} is older than batch {newest}, which is merged already")
    return batch


def store_results(connection: Connection, checked: Checked) -> None:
    """Every rule's and gate's figures, as evidence."""
    connection.execute(delete(rule_result).where(rule_result.c.batch_id == checked.batch_id))
    _store(connection, checked.batch_id, checked.results)


def _store(connection: Connection, batch_id: int, results: Sequence[RuleResult]) -> None:
    connection.execute(
        insert(rule_result),
        [
            {
                "batch_id": batch_id,
                "rule_id": result.rule_id,
                "severity": result.severity,
                "version": result.version,
                "checked": result.checked,
                "failed": result.failed,
                "detail": json.dumps(result.samples, ensure_ascii=False),
                "figures": json.dumps(result.figures) if result.figures is not None else None,
            }
            for result in results
        ],
    )
