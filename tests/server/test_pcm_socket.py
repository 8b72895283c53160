"""Raw sound over a WebSocket: utterances, interrupts, and everything that can be sent wrongly."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from aiohttp import WSMsgType

from server import pcm_socket
from tests.server.fakes import FakeStream
from tests.server.serving import Server, eventually, serve

HELLO = {"sample_rate": 16_000, "format": "s16le"}


@pytest.fixture
async def session(server: Server) -> str:
    return await server.open_session()


def pcm(seconds: float, rate: int = 16_000) -> bytes:
    return (np.sin(np.arange(int(seconds * rate)) / 9) * 8000).astype("<i2").tobytes()


async def connect(server: Server, session: str, hello: dict | None = None):
    socket = await server.client.ws_connect(f"/sessions/{session}/pcm")
    await socket.send_json(HELLO if hello is None else hello)
    return socket


async def expect(socket, kind: str, timeout_s: float = 3) -> dict:
    message = await socket.receive_json(timeout=timeout_s)
    assert message["type"] == kind, message
    return message


async def expect_refusal(socket, code: str, close_code: int) -> None:
    assert (await expect(socket, "error"))["error"]["code"] == code
    closing = await socket.receive(timeout=3)
    assert closing.type is WSMsgType.CLOSE and closing.data == close_code


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16_000, 1), (24_000, 1), (44_100, 2), (48_000, 1)])
async def test_sound_arrives_at_48_khz_mono_whatever_it_was(server, session, rate, channels):
    socket = await connect(server, session, {"sample_rate": rate, "channels": channels, "format": "s16le"})
    await expect(socket, "ready")
    mono = np.frombuffer(pcm(0.5, rate), "<i2")
    data = np.repeat(mono, channels).tobytes()
    size = 640 * channels
    for start in range(0, len(data), size):
        await socket.send_bytes(data[start : start + size])
    await expect(socket, "started")
    await socket.send_json({"type": "end"})
    await expect(socket, "ended")
    (stream,) = server.session.streams
    assert stream.ended and stream.samples.dtype == np.int16
    assert abs(len(stream.samples) - 24_000) < 60
    await socket.close()


async def test_one_socket_carries_many_utterances(server, session):
    socket = await connect(server, session)
    await expect(socket, "ready")
    ids = []
    for _ in range(3):
        await socket.send_bytes(pcm(0.1))
        ids.append((await expect(socket, "started"))["utterance_id"])
        await socket.send_json({"type": "end"})
        await expect(socket, "ended")
    assert ids == [1, 2, 3] and all(stream.ended for stream in server.session.streams)
    await socket.close()


async def test_an_interrupt_through_the_socket_silences_and_the_next_sound_is_new(server, session):
    socket = await connect(server, session)
    await expect(socket, "ready")
    await socket.send_bytes(pcm(0.1))
    await expect(socket, "started")
    await socket.send_json({"type": "interrupt"})
    assert (await expect(socket, "interrupted"))["played_ms"] == 120
    await socket.send_bytes(pcm(0.1))
    assert (await expect(socket, "started"))["utterance_id"] == 2
    await socket.close()


async def test_an_interrupt_from_elsewhere_drops_the_rest_of_the_utterance(server, session):
    socket = await connect(server, session)
    await expect(socket, "ready")
    await socket.send_bytes(pcm(0.1))
    await expect(socket, "started")
    await server.client.post(f"/sessions/{session}/interrupt")
    for _ in range(5):
        await socket.send_bytes(pcm(0.1))
    assert (await expect(socket, "interrupted"))["utterance_id"] == 1
    await socket.send_json({"type": "end"})
    await expect(socket, "ended")
    await socket.send_bytes(pcm(0.1))
    assert (await expect(socket, "started"))["utterance_id"] == 2
    await socket.close()


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({}, "invalid_request"),
        ({"sample_rate": 16_000}, "invalid_request"),
        ({"sample_rate": "16000", "format": "s16le"}, "invalid_request"),
        ({"sample_rate": 16_000, "format": "s16le", "volume": 2}, "invalid_request"),
        ({"sample_rate": 16_000, "format": "f32le"}, "audio_format"),
        ({"sample_rate": 1, "format": "s16le"}, "audio_rate"),
        ({"sample_rate": 10**9, "format": "s16le"}, "audio_rate"),
        ({"sample_rate": -48_000, "format": "s16le"}, "audio_rate"),
        ({"sample_rate": 48_000, "format": "s16le", "channels": 0}, "audio_channels"),
        ({"sample_rate": 48_000, "format": "s16le", "channels": 10_000}, "audio_channels"),
    ],
)
async def test_a_hello_that_cannot_be_used_is_refused_and_the_session_goes_on(server, session, hello, code):
    socket = await connect(server, session, hello)
    await expect_refusal(socket, code, 4400)
    assert (await server.client.post(f"/sessions/{session}/say", json={"text": "on"})).status == 202


@pytest.mark.parametrize("hello", ["{", "[]", "null", "1"])
async def test_a_hello_that_is_no_object_is_refused(server, session, hello):
    socket = await server.client.ws_connect(f"/sessions/{session}/pcm")
    await socket.send_str(hello)
    await expect_refusal(socket, "invalid_json", 4400)


async def test_sound_before_the_hello_is_refused(server, session):
    socket = await server.client.ws_connect(f"/sessions/{session}/pcm")
    await socket.send_bytes(pcm(0.1))
    await expect_refusal(socket, "hello_missing", 4400)


async def test_half_a_sample_is_refused_and_what_came_before_is_played(server, session):
    socket = await connect(server, session)
    await expect(socket, "ready")
    await socket.send_bytes(pcm(0.1))
    await expect(socket, "started")
    await socket.send_bytes(b"123")
    await expect_refusal(socket, "audio_format", 4400)
    await eventually(lambda: server.session.streams[0].ended)
    assert len(server.session.streams[0].samples) > 4000


async def test_an_unknown_command_is_refused(server, session):
    socket = await connect(server, session)
    await expect(socket, "ready")
    await socket.send_json({"type": "dance"})
    await expect_refusal(socket, "unknown_command", 4400)


async def test_a_full_queue_is_told_to_come_back(server, session):
    server.session.busy = True
    socket = await connect(server, session)
    await expect(socket, "ready")
    await socket.send_bytes(pcm(0.1))
    await expect_refusal(socket, "queue_full", 4429)


async def test_a_message_that_is_too_large_closes_the_socket_and_not_the_session(server, session):
    socket = await connect(server, session)
    await expect(socket, "ready")
    await socket.send_bytes(bytes(400_000))
    closing = await socket.receive(timeout=3)
    assert closing.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
    assert (await server.client.post(f"/sessions/{session}/say", json={"text": "on"})).status == 202


async def test_a_sender_that_disappears_ends_its_utterance(server, session):
    socket = await connect(server, session)
    await expect(socket, "ready")
    await socket.send_bytes(pcm(0.1))
    await expect(socket, "started")
    await socket.close()
    await eventually(lambda: server.session.streams[0].ended)


async def test_the_end_of_the_session_closes_its_sockets(aiohttp_client):
    server = await serve(aiohttp_client)
    session = await server.open_session()
    socket = await connect(server, session)
    await expect(socket, "ready")
    await asyncio.sleep(0.05)
    await server.client.delete(f"/sessions/{session}")
    await expect_refusal(socket, "session_ended", 4404)


def slow_down(stream, gate: asyncio.Event) -> None:
    """Makes a stream take nothing until the gate opens, as one does whose sound is far ahead of what is heard."""
    push = stream.push

    async def waits(samples):
        await gate.wait()
        await push(samples)

    stream.push = waits


async def begin(socket, server) -> FakeStream:
    await expect(socket, "ready")
    await socket.send_bytes(pcm(0.02))
    await expect(socket, "started")
    return server.session.streams[-1]


async def test_a_slow_session_slows_neither_the_server_nor_the_reader(server, session):
    socket = await connect(server, session)
    stream = await begin(socket, server)
    gate = asyncio.Event()
    slow_down(stream, gate)
    for _ in range(20):
        await socket.send_bytes(pcm(0.02))
    await asyncio.sleep(0.1)
    assert len(stream.samples) < 1000, "nothing piled up in the session"
    assert (await server.client.get("/healthz")).status == 200
    gate.set()
    await socket.send_json({"type": "end"})
    await expect(socket, "ended")
    assert len(stream.samples) == pytest.approx(21 * 960, abs=60)
    await socket.close()


async def test_a_sender_whose_sound_waits_long_stays_connected(server, session, monkeypatch):
    monkeypatch.setattr(pcm_socket, "PING_INTERVAL_S", 1.0)
    socket = await connect(server, session)
    stream = await begin(socket, server)
    gate = asyncio.Event()
    slow_down(stream, gate)
    # More than fits into any buffer on the way, so that a reader that waits would not see the pongs behind it.
    for _ in range(60):
        await socket.send_bytes(pcm(1.0))
    # Pings are answered while somebody reads.
    reading = asyncio.create_task(expect(socket, "ended", timeout_s=30))
    await asyncio.sleep(3.0)
    assert not socket.closed and not reading.done()
    gate.set()
    await socket.send_json({"type": "end"})
    await reading
    assert len(stream.samples) == pytest.approx(60.02 * 48_000, abs=100)
    await socket.close()


async def test_an_interrupt_overtakes_a_minute_of_sound(server, session):
    socket = await connect(server, session)
    stream = await begin(socket, server)
    slow_down(stream, asyncio.Event())
    for _ in range(60):
        await socket.send_bytes(pcm(1.0))
    await socket.send_json({"type": "end"})
    started_s = time.monotonic()
    await socket.send_json({"type": "interrupt"})
    await expect(socket, "interrupted")
    assert time.monotonic() - started_s < 1
    await expect(socket, "ended")
    await socket.send_bytes(pcm(0.1))
    assert (await expect(socket, "started"))["utterance_id"] == 2
    await socket.send_json({"type": "end"})
    await expect(socket, "ended")
    assert len(server.session.streams[1].samples) == pytest.approx(4800, abs=60), "nothing of the first is left"
    await socket.close()


async def test_ends_are_answered_in_order_and_after_their_sound(server, session):
    socket = await connect(server, session)
    stream = await begin(socket, server)
    gate = asyncio.Event()
    slow_down(stream, gate)
    await socket.send_bytes(pcm(0.1))
    await socket.send_json({"type": "end"})
    await socket.send_bytes(pcm(0.1))
    await socket.send_json({"type": "end"})
    with pytest.raises(asyncio.TimeoutError):
        await socket.receive(timeout=0.1)
    gate.set()
    await expect(socket, "ended")
    assert (await expect(socket, "started"))["utterance_id"] == 2
    await expect(socket, "ended")
    await socket.close()


async def test_a_sender_far_too_fast_is_told_once_and_can_go_on(server, session, monkeypatch):
    monkeypatch.setattr(pcm_socket, "BACKLOG_S", 2.0)
    socket = await connect(server, session)
    stream = await begin(socket, server)
    gate = asyncio.Event()
    slow_down(stream, gate)
    for _ in range(8):
        await socket.send_bytes(pcm(0.5))
    assert (await expect(socket, "error"))["error"]["code"] == "pcm_overflow"
    await socket.send_json({"type": "end"})
    gate.set()
    await expect(socket, "ended")
    assert 2.0 <= len(stream.samples) / 48_000 < 2.8
    await socket.send_bytes(pcm(0.1))
    assert (await expect(socket, "started"))["utterance_id"] == 2
    await socket.close()


async def test_more_ends_than_may_wait_are_refused(server, session):
    socket = await connect(server, session)
    slow_down(await begin(socket, server), asyncio.Event())
    await socket.send_bytes(pcm(0.02))
    for _ in range(100):
        await socket.send_json({"type": "end"})
    await expect_refusal(socket, "pcm_overflow", 4429)
    await server.end()


async def test_what_a_sender_that_hung_up_had_sent_is_played_and_its_tasks_end(server, session):
    socket = await connect(server, session)
    stream = await begin(socket, server)
    gate = asyncio.Event()
    slow_down(stream, gate)
    for _ in range(10):
        await socket.send_bytes(pcm(0.1))
    await socket.close()
    assert not stream.ended
    gate.set()
    await eventually(lambda: stream.ended)
    assert len(stream.samples) == pytest.approx(1.02 * 48_000, abs=60)
    await eventually(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("pcm-socket")])


async def test_the_end_of_a_session_ends_what_still_waits(server, session):
    socket = await connect(server, session)
    slow_down(await begin(socket, server), asyncio.Event())
    await socket.send_bytes(pcm(1.0))
    await server.client.delete(f"/sessions/{session}")
    await expect_refusal(socket, "session_ended", 4404)
    await eventually(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("pcm-socket")])
