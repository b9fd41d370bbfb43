"""What all processes of the cache share: its entries, who makes which, and when all must be asked for anew.

A claim is a conditional update, as everywhere here. Invalidating deletes the row, claim and all, so that what was being
made then is never kept: keeping it is a conditional update too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from sqlalchemy import ColumnElement, Engine, and_, delete, func, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from core import db
from core.cache_tables import cache_entry, cache_epoch
from core.errors import CacheUnavailable, DatabaseUnavailable, SchemaOutdated

LEASE = timedelta(seconds=10)  # renewed while it is made; a killed maker's ends by itself


class Asked(NamedTuple):
    kind: str
    digest: str  # SHA-256 of kind and key
    tags: tuple[str, ...] = ()


class Found(NamedTuple):
    """`epoch`: how often something had been invalidated; without an entry `value` and `made_at` are None."""

    epoch: int
    value: bytes | None
    made_at: datetime | None
    claimed: bool  # by somebody who makes it


class Size(NamedTuple):
    kind: str
    entries: int
    bytes: int


class Store(Protocol):
    """Every method raises CacheUnavailable."""

    name: str

    def epoch(self) -> int: ...

    def find(self, asked: Asked, now: datetime) -> Found: ...

    def claim(self, asked: Asked, seen: datetime | None, claim: str, now: datetime) -> bool:
        """Whether we are to make it; not if it was made since `seen`, the `made_at` that was found."""

    def extend(self, asked: Asked, claim: str, now: datetime) -> bool:
        """Whether it is still ours to make, for a lease from now on."""

    def release(self, asked: Asked, claim: str) -> None:
        """Nothing came of it."""

    def keep(self, asked: Asked, claim: str, value: bytes, made_at: datetime, kept: timedelta) -> bool:
        """Whether it was still ours; only then is it kept, until `kept` after `made_at`."""

    def remove(self, kind: str | None = None, digest: str | None = None, tag: str | None = None) -> int:
        """Everything, or what is meant: a kind, a digest of a kind, a tag. Returns how many entries there were."""

    def prune(self, kept: Mapping[str, timedelta], now: datetime) -> None:
        """Forget what is too old to be served."""

    def sizes(self) -> list[Size]: ...


def without_gap_locks(engine: Engine) -> Engine:
    """A server's locks on what is not there would make two stumble that write the same new row."""
    in_file = engine.dialect.name == "sqlite"
    return engine if in_file else engine.execution_options(isolation_level="READ COMMITTED")


class DatabaseStore:
    """In `cache_entry`. The engine answers or fails within seconds and makes no file: overview.observer_engine."""

    name = "database"

    def __init__(self, engine: Engine) -> None:
        self._engine = without_gap_locks(engine)

    def epoch(self) -> int:
        with _translated(), db.read(self._engine) as connection:
            return int(connection.scalar(select(cache_epoch.c.number)) or 0)

    def find(self, asked: Asked, now: datetime) -> Found:
        entry = cache_entry.c
        joined = cache_epoch.outerjoin(cache_entry, entry.digest == asked.digest)
        columns = (cache_epoch.c.number, entry.value, entry.made_at, entry.claimed_until)
        with _translated(), db.read(self._engine) as connection:
            row = connection.execute(select(*columns).select_from(joined)).one()
        return Found(
            row.number, row.value, row.made_at, row.claimed_until is not None and row.claimed_until > now
        )

    def claim(self, asked: Asked, seen: datetime | None, claim: str, now: datetime) -> bool:
        entry = cache_entry.c
        ours = {"claim": claim, "claimed_until": now + LEASE, "tags": _tag_text(asked.tags)}
        free = or_(entry.claimed_until.is_(None), entry.claimed_until <= now)
        same = entry.made_at.is_(None) if seen is None else entry.made_at == seen
        mine = update(cache_entry).where(entry.digest == asked.digest, free, same).values(ours)
        row = {"digest": asked.digest, "kind": asked.kind, **ours}
        with _translated():
            with db.write(self._engine) as connection:
                if connection.execute(mine).rowcount:
                    return True
            try:  # a transaction of its own: many that hold something for the same new row would be a deadlock
                with db.write(self._engine) as connection:
                    connection.execute(insert(cache_entry).values(row))
            except IntegrityError:  # another was faster
                return False
        return True

    def extend(self, asked: Asked, claim: str, now: datetime) -> bool:
        return self._change(asked, claim, claimed_until=now + LEASE)

    def release(self, asked: Asked, claim: str) -> None:
        entry = cache_entry.c
        mine = (entry.digest == asked.digest, entry.claim == claim)
        with _translated(), db.write(self._engine) as connection:
            connection.execute(delete(cache_entry).where(*mine, entry.value.is_(None)))
            connection.execute(update(cache_entry).where(*mine).values(claim=None, claimed_until=None))

    def keep(self, asked: Asked, claim: str, value: bytes, made_at: datetime, kept: timedelta) -> bool:  # noqa: ARG002
        return self._change(asked, claim, value=value, made_at=made_at, claim=None, claimed_until=None)

    def _change(self, asked: Asked, held: str, **values: Any) -> bool:
        entry = cache_entry.c
        mine = (entry.digest == asked.digest, entry.claim == held)
        with _translated(), db.write(self._engine) as connection:
            return connection.execute(update(cache_entry).where(*mine).values(values)).rowcount == 1

    def remove(self, kind: str | None = None, digest: str | None = None, tag: str | None = None) -> int:
        entry = cache_entry.c
        meant: list[ColumnElement[bool]] = [true()]
        if kind is not None:
            meant.append(entry.kind == kind)
        if digest is not None:
            meant.append(entry.digest == digest)
        if tag is not None:
            meant.append(entry.tags.contains(f" {tag} ", autoescape=True))
        with _translated(), db.write(self._engine) as connection:
            connection.execute(update(cache_epoch).values(number=cache_epoch.c.number + 1))
            counted = select(func.count(entry.value)).where(*meant)
            entries = int(connection.scalar(counted) or 0)
            connection.execute(delete(cache_entry).where(*meant))
        return entries

    def prune(self, kept: Mapping[str, timedelta], now: datetime) -> None:
        entry = cache_entry.c
        free = or_(entry.claimed_until.is_(None), entry.claimed_until <= now)
        old = [and_(entry.kind == kind, entry.made_at < now - span) for kind, span in kept.items()]
        with _translated(), db.write(self._engine) as connection:
            forgotten = (entry.kind.not_in(kept), entry.made_at.is_(None), *old)
            connection.execute(delete(cache_entry).where(free, or_(*forgotten)))

    def sizes(self) -> list[Size]:
        entry = cache_entry.c
        counted = (entry.kind, func.count(), func.sum(func.length(entry.value)))
        query = select(*counted).where(entry.value.is_not(None)).group_by(entry.kind).order_by(entry.kind)
        with _translated(), db.read(self._engine) as connection:
            return [Size(kind, entries, int(total)) for kind, entries, total in connection.execute(query)]


def _tag_text(tags: tuple[str, ...]) -> str:
    return f" {' '.join(tags)} " if tags else ""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (DatabaseUnavailable, SchemaOutdated) as error:
        raise CacheUnavailable(str(error)) from None
