"""The monthly report: the week's page with a month's days, metric and words; its job and its command."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from config.translation import translator
from core import db
from core.schema import fund_metrics
from core.standin import StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler.job import RunStatus
from scheduler.weekly import start_of, weekly
from scheduler.weekly_markdown import BYTES, markdown
from scheduler.weekly_page import page
from tests.daemon import DaemonProcess
from tests.example_night import at
from tests.example_week import MONDAY, WEDNESDAY, fill
from tests.nights import Nights
from tests.test_command_line import in_english


def test_a_month_has_its_days_its_returns_and_what_became_known_in_it(engine: Engine) -> None:
    calendar = fill(engine)
    with db.write(engine) as connection:  # of the month, twice those of the week
        doubled = fund_metrics.c.return_1w * 2
        connection.execute(update(fund_metrics).values(return_1m=doubled))
    week, month = (weekly(engine, calendar, WEDNESDAY, span) for span in ("week", "month"))
    assert (month["week_start"], month["metric"]) == (date(2026, 1, 1), "return_1m")
    # 5-9, 12-16, 19-23 and 26-28 January
    assert [day["date"].day for day in month["days"]] == [
        *(5, 6, 7, 8, 9),
        *(12, 13, 14, 15, 16),
        *(19, 20, 21, 22, 23),
        *(26, 27, 28),
    ]
    assert month["days"][-3:] == week["days"]
    ours, theirs = (
        {fund["fund_code"]: fund[record["metric"]] for fund in (*record["best"], *record["worst"])}
        for record in (month, week)
    )
    # Fund 4, silent since the 13th, has a NAV of the month and none of the week.
    assert ours.keys() - theirs.keys() == {"000004"}
    assert all(ours[code] == 2 * theirs[code] for code in ours.keys() & theirs.keys())
    assert len(ours) > 10
    assert month["revisions"]["total"] >= week["revisions"]["total"] > 0
    for language, title in (
        ("en", "Monthly report, 2026-01-01 to 2026-01-28"),
        ("zh", "月报，2026-01-01 至 2026-01-28"),
    ):
        text = page(month, translator(language))
        assert title in text
        assert ("7 days" in text, "7 天" in text) == (False, False)
        assert len(markdown(month, translator(language)).encode()) <= BYTES


@pytest.mark.parametrize(
    ("span", "day", "start"),
    [
        ("week", MONDAY, MONDAY),
        ("week", date(2026, 3, 1), date(2026, 2, 23)),
        ("month", date(2024, 2, 29), date(2024, 2, 1)),
        ("month", date(2026, 1, 1), date(2026, 1, 1)),
    ],
)
def test_where_a_span_begins(span: str, day: date, start: date) -> None:
    assert start_of(span, day) == start


def test_the_command(sqlite_engine: Engine, tmp_path: Path) -> None:
    fill(sqlite_engine)
    shell = in_english(DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at("2026-01-28 22:10")))
    done = shell.main("report", "--month", "2026-01")
    path = tmp_path / "logs" / "monthly" / "2026-01.html"
    assert (done.returncode, done.stdout) == (0, f"{path}\n"), done.stderr
    assert "Monthly report, 2026-01-01 to 2026-01-28" in path.read_text(encoding="utf-8")
    for words, why in (
        (("--month", "2026-13"), "is no month"),
        (("--month", "2026-02"), "no trading day of 2026-02 up to 2026-01-28"),
        (("--month", "2026-01", "--date", "2026-01-28"), "either --date or --month"),
    ):
        done = shell.main("report", *words)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr


def test_the_job_writes_the_month_of_its_business_date(engine: Engine) -> None:
    fill(engine)
    with StandinServer(simulated_market(3, MONDAY, WEDNESDAY, 7, library_sessions())) as standin:
        nights = Nights(engine, standin, at("2026-02-01 06:00"))
        end = nights.execute(nights.queue("monthly", WEDNESDAY))
    path = nights.settings.logs / "monthly" / "2026-01.html"
    assert (end.status, end.reason) == (RunStatus.SUCCESS, str(path))
    assert path.exists()
    assert path.with_suffix(".md").exists()


def test_a_folder_that_takes_no_file_fails_the_run_with_the_reason_and_another_try(engine: Engine) -> None:
    fill(engine)
    with StandinServer(simulated_market(3, MONDAY, WEDNESDAY, 7, library_sessions())) as standin:
        nights = Nights(engine, standin, at("2026-02-01 06:00"))
        folder = nights.settings.logs / "monthly"
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("no folder", encoding="ascii")
        end = nights.execute(nights.queue("monthly", WEDNESDAY))
    assert (end.status, end.retry) == (RunStatus.FAILED, True)
    assert end.reason is not None
    assert end.reason.startswith(f"store_unavailable: the report {folder / '2026-01.html'} cannot be written")
