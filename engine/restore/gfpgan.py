"""The face restorer on GFPGAN's network: aligns, restores what the quality level asks for, and pastes the change.

Place in the flow: picture with a pasted mouth -> ``GfpganRestorer`` -> picture that is sent.

Invariants:
    * no detector and no parser runs: landmarks come with the avatar;
    * the network computes only the window that is pasted;
    * jobs of one region share a batch, whichever sessions they belong to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.restore.avatar_cache import AvatarCache
from engine.restore.base import LIVE_LEVEL, MAX_LEVEL, Progress, Restored, RestoreJob
from engine.restore.enhancer import Enhancer
from engine.restore.ffhq import align, alignment
from engine.restore.region import FACE, LOWER_FACE, MOUTH, Region, change, paste_change, region_of
from engine.restore.restored_avatar import restore_pictures
from engine.restore.temporal import Trace, reuse, shade_of, steady

if TYPE_CHECKING:
    from engine.avatar.bundle import Avatar

CACHE_FOLDER = "avatars"
"""Below a folder of weights: avatars that were restored with them."""
_BOXED_LEVELS = (2, 3)
"""At these levels pixels that no model drew stay what they are."""


class GfpganRestorer:
    """Restores live pictures and avatars.

    Args:
        enhancer: runs the network.
        cache_dir: where restored avatars are kept; must be of this network alone. None keeps nothing.
    """

    def __init__(self, enhancer: Enhancer, cache_dir: Path | None = None) -> None:
        self._enhancer = enhancer
        self._cache_dir = cache_dir

    @property
    def batch_limit(self) -> int:
        """Pictures of all sessions that are quickest restored at once."""
        return self._enhancer.batch

    @staticmethod
    def load(folder: Path, threads: int = 1, precision: str = "auto") -> GfpganRestorer:
        """Loads a folder of weights onto the GPU where there is one, else onto OpenVINO.

        Args:
            folder: with ``weights.toml`` and ``model.safetensors``.
            threads: CPU threads of one restoration.
            precision: "auto", "f32" or "bf16"; "int8", which costs this network too much, counts as "auto".

        Raises:
            WeightsInvalid: the folder is incomplete, damaged, or holds another architecture.
        """
        from engine.restore.torch_runtime import TorchEnhancer, has_gpu

        precision = "auto" if precision == "int8" else precision
        enhancer: Enhancer
        if has_gpu():
            enhancer = TorchEnhancer.load(folder, "cuda", precision)
        else:
            from engine.restore.openvino_runtime import OpenvinoEnhancer

            enhancer = OpenvinoEnhancer.load(folder, precision, threads)
        return GfpganRestorer(enhancer, folder / CACHE_FOLDER)

    def restore(self, jobs: Sequence[RestoreJob]) -> list[Restored]:
        """See ``FaceRestorer.restore``.

        Raises:
            BackendFailed: the device failed.
            ValueError: a job's level is none, or its landmarks are no face.
        """
        results: list[Restored | None] = [None] * len(jobs)
        waiting: dict[Region, list[_Work]] = defaultdict(list)
        for index, job in enumerate(jobs):
            if not 0 <= job.level <= MAX_LEVEL:
                raise ValueError(f"there is no quality level {job.level}")
            if job.level < LIVE_LEVEL:
                results[index] = Restored(job.image, None)
                continue
            work = _Work(index, job, self._enhancer.size)
            if job.level == LIVE_LEVEL and work.last is not None and not work.last.reused:
                results[index] = work.reused()
            else:
                waiting[work.region].append(work)
        for region, works in waiting.items():
            window = region.window(self._enhancer.size)
            restored = self._enhancer.enhance(np.stack([work.face for work in works]), window)
            for work, result in zip(works, restored, strict=True):
                results[work.index] = work.finished(result)
        return [result for result in results if result is not None]

    def restore_avatar(self, avatar: Avatar, progress: Progress | None = None) -> Avatar:
        """See ``FaceRestorer.restore_avatar``."""
        cache = AvatarCache(self._cache_dir) if self._cache_dir is not None else None
        return restore_pictures(avatar, self._enhancer, cache, progress)

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """Makes the first real call as fast as every other one; on a CPU only for the mouth, which is all it may do."""
        regions = (MOUTH, LOWER_FACE, FACE) if self._enhancer.batch > 1 else (MOUTH,)
        self._enhancer.warmup(batch_sizes, [region.window(self._enhancer.size) for region in regions])


class _Work:
    """One job under way."""

    def __init__(self, index: int, job: RestoreJob, size: int) -> None:
        self.index = index
        self.region = region_of(job.level)
        self._job = job
        self._size = size
        self._matrix = alignment(job.landmarks, size)
        self.face = align(job.image, self._matrix, size)
        self._shade = shade_of(self.face[self.region.window(size).slices])
        trace = job.trace
        self.last = trace if isinstance(trace, Trace) and trace.key == (self.region, size) else None

    def reused(self) -> Restored:
        assert self.last is not None
        changed = reuse(self._shade, self.last)
        return Restored(self._paste(changed), Trace(self.last.key, self._shade, changed, reused=True))

    def finished(self, restored: np.ndarray) -> Restored:
        changed = change(self.face, restored, self.region)
        if self.last is not None:
            changed = steady(self._shade, changed, self.last)
        return Restored(self._paste(changed), Trace((self.region, self._size), self._shade, changed))

    def _paste(self, changed: np.ndarray) -> np.ndarray:
        box = self._job.box if self._job.level in _BOXED_LEVELS else None
        return paste_change(self._job.image, changed, self.region, self._matrix, self._size, box)
