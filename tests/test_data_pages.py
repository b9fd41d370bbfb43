"""The pages of data: quality, market and funds, on both databases and in a real Chromium."""

from __future__ import annotations

import csv
import io
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, insert, select, update

from core import db
from core.schema import data_update_log, fund_info, fund_metrics, fund_nav, nav_batch, quarantine, rule_result
from core.trading_calendar import TradingCalendar, load_calendar
from scheduler import fund_history
from scheduler.coverage import coverage_by_day
from scheduler.late_funds import late_funds
from scheduler.metrics_listing import ranked_funds, ranked_page
from scheduler.quality import findings
from tests.api_site import ADMIN, TOKENS, VIEWER, app_of, bearer
from tests.browser import LANGUAGES, SCHEMES, WIDTHS, visiting
from tests.data_site import HELD, SPLIT_HELD, fill
from tests.example_night import NOW
from tests.example_week import FRIDAY, HOSTILE, MONDAY, TUESDAY, WEDNESDAY

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from playwright.sync_api import Browser

PAGES = {
    "quality": "/quality",
    "quality-night": "/quality?date=2026-01-23&which=all",
    "held": f"/quality/held/{SPLIT_HELD}",
    "market": "/market",
    "market-late": "/market?reason=silent",
    "funds": "/funds?type=stock&by=return_1w",
    "funds-search": "/funds?q=000",
    "fund": "/funds/000001",
    "fund-money": "/funds/000050",
    "fund-hostile": "/funds/000012",
    "fund-empty": "/funds/000080",
}


@pytest.fixture
def filled(engine: Engine) -> Engine:
    fill(engine)
    return engine


@pytest.fixture
def filled_sqlite(sqlite_engine: Engine) -> Engine:
    fill(sqlite_engine)
    return sqlite_engine


def text_of(client: FlaskClient, path: str, status: int = 200) -> str:
    """What is read on a page in English, on one line."""
    client.set_cookie("navkeeper_language", "en")
    reply = client.get(path, headers={"Accept": "text/html"})
    assert reply.status_code == status, reply.text
    main = reply.text[reply.text.index("<main") :]
    return " ".join(re.sub(r"<script.*?</script>|<[^>]*>", " ", main, flags=re.S).split())


def calendar_of(engine: Engine) -> TradingCalendar:
    with db.read(engine) as connection:
        calendar = load_calendar(connection)
    assert calendar is not None
    return calendar


def test_late_and_missing_funds_have_their_reasons(filled: Engine) -> None:
    calendar = calendar_of(filled)
    with db.read(filled) as connection:
        found = {row["fund_code"]: row for row in late_funds(connection, calendar, WEDNESDAY)}
    assert {code: row["reason"] for code, row in found.items()} == {
        "000003": "held",
        "000004": "silent",
        "000080": "never",
    }
    assert (found["000003"]["newest"], found["000003"]["sessions_behind"]) == (TUESDAY, 1)
    assert (found["000004"]["newest"], found["000004"]["sessions_behind"]) == (date(2026, 1, 13), 11)
    assert (found["000080"]["newest"], found["000080"]["sessions_behind"]) == (None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "not_published"),
        (update(nav_batch).values(status="REJECTED"), "refused"),
        (update(nav_batch).values(status="STAGED"), "not_collected"),
        (update(fund_info).values(status="closed"), "closed"),
        (update(fund_info).values(status="suspended"), "suspended"),
        (
            update(rule_result)
            .where(rule_result.c.rule_id == "coverage")
            .values(rule_id="coverage.stock", figures='{"category": "stock", "lag": 1}'),
            "usual_lag",
        ),
    ],
)
def test_why_a_fund_is_late(filled_sqlite: Engine, change: Any, reason: str) -> None:
    calendar = calendar_of(filled_sqlite)
    with db.write(filled_sqlite) as connection:
        connection.execute(update(quarantine).where(quarantine.c.id == HELD).values(resolution="REJECTED"))
        if change is not None:
            connection.execute(change)
    with db.read(filled_sqlite) as connection:
        found = {row["fund_code"]: row["reason"] for row in late_funds(connection, calendar, WEDNESDAY)}
    assert found["000003"] == reason
    assert found["000004"] == "silent"


