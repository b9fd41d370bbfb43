"""How often the cache was of use: counted in memory, added to `cache_count` every few seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from core.cache_tables import cache_count

HIT, STALE, MISS, COMPUTED = OUTCOMES = ("hit", "stale", "miss", "computed")


class Counted(NamedTuple):
    """`computed`: how often it was made, of the layer it was then put into."""

    kind: str
    layer: str
    outcome: str


def add_counts(connection: Connection, counts: Mapping[Counted, int]) -> None:
    """In the order of their names: who adds at the same time waits, and never each for the other."""
    of = cache_count.c
    for counted, number in sorted(counts.items()):
        same = and_(of.kind == counted.kind, of.layer == counted.layer, of.outcome == counted.outcome)
        more = update(cache_count).where(same).values(count=of.count + number)
        if connection.execute(more).rowcount:
            continue
        try:
            with connection.begin_nested():
                connection.execute(insert(cache_count).values(**counted._asdict(), count=number))
        except IntegrityError:  # another was faster
            connection.execute(more)


def cache_figures(connection: Connection) -> Counter[Counted]:
    """Since the tables were made, of all processes but for their last seconds."""
    of = cache_count.c
    rows = connection.execute(select(of.kind, of.layer, of.outcome, of.count))
    return Counter({Counted(row.kind, row.layer, row.outcome): row.count for row in rows})
