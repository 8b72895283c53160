"""Voices of optional packages, with stand-ins for the packages' own classes."""

import asyncio
import sys
import threading
import types
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np
import pytest

from engine.conversation.tts.kokoro import load_kokoro
from engine.conversation.tts.local_voice import LocalVoice
from engine.conversation.tts.piper import load_piper
from engine.errors import BackendFailed, Closed, ConfigInvalid

RATE = 22_050


@dataclass
class Tones:
    """Two parts a sentence, 10 ms a letter each; fails at the word "bad", waits at "slow" until let go."""

    heard: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    def parts(self, sentence):
        self.threads.add(threading.current_thread().name)
        self.heard.append(sentence)
        try:
            if "bad" in sentence:
                raise RuntimeError("secret detail")
            for part in range(2):
                if "slow" in sentence and part:
                    self.let_go.wait(5)
                yield np.full(220 * len(sentence), 1000, np.int16), RATE
                yield np.zeros(0, np.int16), RATE
        finally:
            self.ended.append(sentence)


@pytest.fixture
async def tones():
    tones = Tones()
    yield tones
    tones.let_go.set()


@pytest.fixture
async def voice(tones):
    voice = LocalVoice("tones", tones)
    yield voice
    await voice.aclose()


async def pieces_of(voice, text):
    async with aclosing(voice.speak(text)) as pieces:
        return [piece async for piece in pieces]


async def test_a_sentence_comes_part_by_part_and_ends_with_its_pause(voice, tones):
    pieces = await pieces_of(voice, "Hello there. Bye. !!!")
    assert [(piece.text, piece.more) for piece in pieces] == [
        *[("Hello there.", True), ("", True), ("", False)],
        *[("Bye. !!!", True), ("", True), ("", False)],
    ]
    assert [piece.duration_ms > 0 for piece in pieces] == [True, True, True, True, True, False]
    assert all(piece.samples.dtype == np.int16 and piece.sample_rate == RATE for piece in pieces)
    assert len(tones.threads) == 1 and "MainThread" not in tones.threads


async def test_the_loop_runs_while_the_synthesiser_works(voice, tones):
    pieces = voice.speak("A slow one.")
    assert (await anext(pieces)).text == "A slow one."
    waiting = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    tones.let_go.set()
    assert (await waiting).more
    await pieces.aclose()


async def test_a_cancelled_sentence_is_dropped_and_the_next_one_is_spoken(voice, tones):
    task = asyncio.create_task(pieces_of(voice, "A slow one. Never."))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    tones.let_go.set()
    assert (await pieces_of(voice, "Next."))[0].text == "Next."
    assert tones.heard == ["A slow one.", "Next."] and tones.ended[0] == "A slow one."


async def test_a_failing_synthesiser_is_a_typed_error_and_the_voice_goes_on(voice):
    with pytest.raises(BackendFailed) as caught:
        await pieces_of(voice, "A bad one.")
    assert caught.value.code == "voice_failed" and "secret" not in caught.value.message
    assert await pieces_of(voice, "A good one.")


async def test_a_closed_voice_says_so(voice):
    await voice.aclose()
    with pytest.raises(Closed):
        await pieces_of(voice, "Hello.")


# Packages ---------------------------------------------------------------------------------------------------------


@dataclass
class FakePiper:
    speakers: dict
    asked: list = field(default_factory=list)

    @property
    def config(self):
        return types.SimpleNamespace(speaker_id_map=self.speakers, length_scale=1.2)

    def synthesize(self, text, config):
        self.asked.append((text, config))
        yield types.SimpleNamespace(audio_int16_array=np.full(RATE, 1000, np.int16), sample_rate=RATE)


@pytest.fixture
def piper(monkeypatch, tmp_path):
    """The package, a voice's path, and what was loaded."""
    (tmp_path / "anna.onnx").touch()
    (tmp_path / "anna.onnx.json").touch()
    fake = FakePiper({"anna": 0, "ben": 4})
    module = types.ModuleType("piper")
    module.PiperVoice = types.SimpleNamespace(load=lambda path: fake)
    module.SynthesisConfig = types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "piper", module)
    return module, str(tmp_path / "anna.onnx"), fake


async def test_piper_speaks_with_the_speaker_and_pace_asked_for(piper):
    _, path, fake = piper
    voice = load_piper(path, "ben", rate_wpm=330)
    pieces = await pieces_of(voice, "Hello.")
    await voice.aclose()
    assert sum(piece.duration_ms for piece in pieces) == 1000 and pieces[0].sample_rate == RATE
    ((text, config),) = fake.asked
    assert text == "Hello." and config.speaker_id == 4 and config.length_scale == pytest.approx(0.6)


def test_piper_names_what_is_missing(piper, monkeypatch):
    module, path, _ = piper
    for model in ("", f"{path}.gone"):
        with pytest.raises(ConfigInvalid, match="download_voices"):
            load_piper(model)
    with pytest.raises(ConfigInvalid, match="anna, ben"):
        load_piper(path, "carl")
    module.PiperVoice.load = lambda path: 1 / 0
    with pytest.raises(BackendFailed, match="cannot be loaded"):
        load_piper(path)
    monkeypatch.setitem(sys.modules, "piper", None)
    with pytest.raises(BackendFailed, match="pip install piper-tts"):
        load_piper(path)


class FakeKokoro:
    def __init__(self, model_path, voices_path):
        self.paths = (model_path, voices_path)
        self.asked = []

    def get_voices(self):
        return ["af_heart", "ff_siwis"]

    def create(self, text, *, voice, speed, lang):
        self.asked.append((text, voice, speed, lang))
        return np.full(12_000, 0.5, np.float32), 24_000


@pytest.fixture
def kokoro(monkeypatch, tmp_path):
    (tmp_path / "kokoro-v1.0.onnx").touch()
    (tmp_path / "voices-v1.0.bin").touch()
    made = []

    def make(*paths):
        made.append(FakeKokoro(*paths))
        return made[-1]

    module = types.ModuleType("kokoro_onnx")
    module.Kokoro = make
    monkeypatch.setitem(sys.modules, "kokoro_onnx", module)
    return tmp_path / "kokoro-v1.0.onnx", made


async def test_kokoro_speaks_the_language_of_its_voice(kokoro):
    path, made = kokoro
    voice = load_kokoro(str(path), "ff_siwis", rate_wpm=660)
    pieces = await pieces_of(voice, "Bonjour.")
    await voice.aclose()
    assert made[0].paths == (str(path), str(path.parent / "voices-v1.0.bin"))
    assert made[0].asked == [("Bonjour.", "ff_siwis", 2.0, "fr-fr")]
    assert pieces[0].duration_ms == 500 and pieces[0].sample_rate == 24_000 and pieces[0].samples[0] == 16_384


def test_kokoro_names_what_is_missing(kokoro, monkeypatch):
    path, _ = kokoro
    for model in ("", f"{path}.gone"):
        with pytest.raises(ConfigInvalid, match="kokoro-onnx"):
            load_kokoro(model)
    with pytest.raises(ConfigInvalid, match="af_heart, ff_siwis"):
        load_kokoro(str(path), "nobody")
    monkeypatch.setitem(sys.modules, "kokoro_onnx", None)
    with pytest.raises(BackendFailed, match="pip install kokoro-onnx"):
        load_kokoro(str(path))
