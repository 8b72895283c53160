"""A client like Pipecat's small WebRTC transport: its sections, its words, its late candidates."""

from __future__ import annotations

import json
import re

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from engine.types import Event
from server import signaling
from tests.server.serving import Browser, eventually
from tests.server.test_api import error_of


class PipecatClient:
    """Offers as its transport does: sound, camera, shared screen, a channel called chat; candidates follow."""

    def __init__(self) -> None:
        self.tracks: list[str] = []
        self.messages: list[dict] = []

    async def __aenter__(self) -> PipecatClient:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.on("track", lambda track: self.tracks.append(track.kind))
        self.connection.addTransceiver("audio", "sendrecv")
        self.connection.addTransceiver("video", "sendrecv")
        self.connection.addTransceiver("video", "sendonly")
        self.channel = self.connection.createDataChannel("chat", ordered=True)
        self.channel.on("message", lambda text: self.messages.append(json.loads(text)))
        await self.connection.setLocalDescription(await self.connection.createOffer())
        lines = self.connection.localDescription.sdp.splitlines()
        self.candidates = [line.removeprefix("a=") for line in lines if line.startswith("a=candidate")]
        self.sdp = "\r\n".join(line for line in lines if not re.match("a=(candidate|end-of-candidates)", line)) + "\r\n"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()
        await signaling.stop_latecomers(self.connection)

    def offer(self, **more) -> dict:
        return {"sdp": self.sdp, "type": "offer", "pc_id": None, "restart_pc": False, **more}

    def patch(self, pc_id: str) -> dict:
        candidates = [{"candidate": one, "sdp_mid": "0", "sdp_mline_index": 0} for one in self.candidates]
        return {"pc_id": pc_id, "candidates": [*candidates, {"candidate": "", "sdp_mid": "0", "sdp_mline_index": 0}]}


async def test_it_connects_with_late_candidates_and_speaks_rtvi(server):
    async with PipecatClient() as client:
        wishes = {"avatar": "bob", "mode": "say", "anything": 1}
        response = await server.client.post("/api/offer", json=client.offer(requestData=wishes))
        answer = await response.json()
        assert response.status == 200 and set(answer) >= {"sdp", "type", "pc_id"}
        assert server.services.sessions.get(answer["pc_id"]).avatar == "bob" and server.session.mode == "say"
        response = await server.client.patch("/api/offer", json=client.patch(answer["pc_id"]))
        assert (response.status, await response.json()) == (200, {"status": "success"})
        await client.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        await eventually(lambda: client.channel.readyState == "open", timeout_s=8)
        client.channel.send(json.dumps({"label": "rtvi-ai", "type": "client-ready", "id": "1", "data": {}}))
        client.channel.send("ping: 1")
        await eventually(lambda: any(message["type"] == "bot-ready" for message in client.messages))
        server.session.publish(Event("speaking", {"speaking": True, "utterance_id": 1}))
        await eventually(lambda: any(message["type"] == "bot-started-speaking" for message in client.messages))
        directions = [t.currentDirection for t in client.connection.getTransceivers()]
        assert directions == ["sendrecv", "recvonly", "inactive"], "no camera and no screen is taken"
        client.channel.send(json.dumps({"label": "rtvi-ai", "type": "disconnect-bot", "id": "2"}))
        await eventually(lambda: server.services.sessions.taken == 0)


async def test_a_connection_that_was_lost_is_made_again_in_place_of_the_old_one(server):
    async with PipecatClient() as client:
        first = await (await server.client.post("/api/offer", json=client.offer())).json()
        refused = await server.client.post("/api/offer", json=client.offer(pc_id=first["pc_id"]))
        assert await error_of(refused) == (422, "renegotiation_unsupported")
        again = client.offer(pc_id=first["pc_id"], restart_pc=True)
        response = await server.client.post("/api/offer", json=again)
        assert (await response.json())["pc_id"] == first["pc_id"] and server.services.sessions.taken == 1
        gone = client.offer(pc_id="of-a-server-that-was-restarted", restart_pc=True)
        assert (await server.client.post("/api/offer", json=gone)).status == 200
    await server.end()


@pytest.mark.parametrize(
    ("candidate", "code"),
    [
        ({"candidate": "candidate:1 1 udp 2 example.org 4000 typ host", "sdp_mid": "0"}, "candidate_invalid"),
        ({"candidate": "candidate:1 1 udp 2 127.0.0.1 99999 typ host", "sdp_mid": "0"}, "candidate_invalid"),
        ({"candidate": "candidate:1 1 udp 2 127.0.0.1 4000 typ friend", "sdp_mid": "0"}, "candidate_invalid"),
        ({"candidate": "candidate:1 1 udp", "sdp_mid": "0"}, "candidate_invalid"),
        ({"candidate": "candidate:1 1 udp 2 127.0.0.1 4000 typ host"}, "candidate_invalid"),
        ({"candidate": 1, "sdp_mid": "0"}, "invalid_request"),
    ],
)
async def test_candidates_that_lead_nowhere_are_refused_and_end_nothing(server, candidate, code):
    session = await server.open_session()
    response = await server.client.patch("/api/offer", json={"pc_id": session, "candidates": [candidate]})
    assert await error_of(response) == (422, code)
    assert server.services.sessions.get(session)
    await server.end()


async def test_names_and_tcp_are_passed_over(server):
    session = await server.open_session()
    unused = ["candidate:1 1 udp 2 3f2a.local 4000 typ host", "candidate:1 1 tcp 2 127.0.0.1 9 typ host tcptype active"]
    candidates = [{"candidate": one, "sdp_mid": "0"} for one in unused]
    assert (await server.client.patch("/api/offer", json={"pc_id": session, "candidates": candidates})).status == 200
    await server.end()


async def test_candidates_are_bounded_and_need_a_session(server):
    session = await server.open_session()
    one = {"candidate": "candidate:1 1 udp 2 192.0.2.1 4000 typ host", "sdp_mid": "0"}
    body = {"pc_id": session, "candidates": [one] * 40}
    assert (await server.client.patch("/api/offer", json=body)).status == 200
    assert await error_of(await server.client.patch("/api/offer", json=body)) == (422, "too_many_candidates")
    unknown = {"pc_id": "nobody", "candidates": []}
    assert await error_of(await server.client.patch("/api/offer", json=unknown)) == (404, "session_not_found")
    await server.end()


async def test_wishes_that_are_none_are_passed_over(server):
    async with Browser() as browser:
        response = await server.client.post("/api/offer", json={**await browser.offer(), "request_data": "hello"})
        assert response.status == 200
        wrong = await server.client.post("/api/offer", json={**await browser.offer(), "requestData": {"mode": "sing"}})
        assert await error_of(wrong) == (422, "invalid_request")
    await server.end()
