"""Which pages may hold the embed, and what their frame may do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from engine.config import Config
from server.access.embeds import Embeds
from server.access.framing import Framing, framing
from server.access.gate import ACCESS, Access
from server.access.keys import ApiKeys
from server.access.turn import IceServers
from tests.server.serving import serve

SHOP = {"Referer": "https://shop.example/"}


class _Places:
    free = 1

    def lives(self, _session_id: str) -> bool:
        return False

    def turned_away(self) -> None: ...


@pytest.fixture
def embed(data_home):
    return Embeds(data_home).add("ada", ["https://shop.example", "https://www.shop.example"])


def frame(query: str = "", headers: dict[str, str] | None = None, **options: Any) -> Framing:
    config = Config(**{"access": "closed", **options})
    access = Access(config, IceServers(config), _Places())
    request = make_mocked_request(
        "GET", f"/embed?{query}", {"Host": "localhost:8080", "Sec-Fetch-Dest": "iframe", **(headers or {})}
    )
    return framing(access, config, request)


def test_a_listed_page_gets_a_frame_that_may_begin_sessions(embed):
    shown = frame(f"key={embed.key}&avatar=ada", SHOP)
    assert shown.problem == "" and shown.framers == embed.origins
    assert shown.avatar == "ada" and shown.page_token.startswith("vp_")


@pytest.mark.parametrize(
    ("query", "headers", "problem"),
    [
        ("", SHOP, "embed_key_required"),
        ("key=ve_wrong", SHOP, "embed_key_unknown"),
        ("key={key}", {}, "embed_referrer_missing"),
        ("key={key}", {"Referer": "about:client"}, "embed_referrer_missing"),
        ("key={key}", {"Referer": "https://evil.example/"}, "embed_origin_not_listed"),
        ("key={key}", {"Referer": "http://shop.example/"}, "embed_origin_not_listed"),
        ("key={key}", {"Referer": "https://shop.example.evil.example/"}, "embed_origin_not_listed"),
        ("key={key}", {"Referer": "https://evil.example/https://shop.example/"}, "embed_origin_not_listed"),
        ("key={key}", {"Referer": "https://shop.example:8443/"}, "embed_origin_not_listed"),
        ("key={key}", {"Referer": "https://shop.example@evil.example/"}, "embed_referrer_missing"),
        ("key={key}", {**SHOP, "Sec-Fetch-Dest": "document"}, "embed_not_framed"),
        ("key={key}", {**SHOP, "Sec-Fetch-Dest": "empty"}, "embed_not_framed"),
        ("key={key}&avatar=bob", SHOP, "embed_avatar"),
        ("token=vt_x.y", SHOP, "token_invalid"),
    ],
)
def test_everybody_else_gets_an_explanation_and_nothing_to_use(embed, query, headers, problem):
    shown = frame(query.format(key=embed.key), headers)
    assert shown.problem == problem and shown.message
    assert shown.page_token == "" and shown.token == ""


def test_a_removed_embed_shows_nothing_any_more(embed, data_home):
    Embeds(data_home).remove(embed.key)
    assert frame(f"key={embed.key}", SHOP).problem == "embed_key_unknown"


def test_where_nothing_is_needed_pages_of_this_machine_may_frame_it():
    shown = frame(access="auto", headers={"Referer": "http://localhost:3000/"})
    assert shown.problem == "" and {"'self'", "http://localhost:*"} <= set(shown.framers)
    assert frame(access="auto").problem == ""
    assert frame(access="auto", headers=SHOP).problem == "embed_origin_not_listed"
    listed = frame(access="auto", headers=SHOP, allowed_origins=["https://shop.example"])
    assert listed.problem == "" and "https://shop.example" in listed.framers


def test_an_open_server_on_the_network_is_framed_by_its_own_and_the_listed_pages_alone():
    shown = frame(access="open", host="0.0.0.0", allowed_origins=["https://shop.example"])
    assert shown.framers == ("'self'", "https://shop.example")
    local = frame(access="open", host="0.0.0.0", headers={"Referer": "http://localhost:3000/"})
    assert local.problem == "embed_origin_not_listed"


# ---- from the page token to a session token


@pytest.fixture
async def server(aiohttp_client, embed):
    return await serve(aiohttp_client, access="closed")


async def exchange(server, page_token: str) -> tuple[int, dict[str, Any]]:
    async with server.client.post("/tokens", json={"page_token": page_token}) as response:
        return response.status, await response.json()


async def test_a_page_token_is_exchanged_once_and_the_answer_has_the_next_one(server, embed):
    access = server.client.app[ACCESS]
    page = access.page_token(embed.id, "ada", embed.origins[0])
    status, first = await exchange(server, page)
    assert status == 200
    claims = access.session_claims(first["token"])
    assert (claims.avatar, claims.origin, claims.by) == ("ada", "https://shop.example", embed.id)
    status, again = await exchange(server, page)
    assert (status, again["error"]["code"]) == (401, "token_used")
    assert (await exchange(server, first["page_token"]))[0] == 200


async def test_removing_the_embed_or_its_origin_ends_its_tokens(server, embed, data_home):
    access = server.client.app[ACCESS]
    page = access.page_token(embed.id, "ada", embed.origins[0])
    other = access.page_token(embed.id, "ada", "https://gone.example")
    assert (await exchange(server, other))[0] == 401
    await asyncio.to_thread(Embeds(data_home).remove, embed.key)
    assert (await exchange(server, page))[0] == 401


async def test_neither_an_embed_key_nor_an_api_key_is_a_page_token(server, embed, data_home):
    key = await asyncio.to_thread(ApiKeys(data_home).create, "shop")
    for wrong in (embed.key, key, "vp_", "vp_.x"):
        assert (await exchange(server, wrong))[0] == 401
