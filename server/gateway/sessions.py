"""The sessions of all workers, with the interface that the front desk knows from its own.

Place in the flow: door, gate, WHEP and studio -> ``RemoteSessions`` -> ``Fleet.place`` -> a worker's internal routes.

Invariants:
    * nothing is known of a session here but its id, so any gateway can serve any session;
    * a worker that refuses, or is gone, costs a newcomer a moment and not the place: the next one is asked;
    * a session that was lost goes on once: whoever offers again with its old id finds the one that it became.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from pydantic import ValidationError

from engine.errors import Busy, Closed, NotFound
from engine.session import Mode
from server import signaling
from server.access.grant import Standing
from server.access.line import Waiting
from server.gateway.fleet import Fleet, Memory, Wanted, WorkerState, worker_of
from server.gateway.links import Links, WorkerLost
from server.metrics import ServerMetrics
from server.packing import Background
from server.signaling import Description
from server.snapshot import Snapshot
from server.stage import NO_WISHES, Wishes
from server.worker.wire import Opened, Opening, Rejoining

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Workers that are asked for one newcomer."""
LOOK_S = 0.25
"""How old what is known of the workers may be."""
ASK_S = 3.0
"""How long a worker may take to say whether it knows a session."""
SUCCESSOR = "successor"
"""Member of what is left of a session that goes on already: the id it has now."""


@dataclass(frozen=True, slots=True)
class RemoteSession:
    """A session on a worker.

    Attributes:
        id: what the browser calls it.
        resumed: it goes on with what was said in one that was lost.
    """

    id: str
    resumed: bool = False


