"""Exit codes of every entry point."""

from __future__ import annotations

from core.errors import AlreadyRunning, ConfigurationError, NavKeeperError, UsageError

OK, FAILED, USAGE, ALREADY_RUNNING, CONFIGURATION, STOPPED = 0, 1, 2, 3, 78, 130


def exit_code(error: NavKeeperError) -> int:
    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    if isinstance(error, AlreadyRunning):
        return ALREADY_RUNNING
    return USAGE if isinstance(error, UsageError) else FAILED
