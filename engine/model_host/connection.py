"""One connection of a client: reads what it asks, has it done, and answers.

Place in the flow: ``Host`` (what arrived) -> ``Connection.feed`` -> Shelf, Desk, background threads -> answer.

Invariants:
    * an answer is sent by whichever thread finished what was asked; questions never wait for each other here;
    * who sends nonsense, or does not read, is disconnected;
    * what was asked over a connection that is gone is not begun any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.audio.mel import MEL_BANDS
from engine.errors import BackendFailed, Cancelled, VisavisError
from engine.lipsync.base import FacePatch, LipJob, LipSync
from engine.model_host.desk import Desk, Order
from engine.model_host.shelf import Shelf
from engine.remote.arena import Arena, open_arena
from engine.remote.wire import (
    NUMBER,
    PATCH,
    PREDICT_JOB,
    RESTORE_JOB,
    Broken,
    Kind,
    Reader,
    message,
    read_words,
    rows,
    words,
)
from engine.restore.base import FaceRestorer, Restored, RestoreJob
from engine.schedule import PRIORITIES, Urgency
from engine.types import MOUTH_SHAPES

_NO_MOUTH = np.zeros(len(MOUTH_SHAPES), np.float32)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Models:
    """What all connections share.

    Attributes:
        boot: tells this run of the process from others.
        lipsync, restorer: the models.
        lips, faces: their desks.
        shelf: avatars and traces.
        preparing, restoring: threads for what takes seconds, and minutes.
    """

    boot: str
    lipsync: LipSync
    restorer: FaceRestorer | None
    lips: Desk[LipJob, FacePatch]
    faces: Desk[RestoreJob, Restored] | None
    shelf: Shelf
    preparing: ThreadPoolExecutor
    restoring: ThreadPoolExecutor

    def welcome(self) -> bytes:
        """What the models are."""
        window = self.lipsync.window
        lipsync = {
            "crop_size": self.lipsync.crop_size, "columns": window.columns, "offset": window.offset,
            "batch_limit": getattr(self.lipsync, "batch_limit", 1),
        }  # fmt: skip
        restorer = {"batch_limit": getattr(self.restorer, "batch_limit", 1)} if self.restorer is not None else None
        return words(Kind.WELCOME, boot=self.boot, lipsync=lipsync, restorer=restorer)

    def state(self) -> bytes:
        """How it is."""
        desks = [desk for desk in (self.lips, self.faces) if desk is not None]
        return words(
            Kind.PONG, busy_s=max(desk.busy_s() for desk in desks), waiting=sum(desk.waiting for desk in desks),
            **self.shelf.counts(),
        )  # fmt: skip


class Connection:
    """One connection.

    Attributes:
        client: whose; empty before it said so.
        gone: it has ended.
    """

    def __init__(self, connected: socket.socket, models: Models, on_client: Callable[[Connection], None]) -> None:
        self.socket = connected
        self.client = ""
        self.gone = False
        self._models = models
        self._on_client = on_client
        self._reader = Reader()
        self._arena: Arena | None = None
        self._descriptors: list[int] = []
        self._lock = threading.Lock()
        self._withdraw: Callable[[], None] | None = None

    def feed(self, data: bytes, descriptors: Sequence[int]) -> None:
        """Takes what arrived. Raises Broken."""
        self._descriptors += descriptors
        for kind, body in self._reader.feed(data):
            self._asked(kind, body)

    def close(self) -> None:
        """Ends it; what it asked for and was not begun is forgotten."""
        with self._lock:
            self.gone = True
            self.socket.close()
        while self._descriptors:
            os.close(self._descriptors.pop())
        if self._withdraw is not None:
            self._withdraw()

    def answer(self, reply: bytes) -> None:
        """Sends an answer; from any thread."""
        with self._lock:
            if self.gone:
                return
            try:
                if self.socket.send(reply) == len(reply):
                    return
            except OSError:
                pass
            # Whoever waits for an answer reads it; the loop will see the end of this one.
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def _asked(self, kind: Kind, body: bytes) -> None:
        models = self._models
        if kind == Kind.HELLO:
            self.client = str(read_words(body).get("client", ""))[:64]
            self._on_client(self)
            self.answer(models.welcome())
        elif kind == Kind.PING:
            self.answer(models.state())
        elif not self.client:
            raise Broken("a question from nobody")
        elif kind == Kind.PREDICT:
            self._predict(body)
        elif kind == Kind.RESTORE and models.faces is not None:
            self._restore(body, models.faces)
        elif kind == Kind.ARENA and self._descriptors:
            self._arena = open_arena(self._descriptors.pop(0))
            self.answer(message(Kind.DONE))
        elif kind == Kind.RELEASE:
            for (number,) in NUMBER.iter_unpack(body):
                models.shelf.release(self.client, number)
        elif kind == Kind.PREPARE:
            members = read_words(body)
            self._in_background(models.preparing, lambda: self._prepare(members))
        elif kind == Kind.RESTORE_AVATAR and models.restorer is not None:
            members, restorer = read_words(body), models.restorer
            self._in_background(models.restoring, lambda: self._restore_avatar(members, restorer))
        else:
            raise Broken(f"a question that cannot be asked: {kind.name}")

    # Mouths -------------------------------------------------------------------------------------------------------

    def _predict(self, body: bytes) -> None:
        arena, columns = self._arena, self._models.lipsync.window.columns
        asked = rows(PREDICT_JOB, body)
        if arena is None or not asked:
            raise Broken("mouths without sound")
        jobs, places = [], []
        for handle, picture, strength, due_s, owner, priority, mel_at, patch_at, patch_bytes in asked:
            prepared = self._models.shelf.prepared(self.client, handle)
            if prepared is None:
                self._failed(BackendFailed("avatar_unknown", "The model process does not know this avatar."))
                return
            mel = arena.part(mel_at, 4 * MEL_BANDS * columns).view(np.float32).reshape(MEL_BANDS, columns)
            jobs.append(LipJob(prepared, picture, mel, strength, _urgency(due_s, owner, priority)))
            places.append((patch_at, arena.part(patch_at, patch_bytes)))
        self._order(self._models.lips, jobs, lambda patches: self._patches(patches, [part for _, part in places]))

    def _patches(self, patches: Sequence[FacePatch], places: Sequence[np.ndarray]) -> None:
        lines, needed = [], 0
        for patch, place in zip(patches, places, strict=True):
            height, width = patch.image.shape[:2]
            pixels = height * width
            if patch.mask.shape != (height, width):
                self._failed(BackendFailed("render_failed", "The lip-sync model gave a mask of another size."))
                return
            needed = max(needed, 4 * pixels)
            if needed > len(place):
                continue
            place[: 3 * pixels].reshape(height, width, 3)[:] = patch.image
            place[3 * pixels : 4 * pixels].reshape(height, width)[:] = patch.mask
            mouth = patch.mouth if patch.mouth is not None else _NO_MOUTH
            lines.append(PATCH.pack(*patch.box, height, width, patch.mouth is not None, *mouth.tolist()))
        if len(lines) < len(patches):
            self.answer(message(Kind.TOO_SMALL, NUMBER.pack(needed)))
        else:
            self.answer(message(Kind.PATCHES, b"".join(lines)))

    # Pictures -----------------------------------------------------------------------------------------------------

    def _restore(self, body: bytes, faces: Desk[RestoreJob, Restored]) -> None:
        arena, asked = self._arena, rows(RESTORE_JOB, body)
        if arena is None or not asked:
            raise Broken("faces without pictures")
        jobs, places = [], []
        for level, trace, due_s, owner, priority, at, height, width, y1, y2, x1, x2, *landmarks in asked:
            image = arena.part(at, 3 * height * width).reshape(height, width, 3)
            known = self._models.shelf.trace(self.client, trace) if trace else None
            points = np.array(landmarks, np.float32).reshape(5, 2)
            jobs.append(RestoreJob(image, points, (y1, y2, x1, x2), level, known, _urgency(due_s, owner, priority)))
            places.append(image)
        self._order(faces, jobs, lambda restored: self._restored(restored, places))

    def _restored(self, restored: Sequence[Restored], places: Sequence[np.ndarray]) -> None:
        numbers = []
        for result, place in zip(restored, places, strict=True):
            place[:] = result.image
            numbers.append(self._models.shelf.keep_trace(self.client, result.trace))
        self.answer(message(Kind.RESTORED, b"".join(NUMBER.pack(number) for number in numbers)))

    def _order(self, desk: Desk[Any, Any], jobs: Sequence[Any], finished: Callable[[Sequence[Any]], None]) -> None:
        """Has jobs done, and answers when the last one is."""
        results: list[Any] = [None] * len(jobs)
        left, lock = [len(jobs)], threading.Lock()

        def done(index: int, result: Any) -> None:
            results[index] = result
            with lock:
                left[0] -= 1
                if left[0]:
                    return
            failed = next((result for result in results if isinstance(result, Exception)), None)
            if failed is not None:
                self._failed(failed)
                return
            try:
                finished(results)
            except Exception as error:
                self._failed(error)

        def order(index: int, job: Any) -> Order[Any, Any]:
            urgency = job.urgency
            owner = (self.client, urgency.owner) if urgency.owner else None
            return Order(job, urgency, owner, lambda result: done(index, result))

        tickets = desk.add([order(index, job) for index, job in enumerate(jobs)])
        if tickets is None:
            self._failed(BackendFailed("model_busy", "More pictures are waiting than the models can make."))
            return
        self._withdraw = lambda: desk.withdraw(tickets)

    # What takes long ----------------------------------------------------------------------------------------------

    def _in_background(self, threads: ThreadPoolExecutor, work: Callable[[], None]) -> None:
        def run() -> None:
            if self.gone:
                return
            try:
                work()
            except Exception as error:
                self._failed(error)

        threads.submit(run)

    def _prepare(self, members: dict[str, Any]) -> None:
        handle = self._models.shelf.prepare(self.client, members)
        self.answer(words(Kind.PREPARED, handle=handle))

    def _restore_avatar(self, members: dict[str, Any], restorer: FaceRestorer) -> None:
        def progress(done: int, of: int) -> None:
            if self.gone:
                raise Cancelled("client_gone", "Nobody waits for this avatar any more.")
            self.answer(words(Kind.PROGRESS, done=done, of=of))

        restored = restorer.restore_avatar(self._models.shelf.load(members), progress)
        if restored.folder is None:
            raise BackendFailed("restored_avatar_not_kept", "Restored avatars cannot be kept; their folder is missing.")
        self.answer(words(Kind.AVATAR, folder=str(restored.folder)))

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Cancelled):
            return
        if not isinstance(error, VisavisError):
            _log.error("a model failed", exc_info=error)
            error = BackendFailed("model_failed", "The model failed; the log of its process says why.")
        self.answer(words(Kind.FAILED, code=error.code, message=error.message))


def _urgency(due_s: float, owner: int, priority: int) -> Urgency:
    if not 0 <= priority < PRIORITIES or due_s != due_s:
        raise Broken("an urgency that is none")
    return Urgency(due_s, owner, priority)
