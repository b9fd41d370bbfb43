"""`main.py quality`, `quarantine` and `nav show` as an operator types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select

from core import db
from core.schema import (
    fund_event,
    fund_nav,
    fund_nav_revision,
    job_run,
    money_fund_yield,
    nav_batch,
    quarantine,
)
from tests.daemon import DaemonProcess
from tests.example_night import NIGHT, add_metrics, add_run, at
from tests.quality_night import fill
from tests.test_command_line import in_english, lines, refused


@pytest.fixture
def shell(sqlite_engine: Engine, tmp_path: Path) -> DaemonProcess:
    """main.py in the evening of the night that is written by hand; no daemon runs."""
    fill(sqlite_engine)
    return in_english(DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at("2026-01-28 22:10")))


def test_the_quality_of_a_night(shell: DaemonProcess, tmp_path: Path) -> None:
    done = shell.main("quality")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith("Data quality of the night of 2026-01-28\nPARTIAL  4 rows believed")
    assert shell.main("--action", "quality", "--date", "2026-01-28").stdout == done.stdout
    [night] = lines(shell.main("quality", "--json"))
    assert (night["business_date"], night["outcome"]) == ("2026-01-28", "PARTIAL")
    html = shell.main("quality", "--html")
    path = tmp_path / "logs" / "quality" / "2026-01-28.html"
    assert html.stdout == f"{path}\n"
    assert "Data quality of the night of 2026-01-28" in path.read_text(encoding="utf-8")
    said = refused(shell.main("quality", "--date", "2020-01-01"), 2)
    assert said.startswith("quality: nothing is on record of the night of 2020-01-01")


def test_rows_are_listed_shown_and_rejected(shell: DaemonProcess) -> None:
    [first, second] = lines(shell.main("quarantine", "list", "--json"))
    assert ([first["id"], second["id"]], first["reasons"]) == ([2, 1], ["nav_positive"])
    assert [row["id"] for row in lines(shell.main("quarantine", "list", "--fund", "000004", "--json"))] == [1]
    assert "nothing is held" in shell.main("quarantine", "list", "--reason", "conflict").stdout
    [shown] = lines(shell.main("quarantine", "show", "2", "--json"))
    assert [row["unit_nav"] for row in shown["before"]] == [1.5]
    text = shell.main("quarantine", "show", "2").stdout
    assert "Rules that it failed" in text
    assert "\x1b" not in text
    said = refused(shell.main("quarantine", "reject", "2", "9"), 2)
    assert said == "quarantine: there is no row 9 in quarantine; nothing was done\n"
    done = shell.main("quarantine", "reject", "2", "--note", "a typo of the publisher")
    assert done.stdout == "rows rejected: 1; they stay on record\n", done.stderr
    with db.read(shell.engine) as connection:
        row = connection.execute(select(quarantine).where(quarantine.c.id == 2)).one()
    assert (row.resolution, row.note, row.resolved_by[:4]) == ("REJECTED", "a typo of the publisher", "cli:")
    assert row.resolved_at == at("2026-01-28 22:10")
    assert [row["id"] for row in lines(shell.main("quarantine", "list", "--json"))] == [1]
    assert len(lines(shell.main("quarantine", "list", "--all", "--json"))) == 2
    again = refused(shell.main("quarantine", "reject", "2"), 2)
    assert "2 was REJECTED by cli:" in again


def hold_a_split(engine: Engine) -> None:
    """Fund 000003 stood at 1.5 on Tuesday and halved; metrics of the night were calculated."""
    proposal = {"kind": "split", "value": 2.0, "why": "NAV 0.7500 after 1.5000"}
    with db.write(engine) as connection:
        connection.execute(
            insert(quarantine).values(
                id=3,
                row_hash="3" * 64,
                batch_id=12,
                source="eastmoney",
                fund_code="000003",
                nav_date=NIGHT,
                unit_nav=0.75,
                daily_return=0.0,
                reasons="return_matches_nav",
                proposal=json.dumps(proposal),
                held_at=at("2026-01-28 19:31"),
            )
        )
        add_run(connection, "metrics", NIGHT, "SUCCESS", "20:30", 75, 3)
        add_metrics(connection, NIGHT, 3)


def test_a_split_that_nobody_announced_is_released(shell: DaemonProcess) -> None:
    hold_a_split(shell.engine)
    assert "a split of 2.0000 shares for one" in shell.main("quarantine", "show", "3").stdout
    refusal = refused(shell.main("quarantine", "release", "3", "77"), 2)
    assert refusal == "quarantine: there is no row 77 in quarantine; nothing was done\n"
    done = shell.main("quarantine", "release", "3", "--note", "announced", "--json")
    [record] = lines(done)
    assert (record["released"], record["events"], record["funds"]) == ([3], 1, ["000003"])
    with db.read(shell.engine) as connection:
        nav = connection.execute(select(fund_nav).where(fund_nav.c.fund_code == "000003")).all()[-1]
        event = connection.execute(select(fund_event).where(fund_event.c.fund_code == "000003")).one()
        held = connection.execute(select(quarantine).where(quarantine.c.id == 3)).one()
        run = connection.execute(select(job_run).order_by(job_run.c.id.desc())).first()
    assert (nav.nav_date, nav.unit_nav) == (NIGHT, 0.75)
    assert (event.kind, event.value, event.ex_date) == ("split", 2.0, NIGHT)
    assert (held.resolution, held.note, held.resolved_by[:4]) == ("RELEASED", "announced", "cli:")
    assert run is not None
    assert (run.job_id, run.status, run.params) == ("metrics", "QUEUED", '{"fund_codes": ["000003"]}')
    assert (record["metrics_run"], run.business_date) == (run.id, NIGHT)
    navs = lines(shell.main("nav", "show", "000003", "--adjusted", "--json"))
    assert [row["adjusted_nav"] for row in navs] == [1.5, 1.5]
    before = lines(shell.main("nav", "show", "000003", "--as-of", "2026-01-28T22:09", "--json"))
    assert [row["nav_date"] for row in before] == ["2026-01-27"]
    assert "3 was RELEASED by cli:" in refused(shell.main("quarantine", "release", "3"), 2)


def test_released_without_the_event_that_was_proposed(shell: DaemonProcess) -> None:
    hold_a_split(shell.engine)
    done = shell.main("quarantine", "release", "3", "--without-event")
    assert done.stdout.splitlines()[0] == (
        "rows released and merged: 1; stored values corrected: 0, events booked: 0"
    ), done.stderr
    with db.read(shell.engine) as connection:
        assert connection.execute(select(fund_event).where(fund_event.c.fund_code == "000003")).all() == []


def revise(engine: Engine) -> None:
    """Fund 000001's NAV of the night was 1.4 until 21:00; a money fund has a yield of it."""
    with db.write(engine) as connection:
        connection.execute(
            insert(fund_nav_revision).values(
                fund_code="000001",
                nav_date=NIGHT,
                old_unit_nav=1.4,
                new_unit_nav=1.5,
                old_batch_id=12,
                new_batch_id=13,
                known_at=at("2026-01-28 21:00"),
                reason="small",
            )
        )
        connection.execute(
            insert(money_fund_yield).values(
                fund_code="000009", nav_date=NIGHT, income_per_10k=0.5, yield_7d=1.75, batch_id=12
            )
        )


