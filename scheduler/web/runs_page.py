"""The runs: a list to be narrowed, and one run as it goes: progress, attempts, events, the end of its log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from flask import request

from scheduler.job import ENDED_BADLY, PENDING, RunStatus
from scheduler.web import params
from scheduler.web.problems import Problem
from scheduler.web.site import OWN_WORDS

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from scheduler.listing import Record
    from scheduler.web.site import Site

LOG_BYTES = 16 * 1024
LIMIT = 50


def list_runs(site: Site) -> str:
    asked = site.asked(params.AskedRuns, limit=str(LIMIT))
    found = site.api.list_runs(asked)
    kept = {
        name: value for name, value in request.args.items() if value and name not in (*OWN_WORDS, "limit")
    }
    return site.render(
        "runs.html",
        runs=found.items,
        asked=asked,
        jobs=site.api.jobs,
        statuses=list(RunStatus),
        older=f"/runs?{urlencode(kept | found.then)}" if found.then else None,
    )


def show_run(site: Site, run: str) -> str:
    asked = site.asked(params.AskedLog, run=run, bytes=str(LOG_BYTES))
    found = site.api.show_run(asked)
    return site.render(
        "run.html",
        run=found,
        params=json.dumps(found["params"], ensure_ascii=False) if found["params"] else "",
        log=_log(site, asked),
        pending=found["status"] in PENDING,
        again=found["status"] in ENDED_BADLY,
    )


def _log(site: Site, asked: params.AskedLog) -> Record | None:
    try:
        return site.api.read_log(asked)
    except Problem as problem:
        if problem.code != "no_log":
            raise
        return None


def cancel(site: Site, run: str) -> Response:
    return _act(site, "cancel", run)


def retry(site: Site, run: str) -> Response:
    return _act(site, "retry", run)


def _act(site: Site, action: str, run: str) -> Response:
    asked = site.asked(params.RunPath, run=run)
    site.api.show_run(asked)
    return site.act(f"/runs/{asked.run}", action, run_id=asked.run)
