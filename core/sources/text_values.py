"""Published text to numbers, dates and fund codes, strictly: what is not clearly one is an error."""

from __future__ import annotations

import math
import re
from datetime import date
from functools import lru_cache

# What publishers write where they have nothing to say.
MISSING = frozenset({"", "-", "--", "---", "null", "None", "nan", "NaN"})

# float() alone would also take "1_000", "infinity" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_DATE = re.compile(r"(\d{4})([-/.]?)(\d{1,2})\2(\d{1,2})(?:[ T]00:00(?::00(?:\.0+)?)?)?", re.ASCII)
_CODE = re.compile(r"\d{6}", re.ASCII)


class FieldError(ValueError):
    """One field of one row cannot be read; `field` is its name, the message says what stood there."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


def shown(value: object, length: int) -> str:
    """The beginning of what a source sent, for messages, whatever it is."""
    try:
        return str(value)[:length]
    except (RecursionError, ValueError):  # nested too deep, or an integer of thousands of digits
        return f"a {type(value).__name__} that cannot be shown"


def is_fund_code(value: object) -> bool:
    """True for a string of exactly six ASCII digits."""
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def parse_number(field: str, value: object) -> float | None:
    """A finite float, or None where nothing was published (empty, "--", "---", JSON null, NaN).

    Takes text or a number that JSON or Parquet already decoded. Raises `FieldError` for anything else.
    """
    if value is None or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, str):
        text = value.strip()
        if text in MISSING:
            return None
        if _NUMBER.fullmatch(text) is None:
            raise FieldError(field, f"{text[:40]!r} is no number")
        number = float(text)
    elif isinstance(value, bool) or not hasattr(value, "__float__"):
        raise FieldError(field, f"{shown(value, 40)!r} is no number")
    else:
        try:
            number = float(value)
        except OverflowError:  # an integer of hundreds of digits
            number = math.inf
        if math.isnan(number):
            return None
    if math.isinf(number):
        raise FieldError(field, f"{shown(value, 40)!r} is no finite number")
    return number


@lru_cache(maxsize=16_384)
def _date_of(text: str) -> date | None:
    match = _DATE.fullmatch(text)
    # "2025121" could be 1 December or 21 January: without separators only eight digits are clear.
    if match is None or (not match[2] and len(text.split("T")[0].split(" ")[0]) != 8):
        return None
    try:
        return date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None


def parse_date(field: str, text: str) -> date | None:
    """A date written 2025-12-01, 2025/12/1, 2025.12.1 or 20251201; None where nothing was published.

    A midnight time behind it is ignored. Raises `FieldError` for anything else, an impossible day included.
    """
    text = text.strip()
    if text in MISSING:
        return None
    value = _date_of(text)
    if value is None:
        raise FieldError(field, f"{text[:40]!r} is no date")
    return value


def is_date(text: str) -> bool:
    """True for a text that `parse_date` takes for a date."""
    try:
        return parse_date("", text) is not None
    except FieldError:
        return False
