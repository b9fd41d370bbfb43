"""Back-fill the recorded history through the stand-in, into SQLite and into MariaDB, and prove it row for row.

Prints JSON. What was merged and what was quarantined must together be the recording: count and checksum
of (fund_code, nav_date, unit_nav, accum_nav). A second back-fill must change nothing.

    python -m bench.backfill [--data ../shared/data] [--funds N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.engine import URL

from config.settings import ROOT, environment_with
from core import db
from core.schema import fund_event, fund_nav, fund_nav_revision, quarantine
from tests.mariadb import MariaServer

Key = tuple[str, str, str, str]


def plain(value: object) -> str:
    """A number as shortest decimal text; nothing for none."""
    if value is None:
        return ""
    text = format(Decimal(repr(value) if isinstance(value, float) else str(value)), "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def checksum(rows: Iterable[Key]) -> dict[str, Any]:
    """Count and an order-free checksum: the sum of the rows' hashes."""
    total = count = 0
    for row in rows:
        total += int.from_bytes(hashlib.blake2b("|".join(row).encode(), digest_size=8).digest())
        count += 1
    return {"rows": count, "checksum": f"{total % 2**64:016x}"}


def recorded(path: Path, funds: set[str] | None) -> Iterator[Key]:
    columns = ["fund_code", "nav_date", "unit_nav", "accum_nav"]
    for part in pq.ParquetFile(path).iter_batches(columns=columns):
        for code, day, unit, accum in zip(*(column.to_pylist() for column in part.columns), strict=True):
            if funds is None or code in funds:
                yield code, day, plain(unit), plain(accum)


def stored(engine: Engine) -> Iterator[Key]:
    """fund_nav and quarantine together."""
    with db.read(engine) as connection:
        for table in (fund_nav, quarantine):
            columns = (table.c.fund_code, table.c.nav_date, table.c.unit_nav, table.c.accum_nav)
            for code, day, unit, accum in connection.execution_options(stream_results=True).execute(
                select(*columns)
            ):
                yield code, day.isoformat(), plain(unit), plain(accum)


def counts(engine: Engine) -> dict[str, int]:
    with db.read(engine) as connection:
        tables = (fund_nav, quarantine, fund_event, fund_nav_revision)
        return {t.name: connection.execute(select(func.count()).select_from(t)).scalar_one() for t in tables}


def reasons(engine: Engine) -> dict[str, int]:
    query = (
        select(quarantine.c.reasons, func.count())
        .group_by(quarantine.c.reasons)
        .order_by(quarantine.c.reasons)
    )
    with db.read(engine) as connection:
        return dict(connection.execute(query).all())


@contextmanager
def standin(data: Path, home: Path) -> Iterator[str]:
    """The recorded market as a process of its own; its address."""
    command = [
        sys.executable,
        "-m",
        "core.standin",
        "--market",
        "recorded",
        "--data",
        str(data / "nav_history.parquet"),
    ]
    command += ["--fund-list", str(data / "fund_list.csv")]
    with (home / "standin.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def backfill(environment: dict[str, str], funds: list[str]) -> dict[str, Any]:
    """One `main.py nav` over everything, as a user would run it; its result and what it cost."""
    words = ["nav", "--json", "--from", "1998-01-01"]
    for code in funds:
        words += ["--fund", code]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *words], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    assert process.returncode == 0, output
    result: dict[str, Any] = json.loads(output)
    return result | {
        "seconds": round(seconds, 1),
        "rows_per_second": round(result["total"] / seconds),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def measure(url: URL, address: str, home: Path, funds: list[str], expected: dict[str, Any]) -> dict[str, Any]:
    """Back-fill twice into the database at `url` and compare with the recording."""
    environment = environment_with(
        home=home,
        db_url=url.render_as_string(hide_password=False),
        eastmoney_fund_url=address,
        eastmoney_api_url=address,
        eastmoney_quote_url=address,
        requests_per_second=1000,
    )
    first = backfill(environment, funds)
    engine = db.connect(url)
    found, before = checksum(stored(engine)), counts(engine)
    second = backfill(environment, funds)
    after = checksum(stored(engine)), counts(engine)
    figures = (
        "seconds",
        "rows_per_second",
        "cpu_seconds",
        "peak_mb",
        "inserted",
        "revised",
        "unchanged",
        "quarantined",
    )
    outcome = {
        "first": {name: first[name] for name in figures},
        "second": {name: second[name] for name in figures},
        "stored": found,
        "equals_recording": found == expected,
        "second_changed_nothing": after == (found, before),
        "tables": before,
        "quarantined_by_reason": reasons(engine),
    }
    engine.dispose()
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--funds", type=int, help="only the first N funds")
    parser.add_argument("--database", choices=("sqlite", "mariadb"), action="append")
    options = parser.parse_args()
    recording = options.data / "nav_history.parquet"
    if not recording.exists():
        print(f"no recorded data at {recording}; name its folder with --data", file=sys.stderr)
        return 2
    codes = sorted(set(pq.read_table(recording, columns=["fund_code"])["fund_code"].to_pylist()))[
        : options.funds
    ]
    expected = checksum(recorded(recording, set(codes) if options.funds else None))
    report: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "recording": expected | {"funds": len(codes)},
    }
    wanted = options.database or ["sqlite", "mariadb"]
    with tempfile.TemporaryDirectory() as folder, standin(options.data, Path(folder)) as address:
        named = codes if options.funds else []
        if "sqlite" in wanted:
            url = URL.create("sqlite", database=f"{folder}/navkeeper.db")
            report["sqlite"] = measure(url, address, Path(folder), named, expected)
        if "mariadb" in wanted:
            with MariaServer(Path(folder) / "mariadb", "--innodb-buffer-pool-size=2G") as server:
                engine = create_engine(server.url)
                with engine.begin() as connection:
                    connection.exec_driver_sql("CREATE DATABASE navkeeper CHARACTER SET utf8mb4")
                engine.dispose()
                report["mariadb"] = measure(
                    server.url.set(database="navkeeper"), address, Path(folder), named, expected
                )
    print(json.dumps(report, indent=2, ensure_ascii=False))
    good = all(report[name]["equals_recording"] and report[name]["second_changed_nothing"] for name in wanted)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
