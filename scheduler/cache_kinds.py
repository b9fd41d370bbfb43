"""What kinds of things the cache keeps, and for how long: config/cache.toml."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import ConfigurationError

CACHE_FILE = Path(__file__).resolve().parents[1] / "config" / "cache.toml"
LONGEST_HOURS = 720
LONGEST_NAME = 16  # as the tables have room for


class Lifetime(NamedTuple):
    """`fresh`: served as it is; `kept`: from then on to here served while it is renewed."""

    fresh: timedelta
    kept: timedelta


def load_kinds(path: Path = CACHE_FILE) -> dict[str, Lifetime]:
    """Raises ConfigurationError naming the key, its value and what is allowed."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    unknown = sorted(found.keys() - {"hours", "stale"})
    hours, stale = found.get("hours"), found.get("stale")
    if unknown or not isinstance(hours, dict) or not isinstance(stale, dict) or stale.keys() != {"share"}:
        raise ConfigurationError(f"{path}: needed are the tables hours, and stale with share, nothing else")
    share = _number(path, "stale.share", stale["share"], 0, 10)
    return {kind: _lifetime(path, kind, value, share) for kind, value in hours.items()}


def _lifetime(path: Path, kind: str, hours: Any, share: float) -> Lifetime:
    if not kind.isidentifier() or not kind.isascii() or len(kind) > LONGEST_NAME:
        raise ConfigurationError(f"{path}: hours.{kind}: a kind is a word of at most {LONGEST_NAME} letters")
    fresh = timedelta(hours=_number(path, f"hours.{kind}", hours, 1 / 3600, LONGEST_HOURS))
    return Lifetime(fresh, fresh * (1 + share))


def _number(path: Path, key: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(f"{path}: {key} = {value!r} is not allowed: {least:g} to {most:g}")
    return float(value)
