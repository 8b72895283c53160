"""Gathers material: faces of the avatars, and windows of real speech.

Place in the flow: avatars + the configured voice -> ``Material``.

Invariants:
    * the same avatars and count give the same faces; a voice may read its text a little differently each time;
    * faces are cut, and windows placed, as when the model is live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.audio.mel import mel_spectrogram
from engine.audio.pcm import Decimator
from engine.audio.window import MelWindow
from engine.avatar.bundle import avatar_folder, list_avatars, load_avatar
from engine.bench.material import Material
from engine.cli.render import first_avatar, spoken
from engine.config import Config
from engine.errors import NotFound
from engine.lipsync.wav2lip.crop import cut_face, face_boxes, network_face
from engine.lipsync.wav2lip.variants import Variant
from engine.types import FPS, FRAME_SAMPLES, PLAYOUT_RATE

TEXT = "Many people show you where their mouth moves, even before they have found the words for what they feel."
"""Vowels wide and round, lips closed and pressed: all that a mouth does, in seven seconds."""
_TEXT_S = 7.0


def speech(config: Config, seconds: float) -> np.ndarray:
    """The configured voice reading a text over and over: (n,) int16 at 48 kHz.

    Noise would not do: a model that is any good keeps the mouth shut, and the picture network is spared.
    """
    return np.resize(asyncio.run(spoken(TEXT, config)), round(seconds * PLAYOUT_RATE))


def gather(variant: Variant, config: Config, count: int) -> Material:
    """``count`` faces, evenly from all avatars and their pictures, each with a window of the voice's speech.

    Raises:
        NotFound: ``avatar_not_found``.
        AvatarInvalid: an avatar's folder is broken.
    """
    names = list_avatars(config.avatars_dir)
    if not names:
        raise NotFound("avatar_not_found", f"There is no avatar in {config.avatars_dir} to measure with.")
    faces: list[np.ndarray] = []
    for number, name in enumerate(names):
        share = len(range(number, count, len(names)))
        faces += _faces_of(avatar_folder(config.avatars_dir, name), variant, share)
    return Material(np.concatenate(faces), _windows(config, variant.window, count))


def gather_builtin(config: Config, window: MelWindow, count: int) -> Material:
    """The same windows of speech for the built-in model, and the avatar it speaks with.

    Raises:
        NotFound: ``avatar_not_found``.
    """
    folder = avatar_folder(config.avatars_dir, config.avatar or first_avatar(config))
    return Material(np.zeros((0, 6, 1, 1), np.float32), _windows(config, window, count), str(folder))


def _faces_of(folder: Path, variant: Variant, count: int) -> Sequence[np.ndarray]:
    avatar = load_avatar(folder)
    boxes = face_boxes(avatar.all_landmarks())
    pictures = np.linspace(0, len(avatar.frames) - 1, count).astype(int)
    return [
        network_face(cut_face(avatar.frames[index], boxes[index], variant.size), variant.colour) for index in pictures
    ]


def _windows(config: Config, window: MelWindow, count: int) -> np.ndarray:
    """(count, 80, columns) windows of the voice's speech, in an order that has nothing to do with that of the faces."""
    sound = speech(config, max(_TEXT_S, count / FPS))
    decimator = Decimator()
    mel = mel_spectrogram(np.concatenate([decimator.push(sound), decimator.flush()]))
    cut = np.stack([window.cut(mel, index) for index in range(len(sound) // FRAME_SAMPLES)])
    return cut[np.random.default_rng(0).permutation(len(cut))[:count]]
