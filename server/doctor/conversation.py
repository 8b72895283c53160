"""Looks at everything a conversation needs by using it once: a spoken word, heard again, and a short answer.

Place in the flow: ``examine`` -> findings of the group ``conversation``.

What is configured is really asked, because only an answer proves that a service is there, takes the key and knows the
model; that is one word of speech, one second of recognition and a few tokens.

Invariants:
    * neither a key nor the address of a configured service is in a finding;
    * a service that says nothing is given up after its own time-outs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace

import numpy as np

from engine.audio.pcm import resample, to_mono_float
from engine.config import Config
from engine.conversation.discover import discover
from engine.conversation.http import Service, Timeouts
from engine.conversation.llm.base import Message
from engine.conversation.service_models import model_names
from engine.conversation.tts.base import Voice
from engine.errors import BackendFailed, VisavisError
from engine.registry import REALTIME, create_language_model, create_realtime, create_recogniser, create_vad
from engine.types import ANALYSIS_RATE
from server.character import Character, character_of
from server.doctor.face import Cast
from server.doctor.report import Finding
from server.voices import Voices

_GROUP = "conversation"
_SPOKEN = "Hello."
_ASKED = "Reply with the single word: yes"
_LISTING_S = 5.0
_SHOWN_MODELS = 5
_SILENCE_S = 0.3


async def examine(config: Config, found: Cast) -> AsyncIterator[Finding]:
    """All checks of this group. Args: config: options; found: the avatars."""
    character = None
    if found.default:
        card = found.library.cards[found.default]
        character = character_of(card.persona, card.title, config)
    said, sound = await voice(config, character)
    yield said
    yield await hearing()
    yield await recogniser(config, sound)
    yield await language_model(config)
    if config.llm == "host":
        async for offer in offers(config):
            yield offer


async def voice(config: Config, character: Character | None) -> tuple[Finding, np.ndarray]:
    """Has one word spoken by the default avatar's voice.

    Args:
        config: options.
        character: of the default avatar, if there is one.

    Returns:
        What was found, and the sound: (n,) float32 at 16 kHz; empty when there is none.
    """
    nothing = np.zeros(0, np.float32)
    if character is None:
        change = "See what is said of avatars above."
        return Finding("voice", _GROUP, "warning", "No voice was tried, for want of an avatar.", change), nothing

    async def on_thread(work: Callable[[], Voice]) -> Voice:
        return await asyncio.to_thread(work)

    voices = Voices(config, on_thread)
    try:
        speaker = await voices.get(character.voice, ())
        started_s = time.monotonic()
        first_ms, pieces = 0, []
        async for piece in speaker.speak(_SPOKEN):
            if piece.samples.size:
                first_ms = first_ms or max(1, round(1000 * (time.monotonic() - started_s)))
                pieces.append(resample(to_mono_float(piece.samples), piece.sample_rate, ANALYSIS_RATE))
    except VisavisError as error:
        failed = _failed("voice", "voice", error)
        return replace(failed, change=failed.change or "Without --voice the built-in espeak speaks."), nothing
    finally:
        await voices.aclose()
    sound = np.concatenate([nothing, *pieces])
    if not sound.size:
        change = "Choose another --voice-name, or another --voice."
        return Finding("voice", _GROUP, "problem", f"The voice {config.voice} makes no sound.", change), nothing
    told = f"The voice {config.voice} speaks; its first sound took {first_ms} ms."
    return Finding("voice", _GROUP, "ok", told, "", {"first_sound_ms": first_ms}), sound


async def hearing() -> Finding:
    """Whether there is what tells speech from everything else."""
    try:
        await asyncio.to_thread(create_vad)
    except BackendFailed as error:
        # Typed text is still answered.
        return Finding("vad", _GROUP, "warning", error.message, "Until then the avatar does not hear what people say.")
    return Finding("vad", _GROUP, "ok", "The network that hears whether somebody speaks loads.")


async def recogniser(config: Config, sound: np.ndarray) -> Finding:
    """Has the spoken word recognised. Args: config: options; sound: as ``voice`` returns it."""
    if config.asr == "none":
        told = "Speech recognition is switched off: only typed text is answered."
        return Finding("recogniser", _GROUP, "note", told, "Choose one with --asr where people are to speak.")
    if config.llm == REALTIME:
        return Finding("recogniser", _GROUP, "ok", "The realtime service hears by itself.")
    try:
        ear = await asyncio.to_thread(
            lambda: create_recogniser(
                config.asr, url=config.asr_url, key=config.asr_key, model=config.asr_model, language=config.language
            )
        )
    except VisavisError as error:
        return _failed("recogniser", "asr", error)
    assert ear is not None, "only none is None"
    silence = np.zeros(round(_SILENCE_S * ANALYSIS_RATE), np.float32)
    started_s = time.monotonic()
    try:
        listening = ear.listen()
        listening.push(np.concatenate([silence, sound, silence]))
        heard = await listening.finish()
    except VisavisError as error:
        return _failed("recogniser", "asr", error)
    finally:
        await ear.aclose()
    took_ms = round(1000 * (time.monotonic() - started_s))
    words = f"made {heard.text.strip()!r} of a spoken {_SPOKEN!r}" if heard.text.strip() else "works"
    told = f"The recogniser {config.asr} {words} in {took_ms} ms."
    return Finding("recogniser", _GROUP, "ok", told, "", {"recognition_ms": took_ms})


async def language_model(config: Config) -> Finding:
    """Asks what answers in conversations for one word. Args: config: options."""
    question = [Message("user", _ASKED)]
    started_s = time.monotonic()
    try:
        if config.llm == REALTIME:
            await _ask_realtime(config, question)
        else:
            model = create_language_model(
                config.llm, url=config.llm_url, key=config.llm_key, model=config.llm_model, language=config.language
            )
            try:
                async with aclosing(model.reply(question)) as reply:
                    await anext(reply, "")
            finally:
                await model.aclose()
    except VisavisError as error:
        return await _with_models(_failed("language_model", "llm", error), error, config)
    took_ms = round(1000 * (time.monotonic() - started_s))
    if config.llm == "host":
        told = "A small built-in script answers."
        change = "For a real conversation: --llm openai --llm-url URL --llm-model NAME, for a service or Ollama here."
        return Finding("language_model", _GROUP, "note", told, change)
    name = "The language model" if config.llm != REALTIME else "The realtime service"
    told = f"{name} {config.llm_model}".rstrip() + f" answers; its first words took {took_ms} ms."
    return Finding("language_model", _GROUP, "ok", told, "", {"first_words_ms": took_ms})


async def _ask_realtime(config: Config, question: list[Message]) -> None:
    service = create_realtime(
        config.llm_url, key=config.llm_key, model=config.llm_model, transcriber=config.asr_model
    )
    conversation = service.converse("Answer with one word.", voice=config.llm_voice, language=config.language)
    try:
        async with aclosing(conversation.answer(question)) as parts:
            await anext(parts, None)
    finally:
        await conversation.aclose()
        await service.aclose()


async def offers(config: Config) -> AsyncIterator[Finding]:
    """Language models that run on this machine already. Args: config: options."""
    for server in await discover(own_port=config.port):
        models = ", ".join(server.models[:_SHOWN_MODELS]) or "no model yet"
        told = f"A server like {server.name} runs on this machine, with {models}."
        change = "" if not server.models else (
            f"To converse through it: --llm openai --llm-url {server.url} --llm-model {server.models[0]}"
        )
        yield Finding("found_models", _GROUP, "note", told, change)


def _failed(check: str, option: str, error: VisavisError) -> Finding:
    """What a provider says went wrong, and apart from that what it says to look at."""
    said, look_at, option_text = error.message.partition(" Check that ")
    change = f"{look_at.strip()} {option_text}" if look_at else _NEXT_STEPS.get(error.code, "").format(option=option)
    return Finding(check, _GROUP, "problem", said, change)


_NEXT_STEPS = {
    "service_timeout": "See whether it is overloaded, or --{option}-url is another machine's that a firewall hides.",
    "service_rate_limited": "Wait, or use a key of an account with more.",
    "service_failed": "Its own log says why; --{option}-model must be one it has.",
}


async def _with_models(finding: Finding, error: VisavisError, config: Config) -> Finding:
    """Adds which language models a service has, when it seems to lack the one that it was asked for."""
    if error.code not in ("service_failed", "model_not_chosen") or config.llm == REALTIME:
        return finding
    names: list[str] = []
    with suppress(VisavisError):
        limits = Timeouts(_LISTING_S, _LISTING_S, _LISTING_S)
        service = Service("language model", "llm", config.llm_url, config.llm_key, limits, attempts=1)
        try:
            names = await model_names(service)
        finally:
            await service.aclose()
    if not names or config.llm_model in names:
        return finding
    more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
    return replace(finding, change=f"It has {', '.join(names[:_SHOWN_MODELS])}{more}: --llm-model {names[0]}")
