"""Avatars in the making: one at a time, few waiting, each cancellable at any moment until it is there.

Place in the flow: upload and ``Order`` -> ``Jobs.submit`` -> ``WorkerProcess`` -> ``Workplace.install`` ->
``Library``.

Invariants:
    * a job ends exactly once: done, failed or cancelled, and then nothing of its upload is left;
    * an avatar is on the list only when its folder is complete; a name is promised to one job at a time;
    * what a worker says is believed as far as its lines fit, and never makes the server read without a bound.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import BackendFailed, Busy, Closed, InvalidInput, NotFound, VisavisError
from server.library import Library
from server.studio.order import Order
from server.studio.process import Progress
from server.studio.sniff import Upload
from server.studio.worker import MADE_FOLDER
from server.studio.workplace import Workplace

logger = logging.getLogger(__name__)

MAX_WAITING = 3
"""Jobs that wait for the one that runs."""
MAX_REMEMBERED = 50
"""Jobs that are over and can still be asked about."""

T = TypeVar("T")
OnThread = Callable[[Callable[[], T]], Awaitable[T]]
Work = Callable[[Path, Order, Upload, Progress], Awaitable[None]]
"""Makes the avatar of an upload in the folder of its job; raises VisavisError, and stops at once when cancelled."""


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(slots=True)
class Job:
    """One avatar in the making.

    Attributes:
        id: unguessable; whoever has it may watch and cancel.
        order: what to make.
        state: where it stands.
        stage: what is being done, for people who read English.
        progress: share done, in [0, 1].
        error: why it failed.
    """

    id: str
    order: Order
    state: State = State.QUEUED
    stage: str = ""
    progress: float = 0.0
    error: VisavisError | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _folder: Path | None = None
    _ending: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The job as the wire shows it."""
        shown: dict[str, Any] = {
            "id": self.id,
            "name": self.order.name,
            "title": self.order.title,
            "state": self.state.value,
            "stage": self.stage,
            "progress": round(self.progress, 3),
        }
        if self.error is not None:
            shown["error"] = self.error.to_dict()
        return shown

    async def changes(self, every_s: float) -> AsyncIterator[dict[str, Any] | None]:
        """The job now and after each change until it is over; None when nothing changed for ``every_s``."""
        while True:
            changed = self._changed
            yield self.to_dict()
            if self.state.over:
                return
            while not changed.is_set():
                try:
                    async with asyncio.timeout(every_s):
                        await changed.wait()
                except TimeoutError:
                    yield None

    def change(self, **values: Any) -> None:
        """Sets attributes and wakes whoever watches."""
        for name, value in values.items():
            setattr(self, name, value)
        self._changed.set()
        self._changed = asyncio.Event()


