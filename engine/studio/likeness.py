"""Whether two videos show the same person, by the shape of the face: keeps ``finetune`` from learning from a stranger.

Place in the flow: drawn people, each in several sittings -> ``fit`` -> ``likeness.npz`` -> ``Likeness`` ->
``finetune_data``.
Command: ``python -m engine studio likeness --assets DIR`` (about 20 CPU seconds for 10 people) writes the file and
prints how often people it has not seen are told apart.

The map is a linear discriminant (R. A. Fisher, 1936) of the 468 points: what differs between sittings of one person
(lens, light, turn, speech) counts little, what differs between people counts much.

Invariants:
    * position, size and turn of the head do not matter; lens and light hardly do;
    * this is a guard against mistakes, no proof of who somebody is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.array_file import open_arrays
from engine.avatar.landmarks import EYE_CORNERS_LEFT, EYE_CORNERS_RIGHT, POINTS, FaceMesh
from engine.errors import BackendFailed
from engine.studio.assets import Assets
from engine.studio.human import Human
from engine.studio.sync_expert_lips import random_head, sitting

FILE = Path(__file__).with_name("likeness.npz")
LIMIT = 1.6
"""Distance from which on two faces are taken for two people: low enough to refuse nearly all strangers, and hardly ever
reached by one person's videos of one day (0.2 to 1.2)."""

_STEADY = (
    33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 10, 151, 9, 8, 127, 356, 234, 454, 93, 323, 21, 251,
    162, 389, 54, 284, 103, 332, 67, 297, 109, 338,
)  # fmt: skip
"""Points by which faces are laid over each other: eye corners, nose, forehead, temples."""
_SITTINGS, _PICTURES = 3, 5
_DIRECTIONS, _NUMBERS = 20, 8
_RIDGE = 0.2
_HELD_OUT_EVERY = 4


@dataclass(frozen=True)
class Likeness:
    """A linear map from the shape of a face to a few numbers in which people differ.

    Attributes:
        face: (468, 3) float32 the mean face, to lay others over.
        weights: (468 * 3, _NUMBERS) float32.
    """

    face: np.ndarray
    weights: np.ndarray

    @classmethod
    def load(cls, path: Path = FILE) -> Likeness:
        """Reads the map that comes with the studio.

        Raises:
            BackendFailed: the file is missing or damaged.
        """
        try:
            with open_arrays(path) as file:
                return cls(file["face"].astype(np.float32), file["weights"].astype(np.float32))
        except (OSError, ValueError, KeyError) as error:
            raise BackendFailed("model_unreadable", f"{path.name} cannot be read: {error}.") from error

    def save(self, path: Path) -> None:
        """Writes the file."""
        np.savez_compressed(path, face=self.face.astype(np.float16), weights=self.weights.astype(np.float16))
        path.chmod(0o644)

    def numbers(self, points: np.ndarray) -> np.ndarray:
        """(_NUMBERS,) of a person seen in some pictures.

        Args:
            points: (N, 468, 3) pixels, N at least 1; ten or more pictures with a moving mouth are steady.
        """
        return shape_of(points, self.face).ravel() @ self.weights

    def distance(self, first: np.ndarray, second: np.ndarray) -> float:
        """How much two people differ; above ``LIMIT`` they are two.

        Args:
            first, second: (N, 468, 3) pixels each.
        """
        return float(np.linalg.norm(self.numbers(first) - self.numbers(second)) / np.sqrt(_NUMBERS))


