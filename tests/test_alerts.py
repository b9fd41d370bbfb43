"""What opens, repeats, silences and closes an alert, in which transaction, and what goes into the outbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select

from config.settings import load_settings
from config.translation import translator
from core import db
from core.errors import UsageError
from core.schema import alert, alert_delivery
from core.trading_calendar import TradingCalendar, library_sessions
from scheduler import alert_outbox, alert_rules, alert_store, run_store
from scheduler.alert_delivery import Post, deliver
from scheduler.alert_rules import Matter, Night, Step
from scheduler.alert_text import Told, message
from scheduler.job import RunStatus
from scheduler.process_identity import this_process
from scheduler.run_store import End
from tests.chat_servers import ChatServer
from tests.daemon import at

DAY = date(2025, 11, 27)  # a Thursday
SEVEN = at(DAY, 19)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
MATTER = Matter("disk", "", {"folder": "/data", "free": 5, "needed": 9})


def run_of(
    connection: Connection,
    job: str = "collect",
    task: str = "collect_nav",
    *,
    day: date = DAY,
    now: datetime = SEVEN,
) -> Any:
    """A run at work, of the daemon's kind: with a log file."""
    values = {"job_id": job, "task": task, "business_date": day, "status": RunStatus.QUEUED, "now": now}
    run_id = run_store.add_run(connection, **values)  # type: ignore[arg-type]
    assert run_id is not None
    queued = run_store.get_run(connection, run_id)
    assert queued is not None
    assert run_store.claim_run(connection, queued, this_process(), now, "a.log")
    return run_store.get_run(connection, run_id)


def end(
    engine: Engine,
    status: RunStatus,
    now: datetime,
    job: str = "collect",
    task: str = "collect_nav",
    *,
    day: date = DAY,
    records: int = 0,
    reason: str | None = None,
) -> None:
    with db.write(engine) as connection:
        run = run_of(connection, job, task, now=now, day=day)
        done = End(status, records, reason)
        assert run_store.end_run(connection, run, done, now, claim=run.claim, table_name="tmp_fund_nav")


def alerts(engine: Engine) -> list[Any]:
    with db.read(engine) as connection:
        return list(connection.execute(select(alert).order_by(alert.c.id)))


def notices(engine: Engine) -> list[tuple[str, str]]:
    said = alert_delivery.c
    with db.read(engine) as connection:
        return [tuple(row) for row in connection.execute(select(said.notice, said.status).order_by(said.id))]


def opened(engine: Engine, now: datetime = SEVEN, matter: Matter = MATTER) -> int | None:
    with db.write(engine) as connection:
        return alert_store.open_alert(connection, matter, now)


def test_many_failures_of_one_thing_are_one_alert_until_a_success_mends_it(engine: Engine) -> None:
    end(engine, RunStatus.SUCCESS, SEVEN - 24 * HOUR, day=date(2025, 11, 26), records=25_961)
    for number in range(30):
        end(engine, RunStatus.FAILED, SEVEN + number * MINUTE, reason="source_unavailable: no answer")
    [found] = alerts(engine)
    assert (found.fingerprint, found.seen, found.recovered_at) == ("failed:collect:2025-11-27", 30, None)
    assert notices(engine) == [("OPENED", "PENDING")]
    end(engine, RunStatus.SUCCESS, SEVEN + 24 * HOUR, day=date(2025, 11, 28))  # the next night is no cure
    assert alerts(engine)[0].recovered_at is None
    end(engine, RunStatus.PARTIAL, SEVEN + HOUR)
    [found] = alerts(engine)
    assert (found.open_key, found.recovered_at) == (None, SEVEN + HOUR)
    assert [notice for notice, _status in notices(engine)] == ["OPENED", "RECOVERED"]


def test_the_alert_is_in_the_transaction_of_the_failure(engine: Engine) -> None:
    def cut_off() -> None:
        with db.write(engine) as connection:
            run = run_of(connection)
            run_store.end_run(connection, run, End(RunStatus.FAILED), SEVEN, claim=run.claim, table_name="t")
            raise RuntimeError("power failure")

    with pytest.raises(RuntimeError, match="power"):
        cut_off()
    assert (alerts(engine), notices(engine)) == ([], [])


