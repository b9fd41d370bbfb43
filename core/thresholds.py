"""The figures by which rules and tasks judge: config/rules.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from core.errors import ConfigurationError
from core.fund_category import CATEGORIES

MONEY_FIELDS = ("income_per_10k", "yield_7d")
SECTION = {  # of each single figure: the table of config/rules.toml it stands in
    "return_warning": "return",
    "cross_section_z": "peers",
    "cross_section_floor": "peers",
    "company": "peers",
    "company_z": "peers",
    "company_floor": "peers",
    "share_class": "peers",
    "stale_median": "peers",
    "stale_spread": "peers",
    "clone_rows": "peers",
    "accum_tolerance": "accum_vs_unit",
    "revision_small": "revision",
    "revision_large": "revision",
    "yield_low": "money",
    "yield_high": "money",
    "yield_slack": "money",
    "share_of_last_batch": "coverage",
    "share_of_category": "coverage",
    "share_of_last_session": "collection",
    "share_quarantined": "merge",
    "share_quarantined_limit": "merge",
    "share_unchanged": "merge",
    "share_repeated": "merge",
    "share_blank": "merge",
}
SHARES = frozenset(name for name in SECTION if name.startswith("share_of") or SECTION[name] == "merge")


@dataclass(frozen=True)
class Thresholds:
    """config/rules.toml, where each figure is explained; percent for limits, shares as fractions."""

    return_limit: dict[str, float]
    money_limit: dict[str, float]
    return_warning: float
    cross_section_z: float
    cross_section_floor: float
    company: int
    company_z: float
    company_floor: float
    share_class: float
    stale_median: float
    stale_spread: float
    clone_rows: int
    accum_tolerance: float
    revision_small: float
    revision_large: float
    yield_low: float
    yield_high: float
    yield_slack: float
    share_of_last_batch: float
    share_of_category: float
    share_of_last_session: float
    share_quarantined: float
    share_quarantined_limit: float
    share_unchanged: float
    share_repeated: float
    share_blank: float


def load_thresholds(path: Path) -> Thresholds:
    """Raises ConfigurationError naming the file and the key."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        limits = {name: float(value) for name, value in document["return_limit"].items()}
        for name, limit in limits.items():
            if name not in CATEGORIES or not limit > 0:
                allowed = f"a percentage over 0 for one of {', '.join(CATEGORIES)}"
                raise _refused(path, f"return_limit.{name}", limit, allowed)
        limits["other"]  # stands in for every category that is not named
        money = {name: float(document["money"][name]) for name in MONEY_FIELDS}
        for name, limit in money.items():
            if not limit > 0:
                raise _refused(path, f"money.{name}", limit, "a number over 0")
        kinds = {field.name: field.type for field in fields(Thresholds)}
        figures: dict[str, Any] = {}
        for name, section in SECTION.items():
            value = float(document[section][name])
            if name in SHARES and not 0 <= value <= 1:
                raise _refused(path, f"{section}.{name}", value, "a share from 0 to 1")
            if not value > 0 and name not in SHARES:
                raise _refused(path, f"{section}.{name}", value, "a number over 0")
            figures[name] = int(value) if kinds[name] == "int" else value
        return Thresholds(limits, money, **figures)
    except KeyError as error:
        raise ConfigurationError(f"{path.name}: {error.args[0]} is missing") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None


def _refused(path: Path, key: str, value: float, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{path.name}: {key} = {value:g} is not allowed: {allowed}")
