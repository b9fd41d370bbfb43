"""A progress bar for people at a terminal; nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from scheduler.run_context import Progress, no_progress


@contextmanager
def shown_progress(title: str) -> Iterator[Progress]:
    """On a terminal a bar on stderr; in a pipe or a log nothing."""
    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task(title, total=None)

        def progress(done: int, total: int | None, unit: str) -> None:
            bar.update(line, completed=done, total=total, description=f"{title} ({unit})")

        yield progress
