"""A short week written by hand, Monday 2026-01-26 to Wednesday; what is known of each fund stands beside it.

Sessions of January: 5-9, 12-16, 19-23, 26-28. Ten sessions before the 26th, 27th and 28th are the 12th, 13th and 14th.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, insert

from core import db
from core.fund_series import Added, note_changes
from core.nav_days import add_rows
from core.schema import (
    fund_info,
    fund_metrics,
    fund_nav,
    fund_nav_revision,
    fund_rank,
    money_fund_yield,
    nav_batch,
    quarantine,
)
from core.trading_calendar import TradingCalendar, load_calendar
from tests.example_night import add_calendar, add_run, at

BEGIN = date(2025, 12, 1)
FRIDAY, MONDAY, TUESDAY, WEDNESDAY = (date(2026, 1, day) for day in (23, 26, 27, 28))
WEEK = [MONDAY, TUESDAY, WEDNESDAY]
HOSTILE = "<script>alert(1)</script>|\n\u202e[x](javascript:1)`_*@"
LONG_AGO = at("2025-11-03 12:00")
NIGHT, HISTORY, BEFORE, CAUGHT_UP = 1, 2, 3, 4  # batches


def fill(engine: Engine) -> TradingCalendar:
    with db.write(engine) as connection:
        add_calendar(connection)
        _batches(connection)
        _funds(connection)
        _metrics(connection)
        _ranks(connection)
        _revisions(connection)
        _held(connection)
        for job, status in (("collect", "SUCCESS"), ("validate", "SUCCESS"), ("metrics", "SUCCESS")):
            add_run(connection, job, MONDAY, status, "19:00")
        for job, status in (("collect", "SUCCESS"), ("validate", "PARTIAL"), ("metrics", "FAILED")):
            add_run(connection, job, TUESDAY, status, "19:00")
        calendar = load_calendar(connection)
    assert calendar is not None
    return calendar


def _batches(connection: Connection) -> None:
    for number, kind, day, decided in (
        (NIGHT, "latest", TUESDAY, "2026-01-27 19:31"),
        (HISTORY, "history", None, "2026-01-28 23:00"),
        (BEFORE, "latest", FRIDAY, "2026-01-23 19:31"),
        (CAUGHT_UP, "latest", WEDNESDAY, "2026-02-04 19:31"),
    ):
        connection.execute(
            insert(nav_batch).values(
                id=number,
                kind=kind,
                business_date=day,
                source="eastmoney",
                provenance="SIMULATED",
                collected_at=at(decided),
                decided_at=at(decided),
                row_count=1,
                status="MERGED",
            )
        )


def _funds(connection: Connection) -> None:
    for n in range(1, 14):
        name = {12: f"{HOSTILE}成长股票A", 13: f"{HOSTILE}成长股票C"}.get(n, f"第{n}股票")
        # Of the third nothing since Tuesday; of the fourth nothing since the 13th.
        days = {3: [BEGIN, MONDAY, TUESDAY], 4: [BEGIN, date(2026, 1, 13)]}.get(n, [BEGIN, *WEEK])
        _fund(connection, f"{n:06d}", name, "stock", days)
    _fund(connection, "000050", "现金货币", "money", [BEGIN, *WEEK])
    _fund(connection, "000060", "新混合", "mixed", [WEDNESDAY], inception=TUESDAY)
    _fund(connection, "000061", "未知混合", "mixed", [WEDNESDAY])
    _fund(connection, "000062", "旧混合", "mixed", [WEDNESDAY], inception=date(2020, 1, 6))
    ended: dict[str, Any] = {"status": "liquidated"}
    this_week, last_week = at("2026-01-27 18:30"), at("2026-01-22 18:30")
    _fund(connection, "000070", "清盘债券", "bond", [BEGIN, date(2026, 1, 5)], updated_at=this_week, **ended)
    _fund(connection, "000071", "早已清盘", "bond", [date(2025, 9, 1)], updated_at=this_week, **ended)
    _fund(connection, "000072", "上周清盘", "bond", [BEGIN, date(2026, 1, 5)], updated_at=last_week, **ended)


def _fund(
    connection: Connection,
    code: str,
    name: str,
    category: str,
    days: Sequence[date],
    inception: date | None = None,
    **more: Any,
) -> None:
    about = {"fund_code": code, "fund_name": name, "fund_type": "", "category": category}
    about |= {"inception_date": inception, "updated_at": LONG_AGO} | more
    connection.execute(insert(fund_info).values(**about))
    money = category == "money"
    table = money_fund_yield if money else fund_nav
    value = {"income_per_10k": 0.5} if money else {"unit_nav": 1.0}
    connection.execute(
        insert(table), [{"fund_code": code, "nav_date": day, "batch_id": 9} | value for day in days]
    )
    add_rows(connection, table, Counter(days))
    note_changes(connection, table, [Added(code, len(days), days[0], days[-1])])


def _metrics(connection: Connection) -> None:
    """The n-th stock fund has returned n - 6 %; 13 is another class of 12, and 4 has no NAV of the week."""

    def row(n: int, returned: float | None, fall: float | None, day: date = WEDNESDAY) -> dict[str, Any]:
        return {
            "fund_code": f"{n:06d}",
            "calc_date": WEDNESDAY,
            "definition_version": "1",
            "nav_date": day,
            "nav_count": 100 if n == 13 else 500,
            "return_1w": returned,
            "max_drawdown_1y": fall,
        }

    rows = [row(n, n - 6.0, -float(n)) for n in range(1, 13) if n != 4]
    rows += [row(4, 90.0, -90.0, date(2026, 1, 13)), row(13, 60.0, -60.0), row(50, 0.03, None)]
    rows.append(row(60, None, None))
    connection.execute(insert(fund_metrics), rows)


RANKS = {1: (11, 1), 2: (1, 11), 3: (3, 3), 12: (6, 5), 13: (11, 1)}  # of eleven: on Friday, on Wednesday


def _ranks(connection: Connection) -> None:
    connection.execute(
        insert(fund_rank),
        [
            {
                "fund_code": f"{n:06d}",
                "calc_date": day,
                "definition_version": "1",
                "rank_return_1y": rank,
                "peers_return_1y": 11,
            }
            for n, ranks in RANKS.items()
            for day, rank in zip((FRIDAY, WEDNESDAY), ranks, strict=True)
        ],
    )


def _revisions(connection: Connection) -> None:
    for code, batch, old, new, reason in (
        ("000001", NIGHT, 1.0, 1.1, "small"),
        ("000002", HISTORY, 2.0, 1.0, "large"),
        ("000003", BEFORE, 1.0, 9.0, "large"),
        ("000004", CAUGHT_UP, 1.0, 1.0, "filled"),
    ):
        connection.execute(
            insert(fund_nav_revision).values(
                fund_code=code,
                nav_date=BEGIN,
                old_unit_nav=old,
                new_unit_nav=new,
                old_batch_id=9,
                new_batch_id=batch,
                known_at=at("2026-01-28 23:00"),
                reason=reason,
            )
        )


def _held(connection: Connection) -> None:
    for number, day, batch, resolution, reasons in (
        (1, MONDAY, BEFORE, None, "stale,conflict"),
        (2, WEDNESDAY, NIGHT, "RELEASED", "stale"),
        (3, None, NIGHT, "REJECTED", "key_fields"),
        (4, FRIDAY, NIGHT, None, "stale"),
    ):
        connection.execute(
            insert(quarantine).values(
                id=number,
                row_hash=str(number) * 64,
                batch_id=batch,
                source="eastmoney",
                fund_code="000001",
                nav_date=day,
                reasons=reasons,
                held_at=at("2026-01-27 19:31") + timedelta(minutes=number),
                resolution=resolution,
            )
        )
