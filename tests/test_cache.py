"""The cache on both databases and on a real Redis: one making for all, stale values, invalidation, failures."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, func, select, update

from config.settings import load_settings
from core import db
from core.cache_tables import cache_entry
from core.errors import CacheUnavailable, ConfigurationError, UsageError
from scheduler.cache import LOOK_AGAIN, WRITE_COUNTS, Cache, database_cache
from scheduler.cache_counts import COMPUTED, HIT, MISS, STALE, Counted, cache_figures
from scheduler.cache_kinds import load_kinds
from scheduler.cache_store import LEASE, Asked, DatabaseStore, Store
from scheduler.overview import observer_engine
from tests.conftest import ROOT
from tests.daemon import until
from tests.redis_server import RedisServer

NOW = datetime(2026, 1, 28, 14, 0, tzinfo=UTC)
FRESH, KEPT = timedelta(hours=1), timedelta(hours=1.5)  # summaries, as config/cache.toml has them
SECOND = timedelta(seconds=1)
AGED = FRESH + SECOND  # and stale


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["sqlite", "mariadb", "redis"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The database; what the environment says is where the cache is."""
    kind = "mariadb_engine" if request.param == "mariadb" else "sqlite_engine"
    engine: Engine = request.getfixturevalue(kind)
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        redis.Redis.from_url(url).flushall()
        monkeypatch.setenv("NAVKEEPER_CACHE_URL", url)
    return engine


@pytest.fixture
def opened() -> Iterator[Callable[..., Cache]]:
    """Caches as so many processes would have them."""
    caches: list[Cache] = []

    def another(engine: Engine, **bounds: int) -> Cache:
        settings, observer = load_settings(), observer_engine(engine.url)
        store: Store = DatabaseStore(observer)
        if settings.cache_url is not None:
            from scheduler.cache_redis import RedisStore

            store = RedisStore(settings.cache_url.get_secret_value())
        caches.append(Cache(store, observer, load_kinds(), **bounds))
        return caches[-1]

    yield another
    for cache in caches:
        cache.close()


