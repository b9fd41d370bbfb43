"""One answer for everybody who asks at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SharedAnswer(Generic[Answer]):
    """Calls `make` once for all who wait, never twice at a time; what it raises they all get.

    Who asks gets an answer that was begun after the question, or up to `seconds` before it.
    """

    def __init__(self, make: Callable[[], Answer], seconds: float = 0.0) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="shared-answer")
        self._newest: Future[Answer] | None = None
        self._begun: float | None = None  # when the newest was; None while it waits for the one before it

    def __call__(self) -> Answer:
        with self._lock:
            if self._newest is None or self._is_old():
                self._begun = None
                self._newest = self._maker.submit(self._begin)
            newest = self._newest
        return newest.result()

    def _is_old(self) -> bool:
        return self._begun is not None and time.monotonic() - self._begun >= self._seconds

    def _begin(self) -> Answer:
        with self._lock:
            self._begun = time.monotonic()
        return self._make()
