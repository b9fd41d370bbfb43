"""The evidence of one night, written by hand: a refused batch, the night's own and a sweep; Wednesday 2026-01-28."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, insert

from core import db
from core.schema import (
    fund_event,
    fund_info,
    fund_nav,
    fund_nav_revision,
    nav_batch,
    quarantine,
    rule_result,
    tmp_fund_nav,
)
from core.trading_calendar import store_calendar
from tests.example_night import CLOSED, NIGHT, NOW, add_log, add_run, at

TUESDAY = date(2026, 1, 27)
EVENING = at("2026-01-28 19:31")
REFUSED, OWN, SWEEP, OLDER = 11, 12, 13, 10
HOSTILE = "<script>alert(1)</script>\x1b[31m"


def fill(engine: Engine) -> None:
    with db.write(engine) as connection:
        days = [date(2025, 12, 1) + timedelta(days=n) for n in range(90)]
        store_calendar(connection, [day for day in days if day.weekday() < 5 and day not in CLOSED], [])
        _batches(connection)
        _funds(connection)
        _results(connection)
        _held(connection)
        _changes(connection)
        add_run(connection, "collect", NIGHT, "SUCCESS", "19:00", 41.5, 5)
        add_run(connection, "validate", NIGHT, "PARTIAL", "19:30", 2, 3, "2 of 5 rows quarantined")
        add_run(connection, "sweep", NIGHT, "SUCCESS", "21:00", 2, 1)
        add_log(connection, "fund_nav", NIGHT, "PARTIAL", "19:31", 3)


def _batches(connection: Connection) -> None:
    def row(
        number: int, kind: str, status: str, rows: int, merged: int | None, day: date = NIGHT
    ) -> dict[str, Any]:
        return {
            "id": number,
            "kind": kind,
            "business_date": day,
            "source": "eastmoney",
            "provenance": "SIMULATED",
            "collected_at": EVENING - timedelta(minutes=30),
            "row_count": rows,
            "status": status,
            "merged_count": merged,
            "decided_at": EVENING,
        }

    connection.execute(
        insert(nav_batch),
        [
            row(OLDER, "latest", "MERGED", 5, 5, TUESDAY),
            row(REFUSED, "latest", "REJECTED", 1, None),
            row(OWN, "latest", "MERGED", 5, 3),
            row(SWEEP, "sweep", "MERGED", 1, 1),
        ],
    )


def _funds(connection: Connection) -> None:
    """Three mixed funds and a bond fund published on Tuesday; two of the mixed ones tonight."""
    connection.execute(
        insert(fund_info),
        [
            {
                "fund_code": code,
                "fund_name": f"基金{code}",
                "fund_type": kind,
                "category": category,
                "updated_at": NOW,
            }
            for code, kind, category in (
                ("000001", "混合型-灵活", "mixed"),
                ("000002", "混合型-灵活", "mixed"),
                ("000003", "混合型-灵活", "mixed"),
                ("000004", "债券型-长债", "bond"),
                ("000005", "债券型-长债", "bond"),
            )
        ],
    )
    navs = [(code, TUESDAY, OLDER) for code in ("000001", "000002", "000003", "000004")]
    navs += [("000001", NIGHT, OWN), ("000002", NIGHT, SWEEP)]
    navs.append(("000005", date(2025, 12, 8), OLDER))  # over ten sessions ago: nobody waits for it
    connection.execute(
        insert(fund_nav),
        [
            {"fund_code": code, "nav_date": day, "unit_nav": 1.5, "batch_id": batch}
            for code, day, batch in navs
        ],
    )


def _results(connection: Connection) -> None:
    def row(
        batch: int,
        rule: str,
        severity: str,
        checked: int,
        failed: int,
        detail: list[str],
        figures: Any = None,
    ) -> dict[str, Any]:
        return {
            "batch_id": batch,
            "rule_id": rule,
            "severity": severity,
            "version": 2,
            "checked": checked,
            "failed": failed,
            "detail": json.dumps(detail),
            "figures": json.dumps(figures) if figures else None,
        }

    bond = {"category": "bond", "lag": 1, "count": 80, "usual": 100, "needed": 0.9, "counts": [70, 80]}
    connection.execute(
        insert(rule_result),
        [
            row(REFUSED, "coverage", "gate", 1, 1, ["1 sound row"], {"count": 1, "usual": 5, "needed": 0.9}),
            row(OWN, "coverage", "gate", 1, 0, ["5 sound rows"], {"count": 5, "usual": 5, "needed": 0.9}),
            row(OWN, "coverage.bond", "partial", 1, 1, ["bond: 80"], bond),
            row(OWN, "old_gate", "gate", 0, 0, [f"as it was said {HOSTILE}"]),
            row(OWN, "nav_positive", "error", 5, 2, [f"000003 {HOSTILE}", "000004 unit_nav=-1"]),
            row(SWEEP, "nav_positive", "error", 1, 0, []),
            row(OWN, "duplicate", "warning", 5, 0, []),
        ],
    )


def _held(connection: Connection) -> None:
    """Two rows of tonight's batch failed; one of them a batch of the day before had brought already."""
    staged = [(n, f"00000{n}", 1 if n > 2 else 0) for n in range(1, 5)]
    connection.execute(
        insert(tmp_fund_nav),
        [{"batch_id": OWN, "row_no": n, "fund_code": code, "held": held} for n, code, held in staged],
    )
    common = {"source": "eastmoney", "held_at": EVENING, "reasons": "nav_positive"}
    held = (
        {"id": 1, "row_hash": "1" * 64, "batch_id": OLDER, "fund_code": "000004", "nav_date": TUESDAY},
        {"id": 2, "row_hash": "2" * 64, "batch_id": OWN, "fund_code": "000003", "nav_date": NIGHT},
    )
    connection.execute(
        insert(quarantine), [common | held[0] | {"defect": None}, common | held[1] | {"defect": HOSTILE}]
    )


def _changes(connection: Connection) -> None:
    def revision(reason: str, batch: int) -> dict[str, Any]:
        return {
            "fund_code": "000001",
            "nav_date": TUESDAY,
            "old_unit_nav": 1.4,
            "new_unit_nav": 1.5,
            "old_batch_id": OLDER,
            "new_batch_id": batch,
            "known_at": EVENING,
            "reason": reason,
        }

    connection.execute(
        insert(fund_nav_revision),
        [
            revision("filled", OWN),
            revision("filled", SWEEP),
            revision("small", OWN),
            revision("large", OLDER),
        ],
    )
    events = (("dividend", OWN), ("split", OLDER))
    connection.execute(
        insert(fund_event),
        [
            {
                "fund_code": "000001",
                "ex_date": NIGHT,
                "kind": kind,
                "value": 0.1,
                "evidence": "published",
                "batch_id": batch,
            }
            for kind, batch in events
        ],
    )
