"""Beyond one machine: back-fill and full recalculation on a Dask cluster (NAVKEEPER_CLUSTER), sharded by fund.

Workers fetch and parse, and measure; judging and all writing stay with the run, in the order and the portions of a
run without a cluster, so that the tables are the same and the run's claim fences every one of them. A shard only
reads: one whose worker died is done again by another.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from core import db
from core.errors import (
    ClusterMismatch,
    ClusterUnavailable,
    ConfigurationError,
    NavKeeperError,
    SourceUnavailable,
)
from core.fund_series import newest_version
from core.sources.circuit_breaker import FAILURES_TO_OPEN
from scheduler import cluster_work

if TYPE_CHECKING:
    from config.settings import Settings
    from core.collector import Histories
    from core.metrics_calculator import FundMetricsCalculator, Measured
    from core.sources.base import NavRow, Source
    from scheduler.run_context import RunContext

log = logging.getLogger(__name__)
PATIENCE = 20.0  # seconds for a scheduler to answer, and for its first worker to be there
LOOK_SECONDS = 5.0  # after which somebody looks whether the workers are still there
TRANSFER_SECONDS = 120.0  # for what a shard gave
AHEAD = 4  # shards a thread that are begun or wait here: a portion is merged meanwhile
SHARD_FUNDS = 20
SITE = ("eastmoney_fund_url", "eastmoney_api_url", "eastmoney_quote_url")


@dataclass
class Cluster:
    """A connection to the scheduler, and the workers that do our work: those there at the start, of our version."""

    client: Any
    address: str
    workers: Mapping[str, int]  # address: threads

    @property
    def threads(self) -> int:
        return sum(self.workers.values())

    def look(self) -> None:
        """Forget workers that are gone. Raises ClusterUnavailable when all are."""
        there = _workers(self.client, self.address)
        gone = [worker for worker in self.workers if worker not in there]
        self.workers = {worker: count for worker, count in self.workers.items() if worker in there}
        if gone:
            log.warning(
                "cluster %s: lost %s, %d workers left", self.address, ", ".join(gone), len(self.workers)
            )
        if not self.workers:
            raise ClusterUnavailable(f"cluster {self.address}: all workers of this run are gone; start some")


@contextmanager
def connected(address: str, engine: Engine) -> Iterator[Cluster]:
    """The cluster, once its workers were found to be of our version. Leaving drops what has not begun.

    Raises ConfigurationError without Dask, ClusterUnavailable, ClusterMismatch.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"NAVKEEPER_CLUSTER is set, but {error.name} is not installed: pip install -r requirements-cluster.in"
        ) from None
    with _unavailable(address):
        client = Client(address, timeout=PATIENCE, set_as_default=False, name="navkeeper")
    try:
        with _unavailable(address):
            client.wait_for_workers(1, timeout=PATIENCE)
        workers = _workers(client, address)
        _require_same(client, address, engine, list(workers))
        cluster = Cluster(client, address, workers)
        log.info("cluster %s: %d workers, %d threads", address, len(workers), cluster.threads)
        yield cluster
    finally:
        client.close()


@contextmanager
def _unavailable(address: str) -> Iterator[None]:
    """Dask's own errors as ours; what a task of ours has raised passes."""
    from distributed import CancelledError, KilledWorker
    from distributed.client import ClosedClientError

    try:
        yield
    except (
        OSError,
        CancelledError,
        ClosedClientError,
        KilledWorker,
    ) as error:  # a TimeoutError is an OSError
        said = str(error).splitlines()
        why = said[0] if said else type(error).__name__
        raise ClusterUnavailable(f"cluster {address}: {why}; is its scheduler there, with workers?") from None


def _workers(client: Any, address: str) -> dict[str, int]:
    """Threads of the workers there now, by address."""
    with _unavailable(address):
        if client.status != "running":
            raise ConnectionError("the scheduler is gone")
        # Not scheduler_info(): every two seconds the client replaces its copy by one without workers.
        return {worker: int(threads) for worker, threads in client.nthreads().items()}


def _require_same(client: Any, address: str, engine: Engine, workers: list[str]) -> None:
    """Raises ClusterMismatch naming a worker of another version, or of another database."""
    with db.read(engine) as connection:
        version, token = newest_version(connection)
    ours = cluster_work.identity(engine, version, token)
    with _unavailable(address):
        found = client.run(
            cluster_work.identity_of_worker, version, token, workers=workers, on_error="return"
        )
    for worker, theirs in found.items():
        if isinstance(theirs, OSError) or (isinstance(theirs, NavKeeperError) and theirs.retry):
            raise ClusterUnavailable(f"worker {worker}: {theirs}")
        if isinstance(theirs, Exception):
            said = f"{getattr(theirs, 'code', type(theirs).__name__)}: {theirs}"
            raise ClusterMismatch(
                f"worker {worker} cannot work for us: {said}; "
                "it needs this version of NavKeeper and the database's address in its environment"
            )
        other = [
            f"{name} {theirs.get(name)} instead of {ours[name]}"
            for name in ours
            if theirs.get(name) != ours[name]
        ]
        if other:
            raise ClusterMismatch(
                f"worker {worker} is of another version: {', '.join(other)}; bring it up to date and restart it"
            )


