"""Owns the models: draws and restores the pictures of all sessions on threads of its own.

Place in the flow: producer -> PictureJob -> Renderer -> picture with a speaking mouth, of a body that may be in motion.

On a CPU batching gains next to nothing, so every thread renders one picture at a time, single-threaded. A model that
gains from batches says so by an attribute ``batch_limit``: then a thread takes that many pictures at once, of whichever
sessions, the most urgent ones first, and waits a few milliseconds for more where all have the time. A restorer does
the same.

Invariants:
    * which picture is drawn next is the schedule's to say, see ``engine.schedule``: no session makes another one late;
    * the queue is bounded: when full, a new job is refused with Busy and the session holds its picture;
    * a picture without a mouth to draw never meets the model;
    * restoring never makes a picture late: before it begins, the picture is there unrestored, as ``Rendering.draft``;
    * results are delivered on the event loop that submitted the job.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from engine.avatar.bundle import Avatar
from engine.avatar.tracks import tracks_of
from engine.batches import Batches
from engine.errors import BackendFailed, Busy, Closed, ModelAway, VisavisError
from engine.lipsync.base import LipSync, PreparedAvatar
from engine.metrics import EngineMetrics
from engine.renderer.delivery import deliver
from engine.renderer.draw import PictureJob, Rendered, draw_all, finish
from engine.renderer.rendering import Rendering
from engine.renderer.restoring import Restoring, SessionRestoring, Unrestored
from engine.restore.base import FaceRestorer
from engine.schedule import PRIORITY, Schedule, Ticket, Turn, Urgency

BATCH_THREADS = 2
"""Where a model gains from batches: one is computed while another is pasted. More would only hold pictures earlier, in
an order that may be none of the most urgent any more."""
PREPARED_LIMIT = 5
"""Prepared avatars kept for sessions to come; sessions hold on to their own."""
CLOSE_TIMEOUT_S = 3.0

_log = logging.getLogger(__name__)


class Renderer:
    """The model and its threads.

    Args:
        lipsync: the model; its ``predict`` is called from all threads at once.
        threads: that render pictures; of a model that gains from batches, ``BATCH_THREADS`` at most.
        restorer: improves faces; None leaves all pictures as they are.
        metrics: where to count; a registry of its own when None.

    Attributes:
        restoring: the restorer and its governor; None without one.
    """

    def __init__(
        self,
        lipsync: LipSync,
        threads: int = 1,
        *,
        restorer: FaceRestorer | None = None,
        metrics: EngineMetrics | None = None,
    ) -> None:
        if threads < 1:
            raise ValueError("a renderer needs at least one thread")
        self.lipsync = lipsync
        self.metrics = metrics if metrics is not None else EngineMetrics()
        self._batches = Batches(getattr(lipsync, "batch_limit", 1))
        if self._batches.most > 1:
            threads = min(threads, BATCH_THREADS)
        self.restoring = Restoring(restorer, lipsync, threads, self.metrics) if restorer is not None else None
        self._schedule: Schedule[Rendering] = Schedule(self._batches, threads)
        self._condition = threading.Condition()
        self._closing = False
        self._model_away = False
        self._cold: dict[str, asyncio.Future[None]] = {}
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
        """Makes the first picture of every thread as fast as every other one.

        Raises:
            Closed: after ``aclose``.
        """
        loop = asyncio.get_running_loop()
        with self._condition:
            if self._closing:
                raise Closed("renderer_closed", "The renderer is closed.")
            self._cold = {thread.name: loop.create_future() for thread in self._threads}
            cold = list(self._cold.values())
            self._condition.notify_all()
        await asyncio.gather(*cold)

    def submit(
        self,
        job: PictureJob,
        deadline_s: float,
        owner: object = None,
        session: SessionRestoring | None = None,
        priority: int = PRIORITY,
    ) -> Rendering:
        """Queues a picture; must be called on a running event loop.

        Args:
            job: what to render.
            deadline_s: when it is needed, monotonic seconds.
            owner: whose it is, for equal shares; it is given up if it would be late and a later one of the same owner
                waits.
            session: what ``restoring.open`` gave to the session that it is for; None leaves the picture unrestored.
            priority: of the owner, 0 to 9; when there is not time for all, the lowest does without first.

        Raises:
            Busy: the queue is full, or the owner's part of it.
            Closed: after ``aclose``.
        """
        # Its number stands for the owner, whom nobody must keep alive for having been counted.
        number = None if owner is None else id(owner)
        urgent = replace(job, urgency=Urgency(deadline_s, number or 0, priority))
        rendering = Rendering(urgent, asyncio.get_running_loop().create_future(), owner, deadline_s, session)
        with self._condition:
            if self._closing:
                raise Closed("renderer_closed", "The renderer is closed.")
            if not self._schedule.has_room(number):
                raise Busy("renderer_busy", "More pictures are waiting than can be rendered in time.")
            ticket = self._schedule.add(rendering, deadline_s, time.monotonic(), number, priority)
            rendering.on_withdrawn = lambda: self._withdrawn(ticket)
            self.metrics.render_queue.set(len(self._schedule))
            self._condition.notify()
        return rendering

    def _withdrawn(self, ticket: Ticket[Rendering]) -> None:
        with self._condition:
            self._schedule.remove(ticket)
            self.metrics.render_queue.set(len(self._schedule))

    async def aclose(self) -> None:
        """Drops what waits, lets the threads finish what they began, at most some seconds. Idempotent."""
        with self._condition:
            self._closing = True
            waiting = self._schedule.clear()
            cold = list(self._cold.values())
            self._cold.clear()
            self._condition.notify_all()
        for rendering in waiting:
            rendering.withdraw()
        for future in cold:
            future.cancel()
        self._preparing.shutdown(wait=False, cancel_futures=True)
        self._prepared.clear()
        if self.restoring is not None:
            self.restoring.close()
        if any(thread.is_alive() for thread in self._threads):
            await asyncio.get_running_loop().create_task(self._join(), name="renderer.join")

    async def _join(self) -> None:
        loop = asyncio.get_running_loop()
        joined: asyncio.Future[None] = loop.create_future()

        def join() -> None:
            end_s = time.monotonic() + CLOSE_TIMEOUT_S
            for thread in self._threads:
                thread.join(max(0.0, end_s - time.monotonic()))
            deliver(loop, lambda: None if joined.done() else joined.set_result(None))

        threading.Thread(target=join, name="visavis-render-join", daemon=True).start()
        await joined
        for thread in self._threads:
            if thread.is_alive():
                _log.error("%s did not end within %.0f s", thread.name, CLOSE_TIMEOUT_S)

    def _prepare(self, avatar: Avatar) -> PreparedAvatar:
        try:
            # What the body needs is looked for here, too: it would hold up the loop that starts the session.
            tracks_of(avatar)
            prepared = self.lipsync.prepare(avatar)
            if self.restoring is not None:
                self.restoring.calibrate(avatar)
            return prepared
        except VisavisError:
            raise
        except Exception as error:
            _log.exception("preparing avatar %s failed", avatar.name)
            raise BackendFailed("prepare_failed", f"The model cannot use the avatar {avatar.name!r}.") from error

    def _work(self) -> None:
        while True:
            with self._condition:
                if not self._wait():
                    return
                cold = self._cold.pop(threading.current_thread().name, None)
                turn = self._schedule.take(time.monotonic()) if cold is None else Turn[Rendering]()
                self.metrics.render_queue.set(len(self._schedule))
            if cold is not None:
                self._warm(cold)
            for rendering in turn.given_up:
                if rendering.begin():
                    self.metrics.given_up(rendering.job.urgency.priority).inc()
                    deliver(rendering.result.get_loop(), rendering.result.cancel)
            begun = [rendering for rendering in turn.items if rendering.begin()]
            for rendering in begun:
                self.metrics.render_wait_ms.observe(rendering.waited_ms)
            if begun:
                self._render(begun)

    def _warm(self, done: asyncio.Future[None]) -> None:
        error: Exception | None = None
        try:
            self.lipsync.warmup([1 << power for power in range(self._batches.most.bit_length())])
        except Exception as failed:
            error = failed

        def tell() -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        deliver(done.get_loop(), tell)

    def _wait(self) -> bool:
        """Waits, with the lock held, until there is something to do; False when there never will be again."""
        while not self._closing:
            if threading.current_thread().name in self._cold:
                return True
            if not self._schedule:
                self._condition.wait()
            elif (gather_s := self._schedule.gather_s(time.monotonic())) > 0:
                self._condition.wait(gather_s)
            else:
                return True
        return False

    def _render(self, renderings: list[Rendering]) -> None:
        started_s = time.monotonic()
        try:
            drawn = draw_all(self.lipsync, [rendering.job for rendering in renderings], self._observe)
            finished = [
                finish(rendering.job, picture) for rendering, picture in zip(renderings, drawn, strict=True)
            ]
        except Exception as error:
            if len(renderings) == 1 or isinstance(error, ModelAway):
                for rendering in renderings:
                    self._fail(rendering.result, error)
            else:
                # One bad picture must not cost those that happened to be beside it.
                for rendering in renderings:
                    self._render([rendering])
            return
        took_s = time.monotonic() - started_s
        with self._condition:
            self._batches.drew(len(renderings), took_s)
        self._model_away = False
        unrestored, originals = [], []
        for rendering, picture, rendered in zip(renderings, drawn, finished, strict=True):
            self.metrics.render_ms.observe(took_s * 1000)
            if self.restoring is None or rendering.session is None or picture.box is None:
                self._deliver(rendering.result, rendered)
                continue
            rendering.draft = rendered
            unrestored.append(
                Unrestored(rendering.session, picture, picture.box, rendering.job.sequence, rendering.deadline_s)
            )
            originals.append((rendering, picture, rendered))
        if self.restoring is None or not unrestored:
            return

        def restored(index: int, image: np.ndarray | None) -> None:
            rendering, picture, rendered = originals[index]
            self._deliver(rendering.result, rendered if image is None else finish(rendering.job, picture, image))

        self.restoring.restore(unrestored, self._due_s, restored)

    def _due_s(self) -> list[float]:
        with self._condition:
            return self._schedule.due_s()

    def _fail(self, result: asyncio.Future[Rendered], error: Exception) -> None:
        self.metrics.failures("render").inc()
        failure = BackendFailed("render_failed", "The lip-sync model failed on a picture.")
        if isinstance(error, ModelAway):
            # Every picture misses it until it comes back; once says it all.
            if not self._model_away:
                _log.error("rendering a picture failed: %s", error.message)
            failure, self._model_away = error, True
        else:
            _log.error("rendering a picture failed", exc_info=error)
            failure.__cause__ = error
        deliver(result.get_loop(), lambda: None if result.done() else result.set_exception(failure))

    @staticmethod
    def _deliver(result: asyncio.Future[Rendered], rendered: Rendered) -> None:
        deliver(result.get_loop(), lambda: None if result.done() else result.set_result(rendered))

    def _observe(self, stage: str, seconds: float) -> None:
        self.metrics.stage_ms(stage).observe(seconds * 1000)
        if self.restoring is not None:
            self.restoring.observe(stage, seconds)
