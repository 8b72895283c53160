"""Restores an avatar's own pictures, once: slow on a CPU, so every finished face is kept and work can be resumed.

Place in the flow: avatar -> ``restore_pictures`` -> the same avatar, sharper -> ``LipSync.prepare``.

Invariants:
    * equal pictures are restored once;
    * the idle loop and looping clips stay loops: their first picture is steadied against their last ones;
    * an interrupted call loses at most the picture it was at.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np

from engine.avatar.bundle import Avatar
from engine.restore.avatar_cache import AvatarCache, avatar_key, face_key
from engine.restore.base import Progress
from engine.restore.enhancer import Enhancer
from engine.restore.ffhq import align, alignment
from engine.restore.region import FACE, change, paste_change
from engine.restore.temporal import Trace, shade_of, steady

_LEAD = 6
"""Pictures before the start of a loop that are gone through first; the share of the last of them is 0.7 ** 6."""


def restore_pictures(
    avatar: Avatar, enhancer: Enhancer, cache: AvatarCache | None, progress: Progress | None = None
) -> Avatar:
    """The avatar with all its pictures restored.

    Args:
        avatar: whom; not changed.
        enhancer: runs the network.
        cache: where results are kept; None keeps them in memory only.
        progress: told after each picture; may raise to interrupt.

    Raises:
        BackendFailed: the network failed, or results cannot be kept.
        DiskFull: there is no room for them.
    """
    landmarks = avatar.all_landmarks()
    keys = [face_key(avatar.picture(index), landmarks[index]) for index in range(avatar.picture_count)]
    whole = avatar_key(avatar, keys)
    if cache is not None and (found := cache.avatar(whole, avatar)) is not None:
        if progress is not None:
            progress(len(keys), len(keys))
        return found
    faces = _restored_faces(avatar, landmarks, keys, enhancer, cache, progress)
    restored = _with_changes(avatar, keys, faces, enhancer.size)
    if cache is not None:
        cache.keep_avatar(whole, restored)
        cache.drop_faces(faces)
        # What was kept went through a video encoder; this start and the next show the same pictures.
        restored = cache.avatar(whole, avatar) or restored
    return restored


def _restored_faces(
    avatar: Avatar,
    landmarks: np.ndarray,
    keys: list[str],
    enhancer: Enhancer,
    cache: AvatarCache | None,
    progress: Progress | None,
) -> dict[str, np.ndarray]:
    """(h, w, 3) uint8 BGR windows of restored faces, by key."""
    window = FACE.window(enhancer.size)
    shape = (window.height, window.width, 3)
    first_of = {key: index for index, key in reversed(list(enumerate(keys)))}
    faces: dict[str, np.ndarray] = {}
    missing = []
    for key in first_of:
        kept = cache.face(key, shape) if cache is not None else None
        if kept is None:
            missing.append(key)
        else:
            faces[key] = kept
    times = {key: keys.count(key) for key in first_of}
    done = sum(times[key] for key in faces)
    for start in range(0, len(missing), enhancer.batch):
        if progress is not None:
            progress(done, len(keys))
        batch = missing[start : start + enhancer.batch]
        aligned = [
            align(avatar.picture(first_of[key]), alignment(landmarks[first_of[key]], enhancer.size), enhancer.size)
            for key in batch
        ]
        for key, face in zip(batch, enhancer.enhance(np.stack(aligned), window), strict=True):
            faces[key] = face
            done += times[key]
            if cache is not None:
                cache.keep_face(key, face)
    if progress is not None:
        progress(done, len(keys))
    return faces


def _with_changes(avatar: Avatar, keys: list[str], faces: dict[str, np.ndarray], size: int) -> Avatar:
    starts = avatar.starts

    def footage(frames: np.ndarray, landmarks: np.ndarray, start: int, loop: bool) -> np.ndarray:
        return _steadied(frames, landmarks, [faces[key] for key in keys[start : start + len(frames)]], size, loop)

    clips = {
        name: replace(clip, frames=footage(clip.frames, clip.landmarks, starts[name], clip.loop))
        for name, clip in avatar.clips.items()
    }
    frames = footage(avatar.frames, avatar.landmarks, 0, True)
    return replace(avatar, frames=frames, clips=MappingProxyType(clips), folder=None)


def _steadied(
    frames: np.ndarray, landmarks: np.ndarray, faces: list[np.ndarray], size: int, loop: bool
) -> np.ndarray:
    """(N, H, W, 3) uint8 BGR, read-only: one stretch of pictures with its restored faces pasted, without flicker."""
    window = FACE.window(size)
    restored = np.empty_like(frames)
    trace: Trace | None = None
    order = range(-min(_LEAD, len(frames)) if loop else 0, len(frames))
    for index in order:
        matrix = alignment(landmarks[index], size)
        face = align(frames[index], matrix, size)
        shade = shade_of(face[window.slices])
        changed = change(face, faces[index], FACE)
        if trace is not None:
            changed = steady(shade, changed, trace)
        trace = Trace(None, shade, changed)
        if index >= 0:
            restored[index] = paste_change(frames[index], changed, FACE, matrix, size)
    restored.flags.writeable = False
    return restored