class Maker:
    """Says how often it was asked."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> dict[str, int]:
        self.made += 1
        return {"n": self.made}


def crowd(folder: Path, processes: int, *more: str) -> dict[str, Any]:
    folder.mkdir()
    words = [sys.executable, "-m", "tests.cache_crowd", str(folder), str(processes), *more]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_hundred_processes_ask_for_one_cold_key_and_it_is_made_once(place: Engine, tmp_path: Path) -> None:
    found = crowd(tmp_path / "crowd", 100)
    assert (len(found["made"]), found["failed"]) == (1, 0)
    assert found["got"] == found["made"] * 100
    with db.read(place) as connection:
        counts = cache_figures(connection)
    shared = "redis" if os.environ.get("NAVKEEPER_CACHE_URL") else "database"
    assert counts == {
        Counted("summaries", "memory", MISS): 100,
        Counted("summaries", shared, MISS): 100,
        Counted("summaries", shared, COMPUTED): 1,
    }


def test_where_the_maker_is_killed_one_of_those_who_wait_makes_it(place: Engine, tmp_path: Path) -> None:
    found = crowd(tmp_path / "crowd", 6, "kill")
    assert (len(found["made"]), found["failed"]) == (2, 1)
    assert found["got"] == [found["made"][1]] * 5
    assert found["seconds"] >= LEASE.total_seconds() * 0.9


def test_what_fails_reaches_who_made_it_and_another_tries(
    place: Engine, opened: Callable[..., Cache]
) -> None:
    first, second = opened(place), opened(place)
    begun, waiting = threading.Event(), threading.Event()

    def failing() -> None:
        begun.set()
        assert waiting.wait(30)
        raise ValueError("no such fund")

    maker = Maker()
    looks = second.store.find

    def watched(asked: Asked, now: datetime) -> Any:
        found = looks(asked, now)
        if found.claimed:
            waiting.set()
        return found

    second.store.find = watched  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        failed = pool.submit(first.get, "risk", "k", failing, now=NOW)
        assert begun.wait(30)
        other = pool.submit(second.get, "risk", "k", maker, now=NOW)
        assert other.result(30) == {"n": 1}
        with pytest.raises(ValueError, match="no such fund"):
            failed.result(30)
    with pytest.raises(ValueError, match="again"):
        first.get("risk", "other", lambda: (_ for _ in ()).throw(ValueError("again")), now=NOW)
    assert first.get("risk", "other", lambda: "well", now=NOW) == "well"


def test_fresh_then_stale_while_it_is_renewed_then_made_in_front(
    place: Engine, opened: Callable[..., Cache]
) -> None:
    cache, other, maker = opened(place), opened(place), Maker()

    def asked(later: timedelta, by: Cache = cache) -> Any:
        return by.get("summaries", "k", maker, now=NOW + later)

    assert asked(timedelta()) == {"n": 1}
    assert asked(FRESH - SECOND) == asked(FRESH - SECOND, other) == {"n": 1}
    assert asked(-FRESH + SECOND, opened(place)) == {"n": 1}  # a clock that was set back
    go = threading.Event()

    def slow() -> Any:
        assert go.wait(30)
        return maker()

    for _ in range(3):  # at once, though nobody has made it yet
        assert cache.get("summaries", "k", slow, now=NOW + AGED) == {"n": 1}
        assert other.get("summaries", "k", slow, now=NOW + AGED) == {"n": 1}
    go.set()
    until(lambda: asked(AGED, opened(place)), lambda found: found == {"n": 2}, "the renewal")
    assert maker.made == 2
    assert asked(AGED, other) == {"n": 2}
    assert asked(AGED + KEPT + 5 * SECOND) == {"n": 3}


def test_a_renewal_that_fails_is_logged_and_the_stale_value_stays(
    sqlite_engine: Engine, opened: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    cache = opened(sqlite_engine)
    cache.get("summaries", "k", lambda: 1, now=NOW)
    assert cache.get("summaries", "k", lambda: 1 // 0, now=NOW + AGED) == 1
    until(lambda: caplog.text, lambda text: "ZeroDivisionError" in text, "the failure in the log")
    assert cache.get("summaries", "k", lambda: 2, now=NOW + AGED) == 1
    until(lambda: cache.get("summaries", "k", lambda: 3, now=NOW + AGED), lambda n: n == 2, "the renewal")


def test_invalidation_reaches_the_memory_of_other_processes(
    place: Engine, opened: Callable[..., Cache]
) -> None:
    mine, other = opened(place), opened(place)
    makers = {key: Maker() for key in ("a", "b", "A")}

    def asked(key: str, later: timedelta) -> int:
        tags = ("fund_metrics", f"of_{key}")
        return int(other.get("scores", key, makers[key], tags=tags, now=NOW + later)["n"])

    for _ in range(2):  # once from the store, once from its memory
        assert [asked(key, timedelta()) for key in makers] == [1, 1, 1]
    assert mine.invalidate("scores", "a") == 1
    assert mine.invalidate("risk", "a") == 0
    assert asked("a", LOOK_AGAIN / 2) == 1  # its memory may be so old, and not older
    assert [asked(key, LOOK_AGAIN) for key in makers] == [2, 1, 1]
    assert mine.invalidate_tag("of_b") == 1
    assert mine.invalidate_tag("of") == 0
    assert [asked(key, 2 * LOOK_AGAIN) for key in makers] == [2, 2, 1]
    assert mine.invalidate_tag("fund_metrics") == 3
    assert [asked(key, 3 * LOOK_AGAIN) for key in makers] == [3, 3, 2]
    assert (mine.clear("risk"), mine.clear("scores")) == (0, 3)
    assert [asked(key, 4 * LOOK_AGAIN) for key in makers] == [4, 4, 3]
    assert mine.clear() == 3
    assert other.clear() == 0
    assert asked("a", 4 * LOOK_AGAIN) == 5  # who invalidates forgets at once


def test_what_was_being_made_when_it_was_invalidated_is_not_kept(
    place: Engine, opened: Callable[..., Cache]
) -> None:
    cache, other = opened(place), opened(place)

    def overtaken() -> str:
        assert other.invalidate_tag("t") == 0
        return "old"

    assert cache.get("risk", "k", overtaken, tags=("t",), now=NOW) == "old"
    assert cache.get("risk", "k", lambda: "new", tags=("t",), now=NOW) == "new"
    assert other.get("risk", "k", lambda: "newer", tags=("t",), now=NOW) == "new"


def test_a_claim_lasts_as_long_as_it_is_extended(place: Engine, opened: Callable[..., Cache]) -> None:
    cache = opened(place)
    asked = Asked("risk", "0" * 64)
    assert cache.store.claim(asked, None, "mine", NOW)
    assert not cache.store.claim(asked, None, "other", NOW + LEASE - SECOND)
    assert cache.store.extend(asked, "mine", NOW + LEASE - SECOND)
    assert not cache.store.extend(asked, "other", NOW)
    assert not cache.store.claim(asked, None, "other", NOW + LEASE + SECOND)
    assert not cache.store.keep(asked, "other", b"x", NOW, KEPT)
    assert cache.store.keep(asked, "mine", b"x", NOW, KEPT)
    assert not cache.store.claim(asked, None, "late", NOW)  # it was made since it was looked for
    assert cache.store.claim(asked, NOW, "renewing", NOW)
    assert cache.store.find(asked, NOW)[1:] == (b"x", NOW, True)


def test_who_makes_extends_the_claim(
    sqlite_engine: Engine, opened: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.cache.LEASE", timedelta(milliseconds=40))

    def end() -> datetime:
        with db.read(sqlite_engine) as connection:
            return connection.execute(select(cache_entry.c.claimed_until)).scalar_one()

    def patient() -> bool:
        first = end()
        return until(end, lambda now: now > first, "a longer lease") > first

    assert opened(sqlite_engine).get("risk", "k", patient, now=NOW)


def test_the_memory_is_bounded_by_entries_and_by_bytes(
    sqlite_engine: Engine, opened: Callable[..., Cache]
) -> None:
    few, small = opened(sqlite_engine, entries=3), opened(sqlite_engine, size=1000)
    for number in range(10):
        few.get("risk", str(number), lambda: "x" * 300, now=NOW)
        small.get("risk", str(number), lambda: "x" * 300, now=NOW)
    few.get("risk", "7", dict, now=NOW)  # used again: the last to go
    few.get("risk", "10", lambda: "x", now=NOW)
    few.get("risk", "11", lambda: "x", now=NOW)
    kept = {few._asked("risk", key, ()).digest for key in ("7", "10", "11")}
    assert set(few._memory) == kept
    assert (len(small._memory), small._memory.currsize) == (3, 906)
    assert small.get("risk", "large", lambda: "x" * 2000, now=NOW) == "x" * 2000
    assert len(small._memory) == 3


def test_a_corrupted_entry_is_made_anew(place: Engine, opened: Callable[..., Cache]) -> None:
    first = opened(place)
    asked = first._asked("risk", "k", ())
    for broken in (b"", b"{", b'00000000{"n":9}', b"\xff" * 20):
        first.get("risk", "k", Maker(), now=NOW)
        if os.environ.get("NAVKEEPER_CACHE_URL"):
            server = redis.Redis.from_url(os.environ["NAVKEEPER_CACHE_URL"])
            server.hset(f"navkeeper:cache:entry:risk:{asked.digest}", "value", broken)
        else:
            with db.write(place) as connection:
                connection.execute(update(cache_entry).values(value=broken))
        assert opened(place).get("risk", "k", lambda: "whole", now=NOW) == "whole"
        assert opened(place).get("risk", "k", Maker(), now=NOW) == "whole"
        first.clear()


def test_without_its_database_values_are_made_and_it_is_said_once(
    sqlite_engine: Engine, opened: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    cache, maker = opened(sqlite_engine), Maker()
    path = Path(str(sqlite_engine.url.database))
    cache.get("risk", "k", maker, now=NOW)
    away = path.rename(path.with_suffix(".away"))
    for number in (2, 3, 4):
        later = NOW + number * LOOK_AGAIN
        assert cache.get("risk", "k", maker, now=later) == {"n": number}
    assert not path.exists()
    with pytest.raises(CacheUnavailable):
        cache.clear()
    away.rename(path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the cache is away" in caplog.text
    later = NOW + 6 * LOOK_AGAIN
    assert cache.get("risk", "k", maker, now=later) == {"n": 1}


def test_without_redis_values_are_made_and_kept_again_when_it_is_back(
    sqlite_engine: Engine,
    opened: Callable[..., Cache],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer(tmp_path / "redis") as server:
        monkeypatch.setenv("NAVKEEPER_CACHE_URL", server.url)
        cache, maker = opened(sqlite_engine), Maker()

        def gone() -> dict[str, int]:
            server.stop()
            return maker()

        assert cache.get("risk", "k", gone, now=NOW) == {"n": 1}  # and made once
        for number in (2, 3):
            assert cache.get("risk", "k", maker, now=NOW) == {"n": number}
        assert caplog.text.count("the cache is away") == 1
        server.start()
        assert cache.get("risk", "k", maker, now=NOW) == {"n": 4}
        assert cache.get("risk", "k", maker, now=NOW) == {"n": 4}


def test_counts_are_written_every_few_seconds_and_at_the_end(
    place: Engine, opened: Callable[..., Cache]
) -> None:
    cache, maker = opened(place), Maker()
    layer = cache.store.name

    def written() -> Counter[Counted]:
        with db.read(place) as connection:
            return cache_figures(connection)

    for _ in range(3):
        cache.get("macro", "k", maker, now=NOW)
    assert not written()
    cache.get("macro", "k", maker, now=NOW + WRITE_COUNTS)
    expected = {("memory", MISS): 1, ("memory", HIT): 3, (layer, MISS): 1, (layer, COMPUTED): 1}
    found = until(written, lambda counts: counts.total() == sum(expected.values()), "the counts")
    assert {key[1:]: number for key, number in found.items()} == expected
    other = opened(place)
    other.get("macro", "k", maker, now=NOW + timedelta(hours=6) + SECOND)
    other.close()
    assert written()["macro", layer, STALE] == 1
    assert written()["macro", layer, COMPUTED] == 2


def test_what_is_too_old_is_forgotten(sqlite_engine: Engine, opened: Callable[..., Cache]) -> None:
    cache = opened(sqlite_engine)
    cache.get("summaries", "old", lambda: 1, now=NOW)
    cache.get("fundamental", "good", lambda: 1, now=NOW)
    cache.get("summaries", "new", lambda: 1, now=NOW + KEPT + SECOND)

    def entries() -> int:
        with db.read(sqlite_engine) as connection:
            return int(connection.execute(select(func.count()).select_from(cache_entry)).scalar_one())

    until(entries, lambda number: number == 2, "the oldest to be forgotten")


def test_what_cannot_be_is_refused(sqlite_engine: Engine, opened: Callable[..., Cache]) -> None:
    cache = opened(sqlite_engine)
    with pytest.raises(UsageError, match="no kind 'gossip'; there are technical, "):
        cache.get("gossip", "k", dict, now=NOW)
    with pytest.raises(UsageError, match="is no tag"):
        cache.get("risk", "k", dict, tags=("two words",), now=NOW)
    with pytest.raises(TypeError):
        cache.get("risk", "k", object, now=NOW)
    assert cache.get("risk", "k", lambda: {"day": NOW.date()}, now=NOW) == {"day": "2026-01-28"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[hours]\nrisk = 0\n[stale]\nshare = 0.5", "hours.risk = 0 is not allowed"),
        ("[hours]\nrisk = true\n[stale]\nshare = 0.5", "hours.risk = True is not allowed"),
        ("[hours]\nrisk = 1\n[stale]\nshare = -1", "stale.share = -1 is not allowed: 0 to 10"),
        ("[hours]\nrisk = 1", "needed are the tables"),
        ("[hours]\n'too long to be one' = 1\n[stale]\nshare = 0.5", "a kind is a word"),
        ("hours", "Expected '='"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cache.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said):
        load_kinds(path)


def test_the_lifetimes_are_those_that_were_asked_for() -> None:
    hours = {kind: lifetime.fresh / timedelta(hours=1) for kind, lifetime in load_kinds().items()}
    scores = {
        "technical": 1,
        "fundamental": 24,
        "scores": 1,
        "macro": 6,
        "news": 4,
        "risk": 6,
        "summaries": 1,
    }
    assert hours == scores


def test_the_default_cache_is_over_the_database(sqlite_engine: Engine) -> None:
    cache = database_cache(observer_engine(sqlite_engine.url))
    assert cache.get("risk", "k", lambda: 1, now=NOW) == 1
    assert [record["entries"] for record in cache.stats() if record["kind"] == "risk"] == [1]
    cache.close()
