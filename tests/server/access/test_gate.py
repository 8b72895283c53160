"""Who gets in: keys, tokens, the line, rates, and every attempt to get around them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from server.access.gate import ACCESS, ADMITTED, FOR_VISITORS, IN_SESSION, NAMING_A_SESSION, PUBLIC
from server.access.keys import ApiKeys
from tests.server.serving import Browser, Server, serve

NAME = {"Host": "face.example"}


@pytest.fixture(scope="module")
def offer() -> dict[str, str]:
    """An offer without addresses, so that the server has nothing to check behind a test's back."""

    async def made() -> dict[str, str]:
        async with Browser() as browser:
            return await browser.offer()

    described = asyncio.run(made())
    lines = [line for line in described["sdp"].splitlines() if not re.match("a=(candidate|end-of-candidates)", line)]
    return {"sdp": "\r\n".join(lines) + "\r\n", "type": "offer"}


class Shop:
    """A closed server, and somebody who has a key for it."""

    def __init__(self, server: Server, offer: dict[str, str], key: str) -> None:
        self.server, self._offer, self.key = server, offer, key

    async def ask(self, path: str, body: Any, bearer: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        async with self.server.client.post(path, json=body, headers=headers) as response:
            answer = await response.json()
            if response.status in (429, 503):
                assert int(response.headers["Retry-After"]) >= 1
            if response.status == 401:
                assert response.headers["WWW-Authenticate"] == "Bearer"
            return response.status, answer

    async def offer(self, bearer: str = "", headers: dict[str, str] | None = None, **more: Any):
        return await self.ask("/offer", {**self._offer, **more}, bearer, **(headers or {}))

    async def refused(self, *args: Any, **more: Any) -> tuple[int, str]:
        status, answer = await self.offer(*args, **more)
        assert "session_id" not in answer
        return status, answer["error"]["code"]

    async def token(self, **claims: Any) -> str:
        status, answer = await self.ask("/tokens", claims, self.key)
        assert status == 200, answer
        return answer["token"]

    async def close(self, answer: dict[str, Any]) -> None:
        async with self.server.client.delete(f"/sessions/{answer['session_id']}") as response:
            assert response.status == 204


@pytest.fixture
def shop(aiohttp_client, offer, data_home):
    async def make(**options: Any) -> Shop:
        server = await serve(aiohttp_client, **{"access": "closed", **options})
        keys = ApiKeys(data_home)
        # Written through to the disk, which may take its time.
        return Shop(server, offer, await asyncio.to_thread(keys.create, f"key {len(keys.listed())}"))

    return make


# ---- where nothing is needed, and where something is


async def test_on_this_machine_nothing_is_needed(shop):
    here = await shop(access="auto")
    status, answer = await here.offer()
    assert status == 200
    config = await (await here.server.client.get("/config.json")).json()
    assert config["access"] == "open"
    await here.close(answer)
    await here.server.end()


@pytest.mark.parametrize("headers", [NAME, {"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}])
async def test_what_a_proxy_on_this_machine_passes_on_needs_a_key(shop, headers):
    here = await shop(access="auto")
    assert await here.refused(headers=headers) == (401, "key_required")
    config = await (await here.server.client.get("/config.json", headers=headers)).json()
    assert config["access"] == "closed"
    await here.server.end()


async def test_a_server_on_the_network_needs_a_key_even_from_this_machine(shop):
    there = await shop(access="auto", host="0.0.0.0")
    assert await there.refused() == (401, "key_required")
    assert (await there.offer(there.key))[0] == 200
    await there.server.end()


async def test_an_open_server_needs_nothing(shop):
    anybody = await shop(access="open", host="0.0.0.0")
    assert (await anybody.offer(headers=NAME))[0] == 200
    await anybody.server.end()


async def test_every_route_that_is_not_listed_needs_a_key(shop):
    closed = await shop()
    listed = PUBLIC | ADMITTED | NAMING_A_SESSION | FOR_VISITORS
    kept = 0
    for route in closed.server.client.app.router.routes():
        path, method = route.resource.canonical, route.method
        below = any(path == prefix or path.startswith(f"{prefix}/") for prefix in IN_SESSION)
        if below or ("GET" if method == "HEAD" else method, path) in listed:
            continue
        response = await closed.server.client.request(method, re.sub(r"{\w+}", "x", path))
        assert response.status == 401, (method, path)
        kept += 1
    assert kept >= 3
    await closed.server.end()


async def test_what_is_listed_exists(shop):
    closed = await shop()
    served = {(route.method, route.resource.canonical) for route in closed.server.client.app.router.routes()}
    for entry in PUBLIC | ADMITTED | NAMING_A_SESSION | FOR_VISITORS:
        assert entry in served
    for prefix in IN_SESSION:
        assert any(path == prefix or path.startswith(f"{prefix}/") for _, path in served)
    await closed.server.end()


async def test_the_page_is_readable_and_metrics_are_not(shop):
    closed = await shop()
    for path in ("/", "/avatars", "/avatars/ada/poster.jpg", "/config.json", "/healthz"):
        assert (await closed.server.client.get(path)).status == 200, path
        assert (await closed.server.client.head(path)).status == 200, path
    assert (await closed.server.client.get("/metrics")).status == 401
    key = {"Authorization": f"Bearer {closed.key}"}
    assert (await closed.server.client.get("/metrics", headers=key)).status == 200
    await closed.server.end()


async def test_a_session_id_is_all_its_owner_needs(shop):
    closed = await shop()
    _, answer = await closed.offer(closed.key)
    path = f"/sessions/{answer['session_id']}"
    async with closed.server.client.post(f"{path}/say", json={"text": "Hello."}) as response:
        assert response.status == 202
    async with closed.server.client.post("/sessions/other/say", json={"text": "Hello."}) as response:
        assert response.status == 404
    for bearer, let_in in (("", False), ("other", False), (answer["session_id"], True)):
        headers = {"Authorization": f"Bearer {bearer}"}
        async with closed.server.client.post("/conversions", data=b"no sound", headers=headers) as response:
            assert (response.status != 401) is let_in
    await closed.server.end()


async def test_a_broadcast_is_its_owners_and_everybodys_to_watch(shop):
    anybody = await shop(access="open", host="0.0.0.0")
    client, owner = anybody.server.client, {"Authorization": f"Bearer {anybody.key}"}
    async with client.post("/broadcasts", json={}, headers=NAME) as response:
        assert response.status == 401
    async with client.post("/broadcasts", json={}, headers=NAME | owner) as response:
        broadcast = await response.json()
    async with client.get(f"/broadcasts/{broadcast['id']}", headers=NAME) as response:
        assert response.status == 200
    status, watching = await anybody.offer(watch=broadcast["id"], headers=NAME)
    assert status == 200 and "session_id" not in watching
    async with client.delete(f"/broadcasts/{broadcast['id']}", headers=NAME) as response:
        assert response.status == 401
    path = f"/whep/watch/{broadcast['id']}/{watching['viewer_id']}"
    async with client.delete(path, headers=NAME) as response:
        assert response.status == 200
    async with client.delete(f"/broadcasts/{broadcast['id']}", headers=NAME | owner) as response:
        assert response.status == 204


# ---- keys


@pytest.mark.parametrize("bearer", ["", "vk_wrong", "vk_", "secret", "vt_x.y", "ve_x"])
async def test_what_is_no_key_is_refused(shop, bearer):
    closed = await shop()
    status, _ = await closed.refused(bearer)
    assert status == 401
    assert (await closed.ask("/tokens", {}, bearer))[0] == 401
    await closed.server.end()


async def test_a_revoked_key_is_worthless_at_once_and_so_are_its_tokens(shop, data_home):
    closed = await shop()
    token = await closed.token()
    await asyncio.to_thread(ApiKeys(data_home).revoke, "key 0")
    assert await closed.refused(closed.key) == (401, "key_unknown")
    assert await closed.refused(token=token) == (401, "token_invalid")
    await closed.server.end()


async def test_a_revoked_key_takes_its_place_in_the_line_along(shop, data_home):
    closed = await shop(max_sessions=1)
    await closed.offer(closed.key)
    for shown in (closed.key, await closed.token()):
        _, answer = await closed.offer(shown, ticket="")
        assert (await closed.offer(ticket=answer["queue"]["ticket"]))[0] == 503
    await asyncio.to_thread(ApiKeys(data_home).revoke, "key 0")
    assert await closed.refused(ticket=answer["queue"]["ticket"]) == (401, "token_invalid")
    await closed.server.end()


async def test_a_wrong_key_is_refused_where_none_is_needed_too(shop):
    here = await shop(access="open")
    assert await here.refused("vk_old") == (401, "key_unknown")
    await here.server.end()


# ---- tokens


async def test_a_token_begins_one_session(shop):
    closed = await shop()
    token = await closed.token()
    assert (await closed.offer(token=token))[0] == 200
    assert await closed.refused(token=token) == (401, "token_used")
    assert await closed.refused(token) == (401, "token_used")
    await closed.server.end()


async def test_a_token_works_as_a_header_too(shop):
    closed = await shop()
    assert (await closed.offer(await closed.token()))[0] == 200
    await closed.server.end()


async def test_a_token_replayed_at_the_same_moment_begins_one_session(shop):
    closed = await shop(max_sessions=50)
    token = await closed.token()
    results = await asyncio.gather(*(closed.offer(token=token) for _ in range(20)))
    assert sorted(status for status, _ in results) == [200] + [401] * 19
    assert closed.server.services.sessions.taken == 1
    await closed.server.end()


async def test_a_token_is_not_lost_with_an_offer_that_cannot_be_answered(shop):
    closed = await shop()
    token = await closed.token()
    assert (await closed.ask("/offer", {"sdp": "v=0", "type": "offer", "token": token}))[0] == 400
    closed.server.stage.fail_with = RuntimeError("broken")
    assert (await closed.offer(token=token))[0] == 500
    closed.server.stage.fail_with = None
    assert (await closed.offer(token=token))[0] == 200
    await closed.server.end()


async def test_a_token_expires(shop):
    closed = await shop()
    access = closed.server.client.app[ACCESS]
    token = await closed.token(duration_s=60)
    now_s = access.tokens._now_s()
    access.tokens._now_s = lambda: now_s + 61
    assert await closed.refused(token=token) == (401, "token_expired")
    await closed.server.end()


async def test_a_token_holds_to_its_avatar(shop):
    closed = await shop()
    token = await closed.token(avatar="bob")
    assert await closed.refused(token=token, avatar="ada") == (403, "token_avatar")
    status, answer = await closed.offer(token=token)
    assert status == 200
    assert closed.server.services.sessions.get(answer["session_id"]).avatar == "bob"
    await closed.server.end()


async def test_a_token_holds_to_its_origin(shop):
    closed = await shop(allowed_origins=("https://shop.example", "https://other.example"))
    token = await closed.token(origin="https://Shop.example/")
    for headers in ({}, {"Origin": "https://other.example"}):
        assert await closed.refused(token=token, headers=headers) == (403, "token_origin")
    assert await closed.refused(token=token, headers={"Origin": "https://evil.example"}) == (403, "origin_forbidden")
    assert (await closed.offer(token=token, headers={"Origin": "https://shop.example"}))[0] == 200
    await closed.server.end()


async def test_a_token_of_an_origin_works_in_our_own_frame(shop):
    closed = await shop(host="0.0.0.0")
    token = await closed.token(origin="https://shop.example")
    headers = {"Host": "face.example", "Origin": "https://face.example"}
    assert (await closed.offer(token=token, headers=headers))[0] == 200
    await closed.server.end()


async def test_a_token_shortens_its_session_and_never_lengthens_it(shop):
    closed = await shop(max_session_s=100)
    _, answer = await closed.ask("/tokens", {"max_session_s": 50}, closed.key)
    assert answer["session_max_s"] == 50
    _, answer = await closed.ask("/tokens", {"max_session_s": 5000}, closed.key)
    assert answer["session_max_s"] == 100
    await closed.server.end()


@pytest.mark.parametrize(
    "claims",
    [
        {"duration_s": 59}, {"duration_s": 601}, {"duration_s": "300"}, {"max_session_s": 1}, {"origin": "*"},
        {"origin": "https://a.example; script-src *"}, {"by": "key:1"}, {"avatar": 1},
        {"page_token": "vp_x", "avatar": "ada"},
    ],
)  # fmt: skip
async def test_tokens_have_limits(shop, claims):
    closed = await shop()
    assert (await closed.ask("/tokens", claims, closed.key))[0] == 422
    await closed.server.end()


async def test_a_session_token_mints_no_tokens(shop):
    closed = await shop()
    token = await closed.token()
    status, answer = await closed.ask("/tokens", {}, token)
    assert (status, answer["error"]["code"]) == (401, "key_required")
    status, answer = await closed.ask("/tokens", {"page_token": token})
    assert (status, answer["error"]["code"]) == (401, "token_invalid")
    await closed.server.end()


# ---- the line


async def test_a_full_server_lets_in_those_who_wait_in_their_order(shop):
    closed = await shop(access="open", max_sessions=1)
    _, inside = await closed.offer()
    tickets = []
    for position in (1, 2):
        status, answer = await closed.offer(ticket="")
        assert (status, answer["error"]["code"], answer["queue"]["position"]) == (503, "server_full", position)
        tickets.append(answer["queue"]["ticket"])
    await closed.close(inside)
    assert await closed.refused() == (503, "server_full"), "who does not wait comes after those who do"
    status, answer = await closed.offer(ticket=tickets[1])
    assert (status, answer["queue"]["position"], answer["queue"]["ticket"]) == (503, 2, tickets[1])
    status, inside = await closed.offer(ticket=tickets[0])
    assert status == 200
    status, answer = await closed.offer(ticket=tickets[1])
    assert (status, answer["queue"]["position"]) == (503, 1)
    assert (await closed.offer(ticket=tickets[0]))[1]["queue"]["position"] == 2, "a used ticket is worth nothing"
    await closed.close(inside)
    assert (await closed.offer(ticket=tickets[1]))[0] == 200
    await closed.server.end()


async def test_a_key_and_a_token_may_carry_a_priority_that_goes_ahead_in_the_line(shop):
    closed = await shop(max_sessions=1)
    _, inside = await closed.offer(closed.key)
    tokens = [await closed.token(), await closed.token(priority=8), await closed.token(priority=1)]
    tickets, positions = [], []
    for token in tokens:
        queue = (await closed.offer(token=token, ticket=""))[1]["queue"]
        tickets.append(queue["ticket"])
        positions.append(queue["position"])
    assert positions == [1, 1, 3]
    status, answer = await closed.offer(closed.key, ticket="", priority=9)
    assert (status, answer["queue"]["position"]) == (503, 1)
    assert (await closed.offer(ticket=tickets[1], priority=0))[1]["queue"]["position"] == 2, "settled by the token"
    await closed.close(inside)
    assert (await closed.offer(ticket=tickets[1]))[1]["queue"]["position"] == 2, "another one is first"
    assert (await closed.offer(ticket=answer["queue"]["ticket"]))[0] == 200
    await closed.server.end()


async def test_nobody_gets_a_higher_priority_than_their_token_or_key_has(shop):
    closed = await shop()
    token = await closed.token(priority=3)
    assert await closed.refused(token=token, priority=4) == (403, "priority_denied")
    assert (await closed.offer(token=token, priority=2))[0] == 200
    assert (await closed.offer(closed.key, priority=10))[0] == 422
    await closed.server.end()
    public = await shop(access="open", host="0.0.0.0")
    assert await public.refused(priority=6, headers=NAME) == (403, "priority_denied")
    status, answer = await public.ask("/tokens", {"priority": 6}, **NAME)
    assert (status, answer["error"]["code"]) == (403, "priority_denied")
    assert (await public.offer(headers=NAME, priority=5))[0] == 200
    await public.server.end()


async def test_a_client_that_knows_of_no_line_leaves_nothing_in_it(shop):
    closed = await shop(access="open", max_sessions=1)
    _, inside = await closed.offer()
    for _ in range(5):
        status, answer = await closed.offer()
        assert status == 503 and "queue" not in answer
    await closed.close(inside)
    assert (await closed.offer())[0] == 200
    await closed.server.end()


async def test_a_ticket_stands_for_the_token_it_was_bought_with(shop):
    closed = await shop(max_sessions=1)
    _, inside = await closed.offer(closed.key)
    token = await closed.token(avatar="bob")
    _, answer = await closed.offer(token=token, ticket="")
    ticket = answer["queue"]["ticket"]
    assert await closed.refused(token=token, ticket="") == (401, "token_used"), "one token, one place in the line"
    await closed.close(inside)
    assert await closed.refused(ticket=ticket, avatar="ada") == (403, "token_avatar")
    results = await asyncio.gather(*(closed.offer(ticket=ticket) for _ in range(5)))
    assert sorted(status for status, _ in results) == [200, 401, 401, 401, 401]
    await closed.server.end()


async def test_a_ticket_comes_back_in_front_when_its_session_did_not_come_about(shop):
    closed = await shop(access="open", max_sessions=1)
    _, inside = await closed.offer()
    tickets = [(await closed.offer(ticket=""))[1]["queue"]["ticket"] for _ in range(2)]
    await closed.close(inside)
    closed.server.stage.fail_with = RuntimeError("broken")
    assert (await closed.offer(ticket=tickets[0]))[0] == 500
    closed.server.stage.fail_with = None
    assert (await closed.offer(ticket=tickets[1]))[1]["queue"]["position"] == 2
    assert (await closed.offer(ticket=tickets[0]))[0] == 200
    await closed.server.end()


@pytest.mark.parametrize("access", ["auto", "closed"])
async def test_two_hundred_offers_at_once_never_overshoot_the_places(shop, access):
    closed = await shop(access=access, max_sessions=3)
    bearer = closed.key if access == "closed" else ""
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, closed.server.services.sessions.taken)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    results = await asyncio.gather(*(closed.offer(bearer, ticket="") for _ in range(200)))
    watching.cancel()
    statuses = [status for status, _ in results]
    assert statuses.count(200) == 3 and statuses.count(503) == 197
    assert most == 3 == closed.server.services.sessions.taken
    positions = sorted(answer["queue"]["position"] for status, answer in results if status == 503)
    assert positions == list(range(1, 198))
    await closed.server.end()


# ---- rates


async def test_an_address_that_asks_too_often_is_told_when_to_come_back(shop):
    there = await shop(host="0.0.0.0", rate_per_address=5)
    statuses = [(await there.offer())[0] for _ in range(8)]
    assert statuses == [401] * 5 + [429] * 3
    assert await there.refused(there.key) == (429, "too_many_requests")
    async with there.server.client.get("/healthz") as response:
        assert response.status == 200
    await there.server.end()


async def test_guesses_at_keys_and_page_tokens_are_counted_too(shop):
    there = await shop(host="0.0.0.0", rate_per_address=4)
    tries = [({}, "vk_x"), ({"page_token": "vp_x.y"}, ""), ({}, ""), ({"page_token": "vp_x.y"}, ""), ({}, "vk_x")]
    assert [(await there.ask("/tokens", body, bearer))[0] for body, bearer in tries] == [401] * 4 + [429]
    await there.server.end()


async def test_addresses_behind_a_proxy_are_told_apart(shop):
    there = await shop(access="open", host="0.0.0.0", rate_per_address=2, trusted_proxies=["127.0.0.1"])
    for address in ("203.0.113.1", "203.0.113.2"):
        headers = {"X-Forwarded-For": f"9.9.9.9, {address}"}
        statuses = [(await there.refused(headers=headers, avatar="nobody"))[0] for _ in range(3)]
        assert statuses == [404, 404, 429]
    await there.server.end()


async def test_a_key_has_a_rate_of_its_own(shop):
    closed = await shop(rate_per_key=3)
    statuses = [(await closed.ask("/tokens", {}, closed.key))[0] for _ in range(5)]
    assert statuses == [200] * 3 + [429] * 2
    await closed.server.end()


async def test_who_waits_is_not_counted(shop):
    there = await shop(access="open", host="0.0.0.0", max_sessions=1, rate_per_address=2)
    await there.offer()
    _, answer = await there.offer(ticket="")
    for _ in range(10):
        status, answer = await there.offer(ticket=answer["queue"]["ticket"])
        assert (status, answer["queue"]["position"]) == (503, 1)
    await there.server.end()


# ---- TURN


async def test_credentials_come_with_tokens_and_answers_and_never_before(shop):
    turn = {"turn_urls": ("turn:turn.example:3478",), "turn_secret": "north"}
    closed = await shop(**turn)
    config = await (await closed.server.client.get("/config.json")).json()
    assert config["ice_servers"] == [] and config["access"] == "closed"
    _, minted = await closed.ask("/tokens", {}, closed.key)
    _, answer = await closed.offer(minted["token"])
    for servers in (minted["ice_servers"], answer["ice_servers"]):
        assert servers[0]["urls"] == "turn:turn.example:3478" and servers[0]["credential"]
    assert answer["session_id"] not in answer["ice_servers"][0]["username"]
    here = await shop(access="auto", **turn)
    assert (await (await here.server.client.get("/config.json")).json())["ice_servers"][0]["credential"]
    await closed.server.end()
    await here.server.end()
