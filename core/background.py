"""What is known beside a batch when its rows are judged. Read once, passed down; the rules read nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.thresholds import Thresholds

if TYPE_CHECKING:
    import pandas as pd

Days = NDArray[np.datetime64]
Rejected = tuple[str, date, float, float | None]  # fund, date, unit NAV and accumulated NAV
CURRENCY = re.compile(r"[(（]?(?:人民币|美元|美钞|美汇|现汇|现钞|港币|后端|前端)份?额?[)）]?$")
FOREIGN = re.compile(r"美元|美钞|美汇|现汇|现钞|港币")
CLASS = re.compile(r"(?<=[^\x00-\x7f)）])[(（]?[A-Z][)）]?[类级]?$")


@dataclass(frozen=True)
class FundFacts:
    """What the fund list says of one fund."""

    category: str = "other"
    name: str = ""
    inception: date | None = None


@dataclass(frozen=True)
class Background:
    """The frames have one row per staged row they say something of, named by `row_no`; None for nothing known."""

    today: date  # Shanghai date of the moment of judging
    thresholds: Thresholds
    sessions: Days  # trading days, sorted
    funds: dict[str, FundFacts] = field(default_factory=dict)  # empty: the universe is not known
    events: pd.DataFrame | None = None  # row_no, dividend, split_ratio: events on record
    stored: pd.DataFrame | None = None  # row_no, stored_unit, _accum, _return: values believed until now
    returns: pd.DataFrame | None = None  # category, nav_date, median, spread, fund_count
    second: pd.DataFrame | None = None  # row_no, second_unit: what another source says
    held: pd.DataFrame | None = (
        None  # row_no, held_unit, _day, _level: the newest row of the fund held before it
    )
    rejected: frozenset[Rejected] = frozenset()  # fund, date and NAV that somebody called wrong
    released: frozenset[int] = (
        frozenset()
    )  # row_no of rows somebody vouches for: error rules do not hold them


def currency_of(name: str) -> str:
    """In what a share class is counted: USD, HKD, or empty for yuan. Its NAV moves with the exchange rate as well."""
    if FOREIGN.search(name) is None:
        return ""
    return "HKD" if "港" in name else "USD"


@lru_cache(maxsize=65_536)  # a market's names, the same every night
def family_of(name: str) -> str:
    """The fund a share class belongs to: its name without the class, its currency and how fees are paid.

    华夏成长混合A, 华夏成长混合C, 华夏成长混合(后端) and 华夏成长混合A美元现汇 are one fund. Empty for an empty name.
    """
    before = ""
    while name != before:
        before = name
        name = CURRENCY.sub("", name).strip()
        name = CLASS.sub("", name) or before
    return name
