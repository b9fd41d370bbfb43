"""`main.py export` as an operator types it, and what the files hold."""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import tracemalloc
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, insert

from config.settings import ROOT
from core import db
from core.adjustment import recompute_funds
from core.errors import NotReady, UsageError
from core.metric_columns import COLUMNS
from core.rank_columns import RANK_COLUMNS
from core.rank_store import rank_stored
from core.schema import fund_event, fund_info, fund_metrics, fund_nav, money_fund_yield
from core.sources.files import FilesSource
from scheduler import export as exporting
from scheduler.export import NAV_COLUMNS, Export, export, reader
from tests.daemon import DaemonProcess
from tests.example_night import NOW, at
from tests.test_command_line import in_english, refused
from tests.test_ranking import DAY, fill

FIRST, EX_DATE, LAST = date(2026, 1, 26), date(2026, 1, 27), date(2026, 1, 28)
# By hand: 0.5 a share on the 27th, when a share is worth 1.25: from then on 1.4 shares for one of before.
NAVS: list[tuple[Any, ...]] = [
    ("000001", FIRST, 1.7125, 1.7125, -0.12),
    ("000001", EX_DATE, 1.25, 1.75, None),
    ("000001", LAST, 1.5, 2.0, 20.0),
    ("000002", LAST, 0.123456789012, None, None),
]
ADJUSTED = [1.7125, 1.25 * 1.4, 1.5 * 1.4, 0.123456789012, None]
INCOMES: list[tuple[Any, ...]] = [("900001", LAST, 0.5231, 1.755)]
EVERYTHING = [(*row, None, None) for row in NAVS] + [("900001", LAST, None, None, None, 0.5231, 1.755)]


def store(engine: Engine) -> None:
    with db.write(engine) as connection:
        funds = [
            ("000001", '成长混合, "甲"', "mixed"),
            ("000002", "", "stock"),
            ("900001", "现金货币A", "money"),
        ]
        described = [
            {"fund_code": code, "fund_name": name, "fund_type": "", "category": kind, "updated_at": NOW}
            for code, name, kind in funds
        ]
        connection.execute(insert(fund_info), described)
        names = ("fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return")
        connection.execute(insert(fund_nav), [dict(zip(names, row, strict=True), batch_id=1) for row in NAVS])
        names = ("fund_code", "nav_date", "income_per_10k", "yield_7d")
        connection.execute(
            insert(money_fund_yield), [dict(zip(names, row, strict=True), batch_id=1) for row in INCOMES]
        )
        connection.execute(
            insert(fund_event).values(
                fund_code="000001",
                ex_date=EX_DATE,
                kind="dividend",
                value=0.5,
                evidence="published",
                batch_id=1,
            )
        )
        recompute_funds(connection, ["000001"])


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pq.read_table(path).to_pylist()]


def wanted(path: Path, kind: str = "nav", **how: Any) -> Export:
    return Export(kind, path, path.suffix[1:], **how)


def test_every_nav_and_income_with_its_type(engine: Engine, tmp_path: Path) -> None:
    store(engine)
    path = tmp_path / "navs.parquet"
    assert export(reader(engine.url), wanted(path)) == 5
    assert rows_of(path) == EVERYTHING
    kinds = {field.name: field.type for field in pq.read_schema(path)}
    assert list(kinds) == list(NAV_COLUMNS)
    assert (kinds["fund_code"], kinds["nav_date"], kinds["unit_nav"]) == (
        pa.string(),
        pa.date32(),
        pa.float64(),
    )
    assert [item.name for item in tmp_path.iterdir() if item.suffix == ".new"] == []


