"""Events start jobs, once each and in no circle; they are listed, and kept as long as needed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from config.settings import ROOT
from core import db, retention
from core.errors import ConfigurationError
from core.schema import event_cursor, event_parked, job_run, run_event
from scheduler import event_listing, events, plugin_store, run_store, subscriptions
from scheduler.event_firing import fire_events, wait_anew
from scheduler.job import Job, RunStatus
from scheduler.job_changes import Asked, change_job, create_job, delete_job
from scheduler.jobs import Jobs
from scheduler.jobs_file import JOBS_FILE, load_jobs
from scheduler.leadership import Leadership
from scheduler.plugin import Plugin, Task
from scheduler.plugin_probe import manifest_of
from scheduler.process_identity import this_process
from scheduler.task_params import Params
from tests.api_site import app_of
from tests.conftest import NOW

FRIDAY = date(2026, 1, 30)  # NOW is the Saturday after


class Told(Params):
    event: dict[str, Any] | None = None


def tell(context: Any, params: Told) -> None:
    raise AssertionError("nothing is run here")


TELLING = Plugin(
    "example", "1.0", "Example", "", (Task("example.tell", "Tell", "Is told of an event.", Told, tell),)
)


class Desk:
    def __init__(self, engine: Engine, **waiting: tuple[str, ...]) -> None:
        self.engine, self.now = engine, NOW
        self.leader = Leadership(engine, this_process())
        assert self.leader.acquire(NOW)
        example = load_jobs(JOBS_FILE)["metrics"]
        with db.write(engine) as connection:
            manifest = manifest_of(TELLING)
            plugin_store.save(connection, "example", origin="test", stamp="", now=NOW, manifest=manifest)
        self.jobs: dict[str, Job] = {
            name: replace(
                example, id=name, task="example.tell", needs=(), params={}, latest_only=False, on_event=topics
            )
            for name, topics in waiting.items()
        }
        self.fire()  # their cursors

    def fire(self) -> int:
        with db.write(self.engine) as connection:
            while events.number(connection):
                pass
        return fire_events(self.leader, self.jobs, self.now)

    def publish(self, topic: str = "example.made", run_id: int | None = None, **payload: Any) -> int:
        with db.write(self.engine) as connection:
            return events.publish(connection, topic, payload, self.now, run_id)

    def runs(self) -> list[Any]:
        with db.read(self.engine) as connection:
            return list(connection.execute(select(job_run).order_by(job_run.c.id)))


def test_each_event_queues_one_run_of_each_job_that_waits_for_it(engine: Engine) -> None:
    desk = Desk(engine, first=("example.made",), second=("example.*", "example.made"), third=("other.made",))
    made = desk.publish(business_date="2026-01-29", what="x")
    other = desk.publish("example.lost")
    assert desk.fire() == 3
    assert desk.fire() == 0
    found = {(run.job_id, run.event_id): run for run in desk.runs()}
    assert found.keys() == {("first", made), ("second", made), ("second", other)}
    run = found["first", made]
    assert (run.business_date, run.status, run.requested_by) == (date(2026, 1, 29), "QUEUED", "event")
    payload = {"business_date": "2026-01-29", "what": "x"}
    assert json.loads(run.params) == {"event": {"id": made, "topic": "example.made", "payload": payload}}
    assert found["second", other].business_date == FRIDAY
    assert found["second", other].scheduled_for is None


@pytest.mark.parametrize("named", ["2026-01-31", "2026-02-03", "soon", 7])
def test_a_date_that_is_no_night_to_work_for_gives_the_newest(sqlite_engine: Engine, named: object) -> None:
    desk = Desk(sqlite_engine, first=("example.made",))
    desk.publish(business_date=named)
    desk.fire()
    assert [run.business_date for run in desk.runs()] == [FRIDAY]


def test_what_died_after_the_runs_were_inserted_queues_none_twice(engine: Engine) -> None:
    desk = Desk(engine, first=("example.made",))
    desk.publish()
    desk.fire()
    with db.write(engine) as connection:
        connection.execute(update(event_cursor).values(position=0))  # worse than any crash
    assert desk.fire() == 0
    assert len(desk.runs()) == 1


def test_a_job_that_wants_fresh_data_waits_for_it_though_an_event_started_it(sqlite_engine: Engine) -> None:
    desk = Desk(sqlite_engine, first=("example.made",))
    desk.jobs["first"] = replace(desk.jobs["first"], fresh="fund_nav")
    desk.publish()
    desk.fire()
    assert [run.status for run in desk.runs()] == ["WAITING"]


def test_a_circle_of_jobs_ends(engine: Engine) -> None:
    """Each job's run says what the other waits for, and both wait for every success."""
    desk = Desk(engine, one=("example.two", "run.success"), two=("example.one", "run.success"))
    with db.write(engine) as connection:
        start = run_store.add_run(
            connection, job_id="start", task="x", business_date=FRIDAY, status=RunStatus.QUEUED, now=NOW
        )
    desk.publish("example.one", start)
    done: set[int] = set()
    for _ in range(10):
        desk.fire()
        for run in desk.runs():
            if run.job_id != "start" and run.id not in done:
                desk.publish(f"example.{run.job_id}", run.id)
                done.add(run.id)
    assert [run.job_id for run in desk.runs()] == ["start", "two", "one"]


