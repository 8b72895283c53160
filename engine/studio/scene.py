"""A scene file: everything a path tracer needs to draw frames of one figure, as arrays and plain data.

Place in the flow: ``Figure`` poses -> ``Scene`` -> ``.npz`` file -> ``path_tracer`` (another interpreter) -> pictures.

Invariants:
    * the file holds arrays and one JSON text, so reading it runs no code;
    * frames share topology, texture coordinates, lights and camera; only positions and the picture's border change.

Units are decimetres; y is up, z towards the viewer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A perspective camera that looks at a target.

    Attributes:
        position: (x, y, z) decimetres.
        target: the point in the middle of the picture.
        field_of_view_deg: across the square picture.
        focus_distance_dm: distance that is sharp.
        aperture: f-number.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    field_of_view_deg: float
    focus_distance_dm: float
    aperture: float

    def project(self, points: np.ndarray, size: int) -> np.ndarray:
        """Pixel positions of points.

        Args:
            points: (n, 3).
            size: side of the square picture, pixels.

        Returns:
            (n, 2) float32 x right, y down; (0, 0) is the outer corner of the first pixel.
        """
        position, target = np.array(self.position), np.array(self.target)
        forward = (target - position) / np.linalg.norm(target - position)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        up = np.cross(right, forward)
        relative = np.asarray(points, np.float64) - position
        scale = size / 2 / np.tan(np.radians(self.field_of_view_deg) / 2) / (relative @ forward)
        return np.stack([size / 2 + scale * (relative @ right), size / 2 - scale * (relative @ up)], 1).astype(
            np.float32
        )


@dataclass(frozen=True)
class AreaLight:
    """A round soft light aimed at the camera's target.

    Attributes:
        position: (x, y, z) decimetres.
        diameter_dm: bigger is softer.
        power: watts of the tracer, at decimetre scale.
        colour: linear RGB.
    """

    position: tuple[float, float, float]
    diameter_dm: float
    power: float
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Look:
    """How the picture is lit and finished.

    Attributes:
        lights: area lights.
        ambient: linear RGB of the light from everywhere.
        backdrop: linear RGB of the backdrop at its edge and at its centre.
        backdrop_centre: (x, y) decimetres of the backdrop's bright centre.
        exposure: stops.
        contrast: name of the tracer's contrast curve.
    """

    lights: tuple[AreaLight, ...]
    ambient: tuple[float, float, float]
    backdrop: tuple[tuple[float, float, float], tuple[float, float, float]]
    backdrop_centre: tuple[float, float]
    exposure: float = 0.0
    contrast: str = "AgX - Medium High Contrast"


@dataclass(frozen=True)
class ScenePart:
    """One textured piece.

    Attributes:
        name: decides the material (see ``shaders``).
        texture: image file, or None for a plain surface of the colour of ``tint``.
        tint: linear RGB factors.
        polygons: (P, 4) int32, -1 as fourth corner of a triangle.
        uv: (P, 4, 2) float32.
        frames: (N, n, 3) float32 positions.
    """

    name: str
    texture: Path | None
    tint: tuple[float, float, float]
    polygons: np.ndarray
    uv: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class Strands:
    """Hairs as curves that move rigidly.

    Attributes:
        name: decides the material.
        points: (S, K, 3) float32 in frame-independent position.
        root_radius_dm: thickness at the root; the tip is a point.
        melanin: 0 white … 1 black.
        redness: 0 … 1.
        frames: (N, 4, 4) float32 motion of all strands per frame.
    """

    name: str
    points: np.ndarray
    root_radius_dm: float
    melanin: float
    redness: float
    frames: np.ndarray


@dataclass(frozen=True)
class Scene:
    """All of it.

    Attributes:
        camera: the camera of every frame.
        look: light and finish.
        parts: meshes.
        strands: hair curves.
        borders: (N, 4) float32 x0, y0, x1, y1 as shares of the picture (y down), or None to draw all of it.
    """

    camera: Camera
    look: Look
    parts: Sequence[ScenePart]
    strands: Sequence[Strands] = ()
    borders: np.ndarray | None = None

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return len(self.parts[0].frames)

    def save(self, path: Path) -> None:
        """Write the scene file."""
        arrays: dict[str, np.ndarray] = {}
        parts, strands = [], []
        for part in self.parts:
            parts.append({"name": part.name, "texture": str(part.texture or ""), "tint": part.tint})
            for key in ("polygons", "uv", "frames"):
                arrays[f"part.{part.name}.{key}"] = getattr(part, key)
        for item in self.strands:
            strands.append(
                {
                    "name": item.name,
                    "root_radius_dm": item.root_radius_dm,
                    "melanin": item.melanin,
                    "redness": item.redness,
                }
            )
            for key in ("points", "frames"):
                arrays[f"strands.{item.name}.{key}"] = getattr(item, key)
        if self.borders is not None:
            arrays["borders"] = self.borders
        plain = {"camera": asdict(self.camera), "look": asdict(self.look), "parts": parts, "strands": strands}
        arrays["plain"] = np.array(json.dumps(plain))
        np.savez(path, allow_pickle=False, **arrays)


@dataclass
class _Reader:
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def part(self, plain: dict) -> ScenePart:
        arrays = [self.arrays[f"part.{plain['name']}.{key}"] for key in ("polygons", "uv", "frames")]
        texture = Path(plain["texture"]) if plain["texture"] else None
        return ScenePart(plain["name"], texture, plain["tint"], *arrays)

    def strand(self, plain: dict) -> Strands:
        points, frames = (self.arrays[f"strands.{plain['name']}.{key}"] for key in ("points", "frames"))
        return Strands(points=points, frames=frames, **plain)


def load_scene(path: Path) -> Scene:
    """Read a scene file."""
    with np.load(path, allow_pickle=False) as file:
        reader = _Reader({name: file[name] for name in file.files})
    plain = _tuples(json.loads(str(reader.arrays["plain"])))
    look = plain["look"]
    look["lights"] = tuple(AreaLight(**light) for light in look["lights"])
    return Scene(
        Camera(**plain["camera"]),
        Look(**look),
        [reader.part(part) for part in plain["parts"]],
        [reader.strand(strand) for strand in plain["strands"]],
        reader.arrays.get("borders"),
    )


def _tuples(value: Any) -> Any:
    """JSON knows lists only; plain data here is made of tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def chosen_frames(text: str, count: int) -> Sequence[int]:
    """Frame numbers of a choice such as ``0,4,9`` or ``::4``."""
    if ":" in text:
        return range(count)[slice(*(int(word) if word else None for word in text.split(":")))]
    return [int(word) for word in text.split(",")]
