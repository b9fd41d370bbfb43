"""Parameters that tasks share, as models: unknown ones are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict

from core.trading_calendar import SHANGHAI


def instant_of(text: str) -> datetime:
    """An instant; without an offset by Shanghai's clock. Raises ValueError for another text, and for a mere date."""
    try:
        found = datetime.fromisoformat(text) if len(text) > len("2026-01-05") else None
    except ValueError:
        found = None
    if found is None:
        raise ValueError(f"{text!r} is no instant; write it as 2026-01-05T20:00")
    return found if found.tzinfo is not None else found.replace(tzinfo=SHANGHAI)


def _read(value: Any) -> Any:
    return instant_of(value) if isinstance(value, str) else value


InstantText = Annotated[AwareDatetime, BeforeValidator(_read)]


class Params(BaseModel):
    """Parameters of a task; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceParams(Params):
    source: str | None = None  # instead of the setting