@pytest.mark.parametrize(
    ("status", "task", "kinds"),
    [
        (RunStatus.FAILED, "collect_nav", ["failed"]),
        (RunStatus.TIMED_OUT, "validate_nav", ["failed"]),
        (RunStatus.INTERRUPTED, "sweep_nav", ["failed"]),
        (RunStatus.CANCELLED, "collect_nav", []),
        (RunStatus.PARTIAL, "validate_nav", ["partial"]),
        (RunStatus.PARTIAL, "collect_nav", []),
        (RunStatus.SUCCESS, "collect_nav", []),
    ],
)
def test_what_an_end_is_worth(sqlite_engine: Engine, status: RunStatus, task: str, kinds: list[str]) -> None:
    end(sqlite_engine, status, SEVEN, "job", task)
    assert [row.kind for row in alerts(sqlite_engine)] == kinds


def test_nobody_is_told_of_an_attempt_that_is_tried_again_nor_of_a_run_in_a_terminal() -> None:
    assert alert_rules.kind_of_end("collect_nav", RunStatus.FAILED, watched=True) is None
    assert alert_rules.kind_of_end("collect_nav", RunStatus.FAILED, watched=False) == "failed"


def test_what_mends_what(sqlite_engine: Engine) -> None:
    friday = date(2025, 11, 28)
    end(sqlite_engine, RunStatus.FAILED, SEVEN, "sweep", "sweep_nav")
    end(sqlite_engine, RunStatus.PARTIAL, SEVEN, "validate", "validate_nav")
    end(sqlite_engine, RunStatus.FAILED, SEVEN)
    end(sqlite_engine, RunStatus.SUCCESS, SEVEN + 24 * HOUR, "sweep", "sweep_nav", day=friday)
    assert [row.recovered_at is None for row in alerts(sqlite_engine)] == [False, True, True]
    end(sqlite_engine, RunStatus.SUCCESS, SEVEN + 25 * HOUR, "sweep", "sweep_nav")
    assert [row.recovered_at is None for row in alerts(sqlite_engine)] == [False, False, True]
    end(sqlite_engine, RunStatus.SUCCESS, SEVEN + 26 * HOUR, "backfill", "backfill_nav")
    assert [row.recovered_at is None for row in alerts(sqlite_engine)] == [False, False, False]


def test_one_open_alert_however_many_open_it_at_once(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _n: opened(engine), range(12)))
    assert len([one for one in found if one is not None]) == 1
    [row] = alerts(engine)
    assert row.seen == 12
    assert notices(engine) == [("OPENED", "PENDING")]


def test_repeats_come_every_four_hours_unless_silenced(engine: Engine) -> None:
    number = opened(engine)
    assert number is not None

    def repeated(now: datetime) -> int:
        with db.write(engine) as connection:
            assert alert_outbox.claim_message(connection, now) or True
            connection.execute(alert_delivery.update().values(status="SENT"))
            alert_store.repeat_due(connection, now)
        return [notice for notice, _status in notices(engine)].count("REPEATED")

    assert repeated(SEVEN + 4 * HOUR - MINUTE) == 0
    assert repeated(SEVEN + 4 * HOUR) == 1
    assert repeated(SEVEN + 5 * HOUR) == 1
    with db.write(engine) as connection:
        alert_store.silence(connection, number, SEVEN + 20 * HOUR, "cli:me", SEVEN + 6 * HOUR)
    assert repeated(SEVEN + 12 * HOUR) == 1
    assert repeated(SEVEN + 20 * HOUR) == 2


def test_a_silenced_matter_stays_silent_when_it_comes_again(engine: Engine) -> None:
    number = opened(engine)
    assert number is not None
    with db.write(engine) as connection:
        alert_store.silence(connection, number, SEVEN + 8 * HOUR, "cli:me", SEVEN)
        alert_store.recover(connection, SEVEN + HOUR, alert.c.id == number)
    opened(engine, SEVEN + 2 * HOUR)
    assert notices(engine) == [("OPENED", "DROPPED")]
    with db.write(engine) as connection:
        alert_store.recover(connection, SEVEN + 3 * HOUR)
        with pytest.raises(UsageError, match="is over"):
            alert_store.silence(connection, number, SEVEN + 8 * HOUR, "cli:me", SEVEN)
    opened(engine, SEVEN + 9 * HOUR)
    assert notices(engine)[1:] == [("OPENED", "PENDING")]


