"""A whole market's metrics, ours beside the plan's loop, empyrical, quantstats, vectorbt and bare reads, in one run.

A synthetic market (every fund with every session, dividends of 5 % of the funds) goes through the rules into SQLite
and a throw-away MariaDB; then each way works on the same rows in a process of its own. What is repeated is given as
the median of the rounds, one round being every fast read, a cold and a warm market run one after the other.

- plan: a query, pandas and a committed INSERT a fund; a sample of the funds, scaled to the market. With everything
  that ours calculates, to which the claims refer, and with the plan's own six metrics.
- empyrical, quantstats: their formulas alone, a fund at a time; samples, scaled.
- vectorbt: formulas alone on the whole market as one frame: the plan's `six` metrics, all of ours that are its `own`,
  and `all` of ours, with pandas what it has not; the claim is on `all`, since ours come all at once.
- formulas: core.metrics.measure alone, every metric, on arrays.
- reads: every row in order, nothing done with it; the slow drivers on part of the market, scaled.
- cold, warm: `main.py metrics` as a process, start to end; cold: the mirror was deleted before.

The first market run, which may compile, is shown and not compared. Shares of the parts come from runs in which a
thread looks every 2 ms at what the main one does; modules that this bench had loaded before are not in them, so
that `imports of a process` is measured apart. Prints JSON; ends with 0 only if every claim holds.

The rivals need requirements-bench.in, mysqlclient also a C compiler and libmariadb-dev. To keep them apart:

    python3 -m venv rivals && rivals/bin/pip install -r requirements.in -r requirements-bench.in
    python -m bench.metrics_speed --rivals-python rivals/bin/python [--funds 26000] [--days 756] [--database sqlite]

`--folder` keeps market and databases there, and takes those of an earlier run (26,000 funds: 5 GB).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.engine import URL

from bench.rivals import PERIODS_PER_YEAR, READS, RISK_FREE, fund_code, peak_mb
from bench.shares import shares_of
from config.settings import ROOT, environment_with
from core import db, nav_store
from core.benchmark import save_closes
from core.history import HistoryMerger
from core.initialise import initialise
from core.schema import fund_event, fund_metrics, fund_nav
from core.sources.base import FundInfo, IndexClose, NavRow
from core.thresholds import load_thresholds
from core.trading_calendar import TradingCalendar, library_sessions
from scheduler.task_parts import RULES_FILE
from tests.mariadb import MariaServer

LAST_DAY = date(2026, 1, 30)
COMMAND = ["metrics", "--date", LAST_DAY.isoformat()]
EVENING = datetime(2026, 1, 30, 12, 30, tzinfo=UTC)
INDEX = "000300"
FUND_TYPES = ("混合型-灵活", "股票型", "债券型-长债", "指数型-股票")
PAYING = 0.05  # share of the funds that pay dividends
FUNDS_A_SLAB = 1000  # made at a time
FUNDS_A_PORTION = 200  # merged at a time
FULL_SIZE = (26_000, 756)
AGREEMENT = 1e-9  # relative

Floats = NDArray[np.float64]


class Slab(NamedTuple):
    """Some funds of the synthetic market, (F, T)."""

    unit: Floats  # four decimals
    paid: Floats  # dividend per share, four decimals, 0 for none
    adjusted: Floats


def sessions_of(days: int) -> NDArray[np.int32]:
    """The last `days` sessions up to LAST_DAY, in days since 1970-01-01."""
    found = np.array([day for day in library_sessions() if day <= LAST_DAY], dtype="datetime64[D]")
    if len(found) < days:
        raise SystemExit(f"the calendar knows {len(found)} sessions up to {LAST_DAY}, not {days}")
    return found[-days:].astype(np.int32)


def index_closes(days: int) -> Floats:
    changes = np.random.default_rng(1).normal(0.0002, 0.01, days)
    return np.round(4000 * np.cumprod(1 + changes), 2)


def slabs(funds: int, days: int) -> Iterator[Slab]:
    """The market, FUNDS_A_SLAB funds at a time; the same at every call."""
    index = index_closes(days)
    market = np.concatenate(([0.0], index[1:] / index[:-1] - 1))
    for number in range(0, funds, FUNDS_A_SLAB):
        rng = np.random.default_rng([2, number])
        count = min(FUNDS_A_SLAB, funds - number)
        unit = rng.normal(0.0001, 0.008, (count, days))
        unit += rng.uniform(0.3, 1.1, (count, 1)) * market + 1
        unit[:, 0] = rng.uniform(0.8, 2.0, count)
        np.cumprod(unit, axis=1, out=unit)
        paid = np.zeros_like(unit)
        for fund in np.flatnonzero(rng.random(count) < PAYING):
            for day in np.sort(rng.choice(np.arange(1, days), rng.integers(1, 4), replace=False)):
                share = rng.uniform(0.02, 0.08)
                paid[fund, day] = round(unit[fund, day] * share, 4)
                unit[fund, day:] *= 1 - share
        unit = np.round(unit, 4)
        yield Slab(unit, paid, unit * np.cumprod(1 + paid / unit, axis=1))


def save_market(folder: Path, funds: int, days: int) -> None:
    """The arrays that bench.rivals reads."""
    np.save(folder / "days.npy", sessions_of(days))
    np.save(folder / "index.npy", index_closes(days))
    for name in ("unit", "adjusted"):
        whole = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float64, (funds, days))
        row = 0
        for slab in slabs(funds, days):
            part = getattr(slab, name)
            whole[row : row + len(part)] = part
            row += len(part)
        whole.flush()


def portions(funds: int, days: int) -> Iterator[list[NavRow]]:
    """The same market as rows, FUNDS_A_PORTION funds at a time."""
    dates = sessions_of(days).astype("datetime64[D]").tolist()
    number = 0
    for slab in slabs(funds, days):
        accum = np.round(slab.unit + np.cumsum(slab.paid, axis=1), 4)
        returns = np.round(100 * ((slab.unit + slab.paid)[:, 1:] / slab.unit[:, :-1] - 1), 2)
        for start in range(0, len(slab.unit), FUNDS_A_PORTION):
            rows: list[NavRow] = []
            for fund in range(start, min(start + FUNDS_A_PORTION, len(slab.unit))):
                dividends = [cash or None for cash in slab.paid[fund].tolist()]
                values = slab.unit[fund].tolist(), accum[fund].tolist(), [None, *returns[fund].tolist()]
                codes = [fund_code(number)] * days
                rows += map(NavRow, codes, dates, *values, dividends)
                number += 1
            yield rows


def fill(url: URL, funds: int, days: int) -> float:
    """The market in an empty database, judged and merged as a back-fill would; returns the seconds it took."""
    began = time.perf_counter()
    engine = db.connect(url)
    initialise(engine, EVENING)
    closes = zip(sessions_of(days).astype("datetime64[D]").tolist(), index_closes(days).tolist(), strict=True)
    with db.write(engine) as connection:
        listed = [
            FundInfo(fund_code(at), f"基金{at}", FUND_TYPES[at % len(FUND_TYPES)]) for at in range(funds)
        ]
        nav_store.save_funds(connection, listed, EVENING)
        save_closes(connection, [IndexClose(INDEX, day, close) for day, close in closes], EVENING, "bench")
    merger = HistoryMerger(engine, load_thresholds(RULES_FILE), TradingCalendar(library_sessions()), "bench")
    for rows in portions(funds, days):
        checked = merger.check(rows, EVENING)
        with db.write(engine) as connection:
            result = merger.merge(connection, checked, "bench", EVENING)
        if result.inserted != len(rows):
            raise SystemExit(f"{len(rows) - result.inserted} rows held: {result.failed_rules}")
    with db.read(engine) as connection:
        stored = connection.execute(select(func.count()).select_from(fund_nav)).scalar_one()
    engine.dispose()
    if stored != funds * days:
        raise SystemExit(f"{stored} rows are stored, not {funds * days}")
    return time.perf_counter() - began


class Home(NamedTuple):
    """A home folder, its database, and the environment in which our commands find them."""

    folder: Path
    url: URL

    def environment(self) -> dict[str, str]:
        clock = self.folder / "clock"
        clock.write_text(EVENING.isoformat(), encoding="ascii")
        found = environment_with(
            home=self.folder,
            db_url=self.url.render_as_string(hide_password=False),
            clock_file=clock,
            risk_free_rate=RISK_FREE,
            periods_per_year=PERIODS_PER_YEAR,
        )
        return {name: value for name, value in found.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def forget(self) -> None:
        """Delete the mirror."""
        shutil.rmtree(self.folder / "mirror", ignore_errors=True)


def measured_process(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Wall and processor time of a process from start to end, and its peak of memory with its children's."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        peaks: dict[str, float] = {}
        while True:
            gone, status, usage = os.wait4(process.pid, os.WNOHANG)
            if gone:
                break
            for pid in (str(process.pid), *children(process.pid)):
                with suppress(OSError):
                    peaks[pid] = max(
                        peaks.get(pid, 0.0), peak_mb(pid)
                    )  # not what wait4 says: that counts us too
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output.read()[-3000:]}")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": round(sum(peaks.values())),
    }


def children(pid: int) -> list[str]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [child for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def market_run(home: Home) -> dict[str, Any]:
    return measured_process([sys.executable, str(ROOT / "main.py"), *COMMAND], home.environment())


def import_seconds(home: Home) -> float:
    """What a market run spends on imports, by Python's own account."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "main.py"), *COMMAND]
    environment = home.environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    lines = re.findall(r"^import time: +(\d+) \|", done.stderr, re.MULTILINE)
    return sum(map(int, lines)) / 1e6


