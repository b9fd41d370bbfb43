"""The running API is what its description says: schemathesis asks it anything, with a token and without."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from sqlalchemy import Engine

from scheduler.web.access import Access
from tests.api_site import ADMIN, TOKENS, VIEWER, answering, app_of, bearer, fill
from tests.test_access import WHO

EXAMPLES = 6
KNOWN = {"job": "collect", "run": "2", "alert": "1", "fund": "000001"}
# Wrong tokens are slowed down, so tests.test_access asks with them, at every address. A well-formed request may be
# refused: for an instant of the year 1, or a `from` after its `to`; for what is known test_api says what is answered.
LEFT_OUT = [ignored_auth, positive_data_acceptance]


@pytest.fixture
def filled(sqlite_engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    fill(sqlite_engine, tmp_path)
    with answering(sqlite_engine):
        yield sqlite_engine


def answers(cases: Any, headers: dict[str, str]) -> set[int]:
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        reply = case.call_and_validate(headers=headers, excluded_checks=LEFT_OUT)
        statuses.add(reply.status_code)

    ask()
    return statuses


def ask_everything(
    app: Flask, headers: dict[str, str], wanted: set[int] | None = None
) -> dict[str, set[int]]:
    """By operation, the statuses that were answered; each answer is checked against the description."""
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)
    schema.config.generation.with_security_parameters = False  # the tokens shown are those of `headers`
    found: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        names = {parameter.name for parameter in operation.path_parameters}
        known = {name: KNOWN[name] for name in names}
        for mode, path in (
            (GenerationMode.POSITIVE, known),
            (GenerationMode.POSITIVE, None),
            (GenerationMode.NEGATIVE, None),
        ):
            if mode is GenerationMode.NEGATIVE and not (names or operation.query or operation.body):
                continue
            cases = operation.as_strategy(generation_mode=mode, path_parameters=path)
            found.setdefault(operation.label, set()).update(answers(cases, headers))
    return found


def test_with_the_admin_token(filled: Engine) -> None:
    found = ask_everything(app_of(filled, TOKENS), bearer(ADMIN))
    assert found.keys() == {
        re.sub(r"<(\w+)>", r"{\1}", address)
        for address in WHO
        if "/api/" in address and "openapi" not in address
    }
    for operation, statuses in found.items():
        assert not statuses & {401, 403, 429}, operation
        assert statuses & {200, 409, 422}, operation  # what is there is found; or it is refused


def test_with_the_viewer_token(filled: Engine) -> None:
    for operation, statuses in ask_everything(app_of(filled, TOKENS), bearer(VIEWER)).items():
        assert (200 in statuses) if operation.startswith("GET ") else (statuses == {403}), operation


def test_without_a_token_where_there_are_some(filled: Engine) -> None:
    for operation, statuses in ask_everything(app_of(filled, TOKENS), {}).items():
        assert statuses == {401}, operation


def test_without_tokens_at_all(filled: Engine) -> None:
    for operation, statuses in ask_everything(app_of(filled, Access()), {}).items():
        assert (200 in statuses) if operation.startswith("GET ") else (statuses == {403}), operation


def test_the_description_names_every_address(filled: Engine) -> None:
    app = app_of(filled)
    document = app.test_client().get("/api/v1/openapi.json").json
    assert document is not None
    json.dumps(document, allow_nan=False)
    described = {
        f"{method.upper()} {path}".replace("{", "<").replace("}", ">")
        for path, operations in document["paths"].items()
        for method in operations
    }
    served = {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if rule.rule.startswith("/api/")
    }
    assert served - described == {"GET /api/v1/openapi.json"}
    assert not described - served
