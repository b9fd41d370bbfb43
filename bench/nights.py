"""Recorded nights: what one evening would have brought, what was believed by then, and the verdict on it.

A night for the day D has the newest row of every fund that is at most ten days older than D, each with its
own date. Believed are all recorded rows before that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.recording import NUMBERS, Days, Ints, Recording, key_of
from config.settings import ROOT
from core import gates
from core.background import Background, FundFacts, family_of
from core.judging import RuleResult, Verdicts, judge
from core.nav_frames import ANCHORS
from core.thresholds import Thresholds, load_thresholds
from core.trading_calendar import library_sessions

NEWEST = 10  # days: an older newest row belongs to a fund that is gone or far behind
WEEKS_OF_INCOMES = 14  # rows of a money fund before the night's, as nav_frames.read_anchors
PEER_DAYS = 12  # of which the returns of peers are known
NIGHTS_BEFORE = 20


@dataclass(frozen=True)
class Setting:
    """What does not change from night to night."""

    recording: Recording
    thresholds: Thresholds
    sessions: Days


def setting(recording: Recording) -> Setting:
    thresholds = load_thresholds(ROOT / "config" / "rules.toml")
    return Setting(recording, thresholds, np.array(library_sessions(), dtype="datetime64[D]"))


class Ruling(NamedTuple):
    verdicts: Verdicts
    gates: list[RuleResult]

    @property
    def stopped(self) -> list[str]:
        """The gates that refuse the batch."""
        return [gate.rule_id for gate in self.gates if gate.severity == "gate" and gate.failed]

    @property
    def partial(self) -> list[str]:
        """The gates that make the night PARTIAL."""
        return [gate.rule_id for gate in self.gates if gate.severity == "partial" and gate.failed]

    @property
    def held(self) -> dict[int, str]:
        """Reasons of the held rows by row_no."""
        frame, reasons = self.verdicts.frame, self.verdicts.reasons
        mine = (reasons != "") & ~frame["anchor"].to_numpy(dtype=bool)
        return dict(zip(frame["row_no"].to_numpy()[mine].tolist(), reasons[mine].tolist(), strict=True))


class Night:
    """Positions are those of `staged`; `before` is the row before each.

    `rows`: so many rows, by repeating the night under unused codes and cutting it there; for tests of
    gates that need a larger market than the recorded one.
    """

    def __init__(self, setting: Setting, day: date, rows: int | None = None) -> None:
        self.setting, self.day = setting, day
        recording = setting.recording
        self.funds: dict[str, FundFacts] = recording.facts
        self.origin: dict[str, int] = recording.number
        at = _newest(recording, day)
        codes = recording.frame["fund_code"].to_numpy()[at]
        if rows is not None:
            at, codes = self._repeated(at, codes, rows)
        self.at = at
        self.staged = recording.frame.iloc[at].reset_index(drop=True)
        self.staged["fund_code"] = pd.Series(codes, dtype=object)
        self.staged["row_no"] = np.arange(1, len(at) + 1, dtype=np.int64)
        self.before = self.back(1)
        self.category = np.array([self.funds[code].category for code in codes], dtype=object)

    def _repeated(self, at: Ints, codes: NDArray[np.object_], rows: int) -> tuple[Ints, NDArray[np.object_]]:
        free = (code for code in (f"{n:06d}" for n in range(600_000, 700_000)) if code not in self.funds)
        times = -(-rows // len(at))
        new = np.array([next(free) for _ in range((times - 1) * len(at))], dtype=object)
        old = np.tile(codes, times - 1)
        self.funds = self.funds | {n: self.funds[o] for n, o in zip(new, old, strict=True)}
        self.origin = self.origin | {n: self.origin[o] for n, o in zip(new, old, strict=True)}
        return np.tile(at, times)[:rows], np.concatenate([codes, new])[:rows]

    def back(self, rows: int) -> pd.DataFrame:
        """The row so many rows before each staged one; NaN and NaT where none is."""
        recording = self.setting.recording
        first = recording.start[np.searchsorted(recording.start, self.at, side="right") - 1]
        known = self.at - rows >= first
        frame = recording.frame.iloc[np.maximum(self.at - rows, 0)].reset_index(drop=True)
        frame["fund_code"] = self.staged["fund_code"]
        for name in (*NUMBERS, "nav_date"):
            frame[name] = frame[name].where(known)
        return frame

    @cached_property
    def sibling(self) -> Ints:
        """Position of another share class of the same fund with a NAV of the same date; -1 for none."""
        family = [family_of(self.funds[code].name) or code for code in self.staged["fund_code"]]
        days = self.staged["nav_date"].to_numpy().tolist()
        found = np.full(len(family), -1, dtype=np.int64)
        last: dict[tuple[str, object], int] = {}
        for row, (key, nav) in enumerate(
            zip(zip(family, days, strict=True), self.staged["unit_nav"], strict=True)
        ):
            if nav == nav:
                found[row] = last.get(key, -1)
                last[key] = row
        return found

    def truth_of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What the recording says of fund and date of each row, the NAV before it and whether it knows neither."""
        true, previous = self._lookup(frame)
        unknown = true < 0
        recording = self.setting.recording.frame
        found = recording[list(NUMBERS)].iloc[np.maximum(true, 0)].reset_index(drop=True)
        found["unit_before"] = recording["unit_nav"].to_numpy()[np.maximum(previous, 0)]
        found[unknown] = np.nan
        found.loc[previous < 0, "unit_before"] = np.nan
        return found.assign(unknown=unknown)

    def _lookup(self, frame: pd.DataFrame) -> tuple[Ints, Ints]:
        """Positions in the recording of each row's fund and date, and of the fund's row before; -1 for none."""
        recording = self.setting.recording
        fund = np.array([self.origin.get(code, -1) for code in frame["fund_code"]], dtype=np.int64)
        key = key_of(fund, frame["nav_date"])
        at = np.searchsorted(recording.key, key)
        same = (at < len(recording.key)) & (recording.key[np.minimum(at, len(recording.key) - 1)] == key)
        back = at - 1
        previous = (key >= 0) & (back >= recording.start[np.maximum(fund, 0)])
        return np.where(same & (key >= 0), at, -1), np.where(previous, back, -1)

    def anchors(self, frame: pd.DataFrame, stuck: Sequence[str] = ()) -> pd.DataFrame:
        """The believed rows of each fund from before its first row in the batch: ANCHORS, or fourteen of a money fund.

        Those of a stuck fund repeat the third row before.
        """
        first = frame[frame["nav_date"].notna()].groupby("fund_code", sort=True)["nav_date"].min()
        firsts = first.reset_index()
        _, previous = self._lookup(firsts)
        starts = self.setting.recording.start
        recording = self.setting.recording.frame
        money = recording["income_per_10k"].notna().to_numpy()
        parts = []
        for back in range(WEEKS_OF_INCOMES):
            at = previous - back
            begin = starts[np.searchsorted(starts, np.maximum(previous, 0), side="right") - 1]
            wanted = (previous >= 0) & (at >= begin)
            if back >= ANCHORS:
                wanted &= money[np.maximum(previous, 0)]
            codes = firsts["fund_code"].to_numpy()[wanted]
            part = recording.iloc[at[wanted]].reset_index(drop=True)
            part["fund_code"] = pd.Series(codes, dtype=object)
            still = np.isin(codes.astype(str), list(stuck)) & (back < 2)
            for name in ("unit_nav", "accum_nav"):
                third = recording[name].to_numpy()[np.maximum(previous[wanted] - 2, 0)]
                part[name] = np.where(still, third, part[name])
            part["daily_return"] = part["daily_return"].where(~still, 0.0)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)[["fund_code", "nav_date", *NUMBERS]]

    def background(self, frame: pd.DataFrame) -> Background:
        true, _ = self._lookup(frame)
        newest = self._newest_believed(frame)
        known = (true >= 0) & (true <= newest)
        recording = self.setting.recording.frame
        stored = pd.DataFrame(
            {
                "row_no": frame["row_no"].to_numpy()[known],
                "stored_unit": recording["unit_nav"].to_numpy()[true[known]],
                "stored_accum": recording["accum_nav"].to_numpy()[true[known]],
                "stored_return": recording["daily_return"].to_numpy()[true[known]],
            }
        )
        return Background(
            today=self.day,
            thresholds=self.setting.thresholds,
            sessions=self.setting.sessions,
            funds=self.funds,
            stored=stored,
            returns=self.peer_returns,
        )

    def _newest_believed(self, frame: pd.DataFrame) -> Ints:
        believed = dict(zip(self.staged["fund_code"], (self.at - 1).tolist(), strict=True))
        return np.array([believed.get(code, -1) for code in frame["fund_code"]], dtype=np.int64)

    @cached_property
    def peer_returns(self) -> pd.DataFrame:
        """What the categories did on the sessions before, as earlier nights left it."""
        recording = self.setting.recording.frame
        day = recording["nav_date"].to_numpy().astype("datetime64[D]")
        today = np.datetime64(self.day)
        rows = recording[(day > today - PEER_DAYS) & (day < today)]
        context = Background(self.day, self.setting.thresholds, self.setting.sessions, self.funds)
        return judge(rows, rows.iloc[:0][["fund_code", "nav_date", *NUMBERS]], context).returns

    @cached_property
    def clean(self) -> Ruling:
        """The verdict on the night as recorded."""
        return self.ruling(self.staged)

    def ruling(self, frame: pd.DataFrame, stuck: Sequence[str] = ()) -> Ruling:
        background = self.background(frame)
        verdicts = judge(frame, self.anchors(frame, stuck), background)
        return Ruling(verdicts, gates.gates(verdicts, background, self.day, self.history))

    @cached_property
    def history(self) -> gates.Nights:
        """Twenty nights like this one: the recording grows by a fund a day, a market that is complete does not."""
        background = self.background(self.staged)
        verdicts = judge(self.staged, self.anchors(self.staged), background)
        believed = verdicts.reasons == ""
        figures = gates.category_figures(verdicts, believed, background.sessions, self.day)
        count = int((believed & ~verdicts.frame["anchor"].to_numpy(dtype=bool)).sum())
        first = gates.gates(verdicts, background, self.day, gates.Nights())
        blank = next(gate.figures for gate in first if gate.rule_id == gates.BLANK)
        share = blank["count"] / max(blank["total"], 1) if blank else 0.0
        by_category = {name: [counts] * NIGHTS_BEFORE for name, counts in figures.items()}
        return gates.Nights([count] * NIGHTS_BEFORE, by_category, [share] * NIGHTS_BEFORE)


