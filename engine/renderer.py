"""Owns the lip-sync model: predicts and pastes pictures for all sessions on threads of its own.

Place in the flow: producer -> PictureJob -> Renderer -> picture with a speaking mouth, of a body that may be in motion.

On a CPU batching gains next to nothing, so every thread renders one picture at a time, single-threaded.

Invariants:
    * the earliest deadline is served first, whichever session it belongs to; a picture that would be late is given up
      when its session waits for a later one, so a slow machine shows fewer pictures, but those in sync;
    * the queue is bounded: when full, a new job is refused with Busy and the session holds its picture;
    * a job withdrawn or cancelled before it began costs nothing;
    * results are delivered on the event loop that submitted the job.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from engine.avatar.body import Pose
from engine.avatar.bundle import Avatar
from engine.avatar.head_move import cross_fade, lean
from engine.avatar.tracks import tracks_of
from engine.compose import paste
from engine.errors import BackendFailed, Busy, Closed, VisavisError
from engine.lipsync.base import LipJob, LipSync, PreparedAvatar
from engine.metrics import EngineMetrics
from engine.types import REST_MOUTH

QUEUE_LIMIT = 256
"""Jobs that may wait: three for each of some eighty sessions, far beyond what could meet its deadline."""
PREPARED_LIMIT = 5
"""Prepared avatars kept for sessions to come; sessions hold on to their own."""
CLOSE_TIMEOUT_S = 3.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished picture.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        mouth: (len(MOUTH_SHAPES),) float32 weights, or None when the model does not tell.
    """

    image: np.ndarray
    mouth: np.ndarray | None


@dataclass(frozen=True, slots=True)
class PictureJob:
    """A picture to draw.

    Attributes:
        prepared: the avatar, prepared by the model.
        pose: what the body does.
        mel: (80, columns) float32 in [-4, 4], what the mouth says; None leaves it as it is.
        strength: how far the mouth follows, in (0, 1].
    """

    prepared: PreparedAvatar
    pose: Pose
    mel: np.ndarray | None
    strength: float = 1.0


def render_now(lipsync: LipSync, job: PictureJob) -> Rendered:
    """Draws one picture on the calling thread; what live and offline rendering share.

    A body between two tracks is drawn on both, mouth and all, and then faded, so speech is never seen through itself.
    """
    pose, avatar = job.pose, job.prepared.avatar
    indices = [pose.index] if pose.other is None else [pose.index, pose.other]
    images = [avatar.picture(index) for index in indices]
    mouth: np.ndarray | None = REST_MOUTH
    if job.mel is not None:
        patches = lipsync.predict([LipJob(job.prepared, index, job.mel, job.strength) for index in indices])
        images = [paste(image, patch) for image, patch in zip(images, patches, strict=True)]
        mouth = patches[0].mouth
    image = images[0]
    if pose.other is not None:
        one, other = (avatar.landmarks_of(index) for index in indices)
        image = cross_fade(images[0], one, images[1], other, pose.weight)
    if pose.lean:
        image = lean(image, avatar.landmarks.mean(0), pose.lean)
    return Rendered(image, mouth)


class Rendering:
    """A picture on its way.

    Attributes:
        job: what to render.
        owner: whose later pictures this one may be given up for.
        result: done with a Rendered or a BackendFailed; cancelled when withdrawn or given up.
    """

    __slots__ = ("_begun", "_lock", "_submitted_s", "job", "owner", "result")

    def __init__(self, job: PictureJob, result: asyncio.Future[Rendered], owner: object = None) -> None:
        self.job = job
        self.result = result
        self.owner = owner
        self._begun = False
        self._lock = threading.Lock()
        self._submitted_s = time.monotonic()

    def withdraw(self) -> bool:
        """Cancels the job unless a thread has begun it; its picture may still be of use then.

        Returns:
            True when the job will not be rendered.
        """
        with self._lock:
            if self._begun:
                return False
            self._begun = True
        self.result.cancel()
        return True

    def begin(self) -> bool:
        """Claims the job for the calling thread; False when it was withdrawn or cancelled."""
        with self._lock:
            if self._begun or self.result.cancelled():
                return False
            self._begun = True
            return True

    @property
    def waited_ms(self) -> float:
        """Time since it was submitted, milliseconds."""
        return (time.monotonic() - self._submitted_s) * 1000


