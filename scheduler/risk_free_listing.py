"""`main.py risk-free`: the risk-free rates as records and in words."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from core import db, risk_free
from scheduler.sections import Section
from scheduler.wording import Translate, day, one_line

if TYPE_CHECKING:
    from scheduler.quality import Record

SETTING = "NAVKEEPER_RISK_FREE_RATE"


def list_rates(engine: Engine, setting: float) -> list[Record]:
    """The setting, which holds before the first day (effective_from null), and the rates by their first day."""
    with db.read(engine) as connection:
        rows = risk_free.rates_on_record(connection)
    first: Record = {"effective_from": None, "rate": setting, "note": SETTING}
    return [first, *(row._asdict() for row in rows)]


def set_one(engine: Engine, first: date, rate: float, note: str | None) -> Record:
    """Raises UsageError for a rate out of bounds."""
    with db.write(engine) as connection:
        old = risk_free.set_rate(connection, first, rate, note)
    return {"action": "set", "effective_from": first, "rate": rate, "before": old}


def remove_one(engine: Engine, first: date) -> Record:
    """Raises UsageError for a day that no rate holds from."""
    with db.write(engine) as connection:
        old = risk_free.remove_rate(connection, first)
    return {"action": "remove", "effective_from": first, "rate": None, "before": old}


def changed_text(record: Record, _: Translate) -> str:
    """What was done, and what it changes."""
    names = {
        "date": day(record["effective_from"]),
        "rate": _rate(record["rate"]),
        "old": _rate(record["before"]),
    }
    if record["action"] == "remove":
        said = _("the risk-free rate from {date} on, {old} % a year, is removed: the one before it holds on")
    elif record["before"] is None:
        said = _("from {date} on the risk-free rate is {rate} % a year")
    else:
        said = _("from {date} on the risk-free rate is {rate} % a year, no longer {old} %")
    effect = _("the next night reckons with it; metrics of past dates stay as they are until: {command}")
    command = "python main.py metrics --date YYYY-MM-DD"
    return f"{said.format(**names)}\n{effect.format(command=command)}"


def rate_sections(records: list[Record], _: Translate) -> list[Section]:
    """The rates by the day they hold from."""
    rows = [
        [
            day(record["effective_from"]) if record["effective_from"] else _("before"),
            _rate(record["rate"]),
            one_line(record["note"] or ""),
        ]
        for record in records
    ]
    headers = [_("from"), _("% a year"), _("note")]
    return [Section(_("Risk-free rates"), headers, rows, right=(1,))]


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.4f}".rstrip("0").rstrip(".")
