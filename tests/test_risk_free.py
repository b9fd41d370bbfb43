"""Risk-free rates: what `main.py risk-free` does with them, and what metrics make of them."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from core import db
from core.errors import UsageError
from core.risk_free import rates_for_metrics, rates_on_record, remove_rate, set_rate
from tests.daemon import DaemonProcess
from tests.example_night import NOW
from tests.test_command_line import in_english, lines, refused
from tests.test_metrics_calculator import DAYS, fill, market

DAY = date(2025, 5, 20)


@pytest.fixture
def shell(sqlite_engine: Engine, tmp_path: Path) -> DaemonProcess:
    return in_english(DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", NOW))


def test_rates_are_set_listed_and_removed(shell: DaemonProcess) -> None:
    setting = {"effective_from": None, "rate": 0.015, "note": "NAVKEEPER_RISK_FREE_RATE"}
    assert lines(shell.main("risk-free", "--json")) == [setting]
    done = shell.main("risk-free", "set", "2025-05-20", "1.35%", "--note", "one-year deposits")
    assert done.stdout == (
        "from 2025-05-20 on the risk-free rate is 1.35 % a year\n"
        "the next night reckons with it; metrics of past dates stay as they are until: "
        "python main.py metrics --date YYYY-MM-DD\n"
    ), done.stderr
    [record] = lines(shell.main("risk-free", "set", "2025-05-20", "0.012", "--json"))
    expected = {"action": "set", "effective_from": "2025-05-20", "rate": 0.012, "before": 0.0135}
    assert record == expected
    assert shell.main("risk-free", "set", "2015-01-01", "-0.5%").returncode == 0
    assert shell.main("risk-free", "set", "2026-01-01", "2\N{FULLWIDTH PERCENT SIGN}").returncode == 0
    rates = [setting] + [
        {"effective_from": day, "rate": rate, "note": None}
        for day, rate in (("2015-01-01", -0.005), ("2025-05-20", 0.012), ("2026-01-01", 0.02))
    ]
    assert lines(shell.main("risk-free", "--json")) == rates
    rows = [line.split() for line in shell.main("risk-free").stdout.splitlines()]
    assert rows[0] == ["Risk-free", "rates"]
    assert ["before", "1.5", "NAVKEEPER_RISK_FREE_RATE"] in rows
    assert [row for row in rows if row[:1] == ["2025-05-20"]] == [["2025-05-20", "1.2"]]
    done = shell.main("risk-free", "remove", "2025-05-20")
    assert done.stdout.startswith("the risk-free rate from 2025-05-20 on, 1.2 % a year, is removed"), (
        done.stderr
    )
    said = refused(shell.main("risk-free", "remove", "2025-05-20"), 2)
    assert said == (
        "risk-free: there is no risk-free rate from 2025-05-20 on; there are 2015-01-01, 2026-01-01\n"
    )


def test_what_is_no_rate_is_refused(shell: DaemonProcess) -> None:
    for text in ("1.5", "50.1%", "-6%"):
        said = refused(shell.main("risk-free", "set", str(DAY), text), 2)
        assert "is outside of -5% to 50%; write 1.5% or 0.015" in said
    for text in ("high", "nan", "%", "inf%", "1,5%"):
        done = shell.main("risk-free", "set", str(DAY), text)
        assert done.returncode == 2
        assert f"{text!r} is no rate; write it as 1.5% or 0.015" in done.stderr
    assert len(lines(shell.main("risk-free", "--json"))) == 1


def test_the_bounds_themselves_are_rates(engine: Engine) -> None:
    with db.write(engine) as connection:
        assert set_rate(connection, date.min, -0.05) is None
        assert set_rate(connection, date.max, 0.5, "x" * 300) is None
        assert set_rate(connection, date.max, 0.4) == 0.5
        days, rates = rates_for_metrics(connection, 0.015)
        assert (len(days), rates.tolist()) == (3, [0.015, -0.05, 0.4])
        with pytest.raises(UsageError, match="outside"):
            set_rate(connection, DAY, math.nextafter(0.5, 1))
        assert remove_rate(connection, date.min) == -0.05
        assert [row.rate for row in rates_on_record(connection)] == [0.4]


def test_before_the_first_rate_the_setting_holds(engine: Engine) -> None:
    # 1.0 and 1.1 in turn: thirty returns of 0.1, thirty of -1/11; the last twenty end under the new rate
    days = DAYS[-61:]
    fill(engine, {"000001": [(day, 1.1 if n % 2 else 1.0) for n, day in enumerate(days)]}, {})
    volatility = 21 / 220 * math.sqrt(60 / 59) * math.sqrt(250)

    def sharpe(rate: float) -> float:
        return (1 / 220 - rate) * 250 / volatility

    setting, rate = 1.015 ** (1 / 250) - 1, 1.2 ** (1 / 250) - 1
    assert market(engine)["000001"]["sharpe_inception"] == pytest.approx(sharpe(setting), rel=1e-12)
    with db.write(engine) as connection:
        set_rate(connection, days[41], 0.2)
    mixed = (40 * setting + 20 * rate) / 60
    assert market(engine)["000001"]["sharpe_inception"] == pytest.approx(sharpe(mixed), rel=1e-12)
    with db.write(engine) as connection:
        remove_rate(connection, days[41])
    assert market(engine)["000001"]["sharpe_inception"] == pytest.approx(sharpe(setting), rel=1e-12)