def test_what_comes_within_a_minute_goes_out_together_and_is_claimed_once(engine: Engine) -> None:
    for number in range(3):
        opened(engine, SEVEN + number * timedelta(seconds=20), Matter("failed", f"job{number}"))
    for early in (SEVEN, SEVEN + timedelta(seconds=59)):
        with db.write(engine) as connection:
            assert alert_outbox.claim_message(connection, early) is None
            assert not alert_outbox.anything_due(connection, early)

    def claim(_number: int) -> str | None:
        with db.write(engine) as connection:
            return alert_outbox.claim_message(connection, SEVEN + MINUTE)

    with ThreadPoolExecutor(4) as pool:
        [claimed] = [found for found in pool.map(claim, range(4)) if found is not None]
    with db.write(engine) as connection:
        assert len(alert_outbox.claimed(connection, claimed)) == 3
        alert_outbox.record_failed(connection, claimed, "no", 1, SEVEN + MINUTE)
        assert alert_outbox.claim_message(connection, SEVEN + MINUTE) is None
        assert alert_outbox.claim_message(connection, SEVEN + 2 * MINUTE)
        alert_outbox.put_back(connection)
        assert alert_outbox.claim_message(connection, SEVEN + 2 * MINUTE)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(lambda: SEVEN) as server:
        yield server


def test_sent_by_the_next_channel_where_the_first_fails_and_tried_again_where_all_do(
    engine: Engine, chat: ChatServer
) -> None:
    words = f"{chat.channel('dingtalk')} {chat.channel('wecom')}"
    now = SEVEN + MINUTE
    post = Post(load_settings(alert_channels=words, language="en"), lambda: now)
    opened(engine)
    chat.refusing |= {"dingtalk", "wecom"}
    assert not deliver(engine, post)
    assert notices(engine) == [("OPENED", "PENDING")]
    now = SEVEN + 2 * MINUTE
    chat.refusing = {"dingtalk"}
    assert deliver(engine, post)
    [(kind, text)] = chat.said
    assert (kind, "the disk is nearly full" in text) == ("wecom", True)
    with db.read(engine) as connection:
        row = connection.execute(select(alert_delivery)).one()
    assert (row.status, row.channel, row.attempts) == ("SENT", "wecom-2", 2)
    assert row.last_error == "dingtalk-1: refused with errcode 300005: token is not exist"


def test_twenty_messages_a_minute_are_the_robots_limit(sqlite_engine: Engine, chat: ChatServer) -> None:
    now = SEVEN + HOUR
    words = f"{chat.channel('dingtalk')} {chat.channel('feishu')}"
    post = Post(load_settings(alert_channels=words), lambda: now)
    for number in range(21):
        opened(sqlite_engine, SEVEN + number * 2 * MINUTE, Matter("failed", f"job{number}"))
        assert deliver(sqlite_engine, post)
    assert [kind for kind, _text in chat.said] == ["dingtalk"] * 20 + ["feishu"]


# Pure rules


def night(*states: RunStatus | None, funds: int = 100, before: int = 100) -> Night:
    tasks = alert_rules.CHAIN
    steps = tuple(
        Step(task, task, state, None if state is None else 7, state in (RunStatus.SUCCESS, RunStatus.PARTIAL))
        for task, state in zip(tasks, states, strict=True)
    )
    return Night(DAY, steps, funds, before)


GOOD, BAD, WAITS = RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.WAITING


def test_a_night_is_late_when_it_is_not_done_by_half_past_eleven() -> None:
    calendar = TradingCalendar(library_sessions())
    assert alert_rules.night_to_judge(calendar, at(DAY, 23, 29)) == date(2025, 11, 26)
    assert alert_rules.night_to_judge(calendar, at(DAY, 23, 30)) == DAY
    assert alert_rules.night_to_judge(calendar, at(date(2025, 11, 28), 12)) == DAY
    assert alert_rules.night_to_judge(calendar, at(date(2025, 11, 29), 23, 29)) == date(2025, 11, 28)
    assert alert_rules.night_to_judge(calendar, at(date(2025, 11, 30), 12)) is None  # a Sunday
    assert alert_rules.late_night(night(GOOD, GOOD, RunStatus.PARTIAL)) is None
    late = alert_rules.late_night(night(GOOD, RunStatus.RUNNING, None))
    assert late is not None
    assert late.figures["steps"] == [["validate_nav", "RUNNING"], ["calculate_metrics", None]]
    thin = alert_rules.late_night(night(GOOD, GOOD, GOOD, funds=79))
    assert thin is not None
    assert (thin.figures["records"], thin.figures["expected"]) == (79, 100)


