"""A lip-sync model that another process runs: this one only sends sound and takes patches.

Place in the flow: ``LipJob`` -> ``RemoteLipSync`` -> shared memory, Unix socket -> ``model_host`` -> ``FacePatch``.

Invariants:
    * a patch is bit for bit what the model itself would give;
    * avatars are prepared by that process, from the folder that this one loaded them from;
    * while the process is away, predictions fail at once with ModelAway; they succeed again when it is back.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.audio.window import MelWindow
from engine.errors import BackendFailed
from engine.lipsync.base import FacePatch, LipJob
from engine.remote.arena import Arena
from engine.remote.link import PREPARE_S, Lane, Link, away, open_link
from engine.remote.prepare import prepare_members
from engine.remote.wire import (
    MAX_JOBS,
    NUMBER,
    PATCH,
    PREDICT_JOB,
    Broken,
    Kind,
    message,
    read_words,
    rows,
    words,
)

if TYPE_CHECKING:
    from engine.avatar.bundle import Avatar

_ALIGNED = 64


class RemotePrepared:
    """An avatar that the model process has prepared.

    Attributes:
        avatar: the avatar.
        patch_bytes: room that its patches need, image and mask.
    """

    def __init__(self, avatar: Avatar, link: Link) -> None:
        self.avatar = avatar
        self.patch_bytes = avatar.size[0] * avatar.size[1]
        self._question = words(Kind.PREPARE, **prepare_members(avatar))
        # In a box of its own, so that letting go of this object can still read it.
        self._handle: list[int] = []
        self._link = link
        self._error: BackendFailed | None = None
        weakref.finalize(self, _let_go, weakref.ref(link), self._handle)

    @property
    def handle(self) -> int:
        """What the process knows it by. Raises BackendFailed."""
        if self._error is not None:
            raise self._error
        if not self._handle:
            raise away()
        return self._handle[0]

    def renew(self, lane: Lane) -> None:
        """Has it prepared. Raises BackendFailed, or OSError when the process is gone."""
        if self._handle:
            # Where the process is the same one still, it would keep what nobody asks for.
            self._link.release(self._handle.pop())
        try:
            _, body = lane.ask(self._question, Kind.PREPARED, timeout_s=PREPARE_S)
        except BackendFailed as error:
            self._error = error
            raise
        self._error = None
        self._handle.append(int(read_words(body)["handle"]))


def _let_go(link: weakref.ref[Link], handle: list[int]) -> None:
    alive = link()
    if alive is not None and handle:
        alive.release(handle[0])


class RemoteLipSync:
    """See ``engine.lipsync.base.LipSync``."""

    def __init__(self, link: Link, model: dict[str, Any]) -> None:
        """Takes an open link; ``connect`` is the usual way. Args: model: what the process says of its model."""
        self.crop_size = int(model["crop_size"])
        self.window = MelWindow(columns=int(model["columns"]), offset=int(model["offset"]))
        self.batch_limit = min(int(model["batch_limit"]), MAX_JOBS)
        self._link = link

    @classmethod
    def connect(cls, address: str) -> RemoteLipSync:
        """Connects to a model process.

        Raises:
            ModelAway: nothing answers at this address.
        """
        link, welcome = open_link(address)
        return cls(link, welcome["lipsync"])

    def prepare(self, avatar: Avatar) -> RemotePrepared:
        """Has the avatar prepared over there, and whenever that process was restarted.

        Raises:
            BackendFailed: the model cannot use it; it is in no folder; or the folder holds another one by now.
        """
        prepared = RemotePrepared(avatar, self._link)
        with self._link.lane() as lane:
            prepared.renew(lane)
        self._link.use(prepared)
        return prepared

    def predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        """One patch per job, in order.

        Raises:
            ModelAway: the process is away.
            BackendFailed: the model failed.
        """
        patches: list[FacePatch] = []
        for start in range(0, len(jobs), MAX_JOBS):
            patches += self._predict(jobs[start : start + MAX_JOBS])
        return patches

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """The process warms itself up; this makes the first connection of the calling thread."""
        with self._link.lane():
            pass

    def _predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        mels = [np.ascontiguousarray(job.mel, np.float32) for job in jobs]
        prepared = [_own(job) for job in jobs]
        while True:
            at, places = 0, []
            for mel, own in zip(mels, prepared, strict=True):
                places.append((at, at + _aligned(mel.nbytes)))
                at += _aligned(mel.nbytes) + _aligned(own.patch_bytes)
            question = b"".join(
                PREDICT_JOB.pack(
                    own.handle, job.frame_index, job.strength, job.urgency.due_s, job.urgency.owner,
                    job.urgency.priority, mel_at, patch_at, own.patch_bytes,
                )
                for job, own, (mel_at, patch_at) in zip(jobs, prepared, places, strict=True)
            )  # fmt: skip
            with self._link.lane() as lane:
                arena = lane.arena(at)
                for mel, (mel_at, _) in zip(mels, places, strict=True):
                    arena.part(mel_at, mel.nbytes)[:] = mel.reshape(-1).view(np.uint8)
                kind, body = lane.ask(message(Kind.PREDICT, question), Kind.PATCHES, Kind.TOO_SMALL)
                if kind == Kind.PATCHES:
                    found = rows(PATCH, body)
                    if len(found) != len(jobs):
                        raise Broken("not one patch for each job")
                    return [_patch(row, arena, patch_at) for row, (_, patch_at) in zip(found, places, strict=True)]
            needed = int(NUMBER.unpack(body)[0])
            for own in prepared:
                own.patch_bytes = max(own.patch_bytes, needed)


def _own(job: LipJob) -> RemotePrepared:
    if not isinstance(job.prepared, RemotePrepared):
        raise TypeError("the job's avatar was not prepared by this model")
    return job.prepared


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _patch(row: tuple[Any, ...], arena: Arena, at: int) -> FacePatch:
    y1, y2, x1, x2, height, width, has_mouth, *mouth = row
    pixels = height * width
    # Copied, because the next question on this lane uses the same memory.
    image = arena.part(at, 3 * pixels).reshape(height, width, 3).copy()
    mask = arena.part(at + 3 * pixels, pixels).reshape(height, width).copy()
    return FacePatch(image, (y1, y2, x1, x2), mask, np.array(mouth, np.float32) if has_mouth else None)
