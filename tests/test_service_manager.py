"""systemd: what the daemon tells it, over a real socket, and the unit file."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.settings import ROOT
from scheduler.service_manager import notify
from tests.daemon import DaemonProcess, at

DAY = date(2025, 11, 27)
UNIT = ROOT / "deploy" / "navkeeper.service"


@pytest.fixture
def service_manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The receiving end, as systemd opens it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def test_the_daemon_says_that_it_is_ready_alive_and_stopping(
    service_manager: socket.socket, sqlite_engine: Engine, tmp_path: Path
) -> None:
    daemon = DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at(DAY, 12))
    daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with daemon:
        assert [service_manager.recv(100) for _ in range(4)] == [b"READY=1"] + 3 * [b"WATCHDOG=1"]
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        rest = []
        while not rest or rest[-1] != b"STOPPING=1":
            rest.append(service_manager.recv(100))
        assert set(rest[:-1]) <= {b"WATCHDOG=1"}


def test_a_stopped_daemon_says_nothing(
    service_manager: socket.socket, sqlite_engine: Engine, tmp_path: Path
) -> None:
    """What hangs is not alive: the words come from the supervising loop, not from a thread beside it."""
    daemon = DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at(DAY, 12))
    daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with daemon:
        assert service_manager.recv(100) == b"READY=1"
        lock = sqlite_engine.raw_connection()  # hold the database: the loop waits for it
        try:
            lock.cursor().execute("BEGIN EXCLUSIVE")
            service_manager.settimeout(4)
            silent = False
            while not silent:
                try:
                    service_manager.recv(100)  # said before, and still in the socket
                except TimeoutError:
                    silent = True
        finally:
            lock.cursor().execute("ROLLBACK")
            lock.close()
        service_manager.settimeout(30)
        assert service_manager.recv(100) == b"WATCHDOG=1"


def test_an_abstract_address_is_understood(tmp_path: Path) -> None:
    name = f"navkeeper-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        notify("@" + name, "READY=1")
        listening.settimeout(5)
        assert listening.recv(100) == b"READY=1"


def test_nobody_to_tell_is_no_error(tmp_path: Path) -> None:
    notify(None, "READY=1")
    notify(str(tmp_path / "nobody"), "READY=1")


def test_the_unit_file_is_one_that_systemd_accepts(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text(encoding="utf-8")
    assert (ROOT / "scheduler" / "run_scheduler.py").is_file()
    unit = tmp_path / "navkeeper.service"
    unit.write_text(text.replace("/opt/navkeeper/.venv/bin/python", sys.executable), encoding="utf-8")
    found = subprocess.run([tool, "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in found.stderr.splitlines() if "navkeeper.service" in line]
    assert complaints == []
    broken = unit.with_name("navkeeper-broken.service")
    broken.write_text(text.replace("WatchdogSec=120", "WatchdogSec=soon"), encoding="utf-8")
    found = subprocess.run([tool, "verify", str(broken)], capture_output=True, text=True, check=False)
    assert "Failed to parse" in found.stderr  # it does look
