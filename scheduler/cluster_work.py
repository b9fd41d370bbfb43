"""What a worker of a Dask cluster does for a run: functions of plain arguments, called by their names.

A worker takes the database's address from its own environment. All else that a result depends on comes with the
arguments or from that database.
"""

from __future__ import annotations

import hashlib
import pickle  # nosec B403  # see where it is loaded
import threading
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache, lru_cache
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from config.settings import ROOT, load_settings
from core import db
from core.errors import NotReady, SourceUnavailable
from core.fund_series import is_known
from core.sources.base import NavRow
from core.sources.circuit_breaker import FAILURES_TO_OPEN
from core.trading_calendar import load_calendar
from scheduler.sources import make_source

if TYPE_CHECKING:
    from core.metrics_calculator import Measured
    from core.sources.base import Source
    from core.thresholds import Thresholds

DAY = NavRow._fields.index("nav_date")
PACKED_BY = 5  # pickle protocol
History = tuple[str, list[NavRow]]


@cache
def code() -> dict[str, str]:
    """Digests and versions of all that results depend on besides data.

    All of it is imported first: a worker that goes on while its files are replaced remains what it was.
    """
    import numba
    import numpy as np

    from core import metrics_calculator  # noqa: F401
    from core.metrics import DEFINITION_VERSION
    from core.sources import eastmoney  # noqa: F401

    digest = hashlib.sha256()
    for path in sorted(
        path for room in ("config", "core", "scheduler") for path in (ROOT / room).rglob("*.py")
    ):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return {
        "NavKeeper": digest.hexdigest()[:12],
        "metrics definition": DEFINITION_VERSION,
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def identity(engine: Engine, version: int, token: str) -> dict[str, str]:
    """`code`, the schema, and whether the database has had this version of its series. Raises NavKeeperError."""
    with db.read(engine) as connection:
        same = version == 0 or is_known(connection, version, token)
        revision = db.revision(connection)
    return code() | {"schema": revision or "none", "database": "ours" if same else "another"}


def identity_of_worker(version: int, token: str) -> dict[str, str]:
    """`identity`, by the settings of this process."""
    return identity(_engine(), version, token)


@cache
def _engine() -> Engine:
    return db.connect(load_settings().database_url())


def fetch(site: dict[str, Any], codes: list[str], start: date | None, end: date | None) -> bytes:
    """The histories of these funds from Eastmoney, for `unpacked`; funds that could not be had are not among them.

    `site`: the settings that matter. Raises SourceUnavailable where none of five funds or more could be had.
    """
    from scheduler.backfill_task import rare_collections

    source = _source(tuple(sorted(site.items())), threading.get_ident())
    found: list[History] = []
    try:
        with rare_collections():
            found.extend(source.histories(codes, start, end))
    except SourceUnavailable:
        if len(codes) >= FAILURES_TO_OPEN:  # fewer say nothing of the site
            raise
    return packed(found)


@lru_cache(maxsize=16)
def _source(site: tuple[tuple[str, Any], ...], _thread: int) -> Source:
    """One for each thread of the worker: its turns go on from shard to shard, and so do its connections."""
    return make_source(load_settings(**dict(site)), "eastmoney")


def packed(histories: Sequence[History]) -> bytes:
    """Histories as columns: a fifth of the time, and three quarters of the bytes, of pickled rows."""
    found = []
    for fund_code, rows in histories:
        columns: list[Any] = [
            None if column.count(None) == len(column) else column for column in zip(*rows, strict=True)
        ]
        if rows and columns[DAY] is not None:
            columns[DAY] = tuple(day and day.toordinal() for day in columns[DAY])
        found.append((fund_code, len(rows), columns))
    return pickle.dumps(found, PACKED_BY)


def unpacked(text: bytes) -> Iterator[History]:
    """What was packed, row for row."""
    days: dict[int | None, date | None] = {None: None}  # one object a day, as funds share them
    for fund_code, count, columns in pickle.loads(text):  # nosec B301  # noqa: S301 - as trusted as the cluster that computes for us
        if count and columns[DAY] is not None:
            days |= {number: date.fromordinal(number) for number in set(columns[DAY]) - days.keys()}
            columns[DAY] = [days[number] for number in columns[DAY]]
        filled = (repeat(None, count) if column is None else column for column in columns)
        yield fund_code, list(map(NavRow._make, zip(*filled, strict=True)))


def measure(
    thresholds: Thresholds,
    risk_free: float,
    periods_per_year: float,
    calc_date: date,
    span: tuple[str, str],
) -> Measured:
    """Metrics of the funds from the first to the last code of `span`. Raises DatabaseUnavailable."""
    from core.metrics_calculator import FundMetricsCalculator

    engine = _engine()
    with db.read(engine) as connection:
        calendar = load_calendar(connection)
    if calendar is None:
        raise NotReady("the trading calendar is empty; run: python main.py init")
    calculator = FundMetricsCalculator(
        engine,
        calendar,
        thresholds,
        risk_free=risk_free,
        periods_per_year=periods_per_year,
        mirror=Path(),  # not read: everything comes from the database itself
    )
    return calculator.calculate_market(calc_date, fresh=True, span=span)