def test_navs_as_stored_and_as_known(shell: DaemonProcess) -> None:
    revise(shell.engine)
    stored = lines(shell.main("nav", "show", "000001", "--json"))
    assert [(row["nav_date"], row["unit_nav"]) for row in stored] == [
        ("2026-01-27", 1.5),
        ("2026-01-28", 1.5),
    ]
    words = ["nav", "show", "000001", "--from", "2026-01-28", "--json", "--as-of"]
    for instant in ("2026-01-28T20:59", "2026-01-28T12:59+00:00"):  # without an offset Shanghai's
        [then] = lines(shell.main(*words, instant))
        assert (then["unit_nav"], then["changed_at"]) == (1.4, "2026-01-28T21:00:00+08:00")
    assert lines(shell.main(*words, "2026-01-28T19:30")) == []
    text = shell.main("nav", "show", "000001", "--as-of", "2026-01-28T20:59").stdout
    assert "as known at 2026-01-28 20:59:00 in Shanghai" in text
    assert "corrected later" in text
    [adjusted] = lines(shell.main("nav", "show", "000001", "--to", "2026-01-27", "--adjusted", "--json"))
    assert adjusted["adjusted_nav"] == 1.5
    money = shell.main("nav", "show", "000009", "--as-of", "2026-01-28T22:00").stdout
    assert "yields keep no earlier versions" in money


def test_codes_that_are_not_known(shell: DaemonProcess) -> None:
    revise(shell.engine)
    said = refused(shell.main("nav", "show", "00001"), 2)
    assert said.startswith("nav show: there is no fund '00001'; did you mean 000001 基金000001")
    assert "did you mean 000003 基金000003?" in refused(shell.main("nav", "show", "金000003"), 2)
    assert refused(shell.main("nav", "show", "zzz"), 2) == "nav show: there is no fund 'zzz'\n"
    assert "no NAV to adjust" in refused(shell.main("nav", "show", "000009", "--adjusted"), 2)
    order = refused(shell.main("nav", "show", "000001", "--from", "2026-01-02", "--to", "2026-01-01"), 2)
    assert order == "nav show: --from 2026-01-02 is after --to 2026-01-01\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nav", "show", "000001", "--as-of", "2026-01-28"], "is no instant; write it as 2026-01-05T20:00"),
        (["nav", "show", "000001", "--as-of", "yesterday evening"], "is no instant"),
        (["nav", "show"], "CODE"),
        (["quarantine"], "say what to do"),
        (["quarantine", "reject"], "ID"),
        (["quarantine", "release", "x"], "is not a whole number"),
        (["quarantine", "list", "--limit", "0"], "is not a whole number"),
        (["quality", "--json", "--html"], "give either --json or --html"),
        (["quality", "--date", "28.1.2026"], "is no date"),
    ],
)
def test_what_makes_no_sense(words: list[str], said: str, sqlite_engine: Engine, tmp_path: Path) -> None:
    shell = DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at("2026-01-28 22:10"))
    done = shell.main(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_without_a_night(sqlite_engine: Engine, tmp_path: Path) -> None:
    shell = in_english(DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at("2026-01-28 22:10")))
    assert "no night was collected yet" in refused(shell.main("quality"), 1)
    assert shell.main("quarantine", "list").stdout == "nothing is held\n"
    with db.write(sqlite_engine) as connection:
        connection.execute(
            insert(nav_batch).values(
                id=1,
                kind="latest",
                business_date=NIGHT,
                source="eastmoney",
                provenance="",
                collected_at=at("2026-01-28 19:00"),
                row_count=0,
                status="STAGED",
            )
        )
        connection.execute(
            insert(fund_nav).values(fund_code="000001", nav_date=NIGHT, unit_nav=1, batch_id=1)
        )
    done = shell.main("quality")
    assert (done.returncode, done.stdout.splitlines()[1].split()[:2]) == (0, ["not", "finished"]), done.stderr
