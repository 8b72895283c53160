"""The voice of Edge: with a stand-in for its package and, where that is installed, the package and a fake service."""

import asyncio
import importlib.util
import io
import json
import re
import sys
import types
from contextlib import aclosing

import aiohttp
import av
import numpy as np
import pytest
from aiohttp import web

from engine.conversation.tts import edge as module
from engine.conversation.tts.base import Word
from engine.conversation.tts.edge import EdgeVoice
from engine.errors import BackendFailed, Closed, ConfigInvalid
from engine.registry import create_voice

RATE = 24_000
WORD_MS, LEAD_MS, TAIL_MS = 300, 100, 800


def mp3(samples: np.ndarray) -> bytes:
    """(n,) int16 at 24 kHz."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as file:
        stream = file.add_stream("libmp3lame", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, stream.layout, RATE, frame_size=stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(stream.encode(part))
    return buffer.getvalue()


def spoken(text: str) -> tuple[bytes, list[dict]]:
    """What the service makes of a text: silence, a tone a word, silence; and where the words are."""
    words = re.findall(r"\w+", text)
    tone = 8000 * np.sin(2 * np.pi * 220 * np.arange(RATE * WORD_MS * len(words) // 1000) / RATE)
    sound = np.concatenate([np.zeros(RATE * LEAD_MS // 1000), tone, np.zeros(RATE * TAIL_MS // 1000)])
    told = [
        {"type": "WordBoundary", "offset": (LEAD_MS + WORD_MS * number) * 10_000, "duration": WORD_MS * 10_000,
         "text": word} for number, word in enumerate(words)
    ]  # fmt: skip
    return mp3(sound.astype(np.int16)), told


class StandIn:
    """The package: what it was asked, and how it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.failure: Exception | None = None
        self.hangs_after: int | None = None
        self.answer: tuple[bytes, list[dict]] | None = None
        self.ended = 0
        package = types.ModuleType("edge_tts")
        package.exceptions = types.SimpleNamespace(NoAudioReceived=type("NoAudioReceived", (Exception,), {}))
        package.Communicate = self.communicate
        self.package = package

    def communicate(self, text: str, **options) -> types.SimpleNamespace:
        if "Neural" not in options["voice"]:
            raise ValueError("Invalid voice")
        return types.SimpleNamespace(stream=lambda: self.stream(text, options))

    async def stream(self, text: str, options: dict):
        self.asked.append((text, options))
        try:
            if self.failure is not None:
                raise self.failure
            file, words = self.answer or spoken(text)
            parts = [*words, *({"type": "audio", "data": file[at : at + 700]} for at in range(0, len(file), 700))]
            for number, part in enumerate(parts):
                if number == self.hangs_after:
                    await asyncio.sleep(60)
                yield part
                await asyncio.sleep(0)
        finally:
            self.ended += 1


@pytest.fixture
def service(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "edge_tts", stand_in.package)
    return stand_in


async def pieces_of(voice, text):
    async with aclosing(voice.speak(text)) as pieces:
        return [piece async for piece in pieces]


async def test_a_sentence_is_a_piece_with_its_words_and_without_the_silence_around_it(service):
    first, last = await pieces_of(EdgeVoice(), "Hello my friend. Bye!")
    assert (first.text, last.text) == ("Hello my friend.", "Bye!")
    assert [word.text for word in first.words] == ["Hello", "my", "friend"]
    assert not first.more and first.sample_rate == 48_000
    # An encoder delays sound by up to some 50 ms, and smears silence at its edges.
    assert 900 <= first.duration_ms - 220 <= 900 + 150 and 300 <= last.duration_ms <= 450
    for piece in (first, last):
        starts = [word.start_ms for word in piece.words]
        assert starts == sorted(starts) and starts[0] < 60
        assert all(0 <= word.start_ms <= word.end_ms <= piece.duration_ms for word in piece.words)
        assert np.abs(piece.samples[: 48 * 150]).max() > 7000
    assert not first.samples[-48 * 200 :].any()
    assert [text for text, _ in service.asked] == ["Hello my friend.", "Bye!"]


async def test_words_that_reach_beyond_the_sound_are_cut_to_it(service):
    file, _ = spoken("One")
    service.answer = (file, [
        {"type": "WordBoundary", "offset": 0, "duration": 50 * 10_000, "text": "One"},
        {"type": "WordBoundary", "offset": 300 * 10_000, "duration": 9_000 * 10_000, "text": "more"},
        {"type": "SessionEnd"},
    ])  # fmt: skip
    (piece,) = await pieces_of(EdgeVoice(), "One")
    assert piece.words[0] == Word("One", 0, 0) or piece.words[0].end_ms <= 50
    assert piece.words[1].end_ms == piece.duration_ms