@pytest.mark.parametrize(
    ("states", "hour", "pings"),
    [
        ((None, None, None), 18, []),
        ((RunStatus.RUNNING, WAITS, None), 19, ["PING_START"]),
        ((GOOD, RunStatus.RUNNING, WAITS), 20, ["PING_START"]),
        ((GOOD, GOOD, GOOD), 21, ["PING_START", "PING_OK"]),
        ((BAD, RunStatus.BLOCKED, None), 20, ["PING_START", "PING_FAIL"]),
        ((GOOD, RunStatus.RUNNING, WAITS), 24, ["PING_START", "PING_FAIL"]),
        ((None, None, None), 24, ["PING_FAIL"]),
    ],
)
def test_what_the_dead_mans_switch_hears(
    states: tuple[RunStatus | None, ...], hour: int, pings: list[str]
) -> None:
    now = at(DAY, 0) + hour * HOUR
    assert alert_rules.pings_due(DAY, trading=True, steps=night(*states).steps, now=now) == pings


def test_a_day_without_trading_is_a_success_too() -> None:
    sunday = date(2025, 11, 30)
    assert alert_rules.day_of_switch(at(sunday, 12)) == sunday
    assert alert_rules.day_of_switch(at(sunday, 11, 59)) == date(2025, 11, 29)
    quiet: Callable[[datetime], list[str]] = lambda now: alert_rules.pings_due(  # noqa: E731
        sunday, trading=False, steps=(), now=now
    )
    assert quiet(at(sunday, 20, 29)) == []
    assert quiet(at(sunday, 20, 30)) == ["PING_OK"]


def test_absence_calendar_and_disk() -> None:
    assert alert_rules.absence(timedelta(minutes=9), SEVEN) is None
    assert alert_rules.absence(HOUR, SEVEN) is not None
    calendar = TradingCalendar(day for day in library_sessions() if day.year < 2026)
    assert alert_rules.short_calendar(calendar, at(date(2025, 12, 20), 12)) is None
    assert alert_rules.short_calendar(calendar, at(date(2025, 12, 22), 12)) is not None
    assert alert_rules.full_disk({"/a": 2_100_000_000}, is_open=False) is None
    full = alert_rules.full_disk({"/a": 2_100_000_000, "/b": 2_300_000_000}, is_open=True)
    assert full is not None
    assert full.figures["folder"] == "/a"


def test_the_message_says_what_since_when_how_many_and_what_to_type() -> None:
    figures = {
        "status": "FAILED",
        "reason": "source_unavailable: no answer in 10 s",
        "records": 0,
        "expected": 25_961,
        "last_success": datetime(2025, 11, 26, 11, 5, tzinfo=UTC).isoformat(),
        "last_date": "2025-11-26",
    }
    told = Told("OPENED", "failed", SEVEN, figures, "collect", "collect_nav", "2025-11-27", 17)
    found = message([told, *[told] * 11], translator("en"), SEVEN + MINUTE)
    assert found.title == "NavKeeper ALERT: collect for 2025-11-27 ended FAILED (and 11 more)"
    assert found.text.split("\n\n")[0].split("\n") == [
        "[ALERT] collect for 2025-11-27 ended FAILED",
        "since: 2025-11-27 19:00",
        "why: source_unavailable: no answer in 10 s",
        "funds: 0, expected about 25,961",
        "last success: 2025-11-26 19:05, for 2025-11-26",
        "type: python main.py runs retry 17",
        "run: 17",
    ]
    assert found.text.endswith("and 2 more: python main.py alert list")
    assert "净值" not in found.text
    assert "请输入：python main.py runs retry 17" in message([told], translator("zh"), SEVEN).text
