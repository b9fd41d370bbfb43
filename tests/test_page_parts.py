"""What the pages are made of: schedules in words, the night's lanes, coverage by type, forms, colours; by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from config.settings import ROOT
from config.translation import translator
from core import db
from core.schema import fund_info, fund_series, job_run, metadata
from core.trading_calendar import load_calendar
from scheduler.coverage import coverage_by_type
from scheduler.fund_plugin import TASKS
from scheduler.health_check import create_health_app
from scheduler.job import Job
from scheduler.jobs_file import load_jobs
from scheduler.listing import recent_runs
from scheduler.overview import collect_overview, observer_engine
from scheduler.schedule_text import schedule_text
from scheduler.verdict import ChainStep
from scheduler.web.params_form import Field, fields_of, params_from
from scheduler.web.timeline import Bar, timeline
from tests import example_night as night
from tests.example_night import JOBS, NIGHT, NOW, at


def job(folder: Path, cron: str) -> Job:
    path = folder / "jobs.toml"
    path.write_text(f'[it]\ntask = "collect_nav"\ncron = {cron}\n', encoding="utf-8")
    return load_jobs(path)["it"]


@pytest.mark.parametrize(
    ("cron", "english", "chinese"),
    [
        ('{ day_of_week = "mon-fri", hour = 19, minute = 0 }', "Mon to Fri 19:00", "周一至周五 19:00"),
        ('{ day_of_week = "mon-fri", hour = "21,23", minute = 5 }', "Mon to Fri 21:05, 23:05", None),
        ('{ day_of_week = "sat,sun", hour = 2 }', "Sat, Sun 02:00", "周六, 周日 02:00"),
        ("{ hour = 8, minute = 30 }", "every day 08:30", "每天 08:30"),
        ('{ minute = "*/5" }', "every day hour * minute */5", None),
        ("{ day = 1, hour = 3, minute = 0 }", "every day 03:00 day 1", None),
    ],
)
def test_schedules_in_words(tmp_path: Path, cron: str, english: str, chinese: str | None) -> None:
    found = job(tmp_path, cron)
    assert schedule_text(found, translator("en")) == english
    if chinese is not None:
        assert schedule_text(found, translator("zh")) == chinese


def test_a_schedule_of_another_zone_names_it(tmp_path: Path) -> None:
    found = job(tmp_path, '{ hour = 9, minute = 0 }\ntimezone = "Europe/Berlin"')
    assert schedule_text(found, translator("en")) == "every day 09:00 (Europe/Berlin)"


@pytest.fixture
def filled(engine: Engine) -> Engine:
    night.fill(engine)
    return engine


def test_the_lanes_of_a_night(filled: Engine) -> None:
    """From 18:00, the hour of the first that is due, to midnight: six hours, so that one minute is 100/360 %."""
    seen = collect_overview(filled, JOBS, NOW)
    found = timeline(seen.chain, JOBS, seen.chain_date, NOW)
    assert found is not None
    minute = 100 / 360
    assert found.marks == [(0.0, "18:00"), (33.33, "20:00"), (66.67, "22:00")]
    assert found.due["collect"] == pytest.approx([60 * minute], abs=0.01)
    assert found.due["sweep"] == pytest.approx([180 * minute, 300 * minute], abs=0.01)
    assert found.due["reference"] == pytest.approx([30 * minute], abs=0.01)
    assert found.ran["collect"] == Bar(
        pytest.approx(60 * minute, abs=0.01), 1.5
    )  # 41.5 s, thickened to be seen
    assert set(found.ran) == {"collect", "validate", "metrics"}
    assert found.now == pytest.approx(250.083 * minute, abs=0.01)
    for bar in found.ran.values():
        assert 0 <= bar.left <= bar.left + bar.width <= 100


def test_lanes_of_a_night_caught_up_days_later(filled: Engine) -> None:
    """What is still at work reaches to now; what ends at the edge stays inside."""
    late = at("2026-01-30 23:59")
    with db.write(filled) as connection:
        mine = (job_run.c.job_id == "metrics") & (job_run.c.business_date == NIGHT)
        changes = {"started_at": late - timedelta(hours=3), "finished_at": None, "status": "RUNNING"}
        connection.execute(update(job_run).where(mine).values(**changes))
    found = timeline(collect_overview(filled, JOBS, NOW).chain, JOBS, NIGHT, late)
    assert found is not None
    assert found.ran["metrics"].left + found.ran["metrics"].width == pytest.approx(100, abs=0.1)
    assert len(found.marks) <= 5


def test_a_night_without_anything() -> None:
    assert timeline([], JOBS, None, NOW) is None
    assert timeline([], JOBS, NIGHT, NOW) is None
    only = timeline([ChainStep("collect", None)], JOBS, NIGHT, NOW)
    assert only is not None
    assert only.ran == {}


def test_coverage_by_type_counts_who_is_expected(filled: Engine) -> None:
    """Ten sessions before 2026-01-28 is 2026-01-14: silent since then still expected, since the 13th no more."""
    tuesday = date(2026, 1, 27)
    rows = [
        ("fund_nav", "000001", NIGHT, "mixed"),
        ("fund_nav", "000002", tuesday, "mixed"),
        ("fund_nav", "000003", date(2026, 1, 14), "mixed"),
        ("fund_nav", "000004", date(2026, 1, 13), "mixed"),
        ("money_fund_yield", "000005", NIGHT, "money"),
        ("fund_nav", "900001", NIGHT, None),  # not in the list of funds
    ]
    with db.write(filled) as connection:
        connection.execute(
            update(fund_info).where(fund_info.c.fund_code == "000005").values(category="money")
        )
        for table, code, last, _category in rows:
            connection.execute(
                insert(fund_series).values(
                    table_name=table,
                    fund_code=code,
                    row_count=1,
                    first_date=date(2025, 12, 1),
                    last_date=last,
                    changed=1,
                    rewritten=1,
                )
            )
    with db.read(filled) as connection:
        calendar = load_calendar(connection)
        assert calendar is not None
        found = coverage_by_type(connection, calendar, NIGHT)
        assert found == [
            {"category": "mixed", "expected": 3, "published": 1},
            {"category": "money", "expected": 1, "published": 1},
            {"category": "other", "expected": 1, "published": 1},
        ]
        before = coverage_by_type(connection, calendar, tuesday)
        assert before[0] == {"category": "mixed", "expected": 4, "published": 2}


def test_recent_runs_are_those_of_the_newest_dates_oldest_first(filled: Engine) -> None:
    found = recent_runs(filled, ["collect", "weekly"], NOW, 3)
    assert [str(run["business_date"]) for run in found["collect"]] == [
        "2026-01-26",
        "2026-01-27",
        "2026-01-28",
    ]
    assert found["weekly"] == []
    assert recent_runs(filled, ["collect"], NOW, 14)["collect"][0]["status"] == "FAILED"


def schema(task: str) -> dict[str, Any]:
    return TASKS[task].params.model_json_schema()


def test_parameters_as_fields_and_back() -> None:
    assert fields_of(schema("backfill_nav"), {"fund_type": "bond"}) == [
        Field("source", "text", None),
        Field("fund_codes", "list", None),
        Field("fund_type", "text", "bond"),
        Field("start", "date", None),
        Field("end", "date", None),
        Field("unless_stored", "flag", False),
    ]
    assert [field.kind for field in fields_of(schema("repair_history"), {})] == ["text", "number", "number"]
    assert fields_of(schema("weekly_full_calc"), {}) == []
    typed = {
        "param_fund_codes": " 000001,000002 ，000003",
        "param_start": "2025-12-01",
        "param_unless_stored": "true",
        "param_source": "  ",
        "param_colour": "red",
        "start": "not a parameter",
    }
    assert params_from(schema("backfill_nav"), typed) == {
        "fund_codes": ["000001", "000002", "000003"],
        "start": "2025-12-01",
        "unless_stored": True,
    }
    assert params_from(schema("repair_history"), {"param_max_funds": "5", "param_sessions": "many"}) == {
        "max_funds": 5,
        "sessions": "many",  # the daemon says what is wrong with it
    }


def test_pages_of_an_empty_database_and_of_one_without_a_calendar(
    sqlite_engine: Engine, tmp_path: Path
) -> None:
    bare = db.connect(sqlite_engine.url.set(database=str(tmp_path / "bare.db")))
    metadata.create_all(bare)
    for engine in (sqlite_engine, bare):
        client = create_health_app(observer_engine(engine.url), JOBS, lambda: NOW).test_client()
        for path in ("/", "/jobs", "/jobs/weekly", "/runs"):
            assert client.get(path).status_code == 200, path
        assert "!" in client.get("/").text
    bare.dispose()


def light(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_text_can_be_read_in_both_lights() -> None:
    """4.5 to 1 at least, as WCAG AA asks of texts."""
    sheet = (ROOT / "scheduler" / "web" / "static" / "site.css").read_text(encoding="utf-8")
    schemes = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)[:2]
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", scheme))
        for text in ("text", "dim", "green", "yellow", "red", "cyan"):
            for ground in ("page", "card", "head"):
                low, high = sorted((light(colours[text]), light(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_plotly_is_served_without_being_imported() -> None:
    code = (
        "import sys\nfrom scheduler.web import assets\n"
        "assert assets.asset('plotly.min.js').startswith('/static/plotly.min.js?v=')\n"
        "assert assets.plotly_id()\nassert 'plotly' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