async def test_options_reach_the_package(service):
    voice = create_voice("edge", url="", key="", model="", name="de-DE-KatjaNeural", rate_wpm=198)
    await pieces_of(voice, "Hallo.")
    ((_, options),) = service.asked
    assert (options["voice"], options["rate"], options["boundary"]) == ("de-DE-KatjaNeural", "+20%", "WordBoundary")
    await pieces_of(EdgeVoice(), "Hi.")
    assert service.asked[1][1]["rate"] == "+0%"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (TimeoutError(), "service_timeout"),
        (OSError("no route to host 10.0.0.1"), "service_unreachable"),
        (aiohttp.ClientConnectorError(None, OSError(111, "refused")), "service_unreachable"),
        (RuntimeError("unexpected path"), "service_failed"),
        ("NoAudioReceived", "service_failed"),
    ],
)
async def test_a_failing_service_is_a_typed_error_and_the_voice_goes_on(service, failure, code):
    voice = EdgeVoice()
    service.failure = service.package.exceptions.NoAudioReceived("secret") if isinstance(failure, str) else failure
    with pytest.raises(BackendFailed) as caught:
        await pieces_of(voice, "A secret sentence.")
    assert caught.value.code == code
    assert "secret" not in caught.value.message and "10.0.0.1" not in caught.value.message
    service.failure = None
    assert await pieces_of(voice, "Again.")


@pytest.mark.parametrize("after", [0, 3])
async def test_a_service_that_stalls_is_given_up(service, monkeypatch, after):
    monkeypatch.setattr(module, "_FIRST_S", 0.1)
    monkeypatch.setattr(module, "_NEXT_S", 0.1)
    service.hangs_after = after
    with pytest.raises(BackendFailed) as caught:
        await pieces_of(EdgeVoice(), "Hello.")
    assert caught.value.code == "service_timeout" and service.ended == 1


@pytest.mark.parametrize("body", [b"", b"\xff\xf3rubbish" * 200, mp3(np.zeros(RATE, np.int16))])
async def test_what_is_no_sound_is_a_typed_error(service, body):
    service.answer = (body, [])
    with pytest.raises(BackendFailed) as caught:
        await pieces_of(EdgeVoice(), "Hello.")
    assert caught.value.code == "service_garbled"


async def test_cancelling_ends_the_request(service):
    service.hangs_after = 2
    task = asyncio.create_task(pieces_of(EdgeVoice(), "Hello."))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.ended == 1


async def test_what_nobody_reads_is_not_sent_and_nothing_is_said_once_closed(service):
    voice = EdgeVoice()
    assert await pieces_of(voice, "… !!!") == [] and service.asked == []
    await voice.aclose()
    await voice.aclose()
    with pytest.raises(Closed):
        await pieces_of(voice, "Hello.")


def test_a_name_that_is_none_is_refused_at_the_start(service):
    with pytest.raises(ConfigInvalid, match="list-voices"):
        EdgeVoice("emma")


def test_a_missing_package_gives_the_install_hint(monkeypatch):
    monkeypatch.setitem(sys.modules, "edge_tts", None)
    with pytest.raises(BackendFailed, match="pip install edge-tts") as caught:
        create_voice("edge", name="", rate_wpm=165)
    assert caught.value.code == "voice_unavailable"


async def read_aloud(request: web.Request) -> web.WebSocketResponse:
    """The service behind the package, as it answers one sentence."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.receive()
    ssml = (await socket.receive()).data.split("\r\n\r\n", 1)[1]
    text = re.sub(r"<[^>]+>", "", ssml)
    file, words = spoken(text)
    await socket.send_str("X-RequestId:1\r\nPath:turn.start\r\n\r\n{}")
    for word in words:
        data = {"Offset": word["offset"], "Duration": word["duration"], "text": {"Text": word["text"]}}
        body = json.dumps({"Metadata": [{"Type": "WordBoundary", "Data": data}]})
        await socket.send_str(f"X-RequestId:1\r\nPath:audio.metadata\r\n\r\n{body}")
    head = b"X-RequestId:1\r\nContent-Type:audio/mpeg\r\nPath:audio\r\n"
    for at in range(0, len(file), 700):
        await socket.send_bytes(len(head).to_bytes(2, "big") + head + file[at : at + 700])
    await socket.send_str("X-RequestId:1\r\nPath:turn.end\r\n\r\n{}")
    await socket.close()
    return socket


@pytest.mark.skipif(importlib.util.find_spec("edge_tts") is None, reason="edge-tts is not installed")
async def test_the_package_itself_speaks_through_a_service(monkeypatch):
    import edge_tts.communicate

    app = web.Application()
    app.router.add_get("/", read_aloud)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setattr(edge_tts.communicate, "WSS_URL", f"ws://127.0.0.1:{runner.addresses[0][1]}/?a=b")
    voice = EdgeVoice()
    pieces = await pieces_of(voice, "Hello my friend. Bye & thanks!")
    assert [piece.text for piece in pieces] == ["Hello my friend.", "Bye & thanks!"]
    assert [word.text for word in pieces[0].words] == ["Hello", "my", "friend"]
    assert 900 <= pieces[0].duration_ms - 220 <= 1050
    await runner.cleanup()
    with pytest.raises(BackendFailed) as caught:
        await pieces_of(voice, "Hello.")
    assert caught.value.code == "service_unreachable"
