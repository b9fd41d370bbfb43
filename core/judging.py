"""Every rule on a batch: staged rows and what stands before them in, a verdict a row out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.background import Background, FundFacts, Rejected, currency_of, family_of
from core.fund_category import CATEGORIES
from core.nav_store import NUMBERS
from core.peer_rules import category_returns
from core.quarantine import holds_level
from core.rules import RULES, Context, conflict, duplicate
from core.series import LARGEST, SMALLEST, Series, explain

SAMPLES = 5
KINDS = {category: number for number, category in enumerate(CATEGORIES)}
OTHER = KINDS["other"]
UNKNOWN = FundFacts()


@dataclass(frozen=True)
class RuleResult:
    rule_id: str
    severity: str
    checked: int
    failed: int
    samples: list[str]
    version: int = 1
    figures: dict[str, Any] | None = None  # of a gate


class Verdicts(NamedTuple):
    """What the row rules say of a batch; arrays of the frame's length."""

    frame: pd.DataFrame  # staged rows and anchors by fund and date
    series: Series
    results: list[RuleResult]
    reasons: NDArray[Any]  # the failed error rules, comma-separated; "" for none
    repeats: NDArray[np.bool_]
    returns: pd.DataFrame  # what peers did: category, nav_date, median, spread, fund_count


def judge(staged: pd.DataFrame, anchors: pd.DataFrame, background: Background) -> Verdicts:
    """Apply every row rule to staged rows, given the believed rows before (and among) them.

    `staged` as nav_frames.frame_of_rows gives it, `anchors` as nav_frames.read_anchors: context, never judged.
    """
    frame = _in_order(_with_background(staged, background), anchors)
    frame = _with_facts(frame, background)
    usable, lost = _usable(frame)
    series = explain(frame, usable, lost, background.sessions)
    returns = category_returns(frame, series, background.returns)
    context = Context(background, series, returns)
    results, reasons, repeats = _apply_rules(frame, context)
    last = _behind_last(reasons, series)
    reasons[last] = "behind_held"
    results = [
        _with_more(result, frame, last) if result.rule_id == "behind_held" else result for result in results
    ]
    reasons[_believed_as_it_is(frame)] = ""
    if background.released:
        reasons[frame["row_no"].isin(list(background.released)).to_numpy(dtype=bool)] = ""
    return Verdicts(frame, series, results, reasons, repeats, returns)


def _with_more(result: RuleResult, frame: pd.DataFrame, failed: NDArray[np.int64]) -> RuleResult:
    """The result of a rule that these rows fail as well."""
    samples = [*result.samples, *(_sample(frame.iloc[at]) for at in failed)][:SAMPLES]
    count = len(failed)
    return replace(result, checked=result.checked + count, failed=result.failed + count, samples=samples)


def _behind_last(reasons: NDArray[Any], series: Series) -> NDArray[np.int64]:
    """The newest rows of funds that go on from a level held in this very batch, with no second row to prove it.

    On nights of their own they would wait as well.
    """
    at = np.flatnonzero(series.previous >= 0)
    before = series.previous[at]
    followed = np.zeros(len(reasons), dtype=bool)
    followed[before] = True
    explained = series.return_explained & series.return_checked
    last = (reasons[at] == "") & (reasons[before] != "") & ~followed[at] & explained[at] & series.judged[at]
    level = np.array([holds_level(text) for text in reasons[before[last]]], dtype=bool)
    return np.asarray(at[last][level] if last.any() else at[:0])


