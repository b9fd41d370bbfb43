"""Parameters that tasks share, as models: unknown ones are refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Parameters of a task; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceParams(Params):
    source: str | None = None  # instead of the setting
