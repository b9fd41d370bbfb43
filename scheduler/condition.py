"""What a job asks of the run before it: how that ended, and one comparison with what came of it.

`records > 0`, `result.level == "high"`, `result.scores.risk >= 70`: a field, an operator, a JSON value. No more
language than that, and nothing is ever evaluated as a program.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.job import DONE_WELL, ENDED_BADLY, PENDING, RunStatus

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
PATTERN = re.compile(r"(records|result(?:\.[A-Za-z0-9_-]+)+)\s*(==|!=|<=|>=|<|>)\s*(\S.*)")
FORM = 'such as records > 0 or result.level == "high": a field, one of == != < <= > >=, a number or a text in quotes'
LONGEST = 200
# How the run before must have ended. A job that is skipped or missed has ended too.
ACCEPTED: dict[str, frozenset[RunStatus]] = {
    "success": DONE_WELL,
    "partial": frozenset({RunStatus.PARTIAL}),
    "failed": ENDED_BADLY,
    "done": frozenset(RunStatus) - PENDING,
}


@dataclass(frozen=True)
class Condition:
    text: str
    path: tuple[str, ...]
    compare: str
    value: float | str | bool

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises ValueError saying what a condition looks like."""
        matched = PATTERN.fullmatch(text.strip())
        if matched is None or len(text) > LONGEST:
            raise ValueError(FORM)
        try:
            value = json.loads(matched[3], parse_constant=_no_number)
        except ValueError:
            raise ValueError(FORM) from None
        ordered = matched[2] not in ("==", "!=")
        if not isinstance(value, (int, float, str)) or (ordered and isinstance(value, bool)):
            raise ValueError(FORM)
        return cls(text.strip(), tuple(matched[1].split(".")), matched[2], value)

    def unmet(self, records: int | None, result: str | None) -> str | None:
        """Why it does not hold for a run with so many records and this result (JSON), None where it does."""
        found: Any = {"records": records, "result": _read(result)}
        for name in self.path:
            found = found.get(name) if isinstance(found, dict) else None
        if found is None:
            return f"{self.text}: there is no {'.'.join(self.path)}"
        if _kind(found) is not _kind(self.value):
            return f"{self.text}: it is {_short(found)}"
        return None if OPERATORS[self.compare](found, self.value) else f"{self.text}: it is {_short(found)}"


def _no_number(text: str) -> float:
    raise ValueError(text)


def _read(result: str | None) -> object:
    try:
        return json.loads(result) if result else None
    except ValueError:
        return None


def _kind(value: object) -> type:
    return float if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"


@dataclass(frozen=True)
class Need:
    """A job that another needs. Without more said it must have succeeded."""

    when: str = "success"
    where: Condition | None = None

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Need:
        """Raises ValueError."""
        if table.get("when", "success") not in ACCEPTED:
            raise ValueError(f"when is one of {', '.join(ACCEPTED)}")
        where = table.get("where")
        return cls(table.get("when", "success"), None if where is None else Condition.parse(where))

    @property
    def accepted(self) -> frozenset[RunStatus]:
        return ACCEPTED[self.when]

    def as_table(self, job: str) -> str | dict[str, str]:
        """As it is written in a definition."""
        table = {"job": job}
        if self.when != "success":
            table["when"] = self.when
        if self.where is not None:
            table["where"] = self.where.text
        return job if len(table) == 1 else table
