"""The dashboard as an operator meets it: the real script, on a pipe, a file or a pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from sqlalchemy.engine import URL

from config.translation import translator
from core.db import connect, write
from core.schema import daemon, job_run, metadata
from scheduler.wording import error_text, place
from tests import example_night as night

ROOT = Path(__file__).resolve().parents[1]
MONITOR = [sys.executable, str(ROOT / "scheduler" / "monitor.py")]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the example's database and a clock that stands at 22:10:05 of that night."""
    engine = connect(URL.create("sqlite", database=str(tmp_path / "navkeeper.db")))
    metadata.create_all(engine)
    night.fill(engine)
    engine.dispose()
    (tmp_path / "now").write_text(night.NOW.isoformat())
    return tmp_path


def environment(home: Path, **extra: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    own = {"NAVKEEPER_HOME": str(home), "NAVKEEPER_CLOCK_FILE": str(home / "now"), "LANG": "C.UTF-8"}
    return kept | own | extra


def run(home: Path, *options: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*MONITOR, *options], env=environment(home, **extra), cwd="/", capture_output=True, check=False
    )


def change(home: Path, *statements: object) -> None:
    engine = connect(URL.create("sqlite", database=str(home / "navkeeper.db")))
    with write(engine) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]
    engine.dispose()


def cells(line: str) -> int:
    """Columns on a terminal: East Asian wide and full-width characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


def test_a_pipe_gets_everything_without_colour_but_long_errors(home: Path) -> None:
    reason = "no NAV of fund 000001 in the reply of the source, " * 6 + "the end"
    change(
        home,
        update(job_run)
        .where(job_run.c.job_id == "metrics", job_run.c.business_date == night.NIGHT)
        .values(reason=reason, status="FAILED"),
    )
    done = run(home)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    shown = [line for line in text.splitlines() if reason[:90] in line]
    assert len(shown) == 3  # the verdict, the night, the last 24 hours
    assert all(line.endswith(f" {reason[:99]}…") or f"：{reason[:99]}…" in line for line in shown)
    assert len(text.splitlines()[0]) < 160
    assert reason in json.loads(run(home, "--json").stdout)["verdict"]["reasons"][0]["figures"]["reason"]


def test_a_good_night_in_a_pipe(home: Path) -> None:
    lines = run(home).stdout.decode().splitlines()
    assert lines[0] == "正常  净值已到 2026-01-28，98 只基金  [SIMULATED 模拟数据]"
    assert f"下一步输入：NAVKEEPER_HOME={home} python main.py monitor --watch" in lines
    assert any(re.match(r"采集 collect +成功 +01-28 19:00", line) for line in lines)
    assert "隔离区：3 行；最近批次不合格 1 行" in lines


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("width", [60, 80])
def test_no_line_is_wider_than_the_screen(home: Path, language: str, width: int) -> None:
    done = run(home, "--lang", language, COLUMNS=str(width))
    lines = [line for line in done.stdout.decode().splitlines() if str(home) not in line]
    assert done.returncode == 0
    assert max(cells(line) for line in lines) <= width
    head = next(line for line in lines if line.startswith(("fund_nav ", "fund_nav\t")))
    assert head.split()[:3] == ["fund_nav", "2026-01-28", "0"]  # whole values, none cut
    assert ("98.0%" in head) == (width == 80)


def test_the_headline_speaks_english_when_asked(home: Path) -> None:
    first = run(home, "--lang", "en").stdout.decode().splitlines()[0]
    assert first == "OK  NAVs reach 2026-01-28, 98 funds  [SIMULATED data]"
    by_setting = run(home, NAVKEEPER_LANGUAGE="en").stdout.decode().splitlines()[0]
    assert by_setting == first


def test_a_gbk_console_can_show_it_all(home: Path) -> None:
    change(home, update(job_run).values(reason="reason with ü and \U0001f4c8"))
    done = run(home, COLUMNS="80", PYTHONIOENCODING="gbk")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("gbk")
    assert text.startswith("正常  净值已到 2026-01-28，98 只基金")
    wrong = [line for line in text.splitlines() if "?" in line]
    assert len(wrong) == 3  # the runs of the night; among the last 24 hours the cut comes before the sign
    assert all("reason with ü and ?" in line for line in wrong)


def test_a_console_without_chinese_gets_english(home: Path) -> None:
    done = run(home, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.decode("ascii").startswith("OK  NAVs reach 2026-01-28")


def test_what_the_source_said_cannot_steer_the_terminal(home: Path) -> None:
    change(home, update(job_run).values(reason="\x1b[2Jgone\nnext [red]line[/red]"))
    text = run(home).stdout.decode()
    assert "\x1b" not in text
    assert " [2Jgone next [red]line[/red]" in text


@pytest.mark.parametrize(
    ("language", "wanted"),
    [
        ("zh", "失败  2026-01-28 的采集失败：数据源不可用: no answer from http://127.0.0.1:1"),
        (
            "en",
            "FAILED  collect for 2026-01-28 ended FAILED: source_unavailable: no answer from http://127.0.0.1:1",
        ),
    ],
)
def test_the_code_of_an_error_has_a_label_its_detail_stays(home: Path, language: str, wanted: str) -> None:
    reason = "source_unavailable: no answer from http://127.0.0.1:1"
    collect = job_run.c.job_id == "collect"
    change(home, update(job_run).where(collect).values(status="FAILED", reason=reason))
    assert run(home, "--lang", language).stdout.decode().splitlines()[0].startswith(wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("attempt 2 was TIMED_OUT: not_published: none yet", "第 2 次尝试超时：尚未公布: none yet"),
        ("attempt 1 was CANCELLED: cancelled by cli:li", "第 1 次尝试已取消：由 cli:li 取消"),
        ("collect is FAILED", "采集失败"),
        ("collect was FAILED; it is tried again", "采集曾失败; 已安排重试"),
        (
            "1 of 620354 rows quarantined; no answer; try again later",
            "620354 行中隔离 1 行; no answer; try again later",
        ),
        ("read error: usage: x", "read error: usage: x"),
        ("", ""),
    ],
)
def test_a_leading_code_and_our_own_sentences_are_translated(text: str, wanted: str) -> None:
    assert error_text(text, translator("zh")) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "eastmoney http://127.0.0.1:8600 http://127.0.0.1:8600 (NavKeeper-standin (SIMULATED market))",
            "eastmoney http://127.0.0.1:8600 (NavKeeper-standin, SIMULATED market)",
        ),
        ("eastmoney https://a.example https://a.example.org (nginx)",) * 2,
        ("files /data/navs navs (old)",) * 2,
    ],
)
def test_a_place_is_named_once(text: str, wanted: str) -> None:
    assert place(text) == wanted


def test_one_run_is_no_runs(home: Path) -> None:
    change(home, delete(job_run).where(job_run.c.job_id != "collect"))
    assert "Last 24 hours: 1 run\n" in run(home, "--lang", "en").stdout.decode()


@pytest.mark.parametrize("width", ["60", "200"])
def test_the_command_proposed_works_when_typed(home: Path, width: str) -> None:
    """Typed into a real shell, where a stand-in for Python says what it was called with."""
    moved = home / "it's here"
    moved.mkdir()
    for name in ("navkeeper.db", "now"):
        (home / name).rename(moved / name)
    lines = run(moved, "--lang", "en", COLUMNS=width).stdout.decode().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("Type next:"))
    typed = "\n".join([lines[at].removeprefix("Type next:").strip(), *lines[at + 1 :]]).split("\n\n")[0]
    (moved / "python").write_text('#!/bin/sh\necho "$NAVKEEPER_HOME|$*"\n')
    (moved / "python").chmod(0o755)
    done = subprocess.run(["/bin/sh", "-c", typed], env={"PATH": str(moved)}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{moved}|main.py monitor --watch\n", "")


def test_a_database_that_other_settings_select_is_not_named(home: Path) -> None:
    elsewhere = (home / "navkeeper.db").rename(home / "other.db")
    lines = run(home, NAVKEEPER_DB_URL=f"sqlite:///{elsewhere}").stdout.decode().splitlines()
    assert "下一步输入：python main.py monitor --watch" in lines


@pytest.mark.parametrize("options", [[], ["--json"], ["--watch"]])
def test_nobody_reads_any_more(home: Path, options: list[str]) -> None:
    """As with `| head -1`, but never too late."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*MONITOR, *options], env=environment(home), stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_is_one_line(home: Path, options: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*MONITOR, *options], env=environment(home), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.decode() == "monitor: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(("options", "code"), [([], 130), (["--watch"], 0)])
