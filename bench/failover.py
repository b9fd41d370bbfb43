"""Two daemons on MariaDB do 200 business dates while the leader is killed at random: nothing lost, nothing doubled.

The batches of all dates are collected beforehand; validation merges each on its date and metrics follow. The
leader dies by SIGKILL, alone or with its runs, or is stopped for longer than its lease and wakes up again.
Prints JSON.

    python -m bench.failover [--dates 200] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select

from bench.daemons import (
    MovedClock,
    Node,
    accounts,
    database,
    kill_runs,
    leader,
    machine,
    pending_runs,
    published,
    quarantined,
    say,
    spread,
    stored_navs,
    uneven_steps,
    wait_for,
    work_folder,
)
from core import db
from core.collector import FundCollector
from core.data_pipeline import DataPipeline
from core.schema import fund_metrics, job_run, nav_batch
from core.sources.eastmoney import EastmoneySource
from core.standin import Market, StandinServer, simulated_market
from core.thresholds import load_thresholds
from core.trading_calendar import TradingCalendar, library_sessions
from scheduler.task_parts import RULES_FILE
from tests.daemon import at

FUNDS = 40
AHEAD = 4  # the clock may be so many dates before the work
STALLED_SECONDS = 120.0
TAKEOVER_SECONDS = 30.0  # what is promised
STEPS = {"validate": 1, "metrics": 1}  # runs a date
JOBS = """
[validate]
task = "validate_nav"
cron = { day_of_week = "mon-fri", hour = 19, minute = 0 }
calendar = "XSHG"
retry = { attempts = 99, base_seconds = 0.5, cap_seconds = 2, total_minutes = 1e6 }
catch_up = { days = 60, cap = 60 }

