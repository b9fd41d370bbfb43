"""DataPipeline: staging -> rules -> quarantine and merge. The only way into fund_nav."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, delete, insert

from core import db, merge, nav_frames, nav_store
from core.crash_points import reached
from core.errors import NotReady
from core.rules import GATE, HELD_GATE, RULES, Context, conflict, duplicate, return_limits
from core.schema import rule_result
from core.series import LARGEST, SMALLEST, Series, explain
from core.sources.base import NavRow
from core.thresholds import Thresholds
from core.trading_calendar import SHANGHAI, TradingCalendar

SAMPLES = 5


@dataclass(frozen=True)
class RuleResult:
    rule_id: str
    severity: str
    checked: int
    failed: int
    samples: list[str]


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
            categories = nav_store.known_funds(connection)
            stored = nav_frames.read_events(connection, batch_id)
            before = nav_store.believed_counts(connection, batch.source)
        today = now.astimezone(SHANGHAI).date()
        found = judge(staged, anchors, categories, self.sessions, self.thresholds, today, stored)
        frame, held, results = found.frame, found.reasons != "", found.results
        if batch.kind == "latest":
            believed = len(staged) - int((held | found.repeats).sum())
            results += _gates(believed, int(held.sum()), len(staged), before, self.thresholds)
        return Checked(
            batch_id=batch_id,
            source=batch.source,
            total=len(staged),
            results=results,
            held=frame[held].assign(reasons=found.reasons[held]),
            repeats=frame.loc[found.repeats & ~held, "row_no"].tolist(),
            events=_events(frame, found.series, ~held),
            dropped_events=_dropped_events(frame, found.series, ~held),
            forced=force,
        )

    def merge(self, connection: Connection, checked: Checked, now: datetime) -> NavResult:
        """Write the verdict and, unless a gate failed, merge; in the caller's transaction.

        Waits for other merges. Raises NotReady, as `check`, for what happened to the batch meanwhile.
        """
        batch_id = checked.batch_id
        nav_store.lock_merges(connection)
        _require_staged(connection, batch_id)
        _store_results(connection, checked)
        passed = [result.rule_id for result in checked.results if not result.failed]
        failed = [result.rule_id for result in checked.results if result.failed]
        if not checked.is_valid:
            nav_store.decide_batch(connection, batch_id, "REJECTED", now)
            return NavResult(
                batch_id,
                False,
                passed,
                failed,
                checked.total,
                reason="; ".join(checked.refusals),
                details=checked.results,
            )
        merge.hold(connection, batch_id, checked.source, checked.held, now)
        reached("merge.held")
        merge.drop_repeats(connection, batch_id, checked.repeats)
        merged = merge.merge(connection, batch_id, now)
        reached("merge.merged")
        merge.drop_events(connection, checked.dropped_events)
        events = merge.save_events(connection, batch_id, checked.events)
        nav_store.decide_batch(connection, batch_id, "MERGED", now, merged.rows)
        return NavResult(
            batch_id,
            True,
            passed,
            failed,
            checked.total,
            merged.inserted,
            merged.revised,
            merged.unchanged,
            len(checked.held),
            len(checked.repeats),
            events,
            reason="; ".join(["merged although:", *checked.refusals]) if checked.refusals else None,
            details=checked.results,
        )


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


class Verdicts(NamedTuple):
    """What the row rules say of a batch; arrays of the frame's length."""

    frame: pd.DataFrame  # staged rows and anchors by fund and date
    series: Series
    results: list[RuleResult]
    reasons: NDArray[Any]  # the failed error rules, comma-separated; "" for none
    repeats: NDArray[np.bool_]


def judge(
    staged: pd.DataFrame,
    anchors: pd.DataFrame,
    categories: dict[str, str],
    sessions: NDArray[np.datetime64],
    thresholds: Thresholds,
    today: date,
    stored: pd.DataFrame | None = None,
) -> Verdicts:
    """Apply every row rule to staged rows, given the believed rows before them. Pure.

    `staged` as nav_frames.frame_of_rows gives it, `anchors` as nav_frames.read_anchors, `stored` (events
    already on record) as nav_frames.read_events; `categories` by fund code; `sessions` sorted trading
    days; `today` the Shanghai date of the moment of judging.
    """
    frame = _in_order(_with_stored_events(staged, stored), anchors, categories)
    frame = frame.assign(limit=return_limits(frame["category"], thresholds))
    usable, lost = _usable(frame)
    series = explain(frame, usable, lost, sessions)
    results, reasons, repeats = _apply_rules(frame, Context(today, thresholds, series))
    return Verdicts(frame, series, results, reasons, repeats)


def _with_stored_events(staged: pd.DataFrame, stored: pd.DataFrame | None) -> pd.DataFrame:
    """Beside the rows the events of their dates: those they name or, where they name none, those on record."""
    known = staged[["row_no", "dividend", "split_ratio"]].set_index("row_no")
    if stored is not None and len(stored):
        silent = known.isna().all(axis=1)
        known[silent] = stored.set_index("row_no").reindex(known.index[silent])
    return staged.assign(
        known_dividend=known["dividend"].to_numpy(), known_split=known["split_ratio"].to_numpy()
    )


