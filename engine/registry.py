"""The names of backends: the one place that knows which concrete model or voice a name means.

Place in the flow: option value -> registry -> LipSync or Voice.

Invariants:
    * a backend is imported when it is asked for, so nothing pays for what it does not use.
"""

from __future__ import annotations

from typing import Any

from engine.conversation.tts.base import Voice
from engine.errors import NotFound
from engine.lipsync.base import LipSync

LIPSYNC_NAMES = ("builtin",)
VOICE_NAMES = ("espeak",)


def create_lipsync(name: str, /, **options: Any) -> LipSync:
    """Loads a lip-sync model; takes up to seconds, so call it off the event loop.

    Args:
        name: one of ``LIPSYNC_NAMES``.
        options: what the backend's ``load`` takes.

    Raises:
        NotFound: ``lipsync_not_found``.
        BackendFailed: it cannot be loaded.
    """
    if name == "builtin":
        from engine.lipsync.builtin import BuiltinLipSync

        return BuiltinLipSync.load(**options)
    raise NotFound("lipsync_not_found", f"There is no lip-sync model {name!r}; there is {', '.join(LIPSYNC_NAMES)}.")


def create_voice(name: str, /, **options: Any) -> Voice:
    """Makes a voice.

    Args:
        name: one of ``VOICE_NAMES``.
        options: what the backend's constructor takes.

    Raises:
        NotFound: ``voice_not_found``.
        BackendFailed: it cannot be loaded.
    """
    if name == "espeak":
        from engine.conversation.tts.espeak import EspeakVoice

        return EspeakVoice(**options)
    raise NotFound("voice_not_found", f"There is no voice {name!r}; there is {', '.join(VOICE_NAMES)}.")
