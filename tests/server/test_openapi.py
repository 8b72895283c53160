"""openapi.json says what the server does: the same routes, the same members, the same answers."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from pydantic import BaseModel

from engine.config import Config
from server import schemas
from server.app import VERSION, create_app
from tests.server.fakes import FakeStage
from tests.server.serving import Browser, serve

DOCUMENT = json.loads((Path(schemas.__file__).parent / "openapi.json").read_text())
MODELS = DOCUMENT["components"]["schemas"]
REQUESTS = [
    schemas.Offer, schemas.Say, schemas.Ask, schemas.Mirror, schemas.Listening, schemas.Action,
    schemas.Quality, schemas.PcmHello, schemas.TokenRequest, schemas.StartOutput, schemas.BroadcastRequest,
]  # fmt: skip

@pytest.fixture
async def names(tmp_path) -> dict[tuple[str, str], str]:
    """The handler of every route there is, with everything switched on."""
    config = Config(data_dir=tmp_path, livetalking="on", studio="on")
    app = create_app(config, FakeStage(config))
    return {
        (route.method.lower(), route.resource.canonical): route.handler.__name__
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


async def test_the_document_lists_exactly_the_routes_of_the_server(names):
    assert {(method, path) for path, item in DOCUMENT["paths"].items() for method in item} == set(names)


async def test_operations_are_named_after_their_handlers(names):
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            assert operation["operationId"] == names[method, path]


async def test_the_document_is_served_as_it_is(server):
    response = await server.client.get("/openapi.json")
    assert response.content_type == "application/json" and await response.json() == DOCUMENT


def test_every_schema_is_one():
    for schema in [*MODELS.values(), *_schemas_of_operations()]:
        jsonschema.Draft202012Validator.check_schema(schema)


def _schemas_of_operations() -> list[dict[str, Any]]:
    found = []
    for item in DOCUMENT["paths"].values():
        for operation in item.values():
            for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
                found += [content["schema"] for content in part.get("content", {}).values() if "schema" in content]
    return found


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
            if method not in ("get", "options"):
                assert "403" in operation["responses"]


def test_the_versions_agree():
    assert DOCUMENT["info"]["version"] == VERSION


def _closed(schema: Any) -> Any:
    """The same schema, in which nothing may appear that is not described."""
    if isinstance(schema, list):
        return [_closed(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(member) for key, member in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


CLOSED = _closed(copy.deepcopy(MODELS))


async def check(response: aiohttp.ClientResponse, method: str, path: str) -> None:
    """Holds an answer to what the document says of it: status, type, every member."""
    described = DOCUMENT["paths"][path][method]["responses"][str(response.status)]
    for name in described.get("headers", {}):
        if name != "Link":
            assert name in response.headers
    if "content" not in described:
        assert not await response.read()
        return
    assert response.content_type in described["content"]
    if response.content_type == "application/json":
        schema = _closed(described["content"]["application/json"]["schema"])
        jsonschema.validate(await response.json(), {**schema, "components": {"schemas": CLOSED}})


async def test_answers_have_the_described_members(server):
    session = await server.open_session()
    calls = [
        ("get", "/avatars", {}),
        ("get", "/config.json", {}),
        ("get", "/studio.json", {}),
        ("get", "/healthz", {}),
        ("post", "/sessions/{session_id}/say", {"json": {"text": "a"}}),
        ("post", "/sessions/{session_id}/mirror", {"json": {"on": True}}),
        ("post", "/sessions/{session_id}/listening", {"json": {"on": True}}),
        ("get", "/sessions/{session_id}/transcript?format=sheet", {}),
        ("get", "/sessions/{session_id}/quality", {}),
        ("post", "/sessions/{session_id}/quality", {"json": {"quality": 3}}),
        ("post", "/sessions/{session_id}/actions", {"json": {"name": "nod"}}),
        ("post", "/sessions/{session_id}/actions", {"json": {"name": "somersault"}}),
        ("post", "/sessions/{session_id}/interrupt", {}),
        ("post", "/sessions/{session_id}/say", {"json": {"text": ""}}),
        ("post", "/offer", {"json": {}}),
        ("post", "/offer", {"json": {"sdp": "v=0", "type": "offer", "style": "pirate"}}),
        ("post", "/offer", {"json": {"sdp": "v=0", "type": "offer", "language_model": "gpt"}}),
    ]
    for method, path, options in calls:
        response = await server.client.request(method, path.format(session_id=session), **options)
        await check(response, method, path.partition("?")[0])
    await server.end()


async def test_answers_in_the_words_of_others_have_the_described_members(aiohttp_client):
    server = await serve(aiohttp_client, livetalking="on")
    async with Browser() as browser:
        offer = await browser.offer()
    sdp = {"data": offer["sdp"], "headers": {"Content-Type": "application/sdp"}}
    response = await server.client.post("/offer", json=offer)
    await check(response, "post", "/offer")
    known = {"sessionid": (await response.json())["sessionid"]}
    response = await server.client.post("/api/offer", json=offer)
    await check(response, "post", "/api/offer")
    pc_id = (await response.json())["pc_id"]
    response = await server.client.post("/whep/ada", **sdp)
    await check(response, "post", "/whep/{avatar}")
    location = response.headers["Location"]
    fragment = {"data": "a=end-of-candidates\r\n", "headers": {"Content-Type": "application/trickle-ice-sdpfrag"}}
    calls: list[tuple[str, str, str, dict[str, Any]]] = [
        ("patch", "/api/offer", "/api/offer", {"json": {"pc_id": pc_id, "candidates": []}}),
        ("patch", "/api/offer", "/api/offer", {"json": {"pc_id": pc_id, "candidates": [{"candidate": "x"}]}}),
        ("post", "/api/offer", "/api/offer", {"json": {**offer, "pc_id": pc_id}}),
        ("options", "/whep/ada", "/whep/{avatar}", {}),
        ("post", "/whep/ada", "/whep/{avatar}", {"json": offer}),
        ("post", "/whep/ada", "/whep/{avatar}", {**sdp, "headers": {**sdp["headers"], "Accept": "text/html"}}),
        ("post", "/whep/nobody", "/whep/{avatar}", sdp),
        ("patch", location, "/whep/{avatar}/{session_id}", fragment),
        ("patch", location, "/whep/{avatar}/{session_id}", {"json": {}}),
        ("delete", location, "/whep/{avatar}/{session_id}", {}),
        ("delete", location, "/whep/{avatar}/{session_id}", {}),
        ("post", "/human", "/human", {"json": {**known, "text": "a", "type": "echo"}}),
        ("post", "/human", "/human", {"json": {**known, "text": "a"}}),
        ("post", "/humanaudio", "/humanaudio", {"data": b"x"}),
        ("post", "/is_speaking", "/is_speaking", {"json": known}),
        ("post", "/interrupt_talk", "/interrupt_talk", {"json": known}),
        ("post", "/record", "/record", {"json": {**known, "type": "end_record"}}),
        ("get", f"/record/{known['sessionid']}", "/record/{session_id}", {}),
    ]
    for method, path, described, options in calls:
        await check(await server.client.request(method, path, **options), method, described)
    await server.end()
