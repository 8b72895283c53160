"""A whole connection in one process: a browser made of aiortc against the real server, media and all."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import numpy as np
import pytest
from aiortc import AudioStreamTrack
from aiortc.rtp import RTCP_PSFB_PLI, RtcpPsfbPacket
from av import AudioFrame

from engine.types import Event
from tests.server.fakes import FLASH_EVERY
from tests.server.serving import Browser, Server, eventually, serve

pytestmark = pytest.mark.alone


@pytest.fixture
async def start(aiohttp_client):
    async def _start(**options) -> Server:
        return await serve(aiohttp_client, **options)

    return _start


class Tone(AudioStreamTrack):
    """A microphone that hears a steady tone: 20 ms of 48 kHz at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._pts = 0
        self._started_s = time.monotonic()

    async def recv(self) -> AudioFrame:
        await asyncio.sleep(max(0.0, self._started_s + self._pts / 48_000 - time.monotonic()))
        samples = (np.sin(2 * np.pi * 500 * (self._pts + np.arange(960)) / 48_000) * 8000).astype(np.int16)
        frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, self._pts
        self._pts += 960
        return frame


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_picture_and_sound_arrive_at_25_frames_a_second_in_step(start, codec):
    server = await start()
    async with Browser(video_codec=codec) as browser:
        await server.offer(browser)
        await browser.watch(80)
        pictures, sounds = browser.pictures, browser.sounds

        ticks = [received.frame.pts for received in pictures]
        assert all(later > earlier for earlier, later in pairwise(ticks)), "pts grow"
        assert np.median(np.diff(ticks)) == 3600, "40 ms each"
        # A machine that stalls for a moment may spoil some seconds, not all.
        rates = [39 / (later.at_s - first.at_s) for first, later in zip(pictures, pictures[39:], strict=False)]
        assert any(23 < rate < 27 for rate in rates), rates

        for before, after in pairwise(sounds):
            step = after.frame.pts - before.frame.pts
            silent = np.abs(before.frame.to_ndarray()).max() < 100
            assert step == 960 or (silent and step > 0 and step % 960 == 0), "20 ms each; only silence is left out"

        # The same frame is white and sounds: both must be there at the same moment.
        white = [r.at_s for r in pictures if r.frame.to_ndarray(format="gray")[:100, :100].mean() > 180]
        loud = [r.at_s for r in sounds if np.abs(r.frame.to_ndarray()).max() > 4000]
        assert white and loud
        # aiortc's receiver holds sound for four packets before it decodes one.
        skews = [min((at - 0.08 - flash for at in loud), key=abs) for flash in white]
        assert abs(np.median(skews)) < 0.06
        await server.end()


async def test_pictures_are_what_the_session_made(start):
    server = await start()
    async with Browser() as browser:
        await server.offer(browser)
        await browser.watch(30)
        grey = browser.pictures[20].frame.to_ndarray(format="bgr24")
        image = grey[200:, :].mean(axis=(0, 1))
        flashes = [i for i, r in enumerate(browser.pictures) if r.frame.to_ndarray(format="gray").mean() > 180]
        assert np.all(np.abs(image - 60) < 12) or 20 in flashes
        assert flashes and np.all(np.diff(flashes) == FLASH_EVERY)
        await server.end()


async def test_the_configured_codec_wins_when_both_are_offered(start):
    for option, expected in (("auto", "H264"), ("h264", "H264"), ("vp8", "VP8")):
        server = await start(video_codec=option)
        async with Browser() as browser:
            await server.offer(browser)
            video = browser.connection.remoteDescription.sdp.split("m=video")[1]
            first = video.split()[2]
            assert f"a=rtpmap:{first} {expected}/90000" in video
            await browser.watch(1)
            await server.end()


async def test_a_lost_picture_is_answered_with_a_key_frame(start):
    server = await start()
    async with Browser(video_codec="H264") as browser:
        await server.offer(browser)
        await browser.watch(20)
        keys = [r for r in browser.pictures if r.frame.key_frame]
        assert len(keys) == 1, "only the first one"
        receiver = next(t.receiver for t in browser.connection.getTransceivers() if t.kind == "video")
        ssrc = next(iter(receiver.getSynchronizationSources())).source
        await receiver._send_rtcp(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=ssrc))
        asked_s = time.monotonic()
        await eventually(lambda: sum(r.frame.key_frame for r in browser.pictures) == 2)
        key = [r for r in browser.pictures if r.frame.key_frame][-1]
        assert key.at_s - asked_s < 2.5, "a regular one comes after ten seconds"
        await server.end()


