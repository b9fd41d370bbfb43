"""The real daemon and its sending child, against servers that answer as the chats do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from core import db
from core.schema import alert, alert_delivery
from scheduler.job import RunStatus
from tests.chat_servers import SECRET, TOKEN, ChatServer
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until
from tests.mariadb import MariaServer
from tests.outage import fresh_database
from tests.test_alerts import end

DAY = date(2025, 11, 27)  # a Thursday
SUNDAY = date(2025, 11, 30)
IDLE = (*SWEEPS, "collect", "validate", "metrics")  # left out, so that only what the test does goes on


class Watched(DaemonProcess):
    """A daemon with a channel, or several."""

    def __init__(
        self, engine: Engine, home: Path, now: datetime, chat: ChatServer, *kinds: str, **more: str
    ) -> None:
        super().__init__(engine, home, "http://127.0.0.1:9", now, jobs_file(home, without=IDLE))
        self.now = now
        words = " ".join(chat.channel(kind) for kind in kinds)
        self.environment |= {"NAVKEEPER_ALERT_CHANNELS": words, "NAVKEEPER_LANGUAGE": "en"} | more

    def set_clock(self, now: datetime) -> None:
        super().set_clock(now)
        self.now = now

    def delivered(self) -> list[tuple[str, str]]:
        said = alert_delivery.c
        with db.read(self.engine) as connection:
            rows = connection.execute(select(said.notice, said.status).order_by(said.id))
            return [tuple(row) for row in rows]


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    found: list[datetime] = [at(DAY, 19)]
    with ChatServer(lambda: found[0]) as server:
        server.now = found  # type: ignore[attr-defined] # the clock of its signatures
        yield server


def move(night: Watched, chat: ChatServer, now: datetime) -> None:
    night.set_clock(now)
    chat.clock = lambda: now


def wait_for(chat: ChatServer, count: int) -> list[str]:
    until(lambda: len(chat.said), lambda found: found >= count, f"message {count}")
    return [text for _kind, text in chat.said]


def test_thirty_failures_of_a_night_are_one_message_one_repeat_one_recovery(
    engine: Engine, chat: ChatServer, tmp_path: Path
) -> None:
    with Watched(engine, tmp_path, at(DAY, 19), chat, "dingtalk") as night:
        for number in range(30):
            end(engine, RunStatus.FAILED, at(DAY, 19, number), reason="source_unavailable: no answer")
            if number == 2:  # while they go on
                move(night, chat, at(DAY, 19, number))
                wait_for(chat, 1)
        move(night, chat, at(DAY, 23))
        until(night.delivered, lambda rows: rows[-1][0] == "REPEATED", "the repeat")
        move(night, chat, at(DAY, 23, 2))
        wait_for(chat, 2)
        end(engine, RunStatus.SUCCESS, at(DAY, 23, 10), records=120)
        move(night, chat, at(DAY, 23, 11) + timedelta(seconds=30))  # ten minutes more would be an absence
        first, again, over = wait_for(chat, 3)
        until(night.delivered, lambda rows: all(row[1] == "SENT" for row in rows), "the records")
    assert len(chat.said) == 3
    assert "[ALERT] collect for 2025-11-27 ended FAILED" in first
    assert "type: python main.py runs retry" in first
    assert "[STILL]" in again
    assert "for 4 h 2 min" in again
    assert "[RECOVERED]" in over
    assert "after 4 h 10 min" in over


def test_killed_while_sending_it_is_sent_again(engine: Engine, chat: ChatServer, tmp_path: Path) -> None:
    """SIGKILL between the chat's OK and its record: a second message, never none."""
    for point in ("alert.claimed", "alert.sent"):
        chat.said.clear()
        end(engine, RunStatus.FAILED, at(DAY, 19), job=point)
        with Watched(engine, tmp_path, at(DAY, 19, 2), chat, "wecom", NAVKEEPER_CRASH_AT=point) as night:
            until(night.delivered, lambda rows: rows[-1][1] == "SENT", "the record")
        assert len(chat.said) == {"alert.claimed": 1, "alert.sent": 2}[point]


def test_a_channel_that_hangs_stops_neither_the_daemon_nor_the_next_channel(
    sqlite_engine: Engine, chat: ChatServer, tmp_path: Path
) -> None:
    chat.hanging.add("dingtalk")
    end(sqlite_engine, RunStatus.FAILED, at(DAY, 19))
    with Watched(sqlite_engine, tmp_path, at(DAY, 19, 2), chat, "dingtalk", "feishu") as night:
        until(lambda: chat.asked, lambda found: "dingtalk" in found, "the hanging channel")
        answered = night.main("jobs", "pause", "weekly")
        assert answered.returncode == 0, answered.stderr
        [text] = wait_for(chat, 1)
        until(night.delivered, lambda rows: rows == [("OPENED", "SENT")], "the record")
    assert "[ALERT]" in text
    logs = "".join(path.read_text("utf-8", "replace") for path in tmp_path.glob("logs/*.log"))
    assert "dingtalk-1: " in logs
    assert TOKEN not in logs
    assert SECRET not in logs


