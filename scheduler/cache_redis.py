"""The cache in a Redis server instead of the database: optional, for many processes on several hosts.

Scripts, since what is looked at and what is changed must be one step; not for a Redis Cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from core.errors import CacheUnavailable, ConfigurationError
from scheduler.cache_store import LEASE, Asked, Found, Size

PREFIX = "navkeeper:cache"
EPOCH = f"{PREFIX}:epoch"
TAG_LIFE = timedelta(days=60)  # longer than anything with a tag is kept
SECONDS = 5  # to wait for an answer
PART = 1000  # keys a step
LEASE_MS = int(LEASE.total_seconds() * 1000)

HELD = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end "
EXTEND = HELD + "return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
RELEASE = HELD + "return redis.call('DEL', KEYS[1])"
KEEP = HELD + (
    "redis.call('HSET', KEYS[2], 'value', ARGV[2], 'made_at', ARGV[3]) "
    "redis.call('PEXPIRE', KEYS[2], ARGV[4]) return redis.call('DEL', KEYS[1])"
)
REMOVE_TAG = (
    "local found = 0 for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do "
    "found = found + redis.call('DEL', ARGV[1] .. name) redis.call('DEL', ARGV[2] .. name) end "
    "redis.call('DEL', KEYS[1]) redis.call('INCR', KEYS[2]) return found"
)


class RedisStore:
    """See cache_store.Store; claims end by Redis's clock, values by the reader's, and at last by Redis's."""

    name = "redis"

    def __init__(self, url: str) -> None:
        """The server may be away. Raises ConfigurationError for a wrong address, or without redis-py."""
        try:
            import redis
        except ModuleNotFoundError:
            raise ConfigurationError(
                "NAVKEEPER_CACHE_URL needs the package redis; install it: pip install -r requirements-redis.in"
            ) from None
        self._error = redis.RedisError
        limits = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}
        try:
            self._redis: Any = redis.Redis.from_url(url, **limits)
        except ValueError:  # its text could hold the password
            raise ConfigurationError(
                "NAVKEEPER_CACHE_URL = (hidden) is not allowed: an address such as redis://:password@host:6379/0"
            ) from None
        scripts = (EXTEND, RELEASE, KEEP, REMOVE_TAG)
        self._extend, self._release, self._keep, self._remove_tag = map(self._redis.register_script, scripts)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise CacheUnavailable(f"Redis: {type(error).__name__}: {error}") from None

    def epoch(self) -> int:
        with self._translated():
            return int(self._redis.get(EPOCH) or 0)

    def find(self, asked: Asked, now: datetime) -> Found:  # noqa: ARG002
        with self._translated(), self._redis.pipeline() as pipe:
            pipe.get(EPOCH).hmget(_entry(asked), "value", "made_at").exists(_claim(asked))
            epoch, (value, made_at), claimed = pipe.execute()
        return Found(int(epoch or 0), value, _instant(made_at), bool(claimed))

    def claim(self, asked: Asked, seen: datetime | None, claim: str, now: datetime) -> bool:  # noqa: ARG002
        with self._translated():
            if not self._redis.set(_claim(asked), claim, nx=True, px=LEASE_MS):
                return False
            with self._redis.pipeline() as pipe:
                pipe.hget(_entry(asked), "made_at")
                for tag in asked.tags:
                    pipe.sadd(_tag(tag), _name(asked)).expire(_tag(tag), TAG_LIFE)
                made_at = pipe.execute()[0]
            if _instant(made_at) == seen:
                return True
        self.release(asked, claim)  # it was made meanwhile
        return False

    def extend(self, asked: Asked, claim: str, now: datetime) -> bool:  # noqa: ARG002
        with self._translated():
            return bool(self._extend(keys=[_claim(asked)], args=[claim, LEASE_MS]))

    def release(self, asked: Asked, claim: str) -> None:
        with self._translated():
            self._release(keys=[_claim(asked)], args=[claim])

    def keep(self, asked: Asked, claim: str, value: bytes, made_at: datetime, kept: timedelta) -> bool:
        life = int(kept.total_seconds() * 1000)
        args: list[str | bytes | int] = [claim, value, made_at.isoformat(), life]
        with self._translated():
            return bool(self._keep(keys=[_claim(asked), _entry(asked)], args=args))

    def remove(self, kind: str | None = None, digest: str | None = None, tag: str | None = None) -> int:
        with self._translated():
            if tag is not None:
                parts = [f"{PREFIX}:entry:", f"{PREFIX}:claim:"]
                return int(self._remove_tag(keys=[_tag(tag), EPOCH], args=parts))
            self._deleted("claim", kind, digest)  # first: what is made now is not kept
            found = self._deleted("entry", kind, digest)
            self._redis.incr(EPOCH)
        return found

    def _deleted(self, what: str, kind: str | None, digest: str | None) -> int:
        key = f"{PREFIX}:{what}:{kind or '*'}:{digest or '*'}"
        keys = self._redis.scan_iter(key, PART) if "*" in key else [key]
        return sum(self._redis.delete(*part) for part in _parts(keys))

    def prune(self, kept: Mapping[str, timedelta], now: datetime) -> None:
        """Nothing to do: Redis forgets by itself."""

    def sizes(self) -> list[Size]:
        entries: Counter[str] = Counter()
        total: Counter[str] = Counter()
        with self._translated():
            for keys in _parts(self._redis.scan_iter(f"{PREFIX}:entry:*", PART)):
                with self._redis.pipeline(transaction=False) as pipe:
                    for key in keys:
                        pipe.hstrlen(key, "value")
                    for key, length in zip(keys, pipe.execute(), strict=True):
                        kind = key.decode().split(":")[-2]
                        entries[kind] += 1
                        total[kind] += length
        return [Size(kind, entries[kind], total[kind]) for kind in sorted(entries)]


def _parts(keys: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(keys)
    while part := list(islice(rest, PART)):
        yield part


def _name(asked: Asked) -> str:
    return f"{asked.kind}:{asked.digest}"


def _entry(asked: Asked) -> str:
    return f"{PREFIX}:entry:{_name(asked)}"


def _claim(asked: Asked) -> str:
    return f"{PREFIX}:claim:{_name(asked)}"


def _tag(tag: str) -> str:
    return f"{PREFIX}:tag:{tag}"


def _instant(text: bytes | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text.decode())