def test_adjusted_navs_by_hand_in_portions_of_any_size(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(engine)
    for size in (8, 16, 400_000):  # one row, two rows, all of them
        monkeypatch.setattr(exporting, "VALUES_A_PORTION", size)
        path = tmp_path / f"{size}.parquet"
        assert export(reader(engine.url), wanted(path, adjusted=True)) == 5
        found = rows_of(path)
        assert [row[:-1] for row in found] == EVERYTHING
        assert [row[-1] for row in found[:4]] == pytest.approx(ADJUSTED[:4], rel=1e-15)
        assert found[4][-1] is None


def test_a_csv_file_is_read_back_by_the_collector(engine: Engine, tmp_path: Path) -> None:
    store(engine)
    path = tmp_path / "navs.csv"
    assert export(reader(engine.url), wanted(path)) == 5
    raw = path.read_bytes()
    assert raw.decode("utf-8").splitlines()[0].replace('"', "") == ",".join(NAV_COLUMNS)  # and no BOM
    source = FilesSource(path)
    back = [row for code in ("000001", "000002", "900001") for row in source.history(code)]
    assert [(row.fund_code, row.nav_date, row.unit_nav) for row in back] == [row[:3] for row in EVERYTHING]
    assert [(row.accum_nav, row.daily_return) for row in back] == [row[3:5] for row in EVERYTHING]
    assert [(row.income_per_10k, row.yield_7d) for row in back] == [row[5:] for row in EVERYTHING]
    assert {row.defect for row in back} == {None}


def test_only_what_was_asked_for(sqlite_engine: Engine, tmp_path: Path) -> None:
    store(sqlite_engine)
    engine = reader(sqlite_engine.url)
    path = tmp_path / "some.parquet"
    for how, count in (
        ({"funds": ("000001", "900001")}, 4),
        ({"start": EX_DATE}, 4),
        ({"end": EX_DATE}, 2),
        ({"start": EX_DATE, "end": EX_DATE}, 1),
        ({"start": LAST, "funds": ("000002",)}, 1),
    ):
        assert export(engine, wanted(path, force=True, **how)) == count
        assert len(rows_of(path)) == count
    [row] = rows_of(path)
    assert row[:2] == ("000002", LAST)


def test_metrics_and_ranks_of_the_newest_date_or_of_some(engine: Engine, tmp_path: Path) -> None:
    fill(engine)
    earlier = DAY - timedelta(days=1)
    with db.write(engine) as connection:
        rank_stored(connection, DAY)
        connection.execute(
            insert(fund_metrics).values(
                fund_code="999999",
                calc_date=earlier,
                definition_version="1",
                nav_date=earlier,
                nav_count=1,
                max_drawdown_peak_1y=date(2026, 1, 5),
            )
        )
    path = tmp_path / "metrics.parquet"
    assert export(reader(engine.url), wanted(path, "metrics")) == 14
    table = pq.read_table(path)
    names = [
        "fund_code",
        "fund_name",
        "fund_type",
        "calc_date",
        "definition_version",
        "nav_date",
        "nav_count",
    ]
    assert table.column_names == [*names, *COLUMNS]
    assert table["return_1w"].to_pylist() == [*map(float, range(1, 13)), 6.5, None]
    assert table["calc_date"].to_pylist() == [DAY] * 14
    assert export(reader(engine.url), wanted(path, "metrics", end=earlier, force=True)) == 1
    [row] = pq.read_table(path).to_pylist()  # a fund that no list names
    assert (row["fund_code"], row["fund_name"], row["max_drawdown_peak_1y"]) == (
        "999999",
        None,
        date(2026, 1, 5),
    )
    path = tmp_path / "ranks.parquet"
    assert export(reader(engine.url), wanted(path, "rank")) == 14
    table = pq.read_table(path)
    assert set(RANK_COLUMNS) < set(table.column_names)
    assert table["rank_sharpe_3y"].to_pylist() == [*range(12, 0, -1), 6, None]
    assert table["score"].to_pylist()[11:] == [90.0, table["score"][12].as_py(), None]
    assert table["level"].to_pylist()[11] == "S"


def test_the_whole_market_is_never_in_memory(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40,000 rows take over 12 MB as tuples; portions of a thousand rows take less than a quarter of it."""
    rows = [
        (f"{fund:06d}", (FIRST - timedelta(days=day)).isoformat(), 1 + day / 7, 2 + day / 7, fund / 7, 1)
        for fund in range(40)
        for day in range(1000)
    ]
    with db.write(engine) as connection:
        columns = ("fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return", "batch_id")
        db.bulk_insert(connection, fund_nav, columns, rows)
    del rows
    peaks = []
    source = reader(engine.url)
    for size in (7_000, 400_000):
        monkeypatch.setattr(exporting, "VALUES_A_PORTION", size)
        tracemalloc.start()
        assert export(source, wanted(tmp_path / f"{size}.parquet")) == 40_000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] > 12e6
    assert peaks[0] < peaks[1] / 4


def test_what_cannot_be_written_is_refused(sqlite_engine: Engine, tmp_path: Path) -> None:
    store(sqlite_engine)
    engine = reader(sqlite_engine.url)
    path = tmp_path / "navs.csv"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already; --force replaces it"):
        export(engine, wanted(path))
    assert path.read_text() == "mine"
    with pytest.raises(UsageError, match="there is no folder"):
        export(engine, wanted(tmp_path / "none" / "navs.csv"))
    with pytest.raises(UsageError, match="is no file"):
        export(engine, Export("nav", tmp_path, "csv", force=True))
    with pytest.raises(UsageError, match=r"there is no fund '00001'; did you mean .*000001"):
        export(engine, wanted(path, force=True, funds=("00001",)))
    with pytest.raises(NotReady, match=r"nothing is stored of what was asked for"):
        export(engine, wanted(path, force=True, start=LAST + timedelta(days=1)))
    for kind in ("metrics", "rank"):
        with pytest.raises(NotReady):
            export(engine, wanted(path, kind, force=True))
    assert path.read_text() == "mine"
    assert export(engine, wanted(path, force=True)) == 5
    assert path.read_text() != "mine"
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_somebody_who_was_faster_keeps_the_file(
    sqlite_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(sqlite_engine)
    path = tmp_path / "navs.csv"
    write = exporting._write

    def slow(*args: Any) -> int:
        path.write_text("theirs")
        return write(*args)

    monkeypatch.setattr(exporting, "_write", slow)
    with pytest.raises(UsageError, match="is there already"):
        export(reader(sqlite_engine.url), wanted(path))
    assert path.read_text() == "theirs"
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


# As an operator types it


@pytest.fixture
def shell(sqlite_engine: Engine, tmp_path: Path) -> DaemonProcess:
    store(sqlite_engine)
    return in_english(DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at("2026-01-28 22:10")))


def test_an_export_from_the_command_line(shell: DaemonProcess, tmp_path: Path) -> None:
    path = tmp_path / "navs.csv"
    done = shell.main(
        "export", "nav", "--out", str(path), "--from", "2026-01-27", "--adjusted", "--fund", "000001"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: 2 rows\n", "")
    with path.open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["nav_date"], float(first["adjusted_nav"]), first["daily_return"]) == (
        "2026-01-27",
        1.75,
        "",
    )
    assert float(second["adjusted_nav"]) == pytest.approx(2.1, rel=1e-15)
    again = refused(shell.main("export", "nav", "--out", str(path), "--date", "2026-01-28"), 2)
    assert again == f"export: --out {path} is there already; --force replaces it\n"
    forced = shell.main(
        "export", "nav", "--out", str(path), "--date", "2026-01-28", "--format", "parquet", "--force"
    )
    assert forced.stdout == f"{path}: 3 rows\n"
    assert [row[1] for row in rows_of(path)] == [LAST] * 3


def test_a_full_disk_is_one_clear_line_and_leaves_the_old_file(shell: DaemonProcess, tmp_path: Path) -> None:
    """The system lets no file grow over 40 kB: the write fails as it does on a full disk."""
    with db.write(shell.engine) as connection:
        rows = [
            (f"{fund:06d}", (FIRST - timedelta(days=day)).isoformat(), 1 + day / 7, 1)
            for fund in range(10, 14)
            for day in range(1000)
        ]
        db.bulk_insert(connection, fund_nav, ("fund_code", "nav_date", "unit_nav", "batch_id"), rows)
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "navs.csv"
    path.write_text("of yesterday")
    command = [sys.executable, str(ROOT / "main.py"), "export", "nav", "--out", str(path), "--force"]
    done = subprocess.run(
        command,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )
    assert refused(done, 1) == f"export: {path} cannot be written: File too large\n"
    assert [item.name for item in folder.iterdir()] == ["navs.csv"]
    assert path.read_text() == "of yesterday"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nav"], "the following arguments are required: --out"),
        (["yields", "--out", "x.csv"], "invalid choice: 'yields'"),
        (["nav", "--out", "x.txt"], "name it .parquet or .csv, or give --format"),
        (["nav", "--out", "x.csv", "--format", "xlsx"], "invalid choice: 'xlsx'"),
        (["metrics", "--out", "x.csv", "--adjusted"], "--adjusted is for export nav"),
        (
            ["nav", "--out", "x.csv", "--date", "2026-01-05", "--to", "2026-01-06"],
            "either --date or --from/--to",
        ),
        (["nav", "--out", "x.csv", "--from", "2026-01-07", "--to", "2026-01-06"], "is after --to 2026-01-06"),
    ],
)
def test_what_makes_no_sense(words: list[str], said: str, sqlite_engine: Engine, tmp_path: Path) -> None:
    shell = in_english(DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at("2026-01-28 22:10")))
    done = shell.main("export", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_database_that_is_not_there_is_not_made(shell: DaemonProcess, tmp_path: Path) -> None:
    missing = tmp_path / "none.db"
    shell.environment["NAVKEEPER_DB_URL"] = f"sqlite:///{missing}"
    said = refused(shell.main("export", "nav", "--out", str(tmp_path / "x.csv")), 1)
    assert "there is no such file; run: python main.py init" in said
    assert not missing.exists()
    assert not (tmp_path / "x.csv").exists()
