"""The bus: order and no loss whoever commits when, subscribers that fail, die or hang, and what is parked."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from config.settings import ROOT
from core import db
from core.errors import EventRefused
from core.schema import event_cursor, event_parked, run_event
from scheduler import events, run_store, subscriptions
from scheduler.deliver import Delivery
from scheduler.job import RunStatus
from scheduler.subscriptions import Subscriber
from tests import subscribers
from tests.conftest import NOW

DAY = NOW.date()
MERGED = {"business_date": "2026-01-30", "batch_id": 7, "inserted": 3, "revised": 0}


def publish(engine: Engine, topic: str = "example.made", now: datetime = NOW, **payload: Any) -> int:
    with db.write(engine) as connection:
        return events.publish(connection, topic, payload, now)


def number_all(engine: Engine) -> None:
    with db.write(engine) as connection:
        while events.number(connection):
            pass


def seen(engine: Engine, topic: str, position: int = 0) -> list[int]:
    with db.read(engine) as connection:
        return [event.id for event in events.read_after(connection, topic, position, 1000)]


class Desk:
    """A subscriber, called in this process as its child would, on a clock of the test's."""

    def __init__(self, engine: Engine, function: str, topics: tuple[str, ...] = ("example.made",)) -> None:
        subscribers.metadata.create_all(engine)
        self.engine, self.now = engine, NOW
        self.subscriber = Subscriber(f"example.{function}", f"tests.subscribers:{function}", topics)
        with db.write(engine) as connection:
            subscriptions.register(connection, self.subscriber.name, topics, NOW)

    def deliver(self, later: float = 0, enough: Callable[[], bool] = lambda: False) -> None:
        self.now += timedelta(seconds=later)
        number_all(self.engine)
        Delivery(self.engine, self.subscriber, lambda: self.now, ["topsecret"], enough).run()

    def process(self) -> int:
        """The real child; its exit code."""
        number_all(self.engine)
        words = [self.subscriber.name, self.subscriber.function, *self.subscriber.topics]
        return subprocess.run(
            [sys.executable, "-m", "scheduler.deliver", *words], cwd=ROOT, check=False, timeout=60
        ).returncode

    def taken(self) -> list[int]:
        table = subscribers.taken
        with db.read(self.engine) as connection:
            return list(connection.execute(select(table.c.number).order_by(table.c.id)).scalars())

    def parked(self) -> list[Any]:
        with db.read(self.engine) as connection:
            return list(connection.execute(select(event_parked)))

    def cursor(self) -> Any:
        with db.read(self.engine) as connection:
            return connection.execute(select(event_cursor)).one()

    def cursor_sum(self) -> int:
        with db.read(self.engine) as connection:
            mine = event_cursor.c.subscriber == self.subscriber.name
            return sum(connection.execute(select(event_cursor.c.position).where(mine)).scalars())

    def due(self) -> list[str]:
        with db.read(self.engine) as connection:
            return subscriptions.due_topics(connection, self.subscriber.name, self.now)


def test_what_is_committed_late_comes_later_and_is_not_lost(mariadb_engine: Engine) -> None:
    """The smaller number commits last: who remembered the larger one would never see it. On SQLite none can."""
    with db.write(mariadb_engine) as slow:
        first = events.publish(slow, "example.made", {}, NOW)
        second = publish(mariadb_engine)
        begun = time.monotonic()
        number_all(mariadb_engine)  # an open transaction keeps nobody waiting
        assert time.monotonic() - begun < 5
        assert first < second
        assert seen(mariadb_engine, "example.made") == [second]
        with db.read(mariadb_engine) as connection:
            position = events.last_position(connection)
    number_all(mariadb_engine)
    assert seen(mariadb_engine, "example.made", position) == [first]
    third = publish(mariadb_engine)
    number_all(mariadb_engine)
    assert seen(mariadb_engine, "example.made") == [second, first, third]


