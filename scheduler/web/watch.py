"""/health and /metrics: for load balancers, watchdogs and Prometheus. Clients get codes, the log what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, jsonify, request

from core import db
from core.errors import NavKeeperError, SchemaOutdated
from scheduler import health
from scheduler.figures import Figures, exposition, read_figures
from scheduler.overview import collect_overview
from scheduler.shared_answer import SharedAnswer
from scheduler.web.access import Role, allow

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from scheduler.clock import Clock
    from scheduler.job import Job

log = logging.getLogger(__name__)
PROMETHEUS_TYPES = ("text/plain", "application/openmetrics-text")
JSON_TYPES = ("application/json", "application/*", "*/*")


def add_watch(
    app: Flask, engine: Engine, jobs: Mapping[str, Job], clock: Clock, shared_seconds: float
) -> None:
    """The addresses. Who asks them within `shared_seconds` of another gets the same look at the database."""

    def look() -> Figures:
        return read_figures(engine, collect_overview(engine, jobs, clock()))

    figures = SharedAnswer(look, shared_seconds)
    ready = SharedAnswer(lambda: _require_ready(engine), shared_seconds)

    @app.get("/health")
    @allow(Role.ANYONE)
    def healthy() -> Response:
        return _health(figures, clock())

    @app.get("/health/live")
    @allow(Role.ANYONE)
    def live() -> Response:
        return _health_reply(health.short_body((), standard=_wants_standard()), 200)

    @app.get("/health/ready")
    @allow(Role.ANYONE)
    def readiness() -> Response:
        return _readiness(ready)

    @app.get("/metrics")
    @allow(Role.VIEWER)
    def metrics() -> Response:
        return _metrics(figures(), clock())


def _require_ready(engine: Engine) -> None:
    """Raises DatabaseUnavailable, SchemaOutdated."""
    with db.read(engine) as connection:
        if db.revision(connection) != db.newest_revision():
            raise SchemaOutdated(db.outdated_message(engine))


def _health(figures: Callable[[], Figures], now: datetime) -> Response:
    try:
        found = health.health_of(figures().seen, now)
    except NavKeeperError as error:
        log.error("/health: %s: %s", error.code, error)
        found = health.unreadable(error, now)
    body = health.standard_body(found) if _wants_standard() else health.plain_body(found)
    return _health_reply(body, found.http_status)


def _readiness(ready: Callable[[], None]) -> Response:
    reasons: tuple[str, ...] = ()
    try:
        ready()
    except NavKeeperError as error:
        log.error("/health/ready: %s: %s", error.code, error)
        reasons = (error.code,)
    body = health.short_body(reasons, standard=_wants_standard())
    return _health_reply(body, 503 if reasons else 200)


def _metrics(found: Figures, now: datetime) -> Response:
    if _wants_prometheus(request.args.get("format"), request.accept_mimetypes):
        text, content_type = exposition(found, request.headers.get("Accept", ""))
        return Response(text, content_type=content_type)
    body = {"nav_records": found.nav_records, "fund_count": found.fund_count}
    return jsonify(body | {"timestamp": health.shanghai(now)})


def _health_reply(body: dict[str, Any], status: int) -> Response:
    reply = jsonify(body)
    reply.status_code = status
    if _wants_standard():
        reply.content_type = health.MEDIA_TYPE
    return reply


def _wants_standard() -> bool:
    wanted = _quality(request.accept_mimetypes, (health.MEDIA_TYPE,))
    return 0 < wanted >= _quality(request.accept_mimetypes, JSON_TYPES)


def _wants_prometheus(form: str | None, accepted: Iterable[tuple[str, float]]) -> bool:
    """Prometheus text if asked for by ?format=prometheus, or by an Accept that prefers it to JSON."""
    if form:
        return form == "prometheus"
    return _quality(accepted, PROMETHEUS_TYPES) > _quality(accepted, JSON_TYPES)


def _quality(accepted: Iterable[tuple[str, float]], kinds: tuple[str, ...]) -> float:
    """How much one of these kinds is wanted: 0 to 1, 0 for one that is not named."""
    return max((quality for value, quality in accepted if value.partition(";")[0] in kinds), default=0)
