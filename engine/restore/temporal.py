"""Keeps restored detail from flickering: what changed little since the last picture keeps much of its last detail.

Place in the flow: ``region.change`` of this picture + trace of the last -> ``steady`` or ``reuse`` -> change to paste.

A restorer draws skin and teeth anew in every picture, a little differently each time. Where the given face stands
still, the eye sees that as flicker; where it moves, it does not. Both pictures are aligned to the same template, so a
moving head stands still here, and optical flow follows what moves within the face.

Invariants:
    * where nothing moves, the change converges to the mean of what the restorer draws;
    * where much moves, the last picture has no say.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_NEW = 0.3
"""How much of the change is new where nothing moved."""
_ALL_NEW_LEVELS = 7.0
"""Grey levels that the face differs by, after the flow, from which on all of it is new."""
_REUSE_LEVELS = 10.0
"""Grey levels that the face differs by, after the flow, at which a reused change has faded to a third."""
_BLUR = 2.5
"""Sigma, pixels of the small picture, of what is compared: noise and details are no motion."""
_FLOW_SIDE = 128
"""The flow is found on a window of about this many pixels a side."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What a session's next picture needs to know of this one.

    Attributes:
        key: which region, size and network it belongs to; another one's trace is of no use.
        shade: (h', w') uint8, the given face in grey, on the region's window made smaller.
        changed: (h, w, 3) float32, what was pasted, before fading.
        reused: True when the last picture was not restored but took over an earlier one's change.
    """

    key: object
    shade: np.ndarray
    changed: np.ndarray
    reused: bool = False


def shade_of(window: np.ndarray) -> np.ndarray:
    """(h', w') uint8: a window of the given face, small and grey, for comparing it with the next.

    Args:
        window: (h, w, 3) uint8 BGR.
    """
    height, width = window.shape[:2]
    shrink = max(max(height, width) / _FLOW_SIDE, 1.0)
    grey = cv2.cvtColor(np.ascontiguousarray(window), cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (round(width / shrink), round(height / shrink)), interpolation=cv2.INTER_AREA)


def steady(shade: np.ndarray, changed: np.ndarray, last: Trace) -> np.ndarray:
    """This picture's change, blended with the last one's where the face hardly moved.

    Args:
        shade: of this picture.
        changed: (h, w, 3) float32, what the restorer changes in this picture.
        last: of the picture before.

    Returns:
        (h, w, 3) float32.
    """
    moved, followed = _follow(shade, last)
    new = _to_size(np.clip(_NEW + (1 - _NEW) * moved / _ALL_NEW_LEVELS, _NEW, 1), changed)
    return followed + new[..., None] * (changed - followed)


def reuse(shade: np.ndarray, last: Trace) -> np.ndarray:
    """A change for a picture that is not restored: the last one's, moved along, less where the face became another.

    Args:
        shade: of this picture.
        last: of the picture before.

    Returns:
        (h, w, 3) float32.
    """
    moved, followed = _follow(shade, last)
    keep = _to_size(np.exp(-np.square(moved / _REUSE_LEVELS)), followed)
    return followed * keep[..., None]


def _to_size(small: np.ndarray, picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def _follow(shade: np.ndarray, last: Trace) -> tuple[np.ndarray, np.ndarray]:
    """How much each place differs from where it was in the last picture, and the last change moved along with it."""
    height, width = shade.shape
    nothing = np.zeros((height, width, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(shade, last.shade, nothing)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    before = cv2.remap(
        last.shade, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    now, then = (cv2.GaussianBlur(picture.astype(np.float32), (0, 0), _BLUR) for picture in (shade, before))
    full_height, full_width = last.changed.shape[:2]
    shift_x = _to_size(flow[..., 0], last.changed) * (full_width / width)
    shift_y = _to_size(flow[..., 1], last.changed) * (full_height / height)
    columns, rows = np.meshgrid(np.arange(full_width, dtype=np.float32), np.arange(full_height, dtype=np.float32))
    followed = cv2.remap(
        last.changed, columns + shift_x, rows + shift_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.abs(now - then), followed
