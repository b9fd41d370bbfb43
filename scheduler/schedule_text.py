"""When a job is due, in words."""

from __future__ import annotations

from config.translation import N_
from scheduler.schedule import Schedule
from scheduler.wording import Translate

DAYS = {
    "mon": N_("Mon"),
    "tue": N_("Tue"),
    "wed": N_("Wed"),
    "thu": N_("Thu"),
    "fri": N_("Fri"),
    "sat": N_("Sat"),
    "sun": N_("Sun"),
}
HOME = "Asia/Shanghai"


def schedule_text(schedule: Schedule, _: Translate) -> str:
    """Such as "Mon to Fri 21:00, 23:00"; fields that are not days and times as cron has them."""
    fields = {field.name: str(field) for field in schedule.walls.fields if not field.is_default}
    days, hours = fields.pop("day_of_week", "*"), fields.pop("hour", "*")
    minutes = fields.pop("minute", "*" if hours == "*" else "0")
    fields.pop("second", None) if fields.get("second") == "0" else None
    zone = "" if schedule.zone.key == HOME else f" ({schedule.zone.key})"
    others = "".join(f" {name} {value}" for name, value in fields.items())
    return f"{_days(days, _)} {_times(hours, minutes)}{others}{zone}"


def _days(text: str, _: Translate) -> str:
    if text == "*":
        return _("every day")
    spans = [[_(DAYS.get(day, day)) for day in part.split("-")] for part in text.split(",")]
    return ", ".join(
        _("{first} to {last}").format(first=s[0], last=s[-1]) if len(s) > 1 else s[0] for s in spans
    )


def _times(hours: str, minutes: str) -> str:
    hour, minute = hours.split(","), minutes.split(",")
    if all(part.isdecimal() for part in (*hour, *minute)):
        return ", ".join(f"{int(h):02}:{int(m):02}" for h in hour for m in minute)
    return f"hour {hours} minute {minutes}"
