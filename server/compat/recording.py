"""Recordings of sessions into mp4 files that are gone with the server.

Place in the flow: ``Peer.watch`` -> ``Recording.take`` -> thread -> ``Recorder`` -> file -> GET /record/{session_id}.

Invariants:
    * taking a frame never waits: a machine that is too slow for pictures repeats them, sound is kept whole;
    * few recordings exist and each has a longest length, so disk and memory are bounded;
    * a recording ends with its session, and its file is complete from then on.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import secrets
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
from aiohttp import web

from engine.errors import Busy, Closed, NotFound, VisavisError
from engine.recorder import Recorder
from engine.types import FPS, AvatarFrame
from server.live_session import LiveSession

logger = logging.getLogger(__name__)

MAX_KEPT = 8
MAX_LENGTH_S = 1800
MAX_WAITING_PICTURES = 25
"""A second of them; 20 MB at 512 pixels."""
MAX_WAITING_FRAMES = 250
CRF = 23
"""Not to be told from the stream, and a third of the work and size of visually lossless."""


class Recording:
    """One recording, from its first frame to its file."""

    def __init__(self, path: Path) -> None:
        """Args: path: the mp4 it becomes."""
        self.path = path
        self.done = asyncio.get_running_loop().create_future()
        """Set when the file is complete, or has failed."""
        self._loop = asyncio.get_running_loop()
        self._frames: queue.SimpleQueue[AvatarFrame | None] = queue.SimpleQueue()
        self._last: np.ndarray | None = None
        self._taken = 0
        self._ended = False
        threading.Thread(target=self._write, name="recording", daemon=True).start()

    def take(self, frame: AvatarFrame) -> None:
        """Appends a frame; ends by itself at the longest length, or when the machine cannot follow at all."""
        if self._ended:
            return
        waiting = self._frames.qsize()
        if waiting >= MAX_WAITING_PICTURES and self._last is not None:
            frame = replace(frame, image=self._last)
        self._last = frame.image
        self._frames.put(frame)
        self._taken += 1
        if self._taken >= MAX_LENGTH_S * FPS or waiting >= MAX_WAITING_FRAMES:
            logger.warning("a recording ends early, after %d s", self._taken // FPS)
            self.end()

    def end(self) -> None:
        """No more frames; ``done`` tells when the file is complete. Idempotent."""
        if not self._ended:
            self._ended = True
            self._frames.put(None)

    def _write(self) -> None:
        failure: Exception | None = None
        try:
            if (first := self._frames.get()) is not None:
                height, width = first.image.shape[:2]
                with Recorder(self.path, (width, height), CRF) as recorder:
                    frame: AvatarFrame | None = first
                    while frame is not None:
                        recorder.write(frame)
                        frame = self._frames.get()
        except Exception as error:
            failure = error
        self._loop.call_soon_threadsafe(self._settle, failure)

    def _settle(self, failure: Exception | None) -> None:
        self._ended = True
        if failure is not None:
            known = isinstance(failure, VisavisError)
            logger.error("a recording failed: %s", failure, exc_info=None if known else failure)
        if not self.done.done():
            self.done.set_result(None)


class Recordings:
    """All recordings of a server, the last one of each session."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._by_session: dict[str, Recording] = {}
        self._running: set[str] = set()

    def start(self, live: LiveSession) -> None:
        """Begins to record a session, in place of what was recorded of it before; nothing when it is recorded already.

        Raises:
            Busy: ``recordings_busy``.
        """
        if live.id in self._running:
            return
        self._forget(live.id)
        if len(self._by_session) >= MAX_KEPT:
            finished = next((one for one in self._by_session if one not in self._running), None)
            if finished is None:
                raise Busy("recordings_busy", f"{MAX_KEPT} sessions are being recorded; no more are possible.")
            self._forget(finished)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="visavis-recordings-")
        recording = Recording(Path(self._folder.name) / f"{secrets.token_hex(8)}.mp4")
        self._by_session[live.id] = recording
        self._running.add(live.id)
        live.watchers.add(recording.take)
        live.ended.add_done_callback(lambda _ended: recording.end())
        recording.done.add_done_callback(lambda _done: self._finished(live, recording))

    async def stop(self, session_id: str) -> None:
        """Ends a recording and returns when its file is complete; nothing when there is none."""
        if (recording := self._by_session.get(session_id)) is not None:
            recording.end()
            await asyncio.shield(recording.done)

    def file(self, session_id: str) -> Path:
        """The last complete recording of a session.

        Raises:
            NotFound: ``recording_not_found``.
            Closed: ``recording_running``.
        """
        if session_id in self._running:
            raise Closed("recording_running", "It is still being recorded; end it first.")
        recording = self._by_session.get(session_id)
        if recording is None or not recording.path.exists():
            raise NotFound("recording_not_found", "There is no recording of such a session.")
        return recording.path

    async def aclose(self) -> None:
        """Ends all recordings and deletes their files. Idempotent."""
        for session_id in list(self._by_session):
            await self.stop(session_id)
        self._by_session.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _finished(self, live: LiveSession, recording: Recording) -> None:
        if self._by_session.get(live.id) is recording:
            self._running.discard(live.id)
        live.watchers.discard(recording.take)

    def _forget(self, session_id: str) -> None:
        if (recording := self._by_session.pop(session_id, None)) is not None:
            recording.path.unlink(missing_ok=True)


RECORDINGS: web.AppKey[Recordings] = web.AppKey("recordings", Recordings)