def test_coverage_by_day_counts_what_the_week_says(filled: Engine) -> None:
    """Thirteen stock funds, of which the fourth is silent and the third late; a money fund; four mixed ones."""
    with db.read(filled) as connection:
        found = coverage_by_day(connection, calendar_of(filled), MONDAY, WEDNESDAY)
    assert [(row["date"], row["published"], row["expected"]) for row in found] == [
        (MONDAY, 12 + 1 + 1, 13 + 1 + 1),
        (TUESDAY, 12 + 1 + 1, 13 + 1 + 1),
        (WEDNESDAY, 11 + 1 + 4, 12 + 1 + 4),
    ]


def test_findings_by_rule_and_night(filled: Engine) -> None:
    found = findings(filled, WEDNESDAY, 10)
    assert found["nights"] == [FRIDAY, TUESDAY, WEDNESDAY]
    assert found["rules"] == [
        {"rule": "stale", "failed": [4, None, 0]},
        {"rule": "return_limit", "failed": [None, None, 2]},
    ]
    assert findings(filled, FRIDAY, 10)["rules"] == [{"rule": "stale", "failed": [4]}]


def test_history_undoes_splits_and_falls_from_the_peak(filled: Engine) -> None:
    found = fund_history.nav_history(filled, "000090")
    assert found["dates"] == ["2026-01-22", "2026-01-23", "2026-01-26", "2026-01-27", "2026-01-28"]
    assert found["unit"] == [1.0, 1.2, 0.6, 0.54, 0.54]
    assert found["adjusted"] == [1.0, 1.2, 1.2, 1.08, 1.08]
    assert found["drawdown"] == [0.0, 0.0, 0.0, -10.0, -10.0]
    long = fund_history.nav_history(filled, "000001")
    assert len(long["dates"]) > 5000
    assert long["dates"] == sorted(long["dates"])


def test_a_page_of_a_ranking_is_a_part_of_it(filled: Engine) -> None:
    for bottom in (False, True):
        for by in ("return_1w", "max_drawdown_1y", "score"):
            whole = ranked_funds(filled, by, "stock", None, bottom=bottom, every_class=False)
            for offset in (0, 2, 100):
                page = ranked_page(filled, by, "stock", bottom=bottom, offset=offset, limit=3)
                assert page == (whole[offset : offset + 3], len(whole))
    # The thirteenth is another class of the twelfth and has fewer NAVs; the fourth returned 90 %.
    page, total = ranked_page(filled, "return_1w", "stock", bottom=False, offset=0, limit=3)
    assert ([row["fund_code"] for row in page], total) == (["000004", "000012", "000011"], 12)


def test_what_the_pages_say(filled: Engine) -> None:
    client = app_of(filled).test_client()
    said = text_of(client, "/quality")
    assert "Data quality of the night of 2026-01-28" in said
    assert "rule 01-23 01-27 01-28 stale 4 - 0 return_limit - - 2" in said
    assert "a split of 2.0000 shares for one: the NAV was halved" in said
    assert "main.py token" in said  # without a token nobody decides
    said = text_of(client, "/market")
    assert "stock 91.7% 11 12" in said
    for reason in ("a row of that date is in quarantine", "no NAV for more than ten trading days"):
        assert reason in said
    assert said.count("3 of 3 listed") == 2  # new: 000060, 000061, 000090; liquidated: 000070 to 000072
    said = text_of(client, "/funds/000001")
    for part in ("12.34 %", "40 of 48", "last quarter", "3 of 48", "best quarter", "Score 71.50, level B"):
        assert part in said
    assert "dividend, a share" in said
    assert "a small correction" in said
    said = text_of(client, "/funds/000050")
    assert "7-day yield %" in said
    assert "drawdown" not in said
    assert "backfill --fund 000080" in text_of(client, "/funds/000080")


