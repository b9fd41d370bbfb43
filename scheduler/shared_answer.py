"""One answer for everybody who asks at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class _Making(Generic[Answer]):
    """An answer that is made, or is to be; `begun` is None while it waits for the one before it."""

    def __init__(self) -> None:
        self.begun: float | None = None
        self.result: Future[Answer]

    def is_at_least(self, seconds: float) -> bool:
        return self.begun is not None and time.monotonic() - self.begun >= seconds


class SharedAnswer(Generic[Answer]):
    """Calls `make` once for all who wait, never twice at a time; what it raises they all get.

    Who asks gets an answer that was begun after the question, or up to `seconds` before it. One that is half as old
    is renewed behind the backs of those who ask, so that nobody waits as long as somebody asks often enough.
    """

    def __init__(self, make: Callable[[], Answer], seconds: float = 0.0) -> None:
        self._make = make
        self._seconds = seconds
        self._lock = threading.Lock()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="shared-answer")
        self._answers: list[_Making[Answer]] = []  # those still good enough, oldest first

    def __call__(self) -> Answer:
        with self._lock:
            self._answers = [each for each in self._answers if not each.is_at_least(self._seconds)]
            if not self._answers or self._is_to_be_renewed(self._answers[-1]):
                coming = _Making[Answer]()
                coming.result = self._maker.submit(self._begin, coming)
                self._answers.append(coming)
            chosen = self._answers[0]
        return chosen.result.result()

    def _is_to_be_renewed(self, newest: _Making[Answer]) -> bool:
        return newest.result.done() and newest.is_at_least(self._seconds / 2)

    def _begin(self, making: _Making[Answer]) -> Answer:
        with self._lock:
            making.begun = time.monotonic()
        return self._make()
