"""The pages in a real Chromium: read at both widths, in both lights and languages, and acted on with a real daemon."""

from __future__ import annotations

import threading
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import render_template_string
from sqlalchemy import Engine, select, update

from core import db
from core.schema import alert, job_command, job_pause, job_run
from core.standin import StandinServer
from core.standin.simulated import simulated_market
from core.trading_calendar import library_sessions
from scheduler.health_check import create_health_app
from scheduler.jobs_file import load_jobs
from scheduler.overview import observer_engine
from scheduler.sections import Section
from scheduler.web.access import Role, allow
from tests.api_site import ADMIN, TOKENS, VIEWER, answering, app_of, fill
from tests.browser import LANGUAGES, SCHEMES, WIDTHS, Visitor, visiting
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until
from tests.example_night import NIGHT, NOW, add_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DAY = date(2025, 12, 3)
EARLIER = date(2025, 11, 26)
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "job": "/jobs/collect",
    "runs": "/runs",
    "runs-failed": "/runs?status=FAILED&job=validate",
    "run": "/runs/2",
    "alerts": "/alerts",
    "alert": "/alerts/1",
    "events": "/events",
    "login": "/login",
}
CHART = """{% extends "base.html" %}{% import "macros.html" as m with context %}{% set current = "" %}
{% block title %}chart{% endblock %}{% block head %}{{ m.chart_scripts() }}{% endblock %}
{% block main %}<h1>chart</h1>{{ m.chart("nav", "NAVs </script> 净值", lines, table) }}
{{ m.chart("bars", "bars", bars, table) }}{% endblock %}"""


@pytest.fixture
def filled(sqlite_engine: Engine, tmp_path: Path) -> Engine:
    fill(sqlite_engine, tmp_path)
    with db.write(sqlite_engine) as connection:
        add_run(connection, "sweep", NIGHT, "RUNNING", "22:05", None)
        running = job_run.c.status == "RUNNING"
        far = {
            "progress_done": 450,
            "progress_total": 1000,
            "progress_text": "funds",
            "progress_item": "000451",
        }
        connection.execute(update(job_run).where(running).values(**far, host="night", pid=77))
    return sqlite_engine


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_page(filled: Engine, chromium: Browser, width: int, scheme: Any, language: str) -> None:
    app = app_of(filled, TOKENS)
    with visiting(chromium, app, ADMIN, width=width, scheme=scheme, language=language) as visitor:
        running = visitor.page.get_attribute("#night a:has(.cyan)", "href") or ""
        for name, path in {**PAGES, "run-running": running}.items():
            visitor.look(path, name)
        visitor.page.goto("/nothing")
        visitor.picture("problem")
        assert visitor.problems.pop().startswith("/nothing console: error: Failed to load")


def test_without_tokens_pages_say_how_to_act(filled: Engine, chromium: Browser) -> None:
    with visiting(chromium, app_of(filled), language="en") as visitor:
        for name, path in PAGES.items():
            visitor.look(path, f"open-{name}")
        visitor.page.goto("/jobs")
        assert "python main.py token" in visitor.page.inner_text("main")
        assert visitor.page.locator("main button").count() == 0


def test_the_overview_says_what_the_terminal_says(filled: Engine, chromium: Browser) -> None:
    with visiting(chromium, app_of(filled), language="en") as visitor:
        visitor.page.goto("/")
        text = visitor.page.inner_text("main")
        for said in ("The night of 2026-01-28", "NavKeeper", "Freshness, expected 2026-01-28", "Type next:"):
            assert said in text or said == "NavKeeper"
        assert visitor.page.locator("h1 .state").inner_text().strip() == "✗ FAILED"
        assert visitor.page.locator("#verdict code").inner_text().startswith("python main.py ")
        assert visitor.page.locator("#night tbody tr").count() == 6
        assert visitor.page.locator("#night tbody tr svg rect").count() >= 3  # who has run has a bar


