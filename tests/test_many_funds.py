"""Histories of many funds, fetched at once: each fund once, in the order asked for, whatever fails meanwhile."""

from __future__ import annotations

import random
import threading
from collections import Counter
from datetime import date

import pytest

from core.errors import SourceUnavailable, UnknownFund
from core.sources.base import NavRow
from core.sources.many_funds import ManyFunds

DAY = date(2025, 12, 1)
CODES = [f"{n:06d}" for n in range(300)]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_fails_the_order_is_that_of_the_codes(seed: int) -> None:
    rng = random.Random(seed)
    concurrency = rng.choice((1, 2, 8))
    never = {code for code in CODES if rng.random() < 0.02}
    once = {code for code in CODES if rng.random() < rng.choice((0.02, 0.3))} - never
    unknown = {code for code in CODES if rng.random() < 0.05} - never
    slow = {code for code in CODES if rng.random() < 0.1}
    asked: Counter[str] = Counter()
    others = threading.Semaphore(0)

    def fetch(code: str, _stop: threading.Event) -> list[NavRow]:
        asked[code] += 1
        if (
            code in slow and concurrency > 1
        ):  # until some other fund has been answered, or all wait for each other
            others.acquire(timeout=0.02)
        others.release()
        if code in never or (code in once and asked[code] == 1):
            raise SourceUnavailable(f"{code}: not now")
        if code in unknown:
            raise UnknownFund(code)
        return [NavRow(code, DAY, 1.0)]

    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    funds = ManyFunds([*CODES, *CODES[:3]], fetch, concurrency=concurrency, sleep=sleep, clock=lambda: now)
    given = list(funds)
    codes = [code for code, _rows in given]
    assert sorted(codes) == [code for code in CODES if code not in never]
    assert all([row.fund_code for row in rows] == ([] if code in unknown else [code]) for code, rows in given)
    again = {code for code, times in asked.items() if times > 1}
    first = [code for code in codes if code not in again]
    assert first == sorted(first)
    assert all(times <= 3 for code, times in asked.items() if code not in never)
