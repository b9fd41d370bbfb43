"""The shipped plugins through the real daemon: switched on, fed from the command line, told of the night by events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from config.settings import ROOT
from core import db
from core.holdings.tables import holdings_order, holdings_position
from core.market.tables import market_macro, market_risk, market_technical
from core.schema import fund_nav, job_run, run_event
from core.standin import StandinServer, simulated_market
from core.trading_calendar import library_sessions
from scheduler.events import LONGEST
from scheduler.holdings_plugin import _told
from tests.daemon import SWEEPS, DaemonProcess, at, jobs_file, until
from tests.market_site import running

DAY, NEXT = date(2025, 11, 27), date(2025, 11, 28)  # a Thursday and a Friday; no holiday near
FUNDS = 12
MARKET_JOBS = {"market_technical", "market_fundamentals", "market_macro", "market_news", "market_risk"}
CENT = Decimal("0.01")


def typed(process: DaemonProcess, *words: str) -> str:
    done = process.main(*words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def run_of(process: DaemonProcess, job: str, day: date, status: str) -> Any:
    """The newest run of a job for a date, once it is in this state."""

    def newest() -> Any:
        found = [row for row in process.runs(day) if row.job_id == job]
        return found[-1] if found else None

    return until(newest, lambda row: row is not None and row.status == status, f"{job} {status} for {day}")


def stored(engine: Engine, table: Any) -> list[Any]:
    with db.read(engine) as connection:
        return list(connection.execute(select(table)))


def nav_of(engine: Engine, code: str, day: date) -> Decimal:
    with db.read(engine) as connection:
        mine = (fund_nav.c.fund_code == code, fund_nav.c.nav_date == day)
        return Decimal(str(connection.scalar(select(fund_nav.c.unit_nav).where(*mine))))


@pytest.fixture
def house(engine: Engine, tmp_path: Path) -> Iterator[tuple[DaemonProcess, StandinServer]]:
    """The night's chain up to the merge, on a small market; both plugins are allowed and off."""
    market = simulated_market(FUNDS, date(2025, 9, 1), NEXT, 7, library_sessions())
    jobs = jobs_file(tmp_path, without=(*SWEEPS, "metrics", "weekly"))
    with StandinServer(market, now=at(DAY, 18)) as standin:
        process = DaemonProcess(engine, tmp_path, standin.url, at(DAY, 9), jobs)
        process.environment |= {"NAVKEEPER_PLUGINS": "holdings,market", "NAVKEEPER_LANGUAGE": "en"}
        with process:
            yield process, standin


def night(process: DaemonProcess, standin: StandinServer, day: date) -> None:
    standin.set_now(at(day, 18, 59))
    process.set_clock(at(day, 19))
    process.reach(day, {"collect": "SUCCESS"})
    process.set_clock(at(day, 19, 30))
    process.reach(day, {"validate": "SUCCESS"})


@pytest.mark.timeout(280)
def test_holdings_follow_the_night(house: tuple[DaemonProcess, StandinServer], tmp_path: Path) -> None:
    process, standin = house
    engine = process.engine
    typed(process, "plugins", "check")
    refused = process.main("tasks", "run", "holdings.settle")
    assert (refused.returncode, "main.py plugins enable holdings" in refused.stderr) == (2, True)
    assert "ENABLED" in typed(process, "plugins", "enable", "holdings", "--json")
    typed(
        process, "jobs", "create", "holdings_settle", "--task", "holdings.settle", "--on", "data.nav.merged"
    )
    night(process, standin, DAY)
    run_of(process, "holdings_settle", DAY, "SUCCESS")

    with db.read(engine) as connection:
        merged = select(fund_nav.c.fund_code).where(fund_nav.c.nav_date == DAY).order_by(fund_nav.c.fund_code)
        code = str(connection.scalars(merged).first())
    orders = tmp_path / "orders.csv"
    orders.write_text(
        "fund_code,kind,quantity,placed_at,fee_rate,reference\n"
        f"{code},buy,1000.00,{DAY}T14:59,0.15,A-1\n{code},buy,500.00,{DAY}T15:00,,A-2\n",
        encoding="utf-8",
    )
    said = typed(
        process, "tasks", "run", "holdings.record", "--param", "portfolio=我的", "--param", f"file={orders}"
    )
    assert "holdings.record" in said
    run_of(process, "holdings.record", DAY, "SUCCESS")
    night(process, standin, NEXT)
    run = run_of(process, "holdings_settle", NEXT, "SUCCESS")

    first, second = nav_of(engine, code, DAY), nav_of(engine, code, NEXT)
    bought = [
        (Decimal(1000) / Decimal("1.0015")).quantize(CENT, ROUND_HALF_UP) / first,
        Decimal(500) / second,
    ]
    shares = [part.quantize(CENT, ROUND_HALF_UP) for part in bought]
    found = {row.reference: row for row in stored(engine, holdings_order)}
    assert {key: (row.status, row.nav_date) for key, row in found.items()} == {
        "A-1": ("FILLED", DAY),
        "A-2": ("FILLED", NEXT),
    }
    assert [Decimal(str(found[key].shares)) for key in ("A-1", "A-2")] == shares
    told = json.loads(typed(process, "events", "--topic", "holdings.settled", "--json", "--limit", "1"))
    assert told["payload"]["business_date"] == NEXT.isoformat()
    value = sum((part * second for part in shares), Decimal()).quantize(CENT, ROUND_HALF_UP)
    assert told["payload"]["portfolios"]["我的"]["value"] == pytest.approx(float(value), abs=0.011)
    shown = json.loads(typed(process, "runs", "show", str(run.id), "--json"))
    assert shown["result"]["portfolios"]["我的"]["invested"] == 1500
    assert {row.position_date for row in stored(engine, holdings_position)} <= {DAY, NEXT}


