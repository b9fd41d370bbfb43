"""Eastmoney's data centre: one address for tables of many kinds, of which macro figures are some.

`{"result":{"pages":3,"count":1200,"data":[{"REPORT_DATE":"2026-06-01 00:00:00",…},…]},"success":true,"code":0}`.
A page has 500 rows at the most, whatever was asked for. Code 9201 and no result: there are no rows. Code 9501:
no such table or column.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from core.errors import SourceChanged, SourceUnavailable
from core.sources.eastmoney_http import EastmoneyHttp
from core.sources.replies import decode, json_object
from core.sources.text_values import parse_date, shown

ADDRESS = "https://datacenter-web.eastmoney.com"
PATH = "/api/data/v1/get"
PAGE_ROWS = 500
NO_ROWS, NO_TABLE = 9201, 9501
MOST_PAGES = 200
Record = dict[str, Any]


def report(
    http: EastmoneyHttp,
    base: str,
    name: str,
    columns: tuple[str, ...],
    by: str,
    *,
    only: str = "",
    since: date | None = None,
) -> list[Record]:
    """The rows of a table, newest first by its date column `by`; from `since` on, with what shares its pages.

    Each row has all `columns`. Raises `SourceUnavailable` where pages do not add up to the announced count,
    `SourceChanged` for a reply of another format.
    """
    rows: list[Record] = []
    number, pages, count = 1, 1, 0
    while number <= pages:
        found, pages, count = http.get(
            base.rstrip("/") + PATH,
            {
                "reportName": name,
                "columns": ",".join(columns),
                "filter": only,
                "pageNumber": str(number),
                "pageSize": str(PAGE_ROWS),
                "sortColumns": by,
                "sortTypes": "-1",
                "source": "WEB",
                "client": "WEB",
            },
            lambda body: _page(body, columns),
        )
        if pages > MOST_PAGES:
            raise SourceChanged(f"{name}: {pages} pages are announced, more than {MOST_PAGES}")
        rows += found
        if since is not None and found and _day(found[-1], by) < since:
            return rows
        number += 1
    if len(rows) != count:
        raise SourceUnavailable(
            f"{name}: {len(rows)} of {count} announced rows came in {pages} pages; try again"
        )
    return rows


def _page(body: bytes, columns: tuple[str, ...]) -> tuple[list[Record], int, int]:
    reply = json_object(decode(body))
    code, result = reply.get("code"), reply.get("result")
    if code == NO_ROWS:
        return [], 0, 0
    if code == NO_TABLE:
        raise SourceChanged(
            f"the data centre has no such table or column: {shown(reply.get('message'), 80)!r}"
        )
    if code not in (0, None):
        raise SourceUnavailable(f"the data centre refused with code {shown(code, 12)}; try again later")
    data = result.get("data") if isinstance(result, dict) else None
    if not isinstance(data, list) or not isinstance(result, dict):
        raise SourceChanged(f"field 'result' should hold rows, it is {shown(result, 60)!r}")
    pages, count = result.get("pages"), result.get("count")
    if type(pages) is not int or type(count) is not int:
        raise SourceChanged("the fields 'pages' and 'count' should be numbers")
    for row in data:
        missing = [name for name in columns if not isinstance(row, dict) or name not in row]
        if missing:
            raise SourceChanged(f"field {missing[0]!r} is missing from a row: {shown(row, 60)!r}")
    return data, pages, count


def _day(row: Record, by: str) -> date:
    day = parse_date(by, str(row[by]))
    if day is None:
        raise SourceChanged(f"field {by!r} is empty")
    return day