def test_a_night_that_never_came_is_told_at_half_past_eleven(
    sqlite_engine: Engine, chat: ChatServer, tmp_path: Path
) -> None:
    wednesday = DAY - timedelta(days=1)
    for job, task in (
        ("collect", "collect_nav"),
        ("validate", "validate_nav"),
        ("metrics", "calculate_metrics"),
    ):
        end(sqlite_engine, RunStatus.SUCCESS, at(wednesday, 19), job, task, day=wednesday)
    with Watched(sqlite_engine, tmp_path, at(DAY, 18), chat, "feishu") as night:
        night.kill()
        jobs = jobs_file(tmp_path, ("hour = 19, minute = 0", "hour = 23, minute = 50"), without=SWEEPS)
        night.environment["NAVKEEPER_JOBS_FILE"] = str(jobs)
        night.set_clock(at(DAY, 23, 25))
        night.start()
        move(night, chat, at(DAY, 23, 31))
        until(lambda: opened(sqlite_engine), lambda found: "late" in found, "the alert")
        move(night, chat, at(DAY, 23, 33))
        until(lambda: chat.said, lambda found: any("not done" in text for _k, text in found), "the message")
    text = next(text for _kind, text in chat.said if "not done" in text)
    assert "the night of 2025-11-27 is not done" in text
    assert "type: python main.py all --date 2025-11-27" in text


def opened(engine: Engine) -> list[str]:
    with db.read(engine) as connection:
        return list(connection.execute(select(alert.c.kind)).scalars())


def test_the_switch_hears_of_a_day_without_trading_once(
    sqlite_engine: Engine, chat: ChatServer, tmp_path: Path
) -> None:
    address = f"http://{chat.address}/ping"
    with Watched(sqlite_engine, tmp_path, at(SUNDAY, 20), chat, NAVKEEPER_HEARTBEAT_URL=address) as night:
        night.set_clock(at(SUNDAY, 20, 4))
        night.set_clock(at(SUNDAY, 20, 31))
        until(lambda: chat.pinged, bool, "the ping")
        night.start()  # anew
        night.set_clock(at(SUNDAY, 20, 33))
        until(night.delivered, lambda rows: ("PING_OK", "SENT") in rows, "the record")
    assert chat.pinged == [""]


def test_the_database_that_is_away_is_told_of_without_it(
    stoppable_mariadb: MariaServer, chat: ChatServer, tmp_path: Path
) -> None:
    engine = fresh_database(stoppable_mariadb, DAY)
    with Watched(engine, tmp_path, at(DAY, 19), chat, "wecom") as night:
        stoppable_mariadb.stop()
        log = tmp_path / "logs" / "daemon.log"
        until(
            lambda: log.read_text("utf-8"), lambda text: "trying again every second" in text, "the complaint"
        )
        move(night, chat, at(DAY, 19, 2))
        [first] = wait_for(chat, 1)
        stoppable_mariadb.start()
        _first, over = wait_for(chat, 2)
    assert "[ALERT] the database cannot be reached" in first
    assert "[RECOVERED] the database cannot be reached" in over
    assert opened(engine) == []
    engine.dispose()


def test_the_command_line(sqlite_engine: Engine, chat: ChatServer, tmp_path: Path) -> None:
    end(sqlite_engine, RunStatus.FAILED, at(DAY, 19), reason="source_unavailable: no answer")
    night = Watched(sqlite_engine, tmp_path, at(DAY, 19, 30), chat, "dingtalk", "wecom")

    def alert_words(*words: str, code: int = 0) -> Any:
        done = night.main("alert", *words)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    night.environment["COLUMNS"] = "200"
    assert "collect for 2025-11-27 ended FAILED" in alert_words("list")
    assert "silenced until" in alert_words("show", "1")
    assert '"state": "SILENCED"' in alert_words("silence", "1", "--for", "8h", "--json")
    assert '"state": "OPEN"' in alert_words("unsilence", "1", "--json")
    assert "no alert 7" in alert_words("silence", "7", "--until", "2025-12-01T08:00", code=2)
    assert alert_words("test") == "dingtalk-1: ok\nwecom-2: ok\n"
    assert [kind for kind, _text in chat.said] == ["dingtalk", "wecom"]
    chat.refusing.add("wecom")
    assert "wecom-2: refused with errcode 93000" in alert_words("test", code=1)
    assert alert_words("test", "--channel", "1") == "dingtalk-1: ok\n"
    shown = night.main("monitor")
    assert "Open alerts" in shown.stdout
    night.environment["NAVKEEPER_ALERT_CHANNELS"] = "nonsense"
    assert "NAVKEEPER_ALERT_CHANNELS" in alert_words("test", code=78)
    assert night.main("scheduler").returncode == 78


def test_help_imports_nothing_heavy() -> None:
    import subprocess

    code = "import sys, main; sys.argv = ['main.py']; main.options_of('alert', ['list']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sqlalchemy", "httpx", "pydantic", "rich"} & set(done.stdout.split())
