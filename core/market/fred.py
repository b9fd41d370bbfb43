"""FRED (Federal Reserve Bank of St. Louis): series by their id, with the user's own key.

`fred/series/observations?series_id=&api_key=&file_type=json` gives
`{"count":3,"offset":0,"limit":100000,"observations":[{"date":"2026-01-01","value":"."},…]}`; "." is no value.
The key can only be sent in the address: it stands in no message, since messages show addresses without their query.
"""

from __future__ import annotations

import re
from datetime import date

from core.errors import SourceChanged, SourceUnavailable, UsageError
from core.market.macro import Figure
from core.sources.eastmoney_http import EastmoneyHttp
from core.sources.replies import decode, json_object, readable
from core.sources.text_values import FieldError, parse_date, parse_number, shown

ADDRESS = "https://api.stlouisfed.org"
PATH = "/fred/series/observations"
REQUESTS_PER_SECOND = 1.5  # an account may ask 120 times a minute
HEADERS = {"User-Agent": "NavKeeper", "Accept": "application/json"}
_ID = re.compile(r"[A-Z0-9_]{1,50}")


def fetch_series(http: EastmoneyHttp, base: str, key: str, series: str, since: date | None) -> list[Figure]:
    """The values of a series from `since` on, oldest first, as `fred:ID`; in the unit that FRED has it in.

    Raises `UsageError` for what is no id, `SourceRefused` for an unknown one or a key that does not hold.
    """
    if _ID.fullmatch(series) is None:
        raise UsageError(f"{series[:60]!r} is no id of a FRED series, such as DGS10")
    params = {"series_id": series, "api_key": key, "file_type": "json"}
    if since is not None:
        params["observation_start"] = since.isoformat()
    return http.get(
        base.rstrip("/") + PATH,
        params,
        lambda body: _parse(body, series),
        refused=f"FRED takes neither the series {series} nor your key: check the id, and the secret fred_api_key",
    )


def _parse(body: bytes, series: str) -> list[Figure]:
    reply = json_object(decode(body))
    entries, count = reply.get("observations"), reply.get("count")
    if not isinstance(entries, list) or type(count) is not int:
        raise SourceChanged(
            f"FRED {series}: 'observations' and 'count' are expected, it says {shown(reply, 60)!r}"
        )
    if len(entries) != count:
        raise SourceUnavailable(f"FRED {series}: {len(entries)} of {count} values came; try again")

    def read(entry: dict[str, str]) -> Figure | None:
        day = parse_date("date", entry["date"])
        value = None if entry["value"] == "." else parse_number("value", entry["value"])
        if day is None:
            raise FieldError("date", "is empty")
        return None if value is None else Figure(f"fred:{series}", day, value, "as published")

    return sorted(figure for figure in readable(entries, read) if figure is not None)
