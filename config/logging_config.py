"""Where log lines go and what they look like."""

from __future__ import annotations

import logging
import logging.handlers
import sys
import time
from pathlib import Path


class RedactingFormatter(logging.Formatter):
    """UTC instants, one format, and no secret: the finished text, traceback included, is cleaned."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, secrets: list[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self.secrets = secrets

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
    for noisy in ("apscheduler", "httpx", "httpcore", "waitress", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
