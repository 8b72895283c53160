"""A short recording of the voice that a cloning service is to speak with.

Place in the flow: option ``voice_reference`` -> checked length -> the service, as a path or as a WAV file.

Invariant: it is decoded here before anything is asked for, so a wrong file is an error at the start.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np

from engine.audio.decode import decode_audio
from engine.errors import AudioInvalid, ConfigInvalid
from engine.types import PLAYOUT_RATE


def read_reference(path: Path, least_s: float, most_s: float) -> np.ndarray:
    """The sound of a reference.

    Args:
        path: a sound file.
        least_s: shortest sound that the service takes, seconds.
        most_s: longest.

    Returns:
        (n,) int16 mono at 48 kHz.

    Raises:
        ConfigInvalid: ``voice_reference_invalid``.
    """
    try:
        sound = decode_audio(path, most_s)
    except AudioInvalid as error:
        raise ConfigInvalid(
            "voice_reference_invalid",
            f"voice_reference (VISAVIS_VOICE_REFERENCE) cannot be used: {error.message} It has to be a recording of "
            f"one person, {least_s:g} to {most_s:g} seconds long.",
        ) from error
    if len(sound) < least_s * PLAYOUT_RATE:
        raise ConfigInvalid(
            "voice_reference_invalid",
            f"voice_reference (VISAVIS_VOICE_REFERENCE) is only {len(sound) / PLAYOUT_RATE:.1f} s long. It has to be a "
            f"recording of one person, {least_s:g} to {most_s:g} seconds long.",
        )
    return sound


def as_wav(sound: np.ndarray) -> bytes:
    """(n,) int16 at 48 kHz -> a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(PLAYOUT_RATE)
        out.writeframes(sound.astype("<i2").tobytes())
    return file.getvalue()
