"""Tells whether two processes hold the same avatar, without comparing all of its pictures.

Place in the flow: Avatar -> ``fingerprint`` -> the model process, which loaded the same folder.
"""

from __future__ import annotations

import hashlib

import numpy as np

from engine.avatar.bundle import Avatar

_PROBED = 5
"""Pictures that are looked at."""


def fingerprint(avatar: Avatar) -> str:
    """32 hexadecimal digits of where the face is in every picture, and of what some pictures show."""
    digest = hashlib.sha256(f"{avatar.name} {avatar.size} {avatar.picture_count}".encode())
    for name, start in avatar.starts.items():
        digest.update(f" {name} {start} {avatar.clips[name].loop}".encode())
    digest.update(avatar.all_landmarks().tobytes() + avatar.all_boxes().tobytes())
    for index in np.linspace(0, avatar.picture_count - 1, _PROBED).astype(int):
        digest.update(np.ascontiguousarray(avatar.picture(int(index))).tobytes())
    return digest.hexdigest()[:32]
