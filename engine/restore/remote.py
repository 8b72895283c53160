"""A face restorer that another process runs: this one only sends pictures and takes them back restored.

Place in the flow: ``RestoreJob`` -> ``RemoteRestorer`` -> shared memory, Unix socket -> ``model_host`` -> ``Restored``.

Invariants:
    * a picture is bit for bit what the restorer itself would give;
    * traces stay over there: what a session carries is their number, which ends with the last job that holds it;
    * while the process is away, everything fails at once with ModelAway.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.avatar.bundle import load_avatar
from engine.errors import BackendFailed
from engine.remote.link import PREPARE_S, Link, open_link
from engine.remote.prepare import prepare_members
from engine.remote.wire import MAX_JOBS, NUMBER, RESTORE_JOB, Broken, Kind, message, read_words, rows, words
from engine.restore.base import LIVE_LEVEL, Progress, Restored, RestoreJob

if TYPE_CHECKING:
    from engine.avatar.bundle import Avatar


class RemoteTrace:
    """What the restorer left behind over there for a session's next picture."""

    def __init__(self, number: int, boot: str, link: Link) -> None:
        self.number, self.boot = number, boot
        weakref.finalize(self, _let_go, weakref.ref(link), number)


def _let_go(link: weakref.ref[Link], number: int) -> None:
    alive = link()
    if alive is not None:
        alive.release(number)


class RemoteRestorer:
    """See ``engine.restore.base.FaceRestorer``."""

    def __init__(self, link: Link, restorer: dict[str, Any]) -> None:
        """Takes an open link; ``connect`` is the usual way. Args: restorer: what the process says of its restorer."""
        self.batch_limit = min(int(restorer["batch_limit"]), MAX_JOBS)
        self._link = link

    @classmethod
    def connect(cls, address: str) -> RemoteRestorer | None:
        """Connects to a model process; None when it restores nothing.

        Raises:
            ModelAway: nothing answers at this address.
        """
        link, welcome = open_link(address)
        return cls(link, welcome["restorer"]) if welcome["restorer"] else None

    def restore(self, jobs: Sequence[RestoreJob]) -> list[Restored]:
        """One restored picture per job, in order.

        Raises:
            ModelAway: the process is away.
            BackendFailed: the restorer failed.
        """
        results = [Restored(job.image, None) for job in jobs]
        live = [index for index, job in enumerate(jobs) if job.level >= LIVE_LEVEL]
        for start in range(0, len(live), MAX_JOBS):
            part = live[start : start + MAX_JOBS]
            for index, restored in zip(part, self._restore([jobs[index] for index in part]), strict=True):
                results[index] = restored
        return results

    def restore_avatar(self, avatar: Avatar, progress: Progress | None = None) -> Avatar:
        """Has the avatar's own pictures restored over there, where they are kept, and loads them.

        Raises:
            Cancelled: from ``progress``; ending the connection ends the work.
            ModelAway: the process is away.
            BackendFailed: the restorer failed, or what it made cannot be kept.
        """
        with self._link.lane() as lane:
            try:
                kind, body = lane.ask(
                    words(Kind.RESTORE_AVATAR, **prepare_members(avatar)), Kind.PROGRESS, Kind.AVATAR,
                    timeout_s=PREPARE_S,
                )  # fmt: skip
                while kind == Kind.PROGRESS:
                    if progress is not None:
                        members = read_words(body)
                        progress(int(members["done"]), int(members["of"]))
                    kind, body = lane.wait(Kind.PROGRESS, Kind.AVATAR)
            except BackendFailed:
                raise
            except BaseException:
                lane.close()
                raise
        folder = Path(str(read_words(body)["folder"]))
        return dataclasses.replace(load_avatar(folder), picture_model=avatar.picture_model)

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """The process warms itself up; this makes the first connection of the calling thread."""
        with self._link.lane():
            pass

    def _restore(self, jobs: Sequence[RestoreJob]) -> list[Restored]:
        images = [np.ascontiguousarray(job.image) for job in jobs]
        with self._link.lane() as lane:
            arena = lane.arena(sum(image.nbytes for image in images))
            rows_out, at, places = [], 0, []
            for job, image in zip(jobs, images, strict=True):
                arena.part(at, image.nbytes)[:] = image.reshape(-1)
                trace = job.trace
                known = isinstance(trace, RemoteTrace) and trace.boot == lane.boot
                urgency = job.urgency
                rows_out.append(
                    RESTORE_JOB.pack(
                        job.level, trace.number if known else 0, urgency.due_s, urgency.owner, urgency.priority,  # type: ignore[attr-defined]
                        at, *image.shape[:2], *job.box, *(float(edge) for edge in job.landmarks.reshape(-1)),
                    )
                )  # fmt: skip
                places.append(at)
                at += image.nbytes
            _, body = lane.ask(message(Kind.RESTORE, b"".join(rows_out)), Kind.RESTORED)
            traces = rows(NUMBER, body)
            if len(traces) != len(jobs):
                raise Broken("not one picture for each job")
            restored = []
            for (number,), image, place in zip(traces, images, places, strict=True):
                picture = arena.part(place, image.nbytes).reshape(image.shape).copy()
                restored.append(Restored(picture, RemoteTrace(number, lane.boot, self._link) if number else None))
            return restored
