import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engine.audio.decode import decode_audio
from engine.audio.pcm import Decimator, to_playout
from engine.conversation.asr import pocketsphinx as module
from engine.conversation.asr.base import Transcript
from engine.conversation.asr.pocketsphinx import PocketsphinxRecogniser, transcript_of
from engine.conversation.asr.sphinx import Hypothesis, Sphinx
from engine.conversation.tts.espeak import EspeakVoice
from engine.errors import BackendFailed, Cancelled, Closed, ConfigInvalid

RATE = 16_000


def analysis(playout: np.ndarray) -> np.ndarray:
    decimator = Decimator()
    return np.concatenate([decimator.push(playout), decimator.flush()])


def voice(data: Path) -> np.ndarray:
    return analysis(decode_audio(data / "speech" / "en_libri_quilter.wav", 20))


async def spoken(text: str) -> np.ndarray:
    """A synthetic voice: speech, but the model was made from people and hears other words, if any."""
    pieces = [to_playout(piece.samples, piece.sample_rate) async for piece in EspeakVoice("en-us").speak(text)]
    silence = np.zeros(4 * 4_800, np.int16)
    return analysis(np.concatenate([silence, *pieces, silence]))


async def hear(recogniser: PocketsphinxRecogniser, sound: np.ndarray, block: int = 512) -> Transcript:
    listening = recogniser.listen()
    for at in range(0, len(sound), block):
        listening.push(sound[at : at + block])
    return await listening.finish()


@pytest.fixture
async def recogniser():
    recogniser = PocketsphinxRecogniser()
    yield recogniser
    await recogniser.aclose()


async def test_a_real_voice_is_understood(recogniser, shared_data: Path):
    transcript = await hear(recogniser, voice(shared_data))
    assert "glad to welcome his gospel" in transcript.text
    assert transcript.final and transcript.language == "en" and transcript.confidence > 0.5


async def test_the_same_sound_gives_the_same_words_however_it_arrives(shared_data: Path):
    heard = set()
    for block in (160, 512, 100_000):
        recogniser = PocketsphinxRecogniser()
        heard.add((await hear(recogniser, voice(shared_data), block)).text)
        await recogniser.aclose()
    assert len(heard) == 1


async def test_words_are_told_before_the_end(recogniser, shared_data: Path):
    listening = recogniser.listen()
    assert await listening.partial() is None
    listening.push(voice(shared_data))
    for _ in range(500):
        if partial := await listening.partial():
            break
        await asyncio.sleep(0.02)
    assert partial is not None and partial.text and not partial.final
    assert (await listening.finish()).final


NOISES = {
    "nothing": np.zeros(0),
    "one sample": np.zeros(1),
    "digital silence": np.zeros(RATE),
    "quiet white noise": np.random.default_rng(1).normal(0, 0.01, 2 * RATE),
    "loud white noise": np.random.default_rng(2).normal(0, 0.2, 2 * RATE),
    "hum": 0.2 * np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE),
    "a tone": 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE),
}


@pytest.mark.parametrize("name", NOISES)
async def test_what_is_no_speech_has_no_words(recogniser, name: str):
    assert (await hear(recogniser, NOISES[name].astype(np.float32))).text == ""


@pytest.mark.may_block_loop  # the test itself decodes and loads
@pytest.mark.parametrize("name", ["music_brahms_strings.ogg", "whale_humpback.ogg", "gen_keyclicks_10s.wav"])
async def test_music_calls_and_clicks_have_no_words(recogniser, shared_data: Path, name: str):
    sound = analysis(decode_audio(shared_data / "speech" / "negatives" / name, 120))
    assert (await hear(recogniser, sound[: 8 * RATE])).text == ""


@pytest.mark.parametrize(
    ("hypothesis", "kept"),
    [
        (Hypothesis("yes please", -30.0, 0.9, 60), True),
        (Hypothesis("yes please", -30.0, None, 60), True),
        (Hypothesis("yes please", -30.0, 0.1, 60), False),
        (Hypothesis("yes please", -30.0, 0.9, 400), False),
        (Hypothesis("yes please", -1.0, 0.9, 60), False),
        (Hypothesis("", 0.0, 0.0, 0), False),
    ],
    ids=["sure", "partial", "doubtful", "drawn out", "a steady tone", "nothing"],
)
def test_only_words_that_sound_like_words_are_kept(hypothesis: Hypothesis, kept: bool):
    assert bool(transcript_of(hypothesis, final=True).text) == kept


