"""The figures by which rules and tasks judge: config/rules.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ConfigurationError
from core.fund_category import CATEGORIES

MONEY_FIELDS = ("income_per_10k", "yield_7d")


@dataclass(frozen=True)
class Thresholds:
    """config/rules.toml; percent for limits, shares as fractions."""

    return_limit: dict[str, float]
    accum_factor: float
    share_of_last_batch: float
    share_of_last_session: float
    share_quarantined: float
    share_quarantined_limit: float
    money_limit: dict[str, float]


def load_thresholds(path: Path) -> Thresholds:
    """Raises ConfigurationError naming the file and the key."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        shares = {
            "share_of_last_batch": document["coverage"]["share_of_last_batch"],
            "share_of_last_session": document["collection"]["share_of_last_session"],
            "share_quarantined": document["merge"]["share_quarantined"],
            "share_quarantined_limit": document["merge"]["share_quarantined_limit"],
        }
        for key, value in shares.items():
            if not 0 <= float(value) <= 1:
                raise ConfigurationError(f"{path.name}: {key} = {value} is not allowed: a share from 0 to 1")
        limits = {name: float(value) for name, value in document["return_limit"].items()}
        for name, limit in limits.items():
            if name not in CATEGORIES or not limit > 0:
                allowed = f"a percentage over 0 for one of {', '.join(CATEGORIES)}"
                raise ConfigurationError(
                    f"{path.name}: return_limit.{name} = {limit:g} is not allowed: {allowed}"
                )
        limits["other"]  # stands in for every category that is not named
        factor = float(document["accum_vs_unit"]["factor"])
        if not factor > 1:
            raise ConfigurationError(f"{path.name}: factor = {factor:g} is not allowed: a number over 1")
        money = {name: float(document["money"][name]) for name in MONEY_FIELDS}
        for name, limit in money.items():
            if not limit > 0:
                raise ConfigurationError(
                    f"{path.name}: money.{name} = {limit:g} is not allowed: a number over 0"
                )
        return Thresholds(limits, factor, **shares, money_limit=money)
    except KeyError as error:
        raise ConfigurationError(f"{path.name}: {error.args[0]} is missing") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