def test_what_comes_while_a_job_is_paused_passes_it_by(engine: Engine) -> None:
    desk = Desk(engine, first=("example.made",))
    from core.schema import job_pause

    with db.write(engine) as connection:
        connection.execute(insert(job_pause).values(job_id="first", paused_at=NOW, paused_by="x"))
    desk.publish()
    desk.fire()
    with db.write(engine) as connection:
        connection.execute(job_pause.delete())
    after = desk.publish()
    desk.fire()
    assert [run.event_id for run in desk.runs()] == [after]


def test_a_job_waits_from_its_making_on_and_begins_anew_when_it_was_away(engine: Engine) -> None:
    """What came while it was deleted, or waited for something else, is no backlog."""
    desk, table = Desk(engine), {"task": "size_watch", "on_event": "example.made"}
    asked = Asked("test", NOW)

    def look() -> None:
        with db.read(engine) as connection:
            found = Jobs({})
            found.look(connection)
        desk.jobs = dict(found)

    desk.publish()
    create_job(engine, {}, "later", table, asked)
    first = desk.publish()  # before any daemon has looked
    look()
    desk.fire()
    delete_job(engine, {}, "later", asked)
    desk.publish()
    create_job(engine, {}, "later", table, asked)
    second = desk.publish()
    look()
    desk.fire()
    change_job(engine, {}, "later", {"on_event": "other.made"}, asked)
    desk.publish()
    change_job(engine, {}, "later", {"on_event": ["other.made", "example.made"]}, asked)
    third = desk.publish("other.made")
    look()
    desk.fire()
    assert [run.event_id for run in desk.runs()] == [first, second, third]


def test_a_job_that_was_out_of_the_file_begins_anew(engine: Engine) -> None:
    desk = Desk(engine, first=("example.made",), second=("example.made",))
    wait_anew(desk.leader, {"second": desk.jobs["second"]}, NOW)  # a daemon whose file has no such job
    desk.publish()
    wait_anew(desk.leader, desk.jobs, NOW)
    made = desk.publish()
    desk.fire()
    assert [run.event_id for run in desk.runs() if run.job_id == "first"] == [made]
    assert len(desk.runs()) == 3


