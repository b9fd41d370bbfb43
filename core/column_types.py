"""What the tables are made of: types that mean the same on SQLite and MySQL/MariaDB, and how they are stored.

NAVs travel as float64 and rest as DECIMAL(20,12) on MySQL, as REAL on SQLite: exact for everything
published with up to 15 significant digits (twelve decimals below 1,000).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CHAR, BigInteger, DateTime, Double, Integer, MetaData, Numeric, TypeDecorator
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect


class Instant(TypeDecorator[datetime]):
    """An aware datetime, stored in UTC with microseconds. A naive one is refused."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else DateTime())

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: instants carry a timezone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

NAV = Numeric(20, 12, asdecimal=False).with_variant(Double(), "sqlite")
PERCENT = Numeric(16, 8, asdecimal=False).with_variant(Double(), "sqlite")
CODE = CHAR(6)
ID = BigInteger().with_variant(Integer(), "sqlite")
COMMON: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
CLUSTERED: dict[str, Any] = COMMON | {"sqlite_with_rowid": False}
