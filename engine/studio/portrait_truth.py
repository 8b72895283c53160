"""What a portrait's mouth really looks like for many mouth vectors: truth to fine-tune and judge the picture network.

Place in the flow: ``Stage`` -> one scene per pose (rest first, then mouths) -> path tracer -> crops with mouth vectors.

Invariants:
    * the pictures of one pose differ in the mouth vector alone: same pose, light and sampling pattern;
    * pictures are cut by the rule of ``engine.lipsync.builtin.crop``, at native resolution, with a margin around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from engine.errors import NotFound
from engine.lipsync.builtin.crop import mouth_boxes
from engine.studio.idle_motion import Moment
from engine.studio.mouth import VISEMES, viseme_vector
from engine.studio.portrait_scene import Stage
from engine.studio.scene import Scene
from engine.types import MOUTH_SHAPES

MARGIN_PX = 12
"""Pictures reach this far beyond the mouth box, so that training can shift the crop."""


def truth_mouths(poses: int, mouths: int, seed: int) -> np.ndarray:
    """Mouth vectors to draw: every viseme, every single shape, and mixtures of visemes.

    Args:
        poses: number of poses.
        mouths: mouths per pose, without rest.
        seed: of the chance.

    Returns:
        (poses, mouths + 1, len(MOUTH_SHAPES)) float32 in [0, 1]; the first of every pose is rest.
    """
    rng = np.random.default_rng(seed)
    visemes = np.stack([viseme_vector(name) for name in VISEMES if name != "sil"])
    single = np.eye(len(MOUTH_SHAPES), dtype=np.float32)
    wanted = [*visemes, *visemes, *single, *(single * rng.uniform(0.3, 0.8, (len(single), 1)))]
    while len(wanted) < poses * mouths:
        chosen = rng.choice(len(visemes), rng.integers(2, 4), replace=False)
        mixed = rng.dirichlet(np.ones(len(chosen))) @ visemes[chosen] * rng.uniform(0.4, 1.25)
        wanted.append(np.clip(mixed + rng.normal(0, 0.04, mixed.shape) * (mixed > 0), 0, 1))
    order = rng.permutation(len(wanted))[: poses * mouths]
    spoken = np.stack(wanted)[order].reshape(poses, mouths, -1)
    rest = np.zeros((poses, 1, len(MOUTH_SHAPES)))
    return np.concatenate([rest, spoken], axis=1).astype(np.float32)


def truth_scene(stage: Stage, moment: Moment, box: np.ndarray, mouths: Sequence[np.ndarray], size: int) -> Scene:
    """The scene of one pose: a frame per mouth, each a cut-out around the mouth.

    Args:
        stage: the portrait.
        moment: the pose, from its idle loop.
        box: (4,) int y1, y2, x1, x2 of the mouth square.
        mouths: mouth vectors; rest is all zero.
        size: side of the whole picture, pixels.
    """
    y1, y2, x1, x2 = (int(value) for value in box)
    edges = np.array([x1 - MARGIN_PX, y1 - MARGIN_PX, x2 + MARGIN_PX, y2 + MARGIN_PX], np.float32)
    moments = [replace(moment, mouth=mouth if mouth.any() else None) for mouth in mouths]
    return stage.scene(moments, np.tile(edges / size, (len(moments), 1)))


def pose_boxes(stage: Stage, moments: Sequence[Moment], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks (N, 5, 2) and mouth boxes (N, 4) of an idle loop."""
    landmarks = stage.landmarks(moments, size)
    return landmarks, mouth_boxes(landmarks)


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 BGR of a PNG file.

    Raises:
        NotFound: there is no readable picture.
    """
    picture = cv2.imread(str(path))
    if picture is None:
        raise NotFound("picture_missing", f"{path} is no readable picture; delete it and draw again.")
    return np.asarray(picture, np.uint8)


def collect_truth(pictures: Path, out: Path, mouths: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> None:
    """Gather the drawn pictures of one pose.

    Args:
        pictures: directory of ``0000.png`` …, one per mouth.
        out: ``.npz`` to write: ``images`` (M, side, side, 3) uint8 BGR of the mouth box, ``wide`` the same with
            ``MARGIN_PX`` around, ``mouths`` (M, shapes) float32, ``landmarks`` (5, 2) float32 in ``wide`` pixels.
        mouths: (M, shapes).
        box: (4,) y1, y2, x1, x2.
        landmarks: (5, 2) in the whole picture.
    """
    wide = np.stack([read_picture(pictures / f"{number:04d}.png") for number in range(len(mouths))])
    inner = slice(MARGIN_PX, -MARGIN_PX)
    corner = np.array([box[2] - MARGIN_PX, box[0] - MARGIN_PX], np.float32)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out, images=wide[:, inner, inner], wide=wide, mouths=mouths, landmarks=(landmarks - corner).astype(np.float32)
    )
