"""How often the cache was of use: counted in memory, added to `cache_count` every few seconds."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from sqlalchemy import Connection, Engine, and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from core import db
from core.cache_tables import cache_count

HIT, STALE, MISS, COMPUTED = OUTCOMES = ("hit", "stale", "miss", "computed")


class Counted(NamedTuple):
    """`computed`: how often it was made, of the layer it was then put into."""

    kind: str
    layer: str
    outcome: str


def add_count(engine: Engine, counted: Counted, number: int) -> None:
    """Raises DatabaseUnavailable, SchemaOutdated.

    A transaction each: who were too late with the same new row would hold it, each against the other's update.
    """
    of = cache_count.c
    same = and_(of.kind == counted.kind, of.layer == counted.layer, of.outcome == counted.outcome)
    more = update(cache_count).where(same).values(count=of.count + number)
    with db.write(engine) as connection:
        if connection.execute(more).rowcount:
            return
    try:
        with db.write(engine) as connection:
            connection.execute(insert(cache_count).values(**counted._asdict(), count=number))
    except IntegrityError:  # another was faster
        with db.write(engine) as connection:
            connection.execute(more)


def cache_figures(connection: Connection) -> Counter[Counted]:
    """Since the tables were made, of all processes but for their last seconds."""
    of = cache_count.c
    rows = connection.execute(select(of.kind, of.layer, of.outcome, of.count))
    return Counter({Counted(row.kind, row.layer, row.outcome): row.count for row in rows})
