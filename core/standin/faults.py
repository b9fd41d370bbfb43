"""Faults on demand: what can go wrong with a reply, how often, and what it does to rows and bytes."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from core.standin.formats import compact

KINDS = {
    "refused": "answer as upstream does without permission: ErrCode -999",
    "stall": "accept, then never answer until released or the client leaves",
    "reset": "reset the connection (RST) instead of answering",
    "truncated": "announce the whole body, send half of it, close",
    "truncated_page": "leave out the last tenth of a page's rows, keep the total",
    "extra_column": "one more column in every row, at option `at` (default: the end)",
    "missing_column": "one column less in every row: option `at` (default 4) or key `field`",
    "html_error": "an HTML page with status 200",
    "http_500": "status 500",
    "gb2312": "the reply in GB2312 instead of UTF-8",
    "bom": "a byte order mark before the reply",
    "empty_frame": "a well-formed reply without any row",
    "thin": "a well-formed reply of the first ten rows only",
    "late": "publication of `fund_codes` (default: all) is `hours` later, until the faults are deleted",
    "blank": "every row of a listing without its NAVs",
    "page_cap": "at most `rows` rows a page, whatever was asked for; the total stays",
    "clone": "one fund's rows, those of `fund_code`, whichever was asked for; with `echo` under the code asked for",
    "money_in_rank": "money funds in the open-end rank too, their income as unit NAV",
    "code": "Tushare's error `code` with the message `msg`",
    "status": "`fund_codes` (default: all) have the words `purchase` and `redemption`",
    "delisted": "`fund_codes` are in no list any more, only on their own pages",
    "no_accum": "`fund_codes` (default: all) have no accumulated NAV",
    "revised": "`fund_code` on `date` has `unit_nav`, `accum_nav` or `daily_return` of these values",
}
MARKET_KINDS = ("late", "revised", "status", "delisted", "no_accum")
THIN_ROWS = 10
T = TypeVar("T")
NAV_COLUMN = 4
NAV_KEYS = ("y", "DWJZ")
HTML_PAGE = (
    "<!DOCTYPE html><html><head><title>访问异常</title></head><body>系统繁忙，请稍后再试</body></html>"
)


@dataclass(frozen=True)
class Fault:
    """A fault for the next `times` requests (None: for ever) whose path contains `path`."""

    kind: str
    path: str = ""
    times: int | None = 1
    options: Mapping[str, object] = field(default_factory=dict)


def parse_fault(payload: Mapping[str, object]) -> Fault:
    """A fault from a control request's JSON object; raises ValueError saying what is wrong."""
    options = dict(payload)
    kind, path, times = options.pop("kind", None), options.pop("path", ""), options.pop("times", 1)
    if kind not in KINDS:
        raise ValueError(f"fault kind {kind!r} is not one of {', '.join(KINDS)}")
    if not isinstance(path, str):
        raise ValueError(f"fault path {path!r} is not a text")
    if times is not None and (not isinstance(times, int) or times < 1):
        raise ValueError(f"fault times {times!r} is neither a positive number nor null")
    if not isinstance(options.get("at", 0), int):
        raise ValueError(f"fault option at {options['at']!r} is not a number")
    return Fault(str(kind), path, times, options)


class FaultList:
    """The faults in force, shared by the threads of a server."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Put a fault in force, behind those there."""
        with self._lock:
            self._faults.append(fault)

    def take(self, path: str) -> Fault | None:
        """The first fault for a request of this path, one use of it spent."""
        with self._lock:
            for at, fault in enumerate(self._faults):
                if fault.path.lower() in path.lower():
                    if fault.times is not None:
                        left = fault.times - 1
                        self._faults[at : at + 1] = [replace(fault, times=left)] if left else []
                    return fault
        return None

    def clear(self) -> None:
        """Take every fault out of force."""
        with self._lock:
            self._faults.clear()

    def describe(self) -> list[dict[str, object]]:
        """The faults in force as JSON objects."""
        with self._lock:
            return [
                {"kind": f.kind, "path": f.path, "times": f.times, **dict(f.options)} for f in self._faults
            ]


def cut_rows(rows: list[T], fault: Fault | None) -> list[T]:
    """All rows of a reply as a fault leaves them; the total follows."""
    if fault is None:
        return rows
    return {"empty_frame": rows[:0], "thin": rows[:THIN_ROWS]}.get(fault.kind, rows)


def damage_page(rows: list[str], fault: Fault | None) -> list[str]:
    """One page's rows as a fault leaves them; the announced total does not follow."""
    if fault is None:
        return rows
    if fault.kind == "truncated_page":
        return rows[: len(rows) - max(1, len(rows) // 10)]
    if fault.kind in ("extra_column", "missing_column"):
        return [_change_columns(row, fault) for row in rows]
    if fault.kind == "blank":
        return [_without_values(row) for row in rows]
    return rows


def page_size(asked: int, fault: Fault | None) -> int:
    """How many rows a page really has."""
    cap = fault.options.get("rows") if fault is not None and fault.kind == "page_cap" else None
    return min(asked, cap) if isinstance(cap, int) else asked


def _without_values(row: str) -> str:
    fields = json.loads(row)
    if isinstance(fields, dict):
        return compact(fields | dict.fromkeys(("DWJZ", "LJJZ"), ""))
    if isinstance(fields, str):
        cells = fields.split(",")
        return compact(",".join([*cells[:NAV_COLUMN], "", "", *cells[NAV_COLUMN + 2 :]]))
    return row


def _change_columns(row: str, fault: Fault) -> str:
    fields = json.loads(row)
    if isinstance(fields, str):
        return compact(",".join(_change_list(fields.split(","), fault)))
    if isinstance(fields, dict):
        if fault.kind == "extra_column":
            return compact(fields | {"NEWFIELD": ""})
        absent = fault.options.get("field") or next(key for key in NAV_KEYS if key in fields)
        return compact({key: value for key, value in fields.items() if key != absent})
    return compact(_change_list(fields, fault))


def _change_list(fields: list[str], fault: Fault) -> list[str]:
    chosen = fault.options.get("at")
    if fault.kind == "extra_column":
        at = chosen if isinstance(chosen, int) else len(fields)
        return [*fields[:at], "9.99", *fields[at:]]
    # A pair (x, value) has no fifth column: its last one goes.
    at = min(chosen if isinstance(chosen, int) else NAV_COLUMN, len(fields) - 1)
    return fields[:at] + fields[at + 1 :]
