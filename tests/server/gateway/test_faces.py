"""Avatars that were deleted or replaced while a worker did not listen."""

from __future__ import annotations

import re
import shutil

from engine.avatar.card import CARD_FILE
from server.gateway.fleet import WorkerState
from server.services import SERVICES
from tests.server.gateway.behind import stand
from tests.server.serving import Browser, eventually


async def test_a_worker_that_is_starting_is_told_of_a_deleted_avatar_when_it_serves(
    aiohttp_client, avatars_dir, data_home
):
    shutil.copytree(avatars_dir / "tiny", data_home / "avatars" / "twin")
    behind = await stand(aiohttp_client, avatars_dir, "w1")
    async with behind:
        assert "twin" in behind.fleet.stages["w1"].cards
        behind.fleet.starting = [WorkerState("w2")]
        await behind.client.get("/healthz")
        front = behind.client.server.app[SERVICES].stage
        front.library.add("twin")
        front.forget("twin")
        await eventually(lambda: "twin" not in behind.fleet.stages["w1"].cards)
        # It had read of it before.
        await behind.fleet.start(front.config, "w2")
        assert "twin" in behind.fleet.stages["w2"].cards
        behind.fleet.starting = []
        await eventually(lambda: "twin" not in behind.fleet.stages["w2"].cards)


async def test_a_worker_that_was_told_nothing_shows_no_deleted_face(aiohttp_client, avatars_dir, data_home):
    behind = await stand(aiohttp_client, avatars_dir, "w1")
    async with behind, Browser() as browser, Browser() as newcomer, Browser() as last:
        folder = data_home / "avatars" / "twin"
        shutil.copytree(avatars_dir / "tiny", folder)
        front = behind.client.server.app[SERVICES].stage
        front.on_forgotten = lambda name: None
        first = front.library.add("twin")
        await behind.open(browser, avatar="twin")
        learnt = behind.fleet.stages["w1"]
        assert learnt.cards["twin"] == first
        # Another one of the same name.
        front.forget("twin")
        shutil.rmtree(folder)
        shutil.copytree(avatars_dir / "tiny", folder)
        card = folder / CARD_FILE
        card.write_text(re.sub(r"(?m)^title = .*$", 'title = "Another"', card.read_text()))
        front.library.add("twin")
        await behind.client.get("/healthz")
        answer = await behind.open(newcomer, avatar="twin")
        assert learnt.cards["twin"].title == "Another"
        # And none of that name any more.
        shutil.rmtree(folder)
        assert (await behind.client.delete(f"/sessions/{answer['session_id']}")).status == 204
        await behind.client.get("/healthz")
        refused = await behind.client.post("/offer", json={**await last.offer(), "avatar": "twin"})
        assert refused.status == 404 and "twin" not in learnt.cards