def test_jobs_toml_knows_events(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text('[mine]\ntask = "cleanup"\non_event = ["quality.*", "example.made"]\n', encoding="utf-8")
    job = load_jobs(path)["mine"]
    assert job.on_event == ("quality.*", "example.made")
    assert job.next_fire(NOW) is None
    assert job.fires(NOW, NOW + timedelta(days=400)) == []
    for wrong in ('["data.nav.merge"]', '"quality"', '["*"]', "[1]"):
        path.write_text(f'[mine]\ntask = "cleanup"\non_event = {wrong}\n', encoding="utf-8")
        with pytest.raises(ConfigurationError, match="on_event"):
            load_jobs(path)
    path.write_text('[mine]\ntask = "cleanup"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cron"):
        load_jobs(path)


def test_events_are_kept_for_who_is_there_and_has_still_to_take_them(engine: Engine) -> None:
    desk = Desk(engine)
    old = NOW - timedelta(days=31)
    with db.write(engine) as connection:
        first, second, third = (events.publish(connection, "example.made", {}, old) for _ in range(3))
        while events.number(connection):
            pass
        [kept] = [item for item in retention.RETENTIONS if item.name == "events"]

        def going() -> set[int]:
            wanted = retention.expired(connection, kept, NOW, 30)
            return set(connection.execute(select(run_event.c.id).where(wanted)).scalars())

        assert going() == {first, second, third}
        position = events.read_after(connection, "example.made", 0, 1)[0].position
        cursor = {"subscriber": "example.slow", "topic": "example.made", "position": position}
        connection.execute(insert(event_cursor).values(**cursor, seen_at=NOW))
        assert going() == {first}
        connection.execute(update(event_cursor).values(seen_at=old))
        assert going() == {first, second, third}
        values = {"subscriber": "x", "event_id": first, "attempts": 3, "error": "x", "parked_at": old}
        connection.execute(insert(event_parked).values(values))
        connection.execute(run_event.delete().where(run_event.c.id == first))
        assert connection.execute(select(event_parked)).all() == []
    desk.leader.close()


def main(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "main.py"), "events", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_line_lists_them_and_has_one_tried_again(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAVKEEPER_LANGUAGE", "en")
    desk = Desk(sqlite_engine)
    made = desk.publish(what="净值")
    desk.publish("other.made")
    with db.write(sqlite_engine) as connection:
        subscriptions.register(connection, "example.keep", ["example.made"], NOW)
        desk_values = {"event_id": made, "attempts": 3, "error": "no", "parked_at": NOW}
        connection.execute(insert(event_parked).values(subscriber="example.keep", **desk_values))
    [record] = [json.loads(line) for line in main("--topic", "example.*", "--json").stdout.splitlines()]
    assert (record["topic"], record["payload"]) == ("example.made", {"what": "净值"})
    assert "净值" in main().stdout
    assert "example.keep" in main("subscribers").stdout
    assert "no" in main("parked").stdout
    assert "will be tried again" in main("retry", "1").stdout
    with db.read(sqlite_engine) as connection:
        assert subscriptions.wanted_again(connection) == {"example.keep"}
    refused = main("retry", "9")
    assert (refused.returncode, "main.py events parked" in refused.stderr) == (2, True)
    assert main("--limit", "0").returncode == 2


def test_the_api_and_the_page_show_them(sqlite_engine: Engine) -> None:
    desk = Desk(sqlite_engine)
    for number in range(3):
        desk.publish(number=number)
    desk.publish("other.made", text="<b>")
    client = app_of(sqlite_engine).test_client()
    first = client.get("/api/v1/events?topic=example.*&limit=2").get_json()
    assert [item["payload"]["number"] for item in first["items"]] == [2, 1]
    then = client.get(first["next"]).get_json()
    assert [item["payload"]["number"] for item in then["items"]] == [0]
    assert client.get("/api/v1/events?topic=*").status_code == 400
    assert client.get("/api/v1/subscribers").get_json()["items"] == []
    page = client.get("/events?topic=other.*").get_data(as_text=True)
    assert "other.made" in page
    assert "example.made</td>" not in page.partition('id="parked"')[0]
    assert "<b>" not in page


def test_the_figures_count_lag_and_what_is_parked(sqlite_engine: Engine) -> None:
    desk = Desk(sqlite_engine)
    with db.write(sqlite_engine) as connection:
        subscriptions.register(connection, "example.keep", ["example.*"], NOW)
    made = desk.publish()
    desk.publish("example.more")
    with db.write(sqlite_engine) as connection:
        parked = {"event_id": made, "attempts": 3, "error": "no", "parked_at": NOW}
        connection.execute(insert(event_parked).values(subscriber="example.keep", **parked))
        while events.number(connection):
            pass
        found = event_listing.event_figures(connection)
    assert found.published == 2
    assert (found.lag, found.parked) == ({"example.keep": 2}, {"example.keep": 1})
