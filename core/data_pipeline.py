"""DataPipeline: staging -> rules -> quarantine and merge. The only way into fund_nav."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, delete, insert

from core import db, merge, nav_store
from core.errors import NotReady
from core.rules import GATE, NAV_CEILING, RULES, Context, Thresholds, conflict, duplicate, return_limits
from core.schema import rule_result
from core.series import Series, explain
from core.sources.base import NavRow
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

    @property
    def is_valid(self) -> bool:
        """Whether the batch as a whole may be merged (its held rows aside)."""
        return not any(result.severity == "gate" and result.failed for result in self.results)


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


class DataPipeline:
    """Judges staged batches and merges what can be believed."""

    def __init__(self, engine: Engine, thresholds: Thresholds, calendar: TradingCalendar) -> None:
        self.engine = engine
        self.thresholds = thresholds
        self.sessions = np.array(calendar.sessions, dtype="datetime64[D]")

    def process_nav_data(
        self, batch_id: int, now: datetime, rows: Sequence[NavRow] | None = None
    ) -> NavResult:
        """Check and merge one batch in a transaction of its own. `rows`: the staged rows, if at hand."""
        checked = self.check(batch_id, now, rows)
        with db.write(self.engine) as connection:
            return self.merge(connection, checked, now)

    def check(self, batch_id: int, now: datetime, rows: Sequence[NavRow] | None = None) -> Checked:
        """Apply every rule. Reads only. Raises NotReady for an unknown batch or one already judged."""
        with db.read(self.engine) as connection:
            batch = nav_store.find_batch(connection, batch_id)
            if batch is None or batch.status != "STAGED":
                state = "does not exist" if batch is None else f"is {batch.status} already"
                raise NotReady(f"batch {batch_id} {state}")
            staged = (
                nav_store.read_batch(connection, batch_id) if rows is None else nav_store.frame_of_rows(rows)
            )
            anchors = nav_store.read_anchors(connection, batch_id)
            categories = nav_store.known_funds(connection)
            last_good = nav_store.last_good_row_count(connection) if batch.kind == "latest" else None
        today = now.astimezone(SHANGHAI).date()
        found = judge(staged, anchors, categories, self.sessions, self.thresholds, today)
        frame, held, results = found.frame, found.reasons != "", found.results
        if last_good is not None:
            results.append(_coverage_gate(batch.row_count, last_good, self.thresholds))
        return Checked(
            batch_id=batch_id,
            source=batch.source,
            total=len(staged),
            results=results,
            held=frame[held].assign(reasons=found.reasons[held]),
            repeats=frame.loc[found.repeats & ~held, "row_no"].tolist(),
            events=_events(frame, found.series, ~held),
        )

    def merge(self, connection: Connection, checked: Checked, now: datetime) -> NavResult:
        """Write the verdict and, unless a gate failed, merge; in the caller's transaction."""
        batch_id = checked.batch_id
        _store_results(connection, checked)
        passed = [result.rule_id for result in checked.results if not result.failed]
        failed = [result.rule_id for result in checked.results if result.failed]
        if not checked.is_valid:
            nav_store.decide_batch(connection, batch_id, "REJECTED", now)
            gates = [text for r in checked.results if r.severity == "gate" and r.failed for text in r.samples]
            return NavResult(
                batch_id,
                False,
                passed,
                failed,
                checked.total,
                reason="; ".join(gates),
                details=checked.results,
            )
        merge.hold(connection, batch_id, checked.source, checked.held, now)
        merge.drop_repeats(connection, batch_id, checked.repeats)
        merged = merge.merge(connection, batch_id, now)
        events = merge.save_events(connection, batch_id, checked.events)
        nav_store.decide_batch(connection, batch_id, "MERGED", now)
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
            details=checked.results,
        )


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
) -> Verdicts:
    """Apply every row rule to staged rows, given the believed rows before them. Pure.

    `staged` as nav_store.frame_of_rows gives it, `anchors` as nav_store.read_anchors; `categories` by
    fund code; `sessions` sorted trading days; `today` the Shanghai date of the moment of judging.
    """
    frame = _in_order(staged, anchors, categories)
    frame = frame.assign(limit=return_limits(frame["category"], thresholds))
    usable, lost = _usable(frame)
    series = explain(frame, usable, lost, sessions)
    results, reasons, repeats = _apply_rules(frame, Context(today, thresholds, series))
    return Verdicts(frame, series, results, reasons, repeats)


def _in_order(staged: pd.DataFrame, anchors: pd.DataFrame, categories: dict[str, str]) -> pd.DataFrame:
    """Staged rows and their anchors, by fund and date; undated rows last."""
    staged = staged.assign(anchor=False)
    frame = (
        pd.concat([staged, anchors.assign(anchor=True, row_no=0)], ignore_index=True)
        if len(anchors)
        else staged
    )
    order = np.lexsort((frame["row_no"], frame["nav_date"], frame["fund_code"].to_numpy(dtype=str)))
    frame = frame.iloc[order].reset_index(drop=True)
    return frame.assign(category=frame["fund_code"].map(categories).astype(object).fillna("other"))


def _usable(frame: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that one can calculate with, and rows that stood for a NAV but cannot be used.

    Usable: dated, a credible NAV, alone with their fund and date or the first of equal rows.
    """
    keyed = frame["nav_date"].notna() & frame["defect"].isna()
    credible = (keyed & (frame["unit_nav"] > 0) & (frame["unit_nav"] < NAV_CEILING)).to_numpy(dtype=bool)
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


def _coverage_gate(rows: int, last_good: int, thresholds: Thresholds) -> RuleResult:
    """A latest batch far thinner than the last good one is a broken reply, not a quiet night."""
    thin = rows < thresholds.share_of_last_batch * last_good
    figures = f"{rows} rows, {rows / last_good:.1%} of the {last_good} of the last good batch"
    return RuleResult(
        GATE, "gate", 1, int(thin), [f"{figures}; at least {thresholds.share_of_last_batch:.0%} needed"]
    )


def _events(frame: pd.DataFrame, series: Series, believed: NDArray[np.bool_]) -> pd.DataFrame:
    """Dividends and splits of the believed rows, on the date the NAV shows them."""
    parts = []
    for kind, values in (("dividend", series.dividend), ("split", series.split_ratio)):
        at = believed & ~frame["anchor"].to_numpy(dtype=bool) & ~np.isnan(values)
        parts.append(
            pd.DataFrame(
                {
                    "fund_code": frame.loc[at, "fund_code"],
                    "ex_date": frame.loc[at, "nav_date"],
                    "kind": kind,
                    "value": values[at],
                    "evidence": np.where(series.implied[at], "implied", "published"),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


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
