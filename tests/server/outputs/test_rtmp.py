"""RTMP: what arrives is in time and complete, and a server that dies, stalls or refuses harms nobody."""

from __future__ import annotations

import asyncio
import ssl
import time
from types import SimpleNamespace

import numpy as np
import pytest
from aiortc import RTCCertificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.errors import BackendFailed
from engine.marking import SEI
from engine.types import FRAME_SAMPLES, PLAYOUT_RATE
from server.outputs import amf, flv
from server.outputs import rtmp as rtmp_module
from server.outputs.aac import BLOCK_SAMPLES, AacEncoder
from server.outputs.base import Output
from server.outputs.rtmp import RtmpDelivery
from server.outputs.rtmp_connection import Address, RtmpConnection
from server.rtp import pack
from tests.server.outputs.conftest import BITRATE
from tests.server.outputs.nginx import Nginx, is_installed
from tests.server.outputs.receiving import Watching
from tests.server.outputs.rtmp_receiver import AUDIO, DATA, VIDEO, RtmpReceiver
from tests.server.serving import eventually


def start(face, url: str) -> SimpleNamespace:
    states: list[str | None] = []
    output = Output("tube", RtmpDelivery(url, face.pool, BITRATE), face, states.append)
    return SimpleNamespace(output=output, states=states)


def test_values_of_commands_survive():
    values = ["publish", 5.0, None, True, {"level": "status", "deep": {"x": 1.0}}, "ä" * 70_000]
    assert amf.decode(amf.encode(*values)) == values
    assert amf.decode(b"\x08\0\0\0\1\0\1a\2\0\1b\0\0\x09\x0a\0\0\0\1\5") == [{"a": "b"}, [None]]


@pytest.mark.parametrize("data", [b"\x02\0\x05ab", b"\x00abc", b"\x03\0\1", b"\x7f", b"\x0a\xff\xff\xff\xff", b"\x03"])
def test_what_is_no_amf_is_refused(data):
    with pytest.raises(ValueError):
        amf.decode(data)


def test_nesting_without_end_is_refused():
    with pytest.raises(ValueError):
        amf.decode(b"\x0a\0\0\0\1" * 5000)


@pytest.mark.parametrize(
    ("url", "app", "key", "host", "port"),
    [
        ("rtmp://a.example/live2/abcd-1234", "live2", "abcd-1234", "a.example", 1935),
        ("rtmps://b.example/rtmp/K?s_bl=1&a=2", "rtmp", "K?s_bl=1&a=2", "b.example", 443),
        ("rtmp://c.example:99/app/instance/key", "app/instance", "key", "c.example", 99),
        ("rtmp://d.example/mystream?user=me&pass=a/b", "mystream?user=me&pass=a/b", "", "d.example", 1935),
    ],
)
def test_an_address_is_an_application_and_a_key(url, app, key, host, port):
    address = Address.parse(url)
    assert (address.app, address.key, address.host, address.port) == (app, key, host, port)
    assert key == "" or key.partition("?")[0] not in address.url


def test_nal_units_come_back_from_rtp_payloads():
    units = [b"\x67" + b"s" * 20, b"\x68pp", b"\x06mark", b"\x65" + bytes(range(1, 256)) * 20, b"\x41tail"]
    parcel = pack("H264", b"".join(b"\0\0\0\1" + unit for unit in units), True)
    assert flv.nal_units(parcel.payloads) == units
    header = flv.picture_header(units)
    assert header[:5] == b"\x17\0\0\0\0" and header.count(units[0]) == header.count(units[1]) == 1
    picture = flv.picture(units, True)
    assert picture[:5] == b"\x17\1\0\0\0" and units[3] in picture and units[0] not in picture
    assert flv.picture_header(units[3:]) is None and flv.picture(units[3:], False)[0] == 0x27


def test_sound_keeps_its_place_over_a_gap():
    encoder = AacEncoder()
    tone = np.full(FRAME_SAMPLES, 8000, np.int16)
    places = [packet.at for pts in (10, 11, 12, 40, 41, 42, 43) for packet in encoder.encode(tone, pts)]
    assert places[0] == 10 * FRAME_SAMPLES
    steps = np.diff(places)
    assert set(steps[steps != BLOCK_SAMPLES] % BLOCK_SAMPLES) == {0} and len(steps[steps != BLOCK_SAMPLES]) == 1
    # What follows the gap begins where its frame does, within the block it is in.
    assert any(0 <= 40 * FRAME_SAMPLES - at < BLOCK_SAMPLES for at in places)
    assert len(encoder.config) >= 2