async def test_turns_that_overlap_are_all_heard(recogniser):
    sound = await spoken("What time is it now?")
    first, second = recogniser.listen(), recogniser.listen()
    for at in range(0, len(sound), 512):
        second.push(sound[at : at + 512])
        first.push(sound[at : at + 512])
    transcripts = [await first.finish(), await second.finish()]
    assert all(transcript.final for transcript in transcripts)


async def test_giving_up_a_turn_ends_whoever_waits_and_leaves_the_next_turn_alone(recogniser):
    sound = await spoken("What time is it now?")
    listening = recogniser.listen()
    listening.push(np.tile(sound, 8))
    waiting = asyncio.create_task(listening.finish())
    await asyncio.sleep(0.05)
    listening.cancel()
    listening.cancel()
    with pytest.raises(Cancelled) as raised:
        await waiting
    assert raised.value.code == "asr_cancelled"
    listening.push(sound)
    assert (await hear(recogniser, sound)).final


async def test_cancelling_the_wait_for_the_words_gives_up_the_turn(recogniser):
    sound = await spoken("What time is it now?")
    listening = recogniser.listen()
    listening.push(np.tile(sound, 8))
    waiting = asyncio.create_task(listening.finish())
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    started_s = time.monotonic()
    assert (await hear(recogniser, sound)).final
    assert time.monotonic() - started_s < 10


async def test_closing_ends_the_thread_and_whoever_waits():
    recogniser = PocketsphinxRecogniser()
    listening = recogniser.listen()
    listening.push(np.tile(await spoken("What time is it now?"), 4))
    waiting = asyncio.create_task(listening.finish())
    await asyncio.sleep(0.05)
    await recogniser.aclose()
    await recogniser.aclose()
    with pytest.raises(Cancelled):
        await waiting
    with pytest.raises(Closed):
        recogniser.listen()
    for thread in threading.enumerate():
        if thread.name == "asr-pocketsphinx":
            thread.join(1)  # it is told to be over by its own last line
            assert not thread.is_alive()


async def test_closing_what_never_listened_is_nothing():
    await PocketsphinxRecogniser().aclose()


async def test_speech_beyond_the_longest_turn_is_left_out_and_logged(recogniser, monkeypatch, caplog):
    sound = await spoken("What time is it now?")
    monkeypatch.setattr(module, "MAX_TURN_S", len(sound) / RATE)
    listening = recogniser.listen()
    listening.push(sound)
    for _ in range(20):
        listening.push(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32))
    assert (await listening.finish()).final
    assert caplog.text.count("is not transcribed") == 1


async def test_a_failure_is_told_and_the_next_turn_works(recogniser, monkeypatch):
    sound = await spoken("What time is it now?")

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as broken:
        broken.setattr(Sphinx, "hear", fail)
        with pytest.raises(BackendFailed) as raised:
            await hear(recogniser, sound)
    assert raised.value.code == "asr_failed"
    assert (await hear(recogniser, sound)).final


@pytest.mark.may_block_loop  # the test itself decodes and loads
async def test_python_goes_on_while_the_library_decodes():
    sphinx = Sphinx()
    sound = (np.tile(await spoken("What time is it now?"), 3) * 32767).astype(np.int16)
    sphinx.begin()
    thread = threading.Thread(target=sphinx.hear, args=(sound,))
    thread.start()
    turns = 0
    while thread.is_alive():
        await asyncio.sleep(0.005)
        turns += 1
    sphinx.end()
    sphinx.close()
    assert turns >= 10


def test_another_language_than_english_is_refused_with_advice():
    with pytest.raises(ConfigInvalid) as raised:
        PocketsphinxRecogniser(language="de")
    assert raised.value.code == "asr_language" and "asr_url" in raised.value.message
    assert PocketsphinxRecogniser(language="en-GB")


def test_a_missing_package_gives_the_install_hint(monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda: False)
    with pytest.raises(BackendFailed, match="pip install pocketsphinx") as raised:
        PocketsphinxRecogniser()
    assert raised.value.code == "asr_missing"