[metrics]
task = "calculate_metrics"
cron = { day_of_week = "mon-fri", hour = 19, minute = 1 }
calendar = "XSHG"
needs = ["validate"]
retry = { attempts = 99, base_seconds = 0.5, cap_seconds = 2, total_minutes = 1e6 }
catch_up = { days = 60, cap = 60 }
"""


def session_dates(count: int) -> tuple[list[date], list[date]]:
    """Ten sessions to begin with, and `count` sessions from 2025 on to be done."""
    sessions = library_sessions()
    first = next(at for at, day in enumerate(sessions) if day >= date(2025, 1, 2))
    return sessions[first - 10 : first], sessions[first : first + count]


def make_market(before: Sequence[date], dates: Sequence[date]) -> Market:
    return simulated_market(FUNDS, before[0], dates[-1] + timedelta(days=7), 7, library_sessions())


def collect_all(engine: Engine, market: Market, before: Sequence[date], dates: Sequence[date]) -> None:
    """Stage the batch of every date; merge those `before`."""
    pipeline = DataPipeline(engine, load_thresholds(RULES_FILE), TradingCalendar(library_sessions()))
    with StandinServer(market) as standin:
        source = EastmoneySource(standin.url, standin.url, standin.url, requests_per_second=1000)
        for day in [*before, *dates]:
            standin.set_now(at(day, 23, 30))
            batch_id = FundCollector(engine, source).collect_daily_nav(day, at(day, 23, 30))
            if day in before:
                pipeline.process_nav_data(batch_id, at(day, 23, 30))
        source.close()


class Trouble:
    """What happens to the leader of two nodes, and how long the other takes to lead."""

    def __init__(self, engine: Engine, nodes: Sequence[Node], rng: random.Random) -> None:
        self.engine, self.nodes, self.rng = engine, nodes, rng
        self.done: Counter[str] = Counter()
        self.takeover: dict[str, list[float]] = {"kill": [], "power": [], "stop": []}
        self.wrong: list[str] = []

    def strike(self, what: str) -> None:
        """kill: the leader dies; power: with all its runs; stop: it is paused beyond its lease and goes on."""
        found = self._leading_node()
        if found is None:
            self.wrong.append("no node led for 30 s")
            return
        epoch, victim = found
        other = next(node for node in self.nodes if node is not victim)
        if not other.alive:
            other.launch()
        wait_for(other.log, lambda text: f"leads, epoch {epoch}" in text, 20)  # it stands by
        steps_down = victim.log().count("stepping down")
        began = time.monotonic()
        if what == "stop":
            victim.signal(signal.SIGSTOP)
        else:
            victim.die()
            if what == "power":
                kill_runs(self.engine, self.nodes)
        row = wait_for(lambda: leader(self.engine), lambda row: row is None or row.epoch > epoch, 60)
        took = time.monotonic() - began
        self.done[what] += 1
        self.takeover[what].append(took)
        if row is None or row.epoch == epoch or took > TAKEOVER_SECONDS:
            self.wrong.append(f"after {what} nobody led for {took:.0f} s")
        if what == "stop":
            time.sleep(self.rng.uniform(0, 3))
            victim.signal(signal.SIGCONT)
            if not wait_for(victim.log, lambda text: text.count("stepping down") > steps_down, 30):
                self.wrong.append("a stopped leader did not step down")
        else:
            victim.launch()

    def _leading_node(self) -> tuple[int, Node] | None:
        def found() -> tuple[int, Node] | None:
            row = leader(self.engine)
            led = [node for node in self.nodes if row is not None and node.alive and node.pid == row.pid]
            return (row.epoch, led[0]) if row is not None and led else None

        return wait_for(found, lambda pair: pair is not None, 30)

    def go_on(self, kinds: Iterable[str], pauses: Iterable[float], over: threading.Event) -> None:
        for what, pause in zip(kinds, pauses, strict=False):
            if over.wait(pause):
                return
            self.strike(what)


def dates_done(engine: Engine) -> int:
    query = select(func.count()).where(job_run.c.job_id == "metrics", job_run.c.status == "SUCCESS")
    with db.read(engine) as connection:
        return connection.execute(query).scalar_one()


def feed(engine: Engine, clock: MovedClock, dates: Sequence[date], rng: random.Random) -> int:
    """Let one date after the other come, as fast as they are done; how many were done."""
    for number, day in enumerate(dates):
        if not _keeps_up(engine, number - AHEAD):
            return dates_done(engine)
        if rng.random() < 0.25:  # its times pass while the leader looks on; else they lie in a jump
            clock.set(at(day, 18, 59))
            time.sleep(1.5)
        clock.set(at(day, 19, 2))
    _keeps_up(engine, len(dates))
    return dates_done(engine)


def _keeps_up(engine: Engine, wanted: int) -> bool:
    """Wait until so many dates are done; False once nothing has been done for two minutes."""
    done, since = dates_done(engine), time.monotonic()
    while done < wanted and time.monotonic() - since < STALLED_SECONDS:
        time.sleep(0.1)
        now_done = dates_done(engine)
        if now_done > done:
            say(f"{now_done} dates done") if now_done % 10 == 0 else None
            done, since = now_done, time.monotonic()
    return done >= wanted


def wrong_data(engine: Engine, market: Market, before: Sequence[date], dates: Sequence[date]) -> list[str]:
    """How the tables differ from what was published, once per date."""
    wrong = []
    expected = published(market, [at(day, 23, 30) for day in [*before, *dates]])
    found = stored_navs(engine, market)
    if found != expected:
        wrong.append(f"fund_nav: {len(found - expected)} rows too many, {len(expected - found)} missing")
    with db.read(engine) as connection:
        merged = connection.execute(
            select(nav_batch.c.business_date).where(nav_batch.c.status == "MERGED")
        ).scalars()
        batches = Counter(merged)
        measured = set(connection.execute(select(fund_metrics.c.calc_date).distinct()).scalars())
    if batches != Counter([*before, *dates]):
        wrong.append(f"merged batches: {batches}")
    if measured != set(dates):
        wrong.append(f"metrics of {len(measured)} dates: {sorted(measured ^ set(dates))}")
    return wrong


def play(
    engine: Engine,
    folder: Path,
    count: int,
    kinds: Iterable[str],
    pauses: Iterable[float],
    seed: int = 1,
) -> dict[str, Any]:
    """Do `count` dates under trouble; `wrong` in the result lists what does not hold."""
    before, dates = session_dates(count)
    market = make_market(before, dates)
    say(f"collecting {len(dates)} dates beforehand")
    collect_all(engine, market, before, dates)
    jobs = folder / "failover.toml"
    jobs.write_text(JOBS, encoding="utf-8")
    clock = MovedClock(folder / "moved_clock", at(dates[0], 12))
    nodes = [Node(engine, folder / name, jobs, clock=clock, max_running=4) for name in ("a", "b")]
    trouble = Trouble(engine, nodes, random.Random(seed))
    over = threading.Event()
    began = time.monotonic()
    try:
        for node in nodes:
            node.launch()
        wait_for(lambda: leader(engine), lambda row: row is not None, 60)
        with ThreadPoolExecutor(1) as pool:
            striking = pool.submit(trouble.go_on, kinds, pauses, over)
            try:
                done = feed(engine, clock, dates, random.Random(seed + 1))
            finally:
                over.set()
            seconds = time.monotonic() - began
            striking.result()
        left = wait_for(lambda: pending_runs(engine), lambda found: not found, 60, 0.1)
    finally:
        clock.stop()
        for node in nodes:
            node.kill()
    row = leader(engine)
    wrong = trouble.wrong + uneven_steps(engine, dates, STEPS) + wrong_data(engine, market, before, dates)
    wrong += [f"runs that never ended: {left}"] if left else []
    return {
        "dates": len(dates),
        "dates_done": done,
        "seconds": round(seconds, 1),
        "leader": dict(trouble.done),
        "epochs": row.epoch if row is not None else 0,
        "takeover_seconds": {what: spread(times) for what, times in trouble.takeover.items()},
        "quarantined": quarantined(engine),
        **accounts(engine),
        "wrong": wrong,
    }


def at_random(rng: random.Random) -> Iterator[str]:
    while True:
        yield rng.choices(("kill", "power", "stop"), (5, 3, 1))[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dates", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for database and logs, to look at afterwards"
    )
    options = parser.parse_args()
    rng = random.Random(options.seed)
    pauses = (rng.uniform(2, 8) for _ in range(100_000))
    start = at(date(2024, 12, 1), 12)
    with work_folder(options.keep) as folder, database("mariadb", folder, start) as engine:
        kinds = at_random(random.Random(options.seed))
        report = play(engine, folder, options.dates, kinds, pauses, options.seed)
    print(json.dumps({"machine": machine(), "seed": options.seed} | report, indent=2, ensure_ascii=False))
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
