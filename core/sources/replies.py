"""What replies of every format have in common: decoding, finding the data, telling truncated from changed.

`SourceUnavailable` for a reply that is none (empty, truncated, a refusal, an HTML page), `SourceChanged`, naming
the field, for a complete reply of another format.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any, NoReturn, TypeVar

from core.errors import SourceChanged, SourceUnavailable
from core.sources.base import NavRow
from core.sources.text_values import FieldError, is_date, shown

log = logging.getLogger(__name__)
T = TypeVar("T")
# A share of unreadable rows above this is a changed format, not a few broken rows.
MAXUNREADABLE = 0.01

# What reading an entry of another shape raises; FieldError is a ValueError.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)

_DECODER = json.JSONDecoder()
_REFUSED = re.compile(r"\"?ErrCode\"?\s*:\s*\"?(-?[1-9]\d*)")


def decode(body: bytes) -> str:
    """The text of a reply; raises `SourceUnavailable` for nothing and for an HTML page."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Some pages are gb2312; a reply cut inside a character also lands here and fails as truncated.
        text = body.decode("gb18030", errors="replace")
    if not text.strip():
        raise SourceUnavailable("the reply is empty; try again later")
    if text.lstrip().startswith("<"):
        raise SourceUnavailable(
            "the reply is an HTML page, not data; the site may be blocking us or be under repair: try later"
        )
    return text


def array_after(text: str, pattern: str, name: str) -> tuple[list[Any], int]:
    """The JSON array that follows the first match of `pattern`, and where it ends in `text`."""
    match = re.search(pattern, text)
    if match is None:
        missing(text, name)
    try:
        value, end = _DECODER.raw_decode(text, match.end())
    except json.JSONDecodeError as exc:
        unreadable(text, exc, name)
    except (ValueError, RecursionError) as exc:
        raise SourceChanged(f"field {name!r} is not readable: {exc}") from exc
    if not isinstance(value, list):
        raise SourceChanged(f"field {name!r} should be a list, it is {shown(value, 40)!r}")
    return value, end


def number_named(text: str, name: str, start: int) -> int:
    """The whole number of `name:123` or `name:"123"` behind (else before) the data of a JS object."""
    pattern = re.compile(rf"\"?\b{name}\"?\s*:\s*\"?(\d+)")
    match = pattern.search(text, start) or pattern.search(text, 0, 1000)
    if match is None:
        missing(text, name)
    if len(match[1]) > 9:
        raise SourceChanged(f"field {name!r} should be a count of rows, it is {match[1][:40]!r}")
    return int(match[1])


def json_object(text: str) -> dict[str, Any]:
    try:
        reply = json.loads(text)
    except json.JSONDecodeError as exc:
        unreadable(text, exc, "reply")
    except (ValueError, RecursionError) as exc:
        raise SourceChanged(f"the reply is not readable: {exc}") from exc
    if not isinstance(reply, dict):
        raise SourceChanged(f"the reply should be a JSON object, it is {shown(reply, 40)!r}")
    if reply.get("ErrCode") not in (0, "0", None):
        refused(reply["ErrCode"], reply.get("ErrMsg"))
    return reply


def total_count(reply: dict[str, Any]) -> int:
    total = reply.get("TotalCount")
    if not isinstance(total, int):
        raise SourceChanged(f"field 'TotalCount' should be a number, it is {shown(total, 40)!r}")
    return total


def judge_defects(defects: list[FieldError], total: int) -> None:
    """Raises `SourceChanged` when more than `MAXUNREADABLE` of the rows (one row at least) are defects."""
    bad = len(defects)
    if bad and (bad == total or (bad > 1 and bad > MAXUNREADABLE * total)):
        field, _ = Counter(defect.field for defect in defects).most_common(1)[0]
        example = next(defect for defect in defects if defect.field == field)
        raise SourceChanged(f"field {field!r}: {bad} of {total} rows cannot be read, such as: {example}")


def refused(code: object, message: object = None) -> NoReturn:
    said = f" ({message})" if message else ""
    raise SourceUnavailable(
        f"the site refused the request with ErrCode {code}{said}; wait, and lower the request rate"
    )


def missing(text: str, name: str) -> NoReturn:
    refusal = _REFUSED.search(text)
    if refusal is not None:
        refused(refusal[1])
    if not text.rstrip().endswith((";", "}", "]", ")", "/")):
        raise SourceUnavailable(f"the reply is truncated before {name!r}; try again")
    raise SourceChanged(f"field {name!r} is missing from the reply")


def unreadable(text: str, exc: json.JSONDecodeError, name: str) -> NoReturn:
    # A cut-off text fails at its very end (within "null"), or in a string that is never closed.
    if exc.pos >= len(text.rstrip()) - 5 or exc.msg.startswith("Unterminated"):
        raise SourceUnavailable(f"the reply is truncated inside {name!r}; try again") from exc
    near = text[max(0, exc.pos - 20) : exc.pos + 20]
    raise SourceChanged(f"field {name!r} is not readable: {exc.msg} near {near!r}") from exc


def read_rows(
    entries: list[Any],
    read: Callable[[Any], NavRow | None],
    code_of: Callable[[Any], Any],
    date_of: Callable[[Any], str] | None = None,
) -> list[NavRow]:
    """The rows of `entries`; an unreadable entry becomes a row with defect and raw, many raise."""
    rows: list[NavRow] = []
    defects: list[FieldError] = []
    for entry in entries:
        try:
            row = read(entry)
        except UNREADABLE as exc:
            defect = _field_error(exc, entry)
            defects.append(defect)
            code = _attempt(code_of, entry)
            day_text = _attempt(date_of, entry) if date_of else None
            day = date.fromisoformat(day_text) if day_text and is_date(day_text) else None
            code_text = code[:16] if isinstance(code, str) else ""
            rows.append(NavRow(code_text, day, defect=str(defect), raw=shown(entry, 500)))
        else:
            if row is not None:
                rows.append(row)
    judge_defects(defects, len(entries))
    return rows


def _field_error(exc: Exception, entry: Any) -> FieldError:
    if isinstance(exc, FieldError):
        return exc
    if isinstance(exc, KeyError):
        return FieldError(str(exc.args[0]), "is missing")
    return FieldError("row", f"{shown(entry, 60)!r} is of another shape")


def _attempt(part: Callable[[Any], Any], entry: Any) -> Any:
    try:
        return part(entry)
    except UNREADABLE:
        return None


def readable(entries: list[Any], read: Callable[[Any], T]) -> list[T]:
    """What `read` makes of the entries; an unreadable one is left out and logged, many raise `SourceChanged`."""
    rows: list[T] = []
    defects: list[FieldError] = []
    for entry in entries:
        try:
            rows.append(read(entry))
        except FieldError as exc:
            defects.append(exc)
        except UNREADABLE:
            defects.append(FieldError("row", f"{shown(entry, 60)!r} is of another shape"))
    judge_defects(defects, len(entries))
    for defect in defects:
        log.warning("left out an entry of a list: %s", defect)
    return rows
