"""A Dask cluster of real processes on this machine: a scheduler, and workers to start and to kill."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from sqlalchemy.engine import URL

from config.settings import ROOT
from tests.daemon import until
from tests.mariadb import missing

NO_PAGES = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")


class DaskCluster:
    """Started on entering, gone on leaving; `address` is the scheduler's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.address = ""

    def __enter__(self) -> DaskCluster:
        if importlib.util.find_spec("distributed") is None:
            missing("dask", "Dask is not installed: pip install -r requirements-cluster.in")
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "scheduler.json"
        self.scheduler = self._start("scheduler", ["--port", "0", "--scheduler-file", str(file)], {})
        self.address = until(lambda: _address(file), bool, "the scheduler's address")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.workers, self.scheduler):
            if process is not None:
                process.kill()
                process.wait()

    def worker(self, database: URL, package: Path = ROOT) -> subprocess.Popen[bytes]:
        """One more of a single thread, with the package in this folder; waits until the scheduler knows it."""
        environment = {
            "PYTHONPATH": str(package),
            "NAVKEEPER_DB_URL": database.render_as_string(hide_password=False),
            "NAVKEEPER_HOME": str(self.folder),
        }
        number = len(self.workers)
        words = [self.address, "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder)]
        process = self._start("worker", words, environment, number)
        self.workers.append(process)
        until(
            lambda: self._log("worker", number).read_text(encoding="utf-8"),
            lambda text: "Registered to:" in text and process.poll() is None,
            f"worker {number}",
        )
        return process

    def _start(
        self, role: str, words: list[str], environment: dict[str, str], number: int = 0
    ) -> subprocess.Popen[bytes]:
        with self._log(role, number).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{role}", *words, *NO_PAGES],
                cwd=self.folder,
                env=os.environ | environment,
                stdout=output,
                stderr=output,
            )

    def _log(self, role: str, number: int) -> Path:
        return self.folder / f"{role}{number}.log"


def _address(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError):  # not there yet, or not whole
        return ""
