"""What the market faults do to a market: from a fault's options to what the view shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import numpy as np

from core.standin.faults import Fault
from core.standin.market import Altered, Market
from core.standin.periods import EPOCH

REVISABLE = ("unit_nav", "accum_nav", "daily_return")


def _late(altered: Altered, market: Market, fault: Fault) -> Altered:
    return replace(altered, late={**altered.late, **_late_minutes(market, fault)})


def _revised(altered: Altered, market: Market, fault: Fault) -> Altered:
    row, values = _revision(market, fault)
    return replace(altered, revised={**altered.revised, row: {**altered.revised.get(row, {}), **values}})


def _status(altered: Altered, market: Market, fault: Fault) -> Altered:
    words = fault.options.get("purchase"), fault.options.get("redemption")
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"status needs purchase and redemption as texts, got {words!r}")
    new = dict.fromkeys(_codes(market, fault), (str(words[0]), str(words[1])))
    return replace(altered, statuses={**altered.statuses, **new})


def _delisted(altered: Altered, market: Market, fault: Fault) -> Altered:
    return replace(altered, delisted=altered.delisted | set(_codes(market, fault)))


def _without_accum(altered: Altered, market: Market, fault: Fault) -> Altered:
    return replace(altered, without_accum=altered.without_accum | set(_codes(market, fault)))


ALTERATIONS: dict[str, Callable[[Altered, Market, Fault], Altered]] = {
    "late": _late,
    "revised": _revised,
    "status": _status,
    "delisted": _delisted,
    "no_accum": _without_accum,
}


def _codes(market: Market, fault: Fault) -> list[str]:
    """The funds a fault is about: option `fund_codes`, all where there is none."""
    codes = fault.options.get("fund_codes")
    chosen = list(market.index_of) if codes is None else codes
    if not isinstance(chosen, (list, tuple)) or not set(chosen) <= market.index_of.keys():
        raise ValueError(f"{fault.kind} needs fund_codes as a list of codes of this market, got {codes!r}")
    return [str(code) for code in chosen]


def _late_minutes(market: Market, fault: Fault) -> dict[str, int]:
    hours = fault.options.get("hours")
    if not isinstance(hours, (int, float)):
        raise ValueError(f"late needs hours as a number, got {hours!r}")
    return {code: int(timedelta(hours=hours).total_seconds() // 60) for code in _codes(market, fault)}


def _revision(market: Market, fault: Fault) -> tuple[int, dict[str, float]]:
    code, day = fault.options.get("fund_code"), fault.options.get("date")
    values = {k: float(v) for k, v in fault.options.items() if k in REVISABLE and isinstance(v, (int, float))}
    if not values or code not in market.index_of or not isinstance(day, str):
        raise ValueError(
            f"revised needs fund_code, date and one of {', '.join(REVISABLE)}, got {fault.options}"
        )
    fund = market.index_of[str(code)]
    low, high = int(market.offsets[fund]), int(market.offsets[fund + 1])
    wanted = date.fromisoformat(day).toordinal() - EPOCH
    found = low + int(np.searchsorted(market.dates[low:high], wanted))
    if found == high or int(market.dates[found]) != wanted:
        raise ValueError(f"fund {code} has no row on {day}")
    return found, values
