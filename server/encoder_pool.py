"""The threads that encode for all sessions: what is due first is encoded first.

Place in the flow: tracks -> EncoderPool -> encoders.

Invariants:
    * pictures that wait are taken by their due time, whosever they are, so no session is served at another's expense;
    * sound has a thread of its own, so that a burst of slow pictures never delays it;
    * the codecs release the interpreter lock while they work.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from engine.config import usable_cores
from server.encoder import H264Encoder
from server.encoder_pressure import EncoderPressure
from server.idle_loops import IdleLoops
from server.metrics import ServerMetrics

CLOSE_TIMEOUT_S = 1.0
"""How long closing waits for the pictures that are being encoded; one takes a few milliseconds."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class EncoderPool:
    """The threads that encode.

    Args:
        video_threads: 0 picks one per core that may be used, at most four.
        metrics: where to count; its own when None.
        h264: what encodes H.264.

    Attributes:
        h264: as given.
        metrics: where tracks count.
        pressure: decides how hard encoders try.
        loops: what is encoded once for all.
    """

    def __init__(
        self, video_threads: int = 0, metrics: ServerMetrics | None = None, h264: H264Encoder = "x264"
    ) -> None:
        self.h264: H264Encoder = h264
        threads = video_threads or min(4, usable_cores())
        self.metrics = metrics or ServerMetrics(CollectorRegistry())
        self.pressure = EncoderPressure(self.metrics.hurried)
        self.loops = IdleLoops(self.metrics.idle_loops.set)
        self._video = ThreadPoolExecutor(threads, thread_name_prefix="video-encoder")
        self._audio = ThreadPoolExecutor(1, thread_name_prefix="audio-encoder")
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, int, Callable[[], Any], Future[Any]]] = []

    async def video(self, work: Callable[[], T], due_s: float = 0.0) -> T:
        """Runs work on a picture thread.

        Cancellation abandons the result; work that started still finishes.

        Args:
            work: what to run.
            due_s: monotonic time at which the result is wanted; what is wanted first is done first.
        """
        done: Future[T] = Future()
        with self._lock:
            heapq.heappush(self._waiting, (due_s, next(self._numbers), work, done))
        # Whichever thread is free first takes the earliest of all, not the one that was submitted here.
        self._video.submit(self._work)
        return await asyncio.wrap_future(done)

    async def audio(self, work: Callable[[], T]) -> T:
        """Runs work on the sound thread. Cancellation as in ``video``."""
        return await asyncio.get_running_loop().run_in_executor(self._audio, work)

    def _work(self) -> None:
        with self._lock:
            *_, work, done = heapq.heappop(self._waiting)
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    async def aclose(self) -> None:
        """Drops what waits and lets running work finish, for at most ``CLOSE_TIMEOUT_S``; idempotent."""
        self.loops.close()
        pools = (self._video, self._audio)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for *_, done in waiting:
            done.cancel()
        loop = asyncio.get_running_loop()
        finished = asyncio.Event()

        def join() -> None:
            for pool in pools:
                pool.shutdown(wait=True)
            # The loop may have given up, and ended, before the work did.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(finished.set)

        threading.Thread(target=join, name="encoder-join", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await finished.wait()
        except TimeoutError:
            logger.warning("an encoder did not finish in %.1f s", CLOSE_TIMEOUT_S)
