"""What several tasks are made of: the calendar, the rules' figures, and how a merge ends a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core import db
from core.errors import NotReady
from core.trading_calendar import TradingCalendar, load_calendar
from scheduler.job import RunStatus

if TYPE_CHECKING:
    from scheduler.run_context import RunContext

RULES_FILE = Path(__file__).resolve().parents[1] / "config" / "rules.toml"


def calendar_of(context: RunContext) -> TradingCalendar:
    with db.read(context.engine) as connection:
        calendar = load_calendar(connection)
    if calendar is None:
        raise NotReady("the trading calendar is empty; run: python main.py init")
    return calendar


def merged_status(merged: int, held: int, total: int, share_allowed: float) -> tuple[RunStatus, str | None]:
    """FAILED where nothing could be believed, PARTIAL where more was held than is normal."""
    reason = f"{held} of {total} rows quarantined" if held else None
    if not merged:
        return RunStatus.FAILED, reason or "there was nothing to merge"
    return (RunStatus.PARTIAL if held > share_allowed * total else RunStatus.SUCCESS), reason
