"""The log files of the entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.logging_config import configure_logging
from core.errors import ConfigurationError

if TYPE_CHECKING:
    from config.settings import Settings


def log_to(settings: Settings, name: str, *, console: bool = True) -> None:
    """Log to `logs/name`. Raises ConfigurationError where the home folder cannot be written."""
    try:
        configure_logging(settings.log_level, settings.secrets(), settings.logs / name, console=console)
    except OSError as error:
        raise ConfigurationError(
            f"NAVKEEPER_HOME = {settings.home} cannot be used: {error.strerror} ({error.filename})"
        ) from None