def test_charts_under_the_strict_policy(filled: Engine, chromium: Browser) -> None:
    """Plotly draws, answers the mouse and follows the light without an inline style, an eval or another host."""
    app = app_of(filled)
    days = ["2026-01-26", "2026-01-27", "2026-01-28"]
    line = {
        "type": "scatter",
        "x": days,
        "y": [1.0, 1.1, 1.05],
        "name": "净值",
        "line": {"color": "var(--cyan)"},
    }
    low = {
        "type": "scatter",
        "x": days,
        "y": [0, -1, -2],
        "fill": "tozeroy",
        "yaxis": "y2",
        "name": "drawdown",
    }
    lines = {"data": [line, low], "layout": {"yaxis": {"domain": [0.4, 1]}, "yaxis2": {"domain": [0, 0.3]}}}
    bars = {"data": [{"type": "bar", "x": days, "y": [3, 1, 2]}], "layout": {}}
    table = Section("", ["day", "NAV"], [[days[0], "1.0"]], right=(1,))

    @app.get("/chart")
    @allow(Role.ANYONE)
    def chart() -> str:
        return render_template_string(CHART, lines=lines, bars=bars, table=table)

    for width in WIDTHS:
        with visiting(chromium, app, width=width) as visitor:
            page = visitor.page
            visitor.look("/chart", "chart")
            page.wait_for_selector("#bars .main-svg")
            page.mouse.move(width / 2, 300)
            page.wait_for_selector("#nav .hoverlayer .hovertext, #nav .hoverlayer .legend")
            stroke = "getComputedStyle(document.querySelector('#nav .js-line')).stroke"
            assert page.evaluate(stroke) == "rgb(11, 103, 130)"
            page.emulate_media(color_scheme="dark")
            dark = "rgb(92, 200, 226)"
            until(lambda: page.evaluate(stroke), lambda seen: seen == dark, "the dark line")  # noqa: B023
            assert page.locator("style").count() == 0


def test_the_page_follows_by_itself(filled: Engine, chromium: Browser) -> None:
    """A run's progress and state, without a reload; a marked text and an opened part are left alone."""
    with visiting(chromium, app_of(filled), language="en") as visitor:
        page = visitor.page
        page.goto("/runs?status=RUNNING")
        page.click("#runs tbody a")
        assert "45 %" in page.inner_text("#run .far")
        page.evaluate("window.same = true")
        with db.write(filled) as connection:
            running = job_run.c.status == "RUNNING"
            connection.execute(update(job_run).where(running).values(progress_done=775))
        page.wait_for_selector("#run .far >> text=77.5 %")
        assert page.get_attribute("#run progress", "value") == "77.5"
        with db.write(filled) as connection:
            ended = {"status": "SUCCESS", "active_key": None, "finished_at": NOW, "record_count": 1000}
            connection.execute(update(job_run).where(running).values(**ended))
        page.wait_for_selector("#run .state >> text=SUCCESS")
        assert page.evaluate("window.same") is True
        assert page.locator("#run progress").count() == 0


def test_keys_alone_reach_everything(filled: Engine, chromium: Browser) -> None:
    with visiting(chromium, app_of(filled, TOKENS), ADMIN, language="en") as visitor, answering(filled):
        page = visitor.page
        page.goto("/jobs")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0  # seen when reached
        page.keyboard.press("Enter")
        seen = []
        for _ in range(80):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.id"))
            if seen[-1] == "pause-collect":
                break
        assert seen[-1] == "pause-collect"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        page.wait_for_selector("#pause-collect >> text=resume")
        assert "paused since" in page.inner_text("#jobs")


def test_pages_work_without_scripts(filled: Engine, chromium: Browser) -> None:
    app = app_of(filled, TOKENS)
    with visiting(chromium, app, ADMIN, language="en", javascript=False) as visitor, answering(filled):
        page = visitor.page
        page.goto("/jobs/collect")
        page.click("#pause-collect")
        page.wait_for_selector(".notice >> text=DONE")
        assert page.locator("#pause-collect").inner_text() == "resume"


def test_a_viewer_finds_no_button(filled: Engine, chromium: Browser) -> None:
    with visiting(chromium, app_of(filled, TOKENS), VIEWER) as visitor:
        for path in ("/jobs", "/jobs/collect", "/runs/2"):
            visitor.page.goto(path)
            assert visitor.page.locator("main form[method=post]").count() == 0
        visitor.page.click("text=用管理令牌登录后可操作")
        visitor.page.fill("#token", ADMIN)
        with visitor.page.expect_navigation():
            visitor.page.press("#token", "Enter")
        assert visitor.page.url.endswith("/runs/2")
        assert visitor.page.locator("#retry").count() == 1


def test_an_alert_is_silenced_for_a_while_and_heard_again(filled: Engine, chromium: Browser) -> None:
    with visiting(chromium, app_of(filled, TOKENS), ADMIN, language="en") as visitor:
        page = visitor.page
        page.goto("/alerts/1")
        page.select_option("#hours", "24")
        page.click("#silence")
        page.wait_for_selector("#unsilence")
        with db.read(filled) as connection:
            found = connection.execute(select(alert.c.silenced_until, alert.c.silenced_by)).one()
        assert found.silenced_until == NOW + timedelta(hours=24)
        assert found.silenced_by.startswith("web:admin@127.0.0.1")
        page.goto("/alerts?open=true")
        assert "SILENCED" in page.inner_text("#alerts")
        page.goto("/alerts/1")
        page.click("#unsilence")
        page.wait_for_selector("#silence")
        with db.read(filled) as connection:
            assert connection.execute(select(alert.c.silenced_until)).scalar_one() is None