def _believed_as_it_is(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows that say again what is believed already, and no more: no rule can take that back."""
    same = (frame["unit_nav"] == frame["stored_unit"]).to_numpy(dtype=bool, copy=True)
    for name, stored in (("accum_nav", "stored_accum"), ("daily_return", "stored_return")):
        same &= (frame[name].isna() | (frame[name] == frame[stored])).to_numpy(dtype=bool)
    return same & frame[["dividend", "split_ratio"]].isna().all(axis=1).to_numpy(dtype=bool)


def _with_background(staged: pd.DataFrame, background: Background) -> pd.DataFrame:
    """Beside the rows what else is known of their fund and date.

    Of events those the rows name or, where they name none, those on record.
    """
    known = staged[["row_no", "dividend", "split_ratio"]].set_index("row_no")
    events = background.events
    if events is not None and len(events):
        silent = known.isna().all(axis=1)
        known[silent] = events.set_index("row_no").reindex(known.index[silent])
    columns = {
        "known_dividend": known["dividend"].to_numpy(dtype=float),
        "known_split": known["split_ratio"].to_numpy(dtype=float),
    }
    for frame, names in (
        (background.stored, ("stored_unit", "stored_accum", "stored_return")),
        (background.second, ("second_unit",)),
        (background.held, ("held_unit", "held_day", "held_level")),
    ):
        for name in names:
            if frame is None or frame.empty:
                columns[name] = np.full(len(staged), np.nan)
            else:
                columns[name] = (
                    frame.set_index("row_no")[name].reindex(staged["row_no"]).to_numpy(dtype=float)
                )
    return staged.assign(**columns, rejected=_rejected(staged, background.rejected))


def _rejected(staged: pd.DataFrame, rejected: frozenset[Rejected]) -> NDArray[np.bool_]:
    """Rows that somebody has called wrong."""
    found = np.zeros(len(staged), dtype=bool)
    if rejected:
        at = np.flatnonzero(staged["fund_code"].isin([code for code, *_values in rejected]))
        part = staged.iloc[at]
        keys = zip(*(part[name] for name in ("fund_code", "nav_date", "unit_nav", "accum_nav")), strict=True)
        found[at] = [
            not pd.isna(day) and (code, day.date(), unit, None if pd.isna(accum) else accum) in rejected
            for code, day, unit, accum in keys
        ]
    return found


def _in_order(staged: pd.DataFrame, anchors: pd.DataFrame) -> pd.DataFrame:
    """Staged rows and their anchors, by fund (numbered in `fund`) and date; undated rows last."""
    frame = staged.assign(anchor=False)
    if len(anchors):
        events = {"known_dividend": anchors["dividend"], "known_split": anchors["split_ratio"]}
        frame = pd.concat([frame, anchors.assign(anchor=True, row_no=0, **events)], ignore_index=True)
    fund, _codes = pd.factorize(frame["fund_code"], sort=True)
    day = frame["nav_date"].to_numpy().astype("datetime64[D]").astype(np.int64)
    day = np.where(frame["nav_date"].isna().to_numpy(), np.iinfo(np.int64).max, day)
    order = np.lexsort((frame["row_no"].to_numpy(), day, fund))
    return frame.assign(fund=fund).iloc[order].reset_index(drop=True)


def _with_facts(frame: pd.DataFrame, background: Background) -> pd.DataFrame:
    """Beside the rows what the fund list says of their fund."""
    fund = frame["fund"].to_numpy()
    starts = np.flatnonzero(np.diff(fund, prepend=-1))
    codes = frame["fund_code"].to_numpy()[starts]
    facts = [background.funds.get(code, UNKNOWN) for code in codes]
    limits = background.thresholds.return_limit
    families = [
        f"{fact.category} {family_of(fact.name)}" if fact.name else code
        for code, fact in zip(codes, facts, strict=True)
    ]
    at = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(fund))))

    def spread(values: Any, kind: Any) -> Any:
        return np.array(values, dtype=kind)[at]

    return frame.assign(
        category=pd.Categorical.from_codes(
            spread([KINDS.get(fact.category, OTHER) for fact in facts], np.int8),
            categories=pd.Index(CATEGORIES),
        ),
        limit=spread([limits.get(fact.category, limits["other"]) for fact in facts], float),
        inception=spread([fact.inception for fact in facts], "datetime64[D]").astype("datetime64[s]"),
        listed=spread([not background.funds or code in background.funds for code in codes], bool),
        currency=spread(
            pd.factorize(np.array([currency_of(fact.name) for fact in facts], dtype=object))[0], np.int64
        ),
        family=spread(pd.factorize(np.array(families, dtype=object))[0], np.int64),
    )


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
        counts = int(checked.sum()), int(failed.sum())
        results.append(RuleResult(rule.id, rule.severity, *counts, samples, rule.version))
    return results, reasons, repeats


def _sample(row: Any) -> str:
    day = "" if pd.isna(row["nav_date"]) else row["nav_date"].date().isoformat()
    values = " ".join(f"{name}={row[name]:g}" for name in NUMBERS if not pd.isna(row[name]))
    where = " ".join(text for text in (row["origin"], row["defect"]) if isinstance(text, str))
    return " ".join(part for part in (row["fund_code"], day, values, where) if part)


def events_of(verdicts: Verdicts, believed: NDArray[np.bool_]) -> pd.DataFrame:
    """Dividends and splits of the believed rows, on the date the NAV shows them."""
    frame, series = verdicts.frame, verdicts.series
    parts = []
    mine = believed & ~frame["anchor"].to_numpy(dtype=bool)
    evidence = np.where(series.announced, "announced", np.where(series.implied, "implied", "published"))
    for kind, seen, known in (
        ("dividend", series.dividend, frame["known_dividend"].where(frame["known_dividend"] > 0)),
        (
            "split",
            series.split_ratio,
            frame["known_split"].where((frame["known_split"] > 0) & (frame["known_split"] != 1)),
        ),
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


def dropped_events(frame: pd.DataFrame, series: Series, believed: NDArray[np.bool_]) -> pd.DataFrame:
    """Funds and dates whose event is not in the NAV of that date, as far as the next row is believed."""
    dropped = series.dropped & believed
    dropped[series.previous[series.moved & ~believed]] = False
    return frame.loc[dropped, ["fund_code", "nav_date"]].rename(columns={"nav_date": "ex_date"})
