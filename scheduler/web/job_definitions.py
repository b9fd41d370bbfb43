"""/api/v1/jobs/{job}: what a job is, and making, changing and deleting those that are kept in the database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flask import Response, request

from core import db
from core.errors import JobChanged, JobRefused, UnknownJob
from scheduler import listing
from scheduler.job_changes import Asked, change_job, create_job, delete_job
from scheduler.web import params, records
from scheduler.web.access import who
from scheduler.web.problems import Problem
from scheduler.web.routes import PREFIX, Route

if TYPE_CHECKING:
    from scheduler.quality import Record
    from scheduler.web.api import Api


class JobDefinitions:
    """What the addresses answer."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def define_job(self, asked: params.JobPath) -> Response:
        """The definition with its versions; ETag is the version."""
        return self._job_reply(asked.job, 200)

    def _job_reply(self, job_id: str, status: int) -> Response:
        self.api.jobs.refresh(self.api.engine)
        record = self.api.describe_job(job_id)
        headers = {"ETag": f'"{record["version"] or 0}"', "Location": f"{PREFIX}/jobs/{job_id}"}
        return Response(listing.as_json(record), status, headers, content_type="application/json")

    def create_job(self, asked: tuple[params.NoParams, params.NewJob]) -> Response:
        """A job kept in the database; the daemon has it within two seconds."""
        body = asked[1]
        with refused_as_problem():
            create_job(self.api.writer(), self.api.jobs.of_file, body.job, body.table(), self._asked(body))
        return self._job_reply(body.job, 201)

    def put_job(self, asked: tuple[params.JobPath, params.ChangedJob]) -> Response:
        """The whole definition anew. If-Match, or `version`, refuses what somebody else changed meanwhile."""
        return self.change_job(*asked, whole=True)

    def patch_job(self, asked: tuple[params.JobPath, params.ChangedJob]) -> Response:
        """The keys given; null takes one away."""
        return self.change_job(*asked, whole=False)

    def change_job(self, path: params.JobPath, body: params.ChangedJob, *, whole: bool) -> Response:
        asked = self._asked(body)
        with refused_as_problem():
            change_job(self.api.writer(), self.api.jobs.of_file, path.job, body.table(), asked, whole=whole)
        return self._job_reply(path.job, 200)

    def delete_job(self, asked: params.JobPath) -> Record:
        """Its runs stay; those that wait are skipped. Refused where other jobs need it."""
        change = Asked(who("api"), self.api.clock(), None, _if_match())
        with refused_as_problem():
            gone = delete_job(self.api.writer(), self.api.jobs.of_file, asked.job, change)
        return {"job": asked.job, "version": gone}

    def _asked(self, body: params.JobKeys) -> Asked:
        with db.read(self.api.engine):  # a database that is not there is refused here, not made
            pass
        version = getattr(body, "version", None)
        return Asked(
            who("api"), self.api.clock(), body.reason, version if version is not None else _if_match()
        )

    def routes(self) -> list[Route]:
        nothing, job = params.NoParams, params.JobPath
        body = ("job_refused", "unsupported_media_type", "request_entity_too_large")
        change = ("unknown_job", "job_in_file", "job_changed")
        detail = records.JobDetail
        return [
            Route(
                "POST",
                "/jobs",
                self.create_job,
                nothing,
                detail,
                body=params.NewJob,
                problems=("job_exists", *body),
                status=201,
            ),
            Route("GET", "/jobs/{job}", self.define_job, job, detail, problems=("unknown_job",)),
            *(
                Route(
                    method,
                    "/jobs/{job}",
                    handler,
                    job,
                    detail,
                    body=params.ChangedJob,
                    problems=(*change, *body),
                )
                for method, handler in (("PUT", self.put_job), ("PATCH", self.patch_job))
            ),
            Route(
                "DELETE",
                "/jobs/{job}",
                self.delete_job,
                job,
                records.JobGone,
                problems=(*change, "job_needed"),
            ),
        ]


def _if_match() -> int | None:
    """The version in If-Match. Raises Problem where it is none of ours, for no job has that."""
    shown = request.headers.get("If-Match")
    if shown in (None, "*"):
        return None
    matched = re.fullmatch(r'"?([0-9]{1,9})"?', str(shown))
    if matched is None:
        raise Problem("job_changed")
    return int(matched[1])


@contextmanager
def refused_as_problem() -> Iterator[None]:
    """What is wrong with a definition, by key."""
    try:
        yield
    except UnknownJob:
        raise Problem("unknown_job") from None
    except JobChanged as error:
        raise Problem("job_changed", detail=str(error)) from None
    except JobRefused as error:
        errors = [{"field": error.field, "message": str(error)}]
        raise Problem(error.conflict or "job_refused", detail=str(error), errors=errors) from None
