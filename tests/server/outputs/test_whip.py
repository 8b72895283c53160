"""WHIP: a strict receiver gets pictures and sound, and one that refuses, redirects or dies is borne."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest

from server.outputs import whip as whip_module
from server.outputs.base import Output
from server.outputs.whip import WhipDelivery
from server.outputs.whip_client import WhipClient, ice_servers
from tests.server.outputs.whip_receiver import TOKEN, WhipReceiver
from tests.server.serving import eventually


def start(face, url: str, token: str | None = TOKEN) -> SimpleNamespace:
    states: list[str | None] = []
    delivery = WhipDelivery(url, token, tuple)
    return SimpleNamespace(output=Output("sfu", delivery, face, states.append), delivery=delivery, states=states)


def state(running) -> str:
    return running.output.to_dict()["state"]


@pytest.mark.alone
async def test_a_receiver_gets_pictures_and_sound_together(face):
    async with WhipReceiver() as receiver:
        running = start(face, receiver.url)
        await eventually(lambda: len(receiver.pictures) > 100, 12)
        sent = running.output.to_dict()
        await running.output.aclose()
        assert receiver.deleted == ["1"] and receiver.faults == []
    times = [time_s for _, _, time_s in receiver.pictures]
    assert abs(1 / float(np.median(np.diff(times))) - 25) < 0.1
    flashes = [at_s for at_s, brightness, _ in receiver.pictures if brightness > 150]
    beeps = [at_s for at_s, loudest in receiver.sounds if loudest > 8000]
    offsets = [min((beep - flash for beep in beeps), key=abs) for flash in flashes[:-1]]
    # As they arrive, with aiortc's buffer for sound among it.
    assert offsets and abs(float(np.median(offsets))) < 0.12
    assert min(np.diff(receiver.key_frames)) < 2.3
    assert sent["kbps"] > 10 and running.states == ["connecting", "live", None]
    assert not face.fan.is_wanted


async def test_a_receiver_that_lost_pictures_gets_a_key_frame(face, monkeypatch):
    monkeypatch.setattr(whip_module, "KEY_FRAME_S", 60.0)
    async with WhipReceiver() as receiver:
        running = start(face, receiver.url)
        await eventually(lambda: len(receiver.key_frames) == 1, 10)
        await asyncio.sleep(1.0)
        await receiver.request_key_frame()
        await eventually(lambda: len(receiver.key_frames) == 2, 2)
        await running.output.aclose()


async def test_the_endpoint_may_send_us_on(face):
    async with WhipReceiver(redirects=2) as receiver:
        running = start(face, receiver.url)
        await eventually(lambda: state(running) == "live", 8)
        assert receiver.authorizations == [f"Bearer {TOKEN}"] * 3
        await running.output.aclose()


async def test_the_endpoint_may_not_send_us_on_for_ever(face):
    async with WhipReceiver(redirects=9) as receiver:
        running = start(face, receiver.url)
        await eventually(lambda: state(running) == "waiting")
        assert running.output.to_dict()["error"]["code"] == "publish_refused" and len(receiver.authorizations) == 4
        await running.output.aclose()


@pytest.mark.parametrize(
    ("refuse", "token", "code"),
    [(0, "guessed-one", "publish_refused"), (0, None, "publish_refused"), (500, TOKEN, "publish_refused"),
     (503, TOKEN, "publish_busy")],
)  # fmt: skip
async def test_a_refusal_is_told_without_address_and_token(face, refuse, token, code, caplog):
    async with WhipReceiver(refuse=refuse, refuse_headers={"Retry-After": "2"}) as receiver:
        running = start(face, receiver.url, token)
        await eventually(lambda: state(running) == "waiting")
        told = str(running.output.to_dict())
        await running.output.aclose()
    assert code in told
    for secret in ("127.0.0.1", str(receiver.port), token or TOKEN):
        assert secret not in told + caplog.text


async def test_an_endpoint_that_died_gets_the_session_again(face):
    async with WhipReceiver() as receiver:
        running = start(face, receiver.url)
        await eventually(lambda: len(receiver.pictures) > 5, 8)
        await receiver.die()
        await eventually(lambda: state(running) == "waiting", 5)
        await receiver.listen()
        before = len(receiver.pictures)
        await eventually(lambda: state(running) == "live" and len(receiver.pictures) > before + 5, 10)
        assert running.output.to_dict()["reconnects"] >= 1
        await running.output.aclose()


@pytest.mark.parametrize("codec", ["H264", "opus"])
async def test_a_connection_that_has_nothing_more_to_send_is_made_anew(face, codec, caplog):
    async with WhipReceiver() as receiver:
        running = start(face, receiver.url)
        await eventually(lambda: len(receiver.pictures) > 5 and receiver.sounds, 20)
        face.fan._sources[codec]._track.stop()
        await eventually(lambda: running.states[2:3] == ["waiting"] and state(running) == "live", 20)
        seen, heard = len(receiver.pictures), len(receiver.sounds)
        await eventually(lambda: len(receiver.pictures) > seen + 5 and len(receiver.sounds) > heard + 5, 20)
        await running.output.aclose()
    assert "ended" in caplog.text


async def test_an_endpoint_that_is_silent_is_taken_for_dead(face, monkeypatch):
    monkeypatch.setattr(whip_module, "SILENCE_S", 1.5)
    async with WhipReceiver() as receiver:
        running = start(face, receiver.url)
        await eventually(lambda: len(receiver.pictures) > 5, 8)
        await receiver.die(silently=True)
        died_s = time.monotonic()
        await eventually(lambda: state(running) == "waiting", 8)
        assert time.monotonic() - died_s < 5
        await running.output.aclose()


async def test_ice_servers_of_an_answer_serve_the_next_connection(face):
    link = '<stun:127.0.0.1:9>; rel="ice-server"'
    async with WhipReceiver(links=(link,)) as receiver:
        running = start(face, receiver.url)
        await eventually(lambda: state(running) == "live", 8)
        assert running.delivery._recommended == ({"urls": "stun:127.0.0.1:9"},)
        await running.output.aclose()


async def test_servers_that_make_a_connection_impossible_are_tried_once(face):
    async with WhipReceiver() as receiver:
        running = start(face, receiver.url)
        running.delivery._recommended = ({"urls": "turn:[2001:db8::1]:3478?transport=udp"},)
        await eventually(lambda: state(running) == "live", 20)
        assert running.states[:3] == ["connecting", "waiting", "connecting"]
        await running.output.aclose()


@pytest.mark.parametrize(
    "link", ["turn:[2001:db8::1]:3478?transport=udp", "stun:s.example?transport=udp", "turn:t.example:3478/udp"]
)
def test_a_server_that_cannot_be_used_is_left_out(link):
    links = [f'<{link}>; rel="ice-server"', '<stun:s.example>; rel="ice-server"']
    assert ice_servers(links) == [{"urls": "stun:s.example"}]


def test_links_are_read_as_they_are_written():
    assert ice_servers(
        [
            '<stun:s.example:3478>; rel="ice-server", <turn:t.example?transport=udp>; rel="ice-server"; '
            'username="a\\"b"; credential="c;,d"; credential-type="password"',
            '<https://x.example>; rel="ice-server"',
            '<stun:other.example>; rel="next"',
            "rubbish, <",
        ]
    ) == [
        {"urls": "stun:s.example:3478"},
        {"urls": "turn:t.example?transport=udp", "username": 'a"b', "credential": "c;,d"},
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://sfu.example/other", True),
        ("https://node.sfu.example/whip", True),
        ("http://node.sfu.example/whip", False),
    ],
)
def test_a_token_leaves_its_endpoint_only_encrypted(url, shown):
    client = WhipClient("https://sfu.example/whip", "secret")
    assert bool(client._authorization(url)) is shown
