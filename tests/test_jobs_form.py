"""The form of a job: what is refused where and what stays typed, two who change at once, the drawing of what waits."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select, update

from config.translation import translator
from core import db
from core.schema import job, job_command, job_version
from scheduler.job_definition import job_of
from scheduler.listing import list_jobs
from scheduler.listing_text import drawn, jobs as jobs_table
from scheduler.web.job_form import table_from, typed_of
from scheduler.web.job_graph import HIGH, WIDE, draw
from tests.api_site import ADMIN, TOKENS, VIEWER, app_of, fill
from tests.browser import LANGUAGES, SCHEMES, WIDTHS, visiting
from tests.example_night import JOBS, NOW
from tests.test_login import PAGE, form_token, log_in, site

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GOOD = {"job": "look", "task": "size_watch", "trigger": "crontab", "when": "0 9 * * 1-5"}
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def filled(sqlite_engine: Engine, tmp_path: Path) -> Engine:
    fill(sqlite_engine, tmp_path)
    return sqlite_engine


@pytest.fixture
def admin(filled: Engine) -> FlaskClient:
    client = site(filled)
    log_in(client, ADMIN)
    return client


def send(client: FlaskClient, path: str, **typed: str) -> Any:
    return client.post(
        f"{path}?lang=en", data={"form_token": form_token(client, "/jobs"), **typed}, headers=PAGE
    )


def stored(engine: Engine) -> dict[str, tuple[int, dict[str, Any]]]:
    with db.read(engine) as connection:
        rows = connection.execute(select(job).where(job.c.deleted_at.is_(None))).all()
    return {row.id: (row.version, json.loads(row.definition)) for row in rows}


def refused_at(text: str) -> list[str]:
    return re.findall(r'<(?:input|select|textarea) id="(\w+)"[^>]*aria-invalid', text)


@pytest.mark.parametrize(
    ("changes", "status", "field", "said"),
    [
        ({"job": "Look"}, 422, "job", "lower-case letters"),
        ({"job": "collect"}, 409, "job", "the jobs file has a job"),
        ({"task": ""}, 422, "task", "the name of a task"),
        ({"task": "nothing"}, 422, "task", "unknown task"),
        ({"when": "0 9 * * 8"}, 422, "when", "is not one of 0 to 7"),
        ({"when": ""}, 422, "when", "none is given"),
        ({"trigger": "every", "when": "10s"}, 422, "when", "minutes, hours or days"),
        ({"trigger": "at", "when": "2026-01-01T09:00"}, 422, "when", "it has passed"),
        ({"trigger": "on_event", "when": "nonsense"}, 422, "when", "a topic such as"),
        ({"trigger": "cron", "when": "hour 9"}, 422, "when", "no JSON"),
        ({"trigger": "moon"}, 422, "when", "one of cron, crontab"),
        ({"timezone": "Asia/Peking"}, 422, "timezone", "a zone such as"),
        ({"calendar": "NYSE"}, 422, "calendar", "another exchange"),
        ({"business_date": "today"}, 422, "business_date", "previous_session"),
        ({"needs": "moon"}, 422, "needs", "unknown job"),
        ({"needs": "look"}, 422, "needs", "a cycle: look needs look"),
        ({"needs": "[{"}, 422, "needs", "no JSON"),
        ({"timeout_minutes": "soon"}, 422, "timeout_minutes", "a number over 0"),
        ({"attempts": "0"}, 422, "attempts", "numbers over 0"),
        ({"params": "{"}, 422, "params", "no JSON"),
        ({"params": "[" * 5000}, 422, "params", "no JSON"),
        ({"params": "[1]"}, 422, "params", "a table as JSON"),
        ({"params": '{"colour": 1}'}, 422, "params", "cannot take these parameters"),
        ({"more": '{"task": "cleanup"}'}, 422, "more", "a field of its own"),
        ({"more": '{"colour": 1}'}, 422, "more", "unknown key"),
        ({"more": '{"wait_hours": -1}'}, 422, "more", "a number over 0"),
        ({"name": "two\x07bells"}, 422, "name", "on one line"),
    ],
)
def test_a_refusal_stands_beside_its_field_and_what_was_typed_stays(
    filled: Engine, admin: FlaskClient, changes: dict[str, str], status: int, field: str, said: str
) -> None:
    typed = {**GOOD, "description": "kept as typed", **changes}
    reply = send(admin, "/new-job", **typed)
    assert (reply.status_code, reply.mimetype) == (status, "text/html")
    assert refused_at(reply.text) == [field]
    [beside] = re.findall(rf'id="{field}-said">(.*?)</span>', reply.text, re.DOTALL)
    assert said in html.unescape(beside)
    assert 'value="kept as typed"' in reply.text
    assert stored(filled) == {}
    with db.read(filled) as connection:
        assert connection.execute(select(job_command)).all() == []


def test_what_is_typed_is_shown_as_text(admin: FlaskClient) -> None:
    reply = send(admin, "/new-job", **{**GOOD, "job": EVIL, "needs": EVIL, "params": f'"</textarea>{EVIL}'})
    assert reply.status_code == 422
    assert EVIL not in reply.text
    assert reply.text.count("</textarea>") == 2


def test_a_job_is_made_changed_and_deleted(filled: Engine, admin: FlaskClient) -> None:
    more = {"name": "看一看", "needs": "collect", "attempts": "3", "more": '{"retry": {"base_seconds": 5}}'}
    reply = send(admin, "/new-job", **GOOD, **more, reason="because")
    assert (reply.status_code, reply.location) == (303, "/jobs/look")
    made = {
        "task": "size_watch",
        "crontab": "0 9 * * 1-5",
        "name": "看一看",
        "needs": ["collect"],
        "retry": {"base_seconds": 5, "attempts": 3},
    }
    assert stored(filled) == {"look": (1, made)}
    assert send(admin, "/new-job", **GOOD).status_code == 409  # there is one
    text = admin.get("/jobs/look/change?lang=en", headers=PAGE).text
    for shown in ('value="看一看"', 'value="0 9 * * 1-5"', 'value="3"', 'name="version" value="1"'):
        assert shown in text
    changed = {"task": "size_watch", "trigger": "every", "when": "10m"}
    reply = send(admin, "/jobs/look/change", **changed, version="1")
    assert (reply.status_code, reply.location) == (303, "/jobs/look")
    assert stored(filled) == {
        "look": (2, {"task": "size_watch", "every": "10m", "anchor": "2026-01-28T14:10:00+00:00"})
    }
    page = admin.get("/jobs/look?lang=en", headers=PAGE).text
    assert "the database, version 2" in page
    assert "because" in page
    reply = send(admin, "/jobs/look/delete", version="2")
    assert (reply.status_code, reply.location) == (303, "/jobs")
    assert stored(filled) == {}
    with db.read(filled) as connection:
        asked = connection.execute(select(job_command.c.action, job_command.c.requested_by)).all()
        kept = connection.execute(select(job_version.c.version, job_version.c.reason)).all()
    by = "web:admin@127.0.0.1"
    assert [tuple(row) for row in asked] == [("create", by), ("change", by), ("delete", by)]
    assert [tuple(row) for row in kept] == [(1, "because"), (2, None), (3, None)]


def test_of_two_who_change_at_once_the_later_is_told(filled: Engine, admin: FlaskClient) -> None:
    send(admin, "/new-job", **GOOD)
    changed = {key: value for key, value in GOOD.items() if key != "job"}
    assert send(admin, "/jobs/look/change", **changed, name="first", version="1").status_code == 303
    for _ in range(2):  # and told again
        reply = send(admin, "/jobs/look/change", **changed, name="second", version="1")
        assert reply.status_code == 412
        assert "Somebody else has changed the job meanwhile" in reply.text
        assert 'value="second"' in reply.text
        assert 'name="version" value="1"' in reply.text
    assert send(admin, "/jobs/look/delete", version="1").status_code == 412
    assert stored(filled)["look"][1]["name"] == "first"
    for nothing in ("", "x", "-1", "９"):
        assert send(admin, "/jobs/look/change", **changed, version=nothing).status_code == 400
        assert send(admin, "/jobs/look/delete", version=nothing).status_code == 400


def test_what_others_need_is_not_deleted(filled: Engine, admin: FlaskClient) -> None:
    send(admin, "/new-job", **GOOD)
    send(admin, "/new-job", **{**GOOD, "job": "later", "needs": "look"})
    reply = send(admin, "/jobs/look/delete", version="1")
    assert reply.status_code == 409
    assert "later need look; change or delete them first" in reply.text
    assert set(stored(filled)) == {"look", "later"}


def test_a_job_of_the_file_says_so_and_has_no_form(filled: Engine, admin: FlaskClient) -> None:
    page = admin.get("/jobs/collect?lang=en", headers=PAGE).text
    assert "the jobs file: to change it, edit the file and restart the daemon" in page
    assert "/jobs/collect/change" not in page
    assert admin.get("/jobs/collect/change").location == "/jobs/collect?problem=job_in_file"
    for path in ("/jobs/collect/change", "/jobs/collect/delete"):
        reply = send(admin, path, **GOOD, version="1")
        assert reply.location == "/jobs/collect?problem=job_in_file"
    assert (
        "change it there and restart the daemon" in admin.get(reply.location + "&lang=en", headers=PAGE).text
    )


def test_a_job_that_is_not_there_has_no_form(admin: FlaskClient) -> None:
    assert admin.get("/jobs/moon/change", headers=PAGE).status_code == 404
    assert send(admin, "/jobs/moon/change", **GOOD, version="1").status_code == 404
    assert send(admin, "/jobs/moon/delete", version="1").status_code == 404


def test_a_viewer_has_no_form(filled: Engine) -> None:
    client = site(filled)
    log_in(client, VIEWER)
    assert "/new-job" not in client.get("/jobs", headers=PAGE).text
    assert client.get("/new-job", headers=PAGE).status_code == 403
    assert send(client, "/new-job", **GOOD).status_code == 403
    assert stored(filled) == {}


def test_a_stored_job_that_is_wrong_is_shown_with_the_reason_and_mended(
    filled: Engine, admin: FlaskClient
) -> None:
    send(admin, "/new-job", **GOOD)
    with db.write(filled) as connection:  # by another hand
        broken = json.dumps({"task": "size_watch", "crontab": "0 9 * * 9"})
        connection.execute(update(job).values(definition=broken))
    client = site(filled)  # of a server that has not seen it before
    log_in(client, ADMIN)
    why = "is not one of 0 to 7"
    for path in ("/jobs", "/jobs/look"):
        page = client.get(f"{path}?lang=en", headers=PAGE).text
        assert "not run" in page
        assert why in page
    [record] = [item for item in client.get("/api/v1/jobs").json["items"] if item["job"] == "look"]
    assert why in record["wrong"]
    assert client.get("/api/v1/jobs/look").json["task"] == "size_watch"
    [row] = list_jobs(filled, {}, NOW, {"look": record["wrong"]})
    line = drawn(jobs_table([row], translator("en")))
    assert "look" in line
    assert why in line
    assert "0 9 * * 9" in client.get("/jobs/look/change", headers=PAGE).text
    changed = {key: value for key, value in GOOD.items() if key != "job"}
    assert send(client, "/jobs/look/change", **changed, version="1").status_code == 303
    assert "not run" not in client.get("/jobs?lang=en", headers=PAGE).text


@pytest.mark.parametrize(
    "definition",
    [
        {"task": "size_watch", "crontab": "0 9 * * *"},
        {"task": "collect_nav", "cron": {"hour": 9, "day_of_week": "mon"}, "timezone": "Europe/Berlin"},
        {"task": "collect_nav", "every": "2h", "anchor": "2026-01-28T14:10:00+00:00", "max_parallel": 2},
        {"task": "collect_nav", "at": "2026-03-01T09:30", "params": {"source": "eastmoney"}},
        {"task": "x.y", "on_event": ["data.nav.merged", "quality.*"], "calendar": "XHKG"},
        {"task": "x", "crontab": "0 9 * * *", "needs": ["a", {"job": "b", "when": "failed"}], "eager": True},
        {"task": "x", "crontab": "0 9 * * *", "retry": {"attempts": 3, "cap_seconds": 9}, "name": "名"},
        {"task": "x", "crontab": "0 9 * * *", "timeout_minutes": 1.5, "business_date": "last_session"},
    ],
)
def test_a_definition_that_is_opened_and_saved_stays_what_it_is(definition: dict[str, Any]) -> None:
    assert table_from(typed_of(definition)) == definition


def job_that(job_id: str, **keys: Any) -> Any:
    return job_of(job_id, {"task": "size_watch", **({} if "on_event" in keys else {"every": "1h"}), **keys})


def test_the_drawing_of_a_diamond() -> None:
    """Layers by hand: a and the topic, then b, c and e, then d; the edge from a to d has a place among b and c."""
    jobs = {
        "a": job_that("a", name="名字很长的一个任务名字很长"),
        "b": job_that("b", needs=["a"]),
        "c": job_that("c", needs=["a"], on_event=["data.nav.merged"]),
        "d": job_that("d", needs=["b", {"job": "c", "when": "failed"}, "a"]),
        "alone": job_that("alone"),
    }
    found = draw(jobs, translator("en"))
    boxes = {box.job or box.about: box for box in found.boxes}
    lefts = sorted({box.left for box in boxes.values()})
    columns = {name: lefts.index(box.left) for name, box in boxes.items()}
    assert columns == {"a": 0, "data.nav.merged": 0, "b": 1, "c": 1, "d": 2, "alone": 0}
    assert boxes["a"].name == "名字很长的一个任务名字…"
    places = [(box.left, box.top) for box in found.boxes]
    for n, (left, top) in enumerate(places):  # none lies upon another, all within
        assert 0 <= left <= found.width - WIDE
        assert 0 <= top <= found.height - HIGH
        for other_left, other_top in places[:n]:
            assert abs(left - other_left) >= WIDE or abs(top - other_top) >= HIGH
    lines = {line.about: line for line in found.lines}
    assert set(lines) == {
        "a → b",
        "a → c",
        "data.nav.merged → c",
        "b → d",
        "c → d (failed)",
        "a → d",
    }
    assert [about for about, line in lines.items() if line.event] == ["data.nav.merged → c"]
    assert boxes["alone"].top > max(box.top for name, box in boxes.items() if name != "alone")
    numbers = [float(part) for part in re.findall(r"[\d.]+", lines["a → d"].path)]
    passed = [y for x, y in zip(numbers[::2], numbers[1::2], strict=True) if x == boxes["b"].left]
    assert passed  # between a and d it goes through the layer of b and c, and through neither of them
    for name in ("b", "c"):
        assert all(not boxes[name].top < y < boxes[name].top + HIGH for y in passed)


def test_an_empty_drawing() -> None:
    assert draw({}, translator("en")).boxes == []


def test_the_shipped_jobs_are_drawn_once_each() -> None:
    found = draw(JOBS, translator("zh"))
    assert sorted(str(box.job) for box in found.boxes) == sorted(JOBS)
    assert [line.about for line in found.lines] == ["collect → validate", "validate → metrics"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_form_in_a_browser(
    filled: Engine, chromium: Browser, width: int, scheme: Any, language: str
) -> None:
    with visiting(
        chromium, app_of(filled, TOKENS), ADMIN, width=width, scheme=scheme, language=language
    ) as visitor:
        page = visitor.page
        visitor.look("/new-job", "job-form")
        page.select_option("#task", "calculate_metrics")
        assert page.locator("details.of-task[open]").count() == 1
        assert "fund_codes" in page.inner_text("details.of-task[open]")
        page.fill("#job", "look")
        page.fill("#name", "看一看")
        page.fill("#when", "0 9 * * 8")
        page.fill("#needs", "collect")
        page.click("#save")
        page.wait_for_selector("#when[aria-invalid]")
        assert visitor.problems.pop().startswith("/new-job console: error: Failed to load")  # it says 422
        assert page.input_value("#name") == "看一看"
        visitor.picture("job-form-refused")
        page.select_option("#trigger", "on_event")
        page.fill("#when", "data.nav.merged")
        page.click("#save")
        page.wait_for_url("**/jobs/look")
        visitor.look("/jobs/look", "job-stored")
        visitor.look("/jobs", "jobs-graph")
        assert "看一看 look" in page.inner_text("#jobs")
        assert page.locator(".graph a[href='/jobs/look'] text").first.text_content() == "看一看"
        assert page.locator(".graph .edge.event").count() == 1
        dash = "getComputedStyle(document.querySelector('.graph .edge.event')).strokeDasharray"
        assert page.evaluate(dash) != "none"
        page.click("#graph-as-list summary")
        assert "data.nav.merged" in page.inner_text("#graph-list li:has-text('look')")
        page.locator(".graph a[href='/jobs/look']").click()
        page.wait_for_url("**/jobs/look")
        page.click("#change-job")
        page.fill("#name", "再看")
        page.click("#save")
        page.wait_for_url("**/jobs/look")
        assert page.inner_text("h1") == "再看 look"
        page.click("#change-job")
        visitor.look("/jobs/look/change", "job-form-change")
        page.click("#delete summary")
        page.click("#really-delete")
        page.wait_for_url("**/jobs")
        assert "look" not in page.inner_text("#jobs")
        assert page.locator(".graph a[href='/jobs/look']").count() == 0
    assert stored(filled) == {}