def child(python: str, *words: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What a part that prints JSON found, run in a process of its own."""
    command = [python, "-m", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rival(python: str, part: str, folder: Path, *words: object) -> dict[str, Any]:
    print(f"… {part} {' '.join(map(str, words))}", file=sys.stderr)
    return child(python, "bench.rivals", part, folder, *words)


def our_formulas(folder: Path) -> dict[str, Any]:
    """Seconds of core.metrics.measure on the whole market, with all processors and with one."""
    from core.metrics import measure

    days, index = np.load(folder / "days.npy"), np.load(folder / "index.npy")
    adjusted = np.load(folder / "adjusted.npy")
    sessions = np.array(library_sessions(), dtype="datetime64[D]")

    def once(funds: int, threads: int | None) -> float:
        offsets = np.arange(funds + 1, dtype=np.int64) * len(days)
        given = offsets, np.tile(days, funds), adjusted[:funds].reshape(-1), LAST_DAY, sessions
        began = time.perf_counter()
        measure(
            *given,
            risk_free=RISK_FREE,
            periods_per_year=PERIODS_PER_YEAR,
            benchmark=(days, index),
            threads=threads,
        )
        return time.perf_counter() - began

    first = once(10, None)  # loads the compiled code, or compiles
    many = [once(len(adjusted), None) for _ in range(3)]
    one = [once(len(adjusted), 1) for _ in range(3)]
    return {
        "seconds": statistics.median(many),
        "seconds_one_thread": statistics.median(one),
        "first_call_seconds": first,
        "peak_mb": round(peak_mb()),
    }


def profiled_run() -> dict[str, Any]:
    """A market run in this process, as the environment says."""

    def run() -> int:
        from main import main as command

        with redirect_stdout(sys.stderr):
            return command(COMMAND)

    return shares_of(run)


def compare(home: Home, market: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that works on one database."""
    python, url = options.rivals_python, home.url.render_as_string(hide_password=False)
    home.forget()
    report: dict[str, Any] = {"first run": market_run(home)}
    plan = rival(python, "plan", market, "--url", url, "--sample", options.sample)
    report["plan, its six metrics"] = rival(
        python, "plan-six", market, "--url", url, "--sample", options.sample
    )
    del report["plan, its six metrics"]["values"]
    report["agreement"] = disagreement(home, plan.pop("values"))
    report["plan"] = plan
    ways = READS[home.url.get_backend_name()]
    reads: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    runs: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for number in range(options.rounds):
        for way, about in ways.items():
            few = () if about.fast else ("--funds", min(options.read_funds, options.funds))
            if about.fast or number == 0:
                reads[way].append(rival(python, "read", market, "--url", url, "--way", way, *few))
        home.forget()
        runs["cold"].append(market_run(home))
        runs["warm"].append(market_run(home))
    report["reads"] = {way: middle(found, "scaled_seconds") for way, found in reads.items()}
    report |= {name: middle(found, "seconds") for name, found in runs.items()}
    report["mirror_mb"] = sum(each.stat().st_size for each in (home.folder / "mirror").rglob("*")) / 1e6
    for name in ("cold", "warm"):
        if name == "cold":
            home.forget()
        words = ("bench.metrics_speed", "--part", "shares")
        report[f"{name} by part"] = child(sys.executable, *words, environment=home.environment())
    report["imports of a process"] = import_seconds(home)
    return report


def middle(found: list[dict[str, Any]], by: str) -> dict[str, Any]:
    """The median one, with all its figures, and what the others took."""
    return sorted(found, key=lambda each: each[by])[(len(found) - 1) // 2] | {
        "all_seconds": [each[by] for each in found]
    }


def disagreement(home: Home, values: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """How far the plan's metrics are from what is stored, at most, of funds that paid no dividend."""
    engine = db.connect(home.url)
    compared, worst = 0, 0.0
    with db.read(engine) as connection:
        paying = set(connection.execute(select(fund_event.c.fund_code)).scalars())
        of_day = fund_metrics.c.calc_date == LAST_DAY
        for code in sorted(set(values) - paying):
            query = select(fund_metrics).where(of_day, fund_metrics.c.fund_code == code)
            row = connection.execute(query).mappings().one()
            for name, theirs in values[code].items():
                ours = row[name]
                if ours is None or theirs is None:
                    continue
                compared += 1
                worst = max(worst, abs(ours - theirs) / max(abs(theirs), 1e-6))
    engine.dispose()
    return {"values": compared, "worst": worst}


def claims_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every claim with its figure, the bar and whether it holds."""

    def at_least(figure: float, bar: float) -> dict[str, Any]:
        return {"figure": figure, "at_least": bar, "holds": figure >= bar}

    def at_most(figure: float, bar: float) -> dict[str, Any]:
        return {"figure": figure, "at_most": bar, "holds": figure <= bar}

    theirs = report["vectorbt"]["scaled_seconds_all"]
    found = {"formulas, times as fast as vectorbt's": at_least(theirs / report["formulas"]["seconds"], 8)}
    for name in ("sqlite", "mysql"):
        if name not in report:
            continue
        here = report[name]
        cold, warm = here["cold"]["seconds"], here["warm"]["seconds"]
        plan = here["plan"]["scaled_seconds"]
        fastest = min(each["scaled_seconds"] for each in here["reads"].values())
        peak = max(here[run]["peak_mb"] for run in ("first run", "cold", "warm"))
        found |= {
            f"{name}: cold, in times of the fastest bare read": at_most(cold / fastest, 1.5),
            f"{name}: cold, times as fast as the plan": at_least(plan / cold, 50),
            f"{name}: warm, times as fast as cold": at_least(cold / warm, 5),
            f"{name}: warm, times as fast as the plan": at_least(plan / warm, 300),
            f"{name}: peak of memory, MB": at_most(peak, 1200),
            f"{name}: largest difference from the plan's values": at_most(
                here["agreement"]["worst"], AGREEMENT
            ),
        }
    return found


def rounded(value: Any) -> Any:
    """The same with four significant digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def run(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    size = f"{options.funds}x{options.days}"
    market = folder / f"market-{size}"
    if not (market / "done").exists():
        market.mkdir(parents=True, exist_ok=True)
        save_market(market, options.funds, options.days)
        (market / "done").touch()
    python, sample = options.rivals_python, ("--sample", options.sample)
    report: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "market": {"funds": options.funds, "days": options.days, "rows": options.funds * options.days},
        "full_size": (options.funds, options.days) == FULL_SIZE,
        "formulas": child(sys.executable, "bench.metrics_speed", "--part", "formulas", "--folder", market),
        "vectorbt": rival(python, "vectorbt", market),
        "empyrical": rival(python, "empyrical", market, *sample),
        "quantstats": rival(python, "quantstats", market, *sample),
    }
    for name in options.database or ["sqlite", "mysql"]:
        home = folder / f"{name}-{size}"
        known = home / "filled"
        home.mkdir(exist_ok=True)
        if name == "sqlite":
            url = URL.create("sqlite", database=str(home / "navkeeper.db"))
        else:
            options_of_server = "--innodb-buffer-pool-size=2G", "--innodb-log-file-size=512M"
            server = stack.enter_context(MariaServer(home / "mariadb", *options_of_server))
            url = server.url.set(database="navkeeper")
            engine = create_engine(server.url)
            with engine.begin() as connection:
                connection.execute(text("CREATE DATABASE IF NOT EXISTS navkeeper CHARACTER SET utf8mb4"))
            engine.dispose()
        seconds = None
        if not known.exists():
            print(f"… filling {name}", file=sys.stderr)
            seconds = fill(url, options.funds, options.days)
            known.touch()
        report[name] = {"filled_in_seconds": seconds, **compare(Home(home, url), market, options)}
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--funds", type=int, default=FULL_SIZE[0])
    parser.add_argument("--days", type=int, default=FULL_SIZE[1])
    parser.add_argument("--sample", type=int, default=200, help="funds of the loops")
    parser.add_argument("--read-funds", type=int, default=2000, help="funds that the slow drivers read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "mysql"), action="append")
    parser.add_argument("--rivals-python", default=sys.executable, help="an interpreter that has the rivals")
    parser.add_argument("--folder", type=Path, help="keep market and databases here")
    parser.add_argument("--part", choices=("formulas", "shares"), help="for the children of this process")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(our_formulas(options.folder) if options.part == "formulas" else profiled_run()))
        return 0
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        report = run(options, folder.absolute(), stack)
    claims = claims_of(report)
    print(json.dumps(rounded(report | {"claims": claims}), indent=2, ensure_ascii=False))
    return 0 if all(each["holds"] for each in claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
