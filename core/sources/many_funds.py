"""One request after the other for many funds, on several threads, through a circuit breaker."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from core.errors import SourceUnavailable, UnknownFund
from core.sources.base import NavRow
from core.sources.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)
AHEAD = 12  # funds fetched, a thread, while the consumer writes or a slow one is waited for
Fetch = Callable[[str, threading.Event], list[NavRow]]


class ManyFunds:
    """The histories of many funds: iterate over it once for (code, rows), in the order of the codes.

    In that order and not as they arrive, so that the same funds are judged together each time. A fund the
    source does not know gives no rows. One that could not be had is asked for once more at the end, and then left
    out; where none could be had at all its error is raised. Failures in a row open the breaker: no request but a
    probe after each pause, and `SourceUnavailable` where that goes on for an hour. Any other error is raised at
    once. Leaving the iteration ends it: what has not begun is dropped, running requests are not retried.
    """

    def __init__(
        self,
        fund_codes: Iterable[str],
        fetch: Fetch,
        *,
        concurrency: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._fetch, self._concurrency = fetch, concurrency
        self._sleep, self._clock = sleep, clock
        self._waiting = deque(dict.fromkeys(fund_codes))
        self._order = deque(self._waiting)
        self._arrived: dict[str, list[NavRow] | None] = {}  # not yet given out; None is left out
        self._aside: list[str] = []
        self._last_round = False
        self._breaker = CircuitBreaker()
        self._probe: str | None = None
        self._answered = False  # to anything
        self._last_error: SourceUnavailable | None = None
        self._running: dict[Future[list[NavRow]], str] = {}

    def __iter__(self) -> Iterator[tuple[str, list[NavRow]]]:
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="funds")
        try:
            while self._waiting or self._running or self._aside:
                if not self._waiting and not self._running:
                    self._waiting, self._aside, self._last_round = deque(self._aside), [], True
                    self._order = deque(self._waiting)
                self._submit(pool, stop)
                for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                    self._take(self._running.pop(future), future)
                while self._order and self._order[0] in self._arrived:
                    code = self._order.popleft()
                    rows = self._arrived.pop(code)
                    if rows is not None:
                        self._submit(pool, stop)  # so that the line is busy while the consumer is
                        yield code, rows
            if self._last_error is not None and not self._answered:
                raise self._last_error
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, stop: threading.Event) -> None:
        """Begin what may begin: many funds, or after a pause one probe where the breaker is open."""
        if not self._breaker.is_open:
            while self._waiting and len(self._running) + len(self._arrived) < AHEAD * self._concurrency:
                code = self._waiting.popleft()
                self._running[pool.submit(self._fetch, code, stop)] = code
        elif self._waiting and not self._running:
            pause = self._breaker.pause(self._clock())
            log.warning(
                "the source has failed %d times in a row: waiting %.0f s", self._breaker.failures, pause
            )
            self._sleep(pause)
            self._probe = self._waiting.popleft()
            self._running[pool.submit(self._fetch, self._probe, stop)] = self._probe

    def _take(self, code: str, future: Future[list[NavRow]]) -> None:
        """Keep what came of a request for its turn."""
        try:
            rows = future.result()
        except UnknownFund:
            rows = []
        except SourceUnavailable as error:
            self._failed(code, error)
            return
        self._breaker, self._probe = self._breaker.after_success(), None
        self._answered = True
        self._arrived[code] = rows

    def _failed(self, code: str, error: SourceUnavailable) -> None:
        now = self._clock()
        self._last_error = error
        if code == self._probe:  # what stood for the source is not to blame
            self._probe = None
            self._waiting.appendleft(code)
        elif self._breaker.is_open and self._last_round:  # begun before it opened
            self._waiting.appendleft(code)
            return
        elif self._last_round:
            log.warning("fund %s is left out: %s", code, error)
            self._arrived[code] = None
        else:
            log.info("fund %s is set aside: %s", code, error)
            self._aside.append(code)
            self._arrived[code] = None
            if self._breaker.is_open:
                return
        if self._breaker.is_hopeless(now):
            raise SourceUnavailable(
                f"no answer for an hour, {self._breaker.failures} requests failed; the last: {error}"
            )
        self._breaker = self._breaker.after_failure(now, random.random())  # nosec B311  # noqa: S311 - no secret
        if self._breaker.is_open:
            self._call_back()

    def _call_back(self) -> None:
        """What was to be asked and has not begun waits for a better time."""
        for future, code in list(self._running.items()):
            if future.cancel():
                del self._running[future]
                self._waiting.appendleft(code)
