"""Other ways to a market's metrics, and bare reads of its rows, for bench.metrics_speed: one a process.

Imports nothing of NavKeeper: what it needs stands in requirements-bench.in, and any interpreter that has it will do.

    python -m bench.rivals PART FOLDER [--url URL] [--funds N] [--sample N]

FOLDER holds the market as bench.metrics_speed wrote it: days.npy (T,) days since 1970-01-01, unit.npy and
adjusted.npy (F, T), index.npy (T,) closes of an index. Prints JSON: seconds for what was done, imports and compiling
left out; `measured`, how many funds that were; `scaled_seconds`, the same for the whole market; the peak of memory.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import column, literal_column, select, table
from sqlalchemy.engine import URL, make_url

RISK_FREE = 0.015  # a year
PERIODS_PER_YEAR = 250
DAILY_RISK_FREE = (1 + RISK_FREE) ** (1 / PERIODS_PER_YEAR) - 1
WINDOW_YEARS = {"1y": 1, "3y": 3, "inception": None}
ROWS_A_FETCH = 10_000

Floats = NDArray[np.float64]


class Market(NamedTuple):
    days: pd.DatetimeIndex  # (T,)
    unit: Floats  # (F, T)
    adjusted: Floats  # (F, T)
    closes: Floats  # (T,), of an index


def read_market(folder: Path) -> Market:
    days = pd.DatetimeIndex(np.load(folder / "days.npy").astype("datetime64[D]").astype("datetime64[ns]"))
    unit, adjusted = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("unit", "adjusted"))
    return Market(days, unit, adjusted, np.load(folder / "index.npy"))


def fund_code(number: int) -> str:
    return f"{number + 1:06d}"


def bases(days: pd.DatetimeIndex) -> dict[str, int]:
    """Where each window begins: the last row on or before its anchor."""
    found = {}
    for window, years in WINDOW_YEARS.items():
        anchor = days[-1] - pd.DateOffset(years=years) if years else days[0]
        found[window] = max(0, int(days.searchsorted(anchor, side="right")) - 1)
    return found


def each_timed(funds: int, sample: int, one: Callable[[int], object]) -> dict[str, Any]:
    """A sample of funds spread evenly over the market, one after the other; the first is not counted."""
    first, *measured = np.unique(np.linspace(0, funds - 1, min(sample + 1, funds)).astype(int)).tolist()
    one(first)
    began = time.perf_counter()
    for number in measured:
        one(number)
    seconds = time.perf_counter() - began
    scaled = seconds / len(measured) * funds
    return {"seconds": seconds, "measured": len(measured), "scaled_seconds": scaled, "funds": funds}


# Loops over libraries that take one fund at a time: formulas only, from arrays in memory


def empyrical_loop(folder: Path, sample: int) -> dict[str, Any]:
    import empyrical as ep

    market = read_market(folder)
    starts = bases(market.days)
    of_index = {window: market.closes[at:] for window, at in starts.items()}
    benchmark = {window: closes[1:] / closes[:-1] - 1 for window, closes in of_index.items()}

    def one(number: int) -> None:
        for window, at in starts.items():
            nav = np.asarray(market.adjusted[number, at:])
            returns, index = nav[1:] / nav[:-1] - 1, benchmark[window]
            year = {"annualization": PERIODS_PER_YEAR}
            ep.cum_returns_final(returns)
            ep.annual_volatility(returns, **year)
            ep.sharpe_ratio(returns, DAILY_RISK_FREE, **year)
            ep.sortino_ratio(returns, DAILY_RISK_FREE, **year)
            ep.max_drawdown(returns)
            ep.calmar_ratio(returns, **year)
            ep.downside_risk(returns, DAILY_RISK_FREE, **year)
            ep.value_at_risk(returns, 0.05)
            ep.conditional_value_at_risk(returns, 0.05)
            ep.alpha_beta(returns, index, DAILY_RISK_FREE, **year)
            ep.excess_sharpe(returns, index)
            ep.up_capture(returns, index)
            ep.down_capture(returns, index)

    return each_timed(len(market.adjusted), sample, one)


def quantstats_loop(folder: Path, sample: int) -> dict[str, Any]:
    from quantstats import stats

    market = read_market(folder)
    starts = bases(market.days)

    def one(number: int) -> None:
        for at in starts.values():
            returns = (
                pd.Series(np.asarray(market.adjusted[number, at:]), market.days[at:]).pct_change().iloc[1:]
            )
            stats.comp(returns)
            stats.volatility(returns, periods=PERIODS_PER_YEAR)
            stats.sharpe(returns, rf=RISK_FREE, periods=PERIODS_PER_YEAR)
            stats.sortino(returns, rf=RISK_FREE, periods=PERIODS_PER_YEAR)
            stats.max_drawdown(returns)
            stats.calmar(returns, periods=PERIODS_PER_YEAR)

    return each_timed(len(market.adjusted), sample, one)


# vectorbt: the whole market as one frame

VECTORBT_SIX = (
    "total",
    "annualized_volatility",
    "sharpe_ratio",
    "sortino_ratio",
    "max_drawdown",
    "calmar_ratio",
)
VECTORBT_MORE = ("annualized", "downside_risk", "value_at_risk", "cond_value_at_risk")
VECTORBT_INDEX = ("beta", "alpha", "information_ratio", "up_capture", "down_capture")
WITH_RISK_FREE = {"sharpe_ratio": "risk_free", "alpha": "risk_free", "sortino_ratio": "required_return"}


def vectorbt_market(folder: Path, funds: int | None) -> dict[str, Any]:
    """The wide frame: the six metrics of the plan, all of ours that it has, and the rest as well, with pandas."""
    import vectorbt  # noqa: F401 - gives frames their .vbt

    market = read_market(folder)
    nav = np.array(market.adjusted[:funds]).T  # a fund's NAVs side by side, which suits it best
    own = VECTORBT_SIX + VECTORBT_MORE + VECTORBT_INDEX
    vectorbt_formulas(market, nav[:, :5], own, rest=True)  # compiles
    found: dict[str, Any] = {"measured": nav.shape[1], "funds": len(market.adjusted)}
    for name, wanted in (("six", VECTORBT_SIX), ("own", own), ("all", own)):
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            vectorbt_formulas(market, nav, wanted, rest=name == "all")
            seconds.append(time.perf_counter() - began)
        found[f"seconds_{name}"] = statistics.median(seconds)
        found[f"scaled_seconds_{name}"] = found[f"seconds_{name}"] * found["funds"] / found["measured"]
    return found


def vectorbt_formulas(market: Market, nav: Floats, wanted: tuple[str, ...], *, rest: bool) -> None:
    for at in bases(market.days).values():
        frame = pd.DataFrame(nav[at:], market.days[at:])
        year = f"{PERIODS_PER_YEAR}D"
        benchmark = pd.Series(market.closes[at:], market.days[at:]).pct_change().iloc[1:]
        accessor: Any = frame.vbt
        changes = accessor.to_returns().iloc[1:]
        returns = changes.vbt.returns(freq="D", year_freq=year)
        found = {}
        for name in wanted:
            options: dict[str, Any] = {"benchmark_rets": benchmark} if name in VECTORBT_INDEX else {}
            if name in WITH_RISK_FREE:
                options[WITH_RISK_FREE[name]] = DAILY_RISK_FREE
            found[name] = getattr(returns, name)(**options)
        if not rest:
            continue
        falls = accessor.drawdowns.records  # peak, trough and recovery of every fall
        depth = falls["valley_val"] / falls["peak_val"] - 1
        falls.loc[depth.groupby(falls["col"]).idxmin()]
        for statistic in (changes.skew, changes.kurt, changes.max, changes.min):
            statistic()
        (changes > 0).mean()
        changes.sub(benchmark, axis=0).std()
        (found["beta"] * benchmark.std() / changes.std()) ** 2  # R squared


# Bare reads: every row of fund_nav in order, nothing done with it


def query_of(url: URL, first: str | None = None, last: str | None = None) -> str:
    """Code, date and unit NAV, by code and date; DECIMALs as doubles, which every driver builds faster."""
    code, day, unit = (column(name) for name in ("fund_code", "nav_date", "unit_nav"))
    if url.get_backend_name() != "sqlite":
        unit = (unit + literal_column("0e0")).label("unit_nav")
    query = select(code, day, unit).select_from(table("fund_nav")).order_by(code, day)
    query = query if first is None else query.where(code >= first)
    query = query if last is None else query.where(code <= last)
    return str(query.compile(compile_kwargs={"literal_binds": True}))


def fetched(cursor: Any) -> int:
    """How many rows a cursor gives, a few thousand at a time and dropped at once."""
    rows = 0
    while part := cursor.fetchmany(ROWS_A_FETCH):
        rows += len(part)
    return rows


def with_sqlite3(url: URL, last: str) -> tuple[float, int]:
    began = time.perf_counter()
    connection = sqlite3.connect(str(url.database))
    rows = fetched(connection.execute(query_of(url, None, last)))
    seconds = time.perf_counter() - began
    connection.close()
    return seconds, rows


def with_adbc(url: URL, last: str) -> tuple[float, int]:
    from adbc_driver_sqlite import dbapi

    began = time.perf_counter()
    with dbapi.connect(str(url.database)) as connection, connection.cursor() as cursor:
        cursor.execute(query_of(url, None, last))
        rows = cursor.fetch_arrow_table().num_rows
    return time.perf_counter() - began, rows


def with_pymysql(url: URL, last: str) -> tuple[float, int]:
    import pymysql
    from pymysql.cursors import SSCursor

    return mysql_driver(pymysql, SSCursor, url, last)


def with_mysqlclient(url: URL, last: str) -> tuple[float, int]:
    import MySQLdb
    from MySQLdb.cursors import SSCursor

    return mysql_driver(MySQLdb, SSCursor, url, last)


def mysql_driver(driver: Any, cursor_class: Any, url: URL, last: str) -> tuple[float, int]:
    began = time.perf_counter()
    connection = driver.connect(
        host=url.host, port=url.port, user=url.username, password=url.password or "", database=url.database
    )
    cursor = connection.cursor(cursor_class)
    cursor.execute(query_of(url, None, last))
    rows = fetched(cursor)
    seconds = time.perf_counter() - began
    connection.close()
    return seconds, rows


def with_connectorx(url: URL, last: str) -> tuple[float, int]:
    return arrow_ranges(url, [(None, last)])


def with_connectorx_twice(url: URL, last: str) -> tuple[float, int]:
    """Two halves of the codes, each in order, one thread each: put together they are in order too."""
    middle = int(last) // 2
    return arrow_ranges(url, [(None, f"{middle:06d}"), (f"{middle + 1:06d}", last)])


def arrow_ranges(url: URL, ranges: list[tuple[str | None, str]]) -> tuple[float, int]:
    import connectorx
    import pyarrow
    import pyarrow.compute

    address = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)

    def part(bounds: tuple[str | None, str]) -> Any:
        return connectorx.read_sql(address, query_of(url, *bounds), return_type="arrow")

    began = time.perf_counter()
    with ThreadPoolExecutor(len(ranges)) as pool:
        table = pyarrow.concat_tables(list(pool.map(part, ranges)))
    seconds = time.perf_counter() - began
    before: Any = None
    for chunk in filter(len, table["fund_code"].chunks):
        ordered = pyarrow.compute.all(pyarrow.compute.less_equal(chunk[:-1], chunk[1:])).as_py()
        if not ordered or (before is not None and before > chunk[0].as_py()):
            raise ValueError("the rows came out of order")
        before = chunk[-1].as_py()
    return seconds, table.num_rows


class Way(NamedTuple):
    read: Callable[[URL, str], tuple[float, int]]
    fast: bool  # the others read a part of the market, and what that took is scaled


READS: dict[str, dict[str, Way]] = {
    "sqlite": {
        "sqlite3": Way(with_sqlite3, False),
        "adbc": Way(with_adbc, True),
        "connectorx": Way(with_connectorx, True),
        "connectorx, two ranges": Way(with_connectorx_twice, True),
    },
    "mysql": {
        "pymysql SSCursor": Way(with_pymysql, False),
        "mysqlclient SSCursor": Way(with_mysqlclient, False),
        "connectorx": Way(with_connectorx, True),
        "connectorx, two ranges": Way(with_connectorx_twice, True),
    },
}


def bare_read(folder: Path, url: URL, way: str, funds: int | None) -> dict[str, Any]:
    found = READS[url.get_backend_name()][way]
    market = len(read_market(folder).unit)
    measured = min(funds or market, market)
    if found.fast:
        found.read(url, fund_code(0))  # what a library sets up once
    seconds, rows = found.read(url, fund_code(measured - 1))
    return {
        "seconds": seconds,
        "rows": rows,
        "rows_per_second": round(rows / seconds),
        "measured": measured,
        "scaled_seconds": seconds * market / measured,
    }


def peak_mb(pid: str = "self") -> float:
    """The most memory a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("plan", "plan-six", "empyrical", "quantstats", "vectorbt", "read"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", type=make_url, help="plan, read: the database")
    parser.add_argument("--way", help="read: one of READS")
    parser.add_argument("--funds", type=int, help="read, vectorbt: only so many of the first funds")
    parser.add_argument("--sample", type=int, default=100, help="plan, empyrical, quantstats: so many funds")
    options = parser.parse_args()
    from bench.plan_loop import plan_loop

    folder = options.folder
    began = time.perf_counter()
    found = {
        "plan": lambda: plan_loop(folder, options.url, options.sample, everything=True),
        "plan-six": lambda: plan_loop(folder, options.url, options.sample, everything=False),
        "empyrical": lambda: empyrical_loop(folder, options.sample),
        "quantstats": lambda: quantstats_loop(folder, options.sample),
        "vectorbt": lambda: vectorbt_market(folder, options.funds),
        "read": lambda: bare_read(folder, options.url, options.way, options.funds),
    }[options.part]()
    whole = {"part_seconds": time.perf_counter() - began, "peak_mb": round(peak_mb())}
    print(json.dumps(found | whole))
    return 0


if __name__ == "__main__":
    sys.exit(main())
