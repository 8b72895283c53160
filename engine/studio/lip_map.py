"""Measured lips -> mouth vector: a small map learned on synthetic people whose mouths are known.

Place in the flow: ``sync_expert_lips`` (drawn and tracked mouths) -> ``fit`` -> ``lip_map.npz`` -> ``finetune_data``.
Command: ``python -m engine.studio.lip_map LIPS.npz`` writes the file and prints how well each shape is recovered.

Invariants:
    * lips are compared with the same person's at rest, so faces need not be alike;
    * estimates have the spread of true mouths: a plain regression answers with the mean where it is unsure, and a
      network that learns from such mumbling would exaggerate.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.array_file import open_arrays
from engine.errors import BackendFailed
from engine.evaluate.lips import LIP_NUMBERS, SHUT_GAP
from engine.types import MOUTH_SHAPES

FILE = Path(__file__).with_name("lip_map.npz")

_UNIT = 0.1
_RIDGE = 1.0
_MOST_STRETCH = 1.6
_REST_BELOW = 1e-6
_HELD_OUT_EVERY = 5
_OPENING = [MOUTH_SHAPES.index(name) for name in ("jawOpen", "mouthLowerDown", "mouthUpperUp", "tongueOut")]
_SHUT, _OPEN = 0.5 * SHUT_GAP, 1.5 * SHUT_GAP
"""Gap of the inner lips beyond rest up to which no shape that parts them is believed, and from which all are."""


@dataclass(frozen=True)
class LipMap:
    """A linear map on simple functions of lip measures.

    Attributes:
        weights: (functions, len(MOUTH_SHAPES)) float32.
    """

    weights: np.ndarray

    @classmethod
    def load(cls, path: Path = FILE) -> LipMap:
        """Reads the map that comes with the studio.

        Raises:
            BackendFailed: the file is missing or damaged.
        """
        try:
            with open_arrays(path) as file:
                return cls(file["weights"])
        except (OSError, ValueError, KeyError) as error:
            raise BackendFailed("model_unreadable", f"{path.name} cannot be read: {error}.") from error

    def mouths(self, shapes: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Mouth vectors of measured lips.

        Args:
            shapes: (N, LIP_NUMBERS) of ``lip_shape``.
            rest: (LIP_NUMBERS,) the same person's, mouth at rest.

        Returns:
            (N, len(MOUTH_SHAPES)) float32 in [0, 1].
        """
        changes = shapes - rest
        mouths = np.clip(_functions(changes) @ self.weights, 0, 1).astype(np.float32)
        # Lips that touch show no teeth: a network that learned otherwise would no longer open where it must.
        parted = np.clip((changes[:, :1] - _SHUT) / (_OPEN - _SHUT), 0, 1).astype(np.float32)
        mouths[:, _OPENING] *= parted
        return mouths


def fit(changes: np.ndarray, mouths: np.ndarray) -> LipMap:
    """The map that suits known mouths best.

    Args:
        changes: (N, LIP_NUMBERS) lip measures less those of the same person at rest.
        mouths: (N, len(MOUTH_SHAPES)) what was shown.
    """
    functions = _functions(changes)
    normal = functions.T @ functions + _RIDGE * np.eye(functions.shape[1])
    weights = np.linalg.solve(normal, functions.T @ mouths)
    made = functions @ weights
    stretch = np.clip(mouths.std(0) / np.maximum(made.std(0), 1e-6), 1.0, _MOST_STRETCH)
    return LipMap((weights * np.where(mouths.std(0) > 0, stretch, 0.0)).astype(np.float32))


def changes_from_rest(person: np.ndarray, mouths: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lip measures less each person's own at rest.

    Args:
        person: (N,) who.
        mouths: (N, len(MOUTH_SHAPES)) what was shown; zeros are rest.
        shapes: (N, LIP_NUMBERS) what was measured.

    Returns:
        (M, LIP_NUMBERS) changes and (M,) the rows they belong to; people without a rest are left out.
    """
    changes, rows = [np.zeros((0, LIP_NUMBERS))], [np.zeros(0, np.int64)]
    for who in np.unique(person):
        own = np.flatnonzero(person == who)
        still = own[mouths[own].max(1) < _REST_BELOW]
        if len(still):
            changes.append(shapes[own] - shapes[still].mean(0))
            rows.append(own)
    return np.concatenate(changes), np.concatenate(rows)


def _functions(changes: np.ndarray) -> np.ndarray:
    """(N, functions): the measures, their sizes, and a few products that lips bend by."""
    x = changes / _UNIT
    gaps = np.maximum(x[:, :3], 0)
    return np.concatenate([x, np.abs(x), gaps**2, x[:, :1] * x[:, 6:7], x[:, :1] * x[:, 12:13]], 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits on four fifths of the people, reports on the rest, then fits on all and writes."""
    parser = argparse.ArgumentParser(prog="python -m engine studio lip-map", description=__doc__.splitlines()[0])
    parser.add_argument("lips", type=Path, help="file of sync_expert_lips")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    with np.load(options.lips, allow_pickle=False) as file:
        person, mouths, shapes = file["person"], file["mouths"], file["shapes"]
    changes, rows = changes_from_rest(person, mouths, shapes)
    held_out = person[rows] % _HELD_OUT_EVERY == 0
    trial = fit(changes[~held_out], mouths[rows][~held_out])
    made, true = trial.mouths(changes[held_out], np.zeros(LIP_NUMBERS)), mouths[rows][held_out]
    for index, name in enumerate(MOUTH_SHAPES):
        if true[:, index].std() > 0:
            print(f"{name:<16} r {np.corrcoef(made[:, index], true[:, index])[0, 1]:.2f}")
    np.savez_compressed(options.out, weights=fit(changes, mouths[rows]).weights)
    options.out.chmod(0o644)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
