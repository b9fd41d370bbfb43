"""FundCollector: from a source into staging. Nothing here is believed yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, Engine

from core import db, nav_days, nav_store
from core.errors import NotPublished
from core.schema import fund_nav
from core.sources.base import FundInfo, NavRow, Source
from core.trading_calendar import TradingCalendar

Histories = Callable[[list[str], date | None, date | None], Iterator[tuple[str, list[NavRow]]]]
HISTORY_BATCH_ROWS = 150_000
HISTORY_BATCH_FUNDS = 500  # what an outage can cost: at five funds a second, two minutes


@dataclass(frozen=True)
class Fetched:
    """One answer of a source for a night, not yet written anywhere."""

    business_date: date
    funds: list[FundInfo]
    rows: list[NavRow]

    @property
    def advanced(self) -> int:
        """Funds that have published for the business date."""
        return sum(1 for row in self.rows if row.nav_date == self.business_date)

    @property
    def newest(self) -> date | None:
        return max((row.nav_date for row in self.rows if row.nav_date is not None), default=None)


@dataclass(frozen=True)
class History:
    """The histories of some funds, not yet written anywhere."""

    rows: list[NavRow]
    row_counts: dict[str, int]  # by fund; zero where it has none

    @property
    def funds(self) -> int:
        return len(self.row_counts)

    @property
    def empty(self) -> int:
        """Funds that gave no rows."""
        return sum(1 for count in self.row_counts.values() if not count)


class FundCollector:
    """Collects NAVs from `source` into the staging table, one batch at a time."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self.engine = engine
        self.source = source

    def fetch(self, business_date: date) -> Fetched:
        """Ask the source for the newest rows of all funds. Raises SourceError; writes nothing."""
        rows = self.source.latest()
        return Fetched(business_date, self.source.fund_list(), rows)

    def stage(
        self,
        connection: Connection,
        fetched: Fetched,
        now: datetime,
        run_id: int | None = None,
        kind: str = "latest",
    ) -> int:
        """Write what was fetched as one batch, in the caller's transaction; returns its id."""
        if kind != "second":  # a second source has words of its own for the funds' types
            nav_store.save_funds(connection, fetched.funds, now, fetched.business_date)
        return self._open_batch(connection, kind, fetched.business_date, fetched.rows, now, run_id)

    def collect_daily_nav(self, business_date: date, now: datetime) -> int:
        """Fetch and stage in one transaction of its own; returns the batch id.

        Raises SourceError when the source fails and NotPublished when no fund has published for
        `business_date` yet; then nothing is staged.
        """
        fetched = self.fetch(business_date)
        if not fetched.advanced:
            raise NotPublished(nothing_published(fetched))
        with db.write(self.engine) as connection:
            return self.stage(connection, fetched, now)

    def collect_history(
        self,
        fund_codes: Sequence[str],
        start: date | None = None,
        end: date | None = None,
        arrived: Callable[[int, str], None] = lambda _funds, _code: None,
        histories: Histories | None = None,
    ) -> Iterator[History]:
        """Fetch the histories of many funds in portions of whole funds, each to be merged as a batch.

        `arrived` is told how many funds of the portion to come are there, and which came last. A fund that
        the source could not give is in none of them. `histories`: instead of the source's own.
        """
        rows: list[NavRow] = []
        counts: dict[str, int] = {}
        for code, history in (histories or self.source.histories)(list(fund_codes), start, end):
            rows += history
            counts[code] = len(history)
            arrived(len(counts), code)
            if len(rows) >= HISTORY_BATCH_ROWS or len(counts) >= HISTORY_BATCH_FUNDS:
                yield History(rows, counts)
                rows, counts = [], {}
        if counts:
            yield History(rows, counts)

    def _open_batch(
        self,
        connection: Connection,
        kind: str,
        business_date: date | None,
        rows: list[NavRow],
        now: datetime,
        run_id: int | None,
    ) -> int:
        return nav_store.open_batch(
            connection,
            kind=kind,
            business_date=business_date,
            source=self.source.name,
            provenance=self.source.provenance,
            now=now,
            rows=rows,
            run_id=run_id,
        )


def nothing_published(fetched: Fetched) -> str:
    newest = f"the newest is {fetched.newest}" if fetched.newest else "no row has a date"
    return f"no fund has published for {fetched.business_date} yet ({newest}); try again later this evening"


def coverage(connection: Connection, fetched: Fetched, calendar: TradingCalendar) -> tuple[int, int, float]:
    """Funds with a NAV of the business date, funds with one of the newest session before it, and the share.

    That session is the newest that any fund has a NAV of; where there is none the share is 1.0.
    """
    day = nav_days.newest_date(connection, fund_nav, before=fetched.business_date)
    while day is not None and not calendar.is_session(day):
        day = nav_days.newest_date(connection, fund_nav, before=day)
    before = nav_days.row_count(connection, fund_nav, day) if day is not None else 0
    rows = (row for row in fetched.rows if row.nav_date == fetched.business_date)
    advanced = len({row.fund_code for row in rows if row.unit_nav is not None})
    return advanced, before, advanced / before if before else 1.0
