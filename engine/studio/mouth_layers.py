"""The inside of a mouth drawn alone, teeth and tongue over darkness, in one fixed light.

Place in the flow: ``Head`` -> pictures without skin and lips -> ``pairs`` (what the network learns to tint) and
``mouth_atlas`` (what the product lays behind the lips).

Invariants:
    * the light is fixed to the camera and the same for everybody, so that pictures are comparable;
    * darkness is one colour, ``engine.lipsync.builtin.mouth_inside.DARKNESS_BGR``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from engine.lipsync.builtin.mouth_inside import DARKNESS_BGR
from engine.studio.raster import PART_ID, PARTS, Drawing, Light, Surface, View, draw

_TOWARDS_LIGHTS = np.array([[0.0, 0.35, 1.0], [0.55, 0.25, 0.8], [-0.55, 0.25, 0.8]])
_TONGUE_TINT_BGR = (0.66, 0.64, 0.86)
_TEETH_TINT_BGR = (0.98, 1.06, 1.10)


def neutral_light() -> Light:
    """Soft light from the camera's side."""
    tint = np.ones((len(PARTS), 3), np.float32)
    tint[PART_ID["tongue"]] = _TONGUE_TINT_BGR
    tint[PART_ID["teeth"]] = _TEETH_TINT_BGR
    return Light(
        direction=(_TOWARDS_LIGHTS / np.linalg.norm(_TOWARDS_LIGHTS, axis=1, keepdims=True)).astype(np.float32),
        colour=np.full((3, 3), 0.30, np.float32),
        ambient=np.full(3, 0.35, np.float32),
        tint=tint,
    )


def only(surface: Surface, triangles: np.ndarray) -> Surface:
    """The surface with some of its triangles, (F,) bool."""
    return replace(surface, triangles=surface.triangles[triangles], part=surface.part[triangles])


def of_parts(surface: Surface, names: Iterable[str]) -> Surface:
    """The surface with the triangles of some parts."""
    return only(surface, np.isin(surface.part, [PART_ID[name] for name in names]))


def draw_inside(surface: Surface, vertices: np.ndarray, view: View, samples: int = 2) -> Drawing:
    """Draws a surface in the fixed light over the mouth's darkness.

    Args:
        surface: see ``of_parts``.
        vertices: (V, 3) float32 posed vertices, head units.
        view: camera.
        samples: sub-pixels per pixel and axis.
    """
    # Linear light whose display value is the darkness: see ``raster_kernels.resolve``.
    dark = (np.array(DARKNESS_BGR, np.float32) / 255) ** 2
    background = np.broadcast_to(dark, (view.size, view.size, 3))
    return draw(surface, vertices, view, neutral_light(), background, samples)
