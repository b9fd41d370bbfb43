"""The parameters of a task as fields of a form, and what was typed into them as parameters again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

from scheduler.web.problems import Problem

PREFIX = "param_"  # so that no parameter meets a field of the form's own


class Field(NamedTuple):
    name: str
    kind: str  # flag, number, date, list or text
    value: Any  # what the task uses unless told


def fields_of(schema: Mapping[str, Any], given: Mapping[str, Any]) -> list[Field]:
    """One a parameter of a task's JSON Schema; `given` are those of the job."""
    properties = schema.get("properties", {})
    return [
        Field(name, _kind(schema), given.get(name, schema.get("default")))
        for name, schema in properties.items()
    ]


def _kind(schema: Mapping[str, Any]) -> str:
    known = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    part = known[0] if known else {}
    if part.get("format") == "date":
        return "date"
    return {"boolean": "flag", "integer": "number", "array": "list"}.get(str(part.get("type")), "text")


def params_from(schema: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """What was filled in; what was left empty is left to the task. The daemon checks the values."""
    typed = {
        field.name: _read(field.kind, form.get(PREFIX + field.name, "").strip())
        for field in fields_of(schema, {})
    }
    return {name: value for name, value in typed.items() if value is not None}


def _read(kind: str, text: str) -> Any:
    if not text:
        return None
    if kind == "flag":
        return text == "true"
    if kind == "number":
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    return re.split(r"[\s,，]+", text) if kind == "list" else text


def date_from(text: str) -> date | None:
    """Raises Problem for a text that is no date."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise Problem("invalid_request", detail=f"{text!r} is no date such as 2025-12-01") from None
