"""A picture on its way from the producer that asked for it to the thread that draws it, and back.

Place in the flow: producer -> ``Renderer.submit`` -> Rendering -> render thread -> ``Rendering.result``.

Invariants:
    * it is begun or withdrawn, never both, whichever thread comes first;
    * one that was withdrawn or cancelled before it began costs nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from engine.renderer.draw import PictureJob, Rendered
from engine.renderer.restoring import SessionRestoring


class Rendering:
    """A picture on its way.

    Attributes:
        job: what to render.
        owner: whose later pictures this one may be given up for.
        result: done with a Rendered or a BackendFailed; cancelled when withdrawn or given up.
        deadline_s: when it is needed, monotonic seconds.
        session: with what it is restored; None leaves it unrestored.
        draft: the picture without restoring, from when it is drawn; for whoever cannot wait.
        on_withdrawn: called when it was withdrawn, so that it waits no more.
    """

    __slots__ = (
        "_begun", "_lock", "_submitted_s", "deadline_s", "draft", "job", "on_withdrawn", "owner", "result", "session",
    )  # fmt: skip

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
        self.on_withdrawn: Callable[[], None] | None = None
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
        if self.on_withdrawn is not None:
            self.on_withdrawn()
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
