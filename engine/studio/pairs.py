"""Makes training pairs of the picture net: random people, ten mouths each, with exact motion between them.

Place in the flow: ``Human`` -> random person, light, camera -> ``raster`` -> shards of arrays -> ``picture_data``.
Command: ``python -m engine.studio.pairs --assets DIR --out DIR --seed 1 --people 800`` (one process per core, each
with its own seed; a run that was stopped goes on where it left off).

Invariants:
    * picture 0 of a person is the reference (mouth vector 0); head, light, camera and base expression stay the same;
    * crops follow ``engine.lipsync.builtin.crop``, jittered in position, scale and roll once per person;
    * beside every picture lies the mouth's inside without skin and lips, in the fixed light of ``mouth_layers``;
    * shard k of a seed depends on the seed, k and the assets only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from engine.lipsync.builtin.crop import CROP_SIZE, eye_mouth_distance, mouth_square
from engine.studio.assets import Assets
from engine.studio.figure import Figure
from engine.studio.human import Human
from engine.studio.identity import random_identity
from engine.studio.mouth import RIG, VISEMES, target_weights, viseme_vector
from engine.studio.mouth_layers import draw_inside, of_parts
from engine.studio.picture_head import Head
from engine.studio.raster import PART_ID, PARTS, Drawing, Light, View, draw, motion
from engine.studio.rig import rotation
from engine.types import MOUTH_SHAPES

MARGIN = 8
"""Pixels drawn around the network's crop on every side, so that training can shift it."""
PICTURE_SIZE = CROP_SIZE + 2 * MARGIN
MOUTHS = 10
PEOPLE_PER_SHARD = 20

_BLINK = ("arkit/eyeBlinkLeft", "arkit/eyeBlinkRight")
_TARGETS = tuple(sorted({target for shapes in RIG.values() for target in shapes} | set(_BLINK)))
_JAW = next(iter(RIG["jawOpen"]))
_SETBACKS_DM = (0.0, 0.025, 0.05)
_TEETH_PIXELS_AT_REST = 12


def random_mouths(rng: np.random.Generator) -> np.ndarray:
    """Mouth vectors of one person: rest, clear visemes, blends of them, and small movements.

    Returns:
        (MOUTHS, len(MOUTH_SHAPES)) float32 in [0, 1]; the first is zero.
    """
    names = [name for name in VISEMES if name != "sil"]

    def viseme() -> np.ndarray:
        return viseme_vector(str(rng.choice(names)))

    mouths = [np.zeros(len(MOUTH_SHAPES))]
    mouths += [viseme() * rng.uniform(0.7, 1.15) for _ in range(3)]
    for low, high in ((0.4, 1.2), (0.5, 1.1), (0.1, 0.5)):
        share = rng.random()
        mouths.append((viseme() * share + viseme() * (1 - share)) * rng.uniform(low, high))
    single = np.zeros(len(MOUTH_SHAPES))
    single[rng.integers(len(MOUTH_SHAPES))] = rng.uniform(0.2, 1)
    single[MOUTH_SHAPES.index("jawOpen")] += rng.uniform(0, 0.6) * (rng.random() < 0.5)
    mouths.append(single)
    smiling = viseme() * rng.uniform(0.3, 1.0)
    smiling[MOUTH_SHAPES.index("mouthSmile")] += rng.uniform(0.1, 0.8)
    mouths.append(smiling)
    mouths.append(viseme() * rng.uniform(0.03, 0.2))
    return np.clip(np.stack(mouths), 0, 1).astype(np.float32)


def random_light(rng: np.random.Generator, tints: Mapping[str, tuple[float, float, float]]) -> Light:
    """Key, fill and rim light around a portrait, in colours from warm to cool."""
    direction = np.array([[-0.5, 0.55, 0.9], [0.8, 0.1, 0.7], [0.3, 0.6, -0.9]]) + rng.normal(0, 0.35, (3, 3))
    direction[2, 2] = -abs(direction[2, 2])
    direction[:, 0] *= rng.choice([-1, 1])
    colour = np.array([[0.95, 1.0, 1.05], [0.45, 0.40, 0.38], [0.45, 0.4, 0.4]]) * rng.uniform(0.4, 1.4, (3, 1))
    colour *= rng.uniform(0.86, 1.12, (3, 3))
    tint = np.ones((len(PARTS), 3))
    for name, rgb in tints.items():
        tint[PART_ID[name]] = rgb[::-1]
    tint[PART_ID["teeth"]] = rng.uniform(1.1, 1.7) * np.array([rng.uniform(0.8, 1.0), 0.97, 1.0])
    tint[PART_ID["tongue"]] = rng.uniform(0.7, 1.1) * np.array([0.68, 0.66, 0.80])
    tint[PART_ID["eyes"]] = 0.92
    tint[PART_ID["hair"]] = rng.uniform(0.35, 1.5) * np.array([rng.uniform(0.6, 1.1), rng.uniform(0.75, 1.05), 1.0])
    return Light(
        direction=(direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32),
        colour=colour.astype(np.float32),
        ambient=(np.array([0.24, 0.22, 0.22]) * rng.uniform(0.5, 2.0)).astype(np.float32),
        tint=tint.astype(np.float32),
        gloss=float(rng.uniform(0.3, 2.0)),
    )