def test_positions_only_grow_though_the_newest_events_are_gone(engine: Engine) -> None:
    publish(engine)
    number_all(engine)
    with db.write(engine) as connection:
        before = events.last_position(connection)
        connection.execute(run_event.delete())
    again = publish(engine)
    number_all(engine)
    assert seen(engine, "example.made", before) == [again]


def test_what_is_rolled_back_was_never_said(engine: Engine) -> None:
    def half_done() -> None:
        with db.write(engine) as connection:
            events.publish(connection, "example.made", {}, NOW)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        half_done()
    number_all(engine)
    assert seen(engine, "example.*") == []


@pytest.mark.parametrize(
    ("topic", "payload", "said"),
    [
        ("data.nav.merged", MERGED | {"more": 1}, "has business_date, batch_id"),
        ("data.nav.merged", MERGED | {"inserted": "3"}, "inserted must be int"),
        ("data.nav.merged", MERGED | {"inserted": True}, "inserted must be int"),
        ("data.nav.merge", {}, r"there is no topic data\.nav\.merge"),
        ("run.success", {}, "says itself"),
        ("example", {}, "is no topic"),
        ("Example.made", {}, "is no topic"),
        ("example." + "x" * 60, {}, "is no topic"),
        ("example.made", {"at": NOW}, "is no JSON"),
        ("example.made", {"rate": float("nan")}, "is no JSON"),
        ("example.made", {"text": "净" * 6000}, "over 16000 bytes"),
    ],
)
def test_an_event_that_is_not_of_its_topic_is_refused(
    sqlite_engine: Engine, topic: str, payload: dict[str, Any], said: str
) -> None:
    with pytest.raises(EventRefused, match=said), db.write(sqlite_engine) as connection:
        events.publish(connection, topic, payload, NOW)
    with db.read(sqlite_engine) as connection:
        assert connection.execute(select(run_event)).all() == []


def test_the_states_of_a_run_are_events(engine: Engine) -> None:
    with db.write(engine) as connection:
        run_id = run_store.add_run(
            connection, job_id="j", task="t", business_date=DAY, status=RunStatus.QUEUED, now=NOW
        )
        assert run_id is not None
        run_store.move(connection, run_id, RunStatus.QUEUED, RunStatus.CANCELLED, NOW, "why not")
    number_all(engine)
    with db.read(engine) as connection:
        queued, cancelled = events.read_after(connection, "run.*", 0, 10)
    assert (queued.topic, cancelled.topic) == ("run.queued", "run.cancelled")
    assert cancelled.payload == {
        "run_id": run_id,
        "job_id": "j",
        "task": "t",
        "business_date": DAY.isoformat(),
        "from_status": "QUEUED",
        "to_status": "CANCELLED",
        "reason": "why not",
    }
    assert set(queued.payload) == set(events.TOPICS["run.queued"].keys)


def test_every_state_of_a_run_has_its_topic() -> None:
    assert {f"run.{status.value.lower()}" for status in RunStatus} <= events.TOPICS.keys()


