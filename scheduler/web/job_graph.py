"""Which job waits for which, as a drawing: layers from left to right, and an edge through a layer has a place in it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import east_asian_width

from scheduler.schedule_text import schedule_text
from scheduler.wording import Translate, job_cell, job_name

if TYPE_CHECKING:
    from scheduler.job import Job

WIDE, HIGH, GAP, BETWEEN, EDGE = 184, 46, 56, 14, 6  # pixels
LETTERS = 23  # that fit into a box; a Chinese one takes the room of two
IN_A_ROW = 4  # of those that stand alone


class Box(NamedTuple):
    left: float
    top: float
    name: str
    below: str
    about: str
    job: str | None  # None: a topic


class Line(NamedTuple):
    path: str
    event: bool
    about: str


class Drawing(NamedTuple):
    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]


Spots = dict[str, tuple[int, float]]  # by node its layer, and its row


def draw(jobs: Mapping[str, Job], _: Translate) -> Drawing:
    """`jobs`: those needed before those that need them. Who has nothing to do with another stands below."""
    before: dict[str, tuple[str, ...]] = {
        _topic(topic): () for job in jobs.values() for topic in job.on_event
    }
    before |= {name: (*map(_topic, job.on_event), *job.needs) for name, job in jobs.items()}
    linked = {end for name, ends in before.items() if ends for end in (name, *ends)}
    ways = {name: ends for name, ends in before.items() if name in linked}
    spots = _spots(_layers(ways), ways)
    rows = max((row + 1 for _layer, row in spots.values()), default=0.0)
    alone = [name for name in before if name not in linked]
    found = {name: spots[name] for name in ways}
    found |= {name: (at % IN_A_ROW, rows + at // IN_A_ROW) for at, name in enumerate(alone)}
    boxes = [_box(name, spot, jobs, _) for name, spot in found.items()]
    lines = [_line(end, name, spots, jobs, _) for name, ends in ways.items() for end in ends]
    width = max((box.left + WIDE for box in boxes), default=0) + EDGE
    return Drawing(width, max((box.top + HIGH for box in boxes), default=0) + EDGE, boxes, lines)


def _topic(name: str) -> str:
    return f"event {name}"  # no job's name has a blank


def _layers(ways: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """A job right of all that it waits for; a topic right before the first that it starts."""
    found: dict[str, int] = {}
    for name, ends in ways.items():
        found[name] = max((found.get(end, 0) + 1 for end in ends), default=0)
    for name in [name for name in ways if name.startswith(_topic(""))]:
        found[name] = min(found[to] for to, ends in ways.items() if name in ends) - 1
    return found


def _spots(layers: Mapping[str, int], ways: Mapping[str, tuple[str, ...]]) -> Spots:
    """Rows: each about the middle of what it waits for, one group of jobs below the other."""
    spots: Spots = {}
    above = 0.0
    for group in _groups(ways):
        by_layer: dict[int, dict[str, list[str]]] = {}
        for name in group:
            by_layer.setdefault(layers[name], {}).setdefault(name, [])
            for end in ways[name]:
                steps = _steps(end, name, layers)
                for at, (one, other) in enumerate(pairwise(steps), layers[end] + 1):
                    by_layer.setdefault(at, {}).setdefault(other, []).append(one)
        height = 0.0
        for layer in sorted(by_layer):
            free = 0.0
            wanted = {name: _middle(ends, spots, above) for name, ends in by_layer[layer].items()}
            for name in sorted(wanted, key=lambda name: wanted[name]):
                row = max(free, wanted[name])
                spots[name], free = (layer, above + row), row + 1
            height = max(height, free)
        above += height
    return spots


def _middle(ends: list[str], spots: Spots, above: float) -> float:
    return sum(spots[end][1] - above for end in ends) / len(ends) if ends else 0.0


def _steps(end: str, name: str, layers: Mapping[str, int]) -> list[str]:
    """The edge from layer to layer, with a place of its own in those that it only passes."""
    return [end, *(f"{end} > {name} {layer}" for layer in range(layers[end] + 1, layers[name])), name]


def _groups(ways: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """The nodes that hang together."""
    group = {name: name for name in ways}
    for name, ends in ways.items():
        for end in ends:
            old, new = group[end], group[name]
            group = {node: new if of == old else of for node, of in group.items()}
    return [[name for name in ways if group[name] == of] for of in dict.fromkeys(group.values())]


def _box(name: str, spot: tuple[int, float], jobs: Mapping[str, Job], _: Translate) -> Box:
    left, top = _place(spot)
    job = jobs.get(name)
    if job is None:
        topic = name.removeprefix(_topic(""))
        return Box(left, top, _fit(topic), _("event"), topic, None)
    due = schedule_text(job, _)
    about = f"{job_cell(name, _, job.name)}: {due}"
    return Box(left, top, _fit(job_name(name, _, job.name)), _fit(due), about, name)


def _place(spot: tuple[int, float]) -> tuple[float, float]:
    return EDGE + spot[0] * (WIDE + GAP), round(EDGE + spot[1] * (HIGH + BETWEEN), 1)


def _line(end: str, name: str, spots: Spots, jobs: Mapping[str, Job], _: Translate) -> Line:
    layers = {end: spots[end][0], name: spots[name][0]}
    places = [_place(spots[step]) for step in _steps(end, name, layers)]
    path, (left, top) = "", places[0]
    for to_left, to_top in places[1:]:
        begin, middle, half = left + WIDE, to_left - GAP / 2, HIGH / 2
        path += f"{'L' if path else 'M'}{begin} {top + half}"
        path += f" C{middle} {top + half} {middle} {to_top + half} {to_left} {to_top + half}"
        left, top = to_left, to_top
    if end not in jobs:
        return Line(path, True, f"{end.removeprefix(_topic(''))} → {name}")
    return Line(path, False, f"{end} → {name}{condition_text(jobs[name], end)}")


def condition_text(job: Job, need: str) -> str:
    """What is asked of a need beyond success, as it is written in a definition."""
    asked = job.conditions.get(need)
    if asked is None:
        return ""
    said = [*([asked.when] if asked.when != "success" else []), *([asked.where.text] if asked.where else [])]
    return f" ({', '.join(said)})"


def _fit(text: str) -> str:
    """As much of it as a box takes."""
    room, found = LETTERS, ""
    for letter in text:
        room -= 2 if east_asian_width(letter) in "WF" else 1
        if room < 0:
            return f"{found.rstrip()}…"
        found += letter
    return found
