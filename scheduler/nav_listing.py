"""`main.py nav show`: a fund's NAVs as records and in words."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, select

from core import db, nav_as_of
from core.errors import UsageError
from core.schema import fund_info, fund_nav, money_fund_yield
from scheduler.quality_text import nav_text, percent_text
from scheduler.sections import Section
from scheduler.wording import Translate, clock_time, day, number, one_line

if TYPE_CHECKING:
    from scheduler.quality import Record

TIME = "%Y-%m-%d %H:%M:%S"
SUGGESTED = 3


def known_navs(
    engine: Engine,
    code: str,
    instant: datetime | None,
    start: date | None,
    end: date | None,
    *,
    adjusted: bool,
) -> tuple[Record, list[Record]]:
    """The fund, and its NAVs or a money fund's yields by date. Raises UsageError for a code that is not known."""
    if start is not None and end is not None and start > end:
        raise UsageError(f"--from {start} is after --to {end}")
    with db.read(engine) as connection:
        fund = fund_named(connection, code)
        if fund["money"]:
            if adjusted:
                raise UsageError(f"{code} is a money fund: it has incomes and yields, and no NAV to adjust")
            yields = nav_as_of.yields_as_of(connection, code, instant, start, end)
            return fund, [{"fund_code": code, **row._asdict()} for row in yields]
        navs = nav_as_of.nav_as_of(connection, code, instant, start, end)
        records: list[Record] = [{"fund_code": code, **row._asdict()} for row in navs]
        if adjusted:
            factors = nav_as_of.adjustments(connection, code)
            ex_dates = [ex_date for ex_date, _factor in factors]
            for record in records:
                at = bisect_right(ex_dates, record["nav_date"])
                record["adjusted_nav"] = record["unit_nav"] * (factors[at - 1][1] if at else 1.0)
    return fund, records


def fund_named(connection: Connection, code: str) -> Record:
    """Its name, and whether it has yields instead of NAVs. Raises UsageError naming codes that are near."""
    info = connection.execute(select(fund_info).where(fund_info.c.fund_code == code)).one_or_none()
    has_navs, has_yields = (
        connection.execute(select(table.c.fund_code).where(table.c.fund_code == code).limit(1)).first()
        is not None
        for table in (fund_nav, money_fund_yield)
    )
    if info is None and not has_navs and not has_yields:
        near = _near(connection, code)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"there is no fund {code!r}{hint}")
    return {
        "fund_code": code,
        "fund_name": info.fund_name if info is not None else "",
        "fund_type": info.fund_type if info is not None else "",
        "money": has_yields and not has_navs,
    }


def _near(connection: Connection, text: str) -> list[str]:
    """Funds whose name holds the text, or else codes that look like it."""
    named = select(fund_info.c.fund_code, fund_info.c.fund_name).where(
        fund_info.c.fund_name.contains(text, autoescape=True)
    )
    rows = connection.execute(named.order_by(fund_info.c.fund_code).limit(SUGGESTED)).all()
    if not rows:
        codes = connection.execute(select(fund_info.c.fund_code, fund_info.c.fund_name)).all()
        near = difflib.get_close_matches(text, [row.fund_code for row in codes], n=SUGGESTED)
        names = {row.fund_code: row.fund_name for row in codes}
        return [f"{code} {names[code]}" for code in near]
    return [f"{row.fund_code} {row.fund_name}" for row in rows]


def nav_sections(
    fund: Record, records: Sequence[Record], _: Translate, *, limit: int | None, instant: datetime | None
) -> list[Section]:
    """The newest `limit` rows as a table, and what the reader should know of them."""
    title = one_line(" ".join(filter(None, (fund["fund_code"], fund["fund_name"], fund["fund_type"]))))
    if instant is not None:
        title = f"{title}  {_('as known at {time} in Shanghai').format(time=clock_time(instant, TIME))}"
    if not records:
        return [Section(title, note=_("no row: none is stored, or none was known then"))]
    shown = records[-limit:] if limit else records
    then = instant is not None and not fund["money"]
    headers, rows = _yields(shown, _) if fund["money"] else _navs(shown, _, then=then)
    notes = []
    if len(shown) < len(records):
        more = _("the newest {n} of {total}; more with --from")
        notes.append(more.format(n=len(shown), total=number(len(records))))
    if fund["money"] and instant is not None:
        notes.append(_("yields keep no earlier versions: one that was corrected counts as known since then"))
    if "adjusted_nav" in shown[0] and instant is not None:
        notes.append(_("adjusted by the dividends and splits that are known today"))
    right = tuple(range(1, len(headers) - (2 if then else 1)))
    return [Section(title, headers, rows, right=right, note="\n".join(notes))]


def _navs(records: Sequence[Record], _: Translate, *, then: bool) -> tuple[list[str], list[list[str]]]:
    adjusted = "adjusted_nav" in records[0]
    headers = [_("date"), _("unit NAV"), _("accumulated NAV"), _("return %")]
    headers += [_("adjusted NAV")] if adjusted else []
    headers += [_("corrections"), _("known since")]
    headers += [_("corrected later")] if then else []
    rows = []
    for record in records:
        row = [
            day(record["nav_date"]),
            nav_text(record["unit_nav"]),
            nav_text(record["accum_nav"]),
            percent_text(record["daily_return"]),
        ]
        row += [f"{record['adjusted_nav']:.6f}"] if adjusted else []
        row += [
            number(record["revisions"]) if record["revisions"] else "",
            clock_time(record["known_at"], TIME),
        ]
        row += [clock_time(record["changed_at"], TIME) if record["changed_at"] else ""] if then else []
        rows.append(row)
    return headers, rows


def _yields(records: Sequence[Record], _: Translate) -> tuple[list[str], list[list[str]]]:
    headers = [_("date"), _("income per 10,000"), _("7-day yield %"), _("known since")]
    rows = [
        [
            day(record["nav_date"]),
            nav_text(record["income_per_10k"]),
            percent_text(record["yield_7d"]),
            clock_time(record["known_at"], TIME),
        ]
        for record in records
    ]
    return headers, rows
