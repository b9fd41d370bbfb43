"""Real parts for tests: databases of both kinds, the recorded data, the project's own environment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from core import db
from core.initialise import initialise
from tests.browser import launched
from tests.mariadb import MariaServer, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The same examples every time: what a run found, the next one finds too.
hypothesis.settings.register_profile("steady", derandomize=True)
hypothesis.settings.load_profile("steady")

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's settings reach a test; what a test starts lives in its own folder."""
    for name in list(os.environ):
        if name.startswith(("NAVKEEPER_", "MYSQL_")) and not name.startswith("NAVKEEPER_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NAVKEEPER_HOME", str(tmp_path))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of recorded market data."""
    if not DATA.is_dir():
        missing("data", f"no recorded data at {DATA.name}/ beside the checkout")
    return DATA


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A throw-away MariaDB server for the whole session; its address without a database."""
    with MariaServer(tmp_path_factory.mktemp("mariadb")) as server:
        yield server.url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the tests of a file."""
    with launched() as browser:
        yield browser


@pytest.fixture
def stoppable_mariadb(tmp_path: Path) -> Iterator[MariaServer]:
    """A server of the test's own, to stop and start."""
    with MariaServer(tmp_path / "mariadb") as server:
        yield server


def _new_database(server: URL) -> URL:
    name = f"t{uuid.uuid4().hex[:12]}"
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE DATABASE {name} CHARACTER SET utf8mb4"))
    engine.dispose()
    return server.set(database=name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    return URL.create("sqlite", database=str(tmp_path / "navkeeper.db"))


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest) -> URL:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url")
    return _new_database(request.getfixturevalue("mariadb"))


@pytest.fixture
def engine(url: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database ready for work, of each kind; child processes find it in the environment."""
    monkeypatch.setenv("NAVKEEPER_DB_URL", url.render_as_string(hide_password=False))
    found = db.connect(url)
    initialise(found, NOW)
    yield found
    found.dispose()


@pytest.fixture
def mariadb_engine(mariadb: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database ready for work where only a server shows what is meant."""
    url = _new_database(mariadb)
    monkeypatch.setenv("NAVKEEPER_DB_URL", url.render_as_string(hide_password=False))
    found = db.connect(url)
    initialise(found, NOW)
    yield found
    found.dispose()


@pytest.fixture
def sqlite_engine(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database ready for work where the kind does not matter."""
    monkeypatch.setenv("NAVKEEPER_DB_URL", sqlite_url.render_as_string(hide_password=False))
    found = db.connect(sqlite_url)
    initialise(found, NOW)
    yield found
    found.dispose()