def test_many_publishers_at_once_lose_nothing_and_keep_their_order(engine: Engine) -> None:
    """Five processes, with transactions rolled back and commits delayed, while a reader follows the bus."""
    topics = ("example.one", "example.two", "other.one")
    words = [sys.executable, "-m", "tests.publishers", "60"]
    chances = ["--rolled-back", "0.3", "--pause", "0.01"]
    children = [
        subprocess.Popen([*words, str(n), *topics, *chances], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for n in range(5)
    ]
    read: dict[str, list[tuple[int, int]]] = defaultdict(list)
    positions = dict.fromkeys(topics, 0)
    working = True
    while working:
        working = any(child.poll() is None for child in children)
        number_all(engine)
        for topic in topics:
            with db.read(engine) as connection:
                for event in events.read_after(connection, topic, positions[topic], 50):
                    read[topic].append((event.payload["publisher"], event.payload["number"]))
                    positions[topic] = event.position
                    working = True
    said = [dict(word.split("=") for word in child.communicate()[0].split()) for child in children]
    assert [child.returncode for child in children] == [0] * 5
    for topic in topics:
        for publisher, counts in enumerate(said):
            mine = [number for who, number in read[topic] if who == publisher]
            assert mine == list(range(1, int(counts[topic]) + 1))
    assert sum(map(len, read.values())) == 5 * 60


def test_each_subscriber_gets_what_is_published_from_now_on_in_order_and_once(engine: Engine) -> None:
    publish(engine, number=0)  # before anybody listened
    desk = Desk(engine, "keep", ("example.made", "other.*"))
    for number in range(1, 6):
        publish(engine, "other.thing" if number == 3 else "example.made", number=number)
    publish(engine, "otherwise.thing", number=99)
    desk.deliver()
    desk.deliver()
    assert desk.taken() == [1, 2, 4, 5, 3]  # topic by topic
    assert desk.due() == []


def test_an_event_that_fails_is_tried_again_later_then_parked_and_the_next_one_comes(engine: Engine) -> None:
    desk = Desk(engine, "refuse_odd")
    for number in (2, 3, 4):
        publish(engine, number=number)
    desk.deliver()
    assert desk.taken() == [2]  # nothing of 3 was kept
    assert (desk.cursor().attempts, desk.cursor().next_try_at) == (1, NOW + timedelta(seconds=5))
    desk.deliver(4)
    assert (desk.cursor().attempts, desk.due()) == (1, [])
    desk.deliver(1)
    assert (desk.cursor().attempts, desk.cursor().next_try_at) == (2, desk.now + timedelta(seconds=20))
    desk.deliver(20)
    [parked] = desk.parked()
    assert (parked.subscriber, parked.attempts) == ("example.refuse_odd", 3)
    assert parked.error == "ValueError: the password is ***, of course"
    desk.deliver()
    assert desk.taken() == [2, 4]
    assert (desk.cursor().attempts, desk.cursor().last_error) == (0, None)


def test_a_parked_event_is_tried_again_when_somebody_says_so(engine: Engine) -> None:
    desk = Desk(engine, "refuse_odd")
    publish(engine, number=3)
    for later in (0, 5, 20):
        desk.deliver(later)
    [parked] = desk.parked()
    with db.write(engine) as connection:
        subscriptions.retry(connection, parked.id, "cli:ann")
    desk.deliver()
    [parked] = desk.parked()
    assert (parked.attempts, parked.retry_by) == (4, None)
    with db.write(engine) as connection:  # as if the subscriber had been mended
        connection.execute(update(run_event).values(payload='{"number": 4}'))
        subscriptions.retry(connection, parked.id, "cli:ann")
        assert subscriptions.wanted_again(connection) == {"example.refuse_odd"}
    desk.deliver()
    assert (desk.parked(), desk.taken()) == ([], [4])


def test_an_event_that_kills_its_process_is_parked_too(engine: Engine) -> None:
    desk = Desk(engine, "die_of_two")
    for number in (1, 2, 3):
        publish(engine, number=number)
    assert desk.process() == -11
    assert desk.taken() == [1]
    assert desk.process() == -11  # once may have been somebody's kill: at once again
    assert desk.cursor().attempts == 1
    with db.write(engine) as connection:
        token = subscriptions.claim(connection, desk.subscriber.name, "example.made", NOW)
    assert (token, desk.cursor().attempts) == (None, 2)
    with db.write(engine) as connection:
        connection.execute(update(event_cursor).values(next_try_at=None))
    assert desk.process() == -11
    assert desk.process() == 0
    assert desk.taken() == [1, 3]
    [parked] = desk.parked()
    assert "process ended" in parked.error


def test_what_is_taken_together_with_a_deadly_event_is_taken_without_it(engine: Engine) -> None:
    """Who died of one of many cannot say of which: they are tried one by one until it is known."""
    desk = Desk(engine, "die_of_two")
    for number in (1, 3, 4, 5, 6, 2, 7):
        publish(engine, number=number)
    codes = []
    while desk.due() or not codes:
        codes.append(desk.process())
        with db.write(engine) as connection:
            connection.execute(update(event_cursor).values(next_try_at=None))
    assert set(codes) == {-11, 0}
    assert len(codes) < 20
    assert desk.taken() == [1, 3, 4, 5, 6, 7]
    assert len(desk.parked()) == 1


def test_a_subscriber_that_hangs_is_ended_and_no_run_waits_longer_for_its_locks(
    sqlite_engine: Engine,
) -> None:
    """SQLite has one lock for all: a run that wants to commit gets it within seconds."""
    desk = Desk(sqlite_engine, "hang_of_two")
    publish(sqlite_engine, number=2)
    number_all(sqlite_engine)
    words = [desk.subscriber.name, desk.subscriber.function, *desk.subscriber.topics]
    child = subprocess.Popen([sys.executable, "-m", "scheduler.deliver", *words], cwd=ROOT)
    deadline = time.monotonic() + 30
    while desk.cursor().claim is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)  # it hangs by now; if not, the test is only easier
    begun = time.monotonic()
    publish(sqlite_engine, number=4)
    assert time.monotonic() - begun < 10
    assert child.wait(timeout=30) == -14  # SIGALRM
    assert desk.taken() == []


