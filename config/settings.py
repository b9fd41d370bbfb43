"""One frozen Settings: environment over .env over defaults. The only reader of os.environ."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from core.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "NAVKEEPER_"
DRIVERS = {"sqlite": "sqlite", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}

SECRET_LENGTH = (
    12  # characters; no secret of the chats' robots is shorter, no word of their addresses as long
)
MYSQL_NAMES = ("MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_DB")


def _mysql(name: str) -> Any:
    return AliasChoices(f"MYSQL_{name}", f"{PREFIX}MYSQL_{name}")


HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+$")]


class Settings(BaseSettings):
    """What an operator may change. Field names, upper-cased after NAVKEEPER_, are the variables."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(ROOT, description="folder of the database, lock, pid and log files")
    db_url: SecretStr | None = Field(None, description="SQLAlchemy URL; goes before MYSQL_*")
    mysql_host: str | None = Field(None, validation_alias=_mysql("HOST"))
    mysql_port: Annotated[int, Field(ge=1, le=65535)] = Field(3306, validation_alias=_mysql("PORT"))
    mysql_user: str | None = Field(None, validation_alias=_mysql("USER"))
    mysql_password: SecretStr | None = Field(None, validation_alias=_mysql("PASSWORD"))
    mysql_db: str | None = Field(None, validation_alias=_mysql("DB"))

    source: str = Field(
        "eastmoney", min_length=1, description="'eastmoney', 'tushare', or a CSV/Parquet file or folder"
    )
    second_source: str | None = Field(
        None, min_length=1, description="for the job second: 'tushare', 'eastmoney', or a file or folder"
    )
    eastmoney_fund_url: HttpUrl = "https://fund.eastmoney.com"
    eastmoney_api_url: HttpUrl = "https://api.fund.eastmoney.com"
    eastmoney_quote_url: HttpUrl = "https://push2his.eastmoney.com"
    tushare_url: HttpUrl = "http://api.waditu.com"
    tushare_token: SecretStr | None = Field(None, description="the user's own; needed for the source tushare")
    benchmarks: Annotated[tuple[str, ...], NoDecode] = Field(
        ("000300", "000985"), description="indices whose closes are kept, comma-separated"
    )
    requests_per_second: Annotated[float, Field(gt=0, le=1000)] = 5.0
    concurrency: Annotated[int, Field(ge=1, le=32)] = 4

    risk_free_rate: Annotated[float, Field(ge=-0.05, le=0.5)] = Field(
        0.015, description="a year, as a fraction"
    )
    periods_per_year: Annotated[int, Field(ge=1, le=366)] = 250
    retention_days: Annotated[dict[str, int], NoDecode] = Field(
        {},
        description="how long rows are kept where not as core.retention has it, such as staging=30,runs=365",
    )
    metrics_days: Annotated[int, Field(ge=31, le=36500)] = Field(
        400, description="daily metrics are kept so long, then those of each month's last date"
    )
    drain_seconds: Annotated[int, Field(ge=0, le=86400)] = 600

    backup_folder: Path | None = Field(None, description="of backups; default: backups/ in the home folder")
    backup_s3: str | None = Field(None, description="s3://bucket/prefix, where each backup is copied to")
    backup_s3_endpoint: HttpUrl | None = Field(None, description="of storage that is not Amazon's")
    backup_s3_key: str | None = Field(None, description="access key; else as boto3 finds it")
    backup_s3_secret: SecretStr | None = Field(None, description="its secret key")

    health_host: str = Field("127.0.0.1", min_length=1)
    health_port: Annotated[int, Field(ge=0, le=65535)] = 5000
    viewer_token_hash: str | None = Field(None, description="whose token may read over HTTP: main.py token")
    admin_token_hash: str | None = Field(None, description="whose token may read and act over HTTP")
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names by which the server is asked for, comma-separated; addresses need not be named"
    )
    alert_channels: SecretStr | None = Field(
        None, description="where alerts go, tried in this order, blanks between them: docs/alerts.md"
    )
    heartbeat_url: SecretStr | None = Field(None, description="a dead man's switch, pinged once a night")
    language: Literal["zh", "en"] = "zh"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    jobs_file: Path = Field(ROOT / "config" / "jobs.toml", description="the jobs and their times")
    max_running: Annotated[int, Field(ge=1, le=64)] = Field(2, description="runs at once")

    cluster: str | None = Field(
        None, description="a Dask scheduler, tcp://host:8786, for back-fill and full recalculation"
    )

    cache_url: SecretStr | None = Field(
        None, description="a Redis server for the cache, redis://host:6379/0, instead of the database"
    )

    plugins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="which plugins may be loaded: ids or modules, comma-separated; no other ever is"
    )
    plugin_secrets: SecretStr | None = Field(
        None,
        validation_alias=f"{PREFIX}SECRETS",
        description="what plugins ask for by name, as JSON: {'api_key': '…'}",
    )

    clock_file: Path | None = Field(None, description="for proofs: a file holding the present instant")
    crash_at: str | None = Field(None, description="for proofs: a point of core.crash_points to die at")
    notify_socket: str | None = Field(None, validation_alias="NOTIFY_SOCKET", description="systemd's")

    @field_validator("home", "backup_folder")
    @classmethod
    def _absolute_home(cls, value: Path | None) -> Path | None:
        found = value.expanduser() if value is not None else None
        if found is not None and not found.is_absolute():
            raise ValueError("an absolute path, since a relative one would depend on the current folder")
        return found

    @field_validator("benchmarks", mode="before")
    @classmethod
    def _index_codes(cls, value: Any) -> Any:
        codes = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
        if codes == ("",):
            return ()
        if not all(isinstance(code, str) and re.fullmatch(r"\d{6}", code, re.ASCII) for code in codes):
            raise ValueError("index codes of six digits, comma-separated, such as 000300,000985")
        return codes

    @field_validator("retention_days", mode="before")
    @classmethod
    def _days_by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.split("=") for part in value.split(",")] if value.strip() else []
        if not all(
            len(part) == 2 and re.fullmatch(r"[1-9]\d{0,4}", part[1].strip(), re.ASCII) for part in parts
        ):
            raise ValueError("names with days from 1 to 99999, comma-separated, such as staging=30,runs=365")
        from core.retention import kept_days

        days, known = {name.strip(): int(count) for name, count in parts}, kept_days({})
        if unknown := sorted(days.keys() - known.keys()):
            raise ValueError(f"{unknown[0]!r} is not kept for a time; known are {', '.join(known)}")
        return days

    @field_validator("backup_s3")
    @classmethod
    def _bucket(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[^\s?#]*)?", value, re.ASCII):
            raise ValueError("a bucket, with a prefix if you like, such as s3://bucket/navkeeper")
        return value or None

    @field_validator("viewer_token_hash", "admin_token_hash")
    @classmethod
    def _token_hash(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"[0-9a-f]{64}", value, re.ASCII):
            raise ValueError("the hash of a token as main.py token prints it, 64 characters")
        return value or None

    @field_validator("trusted_hosts", mode="before")
    @classmethod
    def _host_names(cls, value: Any) -> Any:
        names = tuple(part.strip().lower() for part in value.split(",")) if isinstance(value, str) else value
        if names == ("",):
            return ()
        if not all(isinstance(name, str) and re.fullmatch(r"[a-z0-9.-]+", name, re.ASCII) for name in names):
            raise ValueError("host names without port, comma-separated, such as nav.example.com")
        return names

    @field_validator("plugins", mode="before")
    @classmethod
    def _plugin_names(cls, value: Any) -> Any:
        names = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
        if names == ("",):
            return ()
        wanted = r"[A-Za-z_][\w.-]{0,127}"
        if not all(isinstance(name, str) and re.fullmatch(wanted, name, re.ASCII) for name in names):
            raise ValueError("ids of plugins or names of modules, comma-separated, such as market,my_plugin")
        return tuple(dict.fromkeys(names))

    @field_validator("plugin_secrets")
    @classmethod
    def _named_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            found = json.loads(value.get_secret_value()) if value and value.get_secret_value() else {}
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise ValueError('a JSON object of texts such as {"api_key": "…"}')
        return value if found else None

    @field_validator("cluster")
    @classmethod
    def _scheduler_address(cls, value: str | None) -> str | None:
        port = re.fullmatch(r"(?:tcp|tls)://(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", value or "", re.ASCII)
        if value and (port is None or not 0 < int(port[1]) < 65536):
            raise ValueError("the address of a Dask scheduler such as tcp://host:8786 or tls://host:8786")
        return value or None

    @field_validator("cache_url")
    @classmethod
    def _redis_address(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value else ""
        if text and not re.fullmatch(r"(rediss?|unix)://\S+", text, re.ASCII):
            raise ValueError("the address of a Redis server such as redis://:password@host:6379/0")
        return value if text else None

    @field_validator("db_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            database_address(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _mysql_is_whole(self) -> Settings:
        given = ("mysql_port", "mysql_user", "mysql_password")
        lonely = [name.upper() for name in given if name in self.model_fields_set]
        if self.db_url is None and lonely and not (self.mysql_host or self.mysql_db):
            raise ValueError(
                f"{lonely[0]} is set, but neither MYSQL_HOST nor MYSQL_DB: set them to use MySQL, "
                f"or unset {lonely[0]} to use SQLite"
            )
        return self

    def database_url(self) -> URL:
        """The database to use. Printing this URL hides the password."""
        if self.db_url is not None:
            return database_address(self.db_url.get_secret_value())
        if self.mysql_host or self.mysql_db:
            return URL.create(
                "mysql+pymysql",
                username=self.mysql_user or "root",
                password=self.mysql_password.get_secret_value() if self.mysql_password else None,
                host=self.mysql_host or "127.0.0.1",
                port=self.mysql_port,
                database=self.mysql_db or "navkeeper",
            )
        return URL.create("sqlite", database=str(self.home / "navkeeper.db"))

    @property
    def backups(self) -> Path:
        return self.backup_folder or self.home / "backups"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    def secrets_by_name(self) -> dict[str, str]:
        """What plugins may ask for."""
        found: dict[str, str] = (
            json.loads(self.plugin_secrets.get_secret_value()) if self.plugin_secrets else {}
        )
        return found

    def secrets(self) -> list[str]:
        """Texts that must never be written anywhere: passwords and tokens, also as an address spells them."""
        found = (
            self.database_url().password,
            self.tushare_token.get_secret_value() if self.tushare_token else None,
            *_secrets_of_addresses(self.alert_channels),
            *_secrets_of_addresses(self.heartbeat_url),
            self.backup_s3_secret.get_secret_value() if self.backup_s3_secret else None,
            *_secrets_of_addresses(self.cache_url),
            *self.secrets_by_name().values(),
        )
        texts = [text for secret in found if secret for text in (secret, quote(secret, safe=" +"))]
        return list(dict.fromkeys(texts))


def _secrets_of_addresses(addresses: SecretStr | None) -> list[str]:
    """What in them may be a secret: the whole, and every part but scheme and host that is not a plain short word."""
    found = []
    for address in addresses.get_secret_value().split() if addresses else []:
        found.append(address)
        head, _, path = address.partition("://")[2].partition("/")
        login, _, host = head.rpartition("@")
        if address.startswith("apprise+"):  # whose services put their tokens where a host would be
            login = f"{login}/{host}"
        parts = re.split(r"[/?&=:#]", f"{login}/{path}")
        found += [text for part in parts if len(part) >= SECRET_LENGTH for text in (part, unquote(part))]
        found += [text for text in (login.partition(":")[2],) if text for text in (text, unquote(text))]
    return found


def database_address(text: str) -> URL:
    """A database's URL with the driver it is used with. Raises ValueError saying what is allowed."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number; its text holds the URL
        url = None
    driver = DRIVERS.get(url.get_backend_name()) if url is not None else None
    if url is None or driver is None or (driver != "sqlite" and not url.database):
        raise ValueError(
            "allowed: sqlite:////absolute/path.db or mysql+pymysql://user:password@host:3306/database"
        )
    if url.query.keys() & {"user", "password", "passwd"}:
        raise ValueError(
            "user and password belong before the host: mysql+pymysql://user:password@host/database"
        )
    if driver == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("an in-memory SQLite database cannot be shared by processes; name a file")
    return url.set(drivername=driver)


def load_settings(env_file: Path | None = None, **overrides: Any) -> Settings:
    """Read environment, .env and defaults. Raises ConfigurationError naming key, value and what is allowed."""
    path = env_file or ROOT / ".env"
    names = set(os.environ) | set(dotenv_values(path) if path.exists() else {})
    known = {name.upper() for name in Settings.model_fields} | {"SECRETS"}
    for name in sorted(names):
        key = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and key not in known and not key.startswith("TEST_"):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            raise ConfigurationError(f"unknown setting {name}{hint}")
        near = difflib.get_close_matches(name, MYSQL_NAMES, n=1, cutoff=0.9)
        if name.startswith("MYSQL") and near and name not in MYSQL_NAMES:
            raise ConfigurationError(f"unknown setting {name}; did you mean {near[0]}?")
    try:
        return Settings(_env_file=path, **overrides)  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(item) for item in error.errors())) from None


def _explain(item: Any) -> str:
    """One line: key, value, what is allowed. Pydantic's own text could show a password."""
    field = str(item["loc"][0]) if item["loc"] else ""
    if not field:
        return str(item["msg"]).removeprefix("Value error, ")
    key = field if field.startswith(("MYSQL_", PREFIX)) else PREFIX + field.upper()
    words = ("PASSWORD", "DB_URL", "TOKEN", "ALERT_CHANNELS", "HEARTBEAT", "SECRET", "CACHE_URL")
    secret = any(word in key.upper() for word in words)
    value = "(hidden)" if secret else repr(item["input"])
    return f"{key} = {value} is not allowed: {_allowed(item, key)}"


def _allowed(item: Any, key: str) -> str:
    if item["type"].startswith(("int_", "float_", "greater_", "less_")):
        name = key.removeprefix(PREFIX).lower()
        parts = Settings.model_fields[name].metadata
        limits = {
            key: getattr(part, key) for part in parts for key in ("ge", "gt", "le") if hasattr(part, key)
        }
        kind = "a whole number" if Settings.model_fields[name].annotation is int else "a number"
        low = f" from {limits['ge']}" if "ge" in limits else f" over {limits['gt']}" if "gt" in limits else ""
        return f"{kind}{low} to {limits['le']}"
    if item["type"] == "string_pattern_mismatch":
        return "an address such as https://host:port, without a path"
    return str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")


def environment_with(**settings: object) -> dict[str, str]:
    """This process's environment with some settings replaced: for child processes."""
    return {**os.environ, **{PREFIX + name.upper(): str(value) for name, value in settings.items()}}


def environment_marked(name: str, value: str) -> dict[str, str]:
    """This process's environment with a variable that is no setting: children and theirs inherit it."""
    return {**os.environ, name: value}
