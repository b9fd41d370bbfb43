"""The week of tests.example_week as the pages of data show it: with a history, ranks, findings and rows to decide.

What is late on Wednesday 2026-01-28: 000003 has its row in quarantine, 000004 is silent since the 13th, eleven
sessions ago, and of 000080 nothing was ever stored.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import date, timedelta

from sqlalchemy import Connection, Engine, insert, update

from core import db
from core.fund_series import Added, note_changes
from core.nav_days import add_rows
from core.schema import (
    fund_adjustment,
    fund_event,
    fund_info,
    fund_metrics,
    fund_nav,
    fund_rank,
    fund_score,
    money_fund_yield,
    nav_batch,
    quarantine,
    rule_result,
)
from tests import example_week
from tests.example_night import NOW, at
from tests.example_week import BEFORE, BEGIN, CAUGHT_UP, TUESDAY, WEDNESDAY

HELD, SPLIT_HELD = 10, 11  # rows of 000003 and 000004 that can be decided
YEARS = 20
DIVIDEND, SPLIT = date(2020, 6, 1), date(2024, 6, 3)


def fill(engine: Engine) -> None:
    example_week.fill(engine)
    with db.write(engine) as connection:
        _history(connection)
        _split(connection)
        _standing(connection)
        _findings(connection)
        _held(connection)
        about = {
            "fund_name": "无净值混合",
            "fund_type": "混合型-灵活",
            "category": "mixed",
            "pinyin": "WJZHH",
        }
        connection.execute(insert(fund_info).values(fund_code="000080", updated_at=NOW, **about))


def _history(connection: Connection) -> None:
    """Twenty years of a stock fund and two of a money fund, before the week."""
    days = [BEGIN - timedelta(days=n) for n in range(1, 365 * YEARS)]
    days = sorted(day for day in days if day.weekday() < 5)
    navs = [
        {
            "fund_code": "000001",
            "nav_date": day,
            "unit_nav": round((1.5 if day < SPLIT else 1) * (0.8 + at / 25_000 + 0.1 * math.sin(at / 60)), 4),
            "batch_id": 9,
        }
        for at, day in enumerate(days)
    ]
    connection.execute(insert(fund_nav), navs)
    add_rows(connection, fund_nav, Counter(days))
    note_changes(connection, fund_nav, [Added("000001", len(days), days[0], days[-1])])
    later = days[-500:]
    yields = [
        {
            "fund_code": "000050",
            "nav_date": day,
            "income_per_10k": round(0.5 + 0.1 * math.sin(at / 30), 4),
            "yield_7d": round(1.8 + 0.4 * math.sin(at / 30), 3),
            "batch_id": 9,
        }
        for at, day in enumerate(later)
    ]
    connection.execute(insert(money_fund_yield), yields)
    add_rows(connection, money_fund_yield, Counter(later))
    note_changes(connection, money_fund_yield, [Added("000050", len(later), later[0], later[-1])])
    events = (("dividend", DIVIDEND, 0.05, "published"), ("split", SPLIT, 1.5, "implied"))
    connection.execute(
        insert(fund_event),
        [
            {
                "fund_code": "000001",
                "ex_date": day,
                "kind": kind,
                "value": value,
                "evidence": why,
                "batch_id": 9,
            }
            for kind, day, value, why in events
        ],
    )

    steps = ((DIVIDEND, 1.04, 1.04), (SPLIT, 1.5, 1.56))
    connection.execute(
        insert(fund_adjustment),
        [
            {"fund_code": "000001", "ex_date": day, "factor": factor, "cumulative": all_of_them}
            for day, factor, all_of_them in steps
        ],
    )


def _split(connection: Connection) -> None:
    """1.0, 1.2, a split of two for one to 0.6, 0.54: adjusted 1.0, 1.2, 1.2, 1.08, a fall of a tenth."""
    days = [date(2026, 1, day) for day in (22, 23, 26, 27, 28)]
    values = (1.0, 1.2, 0.6, 0.54, 0.54)
    about = {"fund_code": "000090", "fund_name": "拆分混合A", "fund_type": "混合型-灵活", "category": "mixed"}
    connection.execute(insert(fund_info).values(**about, pinyin="CFHHA", updated_at=NOW))
    connection.execute(
        insert(fund_nav),
        [
            {"fund_code": "000090", "nav_date": day, "unit_nav": value, "batch_id": 9}
            for day, value in zip(days, values, strict=True)
        ],
    )
    add_rows(connection, fund_nav, Counter(days))
    note_changes(connection, fund_nav, [Added("000090", 5, days[0], days[-1])])
    connection.execute(
        insert(fund_adjustment).values(fund_code="000090", ex_date=days[2], factor=2.0, cumulative=2.0)
    )


def _standing(connection: Connection) -> None:
    """000001 is third of 48, so in the best quarter, and has a score."""
    mine = fund_rank.c.fund_code == "000001", fund_rank.c.calc_date == WEDNESDAY
    ranks = {"rank_return_1w": 3, "peers_return_1w": 48, "rank_return_1y": 40, "peers_return_1y": 48}
    connection.execute(update(fund_rank).where(*mine).values(**ranks))
    measured = fund_metrics.c.fund_code == "000001", fund_metrics.c.calc_date == WEDNESDAY
    values = {"return_1y": 12.34, "sharpe_1y": 0.987, "volatility_3y": 18.2, "win_rate_1y": 55.5}
    connection.execute(update(fund_metrics).where(*measured).values(**values))
    scores = {
        "score": 71.5,
        "level": "B",
        "known_count": 2,
        "points_return_1y": 17.0,
        "points_win_rate_1y": 88.0,
    }
    connection.execute(
        insert(fund_score).values(fund_code="000001", calc_date=WEDNESDAY, definition_version="1", **scores)
    )


def _findings(connection: Connection) -> None:
    def row(batch: int, rule: str, severity: str, failed: int) -> dict[str, object]:
        detail = json.dumps(["000003 2026-01-28"] if failed else [])
        found = {"batch_id": batch, "rule_id": rule, "severity": severity, "version": 1}
        return found | {"checked": 20, "failed": failed, "detail": detail}

    connection.execute(
        insert(rule_result),
        [
            row(BEFORE, "stale", "error", 4),
            row(BEFORE, "duplicate", "warning", 0),
            row(CAUGHT_UP, "stale", "error", 0),
            row(CAUGHT_UP, "return_limit", "error", 2),
            row(CAUGHT_UP, "coverage", "gate", 0),
        ],
    )
    connection.execute(update(nav_batch).where(nav_batch.c.id == CAUGHT_UP).values(merged_count=15))


def _held(connection: Connection) -> None:
    split = json.dumps({"kind": "split", "value": 2.0, "why": "the NAV was halved"})
    for number, code, day, value, reasons, proposal in (
        (HELD, "000003", WEDNESDAY, 1.01, "return_limit", None),
        (SPLIT_HELD, "000004", TUESDAY, 0.5, "unannounced_dividend", split),
    ):
        connection.execute(
            insert(quarantine).values(
                id=number,
                row_hash=f"{number:064d}",
                batch_id=CAUGHT_UP,
                source="eastmoney",
                fund_code=code,
                nav_date=day,
                unit_nav=value,
                daily_return=1.0,
                reasons=reasons,
                proposal=proposal,
                held_at=at("2026-01-28 19:31"),
            )
        )