def test_who_comes_back_late_takes_nothing_twice(engine: Engine) -> None:
    """Two processes for one subscriber: the one whose claim is gone writes nothing."""
    desk = Desk(engine, "keep")
    publish(engine, number=1)
    number_all(engine)
    with db.write(engine) as connection:
        old = subscriptions.claim(connection, desk.subscriber.name, "example.made", NOW)
    assert old is not None
    desk.deliver()
    assert desk.taken() == [1]
    publish(engine, number=2)
    number_all(engine)
    late = Delivery(engine, desk.subscriber, lambda: NOW, [], lambda: False)
    assert late._batch("example.made", old) is False
    assert desk.taken() == [1]


def test_a_subscriber_that_cannot_be_loaded_waits_and_no_event_is_blamed(engine: Engine) -> None:
    desk = Desk(engine, "no_such_function")
    publish(engine, number=1)
    desk.deliver()
    row = desk.cursor()
    assert (row.attempts, row.claim) == (0, None)
    assert "no_such_function" in row.last_error
    assert desk.due() == []
    desk.now += timedelta(minutes=1)
    assert desk.due() == ["example.made"]


def test_subscribers_killed_at_random_get_everything_in_order(engine: Engine, tmp_path: Path) -> None:
    """What is in the database once; what is elsewhere at least once, and first times in order."""
    file = tmp_path / "lines"
    keep = Desk(engine, "keep", ("example.one", "example.two"))
    write = Desk(engine, "write_down", ("example.*",))
    words = [
        sys.executable,
        "-m",
        "tests.publishers",
        "600",
        "1",
        "example.one",
        "example.two",
        "--each",
        "10",
    ]
    subprocess.run([*words, "--file", str(file)], cwd=ROOT, check=True, capture_output=True)
    number_all(engine)
    chance = random.Random(5)
    kills = 0
    deadline = time.monotonic() + 120
    while keep.due() or write.due():
        assert time.monotonic() < deadline
        for desk in (keep, write):
            name = [desk.subscriber.name, desk.subscriber.function, *desk.subscriber.topics]
            child = subprocess.Popen([sys.executable, "-m", "scheduler.deliver", *name], cwd=ROOT)
            if kills < 8:
                before = desk.cursor_sum()
                while desk.cursor_sum() == before and child.poll() is None:
                    time.sleep(0.005)  # some progress, or the same event would be blamed
                time.sleep(chance.random() * 0.1)
                child.kill()
                kills += 1
            child.wait(timeout=60)
    assert keep.parked() == []
    with db.read(engine) as connection:
        rows = connection.execute(select(subscribers.taken).order_by(subscribers.taken.c.id)).all()
    by_topic: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        by_topic[row.topic].append(row.number)
    assert sum(map(len, by_topic.values())) == 600
    assert all(found == list(range(1, len(found) + 1)) for found in by_topic.values())
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    for topic, numbers in by_topic.items():
        first_times = list(dict.fromkeys(int(number) for of, number in lines if of == topic))
        assert first_times == numbers
