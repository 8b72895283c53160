"""The embed over HTTP: who may frame it, what its answers carry, and scripts that never change."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

import pytest
from yarl import URL

from server.access.embeds import Embeds
from server.embed import Embed
from tests.server.serving import serve

STATIC = Path(__file__).resolve().parents[2] / "static"
SHOP = "https://shop.example"
GIVEN_OUT = {
    "v1.0.0.js": "sha384-joihGk7/g84iFp3GC5+na17l24CKCuG8uxZMlEb1XUCEHW2/CbYqUQbBT+pkwIhs",
}
"""Integrity of every version of the script: pages pin it, so what changes gets a new number and a new file."""


def framers(response) -> set[str]:
    policy = response.headers["Content-Security-Policy"]
    return set(policy.partition("frame-ancestors ")[2].split())


def meta(page: str, name: str) -> str:
    found = re.search(f'<meta name="{name}" content="([^"]*)">', page)
    return html.unescape(found[1]) if found else ""


async def test_pages_of_this_machine_may_frame_the_embed_and_no_others(server):
    response = await server.client.get("/embed", headers={"Referer": "http://localhost:5173/"})
    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert {"http://localhost:*", "http://127.0.0.1:*"} <= framers(response)
    assert not {"*", SHOP} & framers(response)
    page = await response.text()
    assert "embed-page.js" in page
    assert not meta(page, "page-token")


async def test_listed_origins_may_frame_the_embed_too(aiohttp_client):
    server = await serve(aiohttp_client, allowed_origins=[SHOP])
    response = await server.client.get("/embed", headers={"Referer": f"{SHOP}/"})
    assert response.status == 200 and SHOP in framers(response)


async def test_a_page_that_may_not_frame_it_gets_words_and_nothing_to_press(server):
    response = await server.client.get("/embed?avatar=mira", headers={"Referer": f"{SHOP}/"})
    page = await response.text()
    assert response.status == 403
    assert framers(response) == {"*"}, "the words have to be readable there"
    assert meta(page, "problem") == "embed_origin_not_listed"
    assert SHOP in meta(page, "message")
    assert "embed-page.js" not in page and "<button" not in page


async def test_words_for_a_refused_page_cannot_hold_markup(server):
    for address in ("/embed?key=%22%3E%3Cscript%3E", '/embed?avatar="><script>alert(1)</script>'):
        page = await (await server.client.get(address, headers={"Referer": 'https://a"><script>.example/'})).text()
        assert page.count("<script") == 1


async def test_a_key_names_the_pages_and_each_frame_gets_a_token_of_its_own(aiohttp_client, data_home):
    server = await serve(aiohttp_client, access="closed")
    avatar = server.stage.default
    key = Embeds(data_home).add(avatar, [SHOP]).key
    tokens = set()
    for _ in range(2):
        response = await server.client.get(f"/embed?key={key}", headers={"Referer": f"{SHOP}/"})
        page = await response.text()
        assert response.status == 200 and framers(response) == {SHOP}
        assert meta(page, "avatar") == avatar
        tokens.add(meta(page, "page-token"))
    assert len(tokens) == 2 and all(tokens)
    for origin in ("https://shop.example.evil.example", "http://shop.example", "https://shop.example:444"):
        response = await server.client.get(f"/embed?key={key}", headers={"Referer": f"{origin}/"})
        assert response.status == 403 and not meta(await response.text(), "page-token"), origin


async def test_the_script_may_be_pinned_by_every_page(server):
    told = await (await server.client.get("/embed/snippet")).json()
    response = await server.client.get(f"/{told['script']}", headers={"Origin": SHOP})
    digest = base64.b64encode(hashlib.sha384(await response.read()).digest()).decode()
    assert told["integrity"] == f"sha384-{digest}"
    assert told["script"] == f"embed/v{told['version']}.js"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "immutable" in response.headers["Cache-Control"]
    assert response.content_type == "text/javascript"


@pytest.mark.parametrize("name", ["v9.9.9.js", "v1.0.0", "..%2Fapp.js", "v1.0.0.js%00"])
async def test_there_are_no_other_scripts(server, name):
    response = await server.client.get(URL(f"/embed/{name}", encoded=True))
    assert response.status == 404


def test_versions_are_ordered_by_number(tmp_path):
    (tmp_path / "embed").mkdir()
    for name in ("v1.9.0.js", "v1.10.0.js", "v1.2.0.js", "notes.js"):
        (tmp_path / "embed" / name).write_text(name)
    embed = Embed(tmp_path)
    assert list(embed.scripts) == ["v1.2.0.js", "v1.9.0.js", "v1.10.0.js"]
    assert embed.latest.version == "1.10.0"


def test_every_script_that_was_given_out_is_there_and_unchanged():
    assert {name: script.integrity for name, script in Embed(STATIC).scripts.items()} == GIVEN_OUT


def test_the_script_of_today_names_its_own_version():
    latest = Embed(STATIC).latest
    assert f"/embed/v{latest.version}.js".encode() in latest.body
