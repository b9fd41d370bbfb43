"""When a job is due, in words."""

from __future__ import annotations

from config.translation import N_
from scheduler.job import Job
from scheduler.schedule import Every, Never, Once, Schedule
from scheduler.wording import Translate, duration

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


def schedule_text(job: Job, _: Translate) -> str:
    """Such as "Mon to Fri 21:00, 23:00"; fields that are not days and times as cron has them."""
    due = job.schedule
    zone = "" if due.zone.key == HOME or isinstance(due, Every) else f" ({due.zone.key})"
    if isinstance(due, Schedule):
        return f"{due.line or _fields(due, _)}{zone}"
    if isinstance(due, Every):
        return _("every {time}").format(time=duration(due.step.total_seconds(), _))
    if isinstance(due, Once):
        return _("once, {at}").format(at=f"{due.at.astimezone(due.zone):%Y-%m-%d %H:%M}") + zone
    assert isinstance(due, Never)  # noqa: S101 - for the reader: there is no other
    return _("on an event: {topics}").format(topics=", ".join(job.on_event))


def _fields(schedule: Schedule, _: Translate) -> str:
    fields = {field.name: str(field) for field in schedule.walls[0].fields if not field.is_default}
    days, hours = fields.pop("day_of_week", "*"), fields.pop("hour", "*")
    minutes = fields.pop("minute", "*" if hours == "*" else "0")
    fields.pop("second", None) if fields.get("second") == "0" else None
    others = "".join(f" {name} {value}" for name, value in fields.items())
    return f"{_days(days, _)} {_times(hours, minutes)}{others}"


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
