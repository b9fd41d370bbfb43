"""The description of the API, OpenAPI 3.1, from the table of routes and its models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from scheduler.web.access import Role
from scheduler.web.files import MEDIA_TYPES
from scheduler.web.problems import CODES, MEDIA_TYPE
from scheduler.web.records import Problem
from scheduler.web.routes import PREFIX, Route

REF = "#/components/schemas/{model}"
READING = ("database_unavailable", "schema_outdated")
ASKING = ("invalid_request", "internal_error")
GUARDED = ("token_missing", "token_unknown", "too_many_failures")
ACTING = ("forbidden", "no_admin_token", "cross_origin")


def describe(routes: Sequence[Route], *, reading_is_open: bool) -> dict[str, Any]:
    """The document as JSON values."""
    models: set[type[BaseModel]] = {Problem}
    for route in routes:
        models |= {model for model in (route.answer, route.body) if model is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    names, definitions = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=REF, schema_generator=GenerateJsonSchema
    )
    refs = {model: names[model, "validation"] for model in ordered}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        open_to_all = reading_is_open and route.needed <= Role.VIEWER
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, refs, open_to_all)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "NavKeeper",
            "version": "1",
            "description": "China's public funds: NAVs, metrics and ranks, and the runs that keep them.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, refs: dict[Any, Any], open_to_all: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": route.name,
        "x-role": route.needed.name.lower(),
        "security": [] if open_to_all else [{"token": []}],
        "parameters": _parameters(route),
        "responses": {},
    }
    if said := (route.handler.__doc__ or "").strip():
        found["description"] = said
    if route.body is not None:
        found["requestBody"] = {"content": {"application/json": {"schema": refs[route.body]}}}
    if route.answer is not None:
        content: dict[str, Any] = {MEDIA_TYPES["json"]: {"schema": refs[route.answer]}}
        if route.item is not None:
            content |= {MEDIA_TYPES[form]: {} for form in ("csv", "parquet")}
        found["responses"][str(route.status)] = {"description": "as asked", "content": content}
    guarded = () if open_to_all else GUARDED
    acting = ACTING if route.needed is Role.ADMIN else ()
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys((*route.problems, *ASKING, *READING, *guarded, *acting)):
        by_status.setdefault(CODES[code][0], []).append(code)
    for status, codes in sorted(by_status.items()):
        found["responses"][str(status)] = {
            "description": ", ".join(codes),
            "content": {MEDIA_TYPE: {"schema": refs[Problem]}},
        }
    return found


def _parameters(route: Route) -> list[dict[str, Any]]:
    schema = route.asked.model_json_schema(ref_template=REF)
    definitions = schema.get("$defs", {})
    found = []
    for name, described in schema.get("properties", {}).items():
        of = _without_null({key: value for key, value in described.items() if key != "title"})
        if "$ref" in of:  # an enumeration, written out
            of = {
                key: value
                for key, value in definitions[of["$ref"].rpartition("/")[2]].items()
                if key != "title"
            }
        said = described.get("description")
        in_path = name in route.in_path
        found.append(
            {"name": name, "in": "path" if in_path else "query", "required": in_path, "schema": of}
            | ({"description": said} if said else {})
        )
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """No parameter can be null: one is left out."""
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "description")}
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if kept.get("default", 0) is None:
        del kept["default"]
    return kept | (kinds[0] if kinds else {})
