"""Small charts as inline SVG. Every text is escaped; colours are classes of the page, and each says a sign as well.

A chart is 360 units wide, about as wide as a telephone, so that its letters are readable there; it grows with its
place by its viewBox.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from core.distribution import round_step

WIDTH = 360
LABEL = 92  # for the names at the left
FIGURE = 58  # for the figures at the right
ROW = 24
TICKS = 4
LETTER = 4  # how far below its middle a line of text stands

STYLE = """\
.charts { display: grid; gap: 1rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr));
  overflow: visible; margin-bottom: 1rem; }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; } figcaption { color: var(--dim); font-size: .9rem; }
svg { display: block; width: 100%; max-width: 30rem; height: auto; }
svg text { fill: var(--text); font-size: 12px; font-variant-numeric: tabular-nums; } svg .dim { fill: var(--dim); }
svg .line { stroke: var(--line); } svg .axis { stroke: var(--dim); } svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; } svg .track { fill: var(--head); } svg .bar { fill: var(--cyan); }
svg .up { fill: var(--red); stroke: var(--red); } svg .down { fill: var(--green); stroke: var(--green); }
svg .flat { fill: var(--dim); stroke: var(--dim); }
svg .box { fill-opacity: .3; } svg .median { stroke-width: 3; } svg rect.of { stroke: none; }
"""


class Bar(NamedTuple):
    """A share between 0 and 1, or None where it is not known."""

    label: str
    share: float | None
    figure: str
    title: str


class Box(NamedTuple):
    """A distribution (core.distribution) and what is said of it."""

    label: str
    spread: Mapping[str, Any]
    title: str


def bars(name: str, rows: Sequence[Bar]) -> Markup:
    """One bar a row, from nothing to all, with its figure at the right."""
    wide = WIDTH - LABEL - FIGURE
    parts = []
    for at, row in enumerate(rows):
        y = at * ROW
        filled = wide * min(max(row.share or 0.0, 0.0), 1.0)
        parts.append(
            _group(
                row.title,
                _text(0, y + ROW / 2, row.label),
                _rect("track", LABEL, y + 5, wide, ROW - 10),
                _rect("bar", LABEL, y + 5, filled, ROW - 10),
                _text(WIDTH, y + ROW / 2, row.figure, "end"),
            )
        )
    return _svg(name, len(rows) * ROW, parts)


def boxes(name: str, rows: Sequence[Box]) -> Markup:
    """One row a distribution: a line from 5 % to 95 %, a box for its middle half, mark and figure for its median."""
    low = min((row.spread["p5"] for row in rows), default=0.0)
    high = max((row.spread["p95"] for row in rows), default=0.0)
    x = _scale(min(low, 0.0), max(high, 0.0), LABEL, WIDTH - FIGURE)
    height = len(rows) * ROW
    parts = [_axis(x, min(low, 0.0), max(high, 0.0), 0, height)]
    for at, row in enumerate(rows):
        spread, y = row.spread, at * ROW + ROW / 2
        p5, q1, median, q3, p95 = (x(spread[key]) for key in ("p5", "q1", "median", "q3", "p95"))
        kind = _sign(spread["median"])
        parts.append(
            _group(
                row.title,
                _text(0, y, row.label),
                _line(f"{kind}", p5, y, p95, y),
                _rect(f"box {kind}", q1, y - 7, max(q3 - q1, 1.0), 14),
                _line(f"median {kind}", median, y - 8, median, y + 8),
                _text(WIDTH, y, signed(spread["median"]), "end"),
            )
        )
    return _svg(name, height + 18, parts)


def histogram(name: str, spread: Mapping[str, Any], said: str) -> Markup:
    """One column a bin, in the colour of its side of zero; `said` names a bin's count, {low}, {high} and {count}."""
    edges, counts = spread["histogram"]["edges"], spread["histogram"]["counts"]
    x = _scale(edges[0], edges[-1], 4, WIDTH - 4)
    tallest, high = max(counts), 90
    parts = [_axis(x, edges[0], edges[-1], 0, high)]
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        tall = high * count / tallest
        kind = "down" if right <= 0 else "up" if spread["up"] else "flat"
        title = said.format(low=f"{left:g}", high=f"{right:g}", count=f"{count:,}")
        wide = max(x(right) - x(left) - 1, 0.5)
        parts.append(_group(title, _rect(f"of {kind}", x(left) + 0.5, high - tall, wide, tall)))
    return _svg(name, high + 18, parts)


def signed(value: float | None) -> str:
    """Two decimals and a sign; nothing is neither more nor less."""
    if value is None:
        return "-"
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}"


def _sign(value: float) -> str:
    return "flat" if abs(value) < 0.005 else "up" if value > 0 else "down"


def _scale(low: float, high: float, left: float, right: float) -> Any:
    span = (high - low) or 1.0
    return lambda value: left + (right - left) * (value - low) / span


def _axis(x: Any, low: float, high: float, top: float, bottom: float) -> Markup:
    """Round values below the chart with lines through it, zero the strongest."""
    step = round_step(((high - low) or 1.0) / TICKS)
    parts = []
    for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        value = round(n * step, 12)
        at = x(value)
        anchor = "end" if at > WIDTH - 12 else "" if at < 12 else "middle"
        parts.append(_line("line" if n else "axis", at, top, at, bottom))
        parts.append(_text(at, bottom + 11, f"{value:g}", f"dim {anchor}".strip()))
    return Markup("").join(parts)


def _svg(name: str, height: float, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {:g}" role="img" aria-label="{}">').format(WIDTH, height, name)
    return head + Markup("").join(parts) + Markup("</svg>")


def _group(title: str, *parts: Markup) -> Markup:
    return Markup("<g><title>{}</title>{}</g>").format(title, Markup("").join(parts))


def _text(x: float, y: float, text: str, kind: str = "") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y + LETTER, kind, text)


def _rect(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    form = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
    return Markup(form).format(kind, x, y, width, height)  # noqa: S704 - ours, its values escaped


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    form = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    return Markup(form).format(kind, x1, y1, x2, y2)  # noqa: S704 - ours, its values escaped
