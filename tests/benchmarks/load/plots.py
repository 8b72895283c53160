"""Pictures of ramps and of the soak: figures by number of viewers, ours and the usual design in one drawing.

Place in the flow: points -> PNG files beside the JSON; drawn with OpenCV, so no plotting package is needed.

Invariant: what was not measured is left out, never drawn as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_INK, _FAINT = (40, 40, 40), (215, 215, 215)
COLOURS = ((190, 110, 30), (50, 50, 210), (90, 150, 40))
"""Ours, the usual design, the floor."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 450, 240, 58, 14, 34, 34

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing.

    Attributes:
        title: what is drawn, with its unit.
        curves: (x, y) by name, in the order of ``COLOURS``.
        floor: a line to compare with.
        most: values above it are drawn at the upper edge.
        across: what x is.
    """

    title: str
    curves: Mapping[str, Curve]
    floor: float | None = None
    most: float | None = None
    across: str = "viewers"


def sheet(rows: Sequence[Sequence[Panel]]) -> np.ndarray:
    """Panels in rows: (height, width, 3) uint8 BGR."""
    drawn = [[_draw(panel) for panel in row] for row in rows]
    wide = max(len(row) for row in drawn)
    blank = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    return np.concatenate([np.concatenate([*row, *[blank] * (wide - len(row))], axis=1) for row in drawn])


def _draw(panel: Panel) -> np.ndarray:
    image = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    _write(image, panel.title, 8, 15, 0.42)
    points = [point for curve in panel.curves.values() for point in curve]
    if not points:
        _write(image, "not measured", _LEFT, _HEIGHT // 2, 0.42)
        return image
    right = max(x for x, _ in points)
    top = max([y for _, y in points] + ([panel.floor] if panel.floor is not None else []))
    top = max(min(top, panel.most or top) * 1.08, 1e-6)

    def place(x: float, y: float) -> tuple[int, int]:
        wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        return round(_LEFT + wide * x / max(right, 1e-6)), round(_HEIGHT - _BOTTOM - high * min(y, top) / top)

    for step in _steps(top):
        y = place(0, step)[1]
        cv2.line(image, (_LEFT, y), (_WIDTH - _RIGHT, y), _FAINT, 1)
        _write(image, f"{step:g}", 8, y + 4)
    for step in _steps(right):
        x = place(step, 0)[0]
        _write(image, f"{step:g}", x - 6, _HEIGHT - 18)
    _write(image, panel.across, _WIDTH - _RIGHT - 7 * len(panel.across), _HEIGHT - 4)
    if panel.floor is not None:
        cv2.line(image, place(0, panel.floor), place(right, panel.floor), COLOURS[2], 1, cv2.LINE_AA)
    for number, (name, curve) in enumerate(panel.curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = [place(x, y) for x, y in sorted(curve)]
        cv2.polylines(image, [np.array(path, np.int32)], False, colour, 2, cv2.LINE_AA)
        for spot in path:
            cv2.circle(image, spot, 3, colour, -1, cv2.LINE_AA)
        _write(image, name, _LEFT + 6 + 150 * number, 30, 0.38, colour)
    return image


def _steps(most: float) -> list[float]:
    """Round numbers from 0 to ``most``, about four of them."""
    size = 10 ** np.floor(np.log10(max(most, 1e-9) / 2))
    step = next(size * factor for factor in (1, 2, 5, 10) if most / (size * factor) <= 5)
    return [float(step * index) for index in range(int(most / step) + 1)]


def _write(
    image: np.ndarray, text: str, x: int, y: int, size: float = 0.34, colour: tuple[int, int, int] = _INK
) -> None:
    readable = text.encode("ascii", "replace").decode()
    cv2.putText(image, readable, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
