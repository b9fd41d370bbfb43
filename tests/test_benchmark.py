"""Closes of indices: kept, corrected, read from files."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from core import db
from core.benchmark import ClosesResult, newest_close, read_closes, save_closes
from core.errors import SourceChanged, UsageError
from core.schema import benchmark_index
from core.sources.base import IndexClose
from tests.conftest import NOW

LATER = datetime(2026, 2, 1, tzinfo=UTC)
FIRST = IndexClose("000300", date(2026, 1, 29), 3641.54)
NEXT = IndexClose("000300", date(2026, 1, 30), 3650.123456)


def test_closes_are_kept_once_and_corrections_take_their_place(engine: Engine) -> None:
    with db.write(engine) as connection:
        assert save_closes(connection, [FIRST, NEXT], NOW, "test") == ClosesResult(2, 0, 0)
        assert save_closes(connection, [FIRST, NEXT], LATER, "other") == ClosesResult(0, 0, 2)
        corrected = NEXT._replace(close=3650.2)
        assert save_closes(connection, [NEXT, corrected], LATER, "other") == ClosesResult(0, 1, 0)
        assert save_closes(connection, [], LATER, "other") == ClosesResult(0, 0, 0)
        rows = connection.execute(select(benchmark_index).order_by(benchmark_index.c.trade_date)).all()
        assert newest_close(connection, "000300") == date(2026, 1, 30)
        assert newest_close(connection, "000985") is None
    assert [(row.close, row.source, row.known_at) for row in rows] == [
        (3641.54, "test", NOW),
        (3650.2, "other", LATER),
    ]


def test_a_file_of_closes(tmp_path: Path) -> None:
    path = tmp_path / "000300.csv"
    path.write_text("\ufeff日期,开盘,收盘\n2026-01-29,1,3641.54\n\n2026/1/30,2,3650.5\n", encoding="utf-8")
    assert read_closes(path) == [FIRST, NEXT._replace(close=3650.5)]


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("300.csv", "date,close\n", UsageError, "not named after an index"),
        ("000300.csv", None, UsageError, "cannot read"),
        ("000300.csv", "date,open\n2026-01-29,1\n", SourceChanged, "columns date and close"),
        ("000300.csv", "", SourceChanged, "columns date and close"),
        ("000300.csv", "date,close\n2026-01-29,x\n", SourceChanged, "000300.csv:2"),
        ("000300.csv", "date,close\n2026-01-29\n", SourceChanged, "000300.csv:2"),
        ("000300.csv", "date,close\n2026-01-29,0\n", SourceChanged, "above zero"),
    ],
)
def test_a_file_that_is_no_file_of_closes(
    tmp_path: Path, name: str, text: str | None, error: type[Exception], said: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=said):
        read_closes(path)


def test_recorded_files(data: Path) -> None:
    closes = read_closes(data / "index" / "000300.csv")
    assert closes[1] == IndexClose("000300", date(2015, 1, 5), 3641.54)
    assert len(closes) > 2700
