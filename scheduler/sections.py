"""Titled tables that a terminal and an HTML page draw alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.text import Text


class Cell(NamedTuple):
    """A text, the state after which it is coloured, and the code of the fund whose page an HTML file links to."""

    text: str
    state: str = ""
    fund: str = ""


@dataclass(frozen=True)
class Section:
    """A titled table; the columns whose numbers are in `right` are aligned to the right.

    On a narrow screen the last column takes several lines, and so do those in `wrapped`.
    `note` stands below the table, or in its place where there are no rows.
    """

    title: str
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str | Cell]] = ()
    right: Sequence[int] = ()
    wrapped: Sequence[int] = ()
    note: str = ""


def drawn(sections: Sequence[Section]) -> Iterator[RenderableType]:
    """For a terminal, a blank line between two sections."""
    from rich.text import Text

    from scheduler.listing_text import table

    for at, section in enumerate(sections):
        if at:
            yield ""
        if section.title:
            yield Text(section.title, style="bold")
        if section.rows:
            rows = [[_shown(cell) for cell in row] for row in section.rows]
            yield table(section.headers, rows, section.right, section.wrapped)
        if section.note:
            yield Text(section.note)


def _shown(cell: str | Cell) -> str | Text:
    from rich.text import Text

    from scheduler.wording import STYLES

    return Text(cell.text, style=STYLES.get(cell.state, "")) if isinstance(cell, Cell) else cell