@pytest.mark.alone
async def test_a_stream_has_headers_then_pictures_and_sound_by_one_clock_and_a_key_frame_every_two_seconds(face):
    async with RtmpReceiver() as server:
        running = start(face, server.url)
        await eventually(lambda: sum(message.data[:2] == b"\x17\1" for message in server.messages) > 2, 8)
        await running.output.aclose()
        await eventually(lambda: server.commands[-1][0] == "deleteStream")
    assert [values[0] for values in server.commands[:5]] == [
        "connect", "releaseStream", "FCPublish", "createStream", "publish"
    ]  # fmt: skip
    connect, publish = server.commands[0][2], server.commands[4]
    assert connect["app"] == "live" and "the-key" not in connect["tcUrl"] and publish[3] == "the-key?sign=1"
    assert server.pongs == [b"\0\7ping"] and {message.stream for message in server.messages} == {7}
    (about,) = (amf.decode(message.data) for message in server.messages if message.kind == DATA)
    assert about[2]["framerate"] == 25 and about[2]["width"] == 256 and "DigitalSourceType" in about[2]["comment"]
    pictures = [message for message in server.messages if message.kind == VIDEO]
    sounds = [message for message in server.messages if message.kind == AUDIO]
    assert pictures[0].data[:2] == b"\x17\0" and sounds[0].data[:2] == b"\xaf\0"
    assert pictures[1].data[:2] == b"\x17\1" and SEI[4:] in pictures[1].data
    steps = np.diff([message.time_ms for message in pictures[1:]])
    # A busy machine leaves pictures out; those that come are where they belong.
    assert np.median(steps) == 40 and set(steps % 40) == {0}
    assert set(np.diff([message.time_ms for message in sounds[1:]])) <= {21, 22}
    key_frames = [message.time_ms for message in pictures[1:] if message.data[:2] == b"\x17\1"]
    assert min(np.diff(key_frames)) <= 2000
    assert sounds[1].time_ms < 22 and pictures[1].time_ms == 21
    assert running.states == ["connecting", "live", None]


async def test_a_server_that_hangs_up_is_asked_again(face):
    async with RtmpReceiver() as server:
        running = start(face, server.url)
        await eventually(lambda: running.output.to_dict()["state"] == "live")
        server.hang_up()
        await eventually(lambda: running.output.to_dict()["state"] == "waiting")
        assert running.output.to_dict()["error"]["code"] == "publish_lost"
        await eventually(lambda: running.output.to_dict()["state"] == "live", 4)
        told = running.output.to_dict()
        assert told["reconnects"] == 1 and told["error"] is None and server.connections == 2
        await running.output.aclose()
    assert not face.fan.is_wanted and len(face.watchers) == 1


@pytest.mark.alone
async def test_a_server_that_takes_nothing_is_left_and_the_session_goes_on(face, monkeypatch):
    monkeypatch.setattr(rtmp_module, "STALL_S", 3.0)
    monkeypatch.setattr(rtmp_module, "BEHIND_S", 0.02)
    monkeypatch.setattr(rtmp_module, "SOCKET_BYTES", 1 << 12)
    async with RtmpReceiver() as server:
        delivery = RtmpDelivery(server.url, face.pool, BITRATE)
        frames: list[float] = []
        face.watchers.add(lambda frame: frames.append(time.monotonic()))
        ballast = asyncio.create_task(_fill(delivery))
        output = Output("tube", delivery, face, lambda state: None)
        await eventually(lambda: output.to_dict()["state"] == "live")
        server.reads.clear()
        await eventually(lambda: (output.to_dict()["error"] or {}).get("code") == "publish_stalled", 20)
        server.reads.set()
        ballast.cancel()
        await eventually(lambda: output.to_dict()["state"] == "live", 5)
        await output.aclose()
    assert max(np.diff(frames)) < 2.0, "less than the server was waited for"


