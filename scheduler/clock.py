"""Where the present instant comes from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from config.settings import Settings

Clock = Callable[[], datetime]


def clock_from(settings: Settings) -> Clock:
    """The system's clock in UTC, or one that reads its instant from `settings.clock_file` at every call.

    The file serves proofs: who writes it moves the time of every process. The returned function
    raises ConfigurationError while the file is missing or holds no ISO instant with an offset.
    """
    path = settings.clock_file
    if path is None:
        return lambda: datetime.now(UTC)
    return lambda: _instant_in(path)


def _instant_in(path: Path) -> datetime:
    def refuse(why: object) -> ConfigurationError:
        wanted = "a file holding an instant with offset, such as 2026-01-28T19:00:00+08:00"
        return ConfigurationError(f"NAVKEEPER_CLOCK_FILE = {path} is not allowed: {why}; needed: {wanted}")

    try:
        instant = datetime.fromisoformat(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise refuse(error) from None
    if instant.tzinfo is None:
        raise refuse(f"{instant.isoformat()} has no offset")
    return instant.astimezone(UTC)
