"""A throw-away MariaDB server from the installed binaries."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

NO_AIO = "--skip-innodb-use-native-aio"  # several servers at once can run out of what the kernel has of it


def missing(what: str, reason: str) -> None:
    """Skip the test, or fail it where NAVKEEPER_TEST_REQUIRE names `what`."""
    if what in os.environ.get("NAVKEEPER_TEST_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


class MariaServer:
    """Started on entering, gone on leaving; may be stopped and started again in between."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = URL.create("mysql+pymysql", username="root", host="127.0.0.1", port=self.port)
        self.process: subprocess.Popen[bytes] | None = None
        path = f"{os.environ.get('PATH', '')}:/usr/sbin"
        self.binary = shutil.which("mariadbd", path=path)
        self.installer = shutil.which("mariadb-install-db", path=path)

    def __enter__(self) -> MariaServer:
        if self.binary is None or self.installer is None:
            missing("mariadb", "MariaDB's server (mariadbd, mariadb-install-db) is not installed")
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        command = [str(self.installer), "--no-defaults", f"--datadir={self.folder}/data"]
        command += [f"--user={getpass.getuser()}", "--auth-root-authentication-method=normal", NO_AIO]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=self._environment())
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        options = [f"--datadir={self.folder}/data", f"--socket={self.folder}/sock", f"--port={self.port}"]
        options += [f"--user={getpass.getuser()}", "--bind-address=127.0.0.1", "--skip-log-bin"]
        options += ["--innodb-buffer-pool-size=512M", "--innodb-flush-log-at-trx-commit=2"]
        options += [NO_AIO, "--performance-schema=OFF", f"--pid-file={self.folder}/pid", *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), "--no-defaults", *options],
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.05)  # a server starting has no other sign than its socket

    def _environment(self) -> dict[str, str]:
        """A folder for its temporary tables: a server that starts deletes those of all others in a common one."""
        return os.environ | {"TMPDIR": str(self.folder / "tmp")}

    def _answers(self) -> bool:
        engine = create_engine(self.url)
        try:
            with engine.connect():
                return True
        except OperationalError:
            return False
        finally:
            engine.dispose()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None