def random_view(rng: np.random.Generator, head: Head, landmarks: np.ndarray) -> View:
    """A camera whose picture is the jittered mouth square of a randomly turned head.

    Args:
        rng: source of chance.
        head: the person.
        landmarks: (5, 3) of the reference pose, decimetres.
    """
    turn = rotation(float(rng.normal(0.02, 0.09)), float(rng.normal(0, 0.19)), 0.0)
    pivot = head.eyes.mean(0) - np.array([0, 0.9, 1.0], np.float32)
    distance = float(np.exp(rng.uniform(np.log(5), np.log(16))))
    whole = View(
        turn, pivot, landmarks.mean(0), distance, distance * 100.0, (256.0, 256.0), float(rng.normal(0, 0.05)), 512
    )
    points = whole.pixels(whole.camera(landmarks))
    centre, side = mouth_square(points, eye_mouth_distance(points))
    centre = centre + side * rng.normal(0, 0.018, 2)
    drawn = float(side) * float(np.exp(rng.normal(0, 0.05))) * PICTURE_SIZE / CROP_SIZE
    return whole.cropped((float(centre[0]), float(centre[1])), drawn, PICTURE_SIZE)


def random_background(rng: np.random.Generator) -> np.ndarray:
    """(PICTURE_SIZE, PICTURE_SIZE, 3) float32 linear: soft blobs or hard shapes, more or less out of focus."""
    coarse = rng.uniform(0, 0.7, (int(rng.integers(2, 7)), int(rng.integers(2, 7)), 3)).astype(np.float32)
    method = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_NEAREST
    full = cv2.resize(coarse, (PICTURE_SIZE, PICTURE_SIZE), interpolation=method)
    return np.clip(cv2.GaussianBlur(full, (0, 0), rng.uniform(0.7, 6)), 0, 1) ** 2


def random_paint(rng: np.random.Generator, masculine: bool) -> dict[str, np.ndarray]:
    """Lipstick or pale lips, stubble or beard: linear BGR factors for ``Head``."""
    paint: dict[str, np.ndarray] = {}
    if rng.random() < 0.5:
        paint["lips"] = rng.uniform(0.55, 1.25) * rng.uniform([0.55, 0.5, 0.85], [1.15, 1.1, 1.2])
    if masculine and rng.random() < 0.45:
        grain = rng.random((1024, 1024)).astype(np.float32)
        soft = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.8, 2.0))
        soft = (soft - soft.min()) / np.ptp(soft)
        depth = rng.uniform(0.2, 0.95)
        paint["beard"] = 1 - depth * np.clip(soft * 1.4, 0, 1)
    return paint


class Person:
    """One random person in one light in front of one camera."""

    def __init__(self, human: Human, rng: np.random.Generator, beaming: float = 0.0) -> None:
        """Draws everything that the person's ten pictures share, and the reference picture.

        Args:
            human: the base human.
            rng: source of chance.
            beaming: share of people who smile so broadly that their teeth show at rest, like many on photographs.
        """
        identity = random_identity(human, rng)
        figure = Figure(human, identity)
        paint = random_paint(rng, identity.macro.gender > 0.5)
        self._base = _beam(rng) if beaming and rng.random() < beaming else _base_expression(rng)
        self._light = random_light(rng, identity.tints)
        self._background = random_background(rng)
        view_seed = int(rng.integers(2**32))
        for setback in _SETBACKS_DM:
            self._head = Head(figure, _TARGETS, paint, setback)
            self._reference_vertices = self._head.vertices(self._base)
            landmarks = self._head.landmarks(self._reference_vertices)
            self._view = random_view(np.random.default_rng(view_seed), self._head, landmarks)
            self.reference: Drawing = self._draw(self._reference_vertices)
            shown = self.reference.hit[self.reference.hit >= 0]
            teeth = np.count_nonzero(self._head.surface.part[shown] == PART_ID["teeth"])
            if teeth <= _TEETH_PIXELS_AT_REST or self._base.get(_JAW):
                break
        self._inner = of_parts(self._head.surface, ("teeth", "tongue"))
        self._focus = float(rng.choice([0.0, rng.uniform(0.3, 1.2)]))
        self._gamma = float(rng.uniform(0.8, 1.25))

    def picture(self, mouth: np.ndarray) -> tuple[np.ndarray, ...]:
        """Image (uint8 BGR), inside (uint8 BGR), flow (float16 pixels), seen and opened (uint8) of a mouth vector."""
        weights = dict(self._base)
        for name, weight in target_weights(mouth).items():
            weights[name] = weights.get(name, 0.0) + weight
        vertices = self._head.vertices(weights)
        drawing = self._draw(vertices)
        inside = draw_inside(self._inner, vertices, self._view).image
        moved = motion(self._head.surface, drawing, self.reference, self._reference_vertices, self._view)
        shares = [np.round(share * 255).astype(np.uint8) for share in (moved.seen, moved.opened)]
        return self._developed(drawing.image), inside, moved.flow.astype(np.float16), shares[0], shares[1]

    def _draw(self, vertices: np.ndarray) -> Drawing:
        return draw(self._head.surface, vertices, self._view, self._light, self._background, samples=2)

    def _developed(self, image: np.ndarray) -> np.ndarray:
        """Focus and exposure of the person's camera."""
        if self._focus:
            image = cv2.GaussianBlur(image, (0, 0), self._focus)
        return cv2.LUT(image, np.round(255 * (np.arange(256) / 255) ** self._gamma).astype(np.uint8))


