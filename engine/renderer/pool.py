"""Owns the models: draws and restores the pictures of all sessions on threads of its own.

Place in the flow: producer -> PictureJob -> Renderer -> picture with a speaking mouth, of a body that may be in motion.

On a CPU batching gains next to nothing, so every thread renders one picture at a time, single-threaded. A model that
gains from batches says so by an attribute ``batch_limit``: then a thread takes that many pictures at once, of whichever
sessions, the most urgent ones first.

Invariants:
    * the earliest deadline is served first, whichever session it belongs to; a picture that would be late is given up
      when its session waits for a later one, so a slow machine shows fewer pictures, but those in sync;
    * the queue is bounded: when full, a new job is refused with Busy and the session holds its picture;
    * a job withdrawn or cancelled before it began costs nothing;
    * restoring never makes a picture late: before it begins, the picture is there unrestored, as ``Rendering.draft``;
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

from engine.avatar.bundle import Avatar
from engine.avatar.tracks import tracks_of
from engine.errors import BackendFailed, Busy, Closed, VisavisError
from engine.lipsync.base import LipSync, PreparedAvatar
from engine.metrics import EngineMetrics
from engine.renderer.batches import Batches
from engine.renderer.delivery import deliver
from engine.renderer.draw import Drawn, PictureJob, Rendered, draw_all, finish
from engine.renderer.restoring import Restoring, SessionRestoring
from engine.restore.base import FaceRestorer

QUEUE_LIMIT = 256
"""Jobs that may wait: three for each of some eighty sessions, far beyond what could meet its deadline."""
PREPARED_LIMIT = 5
"""Prepared avatars kept for sessions to come; sessions hold on to their own."""
CLOSE_TIMEOUT_S = 3.0

_log = logging.getLogger(__name__)


class Rendering:
    """A picture on its way.

    Attributes:
        job: what to render.
        owner: whose later pictures this one may be given up for.
        result: done with a Rendered or a BackendFailed; cancelled when withdrawn or given up.
        deadline_s: when it is needed, monotonic seconds.
        session: with what it is restored; None leaves it unrestored.
        draft: the picture without restoring, from when it is drawn; for whoever cannot wait.
    """

    __slots__ = ("_begun", "_lock", "_submitted_s", "deadline_s", "draft", "job", "owner", "result", "session")

    def __init__(
        self,
        job: PictureJob,
        result: asyncio.Future[Rendered],
        owner: object = None,
        deadline_s: float = 0.0,
        session: SessionRestoring | None = None,
    ) -> None:
        self.job = job
        self.result = result
        self.owner = owner
        self.deadline_s = deadline_s
        self.session = session
        self.draft: Rendered | None = None
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
        self.restoring = Restoring(restorer, lipsync, threads, self.metrics) if restorer is not None else None
        self._queue: list[tuple[float, int, Rendering]] = []
        self._order = itertools.count()
        self._condition = threading.Condition()
        self._closing = False
        self._typical_s = 0.0
        self._batches = Batches(getattr(lipsync, "batch_limit", 1))
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
        most = self._batches.most
        sizes = [1 << power for power in range(most.bit_length())]
        await asyncio.get_running_loop().run_in_executor(self._preparing, self.lipsync.warmup, sizes)

    def submit(
        self, job: PictureJob, deadline_s: float, owner: object = None, session: SessionRestoring | None = None
    ) -> Rendering:
        """Queues a picture; must be called on a running event loop.

        Args:
            job: what to render.
            deadline_s: when it is needed, monotonic seconds.
            owner: when given, the picture is given up if it would be late and a later one of the same owner waits.
            session: what ``restoring.open`` gave to the session that it is for; None leaves the picture unrestored.

        Raises:
            Busy: the queue is full.
            Closed: after ``aclose``.
        """
        rendering = Rendering(job, asyncio.get_running_loop().create_future(), owner, deadline_s, session)
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
                while not self._queue and not self._closing:
                    self._condition.wait()
                if self._closing:
                    return
                begun, given_up = self._take()
                self.metrics.render_queue.set(len(self._queue))
            for rendering in given_up:
                deliver(rendering.result.get_loop(), rendering.result.cancel)
            for rendering in begun:
                self.metrics.render_wait_ms.observe(rendering.waited_ms)
            if begun:
                self._render(begun)

    def _take(self) -> tuple[list[Rendering], list[Rendering]]:
        """Takes the most urgent pictures out of the queue: those to draw now, begun, and those that are given up."""
        begun: list[Rendering] = []
        given_up: list[Rendering] = []
        now_s = time.monotonic()
        count = self._batches.count(now_s, self._queue[0][0])
        while self._queue and len(begun) < count:
            deadline_s, _, rendering = heapq.heappop(self._queue)
            late = now_s + self._typical_s > deadline_s
            hopeless = late and self._waits_for_later(rendering.owner)
            if rendering.begin():
                (given_up if hopeless else begun).append(rendering)
        return begun, given_up

    def _waits_for_later(self, owner: object) -> bool:
        return owner is not None and any(
            other.owner is owner and not other.result.cancelled() for _, _, other in self._queue
        )

    def _render(self, renderings: list[Rendering]) -> None:
        started_s = time.monotonic()
        try:
            drawn = draw_all(self.lipsync, [rendering.job for rendering in renderings], self._observe)
            finished = [
                finish(rendering.job, picture) for rendering, picture in zip(renderings, drawn, strict=True)
            ]
        except Exception as error:
            if len(renderings) == 1:
                self._fail(renderings[0].result, error)
            else:
                # One bad picture must not cost those that happened to be beside it.
                for rendering in renderings:
                    self._render([rendering])
            return
        took_s = time.monotonic() - started_s
        with self._condition:
            self._batches.drew(len(renderings), took_s)
            # Somewhat less than the mean: in doubt a picture is tried.
            self._typical_s += 0.1 * (0.8 * took_s - self._typical_s)
        for rendering, picture, rendered in zip(renderings, drawn, finished, strict=True):
            self.metrics.render_ms.observe(took_s * 1000)
            if self._restorable(rendering, picture):
                rendering.draft = rendered
        for rendering, picture, rendered in zip(renderings, drawn, finished, strict=True):
            self._deliver(rendering.result, self._restore(rendering, picture, rendered))

    def _fail(self, result: asyncio.Future[Rendered], error: Exception) -> None:
        _log.error("rendering a picture failed", exc_info=error)
        self.metrics.failures("render").inc()
        failure = BackendFailed("render_failed", "The lip-sync model failed on a picture.")
        failure.__cause__ = error
        deliver(result.get_loop(), lambda: None if result.done() else result.set_exception(failure))

    @staticmethod
    def _deliver(result: asyncio.Future[Rendered], rendered: Rendered) -> None:
        deliver(result.get_loop(), lambda: None if result.done() else result.set_result(rendered))

    def _observe(self, stage: str, seconds: float) -> None:
        self.metrics.stage_ms(stage).observe(seconds * 1000)
        if self.restoring is not None:
            self.restoring.observe(stage, seconds)

    def _restorable(self, rendering: Rendering, drawn: Drawn) -> bool:
        return self.restoring is not None and rendering.session is not None and drawn.box is not None

    def _restore(self, rendering: Rendering, drawn: Drawn, rendered: Rendered) -> Rendered:
        """The picture as good as it may be now; as it was drawn when nothing is restored."""
        session, job = rendering.session, rendering.job
        if self.restoring is None or session is None or drawn.box is None:
            return rendered
        with self._condition:
            waiting_s = [deadline_s for deadline_s, _, other in self._queue if not other.result.cancelled()]
        image = self.restoring.restore(session, drawn, drawn.box, job.sequence, rendering.deadline_s, waiting_s)
        return rendered if image is None else finish(job, drawn, image)
