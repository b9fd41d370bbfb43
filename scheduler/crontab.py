"""A five-field crontab line as crontab(5) reads it, in words that APScheduler takes.

Its own reader of such lines counts weekdays from Monday and wants day and weekday both; crontab counts from Sunday,
and where both are restricted either will do.
"""

from __future__ import annotations

import re
from typing import NamedTuple

EXAMPLE = "five fields: minute, hour, day of the month, month, weekday, such as 0 19 * * 1-5"
MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
OF_DAY = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = {name: n for n, name in enumerate(MONTH_NAMES, 1)}
DAYS = {name: n for n, name in enumerate(OF_DAY)}
PART = re.compile(r"(?P<star>\*)|(?P<first>[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?", re.ASCII)


class Field(NamedTuple):
    name: str  # as CronTrigger calls it
    least: int
    most: int
    words: dict[str, int]


FIELDS = (
    Field("minute", 0, 59, {}),
    Field("hour", 0, 23, {}),
    Field("day", 1, 31, {}),
    Field("month", 1, 12, MONTHS),
    Field("day_of_week", 0, 7, DAYS),
)


def crontab_fields(line: str) -> list[dict[str, str]]:
    """Fields for one CronTrigger, or for two of which either makes a time due. Raises ValueError."""
    words = line.lower().split()
    if len(words) != len(FIELDS):
        raise ValueError(EXAMPLE)
    found = {field.name: _text(word, field) for word, field in zip(words, FIELDS, strict=True)}
    # crontab(5): a field that begins with * restricts nothing by itself, though */2 leaves days out.
    if words[2].startswith("*") or words[4].startswith("*"):
        return [found]
    return [{**found, "day_of_week": "*"}, {**found, "day": "*"}]


def _text(word: str, field: Field) -> str:
    values = sorted({value for part in word.split(",") for value in _values(part, field)})
    if field.name == "day_of_week":
        days = sorted({value % 7 for value in values}, key=lambda day: (day - 1) % 7)  # Monday first
        return "*" if len(days) == len(DAYS) else ",".join(OF_DAY[day] for day in days)
    # The star says that each hour counts where the clock shows one twice; see Schedule.
    whole = word == "*" or (field.name == "hour" and re.fullmatch(r"\*/([1-9]|1[0-9]|2[0-3])", word))
    return word if whole else ",".join(map(str, values))


def _values(part: str, field: Field) -> range | list[int]:
    span, slash, text = part.partition("/")
    matched = PART.fullmatch(span)
    if matched is None or (slash and not re.fullmatch(r"[0-9]{1,3}", text)):
        raise ValueError(f"{field.name} {part!r} is not a number, a range, a list, * or a step; {EXAMPLE}")
    step = int(text) if slash else 1
    if step == 0 or (slash and not matched["star"] and matched["last"] is None):
        raise ValueError(f"{field.name} {part!r}: a step is a number over 0 after * or a range")
    if matched["star"]:
        return range(field.least, min(field.most, 6 if field.name == "day_of_week" else 59) + 1, step)
    first = _number(matched["first"], field)
    last = first if matched["last"] is None else _number(matched["last"], field)
    if last < first and field.name == "day_of_week":  # over the week's end, such as fri-mon
        return [day % 7 for day in range(first, last + 8, step)]
    if last < first:
        raise ValueError(f"{field.name} {part!r} ends before it begins")
    return range(first, last + 1, step)


def _number(text: str, field: Field) -> int:
    value = field.words.get(text, int(text) if text.isdecimal() else -1)
    if not field.least <= value <= field.most:
        raise ValueError(f"{field.name} {text!r} is not one of {field.least} to {field.most}")
    return value