def _beam(rng: np.random.Generator) -> dict[str, float]:
    """A broad smile with parted lips."""
    vector = np.zeros(len(MOUTH_SHAPES))
    for name, least, most in (
        ("mouthSmile", 0.3, 1.1), ("mouthUpperUp", 0.1, 1.0), ("mouthLowerDown", 0.2, 1.0),
        ("mouthStretch", 0.0, 0.8), ("jawOpen", 0.0, 0.12),
    ):  # fmt: skip
        vector[MOUTH_SHAPES.index(name)] = rng.uniform(least, most)
    return {**target_weights(vector), **dict.fromkeys(_BLINK, float(rng.uniform(0, 0.4)))}


def _base_expression(rng: np.random.Generator) -> dict[str, float]:
    """What the face does all the time: a faint smile, half-closed eyes, sometimes slightly parted lips."""
    vector = np.zeros(len(MOUTH_SHAPES))
    if rng.random() < 0.4:
        vector[MOUTH_SHAPES.index("mouthSmile")] = rng.uniform(0, 0.45)
    if rng.random() < 0.2:
        vector[MOUTH_SHAPES.index("mouthPress")] = rng.uniform(0, 0.4)
    if rng.random() < 0.2:
        vector[MOUTH_SHAPES.index("jawOpen")] = rng.uniform(0.02, 0.12)
        vector[MOUTH_SHAPES.index("mouthUpperUp")] = rng.uniform(0, 0.4)
        vector[MOUTH_SHAPES.index("mouthLowerDown")] = rng.uniform(0, 0.25)
    base = target_weights(vector)
    blink = float(rng.uniform(0, 0.25) if rng.random() < 0.8 else rng.uniform(0.25, 1))
    return {**base, **dict.fromkeys(_BLINK, blink)}


def make_shard(human: Human, seed: int, shard: int, people: int, beaming: float = 0.0) -> dict[str, np.ndarray]:
    """All arrays of one shard.

    Returns:
        ``images`` and ``insides`` (people, MOUTHS, s, s, 3) uint8 BGR, ``mouths`` (people, MOUTHS, shapes) float32,
        ``flow`` (people, MOUTHS, s, s, 2) float16 pixels, ``seen`` and ``opened`` (people, MOUTHS, s, s) uint8 shares
        of 255.
    """
    rng = np.random.default_rng([seed, shard])
    side = PICTURE_SIZE
    arrays: dict[str, np.ndarray] = {
        "images": np.zeros((people, MOUTHS, side, side, 3), np.uint8),
        "insides": np.zeros((people, MOUTHS, side, side, 3), np.uint8),
        "mouths": np.zeros((people, MOUTHS, len(MOUTH_SHAPES)), np.float32),
        "flow": np.zeros((people, MOUTHS, side, side, 2), np.float16),
        "seen": np.zeros((people, MOUTHS, side, side), np.uint8),
        "opened": np.zeros((people, MOUTHS, side, side), np.uint8),
    }
    for index in range(people):
        person = Person(human, rng, beaming)
        arrays["mouths"][index] = random_mouths(rng)
        for k, mouth in enumerate(arrays["mouths"][index]):
            picture = person.picture(mouth)
            for name, value in zip(("images", "insides", "flow", "seen", "opened"), picture, strict=True):
                arrays[name][index, k] = value
    return arrays


def write_shard(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes one ``.npy`` per array (they can be memory-mapped); the folder appears when it is complete."""
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for name, value in arrays.items():
        np.save(partial / f"{name}.npy", value)
    partial.rename(folder)


def main(argv: list[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m engine.studio.pairs", description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True, help="unpacked assets directory")
    parser.add_argument("--out", type=Path, required=True, help="directory for the shards")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--people", type=int, default=800)
    parser.add_argument("--beaming", type=float, default=0.0, help="share of people whose teeth show at rest")
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    human = Human(Assets.open(options.assets))
    for shard in range(-(-options.people // PEOPLE_PER_SHARD)):
        folder = options.out / f"{options.seed:03d}-{shard:04d}"
        if folder.exists():
            continue
        started = time.monotonic()
        write_shard(folder, make_shard(human, options.seed, shard, PEOPLE_PER_SHARD, options.beaming))
        print(f"{folder.name}: {PEOPLE_PER_SHARD} people in {time.monotonic() - started:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
