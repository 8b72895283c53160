"""What a face tracker measures on mouths that are known: random synthetic people drawn, tracked and written down.

Place in the flow: ``Human`` -> random person, light, camera -> ``raster`` -> face mesh -> ``sync_expert``.
Command: ``python -m engine.studio.sync_expert_lips --assets DIR --people 40 OUT.npz`` (about 3 s a person on one core).

Invariants:
    * mouth 0 of a person is rest; light, camera and head stay the same within a sitting but for small turns;
    * pictures in which the tracker saw no face are left out with their mouths.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.avatar.landmarks import POINTS, FaceMesh
from engine.evaluate.lips import lip_shape
from engine.studio.assets import Assets
from engine.studio.figure import Figure
from engine.studio.human import Human
from engine.studio.identity import Colour, random_identity
from engine.studio.mouth import RIG, VISEMES, target_weights, viseme_vector
from engine.studio.pairs import random_light
from engine.studio.picture_head import Head
from engine.studio.raster import View, draw
from engine.studio.rig import rotation
from engine.types import MOUTH_SHAPES

SIZE = 320
"""Side of the drawn pictures, pixels; the tracker sees faces at 192."""

_TARGETS = tuple(sorted({target for shapes in RIG.values() for target in shapes}))
_FACE_SHARE = 0.5
_FACE_HEIGHT_DM = 1.9


def random_speech_mouths(rng: np.random.Generator, count: int) -> np.ndarray:
    """Mouths as they occur between and within sounds: rest, and blends of two visemes at any strength.

    Returns:
        (count, len(MOUTH_SHAPES)) float32 in [0, 1]; the first is zero.
    """
    names = list(VISEMES)
    mouths = [np.zeros(len(MOUTH_SHAPES))]
    while len(mouths) < count:
        first, second = (viseme_vector(str(rng.choice(names))) for _ in range(2))
        share = rng.beta(0.6, 0.6)
        mouths.append((first * share + second * (1 - share)) * rng.uniform(0.5, 1.15))
    return np.clip(np.stack(mouths), 0, 1).astype(np.float32)


def random_head(human: Human, rng: np.random.Generator) -> tuple[Head, Mapping[str, Colour]]:
    """A random person: head and colours."""
    identity = random_identity(human, rng)
    return Head(Figure(human, identity), _TARGETS), identity.tints


def sitting(
    head: Head, tints: Mapping[str, Colour], mesh: FaceMesh, rng: np.random.Generator, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a person with random mouths, in one light and by one camera, and lets the tracker look at them.

    Args:
        head: of the person.
        tints: of the person.
        mesh: the tracker.
        rng: source of chance.
        count: mouths to draw.

    Returns:
        (n, len(MOUTH_SHAPES)) mouths and (n, 468, 3) points in pixels, n <= count.
    """
    light = random_light(rng, tints)
    landmarks = head.landmarks(head.rest)
    distance = float(rng.uniform(6, 14))
    focal = distance * SIZE * _FACE_SHARE / _FACE_HEIGHT_DM
    shade = np.full((SIZE, SIZE, 3), rng.uniform(0, 0.5, 3), np.float32)
    pitch, yaw = float(rng.normal(0, 0.08)), float(rng.normal(0, 0.15))
    mouths = [np.zeros((0, len(MOUTH_SHAPES)), np.float32)]
    points = [np.zeros((0, POINTS, 3), np.float32)]
    for mouth in random_speech_mouths(rng, count):
        turn = rotation(pitch + float(rng.normal(0, 0.02)), yaw + float(rng.normal(0, 0.02)), 0.0)
        middle = (SIZE / 2 + float(rng.normal(0, 2)), SIZE / 2 + float(rng.normal(0, 2)))
        view = View(
            turn, head.eyes.mean(0), landmarks.mean(0), distance, focal, middle, float(rng.normal(0, 0.03)), SIZE
        )
        picture = draw(head.surface, head.vertices(target_weights(mouth)), view, light, shade, samples=1).image
        faces = mesh.find(picture)
        if faces:
            mouths.append(mouth[None])
            points.append(faces[0].points[None])
    return np.concatenate(mouths), np.concatenate(points)


def measure_person(human: Human, mesh: FaceMesh, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a random person with random mouths and lets the tracker measure them.

    Args:
        human: the base human.
        mesh: the tracker.
        rng: source of chance.
        count: mouths to draw.

    Returns:
        (n, len(MOUTH_SHAPES)) mouths and (n, LIP_NUMBERS) measures, n <= count.
    """
    head, tints = random_head(human, rng)
    mouths, points = sitting(head, tints, mesh, rng, count)
    return mouths, lip_shape(points)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes ``person`` (n,), ``mouths`` (n, 10) and ``shapes`` (n, LIP_NUMBERS) of all people."""
    parser = argparse.ArgumentParser(description="Measure known mouths with the face tracker.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--assets", type=Path, required=True, help="unpacked assets directory")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--mouths", type=int, default=60, help="mouths per person")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    human, mesh = Human(Assets.open(options.assets)), FaceMesh.load()
    found = []
    for person in range(options.people):
        found.append(measure_person(human, mesh, np.random.default_rng([options.seed, person]), options.mouths))
        print(f"person {person}: {len(found[-1][0])} of {options.mouths} mouths seen", flush=True)
    np.savez_compressed(
        options.out,
        person=np.concatenate([np.full(len(mouths), index) for index, (mouths, _) in enumerate(found)]),
        mouths=np.concatenate([mouths for mouths, _ in found]),
        shapes=np.concatenate([shapes for _, shapes in found]),
    )


if __name__ == "__main__":
    main()
