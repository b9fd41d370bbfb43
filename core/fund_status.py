"""What a fund is doing, from what the publisher's lists say of it."""

from __future__ import annotations

from datetime import date, timedelta

STATUSES = ("active", "new", "closed", "suspended", "liquidated")
SILENT = timedelta(days=30)  # without a NAV, a fund that no list names any more is gone

_ENDED = ("终止", "清盘", "清算", "摘牌", "退市")
_OFFERED = ("认购", "募集", "发行")
_CLOSED = "封闭"
_SUSPENDED = "暂停"


def fund_status(
    purchase: str | None,
    redemption: str | None,
    inception: date | None,
    *,
    listed: bool,
    business_date: date,
    newest_nav: date | None,
) -> str:
    """One of STATUSES, the first that applies on `business_date`; `active` where nothing says otherwise.

    liquidated: the words say so (终止, 清盘), or no list names the fund any more and it has had no NAV
    for 30 days. new: on its first offer (认购期), or its inception is still to come. closed: in a closed
    period (封闭期), during which it publishes weekly. suspended: neither bought nor given back (暂停 in
    both words); one of the two alone is no news to who holds the fund.
    """
    words = (purchase or "", redemption or "")
    silent = newest_nav is None or business_date - newest_nav > SILENT
    if _any_of(words, _ENDED) or (not listed and silent):
        return "liquidated"
    if _any_of(words, _OFFERED) or (inception is not None and inception > business_date):
        return "new"
    if _any_of(words, (_CLOSED,)):
        return "closed"
    return "suspended" if all(_SUSPENDED in text for text in words) else "active"


def _any_of(words: tuple[str, str], marks: tuple[str, ...]) -> bool:
    return any(mark in text for text in words for mark in marks)
