"""What happened, by topic; who listens, and what they could not take."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from flask import request

from scheduler.event_listing import events_section, parked_section, subscribers_section
from scheduler.events import TOPICS
from scheduler.web import params
from scheduler.web.site import OWN_WORDS

if TYPE_CHECKING:
    from scheduler.web.site import Site

LIMIT = 50


def list_events(site: Site) -> str:
    asked, _ = site.asked(params.AskedEvents, limit=str(LIMIT)), site.translate
    found = site.api.list_events(asked)
    parked = site.api.list_parked(params.AskedParked.model_validate({"limit": str(LIMIT)}))
    listeners = site.api.list_subscribers(params.NoParams())
    unread = (*OWN_WORDS, "limit")
    kept = {name: value for name, value in request.args.items() if value and name not in unread}
    return site.render(
        "events.html",
        events=events_section(found.items, _),
        parked=parked_section(parked.items, _),
        subscribers=subscribers_section(listeners.items, _),
        asked=asked,
        topics=[*TOPICS, "run.*", "data.*", "quality.*"],
        older=f"/events?{urlencode(kept | found.then)}" if found.then else None,
    )
