"""Schema and transactions on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, LargeBinary, MetaData, Table, func, insert, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, StatementError

from core import db
from core.errors import DatabaseUnavailable, SchemaOutdated
from core.schema import (
    daemon,
    fund_metrics,
    fund_nav,
    fund_rank,
    fund_score,
    metadata,
    nav_batch,
    nav_day,
    tmp_fund_nav,
)
from tests.mariadb import MariaServer


def test_migrations_build_exactly_the_tables_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_an_instant_comes_back_as_it_was_whatever_its_zone(engine: Engine) -> None:
    shanghai = timezone(timedelta(hours=8))
    instant = datetime(2025, 12, 1, 19, 0, 0, 123456, tzinfo=shanghai)
    with db.write(engine) as connection:
        connection.execute(
            insert(daemon).values(id=1, host="h", pid=1, started_at=instant, heartbeat_at=instant)
        )
    with db.read(engine) as connection:
        found = connection.execute(select(daemon.c.started_at)).scalar_one()
    assert found == instant
    assert found.utcoffset() == timedelta(0)


def test_a_naive_instant_is_refused(sqlite_engine: Engine) -> None:
    naive = datetime(2025, 12, 1, 19, 0, tzinfo=UTC).replace(tzinfo=None)
    row = insert(daemon).values(id=1, host="h", pid=1, started_at=naive, heartbeat_at=naive)
    with pytest.raises(StatementError, match="naive"), db.write(sqlite_engine) as connection:
        connection.execute(row)


@pytest.mark.parametrize("nav", [1.234, 0.123456789012, 141.78, 999.123456789012, 1234.5678])
def test_a_nav_comes_back_to_the_last_digit(engine: Engine, nav: float) -> None:
    with db.write(engine) as connection:
        row = ("000001", "2025-12-01", nav, nav, -0.12, 1)
        columns = ("fund_code", "nav_date", "unit_nav", "accum_nav", "daily_return", "batch_id")
        assert db.bulk_insert(connection, fund_nav, columns, [row]) == 1
    with db.read(engine) as connection:
        found = connection.execute(select(fund_nav)).one()
    assert (found.nav_date, found.unit_nav, found.accum_nav, found.daily_return) == (
        date(2025, 12, 1),
        nav,
        nav,
        -0.12,
    )


HOSTILE = (
    "",
    "plain",
    "基金 𠮷 😀",
    "it's",
    'say "no"',
    "C:\\fund\\",
    "two\nlines\r\t\x08\x1a",
    "%s %(a)s {0}",
    "],[ ),(",
    "\x7f\u2028",
)


@pytest.mark.parametrize(
    ("texts", "count"), [(HOSTILE[:3], 30_000), (HOSTILE, 30_000), *(((text,), 3) for text in HOSTILE)]
)
def test_texts_come_back_as_they_were_however_many_rows(
    engine: Engine, texts: tuple[str, ...], count: int
) -> None:
    """More rows than one statement takes, the last statement of fewer."""
    rows = [
        (at, "000001", "2025-12-01", at / 7 if at % 3 else None, texts[at % len(texts)])
        for at in range(1, count + 1)
    ]
    with db.write(engine) as connection:
        batch = insert(nav_batch).values(id=1, kind="latest", source="s", provenance="p", status="STAGED")
        connection.execute(batch.values(collected_at=datetime(2025, 12, 1, tzinfo=UTC), row_count=count))
        columns = ("batch_id", "row_no", "fund_code", "nav_date", "daily_return", "raw")
        staged = ((1, at, *rest) for at, *rest in rows)
        assert db.bulk_insert(connection, tmp_fund_nav, columns, staged) == count
    staged_rows = tmp_fund_nav.c
    query = select(staged_rows.row_no, staged_rows.fund_code, staged_rows.daily_return, staged_rows.raw)
    with db.read(engine) as connection:
        found = connection.execute(query.order_by(staged_rows.row_no)).all()
    assert [row.raw for row in found] == [row[4] for row in rows]
    assert [row.daily_return for row in found] == [row[3] for row in rows]


def test_a_failed_transaction_leaves_nothing(engine: Engine) -> None:
    columns = ("fund_code", "nav_date", "unit_nav", "batch_id")

    def half_done() -> None:
        with db.write(engine) as connection:
            db.bulk_insert(connection, fund_nav, columns, [("000001", "2025-12-01", 1.0, 1)])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        half_done()
    with db.read(engine) as connection:
        assert connection.execute(select(func.count()).select_from(fund_nav)).scalar_one() == 0


def test_the_schema_is_created_once_and_known_to_be_current(url: URL) -> None:
    engine = db.connect(url)
    assert db.is_empty(engine)
    db.upgrade(engine)
    db.upgrade(engine)
    assert not db.is_empty(engine)
    assert db.is_current(engine)
    engine.dispose()


def test_an_upgrade_keeps_every_row_of_every_table(url: URL) -> None:
    engine = db.connect(url)
    old = db._alembic(engine)
    command.upgrade(old, "0001")
    for version in ("0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011"):
        tables = _tables(engine)
        with db.write(engine) as connection:
            for table in tables:
                if connection.execute(select(func.count()).select_from(table)).scalar_one() == 0:
                    row = {column.name: _value(column) for column in table.columns if column.computed is None}
                    connection.execute(insert(table).values(row))
        before = _rows(engine, tables)
        assert all(before.values())
        command.upgrade(old, version)
        after = _rows(engine, _tables(engine))
        for name, rows in before.items():
            assert all(
                old_row.items() <= new.items() for old_row, new in zip(rows, after[name], strict=True)
            ), name
    assert db.is_current(engine)
    for table in (fund_metrics, fund_rank, fund_score):
        key = inspect(engine).get_pk_constraint(table.name)["constrained_columns"]
        assert key == ["calc_date", "fund_code", "definition_version"]
    with db.read(engine) as connection:
        days = connection.execute(select(nav_day)).all()
    assert days == [(name, date(2025, 12, 1), 1) for name in ("fund_nav", "money_fund_yield")]
    engine.dispose()


def _tables(engine: Engine) -> list[Table]:
    found = MetaData()
    found.reflect(engine)
    return [table for table in found.sorted_tables if table.name not in ("alembic_version", "merge_lock")]


def _value(column: Column[Any]) -> Any:
    if isinstance(column.type, LargeBinary):
        return b"x"
    values = {date: date(2025, 12, 1), datetime: datetime(2025, 12, 1, 19, tzinfo=UTC), str: "x"}
    value = values.get(column.type.python_type, 11 if column.name.startswith("peers_") else 1)
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _rows(engine: Engine, tables: list[Table]) -> dict[str, list[dict[str, Any]]]:
    with db.read(engine) as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in tables
        }


def test_missing_tables_say_what_to_run(url: URL) -> None:
    engine = db.connect(url)
    with pytest.raises(SchemaOutdated, match=r"main\.py init"), db.read(engine) as connection:
        connection.execute(select(fund_nav)).all()
    engine.dispose()


def test_an_unreachable_server_is_one_clear_line_without_the_password() -> None:
    url = URL.create("mysql+pymysql", "user", "p@ss#word", "127.0.0.1", 1, "navkeeper")
    engine = db.connect(url)
    with pytest.raises(DatabaseUnavailable) as caught, db.read(engine):
        pass
    message = str(caught.value)
    assert "127.0.0.1:1/navkeeper" in message
    assert "p@ss" not in message
    assert "p%40ss" not in message
    assert "\n" not in message


def test_a_wrong_password_is_reported_without_it(mariadb: URL) -> None:
    engine = db.connect(mariadb.set(username="nobody", password="s3cret@#", database="mysql"))
    with pytest.raises(DatabaseUnavailable, match="Access denied") as caught, db.read(engine):
        pass
    assert "s3cret" not in str(caught.value)
    engine.dispose()


def test_a_file_that_is_no_database_is_reported(sqlite_url: URL) -> None:
    Path(str(sqlite_url.database)).write_bytes(b"not a database at all" * 100)
    engine = db.connect(sqlite_url)
    with pytest.raises(DatabaseUnavailable, match="not a database"), db.read(engine):
        pass
    engine.dispose()


def test_a_row_the_table_refuses_is_no_outage(engine: Engine) -> None:
    columns = ("fund_code", "nav_date", "unit_nav", "batch_id")
    with pytest.raises(DBAPIError, match="fund_nav_positive"), db.write(engine) as connection:
        db.bulk_insert(connection, fund_nav, columns, [("000001", "2025-12-01", -1.0, 1)])


def test_a_mistake_in_a_statement_is_no_outage(engine: Engine) -> None:
    for statement in ("SELECT no_such_column FROM fund_nav", "SELECT FROM"):
        with pytest.raises(DBAPIError), db.read(engine) as connection:
            connection.exec_driver_sql(statement)


def run(engine: Engine, *statements: str, before: Callable[[], None] = lambda: None) -> None:
    """The statements in one transaction; `before` is called inside it."""
    with db.write(engine) as connection:
        before()
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_a_lost_connection_is_an_outage(stoppable_mariadb: MariaServer) -> None:
    engine = db.connect(stoppable_mariadb.url)
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1"):
        run(engine, "SELECT 1", before=stoppable_mariadb.stop)
    engine.dispose()


def test_an_unknown_database_says_how_to_create_it(mariadb: URL) -> None:
    engine = db.connect(mariadb.set(database="nobody_made_me"))
    wanted = "CREATE DATABASE nobody_made_me CHARACTER SET utf8mb4"
    with pytest.raises(DatabaseUnavailable, match=wanted), db.read(engine):
        pass
    engine.dispose()


def test_a_lock_that_is_not_given_is_an_outage(mariadb: URL) -> None:
    first, second = (db.connect(mariadb.set(database="mysql")) for _ in range(2))
    with first.connect() as holder, holder.begin():
        holder.exec_driver_sql("CREATE OR REPLACE TABLE test.held (id INT PRIMARY KEY) ENGINE=InnoDB")
        holder.exec_driver_sql("INSERT INTO test.held VALUES (1)")
        with pytest.raises(DatabaseUnavailable, match="Lock wait timeout"):
            run(second, "SET innodb_lock_wait_timeout = 1", "INSERT INTO test.held VALUES (1)")
    first.dispose()
    second.dispose()


def test_a_full_disk_says_where_to_free_space(tmp_path: Path) -> None:
    folder = tmp_path / "净值 数据"
    folder.mkdir()
    engine = db.connect(URL.create("sqlite", database=str(folder / "nav.db")))
    with pytest.raises(DatabaseUnavailable) as caught:
        run(
            engine,
            "CREATE TABLE big (content BLOB)",
            "PRAGMA max_page_count = 10",
            "INSERT INTO big VALUES (zeroblob(1000000))",
        )
    assert f"{folder / 'nav.db'}: database or disk is full; is the disk full?" in str(caught.value)
    assert str(caught.value).endswith(f"free space at {folder}")
    engine.dispose()


def test_a_locked_file_says_that_another_process_holds_it(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 50)
    first, second = db.connect(sqlite_url), db.connect(sqlite_url)
    wanted = "database is locked; another process holds it"
    with db.write(first), pytest.raises(DatabaseUnavailable, match=wanted), db.write(second):
        pass
    first.dispose()
    second.dispose()


def test_a_file_that_cannot_be_opened_is_shown_as_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "没有 这里" / "nav.db"
    engine = db.connect(URL.create("sqlite", database=str(path)))
    with pytest.raises(DatabaseUnavailable) as caught, db.read(engine):
        pass
    assert f"database {path}: unable to open" in str(caught.value)
    assert db.shown(URL.create("sqlite")) == ":memory:"


def test_the_newest_revision_is_alembics() -> None:
    assert db.newest_revision() == ScriptDirectory(str(db.MIGRATIONS)).get_current_head()