class Ticking:
    """The daemon's clock, which goes on from an instant as fast as ours."""

    def __init__(self, night: DaemonProcess, begin: datetime) -> None:
        self.night, self.begin, self.started = night, begin, time.monotonic()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._tick)

    def now(self) -> datetime:
        return self.begin + timedelta(seconds=time.monotonic() - self.started)

    def _tick(self) -> None:
        while not self.done.wait(0.1):
            self.night.set_clock(self.now())

    def __enter__(self) -> Ticking:
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.done.set()
        self.thread.join()


def test_pause_run_now_and_cancel_in_the_daemon(
    sqlite_engine: Engine, tmp_path: Path, chromium: Browser
) -> None:
    """Each clicked in the page, its effect seen in the daemon's database and on the page."""
    market = simulated_market(80, date(2025, 9, 1), DAY + timedelta(days=7), 7, library_sessions())
    jobs = jobs_file(tmp_path, without=SWEEPS)
    with StandinServer(market, now=at(DAY, 18)) as standin:
        night = DaemonProcess(sqlite_engine, tmp_path, standin.url, at(DAY, 18), jobs)
        night.environment["NAVKEEPER_REQUESTS_PER_SECOND"] = "12"  # slow enough to be watched
        with Ticking(night, at(DAY, 18)) as clock, night:
            app = create_health_app(observer_engine(sqlite_engine.url), load_jobs(jobs), clock.now, TOKENS)
            with visiting(chromium, app, ADMIN, language="en") as visitor:
                _pause(visitor, sqlite_engine)
                run = _run_now(visitor, sqlite_engine)
                _watch(visitor)
                _cancel(visitor, sqlite_engine, run)
    with db.read(sqlite_engine) as connection:
        asked = connection.execute(select(job_command).order_by(job_command.c.id)).all()
    assert [(row.action, row.status) for row in asked] == [
        ("pause", "DONE"),
        ("trigger", "REFUSED"),
        ("trigger", "DONE"),
        ("cancel", "DONE"),
    ]
    assert {row.requested_by for row in asked} == {"web:admin@127.0.0.1"}


def _pause(visitor: Visitor, engine: Engine) -> None:
    page = visitor.page
    page.goto("/jobs")
    page.click("#pause-collect")
    page.wait_for_selector(".notice >> text=DONE")
    assert "paused since" in page.inner_text("#jobs tr:has-text('collect')")
    with db.read(engine) as connection:
        [row] = connection.execute(select(job_pause)).all()
    assert (row.job_id, row.paused_by) == ("collect", "web:admin@127.0.0.1")
    visitor.picture("paused")


def _run_now(visitor: Visitor, engine: Engine) -> int:
    """First for a day without trading, which the daemon refuses; then for an earlier night, with a parameter."""
    page = visitor.page
    page.goto("/jobs/collect")
    page.fill("#business_date", "2025-11-29")
    page.click("#run-now button")
    page.wait_for_selector(".notice >> text=REFUSED")
    assert "2025-11-29 is not a trading day; the one before is 2025-11-28" in page.inner_text(
        ".notice:not(.stale)"
    )
    page.fill("#business_date", str(EARLIER))
    page.fill("#param_source", "eastmoney")
    page.click("#run-now button")
    page.wait_for_url("**/runs/*")
    with db.read(engine) as connection:
        [row] = connection.execute(select(job_run)).all()
    assert (row.job_id, row.business_date, row.task) == ("collect", EARLIER, "backfill_nav")
    assert '"source": "eastmoney"' in row.params
    assert page.url.partition("?")[0].endswith(f"/runs/{row.id}")
    return int(row.id)


def _watch(visitor: Visitor) -> None:
    """The bar and its figures move, and the log grows, while nobody touches the page."""
    page = visitor.page
    page.wait_for_selector("#run progress[value]")
    first = _far(visitor)
    until(lambda: _far(visitor), lambda far: far > first, "progress on the page")
    visitor.picture("progress")
    page.wait_for_selector("#log pre >> text=backfill")


def _far(visitor: Visitor) -> float:
    return float(visitor.page.get_attribute("#run progress", "value") or 0)


def _cancel(visitor: Visitor, engine: Engine, run: int) -> None:
    page = visitor.page
    page.click("#cancel")
    page.wait_for_selector("#run >> text=CANCELLED")
    assert "cancelled by web:admin@127.0.0.1" in page.inner_text("#run")
    assert page.locator("#retry").count() == 1

    def status() -> str:
        with db.read(engine) as connection:
            return str(connection.scalar(select(job_run.c.status).where(job_run.c.id == run)))

    until(status, lambda found: found == "CANCELLED", "the end of the run")
    visitor.picture("cancelled")