def test_the_market_is_summed_up_once_until_something_is_written(filled: Engine) -> None:
    first, second = app_of(filled).test_client(), app_of(filled).test_client()  # as two processes
    said = text_of(first, "/market")
    assert "as of 2026-01-28" in said
    with db.write(filled) as connection:
        connection.execute(update(fund_metrics).values(return_1w=77.77))
    assert text_of(second, "/market") == said
    with db.write(filled) as connection:
        written = {
            "table_name": "fund_metrics",
            "update_date": WEDNESDAY,
            "record_count": 1,
            "status": "SUCCESS",
        }
        times = {"start_time": NOW, "end_time": NOW, "duration_seconds": 0}
        connection.execute(insert(data_update_log).values(written | times))
    for client in (first, second):
        assert "+77.77" in text_of(client, "/market")


def test_a_fund_that_is_not_known_is_answered_with_help(filled: Engine) -> None:
    client = app_of(filled).test_client()
    said = text_of(client, "/funds/000099", 404)
    assert "There is no fund 000099" in said
    assert "000090 拆分混合A" in said  # the code before the last digit is the same
    assert "000070 清盘债券" in text_of(client, "/funds/清盘", 404)
    assert "000090" in text_of(client, "/funds?q=cfhh")
    assert "no fund of that code" in text_of(client, "/funds?q=%25")
    for path in ("/funds?by=nonsense", "/market?offset=-1", "/quality?date=28", "/quality/held/x"):
        assert client.get(path).status_code == 400, path
    for path in (
        "/quality?date=2020-01-02",
        "/quality/held/999",
        "/funds?type=nonsense",
        "/reports/x/2026-01-28",
    ):
        assert client.get(path).status_code == 404, path


def test_late_funds_as_csv(filled: Engine) -> None:
    client = app_of(filled).test_client()
    reply = client.get("/market/late.csv?lang=en")
    assert reply.headers["Content-Disposition"] == 'attachment; filename="late-2026-01-28.csv"'
    rows = {row["fund_code"]: row for row in csv.DictReader(io.StringIO(reply.text))}
    assert {code: row["reason"] for code, row in rows.items()} == {
        "000003": "held",
        "000004": "silent",
        "000080": "never",
    }
    assert rows["000004"]["newest"] == "2026-01-13"
    assert rows["000080"]["newest"] == ""
    assert rows["000080"]["reason_text"] == "listed, and no NAV of it is stored"


def test_nothing_is_stored_yet(engine: Engine) -> None:
    client = app_of(engine).test_client()
    assert "no night was collected yet" in text_of(client, "/quality")
    assert "no NAV is stored yet" in text_of(client, "/market")
    assert "there are no metrics yet" in text_of(client, "/funds")
    assert client.get("/market/late.csv").status_code == 404


def decided(engine: Engine, number: int) -> tuple[Any, ...]:
    row = quarantine.c
    with db.read(engine) as connection:
        found = connection.execute(
            select(row.resolution, row.resolved_by, row.note).where(row.id == number)
        ).one()
        return tuple(found)


def test_rows_are_released_and_rejected_on_record(filled: Engine) -> None:
    client = app_of(filled, TOKENS).test_client()
    refused = client.post(f"/quality/held/{HELD}/release", headers=bearer(VIEWER))
    assert (refused.status_code, decided(filled, HELD)) == (403, (None, None, None))
    reply = client.post(
        f"/quality/held/{HELD}/release", headers=bearer(ADMIN), data={"note": " asked the manager "}
    )
    assert reply.status_code == 303
    assert reply.headers["Location"].startswith(f"/quality?decided={HELD}")
    assert decided(filled, HELD) == ("RELEASED", "web:admin@127.0.0.1", "asked the manager")
    with db.read(filled) as connection:
        mine = fund_nav.c.fund_code == "000003", fund_nav.c.nav_date == WEDNESDAY
        assert connection.scalar(select(fund_nav.c.unit_nav).where(*mine)) == 1.01
    reply = client.post(f"/quality/held/{SPLIT_HELD}/reject", headers=bearer(ADMIN))
    assert reply.status_code == 303
    assert decided(filled, SPLIT_HELD) == ("REJECTED", "web:admin@127.0.0.1", None)
    again = client.post(f"/quality/held/{SPLIT_HELD}/release", headers=bearer(ADMIN))
    assert (again.status_code, again.json) == (409, {"error": "not_decided"})
    assert client.post("/quality/held/999/reject", headers=bearer(ADMIN)).status_code == 404