class Renderer:
    """The model and its threads.

    Args:
        lipsync: the model; its ``predict`` is called from all threads at once.
        threads: pictures rendered at a time.
        metrics: where to count; a registry of its own when None.
    """

    def __init__(self, lipsync: LipSync, threads: int = 1, *, metrics: EngineMetrics | None = None) -> None:
        if threads < 1:
            raise ValueError("a renderer needs at least one thread")
        self.lipsync = lipsync
        self.metrics = metrics if metrics is not None else EngineMetrics()
        self._queue: list[tuple[float, int, Rendering]] = []
        self._order = itertools.count()
        self._condition = threading.Condition()
        self._closing = False
        self._typical_s = 0.0
        self._prepared: OrderedDict[int, asyncio.Future[PreparedAvatar]] = OrderedDict()
        # Preparing takes as long as many pictures, so it must not hold up a render thread.
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="visavis-prepare")
        self._threads = [
            threading.Thread(target=self._work, name=f"visavis-render-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def prepare(self, avatar: Avatar) -> PreparedAvatar:
        """Everything of an avatar that does not depend on sound; computed once and cached.

        Cancelling loses nothing: the work goes on for whoever asks next.

        Raises:
            BackendFailed: the model cannot use this avatar.
            Closed: after ``aclose``.
        """
        if self._closing:
            raise Closed("renderer_closed", "The renderer is closed.")
        # An id is reused once its object is gone; what was prepared keeps the avatar alive while it is cached.
        work = self._prepared.get(id(avatar))
        if work is None:
            work = asyncio.get_running_loop().run_in_executor(self._preparing, self._prepare, avatar)
            # Nobody may be left to see a failure; looking at it here keeps asyncio from reporting it again.
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._prepared[id(avatar)] = work
        self._prepared.move_to_end(id(avatar))
        while len(self._prepared) > PREPARED_LIMIT:
            self._prepared.popitem(last=False)
        try:
            prepared = await asyncio.shield(work)
        except Exception:
            if self._prepared.get(id(avatar)) is work:
                del self._prepared[id(avatar)]
            raise
        return prepared

    async def warmup(self) -> None:
        """Makes the first picture as fast as every other one."""
        await asyncio.get_running_loop().run_in_executor(self._preparing, self.lipsync.warmup, [1])

    def submit(self, job: PictureJob, deadline_s: float, owner: object = None) -> Rendering:
        """Queues a picture; must be called on a running event loop.

        Args:
            job: what to render.
            deadline_s: when it is needed, monotonic seconds.
            owner: when given, the picture is given up if it would be late and a later one of the same owner waits.

        Raises:
            Busy: the queue is full.
            Closed: after ``aclose``.
        """
        rendering = Rendering(job, asyncio.get_running_loop().create_future(), owner)
        with self._condition:
            if self._closing:
                raise Closed("renderer_closed", "The renderer is closed.")
            if len(self._queue) >= QUEUE_LIMIT:
                # Withdrawn jobs lie in the queue until their turn; they must not keep others out.
                self._queue = [entry for entry in self._queue if not entry[2].result.cancelled()]
                heapq.heapify(self._queue)
            if len(self._queue) >= QUEUE_LIMIT:
                raise Busy("renderer_busy", "More pictures are waiting than can be rendered in time.")
            heapq.heappush(self._queue, (deadline_s, next(self._order), rendering))
            self.metrics.render_queue.set(len(self._queue))
            self._condition.notify()
        return rendering

    async def aclose(self) -> None:
        """Drops what waits, lets the threads finish what they began, at most some seconds. Idempotent."""
        with self._condition:
            self._closing = True
            waiting, self._queue = self._queue, []
            self._condition.notify_all()
        for _, _, rendering in waiting:
            rendering.withdraw()
        self._preparing.shutdown(wait=False, cancel_futures=True)
        self._prepared.clear()
        if any(thread.is_alive() for thread in self._threads):
            await asyncio.get_running_loop().create_task(self._join(), name="renderer.join")

    async def _join(self) -> None:
        loop = asyncio.get_running_loop()
        joined: asyncio.Future[None] = loop.create_future()

        def join() -> None:
            end_s = time.monotonic() + CLOSE_TIMEOUT_S
            for thread in self._threads:
                thread.join(max(0.0, end_s - time.monotonic()))
            _deliver(loop, lambda: None if joined.done() else joined.set_result(None))

        threading.Thread(target=join, name="visavis-render-join", daemon=True).start()
        await joined
        for thread in self._threads:
            if thread.is_alive():
                _log.error("%s did not end within %.0f s", thread.name, CLOSE_TIMEOUT_S)

    def _prepare(self, avatar: Avatar) -> PreparedAvatar:
        try:
            # What the body needs is looked for here, too: it would hold up the loop that starts the session.
            tracks_of(avatar)
            return self.lipsync.prepare(avatar)
        except VisavisError:
            raise
        except Exception as error:
            _log.exception("preparing avatar %s failed", avatar.name)
            raise BackendFailed("prepare_failed", f"The model cannot use the avatar {avatar.name!r}.") from error

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._closing:
                    self._condition.wait()
                if self._closing:
                    return
                deadline_s, _, rendering = heapq.heappop(self._queue)
                self.metrics.render_queue.set(len(self._queue))
                late = time.monotonic() + self._typical_s > deadline_s
                given_up = late and self._waits_for_later(rendering.owner)
            if not rendering.begin():
                continue
            if given_up:
                _deliver(rendering.result.get_loop(), rendering.result.cancel)
                continue
            self.metrics.render_wait_ms.observe(rendering.waited_ms)
            self._render(rendering)

    def _waits_for_later(self, owner: object) -> bool:
        return owner is not None and any(
            other.owner is owner and not other.result.cancelled() for _, _, other in self._queue
        )

    def _render(self, rendering: Rendering) -> None:
        started_s = time.monotonic()
        result = rendering.result
        try:
            rendered = render_now(self.lipsync, rendering.job)
        except Exception as error:
            _log.exception("rendering a picture failed")
            self.metrics.failures("render").inc()
            failure = BackendFailed("render_failed", "The lip-sync model failed on a picture.")
            failure.__cause__ = error
            _deliver(result.get_loop(), lambda: None if result.done() else result.set_exception(failure))
            return
        took_s = time.monotonic() - started_s
        self.metrics.render_ms.observe(took_s * 1000)
        with self._condition:
            # Somewhat less than the mean: in doubt a picture is tried.
            self._typical_s += 0.1 * (0.8 * took_s - self._typical_s)
        _deliver(result.get_loop(), lambda: None if result.done() else result.set_result(rendered))


def _deliver(loop: asyncio.AbstractEventLoop, callback) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        # The loop closed while the thread worked; nobody is left to care.
        _log.debug("a picture was finished after its event loop had closed")