def results(
    cluster: Cluster, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[Any]:
    """What `function` gives for each tuple of arguments, in their order; the tuples are asked for as they are due.

    Raises what the function raises, and ClusterUnavailable.
    """
    waiting, running = iter(tasks), deque[Any]()
    while True:
        cluster.look()
        for arguments in islice(waiting, max(0, AHEAD * cluster.threads - len(running))):
            with _unavailable(cluster.address):
                running.append(
                    cluster.client.submit(function, *arguments, workers=list(cluster.workers), pure=False)
                )
        if not running:
            return
        yield _result(cluster, running.popleft())


def _result(cluster: Cluster, future: Any) -> Any:
    while True:
        with _unavailable(cluster.address):
            try:
                future.exception(timeout=LOOK_SECONDS)
                return future.result(timeout=TRANSFER_SECONDS)
            except TimeoutError:
                if future.status == "error":  # the function's own
                    raise
        cluster.look()


@contextmanager
def histories_of(context: RunContext, source: Source, codes: Sequence[str]) -> Iterator[Histories]:
    """`source.histories`, on the cluster where there is one and it is worth it.

    Only Eastmoney's: files are read in one pass, and the account and the token of tushare stay here.
    """
    settings = context.settings
    if settings.cluster is None or source.name != "eastmoney" or len(codes) <= SHARD_FUNDS:
        yield source.histories
        return
    with connected(settings.cluster, context.engine) as cluster:
        yield partial(_histories, cluster, settings, source)


def _histories(
    cluster: Cluster,
    settings: Settings,
    source: Source,
    codes: list[str],
    start: date | None = None,
    end: date | None = None,
) -> Iterator[tuple[str, list[NavRow]]]:
    """In the order of the codes. Funds that no worker could get are asked for at the end, from here."""
    shards = [codes[at : at + SHARD_FUNDS] for at in range(0, len(codes), SHARD_FUNDS)]
    tasks = ((_site(settings, cluster.threads), shard, start, end) for shard in shards)
    missing = []
    for shard, text in zip(shards, results(cluster, cluster_work.fetch, tasks), strict=False):
        found = dict(cluster_work.unpacked(text))
        for code in shard:
            if code in found:
                yield code, found.pop(code)
            else:
                missing.append(code)
    try:
        yield from source.histories(missing, start, end)
    except SourceUnavailable as error:
        if len(missing) >= FAILURES_TO_OPEN or len(missing) == len(codes):
            raise
        log.warning("%d funds are left out: %s", len(missing), error)


def _site(settings: Settings, threads: int) -> dict[str, Any]:
    """What a thread of a worker needs to ask the site: its share of what all together may."""
    return {name: getattr(settings, name) for name in SITE} | {
        "requests_per_second": settings.requests_per_second / threads,
        "concurrency": max(1, settings.concurrency // threads),
    }


def measure_everything(context: RunContext, calculator: FundMetricsCalculator) -> Measured:
    """Metrics of all funds as of the business date, straight from the database; on the cluster where there is one."""
    from core.metrics_calculator import together

    day, address = context.business_date, context.settings.cluster
    if address is None:
        return calculator.calculate_market(day, fresh=True)
    with connected(address, context.engine) as cluster:
        counts = _row_counts(context.engine)
        fixed = (calculator.thresholds, calculator.risk_free, calculator.periods_per_year, day)
        tasks = [(*fixed, span) for span in spans(counts, _parts(counts, cluster.threads))]
        parts: list[Measured] = []
        for part in results(cluster, cluster_work.measure, tasks):
            parts.append(part)
            context.progress(sum(len(one.codes) for one in parts), len(counts), "funds")
    return together(day, parts)


def _row_counts(engine: Engine) -> dict[str, int]:
    """Rows by fund, NAVs and incomes together."""
    from core.fund_series import read_series
    from core.nav_mirror import TABLES

    counts: dict[str, int] = {}
    with db.read(engine) as connection:
        for table in TABLES:
            for row in read_series(connection, table):
                counts[row.fund_code] = counts.get(row.fund_code, 0) + row.row_count
    return counts


def _parts(counts: Mapping[str, int], threads: int) -> int:
    """Two a thread, so that a faster one does more; more where that would be too much for a worker's memory."""
    from core.nav_mirror import ROWS_A_BLOCK

    return max(2 * threads, -(-sum(counts.values()) // ROWS_A_BLOCK))


def spans(counts: Mapping[str, int], parts: int) -> list[tuple[str, str]]:
    """First and last code of at most `parts` ranges of about equally many rows; together they are every code."""
    firsts, rows, share = ["000000"], 0, sum(counts.values()) / parts
    for code in sorted(counts):
        if rows >= share * len(firsts):
            firsts.append(code)
        rows += counts[code]
    lasts = [f"{int(code) - 1:06d}" for code in firsts[1:]]
    return list(zip(firsts, [*lasts, "999999"], strict=True))
