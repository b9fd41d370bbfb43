"""A run's signs of life: they go on while the work says nothing, and end it when the run is not its own any more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from core import db
from core.errors import NavKeeperError
from scheduler import run_store
from scheduler.clock import Clock

log = logging.getLogger(__name__)
BEAT_SECONDS = 10.0
SETTLING_SECONDS = 5.0  # a run that has just recorded its own end is not its own any more, either


@contextmanager
def signs_of_life(
    engine: Engine, run_id: int, claim: str, clock: Clock, taken_away: Callable[[], None]
) -> Iterator[None]:
    """Inside, a thread notes every 10 s that the run's process lives; `taken_away` is called once the run is
    another's: by a leader on another host, for one, which cannot send a signal.
    """
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_SECONDS):
            try:
                with db.write(engine) as connection:
                    ours = run_store.note_beat(connection, run_id, claim, clock())
            except (NavKeeperError, SQLAlchemyError):  # the database is away: so is who would read it
                continue
            if not ours and not done.wait(SETTLING_SECONDS):
                log.error("run %d was taken from us: stopping", run_id)
                taken_away()
                return

    thread = threading.Thread(target=beat, name="signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
