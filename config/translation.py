"""What operators read, in their language. Messages are written in English; JSON, codes and logs stay so."""

from __future__ import annotations

import gettext
from collections.abc import Callable
from pathlib import Path

DOMAIN = "navkeeper"
LOCALE = Path(__file__).parent / "locale"


def translator(language: str) -> Callable[[str], str]:
    """A function from an English message to its text in `language` ("zh" or "en").

    Raises FileNotFoundError where a language other than English has no compiled catalogue.
    """
    return gettext.translation(DOMAIN, LOCALE, [language], fallback=language == "en").gettext


def N_(message: str) -> str:  # noqa: N802 - the name under which extractors know it
    """Mark a message for the catalogue where it is only named; it is translated where it is shown."""
    return message