async def test_the_microphone_reaches_the_session_as_mono(start):
    server = await start()
    async with Browser(microphone=Tone()) as browser:
        await server.offer(browser)
        await eventually(lambda: sum(map(len, server.session.heard)) > 48_000, timeout_s=6)
        heard = np.concatenate(server.session.heard)
        assert heard.dtype == np.int16 and heard.ndim == 1
        spectrum = np.abs(np.fft.rfft(heard[9600:48_000].astype(float)))
        assert abs(np.argmax(spectrum) * 48_000 / 38_400 - 500) < 5
        await server.end()


async def test_the_microphone_is_heard_without_waiting_in_a_buffer(start):
    server = await start()
    async with Browser(microphone=Tone()) as browser:
        await server.offer(browser)
        tone = browser.connection.getTransceivers()[0].sender.track
        await eventually(lambda: len(server.session.heard) > 50, timeout_s=6)
        heard_samples = sum(map(len, server.session.heard))
        assert (tone._pts - heard_samples) / 48_000 < 0.3, "includes what was sent before the connection was up"
        await server.end()


async def test_events_and_commands_cross_the_data_channel(start):
    server = await start()
    async with Browser() as browser:
        session_id = await server.offer(browser)
        assert (await browser.expect("state"))["session_id"] == session_id
        server.session.publish(Event("caption", {"text": "hello", "utterance_id": 3}))
        assert (await browser.expect("caption")) == {"type": "caption", "text": "hello", "utterance_id": 3}

        browser.send(type="say", text="good day")
        assert (await browser.expect("accepted"))["utterance_id"] == 1
        assert server.session.said == ["good day"]
        browser.send(type="interrupt")
        assert (await browser.expect("interrupted"))["played_ms"] == 120
        browser.send(type="mirror", on=True)
        await eventually(lambda: server.session.mirror)
        browser.send(type="listening", on=True)
        browser.send(type="act", name="nod")
        assert (await browser.expect("accepted")) == {"type": "accepted", "command": "act", "name": "nod"}
        browser.send(type="stop_action")
        await eventually(lambda: server.session.actions == ["nod", ""] and server.session.listening)
        browser.send(type="ping", t=12.5)
        assert (await browser.expect("pong"))["t"] == 12.5

        for bad, code in (
            ({"type": "say", "text": ""}, "text_empty"),
            ({"type": "say"}, "invalid_request"),
            ({"type": "mirror", "on": 1}, "invalid_request"),
            ({"type": "act", "name": "somersault"}, "action_unknown"),
            ({"type": "listening"}, "invalid_request"),
            ({"type": "dance"}, "unknown_command"),
            ({}, "unknown_command"),
        ):
            browser.send(**bad)
            assert (await browser.expect("error"))["code"] == code
        for garbage in ("{", "[]", "1", b"\x00"):
            browser.channel.send(garbage)
            assert (await browser.expect("error"))["code"] == "invalid_json"
        browser.send(type="say", text="still here")
        await browser.expect("accepted")
        await server.end()


async def test_a_silent_browser_is_let_go(start):
    server = await start()
    object.__setattr__(server.services.sessions._options, "heartbeat_timeout_s", 3.0)
    object.__setattr__(server.services.sessions._options, "return_timeout_s", 0.0)
    async with Browser() as browser:
        await server.offer(browser)
        await browser.opened.wait()
        for _ in range(10):
            browser.send(type="ping", t=0)
            await asyncio.sleep(0.4)
        assert server.services.sessions.taken == 1, "heartbeats keep it"
        silent_s = time.monotonic()
        await eventually(lambda: server.services.sessions.taken == 0, timeout_s=10)
        assert 0.5 < time.monotonic() - silent_s < 9
        assert server.session.closed.is_set()
    metrics = await (await server.client.get("/metrics")).text()
    assert 'visavis_sessions_ended_total{reason="vanished"} 1.0' in metrics


async def test_a_browser_without_a_channel_lives_by_its_reports(start):
    server = await start(heartbeat_timeout_s=3.0)
    async with Browser(with_channel=False) as browser:
        await server.offer(browser)
        await asyncio.sleep(4)
        assert server.services.sessions.taken == 1
    await eventually(lambda: server.services.sessions.taken == 0, timeout_s=6)


