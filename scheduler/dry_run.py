"""What --dry-run shows: everything is fetched, checked or calculated, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sqlalchemy import Engine

from core import db, nav_frames, nav_store
from core.background import Background
from core.background_store import fund_facts
from core.collector import Fetched
from core.errors import NotReady
from core.judging import judge
from core.thresholds import load_thresholds
from core.trading_calendar import SHANGHAI, TradingCalendar
from scheduler.backfill_task import BackfillParams, wanted_codes
from scheduler.sources import make_source
from scheduler.task_parts import RULES_FILE
from scheduler.tasks import calculator_for, pipeline_for

if TYPE_CHECKING:
    from config.settings import Settings


def dry_nav(
    engine: Engine,
    settings: Settings,
    calendar: TradingCalendar,
    day: date,
    now: datetime,
    params: dict[str, Any],
) -> dict[str, Any]:
    source = make_source(settings, params.get("source"))
    try:
        if params.keys() & {"fund_codes", "fund_type", "start", "end"}:
            codes = wanted_codes(source.fund_list(), BackfillParams(**params))
            start, end = (
                date.fromisoformat(params[key]) if key in params else None for key in ("start", "end")
            )
            rows = [row for _code, found in source.histories(list(codes), start, end) for row in found]
        else:
            rows = source.latest()
    finally:
        source.close()
    fetched = Fetched(day, [], rows)
    with db.read(engine) as connection:
        funds = fund_facts(connection)
    background = Background(
        today=now.astimezone(SHANGHAI).date(),
        thresholds=load_thresholds(RULES_FILE),
        sessions=np.array(calendar.sessions, dtype="datetime64[D]"),
        funds=funds,
    )
    verdicts = judge(nav_frames.frame_of_rows(rows), pd.DataFrame(), background)
    return {
        "rows": len(rows),
        "funds": len({row.fund_code for row in rows}),
        "newest_date": fetched.newest.isoformat() if fetched.newest else None,
        "published_for_business_date": fetched.advanced,
        "business_date": day.isoformat(),
        "refused_as_they_stand": int((verdicts.reasons != "").sum()),  # not yet held against what is stored
        "unreadable": sum(1 for row in rows if row.defect),
    }


def dry_validate(
    engine: Engine,
    _settings: Settings,
    calendar: TradingCalendar,
    day: date,
    now: datetime,
    _params: dict[str, Any],
) -> dict[str, Any]:
    with db.read(engine) as connection:
        batch_id = nav_store.newest_batch(connection, day, "STAGED")
        merged = nav_store.newest_batch(connection, day, "MERGED")
    if batch_id is None and merged is not None:
        return {"batch_id": merged, "is_valid": True, "rows": 0, "note": "merged already; nothing new"}
    if batch_id is None:
        raise NotReady(f"nothing is staged for {day}; first run: python main.py nav")
    checked = pipeline_for(engine, calendar).check(batch_id, now)
    return {
        "batch_id": batch_id,
        "is_valid": checked.is_valid,
        "rows": checked.total,
        "would_be_quarantined": len(checked.held),
        "failed_rules": {result.rule_id: result.failed for result in checked.results if result.failed},
    }


def dry_metrics(
    engine: Engine,
    settings: Settings,
    calendar: TradingCalendar,
    day: date,
    _now: datetime,
    params: dict[str, Any],
) -> dict[str, Any]:
    calculator = calculator_for(engine, settings, calendar)
    found = calculator.calculate_market(day, params.get("fund_codes"), as_of=params.get("as_of"))
    return {"business_date": day.isoformat(), "funds": len(found.codes)}


DRY_RUNS: dict[str, Callable[..., dict[str, Any]]] = {
    "nav": dry_nav,
    "validate": dry_validate,
    "metrics": dry_metrics,
}
