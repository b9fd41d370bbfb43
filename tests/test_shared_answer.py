"""One look for many: how often it is made, how old it may be, and that a failure is everybody's."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from core.errors import DatabaseUnavailable
from scheduler.shared_answer import SharedAnswer
from tests.daemon import until


class Slow:
    """Says how often it was asked, when the test lets it."""

    def __init__(self) -> None:
        self.begun = 0
        self.free = threading.Semaphore(0)

    def __call__(self) -> int:
        self.begun += 1
        mine = self.begun
        assert self.free.acquire(timeout=30)
        return mine


def asked(pool: ThreadPoolExecutor, answer: SharedAnswer[int], count: int) -> list[Future[int]]:
    """Questions that are all waiting when this returns."""
    before = len(pool._threads)
    found = [pool.submit(answer) for _ in range(count)]
    until(lambda: len(pool._threads) - before, lambda threads: threads == count, "every question in a thread")
    return found


def test_who_asks_while_it_is_made_waits_for_the_next_one_and_shares_that() -> None:
    slow = Slow()
    answer = SharedAnswer(slow)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(answer)
        until(lambda: slow.begun, lambda begun: begun == 1, "the first look")
        others = asked(pool, answer, 15)
        slow.free.release()
        assert first.result(30) == 1
        slow.free.release(2)
        assert {other.result(30) for other in others} <= {2, 3}
    assert slow.begun <= 3


def test_nothing_is_kept_where_nothing_may_be_old() -> None:
    slow = Slow()
    slow.free.release(3)
    answer = SharedAnswer(slow)
    assert [answer(), answer(), answer()] == [1, 2, 3]


def test_an_answer_serves_for_a_while_and_is_renewed_behind_the_backs_of_those_who_ask() -> None:
    slow = Slow()
    answer = SharedAnswer(slow, seconds=2.0)
    slow.free.release()
    assert answer() == 1
    until(lambda: (answer(), slow.begun), lambda found: found[1] == 2, "the renewal after a second")
    assert answer() == 1  # the second is being made, and nobody waits for it
    slow.free.release()
    until(answer, lambda found: found == 2, "the second answer")
    assert slow.begun == 2


def test_a_failure_is_everybodys_and_the_next_look_is_new() -> None:
    looks = 0

    def look() -> int:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise DatabaseUnavailable("gone")
        return looks

    answer = SharedAnswer(look)
    with pytest.raises(DatabaseUnavailable):
        answer()
    assert answer() == 2
