"""Dividends and splits as publishers word them."""

from __future__ import annotations

import re
from math import isfinite

from core.sources.text_values import MISSING, FieldError

_PREFIX = re.compile(r"(?:分红|拆分|折算|分拆)\s*[:：]")
_CASH = re.compile(
    r"每\s*(\d*)\s*份(?:基金份额)?(?:派发?|分配)现金(?:红利)?\s*(\d+(?:\.\d+)?)\s*元", re.ASCII
)
# The verb is missing in at least one recorded text: "每份基金6份" (159970, 2025-12-19, NAV 5.85 -> 0.98).
_SHARES = re.compile(r"每份基金(?:份额)?(?:折算|分拆|拆分)?(?:为|成)?\s*(\d+(?:\.\d+)?)\s*份", re.ASCII)
_SEPARATORS = re.compile(r"[\s,，;；、。/|]+")


def parse_event_text(text: str | None) -> tuple[float | None, float | None]:
    """(dividend, split ratio) of one day's event text, either None where the text has none.

    The dividend is cash in yuan for one share before the event ("每10份派现金1.2元" gives 0.12); the
    split ratio is the number of shares after the event for one before. Several dividends in one text
    add up, several splits multiply. Prefixes such as "分红：" are ignored. Empty and missing give
    (None, None). Raises `FieldError` for a text that says anything else: a split that is silently not
    understood would spoil every adjusted NAV after it.
    """
    text = (text or "").strip()
    if text in MISSING:
        return None, None
    dividend: float | None = None
    ratio: float | None = None
    for shares, cash in _CASH.findall(text):
        count = float(shares) if shares else 1.0  # int() refuses thousands of digits
        if count == 0:
            raise FieldError("event", f"{text[:60]!r} is no dividend or split we know")
        dividend = (dividend or 0.0) + float(cash) / count
    for shares in _SHARES.findall(text):
        ratio = (1.0 if ratio is None else ratio) * float(shares)
    rest = _SHARES.sub("", _CASH.sub("", text))
    rest = _SEPARATORS.sub("", _PREFIX.sub("", rest))
    beyond = not (isfinite(dividend or 0.0) and isfinite(ratio or 0.0))
    if rest or beyond or ratio == 0 or (dividend is None and ratio is None):
        raise FieldError("event", f"{text[:60]!r} is no dividend or split we know")
    return dividend, ratio