async def _fill(delivery: RtmpDelivery) -> None:
    """Makes the stream bigger than a still face's, so that buffers are full sooner."""
    while True:
        if delivery._connection is not None and delivery._connection._stream:
            delivery._connection.send(DATA, 0, bytes(50_000))
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("turns", range(4))
async def test_a_farewell_that_is_cut_short_leaves_no_socket(monkeypatch, turns):
    monkeypatch.setattr("server.outputs.rtmp_connection.CLOSE_TIMEOUT_S", 3600.0)
    async with RtmpReceiver() as server:
        connection = await RtmpConnection.open(Address.parse(server.url))
        connection.limit(1 << 12)
        server.reads.clear()
        while connection.backlog < 1 << 20:
            connection.send(DATA, 0, bytes(1 << 16))
        sock = connection._writer.get_extra_info("socket")
        closing = asyncio.create_task(connection.aclose())
        # Wherever it is just then.
        for _ in range(turns + 1):
            await asyncio.sleep(0)
        assert not closing.done()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert connection.backlog == 0
        await eventually(lambda: sock.fileno() == -1)
        server.reads.set()


@pytest.mark.parametrize(
    ("receiver", "code"),
    [
        (RtmpReceiver(refuse="NetStream.Publish.BadName"), "publish_refused"),
        (RtmpReceiver(mute=True), "publish_timeout"),
    ],
)
async def test_a_refusal_says_why_and_never_where(face, receiver, code, monkeypatch, caplog):
    monkeypatch.setattr("server.outputs.rtmp_connection.OPEN_TIMEOUT_S", 0.5)
    async with receiver as server:
        running = start(face, server.url)
        await eventually(lambda: running.output.to_dict()["state"] == "waiting")
        told = running.output.to_dict()
        await running.output.aclose()
    assert told["error"]["code"] == code and "the-key" not in str(told) + caplog.text
    assert str(server.port) not in str(told) + caplog.text


@pytest.mark.parametrize(
    ("server", "why"), [("rtmp://127.0.0.1:9", "refused"), ("rtmp://nobody.invalid", "name is not known")]
)
async def test_nobody_there_is_told_without_an_address(server, why):
    with pytest.raises(BackendFailed) as refused:
        await RtmpConnection.open(Address.parse(f"{server}/live/the-key"))
    assert refused.value.code == "publish_unreachable" and why in refused.value.message
    assert "127" not in refused.value.message and "nobody" not in refused.value.message


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    certificate = RTCCertificate.generateCertificate()
    (tmp_path / "key.pem").write_bytes(
        certificate._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (tmp_path / "cert.pem").write_bytes(certificate._cert.public_bytes(Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BackendFailed) as refused:
            await RtmpConnection.open(Address.parse(f"rtmps://127.0.0.1:{port}/live/key"))
    assert "certificate" in refused.value.message


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x03", bytes(4000)])
async def test_what_speaks_no_rtmp_is_told_so(rubbish):
    def answer(_reader, writer):
        writer.write(rubbish)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BackendFailed) as refused:
            await RtmpConnection.open(Address.parse(f"rtmp://127.0.0.1:{port}/live/key"))
    assert refused.value.code in ("publish_refused", "publish_unreachable")


@pytest.mark.alone
@pytest.mark.skipif(not is_installed(), reason="nginx with libnginx-mod-rtmp is not installed")
async def test_a_viewer_of_nginx_sees_and_hears_at_the_same_time_and_survives_its_restart(face, tmp_path):
    with Nginx(tmp_path) as nginx:
        running = start(face, nginx.url("face"))
        await eventually(lambda: running.output.to_dict()["state"] == "live")
        viewer = Watching(nginx.url("face"), 4.0)
        await asyncio.to_thread(viewer.join, 15)
        seen = viewer.seen
        assert seen.error is None and abs(seen.fps - 25) < 0.1 and len(seen.pictures) > 50
        assert (seen.sample_rate, seen.channels) == (PLAYOUT_RATE, 2) and 0.3 < seen.loudest < 0.7
        assert len(seen.offsets_s) >= 3 and max(map(abs, seen.offsets_s)) <= 0.04
        assert SEI[4:] in seen.key_data
        nginx.stop()
        await eventually(lambda: running.output.to_dict()["state"] == "waiting")
        await asyncio.to_thread(nginx.start)
        await eventually(lambda: running.output.to_dict()["state"] == "live", 8)
        viewer = Watching(nginx.url("face"), 1.0)
        await asyncio.to_thread(viewer.join, 15)
        assert viewer.seen.error is None and len(viewer.seen.pictures) > 10
        await running.output.aclose()
