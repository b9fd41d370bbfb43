"""Jobs made at run time: what is refused and stored nowhere, versions, two who change at once. Both databases."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Engine, insert, select, update

from core import db
from core.errors import JobChanged, JobRefused, UnknownJob
from core.exchange_days import ensure_exchanges, load_exchange
from core.initialise import initialise
from core.schema import job, job_command, job_version
from scheduler import job_store
from scheduler.job_changes import Asked, change_job, create_job, delete_job
from scheduler.job_definition import job_of
from scheduler.jobs import Jobs

NOW = datetime(2026, 1, 31, 12, 0, 30, tzinfo=UTC)  # 20:00 in Shanghai
FILE = {"collect": job_of("collect", {"task": "collect_nav", "cron": {"hour": 19}})}
GOOD: dict[str, Any] = {"task": "size_watch", "crontab": "0 9 * * 1-5"}


def asked(version: int | None = None, now: datetime = NOW) -> Asked:
    return Asked("test", now, "why not", version)


def stored(engine: Engine) -> Jobs:
    jobs = Jobs(FILE)
    with db.read(engine) as connection:
        jobs.look(connection)
    return jobs


def rows(engine: Engine) -> list[tuple[str, int, bool]]:
    with db.read(engine) as connection:
        found = connection.execute(select(job_version).order_by(job_version.c.job_id, job_version.c.version))
        return [(row.job_id, row.version, row.definition is None) for row in found]


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database in which nothing is ever stored: one for all refusals."""
    engine = db.connect(URL.create("sqlite", database=str(tmp_path_factory.mktemp("jobs") / "jobs.db")))
    initialise(engine, NOW)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("name", "changes", "field", "said"),
    [
        ("b", {"task": "nothing"}, "task", "unknown task 'nothing'"),
        ("b", {"task": None}, "task", "the name of a task"),
        ("b", {"crontab": "0 9 * * 8"}, "crontab", "not one of 0 to 7"),
        ("b", {"crontab": None, "cron": {"second": "*"}}, "cron", "a table such as"),
        ("b", {"crontab": "x" * 100_000}, "crontab", "xxx… is not allowed"),
        ("b", {"timeout_minutes": 10**400}, "timeout_minutes", "000… is not allowed"),
        ("b", {"params": nested(3000)}, "params", "over 30 tables and lists in each other"),
        ("b", {"needs": [nested(3000)]}, "needs", "over 30 tables and lists in each other"),
        ("b", {"crontab": None, "on_event": [f"a.b{n}" for n in range(21)]}, "on_event", "20 at most"),
        ("a\u200bb", {}, "job", "lower-case letters"),
        ("a'; drop table job;--", {}, "job", "lower-case letters"),
        ("b", {"crontab": "0 9 * *"}, "crontab", "five fields"),
        ("b", {"crontab": "0 0 30 2 *"}, "crontab", "never comes"),
        ("b", {"every": "10m"}, "every", "crontab says already"),
        ("b", {"crontab": None}, "cron", "none is given"),
        ("b", {"crontab": None, "every": "10s"}, "every", "minutes, hours or days"),
        ("b", {"crontab": None, "every": "0m"}, "every", "minutes, hours or days"),
        ("b", {"crontab": None, "at": "2026-01-31T19:59"}, "at", "it has passed; it is 2026-01-31 20:00"),
        ("b", {"crontab": None, "at": "tomorrow"}, "at", "an instant such as"),
        ("b", {"crontab": None, "on_event": "Data Nav"}, "on_event", "a topic"),
        ("b", {"timezone": "Asia/Peking"}, "timezone", "a zone such as"),
        ("b", {"calendar": "NYSE"}, "calendar", "the code of another exchange"),
        ("b", {"calendar": "../X"}, "calendar", "the code of another exchange"),
        ("b", {"params": {"colour": 1}}, "params", "cannot take these parameters"),
        ("b", {"params": {"x": float("nan")}}, "params", "no JSON"),
        ("b", {"needs": ["moon"]}, "needs", "unknown job 'moon'"),
        ("b", {"needs": ["b"]}, "needs", "a cycle: b needs b"),
        ("b", {"needs": ["collect", "collect"]}, "needs", "each once"),
        ("b", {"needs": [{"job": "collect", "when": "maybe"}]}, "needs", "when: success"),
        ("b", {"needs": [{"job": "collect", "where": "__import__('os')"}]}, "needs", "a field, one of"),
        ("b", {"name": "x" * 101}, "name", "100 letters"),
        ("b", {"name": "two\nlines"}, "name", "on one line"),
        ("b", {"max_parallel": 17}, "max_parallel", "1 to 16"),
        ("b" * 61, {"max_parallel": 2}, "max_parallel", "only 1, for the job's name has over 60 letters"),
        ("b", {"colour": "red"}, "colour", "unknown key"),
        ("b", {"params": {"source": "x" * 20_000}, "task": "collect_nav"}, "params", "too long"),
        ("b" * 65, {}, "job", "64 at most"),
        ("任务", {}, "job", "lower-case letters"),
        ("B", {}, "job", "lower-case letters"),
        ("-b", {}, "job", "letter or digit first"),
        ("", {}, "job", "lower-case letters"),
        ("collect", {}, "job", "the jobs file has a job"),
    ],
)
def test_what_does_not_fit_is_refused_naming_the_field_and_nothing_is_stored(
    empty: Engine, name: str, changes: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(JobRefused) as caught:
        create_job(empty, FILE, name, GOOD | changes, asked())
    assert caught.value.field == field
    assert said in str(caught.value)
    assert rows(empty) == []
    with db.read(empty) as connection:
        assert connection.execute(select(job_command)).all() == []


def test_a_job_its_versions_and_who_made_them(engine: Engine) -> None:
    assert create_job(engine, FILE, "b", GOOD | {"name": "看一看"}, asked()) == 1
    assert change_job(engine, FILE, "b", {"crontab": None, "every": "10m"}, asked(1)) == 2
    assert change_job(engine, FILE, "b", {"every": "10m"}, asked()) == 2  # it is so already
    found = stored(engine)["b"]
    assert (found.name, found.since) == ("看一看", NOW)
    assert found.next_fire(NOW) == datetime(2026, 1, 31, 12, 10, tzinfo=UTC)  # from the minute it was made
    later = NOW + timedelta(days=2)
    assert change_job(engine, FILE, "b", {"description": "…"}, asked(2, later)) == 3
    assert stored(engine)["b"].since == NOW  # its times are what they were
    assert change_job(engine, FILE, "b", {"every": "20m"}, asked(3, later)) == 4
    assert stored(engine)["b"].since == later
    assert delete_job(engine, FILE, "b", asked(4)) == 5
    assert "b" not in stored(engine)
    with pytest.raises(UnknownJob):
        change_job(engine, FILE, "b", GOOD, asked())
    assert create_job(engine, FILE, "b", GOOD, asked()) == 6
    assert rows(engine) == [("b", n, n == 5) for n in range(1, 7)]
    with db.read(engine) as connection:
        actions = connection.execute(select(job_command.c.action, job_command.c.status)).all()
    assert [row.action for row in actions] == ["create", "change", "change", "change", "delete", "create"]
    assert {row.status for row in actions} == {"DONE"}


def test_a_whole_new_definition_keeps_nothing(engine: Engine) -> None:
    create_job(engine, FILE, "b", GOOD | {"name": "old"}, asked())
    change_job(engine, FILE, "b", {"task": "cleanup", "every": "1d"}, asked(), whole=True)
    with db.read(engine) as connection:
        table = json.loads(connection.execute(select(job.c.definition)).scalar_one())
    assert table == {"task": "cleanup", "every": "1d", "anchor": "2026-01-31T12:00:00+00:00"}


def test_who_looked_at_another_version_changes_nothing(engine: Engine) -> None:
    create_job(engine, FILE, "b", GOOD, asked())
    change_job(engine, FILE, "b", {"name": "one"}, asked(1))
    for late in (
        lambda: change_job(engine, FILE, "b", {"name": "two"}, asked(1)),
        lambda: delete_job(engine, FILE, "b", asked(1)),
    ):
        with pytest.raises(JobChanged):
            late()
    assert stored(engine)["b"].name == "one"


def test_a_job_that_others_need_is_not_deleted_and_no_change_closes_a_circle(engine: Engine) -> None:
    create_job(engine, FILE, "a", GOOD, asked())
    create_job(engine, FILE, "b", GOOD | {"needs": ["a"]}, asked())
    create_job(engine, FILE, "c", GOOD | {"needs": [{"job": "b", "when": "failed"}, "collect"]}, asked())
    with pytest.raises(JobRefused, match="b need a; change or delete them first"):
        delete_job(engine, FILE, "a", asked())
    with pytest.raises(JobRefused, match="a cycle: a needs c needs b needs a"):
        change_job(engine, FILE, "a", {"needs": ["c"]}, asked())
    assert list(stored(engine)) == ["collect", "a", "b", "c"]


def together(*actions: Callable[[], object]) -> list[object]:
    """Each in a thread of its own; what it returned or raised."""
    found: list[object] = [None] * len(actions)

    def do(place: int) -> None:
        try:
            found[place] = actions[place]()
        except JobRefused as error:
            found[place] = error

    threads = [threading.Thread(target=do, args=(place,)) for place in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_two_who_would_close_a_circle_together_do_not(engine: Engine) -> None:
    for name in ("a", "b"):
        create_job(engine, FILE, name, GOOD, asked())
    found = together(
        lambda: change_job(engine, FILE, "a", {"needs": ["b"]}, asked()),
        lambda: change_job(engine, FILE, "b", {"needs": ["a"]}, asked()),
    )
    assert sorted(isinstance(item, JobRefused) for item in found) == [False, True]
    assert not stored(engine).wrong


def test_two_who_make_one_job_make_one(engine: Engine) -> None:
    found = together(*[lambda: create_job(engine, FILE, "a", GOOD, asked())] * 4)
    assert found.count(1) == 1
    assert {item.conflict for item in found if isinstance(item, JobRefused)} == {"job_exists"}


def test_a_stored_job_that_another_hand_broke_is_isolated_and_said(engine: Engine) -> None:
    for name in ("a", "b", "c", "d"):
        create_job(engine, FILE, name, GOOD | ({"needs": ["a"]} if name == "b" else {}), asked())
    with db.write(engine) as connection:
        job_store.begin_change(connection)
        connection.execute(update(job).where(job.c.id == "a").values(definition="{"))
        connection.execute(update(job).where(job.c.id == "d").values(definition='{"task": "gone"}'))
        values = {"version": 1, "counts_from": NOW, "created_by": "x", "created_at": NOW, "changed_by": "x"}
        connection.execute(
            insert(job).values(id="collect", definition=json.dumps(GOOD), changed_at=NOW, **values)
        )
    jobs = stored(engine)
    assert list(jobs) == ["collect", "c"]
    assert jobs["collect"].task == "collect_nav"  # the file's counts
    assert sorted(jobs.wrong) == ["a", "b", "collect", "d"]
    assert "unknown job 'a'" in jobs.wrong["b"]
    change_job(engine, FILE, "a", GOOD, asked())
    assert list(stored(engine)) == ["collect", "a", "b", "c"]


def test_a_look_says_what_is_new_and_is_cheap_where_nothing_is(engine: Engine) -> None:
    jobs = Jobs(FILE)
    with db.read(engine) as connection:
        assert jobs.look(connection) == set()
    create_job(engine, FILE, "a", GOOD, asked())
    create_job(engine, FILE, "b", GOOD, asked())
    with db.read(engine) as connection:
        assert jobs.look(connection) == {"a", "b"}
        assert jobs.look(connection) == set()
    change_job(engine, FILE, "a", {"name": "x"}, asked())
    delete_job(engine, FILE, "b", asked())
    with db.read(engine) as connection:
        assert jobs.look(connection) == {"a", "b"}


def test_another_exchange_has_its_own_holidays(sqlite_engine: Engine) -> None:
    """4 July 2025, a Friday, and Thanksgiving, 27 November 2025: New York rests, Shanghai does not."""
    table = GOOD | {"crontab": "0 17 * * 1-5", "timezone": "America/New_York", "calendar": "XNYS"}
    now = datetime(2025, 7, 1, tzinfo=UTC)
    create_job(sqlite_engine, FILE, "a", table, asked(now=now))
    found = stored(sqlite_engine)["a"]
    assert found.exchange is not None
    fires = found.fires(datetime(2025, 7, 3, tzinfo=UTC), datetime(2025, 7, 8, tzinfo=UTC))
    assert [(f"{fire:%m-%d}", found.skip_reason(fire, found.exchange)) for fire in fires] == [
        *(("07-03", None), ("07-04", "2025-07-04 is not a trading day"), ("07-07", None)),
    ]
    assert found.business_date_of(fires[-1], found.exchange) == date(2025, 7, 7)  # New York's, not Shanghai's
    assert not ensure_exchanges(sqlite_engine, ["XNYS"], now)  # known already: nobody asks the library
    with db.read(sqlite_engine) as connection:
        known = load_exchange(connection, "XNYS")
    assert known is not None
    assert not known.is_session(date(2025, 11, 27))
