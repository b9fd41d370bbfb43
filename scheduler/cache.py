"""One cache for what is dear to make and may be old: this process's memory over what all processes share.

    cache.get("summaries", "spreads/2026-01-28", make, tags=("fund_metrics",), now=clock())

The memory is cachetools' LRU. dogpile.cache, the nearest whole library, has neither our database as a back end nor
tags, reads the clock itself, and lets a dead maker's lock stand until it times out as a whole.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import re
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from cachetools import LRUCache

from core.errors import CacheUnavailable, NavKeeperError, UsageError
from scheduler.cache_counts import COMPUTED, HIT, MISS, STALE, Counted, add_count
from scheduler.cache_kinds import Lifetime, load_kinds
from scheduler.cache_store import LEASE, Asked, DatabaseStore, Found, Store, without_gap_locks

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from config.settings import Settings

log = logging.getLogger(__name__)
Make = Callable[[], Any]
Now = Callable[[], datetime]
LOOK_AGAIN = timedelta(seconds=1)  # whether another process has invalidated something
WRITE_COUNTS = timedelta(seconds=5)
LONGEST_MAKING = timedelta(minutes=10)  # then it counts as hung, and another tries
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.25  # seconds between two looks for what another makes
MEMORY_ENTRIES, MEMORY_BYTES = 4096, 64_000_000
LARGEST = 8_000_000  # bytes; a larger value is given out and not kept: servers refuse 16 MB in one packet


class Kept(NamedTuple):
    """Bytes rather than objects: their size is known, and nobody can change what another will get."""

    value: bytes
    made_at: datetime
    epoch: int


class Cache:
    """For all threads of a process. Values are what JSON can say, and come back as JSON has them: dates as texts."""

    def __init__(
        self,
        store: Store,
        counts: Engine,
        kinds: Mapping[str, Lifetime],
        entries: int = MEMORY_ENTRIES,
        size: int = MEMORY_BYTES,
    ) -> None:
        self.store = store
        self.kinds = kinds
        self._counts_engine = without_gap_locks(counts)
        self._entries = entries
        self._memory: LRUCache[str, Kept] = LRUCache(size, getsizeof=lambda kept: len(kept.value))
        self._epoch: tuple[int, datetime] | None = None
        self._counts: Counter[Counted] = Counter()
        self._counted_at: datetime | None = None
        self._renewing: set[str] = set()
        self._is_away = False
        self._lock = threading.Lock()
        self._behind = ThreadPoolExecutor(2, thread_name_prefix="cache")

    def get(self, kind: str, key: str, make: Make, *, tags: Sequence[str] = (), now: datetime) -> Any:
        """The value, made by one process alone where there is none; what `make` raises, who made it gets.

        Of those who wait for it another then tries. A stale value is served at once, and `make` called later in a
        thread. Where the cache cannot be reached the value is made without it. Raises UsageError for a kind or a tag
        that cannot be.
        """
        asked = self._asked(kind, key, tags)
        try:
            value = self._in_memory(asked, now)
            if value is None:
                value = self._shared(asked, make, _running(now))
        except CacheUnavailable as error:
            self._say_away(error)
            value = orjson.dumps(make())
        self._write_counts_behind(now)
        return orjson.loads(value)

    def invalidate(self, kind: str, key: str) -> int:
        """Other processes ask anew within LOOK_AGAIN. What is being made is not kept. Raises CacheUnavailable."""
        return self._removed(kind=kind, digest=self._asked(kind, key, ()).digest)

    def invalidate_tag(self, tag: str) -> int:
        """As `invalidate`, of everything with this tag."""
        return self._removed(tag=_tags((tag,))[0])

    def clear(self, kind: str | None = None) -> int:
        """As `invalidate`, of everything, or of a kind."""
        if kind is not None:
            self._known(kind)
        return self._removed(kind=kind)

    def _removed(self, **what: str | None) -> int:
        found = self.store.remove(**what)
        with self._lock:
            self._memory.clear()
            self._epoch = None
        return found

    def stats(self) -> list[dict[str, Any]]:
        """What is kept of each kind, by all processes. Raises CacheUnavailable."""
        sizes = {size.kind: size for size in self.store.sizes()}
        return [
            {
                "kind": kind,
                "fresh_seconds": round(lifetime.fresh.total_seconds()),
                "entries": sizes[kind].entries if kind in sizes else 0,
                "bytes": sizes[kind].bytes if kind in sizes else 0,
            }
            for kind, lifetime in self.kinds.items()
        ]

    def close(self) -> None:
        """Finish what is made behind readers' backs, and write the counts."""
        self._behind.shutdown()
        self._write_counts()

    def _known(self, kind: str) -> Lifetime:
        if kind not in self.kinds:
            raise UsageError(f"the cache has no kind {kind!r}; there are {', '.join(self.kinds)}")
        return self.kinds[kind]

    def _asked(self, kind: str, key: str, tags: Sequence[str]) -> Asked:
        self._known(kind)
        return Asked(kind, hashlib.sha256(f"{kind}\0{key}".encode()).hexdigest(), _tags(tags))

    # In this process

    def _in_memory(self, asked: Asked, now: datetime) -> bytes | None:
        with self._lock:
            kept = self._memory.get(asked.digest)
        good = (
            kept is not None
            and abs(now - kept.made_at) < self.kinds[asked.kind].fresh
            and kept.epoch == self._epoch_at(now)
        )
        self._count(asked, "memory", HIT if good else MISS)
        return kept.value if kept is not None and good else None

    def _epoch_at(self, now: datetime) -> int:
        """As it was LOOK_AGAIN ago or later."""
        seen = self._epoch
        if seen is None or abs(now - seen[1]) >= LOOK_AGAIN:
            self._epoch = seen = (self.store.epoch(), now)
        return seen[0]

    def _remember(self, asked: Asked, value: bytes, made_at: datetime, epoch: int) -> None:
        with self._lock:
            if len(value) <= self._memory.maxsize:
                self._memory[asked.digest] = Kept(value, made_at, epoch)
            while len(self._memory) > self._entries:
                self._memory.popitem()

    # Among all processes

    def _shared(self, asked: Asked, make: Make, now: Now) -> bytes:
        pause, outcome = FIRST_PAUSE, ""
        while True:
            found = self.store.find(asked, now())
            state, value = self._judged(asked, found, now())
            if not outcome:
                outcome = state
                self._count(asked, self.store.name, outcome)
            if state == HIT and value is not None and found.made_at is not None:
                self._remember(asked, value, found.made_at, found.epoch)
                self._is_away = False
                return value
            if state == STALE and value is not None:
                self._renew_behind(asked, make, now)
                return value
            claim = self._claimed(asked, found, now())
            if claim is not None:
                return self._made(asked, make, claim, found.epoch, now)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _judged(self, asked: Asked, found: Found, now: datetime) -> tuple[str, bytes | None]:
        """HIT, STALE or MISS. A date in the future, after a clock was set back, ages as one in the past does."""
        value = _opened(found.value)
        if value is None or found.made_at is None:
            return MISS, None
        age, lifetime = abs(now - found.made_at), self.kinds[asked.kind]
        return (HIT if age < lifetime.fresh else STALE if age < lifetime.kept else MISS), value

    def _claimed(self, asked: Asked, found: Found, now: datetime) -> str | None:
        claim = str(uuid.uuid4())
        ours = not found.claimed and self.store.claim(asked, found.made_at, claim, now)
        return claim if ours else None

    def _made(self, asked: Asked, make: Make, claim: str, epoch: int, now: Now) -> bytes:
        """Dated when its making began: what was written since is not in it."""
        made_at, value = now(), None
        try:
            with self._leased(asked, claim, now):
                value = orjson.dumps(make())
        finally:
            if value is None or len(value) > LARGEST:
                self._released(asked, claim)
        self._count(asked, self.store.name, COMPUTED)
        if len(value) > LARGEST:
            log.warning("a value of %s is too large to be kept: %s bytes", asked.kind, f"{len(value):,}")
            return value
        try:
            kept = self.kinds[asked.kind].kept
            if self.store.keep(asked, claim, _sealed(value), made_at, kept):
                self._remember(asked, value, made_at, epoch)
            self._is_away = False
        except CacheUnavailable as error:
            self._say_away(error)
        return value

    def _released(self, asked: Asked, claim: str) -> None:
        try:
            self.store.release(asked, claim)
        except CacheUnavailable as error:
            self._say_away(error)

    @contextmanager
    def _leased(self, asked: Asked, claim: str, now: Now) -> Iterator[None]:
        """The claim is extended until the making is over, or takes too long."""
        over, until = threading.Event(), now() + LONGEST_MAKING

        def extend() -> None:
            while not over.wait(LEASE.total_seconds() / 4) and now() < until:
                try:
                    if not self.store.extend(asked, claim, now()):
                        return  # invalidated, or another's meanwhile
                except CacheUnavailable as error:
                    self._say_away(error)

        threading.Thread(target=extend, name="cache-lease", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _renew_behind(self, asked: Asked, make: Make, now: Now) -> None:
        with self._lock:
            if asked.digest in self._renewing:
                return
            self._renewing.add(asked.digest)
        self._behind.submit(self._renewed, asked, make, now).add_done_callback(self._renewal_over(asked))

    def _renewed(self, asked: Asked, make: Make, now: Now) -> None:
        found = self.store.find(asked, now())
        if self._judged(asked, found, now())[0] != HIT:
            claim = self._claimed(asked, found, now())
            if claim is not None:
                self._made(asked, make, claim, found.epoch, now)

    def _renewal_over(self, asked: Asked) -> Callable[[Future[None]], None]:
        def over(future: Future[None]) -> None:
            with self._lock:
                self._renewing.discard(asked.digest)
            error = future.exception()
            if isinstance(error, CacheUnavailable):
                self._say_away(error)
            elif error is not None:
                log.error("a stale value of %s could not be renewed", asked.kind, exc_info=error)

        return over

    def _say_away(self, error: CacheUnavailable) -> None:
        if not self._is_away:
            log.warning("the cache is away, values are made without it: %s", error)
        self._is_away = True

    # Counts

    def _count(self, asked: Asked, layer: str, outcome: str) -> None:
        with self._lock:
            self._counts[Counted(asked.kind, layer, outcome)] += 1

    def _write_counts_behind(self, now: datetime) -> None:
        with self._lock:
            before, due = self._counted_at, False
            if before is None or abs(now - before) >= WRITE_COUNTS:
                self._counted_at, due = now, before is not None
        if due:
            self._behind.submit(self._write_counts, now)

    def _write_counts(self, now: datetime | None = None) -> None:
        """With a `now` also forget what is too old, if we made something."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        made = any(counted.outcome == COMPUTED for counted in counts)
        try:
            while counts:
                counted, number = next(iter(counts.items()))
                add_count(self._counts_engine, counted, number)
                del counts[counted]
        except NavKeeperError:
            with self._lock:
                self._counts.update(counts)
            return
        if now is not None and made:
            try:
                self.store.prune({kind: lifetime.kept for kind, lifetime in self.kinds.items()}, now)
            except CacheUnavailable as error:
                self._say_away(error)


def open_cache(settings: Settings, engine: Engine) -> Cache:
    """The cache of a process; its counts are written when it ends. `engine`: overview.observer_engine.

    Raises ConfigurationError.
    """
    if settings.cache_url is None:
        cache = database_cache(engine)
    else:
        from scheduler.cache_redis import RedisStore

        cache = Cache(RedisStore(settings.cache_url.get_secret_value()), engine, load_kinds())
    atexit.register(cache.close)
    return cache


def database_cache(engine: Engine) -> Cache:
    """Over the database of `engine` (overview.observer_engine). Raises ConfigurationError."""
    return Cache(DatabaseStore(engine), engine, load_kinds())


def _running(now: datetime) -> Now:
    """An instant that goes on from `now`, by the processor's clock."""
    begun = time.monotonic()
    return lambda: now + timedelta(seconds=time.monotonic() - begun)


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    for tag in tags:
        if not re.fullmatch(r"[\w.:-]{1,64}", tag, re.ASCII):
            raise UsageError(
                f"{tag!r} is no tag of the cache: at most 64 letters, digits, '_', '.', ':', '-'"
            )
    return tuple(tags)


def _sealed(value: bytes) -> bytes:
    return b"%08x" % zlib.crc32(value) + value


def _opened(sealed: bytes | None) -> bytes | None:
    """None also for what is not as we wrote it."""
    if sealed is None or sealed[:8] != b"%08x" % zlib.crc32(sealed[8:]):
        return None
    return sealed[8:]