async def test_a_browser_that_hangs_up_frees_its_place_at_once(start):
    server = await start()
    async with Browser() as browser:
        await server.offer(browser)
        await browser.watch(3)
    await eventually(lambda: server.services.sessions.taken == 0, timeout_s=2)


async def test_nobody_who_never_comes_keeps_a_place(start):
    server = await start()
    object.__setattr__(server.services.sessions._options, "connect_timeout_s", 0.3)
    await server.open_session()
    assert server.services.sessions.taken == 1
    await eventually(lambda: server.services.sessions.taken == 0)
    metrics = await (await server.client.get("/metrics")).text()
    assert 'visavis_sessions_ended_total{reason="never_connected"} 1.0' in metrics


async def test_the_longest_session_ends_with_a_word(start):
    server = await start(max_session_s=10)
    server.services.sessions._max_duration_s = 3.0
    object.__setattr__(server.services.sessions._options, "heartbeat_timeout_s", 30.0)
    async with Browser() as browser:
        await server.offer(browser)
        await browser.opened.wait()
        await browser.expect("state")
        farewell = await browser.expect("state")
        assert (farewell["state"], farewell["reason"]) == ("ended", "too_long")
        await eventually(lambda: server.services.sessions.taken == 0)


async def test_a_session_in_which_nobody_speaks_is_given_back(start):
    server = await start(idle_session_s=10)
    object.__setattr__(server.services.sessions._options, "idle_timeout_s", 2.4)
    object.__setattr__(server.services.sessions._options, "heartbeat_timeout_s", 30.0)
    async with Browser() as browser:
        await server.offer(browser)
        await browser.opened.wait()
        await browser.expect("state")
        for _ in range(8):
            server.session.publish(Event("speaking", {"speaking": True}))
            await asyncio.sleep(0.4)
        assert server.services.sessions.taken == 1, "speech keeps it"
        assert (await browser.expect("state"))["reason"] == "idle"
        await eventually(lambda: server.services.sessions.taken == 0)


async def test_delete_frees_everything_while_media_flows(start):
    server = await start()
    before = asyncio.all_tasks()
    async with Browser() as browser:
        session_id = await server.offer(browser)
        await browser.watch(5)
        assert (await server.client.delete(f"/sessions/{session_id}")).status == 204
        assert server.services.sessions.taken == 0
    await asyncio.sleep(0.1)
    left = {task for task in asyncio.all_tasks() - before if "RequestHandler" not in repr(task)}
    assert not left, left


async def test_an_offer_with_unresolvable_names_is_answered_without_waiting_and_connects(start):
    server = await start()
    async with Browser() as browser:
        offer = await browser.offer()
        offer["sdp"] = _with_mdns_only(offer["sdp"])
        started_s = time.monotonic()
        response = await server.client.post("/offer", json=offer)
        assert time.monotonic() - started_s < 0.5
        await browser.accept(await response.json())
        await browser.watch(3, timeout_s=5)
        await server.end()


def _with_mdns_only(sdp: str) -> str:
    lines = []
    for line in sdp.splitlines():
        if line.startswith("a=candidate:"):
            parts = line.split()
            parts[4] = "0a1b2c3d-1111-2222-3333-444455556666.local"
            line = " ".join(parts)
        lines.append(line)
    return "\r\n".join(lines) + "\r\n"


async def test_a_browser_that_leaves_while_it_connects_leaves_nothing_behind(start):
    server = await start()
    for delay_s in (0.0, 0.01, 0.02, 0.03, 0.04, 0.06):
        async with Browser() as browser:
            session_id = await server.offer(browser)
            await asyncio.sleep(delay_s)
            await server.client.delete(f"/sessions/{session_id}")
    assert not [task for task in asyncio.all_tasks() if "query_consent" in repr(task)]
    assert server.services.sessions.taken == 0


async def test_two_browsers_see_two_sessions(start):
    server = await start()
    async with Browser() as one, Browser() as other:
        first, second = await server.offer(one), await server.offer(other)
        await asyncio.gather(one.watch(10), other.watch(10))
        await server.client.post(f"/sessions/{first}/say", json={"text": "only me"})
        assert server.stage.sessions[0].said == ["only me"] and server.stage.sessions[1].said == []
        await server.client.delete(f"/sessions/{first}")
        seen = len(other.pictures)
        await other.watch(seen + 10)
        assert (await server.client.post(f"/sessions/{second}/interrupt")).status == 200
        await server.end()
