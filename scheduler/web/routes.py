"""One table row per address of the API: from it come the views, what they check and the description of the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, request
from pydantic import BaseModel, ValidationError

from scheduler.listing import as_json
from scheduler.quality import Record
from scheduler.web.access import Role, allow
from scheduler.web.files import MEDIA_TYPES, encoded
from scheduler.web.problems import Problem

PREFIX = "/api/v1"
Handler = Callable[[Any], "Record | Rows | Response"]


@dataclass(frozen=True)
class Rows:
    """A page. `then`: the parameters, beside those asked with, that lead to the next; None: it is the last."""

    items: list[Record]
    then: dict[str, Any] | None = None
    model: type[BaseModel] | None = None  # of an item, where there are several kinds

    @classmethod
    def by_key(cls, found: list[Record], limit: int, parameter: str, key: str) -> Rows:
        """Of rows asked for with one more than `limit`, which go on after or before their `key`."""
        items = found[:limit]
        return cls(items, {parameter: items[-1][key]} if len(found) > limit else None)


@dataclass(frozen=True)
class Route:
    method: str
    path: str  # below /api/v1, parameters in braces
    handler: Handler
    asked: type[BaseModel]
    answer: Any  # a model, or Page of one
    item: type[BaseModel] | None = None  # of rows that can be had as CSV and Parquet
    body: type[BaseModel] | None = None
    problems: tuple[str, ...] = field(default=())
    role: Role | None = None
    status: int = 200  # of a good answer

    @property
    def needed(self) -> Role:
        if self.role is not None:
            return self.role
        return Role.VIEWER if self.method == "GET" else Role.ADMIN

    @property
    def name(self) -> str:
        return f"{self.method.lower()}{re.sub(r'[^a-z]+', '_', self.path)}".rstrip("_")

    @property
    def in_path(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)


def register(app: Flask, route: Route) -> None:
    @allow(route.needed)
    def view(**path: str) -> Response:
        return _answered(route, route.handler(_asked(route, path)))

    rule = PREFIX + re.sub(r"{(\w+)}", r"<\1>", route.path)
    app.add_url_rule(rule, f"api.{route.name}", view, methods=[route.method], strict_slashes=True)


def _asked(route: Route, path: Mapping[str, str]) -> Any:
    """Path and query by the route's model; `body` beside them where it takes one."""
    given: dict[str, Any] = {
        name: values[0] if len(values) == 1 else values for name, values in request.args.lists()
    }
    if twice := sorted(given.keys() & path.keys()):
        raise _invalid([{"field": name, "code": "in_path"} for name in twice])
    try:
        asked = route.asked.model_validate(given | dict(path))
        return asked if route.body is None else (asked, _body(route.body))
    except ValidationError as error:
        raise _invalid(
            [
                {
                    "field": ".".join(map(str, item["loc"])),
                    "code": item["type"],
                    "message": item["msg"].removeprefix("Value error, "),
                }
                for item in error.errors(include_url=False, include_context=False, include_input=False)
            ]
        ) from None


def _invalid(errors: list[Record]) -> Problem:
    return Problem("invalid_request", errors=errors)


def _body(model: type[BaseModel]) -> BaseModel:
    sent = request.get_data()
    if not sent:
        return model()
    if request.mimetype != "application/json":
        raise Problem("unsupported_media_type")
    return model.model_validate_json(sent)


def _answered(route: Route, answer: Record | Rows | Response) -> Response:
    if isinstance(answer, Response):
        return answer
    if not isinstance(answer, Rows):
        return Response(as_json(answer), content_type="application/json")
    following = None if answer.then is None else _address(answer.then)
    form = _form() if route.item is not None else "json"
    if form == "json":
        reply = Response(
            as_json({"items": answer.items, "next": following}), content_type=MEDIA_TYPES["json"]
        )
    else:
        model = answer.model or route.item
        assert model is not None  # noqa: S101 - for the type checker
        reply = Response(encoded(answer.items, model, form), content_type=MEDIA_TYPES[form])
        reply.headers["Content-Disposition"] = f'attachment; filename="{route.name}.{form}"'
    if route.item is not None:
        reply.headers["Vary"] = "Accept"
    if following is not None:
        reply.headers["Link"] = f'<{following}>; rel="next"'
    return reply


def _address(then: Mapping[str, Any]) -> str:
    return f"{request.path}?{urlencode({**request.args.to_dict(), **then})}"


def _form() -> str:
    """As ?format says, else as Accept prefers, else JSON."""
    named = request.args.get("format")
    if named is not None:
        return named
    best = request.accept_mimetypes.best_match([*MEDIA_TYPES.values()], default=MEDIA_TYPES["json"])
    return next(form for form, media_type in MEDIA_TYPES.items() if media_type == best)
