"""The evidence of a night as an operator sees it: table, JSON and report, of rows written by hand."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, update

from config.translation import translator
from core import db
from core.errors import NavKeeperError, NotReady, UsageError
from core.rules import RULES
from core.schema import job_run, nav_batch, rule_result
from scheduler.listing_text import drawn as terminal
from scheduler.quality import outcome, quality
from scheduler.quality_page import write_report
from scheduler.quality_text import figure_text, nav_text, percent_text, sections
from scheduler.sections import drawn
from tests.example_night import NIGHT, at
from tests.html_reader import read_page
from tests.quality_night import HOSTILE, OWN, REFUSED, SWEEP, TUESDAY, fill


@pytest.fixture
def night(engine: Engine) -> dict[str, Any]:
    fill(engine)
    return quality(engine)


def shown(night: dict[str, Any], language: str, monkeypatch: pytest.MonkeyPatch, width: int = 10_000) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    return terminal(drawn(sections(night, translator(language), held=10, example=1)))


def test_the_whole_record_of_a_night(night: dict[str, Any]) -> None:
    assert (night["business_date"], night["outcome"], night["simulated"]) == (NIGHT, "PARTIAL", True)
    assert [(step["job"], step["status"]) for step in night["steps"]] == [
        ("collect", "SUCCESS"),
        ("validate", "PARTIAL"),
        ("sweep", "SUCCESS"),
    ]
    assert [batch["batch"] for batch in night["batches"]] == [REFUSED, OWN, SWEEP]
    # The refused batch was followed by a good one: its gates are history.
    gates = {gate["gate"]: (gate["batch"], gate["failed"]) for gate in night["gates"]}
    assert gates == {"coverage": (OWN, 0), "coverage.bond": (OWN, 1), "old_gate": (OWN, 0)}
    rules = {rule["rule"]: (rule["checked"], rule["failed"], rule["version"]) for rule in night["rules"]}
    assert rules == {"nav_positive": (6, 2, 2), "duplicate": (5, 0, 2)}  # batch and sweep together
    assert [rule["rule"] for rule in night["rules"]] == ["nav_positive", "duplicate"]
    held = night["quarantine"]
    assert [held[name] for name in ("rows", "new", "open", "released", "rejected")] == [2, 1, 1, 0, 0]
    assert held["by_reason"] == {"nav_positive": 1}
    assert [row["fund_code"] for row in held["listed"]] == ["000003"]
    assert night["revisions"] == {"filled": 2, "small": 1}
    assert night["events"] == {"dividend": 1}
    assert night["late"] == [
        {
            "category": "bond",
            "expected": 1,
            "late": 1,
            "oldest": TUESDAY,
            "funds": [{"fund_code": "000004", "newest": TUESDAY}],
        },
        {
            "category": "mixed",
            "expected": 3,
            "late": 1,
            "oldest": TUESDAY,
            "funds": [{"fund_code": "000003", "newest": TUESDAY}],
        },
    ]


def test_a_night_that_was_refused_shows_its_gate(engine: Engine) -> None:
    fill(engine)
    with db.write(engine) as connection:
        connection.execute(delete(nav_batch).where(nav_batch.c.id.in_([OWN, SWEEP])))
        connection.execute(
            update(job_run)
            .where(job_run.c.job_id == "validate")
            .values(status="FAILED", reason="batch_rejected: x")
        )
    night = quality(engine, NIGHT)
    assert night["outcome"] == "FAILURE"
    assert [(gate["gate"], gate["batch"], gate["failed"]) for gate in night["gates"]] == [
        ("coverage", REFUSED, 1)
    ]
    assert (night["rules"], night["revisions"], night["events"]) == ([], {}, {})


def test_nights_of_which_nothing_is_known(sqlite_engine: Engine) -> None:
    with pytest.raises(NotReady, match="no night was collected yet"):
        quality(sqlite_engine)
    fill(sqlite_engine)
    with pytest.raises(UsageError, match="nothing is on record of the night of 2026-01-26"):
        quality(sqlite_engine, date(2026, 1, 26))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("collect", "SUCCESS"), ("validate", "SUCCESS"), ("sweep", "FAILED")], "SUCCESS"),
        ([("collect", "PARTIAL"), ("validate", "SUCCESS")], "PARTIAL"),
        ([("collect", "SUCCESS"), ("validate", "FAILED")], "FAILURE"),
        ([("collect", "FAILED"), ("validate", "BLOCKED")], "FAILURE"),
        ([("collect", "SUCCESS"), ("validate", "RUNNING")], "UNFINISHED"),
        ([("collect", "SUCCESS")], "UNFINISHED"),
        ([("collect", "SKIPPED"), ("validate", "SKIPPED")], "SKIPPED"),
        ([("backfill", "PARTIAL")], "PARTIAL"),
    ],
)
def test_the_outcome_of_a_night(steps: list[tuple[str, str]], expected: str) -> None:
    assert outcome([{"step": step, "status": status} for step, status in steps]) == expected


def test_words_in_both_languages(night: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    chinese, english = (shown(night, language, monkeypatch) for language in ("zh", "en"))
    assert chinese.startswith("2026-01-28 当晚数据质量\n部分成功  入库 4 行，隔离 2，修订 3，未到 2 只")
    assert "[SIMULATED 模拟数据]" in chinese
    sentence = next(rule for rule in RULES if rule.id == "nav_positive")
    assert sentence.zh in chinese
    assert sentence.en in english
    assert (
        "80, usually 100 (80.0%); at least 90.0% needed; counted with funds up to 1 trading day(s) behind"
        in english
    )
    assert "覆盖 债券 coverage.bond" in chinese
    assert "新隔离 1 行：隔离中 1，已放行 0，已拒收 0\n另有 1 行此前已隔离" in chinese
    assert "\x1b" not in chinese + english  # what came from elsewhere steers no terminal
    assert "<script>" in english


@pytest.mark.parametrize("language", ["zh", "en"])
def test_it_fits_a_narrow_screen(
    language: str, night: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.cells import cell_len

    assert max(cell_len(line) for line in shown(night, language, monkeypatch, 80).splitlines()) <= 80


def test_the_report_file(engine: Engine, tmp_path: Path) -> None:
    fill(engine)
    path = write_report(engine, NIGHT, tmp_path / "quality", translator("zh"))
    assert path == tmp_path / "quality" / "2026-01-28.html"
    text = path.read_text(encoding="utf-8")
    reader = read_page(text)
    assert reader.tags.isdisjoint({"script", "img", "link", "iframe", "object"})
    assert reader.attributes.isdisjoint({"src", "href", "style", "onclick"})
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert HOSTILE.partition("\x1b")[0] in reader.text
    for words in ("当晚数据质量", "nav_positive", "000003", "已合并", "尚未公布"):
        assert words in reader.text
    again = write_report(engine, NIGHT, tmp_path / "quality", translator("en"))
    assert again == path
    assert "Data quality of the night of 2026-01-28" in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_a_report_that_cannot_be_written(sqlite_engine: Engine, tmp_path: Path) -> None:
    fill(sqlite_engine)
    (tmp_path / "quality").write_text("a file where the folder should be")
    with pytest.raises(NavKeeperError, match="cannot be written"):
        write_report(sqlite_engine, NIGHT, tmp_path / "quality", translator("en"))


def test_the_record_is_json(night: dict[str, Any]) -> None:
    from scheduler.listing import as_json

    back = json.loads(as_json(night))
    assert back["business_date"] == "2026-01-28"
    assert back["batches"][0]["decided_at"] == at("2026-01-28 19:31").isoformat()


def test_results_that_are_gone_are_no_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine)
    with db.write(engine) as connection:
        connection.execute(delete(rule_result))
    text = shown(quality(engine), "en", monkeypatch)
    assert "no gate judged this night" in text
    assert "no rule judged this night" in text


def test_figures_as_people_write_them() -> None:
    assert [figure_text(value) for value in (1200, 1200.0, 0.5, None, "x")] == [
        "1,200",
        "1,200",
        "0.5",
        "-",
        "x",
    ]
    navs = (1.0, 1.2345, 0.00000121, 1.23456789, 1e300, None)
    assert [nav_text(value) for value in navs] == [
        "1.0000",
        "1.2345",
        "0.00000121",
        "1.23456789",
        "1e+300",
        "-",
    ]
    assert [percent_text(value) for value in (0.0, -1.5, 0.125, None)] == ["0.00", "-1.50", "0.125", "-"]
