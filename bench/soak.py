"""Ten minutes of business dates, collected, validated, measured and swept, while processes die every few seconds.

One daemon on SQLite and two on MariaDB, at the same time, each with a simulated market of its own. The daemon
dies, or a run, or both; on MariaDB the leader is also paused for longer than its lease. A date's next time comes
when the runs of the one before have ended. At the end every step of every date must have been done once, the
NAVs must be those that the pages showed at those times, and the metrics those of an undisturbed calculation.
Prints JSON.

    python -m bench.soak [--minutes 10] [--db sqlite --db mariadb] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select

from bench.daemons import (
    MovedClock,
    Node,
    accounts,
    database,
    history,
    kill_runs,
    leader,
    machine,
    pending_runs,
    published,
    quarantined,
    say,
    stored_navs,
    uneven_steps,
    wait_for,
    work_folder,
)
from config.settings import ROOT, load_settings
from core import db
from core.metrics_calculator import ROW_COLUMNS
from core.schema import fund_metrics, fund_nav, job_run, nav_batch
from core.standin import Market, StandinServer, simulated_market
from core.trading_calendar import TradingCalendar, library_sessions
from scheduler.job import ENDED_BADLY
from scheduler.tasks import calculator_for
from tests.daemon import at

FUNDS = 100
FIRST, EVE = date(2024, 9, 2), date(2024, 12, 31)  # history from, and to
LONGEST_STEP = 300.0  # seconds until a step that is due must be done
RETRY = "retry = { attempts = 999, base_seconds = 0.5, cap_seconds = 2, total_minutes = 1e6 }"
STEPS = {"collect": 1, "validate": 1, "metrics": 1, "sweep": 2, "sweep_morning": 1}  # runs a date


def times_of(day: date) -> list[tuple[str, datetime]]:
    """The jobs due for a business date, in order."""
    morning = at(day + timedelta(days=1), 8)
    evening = [("collect", at(day, 19)), ("validate", at(day, 19, 30)), ("metrics", at(day, 20, 30))]
    return [*evening, ("sweep", at(day, 21)), ("sweep", at(day, 23)), ("sweep_morning", morning)]


def write_jobs(path: Path) -> Path:
    """The shipped jobs without the weekly one, tried again soon and as often as it takes."""
    text = (ROOT / "config" / "jobs.toml").read_text(encoding="utf-8").partition("[weekly]")[0]
    text, count = re.subn(r"retry = \{[^}]*\}", RETRY, text)
    assert count == 5, f"{count} retry policies in jobs.toml"
    path.write_text(text, encoding="utf-8")
    return path


class Killer:
    """Every few seconds something happens to a daemon or to what it runs."""

    def __init__(self, engine: Engine, nodes: Sequence[Node], seed: int) -> None:
        self.engine, self.nodes, self.rng = engine, nodes, random.Random(seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def go_on(self, over: threading.Event, until: float) -> None:
        kinds = {"daemon": 6, "run": 6, "both": 4, "asked to stop": 1}
        kinds |= {"paused": 1} if len(self.nodes) > 1 else {}
        while not over.wait(self.rng.uniform(2, 8)) and time.monotonic() < until:
            what = self.rng.choices(list(kinds), list(kinds.values()))[0]
            self._strike(what, self._leading_node())
            for node in self.nodes:
                if not node.alive:
                    over.wait(self.rng.uniform(0, 1))
                    node.launch()

    def _strike(self, what: str, victim: Node) -> None:
        if what == "run":
            if not kill_runs(self.engine, self.nodes):
                return
        elif what == "asked to stop":
            victim.kill()
        elif what == "paused":
            self._pause(victim)
        else:
            victim.die()
            if what == "both":
                kill_runs(self.engine, self.nodes)
        self.done[what] += 1

    def _leading_node(self) -> Node:
        """The leader; any node where nobody leads at the moment."""
        row = leader(self.engine)
        led = [node for node in self.nodes if row is not None and node.pid == row.pid]
        return led[0] if led else self.rng.choice(self.nodes)

    def _pause(self, victim: Node) -> None:
        """Longer than its lease, so that another takes over; then it goes on, and must find that out."""
        before = leader(self.engine)
        if before is None or before.pid != victim.pid or not all(node.alive for node in self.nodes):
            return
        victim.signal(signal.SIGSTOP)
        after = wait_for(
            lambda: leader(self.engine), lambda row: row is not None and row.epoch > before.epoch, 40
        )
        if after is None or after.epoch == before.epoch:
            self.wrong.append("nobody took over from a paused leader")
        victim.signal(signal.SIGCONT)


class Player:
    """Lets the times of one date after the other come on a clock and a market's pages."""

    def __init__(
        self, engine: Engine, standin: StandinServer, clock: MovedClock, nodes: Sequence[Node]
    ) -> None:
        self.engine, self.standin, self.clock, self.nodes = engine, standin, clock, nodes
        self.instants: list[datetime] = []
        self.wrong: list[str] = []

    def play(self, day: date, rng: random.Random) -> bool:
        """One business date to its end; False where a step did not end."""
        for number, (job, instant) in enumerate(times_of(day)):
            self.standin.set_now(instant)
            self.instants.append(instant)
            if rng.random() < 0.3:  # its time passes while the daemon, if there is one, looks on
                self.clock.set(instant - timedelta(minutes=1))
                time.sleep(1.5)
            self.clock.set(instant)
            wanted = sum(1 for name, _instant in times_of(day)[: number + 1] if name == job)
            if not self._settled(day, job, wanted):
                self.wrong.append(f"{job} {day} had not ended after {LONGEST_STEP:g} s")
                return False
        self.wrong += stale_metrics(self.engine, day)
        return True

    def _settled(self, day: date, job: str, wanted: int) -> bool:
        """Wait until that many runs of the job have ended, and all others too."""

        def ended() -> bool:
            own = (job_run.c.job_id == job, job_run.c.business_date == day)
            with db.read(self.engine) as connection:
                found = connection.execute(select(func.count()).select_from(job_run).where(*own)).scalar_one()
            return found >= wanted and not pending_runs(self.engine) and not self._asked_again()

        def next_attempt_comes() -> bool:
            with db.read(self.engine) as connection:
                soonest = connection.execute(
                    select(func.min(job_run.c.not_before)).where(job_run.c.status == "QUEUED")
                ).scalar()
            if soonest is not None and self.clock.now < soonest < self.instants[-1] + timedelta(minutes=20):
                self.clock.set(soonest)
            return ended()

        return wait_for(next_attempt_comes, bool, LONGEST_STEP, 0.1)

    def _asked_again(self) -> bool:
        """A recalculation whose attempts were all killed is tried again as an operator does it."""
        bad = job_run.c.status.in_([status.value for status in ENDED_BADLY])
        with db.read(self.engine) as connection:
            runs = connection.execute(select(job_run.c.id).where(bad)).scalars().all()
        for run_id in runs:
            self.nodes[0].main("runs", "retry", str(run_id))
        return bool(runs)


