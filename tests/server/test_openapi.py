"""openapi.json says what the server does: the same routes, the same members, the same answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from server import schemas
from server.api import routes
from server.app import VERSION

DOCUMENT = json.loads((Path(schemas.__file__).parent / "openapi.json").read_text())
MODELS = DOCUMENT["components"]["schemas"]
REQUESTS = [
    schemas.Offer, schemas.Say, schemas.Ask, schemas.Mirror, schemas.Listening, schemas.Action,
    schemas.Quality, schemas.PcmHello,
]  # fmt: skip
METHODS = {"get", "post", "put", "patch", "delete"}


def test_the_document_lists_exactly_the_routes_of_the_server():
    served = {(route.method.lower(), route.path) for route in routes}
    described = {(method, path) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS}
    assert described == served


def test_operations_are_named_after_their_handlers():
    names = {(route.method.lower(), route.path): route.handler.__name__ for route in routes}
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            assert operation["operationId"] == names[method, path]


def test_every_path_parameter_is_described():
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            described = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert described == set(re.findall(r"{(\w+)}", path))


@pytest.mark.parametrize("model", REQUESTS)
def test_request_bodies_have_the_members_the_server_checks(model: type[BaseModel]):
    described = MODELS[model.__name__]
    assert set(described["properties"]) == set(model.model_fields)
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    assert set(described["required"]) == required
    assert (described.get("additionalProperties") is False) == (model.model_config.get("extra") == "forbid")


def test_all_references_lead_somewhere():
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)):
        assert name in MODELS


def test_state_changing_operations_describe_the_foreign_page():
    for item in DOCUMENT["paths"].values():
        for method, operation in item.items():
            if method != "get":
                assert "403" in operation["responses"]


def test_the_versions_agree():
    assert DOCUMENT["info"]["version"] == VERSION


def _check(value, schema: dict) -> None:
    """Enough of JSON Schema for answers: references, types, required and known members."""
    if "$ref" in schema:
        return _check(value, MODELS[schema["$ref"].rsplit("/", 1)[1]])
    kinds = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    }  # fmt: skip
    allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert any(isinstance(value, kinds[kind]) for kind in allowed), (value, schema)
    if schema["type"] == "object":
        assert set(schema.get("required", ())) <= set(value)
        assert set(value) <= set(schema["properties"]), "nothing is undocumented"
        for name, member in value.items():
            _check(member, schema["properties"][name])
    elif schema["type"] == "array":
        for member in value:
            _check(member, schema["items"])
    if "enum" in schema:
        assert value in schema["enum"]
    return None


async def test_answers_have_the_described_members(server):
    session = await server.open_session()
    calls = [
        ("get", "/avatars", {}),
        ("get", "/config.json", {}),
        ("get", "/healthz", {}),
        ("post", "/sessions/{session_id}/say", {"json": {"text": "a"}}),
        ("post", "/sessions/{session_id}/mirror", {"json": {"on": True}}),
        ("post", "/sessions/{session_id}/listening", {"json": {"on": True}}),
        ("get", "/sessions/{session_id}/quality", {}),
        ("post", "/sessions/{session_id}/quality", {"json": {"quality": 3}}),
        ("post", "/sessions/{session_id}/actions", {"json": {"name": "nod"}}),
        ("post", "/sessions/{session_id}/actions", {"json": {"name": "somersault"}}),
        ("post", "/sessions/{session_id}/interrupt", {}),
        ("post", "/sessions/{session_id}/say", {"json": {"text": ""}}),
        ("post", "/offer", {"json": {}}),
    ]
    for method, path, options in calls:
        response = await server.client.request(method, path.format(session_id=session), **options)
        described = DOCUMENT["paths"][path][method]["responses"][str(response.status)]
        _check(await response.json(), described["content"]["application/json"]["schema"])
    await server.end()
