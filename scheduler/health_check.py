"""Pages, health, figures and the REST API over HTTP: `python scheduler/health_check.py`, or `python main.py health`.

The pages from `/` on are for people, `/health` is for load balancers and watchdogs, `/metrics` for dashboards and
Prometheus. Clients get codes; what went wrong in detail goes to the log.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # started as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy import Engine
    from waitress.server import BaseWSGIServer

    from scheduler.cache import Cache
    from scheduler.clock import Clock
    from scheduler.job import Job
    from scheduler.jobs import Jobs
    from scheduler.web.access import Access

SHARED_SECONDS = (
    5.0  # how old an answer may be that many share; a look at a big MariaDB takes a fifth of a second
)
CONNECTIONS = 500  # at once; those that say nothing for IDLE_SECONDS make room
IDLE_SECONDS = 15


def create_health_app(
    engine: Engine,
    jobs: Mapping[str, Job],
    clock: Clock,
    access: Access | None = None,
    shared_seconds: float = 0.0,
    *,
    cache: Cache | None = None,
    sessions: Path | None = None,
    language: str = "zh",
    home: Path | None = None,
    logs: Path | None = None,
) -> Flask:
    """A WSGI application; the database may be away when it starts and whenever it is asked.

    `engine` should come from `observer_engine`, which answers or fails within seconds. Without `access` reading is
    open and nobody may act. `cache`: for what is dear, by default over the same database. `sessions` is the file in
    which logins are kept; `language` is the pages', unless their reader chose one; `home`: see JobMonitor; `logs`: the
    folder with the reports of nights and weeks. What many ask for may be `shared_seconds` old.
    """
    from flask import Flask

    from scheduler.cache import database_cache
    from scheduler.jobs import Jobs
    from scheduler.web.access import OPEN, guard
    from scheduler.web.api import Api, add_api
    from scheduler.web.pages import add_pages, make_site
    from scheduler.web.problems import handle
    from scheduler.web.watch import add_watch

    app = Flask(__name__, static_folder=None)
    jobs = Jobs(jobs)
    api = Api(engine, jobs, clock)
    cache = cache or database_cache(engine)
    site = make_site(api, access or OPEN, shared_seconds, cache, sessions, language, home, logs)
    guard(app, site.access, clock, site.sessions, site.failures)
    handle(app)
    app.before_request(partial(_see_jobs, jobs, engine))
    add_api(app, api, site.access)
    add_watch(app, engine, jobs, clock, shared_seconds)
    add_pages(app, site)
    return app


def _see_jobs(jobs: Jobs, engine: Engine) -> None:
    """Before every answer that may speak of jobs: a look at one row."""
    from flask import request

    if not request.path.startswith(("/static/", "/health/")):
        jobs.refresh(engine)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "health",
        description="Serve the web pages, /health, /metrics and the REST API over HTTP.",
        epilog="exit codes: 0 stopped by a signal; 1 the port cannot be had; 2 usage; 78 configuration",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--host", help="address to listen on (default: NAVKEEPER_HEALTH_HOST, else 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=_port, help="default: NAVKEEPER_HEALTH_PORT, else 5000; 0 takes a free one"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted. Exit code 0; 1 if the port cannot be had; 2 usage; 78 configuration."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from core.errors import NavKeeperError
    from scheduler.exit_codes import exit_code

    try:
        return _serve(options.host, options.port)
    except NavKeeperError as error:
        print(f"health: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:  # before the server runs: it ends by itself on a later one
        return 0


def _serve(host: str | None, port: int | None) -> int:
    from config.settings import load_settings
    from scheduler.cache import open_cache
    from scheduler.clock import clock_from
    from scheduler.jobs_file import load_jobs
    from scheduler.log_file import log_to
    from scheduler.monitor import home_to_name
    from scheduler.overview import observer_engine
    from scheduler.web.access import access_of

    settings = load_settings()
    host = host or settings.health_host
    port = settings.health_port if port is None else port
    jobs = load_jobs(settings.jobs_file)
    log_to(settings, "health.log")
    access = access_of(settings, host)
    engine = observer_engine(settings.database_url())
    app = create_health_app(
        engine,
        jobs,
        clock_from(settings),
        access,
        SHARED_SECONDS,
        cache=open_cache(settings, engine),
        sessions=settings.home / "web_sessions.json",
        language=settings.language,
        home=home_to_name(settings),
        logs=settings.logs,
    )
    # It warns of every request that waits a moment.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        server = _server(app, host, port)
    except (OSError, ValueError) as error:
        print(f"health: cannot listen on {host}:{port}: {error}; try another --port", file=sys.stderr)
        return 1
    for address in _addresses(server):
        print(
            f"health: http://{address}/ with /health, /metrics and /api/v1; stop with Ctrl-C",
            file=sys.stderr,
            flush=True,
        )
    server.run()
    return 0


def _server(app: Flask, host: str, port: int) -> BaseWSGIServer:
    """It listens. Raises OSError, ValueError where it cannot."""
    from waitress import create_server

    from scheduler.web.access import LARGEST_BODY, LARGEST_HEAD

    return create_server(
        app,
        host=host,
        port=port,
        threads=8,
        ident="navkeeper",
        max_request_body_size=LARGEST_BODY,
        max_request_header_size=LARGEST_HEAD,
        connection_limit=CONNECTIONS,
        channel_timeout=IDLE_SECONDS,
        cleanup_interval=IDLE_SECONDS,
        asyncore_use_poll=True,
    )


def _addresses(server: BaseWSGIServer) -> list[str]:
    """host:port of every socket: a name such as localhost may have two."""
    several = getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]
    return [f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}" for host, port in several]


if __name__ == "__main__":
    sys.exit(main())