def _newest(recording: Recording, day: date) -> Ints:
    """Positions in the recording of every fund's newest row of that day."""
    number = np.arange(len(recording.codes))
    today = key_of(number, pd.Series(np.full(len(number), np.datetime64(day, "s"))))
    at = np.searchsorted(recording.key, today, side="right") - 1
    oldest = key_of(number, pd.Series(np.full(len(number), np.datetime64(day - timedelta(days=NEWEST), "s"))))
    good = (at >= recording.start[:-1]) & (recording.key[np.maximum(at, 0)] >= oldest)
    return np.asarray(at[good])


def pick_days(setting: Setting, count: int, rng: np.random.Generator, fewest: int = 500) -> list[date]:
    """So many different sessions of the recording, seeded, on which at least `fewest` funds have a row."""
    days, counts = np.unique(setting.recording.frame["nav_date"].to_numpy(), return_counts=True)
    sessions = days[(counts >= fewest) & np.isin(days.astype("datetime64[D]"), setting.sessions)]
    chosen = rng.choice(sessions, size=min(count, len(sessions)), replace=False)
    return sorted(chosen.astype("datetime64[D]").tolist())


def event_days(setting: Setting, column: str, count: int, rng: np.random.Generator) -> list[date]:
    """Sessions of the recording with at least one dividend or split, those with more of them likelier."""
    frame = setting.recording.frame
    days, counts = np.unique(frame.loc[frame[column].notna(), "nav_date"].to_numpy(), return_counts=True)
    mine = np.isin(days.astype("datetime64[D]"), setting.sessions)
    days, counts = days[mine], counts[mine]
    chosen = rng.choice(days, size=min(count, len(days)), replace=False, p=counts / counts.sum())
    return sorted(chosen.astype("datetime64[D]").tolist())
