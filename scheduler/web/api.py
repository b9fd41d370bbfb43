"""/api/v1: jobs, runs, the chain of the night, funds and what is known of them, evidence, commands.

What is answered are the records that main.py prints with --json; docs/api.md shows how to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from flask import Flask

from core import db
from core.errors import NoDaemon, UsageError
from scheduler import (
    alert_listing,
    commands,
    event_listing,
    job_listing,
    listing,
    metrics_listing,
    nav_listing,
    plugin_listing,
    quality,
)
from scheduler.overview import collect_overview
from scheduler.web import market, params, records
from scheduler.web.access import Access, Role, who
from scheduler.web.job_definitions import JobDefinitions, refused_as_problem
from scheduler.web.openapi import describe
from scheduler.web.problems import Problem
from scheduler.web.records import Page
from scheduler.web.routes import Route, Rows, register

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from scheduler.clock import Clock
    from scheduler.jobs import Jobs
    from scheduler.quality import Record


class Api:
    """What the addresses answer, from one database."""

    def __init__(self, engine: Engine, jobs: Jobs, clock: Clock) -> None:
        self.engine = engine  # for looking: it answers or fails within seconds
        self.jobs = jobs
        self.clock = clock
        self.writer: Callable[[], Engine] = cache(lambda: db.connect(engine.url, supervising=True))

    # Jobs

    def list_jobs(self, _asked: params.NoParams) -> Rows:
        return Rows(listing.list_jobs(self.engine, self.jobs, self.clock(), self.jobs.wrong))

    def show_job(self, asked: params.JobPath) -> Record:
        self._require_job(asked.job)
        job = {asked.job: self.jobs[asked.job]}
        return listing.list_jobs(self.engine, job, self.clock())[0]

    def describe_job(self, job: str) -> Record:
        """The same with its definition and versions; of a stored one that is not run, too."""
        with refused_as_problem():
            record = job_listing.show_job(self.engine, self.jobs, job, self.clock())
        known = {job: self.jobs[job]} if job in self.jobs else {}
        wrong = {} if known else {job: str(record["wrong"])}
        [state] = listing.list_jobs(self.engine, known, self.clock(), wrong)
        state["task"] = state["task"] or str(record["definition"].get("task", ""))
        return state | record

    def pause(self, asked: params.JobPath) -> Record:
        return self.ask("pause", asked.job)

    def resume(self, asked: params.JobPath) -> Record:
        return self.ask("resume", asked.job)

    def trigger(self, asked: tuple[params.JobPath, params.Trigger]) -> Record:
        path, body = asked
        return self.ask("trigger", path.job, business_date=body.business_date, params=body.params)

    def _require_job(self, name: str) -> None:
        if name not in self.jobs:
            raise Problem("unknown_job")

    def ask(self, action: str, job: str | None = None, *, by: str = "api", **what: Any) -> Record:
        """The command as the daemon answered it. Raises Problem where it refused, NoDaemon."""
        if job is not None:
            self._require_job(job)
        with db.read(self.engine):  # a database that is not there is refused here, not made
            pass
        row = commands.request(
            self.writer(), self.clock, action=action, requested_by=who(by), job_id=job, **what
        )
        if row.status == commands.EXPIRED:
            raise NoDaemon(row.answer)
        record = listing.command_record(row)
        if row.status == commands.REFUSED:
            raise Problem("refused", detail=row.answer, command=row.id)
        return record

    # Runs

    def list_runs(self, asked: params.AskedRuns) -> Rows:
        found = listing.list_runs(
            self.engine,
            self.clock(),
            job_id=asked.job,
            status=asked.status,
            business_date=asked.date,
            before=asked.before,
            limit=asked.limit + 1,
        )
        return Rows.by_key(found, asked.limit, "before", "run")

    def show_run(self, asked: params.RunPath) -> Record:
        with _missing("unknown_run"):
            return listing.show_run(self.engine, asked.run, self.clock())

    def read_log(self, asked: params.AskedLog) -> Record:
        self.show_run(asked)
        with _missing("no_log"):
            return listing.read_log(self.engine, asked.run, asked.attempt, asked.bytes)

    def cancel(self, asked: params.RunPath) -> Record:
        self.show_run(asked)
        return self.ask("cancel", run_id=asked.run)

    def retry(self, asked: params.RunPath) -> Record:
        self.show_run(asked)
        return self.ask("retry", run_id=asked.run)

    def list_events(self, asked: params.AskedEvents) -> Rows:
        found = event_listing.list_events(
            self.engine,
            topic=asked.topic,
            run_id=asked.run,
            kind=asked.kind,
            since=asked.since,
            before=asked.before,
            limit=asked.limit + 1,
        )
        return Rows.by_key(found, asked.limit, "before", "event")

    def list_parked(self, asked: params.AskedParked) -> Rows:
        found = event_listing.list_parked(self.engine, asked.limit + 1, asked.before)
        return Rows.by_key(found, asked.limit, "before", "parked")

    def list_subscribers(self, _asked: params.NoParams) -> Rows:
        return Rows(event_listing.list_subscribers(self.engine))

    def list_commands(self, asked: params.AskedCommands) -> Rows:
        found = listing.list_commands(self.engine, asked.limit + 1, asked.before)
        return Rows.by_key(found, asked.limit, "before", "command")

    def command(self, number: int) -> Record | None:
        """A command and its answer, None where there is none of that number."""
        found = listing.list_commands(self.engine, 1, number + 1)
        return found[0] if found and found[0]["command"] == number else None

    # Plugins

    def list_plugins(self, _asked: params.NoParams) -> Rows:
        return Rows(plugin_listing.list_plugins(self.engine))

    def list_tasks(self, _asked: params.NoParams) -> Rows:
        """What jobs can run; `params` is the JSON Schema of the parameters."""
        return Rows(plugin_listing.list_tasks(self.engine))

    # Alerts

    def list_alerts(self, asked: params.AskedAlerts) -> Rows:
        found = alert_listing.list_alerts(
            self.engine, self.clock(), only_open=asked.open, before=asked.before, limit=asked.limit + 1
        )
        return Rows.by_key(found, asked.limit, "before", "alert")

    def show_alert(self, asked: params.AlertPath) -> Record:
        with _missing("unknown_alert"):
            return alert_listing.show_alert(self.engine, asked.alert, self.clock())

    def silence(self, asked: tuple[params.AlertPath, params.Silence], by: str = "api") -> Record:
        path, body = asked
        self.show_alert(path)
        now = self.clock()
        until = now + timedelta(minutes=body.minutes)
        with _missing("alert_over"):
            return alert_listing.silence(self.writer(), path.alert, until, who(by), now)

    def unsilence(self, asked: params.AlertPath) -> Record:
        self.show_alert(asked)
        return alert_listing.unsilence(self.writer(), asked.alert, self.clock())

    # The night

    def chain(self, _asked: params.NoParams) -> Record:
        seen = collect_overview(self.engine, self.jobs, self.clock()).as_json()
        return {"business_date": seen["chain_date"], "steps": seen["chain"]}

    def etl_status(self, _asked: params.NoParams) -> Record:
        """Whether the data is complete, and what the night has come to."""
        seen = collect_overview(self.engine, self.jobs, self.clock()).as_json()
        of_table = ("table", "newest_date", "sessions_behind", "rows", "coverage")
        return {
            "status": seen["verdict"]["state"],
            "reasons": list(dict.fromkeys(reason["code"] for reason in seen["verdict"]["reasons"])),
            "business_date": seen["chain_date"],
            "expected_date": seen["expected_date"],
            "simulated": seen["simulated"],
            "daemon": seen["daemon"]["state"],
            "steps": seen["chain"],
            "tables": [{name: table[name] for name in of_table} for table in seen["freshness"]],
            "next_command": seen["next_command"],
            "timestamp": seen["now"],
        }

    def quality(self, asked: params.AskedQuality) -> Record:
        with _missing("not_stored"):
            return quality.quality(self.engine, asked.date)

    # Funds

    def list_funds(self, asked: params.AskedFunds) -> Rows:
        with _missing("not_stored"):
            found = market.find_funds(self.engine, asked.q, asked.type, asked.after, asked.limit + 1)
        return Rows.by_key(found, asked.limit, "after", "fund_code")

    def show_fund(self, asked: params.FundPath) -> Record:
        with _missing("unknown_fund"):
            return market.show_fund(self.engine, asked.fund)

    def fund_events(self, asked: params.FundPath) -> Rows:
        with _missing("unknown_fund"):
            return Rows(market.fund_events(self.engine, asked.fund))

    def navs(self, asked: params.AskedNavs) -> Rows:
        with _missing("unknown_fund"), db.read(self.engine) as connection:
            money = nav_listing.fund_named(connection, asked.fund)["money"]
        if money and asked.adjusted:
            raise Problem("not_adjusted")
        _fund, found = nav_listing.known_navs(
            self.engine, asked.fund, asked.as_of, asked.first, asked.last, adjusted=asked.adjusted
        )
        items = found[: asked.limit]
        more = {"from": items[-1]["nav_date"] + timedelta(days=1)} if len(found) > asked.limit else None
        return Rows(items, more, records.Yield if money else records.Nav)

    def fund_metrics(self, asked: params.AskedFundMetrics) -> Record:
        self.show_fund(asked)
        with _missing("not_stored"):
            return metrics_listing.fund_metrics_of(self.engine, asked.fund, asked.date)

    def metrics(self, asked: params.AskedMetrics) -> Rows:
        return self._market("metrics", asked)

    def ranks(self, asked: params.AskedMetrics) -> Rows:
        return self._market("rank", asked)

    def _market(self, kind: str, asked: params.AskedMetrics) -> Rows:
        with _missing("not_stored"):
            found = market.market_rows(self.engine, kind, asked.date, asked.after, asked.limit + 1)
        rows = Rows.by_key(found, asked.limit, "after", "fund_code")
        if rows.then is not None:  # the next page is of the same date, though a night comes in between
            rows.then["date"] = rows.items[0]["calc_date"]
        return rows

    def ranking(self, asked: params.AskedRanking) -> Rows:
        with _missing("not_stored"):
            found = metrics_listing.ranked_funds(
                self.engine,
                asked.by,
                asked.type,
                asked.date,
                bottom=asked.order == "worst",
                every_class=asked.every_class,
            )
        end = asked.offset + asked.limit
        items = found[asked.offset : end]
        then = {"offset": end, "date": items[0]["calc_date"]} if items and len(found) > end else None
        return Rows(items, then)

    def routes(self) -> list[Route]:
        kinds = (JobDefinitions(self).routes, self._routes_of_commands, self._routes_of_runs)
        return [route for of in (*kinds, self._routes_of_alerts, self._routes_of_funds) for route in of()]

    def _routes_of_commands(self) -> list[Route]:
        job, of_job = params.JobPath, ("unknown_job", "refused", "no_daemon")
        return [
            Route("GET", "/jobs", self.list_jobs, params.NoParams, Page[records.Job]),
            Route("POST", "/jobs/{job}/pause", self.pause, job, records.Command, problems=of_job),
            Route("POST", "/jobs/{job}/resume", self.resume, job, records.Command, problems=of_job),
            Route(
                "POST",
                "/jobs/{job}/trigger",
                self.trigger,
                job,
                records.Command,
                body=params.Trigger,
                problems=(*of_job, "unsupported_media_type", "request_entity_too_large"),
            ),
        ]

    def _routes_of_runs(self) -> list[Route]:
        nothing, run = params.NoParams, params.RunPath
        of_run = ("unknown_run", "refused", "no_daemon")
        return [
            Route("GET", "/runs", self.list_runs, params.AskedRuns, Page[records.Run]),
            Route("GET", "/runs/{run}", self.show_run, run, records.RunDetail, problems=("unknown_run",)),
            Route(
                "GET",
                "/runs/{run}/log",
                self.read_log,
                params.AskedLog,
                records.Log,
                problems=("unknown_run", "no_log"),
            ),
            Route("POST", "/runs/{run}/cancel", self.cancel, run, records.Command, problems=of_run),
            Route("POST", "/runs/{run}/retry", self.retry, run, records.Command, problems=of_run),
            Route("GET", "/events", self.list_events, params.AskedEvents, Page[records.Event]),
            Route("GET", "/events/parked", self.list_parked, params.AskedParked, Page[records.Parked]),
            Route("GET", "/subscribers", self.list_subscribers, nothing, Page[records.Subscriber]),
            Route("GET", "/commands", self.list_commands, params.AskedCommands, Page[records.Command]),
            Route("GET", "/plugins", self.list_plugins, nothing, Page[records.Plugin]),
            Route("GET", "/tasks", self.list_tasks, nothing, Page[records.Task]),
            Route("GET", "/chain", self.chain, nothing, records.Chain),
            Route("GET", "/etl/status", self.etl_status, nothing, records.EtlStatus),
        ]

    def _routes_of_alerts(self) -> list[Route]:
        one, unknown = params.AlertPath, ("unknown_alert",)
        detail = records.AlertDetail
        return [
            Route("GET", "/alerts", self.list_alerts, params.AskedAlerts, Page[records.Alert]),
            Route("GET", "/alerts/{alert}", self.show_alert, one, detail, problems=unknown),
            Route(
                "POST",
                "/alerts/{alert}/silence",
                self.silence,
                one,
                detail,
                body=params.Silence,
                problems=(*unknown, "alert_over", "unsupported_media_type", "request_entity_too_large"),
            ),
            Route("POST", "/alerts/{alert}/unsilence", self.unsilence, one, detail, problems=unknown),
        ]

    def _routes_of_funds(self) -> list[Route]:
        of_fund, of_date = ("unknown_fund",), ("not_stored", "not_ready")
        return [
            Route("GET", "/quality", self.quality, params.AskedQuality, records.Quality, problems=of_date),
            Route(
                "GET",
                "/funds",
                self.list_funds,
                params.AskedFunds,
                Page[records.Fund],
                problems=("not_stored",),
            ),
            Route(
                "GET", "/funds/{fund}", self.show_fund, params.FundPath, records.FundDetail, problems=of_fund
            ),
            Route(
                "GET",
                "/funds/{fund}/events",
                self.fund_events,
                params.FundPath,
                Page[records.FundEvent],
                problems=of_fund,
            ),
            Route(
                "GET",
                "/funds/{fund}/navs",
                self.navs,
                params.AskedNavs,
                Page[records.Nav | records.Yield],
                item=records.Nav,
                problems=(*of_fund, "not_adjusted"),
            ),
            Route(
                "GET",
                "/funds/{fund}/metrics",
                self.fund_metrics,
                params.AskedFundMetrics,
                records.FundMetrics,
                problems=(*of_fund, *of_date),
            ),
            *(
                Route("GET", path, handler, asked, Page[item], item=item, problems=of_date)  # type: ignore[valid-type]
                for path, handler, asked, item in (
                    ("/metrics", self.metrics, params.AskedMetrics, records.MarketMetrics),
                    ("/ranks", self.ranks, params.AskedMetrics, records.MarketRanks),
                    ("/ranking", self.ranking, params.AskedRanking, records.Ranked),
                )
            ),
        ]


@contextmanager
def _missing(code: str) -> Iterator[None]:
    """What was asked for is well formed, so a refusal says that it is not there."""
    try:
        yield
    except UsageError:
        raise Problem(code) from None


def add_api(app: Flask, api: Api, access: Access) -> None:
    routes = api.routes()
    document = describe(routes, reading_is_open=not access.has_tokens)
    own = Route(
        "GET", "/openapi.json", lambda _asked: document, params.NoParams, records.Document, role=Role.ANYONE
    )
    for route in (*routes, own):
        register(app, route)
