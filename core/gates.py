"""The gates: what a night's batch as a whole must show before anything of it is merged. Pure.

A gate of severity "gate" that fails stops the batch; one of severity "partial" lets it pass and makes the
night PARTIAL. Every figure is kept, failed or not: tonight's are the yardstick of the nights to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.background import Background
from core.fund_category import CATEGORIES
from core.judging import RuleResult, Verdicts
from core.peer_rules import is_moving

COVERAGE, HELD, PAGE_CAP = "coverage", "quarantined_share", "page_cap"
UNCHANGED, REPEATED, BLANK = "unchanged_share", "repeated_share", "blank_share"
CATEGORY = "coverage."  # followed by the category
PAGE = 5_000  # every page size the upstream has ever cut at is a multiple of it
LAGS = 6  # sessions that the slowest funds are behind
ON_TIME = 0.8  # a category's own lag: by then so many of its funds have usually published
FEWEST_NIGHTS = 3
FEWEST_FUNDS = 10
FEWEST_ROWS = 20
NEAR = 0.005


@dataclass(frozen=True)
class Nights:
    """The newest merged latest batches of a source, newest first."""

    believed: Sequence[int] = ()
    by_category: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)  # see category_figures
    blank: Sequence[float] = ()  # shares of returns left blank


def gates(
    verdicts: Verdicts, background: Background, business_date: date, nights: Nights
) -> list[RuleResult]:
    """Every gate on a latest batch, with its figures."""
    held = verdicts.reasons != ""
    total = int((~verdicts.frame["anchor"]).sum())
    believed = total - int((held | verdicts.repeats).sum())
    thresholds = background.thresholds
    found = [
        *_size(believed, nights, thresholds.share_of_last_batch),
        _held_share(int(held.sum()), total, thresholds.share_quarantined_limit),
        _page_cap(verdicts, nights),
        _share(
            UNCHANGED,
            *_unchanged(verdicts),
            thresholds.share_unchanged,
            "{} of {} NAVs are those of the row before",
        ),
        _share(
            REPEATED,
            *_repeated(verdicts),
            thresholds.share_repeated,
            "{} of {} returns are those of the row before",
        ),
    ]
    text = "{} of {} returns are blank that were published the row before"
    blank = _share(BLANK, *_blank(verdicts), thresholds.share_blank, text)
    if not nights.blank or median(nights.blank) > thresholds.share_blank:  # a source that knows no returns
        blank = replace(blank, failed=0)
    found.append(blank)
    figures = category_figures(verdicts, ~held, background.sessions, business_date)
    nothing = [0] * (LAGS + 1)  # of a category that came every night but this
    return found + [
        _category(
            name,
            figures.get(name, nothing),
            nights.by_category.get(name, ()),
            thresholds.share_of_category,
        )
        for name in sorted({*figures, *nights.by_category})
    ]


def _size(believed: int, nights: Nights, needed: float) -> Iterator[RuleResult]:
    usual = median(nights.believed) if nights.believed else 0
    if usual:
        text = f"{believed} sound rows, {believed / usual:.1%} of the usual {usual:g}; at least {needed:.0%} needed"
        figures = {"count": believed, "usual": usual, "needed": needed}
        yield RuleResult(COVERAGE, "gate", 1, int(believed < needed * usual), [text], figures=figures)


def _share(gate: str, count: int, total: int, allowed: float, text: str) -> RuleResult:
    figures = {"count": count, "total": total, "allowed": allowed}
    said = f"{text.format(count, total)}; at most {allowed:.0%} allowed"
    return RuleResult(gate, "gate", 1, int(count > allowed * total), [said], figures=figures)


def _held_share(held: int, total: int, allowed: float) -> RuleResult:
    """Of a handful of rows one alone may be a large share: then most of them must be wrong."""
    most = allowed if total >= FEWEST_ROWS else max(allowed, 0.5)
    return _share(HELD, held, total, most, "{} of {} rows quarantined")


def _page_cap(verdicts: Verdicts, nights: Nights) -> RuleResult:
    """A round number of rows, far from the usual: one page taken for the market."""
    frame = verdicts.frame[~verdicts.frame["anchor"]]
    money = int(frame["income_per_10k"].notna().sum())
    counts = {"all": len(frame), "nav": len(frame) - money, "money": money}
    usual = median(nights.believed) if nights.believed else 0
    round_ = [f"{name} {count}" for name, count in counts.items() if count and count % PAGE == 0]
    alike = bool(usual) and abs(len(frame) - usual) <= NEAR * usual
    text = f"{', '.join(round_) or 'no'} rows are a whole number of pages of {PAGE}"
    return RuleResult(PAGE_CAP, "gate", 1, int(bool(round_) and not alike), [text], figures=dict(counts))


def _unchanged(verdicts: Verdicts) -> tuple[int, int]:
    """NAVs of market-driven funds that repeat the row before, and how many there are."""
    series = verdicts.series
    mine = series.judged & (series.sessions_since > 0) & is_moving(verdicts.frame) & series.was_moving
    return _enough(int((mine & series.unchanged).sum()), int(mine.sum()))


def _repeated(verdicts: Verdicts) -> tuple[int, int]:
    """Published returns, not zero, that equal those of the row before."""
    series, published = verdicts.series, verdicts.frame["daily_return"].to_numpy(dtype=float)
    before = np.where(series.previous >= 0, published[series.previous], np.nan)
    mine = is_moving(verdicts.frame) & (
        series.judged
        & (series.sessions_since > 0)
        & ~np.isnan(before)
        & (published != 0)
        & ~np.isnan(published)
    )
    return _enough(int((mine & (published == before)).sum()), int(mine.sum()))


def _blank(verdicts: Verdicts) -> tuple[int, int]:
    """Returns left blank by funds that published one in the row before."""
    series, published = verdicts.series, verdicts.frame["daily_return"].to_numpy(dtype=float)
    before = np.where(series.previous >= 0, published[series.previous], np.nan)
    mine = series.judged & ~np.isnan(before)
    return _enough(int((mine & np.isnan(published)).sum()), int(mine.sum()))


def _enough(count: int, total: int) -> tuple[int, int]:
    return (count, total) if total >= FEWEST_ROWS else (0, total)


def category_figures(
    verdicts: Verdicts, believed: NDArray[np.bool_], sessions: NDArray[np.datetime64], business_date: date
) -> dict[str, list[int]]:
    """Of each category how many funds have published for the business date, or for it or the session before, …

    LAGS counts, the last one of all funds that are at most LAGS - 1 sessions behind, and then all its funds.
    """
    frame = verdicts.frame
    mine = ~frame["anchor"].to_numpy(dtype=bool) & believed & frame["nav_date"].notna().to_numpy(dtype=bool)
    day = frame["nav_date"].to_numpy()[mine].astype("datetime64[D]")
    at = int(np.searchsorted(sessions, np.datetime64(business_date), side="right")) - 1
    behind = at - (np.searchsorted(sessions, day, side="right") - 1)
    found: dict[str, list[int]] = {}
    kind = frame["category"].cat.codes.to_numpy()[mine]
    for number in np.unique(kind).tolist():
        lags = np.maximum(behind[kind == number], 0)
        counts = np.bincount(np.minimum(lags, LAGS), minlength=LAGS + 1)[:LAGS]
        found[CATEGORIES[number]] = [*np.cumsum(counts).tolist(), len(lags)]
    return found


def _category(name: str, counts: list[int], nights: Sequence[Sequence[int]], needed: float) -> RuleResult:
    """A category against what it had usually published by this time of the night, at its own lag."""
    figures: dict[str, Any] = {"category": name, "counts": counts}
    if len(nights) < FEWEST_NIGHTS:
        text = f"{name}: {counts[0]} of {counts[-1]} funds are up to date; too few nights to compare with"
        return RuleResult(CATEGORY + name, "partial", 0, 0, [text], figures=figures)
    usual = [median(night[at] for night in nights) for at in range(LAGS + 1)]
    lag = next((at for at in range(LAGS) if usual[at] >= ON_TIME * usual[-1]), LAGS - 1)
    thin = usual[-1] >= FEWEST_FUNDS and counts[lag] < needed * usual[lag]
    text = f"{name}: {counts[lag]} funds at most {lag} sessions behind, usually {usual[lag]:g}"
    text += f"; at least {needed:.0%} needed"
    figures |= {"lag": lag, "count": counts[lag], "usual": usual[lag], "needed": needed}
    return RuleResult(CATEGORY + name, "partial", 1, int(thin), [text], figures=figures)
