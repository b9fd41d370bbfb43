"""Parsed rows to committed ones, on SQLite and MariaDB: other ways beside ours, in one run.

Prints JSON: rows per second, and what part of the time this process and the server each spent working. Every way
writes the same rows into an empty fund_nav, in transactions of 150,000 rows.

    python -m bench.write_path [--rows 1000000] [--database sqlite] [--slow-rows 100000]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Engine, Index, MetaData, create_engine, func, insert, select
from sqlalchemy.engine import URL
from sqlalchemy.schema import CreateIndex

from core import db, history, nav_store
from core.history import HistoryMerger
from core.history_store import keys_of
from core.initialise import initialise
from core.merge import NAV_VALUES
from core.schema import fund_nav
from core.sources.base import FundInfo, NavRow
from core.thresholds import load_thresholds
from core.trading_calendar import TradingCalendar, library_sessions
from scheduler.task_parts import RULES_FILE
from tests.mariadb import MariaServer

ROWS_A_FUND = 1500
PORTION = 150_000
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
BARS = {"sqlite": 250_000, "mysql": 100_000}  # rows/s of ours without rules
COLUMNS = ("fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return", "batch_id")
Way = Callable[[Engine, Sequence[NavRow]], None]


def market(rows: int) -> list[NavRow]:
    """Funds of 1,500 sessions each, consistent in themselves."""
    rng = random.Random(1)
    days = [day for day in library_sessions() if day <= date(2026, 1, 30)][-ROWS_A_FUND:]
    found: list[NavRow] = []
    for fund in range(1, -(-rows // ROWS_A_FUND) + 1):
        unit, code = round(rng.uniform(0.8, 2.0), 4), f"{fund:06d}"
        paid = round(rng.uniform(0, 0.5), 4)
        found.append(NavRow(code, days[0], unit, round(unit + paid, 4), None))
        for day in days[1:]:
            new = round(unit * (1 + rng.gauss(0, 0.01)), 4)
            found.append(NavRow(code, day, new, round(new + paid, 4), round(100 * (new / unit - 1), 2)))
            unit = new
    return found[:rows]


def portions(rows: Sequence[NavRow]) -> Iterator[Sequence[NavRow]]:
    for start in range(0, len(rows), PORTION):
        yield rows[start : start + PORTION]


def pandas_to_sql(engine: Engine, rows: Sequence[NavRow]) -> None:
    for part in portions(rows):
        frame = pd.DataFrame([(*row[:5], 1) for row in part], columns=list(COLUMNS))
        with db.write(engine) as connection:
            frame.to_sql("fund_nav", connection, if_exists="append", index=False)


def core_executemany(engine: Engine, rows: Sequence[NavRow]) -> None:
    for part in portions(rows):
        with db.write(engine) as connection:
            records = [dict(zip(COLUMNS, (*row[:5], 1), strict=True)) for row in part]
            connection.execute(insert(fund_nav), records)


def without_rules(engine: Engine, rows: Sequence[NavRow]) -> None:
    for part in portions(rows):
        with db.write(engine) as connection:
            history.insert_rows(connection, fund_nav, NAV_VALUES, part, 1)
            days = np.array([row.nav_date for row in part], dtype="datetime64[D]")
            keys = keys_of(np.array([row.fund_code for row in part], dtype=object), days)
            history.count_rows(connection, fund_nav, keys, set())


def with_date_index(engine: Engine, rows: Sequence[NavRow]) -> None:
    """With an index by date, to show what it would cost: an entry elsewhere for every row. No way of the product."""
    index = Index("ix_fund_nav_nav_date", fund_nav.to_metadata(MetaData()).c.nav_date)
    with db.write(engine) as connection:
        connection.execute(CreateIndex(index))
    without_rules(engine, rows)


def with_rules(engine: Engine, rows: Sequence[NavRow]) -> None:
    """Judged, with every row's verdict on record, as main.py backfill does it."""
    line = HistoryMerger(engine, load_thresholds(RULES_FILE), TradingCalendar(library_sessions()), "bench")
    for part in portions(rows):
        checked = line.check(part, NOW)
        with db.write(engine) as connection:
            result = line.merge(connection, checked, "bench", NOW)
        assert result.inserted == len(part), (result.quarantined, result.failed_rules)


