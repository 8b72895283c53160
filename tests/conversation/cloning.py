"""Fakes of the servers of CosyVoice and GPT-SoVITS, over real HTTP, with the moods of ``FakeService``.

    async with FakeCosyVoice() as fake:
        fake.moods["/inference_sft"] = [Mood(die_after=2)]
        ... CosyVoice(fake.root) ...

They take what the real servers take, and refuse what those refuse.
"""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiohttp import web

from tests.conversation.misbehaving import FakeService, Request

LETTER_MS = 60
GPT_SOVITS_RATE = 32_000


def tone(text: str, rate: int) -> np.ndarray:
    """A tone of 60 ms a letter, (n,) int16."""
    return (8000 * np.sin(2 * np.pi * 220 * np.arange(rate * LETTER_MS * len(text) // 1000) / rate)).astype(np.int16)


def blocks(samples: np.ndarray, size: int = 4000) -> list[bytes]:
    return [samples[at : at + size].astype("<i2").tobytes() for at in range(0, len(samples), size)]


class FakeCosyVoice(FakeService):
    """``runtime/python/fastapi/server.py``: forms in, bare samples without a content type out."""

    FIELDS: Mapping[str, set[str]] = {
        "/inference_sft": {"tts_text", "spk_id"},
        "/inference_zero_shot": {"tts_text", "prompt_text", "prompt_wav"},
        "/inference_cross_lingual": {"tts_text", "prompt_wav"},
        "/inference_instruct2": {"tts_text", "instruct_text", "prompt_wav"},
    }

    def __init__(self, rate: int = 24_000) -> None:
        super().__init__()
        self.rate = rate

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add_routes(self, app: web.Application) -> None:
        for path, fields in self.FIELDS.items():
            app.router.add_post(path, self.handler(path, lambda asked, fields=fields: self._speak(asked, fields)))

    def _speak(self, asked: Request, fields: set[str]) -> tuple[str, list[bytes]]:
        if set(asked.form) != fields:
            raise web.HTTPUnprocessableEntity(text='{"detail": "field required"}', content_type="application/json")
        if "prompt_wav" in fields:
            with wave.open(io.BytesIO(bytes(asked.form["prompt_wav"]))) as file:  # type: ignore[arg-type]
                assert file.getframerate() >= 16_000 and file.getnframes() <= 30 * file.getframerate()
        return "application/octet-stream", blocks(tone(str(asked.form["tts_text"]), self.rate))


class FakeGptSovits(FakeService):
    """``api_v2.py``: JSON in, the head of a WAV that does not know its length and then samples out."""

    LANGUAGES: Sequence[str] = ("auto", "en", "zh", "ja", "yue", "ko", "all_zh", "all_ja")

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/tts", self.handler("/tts", self._speak))

    def _speak(self, asked: Request) -> tuple[str, list[bytes]]:
        body: dict[str, Any] = asked.json
        if not body["ref_audio_path"] or body["text_lang"] not in self.LANGUAGES or not body["prompt_lang"]:
            raise web.HTTPBadRequest(text='{"message": "text_lang is not supported"}', content_type="application/json")
        assert body["media_type"] == "wav" and body["streaming_mode"] is True
        head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, GPT_SOVITS_RATE,
                           2 * GPT_SOVITS_RATE, 2, 16, b"data", 0)  # fmt: skip
        return "audio/wav", [head, *blocks(tone(body["text"], GPT_SOVITS_RATE))]
