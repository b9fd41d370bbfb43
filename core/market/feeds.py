"""Feeds of news: Eastmoney's quick news as JSON, and whatever speaks RSS or Atom.

`{"code":"1","data":{"fastNewsList":[{"code":"…","title":"…","summary":"…","showTime":"2026-08-03 12:03:57"},…]}}`,
times by Shanghai's clock. That layout is read from its clients, none was recorded: see docs/market.md.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from core.errors import SourceChanged, SourceUnavailable
from core.market.news import Entry
from core.sources.eastmoney_http import EastmoneyHttp
from core.sources.replies import decode, json_object, readable
from core.sources.text_values import FieldError, shown
from core.trading_calendar import SHANGHAI

PAGE = "https://finance.eastmoney.com/a/{code}.html"
LONGEST_TITLE, LONGEST_SUMMARY, LONGEST_LINK = 500, 2000, 1000
_TAG = re.compile(r"<[^>]*>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def fetch_entries(http: EastmoneyHttp, url: str, now: datetime) -> list[Entry]:
    """What a feed has. An entry without a date, or dated after `now`, counts as published `now`.

    Raises `SourceUnavailable`, among others for an HTML page, and `SourceChanged` for what is no known feed.
    """
    parts = urlsplit(url)
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    address = parts._replace(query="", fragment="").geturl()
    entries = http.get(address, params, lambda body: parse_feed(body, now))
    return [entry for entry in entries if entry.title]


def parse_feed(body: bytes, now: datetime) -> list[Entry]:
    if not body.strip():
        raise SourceUnavailable("the feed is empty; try again later")
    if body.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{"):
        return _json(body, now)
    import feedparser

    found = feedparser.parse(body)
    if not found.get("version"):
        raise SourceUnavailable("the reply is neither RSS nor Atom nor JSON; is the address that of a feed?")
    if found.get("bozo") and not found.entries:
        raise SourceChanged(f"the feed cannot be read: {shown(found.get('bozo_exception'), 80)}")
    return [
        _entry(each.get("title"), each.get("summary"), each.get("link"), _instant(each), now)
        for each in found.entries
    ]


def _json(body: bytes, now: datetime) -> list[Entry]:
    reply = json_object(decode(body))
    data = reply.get("data")
    entries = data.get("fastNewsList") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise SourceChanged(f"field 'fastNewsList' should be a list: {shown(reply, 80)!r}")

    def read(entry: dict[str, Any]) -> Entry:
        try:
            at = datetime.strptime(entry["showTime"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=SHANGHAI)
        except ValueError:
            raise FieldError("showTime", f"{shown(entry['showTime'], 40)!r} is no time") from None
        link = PAGE.format(code=entry["code"]) if re.fullmatch(r"\d{1,30}", entry["code"]) else ""
        return _entry(entry["title"], entry.get("summary"), link, at, now)

    return readable(entries, read)


def _instant(entry: Any) -> datetime | None:
    parsed = entry.get("published_parsed") or entry.get("updated_parsed")  # in UTC
    try:
        return datetime.fromtimestamp(calendar.timegm(parsed), UTC) if parsed else None
    except (ValueError, OverflowError, OSError):
        return None


def _entry(title: Any, summary: Any, link: Any, at: datetime | None, now: datetime) -> Entry:
    address = str(link or "")
    safe = address if address.startswith(("https://", "http://")) and len(address) <= LONGEST_LINK else ""
    said = _clean(summary)[:LONGEST_SUMMARY]
    return Entry(_clean(title)[:LONGEST_TITLE], said, safe, min(at or now, now))


def _clean(text: Any) -> str:
    """One line without markup."""
    return " ".join(_CONTROL.sub(" ", _TAG.sub("", str(text or ""))).split())
