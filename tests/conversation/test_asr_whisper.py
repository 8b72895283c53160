"""The recogniser of an optional package: its thread with a stand-in for the network, and the network where it is."""

import asyncio
import importlib.util
import os
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

from engine.audio.decode import decode_audio
from engine.audio.pcm import Decimator
from engine.conversation.asr import whisper as module
from engine.conversation.asr import whisper_network
from engine.conversation.asr.base import Transcript
from engine.conversation.asr.whisper import WhisperRecogniser
from engine.conversation.asr.whisper_network import Guess, WhisperNetwork, find_network
from engine.errors import BackendFailed, Cancelled, Closed, ConfigInvalid
from engine.registry import create_recogniser

RATE = 16_000


def voice(seconds: float) -> np.ndarray:
    """Something as loud as speech, (n,) float32."""
    return np.resize(np.repeat(np.array([0.3, -0.3], np.float32), 40), round(seconds * RATE))


def pause(seconds: float) -> np.ndarray:
    return np.full(round(seconds * RATE), 1e-4, np.float32)


class Network:
    """Hears "N tenths", the length of loud sound; records what it was given."""

    def __init__(self) -> None:
        self.loaded = 0
        self.heard_s: list[float] = []
        self.languages: list[str] = []
        self.thorough: list[bool] = []
        self.stop = ""
        self.threads: set[str] = set()
        self.cost_s = 0.0
        self.failure: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    def load(self, folder: Path) -> "Network":
        self.loaded += 1
        return self

    def check_language(self, language: str) -> None:
        if language == "xx":
            raise BackendFailed("asr_language", "unknown")

    def guess(self, sound: np.ndarray, language: str, *, thorough: bool) -> Guess:
        self.thorough.append(thorough)
        self.threads.add(threading.current_thread().name)
        self.heard_s.append(len(sound) / RATE)
        self.languages.append(language)
        assert self.go.wait(5)
        time.sleep(self.cost_s)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        tenths = round(10 * np.count_nonzero(np.abs(sound) > 0.01) / RATE)
        return Guess(f"{tenths} tenths{self.stop}" if tenths else "", -0.1, 2 if tenths else 0, language or "de")


@pytest.fixture
def network(monkeypatch):
    network = Network()
    monkeypatch.setattr(module, "WhisperNetwork", network.load)
    monkeypatch.setattr(module, "find_network", lambda model: Path(f"/{id(network)}/{model}"))
    yield network
    network.go.set()


@pytest.fixture
async def recogniser(network):
    recogniser = WhisperRecogniser("small", "en-GB")
    yield recogniser
    await recogniser.aclose()


