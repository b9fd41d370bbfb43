"""Settings: where they come from, what is refused and how, and that no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy.engine import URL

from config.settings import ROOT, environment_with, load_settings
from core.errors import ConfigurationError

PASSWORD = "p@ss#w:rd/%2F?"


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """A .env of the test's own, empty."""
    path = tmp_path / "test.env"
    path.touch()
    return path


def refusal(env_file: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """The message with which these variables are refused."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file)
    assert caught.value.code == "configuration"
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_defaults(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAVKEEPER_HOME")
    settings = load_settings(env_file)
    assert settings.database_url() == URL.create("sqlite", database=str(ROOT / "navkeeper.db"))
    assert (settings.source, settings.health_host, settings.health_port) == ("eastmoney", "127.0.0.1", 5000)
    assert (settings.risk_free_rate, settings.periods_per_year, settings.language) == (0.015, 250, "zh")
    assert settings.eastmoney_fund_url == "https://fund.eastmoney.com"
    assert settings.secrets() == []


def test_environment_goes_before_env_file_before_defaults(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(env_file).health_port == 5000
    env_file.write_text("NAVKEEPER_HEALTH_PORT=6001\nNAVKEEPER_LANGUAGE=en\nMYSQL_HOST=a.example\n")
    settings = load_settings(env_file)
    assert (settings.health_port, settings.language, settings.mysql_host) == (6001, "en", "a.example")
    monkeypatch.setenv("NAVKEEPER_HEALTH_PORT", "6002")
    monkeypatch.setenv("MYSQL_HOST", "b.example")
    settings = load_settings(env_file)
    assert (settings.health_port, settings.language, settings.mysql_host) == (6002, "en", "b.example")


def test_a_missing_env_file_is_fine(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "nothing.env").health_port == 5000


def test_home_places_database_and_logs(env_file: Path, tmp_path: Path) -> None:
    settings = load_settings(env_file)
    assert settings.database_url() == URL.create("sqlite", database=str(tmp_path / "navkeeper.db"))
    assert settings.logs == tmp_path / "logs"


@pytest.mark.parametrize("prefix", ["MYSQL_", "NAVKEEPER_MYSQL_"])
def test_mysql_names_select_mysql(env_file: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    values = {"HOST": "db.example", "PORT": "3307", "USER": "u", "PASSWORD": PASSWORD, "DB": "funds"}
    for name, value in values.items():
        monkeypatch.setenv(prefix + name, value)
    url = load_settings(env_file).database_url()
    assert url == URL.create("mysql+pymysql", "u", PASSWORD, "db.example", 3307, "funds")


def test_mysql_by_database_name_alone(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_DB", "funds")
    url = load_settings(env_file).database_url()
    assert url == URL.create("mysql+pymysql", "root", None, "127.0.0.1", 3306, "funds")


def test_db_url_goes_before_the_mysql_names(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_HOST", "db.example")
    monkeypatch.setenv("NAVKEEPER_DB_URL", "sqlite:////data/navs.db")
    assert load_settings(env_file).database_url() == URL.create("sqlite", database="/data/navs.db")


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"])
def test_every_way_to_say_mysql_is_driven_by_pymysql(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    written = URL.create(scheme, "u", PASSWORD, "db.example", 3307, "funds")
    monkeypatch.setenv("NAVKEEPER_DB_URL", written.render_as_string(hide_password=False))
    url = load_settings(env_file).database_url()
    assert url == URL.create("mysql+pymysql", "u", PASSWORD, "db.example", 3307, "funds")


@pytest.mark.parametrize("by_url", [False, True])
def test_a_password_is_shown_nowhere(env_file: Path, monkeypatch: pytest.MonkeyPatch, by_url: bool) -> None:
    address = URL.create("mysql", "u", PASSWORD, "db.example", 3306, "funds")
    if by_url:
        monkeypatch.setenv("NAVKEEPER_DB_URL", address.render_as_string(hide_password=False))
    else:
        monkeypatch.setenv("MYSQL_HOST", "db.example")
        monkeypatch.setenv("MYSQL_PASSWORD", PASSWORD)
    settings = load_settings(env_file)
    assert PASSWORD in settings.secrets()
    for shown in (str(settings), repr(settings), repr(settings.database_url()), str(settings.model_dump())):
        assert "p@ss" not in shown
        assert "p%40ss" not in shown


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("postgresql://u:p%40ss@h/db", "allowed: sqlite"),
        ("mysql://u:p%40ss@h:port/db", "allowed: sqlite"),
        ("mysql://u:p%40ss@h", "allowed: sqlite"),
        ("p@ss", "allowed: sqlite"),
        ("sqlite://", "in-memory"),
        ("sqlite:///:memory:", "in-memory"),
    ],
)
def test_a_wrong_database_address_is_refused_without_showing_it(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, url: str, allowed: str
) -> None:
    message = refusal(env_file, monkeypatch, NAVKEEPER_DB_URL=url)
    assert message.startswith("NAVKEEPER_DB_URL = (hidden) is not allowed: ")
    assert allowed in message
    assert "p@ss" not in message
    assert "p%40ss" not in message


def test_a_password_without_a_server_is_refused_without_showing_it(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(env_file, monkeypatch, MYSQL_PASSWORD=PASSWORD)
    assert "MYSQL_PASSWORD is set, but neither MYSQL_HOST nor MYSQL_DB" in message
    assert "p@ss" not in message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NAVKEEPER_HEALTH_PORT", "http", "'http' is not allowed: a whole number from 0 to 65535"),
        ("NAVKEEPER_HEALTH_PORT", "65536", "'65536' is not allowed: a whole number from 0 to 65535"),
        ("NAVKEEPER_HEALTH_PORT", "5.5", "'5.5' is not allowed: a whole number from 0 to 65535"),
        ("NAVKEEPER_HEALTH_PORT", "", "'' is not allowed: a whole number from 0 to 65535"),
        ("MYSQL_PORT", "0", "'0' is not allowed: a whole number from 1 to 65535"),
        ("NAVKEEPER_RISK_FREE_RATE", "1.5", "'1.5' is not allowed: a number from -0.05 to 0.5"),
        ("NAVKEEPER_RISK_FREE_RATE", "nan", "'nan' is not allowed: a number from -0.05 to 0.5"),
        ("NAVKEEPER_REQUESTS_PER_SECOND", "0", "'0' is not allowed: a number over 0 to 1000"),
        ("NAVKEEPER_LANGUAGE", "fr", "'fr' is not allowed: 'zh' or 'en'"),
        ("NAVKEEPER_LOG_LEVEL", "loud", "'loud' is not allowed: 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("NAVKEEPER_EASTMONEY_FUND_URL", "ftp://x", "'ftp://x' is not allowed: an address such as https://"),
        ("NAVKEEPER_SOURCE", "", "'' is not allowed: "),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    assert refusal(env_file, monkeypatch, **{name: value}).startswith(f"{name} = {message}")


@pytest.mark.parametrize(
    ("name", "good"),
    [("NAVKEEPER_HEALTH_PORT", "65535"), ("MYSQL_PORT", "1"), ("NAVKEEPER_RISK_FREE_RATE", "0.5")],
)
def test_the_last_allowed_value_is_allowed(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, good: str
) -> None:
    monkeypatch.setenv("MYSQL_HOST", "127.0.0.1")  # a port alone would be refused
    monkeypatch.setenv(name, good)
    load_settings(env_file)


def test_a_lone_mysql_setting_is_refused(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "MYSQL_PORT is set, but neither MYSQL_HOST nor MYSQL_DB" in refusal(
        env_file, monkeypatch, MYSQL_PORT="3307"
    )


@pytest.mark.parametrize("query", ["user=root&password=S3CRETpw", "passwd=S3CRETpw"])
def test_credentials_in_the_query_of_the_url_are_refused_unseen(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    url = f"mysql+pymysql://127.0.0.1/navkeeper?{query}"
    message = refusal(env_file, monkeypatch, NAVKEEPER_DB_URL=url)
    assert "belong before the host" in message
    assert "S3CRET" not in message


def test_the_home_folder_is_absolute(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "an absolute path" in refusal(env_file, monkeypatch, NAVKEEPER_HOME="somewhere")
    monkeypatch.setenv("NAVKEEPER_HOME", "~/navs")
    assert load_settings(env_file).home == Path.home() / "navs"


def test_all_wrong_values_are_named_at_once(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("NAVKEEPER_LANGUAGE=fr\n")
    message = refusal(env_file, monkeypatch, NAVKEEPER_HEALTH_PORT="x", MYSQL_PORT="99999")
    assert sorted(line.split(" = ")[0] for line in message.splitlines()) == [
        "MYSQL_PORT",
        "NAVKEEPER_HEALTH_PORT",
        "NAVKEEPER_LANGUAGE",
    ]


def test_an_unknown_setting_is_refused_with_a_suggestion(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(env_file, monkeypatch, NAVKEEPER_HEALT_PORT="5000")
    assert message == "unknown setting NAVKEEPER_HEALT_PORT; did you mean NAVKEEPER_HEALTH_PORT?"
    monkeypatch.delenv("NAVKEEPER_HEALT_PORT")
    env_file.write_text("NAVKEEPER_QQQQQQ=1\n")
    assert refusal(env_file, monkeypatch) == "unknown setting NAVKEEPER_QQQQQQ"


def test_settings_are_frozen(env_file: Path) -> None:
    settings = load_settings(env_file)
    with pytest.raises(ValidationError, match="frozen"):
        settings.health_port = 1


def test_a_child_gets_this_environment_with_some_settings_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVKEEPER_LANGUAGE", "en")
    monkeypatch.setenv("NAVKEEPER_HEALTH_PORT", "6001")
    child = environment_with(health_port=6002)
    assert (child["NAVKEEPER_LANGUAGE"], child["NAVKEEPER_HEALTH_PORT"]) == ("en", "6002")


def test_benchmarks_are_codes_between_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().benchmarks == ("000300", "000985")
    monkeypatch.setenv("NAVKEEPER_BENCHMARKS", "000300, 399001")
    assert load_settings().benchmarks == ("000300", "399001")
    monkeypatch.setenv("NAVKEEPER_BENCHMARKS", "")
    assert load_settings().benchmarks == ()
    monkeypatch.setenv("NAVKEEPER_BENCHMARKS", "sh000300")
    with pytest.raises(ConfigurationError, match=r"NAVKEEPER_BENCHMARKS = 'sh000300' .*six digits"):
        load_settings()


def test_a_token_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVKEEPER_TUSHARE_TOKEN", "s3cr3t/t0ken")
    settings = load_settings()
    assert settings.secrets() == ["s3cr3t/t0ken", "s3cr3t%2Ft0ken"]
    assert "s3cr3t" not in repr(settings)


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "tls://dask.example:443", "tcp://[::1]:8786"])
def test_addresses_of_a_cluster(env_file: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NAVKEEPER_CLUSTER", address)
    assert load_settings(env_file).cluster == address


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1:8786", "tcp://host", "http://host:8786", "tcp://host:70000", "tcp://a:1/b", "tcp://:1"],
)
def test_what_is_no_address_of_a_cluster(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    said = refusal(env_file, monkeypatch, NAVKEEPER_CLUSTER=address)
    assert said == (
        f"NAVKEEPER_CLUSTER = {address!r} is not allowed: "
        "the address of a Dask scheduler such as tcp://host:8786 or tls://host:8786"
    )
