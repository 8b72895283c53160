"""Voices cloned from a recording by the servers of CosyVoice and GPT-SoVITS, against fakes over real HTTP."""

import asyncio
import io
import wave
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from engine.conversation.http import Timeouts
from engine.conversation.tts.cosyvoice import CosyVoice
from engine.conversation.tts.gpt_sovits import GptSovitsVoice
from engine.errors import BackendFailed, ConfigInvalid
from engine.registry import create_voice
from tests.conversation.cloning import GPT_SOVITS_RATE, FakeCosyVoice, FakeGptSovits, tone
from tests.conversation.misbehaving import Mood

PATIENCE = Timeouts(connect_s=2, first_byte_s=1.5, next_byte_s=0.5)


def recording(path: Path, seconds: float) -> str:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.resize(tone("a", 16_000), int(16_000 * seconds)).tobytes())
    return str(path)


@pytest.fixture
async def cosy():
    async with FakeCosyVoice() as fake:
        yield fake


@pytest.fixture
async def sovits():
    async with FakeGptSovits() as fake:
        yield fake


async def pieces_of(voice, text):
    async with aclosing(voice.speak(text)) as pieces:
        return [piece async for piece in pieces]


async def sound_of(voice, text):
    pieces = await pieces_of(voice, text)
    await voice.aclose()
    return np.concatenate([piece.samples for piece in pieces]), {piece.sample_rate for piece in pieces}


async def test_cosyvoice_speaks_with_a_speaker_of_its_model(cosy):
    samples, rates = await sound_of(CosyVoice(cosy.root, timeouts=PATIENCE), "Hello there.")
    assert rates == {24_000}
    np.testing.assert_array_equal(samples, tone("Hello there.", 24_000))
    assert dict(cosy.requests[0].form) == {"tts_text": "Hello there.", "spk_id": "英文女"}
    await sound_of(CosyVoice(cosy.root, name="中文男"), "Hi.")
    assert cosy.requests[1].form["spk_id"] == "中文男"


async def test_cosyvoice_speaks_like_a_recording(cosy, tmp_path):
    reference = recording(tmp_path / "me.wav", 4)
    voice = CosyVoice(cosy.root, reference=reference, reference_text="Once upon a time.", timeouts=PATIENCE)
    samples, _ = await sound_of(voice, "Hello there.")
    assert len(samples) == len(tone("Hello there.", 24_000))
    (asked,) = cosy.requests
    assert asked.endpoint == "/inference_zero_shot" and asked.form["prompt_text"] == "Once upon a time."
    with wave.open(io.BytesIO(asked.form["prompt_wav"])) as sent:
        assert sent.getnchannels() == 1 and sent.getsampwidth() == 2
        assert abs(sent.getnframes() / sent.getframerate() - 4) < 0.01


@pytest.mark.parametrize(
    ("options", "endpoint", "fields"),
    [
        ({}, "/inference_cross_lingual", {"tts_text": "Hi."}),
        ({"name": "speak softly"}, "/inference_instruct2", {"instruct_text": "speak softly<|endofprompt|>"}),
        (
            {"model": "Fun-CosyVoice3-0.5B"},
            "/inference_cross_lingual",
            {"tts_text": "You are a helpful assistant.<|endofprompt|>Hi."},
        ),
        (
            {"model": "Fun-CosyVoice3-0.5B", "reference_text": "So."},
            "/inference_zero_shot",
            {"tts_text": "Hi.", "prompt_text": "You are a helpful assistant.<|endofprompt|>So."},
        ),
        (
            {"model": "Fun-CosyVoice3-0.5B", "name": "speak softly"},
            "/inference_instruct2",
            {"instruct_text": "You are a helpful assistant. speak softly<|endofprompt|>"},
        ),
    ],
)
async def test_cosyvoice_is_asked_as_its_model_wants_it(cosy, tmp_path, options, endpoint, fields):
    voice = CosyVoice(cosy.root, reference=recording(tmp_path / "me.wav", 2), timeouts=PATIENCE, **options)
    await sound_of(voice, "Hi.")
    (asked,) = cosy.requests
    assert asked.endpoint == endpoint
    assert {name: asked.form[name] for name in fields} == fields


async def test_the_first_models_of_cosyvoice_have_their_own_rate():
    async with FakeCosyVoice(rate=22_050) as cosy:
        samples, rates = await sound_of(CosyVoice(cosy.root, model="CosyVoice-300M-SFT"), "Hello.")
    assert rates == {22_050}
    np.testing.assert_array_equal(samples, tone("Hello.", 22_050))


async def test_gpt_sovits_speaks_like_a_recording(sovits, tmp_path):
    reference = recording(tmp_path / "me.wav", 5)
    voice = GptSovitsVoice(sovits.root, reference=reference, reference_text="So.", rate_wpm=330, timeouts=PATIENCE)
    samples, rates = await sound_of(voice, "Hello there.")
    assert rates == {GPT_SOVITS_RATE}
    np.testing.assert_array_equal(samples, tone("Hello there.", GPT_SOVITS_RATE))
    asked = sovits.requests[0].json
    assert asked["ref_audio_path"] == reference and asked["prompt_text"] == "So."
    assert asked["text_lang"] == asked["prompt_lang"] == "auto" and asked["speed_factor"] == 2.0


async def test_gpt_sovits_may_run_on_another_machine_with_paths_of_its_own(sovits):
    voice = GptSovitsVoice(sovits.root, name="ja", reference="voices/aiko.wav")
    await sound_of(voice, "Hello.")
    assert sovits.requests[0].json["ref_audio_path"] == "voices/aiko.wav"
    assert sovits.requests[0].json["text_lang"] == "ja" and "speed_factor" not in sovits.requests[0].json