def test_no_text_of_the_data_becomes_a_part_of_a_page(filled: Engine) -> None:
    client = app_of(filled).test_client()
    for path in ("/funds/000012", "/market", "/funds?q=000012", "/funds?type=stock&by=return_1w"):
        reply = client.get(path, headers={"Accept": "text/html"})
        assert HOSTILE[:13] not in reply.text, path


def test_a_report_of_the_disk(filled_sqlite: Engine, tmp_path: Path) -> None:
    folder = Path(filled_sqlite.url.database or "").parent / "logs"
    (folder / "weekly").mkdir(parents=True)
    (folder / "weekly" / "2026-01-23.html").write_text("<style>p {}</style><p>week", encoding="utf-8")
    client = app_of(filled_sqlite).test_client()
    assert "weekly 2026-01-23" in text_of(client, "/market")
    reply = client.get("/reports/weekly/2026-01-23")
    assert reply.text.endswith("week")
    assert "script-src" not in reply.headers["Content-Security-Policy"]
    assert reply.headers["Content-Security-Policy"].startswith(
        "default-src 'none'; style-src 'unsafe-inline'"
    )
    for path in ("/reports/weekly/2026-01-24", "/reports/weekly/..%2f..%2fx", "/reports/runs/2026-01-23"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_page(filled_sqlite: Engine, chromium: Browser, width: int, scheme: Any, language: str) -> None:
    app = app_of(filled_sqlite, TOKENS)
    with visiting(chromium, app, ADMIN, width=width, scheme=scheme, language=language) as visitor:
        for name, path in PAGES.items():
            visitor.look(path, name)


def test_charts_are_drawn_and_show_a_span(filled_sqlite: Engine, chromium: Browser) -> None:
    with visiting(chromium, app_of(filled_sqlite), language="en") as visitor:
        page = visitor.page
        for path, charts in (
            ("/market", {"coverage-chart": 2}),
            ("/funds/000001", {"nav": 2, "drawdown": 1}),
            ("/funds/000050", {"yield": 1, "income": 1}),
        ):
            page.goto(path)
            for chart, traces in charts.items():
                page.wait_for_selector(f"#{chart} svg .scatterlayer .trace")
                assert page.locator(f"#{chart} svg .scatterlayer .trace").count() == traces
        page.goto("/funds/000001")
        page.wait_for_selector("#drawdown svg .scatterlayer .trace")
        page.click("button:has-text('1 month')")
        assert page.get_attribute("button[aria-pressed=true]", "data-months") == "1"
        for chart in ("nav", "drawdown"):
            spans = page.evaluate(f"document.getElementById('{chart}').layout.xaxis.range.join()")
            assert spans == "2025-12-28,2026-01-28"
        page.click("button[data-months='0']")
        assert page.evaluate("document.getElementById('nav').layout.xaxis.range[0]").startswith("2005")


def test_rows_are_decided_with_the_mouse(filled_sqlite: Engine, chromium: Browser) -> None:
    app = app_of(filled_sqlite, TOKENS)
    with visiting(chromium, app, ADMIN, language="en") as visitor:
        page = visitor.page
        page.goto("/quality")
        page.fill(f"#note-{HELD}", "asked the manager")
        page.click(f"#release-{HELD}")
        page.wait_for_selector("#decided >> text=RELEASED")
        assert "asked the manager" in page.inner_text("#decided")
        assert decided(filled_sqlite, HELD) == ("RELEASED", "web:admin@127.0.0.1", "asked the manager")
        visitor.picture("decided")
        page.click(f"#reject-{SPLIT_HELD}")
        page.wait_for_selector("#decided >> text=REJECTED")
        assert decided(filled_sqlite, SPLIT_HELD)[0] == "REJECTED"
        assert page.locator(f"#release-{SPLIT_HELD}").count() == 0
    with visiting(chromium, app, VIEWER, language="en") as visitor:
        visitor.page.goto("/quality")
        assert visitor.page.locator("main form[method=post]").count() == 0
