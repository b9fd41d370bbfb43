"""Log lines: no secret in them, wherever it came from; instants by Shanghai's clock, with its offset."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.logging_config import RedactingFormatter, configure_logging
from config.settings import load_settings

SECRET = "p@ss#w:rd/%"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The root logger is the process's, not the test's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level


def logged(path: Path, secrets: list[str]) -> str:
    log = logging.getLogger("navkeeper.test")
    configure_logging("INFO", secrets, path, console=False)
    log.info("connecting with %s", SECRET)
    log.debug("too quiet to be heard")
    try:
        raise RuntimeError(f"cannot log in with {SECRET}")
    except RuntimeError:
        log.exception("no database")
    return path.read_text(encoding="utf-8")


def test_a_secret_in_message_or_traceback_is_redacted(tmp_path: Path) -> None:
    text = logged(tmp_path / "logs" / "daemon.log", [SECRET])
    assert SECRET not in text
    assert "connecting with ***" in text
    assert "RuntimeError: cannot log in with ***" in text
    assert "Traceback" in text


def test_without_the_redaction_it_would_be_there(tmp_path: Path) -> None:
    assert logged(tmp_path / "daemon.log", []).count(SECRET) == 2


def test_a_password_is_redacted_as_an_address_spells_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSQL_HOST", "db.example")
    monkeypatch.setenv("MYSQL_PASSWORD", SECRET)
    settings = load_settings(tmp_path / "none.env")
    shown = settings.database_url().render_as_string(hide_password=False)
    assert SECRET not in shown
    configure_logging("INFO", settings.secrets(), tmp_path / "daemon.log", console=False)
    logging.getLogger("navkeeper.test").warning("cannot reach %s", shown)
    text = (tmp_path / "daemon.log").read_text(encoding="utf-8")
    assert "mysql+pymysql://root:***@db.example:3306/navkeeper" in text


def test_lines_carry_instant_level_and_name_and_quiet_levels_are_left_out(tmp_path: Path) -> None:
    text = logged(tmp_path / "daemon.log", [SECRET])
    line = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+08:00 INFO    navkeeper\.test: connecting with \*\*\*"
    assert re.fullmatch(line, text.splitlines()[0])
    assert "too quiet" not in text


def test_the_instant_is_shanghais_wherever_the_machine_stands() -> None:
    record = logging.makeLogRecord({"created": 1769609405.25, "levelname": "INFO", "name": "x", "msg": "y"})
    assert RedactingFormatter([]).format(record) == "2026-01-28T22:10:05.250+08:00 INFO    x: y"


def test_the_scheduler_library_speaks_of_errors_only(tmp_path: Path) -> None:
    configure_logging("INFO", [], tmp_path / "daemon.log", console=False)
    noisy = logging.getLogger("apscheduler.scheduler")
    noisy.warning("maximum number of running instances reached")
    noisy.error("job raised an exception")
    text = (tmp_path / "daemon.log").read_text(encoding="utf-8")
    assert "maximum" not in text
    assert "job raised an exception" in text


def test_the_console_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("WARNING", [SECRET])
    logging.getLogger("navkeeper.test").warning("careful with %s", SECRET)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.endswith("careful with ***\n")