async def test_sound_is_handed_out_while_it_arrives(sovits):
    sovits.moods["/tts"] = [Mood(between_s=0.03)]
    voice = GptSovitsVoice(sovits.root, reference="a.wav")
    async with aclosing(voice.speak("A sentence of some length, and then some.")) as pieces:
        first = await anext(pieces)
    assert first.text and first.more and first.duration_ms < 400
    assert await sovits.wait_gone() < 0.5
    await voice.aclose()


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (Mood(status=401), "service_rejected_key"),
        (Mood(status=400), "service_failed"),
        (Mood(status=422), "service_failed"),
        (Mood(status=404), "service_failed"),
        (Mood(status=500), "service_failed"),
        (Mood(hang_up=True), "service_unreachable"),
        (Mood(first_byte_s=5), "service_timeout"),
        (Mood(stall_after=2), "service_timeout"),
        (Mood(die_after=2), "service_failed"),
        (Mood(body=b'{"message": "tts failed"}', content_type="application/json"), "service_garbled"),
        (Mood(body=b"<html></html>", content_type="text/html"), "service_garbled"),
        (Mood(body=b""), "service_garbled"),
        (Mood(raw=b"rubbish\r\n\r\n"), "service_garbled"),
    ],
)
@pytest.mark.parametrize("which", ["cosyvoice", "gpt-sovits"])
async def test_a_misbehaving_server_is_a_typed_error_and_the_voice_goes_on(cosy, sovits, which, mood, code):
    if which == "cosyvoice":
        fake, path, voice = cosy, "/inference_sft", CosyVoice(cosy.root, "sk-key", timeouts=PATIENCE)
    else:
        fake, path = sovits, "/tts"
        voice = GptSovitsVoice(sovits.root, "sk-key", reference="private/me.wav", timeouts=PATIENCE)
    fake.moods[path] = [mood] * 3 if code == "service_unreachable" or mood.status == 500 else [mood]
    fake.moods[path].append(Mood())
    with pytest.raises(BackendFailed) as caught:
        await pieces_of(voice, "A secret sentence.")
    assert caught.value.code == code
    for hidden in ("sk-key", "secret", "127.0.0.1", str(fake.port), "private"):
        assert hidden not in caught.value.message
    assert await pieces_of(voice, "Again.")
    await voice.aclose()


async def test_a_refusal_names_the_option_that_can_be_wrong(cosy, sovits):
    sovits.moods["/tts"] = [Mood(status=400)]
    with pytest.raises(BackendFailed, match="VISAVIS_VOICE_REFERENCE"):
        await sound_of(GptSovitsVoice(sovits.root, reference="a.wav"), "Hi.")
    cosy.moods["/inference_sft"] = [Mood(status=422)]
    with pytest.raises(BackendFailed, match="VISAVIS_VOICE_NAME"):
        await sound_of(CosyVoice(cosy.root), "Hi.")


async def test_leaving_early_closes_the_connection_at_once(cosy):
    cosy.moods["/inference_sft"] = [Mood(between_s=0.05, endless=True)]
    voice = CosyVoice(cosy.root, timeouts=PATIENCE)
    async with aclosing(voice.speak("An endless sentence.")) as pieces:
        await anext(pieces)
    assert await cosy.wait_gone() < 0.5
    cosy.moods["/inference_sft"] = [Mood(first_byte_s=30)]
    task = asyncio.create_task(pieces_of(voice, "Hello."))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await cosy.wait_gone() < 0.5
    await voice.aclose()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "1 to 30 seconds"), (31, "1 to 30 seconds"), (None, "cannot be used")]
)
def test_a_recording_that_cosyvoice_cannot_use_is_refused_at_the_start(tmp_path, seconds, words):
    path = tmp_path / "me.wav"
    reference = str(path) if seconds is None else recording(path, seconds)
    with pytest.raises(ConfigInvalid, match=words) as caught:
        CosyVoice("http://127.0.0.1:1", reference=reference)
    assert caught.value.code == "voice_reference_invalid"


@pytest.mark.parametrize("seconds", [2, 11])
def test_a_recording_that_gpt_sovits_cannot_use_is_refused_at_the_start(tmp_path, seconds):
    with pytest.raises(ConfigInvalid, match="3 to 10 seconds"):
        GptSovitsVoice("http://127.0.0.1:1", reference=recording(tmp_path / "me.wav", seconds))


def test_gpt_sovits_needs_a_recording():
    with pytest.raises(ConfigInvalid, match="VISAVIS_VOICE_REFERENCE"):
        GptSovitsVoice("http://127.0.0.1:1")


def test_the_words_of_no_recording_are_a_mistake():
    with pytest.raises(ConfigInvalid, match="voice_reference_text"):
        CosyVoice("http://127.0.0.1:1", reference_text="Once upon a time.")


async def test_the_options_reach_the_voices(cosy, sovits, tmp_path):
    reference = recording(tmp_path / "me.wav", 4)
    for name, url in (("cosyvoice", cosy.root), ("gpt-sovits", sovits.root)):
        voice = create_voice(
            name, url=url, model="", name="", rate_wpm=165, reference=reference, reference_text="So it was."
        )
        await sound_of(voice, "Hi.")
    assert cosy.requests[0].form["prompt_text"] == "So it was."
    assert sovits.requests[0].json["prompt_text"] == "So it was."