def with_rules_again(engine: Engine, rows: Sequence[NavRow]) -> None:
    """A second back-fill of the same rows: everything is compared, nothing changes."""
    line = HistoryMerger(engine, load_thresholds(RULES_FILE), TradingCalendar(library_sessions()), "bench")
    for part in portions(rows):
        checked = line.check(part, NOW)
        with db.write(engine) as connection:
            assert line.merge(connection, checked, "bench", NOW).unchanged == len(part)


WAYS: tuple[tuple[str, Way, bool], ...] = (  # the name, what it does, whether it is one of the slow ones
    ("pandas.to_sql", pandas_to_sql, True),
    ("sqlalchemy executemany", core_executemany, True),
    ("ours without rules", without_rules, False),
    ("ours with rules", with_rules, False),
    ("ours with an index by date", with_date_index, False),
)


def cpu_seconds(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    way: Callable[[Engine, Sequence[NavRow]], None],
    engine: Engine,
    rows: Sequence[NavRow],
    server: int | None,
) -> dict[str, Any]:
    began, mine, theirs = time.perf_counter(), time.process_time(), cpu_seconds(server)
    way(engine, rows)
    seconds = time.perf_counter() - began
    return {
        "rows": len(rows),
        "rows_per_second": round(len(rows) / seconds),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() - mine, 2),
        "server_cpu_seconds": round(cpu_seconds(server) - theirs, 2),
    }


def profiled(way: Way, engine: Engine, rows: Sequence[NavRow]) -> list[str]:
    """Where this process spends its time: the ten functions that take most of it themselves."""
    profile = cProfile.Profile()
    profile.runcall(way, engine, rows)
    stats = pstats.Stats(profile)
    total = sum(figures[2] for figures in stats.stats.values())  # type: ignore[attr-defined]
    found = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:10]  # type: ignore[attr-defined]
    return [f"{figures[2] / total:.0%} {Path(where[0]).name}:{where[2]}" for where, figures in found]


def compare(
    fresh: Callable[[], Engine], rows: Sequence[NavRow], slow_rows: int, server: int | None
) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for name, way, slow in WAYS:
        engine = fresh()
        report[name] = measure(way, engine, rows[:slow_rows] if slow else rows, server)
        with db.read(engine) as connection:
            stored = connection.execute(select(func.count()).select_from(fund_nav)).scalar_one()
        assert stored == report[name]["rows"], name
        if name == "ours with rules":
            report[f"{name}, again"] = measure(with_rules_again, engine, rows, server)
        engine.dispose()
    for name, way, _slow in WAYS[2:4]:
        engine = fresh()
        report[name]["profile"] = profiled(way, engine, rows[:PORTION])
        engine.dispose()
    return report


def prepared(url: URL, rows: Sequence[NavRow]) -> Engine:
    engine = db.connect(url)
    initialise(engine, NOW)
    with db.write(engine) as connection:
        codes = sorted({row.fund_code for row in rows})
        nav_store.save_funds(
            connection, [FundInfo(code, f"基金{code}", "混合型-灵活") for code in codes], NOW
        )
    return engine


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--slow-rows", type=int, default=150_000, help="for the ways that would take minutes")
    parser.add_argument("--database", choices=("sqlite", "mysql"), action="append")
    options = parser.parse_args()
    rows = market(options.rows)
    report: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "python": platform.python_version()}}
    wanted = options.database or ["sqlite", "mysql"]
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        if "sqlite" in wanted:

            def fresh() -> Engine:
                nonlocal number
                number += 1
                return prepared(URL.create("sqlite", database=f"{folder}/{number}.db"), rows)

            report["sqlite"] = compare(fresh, rows, options.slow_rows, None)
        if "mysql" in wanted:
            with MariaServer(Path(folder) / "mariadb", "--innodb-buffer-pool-size=2G") as server:

                def fresh_database() -> Engine:
                    nonlocal number
                    number += 1
                    engine = create_engine(server.url)
                    with engine.begin() as connection:
                        connection.exec_driver_sql(f"CREATE DATABASE n{number} CHARACTER SET utf8mb4")
                    engine.dispose()
                    return prepared(server.url.set(database=f"n{number}"), rows)

                assert server.process is not None
                report["mysql"] = compare(fresh_database, rows, options.slow_rows, server.process.pid)
    bars = {name: report[name]["ours without rules"]["rows_per_second"] >= BARS[name] for name in wanted}
    print(json.dumps(report | {"bars": BARS, "bars_met": bars}, indent=2, ensure_ascii=False))
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