def shape_of(points: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The median shape of a face over some pictures, laid over another.

    Args:
        points: (N, 468, 3) pixels.
        face: (468, 3).

    Returns:
        (468, 3) in the units of ``face``.
    """
    return np.median([_laid_over(one.astype(np.float64), face) for one in points], 0)


def _laid_over(points: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Shift, turn and scale that lay the steady points over those of ``face`` best, in space (S. Umeyama, 1991)."""
    steady = list(_STEADY)
    from_middle, to_middle = points[steady].mean(0), face[steady].mean(0)
    source, target = points[steady] - from_middle, face[steady] - to_middle
    left, sizes, right = np.linalg.svd(source.T @ target)
    # A mirror image is no turn.
    upright = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    scale = (sizes * upright).sum() / (source**2).sum()
    return (points - from_middle) @ (left * upright) @ right * scale + to_middle


def mean_face(points: np.ndarray) -> np.ndarray:
    """The mean of faces in all directions, outer eye corners 1 apart.

    Args:
        points: (N, 468, 3) pixels.
    """
    eyes = points[:, [EYE_CORNERS_LEFT[0], EYE_CORNERS_RIGHT[1]]]
    unit = np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)
    return ((points - eyes.mean(1, keepdims=True)) / unit[:, None, None]).mean(0)


def fit(person: np.ndarray, shapes: np.ndarray, face: np.ndarray) -> Likeness:
    """The map that tells people apart best.

    Args:
        person: (N,) who; everybody several times.
        shapes: (N, 468, 3) of ``shape_of``.
        face: (468, 3) over which they are laid.
    """
    flat = shapes.reshape(len(shapes), -1)
    names, index, count = np.unique(person, return_inverse=True, return_counts=True)
    middles = np.stack([flat[person == name].mean(0) for name in names])
    directions = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:_DIRECTIONS].T
    within = (flat - middles[index]) @ directions
    # A mean over few sittings lies too near to each of them.
    spread = within.T @ within / len(within) * (count.mean() / (count.mean() - 1))
    spread += _RIDGE * np.trace(spread) / len(spread) * np.eye(len(spread))
    even = directions @ np.linalg.cholesky(np.linalg.inv(spread))
    between = (middles - middles.mean(0)) @ even
    weights = even @ np.linalg.svd(between, full_matrices=False)[2][:_NUMBERS].T
    return Likeness(face.astype(np.float32), weights.astype(np.float32))


def error_rates(person: np.ndarray, numbers: np.ndarray, limit: float = LIMIT) -> tuple[float, float]:
    """How often the same person is refused, and another one passes, over all pairs.

    Args:
        person: (N,) who.
        numbers: (N, _NUMBERS) of ``Likeness.numbers``.
        limit: distance from which on a face is refused.
    """
    first, second = np.triu_indices(len(person), 1)
    distances = np.linalg.norm(numbers[first] - numbers[second], axis=1) / np.sqrt(_NUMBERS)
    same = person[first] == person[second]
    return float((distances[same] > limit).mean()), float((distances[~same] <= limit).mean())


def sittings(assets: Assets, people: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Random people, each with several lights, lenses and turns of the head, talking.

    Yields:
        Number of the person and (N, 468, 3) points in a sitting's pictures.
    """
    human, mesh = Human(assets), FaceMesh.load()
    for number in range(people):
        rng = np.random.default_rng([seed, number])
        head, tints = random_head(human, rng)
        for _ in range(_SITTINGS):
            points = sitting(head, tints, mesh, rng, _PICTURES)[1]
            if len(points):
                yield number, points


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits on three quarters of the people, reports on the rest, then fits on all and writes."""
    parser = argparse.ArgumentParser(prog="python -m engine studio likeness", description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True, help="unpacked assets directory")
    parser.add_argument("--people", type=int, default=130)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    numbers, pictures = zip(*sittings(Assets.open(options.assets), options.people, options.seed), strict=True)
    person = np.array(numbers)
    face = mean_face(np.concatenate(pictures))
    shapes = np.stack([shape_of(points, face) for points in pictures]).reshape(-1, POINTS, 3)
    held_out = person % _HELD_OUT_EVERY == 0
    trial = fit(person[~held_out], shapes[~held_out], face)
    refused, passed = error_rates(person[held_out], shapes[held_out].reshape(held_out.sum(), -1) @ trial.weights)
    print(f"people it has not seen: refuses {refused:.1%} of the same, lets {passed:.1%} of others pass")
    fit(person, shapes, face).save(options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
