"""What every source of NAVs gives: rows, fund descriptions and a word on where they came from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Literal, NamedTuple, Protocol


class NavRow(NamedTuple):
    """One fund on one date, as published. Values not published are None, never zero.

    A money-market fund has no NAV: its rows carry `income_per_10k` and `yield_7d` and leave the
    NAV fields None. A row whose text could not be read carries the text in `raw`, the reason in
    `defect` and None in the fields it could not fill: it is quarantined with that reason.
    """

    fund_code: str
    nav_date: date | None
    unit_nav: float | None = None
    accum_nav: float | None = None
    daily_return: float | None = None  # percent, as published
    dividend: float | None = None  # cash per pre-event share, ex on nav_date
    split_ratio: float | None = None  # shares after for one share before, effective on nav_date
    income_per_10k: float | None = None  # money funds: income of the day(s) per 10,000 shares
    yield_7d: float | None = None  # money funds: 7-day annualised yield, percent
    origin: str | None = None  # "navs.csv:17" for rows from files
    defect: str | None = None
    raw: str | None = None


class FundInfo(NamedTuple):
    """One fund as the lists describe it; `fund_type`, `purchase` and `redemption` in the publisher's own words.

    None where the source does not say: such a blank never takes the place of what is known.
    """

    fund_code: str
    fund_name: str
    fund_type: str  # 混合型-灵活
    pinyin: str = ""
    inception: date | None = None
    purchase: str | None = None  # 开放申购, 限大额, 暂停申购, 认购期, 封闭期, 场内交易, …
    redemption: str | None = None  # 开放赎回, 暂停赎回, 封闭期, 场内交易, …


class EventNotice(NamedTuple):
    """A dividend or split as a list of such events names it, apart from any NAV."""

    fund_code: str
    ex_date: date
    kind: Literal["dividend", "split"]
    value: float  # cash per pre-event share, or shares after for one before


class IndexClose(NamedTuple):
    """The close of an index on one trading day, in points."""

    index_code: str
    trade_date: date
    close: float


class Source(Protocol):
    """A source of NAVs.

    All methods raise `SourceUnavailable` (trying later may help) or `SourceChanged` (it will not).
    """

    name: str

    @property
    def provenance(self) -> str:
        """Where the rows of this source really came from: addresses, and who answered there."""

    def fund_list(self) -> list[FundInfo]:
        """Every fund the source knows."""

    def latest(self) -> list[NavRow]:
        """The newest published row of every fund, each with its own date."""

    def history(self, fund_code: str, start: date | None = None, end: date | None = None) -> list[NavRow]:
        """The rows of one fund from `start` to `end` (both included), oldest first.

        Raises `UnknownFund` when the source has no such fund.
        """

    def histories(
        self, fund_codes: list[str], start: date | None = None, end: date | None = None
    ) -> Iterator[tuple[str, list[NavRow]]]:
        """`history` of many funds, as they arrive; a fund the source does not know yields no rows.

        A fund that could not be had, while others could, is left out.
        """

    def events(self, since: date, until: date) -> list[EventNotice] | None:
        """Dividends and splits with an ex-date from `since` on, asked for up to `until`, each once.

        Those announced for later than `until` may be among them. None where the source has no such list.
        """

    def index_closes(self, index_code: str, since: date | None, until: date) -> list[IndexClose] | None:
        """Closes of an index from `since` (None: its first) to `until`, oldest first.

        None where the source has no indices. Raises `UnknownFund` for an index that it does not know.
        """

    def close(self) -> None:
        """Give back connections."""
