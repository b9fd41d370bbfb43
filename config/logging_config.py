"""Where log lines go and what they look like."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
SHANGHAI = ZoneInfo("Asia/Shanghai")  # the time of the dashboard, wherever the machine stands


class RedactingFormatter(logging.Formatter):
    """Instants in Shanghai's time with its offset (ISO 8601), one format, and no secret.

    The finished text, traceback included, is cleaned.
    """

    def __init__(self, secrets: list[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self.secrets = secrets

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        return datetime.fromtimestamp(record.created, SHANGHAI).isoformat(timespec="milliseconds")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """One line, though an address that was asked for may hold line breaks: nobody writes lines of ours."""
        return super().formatMessage(record).translate(CONTROLS)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def configure_logging(
    level: str, secrets: list[str], file: Path | None = None, *, console: bool = True
) -> None:
    """Log to stderr and, if named, to a file of at most 10 x 10 MB."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)] if console else []
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(
            logging.handlers.RotatingFileHandler(file, maxBytes=10_000_000, backupCount=9, encoding="utf-8")
        )
    for handler in handlers:
        handler.setFormatter(RedactingFormatter(secrets))
    logging.basicConfig(level=level, handlers=handlers, force=True)
    # Every second while a database is locked: "maximum number of running instances reached".
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    for noisy in ("httpx", "httpcore", "waitress", "alembic", "apprise"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
