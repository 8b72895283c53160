"""Turns shards of training pairs into batches: shifted, mirrored, recoloured and degraded like real cameras do.

Place in the flow: ``pairs`` (shards on disk) -> batches -> ``picture_train``.

Invariants:
    * reference and target of a pair get the same shift, mirror image and colours, only the reference gets noise and
      JPEG marks: the network must not learn to invent noise; the inside keeps the studio's colours;
    * shards are memory-mapped, so the data set may be larger than memory, and may grow while it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.lipsync.builtin.crop import CROP_SIZE

_ARRAYS = ("images", "insides", "mouths", "flow", "seen", "opened")
_REST_SHARE = 0.03


@dataclass(frozen=True)
class Batch:
    """Training pairs, s = CROP_SIZE.

    Attributes:
        reference: (B, 3, s, s) float32 BGR in [0, 1], mouth at rest, with camera noise.
        target: (B, 3, s, s) float32, without noise.
        inside: (B, 3, s, s) float32, teeth and tongue of the target without skin and lips, in the studio's fixed light.
        mouth: (B, 10) float32.
        flow: (B, 2, s, s) float32 true backward warp, grid units.
        seen: (B, 1, s, s) float32 share of the pixel where ``flow`` is true.
        opened: (B, 1, s, s) float32 share of the pixel that shows the inside of the mouth.
    """

    reference: Tensor
    target: Tensor
    inside: Tensor
    mouth: Tensor
    flow: Tensor
    seen: Tensor
    opened: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    @property
    def weight(self) -> Tensor:
        """(B, 1, s, s) in [0, 1]: 1 around everything that moves or opens."""
        moved = (self.flow * (CROP_SIZE / 4)).norm(dim=1, keepdim=True) * self.seen
        active = torch.maximum(moved.clamp(max=1), self.opened)
        coarse = functional.max_pool2d(functional.max_pool2d(active, 4), 3, 1, 1)
        return functional.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)


class Pairs:
    """All shards of a folder whose names begin with one of some seeds."""

    def __init__(self, folder: Path, seeds: tuple[str, ...]) -> None:
        """Opens what is there now.

        Args:
            folder: where ``pairs`` wrote its shards.
            seeds: beginnings of shard names, e.g. ``("001-",)``.
        """
        self._folder, self._seeds = folder, seeds
        self._shards: dict[str, dict[str, np.ndarray]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Opens shards that were finished since."""
        for path in sorted(self._folder.iterdir()):
            unfinished = path.name.startswith(".")
            if path.is_dir() and path.name.startswith(self._seeds) and not unfinished and path.name not in self._shards:
                self._shards[path.name] = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        self._people = [(name, i) for name, shard in self._shards.items() for i in range(len(shard["images"]))]

    def __len__(self) -> int:
        """Number of people."""
        return len(self._people)

    def batch(self, rng: np.random.Generator, people: int, mouths: int) -> Batch:
        """Draws augmented pairs: some mouths each of some people, those of one person after one another."""
        items = []
        for person in rng.choice(len(self._people), people, replace=people > len(self._people)):
            name, index = self._people[person]
            shard = self._shards[name]
            shift = rng.integers(0, shard["images"].shape[2] - CROP_SIZE + 1, 2)
            mirrored = rng.random() < 0.5
            for target in rng.choice(np.arange(1, shard["mouths"].shape[1]), mouths, replace=False):
                kept = 0 if rng.random() < _REST_SHARE else int(target)
                items.append(_pair(shard, index, kept, shift, mirrored=mirrored))
        return _augmented(_stacked(items), rng, mouths)

    def exact(self, person: int, mouths: slice) -> Batch:
        """Some mouths of one person as they are: no shift, no mirror image, no noise."""
        name, index = self._people[person]
        shard = self._shards[name]
        centre = np.full(2, (shard["images"].shape[2] - CROP_SIZE) // 2)
        chosen = range(shard["mouths"].shape[1])[mouths]
        return _stacked([_pair(shard, index, k, centre, mirrored=False) for k in chosen])


def _pair(
    shard: dict[str, np.ndarray], person: int, target: int, shift: np.ndarray, *, mirrored: bool
) -> tuple[np.ndarray, ...]:
    rows, columns = (slice(int(s), int(s) + CROP_SIZE) for s in shift)
    reference = shard["images"][person, 0, rows, columns]
    picture = shard["images"][person, target, rows, columns]
    inside = shard["insides"][person, target, rows, columns]
    flow = shard["flow"][person, target, rows, columns].astype(np.float32) * (2 / CROP_SIZE)
    seen, opened = (shard[name][person, target, rows, columns, None] for name in ("seen", "opened"))
    arrays = [reference, picture, inside, flow, seen, opened]
    if mirrored:
        arrays = [array[:, ::-1] for array in arrays]
        arrays[3] = arrays[3] * np.array([-1, 1], np.float32)
    return (*arrays, shard["mouths"][person, target])


def _stacked(items: list[tuple[np.ndarray, ...]]) -> Batch:
    columns = [torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True)]
    reference, target, inside, flow, seen, opened = (column.permute(0, 3, 1, 2) for column in columns[:6])
    reference, target, inside, seen, opened = (x.float() / 255 for x in (reference, target, inside, seen, opened))
    return Batch(reference, target, inside, columns[6].float(), flow, seen, opened)


def _recolouring(size: int, rng: np.random.Generator) -> list[Tensor]:
    """Curve, gain and lift of so many cameras: contrast, exposure, white balance, haze; (size, 1 or 3, 1, 1) each."""
    curve = rng.normal(0, 0.25, (size, 1, 1, 1))
    gain = np.exp(rng.normal(0, 0.10, (size, 1, 1, 1)) + rng.normal(0, 0.05, (size, 3, 1, 1)))
    lift = rng.normal(0, 0.03, (size, 1, 1, 1))
    return [torch.from_numpy(value).float() for value in (curve, gain, lift)]


def _recoloured(pictures: Tensor, colours: list[Tensor]) -> Tensor:
    curve, gain, lift = colours
    # x + c x (1 - x) bends mid-tones like a gamma does, at a tenth of its cost.
    return (pictures * (1 + curve * (1 - pictures)) * gain + lift).clamp(0, 1)


def _augmented(batch: Batch, rng: np.random.Generator, mouths: int) -> Batch:
    """Augments pairs of which every ``mouths`` in a row share a person, and so a camera."""
    colours = _recolouring(len(batch.target) // mouths, rng)
    reference = degrade(_recoloured(batch.reference[::mouths], colours), rng).repeat_interleave(mouths, 0)
    target = _recoloured(batch.target, [colour.repeat_interleave(mouths, 0) for colour in colours])
    return replace(batch, reference=reference, target=target)


def degrade(reference: Tensor, rng: np.random.Generator) -> Tensor:
    """Camera noise on half of the pictures, JPEG marks on a quarter."""
    size = len(reference)
    level = rng.uniform(0, 0.02, (size, 1, 1, 1)) * (rng.random((size, 1, 1, 1)) < 0.5)
    noise = rng.standard_normal(tuple(reference.shape), dtype=np.float32)
    noisy = (reference + torch.from_numpy(level.astype(np.float32) * noise)).clamp(0, 1)
    for i in np.flatnonzero(rng.random(size) < 0.25):
        image = np.round(noisy[i].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))])[1]
        noisy[i] = torch.from_numpy(cv2.imdecode(coded, cv2.IMREAD_COLOR)).permute(2, 0, 1).float() / 255
    return noisy