def test_ctrl_c_before_anything_is_shown(home: Path, options: list[str], code: int) -> None:
    (home / "now").unlink()
    os.mkfifo(home / "now")
    process = subprocess.Popen(
        [*MONITOR, *options], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with (home / "now").open("w"):  # opens when the monitor asks for the time, which then waits
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (code, b"", b"")


def test_watch_into_a_pipe_is_one_screen_after_the_other(home: Path) -> None:
    process = subprocess.Popen(
        [*MONITOR, "--watch"], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    lines: list[str] = []
    while sum(line.startswith("正常  净值已到") for line in lines) < 2:
        lines.append(process.stdout.readline().decode().rstrip("\n"))
        assert lines[-1] or lines[-2], lines  # never two empty lines, and no end
    assert lines[-2] == ""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")


def test_the_help_tells_exit_codes_and_what_a_pipe_gets(home: Path) -> None:
    text = " ".join(run(home, "--help").stdout.decode().split())
    assert "exit codes: 0 shown" in text
    assert "into a pipe: one plain screen after the other" in text


def test_json_has_stable_keys_and_is_ascii(home: Path) -> None:
    done = run(home, "--json", PYTHONIOENCODING="gbk")
    document = json.loads(done.stdout.decode("ascii"))
    assert document["verdict"]["state"] == "OK"
    assert document["simulated"] is True
    assert set(document) == {
        "now",
        "verdict",
        "next_command",
        "expected_date",
        "expected_is_provisional",
        "simulated",
        "daemon",
        "freshness",
        "chain_date",
        "chain",
        "runs_24h",
        "success_7d",
        "next_runs",
        "last_batch",
        "quarantine",
        "last_failed_gate",
        "alerts",
    }


def test_every_reason_can_be_said_in_both_languages(home: Path) -> None:
    change(home, delete(daemon), update(job_run).values(status="FAILED", reason=None))
    for language, line in (
        ("zh", "失败  2026-01-28 的采集失败：-"),
        ("en", "FAILED  collect for 2026-01-28 ended FAILED: -"),
    ):
        lines = run(home, "--lang", language).stdout.decode().splitlines()
        assert lines[0].startswith(line)
        assert any(("守护进程" if language == "zh" else "no daemon has run") in text for text in lines[1:5])


@pytest.mark.parametrize(
    ("extra", "options", "code", "says"),
    [
        ({"NAVKEEPER_DB_URL": "mysql+pymysql://u:s3cret@127.0.0.1:1/x"}, [], 1, "127.0.0.1"),
        ({"NAVKEEPER_HOME": "/nowhere"}, ["--watch"], 1, "python main.py init"),
        ({"NAVKEEPER_LANGUAGE": "fr"}, [], 78, "NAVKEEPER_LANGUAGE = 'fr'"),
        ({"NAVKEEPER_CLOCK_FILE": "/nowhere"}, [], 78, "NAVKEEPER_CLOCK_FILE"),
        ({}, ["--json", "--watch"], 2, "not allowed with"),
        ({}, ["--lang", "fr"], 2, "invalid choice"),
        ({}, ["--wat"], 2, "unrecognized arguments: --wat"),
    ],
)
def test_errors_are_clear_lines_and_exit_codes(
    home: Path, extra: dict[str, str], options: list[str], code: int, says: str
) -> None:
    done = run(home, *options, **extra)
    text = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b"")
    assert says in text
    assert "Traceback" not in text
    assert "s3cret" not in text
    assert len(text.splitlines()) == (1 if code != 2 else 2)  # argparse shows the usage first


def test_it_starts_without_the_heavy_libraries(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", MONITOR[1], "--json"],
        env=environment(home),
        capture_output=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.decode().splitlines()}
    assert not loaded & {"pandas", "httpx", "alembic", "flask", "rich", "exchange_calendars", "pyarrow"}


class Terminal:
    """The monitor on a pseudo-terminal of 80 x 50."""

    def __init__(self, env: dict[str, str], *options: str) -> None:
        self.master, child = pty.openpty()
        ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
        self.process = subprocess.Popen(
            [*MONITOR, *options], env=env, stdin=child, stdout=child, stderr=subprocess.PIPE
        )
        os.close(child)
        self.text = ""

    def read_until(self, enough: Callable[[str], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not enough(self.text) and time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="ignore")
                except OSError:  # the child closed its end
                    break
        assert enough(self.text), self.text

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=20)
        os.close(self.master)
        return self.process.returncode, errors.decode()


def test_a_terminal_gets_colour_unless_refused(home: Path) -> None:
    for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        terminal = Terminal(environment(home, TERM="xterm-256color", **extra))
        terminal.read_until(lambda text: "coverage" in text)
        assert terminal.end() == (0, "")
        colours = re.findall(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])m", terminal.text)
        assert bool(colours) == coloured
        lines = ESCAPE.sub("", terminal.text).splitlines()
        assert max(cells(line) for line in lines if not line.startswith("NAVKEEPER_HOME=")) <= 80


def test_watch_refreshes_outlives_the_database_and_leaves_cleanly(home: Path) -> None:
    terminal = Terminal(environment(home, TERM="xterm"), "--watch")
    terminal.read_until(lambda text: "98 只基金" in text)
    (home / "navkeeper.db").rename(home / "away.db")
    terminal.read_until(lambda text: "database_unavailable" in text)
    (home / "away.db").rename(home / "navkeeper.db")
    change(home, delete(daemon))
    terminal.read_until(lambda text: "此数据库还没有运行过守护进程" in text)
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_until(lambda text: text.endswith("\x1b[?25h\x1b[?1049l"))  # cursor and screen as before
    assert terminal.end() == (0, "")
