"""Indicators of funds (adjusted NAVs) and indexes (bars): what is read for them, and the rows of market_technical."""

from __future__ import annotations

from bisect import bisect_right
from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, column, func, inspect, select, table

from core.errors import SourceChanged, UnknownFund
from core.market import indicators
from core.market.tables import market_index_bar
from core.nav_as_of import adjustments
from core.schema import fund_nav
from core.sources.eastmoney import INDEX_MARKETS
from core.sources.eastmoney_http import EastmoneyHttp
from core.sources.replies import decode, json_object, readable
from core.sources.text_values import FieldError, is_fund_code, parse_date, parse_number, shown

Floats = NDArray[np.float64]
Record = dict[str, Any]
HOLDINGS = table("holdings_order", column("fund_code"))  # of the holdings plugin, where that is on


class Bar(NamedTuple):
    """A day of an index, in points."""

    index_code: str
    trade_date: date
    high: float
    low: float
    close: float


class Prices(NamedTuple):
    """Days, oldest first, and values of the same length; a fund has neither high nor low."""

    days: list[date]
    close: Floats
    high: Floats | None = None
    low: Floats | None = None


def held_funds(connection: Connection) -> list[str]:
    """Funds that the holdings plugin has an order for; none where it was never on."""
    if not inspect(connection).has_table(HOLDINGS.name):
        return []
    return sorted(connection.execute(select(HOLDINGS.c.fund_code).distinct()).scalars())


def fetch_bars(http: EastmoneyHttp, base: str, index_code: str, since: date | None, until: date) -> list[Bar]:
    """Bars of an index, oldest first. Today's is what it is so far while the exchange is open.

    Raises `UnknownFund` for a code that is no index, `SourceError`.
    """
    market = next((number for head, number in INDEX_MARKETS if index_code.startswith(head)), None)
    if market is None or not is_fund_code(index_code):
        raise UnknownFund(
            f"{index_code[:20]!r} is no index known here: six digits that begin with 000, 399 or 93"
        )
    params = {"secid": f"{market}.{index_code}", "klt": "101", "fqt": "0", "lmt": "1000000"}
    params |= {"fields1": "f1,f2,f3,f4,f5,f6", "fields2": "f51,f53,f54,f55"}
    params |= {"beg": f"{since:%Y%m%d}" if since else "0", "end": f"{until:%Y%m%d}"}
    url = f"{base.rstrip('/')}/api/qt/stock/kline/get"
    return http.get(url, params, lambda body: _bars(body, index_code))


def _bars(body: bytes, index_code: str) -> list[Bar]:
    reply = json_object(decode(body))
    if "data" not in reply:
        raise SourceChanged("field 'data' is missing from the reply")
    data = reply["data"]
    if data is None:
        raise UnknownFund(f"the site has no index {index_code}")
    if (
        not isinstance(data, dict)
        or data.get("code") != index_code
        or not isinstance(data.get("klines"), list)
    ):
        raise SourceChanged(f"asked for the bars of {index_code}, the reply is {shown(data, 60)!r}")

    def read(entry: str) -> Bar:
        day_text, *texts = entry.split(",")
        close, high, low = (
            parse_number(name, text) for name, text in zip(("f53", "f54", "f55"), texts, strict=True)
        )
        day = parse_date("f51", day_text)
        if day is None or close is None or high is None or low is None or not 0 < low <= close <= high:
            raise FieldError("klines", f"{shown(entry, 60)!r} is no day with low <= close <= high")
        return Bar(index_code, day, high, low, close)

    return sorted(readable(data["klines"], read))


def newest_bar(connection: Connection, index_code: str) -> date | None:
    """The newest day with a bar of this index."""
    kept = market_index_bar.c
    return connection.execute(select(func.max(kept.trade_date)).where(kept.index_code == index_code)).scalar()


def index_prices(connection: Connection, index_code: str, until: date) -> Prices:
    """What is stored of an index up to a day."""
    kept = market_index_bar.c
    mine = (kept.index_code == index_code) & (kept.trade_date <= until)
    query = select(kept.trade_date, kept.high, kept.low, kept.close).where(mine)
    rows = connection.execute(query.order_by(kept.trade_date)).all()
    high, low, close = (np.array([row[at] for row in rows], dtype=np.float64) for at in (1, 2, 3))
    return Prices([row.trade_date for row in rows], close, high, low)


def fund_prices(connection: Connection, code: str, until: date) -> Prices:
    """The adjusted NAVs of a fund up to a day: dividends reinvested, splits undone."""
    nav = fund_nav.c
    mine = (nav.fund_code == code) & (nav.nav_date <= until) & nav.unit_nav.is_not(None)
    rows = connection.execute(select(nav.nav_date, nav.unit_nav).where(mine).order_by(nav.nav_date)).all()
    steps = adjustments(connection, code)
    ex_dates, factors = [day for day, _factor in steps], [1.0, *(factor for _day, factor in steps)]
    values = [row.unit_nav * factors[bisect_right(ex_dates, row.nav_date)] for row in rows]
    return Prices([row.nav_date for row in rows], np.array(values, dtype=np.float64))


def rows_of(code: str, prices: Prices, since: date, now: datetime) -> list[Record]:
    """The rows of market_technical from `since` on; the indicators look back over all prices."""
    line = indicators.macd(prices.close)
    bands = indicators.bollinger(prices.close)
    columns = {
        "sma_20": indicators.sma(prices.close, 20),
        "sma_60": indicators.sma(prices.close, 60),
        "ema_12": indicators.ema(prices.close, 12),
        "ema_26": indicators.ema(prices.close, 26),
        "rsi_14": indicators.rsi(prices.close, 14),
        "macd": line.line,
        "macd_signal": line.signal,
        "macd_histogram": line.histogram,
        "bollinger_lower": bands.lower,
        "bollinger_upper": bands.upper,
    }
    if prices.high is not None and prices.low is not None:
        columns["atr_14"] = indicators.atr(prices.high, prices.low, prices.close, 14)
    return [
        {"code": code, "date": day, "value": float(prices.close[at]), "atr_14": None}
        | {name: _number(values, at) for name, values in columns.items()}
        | {"calculated_at": now}
        for at, day in enumerate(prices.days)
        if day >= since
    ]


def _number(values: Floats, at: int) -> float | None:
    return None if np.isnan(values[at]) else float(values[at])