def _in_order(staged: pd.DataFrame, anchors: pd.DataFrame, categories: dict[str, str]) -> pd.DataFrame:
    """Staged rows and their anchors, by fund and date; undated rows last."""
    frame = staged.assign(anchor=False)
    if len(anchors):
        events = {"known_dividend": anchors["dividend"], "known_split": anchors["split_ratio"]}
        frame = pd.concat([frame, anchors.assign(anchor=True, row_no=0, **events)], ignore_index=True)
    order = np.lexsort((frame["row_no"], frame["nav_date"], frame["fund_code"].to_numpy(dtype=str)))
    frame = frame.iloc[order].reset_index(drop=True)
    return frame.assign(category=frame["fund_code"].map(categories).astype(object).fillna("other"))


def _usable(frame: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that one can calculate with, and rows that stood for a NAV but cannot be used.

    Usable: dated, a credible NAV, alone with their fund and date or the first of equal rows.
    """
    keyed = frame["nav_date"].notna() & frame["defect"].isna()
    credible = (keyed & (frame["unit_nav"] >= SMALLEST) & (frame["unit_nav"] < LARGEST)).to_numpy(dtype=bool)
    _, repeated = duplicate(frame, None)
    _, disputed = conflict(frame, None)
    usable = credible & ~repeated & ~disputed
    money = (frame["unit_nav"].isna() & frame["income_per_10k"].notna()).to_numpy(dtype=bool)
    return usable, ~usable & ~repeated & ~money


def _apply_rules(
    frame: pd.DataFrame, context: Context
) -> tuple[list[RuleResult], NDArray[Any], NDArray[np.bool_]]:
    """Results per rule, the failed error rules of each row ("" for none), and the repeated rows."""
    results = []
    reasons = np.full(len(frame), "", dtype=object)
    repeats = np.zeros(len(frame), dtype=bool)
    for rule in RULES:
        checked, failed = rule.check(frame, context)
        failed = failed & checked
        if rule.id == "duplicate":
            repeats = failed
        if rule.severity == "error":
            reasons[failed] = [f"{text},{rule.id}".lstrip(",") for text in reasons[failed]]
        samples = [_sample(frame.iloc[at]) for at in np.flatnonzero(failed)[:SAMPLES]]
        results.append(RuleResult(rule.id, rule.severity, int(checked.sum()), int(failed.sum()), samples))
    return results, reasons, repeats


def _sample(row: Any) -> str:
    day = "" if pd.isna(row["nav_date"]) else row["nav_date"].date().isoformat()
    values = " ".join(f"{name}={row[name]:g}" for name in nav_store.NUMBERS if not pd.isna(row[name]))
    where = " ".join(text for text in (row["origin"], row["defect"]) if isinstance(text, str))
    return " ".join(part for part in (row["fund_code"], day, values, where) if part)


def _gates(
    believed: int, held: int, total: int, before: Sequence[int], thresholds: Thresholds
) -> Iterator[RuleResult]:
    """On a latest batch: far thinner than those `before`, or mostly wrong, it is a broken reply."""
    usual = median(before) if before else 0
    if usual:
        needed = thresholds.share_of_last_batch
        figures = f"{believed} sound rows, {believed / usual:.1%} of the usual {usual:g}; at least {needed:.0%} needed"
        yield RuleResult(GATE, "gate", 1, int(believed < needed * usual), [figures])
    allowed = thresholds.share_quarantined_limit
    figures = f"{held} of {total} rows quarantined; at most {allowed:.0%} allowed"
    yield RuleResult(HELD_GATE, "gate", 1, int(held > allowed * total), [figures])


def _events(frame: pd.DataFrame, series: Series, believed: NDArray[np.bool_]) -> pd.DataFrame:
    """Dividends and splits of the believed rows, on the date the NAV shows them."""
    parts = []
    mine = believed & ~frame["anchor"].to_numpy(dtype=bool)
    evidence = np.where(series.announced, "announced", np.where(series.implied, "implied", "published"))
    for kind, seen, known in (
        ("dividend", series.dividend, frame["known_dividend"].where(frame["known_dividend"] > 0)),
        ("split", series.split_ratio, frame["known_split"].where(frame["known_split"] != 1)),
    ):
        values = np.where(series.announced, known.to_numpy(dtype=float), seen)
        at = mine & ~np.isnan(values)
        parts.append(
            pd.DataFrame(
                {
                    "fund_code": frame.loc[at, "fund_code"],
                    "ex_date": frame.loc[at, "nav_date"],
                    "kind": kind,
                    "value": values[at],
                    "evidence": evidence[at],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _dropped_events(frame: pd.DataFrame, series: Series, believed: NDArray[np.bool_]) -> pd.DataFrame:
    """Funds and dates whose event is not in the NAV of that date, as far as the next row is believed."""
    dropped = series.dropped & believed
    dropped[series.previous[series.moved & ~believed]] = False
    return frame.loc[dropped, ["fund_code", "nav_date"]].rename(columns={"nav_date": "ex_date"})


def _store_results(connection: Connection, checked: Checked) -> None:
    connection.execute(delete(rule_result).where(rule_result.c.batch_id == checked.batch_id))
    connection.execute(
        insert(rule_result),
        [
            {
                "batch_id": checked.batch_id,
                "rule_id": result.rule_id,
                "severity": result.severity,
                "checked": result.checked,
                "failed": result.failed,
                "detail": json.dumps(result.samples, ensure_ascii=False),
            }
            for result in checked.results
        ],
    )
