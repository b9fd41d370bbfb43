"""The alerts: what is the matter or was, what was sent of it; silenced from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import request
from pydantic import ValidationError
from werkzeug.utils import redirect

from scheduler.alert_listing import alert_sections, state_cell, summary
from scheduler.web import params
from scheduler.web.problems import Problem

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from scheduler.listing import Record
    from scheduler.web.site import Site

LIMIT = 50
HOURS = (1, 8, 24, 72)


def list_alerts(site: Site) -> str:
    asked = site.asked(params.AskedAlerts, limit=str(LIMIT))
    found = site.api.list_alerts(asked)
    kept = {"open": "true"} if asked.open else {}
    return site.render(
        "alerts.html",
        alerts=[shown(record, site) for record in found.items],
        only_open=asked.open,
        older=f"/alerts?{urlencode(kept | found.then)}" if found.then else None,
    )


def shown(record: Record, site: Site) -> dict[str, Any]:
    """An alert with its state and what is the matter in words."""
    _ = site.translate
    return record | {"cell": state_cell(record, _), "what": summary(record, _)}


def show_alert(site: Site, alert: str) -> str:
    found = site.api.show_alert(site.asked(params.AlertPath, alert=alert))
    facts, messages = alert_sections(found, site.translate)
    return site.render("alert.html", alert=shown(found, site), facts=facts, messages=messages, hours=HOURS)


def silence(site: Site, alert: str) -> Response:
    asked = site.asked(params.AlertPath, alert=alert)
    try:
        body = params.Silence(minutes=60 * int(request.form.get("hours", "8")))
    except (ValueError, ValidationError):
        raise Problem("invalid_request", detail=f"hours: one of {', '.join(map(str, HOURS))}") from None
    try:
        site.api.silence((asked, body), by="web")
    except Problem as problem:
        if problem.code != "alert_over":
            raise
        return redirect(f"/alerts/{asked.alert}?{urlencode({'problem': problem.code})}", 303)
    return redirect(f"/alerts/{asked.alert}", 303)


def unsilence(site: Site, alert: str) -> Response:
    asked = site.asked(params.AlertPath, alert=alert)
    site.api.unsilence(asked)
    return redirect(f"/alerts/{asked.alert}", 303)