class RemoteSessions:
    """The places of all workers."""

    def __init__(self, fleet: Fleet, memory: Memory, links: Links, metrics: ServerMetrics) -> None:
        """Args: fleet: the workers; memory: of their sessions; links: to them; metrics: where to count."""
        self._fleet = fleet
        self._memory = memory
        self._links = links
        self._metrics = metrics
        self._seen: Sequence[WorkerState] = ()
        self._returning: dict[str, asyncio.Lock] = {}
        self._closing = False

    async def watch(self) -> None:
        """Keeps what is known of the workers fresh, until it is cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                # Whoever stops looking takes a full server for full, and a lost worker for one that lives, for ever.
                logger.exception("the workers could not be looked at")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> Sequence[WorkerState]:
        """The workers as they are now."""
        self._seen = await self._fleet.workers()
        await self._links.retain({worker.name for worker in self._seen})
        return self._seen

    @property
    def workers(self) -> Sequence[WorkerState]:
        """The workers as they were a moment ago."""
        return self._seen

    @property
    def places(self) -> int:
        """How many sessions there may be at a time."""
        return sum(worker.places for worker in self._seen if worker.state == "ready")

    @property
    def taken(self) -> int:
        """Places taken."""
        return sum(worker.taken for worker in self._seen)

    @property
    def free(self) -> int:
        """Places that nobody has taken, or only somebody who is lost."""
        return sum(worker.free for worker in self._seen)

    def turned_away(self) -> None:
        """Counts an offer for which there was no place."""
        self._metrics.offer("full")

    def shows(self, avatar: str) -> bool:
        """Whether somebody looks at an avatar."""
        return any(avatar in worker.avatars for worker in self._seen)

    def new_id(self) -> str:
        """An unguessable id of something that no worker has."""
        return secrets.token_urlsafe(12)

    def shut_door(self) -> None:
        """Lets no one in any more, save those who come back."""
        self._closing = True

    async def open(
        self,
        avatar: str,
        sdp: str,
        kind: str,
        mode: Mode = "say",
        wishes: Wishes = NO_WISHES,
        max_duration_s: float | None = None,
    ) -> tuple[RemoteSession, Description]:
        """See ``Sessions.open``; a session that was lost begins anew once, however often it is asked for."""
        if not wishes.former:
            return await self._open(Opening.of(avatar, sdp, kind, mode, wishes, max_duration_s), wishes.standing)
        lock = self._returning.setdefault(wishes.former, asyncio.Lock())
        try:
            async with lock:
                # Whoever offered at the same time may have been first.
                if (successor := await self._successor(wishes.former)) is not None:
                    live, description = await self._rejoin(successor, Rejoining(sdp=sdp, type=kind))
                    return RemoteSession(live.id, resumed=True), description
                opening = Opening.of(avatar, sdp, kind, mode, wishes, max_duration_s)
                live, description = await self._open(opening, wishes.standing)
                await self._continue(wishes.former, live.id, max_duration_s)
                logger.info("session %s goes on as %s", wishes.former[:8], live.id[:8])
                return live, description
        finally:
            if not lock.locked():
                self._returning.pop(wishes.former, None)

    async def rejoin(
        self, session_id: str, sdp: str, kind: str, background: Background | None = None
    ) -> tuple[RemoteSession, Description]:
        """See ``Sessions.rejoin``."""
        wanted = Rejoining(sdp=sdp, type=kind, background=background)
        try:
            if worker_of(session_id) and self.known(session_id) is not None:
                return await self._rejoin(session_id, wanted)
            successor = await self._successor(session_id)
            if successor is not None:
                live, description = await self._rejoin(successor, wanted)
                return RemoteSession(live.id, resumed=True), description
        except WorkerLost as error:
            # The client offers again by itself, and then it is known to be gone.
            raise Busy("worker_lost", "The process of this session was lost; try again.", retry_after_s=1) from error
        raise _unknown()

    async def knows(self, session_id: str) -> bool:
        """Whether there is such a session on any worker, or one that it became."""
        if await self._lives(session_id):
            return True
        successor = await self._successor(session_id)
        return successor is not None and await self._lives(successor)

    async def recall(self, session_id: str) -> Snapshot | None:
        """What is left of a session whose worker was lost; None when it ended in order, or never was."""
        left = await self._memory.recall(session_id) if worker_of(session_id) else None
        if left is None:
            return None
        if SUCCESSOR in left:
            return await self.recall(str(left[SUCCESSOR]))
        try:
            return Snapshot.model_validate(left)
        except ValidationError:
            logger.exception("what is left of a session cannot be read")
            return None

    def get(self, session_id: str) -> NoReturn:
        """No session is in this process. Raises NotFound ``session_not_found``."""
        raise _unknown()

    def known(self, an_id: str) -> WorkerState | None:
        """The worker that an id belongs to, if it is there."""
        name = worker_of(an_id)
        return next((it for it in self._seen if it.name == name and it.state in ("ready", "draining")), None)

    async def close(self, session_id: str) -> None:
        """Ends a session; one whose worker is lost has ended. Raises NotFound ``session_not_found``."""
        worker = self.known(session_id)
        if worker is None or not _harmless(session_id):
            raise _unknown()
        with contextlib.suppress(WorkerLost):
            await self._links.call(worker, "DELETE", f"/sessions/{session_id}")

    async def place(self) -> WorkerState:
        """A worker with a place. Raises Busy ``server_full``."""
        return await self._fleet.place(Wanted())

    async def aclose(self) -> None:
        """Lets no one in; the sessions belong to the workers. Idempotent."""
        self._closing = True

    async def _open(self, opening: Opening, standing: Standing) -> tuple[RemoteSession, Description]:
        if self._closing:
            raise Closed("shutting_down", "The server is stopping.")
        avoid: set[str] = set()
        try:
            return await self._ask_workers(opening, standing, avoid)
        except Waiting:
            raise
        except BaseException:
            if avoid and standing.token_id:
                await self._fleet.give_back(standing.token_id)
            raise

    async def _ask_workers(
        self, opening: Opening, standing: Standing, asked: set[str]
    ) -> tuple[RemoteSession, Description]:
        """Args: opening: for whom; standing: in the line; asked: takes the names of all workers that had a place."""
        for attempt in range(ATTEMPTS):
            wanted = Wanted(
                opening.avatar, opening.priority, frozenset(asked), standing.ticket, standing.token_id,
                standing.token_expires_s,
            )  # fmt: skip
            worker = await self._fleet.place(wanted)
            asked.add(worker.name)
            try:
                told = await self._links.call(worker, "POST", "/internal/sessions", opening.model_dump(mode="json"))
                return _read(told)
            except WorkerLost:
                logger.warning("the worker %s was gone when a session was to begin on it", worker.name)
                if attempt == ATTEMPTS - 1:
                    raise Busy("server_full", "No process could take this session; try again.") from None
            except (Busy, Closed) as refused:
                # It was fuller than it seemed, or began to drain this moment.
                if attempt == ATTEMPTS - 1 or refused.code not in ("server_full", "shutting_down"):
                    raise
            finally:
                await self.look()
        raise AssertionError("the last attempt returns or raises")

    async def _rejoin(self, session_id: str, wanted: Rejoining) -> tuple[RemoteSession, Description]:
        worker = self.known(session_id)
        if worker is None or not _harmless(session_id):
            raise _unknown()
        path = f"/internal/sessions/{session_id}/offer"
        return _read(await self._links.call(worker, "POST", path, wanted.model_dump(mode="json")))

    async def _lives(self, session_id: str) -> bool:
        worker = self.known(session_id)
        if worker is None or not _harmless(session_id):
            return False
        try:
            await self._links.call(worker, "GET", f"/internal/sessions/{session_id}", timeout_s=ASK_S)
        except (WorkerLost, NotFound):
            return False
        return True

    async def _successor(self, session_id: str) -> str | None:
        left = await self._memory.recall(session_id) if worker_of(session_id) else None
        if left is None or SUCCESSOR not in left:
            return None
        successor = str(left[SUCCESSOR])
        if await self._lives(successor):
            return successor
        return await self._successor(successor)

    async def _continue(self, former: str, successor: str, max_duration_s: float | None) -> None:
        left = await self._memory.recall(former) or {}
        kept = {"end_at_s": left["end_at_s"]} if "end_at_s" in left else {}
        await self._memory.keep(former, {SUCCESSOR: successor, **kept})


def _read(told: object) -> tuple[RemoteSession, Description]:
    opened = Opened.model_validate(told)
    return RemoteSession(opened.session_id, opened.resumed), signaling.Description(opened.sdp, opened.type)


def _harmless(session_id: str) -> bool:
    """Whether an id of a client can be part of a path."""
    return session_id.replace("-", "").replace("_", "").replace(".", "").isalnum() and session_id.isascii()


def _unknown() -> NotFound:
    return NotFound("session_not_found", "There is no such session; it may have ended.")
