"""Pictures of what was measured: openings against the truth, the expert's offset curves, bars per avatar.

Place in the flow: reports -> PNG files beside the JSON; drawn with OpenCV, so no plotting package is needed.

Invariant: what is not known is left out, never drawn as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from engine.types import FPS

_INK, _FAINT, _BLUE, _RED, _GREEN = (40, 40, 40), (215, 215, 215), (190, 110, 30), (50, 50, 210), (90, 150, 40)
_WIDTH, _ROW, _LEFT, _TOP = 900, 150, 70, 26
_LEAST_RANGE = 0.1  # what moves less is drawn small, so that the tracker's tremble does not look like speech


def track_plot(rows: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Seen opening (red) and true opening (green) over time, a row for each sound; both scaled to their own range.

    Args:
        rows: (title, seen (N,), true (M,)) at 25 a second.

    Returns:
        (height, width, 3) uint8 BGR.
    """
    return np.concatenate([_track(*row) for row in rows]) if rows else _blank(_ROW)


def _track(title: str, seen: np.ndarray, true: np.ndarray) -> np.ndarray:
    image = _blank(_ROW)
    _write(image, title, 6, 16)
    bottom, height = _ROW - 20, _ROW - _TOP - 24
    per_frame = (_WIDTH - _LEFT - 10) / max(len(seen), len(true), 1)
    for second in range(1 + max(len(seen), len(true)) // FPS):
        x = round(_LEFT + second * FPS * per_frame)
        cv2.line(image, (x, _TOP), (x, bottom), _FAINT, 1)
        _write(image, f"{second} s", x - 6, _ROW - 6, 0.36)
    for values, colour in ((true, _GREEN), (seen, _RED)):
        if len(values):
            low = float(np.min(values))
            high = max(float(np.max(values)), low + _LEAST_RANGE)
            at = _LEFT + (np.arange(len(values)) + 0.5) * per_frame
            y = bottom - (values - low) / max(high - low, 1e-6) * height
            cv2.polylines(image, [np.stack([at, y], 1).round().astype(np.int32)], False, colour, 1, cv2.LINE_AA)
    return image


def curve_plot(curves: Mapping[str, np.ndarray]) -> np.ndarray:
    """Distance of lips and sound by offset in frames, a row for each curve; a good one has its valley at 0."""
    rows = []
    for name, curve in curves.items():
        image = _blank(_ROW)
        _write(image, f"{name}: distance by offset of the lips (frames late)", 6, 16)
        reach = len(curve) // 2
        low, high = float(curve.min()), float(curve.max())
        x = np.linspace(_LEFT, _WIDTH - 20, len(curve))
        y = _ROW - 24 - (curve - low) / max(high - low, 1e-6) * (_ROW - _TOP - 30)
        for offset in range(-reach, reach + 1, 5):
            at = round(float(x[offset + reach]))
            cv2.line(image, (at, _TOP), (at, _ROW - 20), _FAINT, 2 if offset == 0 else 1)
            _write(image, str(offset), at - 5, _ROW - 6, 0.36)
        cv2.polylines(image, [np.stack([x, y], 1).round().astype(np.int32)], False, _BLUE, 2, cv2.LINE_AA)
        _write(image, f"{high:.2f}", 8, _TOP + 14, 0.36)
        _write(image, f"{low:.2f}", 8, _ROW - 26, 0.36)
        rows.append(image)
    return np.concatenate(rows) if rows else _blank(_ROW)


def bar_plot(title: str, values: Mapping[str, float | None], goal: float | None = None) -> np.ndarray:
    """A horizontal bar for each value from 0 on, with the goal as a line."""
    known = {name: value for name, value in values.items() if value is not None}
    image = _blank(34 + 22 * max(1, len(known)))
    _write(image, title, 6, 16)
    most = max([*known.values(), goal or 0.0, 1e-6])
    per_unit = (_WIDTH - 330) / most
    for index, (name, value) in enumerate(known.items()):
        y = 28 + 22 * index
        _write(image, name, 6, y + 13, 0.40)
        cv2.rectangle(image, (250, y), (250 + max(0, round(value * per_unit)), y + 15), _BLUE, -1)
        _write(image, f"{value:.3g}", 256 + max(0, round(value * per_unit)), y + 13, 0.40)
    if goal is not None:
        x = 250 + round(goal * per_unit)
        cv2.line(image, (x, 24), (x, image.shape[0] - 4), _GREEN, 2)
    return image


def _blank(height: int) -> np.ndarray:
    return np.full((height, _WIDTH, 3), 255, np.uint8)


def _write(image: np.ndarray, text: str, x: int, y: int, size: float = 0.45) -> None:
    readable = text.encode("ascii", "replace").decode()
    cv2.putText(image, readable, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