def stale_metrics(engine: Engine, day: date) -> list[str]:
    """How the stored metrics of a date differ from what its NAVs give now."""
    calculator = calculator_for(engine, load_settings(), TradingCalendar(library_sessions()))
    fresh = {row[0]: tuple(map(_plain, row)) for row in calculator.calculate_market(day, fresh=True).rows()}
    columns = [fund_metrics.c[name] for name in ROW_COLUMNS]
    with db.read(engine) as connection:
        rows = connection.execute(select(*columns).where(fund_metrics.c.calc_date == day)).all()
    stored = {row.fund_code: tuple(map(_plain, row)) for row in rows}
    other = [code for code in fresh.keys() | stored.keys() if not _same(fresh.get(code), stored.get(code))]
    return [f"metrics of {day} differ for {len(other)} funds: {sorted(other)[:5]}"] if other else []


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def _same(one: tuple[Any, ...] | None, other: tuple[Any, ...] | None) -> bool:
    if one is None or other is None:
        return False
    return all(
        math.isclose(a, b, rel_tol=1e-12) if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in zip(one, other, strict=True)
    )


def soak(kind: str, folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """`minutes` of dates on a database of this kind."""
    folder.mkdir()
    sessions = [day for day in library_sessions() if EVE < day < date(2026, 1, 1)]
    market = simulated_market(FUNDS, FIRST, sessions[-1], seed, library_sessions())
    night = at(EVE, 23, 30)
    with database(kind, folder, night) as engine, StandinServer(market, night) as standin:
        clock = MovedClock(folder / "moved_clock", night)
        jobs = write_jobs(folder / "soak.toml")
        names = ("one", "two") if kind == "mariadb" else ("one",)
        nodes = [Node(engine, folder / name, jobs, clock=clock, source_url=standin.url) for name in names]
        filled = nodes[0].main("nav", "--from", str(FIRST), "--to", str(EVE))
        assert filled.returncode == 0, filled.stderr
        clock.set(at(sessions[0], 12))
        try:
            return _dates_under_fire(
                engine, market, Player(engine, standin, clock, nodes), sessions, minutes, seed
            )
        finally:
            clock.stop()


def _dates_under_fire(
    engine: Engine, market: Market, player: Player, sessions: Sequence[date], minutes: float, seed: int
) -> dict[str, Any]:
    began = time.monotonic()
    until = began + minutes * 60
    killer = Killer(engine, player.nodes, seed)
    rng = random.Random(seed + 1)
    over = threading.Event()
    dates: list[date] = []
    try:
        for node in player.nodes:
            node.launch()
        wait_for(lambda: leader(engine), lambda row: row is not None, 60)
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(killer.go_on, over, until)
            try:
                for day in _while_there_is_time(sessions, until):
                    dates.append(day)
                    if not player.play(day, rng):
                        break
                    say(f"{engine.dialect.name}: {day} done, killed so far {sum(killer.done.values())}")
            finally:
                over.set()
            killing.result()
        seconds = time.monotonic() - began
    finally:
        for node in player.nodes:
            node.kill()
    row = leader(engine)
    wrong = killer.wrong + player.wrong + uneven_steps(engine, dates, STEPS)
    wrong += wrong_navs(engine, market, dates, player.instants)
    left = pending_runs(engine)
    wrong += [f"runs that never ended: {left}"] if left else []
    return {
        "dates": len(dates),
        "seconds": round(seconds, 1),
        "killed": dict(killer.done) | {"in all": sum(killer.done.values())},
        "daemons_that_led": row.epoch if row is not None else 0,
        **accounts(engine),
        **_rows(engine),
        "wrong": wrong,
    }


def _while_there_is_time(sessions: Sequence[date], until: float) -> Iterator[date]:
    for day in sessions:
        if time.monotonic() >= until:
            return
        yield day


def _rows(engine: Engine) -> dict[str, int]:
    with db.read(engine) as connection:
        navs = connection.execute(select(func.count()).select_from(fund_nav)).scalar_one()
    return {"fund_nav_rows": navs, "quarantined_rows": quarantined(engine)}


def wrong_navs(
    engine: Engine, market: Market, dates: Sequence[date], instants: Sequence[datetime]
) -> list[str]:
    """How fund_nav and quarantine together differ from what was shown; and more than one merged collection a date."""
    expected = history(market, at(EVE, 23, 30), EVE) | published(market, instants)
    found = stored_navs(engine, market)
    wrong = []
    if found != expected:
        wrong.append(f"fund_nav: {len(found - expected)} rows too many, {len(expected - found)} missing")
    merged = (nav_batch.c.status == "MERGED", nav_batch.c.kind == "latest")
    with db.read(engine) as connection:
        batches = Counter(connection.execute(select(nav_batch.c.business_date).where(*merged)).scalars())
    if batches != Counter(dates):
        wrong.append(f"merged collections: {batches}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--db", choices=("sqlite", "mariadb"), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for databases and logs, to look at afterwards"
    )
    options = parser.parse_args()
    kinds = options.db or ["sqlite", "mariadb"]
    with work_folder(options.keep) as folder, ThreadPoolExecutor(len(kinds)) as pool:
        played = {
            kind: pool.submit(soak, kind, folder / kind, options.minutes, options.seed) for kind in kinds
        }
        found = {kind: future.result() for kind, future in played.items()}
    print(json.dumps({"machine": machine(), "seed": options.seed} | found, indent=2, ensure_ascii=False))
    return 1 if any(one["wrong"] for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