class Jobs:
    """All jobs of a server."""

    def __init__(
        self, library: Library, workplace: Workplace, work: Work, on_thread: OnThread[Any], max_avatars: int
    ) -> None:
        """
        Args:
            library: learns of new avatars.
            workplace: has the files.
            work: makes one avatar.
            on_thread: runs blocking work.
            max_avatars: made ones, those in the making included.
        """
        self._library = library
        self._workplace = workplace
        self._work = work
        self._on_thread = on_thread
        self._max_avatars = max_avatars
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._turn = asyncio.Semaphore(1)
        self._closed = False

    @property
    def pending(self) -> list[Job]:
        """Jobs that are not over, the one that runs first."""
        return [job for job in self._jobs.values() if not job.state.over]

    def is_free(self, name: str) -> bool:
        """Whether a well-formed name is neither taken nor promised."""
        return self._library.is_free(name) and all(job.order.name != name for job in self.pending)

    def require_room(self) -> None:
        """Refuses one more job, before its upload is taken in.

        Raises:
            Busy: ``studio_busy``.
            InvalidInput: ``studio_full``.
            Closed: ``shutting_down``.
        """
        if self._closed:
            raise Closed("shutting_down", "The server is stopping.")
        pending = len(self.pending)
        if pending > MAX_WAITING:
            raise Busy("studio_busy", "Other avatars are being made; try again in a minute.")
        if self._library.made_count + pending >= self._max_avatars:
            raise InvalidInput(
                "studio_full", f"There are {self._max_avatars} avatars already, which is the limit. Delete one first."
            )

    def submit(self, folder: Path, order: Order, upload: Upload) -> Job:
        """Begins a job, or has it wait.

        Args:
            folder: of the workplace, with the upload in it; from here on it belongs to the job.
            order: its name is free.
            upload: what the file is.

        Raises:
            As ``require_room``, and InvalidInput ``avatar_exists``; the folder still is the caller's then.
        """
        self.require_room()
        if not self.is_free(order.name):
            raise InvalidInput("avatar_exists", "There is an avatar of this name already; choose another name.")
        job = Job(secrets.token_urlsafe(12), order, _folder=folder)
        self._jobs[job.id] = job
        over = [old for old in self._jobs.values() if old.state.over]
        for old in over[: max(0, len(over) - MAX_REMEMBERED)]:
            del self._jobs[old.id]
        job._task = asyncio.create_task(self._run(job, upload), name="studio-job")
        return job

    def get(self, job_id: str) -> Job:
        """A job by id.

        Raises:
            NotFound: ``job_not_found``.
        """
        if job_id not in self._jobs:
            raise NotFound("job_not_found", "There is no such job; it may have ended long ago.")
        return self._jobs[job_id]

    async def cancel(self, job_id: str) -> Job:
        """Ends a job; returns when nothing of it is left.

        Raises:
            NotFound: ``job_not_found``.
            Closed: ``job_over``: there is nothing left to cancel.
        """
        job = self.get(job_id)
        if job.state.over or job._ending or job._task is None:
            raise Closed("job_over", "This job is over; an avatar that is done can be deleted.")
        await self._cancel(job)
        return job

    async def aclose(self) -> None:
        """Cancels everything; idempotent."""
        self._closed = True
        await asyncio.gather(*(self._cancel(job) for job in self.pending))

    async def _cancel(self, job: Job) -> None:
        assert job._task is not None
        if not job._ending and not job._task.cancelling():
            job._task.cancel()
        await asyncio.wait([job._task])
        if not job.state.over:
            # Cancelled before its first step, it has done nothing, its end included.
            await self._end(job, {"state": State.CANCELLED})

    async def _run(self, job: Job, upload: Upload) -> None:
        assert job._folder is not None
        folder, name = job._folder, job.order.name
        outcome: dict[str, Any] = {"state": State.CANCELLED, "stage": ""}
        try:
            async with self._turn:
                job.change(state=State.RUNNING, stage="starting")
                await self._work(folder, job.order, upload, lambda stage, share: _advance(job, stage, share))
                # From here on it cannot be cancelled: it is there, or it is not, a moment later.
                job._ending = True
                await self._on_thread(lambda: self._install(folder, name))
            outcome = {"state": State.DONE, "stage": "done", "progress": 1.0}
        except VisavisError as error:
            logger.info("no avatar was made: %s", error.code)
            outcome = {"state": State.FAILED, "error": error}
        except asyncio.CancelledError:
            # Asked for by ``_cancel``, which waits for this task and is not cancelled itself.
            pass
        except Exception:
            logger.exception("an avatar could not be made")
            failure = BackendFailed("create_failed", "Something went wrong on the server; its log says what.")
            outcome = {"state": State.FAILED, "error": failure}
        await self._end(job, outcome)

    async def _end(self, job: Job, outcome: dict[str, Any]) -> None:
        job._ending = True
        if (folder := job._folder) is not None:
            await self._on_thread(lambda: self._workplace.close_job(folder))
        job.change(**outcome)

    def _install(self, folder: Path, name: str) -> None:
        self._workplace.install(folder / MADE_FOLDER / name)
        self._library.add(name)


def _advance(job: Job, stage: str, share: float) -> None:
    job.change(stage=stage, progress=max(job.progress, min(share, 0.99)))
