"""`main.py metrics show` and `main.py rank` as an operator types them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, insert, update

from core import db
from core.metric_columns import COLUMNS, WINDOW_METRICS, WINDOWS
from core.rank_columns import RANKED
from core.rank_store import rank_stored
from core.schema import fund_info, fund_metrics, fund_rank
from scheduler.metrics_listing import METRIC_NAMES, PERIOD_NAMES, stem, unit
from tests.daemon import DaemonProcess
from tests.example_night import NOW, at
from tests.test_command_line import in_english, lines, refused
from tests.test_ranking import DAY, fill

EARLIER = date(2026, 1, 27)


@pytest.fixture
def shell(sqlite_engine: Engine, tmp_path: Path) -> DaemonProcess:
    """Twelve stock funds, the best with a second class, and a money fund; one bond fund beside them."""
    fill(sqlite_engine)
    with db.write(sqlite_engine) as connection:
        connection.execute(update(fund_info).values(fund_type="股票型"))
        bond = {
            "fund_code": "300001",
            "fund_name": "债券基金A",
            "fund_type": "债券型-长债",
            "category": "bond",
        }
        connection.execute(insert(fund_info).values(updated_at=NOW, **bond))
        key = {"fund_code": "300001", "definition_version": "1", "nav_count": 30}
        values = {"return_1w": -1.25, "max_drawdown_peak_1y": date(2026, 1, 5), "beta_1y": 0.5}
        for day in (EARLIER, DAY):
            connection.execute(insert(fund_metrics).values(calc_date=day, nav_date=EARLIER, **key, **values))
        one = fund_metrics.c.fund_code == "000001"
        connection.execute(update(fund_metrics).where(one).values(return_1y=None, sharpe_1y=-3.5))
        rank_stored(connection, DAY)
    found = DaemonProcess(sqlite_engine, tmp_path, "http://127.0.0.1:9", at("2026-01-28 22:10"))
    return in_english(found)


def test_a_fund_with_everything_known_of_it(shell: DaemonProcess) -> None:
    [record] = lines(shell.main("metrics", "show", "000012", "--json"))
    assert (record["fund_name"], record["calc_date"], record["definition_version"]) == (
        "基金12混合",
        "2026-01-28",
        "1",
    )
    assert (record["nav_date"], record["nav_count"]) == ("2026-01-28", 500)
    assert (record["score"], record["level"]) == (90.0, "S")
    assert record["points"]["volatility_1y"] == 0.0
    assert list(record["metrics"]) == list(COLUMNS)
    assert record["metrics"]["return_1w"] == {
        **{"value": 12.0, "unit": "percent"},
        **{"rank": 1, "peers": 12, "percentile": 100.0, "quartile": 1},
    }
    assert record["metrics"]["volatility_1y"] == {"value": 12.0, "unit": "percent"}
    done = shell.main("metrics", "show", "000012")
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert text.startswith(
        "000012 基金12混合 股票型\nmetrics of 2026-01-28, definition 1; 500 NAVs, the newest of 2026"
    )
    assert "Score 90.00, level S" in text
    [week] = [line.split() for line in text.splitlines() if line.startswith("1 week")]
    assert week == ["1", "week", "12.00", "1/12", "1", "100.0"]
    sharpe = [line.split()[2:] for line in text.splitlines() if line.startswith("Sharpe ratio ")]
    assert sharpe[-1] == ["12.000"] * 3
    assert ["1", "year", "12.000", "1/12", "1", "100.0"] in sharpe
    assert "\x1b" not in text


def test_a_fund_of_which_little_is_known(shell: DaemonProcess) -> None:
    [record] = lines(shell.main("metrics", "show", "300001", "--date", "2026-01-27", "--json"))
    assert (record["calc_date"], record["score"], record["level"]) == ("2026-01-27", None, None)
    metrics = record["metrics"]
    assert metrics["return_1w"]["rank"] is None  # one bond fund has no peers
    assert metrics["max_drawdown_peak_1y"] == {"value": "2026-01-05", "unit": "date"}
    text = shell.main("metrics", "show", "300001").stdout
    assert "no score" in text
    [week] = [line.split() for line in text.splitlines() if line.startswith("1 week")]
    assert week == ["1", "week", "-1.25"]
    assert "2026-01-05" in text


def test_a_fund_or_date_that_is_not_there(shell: DaemonProcess) -> None:
    said = refused(shell.main("metrics", "show", "00012"), 2)
    assert said.startswith("metrics show: there is no fund '00012'; did you mean 000012 基金12混合")
    said = refused(shell.main("metrics", "show", "000012", "--date", "2026-01-27"), 2)
    assert said == "metrics show: there are no metrics of 000012 for 2026-01-27\n"
    with db.write(shell.engine) as connection:
        connection.execute(delete(fund_metrics))
    said = refused(shell.main("metrics", "show", "000012"), 1)
    assert (
        said == "metrics show: there are no metrics of 000012 yet; calculate them: python main.py metrics\n"
    )
    assert "there are no metrics yet" in refused(shell.main("rank"), 1)


def test_metrics_without_show_goes_on_calculating(shell: DaemonProcess) -> None:
    said = refused(shell.main("metrics"), 1)
    assert "not_ready: there are no NAVs up to 2026-01-28" in said


def test_the_newest_definition_of_a_date_is_shown(shell: DaemonProcess) -> None:
    with db.write(shell.engine) as connection:
        key = {"fund_code": "000012", "calc_date": DAY, "nav_date": DAY, "nav_count": 500}
        for version, value in (("10", 10.0), ("9", 9.0)):
            connection.execute(
                insert(fund_metrics).values(**key, definition_version=version, return_1w=value)
            )
    [record] = lines(shell.main("metrics", "show", "000012", "--json"))
    assert (record["definition_version"], record["metrics"]["return_1w"]["value"]) == ("10", 10.0)
    [record] = lines(shell.main("rank", "--by", "return_1w", "--json"))
    assert (record["definition_version"], record["value"]) == ("10", 10.0)


def test_the_best_and_the_worst(shell: DaemonProcess) -> None:
    best = lines(shell.main("rank", "--type", "股票型", "--by", "sharpe_1y", "--top", "3", "--json"))
    assert [(row["fund_code"], row["value"], row["rank"], row["peers"], row["quartile"]) for row in best] == [
        ("000012", 12.0, 1, 12, 1),
        ("000011", 11.0, 2, 12, 1),
        ("000010", 10.0, 3, 12, 1),
    ]
    assert (best[0]["score"], best[0]["level"], best[0]["calc_date"]) == (90.0, "S", "2026-01-28")
    worst = lines(shell.main("rank", "--by", "sharpe_1y", "--bottom", "2", "--json"))
    assert [row["fund_code"] for row in worst] == ["000001", "000002"]
    calm = lines(shell.main("rank", "--by", "volatility_1y", "--top", "2", "--json"))
    assert [row["fund_code"] for row in calm] == ["000001", "000002"]  # the lower is the better
    shaky = lines(shell.main("rank", "--by", "volatility_1y", "--bottom", "1", "--json"))
    assert [row["fund_code"] for row in shaky] == ["000012"]


def test_one_class_of_each_fund_unless_all_are_asked_for(shell: DaemonProcess) -> None:
    codes = [row["fund_code"] for row in lines(shell.main("rank", "--by", "return_1y", "--json"))]
    assert codes == [f"{n:06d}" for n in range(12, 1, -1)]  # 000001 has none, 100001 is a class of 000012
    every = [
        row["fund_code"] for row in lines(shell.main("rank", "--by", "return_1y", "--classes", "--json"))
    ]
    assert sorted(every) == [*sorted(codes), "100001"]
    by_score = lines(shell.main("rank", "--json"))
    assert [row["fund_code"] for row in by_score[:2]] == ["000012", "000011"]
    assert by_score[0]["metric"] == "score"
    assert by_score[0]["value"] == 90.0


@pytest.mark.parametrize("word", ["stock", "股票", "股票型", "STOCK"])
def test_a_type_in_any_of_its_names(word: str, shell: DaemonProcess) -> None:
    found = lines(shell.main("rank", "--type", word, "--by", "return_1w", "--top", "99", "--json"))
    assert len(found) == 12
    assert {row["category"] for row in found} == {"stock"}


def test_the_list_in_words(shell: DaemonProcess) -> None:
    done = shell.main("rank", "--by", "max_drawdown_3y", "--top", "2", "--type", "stock")
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout.splitlines()
    assert shown[0] == "maximum drawdown 3 years of 2026-01-28"
    assert shown[2].split() == ["000012", "股票型", "12.00", "1/12", "1", "90.00", "S", "基金12混合"]
    assert shown[-1] == "the best 2 of 12"
    nothing = shell.main("rank", "--by", "beta_1y", "--type", "stock").stdout
    assert nothing == "no fund of this type has a value of it\n"


def test_what_is_not_known_is_named_with_what_is_near(shell: DaemonProcess) -> None:
    said = refused(shell.main("rank", "--by", "sharp_1y"), 2)
    assert said.startswith("rank: there is no metric 'sharp_1y'; did you mean sharpe_1y")
    assert "there are score, return_1w" in refused(shell.main("rank", "--by", "zzzzz"), 2)
    said = refused(shell.main("rank", "--type", "股票形"), 2)
    assert said.startswith("rank: there is no fund type '股票形'; there are 债券型-长债, 股票型; and stock,")
    said = refused(shell.main("rank", "--date", "2020-01-01"), 2)
    assert said == "rank: there are no metrics for 2020-01-01; the newest are of 2026-01-28\n"
    both = shell.main("rank", "--top", "1", "--bottom", "1")
    assert both.returncode == 2
    assert "not allowed with" in both.stderr
    assert "whole number" in shell.main("rank", "--top", "0").stderr


def test_a_metric_that_was_never_ranked(shell: DaemonProcess) -> None:
    with db.write(shell.engine) as connection:
        connection.execute(delete(fund_rank))
    [row] = lines(shell.main("rank", "--by", "sharpe_1y", "--top", "1", "--json"))
    assert (row["fund_code"], row["rank"]) == ("000012", None)
    assert "12.000" in shell.main("rank", "--by", "sharpe_1y", "--top", "1").stdout


def test_every_metric_has_words_and_a_unit() -> None:
    assert set(RANKED) <= set(COLUMNS)
    assert {stem(name) for name in COLUMNS} <= set(METRIC_NAMES)  # every metric has words
    assert {stem(f"{name}_{window}") for name in WINDOW_METRICS for window in WINDOWS} <= set(METRIC_NAMES)
    assert {name.rpartition("_")[2] for name in COLUMNS} == set(PERIOD_NAMES)
    assert [
        unit(name) for name in ("return_1w", "sharpe_1y", "max_drawdown_peak_3y", "days_under_water_1y")
    ] == [
        "percent",
        "ratio",
        "date",
        "days",
    ]


def test_words_of_help(shell: DaemonProcess) -> None:
    for words in (["metrics", "show"], ["rank"], ["export"]):
        done = shell.main(*words, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: main.py {' '.join(words)}")
    listed = shell.main("--help").stdout
    assert "metrics show " in listed
    assert "export " in listed
