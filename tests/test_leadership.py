"""One leader: epochs, standing by, a leader that stops in the middle of a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, insert, select

from core import db
from core.errors import AlreadyRunning, DatabaseUnavailable, LeadershipLost
from core.schema import daemon, job_pause
from scheduler import leadership
from scheduler.leadership import Leadership, Stillness
from scheduler.process_identity import Process, this_process
from tests.daemon import until

NOW = datetime(2025, 11, 27, 10, 0, tzinfo=UTC)
ELSEWHERE = Process("elsewhere", 1, "boot:1")
THIRD = Process("third", 1, "boot:1")


@pytest.fixture
def candidate() -> Iterator[Callable[[Engine, Process], Leadership]]:
    """Makes candidates, each with connections of its own."""
    made: list[Leadership] = []

    def make(engine: Engine, process: Process) -> Leadership:
        made.append(Leadership(db.connect(engine.url, supervising=True), process))
        return made[-1]

    yield make
    for leader in made:
        leader.close()
        leader.engine.dispose()


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(leadership, "RENEW_SECONDS", 0.0)


Make = Callable[[Engine, Process], Leadership]


def leader_row(engine: Engine) -> tuple[str, int]:
    with db.read(engine) as connection:
        row = connection.execute(select(daemon)).one()
    return row.host, row.epoch


def test_each_leader_has_its_epoch_and_a_stopped_one_is_followed_at_once(
    engine: Engine, candidate: Make
) -> None:
    first = candidate(engine, this_process())
    assert first.acquire(NOW)
    assert first.epoch == 1
    first.resign(NOW)
    second = candidate(engine, THIRD)
    assert second.acquire(NOW + timedelta(hours=3))
    assert second.epoch == 2
    assert second.absence(NOW + timedelta(hours=3)) == timedelta(hours=3)


def test_a_leader_whose_process_is_gone_is_followed_at_once(engine: Engine, candidate: Make) -> None:
    gone = Process(
        this_process().host, this_process().pid, f"{this_process().boot}:1"
    )  # the pid lives, the process does not
    assert candidate(engine, gone).acquire(NOW)
    assert candidate(engine, this_process()).acquire(NOW)
    assert leader_row(engine) == (this_process().host, 2)


def test_on_sqlite_a_living_leader_keeps_all_others_out(sqlite_engine: Engine, candidate: Make) -> None:
    assert candidate(sqlite_engine, this_process()).acquire(NOW)
    here_too = Process(this_process().host, 1, "boot:1")
    with pytest.raises(AlreadyRunning, match=f"pid {this_process().pid}"):
        candidate(sqlite_engine, here_too).acquire(NOW)


@pytest.mark.usefixtures("short_lease")
def test_a_leader_that_beats_stays_whatever_the_clocks_say(mariadb_engine: Engine, candidate: Make) -> None:
    first = candidate(mariadb_engine, ELSEWHERE)
    second = candidate(mariadb_engine, THIRD)
    assert first.acquire(NOW)
    begun = time.monotonic()
    jump = timedelta(0)
    while time.monotonic() - begun < 2.5:  # well over the lease
        first.renew(NOW)  # its clock stands still
        assert not second.acquire(NOW + jump)  # the other's runs away
        jump += timedelta(days=1)
    assert leader_row(mariadb_engine) == ("elsewhere", 1)


@pytest.mark.usefixtures("short_lease")
def test_a_silent_leader_is_replaced_and_writes_nothing_any_more(
    mariadb_engine: Engine, candidate: Make
) -> None:
    first = candidate(mariadb_engine, ELSEWHERE)
    second = candidate(mariadb_engine, THIRD)
    assert first.acquire(NOW)
    assert not second.acquire(NOW)
    until(lambda: second.acquire(NOW), bool, "the take-over")
    assert leader_row(mariadb_engine) == ("third", 2)
    row = insert(job_pause).values(job_id="collect", paused_at=NOW, paused_by="the old leader")
    with pytest.raises(LeadershipLost), first.write() as connection:
        connection.execute(row)
    assert first.epoch is None
    with db.read(mariadb_engine) as connection:
        assert connection.execute(select(job_pause)).all() == []
    with second.write() as connection:
        connection.execute(row)
    with pytest.raises(LeadershipLost):
        first.renew(NOW)
    first.resign(NOW)  # not its row any more
    assert leader_row(mariadb_engine) == ("third", 2)


def test_a_leader_stopped_within_a_transaction_cannot_commit_it_later(
    mariadb_engine: Engine, candidate: Make
) -> None:
    """The server ends its session before the lease is over, so its locks keep nobody out."""
    first = candidate(mariadb_engine, ELSEWHERE)
    second = candidate(mariadb_engine, THIRD)
    assert first.acquire(NOW)
    row = insert(job_pause).values(job_id="collect", paused_at=NOW, paused_by="the old leader")
    begun = time.monotonic()

    def stopped_within() -> None:
        with first.write() as connection:
            connection.execute(row)
            until(lambda: second.acquire(NOW), bool, "the take-over")  # `first` says nothing meanwhile

    with pytest.raises(DatabaseUnavailable):
        stopped_within()
    assert time.monotonic() - begun < 30
    assert leader_row(mariadb_engine) == ("third", 2)
    with db.read(mariadb_engine) as connection:
        assert connection.execute(select(job_pause)).all() == []


def test_of_two_that_try_at_once_one_leads(mariadb_engine: Engine, candidate: Make) -> None:
    candidates = [candidate(mariadb_engine, Process(f"h{n}", 1, "boot:1")) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda one: one.acquire(NOW), candidates))
    assert won.count(True) == 1
    assert leader_row(mariadb_engine)[1] == 1


def test_stillness_is_told_by_change_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([100.0, 105.0, 107.0, 120.0, 121.0])
    monkeypatch.setattr("scheduler.leadership.time.monotonic", lambda: next(moments))
    still = Stillness()
    assert [still.seconds("a", 1), still.seconds("a", 1), still.seconds("a", 2), still.seconds("a", 2)] == [
        0,
        5,
        0,
        13,
    ]
    still.keep_only(set())
    assert still.seconds("a", 2) == 0