async def until(condition, timeout_s: float = 2.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # the condition is set on another thread
            await asyncio.sleep(0.005)


async def hear(recogniser: WhisperRecogniser, *sounds: np.ndarray) -> Transcript:
    listening = recogniser.listen()
    for sound in sounds:
        listening.push(sound)
    return await listening.finish()


async def test_a_turn_has_its_words_language_and_confidence(recogniser, network):
    assert await hear(recogniser, voice(1.0)) == Transcript("10 tenths", True, "en", 0.9)
    assert network.languages == ["en"] and network.threads == {"asr-whisper"}


async def test_nothing_is_loaded_before_somebody_speaks_and_once_for_all_sessions(recogniser, network):
    await asyncio.sleep(0.05)
    assert network.loaded == 0
    listening = recogniser.listen()
    await until(lambda: network.loaded == 1)
    assert network.heard_s == []  # loaded ahead of the first words
    other = WhisperRecogniser("small")
    await hear(other, voice(1))
    listening.push(voice(1))
    await listening.finish()
    await other.aclose()
    assert network.loaded == 1


async def test_partial_words_come_while_one_speaks_and_not_more_often_than_allowed(recogniser, network):
    listening, told = recogniser.listen(), set()
    assert await listening.partial() is None
    for _ in range(40):
        listening.push(voice(0.1))
        await asyncio.sleep(0.005)
        if partial := await listening.partial():
            assert not partial.final
            told.add(partial.text)
    assert len(told) >= 3
    assert 4 <= len(network.heard_s) <= 4.0 / module.PARTIAL_S
    assert (await listening.finish()).text == "40 tenths"


@pytest.mark.alone
async def test_a_slow_network_decodes_a_turn_less_often(recogniser, network):
    network.cost_s = 0.1
    listening = recogniser.listen()
    for _ in range(60):
        listening.push(voice(0.05))
        await asyncio.sleep(0.05)
    busy_s = network.cost_s * len(network.heard_s)
    assert 3 <= len(network.heard_s) and busy_s < 0.4 * 3.0
    await listening.finish()


async def test_only_a_pause_ends_a_sentence_before_the_turn_ends(recogniser, network):
    network.stop = "."
    listening = recogniser.listen()
    listening.push(voice(1.0))
    await until(lambda: network.heard_s == [1.0])
    await asyncio.sleep(0.05)
    assert (await listening.partial()).text == "10 tenths" and network.thorough == [False]
    listening.push(pause(0.25))
    await until(lambda: network.heard_s == [1.0, 1.25])
    await asyncio.sleep(0.05)
    assert (await listening.partial()).text == "10 tenths." and network.thorough == [False, True]
    assert (await listening.finish()).text == "10 tenths."


@pytest.mark.alone
async def test_words_heard_in_the_pause_are_the_final_ones(recogniser, network):
    listening = recogniser.listen()
    listening.push(voice(1.0))
    await until(lambda: network.heard_s == [1.0])
    listening.push(pause(0.25))
    await until(lambda: network.heard_s == [1.0, 1.25])
    listening.push(pause(0.4))
    await asyncio.sleep(0.05)
    started_s = time.monotonic()
    network.go.clear()  # another decoding would never end
    assert (await listening.finish()).text == "10 tenths"
    assert time.monotonic() - started_s < 0.2


async def test_what_is_said_after_a_pause_is_not_missed(recogniser, network):
    listening = recogniser.listen()
    listening.push(voice(1.0))
    listening.push(pause(0.3))
    await until(lambda: network.heard_s and network.heard_s[-1] == pytest.approx(1.3))
    listening.push(voice(0.2))
    assert (await listening.finish()).text == "12 tenths"


async def test_a_pause_is_heard_in_noise_too(recogniser, network):
    noise = np.random.default_rng(0).normal(0, 0.03, 2 * RATE).astype(np.float32)
    listening = recogniser.listen()
    for at in range(0, 2 * RATE, 512):
        listening.push(noise[at : at + 512] + (voice(1)[at : at + 512] if at + 512 < RATE else 0))
        await asyncio.sleep(0.002)
    await until(lambda: network.heard_s and network.heard_s[-1] >= 1.2)
    network.go.clear()  # another decoding would never end
    assert (await asyncio.wait_for(listening.finish(), 1)).final


async def test_what_was_said_before_a_pause_is_not_decoded_again(recogniser, network):
    listening = recogniser.listen()
    listening.push(voice(10))
    listening.push(pause(0.3))
    await until(lambda: network.heard_s and network.heard_s[-1] == pytest.approx(10.3))
    before = len(network.heard_s)
    listening.push(voice(2))
    assert (await listening.finish()).text == "100 tenths 20 tenths"
    assert max(network.heard_s[before:]) == pytest.approx(2.0)


async def test_a_long_turn_is_cut_in_a_pause_and_decoded_once(recogniser, network):
    sounds = [voice(20), pause(0.4), voice(20), pause(0.4), voice(10)]
    transcript = await hear(recogniser, np.concatenate(sounds))
    assert transcript.text == "200 tenths 200 tenths 100 tenths"
    assert max(network.heard_s) <= whisper_network.MAX_WINDOW_S
    assert network.heard_s[-3:] == [pytest.approx(20.2, abs=0.15), pytest.approx(20.4, abs=0.15),
                                    pytest.approx(10.2, abs=0.15)]  # fmt: skip


@pytest.mark.parametrize("sound", [np.zeros(0, np.float32), voice(0.05), pause(3), np.zeros(RATE, np.float32)])
async def test_what_is_too_short_or_too_quiet_is_no_words(recogniser, network, sound):
    assert (await hear(recogniser, sound)).text == ""
    assert network.heard_s == []


async def test_the_end_of_a_turn_goes_before_partial_words_of_others(recogniser, network):
    first, second, third = (recogniser.listen() for _ in range(3))
    await until(lambda: network.loaded)
    network.go.clear()
    first.push(voice(1))
    await until(lambda: network.heard_s == [1.0])
    second.push(voice(2))
    third.push(voice(3))
    ended = asyncio.create_task(third.finish())
    await asyncio.sleep(0.02)
    network.go.set()
    assert (await ended).text == "30 tenths"
    assert network.heard_s[:2] == [1.0, 3.0]
    assert (await first.finish()).text == "10 tenths" and (await second.finish()).text == "20 tenths"


async def test_giving_up_a_turn_ends_whoever_waits_and_leaves_the_next_turn_alone(recogniser, network):
    network.go.clear()
    listening = recogniser.listen()
    listening.push(voice(1))
    ended = asyncio.create_task(listening.finish())
    await until(lambda: network.heard_s == [1.0])
    listening.cancel()
    with pytest.raises(Cancelled):
        await ended
    network.go.set()
    assert (await hear(recogniser, voice(2))).text == "20 tenths"


async def test_cancelling_the_wait_for_the_words_gives_up_the_turn(recogniser, network):
    network.go.clear()
    listening = recogniser.listen()
    listening.push(voice(1))
    ended = asyncio.create_task(listening.finish())
    await until(lambda: network.heard_s == [1.0])
    ended.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended
    assert listening.over


async def test_closing_cancels_every_turn_and_waits_for_the_network(network):
    recogniser = WhisperRecogniser()
    network.go.clear()
    listening = recogniser.listen()
    listening.push(voice(1))
    ended = asyncio.create_task(listening.finish())
    await until(lambda: network.heard_s == [1.0])
    closing = asyncio.create_task(recogniser.aclose())
    with pytest.raises(Cancelled):
        await ended
    assert not closing.done()
    network.go.set()
    await closing
    await recogniser.aclose()
    with pytest.raises(Closed):
        recogniser.listen()


async def test_a_failure_is_told_and_the_next_turn_works(recogniser, network):
    network.failure = RuntimeError("secret detail")
    listening = recogniser.listen()
    listening.push(voice(1))
    await until(lambda: listening.over)
    with pytest.raises(BackendFailed, match="the log says") as caught:
        await listening.partial()
    assert caught.value.code == "asr_failed" and "secret" not in caught.value.message
    with pytest.raises(BackendFailed):
        await listening.finish()
    assert (await hear(recogniser, voice(1))).text == "10 tenths"


async def test_a_language_the_network_does_not_know_is_told(network):
    recogniser = WhisperRecogniser(language="xx")
    with pytest.raises(BackendFailed) as caught:
        await hear(recogniser, voice(1))
    assert caught.value.code == "asr_language"
    await recogniser.aclose()


async def test_after_minutes_of_quiet_the_network_is_freed_and_loaded_again(recogniser, network, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_S", 0.05)
    before = set(threading.enumerate())
    await hear(recogniser, voice(1))
    await until(lambda: not any(thread.name == "asr-whisper" for thread in set(threading.enumerate()) - before))
    assert (await hear(recogniser, voice(1))).text == "10 tenths"
    assert network.loaded == 2


async def test_speech_beyond_the_longest_turn_is_left_out_and_logged(recogniser, network, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_TURN_S", 2.0)
    listening = recogniser.listen()
    for _ in range(5):
        listening.push(voice(0.7))
    assert (await listening.finish()).text == "20 tenths"
    assert "longer than 2 s" in caplog.text


def package(monkeypatch, downloaded: dict[str, Path]) -> None:
    """A stand-in for faster-whisper's look-up."""

    def download_model(name, local_files_only):
        assert local_files_only
        if name not in downloaded:
            raise FileNotFoundError(name)
        return str(downloaded[name])

    stand_in = types.ModuleType("faster_whisper")
    stand_in.available_models = lambda: ["tiny", "base"]
    stand_in.download_model = download_model
    stand_in.__spec__ = importlib.util.spec_from_loader("faster_whisper", None)
    monkeypatch.setitem(sys.modules, "faster_whisper", stand_in)


def network_folder(folder: Path, *missing: str) -> Path:
    folder.mkdir()
    for name in {"model.bin", "config.json", "tokenizer.json"} - set(missing):
        (folder / name).write_bytes(b"")
    return folder


def test_a_missing_package_gives_the_install_hint(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendFailed, match="pip install faster-whisper") as caught:
        create_recogniser("whisper")
    assert caught.value.code == "asr_missing"


def test_a_network_is_found_by_folder_or_by_name_and_never_downloaded(monkeypatch, tmp_path):
    base = network_folder(tmp_path / "base")
    package(monkeypatch, {"base": base})
    assert find_network("") == find_network("base") == find_network(str(base)) == base
    with pytest.raises(ConfigInvalid, match=r"download_model\('tiny'\)"):
        find_network("tiny")
    with pytest.raises(ConfigInvalid, match="tiny, base"):
        find_network("/nowhere")


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json"])
def test_an_incomplete_network_is_refused(monkeypatch, tmp_path, missing):
    folder = network_folder(tmp_path / "half", missing)
    package(monkeypatch, {"base": folder})
    with pytest.raises(ConfigInvalid, match=missing):
        find_network(str(folder))
    with pytest.raises(ConfigInvalid, match="only in part"):
        find_network("base")


@pytest.fixture(scope="session")
def real_network() -> str:
    """A network that is on this machine: the one of ``VISAVIS_ASR_MODEL``, or the usual one."""
    model = os.environ.get("VISAVIS_ASR_MODEL", "")
    try:
        find_network(model)
    except (BackendFailed, ConfigInvalid) as error:
        pytest.skip(error.message)
    return model


def recorded(data: Path, name: str) -> np.ndarray:
    decimator = Decimator()
    return np.concatenate([decimator.push(decode_audio(data / "speech" / name, 60)), decimator.flush()])


async def test_a_real_network_understands_real_voices(real_network, shared_data: Path):
    recogniser = WhisperRecogniser(real_network)
    transcript = await hear(recogniser, recorded(shared_data, "en_libri_quilter.wav"))
    assert "glad to welcome his gospel" in transcript.text and transcript.confidence > 0.6
    noise = np.random.default_rng(1).normal(0, 0.05, 3 * RATE).astype(np.float32)
    assert (await hear(recogniser, noise)).text == ""
    await recogniser.aclose()


def test_a_real_network_finds_out_the_language(real_network, shared_data: Path):
    network = WhisperNetwork(find_network(real_network))
    guess = network.guess(recorded(shared_data, "de_picovoice.wav"), "", thorough=True)
    assert guess.language == "de" and "Portal" in guess.text
    with pytest.raises(BackendFailed, match="languages, not 'xx'"):
        network.check_language("xx")