def test_any_number_of_portfolios_fits_into_the_event() -> None:
    figures = dict.fromkeys(("value", "cost", "invested", "returned", "profit"), 123456789012.12)
    totals = {f"{number:04d}{'财' * 60}": figures | {"value": float(number)} for number in range(1000)}
    told = _told(totals)
    assert len(json.dumps({"business_date": "2025-11-28"} | told, ensure_ascii=False).encode()) < LONGEST
    assert (told["left_out"], len(told["portfolios"])) == (960, 40)
    assert min(told["portfolios"]).startswith("0960")


@pytest.mark.timeout(280)
def test_the_markets_jobs_are_imported_with_one_command_and_run(
    sqlite_engine: Engine, data: Path, tmp_path: Path
) -> None:
    shipped, key = str(ROOT / "config" / "market_jobs.toml"), "k" * 32
    jobs = tmp_path / "jobs.toml"
    jobs.write_text('[idle]\ntask = "size_watch"\ncron = { month = 6, day = 1 }\n', encoding="utf-8")
    with running(data) as site:
        process = DaemonProcess(sqlite_engine, tmp_path, site.url, at(DAY, 11, 20), jobs)
        process.environment |= {
            "NAVKEEPER_PLUGINS": "holdings,market",
            "NAVKEEPER_LANGUAGE": "en",
            "NAVKEEPER_SECRETS": json.dumps({"fred_api_key": key}),
        }
        with process:
            typed(process, "plugins", "check")
            refused = process.main("jobs", "import", shipped)
            assert refused.returncode == 2
            assert "main.py plugins enable market" in refused.stderr
            typed(process, "plugins", "enable", "market")
            made = [
                json.loads(line) for line in typed(process, "jobs", "import", shipped, "--json").splitlines()
            ]
            assert {record["job"] for record in made} == MARKET_JOBS
            again = process.main("jobs", "import", shipped)
            assert (again.returncode, "nothing is stored" in again.stderr) == (2, True)
            here = {"requests_per_second": 1000}
            macro = here | {"datacenter_url": site.url, "fred_url": site.url, "fred_series": ["GNPCA"]}
            typed(process, "jobs", "change", "market_macro", "--params", json.dumps(macro))
            technical = here | {"quote_url": site.url, "indexes": ["000300"]}
            typed(process, "jobs", "change", "market_technical", "--params", json.dumps(technical))
            typed(process, "jobs", "create", "after_risk", "--task", "size_watch", "--on", "market.risk")
            process.set_clock(at(DAY, 11, 30))
            run_of(process, "market_macro", DAY, "SUCCESS")
            process.set_clock(at(DAY, 12, 10))
            run_of(process, "market_technical", DAY, "SUCCESS")
            process.set_clock(at(DAY, 12, 45))
            run = until(
                lambda: [row for row in process.runs() if row.job_id == "market_risk"],
                lambda rows: bool(rows) and rows[-1].status in ("SUCCESS", "PARTIAL"),
                "market_risk",
            )[-1]
            until(
                lambda: [row.status for row in process.runs() if row.job_id == "after_risk"],
                lambda found: bool(found) and set(found) == {"SUCCESS"},
                "after_risk",
            )
            shown = json.loads(typed(process, "runs", "show", str(run.id), "--json"))
    assert shown["result"]["as_of"] == run.business_date.isoformat()
    assert {row.series for row in stored(sqlite_engine, market_macro)} >= {"cpi_yoy", "fred:GNPCA"}
    assert {row.code for row in stored(sqlite_engine, market_technical)} == {"index:000300"}
    days = {row.as_of for row in stored(sqlite_engine, market_risk)}
    told = [row for row in stored(sqlite_engine, run_event) if row.topic == "market.risk"]
    assert len(told) == len(days) >= 1
    caused = {row.event_id for row in stored(sqlite_engine, job_run) if row.job_id == "after_risk"}
    assert caused == {row.id for row in told}
    assert query_has(site.asked, key)
    for path in (tmp_path / "logs").rglob("*"):
        assert not path.is_file() or key not in path.read_text(encoding="utf-8", errors="replace"), path


def query_has(asked: list[tuple[str, dict[str, str]]], key: str) -> bool:
    """The key went where it belongs."""
    return any(query.get("api_key") == key for _path, query in asked)
