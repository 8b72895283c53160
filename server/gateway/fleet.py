"""What a gateway knows of its workers, and what survives one of them: the two protocols that a fleet implements.

Place in the flow: gateway -> ``Fleet.place`` -> its address; worker -> ``Memory.keep`` after every turn -> another
worker, when the first one is lost. ``server.gateway.local`` has processes of this machine behind them.

Invariants:
    * a worker has a name of its own that no later one gets, so an id that begins with it is never somebody else's;
    * a worker alone decides whether it takes a session: what is known of it here may be half a second old;
    * whatever a gateway knows of a session stands in its id: ``<worker>-<secret>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from engine.errors import Busy

State = Literal["starting", "ready", "draining", "gone"]
Snapshot = dict[str, Any]
"""A session as JSON, see ``server.snapshot``."""

SEPARATOR = "-"
"""Between a worker's name, which has none of it, and the secret part of an id."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker as it was a moment ago.

    Attributes:
        name: letters, digits, dots and underscores.
        address: ``unix:/path/of/a/socket`` or ``http://host:port``.
        secret: shown to it with every request.
        state: only one that is ready takes new sessions; one that drains keeps those it has.
        places: sessions it can hold.
        taken: places taken, those that were reserved and not heard of since included.
        load: what it does of what it could do, 0 to 1 and more.
        avatars: names of the faces its sessions show.
        yielding: how many of the places taken are kept for browsers that were lost, and go to whoever wants them.
    """

    name: str
    address: str = ""
    secret: str = field(default="", repr=False)
    state: State = "starting"
    places: int = 0
    taken: int = 0
    load: float = 0.0
    avatars: frozenset[str] = frozenset()
    yielding: int = 0

    @property
    def free(self) -> int:
        """Places that it would give to a newcomer."""
        return max(0, self.places - self.taken + self.yielding) if self.state == "ready" else 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """For whom a place is wanted.

    Attributes:
        avatar: name of the face; a worker that shows it already has it in memory.
        priority: 0 to 9, as the session will have it.
        avoid: names of workers that have just refused.
        ticket: place in a line that all gateways share; empty for who would stand in it, None for who would not.
        token_id, token_expires_s: of a token to be spent on the place, where gateways share what is spent.
    """

    avatar: str = ""
    priority: int = 5
    avoid: frozenset[str] = frozenset()
    ticket: str | None = None
    token_id: str = ""
    token_expires_s: float = 0.0


class Fleet(Protocol):
    """The workers of a server."""

    async def workers(self) -> Sequence[WorkerState]:
        """All that are not gone."""
        ...

    async def place(self, wanted: Wanted) -> WorkerState:
        """Where a new session should begin; the place is counted as taken until the worker says more.

        Raises:
            Busy: ``server_full``; with a place in the line where the fleet keeps one.
            AccessDenied: ``token_used``, where the fleet keeps what is spent.
        """
        ...

    async def give_back(self, token_id: str) -> None:
        """The session that a token was spent on did not come about; nothing where the fleet keeps no tokens."""
        ...

    async def lost(self, name: str) -> None:
        """A request found no worker of that name at its address; what is done about it is the fleet's business."""
        ...


class Memory(Protocol):
    """Sessions as they are to go on elsewhere; what is not fetched is forgotten when they would have ended."""

    async def keep(self, session_id: str, snapshot: Snapshot) -> None:
        """Takes the latest state of a session, in place of the one before."""
        ...

    async def recall(self, session_id: str) -> Snapshot | None:
        """The latest state of a session; None for one that ended in order or never was."""
        ...

    async def forget(self, session_id: str) -> None:
        """The session has ended in order."""
        ...


def worker_of(session_id: str) -> str:
    """Name of the worker that gave out an id; empty when no worker did."""
    name, separator, _ = session_id.partition(SEPARATOR)
    return name if separator else ""


def pick(workers: Iterable[WorkerState], wanted: Wanted) -> WorkerState:
    """The worker for a newcomer: the one with the smallest share of its places taken, so that nobody who may come back
    loses a place while there is another; of equals, the one that shows the face already, then the least busy, then the
    first by name.

    Raises:
        Busy: ``server_full``.
    """
    usable = [worker for worker in workers if worker.free > 0 and worker.name not in wanted.avoid]
    if not usable:
        raise Busy("server_full", "All places are taken; try again in a moment.")
    return min(usable, key=lambda it: (it.taken / it.places, wanted.avatar not in it.avatars, it.load, it.name))
